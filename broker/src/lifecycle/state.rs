//! The broker's life in the cluster: register, prove, be unfenced, hold a lease, leave.
//!
//! Pure: time, answers and images are inputs; what to send is an effect. Owns the lease: send time of the last
//! heartbeat that the active controller answered + L, and only once the batch number in that answer is applied here,
//! so that a deposed leader serves at most L after the batch that deposed it committed (DESIGN.md section 4).
//! Never asks to be unfenced before its own image holds its own registration, proved, and reconcile has opened
//! everything that image asks for. One process has one registration: when another takes its place, it stops.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::limits::{PROOF_RETRY_MS, REGISTER_RETRY_MS, STOP_PATIENCE_MS};
use super::renewals::Renewals;
use crate::replica::lease::Lease;
use protocol::error::ErrorCode;
use protocol::ids::{BatchNo, BrokerEpoch, BrokerId, ControllerId, Millis};
use protocol::metadata::brokers::BrokerState;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::ConfigResource;
use protocol::timers::Timers;

/// What the applied image says of this broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageFacts {
    /// Its number.
    pub batch_no: BatchNo,
    /// The registration it holds: epoch, state, proved. None = never registered.
    pub me: Option<(BrokerEpoch, BrokerState, bool)>,
    /// `lease.grace.ms`
    pub grace_ms: Millis,
}

impl ImageFacts {
    /// Reads them.
    #[must_use]
    pub fn of(image: &MetadataImage, me: BrokerId) -> Self {
        let grace_ms = image
            .config_number(ConfigResource::Cluster, "lease.grace.ms")
            .expect("values were checked against the schema before they entered the log");
        let me = image.brokers.get(me).map(|b| (b.epoch, b.state, b.proved));
        Self { batch_no: image.batch_no, me, grace_ms }
    }
}

/// Answer to one heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// From whom.
    pub controller: ControllerId,
    /// To which heartbeat.
    pub seq: u64,
    /// From the active controller: only such an answer renews the lease.
    pub active: bool,
    /// Batch number applied there.
    pub committed: BatchNo,
    /// Batch that must be applied here before the lease is renewed.
    pub renews_at: BatchNo,
    /// We are fenced.
    pub fenced: bool,
    /// A controlled shutdown may end.
    pub may_stop: bool,
    /// Refusal.
    pub error: Option<ErrorCode>,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Every partition directory is recovered or quarantined: registration may begin.
    Recovered,
    /// The active controller said where it stands, when asked before a registration: our image must get there.
    ActiveStands(BatchNo),
    /// `Register` was answered.
    Registered {
        /// Our epoch from now on.
        epoch: BrokerEpoch,
    },
    /// `Register` failed.
    RegisterFailed(ErrorCode),
    /// `StoreEpoch` is durable.
    EpochStored,
    /// The last chunk of `Prove` was answered.
    ProofTaken,
    /// `Prove` failed somewhere.
    ProofFailed(ErrorCode),
    /// An image was applied.
    Image(ImageFacts),
    /// Everything that the image of this number asks of us is opened, closed or quarantined.
    Reconciled(BatchNo),
    /// A heartbeat was answered.
    Answer(HeartbeatAnswer),
    /// The process was asked to stop.
    Stop,
    /// Time passed.
    Tick,
}

/// A heartbeat to send to every controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Our epoch.
    pub epoch: BrokerEpoch,
    /// Its number; the send time is kept under it.
    pub seq: u64,
    /// Batch number of our image.
    pub applied: BatchNo,
    /// We could take part.
    pub wants_unfence: bool,
    /// We want to leave.
    pub wants_shutdown: bool,
}

