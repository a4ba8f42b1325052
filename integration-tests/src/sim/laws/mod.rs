//! What must hold whatever happens, seen from outside of the cores: after every event for what it touched, and at the end.
//!
//! A broken law is an `Err` with a text that names it ([`Law`]); the run stops there and names its seed.
//! Map: `commits` judges the metadata log and every image; `replicas` logs, acknowledgements, reads and members, with
//! `history` and `values`; `counted` whom leaders count; `alters` ISR changes as they are asked for; this file who leads and for how long.

mod alters;
mod commits;
mod counted;
mod history;
mod law;
mod replicas;
mod values;

pub(super) use super::node::Node;
use super::tally::Tally;
use super::told::{Told, Who};
use alters::Alters;
use broker::metadata::feed::{FeedFault, FeedReader};
use broker::replica::input::Acks;
use commits::Commits;
use counted::Wanted;
pub use law::Law;
pub(super) use law::holds;
use protocol::ids::{BrokerId, LeaderEpoch, Millis, TopicPartition};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use protocol::rpc::pb::metadata::v1::{FeedBatch, FeedItem, feed_item::Item};
use replicas::{Ack, Replicas};
use std::collections::{BTreeMap, BTreeSet};
use values::Values;

/// Values by offset, of one replica's log.
pub(super) type Contents = BTreeMap<u64, u64>;

#[derive(Debug, Default)]
pub(super) struct Laws {
    /// Acknowledged: offset -> value.
    acked: BTreeMap<TopicPartition, BTreeMap<u64, u64>>,
    /// Seen by readers: offset -> value.
    read: BTreeMap<TopicPartition, BTreeMap<u64, u64>>,
    leaders: BTreeMap<(TopicPartition, LeaderEpoch), Who>,
    /// Unclean elections that an operator has asked for.
    unclean_asked: BTreeSet<TopicPartition>,
    /// When the batch committed that ended a leader's epoch.
    deposed: BTreeMap<(TopicPartition, LeaderEpoch), Millis>,
    commits: Commits,
    replicas: Replicas,
    values: Values,
    alters: Alters,
    /// What a deposed leader's clock may still allow it, ms.
    pub(super) lease_bound_ms: Millis,
    pub(super) lease_ms: Millis,
    pub(super) tally: Tally,
}

