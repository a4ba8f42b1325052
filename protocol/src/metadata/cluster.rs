//! What concerns the cluster as a whole: identity, life, finalized version, the broker epoch counter.

use crate::ids::BrokerEpoch;
use uuid::Uuid;

/// Identity and counters of the cluster. Before the first fact everything is nil.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClusterImage {
    /// Identity, nil before `ClusterFormed`.
    pub cluster_id: Uuid,
    /// Life of the cluster, from 1.
    pub incarnation: u64,
    /// Finalized `metadata.version`.
    pub metadata_version: u16,
    /// Highest broker epoch given out.
    pub last_broker_epoch: BrokerEpoch,
}

impl ClusterImage {
    /// Whether `ClusterFormed` was folded.
    #[must_use]
    pub fn is_formed(&self) -> bool {
        self.incarnation > 0
    }
}