/// Why the process must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FatalReason {
    /// Another process holds the registration of this broker id.
    #[error("broker epoch {mine:?} is no longer the registered one: another process took this broker's place")]
    Replaced {
        /// Ours.
        mine: Option<BrokerEpoch>,
    },
    /// The cluster will not have this process, and asking again will not help.
    #[error("the cluster refuses this broker: {0}")]
    Refused(ErrorCode),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Ask the active controller for a registration. Answer: `Registered` or `RegisterFailed`.
    Register,
    /// Make epoch and boot id durable in the identity state. Answer: `EpochStored`.
    StoreEpoch(BrokerEpoch),
    /// Send the proof under this epoch: all chunks, the final one always, even if it names nothing. Answer: `ProofTaken`
    /// or `ProofFailed`.
    Prove(BrokerEpoch),
    /// Send to every controller.
    Heartbeat(Heartbeat),
    /// The lease as it is now; shards read it from where this is put.
    Lease(Lease),
    /// The active controller changed: leaderless replicas report to it again, ISR changes go there.
    ActiveController(ControllerId),
    /// The feed stays behind what is committed: follow another controller.
    ChangeFeedSource,
    /// Life in the cluster is over; close down. `released`: leaderships had moved first.
    Stopped {
        /// By the controller's word, or because there was nothing to wait for.
        released: bool,
    },
    /// Stop the process at once.
    Fatal(FatalReason),
}

/// Where the broker is in its life, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Opening directories.
    Recovering,
    /// Asking for a registration.
    Registering,
    /// Registered, fenced: proof, image or reconcile are not there yet.
    CatchingUp,
    /// Ready; waits to be unfenced.
    Waiting,
    /// Takes part.
    Active,
    /// Leaving.
    ShuttingDown,
    /// Over.
    Stopped,
}

/// A request under way, or when to make the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Errand {
    Due(Millis),
    Sent,
    Done,
}

/// See the module's header.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    timers: Timers,
    recovered: bool,
    epoch: Option<BrokerEpoch>,
    register: Errand,
    /// Refused because another disk of our id lives: until then that may pass.
    duplicate_until: Option<Millis>,
    stored: bool,
    proof: Errand,
    image: ImageFacts,
    /// The first image of the stretch in which we are fenced and proved: what it asks for must be open.
    fit_since: Option<BatchNo>,
    reconciled: BatchNo,
    renewals: Renewals,
    heartbeat_at: Millis,
    active_controller: Option<ControllerId>,
    /// A committed batch number that we lack, and since when.
    behind: Option<(BatchNo, Millis)>,
    /// Since when, and from which heartbeat on, we ask to stop.
    stopping: Option<(Millis, u64)>,
    over: bool,
}

impl Lifecycle {
    /// A process that has just started.
    #[must_use]
    pub fn new(timers: Timers) -> Self {
        Self {
            renewals: Renewals::new(timers.lease_ms),
            timers,
            recovered: false,
            epoch: None,
            register: Errand::Due(0),
            duplicate_until: None,
            stored: false,
            proof: Errand::Due(0),
            image: ImageFacts { batch_no: BatchNo(0), me: None, grace_ms: 0 },
            fit_since: None,
            reconciled: BatchNo(0),
            heartbeat_at: 0,
            active_controller: None,
            behind: None,
            stopping: None,
            over: false,
        }
    }

    /// One input at one moment.
    pub fn step(&mut self, input: Input, now: Millis, effects: &mut Vec<Effect>) {
        if self.over {
            return;
        }
        match input {
            Input::Recovered => self.recovered = true,
            Input::ActiveStands(batch_no) => self.must_reach(batch_no, now),
            Input::Registered { epoch } => self.on_registered(epoch, now, effects),
            Input::RegisterFailed(code) => self.on_register_failed(code, now, effects),
            Input::EpochStored => self.stored = true,
            Input::ProofTaken => self.proof = Errand::Due(now + self.timers.session_timeout_ms),
            Input::ProofFailed(code) => self.on_proof_failed(code, now, effects),
            Input::Image(facts) => self.on_image(facts, now, effects),
            Input::Reconciled(batch_no) => self.reconciled = self.reconciled.max(batch_no),
            Input::Answer(answer) => self.on_answer(answer, now, effects),
            Input::Stop => {
                let first = self.renewals.next_seq();
                self.stopping.get_or_insert((now, first));
                self.heartbeat_at = now;
            }
            Input::Tick => {}
        }
        if !self.over {
            self.run_errands(now, effects);
        }
    }

