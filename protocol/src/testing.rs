//! Seeded generators for tests of this and other crates: numbers, and facts that are legal on a given image. The same seed
//! gives the same facts on every machine. Owns no law; it only reaches as many states as it can, by moves that a cluster
//! makes (brokers fail and return, leaders move, ISRs shrink and grow, unclean elections, reassignments, configs, deletions).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::ids::{BrokerEpoch, BrokerId, TopicId};
use crate::locality::Locality;
use crate::metadata::batch::MetadataBatch;
use crate::metadata::brokers::Broker;
use crate::metadata::image::MetadataImage;
use crate::metadata::record::*;
use crate::metadata::topics::{Partition, Topic};
use uuid::Uuid;

/// Small fast generator (`SplitMix64`). Not for secrets.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Begins at a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end` (0 when `end` is 0).
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.bits() % end).unwrap_or(0)
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Shuffles in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }

    /// A uuid of these bits.
    pub fn uuid(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.bits(), self.bits())
    }
}

/// Makes facts. Ids of brokers are 1 to 6, localities cover three data centres.
#[derive(Debug, Clone)]
pub struct FactGen {
    /// Where its choices come from; callers may draw from it too.
    pub rng: Rng,
}

const BROKERS: usize = 6;
const TOPICS: usize = 3;
const PARTITIONS: usize = 5;
const ATTEMPTS: usize = 20;

