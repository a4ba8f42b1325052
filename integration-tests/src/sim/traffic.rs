//! What travels: replication streams, commands and their answers, heartbeats. Loses and delays as the network says.

use super::buggify::Point;
use super::laws::Law;
use super::node::Node;
use super::outbox::Out;
use super::quorum::{Answered, CONTROLLERS};
use super::sometimes::Sometimes;
use super::told::Told;
use super::wire::{Attempt, Event, Origin, ToBroker, ToController, Wish};
use super::world::World;
use broker::lifecycle::state::HeartbeatAnswer as Answer;
use broker::partition::outside::{PushOut, Subscription};
use broker::replica::effect::{ToFollower, ToLeader};
use broker::replica::input::{BatchSpan, Input, IsrOutcome, Pushed, SubscriptionId};
use controller::decide::command::{
    AlterResult, Command, Heartbeat, ProveRestart, Register, Reply, ReportLogEnds, ReportedEnd,
};
use protocol::batch::{Header, batches};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, ControllerId, LeaderEpoch, Millis, PartitionEpoch, TopicPartition};
use protocol::metadata::record::{Endpoint, METADATA_VERSION_MAX};
use std::collections::{BTreeMap, VecDeque};

/// How long a caller waits for the answer to a command, ms.
const PATIENCE_MS: Millis = 300;

impl World {
    pub(super) fn carry(&mut self, id: BrokerId, life: u64, out: Out) {
        match out {
            Out::ToFollower(to, message) => self.to_follower(id, to, handshake(to, message), VecDeque::new()),
            Out::Push(to, push) => {
                let (input, hand) = pushed(to, push);
                self.to_follower(id, to, input, hand);
            }
            Out::ToLeader(at, leader, message) => self.to_leader(id, life, at, leader, message),
            Out::Note(replica, note) => {
                let slow = if Point::SlowNotes.is_on(self.plan.buggify) { 300 } else { 10 };
                let delay = self.rng.between(1, slow);
                self.to_broker(id, life, delay, ToBroker::Noted(replica, note));
            }
            Out::Reply(..)
            | Out::DeleteReply(..)
            | Out::Flush(..)
            | Out::Alter(_)
            | Out::Report(..)
            | Out::Moved(..)
            | Out::Fatal(_) => {}
        }
    }

    /// When something written into a stream arrives; a way that is closed holds it up until the way opens or the
    /// stream breaks.
    fn stream_arrival(&mut self, from: BrokerId, to: BrokerId) -> (Millis, bool) {
        let (a, b) = (self.net.broker(from), self.net.broker(to));
        let opens = self.net.blocked(a, b, self.now);
        (opens.unwrap_or(self.now) + self.net.delay(a, b, &mut self.rng), opens.is_some())
    }

    fn clogged(&mut self, follower: BrokerId, leader: BrokerId) {
        self.laws.tally.sometimes(Sometimes::StreamClogged);
        let generation = self.links.get(follower, leader).generation;
        let patience = self.rng.between(50, 4_000);
        let link = self.links.get(follower, leader);
        if !std::mem::replace(&mut link.clogged, true) {
            self.after(patience, Event::LinkBroke { follower, leader, generation });
        }
    }

    pub(super) fn to_follower(
        &mut self,
        leader: BrokerId,
        to: Subscription,
        input: Input,
        hand: VecDeque<bytes::Bytes>,
    ) {
        let (arrival, blocked) = self.stream_arrival(leader, to.follower);
        if blocked {
            self.clogged(to.follower, leader);
        }
        if self.faults && Point::StreamsBreak.is_on(self.plan.buggify) && self.rng.below(500) == 0 {
            self.break_link(to.follower, leader);
        }
        let link = self.links.get(to.follower, leader);
        if !link.subscriptions.contains(&(to.at, to.number)) {
            return;
        }
        let (at, generation) = (link.arrives_down(arrival), link.generation);
        let Some(life) = self.nodes.get(&to.follower).map(|n| n.life) else { return };
        let link = Some((to.follower, leader, generation));
        let message = ToBroker::Partition { at: to.at, input: Box::new(input), hand, link };
        self.at(at, Event::Broker { id: to.follower, life, message });
    }

