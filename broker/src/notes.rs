//! The writer of the partition registry: a thread that takes notes from every shard, makes as many as wait durable with
//! one sync, and tells the shards.
//!
//! Invariant: a shard hears of a note only when it is durable. A failed write or sync stops the process; notes that find no
//! room on disk wait for it, and with them everything that they must precede.

use log::LogError;
use log::registry::{Event, PartitionKey, Policy, Registry};
use protocol::ids::TopicPartition;
use protocol::machine::{self, Worker};
use protocol::metadata::configs::FlushPolicy;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::fatal::{Fatal, Halt};
use crate::limits;
use crate::partition::note::Note;
use crate::partition::outside::Life;
use crate::shard::ShardSender;
use crate::shard::message::Control;

enum Order {
    Note(Life, Note, ShardSender),
    SetAside(TopicPartition),
    Removed(TopicPartition),
}

/// Hands notes to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct NoteWriter {
    orders: UnboundedSender<Order>,
}

impl NoteWriter {
    /// Starts the thread; it ends when every clone is dropped and the queue is empty.
    ///
    /// # Errors
    /// The operating system's, when the thread cannot be started.
    pub fn start(registry: Registry, halt: Halt) -> std::io::Result<(Self, Worker)> {
        let (orders, queue) = unbounded_channel();
        let thread = Worker::start("notes", move || Ok::<_, std::io::Error>(work(registry, queue, halt)))?;
        Ok((Self { orders }, thread))
    }

    /// Makes a note durable, then tells the shard. Bounded: a partition has one note of each kind under way.
    pub fn write(&self, life: Life, note: Note, shard: ShardSender) {
        self.send(Order::Note(life, note, shard));
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

async fn work(mut registry: Registry, mut queue: UnboundedReceiver<Order>, halt: Halt) {
    // Without this thread nothing new would ever be acknowledged.
    let _guard = crate::fatal::AbortOnPanic;
    while let Some(first) = queue.recv().await {
        machine::pause().await;
        let mut batch = vec![first];
        if let Err(error) = record(&mut registry, &mut batch, &mut queue).await {
            return halt.halt(&Fatal::Disk(format!("partition registry: {error}")));
        }
        for order in batch {
            if let Order::Note(life, note, shard) = order {
                shard.control(Control::Noted { life, note });
            }
        }
    }
    if let Err(error) = registry.close() {
        halt.halt(&Fatal::Disk(format!("closing the partition registry: {error}")));
    }
}

/// Makes the orders and all that wait behind them durable, as soon as there is room. Events of an attempt that found no
/// room half way fold to the same once more. A process that stops meanwhile does so with the error, and so without its
/// clean-shutdown marker.
async fn record(
    registry: &mut Registry,
    batch: &mut Vec<Order>,
    queue: &mut UnboundedReceiver<Order>,
) -> Result<(), LogError> {
    loop {
        while batch.len() < limits::NOTES_PER_SYNC
            && let Ok(order) = queue.try_recv()
        {
            batch.push(order);
        }
        let events: Vec<_> = batch.iter().map(event).collect();
        let error = match registry.record(&events) {
            Err(error @ LogError::DiskFull { .. }) => error,
            other => return other,
        };
        tracing::warn!(%error, notes = events.len(), "no room for registry notes: they wait");
        match timeout(Duration::from_millis(limits::NOTE_RETRY_MS), queue.recv()).await {
            Ok(Some(order)) => batch.push(order),
            Ok(None) => return Err(error),
            Err(_) => {}
        }
    }
}

fn event(order: &Order) -> (PartitionKey, Event) {
    let (at, event) = match order {
        Order::Note(life, Note::Directory, _) => (&life.at, Event::DirCreated),
        Order::Note(life, Note::Policy(policy), _) => (&life.at, Event::PolicyNoted(stored_policy(*policy))),
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

#[cfg(test)]
mod tests {
    use super::*;
    use log::data_dir::{DataDir, Expected, Identity, Role};
    use log::storage::Storage;
    use log::storage::memory::{Call, Fault, MemStorage, Op};
    use parking_lot::Mutex;
    use protocol::ids::TopicId;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};
    use uuid::Uuid;

    type Fatals = Arc<Mutex<Vec<Fatal>>>;

    fn start(disk: &MemStorage) -> (NoteWriter, Worker, Fatals, DataDir) {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let (root, expected) = (Path::new("/data"), Expected { cluster_id: None, node_id: 1, role: Role::Broker });
        let identity = Identity { cluster_id: Uuid::nil(), node_id: 1, role: Role::Broker, directory: Uuid::nil() };
        DataDir::format(&storage, root, &identity).expect("an empty disk");
        let data = DataDir::open(storage, root, &expected).expect("formatted");
        let registry = Registry::open(data.storage(), &data.registry_dir()).expect("a new registry");
        let fatals = Fatals::default();
        let told = fatals.clone();
        let halt = Halt::with(move |fatal| told.lock().push(fatal.clone()));
        let (notes, thread) = NoteWriter::start(registry, halt).expect("threads start");
        (notes, thread, fatals, data)
    }

    /// Nothing finds room; the channel hears of every attempt.
    fn fill(disk: &MemStorage) -> Receiver<()> {
        let (attempt, attempts) = channel();
        let attempt = Mutex::new(attempt);
        disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
            if !matches!(call.op, Op::Write | Op::Preallocate) {
                return None;
            }
            attempt.lock().send(()).ok();
            Some(Fault::Fail(std::io::ErrorKind::StorageFull.into()))
        })));
        attempts
    }

    fn at() -> TopicPartition {
        TopicPartition { topic: TopicId(Uuid::from_u128(1)), partition: 0 }
    }

    #[tokio::test]
    async fn notes_without_room_wait_for_it() {
        let disk = MemStorage::new();
        let (notes, thread, fatals, data) = start(&disk);
        let (shard, mut queues) = ShardSender::new();
        let attempts = fill(&disk);
        notes.write(Life { at: at(), slot: 1 }, Note::Directory, shard);
        attempts.recv().expect("it tries");
        assert!(queues.control.try_recv().is_err(), "nothing is durable");
        disk.set_hook(None);
        let told = queues.control.recv().await;
        assert!(matches!(told, Some(Control::Noted { note: Note::Directory, .. })), "{told:?}");
        drop(notes);
        assert!(thread.join().await, "it ends with its senders");
        assert_eq!(*fatals.lock(), []);
        let registry = Registry::open(data.storage(), &data.registry_dir()).expect("whole");
        assert!(registry.get(&key(at())).is_some_and(|entry| entry.dir_created));
    }

    #[tokio::test]
    async fn a_stop_with_notes_that_found_no_room_is_no_clean_one() {
        let disk = MemStorage::new();
        let (notes, thread, fatals, _data) = start(&disk);
        let attempts = fill(&disk);
        notes.removed(at());
        attempts.recv().expect("it tries");
        drop(notes);
        assert!(thread.join().await, "it ends with its senders");
        assert!(matches!(fatals.lock().as_slice(), [Fatal::Disk(_)]));
    }
}
