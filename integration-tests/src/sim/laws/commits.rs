//! The metadata log, commit by commit: what may follow from what, and that every node has the fold of it.
//!
//! Owns: the images by number, when leaders were deposed, when brokers were called and last heard. Never: knows how a
//! decision is made; it looks at the image before and after each fact.

use super::law::{Law, holds};
use crate::sim::told::Who;
use controller::decide::command::{Command, Reply};
use protocol::error::ApiError;
use protocol::ids::{BatchNo, BrokerEpoch, BrokerId, Millis, TopicPartition};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use protocol::metadata::topics::Partition;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A broker let in: who, under which registration, and the batch that its image must hold.
pub(super) type LetIn = (BrokerId, BrokerEpoch, BatchNo);

#[derive(Debug, Default)]
pub(super) struct Commits {
    /// By batch number.
    images: Vec<MetadataImage>,
    /// Last batch that registered or fenced a broker.
    called_at: BTreeMap<BrokerId, BatchNo>,
    /// When a heartbeat was last answered with "you take part".
    heard_at: BTreeMap<BrokerId, Millis>,
    /// Which life of its broker a process is.
    lives: BTreeMap<Uuid, u64>,
    /// Brokers that a batch fences whose fate is open.
    fencing: BTreeSet<BrokerId>,
    /// Members to look at: a place was gained, or a restart was proved.
    pub(super) gained: Vec<(TopicPartition, BrokerId)>,
    pub(super) let_in: Vec<LetIn>,
    /// Brokers that were fenced, and the registration that ended with it.
    pub(super) fenced: Vec<(BrokerId, BrokerEpoch)>,
}

impl Commits {
    /// The controllers' image.
    pub(super) fn image(&self) -> Option<&MetadataImage> {
        self.images.last()
    }

    /// A process began.
    pub(super) fn started(&mut self, who: Who, incarnation: Uuid) {
        self.lives.insert(incarnation, who.life);
    }

    /// A broker is told that it takes part.
    pub(super) fn heard(&mut self, now: Millis, broker: BrokerId) -> Result<(), String> {
        self.heard_at.insert(broker, now);
        let what = || format!("broker {broker} is told that it takes part while a batch that fences it is written");
        holds(Law::FencedUnanswered, !self.fencing.contains(&broker), what)
    }

    /// A batch that was being written has a fate now.
    pub(super) fn settled(&mut self, batch: &MetadataBatch) {
        for fact in &batch.facts {
            if let Fact::BrokerFenced(f) = fact {
                self.fencing.remove(&f.broker);
            }
        }
    }

    /// Whoever wrote is not the active controller any more, and does not answer for it.
    pub(super) fn nobody_answers(&mut self) {
        self.fencing.clear();
    }

    /// A node's image is now this one.
    pub(super) fn image_of(&self, who: Who, before: BatchNo, image: &MetadataImage) -> Result<(), String> {
        let (id, at) = (who.id, image.batch_no);
        holds(Law::ImageNeverFalls, at >= before, || format!("broker {id} went from batch {before} back to {at}"))?;
        let fold = usize::try_from(at.0).ok().and_then(|at| self.images.get(at));
        let what = || format!("broker {id} has another image of batch {at} than the fold of the log");
        let begun = !self.images.is_empty() || at > BatchNo::default();
        holds(Law::ImageIsTheFold, !begun || fold == Some(image), what)
    }

    /// A batch is committed.
    pub(super) fn committed(
        &mut self,
        batch: &MetadataBatch,
        before: &MetadataImage,
        after: &MetadataImage,
    ) -> Result<(), String> {
        let (base, at) = (batch.base, before.batch_no);
        holds(Law::DecidedOnWhatItChanges, base == at, || format!("a batch decided on {base} was folded into {at}"))?;
        if self.images.is_empty() {
            self.images.push(before.clone());
        }
        self.images.push(after.clone());
        let mut image = before.clone();
        for fact in &batch.facts {
            let step = MetadataBatch { base: image.batch_no, facts: vec![fact.clone()] };
            let Ok((next, _)) = image.apply(&step, &[]) else { break };
            self.fact(batch, fact, &image, &next, after.batch_no)?;
            image = next;
        }
        self.let_in_with_places(batch, before, after)
    }

