//! The leaders this shard follows: one stream each, the subscriptions on it, and those that wait for it to come up.
//!
//! Invariant: a subscription that was sent on a stream is reported lost exactly once when that stream ends; one that still
//! waits goes on waiting.

use protocol::ids::{BrokerId, TopicPartition};
use protocol::rpc::convert::topic_id_bytes;
use protocol::rpc::pb::replication::v1::{self as wire, follower_message::Message};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

use crate::replica::effect::ToLeader;
use crate::replica::input::{FollowerAck, Subscribe, SubscriptionId};
use crate::replication::follower::LeaderStream;

/// One followed broker.
#[derive(Debug, Default)]
struct Leader {
    stop: CancellationToken,
    stream: Option<Arc<LeaderStream>>,
    /// Sent or waiting.
    open: BTreeMap<SubscriptionId, TopicPartition>,
    waiting: BTreeMap<SubscriptionId, Subscribe>,
}

/// All followed brokers of one shard.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    leaders: BTreeMap<BrokerId, Leader>,
    /// Brokers for which a dialling task is to be started.
    wanted: BTreeSet<BrokerId>,
}

impl Leaders {
    /// Leaders that need a dialling task, with the token that stops it.
    pub(super) fn to_dial(&mut self) -> Vec<(BrokerId, CancellationToken)> {
        let wanted = std::mem::take(&mut self.wanted);
        wanted.into_iter().filter_map(|id| Some((id, self.leaders.get(&id)?.stop.clone()))).collect()
    }

    /// Ends the streams that carry nothing any more.
    pub(super) fn drop_idle(&mut self) {
        self.leaders.retain(|_, leader| {
            let idle = leader.open.is_empty();
            if idle {
                leader.stop.cancel();
            }
            !idle
        });
    }

    pub(super) fn send(&mut self, at: TopicPartition, leader: BrokerId, message: ToLeader) {
        match message {
            ToLeader::Subscribe(subscribe) => self.subscribe(at, leader, subscribe),
            ToLeader::Unsubscribe(subscription) => self.unsubscribe(leader, subscription),
            ToLeader::Ack(ack) => self.ack(leader, &ack),
        }
    }

    fn subscribe(&mut self, at: TopicPartition, leader: BrokerId, subscribe: Subscribe) {
        let wanted = &mut self.wanted;
        let entry = self.leaders.entry(leader).or_insert_with(|| {
            wanted.insert(leader);
            Leader::default()
        });
        entry.open.insert(subscribe.subscription, at);
        match &entry.stream {
            Some(stream) => stream.send(wire_subscribe(at, &subscribe)),
            None => {
                entry.waiting.insert(subscribe.subscription, subscribe);
            }
        }
    }

    fn unsubscribe(&mut self, leader: BrokerId, subscription: SubscriptionId) {
        let Some(entry) = self.leaders.get_mut(&leader) else { return };
        let known = entry.open.remove(&subscription).is_some();
        let sent = entry.waiting.remove(&subscription).is_none();
        if let (true, true, Some(stream)) = (known, sent, &entry.stream) {
            stream.send(Message::Unsubscribe(wire::Unsubscribe { subscription: subscription.0 }));
        }
    }

    fn ack(&mut self, leader: BrokerId, ack: &FollowerAck) {
        let Some(entry) = self.leaders.get(&leader) else { return };
        let Some(stream) = entry.stream.as_ref().filter(|_| entry.open.contains_key(&ack.subscription)) else { return };
        let ack = wire::Ack {
            subscription: ack.subscription.0,
            leader_epoch: ack.leader_epoch.0,
            log_end: ack.log_end,
            durable_end: ack.durable_end,
            noted_policy: ack.noted_policy.to_wire(),
            log_start: ack.log_start,
        };
        stream.outbox.merge(|m| m.ack(ack));
    }

    /// A stream stands: what waited is sent.
    pub(super) fn up(&mut self, leader: BrokerId, stream: Arc<LeaderStream>) {
        let Some(entry) = self.leaders.get_mut(&leader) else { return stream.outbox.close() };
        for (subscription, subscribe) in std::mem::take(&mut entry.waiting) {
            if let Some(at) = entry.open.get(&subscription) {
                stream.send(wire_subscribe(*at, &subscribe));
            }
        }
        entry.stream = Some(stream);
    }

