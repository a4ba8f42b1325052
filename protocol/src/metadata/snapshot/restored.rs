//! Facts that stand only in snapshots: each restores a part of the image as it is. Their kinds begin at 1001, so that none
//! can be taken for a fact of a batch. Owns their bytes and how an image is told in them; folding is `rebuild`'s.

use super::super::brokers::{Broker, BrokerState};
use super::super::envelope::{Envelope, FactError, kinds};
use super::super::image::MetadataImage;
use super::super::record::{ConfigSet, Endpoint, RecoveryState, UncleanElection};
use super::super::topics::{Partition, Topic, TopicState, number};
use crate::ids::{BatchNo, BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicId};
use crate::limits::SNAPSHOT_PARTITIONS_PER_FACT;
use crate::locality::Locality;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One restoring fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restored {
    /// First of every snapshot.
    SnapshotBegan(SnapshotBegan),
    /// Identity, versions, counters.
    ClusterRestored(ClusterRestored),
    /// One broker.
    BrokerRestored(BrokerRestored),
    /// One topic; its partitions follow at once.
    TopicRestored(TopicRestored),
    /// Partitions `first..first+n` of a topic.
    PartitionsRestored(PartitionsRestored),
    /// A config value.
    ConfigRestored(ConfigSet),
    /// A partition's latest unclean election.
    UncleanRestored(UncleanElection),
    /// Last of every snapshot.
    SnapshotEnded(SnapshotEnded),
}

kinds! { Restored
    1001 SnapshotBegan;
    1002 ClusterRestored;
    1003 BrokerRestored;
    1004 TopicRestored;
    1005 PartitionsRestored;
    1006 ConfigRestored;
    1007 UncleanRestored;
    1008 SnapshotEnded;
}

/// See [`Restored::SnapshotBegan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBegan {
    /// Batches folded.
    pub batch_no: BatchNo,
    /// Chain hash after them.
    pub chain_hash: u64,
}

/// See [`Restored::SnapshotEnded`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnded {
    /// Facts between head and end.
    pub records: u64,
    /// Their hash, see [`super::image_hash`].
    pub image_hash: u64,
}

/// See [`Restored::ClusterRestored`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRestored {
    /// Identity, nil before the cluster was formed.
    pub cluster_id: Uuid,
    /// Life of the cluster, 0 before it was formed.
    pub incarnation: u64,
    /// Finalized `metadata.version`.
    pub metadata_version: u16,
    /// Highest broker epoch given out.
    pub last_broker_epoch: BrokerEpoch,
}

/// See [`Restored::BrokerRestored`]; fields as in [`Broker`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct BrokerRestored {
    pub broker: BrokerId,
    pub epoch: BrokerEpoch,
    pub incarnation: Uuid,
    pub internal: Endpoint,
    pub client: Endpoint,
    pub locality: Locality,
    pub directories: Vec<Uuid>,
    pub min_metadata_version: u16,
    pub max_metadata_version: u16,
    pub state: BrokerState,
    pub proved: bool,
    pub proof_admissible: bool,
    pub last_unfenced_epoch: Option<BrokerEpoch>,
}

/// See [`Restored::TopicRestored`]; fields as in [`Topic`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct TopicRestored {
    pub topic: TopicId,
    pub name: String,
    pub replication_factor: u16,
    pub created_ms: u64,
    pub state: TopicState,
}

/// See [`Restored::PartitionsRestored`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionsRestored {
    /// Topic.
    pub topic: TopicId,
    /// Number of the first one; equals the partitions restored before.
    pub first: u32,
    /// In order of number.
    pub partitions: Vec<PartitionRestored>,
}

/// One partition; fields as in [`Partition`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct PartitionRestored {
    pub replicas: Vec<BrokerId>,
    pub adding: Vec<BrokerId>,
    pub removing: Vec<BrokerId>,
    pub isr: Vec<BrokerId>,
    pub elr: Vec<BrokerId>,
    pub observers: Vec<BrokerId>,
    pub leader: Option<BrokerId>,
    pub leader_epoch: LeaderEpoch,
    pub partition_epoch: PartitionEpoch,
    pub recovery: RecoveryState,
    pub unclean_epoch: Option<LeaderEpoch>,
}

