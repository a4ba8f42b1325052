//! What reaches a shard from outside: requests of applications, events of replication streams, completions, images.
//!
//! Two queues: `Control` never waits (its senders are bounded by what they answer: one flush or note per partition, one
//! ISR result per attempt, one image at a time), `Request` is bounded and makes its senders wait.

use bytes::Bytes;
use log::{Flushed, LogError};
use protocol::batch::BatchInfo;
use protocol::error::ApiError;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, TopicPartition};
use protocol::metadata::image::MetadataImage;
use protocol::rpc::pb::data::v1 as data;
use protocol::rpc::pb::replication::v1 as wire;
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot};

use crate::metadata::feed::Change;
use crate::partition::note::Note;
use crate::partition::outside::Life;
use crate::replica::input::{Acks, IsrOutcome};
use crate::replica::lease::Lease;
use crate::replication::follower::LeaderStream;
use crate::replication::leader::FollowerStream;

/// Completions and orders; never refused.
#[derive(Debug)]
pub enum Control {
    /// A new image; `done` once every partition of the shard has taken it.
    Image {
        /// The image.
        image: Arc<MetadataImage>,
        /// Where to look.
        change: Arc<Change>,
        /// Told when taken.
        done: oneshot::Sender<()>,
    },
    /// The broker is registered under this epoch.
    Registered(BrokerEpoch),
    /// A flush ended.
    Flushed {
        /// Whose.
        life: Life,
        /// How.
        outcome: Result<Flushed, LogError>,
    },
    /// A note in the registry is durable.
    Noted {
        /// Whose.
        life: Life,
        /// What was noted.
        note: Note,
    },
    /// What became of an ISR change.
    Isr {
        /// Whose.
        life: Life,
        /// Which attempt.
        attempt: u64,
        /// Its fate.
        outcome: IsrOutcome,
    },
    /// Another controller is active: tell it again what leaderless partitions hold.
    ActiveControllerChanged,
    /// Stop: close every log cleanly, then answer whether all of them did.
    Stop {
        /// Told at the end.
        done: oneshot::Sender<bool>,
    },
}

/// Requests; senders wait when the queue is full.
#[derive(Debug)]
pub enum Request {
    /// Append a batch.
    Produce(Produce),
    /// Read batches.
    Read(Read),
    /// Find an offset.
    ListOffset(ListOffset),
    /// Drop the head.
    DeleteRecords(DeleteRecords),
    /// Describe the replica.
    Describe {
        /// Which.
        at: TopicPartition,
        /// Where the answer goes.
        reply: oneshot::Sender<data::DescribeReplicaResponse>,
    },
    /// A follower's stream said something about a partition of this shard.
    FromFollower {
        /// Its stream.
        stream: Arc<FollowerStream>,
        /// What.
        event: FollowerEvent,
    },
    /// The stream to a leader said something.
    FromLeader {
        /// Which broker.
        leader: BrokerId,
        /// What.
        event: LeaderEvent,
    },
}

/// One batch to append, checked.
#[derive(Debug)]
pub struct Produce {
    /// Where.
    pub at: TopicPartition,
    /// When to answer.
    pub acks: Acks,
    /// Boot-clock ms at which the answer is "unknown".
    pub deadline: Millis,
    /// The client's belief.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Header and size.
    pub info: BatchInfo,
    /// The bytes.
    pub batch: Bytes,
    /// Where the answer goes.
    pub reply: ProduceReply,
}

/// The way back of one produce, and what it holds until then.
#[derive(Debug)]
pub struct ProduceReply {
    /// The client's number.
    pub correlation: u64,
    /// The stream's answers. Unbounded because each answer holds one of the stream's permits.
    pub answers: mpsc::UnboundedSender<(data::ProduceResponse, OwnedSemaphorePermit)>,
    /// One of the stream's requests in flight; travels with the answer until it is sent.
    pub in_flight: OwnedSemaphorePermit,
    /// The batch's share of the broker's budget for bytes being written.
    pub budget: OwnedSemaphorePermit,
}

impl ProduceReply {
    /// Sends the answer; a client that has gone hears nothing.
    pub fn send(self, mut answer: data::ProduceResponse) {
        answer.correlation = self.correlation;
        drop(self.budget);
        self.answers.send((answer, self.in_flight)).ok();
    }
}

/// Batches from an offset on.
#[derive(Debug)]
pub struct Read {
    /// Where.
    pub at: TopicPartition,
    /// First offset wanted.
    pub offset: u64,
    /// Bytes at most, one batch excepted.
    pub max_bytes: usize,
    /// The client's belief.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record the client has: divergence is reported.
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// The reader does not wait once it has so many bytes of this partition alone.
    pub enough_bytes: usize,
    /// Woken when there may be more; kept only if there was not enough.
    pub waiter: Weak<Notify>,
    /// Where the answer goes, with the lease that it was made under.
    pub reply: oneshot::Sender<(data::FetchedPartition, Lease)>,
}

/// Which offset stands for a time.
#[derive(Debug)]
pub struct ListOffset {
    /// Where.
    pub at: TopicPartition,
    /// -1 latest, -2 earliest, else ms since 1970.
    pub timestamp_ms: i64,
    /// The client's belief.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Where the answer goes, with the lease that it was made under.
    pub reply: oneshot::Sender<(data::ListedOffset, Lease)>,
}

/// Drop records below an offset.
#[derive(Debug)]
pub struct DeleteRecords {
    /// Where.
    pub at: TopicPartition,
    /// First offset to keep, None = high watermark.
    pub before: Option<u64>,
    /// Boot-clock ms at which the answer is "unknown".
    pub deadline: Millis,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<(u64, data::DataState), ApiError>>,
}

/// From a follower's stream to the shard that owns the partition.
#[derive(Debug)]
pub enum FollowerEvent {
    /// Handshake.
    Subscribe {
        /// Which partition.
        at: TopicPartition,
        /// As received.
        message: wire::Subscribe,
    },
    /// It gave up a subscription.
    Unsubscribe(u64),
    /// Positions of subscriptions on this shard.
    Acks(Vec<wire::Ack>),
    /// Credit came back: pumps may go on.
    Credit,
    /// The stream is gone.
    Closed,
}

/// From the stream to a leader, to the shard that opened it.
#[derive(Debug)]
pub enum LeaderEvent {
    /// The stream stands.
    Up(Arc<LeaderStream>),
    /// A message.
    Message(Box<wire::leader_message::Message>),
    /// This stream ended. Another attempt follows while anything is to be followed.
    Down(Arc<LeaderStream>),
}
