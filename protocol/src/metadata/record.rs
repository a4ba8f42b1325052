//! Facts: what has happened, in the past tense. On the wire and on disk each is an envelope
//! `{kind, version, bytes}`; bytes are postcard, strict (nothing may be left over). Version 1 of every kind
//! is pinned by golden files. A changed fold is a new version, written only once `metadata.version` allows it.
//!
//! Facts group partitions by topic so that one partition costs 32 bytes or less.

use super::brokers::BrokerView;
use super::envelope::kinds;
pub use super::envelope::{Envelope, FactError};
use crate::ids::{BrokerEpoch, BrokerId, TopicId};
use crate::locality::Locality;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Highest `metadata.version` this build writes and folds.
pub const METADATA_VERSION_MAX: u16 = 1;
/// Lowest `metadata.version` this build can fold.
pub const METADATA_VERSION_MIN: u16 = 1;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// First fact of every cluster.
    ClusterFormed(ClusterFormed),
    /// `metadata.version` was raised.
    MetadataVersionFinalized(MetadataVersionFinalized),
    /// A broker process registered; it is fenced and its restart unproved.
    BrokerRegistered(BrokerRegistered),
    /// A broker may not lead or be in any ISR. One fact; elections follow as work found in the image.
    BrokerFenced(BrokerRef),
    /// A broker takes part again.
    BrokerUnfenced(BrokerRef),
    /// All places that this restart could not prove have fallen.
    BrokerProved(BrokerRef),
    /// A broker asked (or was asked) to stop: leaders move away from it.
    BrokerShutdownBegan(BrokerRef),
    /// A topic exists. Its partitions follow in `PartitionsCreated`.
    TopicCreated(TopicCreated),
    /// Partitions `first..first+n` of a topic exist.
    PartitionsCreated(PartitionsCreated),
    /// State of some partitions of one topic changed.
    PartitionsChanged(PartitionsChanged),
    /// A topic was deleted; its data can be restored until it is purged.
    TopicDeleted(TopicDeleted),
    /// A deleted topic's data may be removed.
    TopicPurged(TopicPurged),
    /// A config value was set.
    ConfigSet(ConfigSet),
    /// A config value was removed.
    ConfigUnset(ConfigUnset),
    /// An unclean election happened, and what it may have cost.
    UncleanElection(UncleanElection),
}

/// See [`Fact::ClusterFormed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFormed {
    /// Identity of the cluster for ever.
    pub cluster_id: Uuid,
    /// Life of the cluster, from 1; a forced quorum recovery raises it.
    pub incarnation: u64,
    /// Finalized `metadata.version`.
    pub metadata_version: u16,
}

/// See [`Fact::MetadataVersionFinalized`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataVersionFinalized {
    /// The new level.
    pub version: u16,
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host name or address as advertised.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// See [`Fact::BrokerRegistered`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRegistered {
    /// Which broker.
    pub broker: BrokerId,
    /// Its new epoch: the image's counter + 1.
    pub epoch: BrokerEpoch,
    /// Uuid of the process.
    pub incarnation: Uuid,
    /// Listener for nodes of the cluster.
    pub internal: Endpoint,
    /// Listener for applications.
    pub client: Endpoint,
    /// Where it stands.
    pub locality: Locality,
    /// Uuids of its data directories.
    pub directories: Vec<Uuid>,
    /// Levels it can fold, lowest.
    pub min_metadata_version: u16,
    /// Levels it can fold, highest.
    pub max_metadata_version: u16,
    /// What its sender saw of the broker; another view than the image's makes the fact illegal.
    pub seen: BrokerView,
    /// Same directory, and it knew durably the epoch under which the image last had it unfenced: it may prove partitions.
    pub proof_admissible: bool,
}

/// A broker under one registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRef {
    /// Which broker.
    pub broker: BrokerId,
    /// Under which registration; another one in the image makes the fact illegal.
    pub epoch: BrokerEpoch,
}

/// See [`Fact::TopicCreated`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicCreated {
    /// Identity.
    pub topic: TopicId,
    /// Name, unique among live topics.
    pub name: String,
    /// Replicas per partition as asked.
    pub replication_factor: u16,
    /// Wall clock at the edge, ms since 1970.
    pub created_ms: u64,
}

