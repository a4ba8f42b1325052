//! Topics and partitions in the image, with the indexes the work finders need: partitions by broker that is a replica,
//! by broker that is in the ISR, without a leader; topics that are deleted. Owns how a change folds into a partition; never
//! judges whether it may (`legality` does). Invariant: every index equals what a walk over all partitions would find.

use super::record::{Assignment, LeaderChange, PartitionChange, RecoveryState, TopicCreated, UncleanElection};
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
    /// Leader epoch that the latest unclean election began, None = never. A replica may have to cut below its own high
    /// watermark to follow that epoch; below no other.
    pub unclean_epoch: Option<LeaderEpoch>,
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

/// Partitions of live topics by a broker that stands in one of their lists.
pub(super) type Index = RedBlackTreeMapSync<BrokerId, RedBlackTreeSetSync<TopicPartition>>;

/// All topics, deleted ones until purged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicsImage {
    pub(super) topics: RedBlackTreeMapSync<TopicId, Topic>,
    pub(super) names: RedBlackTreeMapSync<String, TopicId>,
    pub(super) by_replica: Index,
    pub(super) by_isr: Index,
    /// Partitions of live topics that a broker leads; no entry for none.
    pub(super) led: RedBlackTreeMapSync<BrokerId, usize>,
    /// Partitions of live topics of which a broker is the first replica; no entry for none.
    pub(super) first: RedBlackTreeMapSync<BrokerId, usize>,
    pub(super) leaderless: RedBlackTreeSetSync<TopicPartition>,
    pub(super) deleted: RedBlackTreeSetSync<TopicId>,
    pub(super) unclean: RedBlackTreeMapSync<TopicPartition, UncleanElection>,
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
        self.by_replica.get(&broker).into_iter().flat_map(|set| set.iter().copied())
    }

    /// Partitions of live topics whose ISR (and so possibly leadership) holds the broker, in order.
    pub fn in_sync_places_of(&self, broker: BrokerId) -> impl Iterator<Item = TopicPartition> {
        self.by_isr.get(&broker).into_iter().flat_map(|set| set.iter().copied())
    }

    /// [`Self::in_sync_places_of`] behind this partition; None begins at the first.
    pub fn in_sync_places_after(
        &self,
        broker: BrokerId,
        after: Option<TopicPartition>,
    ) -> impl Iterator<Item = TopicPartition> {
        self.by_isr.get(&broker).into_iter().flat_map(move |set| set.range(behind(after)).copied())
    }

    /// Partitions of live topics that the broker leads, in order.
    pub fn led_by(&self, broker: BrokerId) -> impl Iterator<Item = TopicPartition> {
        let leads = move |at: &TopicPartition| self.partition(*at).is_some_and(|p| p.leader == Some(broker));
        self.in_sync_places_of(broker).filter(leads)
    }

    /// How many partitions of live topics the broker leads.
    #[must_use]
    pub fn led_count(&self, broker: BrokerId) -> usize {
        self.led.get(&broker).copied().unwrap_or(0)
    }

    /// How many partitions of live topics have the broker as their first replica, whoever leads them now.
    #[must_use]
    pub fn first_count(&self, broker: BrokerId) -> usize {
        self.first.get(&broker).copied().unwrap_or(0)
    }

    /// Topics deleted and not yet purged, by id.
    pub fn deleted(&self) -> impl Iterator<Item = &Topic> {
        self.deleted.iter().filter_map(|id| self.topics.get(id))
    }

    /// What the latest unclean election of a partition may have cost, None = there was none.
    #[must_use]
    pub fn last_unclean(&self, at: TopicPartition) -> Option<&UncleanElection> {
        self.unclean.get(&at)
    }

    /// Everything recorded by [`Self::last_unclean`], by partition.
    pub fn unclean_elections(&self) -> impl Iterator<Item = &UncleanElection> {
        self.unclean.values()
    }

    /// How many partitions of live topics the broker is a replica of.
    #[must_use]
    pub fn place_count(&self, broker: BrokerId) -> usize {
        self.by_replica.get(&broker).map_or(0, RedBlackTreeSetSync::size)
    }

    /// [`Self::places_of`] behind this partition; None begins at the first. For sweeps that stop and go on.
    pub fn places_after(
        &self,
        broker: BrokerId,
        after: Option<TopicPartition>,
    ) -> impl Iterator<Item = TopicPartition> {
        self.by_replica.get(&broker).into_iter().flat_map(move |set| set.range(behind(after)).copied())
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
        self.restore_topic(Topic {
            id: fact.topic,
            name: fact.name.clone(),
            replication_factor: fact.replication_factor,
            created_ms: fact.created_ms,
            state: TopicState::Live,
            partitions: VectorSync::new_sync(),
        });
    }

    /// Enters a topic as it stands; its partitions follow.
    pub(super) fn restore_topic(&mut self, topic: Topic) {
        if topic.is_live() {
            self.names.insert_mut(topic.name.clone(), topic.id);
        } else {
            self.deleted.insert_mut(topic.id);
        }
        self.topics.insert_mut(topic.id, topic);
    }

    pub(super) fn add_partition(&mut self, topic: TopicId, assignment: &Assignment) {
        self.restore_partition(
            topic,
            Partition {
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
                unclean_epoch: None,
            },
        );
    }

    /// Enters a partition as it stands, as the topic's next one.
    pub(super) fn restore_partition(&mut self, topic: TopicId, partition: Partition) {
        let Some(entry) = self.topics.get_mut(&topic) else { return };
        let at = TopicPartition { topic, partition: number(entry.partitions.len()) };
        if entry.is_live() {
            self.partition_count += 1;
            reindex(&mut self.by_replica, at, &[], &partition.replicas);
            reindex(&mut self.by_isr, at, &[], &partition.isr);
            set_member(&mut self.leaderless, at, partition.leader.is_none());
            move_count(&mut self.led, None, partition.leader);
            move_count(&mut self.first, None, partition.replicas.first().copied());
        }
        entry.partitions.push_back_mut(partition);
    }

    pub(super) fn change(&mut self, topic: TopicId, change: &PartitionChange) {
        let at = TopicPartition { topic, partition: change.partition };
        let Some(old) = self.partition(at).cloned() else { return };
        let new = changed(&old, change);
        self.set_partition(at, &old, new);
    }

    pub(super) fn set_partition(&mut self, at: TopicPartition, old: &Partition, new: Partition) {
        let Some(entry) = self.topics.get_mut(&at.topic) else { return };
        if entry.is_live() {
            reindex(&mut self.by_replica, at, &old.replicas, &new.replicas);
            reindex(&mut self.by_isr, at, &old.isr, &new.isr);
            move_count(&mut self.led, old.leader, new.leader);
            move_count(&mut self.first, old.replicas.first().copied(), new.replicas.first().copied());
            if old.leader.is_none() != new.leader.is_none() {
                set_member(&mut self.leaderless, at, new.leader.is_none());
            }
        }
        entry.partitions.set_mut(at.partition as usize, new);
    }

    pub(super) fn delete(&mut self, topic: TopicId, at_ms: u64) {
        let Some(entry) = self.topics.get_mut(&topic) else { return };
        entry.state = TopicState::Deleted { at_ms };
        self.names.remove_mut(&entry.name);
        self.deleted.insert_mut(topic);
        self.partition_count -= entry.partitions.len();
        for (place, partition) in entry.partitions.iter().enumerate() {
            let at = TopicPartition { topic, partition: number(place) };
            reindex(&mut self.by_replica, at, &partition.replicas, &[]);
            reindex(&mut self.by_isr, at, &partition.isr, &[]);
            self.leaderless.remove_mut(&at);
            move_count(&mut self.led, partition.leader, None);
            move_count(&mut self.first, partition.replicas.first().copied(), None);
        }
    }

    pub(super) fn purge(&mut self, topic: TopicId) {
        let Some(entry) = self.topics.get(&topic) else { return };
        for place in 0..entry.partitions.len() {
            self.unclean.remove_mut(&TopicPartition { topic, partition: number(place) });
        }
        self.topics.remove_mut(&topic);
        self.deleted.remove_mut(&topic);
    }
}