impl Laws {
    /// Hears of one thing.
    pub(super) fn observe(&mut self, now: Millis, told: &Told<'_>) -> Result<(), String> {
        match *told {
            Told::Committed { batch, before, after } => self.committed(now, batch, before, after),
            Told::Dropped { batch, .. } => {
                self.commits.settled(batch);
                Ok(())
            }
            Told::Active { .. } => {
                self.commits.nobody_answers();
                Ok(())
            }
            Told::Decided { facts, decided } => self.commits.decided(now, self.lease_ms, facts, decided),
            Told::Image { who, before, image } => self.commits.image_of(who, before, image),
            Told::UncleanAsked { at } => {
                self.unclean_asked.insert(at);
                Ok(())
            }
            Told::DeleteAsked { at, before } => {
                self.replicas.delete_asked(at, before);
                Ok(())
            }
            Told::Started { who, incarnation, .. } => {
                self.commits.started(who, incarnation);
                Ok(())
            }
            Told::Answered { broker, fenced: false, .. } => self.commits.heard(now, broker),
            Told::Ended { who, power: true } => {
                self.replicas.power_fails(who.id, &self.commits);
                Ok(())
            }
            Told::Asked { values, .. } => {
                self.values.asked(values);
                Ok(())
            }
            Told::Refused { at, values, code, .. } => self.values.refused(at, values, code),
            Told::Written { who, at, acks: Acks::All, base, values, .. } => {
                self.replicas.acks.push(Ack { who, at, base, values: values.to_vec() });
                self.acknowledged(at, base, values)
            }
            Told::Deleted { .. }
            | Told::Written { .. }
            | Told::Read { .. }
            | Told::Latest { .. }
            | Told::Earliest { .. } => self.served(now, told),
            Told::Leads { who, at, epoch } => self.leads(at, epoch, who),
            Told::Proposed { who, at, attempt, partition_epoch, isr } => {
                self.replicas.wants(Wanted { who, at, isr: isr.to_vec() });
                self.alters.proposed(who, at, partition_epoch, attempt)
            }
            Told::AlterAnswered { who, at, attempt } => {
                self.alters.answered(who, at, attempt);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn committed(
        &mut self,
        now: Millis,
        batch: &MetadataBatch,
        before: &MetadataImage,
        after: &MetadataImage,
    ) -> Result<(), String> {
        for fact in &batch.facts {
            if let Fact::UncleanElection(unclean) = fact {
                let at = TopicPartition { topic: unclean.topic, partition: unclean.partition };
                let asked = self.unclean_asked.contains(&at);
                let what = || format!("{at}: an unclean election that nobody asked for");
                holds(Law::ElectedFromMembers, asked, what)?;
                self.acked.remove(&at);
                self.read.remove(&at);
                self.replicas.give_up(at);
            }
        }
        self.replicas.retained(after);
        if batch.facts.iter().any(|fact| matches!(fact, Fact::ConfigSet(_) | Fact::ConfigUnset(_))) {
            self.replicas.configured(after);
        }
        self.depose(now, before, after);
        self.commits.settled(batch);
        self.commits.committed(batch, before, after)
    }

    /// An answer that is right only while its leader leads, or for a lease after.
    fn served(&mut self, now: Millis, told: &Told<'_>) -> Result<(), String> {
        match *told {
            Told::Deleted { who, at, epoch, .. } | Told::Written { who, at, epoch, .. } => {
                self.served_under_lease(now, who, at, epoch)
            }
            Told::Read { who, at, epoch, flagged, records, .. } => {
                self.replicas.read(who, at, records)?;
                if !self.replicas.is_given_up(at) {
                    self.read.entry(at).or_default().extend(records.iter().copied());
                }
                if flagged { Ok(()) } else { self.served_under_lease(now, who, at, epoch) }
            }
            Told::Latest { who, at, offset, epoch, flagged } => {
                self.replicas.latest(who, at, offset)?;
                if flagged { Ok(()) } else { self.served_under_lease(now, who, at, epoch) }
            }
            Told::Earliest { who, at, epoch, flagged: false, .. } => self.served_under_lease(now, who, at, epoch),
            _ => Ok(()),
        }
    }

    /// Whether anything was ever acknowledged under acks=all in this partition and must be there.
    pub(super) fn has_acked(&self, at: TopicPartition) -> bool {
        self.acked.get(&at).is_some_and(|records| !records.is_empty())
    }

    /// What has just committed was decided by a controller that was deposed since: it could not know what the next one
    /// answered.
    pub(super) fn decided_long_ago(&mut self) {
        self.commits.fenced.clear();
    }

    /// A broker has had its turn: looks at what it touched, and at what is promised of whom since.
    pub(super) fn after(&mut self, id: BrokerId, nodes: &BTreeMap<BrokerId, Node>) -> Result<(), String> {
        let Some(node) = nodes.get(&id) else { return Ok(()) };
        let quiet = node.disk.clone();
        quiet.unhooked(|| {
            for at in self.replicas.look(node, &mut self.values)? {
                self.replicas.member_holds(at, id, node, &self.commits)?;
            }
            self.replicas.judge_counts(nodes)?;
            for ack in std::mem::take(&mut self.replicas.acks) {
                self.replicas.acknowledged(&ack, nodes, &self.commits, &mut self.values)?;
            }
            Ok(())
        })
    }

    /// A process has recovered its disk.
    pub(super) fn recovered(&mut self, id: BrokerId, nodes: &BTreeMap<BrokerId, Node>) -> Result<(), String> {
        let Some(node) = nodes.get(&id) else { return Ok(()) };
        node.disk.clone().unhooked(|| self.replicas.started(id, node, &self.commits))
    }

    /// The controllers have had their turn: looks at members who were fenced, were let in or gained a place.
    pub(super) fn after_commits(&mut self, now: Millis, nodes: &BTreeMap<BrokerId, Node>) -> Result<(), String> {
        for (id, epoch) in std::mem::take(&mut self.commits.fenced) {
            let Some(node) = nodes.get(&id) else { continue };
            let lives = node.process.as_ref().filter(|p| p.epoch() == Some(epoch) && !p.wants_to_leave());
            let what = || format!("broker {id} is fenced as {epoch} while it lives and its lease runs");
            holds(Law::FencedAfterSilence, lives.is_none_or(|p| !p.lease_runs(now)), what)?;
        }
        for (id, epoch, needed) in std::mem::take(&mut self.commits.let_in) {
            let process = nodes.get(&id).and_then(|n| n.process.as_ref()).filter(|p| p.epoch() == Some(epoch));
            let has = process.map(|p| p.image.batch_no);
            let what = || format!("broker {id} is let in, its image is at {has:?}; batch {needed} called for it");
            holds(Law::UnfencedWhenFit, has.is_none_or(|has| has >= needed), what)?;
        }
        for (at, id) in std::mem::take(&mut self.commits.gained) {
            if let Some(node) = nodes.get(&id) {
                let quiet = node.disk.clone();
                quiet.unhooked(|| self.replicas.member_holds(at, id, node, &self.commits))?;
            }
        }
        Ok(())
    }

    /// Whatever image a node has, a batch with a fact that it does not know goes no further.
    pub(super) fn meets_the_unknown(&self, id: BrokerId, image: &MetadataImage) -> Result<(), String> {
        let after = image.batch_no.next();
        let data = unknown_batch(image.batch_no.0);
        let chain_hash = protocol::metadata::batch::chain(image.chain_hash, &data);
        let item = FeedBatch { batch_no: after.0, chain_hash, data: data.into() };
        let taken = FeedReader::default().take(image, FeedItem { item: Some(Item::Batch(item)) });
        let halted = matches!(&taken, Err(FeedFault::Halt(_)));
        holds(Law::UnknownFactHalts, halted, || format!("broker {id} met an unknown fact and goes on"))
    }

    fn depose(&mut self, now: Millis, before: &MetadataImage, after: &MetadataImage) {
        for topic in before.topics.iter() {
            for (partition, was) in (0u32..).zip(topic.partitions.iter()) {
                let at = TopicPartition { topic: topic.id, partition };
                let is = after.topics.partition(at).map(|p| p.leader_epoch);
                if is != Some(was.leader_epoch) {
                    self.deposed.entry((at, was.leader_epoch)).or_insert(now);
                }
            }
        }
    }

    fn served_under_lease(
        &mut self,
        now: Millis,
        who: Who,
        at: TopicPartition,
        epoch: LeaderEpoch,
    ) -> Result<(), String> {
        let Some(since) = self.deposed.get(&(at, epoch)) else { return Ok(()) };
        let late = now - since;
        self.tally.stale_service_ms = self.tally.stale_service_ms.max(late);
        if late <= self.lease_bound_ms {
            return Ok(());
        }
        let what = format!("{at}: broker {} served in epoch {epoch} {late} ms after it was deposed", who.id);
        Err(Law::LeaseBound.broken(what))
    }

    /// An acknowledgement left the leader. No offset is acknowledged with two values.
    pub(super) fn acknowledged(&mut self, at: TopicPartition, base: u64, values: &[u64]) -> Result<(), String> {
        self.tally.acked += values.len() as u64;
        let known = self.acked.entry(at).or_default();
        for (offset, value) in (base..).zip(values) {
            if let Some(before) = known.insert(offset, *value)
                && before != *value
            {
                let what = format!("{at} offset {offset} was acknowledged with {before} and with {value}");
                return Err(Law::OneValuePerOffset.broken(what));
            }
        }
        Ok(())
    }

    /// A process leads in an epoch. No epoch has two leaders, nor two lives of one.
    pub(super) fn leads(&mut self, at: TopicPartition, epoch: LeaderEpoch, who: Who) -> Result<(), String> {
        match self.leaders.insert((at, epoch), who) {
            None => {
                let earlier = (at, LeaderEpoch::default())..(at, epoch);
                self.tally.leader_changes += u64::from(self.leaders.range(earlier).next().is_some());
            }
            Some(before) if before == who => {}
            Some(before) => {
                return Err(
                    Law::OneLeaderPerEpoch.broken(format!("{at} epoch {epoch} is led by {before:?} and {who:?}"))
                );
            }
        }
        Ok(())
    }

    /// After healing: every record that was acknowledged, or that a reader was given, is where it was, on every replica,
    /// and replicas agree.
    pub(super) fn settled(
        &self,
        at: TopicPartition,
        start: u64,
        replicas: &[(BrokerId, Contents)],
    ) -> Result<(), String> {
        // Where only deletes were allowed to remove records, the replicas' own word for where they begin is not asked.
        let start = self.replicas.allowed_start(at).unwrap_or(start);
        for (law, known) in [(Law::AckedSurvives, &self.acked), (Law::WhatWasReadStays, &self.read)] {
            let known = known.get(&at).into_iter().flatten().filter(|(offset, _)| **offset >= start);
            for ((offset, value), (id, contents)) in known.flat_map(|k| replicas.iter().map(move |r| (k, r))) {
                let found = contents.get(offset);
                let what = || format!("{at} offset {offset}: a client knows {value}, broker {id} has {found:?}");
                holds(law, found == Some(value), what)?;
            }
        }
        for (offset, value) in self.replicas.committed_values(at).filter(|(offset, _)| *offset >= start) {
            for (id, contents) in replicas {
                let found = contents.get(&offset);
                let what = || format!("{at} offset {offset}: committed is {value}, broker {id} has {found:?}");
                holds(Law::CommittedStays, found == Some(&value), what)?;
            }
        }
        for pair in replicas.windows(2) {
            if pair[0].1 != pair[1].1 {
                let what = format!("{at}: the logs of {} and {} differ", pair[0].0, pair[1].0);
                return Err(Law::ReplicasAgree.broken(what));
            }
        }
        Ok(())
    }
}

/// A batch of one fact whose kind no build knows yet, as it would be stored: (base, [(kind, version, bytes)]).
fn unknown_batch(base: u64) -> Vec<u8> {
    // Unsigned numbers are written seven bits a byte, lowest first.
    let mut bytes = Vec::new();
    let mut number = base;
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or(0));
    bytes.extend([1, 0xe7, 0x07, 1, 0]);
    bytes
}
