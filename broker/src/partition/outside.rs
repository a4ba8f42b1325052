//! What a partition needs done around it: answers, streams, the flush pool, notes, the controller. The shard implements it
//! with tasks and sockets, a simulator with queues. Data only goes out; nothing here returns a decision.

use bytes::Bytes;
use log::FlushJob;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicPartition};

use crate::fatal::Fatal;
use crate::replica::Checkpoint;
use crate::replica::effect::{LogEndReport, ProduceOutcome, ToFollower, ToLeader};
use crate::replica::input::{RequestId, SubscriptionId};
use crate::replica::read::WireState;

pub use super::note::Note;

/// Batches on their way to a follower, with what travels beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushOut {
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// First offset of `batches`.
    pub base: u64,
    /// None = unknown in this epoch.
    pub high_watermark: Option<u64>,
    /// The leader's log start.
    pub log_start: u64,
    /// Whole batches; empty = only the positions moved.
    pub batches: Bytes,
}

/// One life of a partition in this process, from its opening to its end. Whatever is answered later names it, so that
/// nothing done for a partition that was taken away counts for the one opened in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Which partition.
    pub at: TopicPartition,
    /// As [`crate::replica::Identity::slot`].
    pub slot: u32,
}

/// A change of the ISR to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrProposal {
    /// Whose; to give back with the result.
    pub life: Life,
    /// To give back with the result.
    pub attempt: u64,
    /// Compare.
    pub leader_epoch: LeaderEpoch,
    /// Compare.
    pub partition_epoch: PartitionEpoch,
    /// And set.
    pub new_isr: Vec<(BrokerId, BrokerEpoch)>,
}

/// One follower's subscription to one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// Which partition.
    pub at: TopicPartition,
    /// Who follows.
    pub follower: BrokerId,
    /// Which attempt.
    pub number: SubscriptionId,
}

/// The world around partitions.
pub trait Outside {
    /// A produce is decided; what the replica believes goes with every answer.
    fn reply(&mut self, at: TopicPartition, id: RequestId, outcome: ProduceOutcome, state: WireState);
    /// A delete-records is decided.
    fn delete_reply(&mut self, at: TopicPartition, id: RequestId, outcome: Result<u64, ErrorCode>, state: WireState);
    /// Handshake answer to a follower.
    fn to_follower(&mut self, to: Subscription, message: ToFollower);
    /// Whether the stream of this subscription takes another push.
    fn may_push(&self, to: Subscription) -> bool;
    /// Batches or positions to a follower.
    fn push(&mut self, to: Subscription, push: PushOut);
    /// Whether the disk has room for records that a leader pushes. Produced ones are refused before they come here.
    fn has_room(&self) -> bool;
    /// Handshake or acknowledgement to a leader.
    fn to_leader(&mut self, at: TopicPartition, leader: BrokerId, message: ToLeader);
    /// Run this and bring the outcome to `Partition::flushed`.
    fn flush(&mut self, life: Life, job: FlushJob);
    /// Make this note durable and tell `Partition::noted`.
    fn note(&mut self, life: Life, note: Note);
    /// Ask the controller and bring the result to `Partition::isr_result`.
    fn alter(&mut self, proposal: IsrProposal);
    /// Tell the controller what this replica of a leaderless partition has.
    fn report_log_end(&mut self, at: TopicPartition, report: LogEndReport);
    /// High watermark or log start moved: wake readers, remember the checkpoint.
    fn moved(&mut self, at: TopicPartition, checkpoint: Option<Checkpoint>);
    /// Stop the process.
    fn fatal(&mut self, fatal: Fatal);
}
