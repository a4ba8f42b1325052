//! What a batch (or the difference of two images) touched: ids only. Whoever reacts looks the new state up in the new
//! image, so a node that received a snapshot takes the same path as one that received batches.

use super::image::MetadataImage;
use crate::ids::{BrokerId, TopicId, TopicPartition};
use std::collections::BTreeSet;

/// Ids touched. For images joined by batches, [`Delta::between`] names a subset of what the batches' deltas name: whatever
/// they name beyond it was changed and changed back, and is equal in both images.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Cluster-wide state changed.
    pub cluster: bool,
    /// Brokers registered, fenced, unfenced, ...
    pub brokers: BTreeSet<BrokerId>,
    /// Topics created, deleted or purged.
    pub topics: BTreeSet<TopicId>,
    /// Partitions created or changed (all of a topic's when it is deleted or purged).
    pub partitions: BTreeSet<TopicPartition>,
    /// Some config changed: whatever derives from configs looks again.
    pub configs: bool,
}

impl Delta {
    /// Nothing touched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds what another delta touched.
    pub fn merge(&mut self, other: Self) {
        self.cluster |= other.cluster;
        self.configs |= other.configs;
        self.brokers.extend(other.brokers);
        self.topics.extend(other.topics);
        self.partitions.extend(other.partitions);
    }

    /// What separates two images.
    #[must_use]
    pub fn between(old: &MetadataImage, new: &MetadataImage) -> Self {
        let mut delta =
            Self { cluster: old.cluster != new.cluster, configs: old.configs != new.configs, ..Self::default() };
        let ids: BTreeSet<_> = old.brokers.iter().chain(new.brokers.iter()).map(|b| b.id).collect();
        delta.brokers = ids.into_iter().filter(|id| old.brokers.get(*id) != new.brokers.get(*id)).collect();
        let topics: BTreeSet<_> = old.topics.iter().chain(new.topics.iter()).map(|t| t.id).collect();
        for id in topics {
            delta.topic_between(id, old, new);
        }
        delta
    }

    fn topic_between(&mut self, id: TopicId, old: &MetadataImage, new: &MetadataImage) {
        let (before, after) = (old.topics.get(id), new.topics.get(id));
        let whole = before.map(|t| t.state) != after.map(|t| t.state);
        if whole {
            self.topics.insert(id);
        }
        let count = |t: Option<&super::topics::Topic>| t.map_or(0, |t| t.partitions.len());
        let most = u32::try_from(count(before).max(count(after))).unwrap_or(u32::MAX);
        for partition in 0..most {
            let at = TopicPartition { topic: id, partition };
            let differs = before.and_then(|t| t.partition(partition)) != after.and_then(|t| t.partition(partition));
            if whole || differs || old.topics.last_unclean(at) != new.topics.last_unclean(at) {
                self.partitions.insert(at);
            }
        }
    }
}
