//! What the applied image says of one partition, reduced to what its replica needs. Made from an image only, so that
//! nothing else can become committed state here.

use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicPartition};
use protocol::metadata::brokers::BrokerState;
use protocol::metadata::configs::FlushPolicy;
use protocol::metadata::durability::DurabilityRule;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{ConfigResource, RecoveryState};
use std::collections::{BTreeMap, BTreeSet};

/// One replica's broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its registration, None = never registered.
    pub broker_epoch: Option<BrokerEpoch>,
    /// `region/dc`; None = not registered.
    pub data_centre: Option<String>,
    /// Neither fenced nor shutting down.
    pub active: bool,
    /// Fenced.
    pub fenced: bool,
    /// May join the ISR as far as the assignment goes: not an observer, not being removed.
    pub counts: bool,
}

/// Configs that a replica acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaConfig {
    /// `flush.policy`
    pub flush_policy: FlushPolicy,
    /// `flush.interval.ms`
    pub flush_interval_ms: u64,
    /// `max.message.bytes`
    pub max_batch_bytes: u32,
    /// `replica.lag.max.ms`
    pub lag_max_ms: u64,
}

/// One partition in the applied image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionView {
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// Since which leader change.
    pub leader_epoch: LeaderEpoch,
    /// Since which change at all.
    pub partition_epoch: PartitionEpoch,
    /// Committed ISR.
    pub isr: BTreeSet<BrokerId>,
    /// Committed ELR.
    pub elr: BTreeSet<BrokerId>,
    /// Replicas and observers.
    pub members: BTreeMap<BrokerId, Member>,
    /// The last election was unclean and no satisfying ISR has formed since.
    pub recovering: bool,
    /// What an ISR must cover.
    pub rule: DurabilityRule,
    /// Configs in force.
    pub config: ReplicaConfig,
}

impl PartitionView {
    /// Reads the partition out of an image; `me` for configs of this broker. None: no such partition.
    #[must_use]
    pub fn of(image: &MetadataImage, at: TopicPartition, me: BrokerId) -> Option<Self> {
        let topic = image.topics.get(at.topic)?;
        let partition = topic.partition(at.partition)?;
        let config = image.topic_config(at.topic);
        let member = |id: &BrokerId| {
            let broker = image.brokers.get(*id);
            Member {
                broker_epoch: broker.map(|b| b.epoch),
                data_centre: broker.map(|b| format!("{}/{}", b.locality.region, b.locality.dc)),
                active: broker.is_some_and(|b| b.state == BrokerState::Active),
                fenced: broker.is_some_and(|b| b.state == BrokerState::Fenced),
                counts: !partition.observers.contains(id) && !partition.removing.contains(id),
            }
        };
        let lag_max_ms = image
            .config_number(ConfigResource::Broker(me), "replica.lag.max.ms")
            .expect("values were checked against the schema before they entered the log");
        Some(Self {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: partition.isr.iter().copied().collect(),
            elr: partition.elr.iter().copied().collect(),
            members: partition.replicas.iter().chain(&partition.observers).map(|id| (*id, member(id))).collect(),
            recovering: partition.recovery == RecoveryState::Recovering,
            rule: image.rule_of(topic),
            config: ReplicaConfig {
                flush_policy: config.flush_policy,
                flush_interval_ms: config.flush_interval_ms,
                max_batch_bytes: config.max_message_bytes,
                lag_max_ms,
            },
        })
    }

    /// Whether these members satisfy the topic's durability rule.
    #[must_use]
    pub fn satisfies(&self, members: &BTreeSet<BrokerId>) -> bool {
        self.rule.satisfied_by(members.iter().map(|id| (*id, self.data_centre(*id))))
    }

    /// Whether the broker is registered in the image under exactly this epoch.
    #[must_use]
    pub fn registered(&self, id: BrokerId, epoch: BrokerEpoch) -> bool {
        self.members.get(&id).is_some_and(|m| m.broker_epoch == Some(epoch))
    }

    fn data_centre(&self, id: BrokerId) -> Option<&str> {
        self.members.get(&id).and_then(|m| m.data_centre.as_deref())
    }
}
