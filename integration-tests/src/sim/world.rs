//! The event loop: virtual time, delivery, faults, and the end of a run. The only place that draws random numbers
//! besides the quorum model.

use super::laws::{Laws, Tally};
use super::node::Node;
use super::outbox::Out;
use super::peers::Links;
use super::process::Process;
use super::quorum::{Answered, CONTROLLERS, Quorum};
use super::wire::{Attempt, Event, Origin, ToBroker, ToController, Wish};
use crate::chaos::random::Random;
use broker::lifecycle::state::HeartbeatAnswer as Answer;
use broker::partition::outside::{PushOut, Subscription};
use broker::replica::effect::{ToFollower, ToLeader};
use broker::replica::input::{BatchSpan, Input, IsrOutcome, Pushed};
use controller::decide::command::{AlterResult, Command, CreateTopic, Heartbeat, ProveRestart, Register, Reply};
use protocol::batch::{Header, batches};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, ControllerId, LeaderEpoch, Millis, PartitionEpoch, TopicId, TopicPartition};
use protocol::metadata::record::{ClusterFormed, Endpoint, Fact, METADATA_VERSION_MAX};
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

struct Scheduled {
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

struct World {
    plan: Plan,
    timers: Timers,
    rng: Random,
    now: Millis,
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    quorum: Quorum,
    nodes: BTreeMap<BrokerId, Node>,
    links: Links,
    laws: Laws,
    faults: bool,
    cluster: Uuid,
    values: u64,
    /// Milliseconds until which messages between a broker and the controllers are lost.
    cut_off: BTreeMap<BrokerId, Millis>,
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
    fn new(plan: Plan) -> Self {
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

    fn begin(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.after(1, Event::Start(id));
        }
        self.after(5, Event::Quorum);
        self.after(50, Event::Client);
        self.after(2_500, Event::Nemesis);
    }

    fn after(&mut self, delay: Millis, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Millis, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse(Scheduled { at, number: self.scheduled, event }));
    }

    fn to_broker(&mut self, id: BrokerId, life: u64, delay: Millis, message: ToBroker) {
        self.after(delay, Event::Broker { id, life, message });
    }

