//! What travels: replication streams, commands and their answers, heartbeats. Loses and delays as the faults say.

use super::faults::SICK;
use super::node::Node;
use super::outbox::Out;
use super::quorum::{Answered, CONTROLLERS};
use super::wire::{Attempt, Event, Origin, ToBroker, ToController, Wish};
use super::world::World;
use broker::lifecycle::state::HeartbeatAnswer as Answer;
use broker::partition::outside::{PushOut, Subscription};
use broker::replica::effect::{ToFollower, ToLeader};
use broker::replica::input::{BatchSpan, Input, IsrOutcome, Pushed};
use controller::decide::command::{AlterResult, Command, Heartbeat, ProveRestart, Register, Reply};
use protocol::batch::{Header, batches};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, ControllerId, LeaderEpoch, Millis, PartitionEpoch, TopicPartition};
use protocol::metadata::record::{Endpoint, METADATA_VERSION_MAX};
use std::collections::{BTreeMap, VecDeque};

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
                let delay = self.rng.between(1, 10);
                self.to_broker(id, life, delay, ToBroker::Noted(replica, note));
            }
            Out::Reply(..) | Out::Flush(..) | Out::Alter(_) | Out::Report(..) | Out::Fatal(_) => {}
        }
    }

    pub(super) fn to_follower(
        &mut self,
        leader: BrokerId,
        to: Subscription,
        input: Input,
        hand: VecDeque<bytes::Bytes>,
    ) {
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

    pub(super) fn to_leader(
        &mut self,
        id: BrokerId,
        life: u64,
        at: TopicPartition,
        leader: BrokerId,
        message: ToLeader,
    ) {
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

    pub(super) fn break_link(&mut self, follower: BrokerId, leader: BrokerId) {
        let generation = self.links.get(follower, leader).generation;
        let delay = self.rng.between(0, 30);
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
            let input = Box::new(Input::Unsubscribed { follower, subscription });
            let message = ToBroker::Partition { at, input, hand: VecDeque::new(), link: None };
            let delay = self.rng.between(1, 40);
            self.to_broker(leader, leader_life, delay, message);
        }
    }

    pub(super) fn is_cut_off(&self, id: BrokerId) -> bool {
        self.cut_off.get(&id).is_some_and(|until| *until > self.now)
    }

    pub(super) fn grant(&mut self, id: BrokerId, life: u64, wish: Wish) -> Result<(), String> {
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
                self.laws.tally.failed_syncs += u64::from(reason.contains(SICK));
                self.kill(id, false);
            }
        }
        Ok(())
    }

    pub(super) fn registration(&mut self, id: BrokerId) -> Command {
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

    pub(super) fn ask(&mut self, command: Command, origin: Origin, delay: Millis) {
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

    pub(super) fn beat(&mut self, id: BrokerId, life: u64, beat: broker::lifecycle::state::Heartbeat) {
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

    pub(super) fn controller(&mut self, message: ToController) {
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

    pub(super) fn send(&mut self, answers: Answered) {
        for (origin, reply) in answers {
            let delay = self.rng.between(1, 8);
            let lost = self.faults && self.rng.chance(2);
            let reply = if lost { Err(ErrorCode::Timeout) } else { reply.map_err(|e| e.code) };
            self.answer(origin, reply, delay);
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

    pub(super) fn refuse_all(
        &mut self,
        id: BrokerId,
        life: u64,
        attempts: Vec<Attempt>,
        code: Option<ErrorCode>,
        delay: Millis,
    ) {
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