pub(super) fn cluster(image: &MetadataImage) -> impl Iterator<Item = Restored> {
    let cluster = &image.cluster;
    std::iter::once(Restored::ClusterRestored(ClusterRestored {
        cluster_id: cluster.cluster_id,
        incarnation: cluster.incarnation,
        metadata_version: cluster.metadata_version,
        last_broker_epoch: cluster.last_broker_epoch,
    }))
}

pub(super) fn brokers(image: &MetadataImage) -> impl Iterator<Item = Restored> {
    image.brokers.iter().map(|broker| Restored::BrokerRestored(broker.into()))
}

pub(super) fn topics(image: &MetadataImage) -> impl Iterator<Item = Restored> {
    image.topics.iter().flat_map(|topic| std::iter::once(head(topic)).chain(partitions(topic)))
}

pub(super) fn configs(image: &MetadataImage) -> impl Iterator<Item = Restored> {
    image.configs.iter().map(|(resource, key, value)| {
        Restored::ConfigRestored(ConfigSet { resource, key: key.to_owned(), value: value.to_owned() })
    })
}

pub(super) fn unclean(image: &MetadataImage) -> impl Iterator<Item = Restored> {
    image.topics.unclean_elections().map(|election| Restored::UncleanRestored(election.clone()))
}

fn head(topic: &Topic) -> Restored {
    Restored::TopicRestored(TopicRestored {
        topic: topic.id,
        name: topic.name.clone(),
        replication_factor: topic.replication_factor,
        created_ms: topic.created_ms,
        state: topic.state,
    })
}

fn partitions(topic: &Topic) -> impl Iterator<Item = Restored> {
    (0..topic.partitions.len()).step_by(SNAPSHOT_PARTITIONS_PER_FACT).map(|first| {
        let group = topic.partitions.iter().skip(first).take(SNAPSHOT_PARTITIONS_PER_FACT);
        Restored::PartitionsRestored(PartitionsRestored {
            topic: topic.id,
            first: number(first),
            partitions: group.map(Into::into).collect(),
        })
    })
}

impl From<&Broker> for BrokerRestored {
    fn from(b: &Broker) -> Self {
        Self {
            broker: b.id,
            epoch: b.epoch,
            incarnation: b.incarnation,
            internal: b.internal.clone(),
            client: b.client.clone(),
            locality: b.locality.clone(),
            directories: b.directories.clone(),
            min_metadata_version: b.min_metadata_version,
            max_metadata_version: b.max_metadata_version,
            state: b.state,
            proved: b.proved,
            proof_admissible: b.proof_admissible,
            last_unfenced_epoch: b.last_unfenced_epoch,
        }
    }
}

impl From<BrokerRestored> for Broker {
    fn from(f: BrokerRestored) -> Self {
        Self {
            id: f.broker,
            epoch: f.epoch,
            incarnation: f.incarnation,
            internal: f.internal,
            client: f.client,
            locality: f.locality,
            directories: f.directories,
            min_metadata_version: f.min_metadata_version,
            max_metadata_version: f.max_metadata_version,
            state: f.state,
            proved: f.proved,
            proof_admissible: f.proof_admissible,
            last_unfenced_epoch: f.last_unfenced_epoch,
        }
    }
}

impl From<&Partition> for PartitionRestored {
    fn from(p: &Partition) -> Self {
        Self {
            replicas: p.replicas.clone(),
            adding: p.adding.clone(),
            removing: p.removing.clone(),
            isr: p.isr.clone(),
            elr: p.elr.clone(),
            observers: p.observers.clone(),
            leader: p.leader,
            leader_epoch: p.leader_epoch,
            partition_epoch: p.partition_epoch,
            recovery: p.recovery,
            unclean_epoch: p.unclean_epoch,
        }
    }
}

impl From<PartitionRestored> for Partition {
    fn from(f: PartitionRestored) -> Self {
        Self {
            replicas: f.replicas,
            adding: f.adding,
            removing: f.removing,
            isr: f.isr,
            elr: f.elr,
            observers: f.observers,
            leader: f.leader,
            leader_epoch: f.leader_epoch,
            partition_epoch: f.partition_epoch,
            recovery: f.recovery,
            unclean_epoch: f.unclean_epoch,
        }
    }
}
