//! Level-triggered work: what the image (with the soft state) still calls for. Any controller finds it, so nothing is
//! lost when one dies half-way; each batch does a bounded part (DESIGN.md section 2).
//!
//! In order: fence brokers whose session ended; drop places that closed proofs do not cover, then `BrokerProved`; move
//! leaders and ISR places off brokers that are fenced or shutting down, and leaders off brokers that lag; elect where
//! somebody safe has come back; unclean elections that a topic's policy allows; give leadership back to preferred
//! replicas; purge deleted topics; forget a larger lease grace that nobody acts on. ISR places come out of an index of the image and [`WorkMemo`] remembers what was
//! swept, so that an idle tick costs a look at each broker, not at each partition; losing the memo costs a sweep.

use super::command::Now;
use super::election::{Electorate, live};
use super::elections::{Wish, unclean};
use super::grace::{self, GraceMemo};
use super::limits::{
    PREFERRED_CHECK_MS, PREFERRED_MOVES_MAX, PREFERRED_SCAN_MAX, PURGE_CHECK_MS, PURGES_MAX, UNCLEAN_CHECK_MS,
    UNCLEAN_MAX, WORK_PARTITIONS_MAX, WORK_SCAN_MAX,
};
use super::sessions::Sessions;
use protocol::ids::{BrokerEpoch, BrokerId, Millis, TopicId, TopicPartition};
use protocol::metadata::brokers::{Broker, BrokerState};
use protocol::metadata::configs::UncleanRecoveryPolicy;
use protocol::metadata::draft::Draft;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{BrokerRef, ConfigResource, Fact, PartitionChange, PartitionsChanged, TopicPurged};
use protocol::metadata::topics::{Partition, TopicState};
use protocol::planted::{self, Bug};
use std::collections::{BTreeMap, BTreeSet};

/// Why a broker's places are swept one by one. (ISR places of brokers that must not have any stand in an index.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    Unproved,
    Lagging,
}

/// How far a sweep over one broker's places is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    After(TopicPartition),
    Done,
}

/// Active brokers by registration: what electability of leaderless partitions depends on.
type ActiveSet = Vec<(BrokerId, BrokerEpoch)>;

/// Where sweeps stand. Valid while every batch applies; dropped otherwise.
#[derive(Debug, Clone, Default)]
pub(super) struct WorkMemo {
    places: BTreeMap<(BrokerId, Reason), (BrokerEpoch, Progress)>,
    leaderless: Option<(ActiveSet, Option<TopicPartition>, bool)>,
    preferred_at: Millis,
    preferred_from: Option<TopicPartition>,
    unclean_at: Millis,
    purge_at: Millis,
    pub(super) grace: GraceMemo,
}

impl WorkMemo {
    /// The broker proves something else: an earlier sweep of its places says nothing any more.
    pub(super) fn begin_again(&mut self, broker: BrokerId) {
        self.places.retain(|(id, _), _| *id != broker);
    }
}

/// What one batch may still hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    bytes: usize,
    changes: usize,
    looks: usize,
}

impl Budget {
    /// With this many bytes of facts left.
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, changes: WORK_PARTITIONS_MAX, looks: WORK_SCAN_MAX }
    }

    pub(super) fn is_spent(&self) -> bool {
        self.bytes < FACT_BYTES || self.changes == 0 || self.looks == 0
    }

    fn look(&mut self) {
        self.looks = self.looks.saturating_sub(1);
    }

    fn change(&mut self, change: &PartitionChange) {
        let listed = |list: &Option<Vec<BrokerId>>| list.as_ref().map_or(1, |l| 2 + 5 * l.len());
        let bytes = CHANGE_BYTES + listed(&change.isr) + listed(&change.elr);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.changes = self.changes.saturating_sub(1);
    }

    pub(super) fn fact(&mut self) {
        self.bytes = self.bytes.saturating_sub(FACT_BYTES);
        self.changes = self.changes.saturating_sub(1);
    }
}

