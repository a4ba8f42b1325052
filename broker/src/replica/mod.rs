//! The replica: one partition on one broker, as a pure step machine, `step(input, now, &mut effects)`.
//!
//! Owns every rule of DESIGN.md section 5 that a broker enforces: who is answered when, how far the high watermark
//! reaches, when a follower counts, what is cut. Never reads a clock, a file or a socket, and logs nothing.
//!
//! Invariants: the high watermark never falls (save by an unclean election) and is below the end of every member of
//! the maximal ISR; no position outlives its (leader epoch, broker epoch, subscription); committed state comes from
//! an applied image only; nothing is cut below the high watermark of a member of ISR or ELR.
//!
//! Map: `assign` picks the role; `leader` answers and moves the high watermark, `leader_isr` reviews the ISR,
//! `leader_deletes` answers deletes, `leader_feed` feeds followers; `follower` follows; `read` says what may be read; `own_log`, `policy`, `positions`,
//! `isr`, `pending`, `watermark` are their state; `describe` explains.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod assign;
pub mod describe;
pub mod effect;
mod follower;
pub mod input;
mod isr;
mod leader;
mod leader_deletes;
mod leader_feed;
mod leader_isr;
pub mod lease;
pub mod limits;
mod own_log;
mod pending;
mod policy;
mod positions;
pub mod read;
pub mod view;
mod watermark;

#[cfg(test)]
mod tests;

pub use effect::Effect;
pub use input::Input;
pub use lease::{Guard, Lease, Now};
pub use own_log::LogFacts;
pub use view::PartitionView;
pub use watermark::Checkpoint;

use effect::{FatalReason, LogEndReport, ProduceOutcome};
use follower::Following;
use input::{Produce, Pushed, RequestId, SubscriptionId};
use leader::{Appending, Leadership};
use leader_deletes::Deleting;
use own_log::OwnLog;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, PartitionEpoch, TopicPartition};
use watermark::HighWatermark;

/// Who this replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Which partition.
    pub at: TopicPartition,
    /// On which broker.
    pub me: BrokerId,
    /// Under which registration. A process has one for its whole life.
    pub broker_epoch: BrokerEpoch,
    /// High half of this replica's subscription numbers: differs for every `Replica` made in the process, and is
    /// larger than that of any earlier one for the same partition.
    pub slot: u32,
}

/// What every role needs.
#[derive(Debug, Clone)]
struct Base {
    id: Identity,
    log: OwnLog,
    high_watermark: HighWatermark,
    subscriptions_made: u32,
    /// Counted over leaderships, so that the answer to an attempt of a former one is nobody's.
    isr_attempts: u64,
}

impl Base {
    fn next_subscription(&mut self) -> SubscriptionId {
        self.subscriptions_made += 1;
        SubscriptionId((u64::from(self.id.slot) << 32) | u64::from(self.subscriptions_made))
    }

    fn next_isr_attempt(&mut self) -> u64 {
        self.isr_attempts += 1;
        self.isr_attempts
    }

    fn moved(&self) -> Effect {
        let high_watermark = self.high_watermark.get();
        let before = high_watermark.checked_sub(1).and_then(|offset| self.log.epochs.epoch_at(offset));
        let checkpoint = before.map(|epoch| Checkpoint { high_watermark, epoch: LeaderEpoch(epoch) });
        Effect::Moved { high_watermark, log_start: self.log.start, checkpoint }
    }

    /// Drops the head up to `to`, if that is anything; whether it is. Never past the high watermark: callers see to it.
    fn advance_start(&self, to: u64, effects: &mut Vec<Effect>) -> bool {
        let any = to > self.log.start;
        if any {
            effects.push(Effect::AdvanceStart { to });
        }
        any
    }
}

#[derive(Debug, Clone)]
enum Role {
    /// No place in the image, or not under our registration (yet).
    Idle,
    /// Nobody leads.
    Leaderless(Box<PartitionView>),
    /// We lead.
    Leader(Box<Leadership>),
    /// Another broker leads.
    Follower(Box<Following>),
    /// The image says that we lead, but in this epoch we do not: given up, or of a former life of this broker.
    Resigned(Box<PartitionView>),
}

/// The one operation on the log whose result is awaited.
#[derive(Debug, Clone)]
enum LogOp {
    AppendProduce(Appending),
    AppendPush(Box<Pushed>),
    Cut {
        reset: bool,
    },
    /// A reset of an empty log, so that the push it ends in can be appended.
    Realign(Box<Pushed>),
    AdvanceStart {
        to: u64,
        delete: Option<Deleting>,
    },
}