/// A place in a topic's dense list as a partition number.
pub(super) fn number(place: usize) -> u32 {
    u32::try_from(place).expect("partition counts are limited far below 2^32")
}

fn reindex(index: &mut Index, at: TopicPartition, old: &[BrokerId], new: &[BrokerId]) {
    for broker in old.iter().filter(|b| !new.contains(b)) {
        let Some(set) = index.get_mut(broker) else { continue };
        set.remove_mut(&at);
        if set.is_empty() {
            index.remove_mut(broker);
        }
    }
    for broker in new.iter().filter(|b| !old.contains(b)) {
        if !index.contains_key(broker) {
            index.insert_mut(*broker, RedBlackTreeSetSync::new_sync());
        }
        if let Some(set) = index.get_mut(broker) {
            set.insert_mut(at);
        }
    }
}

fn move_count(counts: &mut RedBlackTreeMapSync<BrokerId, usize>, old: Option<BrokerId>, new: Option<BrokerId>) {
    if old == new {
        return;
    }
    if let Some(old) = old {
        match counts.get(&old).copied() {
            Some(count) if count > 1 => counts.insert_mut(old, count - 1),
            _ => {
                counts.remove_mut(&old);
            }
        }
    }
    if let Some(new) = new {
        let count = counts.get(&new).copied().unwrap_or(0);
        counts.insert_mut(new, count + 1);
    }
}

fn set_member(set: &mut RedBlackTreeSetSync<TopicPartition>, at: TopicPartition, member: bool) {
    if member {
        set.insert_mut(at);
    } else {
        set.remove_mut(&at);
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
        if recovery == RecoveryState::Recovering {
            new.unclean_epoch = Some(new.leader_epoch);
        }
    }
    new.partition_epoch = new.partition_epoch.next();
    new
}