    fn on_registered(&mut self, epoch: BrokerEpoch, now: Millis, effects: &mut Vec<Effect>) {
        if self.epoch.is_some() {
            return;
        }
        self.epoch = Some(epoch);
        let fit = self.own(|state, proved| state == BrokerState::Fenced && proved);
        self.fit_since = Some(self.image.batch_no).filter(|_| fit);
        self.register = Errand::Done;
        self.heartbeat_at = now;
        effects.push(Effect::StoreEpoch(epoch));
        self.check_not_replaced(effects);
    }

    fn on_register_failed(&mut self, code: ErrorCode, now: Millis, effects: &mut Vec<Effect>) {
        if self.epoch.is_some() {
            return;
        }
        // Our predecessor with another disk may be dead already: its session is given time to end.
        let session_ends = match code {
            ErrorCode::DuplicateBroker => {
                *self.duplicate_until.get_or_insert(now.saturating_add(self.timers.session_timeout_ms))
            }
            _ => now,
        };
        if code.next() == protocol::error::Next::GiveUp && now >= session_ends {
            return self.fatal(FatalReason::Refused(code), effects);
        }
        self.register = Errand::Due(now + REGISTER_RETRY_MS);
    }

    fn on_proof_failed(&mut self, code: ErrorCode, now: Millis, effects: &mut Vec<Effect>) {
        if code == ErrorCode::StaleBrokerEpoch {
            return self.fatal(FatalReason::Replaced { mine: self.epoch }, effects);
        }
        self.proof = Errand::Due(now + PROOF_RETRY_MS);
    }

    fn on_image(&mut self, facts: ImageFacts, now: Millis, effects: &mut Vec<Effect>) {
        if facts.batch_no < self.image.batch_no {
            return;
        }
        self.image = facts;
        let fit = self.own(|state, proved| state == BrokerState::Fenced && proved);
        self.fit_since = self.fit_since.or(Some(facts.batch_no)).filter(|_| fit);
        self.check_not_replaced(effects);
        if self.behind.is_some_and(|(goal, _)| facts.batch_no >= goal) {
            self.behind = None;
        }
        let before = self.renewals.lease();
        self.renewals.applied(facts.batch_no, facts.grace_ms, now);
        if self.own(|state, _| state == BrokerState::Fenced) {
            self.renewals.revoke();
        }
        self.publish(before, effects);
    }

    /// Whether the image holds our own registration, and this of it.
    fn own(&self, holds: impl FnOnce(BrokerState, bool) -> bool) -> bool {
        self.image.me.is_some_and(|(epoch, state, proved)| Some(epoch) == self.epoch && holds(state, proved))
    }

    fn check_not_replaced(&mut self, effects: &mut Vec<Effect>) {
        let registered = self.image.me.map(|(epoch, ..)| epoch);
        if self.epoch.is_some() && registered > self.epoch {
            self.fatal(FatalReason::Replaced { mine: self.epoch }, effects);
        }
    }

    fn on_answer(&mut self, answer: HeartbeatAnswer, now: Millis, effects: &mut Vec<Effect>) {
        match answer.error {
            Some(ErrorCode::StaleBrokerEpoch) => {
                return self.fatal(FatalReason::Replaced { mine: self.epoch }, effects);
            }
            Some(code @ (ErrorCode::WrongCluster | ErrorCode::WrongIncarnation)) => {
                return self.fatal(FatalReason::Refused(code), effects);
            }
            Some(_) => return,
            None => {}
        }
        if !answer.active {
            return;
        }
        if self.active_controller != Some(answer.controller) {
            self.active_controller = Some(answer.controller);
            // Its predecessor may have lost what we proved.
            if self.proof != Errand::Sent {
                self.proof = Errand::Due(now);
            }
            effects.push(Effect::ActiveController(answer.controller));
        }
        self.must_reach(answer.committed, now);
        if !answer.fenced {
            let before = self.renewals.lease();
            self.renewals.answered(answer.seq, answer.renews_at, now);
            // An answer from before the fencing that our image already shows waits for an image that takes it back.
            if !self.own(|state, _| state == BrokerState::Fenced) {
                self.renewals.applied(self.image.batch_no, self.image.grace_ms, now);
            }
            self.publish(before, effects);
        }
        if answer.may_stop && self.stopping.is_some_and(|(_, first)| answer.seq >= first) {
            self.finish(true, effects);
        }
    }

