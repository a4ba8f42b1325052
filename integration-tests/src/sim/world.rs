//! The event loop: virtual time, delivery, faults, and the end of a run. The only place that draws random numbers
//! besides the quorum model.

use super::laws::{Laws, Tally};
use super::node::Node;
use super::peers::Links;
use super::process::Process;
use super::quorum::Quorum;
use super::wire::{Event, Origin, ToBroker, ToController};
use crate::chaos::random::Random;
use broker::replica::input::Input;
use controller::decide::command::{Command, CreateTopic};
use protocol::ids::{BrokerId, Millis, TopicId, TopicPartition};
use protocol::metadata::record::{ClusterFormed, Fact, METADATA_VERSION_MAX};
use protocol::timers::Timers;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use uuid::Uuid;

/// What a run consists of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Everything random comes from it.
    pub seed: u64,
    /// Brokers, each in a data centre of its own.
    pub brokers: u32,
    /// Partitions of the one topic (RF 3, min ISR 2).
    pub partitions: u32,
    /// Virtual time with faults, ms.
    pub faulty_ms: Millis,
    /// Virtual time in which everything must heal, ms.
    pub heal_ms: Millis,
}

impl Plan {
    /// The usual run of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, brokers: 3 + u32::from(seed.is_multiple_of(3)), partitions: 3, faulty_ms: 15_000, heal_ms: 60_000 }
    }
}

pub(super) struct Scheduled {
    at: Millis,
    number: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) timers: Timers,
    pub(super) rng: Random,
    pub(super) now: Millis,
    pub(super) queue: BinaryHeap<Reverse<Scheduled>>,
    pub(super) scheduled: u64,
    pub(super) quorum: Quorum,
    pub(super) nodes: BTreeMap<BrokerId, Node>,
    pub(super) links: Links,
    pub(super) laws: Laws,
    pub(super) faults: bool,
    pub(super) cluster: Uuid,
    pub(super) values: u64,
    /// Milliseconds until which messages between a broker and the controllers are lost.
    pub(super) cut_off: BTreeMap<BrokerId, Millis>,
}

