//! What surrounds a shard's partitions: open requests, streams of followers, the flush pool, the registry, the queues to
//! the controller. The implementation of [`Outside`] in production.
//!
//! Invariant: every request given to a replica has one entry here until its one answer, and an answer that needs a lease
//! is checked against it at the moment it leaves (DESIGN section 4).

use protocol::error::{ApiError, ErrorCode, Hint};
use protocol::ids::{BrokerId, TopicPartition};
use protocol::metadata::image::MetadataImage;
use protocol::rpc::convert::known_or_minus_one;
use protocol::rpc::pb::common::v1 as common;
use protocol::rpc::pb::data::v1 as data;
use protocol::rpc::pb::replication::v1::{self as wire, leader_message};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::oneshot;

use super::ShardSender;
use super::followers::Followers;
use super::leaders::Leaders;
use super::message::ProduceReply;
use super::waiters::Waiters;
use crate::controller_queue::ControllerQueue;
use crate::disk_room::DiskRoom;
use crate::fatal::{Fatal, Halt};
use crate::flush_pool::FlushPool;
use crate::lease_cell::LeaseCell;
use crate::metrics::ShardMetrics;
use crate::notes::NoteWriter;
use crate::partition::note::Note;
use crate::partition::outside::{IsrProposal, Life, Outside, PushOut, Subscription};
use crate::replica::Checkpoint;
use crate::replica::effect::{LogEndReport, ProduceOutcome, ToFollower, ToLeader};
use crate::replica::input::RequestId;
use crate::replica::lease::{Guard, Lease};
use crate::replica::read::WireState;

/// An open request.
#[derive(Debug)]
pub(super) enum Open {
    Produce { reply: ProduceReply, began: u64, bytes: u64 },
    Delete(oneshot::Sender<Result<(u64, data::DataState), ApiError>>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct World {
    pub(super) me: BrokerId,
    pub(super) shard: ShardSender,
    pub(super) image: Arc<MetadataImage>,
    pub(super) lease: LeaseCell,
    pub(super) open: BTreeMap<RequestId, Open>,
    next_request: u64,
    pub(super) followers: Followers,
    pub(super) leaders: Leaders,
    pub(super) waiters: Waiters,
    pub(super) checkpoints: BTreeMap<TopicPartition, Checkpoint>,
    pub(super) touched: BTreeSet<TopicPartition>,
    pub(super) flush_pool: FlushPool,
    pub(super) notes: NoteWriter,
    pub(super) controller: ControllerQueue,
    pub(super) disk: Arc<DiskRoom>,
    pub(super) halt: Halt,
    pub(super) metrics: ShardMetrics,
}

/// What a [`World`] is made of.
#[derive(Debug)]
pub(super) struct WorldParts {
    pub(super) me: BrokerId,
    pub(super) shard: ShardSender,
    pub(super) lease: LeaseCell,
    pub(super) leaders: Leaders,
    pub(super) flush_pool: FlushPool,
    pub(super) notes: NoteWriter,
    pub(super) controller: ControllerQueue,
    pub(super) disk: Arc<DiskRoom>,
    pub(super) halt: Halt,
}

impl World {
    pub(super) fn new(parts: WorldParts) -> Self {
        Self {
            me: parts.me,
            shard: parts.shard,
            image: Arc::default(),
            lease: parts.lease,
            open: BTreeMap::new(),
            next_request: 0,
            followers: Followers::default(),
            leaders: parts.leaders,
            waiters: Waiters::default(),
            checkpoints: BTreeMap::new(),
            touched: BTreeSet::new(),
            flush_pool: parts.flush_pool,
            notes: parts.notes,
            controller: parts.controller,
            disk: parts.disk,
            halt: parts.halt,
            metrics: ShardMetrics::default(),
        }
    }

    /// Enters a request.
    pub(super) fn enter(&mut self, open: Open) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.open.insert(id, open);
        id
    }

    /// Credit came back: whatever is fed on this stream may have more to send.
    pub(super) fn touch_followed_on(&mut self, stream: u64) {
        self.touched.extend(self.followers.subscriptions_on(stream).map(|to| to.at));
    }

    /// What every data answer carries.
    pub(super) fn state(&self, belief: WireState, lease: Lease) -> data::DataState {
        data::DataState {
            node_id: self.me.0,
            leader_epoch: belief.leader_epoch.0,
            high_watermark: known_or_minus_one(belief.high_watermark),
            log_start: belief.log_start,
            unleased: !lease.permits(Guard::Lease, crate::clock::now()),
        }
    }

    /// A refusal with the leader's address where that helps.
    pub(super) fn refusal(&self, at: TopicPartition, code: ErrorCode) -> common::Error {
        refusal(&self.image, at, code).into()
    }
}

/// A refusal that concerns a partition, with the leader's address as far as the image knows it.
pub(crate) fn refusal(image: &MetadataImage, at: TopicPartition, code: ErrorCode) -> ApiError {
    let error = ApiError::new(code, format!("partition {at}"));
    let Some(partition) = image.topics.partition(at) else { return error };
    let Some(leader) = partition.leader.and_then(|id| image.brokers.get(id)) else { return error };
    error.with_hint(Hint {
        node_id: leader.id.0,
        host: leader.client.host.clone(),
        port: leader.client.port,
        leader_epoch: Some(partition.leader_epoch.0),
    })
}

impl Outside for World {
    fn reply(&mut self, at: TopicPartition, id: RequestId, outcome: ProduceOutcome, belief: WireState) {
        let Some(Open::Produce { reply, began, bytes }) = self.open.remove(&id) else { return };
        let now = self.lease.now();
        let (error, base_offset) = match outcome {
            ProduceOutcome::Written { base, guard } if now.lets_out(guard) => (None, base),
            ProduceOutcome::Written { .. } => (Some(self.refusal(at, ErrorCode::LeaseExpiredAfterAppend)), 0),
            ProduceOutcome::Refused(code) => (Some(self.refusal(at, code)), 0),
        };
        self.metrics.produced(bytes, now.at.saturating_sub(began), error.as_ref().map(|e| e.code));
        let state = Some(self.state(belief, now.lease));
        reply.send(data::ProduceResponse { correlation: 0, error, base_offset, state });
    }