    fn must_reach(&mut self, committed: BatchNo, now: Millis) {
        if committed > self.image.batch_no {
            self.behind.get_or_insert((committed, now));
        }
    }

    fn publish(&self, before: Lease, effects: &mut Vec<Effect>) {
        let lease = self.renewals.lease();
        if lease != before {
            effects.push(Effect::Lease(lease));
        }
    }

    fn fatal(&mut self, reason: FatalReason, effects: &mut Vec<Effect>) {
        if !self.over {
            self.over = true;
            effects.push(Effect::Fatal(reason));
        }
    }

    fn finish(&mut self, released: bool, effects: &mut Vec<Effect>) {
        self.over = true;
        effects.push(Effect::Stopped { released });
    }

    fn run_errands(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        if let Some((since, _)) = self.stopping {
            if self.epoch.is_none() {
                return self.finish(true, effects);
            }
            if now >= since.saturating_add(STOP_PATIENCE_MS) {
                return self.finish(false, effects);
            }
        }
        if self.recovered && is_due(self.register, now) {
            self.register = Errand::Sent;
            effects.push(Effect::Register);
        }
        if let Some((_, since)) = self.behind
            && now >= since + self.timers.session_timeout_ms
        {
            self.behind = None;
            effects.push(Effect::ChangeFeedSource);
        }
        let Some(epoch) = self.epoch.filter(|_| self.stored) else { return };
        if !self.own(|_, proved| proved) && is_due(self.proof, now) {
            self.proof = Errand::Sent;
            effects.push(Effect::Prove(epoch));
        }
        if now >= self.heartbeat_at {
            self.heartbeat_at = now + self.timers.broker_heartbeat_ms;
            effects.push(Effect::Heartbeat(self.heartbeat(epoch, now)));
        }
    }

    fn heartbeat(&mut self, epoch: BrokerEpoch, now: Millis) -> Heartbeat {
        let wants_shutdown = self.stopping.is_some();
        let wants_unfence = !wants_shutdown && self.is_ready();
        let seq = self.renewals.sent(now);
        Heartbeat { epoch, seq, applied: self.image.batch_no, wants_unfence, wants_shutdown }
    }

    /// Fenced, and fit to take part: own registration applied and proved, everything that image asked for is open. Later
    /// images only add to it, and a busy cluster has a new one every few milliseconds.
    fn is_ready(&self) -> bool {
        self.fit_since.is_some_and(|since| self.reconciled >= since)
    }

    /// The lease as it is.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.renewals.lease()
    }

    /// Our epoch, once registered.
    #[must_use]
    pub fn epoch(&self) -> Option<BrokerEpoch> {
        self.epoch
    }

    /// Who answered last as the active controller.
    #[must_use]
    pub fn active_controller(&self) -> Option<ControllerId> {
        self.active_controller
    }

    /// Where the broker is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        if self.over {
            Phase::Stopped
        } else if self.stopping.is_some() {
            Phase::ShuttingDown
        } else if !self.recovered {
            Phase::Recovering
        } else if self.epoch.is_none() {
            Phase::Registering
        } else if self.own(|state, _| state != BrokerState::Fenced) {
            Phase::Active
        } else if self.is_ready() {
            Phase::Waiting
        } else {
            Phase::CatchingUp
        }
    }

    /// When `Tick` is wanted at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        if self.over {
            return None;
        }
        let due = |errand| match errand {
            Errand::Due(at) => Some(at),
            Errand::Sent | Errand::Done => None,
        };
        let beating = self.epoch.is_some() && self.stored;
        let register = due(self.register).filter(|_| self.recovered);
        let proof = due(self.proof).filter(|_| beating && !self.own(|_, proved| proved));
        let behind = self.behind.map(|(_, since)| since + self.timers.session_timeout_ms);
        let patience = self.stopping.map(|(since, _)| since.saturating_add(STOP_PATIENCE_MS));
        [register, proof, behind, patience, beating.then_some(self.heartbeat_at)].into_iter().flatten().min()
    }
}

fn is_due(errand: Errand, now: Millis) -> bool {
    matches!(errand, Errand::Due(at) if now >= at)
}

#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
