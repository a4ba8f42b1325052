//! The client's picture of the cluster: which broker leads which partition, under which epoch, at which address.
//!
//! Owns: folding of routing answers and leader hints into one picture.
//! Never: asks anybody (`cluster` does), forgets a newer leader for an older answer.
//! Invariant: a partition's leader epoch never falls while its topic id stays; a picture of one cluster never takes
//! answers of another one, or of an older life of the same one.
//! Why: brokers answer from their own images, which lag behind each other for moments after every change.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use protocol::metadata::record::Endpoint;
use protocol::rpc::pb::data::v1 as pb;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Where a broker listens for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Where it listens.
    pub address: Endpoint,
    /// `region/dc/rack`.
    pub locality: String,
    /// Not serving at the moment of the answer.
    pub fenced: bool,
}

/// Who leads a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionInfo {
    /// The leader, if there is one.
    pub leader: Option<u32>,
    /// Its epoch, or that of the last one.
    pub epoch: u32,
    /// All replicas.
    pub replicas: Vec<u32>,
    /// Replicas in sync.
    pub isr: Vec<u32>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its identity.
    pub id: Uuid,
    /// By partition number.
    pub partitions: Vec<PartitionInfo>,
    /// Largest batch it takes, bytes.
    pub max_message_bytes: usize,
    as_of: u64,
}

/// A partition's leader, ready to be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// Broker id.
    pub broker: u32,
    /// Where it listens.
    pub address: Endpoint,
    /// Its epoch.
    pub epoch: u32,
    /// The topic's identity.
    pub topic_id: Uuid,
}

/// An answer that must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    /// Of another cluster.
    #[error("cluster {found}, expected {expected}")]
    OtherCluster {
        /// So far.
        expected: Uuid,
        /// In the answer.
        found: Uuid,
    },
    /// A field is not what it must be.
    #[error("{0}")]
    Malformed(&'static str),
}

/// The picture. Cheap to clone in parts: topics are shared.
#[derive(Debug, Clone, Default)]
pub struct Routing {
    cluster: Option<Uuid>,
    incarnation: u64,
    batch_no: u64,
    brokers: BTreeMap<u32, BrokerInfo>,
    topics: BTreeMap<String, Arc<TopicInfo>>,
}

impl Routing {
    /// The cluster's identity, once known.
    #[must_use]
    pub fn cluster_id(&self) -> Option<Uuid> {
        self.cluster
    }

    /// Brokers by id.
    #[must_use]
    pub fn brokers(&self) -> &BTreeMap<u32, BrokerInfo> {
        &self.brokers
    }

