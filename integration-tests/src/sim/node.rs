//! A machine: its disk, and the life of the broker process on it, if one runs.

use super::process::Process;
use log::data_dir::{DataDir, Identity, Role};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use protocol::ids::BrokerId;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Where the data directory is on every simulated disk.
pub(super) const ROOT: &str = "/data";

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: BrokerId,
    pub(super) disk: MemStorage,
    /// Counts processes; a message to an earlier one is dropped.
    pub(super) life: u64,
    pub(super) process: Option<Process>,
}

impl Node {
    pub(super) fn new(id: BrokerId, cluster: Uuid, directory: Uuid) -> Self {
        let mut node = Self { id, disk: MemStorage::new(), life: 0, process: None };
        node.format(cluster, directory);
        node
    }

    /// A new disk: what an operator does with a broken one.
    pub(super) fn format(&mut self, cluster: Uuid, directory: Uuid) {
        self.disk = MemStorage::new();
        let storage: Arc<dyn Storage> = Arc::new(self.disk.clone());
        let identity = Identity { cluster_id: cluster, node_id: self.id.0, role: Role::Broker, directory };
        DataDir::format(&storage, Path::new(ROOT), &identity).expect("an empty simulated disk can be formatted");
    }
}
