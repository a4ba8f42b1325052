//! The writer of the partition registry: a thread that takes notes from every shard, makes as many as wait durable with
//! one sync, and tells the shards.
//!
//! Invariant: a shard hears of a note only when it is durable. A failed write or sync stops the process.

use log::registry::{Event, PartitionKey, Policy, Registry};
use protocol::ids::TopicPartition;
use protocol::metadata::configs::FlushPolicy;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::fatal::{Fatal, Halt};
use crate::limits;
use crate::partition::note::Note;
use crate::shard::ShardSender;
use crate::shard::message::Control;

enum Order {
    Note(TopicPartition, Note, ShardSender),
    SetAside(TopicPartition),
    Removed(TopicPartition),
}

/// Hands notes to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NoteWriter {
    orders: Sender<Order>,
}

impl NoteWriter {
    /// Starts the thread; it ends when every clone is dropped and the queue is empty.
    ///
    /// # Errors
    /// The operating system's, when the thread cannot be started.
    pub fn start(registry: Registry, halt: Halt) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (orders, queue) = channel();
        let thread = std::thread::Builder::new().name("notes".into()).spawn(move || work(registry, &queue, &halt))?;
        Ok((Self { orders }, thread))
    }

    /// Makes a note durable, then tells the shard. Bounded: a partition has one note of each kind under way.
    pub fn write(&self, at: TopicPartition, note: Note, shard: ShardSender) {
        self.send(Order::Note(at, note, shard));
    }

    /// The partition's directory was set aside: from now on it has none.
    pub fn set_aside(&self, at: TopicPartition) {
        self.send(Order::SetAside(at));
    }

    /// The partition's data were deleted by a committed fact.
    pub fn removed(&self, at: TopicPartition) {
        self.send(Order::Removed(at));
    }

    fn send(&self, order: Order) {
        self.orders.send(order).expect("the writer outlives every sender, or has stopped the process");
    }
}

fn work(mut registry: Registry, queue: &Receiver<Order>, halt: &Halt) {
    // Without this thread nothing new would ever be acknowledged.
    let _guard = crate::fatal::AbortOnPanic;
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter().take(limits::NOTES_PER_SYNC - 1));
        let events: Vec<_> = batch.iter().map(event).collect();
        if let Err(error) = registry.record(&events) {
            return halt.halt(&Fatal::Disk(format!("partition registry: {error}")));
        }
        for order in batch {
            if let Order::Note(at, note, shard) = order {
                shard.control(Control::Noted { at, note });
            }
        }
    }
    if let Err(error) = registry.close() {
        halt.halt(&Fatal::Disk(format!("closing the partition registry: {error}")));
    }
}

fn event(order: &Order) -> (PartitionKey, Event) {
    let (at, event) = match order {
        Order::Note(at, Note::Directory, _) => (at, Event::DirCreated),
        Order::Note(at, Note::Policy(policy), _) => (at, Event::PolicyNoted(stored_policy(*policy))),
        Order::SetAside(at) => (at, Event::SetAside),
        Order::Removed(at) => (at, Event::Removed),
    };
    (key(*at), event)
}

/// The registry's name of a partition.
#[must_use]
pub fn key(at: TopicPartition) -> PartitionKey {
    PartitionKey { topic: at.topic.0, partition: at.partition }
}

/// A policy as the registry stores it.
#[must_use]
pub fn stored_policy(policy: FlushPolicy) -> Policy {
    match policy {
        FlushPolicy::Sync => Policy::Sync,
        FlushPolicy::Interval => Policy::Interval,
        FlushPolicy::Os => Policy::Os,
    }
}

/// A policy as the registry has it.
#[must_use]
pub fn noted_policy(policy: Policy) -> FlushPolicy {
    match policy {
        Policy::Sync => FlushPolicy::Sync,
        Policy::Interval => FlushPolicy::Interval,
        Policy::Os => FlushPolicy::Os,
    }
}