    fn go(&mut self, until: Millis) -> Result<(), String> {
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

    fn happen(&mut self, event: Event) -> Result<(), String> {
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

    fn start(&mut self, id: BrokerId) -> Result<(), String> {
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
    fn deliver(&mut self, id: BrokerId, life: u64, message: ToBroker) -> Result<(), String> {
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

    fn carry(&mut self, id: BrokerId, life: u64, out: Out) {
        match out {
            Out::ToFollower(to, message) => self.to_follower(id, to, handshake(to, message), VecDeque::new()),
            Out::Push(to, push) => {
                let (input, hand) = pushed(to, push);
                self.to_follower(id, to, input, hand);
            }
            Out::ToLeader(at, leader, message) => self.to_leader(id, life, at, leader, message),
            Out::Note(at, note) => {
                let delay = self.rng.between(1, 10);
                self.to_broker(id, life, delay, ToBroker::Noted(at, note));
            }
            Out::Reply(..) | Out::Flush(..) | Out::Alter(_) | Out::Report(..) | Out::Fatal(_) => {}
        }
    }

    fn to_follower(&mut self, leader: BrokerId, to: Subscription, input: Input, hand: VecDeque<bytes::Bytes>) {
        let delay = self.now + self.rng.between(1, 6);
        let link = self.links.get(to.follower, leader);
        if link.cut_until > self.now {
            return self.break_link(to.follower, leader);
        }
        if !link.subscriptions.contains(&(to.at, to.number)) {
            return;
        }
        let (at, generation) = (link.arrives_down(delay), link.generation);
        let Some(life) = self.nodes.get(&to.follower).map(|n| n.life) else { return };
        let link = Some((to.follower, leader, generation));
        let message = ToBroker::Partition { at: to.at, input: Box::new(input), hand, link };
        self.at(at, Event::Broker { id: to.follower, life, message });
    }

    fn to_leader(&mut self, id: BrokerId, life: u64, at: TopicPartition, leader: BrokerId, message: ToLeader) {
        let delay = self.now + self.rng.between(1, 6);
        let alive = self.nodes.get(&leader).filter(|n| n.process.is_some()).map(|n| n.life);
        let cut = self.links.get(id, leader).cut_until > self.now;
        let Some(leader_life) = alive.filter(|_| !cut) else {
            if let ToLeader::Subscribe(s) = message {
                let lost = Event::Lost { id, life, at, subscription: s.subscription };
                self.after(20, lost);
            }
            return self.break_link(id, leader);
        };
        let link = self.links.get(id, leader);
        let input = match message {
            ToLeader::Subscribe(s) => {
                link.subscriptions.insert((at, s.subscription));
                Input::Subscribe(s)
            }
            ToLeader::Unsubscribe(subscription) => {
                link.subscriptions.remove(&(at, subscription));
                Input::Unsubscribed { follower: id, subscription }
            }
            ToLeader::Ack(ack) => Input::Ack(ack),
        };
        let (due, generation) = (link.arrives_up(delay), link.generation);
        let link = Some((id, leader, generation));
        let message = ToBroker::Partition { at, input: Box::new(input), hand: VecDeque::new(), link };
        self.at(due, Event::Broker { id: leader, life: leader_life, message });
    }

    fn break_link(&mut self, follower: BrokerId, leader: BrokerId) {
        let generation = self.links.get(follower, leader).generation;
        let delay = self.rng.between(0, 30);
        self.after(delay, Event::LinkBroke { follower, leader, generation });
    }

    fn link_broke(&mut self, follower: BrokerId, leader: BrokerId, generation: u64) {
        let link = self.links.get(follower, leader);
        if link.generation != generation {
            return;
        }
        let lost = link.breaks();
        let lives = |id: BrokerId, nodes: &BTreeMap<BrokerId, Node>| nodes.get(&id).map_or(0, |n| n.life);
        let (follower_life, leader_life) = (lives(follower, &self.nodes), lives(leader, &self.nodes));
        for (at, subscription) in lost {
            let delay = self.rng.between(1, 40);
            self.after(delay, Event::Lost { id: follower, life: follower_life, at, subscription });
            let input = Box::new(Input::Unsubscribed { follower, subscription });
            let message = ToBroker::Partition { at, input, hand: VecDeque::new(), link: None };
            let delay = self.rng.between(1, 40);
            self.to_broker(leader, leader_life, delay, message);
        }
    }

    fn is_cut_off(&self, id: BrokerId) -> bool {
        self.cut_off.get(&id).is_some_and(|until| *until > self.now)
    }

    fn grant(&mut self, id: BrokerId, life: u64, wish: Wish) -> Result<(), String> {
        let delay = self.rng.between(1, 8);
        match wish {
            Wish::Register => {
                let command = self.registration(id);
                self.ask(command, Origin::Register(id, life), delay);
            }
            Wish::Prove => {
                let Some(process) = self.nodes.get(&id).and_then(|n| n.process.as_ref()) else { return Ok(()) };
                let Some(epoch) = process.epoch() else { return Ok(()) };
                let command = ProveRestart { broker: id, epoch, proved: process.proved(), last: true };
                self.ask(Command::ProveRestart(command), Origin::Proof(id, life), delay);
            }
            Wish::Heartbeat(heartbeat) => self.beat(id, life, heartbeat),
            Wish::Alter(command, attempts) => {
                self.ask(Command::AlterPartitions(command), Origin::Alter(id, life, attempts), delay);
            }
            Wish::Dead(reason) => {
                if !self.faults && reason.contains("invariant") {
                    return Err(format!("broker {id} stopped: {reason}"));
                }
                self.laws.trace(&format!("{} broker {id} stops: {reason}", self.now));
                self.kill(id, false);
            }
        }
        Ok(())
    }

    fn registration(&mut self, id: BrokerId) -> Command {
        let process = self.nodes.get_mut(&id).and_then(|n| n.process.as_mut()).expect("only a live process wishes");
        let claim = process.claim();
        let endpoint = |port: u16| Endpoint { host: format!("b{id}"), port };
        Command::Register(Register {
            broker: id,
            incarnation: process.incarnation,
            internal: endpoint(1),
            client: endpoint(2),
            locality: format!("r/dc{id}/k").parse().expect("three legal parts"),
            directories: vec![process.directory()],
            min_metadata_version: 1,
            max_metadata_version: METADATA_VERSION_MAX,
            previous_epoch: (claim.0 != 0).then_some(claim),
        })
    }

    fn ask(&mut self, command: Command, origin: Origin, delay: Millis) {
        let from = match &origin {
            Origin::Nobody => None,
            Origin::Register(id, _) | Origin::Proof(id, _) | Origin::Alter(id, ..) => Some(*id),
        };
        let lost = from.is_some_and(|id| self.is_cut_off(id)) || (self.faults && self.rng.chance(2));
        if lost {
            self.answer(origin, Err(ErrorCode::Timeout), 300);
        } else {
            self.after(delay, Event::Controller(ToController::Command(Box::new(command), origin)));
        }
    }

    fn beat(&mut self, id: BrokerId, life: u64, beat: broker::lifecycle::state::Heartbeat) {
        for to in 0..CONTROLLERS {
            if self.is_cut_off(id) || (self.faults && self.rng.chance(1)) {
                continue;
            }
            let heartbeat = Heartbeat {
                broker: id,
                epoch: beat.epoch,
                stream: life,
                applied: beat.applied,
                wants_unfence: beat.wants_unfence,
                wants_shutdown: beat.wants_shutdown,
            };
            let delay = self.rng.between(1, 8);
            self.after(delay, Event::Controller(ToController::Heartbeat { to, life, seq: beat.seq, heartbeat }));
        }
    }

    fn controller(&mut self, message: ToController) {
        match message {
            ToController::Command(command, origin) => {
                if let Some((origin, error)) = self.quorum.command(*command, origin) {
                    self.answer(origin, Err(error.code), 5);
                }
            }
            ToController::StreamReset { broker, stream } => self.quorum.stream_reset(broker, stream),
            ToController::Heartbeat { to, life, seq, heartbeat } => {
                let Some(answer) = self.quorum.heartbeat(to, &heartbeat, self.now) else { return };
                if self.is_cut_off(heartbeat.broker) {
                    return;
                }
                let answer = Answer {
                    controller: ControllerId(u32::try_from(to).unwrap_or(0) + 1),
                    seq,
                    active: true,
                    committed: answer.committed,
                    fenced: answer.fenced,
                    may_stop: answer.may_stop,
                    error: answer.error.map(|e| e.code),
                };
                let delay = self.rng.between(1, 8);
                self.to_broker(heartbeat.broker, life, delay, ToBroker::Answer(answer));
            }
        }
    }

    fn quorum_turn(&mut self) -> Result<(), String> {
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
    fn want_topic(&mut self) {
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

    fn send(&mut self, answers: Answered) {
        for (origin, reply) in answers {
            let delay = self.rng.between(1, 8);
            let lost = self.faults && self.rng.chance(2);
            let reply = if lost { Err(ErrorCode::Timeout) } else { reply.map_err(|e| e.code) };
            self.answer(origin, reply, delay);
        }
    }

    fn answer(&mut self, origin: Origin, reply: Result<Reply, ErrorCode>, delay: Millis) {
        match (origin, reply) {
            (Origin::Register(id, life), Ok(Reply::Registered(registered))) => {
                self.to_broker(id, life, delay, ToBroker::Registered(Ok(registered)));
            }
            (Origin::Register(id, life), reply) => {
                let code = reply.err().unwrap_or(ErrorCode::Internal);
                self.to_broker(id, life, delay, ToBroker::Registered(Err(code)));
            }
            (Origin::Proof(id, life), reply) => {
                self.to_broker(id, life, delay, ToBroker::ProofTaken(reply.map(drop)));
            }
            (Origin::Alter(id, life, attempts), Ok(Reply::Altered(results))) => {
                for (attempt, result) in attempts.into_iter().zip(results) {
                    let outcome = outcome(&result);
                    self.to_broker(id, life, delay, ToBroker::IsrResult { attempt, outcome });
                }
            }
            (Origin::Alter(id, life, attempts), reply) => self.refuse_all(id, life, attempts, reply.err(), delay),
            (Origin::Nobody, _) => {}
        }
    }

    fn refuse_all(&mut self, id: BrokerId, life: u64, attempts: Vec<Attempt>, code: Option<ErrorCode>, delay: Millis) {
        for attempt in attempts {
            let outcome = code.map_or(IsrOutcome::Unknown, IsrOutcome::Refused);
            self.to_broker(id, life, delay, ToBroker::IsrResult { attempt, outcome });
        }
    }

    fn client(&mut self) {
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

    fn nemesis(&mut self) -> Result<(), String> {
        if !self.faults {
            return Ok(());
        }
        let next = self.rng.between(150, 2_500);
        self.after(next, Event::Nemesis);
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        let id = *self.rng.one_of(&ids);
        self.laws.trace(&format!("{} nemesis near {id}", self.now));
        match self.rng.below(100) {
            0..30 => self.strike(id, false),
            30..55 => self.strike(id, true),
            55..62 => {
                self.laws.tally.blackouts += 1;
                ids.iter().for_each(|id| self.strike(*id, true));
            }
            62..70 => {
                let answers = self.quorum.depose(self.now, &mut self.rng);
                self.send(answers);
            }
            70..78 => self.quorum.depose_in_flight = true,
            78..90 => {
                let other = *self.rng.one_of(&ids);
                let until = self.now + self.rng.between(50, 7_000);
                for (follower, leader) in [(id, other), (other, id)] {
                    self.links.get(follower, leader).cut_until = until;
                    self.break_link(follower, leader);
                }
            }
            90..97 => drop(self.cut_off.insert(id, self.now + self.rng.below(4_000) + 1)),
            _ => self.wipe(id),
        }
        Ok(())
    }

    /// Kills a broker (or cuts its power) and starts it again later.
    fn strike(&mut self, id: BrokerId, power: bool) {
        if self.nodes.get(&id).is_some_and(|n| n.process.is_some()) {
            self.kill(id, power);
        }
    }

    fn kill(&mut self, id: BrokerId, power: bool) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = node.process.take() else { return };
        self.laws.tally.truncations += process.truncations();
        drop(process);
        let stream = node.life;
        if power {
            self.laws.tally.power_cuts += 1;
            let rng = &mut self.rng;
            node.disk.crash(&mut || rng.chance(50));
        } else {
            self.laws.tally.kills += 1;
            node.disk.kill_process();
        }
        for (follower, leader) in self.links.of(id) {
            self.break_link(follower, leader);
        }
        if !power || self.rng.chance(50) {
            let delay = self.rng.between(1, 60);
            self.after(delay, Event::Controller(ToController::StreamReset { broker: id, stream }));
        }
        let delay = self.rng.between(20, 3_500);
        self.after(delay, Event::Start(id));
    }

    /// An operator replaces a dead broker's disk by an empty one. Only while every partition keeps two ISR members
    /// elsewhere: losing more disks than the rule allows is no fault of the protocol.
    fn wipe(&mut self, id: BrokerId) {
        let spared = |p: &protocol::metadata::topics::Partition| {
            let others = p.isr.iter().filter(|b| **b != id);
            others.filter(|b| self.nodes.get(b).is_some_and(|n| n.process.is_some())).count() >= 2
        };
        let safe = self.quorum.image.topics.iter().all(|t| t.partitions.iter().all(spared));
        if !safe {
            return;
        }
        self.strike(id, true);
        let directory = uuid(&mut self.rng);
        let cluster = self.cluster;
        if let Some(node) = self.nodes.get_mut(&id).filter(|n| n.process.is_none()) {
            node.format(cluster, directory);
            self.laws.tally.wiped += 1;
        }
    }

    fn heal(&mut self) {
        self.cut_off.clear();
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        for follower in &ids {
            for leader in &ids {
                self.links.get(*follower, *leader).cut_until = 0;
            }
            self.after(1, Event::Start(*follower));
        }
    }

    fn partitions(&self) -> Vec<(TopicPartition, protocol::metadata::topics::Partition)> {
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
    fn is_settled(&self) -> bool {
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

    fn judge(&mut self) -> Result<(), String> {
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

fn uuid(rng: &mut Random) -> Uuid {
    Uuid::from_u64_pair(rng.number(), rng.number() | 1)
}

fn outcome(result: &AlterResult) -> IsrOutcome {
    match result.error {
        None => IsrOutcome::Committed(PartitionEpoch(result.partition_epoch.0)),
        Some(code) => IsrOutcome::Refused(code),
    }
}

fn handshake(to: Subscription, message: ToFollower) -> Input {
    let subscription = to.number;
    match message {
        ToFollower::Started { leader_epoch, from, high_watermark, log_start } => {
            Input::Started { subscription, leader_epoch, from, high_watermark, log_start }
        }
        ToFollower::Diverged { leader_epoch, epoch, end } => Input::Diverged { subscription, leader_epoch, epoch, end },
        ToFollower::BeginAt { leader_epoch, log_start } => Input::BeginAt { subscription, leader_epoch, log_start },
        ToFollower::Refused(code) => Input::Refused { subscription, code },
    }
}

fn pushed(to: Subscription, push: PushOut) -> (Input, VecDeque<bytes::Bytes>) {
    let (subscription, leader_epoch) = (to.number, push.leader_epoch);
    let PushOut { high_watermark, log_start, .. } = push;
    if push.batches.is_empty() {
        return (Input::Advance { subscription, leader_epoch, high_watermark, log_start }, VecDeque::new());
    }
    let hand: VecDeque<_> = batches(&push.batches).filter_map(Result::ok).collect();
    let spans = hand
        .iter()
        .filter_map(|b| Header::parse(b).ok())
        .map(|h| BatchSpan {
            base: h.base_offset,
            end: h.next_offset(),
            epoch: LeaderEpoch(h.leader_epoch.unwrap_or_default()),
        })
        .collect();
    (Input::Pushed(Pushed { subscription, leader_epoch, batches: spans, high_watermark, log_start }), hand)
}