/// Runs a plan to its end.
///
/// # Errors
/// The law that broke, with what broke it.
pub fn run(plan: Plan) -> Result<Tally, String> {
    let mut world = World::new(plan);
    world.begin();
    let seed = plan.seed;
    world.go(plan.faulty_ms).map_err(|e| format!("seed {seed} at {} ms: {e}", world.now))?;
    world.faults = false;
    world.heal();
    let end = plan.faulty_ms + plan.heal_ms;
    while world.now < end && !world.is_settled() {
        world.go(world.now + 200).map_err(|e| format!("seed {seed} at {} ms: {e}", world.now))?;
    }
    world.judge().map_err(|e| format!("seed {seed} at the end: {e}"))?;
    Ok(world.laws.tally)
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let mut rng = Random::new(plan.seed);
        let timers = Timers::from_rtt(20);
        let cluster = uuid(&mut rng);
        let mut quorum = Quorum::new(timers);
        let formed = ClusterFormed { cluster_id: cluster, incarnation: 1, metadata_version: METADATA_VERSION_MAX };
        quorum.seed(vec![Fact::ClusterFormed(formed)]);
        let nodes = (1..=plan.brokers).map(BrokerId).map(|id| (id, Node::new(id, cluster, uuid(&mut rng)))).collect();
        Self {
            plan,
            timers,
            rng,
            now: 1,
            queue: BinaryHeap::new(),
            scheduled: 0,
            quorum,
            nodes,
            links: Links::default(),
            laws: Laws::default(),
            faults: true,
            cluster,
            values: 0,
            cut_off: BTreeMap::new(),
        }
    }

    pub(super) fn begin(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.after(1, Event::Start(id));
        }
        self.after(5, Event::Quorum);
        self.after(50, Event::Client);
        self.after(2_500, Event::Nemesis);
    }

    pub(super) fn after(&mut self, delay: Millis, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn at(&mut self, at: Millis, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at, number: self.scheduled, event }));
    }

    pub(super) fn to_broker(&mut self, id: BrokerId, life: u64, delay: Millis, message: ToBroker) {
        self.after(delay, Event::Broker { id, life, message });
    }

    pub(super) fn go(&mut self, until: Millis) -> Result<(), String> {
        while let Some(Reverse(next)) = self.queue.pop() {
            if next.at > until {
                self.queue.push(Reverse(next));
                break;
            }
            self.now = self.now.max(next.at);
            self.happen(next.event)?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    pub(super) fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Broker { id, life, message } => self.deliver(id, life, message),
            Event::Controller(message) => {
                self.controller(message);
                Ok(())
            }
            Event::Quorum => self.quorum_turn(),
            Event::Client => {
                self.client();
                Ok(())
            }
            Event::Nemesis => self.nemesis(),
            Event::Start(id) => self.start(id),
            Event::LinkBroke { follower, leader, generation } => {
                self.link_broke(follower, leader, generation);
                Ok(())
            }
            Event::Lost { id, life, at, subscription } => {
                let input = Box::new(Input::StreamLost { subscription });
                self.deliver(id, life, ToBroker::Partition { at, input, hand: VecDeque::new(), link: None })
            }
        }
    }

    pub(super) fn start(&mut self, id: BrokerId) -> Result<(), String> {
        let incarnation = uuid(&mut self.rng);
        let timers = self.timers;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.process.is_some() {
            return Ok(());
        }
        node.life += 1;
        let life = node.life;
        node.process = Some(Process::start(id, life, &node.disk, timers, incarnation)?);
        self.laws.trace(&format!("{} start {id}", self.now));
        self.to_broker(id, life, 1, ToBroker::Feed);
        self.to_broker(id, life, 2, ToBroker::Wake);
        Ok(())
    }

    /// Hands a message to a process, then carries out what it wants.
    pub(super) fn deliver(&mut self, id: BrokerId, life: u64, message: ToBroker) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.life == life) else { return Ok(()) };
        let Some(process) = node.process.as_mut() else { return Ok(()) };
        if let ToBroker::Partition { link: Some((follower, leader, generation)), .. } = &message
            && self.links.get(*follower, *leader).generation != *generation
        {
            return Ok(());
        }
        let wakes = matches!(message, ToBroker::Wake);
        process.take(message, &self.quorum.log, self.now, &mut self.laws)?;
        let outgoing = std::mem::take(&mut process.outgoing);
        let wishes = std::mem::take(&mut process.wishes);
        let started = std::mem::take(&mut process.started);
        for number in started {
            let delay = self.rng.between(1, 12);
            self.to_broker(id, life, delay, ToBroker::RunFlush(number));
        }
        for out in outgoing {
            self.carry(id, life, out);
        }
        for wish in wishes {
            self.grant(id, life, wish)?;
        }
        if wakes {
            self.to_broker(id, life, 10, ToBroker::Wake);
            let delay = self.rng.between(1, 15);
            self.to_broker(id, life, delay, ToBroker::Feed);
        }
        Ok(())
    }

    pub(super) fn quorum_turn(&mut self) -> Result<(), String> {
        let answers = self.quorum.turn(self.now, &mut self.rng, &mut self.laws)?;
        self.send(answers);
        if self.quorum.depose_in_flight && self.quorum.is_writing() {
            let answers = self.quorum.depose(self.now, &mut self.rng);
            self.send(answers);
        }
        self.after(5, Event::Quorum);
        self.want_topic();
        Ok(())
    }

    /// Creates the one topic as soon as enough brokers are active.
    pub(super) fn want_topic(&mut self) {
        let active = self.quorum.image.brokers.iter().filter(|b| b.is_active()).count();
        if active < 3 || self.quorum.image.topics.by_name("t").is_some() || self.now % 100 >= 5 {
            return;
        }
        let command = CreateTopic {
            topic: TopicId(uuid(&mut self.rng)),
            seed: self.rng.number(),
            at_ms: self.now,
            name: "t".into(),
            partitions: self.plan.partitions,
            replicas: Some(3),
            configs: vec![("min.insync.replicas".into(), "2".into()), ("segment.bytes".into(), "16384".into())],
            validate_only: false,
        };
        self.after(
            1,
            Event::Controller(ToController::Command(Box::new(Command::CreateTopic(command)), Origin::Nobody)),
        );
    }

    pub(super) fn client(&mut self) {
        let delay = self.rng.between(5, 40);
        self.after(delay, Event::Client);
        if !self.faults {
            return;
        }
        let Some(topic) = self.quorum.image.topics.by_name("t") else { return };
        let partition = u32::try_from(self.rng.below(u64::from(self.plan.partitions))).unwrap_or(0);
        let at = TopicPartition { topic: topic.id, partition };
        let leader = topic.partition(partition).and_then(|p| p.leader);
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        // Clients believe old metadata now and then.
        let to = if self.rng.chance(10) { Some(*self.rng.one_of(&ids)) } else { leader };
        let Some(to) = to else { return };
        let count = self.rng.between(1, 3);
        let values = (0..count).map(|i| self.values + i).collect();
        self.values += count;
        let Some(life) = self.nodes.get(&to).map(|n| n.life) else { return };
        let delay = self.rng.between(1, 10);
        let deadline = self.now + 3_000;
        self.to_broker(to, life, delay, ToBroker::Produce { at, values, deadline });
    }

    pub(super) fn partitions(&self) -> Vec<(TopicPartition, protocol::metadata::topics::Partition)> {
        let topics = self.quorum.image.topics.iter();
        topics
            .flat_map(|t| {
                let id = t.id;
                (0u32..)
                    .zip(t.partitions.iter())
                    .map(move |(partition, p)| (TopicPartition { topic: id, partition }, p.clone()))
            })
            .collect()
    }

    /// Everybody is back, every partition is led and fully in sync, and nothing is on its way.
    pub(super) fn is_settled(&self) -> bool {
        let active = self.quorum.image.brokers.iter().filter(|b| b.is_active()).count();
        let partitions = self.partitions();
        let level = |(at, p): &(TopicPartition, protocol::metadata::topics::Partition)| {
            let process = |b: &BrokerId| self.nodes.get(b).and_then(|n| n.process.as_ref());
            let mut ends = p.replicas.iter().map(|b| process(b).and_then(|p| p.ends(*at)));
            let Some(Some(first)) = ends.next() else { return false };
            first.0 == first.1 && ends.all(|e| e == Some(first))
        };
        active == self.nodes.len()
            && partitions.iter().all(|(_, p)| p.leader.is_some() && p.isr.len() == p.replicas.len())
            && partitions.iter().all(level)
    }

    pub(super) fn judge(&mut self) -> Result<(), String> {
        let partitions = self.partitions();
        if !self.is_settled() {
            let states: Vec<_> = partitions
                .iter()
                .map(|(at, p)| format!("{}: leader {:?} isr {:?} elr {:?}", at.partition, p.leader, p.isr, p.elr))
                .collect();
            let brokers: Vec<_> = self
                .quorum
                .image
                .brokers
                .iter()
                .map(|b| format!("{} {:?} proved {}", b.id, b.state, b.proved))
                .collect();
            let processes = self.nodes.values().filter_map(|n| n.process.as_ref());
            let replicas: Vec<_> = processes.flat_map(|p| p.describe(self.now)).collect();
            let text = replicas.join("\n  ");
            return Err(format!("not healed after {} ms: {states:?} {brokers:?}\n  {text}", self.plan.heal_ms));
        }
        for (at, partition) in &partitions {
            let mut replicas = Vec::new();
            for id in &partition.replicas {
                let process = self.nodes.get(id).and_then(|n| n.process.as_ref());
                let process = process.ok_or_else(|| format!("broker {id} does not run"))?;
                replicas.push((*id, process.contents(*at)?));
            }
            self.laws.settled(*at, &replicas)?;
        }
        for node in self.nodes.values() {
            self.laws.tally.truncations += node.process.as_ref().map_or(0, Process::truncations);
            let Some(image) = node.process.as_ref().map(|p| &p.image) else { continue };
            let level = image.batch_no == self.quorum.image.batch_no;
            if level && *image != self.quorum.image {
                return Err(format!("broker {} has another image than the controllers", node.id));
            }
        }
        Ok(())
    }
}

pub(super) fn uuid(rng: &mut Random) -> Uuid {
    Uuid::from_u64_pair(rng.number(), rng.number() | 1)
}
