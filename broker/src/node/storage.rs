//! The first part of a start: the data directory and everything in it, before any socket or thread.
//!
//! Invariant: evidence that rests on the page cache is spent durably before recovery may change a log, and the
//! clean-shutdown marker is gone durably before anything is served (DESIGN section 4).

use log::data_dir::{DataDir, Expected, Role};
use log::registry::Registry;
use log::storage::Storage;
use log::storage::reserve::{Reserve, ReservedStorage};
use protocol::ids::TopicPartition;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::StartError;
use crate::checkpoints::{Checkpoints, NoCheckpoints, SledCheckpoints};
use crate::config::Config;
use crate::disk_room::DiskRoom;
use crate::evidence::Evidence;
use crate::limits::{DISK_RESERVE_BYTES, RECOVERY_THREADS};
use crate::partition::Opened;
use crate::recovery::{recover, take_evidence};

/// An opened data directory.
pub(super) struct Opening {
    pub(super) data: Arc<DataDir>,
    pub(super) registry: Registry,
    pub(super) recovered: BTreeMap<TopicPartition, Opened>,
    pub(super) evidence: Arc<Evidence>,
    pub(super) disk: Arc<DiskRoom>,
    pub(super) checkpoints: Box<dyn Checkpoints>,
}

impl Opening {
    pub(super) fn open(config: &Config, storage: Arc<dyn Storage>) -> Result<Self, StartError> {
        let expected = Expected { cluster_id: None, node_id: config.node_id.0, role: Role::Broker };
        let reserve = Reserve::new(storage.clone(), config.data_dir.join("reserve"), DISK_RESERVE_BYTES);
        if let Err(error) = reserve.adopt() {
            tracing::warn!(%error, "the reserve that an earlier process kept cannot be used");
        }
        let storage = Arc::new(ReservedStorage::new(storage, reserve.clone()));
        let data = DataDir::open(storage, &config.data_dir, &expected)?;
        let checkpoints = open_checkpoints(&data);
        let mut evidence = take_evidence(&data)?;
        let mut registry = Registry::open(data.storage(), &data.registry_dir())?;
        let threads = if protocol::machine::simulated().is_some() { 1 } else { RECOVERY_THREADS };
        let recovered = recover(&data, &mut registry, &*checkpoints, threads)?;
        evidence.found = recovered.found;
        data.clear_clean_shutdown()?;
        tracing::info!(
            partitions = recovered.partitions.len(),
            clean = evidence.clean.is_some(),
            same_boot = evidence.same_boot,
            "data directory opened"
        );
        Ok(Self {
            data: Arc::new(data),
            registry,
            recovered: recovered.partitions,
            evidence: Arc::new(evidence),
            disk: DiskRoom::new(reserve),
            checkpoints,
        })
    }
}

fn open_checkpoints(data: &DataDir) -> Box<dyn Checkpoints> {
    // The database goes past the storage, straight to the files of this machine.
    if protocol::machine::simulated().is_some() {
        return Box::new(NoCheckpoints);
    }
    let path = data.cache_dir().join("checkpoints");
    match SledCheckpoints::open(&path) {
        Some(checkpoints) => Box::new(checkpoints),
        None => {
            tracing::warn!(path = %path.display(), "no checkpoints: high watermarks will be learned from the ISR");
            Box::new(NoCheckpoints)
        }
    }
}