/// Upper estimate of a small fact, and of the head of one that groups partitions, encoded. Also what must be left for
/// work to go on.
const FACT_BYTES: usize = 512;
/// Upper estimate of a partition change without its lists: numbers, flags, and its share of the fact's head.
const CHANGE_BYTES: usize = 64;

/// Does a bounded part of what is left to do. True: there is more, or may be.
pub(super) fn find_work(draft: &mut Draft<MetadataImage>, sessions: &mut Sessions, now: Now, bytes: usize) -> bool {
    let mut budget = Budget::new(bytes);
    fence_expired(draft, sessions, now.mono, &mut budget);
    let done = sweep_brokers(draft, sessions, now.mono, &mut budget)
        && sweep_leaderless(draft, sessions, &mut budget)
        && recover_longest(draft, sessions, now, &mut budget)
        && give_back(draft, sessions, now.mono, &mut budget)
        && purge(draft, sessions, now, &mut budget)
        && grace::end(draft, sessions, now.mono, &mut budget);
    !done
}

/// Pushes changes, grouped by topic. Each partition is named at most once.
pub(super) fn push_changes(draft: &mut Draft<MetadataImage>, changes: Vec<(TopicPartition, PartitionChange)>) {
    let mut by_topic: BTreeMap<TopicId, Vec<PartitionChange>> = BTreeMap::new();
    for (at, change) in changes {
        by_topic.entry(at.topic).or_default().push(change);
    }
    for (topic, changes) in by_topic {
        draft.push(Fact::PartitionsChanged(PartitionsChanged { topic, changes }));
    }
}

fn fence_expired(draft: &mut Draft<MetadataImage>, sessions: &mut Sessions, now: Millis, budget: &mut Budget) {
    for at in sessions.expired(draft.state(), now) {
        if budget.is_spent() {
            return;
        }
        draft.push(Fact::BrokerFenced(at));
        budget.fact();
    }
}

/// Sweeps the places of every broker that must not keep them. False: the budget ran out.
fn sweep_brokers(draft: &mut Draft<MetadataImage>, sessions: &mut Sessions, now: Millis, budget: &mut Budget) -> bool {
    let lagging: BTreeSet<_> =
        draft.state().brokers.iter().filter(|b| b.is_active() && sessions.is_lagging(b, now)).map(|b| b.id).collect();
    sessions.memo.places.retain(|(id, reason), _| *reason != Reason::Lagging || lagging.contains(id));
    let brokers: Vec<Broker> = draft.state().brokers.iter().cloned().collect();
    for broker in &brokers {
        let at = BrokerRef { broker: broker.id, epoch: broker.epoch };
        let unasked = planted::is(Bug::UnfenceWithoutProof);
        let closed = unasked || sessions.proofs.closed(at.broker, at.epoch).is_some();
        if broker.is_fenced() && !broker.proved && closed {
            if !unasked && !sweep(draft, sessions, at, Reason::Unproved, &lagging, budget) {
                return false;
            }
            draft.push(Fact::BrokerProved(at));
            budget.fact();
            sessions.proofs.forget(at.broker);
        }
        let done = match broker.state {
            BrokerState::Fenced if planted::is(Bug::UnfenceBeforeElections) => true,
            BrokerState::Fenced | BrokerState::ShuttingDown => clear_isr(draft, broker.id, &lagging, budget),
            BrokerState::Active if lagging.contains(&broker.id) => {
                sweep(draft, sessions, at, Reason::Lagging, &lagging, budget)
            }
            BrokerState::Active => true,
        };
        if !done {
            return false;
        }
    }
    true
}

/// Takes a broker that must not have any out of its ISRs and leaderships. True: done.
fn clear_isr(
    draft: &mut Draft<MetadataImage>,
    broker: BrokerId,
    avoid: &BTreeSet<BrokerId>,
    budget: &mut Budget,
) -> bool {
    let image = draft.state();
    let mut changes = Vec::new();
    for place in image.topics.in_sync_places_of(broker) {
        if budget.is_spent() {
            break;
        }
        budget.look();
        let found = live(image, place);
        let change =
            found.and_then(|(topic, old)| Electorate::new(image, topic, avoid).settle(place.partition, old, None));
        if let Some(change) = change {
            budget.change(&change);
            changes.push((place, change));
        }
    }
    push_changes(draft, changes);
    draft.state().topics.in_sync_places_of(broker).next().is_none()
}

