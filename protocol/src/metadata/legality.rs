//! What no correct decider writes: the reader's half of the paired assertions around the fold. The same verdict on
//! every node, since it looks at nothing but image and fact. It owns the rules whose breach loses records or parts the
//! images; it never judges policy (placement, whether an ISR is large enough, whom to prefer): deciders do.

use super::brokers::Broker;
use super::image::MetadataImage;
use super::record::{
    Assignment, BrokerRef, BrokerRegistered, ClusterFormed, ConfigResource, ConfigSet, Fact, LeaderChange,
    METADATA_VERSION_MAX, METADATA_VERSION_MIN, PartitionChange, PartitionsChanged, PartitionsCreated, RecoveryState,
};
use super::topics::{Partition, Topic, changed};
use crate::ids::{BrokerId, TopicId};
use crate::planted::{self, Bug};
use std::collections::BTreeSet;

type Verdict = Result<(), String>;

fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(reason()) }
}

impl MetadataImage {
    /// Whether a fact may be folded into this image; the reason when not.
    ///
    /// # Errors
    /// A text for the log of the node that stops.
    pub fn check(&self, fact: &Fact) -> Verdict {
        if !matches!(fact, Fact::ClusterFormed(_)) {
            ensure(self.cluster.is_formed(), || "no cluster was formed yet".to_owned())?;
        }
        match fact {
            Fact::ClusterFormed(f) => self.check_formed(f),
            Fact::MetadataVersionFinalized(f) => self.check_version(f.version),
            Fact::BrokerRegistered(f) => self.check_registered(f),
            Fact::BrokerFenced(f) => self.registered(f, |b| !b.is_fenced()),
            Fact::BrokerUnfenced(f) => {
                self.registered(f, |b| b.is_fenced() && b.proved)?;
                // No incarnation continues a leadership: the election comes first (DESIGN.md section 4).
                let leads = self.topics.led_by(f.broker).next().filter(|_| !continues());
                ensure(leads.is_none(), || format!("broker {} still leads {leads:?}", f.broker))
            }
            Fact::BrokerProved(f) => self.registered(f, |b| b.is_fenced() && !b.proved),
            Fact::BrokerShutdownBegan(f) => self.registered(f, Broker::is_active),
            Fact::TopicCreated(f) => {
                ensure(f.replication_factor > 0 && !f.name.is_empty(), || "no name or no replicas".to_owned())?;
                ensure(self.topics.get(f.topic).is_none(), || format!("topic id {} exists", f.topic))?;
                ensure(self.topics.by_name(&f.name).is_none(), || format!("topic {} exists", f.name))
            }
            Fact::PartitionsCreated(f) => self.check_created(f),
            Fact::PartitionsChanged(f) => self.check_changed(f),
            Fact::TopicDeleted(f) => self.live_topic(f.topic).map(drop),
            Fact::TopicPurged(f) => {
                let deleted = self.topics.get(f.topic).is_some_and(|t| !t.is_live());
                ensure(deleted, || format!("topic {} is not deleted", f.topic))
            }
            Fact::ConfigSet(f) => self.check_config(f),
            Fact::ConfigUnset(f) => {
                ensure(self.configs.get(f.resource, &f.key).is_some(), || format!("{} is not set", f.key))
            }
            Fact::UncleanElection(f) => {
                let topic = self.live_topic(f.topic)?;
                let partition = topic.partition(f.partition).ok_or_else(|| format!("no partition {}", f.partition))?;
                ensure(partition.replicas.contains(&f.leader), || format!("leader {} is no replica", f.leader))
            }
        }
    }

    fn check_formed(&self, fact: &ClusterFormed) -> Verdict {
        let (id, now) = (self.cluster.cluster_id, self.cluster.incarnation);
        let first = !self.cluster.is_formed() && fact.incarnation == 1 && !fact.cluster_id.is_nil();
        let again = self.cluster.is_formed() && id == fact.cluster_id && fact.incarnation > now;
        ensure(first || again, || format!("{} life {} after {id} life {now}", fact.cluster_id, fact.incarnation))?;
        let version = fact.metadata_version;
        let floor = self.cluster.metadata_version.max(METADATA_VERSION_MIN);
        ensure((floor..=METADATA_VERSION_MAX).contains(&version), || not_folded(version, floor))
    }