impl FactGen {
    /// Begins at a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed) }
    }

    /// The next fact, legal on this image.
    pub fn legal(&mut self, image: &MetadataImage) -> Fact {
        for _ in 0..ATTEMPTS {
            if let Some(fact) = self.any(image)
                && image.check(&fact).is_ok()
            {
                return fact;
            }
        }
        self.topic_created()
    }

    /// A plausible fact, legal or not; None where the image offers nothing for the kind drawn.
    pub fn any(&mut self, image: &MetadataImage) -> Option<Fact> {
        if !image.cluster.is_formed() {
            return Some(self.formed(1));
        }
        match self.rng.below(100) {
            0 => Some(self.formed(image.cluster.incarnation + 1)),
            1 => Some(Fact::MetadataVersionFinalized(MetadataVersionFinalized { version: 2 })),
            2..14 => self.registered(image),
            14..30 => self.broker_fact(image),
            30..38 if image.topics.iter().count() < TOPICS => Some(self.topic_created()),
            30..44 => self.partitions_changed(image),
            44..54 => self.partitions_created(image),
            54..84 => self.partitions_changed(image),
            84..87 => {
                let topic = self.topic(image, true)?.id;
                Some(Fact::TopicDeleted(TopicDeleted { topic, at_ms: self.rng.bits() >> 20 }))
            }
            87..89 => Some(Fact::TopicPurged(TopicPurged { topic: self.topic(image, false)?.id })),
            89..98 => Some(self.config(image)),
            _ => self.unclean(image),
        }
    }

    /// A history from nothing: facts each legal on the fold of those before.
    #[must_use]
    pub fn history(seed: u64, facts: usize) -> Vec<Fact> {
        let mut generator = Self::new(seed);
        let (mut image, mut history) = (MetadataImage::default(), Vec::with_capacity(facts));
        for _ in 0..facts {
            let fact = generator.legal(&image);
            image = applied(&image, std::slice::from_ref(&fact)).0;
            history.push(fact);
        }
        history
    }

    fn formed(&mut self, incarnation: u64) -> Fact {
        Fact::ClusterFormed(ClusterFormed { cluster_id: Uuid::from_u128(0xc1), incarnation, metadata_version: 1 })
    }

    fn registered(&mut self, image: &MetadataImage) -> Option<Fact> {
        let id = u32::try_from(1 + self.rng.below(BROKERS)).unwrap_or(1);
        let old = image.brokers.get(BrokerId(id));
        // A cluster in which most brokers take part reaches more states than one in which most begin anew.
        if old.is_some_and(|b| b.proved) && !self.rng.one_in(4) {
            return self.broker_fact(image);
        }
        let own_directory = vec![Uuid::from_u128(u128::from(id))];
        let directories = if self.rng.one_in(4) { vec![self.rng.uuid()] } else { own_directory };
        let proof_admissible =
            !self.rng.one_in(3) && old.is_some_and(|b| b.last_unfenced_epoch.is_some() && b.directories == directories);
        Some(Fact::BrokerRegistered(BrokerRegistered {
            broker: BrokerId(id),
            epoch: BrokerEpoch(image.cluster.last_broker_epoch.0 + 1),
            incarnation: self.rng.uuid(),
            internal: Endpoint { host: format!("b{id}"), port: 9_001 },
            client: Endpoint { host: format!("b{id}.example"), port: 9_000 },
            locality: Locality { region: "eu".into(), dc: format!("dc{}", id % 3), rack: format!("r{id}") },
            directories,
            min_metadata_version: 1,
            max_metadata_version: 1 + u16::from(self.rng.one_in(2)),
            seen: image.brokers.view(BrokerId(id)),
            proof_admissible,
        }))
    }

    fn broker_fact(&mut self, image: &MetadataImage) -> Option<Fact> {
        let all: Vec<&Broker> = image.brokers.iter().collect();
        let broker = self.rng.pick(&all)?;
        let at = BrokerRef { broker: broker.id, epoch: broker.epoch };
        Some(match (broker.is_fenced(), broker.proved) {
            (true, false) => Fact::BrokerProved(at),
            (true, true) => Fact::BrokerUnfenced(at),
            _ if self.rng.one_in(3) => Fact::BrokerShutdownBegan(at),
            _ => Fact::BrokerFenced(at),
        })
    }

    fn topic_created(&mut self) -> Fact {
        Fact::TopicCreated(TopicCreated {
            topic: TopicId(self.rng.uuid()),
            name: format!("t{}", self.rng.below(1_000_000)),
            replication_factor: u16::try_from(4 - self.rng.below(4) / 2).unwrap_or(1),
            created_ms: self.rng.bits() >> 20,
        })
    }

    fn topic<'a>(&mut self, image: &'a MetadataImage, live: bool) -> Option<&'a Topic> {
        let topics: Vec<&Topic> = image.topics.iter().filter(|t| t.is_live() == live).collect();
        self.rng.pick(&topics).copied()
    }

    fn brokers(&mut self, image: &MetadataImage) -> Vec<BrokerId> {
        let mut ids: Vec<BrokerId> = image.brokers.iter().map(|b| b.id).collect();
        self.rng.shuffle(&mut ids);
        ids
    }

    fn partitions_created(&mut self, image: &MetadataImage) -> Option<Fact> {
        let topic = self.topic(image, true)?;
        if topic.partitions.len() >= PARTITIONS {
            return self.partitions_changed(image);
        }
        let mut assignments = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let mut replicas = self.brokers(image);
            replicas.truncate(usize::from(topic.replication_factor));
            let active = |b: &BrokerId| image.brokers.is_active(*b);
            let isr: Vec<BrokerId> = replicas.iter().copied().filter(active).collect();
            let leader = isr.first().copied();
            assignments.push(Assignment { replicas, isr, leader });
        }
        let first = u32::try_from(topic.partitions.len()).ok()?;
        Some(Fact::PartitionsCreated(PartitionsCreated { topic: topic.id, first, assignments }))
    }

    fn partitions_changed(&mut self, image: &MetadataImage) -> Option<Fact> {
        let topic = self.topic(image, true)?;
        let mut changes = Vec::new();
        for (partition, state) in (0..).zip(topic.partitions.iter()) {
            if self.rng.one_in(2) {
                changes.push(PartitionChange { partition, ..self.change(image, state) });
            }
        }
        (!changes.is_empty()).then_some(Fact::PartitionsChanged(PartitionsChanged { topic: topic.id, changes }))
    }

    fn change(&mut self, image: &MetadataImage, old: &Partition) -> PartitionChange {
        let fit = |b: &BrokerId| image.brokers.get(*b).is_some_and(|b| !b.is_fenced());
        match self.rng.below(9) {
            // A new leader out of the ISR.
            0 => {
                let able: Vec<_> = old.isr.iter().copied().filter(fit).collect();
                let leader = self.rng.pick(&able).map_or(LeaderChange::Nobody, |b| LeaderChange::Broker(*b));
                PartitionChange { leader, ..Default::default() }
            }
            // Members leave; those that leave are eligible. A leader that leaves leads no more.
            1 | 2 => {
                let left: Vec<_> = old.isr.iter().copied().filter(|_| !self.rng.one_in(2)).collect();
                let gone = old.isr.iter().filter(|b| !left.contains(b));
                let elr = old.elr.iter().chain(gone).copied().collect();
                let stays = old.leader.is_none_or(|l| left.contains(&l));
                let able = left.iter().copied().find(fit);
                let next = able.map_or(LeaderChange::Nobody, LeaderChange::Broker);
                let leader = if stays { LeaderChange::Unchanged } else { next };
                PartitionChange { isr: Some(left), elr: Some(elr), leader, ..Default::default() }
            }
            // Members join.
            3 | 4 => {
                let joined = |b: &BrokerId| old.isr.contains(b) || fit(b);
                let isr: Vec<_> = old.replicas.iter().copied().filter(joined).collect();
                let elr = old.elr.iter().copied().filter(|b| !isr.contains(b)).collect();
                PartitionChange { isr: Some(isr), elr: Some(elr), ..Default::default() }
            }
            // A leader out of the ELR, or an unclean one out of all replicas.
            5 | 6 => {
                let unclean = self.rng.one_in(3);
                let from = if unclean { &old.replicas } else { &old.elr };
                let able: Vec<_> = from.iter().copied().filter(fit).collect();
                let Some(leader) = self.rng.pick(&able).copied() else { return PartitionChange::default() };
                PartitionChange {
                    leader: LeaderChange::Broker(leader),
                    isr: Some(vec![leader]),
                    elr: Some(Vec::new()),
                    recovery: unclean.then_some(RecoveryState::Recovering),
                    ..Default::default()
                }
            }
            // A reassignment begins.
            7 => {
                let mut replicas = old.replicas.clone();
                let adding: Vec<_> =
                    self.brokers(image).into_iter().filter(|b| !replicas.contains(b)).take(1).collect();
                replicas.extend(&adding);
                let removing = replicas.iter().copied().take(1).collect();
                PartitionChange {
                    replicas: Some(replicas),
                    adding: Some(adding),
                    removing: Some(removing),
                    ..Default::default()
                }
            }
            _ => PartitionChange {
                bump_leader_epoch: self.rng.one_in(2),
                recovery: Some(RecoveryState::Recovered),
                ..Default::default()
            },
        }
    }

    fn config(&mut self, image: &MetadataImage) -> Fact {
        let resource = match self.rng.below(4) {
            0 => ConfigResource::Cluster,
            1 => ConfigResource::Broker(BrokerId(1)),
            _ => self.topic(image, true).map_or(ConfigResource::Cluster, |t| ConfigResource::Topic(t.id)),
        };
        let set: Vec<String> = image.configs.of(resource).map(|(key, _)| key.to_owned()).collect();
        if self.rng.one_in(3)
            && let Some(key) = self.rng.pick(&set)
        {
            return Fact::ConfigUnset(ConfigUnset { resource, key: key.clone() });
        }
        let number = self.rng.below(4).to_string();
        let (key, value) = match (resource, self.rng.below(3)) {
            (ConfigResource::Broker(_), _) => ("replica.lag.max.ms", "30000".to_owned()),
            (_, 0) => ("min.insync.replicas", number),
            (_, 1) => ("min.insync.dcs", number),
            _ => ("flush.policy", "os".to_owned()),
        };
        Fact::ConfigSet(ConfigSet { resource, key: key.to_owned(), value })
    }

    fn unclean(&mut self, image: &MetadataImage) -> Option<Fact> {
        let topic = self.topic(image, true)?;
        let partition = self.rng.below(topic.partitions.len());
        let leader = *topic.partitions.get(partition)?.replicas.first()?;
        Some(Fact::UncleanElection(UncleanElection {
            topic: topic.id,
            partition: u32::try_from(partition).ok()?,
            leader,
            last_epoch: (!self.rng.one_in(3)).then_some(3),
            log_end: self.rng.bits() >> 40,
            forced_now: self.rng.one_in(2),
            at_ms: self.rng.bits() >> 20,
        }))
    }
}

/// The image after these facts as one batch, and what they touched.
///
/// # Panics
/// When a fact is not legal.
#[must_use]
pub fn applied(image: &MetadataImage, facts: &[Fact]) -> (MetadataImage, crate::metadata::delta::Delta) {
    let batch = MetadataBatch { base: image.batch_no, facts: facts.to_vec() };
    match image.apply(&batch, &batch.encode()) {
        Ok(outcome) => outcome,
        Err(error) => panic!("the generator made an illegal fact: {error}"),
    }
}
