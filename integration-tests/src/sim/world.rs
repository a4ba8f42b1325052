//! The event loop: virtual time and delivery. Owns the queue, and the order of everything that happens.

use super::buggify::Point;
use super::clients::{Client, Op};
use super::clock::Clock;
use super::laws::Laws;
use super::measures::Measures;
use super::network::Network;
use super::node::Node;
use super::peers::{Beats, Links};
use super::plan::Plan;
use super::process::{Process, Setup};
use super::quorum::Quorum;
use super::tally::Tally;
use super::told::Told;
use super::trace::Trace;
use super::wire::{Event, ToBroker};
use crate::chaos::random::Random;
use broker::replica::input::Input;
use protocol::ids::{BatchNo, BrokerId, Millis, TopicPartition};
use protocol::metadata::record::{ClusterFormed, Fact, METADATA_VERSION_MAX};
use protocol::timers::Timers;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use uuid::Uuid;

/// How often the controllers look around, ms.
const QUORUM_TURN_MS: Millis = 4;

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
    queue: BinaryHeap<Reverse<Scheduled>>,
    scheduled: u64,
    pub(super) quorum: Quorum,
    pub(super) net: Network,
    pub(super) nodes: BTreeMap<BrokerId, Node>,
    pub(super) links: Links,
    pub(super) beats: Beats,
    pub(super) laws: Laws,
    pub(super) measures: Measures,
    pub(super) trace: Trace,
    pub(super) faults: bool,
    /// Cuts by their numbers, and whether they were felt.
    pub(super) cuts: BTreeMap<u64, (super::faults::Fault, bool)>,
    /// Partitions that must take one more write before the run is over.
    pub(super) due: BTreeSet<TopicPartition>,
    /// Clients write on although the faults are over.
    pub(super) settling_writes: bool,
    pub(super) cluster: Uuid,
    pub(super) values: u64,
    pub(super) clients: Vec<Client>,
    pub(super) ops: BTreeMap<u64, Op>,
    pub(super) next_op: u64,
    /// The cluster's configs were set.
    pub(super) configured: bool,
    /// The batch whose hash was last folded into the trace.
    shown: BatchNo,
    /// Names of topics that were deleted and not made again.
    pub(super) deleted: BTreeSet<String>,
    /// When an operator last asked for another number of copies.
    pub(super) fewer_asked_at: Option<Millis>,
}

/// Runs a plan to its end.
///
/// # Errors
/// The law that broke, with what broke it.
pub fn run(plan: Plan) -> Result<Tally, String> {
    World::new(plan, false).run()
}

/// The same, with everything that happens printed.
///
/// # Errors
/// As [`run`].
pub fn run_aloud(plan: Plan) -> Result<Tally, String> {
    World::new(plan, true).run()
}

impl World {
    pub(super) fn new(plan: Plan, echo: bool) -> Self {
        let mut rng = Random::new(plan.seed);
        let timers = Timers::from_rtt(plan.rtt_ms);
        let cluster = uuid(&mut rng);
        let mut clocks = plan.clocks.iter().map(|rate| Clock::new(*rate, rng.below(1_000_000))).collect::<Vec<_>>();
        let controllers = clocks.split_off(plan.brokers.len());
        let mut laws = Laws::default();
        // A lease runs longer on a clock that is slower, and no longer than that.
        let slowest = plan.clocks.iter().take(plan.brokers.len()).min().copied().unwrap_or(1_000).min(1_000);
        laws.lease_bound_ms = (timers.lease_ms * 1_000).div_ceil(slowest);
        laws.lease_ms = timers.lease_ms;
        let mut quorum = Quorum::new(timers, &controllers, plan.buggify);
        let formed = ClusterFormed { cluster_id: cluster, incarnation: 1, metadata_version: METADATA_VERSION_MAX };
        quorum.seed(vec![Fact::ClusterFormed(formed)], &mut laws);
        let ids = (1u32..).map(BrokerId).zip(clocks);
        let nodes = ids.map(|(id, clock)| (id, Node::new(id, cluster, uuid(&mut rng), clock))).collect();
        let net = Network::new(plan.net.clone(), &plan.brokers, &plan.controllers);
        let (writers, readers) = (plan.load.producers, plan.load.consumers);
        let clients = (0..writers + readers).map(|n| Client::new(n >= writers)).collect();
        Self {
            plan,
            timers,
            rng,
            now: 1,
            queue: BinaryHeap::new(),
            scheduled: 0,
            quorum,
            net,
            nodes,
            links: Links::default(),
            beats: Beats::default(),
            laws,
            measures: Measures::default(),
            trace: Trace::new(echo),
            faults: true,
            cuts: BTreeMap::new(),
            due: BTreeSet::new(),
            settling_writes: false,
            cluster,
            values: 1,
            clients,
            ops: BTreeMap::new(),
            next_op: 0,
            configured: false,
            shown: BatchNo::default(),
            deleted: BTreeSet::new(),
            fewer_asked_at: None,
        }
    }