    fn check_version(&self, version: u16) -> Verdict {
        let floor = self.cluster.metadata_version + 1;
        ensure((floor..=METADATA_VERSION_MAX).contains(&version), || not_folded(version, floor))?;
        let folds = |b: &Broker| (b.min_metadata_version..=b.max_metadata_version).contains(&version);
        match self.brokers.iter().find(|b| !b.is_fenced() && !folds(b)) {
            Some(b) => Err(format!("broker {} folds up to metadata.version {}", b.id, b.max_metadata_version)),
            None => Ok(()),
        }
    }

    fn check_registered(&self, fact: &BrokerRegistered) -> Verdict {
        let expected = self.cluster.last_broker_epoch.0 + 1;
        ensure(fact.epoch.0 == expected, || format!("broker epoch {} instead of {expected}", fact.epoch))?;
        ensure(fact.broker.0 > 0 && !fact.directories.is_empty(), || "no broker id or no directory".to_owned())?;
        let range = fact.min_metadata_version..=fact.max_metadata_version;
        let version = self.cluster.metadata_version;
        ensure(range.contains(&version), || format!("it folds {range:?}, metadata.version is {version}"))?;
        let old = self.brokers.get(fact.broker);
        ensure(old.is_none_or(Broker::is_fenced), || format!("broker {} is registered and not fenced", fact.broker))?;
        // Made on another view, its claim speaks of another past; and a request of a dead process would take the place of
        // the one that lives.
        let view = self.brokers.view(fact.broker);
        let fits = fact.seen == view || planted::is(Bug::RegistrationOnAnyView);
        ensure(fits, || format!("made on \"{}\", the image has \"{view}\"", fact.seen))?;
        let any_disk = planted::is(Bug::IsrKeptWithEmptyDisk);
        let known = |b: &Broker| {
            b.last_unfenced_epoch.is_some() && b.directories.iter().any(|d| fact.directories.contains(d) || any_disk)
        };
        ensure(!fact.proof_admissible || old.is_some_and(known), || "nothing that it could prove".to_owned())
    }

    fn check_config(&self, fact: &ConfigSet) -> Verdict {
        if let ConfigResource::Topic(topic) = fact.resource {
            self.live_topic(topic)?;
        }
        super::configs::check(fact.resource, &fact.key, &fact.value).map_err(|e| e.message)
    }

    fn registered(&self, at: &BrokerRef, holds: impl FnOnce(&Broker) -> bool) -> Verdict {
        let broker = self.brokers.get(at.broker).ok_or_else(|| format!("broker {} is not registered", at.broker))?;
        ensure(broker.epoch == at.epoch, || format!("broker epoch {} instead of {}", at.epoch, broker.epoch))?;
        ensure(holds(broker), || format!("broker {} is {:?}, proved {}", at.broker, broker.state, broker.proved))
    }

    fn live_topic(&self, topic: TopicId) -> Result<&Topic, String> {
        self.topics.get(topic).filter(|t| t.is_live()).ok_or_else(|| format!("no live topic {topic}"))
    }

    fn takes_part(&self, broker: BrokerId) -> bool {
        self.brokers.get(broker).is_some_and(|b| !b.is_fenced())
    }

    fn check_created(&self, fact: &PartitionsCreated) -> Verdict {
        let topic = self.live_topic(fact.topic)?;
        let count = topic.partitions.len();
        ensure(count == fact.first as usize, || format!("partitions from {} after {count}", fact.first))?;
        for Assignment { replicas, isr, leader } in &fact.assignments {
            check_lists(replicas, isr, &[], *leader)?;
            ensure(replicas.iter().all(|b| self.brokers.get(*b).is_some()), || format!("unknown in {replicas:?}"))?;
            ensure(isr.iter().all(|b| self.takes_part(*b)), || format!("fenced in the first ISR {isr:?}"))?;
        }
        Ok(())
    }

