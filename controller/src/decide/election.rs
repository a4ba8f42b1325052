//! Who leads a partition, and who keeps its places: the one place where ISR, ELR and leader change together.
//!
//! Rules (DESIGN.md section 5, KIP-966): a broker that is fenced or shutting down keeps no ISR place and gets no
//! leadership. Leader: the current one if valid; else the ISR by preference order; else the ELR by preference order,
//! which then forms the ISR alone; else nobody. new ELR = (ELR + ISR) - new ISR - unproved, emptied when the new ISR
//! satisfies the durability rule. Nobody outside ISR and ELR is ever elected here; unclean elections are apart
//! (`unclean`) and only `elections.rs` calls them. Leaving the ISR is the only way out of a leadership of a
//! restarted broker, so no incarnation continues one: the leader epoch always moves.

use protocol::ids::{BrokerId, TopicPartition};
use protocol::metadata::brokers::Broker;
use protocol::metadata::durability::DurabilityRule;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{LeaderChange, PartitionChange, RecoveryState};
use protocol::metadata::topics::{Partition, Topic};
use protocol::planted::{self, Bug};
use std::collections::BTreeSet;

/// What elections in one topic look at.
#[derive(Clone, Copy)]
pub(super) struct Electorate<'a> {
    image: &'a MetadataImage,
    rule: DurabilityRule,
    /// Brokers that shall not lead if anybody else can.
    avoid: &'a BTreeSet<BrokerId>,
}

/// New places of a partition; what `None` would leave is written out.
struct Places {
    isr: Vec<BrokerId>,
    elr: Vec<BrokerId>,
    leader: Option<BrokerId>,
}

impl<'a> Electorate<'a> {
    /// For the partitions of one topic.
    pub(super) fn new(image: &'a MetadataImage, topic: &Topic, avoid: &'a BTreeSet<BrokerId>) -> Self {
        Self { image, rule: image.rule_of(topic), avoid }
    }

    /// Brings places and leadership in line with the brokers' states. `unproved` loses its ISR and ELR place over and
    /// above. None: nothing to change.
    pub(super) fn settle(&self, number: u32, old: &Partition, unproved: Option<BrokerId>) -> Option<PartitionChange> {
        let lost = |b: BrokerId| unproved == Some(b) || self.never_proves(b);
        let mut isr: Vec<_> = old.isr.iter().copied().filter(|b| self.keeps_place(old, *b) && !lost(*b)).collect();
        let leader = self.candidate(old, &isr).or_else(|| self.elr_candidate(old, lost));
        if let Some(leader) = leader.filter(|l| !isr.contains(l)) {
            isr = vec![leader];
        }
        let elr = self.elr(old, &isr, lost);
        self.change(number, old, Places { isr, elr, leader })
    }

    /// Whether a member's state lets it stay in the ISR.
    fn keeps_place(&self, old: &Partition, member: BrokerId) -> bool {
        let restarted = |b: &Broker| b.last_unfenced_epoch != Some(b.epoch);
        let goes_on = planted::is(Bug::SameEpochLeaderRestart)
            && old.leader == Some(member)
            && self.image.brokers.get(member).is_some_and(restarted);
        self.image.brokers.is_active(member) || goes_on
    }

    /// Moves leadership to this member of the ISR. None: it is not active, not in the ISR, or leads already.
    pub(super) fn prefer(&self, number: u32, old: &Partition, leader: BrokerId) -> Option<PartitionChange> {
        let fit = old.isr.contains(&leader) && self.image.brokers.is_active(leader);
        if !fit || old.leader == Some(leader) {
            return None;
        }
        let places = Places { isr: old.isr.clone(), elr: old.elr.clone(), leader: Some(leader) };
        self.change(number, old, places)
    }

    /// Takes the leader's proposal of an ISR (already validated). The current one is taken too: the partition epoch moves,
    /// and so voids every earlier proposal, which is how a leader settles one whose fate it does not know.
    pub(super) fn adopt(&self, number: u32, old: &Partition, isr: Vec<BrokerId>) -> PartitionChange {
        let elr = self.elr(old, &isr, |b| self.never_proves(b));
        let same = PartitionChange { partition: number, isr: Some(isr.clone()), ..PartitionChange::default() };
        self.change(number, old, Places { isr, elr, leader: old.leader }).unwrap_or(same)
    }