    /// A stream ended: returns the subscriptions that were lost with it. One that was replaced takes nothing along.
    pub(super) fn down(
        &mut self,
        leader: BrokerId,
        stream: &Arc<LeaderStream>,
    ) -> Vec<(TopicPartition, SubscriptionId)> {
        let Some(entry) = self.leaders.get_mut(&leader) else { return Vec::new() };
        if !entry.stream.as_ref().is_some_and(|now| Arc::ptr_eq(now, stream)) {
            return Vec::new();
        }
        entry.stream = None;
        let waiting = &entry.waiting;
        let lost: Vec<_> =
            entry.open.iter().filter(|(s, _)| !waiting.contains_key(s)).map(|(s, at)| (*at, *s)).collect();
        entry.open.retain(|s, _| waiting.contains_key(s));
        lost
    }

    /// This subscription is over on our side; the leader is told.
    pub(super) fn drop_subscription(&mut self, leader: BrokerId, subscription: SubscriptionId) {
        self.unsubscribe(leader, subscription);
    }

    /// The leader's answer to the handshake has ended this subscription: it knows already.
    pub(super) fn ended(&mut self, leader: BrokerId, subscription: SubscriptionId) {
        if let Some(entry) = self.leaders.get_mut(&leader) {
            entry.open.remove(&subscription);
        }
    }

    /// Whose subscription this is; None once it was given up.
    pub(super) fn subscriber(&self, leader: BrokerId, subscription: SubscriptionId) -> Option<TopicPartition> {
        self.leaders.get(&leader)?.open.get(&subscription).copied()
    }

    /// Pushed bytes have been taken in (or dropped): the leader may send as many more.
    pub(super) fn credit(&self, leader: BrokerId, bytes: usize) {
        if let Some(stream) = self.leaders.get(&leader).and_then(|l| l.stream.as_ref()) {
            stream.outbox.merge(|m| m.credit(bytes as u64));
        }
    }
}

fn wire_subscribe(at: TopicPartition, subscribe: &Subscribe) -> Message {
    Message::Subscribe(wire::Subscribe {
        subscription: subscribe.subscription.0,
        topic_id: topic_id_bytes(at.topic),
        partition: at.partition,
        leader_epoch: subscribe.leader_epoch.0,
        log_end: subscribe.log_end,
        durable_end: subscribe.durable_end,
        log_start: subscribe.log_start,
        last_epoch: subscribe.last_epoch.map_or(-1, |e| i64::from(e.0)),
        noted_policy: subscribe.noted_policy.to_wire(),
        broker_epoch: subscribe.broker_epoch.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::{BrokerEpoch, LeaderEpoch, TopicId};
    use protocol::metadata::configs::FlushPolicy;

    fn subscribe(number: u64) -> Subscribe {
        Subscribe {
            follower: BrokerId(1),
            broker_epoch: BrokerEpoch(1),
            subscription: SubscriptionId(number),
            leader_epoch: LeaderEpoch(1),
            log_start: 0,
            log_end: 0,
            durable_end: 0,
            last_epoch: None,
            noted_policy: FlushPolicy::Sync,
        }
    }

    #[test]
    fn only_what_was_sent_on_a_stream_is_lost_with_it() {
        let mut leaders = Leaders::default();
        let at = |partition| TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), partition };
        let leader = BrokerId(2);
        leaders.send(at(0), leader, ToLeader::Subscribe(subscribe(1)));
        leaders.send(at(1), leader, ToLeader::Subscribe(subscribe(2)));
        assert_eq!(leaders.to_dial().len(), 1, "one stream for both");
        let (former, stream) = (Arc::default(), Arc::default());
        leaders.up(leader, Arc::clone(&stream));
        assert!(leaders.down(leader, &former).is_empty(), "the end of another stream");
        leaders.send(at(2), leader, ToLeader::Subscribe(subscribe(3)));
        assert_eq!(leaders.down(leader, &stream).len(), 3);
        leaders.send(at(2), leader, ToLeader::Subscribe(subscribe(4)));
        assert!(leaders.down(leader, &stream).is_empty(), "the stream was down already");
        assert_eq!(leaders.subscriber(leader, SubscriptionId(4)), Some(at(2)), "it waits for the next stream");
        leaders.drop_idle();
        assert_eq!(leaders.leaders.len(), 1);
    }

    #[test]
    fn a_subscription_that_its_handshake_ended_is_forgotten() {
        let mut leaders = Leaders::default();
        let at = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), partition: 0 };
        let (leader, stream) = (BrokerId(2), Arc::default());
        for number in 0..1_000 {
            leaders.send(at, leader, ToLeader::Subscribe(subscribe(number)));
            leaders.up(leader, Arc::clone(&stream));
            leaders.ended(leader, SubscriptionId(number));
        }
        assert_eq!(leaders.leaders[&leader].open.len(), 0);
        assert!(leaders.down(leader, &stream).is_empty(), "nothing is lost that was over before");
    }
}