    /// A topic, if known.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicInfo>> {
        self.topics.get(name)
    }

    /// Names of the topics in the picture.
    pub fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(String::as_str)
    }

    /// A partition's leader, if there is one whose address is known.
    #[must_use]
    pub fn leader(&self, topic: &str, partition: u32) -> Option<Leader> {
        let topic = self.topics.get(topic)?;
        let state = topic.partitions.get(partition as usize)?;
        let broker = state.leader?;
        let address = self.brokers.get(&broker)?.address.clone();
        Some(Leader { broker, address, epoch: state.epoch, topic_id: topic.id })
    }

    /// Whether the partition has got a leader epoch above `epoch`, or a topic of another identity took the name.
    #[must_use]
    pub fn moved_on(&self, topic: &str, topic_id: Uuid, partition: u32, epoch: u32) -> bool {
        let Some(topic) = self.topics.get(topic) else { return false };
        topic.id != topic_id
            || topic.partitions.get(partition as usize).is_some_and(|p| p.epoch > epoch && p.leader.is_some())
    }

    /// Whether both say the same about brokers and leaders.
    #[must_use]
    pub fn agrees_with(&self, other: &Routing) -> bool {
        let same = |a: &TopicInfo, b: &TopicInfo| {
            a.id == b.id && a.partitions == b.partitions && a.max_message_bytes == b.max_message_bytes
        };
        self.cluster == other.cluster
            && self.brokers == other.brokers
            && self.topics.len() == other.topics.len()
            && self.topics.iter().all(|(name, topic)| other.topics.get(name).is_some_and(|o| same(topic, o)))
    }

    /// Folds an answer in. Answers older than what is known change only what they know better.
    pub fn apply(&mut self, answer: pb::RoutingResponse) -> Result<(), RoutingError> {
        let cluster =
            Uuid::from_slice(&answer.cluster_id).map_err(|_| RoutingError::Malformed("cluster id is not a uuid"))?;
        if let Some(expected) = self.cluster
            && expected != cluster
        {
            return Err(RoutingError::OtherCluster { expected, found: cluster });
        }
        if answer.incarnation < self.incarnation {
            return Ok(());
        }
        let newer = answer.incarnation > self.incarnation || answer.batch_no >= self.batch_no;
        if answer.incarnation > self.incarnation {
            self.topics.clear();
        }
        self.cluster = Some(cluster);
        self.incarnation = answer.incarnation;
        for broker in answer.brokers {
            self.fold_broker(broker, newer);
        }
        for topic in answer.topics {
            self.fold_topic(topic, answer.batch_no)?;
        }
        if newer {
            self.batch_no = answer.batch_no;
        }
        Ok(())
    }

    fn fold_broker(&mut self, broker: pb::RoutingBroker, newer: bool) {
        let Some(address) = broker.client.and_then(|e| Endpoint::try_from(e).ok()) else { return };
        let info = BrokerInfo { address, locality: broker.locality, fenced: broker.fenced };
        if newer {
            self.brokers.insert(broker.id, info);
        } else {
            self.brokers.entry(broker.id).or_insert(info);
        }
    }

    fn fold_topic(&mut self, topic: pb::RoutingTopic, batch_no: u64) -> Result<(), RoutingError> {
        let known = self.topics.get(&topic.name);
        let newer = known.is_none_or(|k| batch_no >= k.as_of);
        if topic.error.is_some() {
            if newer {
                self.topics.remove(&topic.name);
            }
            return Ok(());
        }
        let id = Uuid::from_slice(&topic.topic_id).map_err(|_| RoutingError::Malformed("topic id is not a uuid"))?;
        let mut partitions = vec![None; topic.partitions.len()];
        for p in topic.partitions {
            let slot = partitions.get_mut(p.partition as usize);
            *slot.ok_or(RoutingError::Malformed("partition numbers are not dense"))? = Some(PartitionInfo {
                leader: Some(p.leader_id).filter(|id| *id != 0),
                epoch: p.leader_epoch,
                replicas: p.replicas,
                isr: p.isr,
            });
        }
        let mut partitions: Vec<PartitionInfo> = partitions
            .into_iter()
            .collect::<Option<_>>()
            .ok_or(RoutingError::Malformed("a partition number is missing"))?;
        match known {
            Some(known) if known.id == id => {
                merge(&mut partitions, &known.partitions, newer);
            }
            Some(_) if !newer => return Ok(()),
            _ => {}
        }
        let as_of = known.filter(|k| k.id == id).map_or(batch_no, |k| k.as_of.max(batch_no));
        let max_message_bytes = topic.max_message_bytes as usize;
        self.topics.insert(topic.name, Arc::new(TopicInfo { id, partitions, max_message_bytes, as_of }));
        Ok(())
    }

    /// Folds a refusal's hint in: this broker leads under that epoch. Returns whether the picture changed.
    pub fn follow(&mut self, topic: &str, partition: u32, broker: u32, address: Option<Endpoint>, epoch: u32) -> bool {
        let Some(known) = self.topics.get(topic) else { return false };
        let Some(state) = known.partitions.get(partition as usize) else { return false };
        let better = epoch > state.epoch || (epoch == state.epoch && state.leader.is_none());
        let reachable = address.is_some() || self.brokers.contains_key(&broker);
        if broker == 0 || !better || !reachable {
            return false;
        }
        let mut changed = TopicInfo::clone(known);
        changed.partitions[partition as usize].leader = Some(broker);
        changed.partitions[partition as usize].epoch = epoch;
        self.topics.insert(topic.to_owned(), Arc::new(changed));
        if let Some(address) = address {
            let info = self.brokers.entry(broker).or_insert_with(|| BrokerInfo {
                address: address.clone(),
                locality: String::new(),
                fenced: false,
            });
            info.address = address;
        }
        true
    }
}

/// Takes over from `known` what it knows better than `fresh`: a higher epoch; at the same epoch, if the answer is
/// older, everything; partitions the answer does not have yet.
fn merge(fresh: &mut Vec<PartitionInfo>, known: &[PartitionInfo], newer: bool) {
    for (place, old) in known.iter().enumerate() {
        match fresh.get_mut(place) {
            None => fresh.push(old.clone()),
            Some(new) if old.epoch > new.epoch || (old.epoch == new.epoch && !newer) => *new = old.clone(),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