/// Goes on with one broker's sweep. True: done. Done stays done for this registration and reason.
fn sweep(
    draft: &mut Draft<MetadataImage>,
    sessions: &mut Sessions,
    at: BrokerRef,
    reason: Reason,
    avoid: &BTreeSet<BrokerId>,
    budget: &mut Budget,
) -> bool {
    let key = (at.broker, reason);
    let known = sessions.memo.places.get(&key).filter(|(epoch, _)| *epoch == at.epoch).map(|(_, p)| *p);
    let after = match known {
        Some(Progress::Done) => return true,
        Some(Progress::After(place)) => Some(place),
        None => None,
    };
    let proved = sessions.proofs.closed(at.broker, at.epoch);
    let image = draft.state();
    let (mut changes, mut last) = (Vec::new(), None);
    for place in image.topics.places_after(at.broker, after) {
        if budget.is_spent() {
            break;
        }
        last = Some(place);
        budget.look();
        let Some((topic, old)) = live(image, place) else { continue };
        let unproved = (reason == Reason::Unproved && !proved.is_some_and(|p| p.contains(&place))).then_some(at.broker);
        if !concerns(old, at.broker, reason, unproved.is_some()) {
            continue;
        }
        if let Some(change) = Electorate::new(image, topic, avoid).settle(place.partition, old, unproved) {
            budget.change(&change);
            changes.push((place, change));
        }
    }
    let done = image.topics.places_after(at.broker, last.or(after)).next().is_none();
    let progress = if done { Some(Progress::Done) } else { last.or(after).map(Progress::After) };
    push_changes(draft, changes);
    if let Some(progress) = progress {
        sessions.memo.places.insert(key, (at.epoch, progress));
    }
    done
}

/// Whether the sweep has anything to look for in this partition.
fn concerns(old: &Partition, broker: BrokerId, reason: Reason, unproved: bool) -> bool {
    match reason {
        Reason::Unproved => unproved && (old.isr.contains(&broker) || old.elr.contains(&broker)),
        Reason::Lagging => old.leader == Some(broker),
    }
}

/// Elects leaders for leaderless partitions whenever the set of active brokers has changed: nothing else makes one
/// electable.
fn sweep_leaderless(draft: &mut Draft<MetadataImage>, sessions: &mut Sessions, budget: &mut Budget) -> bool {
    let image = draft.state();
    let active: ActiveSet = image.brokers.iter().filter(|b| b.is_active()).map(|b| (b.id, b.epoch)).collect();
    let after = match sessions.memo.leaderless.take() {
        Some((set, _, true)) if set == active => {
            sessions.memo.leaderless = Some((set, None, true));
            return true;
        }
        Some((set, after, false)) if set == active => after,
        _ => None,
    };
    let avoid = BTreeSet::new();
    let (mut changes, mut last) = (Vec::new(), None);
    for place in image.topics.leaderless_after(after) {
        if budget.is_spent() {
            break;
        }
        last = Some(place);
        budget.look();
        let Some((topic, old)) = live(image, place) else { continue };
        if !old.isr.iter().chain(&old.elr).any(|b| image.brokers.is_active(*b)) {
            continue;
        }
        if let Some(change) = Electorate::new(image, topic, &avoid).settle(place.partition, old, None) {
            budget.change(&change);
            changes.push((place, change));
        }
    }
    let done = image.topics.leaderless_after(last.or(after)).next().is_none();
    push_changes(draft, changes);
    sessions.memo.leaderless = Some((active, last.or(after), done));
    done
}