    pub(super) fn begin(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.after(1, Event::Start(id));
        }
        self.after(5, Event::Quorum);
        self.after(50, Event::Operator);
        for client in 0..self.clients.len() {
            self.after(60, Event::Client(client));
        }
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

    fn happen(&mut self, event: Event) -> Result<(), String> {
        self.laws.tally.events += 1;
        let (kind, who) = event.kind();
        self.trace.fold([self.now, kind, who.map_or(0, |id| u64::from(id.0))]);
        if self.trace.is_read() {
            self.trace.count(kind);
            event.text().iter().for_each(|text| self.trace.line(self.now, who, text));
        }
        match event {
            Event::Broker { id, life, message } => return self.deliver(id, life, message),
            Event::Controller(message) => return self.controller(message),
            Event::Quorum => return self.quorum_turn(),
            Event::Client(number) => return self.client(number),
            Event::Nemesis => return self.nemesis(),
            Event::Start(id) => return self.start(id),
            Event::Strike { id, power } => return self.strike_aimed(id, power),
            Event::Lost { id, life, at, subscription } => {
                let input = Box::new(Input::StreamLost { subscription });
                return self.deliver(id, life, ToBroker::Partition { at, input, hand: VecDeque::new(), link: None });
            }
            Event::Heard { client, op, answer } => self.heard(client, op, answer),
            Event::Operator => return self.operator(),
            Event::FeedOpen { id, life, stream } => self.feed_open(id, life, stream),
            Event::FeedServe { id, life, stream } => self.feed_serve(id, life, stream),
            Event::CatchUp { id, life, goal, until } => self.catch_up(id, life, goal, until),
            Event::LinkBroke { follower, leader, generation } => self.link_broke(follower, leader, generation),
            Event::Noticed { follower, leader, life, at, subscription } => {
                self.noticed((follower, leader), life, at, subscription);
            }
            Event::DiskWell(id) => self.disk_well(id, false),
        }
        Ok(())
    }

    fn start(&mut self, id: BrokerId) -> Result<(), String> {
        let incarnation = uuid(&mut self.rng);
        let (timers, buggify) = (self.timers, self.plan.buggify);
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.process.is_some() {
            return Ok(());
        }
        node.life += 1;
        // A flipped read of what no mark covers looks like a tail that was never finished: nobody could tell.
        if node.armed.as_ref().is_some_and(|(fault, _)| *fault == super::faults::Fault::ReadFlip) {
            node.unhook();
        }
        let setup = Setup { id, life: node.life, timers, incarnation, clock: node.clock, buggify };
        let sound = !node.tainted;
        let mut process = Process::start(setup, &node.disk, node.remembered.clone())?;
        let (who, wishes) = (process.who(), std::mem::take(&mut process.wishes));
        node.process = Some(process);
        node.wakes_at = Millis::MAX;
        self.trace.note(self.now, Some(id), format_args!("starts, life {}", who.life));
        self.laws.observe(self.now, &Told::Started { who, incarnation, sound })?;
        self.laws.recovered(id, &self.nodes)?;
        wishes.into_iter().try_for_each(|wish| self.grant(id, who.life, wish))?;
        self.deafen(id);
        self.wake_in_time(id);
        Ok(())
    }

