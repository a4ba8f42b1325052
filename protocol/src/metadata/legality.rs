//! What no correct decider writes: the reader's half of the paired assertions around the fold. The same verdict on
//! every node, since it looks at nothing but image and fact.

use super::brokers::Broker;
use super::image::MetadataImage;
use super::record::{Assignment, BrokerRef, Fact, LeaderChange, PartitionsChanged, PartitionsCreated};
use super::topics::{Partition, Topic, changed};
use crate::ids::{BrokerId, TopicId};
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
            Fact::ClusterFormed(f) => {
                let first = !self.cluster.is_formed() && f.incarnation == 1;
                let again = self.cluster.cluster_id == f.cluster_id && f.incarnation > self.cluster.incarnation;
                ensure(first || again, || format!("incarnation {} after {}", f.incarnation, self.cluster.incarnation))
            }
            Fact::MetadataVersionFinalized(f) => ensure(f.version > self.cluster.metadata_version, || {
                format!("version {} after {}", f.version, self.cluster.metadata_version)
            }),
            Fact::BrokerRegistered(f) => {
                let expected = self.cluster.last_broker_epoch.0 + 1;
                ensure(f.epoch.0 == expected, || format!("broker epoch {} instead of {expected}", f.epoch))?;
                let live = self.brokers.get(f.broker).is_some_and(|b| !b.is_fenced());
                ensure(!live, || format!("broker {} is registered and not fenced", f.broker))
            }
            Fact::BrokerFenced(f) => self.registered(f, |b| !b.is_fenced()),
            Fact::BrokerUnfenced(f) => self.registered(f, |b| b.is_fenced() && b.proved),
            Fact::BrokerProved(f) => self.registered(f, |b| b.is_fenced() && !b.proved),
            Fact::BrokerShutdownBegan(f) => self.registered(f, Broker::is_active),
            Fact::TopicCreated(f) => {
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
            Fact::ConfigSet(f) => super::configs::check(f.resource, &f.key, &f.value).map_err(|e| e.message),
            Fact::ConfigUnset(f) => {
                ensure(self.configs.get(f.resource, &f.key).is_some(), || format!("{} is not set", f.key))
            }
            Fact::UncleanElection(f) => {
                let topic = self.live_topic(f.topic)?;
                ensure(topic.partition(f.partition).is_some(), || format!("no partition {}", f.partition))
            }
        }
    }

    fn registered(&self, at: &BrokerRef, holds: impl FnOnce(&Broker) -> bool) -> Verdict {
        let broker = self.brokers.get(at.broker).ok_or_else(|| format!("broker {} is not registered", at.broker))?;
        ensure(broker.epoch == at.epoch, || format!("broker epoch {} instead of {}", at.epoch, broker.epoch))?;
        ensure(holds(broker), || format!("broker {} is {:?}, proved {}", at.broker, broker.state, broker.proved))
    }

    fn live_topic(&self, topic: TopicId) -> Result<&Topic, String> {
        self.topics.get(topic).filter(|t| t.is_live()).ok_or_else(|| format!("no live topic {topic}"))
    }

    fn check_created(&self, fact: &PartitionsCreated) -> Verdict {
        let topic = self.live_topic(fact.topic)?;
        let count = topic.partitions.len();
        ensure(count == fact.first as usize, || format!("partitions from {} after {count}", fact.first))?;
        fact.assignments.iter().try_for_each(check_assignment)
    }

    fn check_changed(&self, fact: &PartitionsChanged) -> Verdict {
        let topic = self.live_topic(fact.topic)?;
        let mut seen = BTreeSet::new();
        for change in &fact.changes {
            let number = change.partition;
            ensure(seen.insert(number), || format!("partition {number} twice"))?;
            let old = topic.partition(number).ok_or_else(|| format!("no partition {number}"))?;
            let new = changed(old, change);
            check_partition(&new).map_err(|e| format!("partition {number}: {e}"))?;
            if let LeaderChange::Broker(leader) = change.leader {
                let fit = self.brokers.get(leader).is_some_and(|b| !b.is_fenced());
                ensure(fit, || format!("partition {number}: leader {leader} is fenced or unknown"))?;
            }
        }
        Ok(())
    }
}

fn distinct(ids: &[BrokerId]) -> bool {
    ids.iter().collect::<BTreeSet<_>>().len() == ids.len()
}

fn check_assignment(assignment: &Assignment) -> Verdict {
    let Assignment { replicas, isr, leader } = assignment;
    ensure(!replicas.is_empty() && distinct(replicas), || format!("replicas {replicas:?}"))?;
    ensure(distinct(isr) && isr.iter().all(|b| replicas.contains(b)), || format!("ISR {isr:?} of {replicas:?}"))?;
    ensure(leader.is_none_or(|l| isr.contains(&l)), || format!("leader {leader:?} not in ISR {isr:?}"))
}

fn check_partition(partition: &Partition) -> Verdict {
    let Partition { replicas, isr, elr, leader, .. } = partition;
    ensure(!replicas.is_empty() && distinct(replicas), || format!("replicas {replicas:?}"))?;
    ensure(distinct(isr) && isr.iter().all(|b| replicas.contains(b)), || format!("ISR {isr:?} of {replicas:?}"))?;
    ensure(distinct(elr) && elr.iter().all(|b| replicas.contains(b) && !isr.contains(b)), || {
        format!("ELR {elr:?} beside ISR {isr:?} of {replicas:?}")
    })?;
    ensure(leader.is_none_or(|l| isr.contains(&l)), || format!("leader {leader:?} not in ISR {isr:?}"))
}
