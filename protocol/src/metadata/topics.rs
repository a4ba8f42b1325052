//! Topics and partitions in the image, with two indexes the work finders need: partitions by broker that holds a
//! place in them, and partitions without a leader.

use super::record::{Assignment, LeaderChange, PartitionChange, RecoveryState, TopicCreated};
use crate::ids::{BrokerId, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync, VectorSync};
use std::ops::Bound;

/// State of one partition (DESIGN.md section 5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Replicas in preference order, those being added or removed included.
    pub replicas: Vec<BrokerId>,
    /// Replicas being added.
    pub adding: Vec<BrokerId>,
    /// Replicas being removed.
    pub removing: Vec<BrokerId>,
    /// In-sync replicas, subset of `replicas`. May be empty.
    pub isr: Vec<BrokerId>,
    /// Eligible leader replicas: hold every committed record, not in the ISR (KIP-966).
    pub elr: Vec<BrokerId>,
    /// Replicas that copy but never count.
    pub observers: Vec<BrokerId>,
    /// Who leads, in the ISR.
    pub leader: Option<BrokerId>,
    /// Raised at every leader change.
    pub leader_epoch: LeaderEpoch,
    /// Raised at every change.
    pub partition_epoch: PartitionEpoch,
    /// Whether the last election was clean.
    pub recovery: RecoveryState,
}

/// Whether a topic can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TopicState {
    /// In use.
    Live,
    /// Deleted at this wall-clock time (ms); restorable until purged.
    Deleted {
        /// ms since 1970.
        at_ms: u64,
    },
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Identity.
    pub id: TopicId,
    /// Name.
    pub name: String,
    /// Replicas per partition as asked.
    pub replication_factor: u16,
    /// ms since 1970.
    pub created_ms: u64,
    /// Live or deleted.
    pub state: TopicState,
    /// Dense by partition number.
    pub partitions: VectorSync<Partition>,
}

impl Topic {
    /// Not deleted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.state == TopicState::Live
    }

    /// One partition.
    #[must_use]
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.get(number as usize)
    }
}

/// All topics, deleted ones until purged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicsImage {
    pub(super) topics: RedBlackTreeMapSync<TopicId, Topic>,
    pub(super) names: RedBlackTreeMapSync<String, TopicId>,
    pub(super) by_broker: RedBlackTreeMapSync<BrokerId, RedBlackTreeSetSync<TopicPartition>>,
    pub(super) leaderless: RedBlackTreeSetSync<TopicPartition>,
    pub(super) partition_count: usize,
}

impl TopicsImage {
    /// A topic by id, deleted ones included.
    #[must_use]
    pub fn get(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// A live topic by name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Topic> {
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// A partition, of deleted topics too.
    #[must_use]
    pub fn partition(&self, at: TopicPartition) -> Option<&Partition> {
        self.get(at.topic).and_then(|t| t.partition(at.partition))
    }

    /// All topics, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// Partitions of live topics in which the broker is a replica, in order.
    pub fn places_of(&self, broker: BrokerId) -> impl Iterator<Item = TopicPartition> {
        self.by_broker.get(&broker).into_iter().flat_map(|set| set.iter().copied())
    }

    /// How many partitions of live topics the broker is a replica of.
    #[must_use]
    pub fn place_count(&self, broker: BrokerId) -> usize {
        self.by_broker.get(&broker).map_or(0, RedBlackTreeSetSync::size)
    }

    /// [`Self::places_of`] behind this partition; None begins at the first. For sweeps that stop and go on.
    pub fn places_after(&self, broker: BrokerId, after: Option<TopicPartition>) -> impl Iterator<Item = TopicPartition> {
        self.by_broker.get(&broker).into_iter().flat_map(move |set| set.range(behind(after)).copied())
    }

    /// [`Self::leaderless`] behind this partition; None begins at the first.
    pub fn leaderless_after(&self, after: Option<TopicPartition>) -> impl Iterator<Item = TopicPartition> {
        self.leaderless.range(behind(after)).copied()
    }

    /// [`Self::iter`] from this topic on; None begins at the first.
    pub fn iter_from(&self, from: Option<TopicId>) -> impl Iterator<Item = &Topic> {
        let start = from.map_or(Bound::Unbounded, Bound::Included);
        self.topics.range((start, Bound::Unbounded)).map(|(_, topic)| topic)
    }

    /// Partitions of live topics that have no leader, in order.
    pub fn leaderless(&self) -> impl Iterator<Item = TopicPartition> {
        self.leaderless.iter().copied()
    }

    /// Partitions of live topics.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    pub(super) fn create(&mut self, fact: &TopicCreated) {
        self.names.insert_mut(fact.name.clone(), fact.topic);
        self.topics.insert_mut(
            fact.topic,
            Topic {
                id: fact.topic,
                name: fact.name.clone(),
                replication_factor: fact.replication_factor,
                created_ms: fact.created_ms,
                state: TopicState::Live,
                partitions: VectorSync::new_sync(),
            },
        );
    }