/// See [`Fact::PartitionsCreated`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionsCreated {
    /// Topic.
    pub topic: TopicId,
    /// Number of the first new partition; equals the topic's partition count before.
    pub first: u32,
    /// One per new partition.
    pub assignments: Vec<Assignment>,
}

/// Where a new partition lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Replicas in preference order.
    pub replicas: Vec<BrokerId>,
    /// First ISR: the replicas that were active.
    pub isr: Vec<BrokerId>,
    /// First leader, in the ISR.
    pub leader: Option<BrokerId>,
}

/// See [`Fact::PartitionsChanged`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionsChanged {
    /// Topic.
    pub topic: TopicId,
    /// Changes, each partition at most once.
    pub changes: Vec<PartitionChange>,
}

/// New state of one partition; `None` / `Unchanged` leave a field as it was. The fold raises the partition
/// epoch by one, and the leader epoch by one when `leader` is changed or `bump_leader_epoch` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionChange {
    /// Which partition.
    pub partition: u32,
    /// Leadership.
    pub leader: LeaderChange,
    /// In-sync replicas.
    pub isr: Option<Vec<BrokerId>>,
    /// Eligible leader replicas (KIP-966).
    pub elr: Option<Vec<BrokerId>>,
    /// Replicas in preference order.
    pub replicas: Option<Vec<BrokerId>>,
    /// Replicas being added.
    pub adding: Option<Vec<BrokerId>>,
    /// Replicas being removed.
    pub removing: Option<Vec<BrokerId>>,
    /// Whether the leader came out of an unclean election.
    pub recovery: Option<RecoveryState>,
    /// Raise the leader epoch although the leader stays the same.
    pub bump_leader_epoch: bool,
}

/// Leadership part of a [`PartitionChange`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaderChange {
    /// As it was.
    #[default]
    Unchanged,
    /// Nobody leads.
    Nobody,
    /// This broker leads in a new leader epoch, be it the same broker as before.
    Broker(BrokerId),
}

/// Whether a partition's leader was elected from replicas known to hold every committed record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecoveryState {
    /// Clean.
    #[default]
    Recovered,
    /// The last election was unclean; its leader has not formed a satisfying ISR yet.
    Recovering,
}

/// See [`Fact::TopicDeleted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicDeleted {
    /// Topic.
    pub topic: TopicId,
    /// Wall clock at the edge, ms since 1970.
    pub at_ms: u64,
}

/// See [`Fact::TopicPurged`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPurged {
    /// Topic.
    pub topic: TopicId,
}

/// What a config value belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConfigResource {
    /// Defaults for the whole cluster.
    Cluster,
    /// One broker.
    Broker(BrokerId),
    /// One topic.
    Topic(TopicId),
}

/// See [`Fact::ConfigSet`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSet {
    /// Whose.
    pub resource: ConfigResource,
    /// Key of the schema in `configs.rs`.
    pub key: String,
    /// Checked value, as text.
    pub value: String,
}

/// See [`Fact::ConfigUnset`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigUnset {
    /// Whose.
    pub resource: ConfigResource,
    /// Key.
    pub key: String,
}

/// See [`Fact::UncleanElection`]. The partition's new state is in a `PartitionsChanged` of the same batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UncleanElection {
    /// Topic.
    pub topic: TopicId,
    /// Partition.
    pub partition: u32,
    /// Who was elected.
    pub leader: BrokerId,
    /// Epoch of its last batch, None for an empty log.
    pub last_epoch: Option<u32>,
    /// Its log end: records at and above may be lost.
    pub log_end: u64,
    /// The operator asked not to wait for leases and grace to run out.
    pub forced_now: bool,
    /// Wall clock at the edge, ms since 1970.
    pub at_ms: u64,
}

kinds! { Fact
    1 ClusterFormed;
    2 MetadataVersionFinalized;
    3 BrokerRegistered;
    4 BrokerFenced;
    5 BrokerUnfenced;
    6 BrokerProved;
    7 BrokerShutdownBegan;
    8 TopicCreated;
    9 PartitionsCreated;
    10 PartitionsChanged;
    11 TopicDeleted;
    12 TopicPurged;
    13 ConfigSet;
    14 ConfigUnset;
    15 UncleanElection;
}