/// `unclean.recovery.policy=longest`: elects without asking once every replica has reported or may no longer lead.
fn recover_longest(draft: &mut Draft<MetadataImage>, sessions: &mut Sessions, now: Now, budget: &mut Budget) -> bool {
    if now.mono < sessions.memo.unclean_at {
        return true;
    }
    let image = draft.state();
    sessions.ends.retain(|at| live(image, at).is_some_and(|(_, p)| p.leader.is_none()));
    let longest =
        |at: &TopicPartition| image.topic_config(at.topic).unclean_recovery_policy == UncleanRecoveryPolicy::Longest;
    let candidates: Vec<_> = sessions.ends.partitions().filter(longest).take(UNCLEAN_MAX).collect();
    let wish = Wish { forced: false, chosen: None, dry_run: false, at_ms: now.wall };
    for at in candidates {
        if budget.is_spent() {
            return false;
        }
        if unclean(draft, sessions, now, at, wish).is_ok() {
            budget.fact();
            budget.fact();
        }
    }
    sessions.memo.unclean_at = now.mono + UNCLEAN_CHECK_MS;
    true
}

/// Preferred elections after recovery, some at a time, to brokers that have been active and level for a while.
fn give_back(draft: &mut Draft<MetadataImage>, sessions: &mut Sessions, now: Millis, budget: &mut Budget) -> bool {
    if now < sessions.memo.preferred_at {
        return true;
    }
    sessions.memo.preferred_at = now + PREFERRED_CHECK_MS;
    let image = draft.state();
    let steady: BTreeSet<_> = image.brokers.iter().filter(|b| sessions.is_steady(b, now)).map(|b| b.id).collect();
    let avoid = BTreeSet::new();
    let from = sessions.memo.preferred_from;
    let (mut changes, mut seen, mut next) = (Vec::new(), 0_usize, None);
    'topics: for topic in image.topics.iter_from(from.map(|at| at.topic)).filter(|t| t.is_live()) {
        let electorate = Electorate::new(image, topic, &avoid);
        let first = from.filter(|at| at.topic == topic.id).map_or(0, |at| at.partition);
        for (partition, old) in (0_u32..).zip(topic.partitions.iter()).skip(first as usize) {
            let at = TopicPartition { topic: topic.id, partition };
            if seen == PREFERRED_SCAN_MAX || changes.len() == PREFERRED_MOVES_MAX || budget.is_spent() {
                next = Some(at);
                break 'topics;
            }
            seen += 1;
            let wanted = old.replicas.first().copied().filter(|b| old.leader.is_some() && steady.contains(b));
            if let Some(change) = wanted.and_then(|b| electorate.prefer(partition, old, b)) {
                budget.change(&change);
                changes.push((at, change));
            }
        }
    }
    push_changes(draft, changes);
    sessions.memo.preferred_from = next;
    true
}

/// Purges deleted topics whose grace has run out on the wall clock.
fn purge(draft: &mut Draft<MetadataImage>, sessions: &mut Sessions, now: Now, budget: &mut Budget) -> bool {
    if now.mono < sessions.memo.purge_at {
        return true;
    }
    let image = draft.state();
    let grace = image.config_number::<Millis>(ConfigResource::Cluster, "delete.grace.ms").unwrap_or(Millis::MAX);
    let due = |state: TopicState| match state {
        TopicState::Live => false,
        TopicState::Deleted { at_ms } => now.wall >= at_ms.saturating_add(grace),
    };
    let topics: Vec<_> = image.topics.deleted().filter(|t| due(t.state)).map(|t| t.id).take(PURGES_MAX + 1).collect();
    for topic in topics.iter().take(PURGES_MAX) {
        if budget.is_spent() {
            return false;
        }
        draft.push(Fact::TopicPurged(TopicPurged { topic: *topic }));
        budget.fact();
    }
    if topics.len() > PURGES_MAX {
        return false;
    }
    sessions.memo.purge_at = now.mono + PURGE_CHECK_MS;
    true
}

#[cfg(test)]
mod tests;