    fn fact(
        &mut self,
        batch: &MetadataBatch,
        fact: &Fact,
        before: &MetadataImage,
        after: &MetadataImage,
        number: BatchNo,
    ) -> Result<(), String> {
        match fact {
            Fact::BrokerRegistered(f) => {
                self.called_at.insert(f.broker, number);
                let old = before.brokers.get(f.broker).and_then(|b| self.lives.get(&b.incarnation));
                let new = self.lives.get(&f.incarnation);
                let what = || format!("broker {}: life {new:?} takes the place of life {old:?}", f.broker);
                holds(Law::NewestIsRegistered, new >= old, what)?;
            }
            Fact::BrokerFenced(f) => {
                self.called_at.insert(f.broker, number);
                self.fenced.extend(before.brokers.get(f.broker).map(|b| (f.broker, b.epoch)));
            }
            Fact::BrokerUnfenced(f) => {
                let needed = self.called_at.get(&f.broker).copied().unwrap_or_default();
                self.let_in.push((f.broker, f.epoch, needed));
                let proved = before.brokers.get(f.broker).is_some_and(|b| b.proved);
                let what = || format!("broker {} is let in, and its restart is not proved", f.broker);
                holds(Law::UnfencedWhenFit, proved, what)?;
            }
            Fact::BrokerProved(f) => {
                let places = after.topics.places_of(f.broker);
                let member = |at: &TopicPartition| {
                    after.topics.partition(*at).is_some_and(|p| p.isr.contains(&f.broker) || p.elr.contains(&f.broker))
                };
                self.gained.extend(places.filter(member).map(|at| (at, f.broker)));
            }
            Fact::PartitionsChanged(f) => {
                for change in &f.changes {
                    let at = TopicPartition { topic: f.topic, partition: change.partition };
                    let (Some(old), Some(new)) = (before.topics.partition(at), after.topics.partition(at)) else {
                        continue;
                    };
                    let unclean = batch.facts.iter().any(|fact| {
                        matches!(fact, Fact::UncleanElection(u) if u.topic == at.topic && u.partition == at.partition)
                    });
                    if !unclean {
                        elected(at, old, new)?;
                        eligible(at, old, new, before, after)?;
                    }
                    let joined = new.isr.iter().filter(|b| !old.isr.contains(b));
                    self.gained.extend(joined.map(|b| (at, *b)));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Nobody is let in with a place from before.
    fn let_in_with_places(
        &self,
        batch: &MetadataBatch,
        before: &MetadataImage,
        after: &MetadataImage,
    ) -> Result<(), String> {
        for fact in &batch.facts {
            let Fact::BrokerUnfenced(f) = fact else { continue };
            let mut kept = after.topics.in_sync_places_of(f.broker).filter(|at| {
                let (old, new) = (before.topics.partition(*at), after.topics.partition(*at));
                let epoch = |p: Option<&Partition>| p.map(|p| p.partition_epoch);
                old.is_some_and(|p| p.isr.contains(&f.broker)) && epoch(old) == epoch(new)
            });
            let kept = kept.next();
            let what = || format!("broker {} is let in with its place in {kept:?} from before its fencing", f.broker);
            holds(Law::UnfencedWhenFit, kept.is_none(), what)?;
        }
        Ok(())
    }

    /// A batch was decided, and these commands with it.
    pub(super) fn decided(
        &mut self,
        now: Millis,
        lease_ms: Millis,
        facts: &[Fact],
        decided: &[(Command, Result<Reply, ApiError>)],
    ) -> Result<(), String> {
        for fact in facts {
            let Fact::BrokerFenced(f) = fact else { continue };
            self.fencing.insert(f.broker);
            let replaced = facts.iter().any(|fact| matches!(fact, Fact::BrokerRegistered(r) if r.broker == f.broker));
            let silence = self.heard_at.get(&f.broker).map(|at| now.saturating_sub(*at));
            // Clocks may differ by a little.
            let enough = silence.is_none_or(|ms| ms * 20 >= lease_ms * 19);
            let what = || {
                let broker = f.broker;
                format!("broker {broker} is fenced {silence:?} ms after it was told that it takes part: {facts:?}")
            };
            holds(Law::FencedAfterSilence, replaced || enough, what)?;
        }
        let Some(image) = self.image() else { return Ok(()) };
        for (command, reply) in decided {
            let (Command::AlterPartitions(command), Ok(Reply::Altered(results))) = (command, reply) else { continue };
            for (proposal, _) in command.partitions.iter().zip(results).filter(|(_, r)| r.error.is_none()) {
                let registered_here = |b: BrokerId| {
                    facts.iter().find_map(|f| match f {
                        Fact::BrokerRegistered(r) if r.broker == b => Some(r.epoch),
                        _ => None,
                    })
                };
                let lives = |(b, epoch): &(BrokerId, BrokerEpoch)| {
                    let known = image.brokers.get(*b).map(|known| known.epoch);
                    known == Some(*epoch) || registered_here(*b) == Some(*epoch)
                };
                let gone = proposal.isr.iter().find(|member| !lives(member));
                let what =
                    || format!("{}: an ISR with {gone:?} was taken, who is no longer registered so", proposal.at);
                holds(Law::IsrNamesTheLiving, gone.is_none(), what)?;
            }
        }
        Ok(())
    }
}

fn elected(at: TopicPartition, old: &Partition, new: &Partition) -> Result<(), String> {
    let rises = new.leader_epoch >= old.leader_epoch && new.partition_epoch > old.partition_epoch;
    holds(Law::OneLeaderPerEpoch, rises, || format!("{at}: its epochs do not rise: {old:?} to {new:?}"))?;
    let Some(leader) = new.leader.filter(|_| new.leader_epoch > old.leader_epoch) else { return Ok(()) };
    let member = old.isr.contains(&leader) || old.elr.contains(&leader);
    let what = || format!("{at}: broker {leader} leads, from outside of ISR {:?} and ELR {:?}", old.isr, old.elr);
    holds(Law::ElectedFromMembers, member, what)
}

/// Spelled out once more, for it is what the deciders must not get wrong: enough members and enough data centres.
pub(super) fn satisfied(image: &MetadataImage, at: TopicPartition, isr: &[BrokerId]) -> bool {
    let config = image.topic_config(at.topic);
    let replicas = image.topics.get(at.topic).map_or(1, |t| usize::from(t.replication_factor));
    let dcs: BTreeSet<_> = isr.iter().filter_map(|b| image.brokers.get(*b)).map(|b| b.locality.data_centre()).collect();
    isr.len() >= usize::from(config.min_insync_replicas).min(replicas)
        && dcs.len() >= usize::from(config.min_insync_dcs)
}

fn eligible(
    at: TopicPartition,
    old: &Partition,
    new: &Partition,
    before: &MetadataImage,
    after: &MetadataImage,
) -> Result<(), String> {
    if satisfied(after, at, &new.isr) {
        return Ok(());
    }
    let keeps = |b: &&BrokerId| new.isr.contains(b) || new.elr.contains(b);
    let restarted = |b: &&BrokerId| before.brokers.get(**b).is_none_or(|b| !b.proved);
    let lost = old.isr.iter().chain(&old.elr).find(|b| !keeps(b) && !restarted(b));
    let what = || format!("{at}: broker {lost:?} is not eligible any more, and ISR {:?} does not suffice", new.isr);
    holds(Law::EligibleStay, lost.is_none(), what)
}