    /// Whether somebody safe could lead now: an active member of ISR or ELR.
    pub(super) fn has_candidate(&self, old: &Partition) -> bool {
        old.isr.iter().chain(&old.elr).any(|b| self.image.brokers.is_active(*b) && !self.never_proves(*b))
    }

    /// Current leader if valid, else the ISR in preference order; those to avoid come last.
    fn candidate(&self, old: &Partition, isr: &[BrokerId]) -> Option<BrokerId> {
        let current = old.leader.filter(|l| isr.contains(l));
        let wanted = current.filter(|l| !self.avoid.contains(l));
        wanted
            .or_else(|| in_order(old, isr).find(|b| !self.avoid.contains(b)))
            .or(current)
            .or_else(|| in_order(old, isr).next())
    }

    fn elr_candidate(&self, old: &Partition, lost: impl Fn(BrokerId) -> bool) -> Option<BrokerId> {
        let anyone = planted::is(Bug::ElectionFromOutside);
        let among = if anyone { &old.replicas } else { &old.elr };
        in_order(old, among).find(|b| self.image.brokers.is_active(*b) && (anyone || !lost(*b)))
    }

    fn elr(&self, old: &Partition, isr: &[BrokerId], lost: impl Fn(BrokerId) -> bool) -> Vec<BrokerId> {
        let enough = planted::is(Bug::ElrIgnoresDataCentres) && isr.len() >= self.rule.min_replicas;
        if enough || self.rule.holds(self.image, isr) {
            return Vec::new();
        }
        let lost = |b: BrokerId| lost(b) && !planted::is(Bug::ElrKeptAfterUnprovedRestart);
        let safe = |b: &BrokerId| (old.elr.contains(b) || old.isr.contains(b)) && !isr.contains(b) && !lost(*b);
        old.replicas.iter().copied().filter(safe).collect()
    }

    /// Its current registration can prove nothing: what it holds is worth nothing for elections.
    fn never_proves(&self, broker: BrokerId) -> bool {
        let hopeless = |b: &Broker| !b.proved && !b.proof_admissible;
        self.image.brokers.get(broker).is_none_or(hopeless)
    }

    fn change(&self, number: u32, old: &Partition, new: Places) -> Option<PartitionChange> {
        let leader = match (old.leader, new.leader) {
            (before, after) if before == after => LeaderChange::Unchanged,
            (_, Some(broker)) => LeaderChange::Broker(broker),
            (_, None) => LeaderChange::Nobody,
        };
        let formed = old.recovery == RecoveryState::Recovering && self.rule.holds(self.image, &new.isr);
        let change = PartitionChange {
            partition: number,
            leader,
            isr: (new.isr != old.isr).then_some(new.isr),
            elr: (new.elr != old.elr).then_some(new.elr),
            recovery: formed.then_some(RecoveryState::Recovered),
            ..PartitionChange::default()
        };
        let nothing = PartitionChange { partition: number, ..PartitionChange::default() };
        (change != nothing).then_some(change)
    }

    /// An election that may lose records: the chosen broker alone forms the ISR; whoever held more loses its place,
    /// since the new leader will commit without it. Always marked, even where one member satisfies the rule: replicas
    /// learn from the mark that they may have to cut below their high watermark.
    pub(super) fn unclean(number: u32, leader: BrokerId) -> PartitionChange {
        PartitionChange {
            partition: number,
            leader: LeaderChange::Broker(leader),
            isr: Some(vec![leader]),
            elr: Some(Vec::new()),
            recovery: Some(RecoveryState::Recovering),
            ..PartitionChange::default()
        }
    }
}

/// Members in the partition's preference order.
fn in_order<'p>(old: &'p Partition, members: &'p [BrokerId]) -> impl Iterator<Item = BrokerId> + 'p {
    old.replicas.iter().copied().filter(|b| members.contains(b))
}

/// A partition with its topic, if the topic is live.
pub(super) fn live(image: &MetadataImage, at: TopicPartition) -> Option<(&Topic, &Partition)> {
    let topic = image.topics.get(at.topic).filter(|t| t.is_live())?;
    topic.partition(at.partition).map(|p| (topic, p))
}

#[cfg(test)]
mod tests;