    /// Hands a message to a process, then carries out what it wants.
    fn deliver(&mut self, id: BrokerId, life: u64, message: ToBroker) -> Result<(), String> {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id).filter(|n| n.life == life) else { return Ok(()) };
        let Some(process) = node.process.as_mut() else { return Ok(()) };
        if node.frozen_until > now {
            let wakes = node.frozen_until;
            self.laws.tally.sometimes(super::sometimes::Sometimes::FrozenBrokerWoke);
            self.at(wakes, Event::Broker { id, life, message });
            return Ok(());
        }
        if let ToBroker::Partition { link: Some((follower, leader, generation)), .. } = &message
            && self.links.get(*follower, *leader).generation != *generation
        {
            if !(Point::OldStreamsDrain.is_on(self.plan.buggify) && is_ack(&message)) {
                return Ok(());
            }
            let late = if Point::FormerLives.is_on(self.plan.buggify) { 90 } else { 50 };
            if self.faults && self.rng.chance(late) {
                self.drain_later(id, life, message);
                return Ok(());
            }
        }
        if matches!(message, ToBroker::Wake) {
            // One that an earlier wish took the place of says nothing.
            if now < node.wakes_at {
                return Ok(());
            }
            node.wakes_at = Millis::MAX;
        }
        process.take(message, now, &mut self.laws)?;
        self.laws.after(id, &self.nodes)?;
        let Some(process) = self.nodes.get_mut(&id).and_then(|n| n.process.as_mut()) else { return Ok(()) };
        process.seen.drain(..).for_each(|what| self.laws.tally.sometimes(what));
        let outgoing = std::mem::take(&mut process.outgoing);
        let wishes = std::mem::take(&mut process.wishes);
        let started = std::mem::take(&mut process.started);
        let finished = std::mem::take(&mut process.finished);
        let delayed = std::mem::take(&mut process.delayed);
        let answers = std::mem::take(&mut process.answers);
        for number in started {
            let delay = self.flush_delay(id);
            self.to_broker(id, life, delay, ToBroker::RunFlush(number));
        }
        for number in finished {
            let delay = if self.faults && self.rng.chance(40) { self.rng.between(1, 2_500) } else { 1 };
            self.to_broker(id, life, delay, ToBroker::HearFlush(number));
        }
        for number in delayed {
            let slow = Point::SlowReaders.is_on(self.plan.buggify) && self.rng.chance(20);
            let delay = if slow { self.rng.between(1, 1_500) } else { 0 };
            self.to_broker(id, life, delay, ToBroker::Leave(number));
        }
        for out in outgoing {
            self.carry(id, life, out);
        }
        for (op, answer) in answers {
            self.answered(op, answer);
        }
        for wish in wishes {
            self.grant(id, life, wish)?;
        }
        self.wake_in_time(id);
        Ok(())
    }

    /// What had arrived on a stream that broke is read late: whoever sent it may have another life by then.
    fn drain_later(&mut self, id: BrokerId, life: u64, message: ToBroker) {
        let delay = self.rng.between(1, 4_000);
        let ToBroker::Partition { at, input, hand, .. } = message else { return };
        self.to_broker(id, life, delay, ToBroker::Partition { at, input, hand, link: None });
    }

    /// Makes sure that a process is woken when it wants to be.
    fn wake_in_time(&mut self, id: BrokerId) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(due) = node.process.as_ref().map(Process::due) else { return };
        let late = Point::LateTimers.is_on(self.plan.buggify);
        let due = due.max(now + 1) + if late { self.rng.below(60) } else { 0 };
        if due < node.wakes_at {
            node.wakes_at = due;
            let life = node.life;
            self.at(due, Event::Broker { id, life, message: ToBroker::Wake });
        }
    }

    fn quorum_turn(&mut self) -> Result<(), String> {
        self.count_felt();
        let answers = self.quorum.turn(self.now, &mut self.rng, &mut self.laws)?;
        self.laws.after_commits(self.now, &self.nodes)?;
        self.send(answers);
        if self.quorum.depose_in_flight && self.quorum.is_writing() {
            self.struck(super::faults::Fault::DeposeInFlight);
            let answers = self.quorum.depose(self.now, &mut self.rng, &mut self.laws);
            self.send(answers);
        }
        for controller in 0..self.quorum.members.len() {
            if self.quorum.catch_up(controller, self.now, &mut self.rng) {
                self.feed_news(controller);
            }
        }
        if self.quorum.committed() != self.shown {
            let before = usize::try_from(self.shown.0).unwrap_or(0);
            for bytes in self.quorum.log.iter().skip(before).filter(|_| self.trace.is_read()) {
                let batch = protocol::metadata::batch::MetadataBatch::decode(bytes);
                self.trace.line(self.now, None, &format!("committed {batch:?}"));
            }
            self.shown = self.quorum.committed();
            self.trace.fold([self.now, self.shown.0, self.quorum.image.chain_hash]);
        }
        self.after(QUORUM_TURN_MS, Event::Quorum);
        Ok(())
    }
}

/// Whether a message is a follower's acknowledgement.
fn is_ack(message: &ToBroker) -> bool {
    matches!(message, ToBroker::Partition { input, .. } if matches!(**input, Input::Ack(_)))
}

pub(super) fn uuid(rng: &mut Random) -> Uuid {
    Uuid::from_u64_pair(rng.number(), rng.number() | 1)
}