    pub(super) fn add_partition(&mut self, topic: TopicId, assignment: &Assignment) {
        let Some(entry) = self.topics.get_mut(&topic) else { return };
        let number = u32::try_from(entry.partitions.len()).expect("partition counts are limited far below 2^32");
        entry.partitions.push_back_mut(Partition {
            replicas: assignment.replicas.clone(),
            adding: Vec::new(),
            removing: Vec::new(),
            isr: assignment.isr.clone(),
            elr: Vec::new(),
            observers: Vec::new(),
            leader: assignment.leader,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
            recovery: RecoveryState::Recovered,
        });
        self.restore_partition(TopicPartition { topic, partition: number });
    }

    /// Enters a partition (as it stands) into the indexes.
    pub(super) fn restore_partition(&mut self, at: TopicPartition) {
        let Some(partition) = self.partition(at).cloned() else { return };
        self.partition_count += 1;
        self.index(at, &[], &partition.replicas);
        self.set_leaderless(at, partition.leader.is_none());
    }

    pub(super) fn change(&mut self, topic: TopicId, change: &PartitionChange) {
        let at = TopicPartition { topic, partition: change.partition };
        let Some(old) = self.partition(at).cloned() else { return };
        let new = changed(&old, change);
        self.set_partition(at, &old, new);
    }

    pub(super) fn set_partition(&mut self, at: TopicPartition, old: &Partition, new: Partition) {
        let live = self.get(at.topic).is_some_and(Topic::is_live);
        if live {
            if old.replicas != new.replicas {
                self.index(at, &old.replicas, &new.replicas);
            }
            self.set_leaderless(at, new.leader.is_none());
        }
        if let Some(entry) = self.topics.get_mut(&at.topic) {
            entry.partitions.set_mut(at.partition as usize, new);
        }
    }

    pub(super) fn delete(&mut self, topic: TopicId, at_ms: u64) {
        let Some(entry) = self.topics.get_mut(&topic) else { return };
        entry.state = TopicState::Deleted { at_ms };
        let name = entry.name.clone();
        let entry = entry.clone();
        self.names.remove_mut(&name);
        for (number, partition) in entry.partitions.iter().enumerate() {
            let at = TopicPartition { topic, partition: u32::try_from(number).unwrap_or(u32::MAX) };
            self.index(at, &partition.replicas, &[]);
            self.leaderless.remove_mut(&at);
            self.partition_count -= 1;
        }
    }

    pub(super) fn purge(&mut self, topic: TopicId) {
        self.topics.remove_mut(&topic);
    }

    fn index(&mut self, at: TopicPartition, old: &[BrokerId], new: &[BrokerId]) {
        for broker in old.iter().filter(|b| !new.contains(b)) {
            if let Some(set) = self.by_broker.get_mut(broker) {
                set.remove_mut(&at);
            }
            if self.by_broker.get(broker).is_some_and(RedBlackTreeSetSync::is_empty) {
                self.by_broker.remove_mut(broker);
            }
        }
        for broker in new.iter().filter(|b| !old.contains(b)) {
            if !self.by_broker.contains_key(broker) {
                self.by_broker.insert_mut(*broker, RedBlackTreeSetSync::new_sync());
            }
            if let Some(set) = self.by_broker.get_mut(broker) {
                set.insert_mut(at);
            }
        }
    }

    fn set_leaderless(&mut self, at: TopicPartition, leaderless: bool) {
        if leaderless {
            self.leaderless.insert_mut(at);
        } else {
            self.leaderless.remove_mut(&at);
        }
    }
}

fn behind(after: Option<TopicPartition>) -> (Bound<TopicPartition>, Bound<TopicPartition>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

/// The partition after a change: partition epoch +1, leader epoch +1 when leadership is named or the bump asked for.
#[must_use]
pub fn changed(old: &Partition, change: &PartitionChange) -> Partition {
    let mut new = old.clone();
    let take = |field: &mut Vec<BrokerId>, value: &Option<Vec<BrokerId>>| {
        if let Some(value) = value {
            field.clone_from(value);
        }
    };
    take(&mut new.isr, &change.isr);
    take(&mut new.elr, &change.elr);
    take(&mut new.replicas, &change.replicas);
    take(&mut new.adding, &change.adding);
    take(&mut new.removing, &change.removing);
    match change.leader {
        LeaderChange::Unchanged => {}
        LeaderChange::Nobody => new.leader = None,
        LeaderChange::Broker(broker) => new.leader = Some(broker),
    }
    if change.leader != LeaderChange::Unchanged || change.bump_leader_epoch {
        new.leader_epoch = new.leader_epoch.next();
    }
    if let Some(recovery) = change.recovery {
        new.recovery = recovery;
    }
    new.partition_epoch = new.partition_epoch.next();
    new
}