    fn check_changed(&self, fact: &PartitionsChanged) -> Verdict {
        let topic = self.live_topic(fact.topic)?;
        let mut seen = BTreeSet::new();
        for change in &fact.changes {
            let number = change.partition;
            ensure(seen.insert(number), || format!("partition {number} twice"))?;
            let old = topic.partition(number).ok_or_else(|| format!("no partition {number}"))?;
            self.check_change(old, change).map_err(|e| format!("partition {number}: {e}"))?;
        }
        Ok(())
    }

    /// Who may enter which list. Leaving is always legal: what a partition loses by it is the decider's judgement.
    fn check_change(&self, old: &Partition, change: &PartitionChange) -> Verdict {
        let new = changed(old, change);
        let Partition { replicas, adding, removing, isr, elr, leader, .. } = &new;
        check_lists(replicas, isr, elr, *leader)?;
        let within = |part: &[BrokerId]| part.iter().all(|b| replicas.contains(b));
        ensure(within(adding) && within(removing), || format!("adding {adding:?}, removing {removing:?}"))?;
        let known = |b: &BrokerId| old.replicas.contains(b) || self.brokers.get(*b).is_some();
        ensure(replicas.iter().all(known), || format!("unknown in {replicas:?}"))?;
        let joins_fit = isr.iter().all(|b| old.isr.contains(b) || self.takes_part(*b));
        ensure(joins_fit, || format!("a fenced broker enters the ISR: {:?} to {isr:?}", old.isr))?;
        let held = |b: &BrokerId| old.isr.contains(b) || old.elr.contains(b);
        ensure(elr.iter().all(held), || format!("ELR {elr:?} out of ISR {:?}, ELR {:?}", old.isr, old.elr))?;
        let LeaderChange::Broker(leader) = change.leader else {
            let unclean = change.recovery == Some(RecoveryState::Recovering);
            return ensure(!unclean, || "an unclean election without a leader".to_owned());
        };
        ensure(self.takes_part(leader), || format!("leader {leader} is fenced or unknown"))?;
        let anyone = planted::is(Bug::ElectionFromOutside);
        let clean = anyone || held(&leader) || change.recovery == Some(RecoveryState::Recovering);
        ensure(clean, || format!("leader {leader} was in neither ISR nor ELR, and the election is not marked unclean"))
    }
}

/// With these bugs planted a broker is let in with leaderships; without them that is illegal twice over.
fn continues() -> bool {
    planted::is(Bug::SameEpochLeaderRestart) || planted::is(Bug::UnfenceBeforeElections)
}

fn not_folded(version: u16, floor: u16) -> String {
    format!("metadata.version {version}: expected {floor} or more, and this build folds up to {METADATA_VERSION_MAX}")
}

fn distinct(ids: &[BrokerId]) -> bool {
    ids.iter().collect::<BTreeSet<_>>().len() == ids.len()
}

/// What holds of one partition by itself, however it came about.
pub(super) fn check_lists(
    replicas: &[BrokerId],
    isr: &[BrokerId],
    elr: &[BrokerId],
    leader: Option<BrokerId>,
) -> Verdict {
    ensure(!replicas.is_empty() && distinct(replicas), || format!("replicas {replicas:?}"))?;
    ensure(distinct(isr) && isr.iter().all(|b| replicas.contains(b)), || format!("ISR {isr:?} of {replicas:?}"))?;
    ensure(distinct(elr) && elr.iter().all(|b| replicas.contains(b) && !isr.contains(b)), || {
        format!("ELR {elr:?} beside ISR {isr:?} of {replicas:?}")
    })?;
    ensure(leader.is_none_or(|l| isr.contains(&l)), || format!("leader {leader:?} not in ISR {isr:?}"))
}

#[cfg(test)]
mod tests;
