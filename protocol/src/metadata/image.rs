//! The image: fold of the metadata log. Persistent maps, so a clone is O(1) and readers keep theirs. `apply` is
//! the only mutator outside a draft, and an image never goes back.

use super::batch::MetadataBatch;
use super::brokers::{BrokerState, BrokersImage};
use super::cluster::ClusterImage;
use super::configs::ConfigsImage;
use super::delta::Delta;
use super::draft::Fold;
use super::durability::RULE_KEYS;
use super::record::{BrokerRef, ConfigResource, Fact, PartitionChange, PartitionsChanged};
use super::topics::{TopicsImage, changed, number};
use crate::ids::{BatchNo, TopicId, TopicPartition};
use crate::planted::{self, Bug};

/// Everything the cluster has agreed on, after `batch_no` batches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetadataImage {
    /// Batches folded.
    pub batch_no: BatchNo,
    /// Hash chained over the batches' bytes.
    pub chain_hash: u64,
    /// Identity, versions, counters.
    pub cluster: ClusterImage,
    /// Brokers.
    pub brokers: BrokersImage,
    /// Topics and partitions.
    pub topics: TopicsImage,
    /// Configs.
    pub configs: ConfigsImage,
}

/// Why a batch does not change the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Decided on another image: dropped, the same verdict on every node.
    #[error("batch was decided on batch number {base}, the image is at {at}: dropped")]
    Mismatch {
        /// Where it was decided.
        base: BatchNo,
        /// Where the image is.
        at: BatchNo,
    },
    /// A fact that no correct decider writes on this image. The node must stop.
    #[error("fact {number} ({name}) of the batch on {base} cannot be folded: {reason}")]
    Illegal {
        /// Where it was decided.
        base: BatchNo,
        /// Its place in the batch, from 0.
        number: usize,
        /// Kind.
        name: &'static str,
        /// What it breaks.
        reason: String,
    },
}

impl MetadataImage {
    /// Applies a batch with its encoded bytes' chain hash.
    ///
    /// # Errors
    /// `Mismatch`: not for this image, nothing changed. `Illegal`: stop the node.
    pub fn apply(&self, batch: &MetadataBatch, encoded: &[u8]) -> Result<(Self, Delta), ApplyError> {
        if batch.base != self.batch_no && !planted::is(Bug::SkipCompareAndAppend) {
            return Err(ApplyError::Mismatch { base: batch.base, at: self.batch_no });
        }
        let mut image = self.clone();
        let mut delta = Delta::default();
        for (number, fact) in batch.facts.iter().enumerate() {
            image.check(fact).map_err(|reason| ApplyError::Illegal {
                base: batch.base,
                number,
                name: fact.name(),
                reason,
            })?;
            image.fold_into(fact, &mut delta);
        }
        image.batch_no = self.batch_no.next();
        image.chain_hash = super::batch::chain(self.chain_hash, encoded);
        Ok((image, delta))
    }

    /// Folds one fact, noting what it touched.
    pub(super) fn fold_into(&mut self, fact: &Fact, delta: &mut Delta) {
        match fact {
            Fact::ClusterFormed(f) => {
                self.cluster.cluster_id = f.cluster_id;
                self.cluster.incarnation = f.incarnation;
                self.cluster.metadata_version = f.metadata_version;
                delta.cluster = true;
            }
            Fact::MetadataVersionFinalized(f) => {
                self.cluster.metadata_version = f.version;
                delta.cluster = true;
            }
            Fact::BrokerRegistered(f) => {
                self.cluster.last_broker_epoch = f.epoch;
                delta.cluster = true;
                self.brokers.register(f);
                delta.brokers.insert(f.broker);
            }
            Fact::BrokerFenced(f) => self.set_state(f, BrokerState::Fenced, delta),
            Fact::BrokerUnfenced(f) => {
                self.set_state(f, BrokerState::Active, delta);
                self.brokers.update(f.broker, |b| b.last_unfenced_epoch = Some(f.epoch));
            }
            Fact::BrokerShutdownBegan(f) => self.set_state(f, BrokerState::ShuttingDown, delta),
            Fact::BrokerProved(f) => {
                self.brokers.update(f.broker, |b| b.proved = true);
                delta.brokers.insert(f.broker);
            }
            Fact::TopicCreated(f) => {
                self.topics.create(f);
                delta.topics.insert(f.topic);
            }
            Fact::PartitionsCreated(f) => {
                for (partition, assignment) in (f.first..).zip(&f.assignments) {
                    self.topics.add_partition(f.topic, assignment);
                    delta.partitions.insert(TopicPartition { topic: f.topic, partition });
                }
            }
            Fact::PartitionsChanged(f) => self.fold_partitions(f, delta),
            Fact::TopicDeleted(f) => {
                self.touch_topic(f.topic, delta);
                self.topics.delete(f.topic, f.at_ms);
            }
            Fact::TopicPurged(f) => self.fold_purge(f.topic, delta),
            Fact::ConfigSet(f) => {
                self.fold_config(f.resource, &f.key, delta, |configs| configs.set(f.resource, &f.key, &f.value));
            }
            Fact::ConfigUnset(f) => {
                self.fold_config(f.resource, &f.key, delta, |configs| configs.unset(f.resource, &f.key));
            }
            Fact::UncleanElection(f) => {
                let at = TopicPartition { topic: f.topic, partition: f.partition };
                self.topics.unclean.insert_mut(at, f.clone());
                delta.partitions.insert(at);
            }
        }
    }