    fn delete_reply(&mut self, at: TopicPartition, id: RequestId, outcome: Result<u64, ErrorCode>, belief: WireState) {
        let Some(Open::Delete(reply)) = self.open.remove(&id) else { return };
        let now = self.lease.now();
        let state = self.state(belief, now.lease);
        let leased = now.lets_out(Guard::Lease);
        let outcome = outcome.and_then(|start| leased.then_some(start).ok_or(ErrorCode::LeaseExpiredAfterAppend));
        let answer = outcome.map(|start| (start, state)).map_err(|code| refusal(&self.image, at, code));
        reply.send(answer).ok();
    }

    fn to_follower(&mut self, to: Subscription, message: ToFollower) {
        self.followers.answer(to, message);
    }

    fn may_push(&self, to: Subscription) -> bool {
        self.followers.stream(&to).is_some_and(|stream| stream.has_credit())
    }

    fn push(&mut self, to: Subscription, push: PushOut) {
        let Some(stream) = self.followers.stream(&to) else { return };
        let high_watermark = known_or_minus_one(push.high_watermark);
        let (subscription, leader_epoch, log_start) = (to.number.0, push.leader_epoch.0, push.log_start);
        if push.batches.is_empty() {
            let advance = wire::Advance { subscription, leader_epoch, high_watermark, log_start };
            return stream.outbox.merge(|m| m.advance(advance));
        }
        self.metrics.pushed(push.batches.len());
        let base_offset = push.base;
        let batches = push.batches;
        stream.push(wire::Push { subscription, leader_epoch, base_offset, high_watermark, log_start, batches });
    }

    fn has_room(&self) -> bool {
        self.disk.has_room()
    }

    fn to_leader(&mut self, at: TopicPartition, leader: BrokerId, message: ToLeader) {
        self.leaders.send(at, leader, message);
    }

    fn flush(&mut self, life: Life, job: log::FlushJob) {
        self.flush_pool.submit(life, job, self.shard.clone());
    }

    fn note(&mut self, life: Life, note: Note) {
        self.notes.write(life, note, self.shard.clone());
    }

    fn alter(&mut self, proposal: IsrProposal) {
        let members = self.image.topics.partition(proposal.life.at).map_or(0, |p| p.isr.len());
        self.metrics.isr_change(proposal.new_isr.len() > members);
        self.controller.alter(proposal, &self.shard);
    }

    fn report_log_end(&mut self, at: TopicPartition, report: LogEndReport) {
        self.controller.report(at, report);
    }

    fn moved(&mut self, at: TopicPartition, checkpoint: Option<Checkpoint>) {
        if let Some(checkpoint) = checkpoint {
            self.checkpoints.insert(at, checkpoint);
        }
        self.touched.insert(at);
        self.waiters.wake(at);
    }

    fn fatal(&mut self, fatal: Fatal) {
        self.halt.halt(&fatal);
    }
}

pub(super) fn wire_handshake(subscription: u64, message: ToFollower) -> leader_message::Message {
    use leader_message::Message;
    match message {
        ToFollower::Started { leader_epoch, from, high_watermark, log_start } => Message::Started(wire::Started {
            subscription,
            leader_epoch: leader_epoch.0,
            from_offset: from,
            high_watermark: known_or_minus_one(high_watermark),
            log_start,
        }),
        ToFollower::Diverged { leader_epoch, epoch, end } => Message::Diverged(wire::Diverged {
            subscription,
            leader_epoch: leader_epoch.0,
            epoch: epoch.map_or(-1, |e| i64::from(e.0)),
            end_offset: end,
        }),
        ToFollower::BeginAt { leader_epoch, log_start } => {
            Message::BeginAt(wire::BeginAt { subscription, leader_epoch: leader_epoch.0, log_start })
        }
        ToFollower::Refused(code) => {
            let error = ApiError::new(code, "subscription");
            Message::Refused(wire::Refused { subscription, error: Some(error.into()) })
        }
    }
}
