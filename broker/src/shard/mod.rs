//! A shard: one thread that owns many partitions, steps them, appends inline and answers; its connections live on the same
//! thread. A request for a partition of another shard goes there through its queue.
//!
//! Owns: partitions, and the pairing of requests with answers. Never: waits for a disk's sync, a socket or the controller
//! inside a turn. Invariant: a partition belongs to exactly one shard, by its id alone.

mod fetch;
mod followers;
mod housekeeping;
mod images;
mod leaders;
pub mod message;
mod run;
mod streams;
mod waiters;
mod world;

use protocol::ids::TopicPartition;
use std::sync::Arc;
use tokio::sync::mpsc;

use crate::limits;
use message::{Control, Request};

pub use run::{Shard, ShardParts};

/// The way into one shard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShardSender {
    control: mpsc::UnboundedSender<Control>,
    requests: mpsc::Sender<Request>,
}

/// The shard's end of its queues.
#[derive(Debug)]
pub struct ShardQueues {
    pub(crate) control: mpsc::UnboundedReceiver<Control>,
    pub(crate) requests: mpsc::Receiver<Request>,
}

impl ShardSender {
    /// Both ends of one shard's queues.
    #[must_use]
    pub fn new() -> (Self, ShardQueues) {
        let (control, control_end) = mpsc::unbounded_channel();
        let (requests, requests_end) = mpsc::channel(limits::SHARD_QUEUE);
        (Self { control, requests }, ShardQueues { control: control_end, requests: requests_end })
    }

    /// A completion or an order; never waits. A shard that has stopped hears nothing.
    pub fn control(&self, message: Control) {
        self.control.send(message).ok();
    }

    /// A request; waits while the queue is full. A shard that has stopped hears nothing, and the request's reply slot is
    /// dropped, which its owner notices.
    pub async fn request(&self, request: Request) {
        self.requests.send(request).await.ok();
    }
}

/// Every shard of the broker.
#[derive(Debug, Clone)]
pub struct Shards(Arc<[ShardSender]>);

impl Shards {
    /// In order of their numbers.
    #[must_use]
    pub fn new(senders: Vec<ShardSender>) -> Self {
        assert!(!senders.is_empty(), "a broker has at least one shard: its configuration was checked");
        Self(senders.into())
    }

    /// Number of the shard that owns the partition.
    #[must_use]
    pub fn index_of(&self, at: TopicPartition) -> usize {
        let (high, low) = at.topic.0.as_u64_pair();
        let spread = (high ^ low).wrapping_add(u64::from(at.partition));
        usize::try_from(spread % self.0.len() as u64).unwrap_or(0)
    }

    /// The shard that owns the partition.
    #[must_use]
    pub fn of(&self, at: TopicPartition) -> &ShardSender {
        self.at(self.index_of(at))
    }

    /// A shard by number.
    #[must_use]
    pub fn at(&self, index: usize) -> &ShardSender {
        &self.0[index]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ShardSender> {
        self.0.iter()
    }
}
