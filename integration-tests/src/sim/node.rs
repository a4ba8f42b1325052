//! A machine: its disk, its clock, and the life of the broker process on it, if one runs.

use super::clock::Clock;
use super::faults::Fault;
use super::follow::Following;
use super::process::Process;
use broker::checkpoints::Checkpoints;
use broker::replica::Checkpoint;
use log::data_dir::{DataDir, Identity, Role};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use parking_lot::Mutex;
use protocol::ids::{BrokerEpoch, BrokerId, Millis, TopicPartition};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use uuid::Uuid;

/// Where the data directory is on every simulated disk.
pub(super) const ROOT: &str = "/data";

/// Checkpoints of a broker: a list of the last few values for each partition, of which a start may find any.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    values: Mutex<BTreeMap<TopicPartition, Vec<Checkpoint>>>,
    /// How many of the newest are lost.
    lost: AtomicUsize,
}

/// Values kept of each partition.
const REMEMBERED_MAX: usize = 6;

impl Remembered {
    /// A start after this finds so many values fewer.
    pub(super) fn lose(&self, newest: usize) {
        self.lost.store(newest, Ordering::Relaxed);
    }
}

impl Checkpoints for Remembered {
    fn recall(&self, at: TopicPartition) -> Option<Checkpoint> {
        let values = self.values.lock();
        let known = values.get(&at)?;
        let lost = self.lost.load(Ordering::Relaxed);
        known.len().checked_sub(1 + lost).and_then(|last| known.get(last)).copied()
    }

    fn remember(&self, values: &[(TopicPartition, Checkpoint)]) {
        for (at, checkpoint) in values {
            let mut all = self.values.lock();
            let known = all.entry(*at).or_default();
            known.push(*checkpoint);
            if known.len() > REMEMBERED_MAX {
                known.remove(0);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: BrokerId,
    pub(super) disk: MemStorage,
    pub(super) clock: Clock,
    /// Counts processes; a message to an earlier one is dropped.
    pub(super) life: u64,
    pub(super) process: Option<Process>,
    pub(super) following: Following,
    /// It does not run until then: what comes waits.
    pub(super) frozen_until: Millis,
    /// When the next wake-up is due.
    pub(super) wakes_at: Millis,
    /// Flushes take that long at most.
    pub(super) flush_ms: Millis,
    /// No room for records until then.
    pub(super) full_until: Millis,
    /// High watermarks that processes here have remembered, newest last. No write of them is durable.
    pub(super) remembered: Arc<Remembered>,
    /// The fault that a call to the disk will meet, and whether it has.
    pub(super) armed: Option<(Fault, Arc<AtomicBool>)>,
    /// Some of its calls fail, or have failed, by the plan.
    pub(super) failing: bool,
    /// A copy of the disk, taken under that registration.
    pub(super) copy: Option<(MemStorage, BrokerEpoch)>,
    /// It may lack what it acknowledged, until it has caught up: no other disk may be hurt.
    pub(super) tainted: bool,
    /// There is damage on it that perhaps nobody ever reads.
    pub(super) latent: bool,
    /// The registration under which that happened.
    pub(super) hurt_under: Option<BrokerEpoch>,
}

impl Node {
    pub(super) fn new(id: BrokerId, cluster: Uuid, directory: Uuid, clock: Clock) -> Self {
        let mut node = Self {
            id,
            disk: MemStorage::new(),
            clock,
            life: 0,
            process: None,
            following: Following::default(),
            frozen_until: 0,
            wakes_at: Millis::MAX,
            flush_ms: 0,
            full_until: 0,
            remembered: Arc::default(),
            armed: None,
            failing: false,
            copy: None,
            tainted: false,
            latent: false,
            hurt_under: None,
        };
        node.format(cluster, directory);
        node
    }

    /// Calls to the disk do what they should.
    pub(super) fn unhook(&mut self) {
        self.disk.set_hook(None);
        self.armed = None;
    }

    /// A new disk: what an operator does with a broken one.
    pub(super) fn format(&mut self, cluster: Uuid, directory: Uuid) {
        self.disk = MemStorage::new();
        self.remembered = Arc::default();
        self.armed = None;
        let storage: Arc<dyn Storage> = Arc::new(self.disk.clone());
        let identity = Identity { cluster_id: cluster, node_id: self.id.0, role: Role::Broker, directory };
        DataDir::format(&storage, Path::new(ROOT), &identity).expect("an empty simulated disk can be formatted");
    }
}
