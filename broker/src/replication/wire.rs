//! Between messages of the replication streams and inputs of a replica: what a peer sent, field by field, checked where
//! the replica takes it for granted. Owns no state, decides nothing.

use bytes::Bytes;
use protocol::batch::{self, Origin};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch};
use protocol::metadata::configs::FlushPolicy;
use protocol::rpc::pb::replication::v1::{self as wire, leader_message::Message};
use std::collections::VecDeque;

use crate::replica::input::{BatchSpan, FollowerAck, Input, Pushed, Subscribe, SubscriptionId};

/// A follower's half of the handshake, from the broker and registration that its stream named.
#[must_use]
pub fn subscribe(message: &wire::Subscribe, follower: BrokerId, broker_epoch: BrokerEpoch) -> Subscribe {
    Subscribe {
        follower,
        broker_epoch,
        subscription: SubscriptionId(message.subscription),
        leader_epoch: LeaderEpoch(message.leader_epoch),
        log_start: message.log_start,
        log_end: message.log_end,
        durable_end: message.durable_end,
        last_epoch: u32::try_from(message.last_epoch).ok().map(LeaderEpoch),
        noted_policy: FlushPolicy::from_wire(message.noted_policy),
    }
}

/// A follower's acknowledgement, from the broker and registration that its stream named.
#[must_use]
pub fn ack(ack: &wire::Ack, follower: BrokerId, broker_epoch: BrokerEpoch) -> FollowerAck {
    FollowerAck {
        follower,
        broker_epoch,
        subscription: SubscriptionId(ack.subscription),
        leader_epoch: LeaderEpoch(ack.leader_epoch),
        log_start: ack.log_start,
        log_end: ack.log_end,
        durable_end: ack.durable_end,
        noted_policy: FlushPolicy::from_wire(ack.noted_policy),
    }
}

/// What a leader says without bytes, and for which subscription. None: a welcome, or a push (see [`pushed`]).
#[must_use]
pub fn from_leader(message: &Message) -> Option<(SubscriptionId, Input)> {
    match message {
        Message::Started(m) => Some((SubscriptionId(m.subscription), started(m))),
        Message::Diverged(m) => Some((SubscriptionId(m.subscription), diverged(m))),
        Message::BeginAt(m) => Some((SubscriptionId(m.subscription), begin_at(m))),
        Message::Advance(m) => Some((SubscriptionId(m.subscription), advance(m))),
        Message::Refused(m) => {
            let code = m.error.as_ref().map_or(ErrorCode::Internal, |e| ErrorCode::from_wire(e.code));
            let subscription = SubscriptionId(m.subscription);
            Some((subscription, Input::Refused { subscription, code }))
        }
        Message::Push(_) | Message::Welcome(_) => None,
    }
}

/// A push and the batches it brings.
#[must_use]
pub fn pushed(push: &wire::Push, batches: Vec<BatchSpan>) -> Input {
    Input::Pushed(Pushed {
        subscription: SubscriptionId(push.subscription),
        leader_epoch: LeaderEpoch(push.leader_epoch),
        batches,
        high_watermark: u64::try_from(push.high_watermark).ok(),
        log_start: push.log_start,
    })
}

/// Splits a push into batches, each checked. None: one of them is bad.
#[must_use]
pub fn checked(batches: &Bytes) -> Option<(Vec<BatchSpan>, VecDeque<Bytes>)> {
    let limits = batch::Limits::with_max_batch_bytes(batch::limits::MAX_BATCH_BYTES_CEILING);
    let (mut spans, mut hand) = (Vec::new(), VecDeque::new());
    for one in batch::batches(batches) {
        let one = one.ok()?;
        let info = batch::check(&one, &limits, Origin::Cluster).ok()?;
        let epoch = LeaderEpoch(info.header.leader_epoch?);
        spans.push(BatchSpan { base: info.header.base_offset, end: info.header.next_offset(), epoch });
        hand.push_back(one);
    }
    Some((spans, hand))
}

fn started(m: &wire::Started) -> Input {
    Input::Started {
        subscription: SubscriptionId(m.subscription),
        leader_epoch: LeaderEpoch(m.leader_epoch),
        from: m.from_offset,
        high_watermark: u64::try_from(m.high_watermark).ok(),
        log_start: m.log_start,
    }
}

fn diverged(m: &wire::Diverged) -> Input {
    Input::Diverged {
        subscription: SubscriptionId(m.subscription),
        leader_epoch: LeaderEpoch(m.leader_epoch),
        epoch: u32::try_from(m.epoch).ok().map(LeaderEpoch),
        end: m.end_offset,
    }
}

fn begin_at(m: &wire::BeginAt) -> Input {
    Input::BeginAt {
        subscription: SubscriptionId(m.subscription),
        leader_epoch: LeaderEpoch(m.leader_epoch),
        log_start: m.log_start,
    }
}

fn advance(m: &wire::Advance) -> Input {
    Input::Advance {
        subscription: SubscriptionId(m.subscription),
        leader_epoch: LeaderEpoch(m.leader_epoch),
        high_watermark: u64::try_from(m.high_watermark).ok(),
        log_start: m.log_start,
    }
}
