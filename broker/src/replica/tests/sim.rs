//! One partition on three brokers, from a seed: model controller, model disks, and a network of FIFO streams that are
//! cut at any time and may deliver late what they still held. Time moves with every event.

use super::super::effect::{AppendSource, Effect, ProduceOutcome, ToFollower, ToLeader};
use super::super::input::{
    Acks, BatchSpan, FollowerAck, Input, IsrOutcome, Produce, Pushed, RequestId, Subscribe, SubscriptionId,
};
use super::super::lease::{Lease, Now};
use super::super::{Identity, Replica, RoleName};
use super::sim_controller::{BROKERS, Controller, LEASE_MS};
use super::sim_disk::{Batch, Disk};
use super::sim_laws::Laws;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, PartitionEpoch, TopicId, TopicPartition};
use protocol::metadata::configs::FlushPolicy;
use protocol::metadata::durability::DurabilityRule;
use std::collections::{BTreeMap, VecDeque};

const AT: TopicPartition = TopicPartition { topic: TopicId(uuid::Uuid::nil()), partition: 0 };

/// xorshift64*: small, seeded, ours.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let n = u64::try_from(of.len()).expect("small");
        (n > 0).then(|| of[self.below(n) as usize])
    }
}

/// A stream between a follower and a leader; a new number after every cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Stream {
    follower: BrokerId,
    leader: BrokerId,
    number: u64,
}

#[derive(Debug, Clone)]
enum Message {
    Up(ToLeader, BrokerEpoch),
    Down(SubscriptionId, ToFollower),
    Push(Pushed, Vec<Batch>),
    Advance(SubscriptionId, LeaderEpoch, Option<u64>, u64),
}

#[derive(Debug, Clone, Default)]
struct Link {
    up: Option<u64>,
    held: Vec<Subscribe>,
    /// Subscriptions sent on the stream that is up.
    carried: Vec<SubscriptionId>,
}

#[derive(Debug, Clone)]
struct Alteration {
    broker: BrokerId,
    epoch: BrokerEpoch,
    attempt: u64,
    leader_epoch: LeaderEpoch,
    partition_epoch: PartitionEpoch,
    new_isr: Vec<(BrokerId, BrokerEpoch)>,
}

#[derive(Debug)]
pub(super) struct Broker {
    pub(super) id: BrokerId,
    pub(super) epoch: BrokerEpoch,
    pub(super) replica: Option<Replica>,
    pub(super) disk: Disk,
    pub(super) applied: usize,
    lease: Lease,
    /// Reaches the controller.
    linked: bool,
    pumps: BTreeMap<(BrokerId, SubscriptionId), Pump>,
    flushes: Vec<(u64, u64)>,
    notes: Vec<FlushPolicy>,
    slots: u32,
}

#[derive(Debug, Clone, Copy)]
struct Pump {
    stream: Stream,
    next: u64,
    told: (Option<u64>, u64),
}

/// What a run did; summed over seeds, each must have happened somewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) acked: u64,
    pub(super) unknown: u64,
    pub(super) leader_changes: u64,
    pub(super) truncations: u64,
    pub(super) deletes: u64,
    pub(super) resets: u64,
    pub(super) elr_elections: u64,
    pub(super) unproved: u64,
    pub(super) late_alterations: u64,
    pub(super) abdications: u64,
    pub(super) power_losses: u64,
    pub(super) stale_deliveries: u64,
    pub(super) lost: u64,
    pub(super) reads: u64,
}

/// Options drawn per seed.
#[derive(Debug, Clone, Copy)]
struct Swarm {
    cuts: u64,
    crashes: u64,
    fences: u64,
    policies: bool,
    rules: bool,
    wipes: bool,
    deletes: bool,
    append_failures: bool,
    late: u64,
}

pub(super) struct Sim {
    pub(super) now: Millis,
    pub(super) rng: Rng,
    pub(super) controller: Controller,
    pub(super) brokers: BTreeMap<BrokerId, Broker>,
    links: BTreeMap<(BrokerId, BrokerId), Link>,
    streams: u64,
    up: BTreeMap<Stream, VecDeque<Message>>,
    down: BTreeMap<Stream, VecDeque<Message>>,
    alterations: Vec<Alteration>,
    verdicts: Vec<(BrokerId, BrokerEpoch, u64, IsrOutcome)>,
    /// Subscriptions whose end their leader has not noticed yet.
    unnoticed: Vec<(BrokerId, BrokerId, SubscriptionId)>,
    requests: u64,
    waiting: BTreeMap<RequestId, (BrokerId, Acks, u64)>,
    pub(super) laws: Laws,
    pub(super) tally: Tally,
    swarm: Swarm,
    pub(super) trace: Vec<String>,
    healing: bool,
    tracing: bool,
}