    pub(super) fn to_leader(
        &mut self,
        id: BrokerId,
        life: u64,
        at: TopicPartition,
        leader: BrokerId,
        message: ToLeader,
    ) {
        let alive = self.nodes.get(&leader).filter(|n| n.process.is_some()).map(|n| n.life);
        let (mut arrival, blocked) = self.stream_arrival(id, leader);
        if self.faults && matches!(message, ToLeader::Ack(_)) && Point::FormerLives.is_on(self.plan.buggify) {
            arrival += self.rng.between(0, 300);
        }
        let dials = matches!(message, ToLeader::Subscribe(_)) && blocked;
        let Some(leader_life) = alive.filter(|_| !dials) else {
            if let ToLeader::Subscribe(s) = message {
                let lost = Event::Lost { id, life, at, subscription: s.subscription };
                self.after(if dials { 500 } else { 20 }, lost);
            }
            return self.break_link(id, leader);
        };
        if blocked {
            self.clogged(id, leader);
        }
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
        let (due, generation) = (link.arrives_up(arrival), link.generation);
        let link = Some((id, leader, generation));
        let message = ToBroker::Partition { at, input: Box::new(input), hand: VecDeque::new(), link };
        self.at(due, Event::Broker { id: leader, life: leader_life, message });
    }

    pub(super) fn break_link(&mut self, follower: BrokerId, leader: BrokerId) {
        let generation = self.links.get(follower, leader).generation;
        let half_open = Point::HalfOpen.is_on(self.plan.buggify) && self.faults && self.rng.chance(30);
        let delay = self.rng.between(0, if half_open { 4_000 } else { 30 });
        self.after(delay, Event::LinkBroke { follower, leader, generation });
    }