/// Role as others may ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleName {
    /// No place.
    Idle,
    /// Nobody leads.
    Leaderless,
    /// We lead in this epoch.
    Leader(LeaderEpoch),
    /// That broker leads in this epoch.
    Follower(BrokerId, LeaderEpoch),
    /// Named as leader, but not leading, in this epoch.
    Resigned(LeaderEpoch),
}

/// See the module's header.
#[derive(Debug, Clone)]
pub struct Replica {
    base: Base,
    role: Role,
    outstanding: Option<LogOp>,
    /// Leader epochs up to here are never led by this process: a former incarnation may have led in them.
    barred: Option<LeaderEpoch>,
    seen: Option<PartitionEpoch>,
    /// A read of this life found damage: somebody else is to lead as soon as somebody can.
    found_damage: bool,
    halted: bool,
}

impl Replica {
    /// A replica over a recovered log. `checkpoint` is one of the high watermarks saved before, None if lost; it is
    /// believed only as far as the log bears it out.
    #[must_use]
    pub fn new(id: Identity, facts: LogFacts, checkpoint: Option<Checkpoint>) -> Self {
        let high_watermark = HighWatermark::recovered(checkpoint, &facts);
        let log = OwnLog::recovered(facts);
        Self {
            base: Base { id, log, high_watermark, subscriptions_made: 0, isr_attempts: 0 },
            role: Role::Idle,
            outstanding: None,
            barred: None,
            seen: None,
            found_damage: false,
            halted: false,
        }
    }