impl Sim {
    pub(super) fn new(seed: u64, tracing: bool) -> Self {
        let mut rng = Rng::new(seed);
        let swarm = Swarm {
            cuts: rng.below(6),
            crashes: rng.below(4),
            fences: rng.below(5),
            policies: rng.chance(25),
            rules: rng.chance(25),
            wipes: rng.chance(30),
            deletes: rng.chance(40),
            append_failures: rng.chance(20),
            late: rng.below(60),
        };
        let dcs = if rng.chance(50) { ["a", "b", "c"] } else { ["a", "a", "b"] };
        let rule = DurabilityRule { min_replicas: 2, min_dcs: 1 + rng.below(2) as usize };
        let policy = if rng.chance(80) { FlushPolicy::Sync } else { FlushPolicy::Os };
        let controller = Controller::new(dcs, rule, policy);
        let mut sim = Self {
            now: 1_000,
            rng,
            controller,
            brokers: BTreeMap::new(),
            links: BTreeMap::new(),
            streams: 0,
            up: BTreeMap::new(),
            down: BTreeMap::new(),
            alterations: Vec::new(),
            verdicts: Vec::new(),
            unnoticed: Vec::new(),
            requests: 0,
            waiting: BTreeMap::new(),
            laws: Laws::default(),
            tally: Tally::default(),
            swarm,
            trace: Vec::new(),
            healing: false,
            tracing,
        };
        for id in BROKERS {
            let epoch = sim.controller.brokers[&id].epoch;
            let lease = Lease { valid_until: sim.now + LEASE_MS, grace_until: sim.now + LEASE_MS + 100_000 };
            let broker = Broker {
                id,
                epoch,
                replica: None,
                disk: Disk::default(),
                applied: 0,
                lease,
                linked: true,
                pumps: BTreeMap::new(),
                flushes: Vec::new(),
                notes: Vec::new(),
                slots: 0,
            };
            sim.brokers.insert(id, broker);
            sim.start(id, epoch);
        }
        sim
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.tracing {
            let now = self.now;
            self.trace.push(format!("{now:>6} {}", text()));
        }
    }

    fn broker(&mut self, id: BrokerId) -> &mut Broker {
        self.brokers.get_mut(&id).expect("three brokers")
    }

    /// A process runs with this registration. Its view comes from the version it has applied.
    fn start(&mut self, id: BrokerId, epoch: BrokerEpoch) {
        let checkpoint_lost = self.rng.chance(20);
        let broker = self.broker(id);
        broker.epoch = epoch;
        broker.slots += 1;
        let identity = Identity { at: AT, me: id, broker_epoch: epoch, slot: broker.slots };
        let facts = broker.disk.facts(&broker.disk.epochs());
        let checkpoint = if checkpoint_lost { None } else { broker.disk.checkpoint };
        broker.replica = Some(Replica::new(identity, facts, checkpoint));
        self.apply(id, 0);
    }

    /// The broker's image moves `by` versions on.
    fn apply(&mut self, id: BrokerId, by: usize) {
        let latest = self.controller.latest();
        let broker = self.broker(id);
        if broker.replica.is_none() {
            return;
        }
        broker.applied = (broker.applied + by).min(latest);
        let view = self.controller.versions[self.brokers[&id].applied].clone();
        self.step(id, Input::Assign(Box::new(view)), None);
    }

    fn now(&self, id: BrokerId) -> Now {
        Now { at: self.now, lease: self.brokers[&id].lease }
    }