    fn set_state(&mut self, at: &BrokerRef, state: BrokerState, delta: &mut Delta) {
        self.brokers.update(at.broker, |b| b.state = state);
        delta.brokers.insert(at.broker);
    }

    fn fold_partitions(&mut self, fact: &PartitionsChanged, delta: &mut Delta) {
        for change in &fact.changes {
            self.topics.change(fact.topic, change);
            delta.partitions.insert(TopicPartition { topic: fact.topic, partition: change.partition });
        }
    }

    fn fold_purge(&mut self, topic: TopicId, delta: &mut Delta) {
        self.touch_topic(topic, delta);
        self.topics.purge(topic);
        delta.configs |= self.configs.forget(ConfigResource::Topic(topic));
    }

    fn touch_topic(&self, topic: TopicId, delta: &mut Delta) {
        delta.topics.insert(topic);
        let count = self.topics.get(topic).map_or(0, |t| t.partitions.len());
        delta.partitions.extend((0..number(count)).map(|partition| TopicPartition { topic, partition }));
    }

    /// Folds a config and, where that alters the durability rule of a topic, clears the ELR of its partitions that have
    /// a leader: it was formed under another rule. A leaderless partition keeps it, since nothing was committed meanwhile
    /// (DESIGN.md section 5).
    fn fold_config(
        &mut self,
        resource: ConfigResource,
        key: &str,
        delta: &mut Delta,
        change: impl FnOnce(&mut ConfigsImage),
    ) {
        delta.configs = true;
        let bears_on_rule = RULE_KEYS.contains(&key);
        let topics: Vec<TopicId> = match resource {
            ConfigResource::Topic(topic) if bears_on_rule => vec![topic],
            ConfigResource::Cluster if bears_on_rule => self.topics.iter().map(|t| t.id).collect(),
            _ => Vec::new(),
        };
        let before: Vec<_> = topics.into_iter().map(|topic| (topic, self.durability_rule(topic))).collect();
        change(&mut self.configs);
        for (topic, rule) in before {
            if self.durability_rule(topic) != rule {
                self.clear_elr(topic, delta);
            }
        }
    }

    fn clear_elr(&mut self, topic: TopicId, delta: &mut Delta) {
        let Some(entry) = self.topics.get(topic).cloned() else { return };
        for (place, old) in entry.partitions.iter().enumerate() {
            if old.leader.is_none() || old.elr.is_empty() {
                continue;
            }
            let at = TopicPartition { topic, partition: number(place) };
            let change = PartitionChange { elr: Some(Vec::new()), ..Default::default() };
            let new = changed(old, &change);
            self.topics.set_partition(at, old, new);
            delta.partitions.insert(at);
        }
    }
}

impl Fold for MetadataImage {
    type Fact = Fact;

    fn fold(&mut self, fact: &Fact) {
        if let Err(reason) = self.check(fact) {
            panic!("a decider pushed an illegal {}: {reason}", fact.name());
        }
        self.fold_into(fact, &mut Delta::default());
    }
}