    pub(super) fn link_broke(&mut self, follower: BrokerId, leader: BrokerId, generation: u64) {
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
            // The end that only listens may not notice for long.
            let unnoticed = Point::HalfOpen.is_on(self.plan.buggify) && self.faults && self.rng.chance(50);
            let delay = self.rng.between(1, if unnoticed { 5_000 } else { 40 });
            self.after(delay, Event::Noticed { follower, leader, life: leader_life, at, subscription });
        }
    }

    /// A leader notices that a follower's stream is gone, and ends what is subscribed on it: not what the follower has
    /// subscribed on another since, under the same number (its registry goes by the stream).
    pub(super) fn noticed(
        &mut self,
        (follower, leader): (BrokerId, BrokerId),
        life: u64,
        at: TopicPartition,
        subscription: SubscriptionId,
    ) {
        if !self.links.get(follower, leader).subscriptions.contains(&(at, subscription)) {
            let input = Box::new(Input::Unsubscribed { follower, subscription });
            self.to_broker(leader, life, 0, ToBroker::Partition { at, input, hand: VecDeque::new(), link: None });
        }
    }

    pub(super) fn grant(&mut self, id: BrokerId, life: u64, wish: Wish) -> Result<(), String> {
        match wish {
            Wish::Register => {
                let goal = self.quorum.committed();
                let delay = self.rng.between(1, 8);
                let until = self.now + 5_000;
                self.to_broker(id, life, delay, ToBroker::ActiveStands(goal));
                self.after(delay, Event::CatchUp { id, life, goal, until });
            }
            Wish::Prove => {
                let Some(process) = self.nodes.get(&id).and_then(|n| n.process.as_ref()) else { return Ok(()) };
                let Some(epoch) = process.epoch() else { return Ok(()) };
                let command = ProveRestart { broker: id, epoch, proved: process.proved(), last: true };
                self.ask(id, Command::ProveRestart(command), Origin::Proof(id, life));
            }
            Wish::Heartbeat(heartbeat) => self.beat(id, life, heartbeat),
            Wish::Alter(command, attempts) => {
                self.ask(id, Command::AlterPartitions(command), Origin::Alter(id, life, attempts));
            }
            Wish::Report(epoch, reports) => {
                let ends = reports.into_iter().map(|(at, r)| ReportedEnd {
                    at,
                    leader_epoch: r.leader_epoch,
                    last_epoch: r.last_epoch.map(|e| e.0),
                    log_end: r.log_end,
                    log_start: r.log_start,
                    damaged: r.damaged,
                });
                let command = ReportLogEnds { broker: id, epoch, ends: ends.collect() };
                self.ask(id, Command::ReportLogEnds(command), Origin::Nobody);
            }
            Wish::Follow | Wish::FollowLater => {
                let delay = if matches!(wish, Wish::Follow) { 1 } else { self.rng.between(20, 400) };
                let stream = self.nodes.get(&id).and_then(|n| n.process.as_ref()).map_or(0, |p| p.feed.stream);
                self.after(delay, Event::FeedOpen { id, life, stream });
            }
            Wish::Stopped { released } => self.stopped(id, released)?,
            Wish::Dead(reason) => self.died(id, &reason)?,
        }
        Ok(())
    }

    /// A process ended itself. No broker has a reason of its own to do so, unless its disk fails it at this time, has been
    /// hurt, or another process took its place.
    fn died(&mut self, id: BrokerId, reason: &str) -> Result<(), String> {
        let node = self.nodes.get(&id);
        let consequence = ["no storage space", "an append failed after its batch went to followers"];
        let full = node.is_some_and(|n| n.failing) && consequence.iter().any(|text| reason.contains(text));
        let failing = full || reason.contains(super::disks::SICK);
        let hurt = node.is_some_and(|n| n.tainted) && reason.contains("damage");
        let replaced = reason.contains("another process took this broker's place");
        // A new disk, while the process with the old one is still taken to be alive.
        let other = node.is_some_and(|n| n.tainted) && reason.contains("DuplicateBroker");
        if !(failing || hurt || replaced || other) || reason.contains("below the high watermark") {
            return Err(Law::NobodyStops.broken(format!("broker {id} stopped: {reason}")));
        }
        self.trace.note(self.now, Some(id), format_args!("stops: {reason}"));
        self.disk_told(id, reason);
        self.kill(id, false)
    }

    pub(super) fn register(&mut self, id: BrokerId, life: u64) {
        let dc = self.net.dc(self.net.broker(id));
        let Some(process) = self.nodes.get_mut(&id).and_then(|n| n.process.as_mut()) else { return };
        let (claim, seen) = process.claim();
        let endpoint = |port: u16| Endpoint { host: format!("b{id}"), port };
        let command = Command::Register(Register {
            broker: id,
            incarnation: process.setup.incarnation,
            internal: endpoint(1),
            client: endpoint(2),
            locality: format!("r/dc{dc}/k{id}").parse().expect("three legal parts"),
            directories: vec![process.directory()],
            min_metadata_version: 1,
            max_metadata_version: METADATA_VERSION_MAX,
            previous_epoch: (claim.0 != 0).then_some(claim),
            seen,
        });
        self.ask(id, command, Origin::Register(id, life));
    }

    /// A command of a broker travels to the active controller: it may be lost, or come twice.
    pub(super) fn ask(&mut self, from: BrokerId, command: Command, origin: Origin) {
        let active = self.quorum.active.unwrap_or(0);
        let (site, to) = (self.net.broker(from), self.net.controller(active));
        let Some(delay) = self.net.send(site, to, self.now, &mut self.rng) else {
            return self.answer(origin, Err(ErrorCode::Timeout), PATIENCE_MS);
        };
        let delay = delay + self.lingers(&command);
        // A change of the ISR is never asked for twice: the refusal of the second would say nothing of the first.
        if !matches!(command, Command::AlterPartitions(_)) && self.net.repeats(&mut self.rng) {
            self.laws.tally.sometimes(Sometimes::CommandTwice);
            let later = delay + self.rng.between(1, 200);
            let again = ToController::Command(Box::new(command.clone()), Origin::Nobody);
            self.after(later, Event::Controller(again));
        }
        // Whoever waits gives up before a late request arrives; it is decided all the same.
        let origin = if delay > PATIENCE_MS {
            self.answer(origin, Err(ErrorCode::Timeout), PATIENCE_MS);
            Origin::Nobody
        } else {
            origin
        };
        self.after(delay, Event::Controller(ToController::Command(Box::new(command), origin)));
    }

    /// How much longer a change of the ISR is on its way. Whoever would join by it may be struck meanwhile.
    fn lingers(&mut self, command: &Command) -> Millis {
        let Command::AlterPartitions(command) = command else { return 0 };
        if !(Point::LateAlters.is_on(self.plan.buggify) && self.faults && self.now % 5_000 < 2_500) {
            return 0;
        }
        let joins = command.partitions.iter().find_map(|p| {
            let isr = &self.quorum.image.topics.partition(p.at)?.isr;
            p.isr.iter().map(|(id, _)| *id).find(|id| !isr.contains(id))
        });
        if let Some(id) = joins.filter(|_| self.rng.chance(50)) {
            let (delay, power) = (self.rng.between(1, 60), self.rng.chance(50));
            self.after(delay, Event::Strike { id, power });
        }
        self.rng.between(200, 2_500)
    }

    pub(super) fn beat(&mut self, id: BrokerId, life: u64, beat: broker::lifecycle::state::Heartbeat) {
        for to in 0..CONTROLLERS {
            let (from, site) = (self.net.broker(id), self.net.controller(to));
            let Some(delay) = self.net.send(from, site, self.now, &mut self.rng) else { continue };
            let heartbeat = Heartbeat {
                broker: id,
                epoch: beat.epoch,
                stream: life,
                applied: beat.applied,
                wants_unfence: beat.wants_unfence,
                wants_shutdown: beat.wants_shutdown,
            };
            // A stream keeps its order.
            let arrives = self.beats.arrives((id, to), self.now + delay);
            self.at(arrives, Event::Controller(ToController::Heartbeat { to, life, seq: beat.seq, heartbeat }));
        }
    }

    pub(super) fn controller(&mut self, message: ToController) -> Result<(), String> {
        let wakes = match &message {
            ToController::Command(..) => self.quorum.active.map_or(0, |a| self.quorum.members[a].frozen_until),
            ToController::Heartbeat { to, .. } | ToController::StreamReset { to, .. } => {
                self.quorum.members[*to].frozen_until
            }
        };
        if wakes > self.now {
            self.at(wakes, Event::Controller(message));
            return Ok(());
        }
        match message {
            ToController::Command(command, origin) => {
                if let Some((origin, error)) = self.quorum.command(*command, origin) {
                    self.answer(origin, Err(error.code), 5);
                }
                Ok(())
            }
            ToController::StreamReset { to, broker, stream } => {
                self.quorum.stream_reset(to, broker, stream);
                Ok(())
            }
            ToController::Heartbeat { to, life, seq, heartbeat } => self.heartbeat(to, life, seq, &heartbeat),
        }
    }

    fn heartbeat(&mut self, to: usize, life: u64, seq: u64, heartbeat: &Heartbeat) -> Result<(), String> {
        let doubts = Point::NotFresh.is_on(self.plan.buggify) && self.faults && self.rng.chance(5);
        let Some(answer) = self.quorum.heartbeat(to, heartbeat, self.now, !doubts) else { return Ok(()) };
        let broker = heartbeat.broker;
        let controller = ControllerId(u32::try_from(to).unwrap_or(0) + 1);
        let (fenced, committed) = (answer.fenced || answer.error.is_some(), answer.committed);
        self.laws.observe(self.now, &Told::Answered { broker, controller, fenced, committed })?;
        let (from, site) = (self.net.controller(to), self.net.broker(broker));
        let Some(delay) = self.net.send(from, site, self.now, &mut self.rng) else { return Ok(()) };
        let answer = Answer {
            controller,
            seq,
            active: true,
            committed,
            renews_at: answer.renews_at,
            fenced: answer.fenced,
            may_stop: answer.may_stop,
            error: answer.error.map(|e| e.code),
        };
        self.to_broker(broker, life, delay, ToBroker::Answer(answer));
        Ok(())
    }

    pub(super) fn send(&mut self, answers: Answered) {
        for (origin, reply) in answers {
            let to = match &origin {
                Origin::Nobody => continue,
                Origin::Register(id, _) | Origin::Proof(id, _) | Origin::Alter(id, ..) => *id,
            };
            let from = self.net.controller(self.quorum.active.unwrap_or(0));
            let site = self.net.broker(to);
            let forgotten = Point::AnswersLost.is_on(self.plan.buggify) && self.faults && self.rng.chance(10);
            match self.net.send(from, site, self.now, &mut self.rng).filter(|_| !forgotten) {
                Some(delay) => self.answer(origin, reply.map_err(|e| e.code), delay),
                None => self.answer(origin, Err(ErrorCode::Timeout), PATIENCE_MS),
            }
        }
    }

    pub(super) fn answer(&mut self, origin: Origin, reply: Result<Reply, ErrorCode>, delay: Millis) {
        match (origin, reply) {
            (Origin::Register(id, life), Ok(Reply::Registered(registered))) => {
                self.to_broker(id, life, delay, ToBroker::Registered(Ok(registered)));
            }
            (Origin::Register(id, life), reply) => {
                let code = reply.err().unwrap_or(ErrorCode::Internal);
                self.to_broker(id, life, delay, ToBroker::Registered(Err(code)));
            }
            (Origin::Proof(id, life), reply) => {
                // As the product's caller: only being replaced is passed on, everything else is asked again.
                let told = reply.map(drop).map_err(|code| match code {
                    ErrorCode::StaleBrokerEpoch => code,
                    _ => ErrorCode::Timeout,
                });
                self.to_broker(id, life, delay, ToBroker::ProofTaken(told));
            }
            (Origin::Alter(id, life, attempts), Ok(Reply::Altered(results))) => {
                for (attempt, result) in attempts.into_iter().zip(results) {
                    let outcome = outcome(&result);
                    if matches!(outcome, IsrOutcome::Refused(_)) {
                        self.laws.tally.sometimes(Sometimes::IsrRefused);
                    }
                    self.to_broker(id, life, delay, ToBroker::IsrResult { attempt, outcome });
                }
            }
            (Origin::Alter(id, life, attempts), reply) => self.refuse_all(id, life, attempts, reply.err(), delay),
            (Origin::Nobody, _) => {}
        }
    }

    pub(super) fn refuse_all(
        &mut self,
        id: BrokerId,
        life: u64,
        attempts: Vec<Attempt>,
        code: Option<ErrorCode>,
        delay: Millis,
    ) {
        self.laws.tally.sometimes(Sometimes::IsrUnknown);
        for attempt in attempts {
            let outcome = code.map_or(IsrOutcome::Unknown, IsrOutcome::Refused);
            self.to_broker(id, life, delay, ToBroker::IsrResult { attempt, outcome });
        }
    }
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