    /// Steps a replica and runs its effects as the shell would. `hand`: batches that the input brought along.
    fn step(&mut self, id: BrokerId, input: Input, hand: Option<&[Batch]>) {
        let now = self.now(id);
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            let Some(replica) = self.broker(id).replica.as_mut() else { return };
            replica.step(input.clone(), now, &mut effects);
            if !matches!(input, Input::Tick) || !effects.is_empty() {
                self.note(|| format!("{id}: {input:?} -> {effects:?}"));
            }
            for effect in effects {
                if let Some(result) = self.run(id, effect, hand) {
                    inputs.push_back(result);
                }
            }
        }
        self.check(id);
    }

    fn check(&mut self, id: BrokerId) {
        let Some(broker) = self.brokers.get(&id).filter(|b| b.replica.is_some()) else { return };
        let failed = self.laws.after_step(broker);
        self.demand(failed);
    }

    fn demand(&mut self, failed: Result<(), String>) {
        if let Err(why) = failed {
            let from = self.trace.len().saturating_sub(400);
            panic!("{why}\n{}", self.trace[from..].join("\n"));
        }
    }

    fn run(&mut self, id: BrokerId, effect: Effect, hand: Option<&[Batch]>) -> Option<Input> {
        match effect {
            Effect::Append { source, base, end, leader_epoch } => {
                return Some(self.append(id, source, base, end, leader_epoch, hand));
            }
            Effect::Truncate { to, .. } => {
                self.tally.truncations += 1;
                let disk = &mut self.broker(id).disk;
                disk.truncate(to);
                return Some(Input::Cut { start: disk.start, end: disk.end() });
            }
            Effect::Reset { start, .. } => {
                self.tally.resets += 1;
                self.broker(id).disk.reset(start);
                return Some(Input::Cut { start, end: start });
            }
            Effect::AdvanceStart { to } => {
                let verdict = self.laws.head_dropped(id, to);
                self.demand(verdict);
                let disk = &mut self.broker(id).disk;
                disk.advance_start(to);
                return Some(Input::StartAdvanced { start: disk.start });
            }
            Effect::DeleteReply { outcome, .. } => {
                if let Ok(start) = outcome {
                    self.tally.deletes += 1;
                    self.laws.delete_answered(start);
                }
            }
            Effect::Flush { generation, upto } => self.broker(id).flushes.push((generation, upto)),
            Effect::NotePolicy(policy) => self.broker(id).notes.push(policy),
            Effect::Reply { id: request, outcome } => self.replied(id, request, outcome),
            Effect::Moved { checkpoint, .. } => {
                if self.rng.chance(30) {
                    self.broker(id).disk.checkpoint = checkpoint;
                }
            }
            Effect::AlterPartition { attempt, leader_epoch, partition_epoch, new_isr } => {
                let epoch = self.brokers[&id].epoch;
                let alteration = Alteration { broker: id, epoch, attempt, leader_epoch, partition_epoch, new_isr };
                self.alterations.push(alteration);
            }
            Effect::Abdicate { .. } => self.tally.abdications += 1,
            Effect::Fatal(reason) => self.demand(Err(format!("{id}: fatal: {reason}"))),
            Effect::Forward { base, .. } => self.forward(id, base, hand),
            other => self.send(id, other),
        }
        None
    }

    fn append(
        &mut self,
        id: BrokerId,
        source: AppendSource,
        base: u64,
        end: u64,
        epoch: LeaderEpoch,
        hand: Option<&[Batch]>,
    ) -> Input {
        let fails = self.swarm.append_failures && !self.healing && self.rng.chance(2);
        let disk = &mut self.broker(id).disk;
        if fails {
            return Input::AppendFailed { end: disk.end() };
        }
        let batches = hand.expect("an append has bytes in hand");
        for batch in batches {
            let batch = match source {
                AppendSource::Produce(_) => Batch { base, end, epoch, ..*batch },
                AppendSource::Push => *batch,
            };
            disk.append(batch);
        }
        Input::Appended
    }

    /// Bytes in hand go to some of the pumps that are level, before they are appended here.
    fn forward(&mut self, id: BrokerId, base: u64, hand: Option<&[Batch]>) {
        let level: Vec<_> =
            self.brokers[&id].pumps.iter().filter(|(_, p)| p.next == base).map(|(key, _)| *key).collect();
        let leader_epoch = self.brokers[&id].replica.as_ref().map(|r| r.wire_state().leader_epoch);
        let (Some(batch), Some(epoch)) = (hand.and_then(|h| h.first()).copied(), leader_epoch) else { return };
        let end = base + (batch.end - batch.base);
        for key in level {
            if self.rng.chance(70) {
                self.push(id, key, vec![Batch { base, end, epoch, ..batch }]);
            }
        }
    }

    fn push(&mut self, id: BrokerId, key: (BrokerId, SubscriptionId), batches: Vec<Batch>) {
        let Some(wire) = self.brokers[&id].replica.as_ref().map(Replica::wire_state) else { return };
        let spans = batches.iter().map(|b| BatchSpan { base: b.base, end: b.end, epoch: b.epoch }).collect();
        let pushed = Pushed {
            subscription: key.1,
            leader_epoch: wire.leader_epoch,
            batches: spans,
            high_watermark: wire.high_watermark,
            log_start: wire.log_start,
        };
        let end = batches.last().map_or(0, |b| b.end);
        let Some(pump) = self.broker(id).pumps.get_mut(&key) else { return };
        pump.next = end;
        pump.told = (wire.high_watermark, wire.log_start);
        let stream = pump.stream;
        self.down.entry(stream).or_default().push_back(Message::Push(pushed, batches));
    }

    fn send(&mut self, id: BrokerId, effect: Effect) {
        match effect {
            Effect::ToLeader { leader, message: ToLeader::Subscribe(subscribe) } => {
                let link = self.links.entry((id, leader)).or_default();
                link.held.push(subscribe);
                self.flush_held(id, leader);
            }
            Effect::ToLeader { leader, message } => {
                let link = self.links.entry((id, leader)).or_default();
                let subscription = match message {
                    ToLeader::Ack(ack) => ack.subscription,
                    ToLeader::Unsubscribe(subscription) => subscription,
                    ToLeader::Subscribe(s) => s.subscription,
                };
                link.held.retain(|s| s.subscription != subscription);
                if let Some(number) = link.up.filter(|_| link.carried.contains(&subscription)) {
                    let stream = Stream { follower: id, leader, number };
                    let epoch = self.brokers[&id].epoch;
                    self.up.entry(stream).or_default().push_back(Message::Up(message, epoch));
                }
            }
            Effect::ToFollower { follower, subscription, message } => {
                if let Some(stream) = self.stream_of(id, follower) {
                    self.down.entry(stream).or_default().push_back(Message::Down(subscription, message));
                }
            }
            Effect::StartPump { follower, subscription, from } => {
                if let Some(stream) = self.stream_of(id, follower) {
                    let pump = Pump { stream, next: from, told: (None, 0) };
                    self.broker(id).pumps.insert((follower, subscription), pump);
                }
            }
            Effect::StopPump { follower, subscription } => {
                self.broker(id).pumps.remove(&(follower, subscription));
            }
            _ => {}
        }
    }

    /// The stream on which a follower talks to this leader, as the leader sees it: the newest it has heard on.
    fn stream_of(&self, leader: BrokerId, follower: BrokerId) -> Option<Stream> {
        let number = self.links.get(&(follower, leader)).and_then(|l| l.up)?;
        Some(Stream { follower, leader, number })
    }

    fn flush_held(&mut self, follower: BrokerId, leader: BrokerId) {
        let Some(link) = self.links.get_mut(&(follower, leader)) else { return };
        let Some(number) = link.up else { return };
        let held = std::mem::take(&mut link.held);
        link.carried.extend(held.iter().map(|s| s.subscription));
        let queue = self.up.entry(Stream { follower, leader, number }).or_default();
        let epoch = self.brokers[&follower].epoch;
        queue.extend(held.into_iter().map(|s| Message::Up(ToLeader::Subscribe(s), epoch)));
    }

    fn connect(&mut self, follower: BrokerId, leader: BrokerId) {
        let running = self.brokers[&leader].replica.is_some() && self.brokers[&follower].replica.is_some();
        let link = self.links.entry((follower, leader)).or_default();
        if running && link.up.is_none() {
            self.streams += 1;
            link.up = Some(self.streams);
            self.flush_held(follower, leader);
        }
    }

    /// The stream breaks; each end notices, and what it still held may come late.
    fn cut(&mut self, follower: BrokerId, leader: BrokerId) {
        let Some(link) = self.links.get_mut(&(follower, leader)) else { return };
        if link.up.take().is_none() {
            return;
        }
        let carried = std::mem::take(&mut link.carried);
        let pumps: Vec<_> = self.brokers[&leader].pumps.keys().copied().filter(|(f, _)| *f == follower).collect();
        for subscription in carried {
            self.step(follower, Input::StreamLost { subscription }, None);
        }
        self.unnoticed.extend(pumps.into_iter().map(|(follower, subscription)| (leader, follower, subscription)));
    }

    /// A leader finds out that a stream is gone.
    fn notice(&mut self) {
        if self.unnoticed.is_empty() {
            return;
        }
        let at = self.rng.below(self.unnoticed.len() as u64) as usize;
        let (leader, follower, subscription) = self.unnoticed.remove(at);
        self.step(leader, Input::Unsubscribed { follower, subscription }, None);
    }

    fn replied(&mut self, id: BrokerId, request: RequestId, outcome: ProduceOutcome) {
        let Some((broker, acks, value)) = self.waiting.remove(&request) else {
            return self.demand(Err(format!("request {request:?} answered twice")));
        };
        assert_eq!(broker, id);
        match outcome {
            ProduceOutcome::Written { base, guard } => {
                self.tally.acked += 1;
                let epoch = self.brokers[&id].replica.as_ref().map(|r| r.wire_state().leader_epoch);
                let deposed = epoch.and_then(|e| self.controller.deposed_at.get(&e).copied());
                let verdict = self.laws.acked(base, value, acks, guard, deposed, self.now);
                self.demand(verdict);
            }
            ProduceOutcome::Refused(code) => {
                if code.effect() == protocol::error::Effect::Unknown {
                    self.tally.unknown += 1;
                } else {
                    self.laws.refused(value);
                }
            }
        }
    }

    fn produce(&mut self, id: BrokerId) {
        if self.brokers[&id].replica.is_none() {
            return;
        }
        self.requests += 1;
        let request = RequestId(self.requests);
        let value = self.requests;
        let acks = match self.rng.below(10) {
            0 => Acks::None,
            1 => Acks::Leader,
            _ => Acks::All,
        };
        let offsets = 1 + u32::try_from(self.rng.below(3)).expect("small");
        let deadline = self.now + 20 + self.rng.below(1_500);
        self.waiting.insert(request, (id, acks, value));
        let produce = Produce { id: request, acks, deadline, leader_epoch: None, offsets, bytes: 100 };
        let batch = Batch { base: 0, end: u64::from(offsets), epoch: LeaderEpoch(0), value };
        self.step(id, Input::Produce(produce), Some(&[batch]));
    }

    fn pump(&mut self, id: BrokerId) {
        let keys: Vec<_> = self.brokers[&id].pumps.keys().copied().collect();
        let Some(key) = self.rng.pick(&keys) else { return };
        let (next, stream, told) = {
            let pump = &self.brokers[&id].pumps[&key];
            (pump.next, pump.stream, pump.told)
        };
        let disk = &self.brokers[&id].disk;
        if next < disk.start {
            let (follower, subscription) = key;
            return self.step(id, Input::PumpBelowStart { follower, subscription }, None);
        }
        let most = 1 + self.rng.below(3) as usize;
        let batches: Vec<_> =
            self.brokers[&id].disk.batches.iter().filter(|b| b.end > next).take(most).copied().collect();
        if !batches.is_empty() {
            return self.push(id, key, batches);
        }
        let Some(wire) = self.brokers[&id].replica.as_ref().map(Replica::wire_state) else { return };
        if told != (wire.high_watermark, wire.log_start) {
            let message = Message::Advance(key.1, wire.leader_epoch, wire.high_watermark, wire.log_start);
            self.down.entry(stream).or_default().push_back(message);
            if let Some(pump) = self.broker(id).pumps.get_mut(&key) {
                pump.told = (wire.high_watermark, wire.log_start);
            }
        }
    }

    fn deliver(&mut self) {
        let up: Vec<_> = self.up.iter().filter(|(_, q)| !q.is_empty()).map(|(s, _)| (*s, true)).collect();
        let down = self.down.iter().filter(|(_, q)| !q.is_empty()).map(|(s, _)| (*s, false));
        let all: Vec<_> = up.into_iter().chain(down).collect();
        let Some((stream, upwards)) = self.rng.pick(&all) else { return };
        let alive = self.links.get(&(stream.follower, stream.leader)).and_then(|l| l.up) == Some(stream.number);
        let queues = if upwards { &mut self.up } else { &mut self.down };
        let queue = queues.get_mut(&stream).expect("listed");
        if !alive && !self.rng.chance(self.swarm.late) {
            queue.clear();
            return;
        }
        let message = queue.pop_front().expect("not empty");
        if !alive {
            self.tally.stale_deliveries += 1;
        }
        if upwards { self.deliver_up(stream, message) } else { self.deliver_down(stream.follower, message) }
    }

    fn deliver_up(&mut self, stream: Stream, message: Message) {
        let Message::Up(message, epoch) = message else { return };
        let input = match message {
            ToLeader::Subscribe(s) => Input::Subscribe(s),
            ToLeader::Unsubscribe(subscription) => Input::Unsubscribed { follower: stream.follower, subscription },
            ToLeader::Ack(ack) => Input::Ack(FollowerAck { broker_epoch: epoch, ..ack }),
        };
        self.step(stream.leader, input, None);
    }

    fn deliver_down(&mut self, id: BrokerId, message: Message) {
        match message {
            Message::Down(subscription, message) => {
                let input = match message {
                    ToFollower::Started { leader_epoch, from, high_watermark, log_start } => {
                        Input::Started { subscription, leader_epoch, from, high_watermark, log_start }
                    }
                    ToFollower::Diverged { leader_epoch, epoch, end } => {
                        Input::Diverged { subscription, leader_epoch, epoch, end }
                    }
                    ToFollower::BeginAt { leader_epoch, log_start } => {
                        Input::BeginAt { subscription, leader_epoch, log_start }
                    }
                    ToFollower::Refused(code) => Input::Refused { subscription, code },
                };
                self.step(id, input, None);
            }
            Message::Push(pushed, batches) => self.step(id, Input::Pushed(pushed), Some(&batches)),
            Message::Advance(subscription, leader_epoch, high_watermark, log_start) => {
                self.step(id, Input::Advance { subscription, leader_epoch, high_watermark, log_start }, None);
            }
            Message::Up(..) => {}
        }
    }

    /// An alteration reaches the controller, is lost on the way there or back, or comes after its asker gave up on it.
    fn alter(&mut self) {
        if self.alterations.is_empty() {
            return;
        }
        let at = self.rng.below(self.alterations.len() as u64) as usize;
        let a = self.alterations[at].clone();
        let give_up = !self.healing && self.rng.chance(20);
        if give_up {
            self.verdicts.push((a.broker, a.epoch, a.attempt, IsrOutcome::Unknown));
            if self.rng.chance(50) {
                self.alterations.remove(at);
            } else {
                self.alterations[at].attempt = u64::MAX;
            }
            return;
        }
        self.alterations.remove(at);
        let decided =
            self.controller.alter((a.broker, a.epoch), a.leader_epoch, a.partition_epoch, &a.new_isr, self.now);
        if a.attempt == u64::MAX {
            self.tally.late_alterations += u64::from(decided.is_ok());
            return;
        }
        let outcome = match decided {
            _ if !self.healing && self.rng.chance(15) => IsrOutcome::Unknown,
            Ok(epoch) => IsrOutcome::Committed(epoch),
            Err(code) => IsrOutcome::Refused(code),
        };
        self.verdicts.push((a.broker, a.epoch, a.attempt, outcome));
    }

    fn verdict(&mut self) {
        if self.verdicts.is_empty() {
            return;
        }
        let at = self.rng.below(self.verdicts.len() as u64) as usize;
        let (id, epoch, attempt, outcome) = self.verdicts.remove(at);
        if self.brokers[&id].epoch == epoch {
            self.step(id, Input::IsrResult { attempt, outcome }, None);
        }
    }

    fn finish_flush(&mut self, id: BrokerId) {
        let flushes = self.brokers[&id].flushes.clone();
        if flushes.is_empty() || self.brokers[&id].replica.is_none() {
            return;
        }
        let at = self.rng.below(flushes.len() as u64) as usize;
        let (generation, upto) = self.broker(id).flushes.remove(at);
        // The engine drops completions of an older generation; the replica must too, so it hears of them here.
        if self.brokers[&id].replica.as_ref().is_some_and(|r| r.generation() == generation) {
            self.broker(id).disk.synced(upto);
        }
        self.step(id, Input::Flushed { generation, upto }, None);
    }

    fn finish_note(&mut self, id: BrokerId) {
        if self.brokers[&id].notes.is_empty() || self.brokers[&id].replica.is_none() {
            return;
        }
        let policy = self.broker(id).notes.remove(0);
        self.broker(id).disk.noted = Some(policy);
        self.step(id, Input::PolicyNoted(policy), None);
    }

    fn heartbeat(&mut self, id: BrokerId) {
        let latest = self.controller.latest();
        let now = self.now;
        let fenced = self.controller.brokers[&id].fenced;
        let broker = self.broker(id);
        if broker.replica.is_none() || !broker.linked {
            return;
        }
        if broker.applied == latest && !fenced {
            broker.lease = Lease { valid_until: now + LEASE_MS, grace_until: now + LEASE_MS + 100_000 };
        }
        let (applied, epoch) = (broker.applied, broker.epoch);
        let registered = self.controller.brokers.get_mut(&id).expect("registered");
        if registered.epoch == epoch {
            registered.last_contact = now;
        }
        self.controller.unfence(id, applied);
    }

    fn fence(&mut self, id: BrokerId) {
        let quiet = self.now >= self.controller.brokers[&id].last_contact + LEASE_MS + LEASE_MS / 10;
        if quiet {
            self.note(|| format!("controller fences {id}"));
            self.controller.fence(id);
        }
    }

    /// The process dies: with its machine's power, with its disk, or alone.
    fn crash(&mut self, id: BrokerId) {
        if self.brokers[&id].replica.is_none() {
            return;
        }
        self.note(|| format!("{id} dies"));
        let wipe = self.swarm.wipes && self.may_wipe(id) && self.rng.chance(20);
        let power = self.rng.chance(60);
        let mut rng = Rng::new(self.rng.below(1 << 30));
        let broker = self.broker(id);
        broker.replica = None;
        broker.pumps.clear();
        broker.flushes.clear();
        broker.notes.clear();
        broker.lease = Lease::NONE;
        if wipe {
            broker.disk.wipe();
        } else if power {
            broker.disk.power_loss(&mut rng);
            self.tally.power_losses += 1;
        } else {
            broker.disk.process_death();
        }
        self.laws.died(id, self.brokers[&id].disk.lost_unsynced);
        let gone: Vec<_> = self.waiting.iter().filter(|(_, (b, ..))| *b == id).map(|(r, _)| *r).collect();
        for request in gone {
            self.waiting.remove(&request);
        }
        for other in BROKERS.into_iter().filter(|b| *b != id) {
            self.cut(id, other);
            self.cut(other, id);
            self.links.remove(&(id, other));
        }
    }

    /// Somebody else must keep what is committed, on a disk that was not wiped.
    fn may_wipe(&self, id: BrokerId) -> bool {
        let view = self.controller.current();
        view.isr.union(&view.elr).any(|b| *b != id && !self.laws.at_fault(*b))
    }

    /// Recovery, registration, proof as DESIGN.md section 4 has it: same disk, and either the note says sync or nothing
    /// was lost with the process.
    fn restart(&mut self, id: BrokerId) {
        if self.brokers[&id].replica.is_some() {
            return;
        }
        let disk = &self.brokers[&id].disk;
        let noted_sync = disk.noted == Some(FlushPolicy::Sync);
        let untouched = disk.noted.is_none() && disk.end() == 0 && !disk.lost_unsynced;
        let proved = self.brokers[&id].disk.durable == disk.end()
            && (noted_sync || !disk.lost_unsynced || untouched)
            && !self.laws.wiped(id, disk);
        self.tally.unproved += u64::from(!proved);
        let epoch = self.controller.register(id, proved, self.now);
        self.note(|| format!("{id} registers as {epoch}, proved {proved}"));
        self.laws.registered(id);
        self.broker(id).linked = true;
        self.start(id, epoch);
    }

    fn read(&mut self, id: BrokerId) {
        let now = self.now(id);
        let offset = self.rng.below(self.laws.highest() + 2);
        let Some(replica) = self.brokers[&id].replica.as_ref() else { return };
        let current = replica.role() == RoleName::Leader(self.controller.current().leader_epoch);
        let deposed = self.controller.deposed_at.get(&replica.wire_state().leader_epoch).copied();
        let verdict = self.laws.read(&self.brokers[&id], offset, current, deposed, now);
        self.tally.reads += u64::from(verdict.is_ok());
        self.demand(verdict);
    }

    fn delete(&mut self, id: BrokerId) {
        let Some(replica) = self.brokers[&id].replica.as_ref() else { return };
        if matches!(replica.role(), RoleName::Leader(_)) {
            let upto = replica.log_start() + self.rng.below(8);
            let input = if self.rng.chance(50) {
                let deadline = self.now(id).at + self.rng.below(5_000);
                Input::DeleteRecords { id: RequestId(0), before: Some(upto), deadline }
            } else {
                Input::Retain { upto }
            };
            self.step(id, input, None);
        }
    }

    fn configure(&mut self) {
        let mut rule = self.controller.current().rule;
        let mut policy = self.controller.current().config.flush_policy;
        if self.swarm.policies && self.rng.chance(50) {
            policy = [FlushPolicy::Sync, FlushPolicy::Interval, FlushPolicy::Os][self.rng.below(3) as usize];
        }
        if self.swarm.rules && self.rng.chance(50) {
            rule.min_replicas = 1 + self.rng.below(3) as usize;
        }
        if (policy, rule) != (self.controller.current().config.flush_policy, self.controller.current().rule) {
            self.controller.configure(policy, rule);
        }
    }

    fn tick(&mut self, id: BrokerId) {
        let now = self.now;
        let due = self.brokers[&id].replica.as_ref().and_then(|r| r.next_deadline(now));
        if due.is_some_and(|at| at <= now) {
            self.step(id, Input::Tick, None);
        }
    }

    /// One random event.
    pub(super) fn event(&mut self) {
        self.now += self.rng.below(3);
        let id = BROKERS[self.rng.below(3) as usize];
        let other = BROKERS[self.rng.below(3) as usize];
        let leader = self.controller.current().leader.unwrap_or(id);
        let likely = if self.rng.chance(80) { leader } else { id };
        let by = 1 + self.rng.below(2) as usize;
        match self.rng.below(100) {
            0..=29 => (0..2).for_each(|_| self.deliver()),
            30..=39 => self.produce(likely),
            40..=49 => (0..2).for_each(|_| self.pump(id)),
            50..=57 => self.finish_flush(id),
            58..=60 => self.finish_note(id),
            61..=65 => self.tick(id),
            66 => self.notice(),
            67..=71 if self.brokers[&id].linked || self.rng.chance(5) => self.apply(id, by),
            72..=75 => self.heartbeat(id),
            76..=78 => self.connect(id, other),
            79..=81 => self.alter(),
            82..=84 => self.verdict(),
            85..=87 => self.read(likely),
            88..=89 => {
                self.controller.work(self.now);
            }
            90 => BROKERS.into_iter().for_each(|id| self.fence(id)),
            91..=92 => self.restart(id),
            93 if self.swarm.cuts > self.rng.below(6) => self.cut(id, other),
            94 if self.swarm.crashes > self.rng.below(8) => self.crash(id),
            95 if self.swarm.fences > self.rng.below(6) => self.broker(likely).linked = false,
            96 if self.rng.chance(30) => self.broker(id).linked = true,
            97 if self.rng.chance(20) => self.controller.move_leader(other, self.now),
            98 => self.configure(),
            99 if self.swarm.deletes => self.delete(id),
            _ => {}
        }
        self.abdicated();
        let verdict = self.laws.replicas_agree(&self.brokers, &self.controller);
        self.demand(verdict);
    }

    /// A broker that gave a leadership up has no gentler way than to stop.
    fn abdicated(&mut self) {
        let resigned = |b: &&Broker| matches!(b.replica.as_ref().map(Replica::role), Some(RoleName::Resigned(e)) if Some(b.id) == self.controller.current().leader && e == self.controller.current().leader_epoch && !self.controller.brokers[&b.id].fenced);
        if let Some(id) = self.brokers.values().find(resigned).map(|b| b.id) {
            self.crash(id);
        }
    }

    /// Faults end: everything runs, every stream is up, every message arrives, until nothing moves any more.
    pub(super) fn heal(&mut self) {
        self.healing = true;
        self.swarm.late = 0;
        let mut calm = 0;
        for round in 0..400 {
            let settled = self.laws.healed(&self.brokers, &self.controller).is_ok() || self.controller.is_lost();
            calm = if settled { calm + 1 } else { 0 };
            if calm > 10 {
                return;
            }
            self.now += 10;
            for id in BROKERS {
                self.restart(id);
                self.broker(id).linked = true;
                while self.controller.work(self.now) {}
                self.apply(id, usize::MAX / 2);
                self.heartbeat(id);
                for other in BROKERS.into_iter().filter(|b| *b != id) {
                    self.connect(id, other);
                }
                for _ in 0..8 {
                    self.pump(id);
                    self.finish_flush(id);
                    self.finish_note(id);
                }
                self.step(id, Input::Tick, None);
            }
            for _ in 0..60 {
                self.deliver();
                self.alter();
                self.verdict();
                self.notice();
            }
            self.abdicated();
            if let (Some(leader), true) = (self.controller.current().leader, round < 3) {
                self.produce(leader);
            }
            let verdict = self.laws.replicas_agree(&self.brokers, &self.controller);
            self.demand(verdict);
        }
    }

    /// After healing: one leader, all in sync, everything acknowledged is there.
    pub(super) fn conclude(mut self) -> Tally {
        self.tally.leader_changes = u64::from(self.controller.current().leader_epoch.0);
        self.tally.elr_elections = self.controller.elr_elections;
        if self.controller.is_lost() {
            self.tally.lost += 1;
            return self.tally;
        }
        let verdict = self.laws.healed(&self.brokers, &self.controller);
        if verdict.is_err() {
            for broker in self.brokers.values() {
                let described = broker.replica.as_ref().map(|r| r.describe(self.now));
                self.trace.push(format!(
                    "{}: {described:?} pumps {:?} flushes {:?}",
                    broker.id, broker.pumps, broker.flushes
                ));
            }
            self.trace.push(format!("{:?}", self.controller.current()));
        }
        self.demand(verdict);
        self.tally
    }
}