    /// One input, at one moment. Appends what follows from it to `effects`; after a `Fatal` nothing follows any more.
    pub fn step(&mut self, input: Input, now: Now, effects: &mut Vec<Effect>) {
        if self.halted {
            return;
        }
        let first = effects.len();
        let is_result = matches!(
            input,
            Input::Appended
                | Input::AppendFailed { .. }
                | Input::Cut { .. }
                | Input::CutFailed
                | Input::StartAdvanced { .. }
        );
        if let Role::Leader(leadership) = &mut self.role {
            let (strict, end) = (leadership.strict(), self.base.log.end);
            leadership.positions.refresh(strict, end, now.at);
        }
        match (is_result, self.outstanding.take()) {
            (true, Some(op)) => self.on_log_result(input, op, now, effects),
            (false, None) => self.on_input(input, now, effects),
            (true, None) => effects.push(Effect::Fatal(FatalReason::Invariant("a log result that nobody asked for"))),
            (false, Some(_)) => {
                effects.push(Effect::Fatal(FatalReason::Invariant("an input before the outstanding log result")));
            }
        }
        if self.outstanding.is_none() {
            self.settle(now, effects);
        }
        self.halted = effects[first..].iter().any(|e| matches!(e, Effect::Fatal(_)));
    }

    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.found_damage && !self.may_be_last_copy() {
            effects.push(Effect::Fatal(FatalReason::Damaged));
        }
        let interval = self.view().map_or(0, |view| view.config.flush_interval_ms);
        if let Role::Leader(leadership) = &mut self.role {
            leadership.settle(&mut self.base, now, effects);
        }
        self.base.log.ask_flush(interval, now.at, effects);
        self.base.log.ask_note(false, effects);
    }

    fn on_input(&mut self, input: Input, now: Now, effects: &mut Vec<Effect>) {
        match input {
            Input::Assign(view) => self.assign(*view, now, effects),
            Input::Withdraw => self.become_idle(effects),
            Input::Tick => {
                if let Role::Follower(following) = &mut self.role {
                    self.outstanding = following.tick(&mut self.base, now, effects);
                }
            }
            Input::Flushed { generation, upto } => {
                if self.base.log.flushed(generation, upto) {
                    self.acknowledge(effects);
                }
            }
            Input::PolicyNoted(policy) => {
                let end = self.base.log.end;
                self.base.log.policy.note_done(policy, end);
                self.acknowledge(effects);
            }
            Input::DirectoryNoted => {
                self.base.log.directory_noted();
                self.acknowledge(effects);
            }
            Input::DamageFound => self.on_damage(),
            Input::Produce(request) => self.on_produce(request, now, effects),
            Input::DeleteRecords { id, before, deadline } => {
                self.on_delete_records(id, before, deadline, now, effects);
            }
            Input::Retain { upto } => {
                if let Role::Leader(_) = &self.role {
                    let to = upto.min(self.trimmable());
                    let any = self.base.advance_start(to, effects);
                    self.outstanding = any.then_some(LogOp::AdvanceStart { to, delete: None });
                }
            }
            leader @ (Input::Subscribe(_)
            | Input::Unsubscribed { .. }
            | Input::Ack(_)
            | Input::PumpBelowStart { .. }
            | Input::PumpUnreadable { .. }
            | Input::IsrResult { .. }) => self.on_leader_input(leader, now, effects),
            follower => self.on_follower_input(follower, now, effects),
        }
    }

    fn acknowledge(&self, effects: &mut Vec<Effect>) {
        if let Role::Follower(following) = &self.role {
            following.acknowledge(&self.base, effects);
        }
    }

    fn on_produce(&mut self, request: Produce, now: Now, effects: &mut Vec<Effect>) {
        if let Role::Leader(leadership) = &mut self.role {
            let op = leadership.produce(request, &mut self.base, now, effects);
            self.outstanding = op.map(LogOp::AppendProduce);
        } else {
            let outcome = ProduceOutcome::Refused(self.not_leading());
            effects.push(Effect::Reply { id: request.id, outcome });
        }
    }

    fn on_delete_records(
        &mut self,
        id: RequestId,
        before: Option<u64>,
        deadline: Millis,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        match self.delete_point(before, now) {
            Ok(to) => {
                let delete = Deleting { id, to, deadline };
                if self.base.advance_start(to, effects) {
                    self.outstanding = Some(LogOp::AdvanceStart { to, delete: Some(delete) });
                } else if let Role::Leader(leadership) = &mut self.role {
                    leadership.deletes.push(delete);
                }
            }
            Err(code) => effects.push(Effect::DeleteReply { id, outcome: Err(code) }),
        }
    }

    /// The code of a request that needs a leader, from a replica that is none.
    fn not_leading(&self) -> ErrorCode {
        match &self.role {
            Role::Leaderless(_) => ErrorCode::LeaderNotAvailable,
            _ => ErrorCode::NotLeader,
        }
    }

    /// A damaged log may count as in sync, and only a restart that does not prove it takes its place away. While nobody
    /// else may be in the ISR there is nobody to hand over to: what can be read is served until there is.
    fn on_damage(&mut self) {
        self.base.log.damaged = true;
        self.found_damage = true;
    }

    /// Whether this replica is, or may be once a change in flight commits, all there is of the ISR.
    fn may_be_last_copy(&self) -> bool {
        let me = self.base.id.me;
        let only_me = |view: &PartitionView| view.isr.iter().all(|id| *id == me);
        match &self.role {
            Role::Leader(leadership) => leadership.isr.may_be_only(me),
            Role::Follower(following) => only_me(&following.view),
            Role::Leaderless(view) | Role::Resigned(view) => only_me(view),
            // It has no place, so nothing rests on it: a deleted topic's data stay where they are, for a restore.
            Role::Idle => true,
        }
    }

    fn on_leader_input(&mut self, input: Input, now: Now, effects: &mut Vec<Effect>) {
        let Role::Leader(leadership) = &mut self.role else {
            if let Input::Subscribe(subscribe) = input {
                leader_feed::refuse(&subscribe, self.not_leading(), effects);
            }
            return;
        };
        match input {
            Input::Subscribe(subscribe) => leadership.subscribe(&subscribe, &self.base, now, effects),
            Input::Ack(ack) => leadership.acknowledged(&ack, &self.base, now),
            Input::Unsubscribed { follower, subscription } => {
                leadership.unsubscribed(follower, subscription, effects);
            }
            Input::PumpBelowStart { follower, subscription } => {
                leadership.pump_below_start(follower, subscription, &self.base, effects);
            }
            Input::PumpUnreadable { follower, subscription } => {
                leadership.pump_unreadable(follower, subscription, effects);
                self.on_damage();
            }
            Input::IsrResult { attempt, outcome } => leadership.isr.answered(attempt, outcome, now.at),
            _ => {}
        }
    }

    fn on_follower_input(&mut self, input: Input, now: Now, effects: &mut Vec<Effect>) {
        let Role::Follower(following) = &mut self.role else { return };
        let base = &mut self.base;
        self.outstanding = match input {
            Input::Started { subscription, leader_epoch, from, high_watermark, log_start } => {
                following.started(subscription, leader_epoch, from, base, now, effects);
                following.advance(subscription, leader_epoch, high_watermark, log_start, base, effects)
            }
            Input::Diverged { subscription, leader_epoch, epoch, end } => {
                let theirs = log::epochs::EpochEnd { epoch: epoch.map(|e| e.0), end };
                following.diverged(subscription, leader_epoch, theirs, base, now, effects)
            }
            Input::BeginAt { subscription, leader_epoch, log_start } => {
                following.begin_at(subscription, leader_epoch, log_start, base, effects)
            }
            Input::Pushed(push) => following.pushed(push, base, now, effects),
            Input::Advance { subscription, leader_epoch, high_watermark, log_start } => {
                following.advance(subscription, leader_epoch, high_watermark, log_start, base, effects)
            }
            Input::Refused { subscription, .. } => {
                following.refused(subscription, now);
                None
            }
            Input::StreamLost { subscription } => {
                following.stream_lost(subscription, base, effects);
                None
            }
            _ => None,
        };
    }

    fn on_log_result(&mut self, result: Input, op: LogOp, now: Now, effects: &mut Vec<Effect>) {
        let base = &mut self.base;
        match (op, result, &mut self.role) {
            (LogOp::AppendProduce(op), Input::Appended, Role::Leader(leadership)) => {
                leadership.appended(op, base, now, effects);
            }
            (LogOp::AppendProduce(op), Input::AppendFailed { end }, Role::Leader(leadership)) if end == op.base => {
                if leadership.append_failed(op, effects) {
                    self.resign(effects);
                }
            }
            (LogOp::AppendPush(push), Input::Appended, Role::Follower(following)) => {
                self.outstanding = following.appended(&push, base, effects);
            }
            (LogOp::AppendPush(push), Input::AppendFailed { end }, Role::Follower(following)) => {
                following.append_failed(&push, end, base, now, effects);
            }
            (LogOp::Cut { reset }, Input::Cut { start, end }, Role::Follower(following)) => {
                base.log.cut(reset, start, end);
                base.high_watermark.overrule(end);
                base.high_watermark.advance(start);
                effects.push(base.moved());
                following.cut_done(base, effects);
            }
            (LogOp::Realign(push), Input::Cut { start, end }, Role::Follower(following)) => {
                base.log.cut(true, start, end);
                self.outstanding = following.realigned(*push, base, now, effects);
            }
            (LogOp::Cut { .. } | LogOp::Realign(_), Input::CutFailed, Role::Follower(following)) => {
                following.cut_failed(now, effects);
            }
            (LogOp::AdvanceStart { to, delete }, Input::StartAdvanced { start }, role) => {
                base.log.start_advanced(start);
                base.high_watermark.advance(base.log.start);
                effects.push(base.moved());
                match (role, delete) {
                    (Role::Follower(following), _) => following.start_advanced(to, base, now, effects),
                    (Role::Leader(_), Some(delete)) if start < to => {
                        effects.push(Effect::DeleteReply { id: delete.id, outcome: Err(ErrorCode::DiskFull) });
                    }
                    (Role::Leader(leadership), Some(delete)) => leadership.deletes.push(delete),
                    _ => {}
                }
            }
            _ => effects.push(Effect::Fatal(FatalReason::Invariant("the result does not fit the log operation"))),
        }
    }

    /// When `Tick` is wanted although nothing happens.
    #[must_use]
    pub fn next_deadline(&self, now: Millis) -> Option<Millis> {
        let flush = self.view().and_then(|view| self.base.log.flush_due(view.config.flush_interval_ms));
        let role = match &self.role {
            Role::Leader(leadership) => leadership.next_deadline(&self.base, now),
            Role::Follower(following) => following.next_deadline(),
            _ => None,
        };
        flush.into_iter().chain(role).min()
    }

    fn view(&self) -> Option<&PartitionView> {
        match &self.role {
            Role::Idle => None,
            Role::Leaderless(view) | Role::Resigned(view) => Some(view),
            Role::Leader(leadership) => Some(&leadership.view),
            Role::Follower(following) => Some(&following.view),
        }
    }

    /// What it is now.
    #[must_use]
    pub fn role(&self) -> RoleName {
        match &self.role {
            Role::Idle => RoleName::Idle,
            Role::Leaderless(_) => RoleName::Leaderless,
            Role::Leader(leadership) => RoleName::Leader(leadership.epoch()),
            Role::Follower(following) => RoleName::Follower(following.leader, following.epoch()),
            Role::Resigned(view) => RoleName::Resigned(view.leader_epoch),
        }
    }

    /// Which partition.
    #[must_use]
    pub fn at(&self) -> TopicPartition {
        self.base.id.at
    }

    /// Generation of the log: to be given back with `Flushed`.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.base.log.generation()
    }

    /// The report to send while nobody leads; again whenever the active controller changes.
    #[must_use]
    pub fn log_end_report(&self) -> Option<LogEndReport> {
        let Role::Leaderless(view) = &self.role else { return None };
        Some(LogEndReport {
            leader_epoch: view.leader_epoch,
            last_epoch: self.base.log.last_epoch(),
            log_end: self.base.log.end,
            log_start: self.base.log.start,
            damaged: self.base.log.damaged,
        })
    }
}
