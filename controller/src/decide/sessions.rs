//! Soft state about brokers: who was heard of when, what they have applied, what they want. Never in the log.
//!
//! Every controller keeps notes from its own heartbeat streams; only the active one acts on them. Invariants:
//! nobody is fenced before one lease has passed since this controller became active (a predecessor may have renewed
//! a lease until then); a broker whose fencing is being written is not answered until the batch's fate is known, and the
//! lease of one from which a batch being written takes a partition waits for that batch, whether it is committed or not:
//! this controller may be the last to apply what it told the others. So a deposed leader's lease ends at most one lease
//! after the batch committed (DESIGN.md section 4). All of it can be lost: the cost is time, never safety.

use super::command::{Heartbeat, HeartbeatAnswer};
use super::evidence::{LogEnds, Proofs};
use super::limits::BROKERS_MAX;
use super::work::WorkMemo;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BatchNo, BrokerEpoch, BrokerId, Millis};
use protocol::metadata::brokers::{Broker, BrokerState};
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::BrokerRef;
use protocol::planted::{self, Bug};
use protocol::timers::Timers;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of one broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Registration it spoke under.
    pub epoch: BrokerEpoch,
    /// Receipt of its last heartbeat.
    pub last: Millis,
    /// Its stream broke after that.
    pub reset: bool,
    /// Batch number it had applied.
    pub applied: BatchNo,
    /// It is ready to be unfenced.
    pub wants_unfence: bool,
    /// It wants to stop.
    pub wants_shutdown: bool,
    /// Its applied number fell within one registration: a copy of the process or its disk is at work.
    pub regressed: bool,
    stream: u64,
    submitted: Option<Millis>,
    behind: Option<(BatchNo, Millis)>,
    active_since: Option<Millis>,
    /// Image number at which a broker that is shutting down was first seen without leadership and ISR place.
    free_since: Option<BatchNo>,
}

/// What to do with a heartbeat on the active controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeartbeatDecision {
    /// Send nothing: this controller cannot vouch for its lead, or the broker's fencing is being written.
    Silent,
    /// Send this now.
    Answer {
        /// The answer.
        answer: HeartbeatAnswer,
        /// Also queue [`super::command::Command::Heartbeat`]: the broker wants what only a batch can give.
        submit: bool,
    },
}

/// All soft state of one controller.
#[derive(Debug, Clone)]
pub struct Sessions {
    timers: Timers,
    active_since: Option<Millis>,
    not_before: Millis,
    last_awake: Millis,
    contacts: BTreeMap<BrokerId, Contact>,
    fencing: BTreeSet<(BrokerId, BrokerEpoch)>,
    /// Leaders of partitions that the batch being written takes from them, and its number.
    deposing: BTreeMap<BrokerId, BatchNo>,
    /// Image number at the takeover: at or above every registration and fencing decided before it.
    taken_at: BatchNo,
    /// Registrations in the batch that is being written, and the notes that they took the place of.
    registering: BTreeMap<BrokerId, (BrokerEpoch, Option<Contact>)>,
    /// Batch of the last registration or fencing of a broker, if decided here.
    called_at: BTreeMap<BrokerId, BatchNo>,
    pub(super) proofs: Proofs,
    pub(super) ends: LogEnds,
    pub(super) memo: WorkMemo,
}

impl Sessions {
    /// Notes of a controller that has just started.
    #[must_use]
    pub fn new(timers: Timers) -> Self {
        Self {
            timers,
            active_since: None,
            not_before: 0,
            last_awake: 0,
            contacts: BTreeMap::new(),
            fencing: BTreeSet::new(),
            deposing: BTreeMap::new(),
            taken_at: BatchNo(0),
            registering: BTreeMap::new(),
            called_at: BTreeMap::new(),
            proofs: Proofs::default(),
            ends: LogEnds::default(),
            memo: WorkMemo::default(),
        }
    }

    /// The durations in force.
    #[must_use]
    pub fn timers(&self) -> Timers {
        self.timers
    }

    /// This controller became active (its barrier was applied). It begins with its own notes and fences nobody for
    /// one lease. `committed`: number of the image it begins to decide on.
    pub fn takeover(&mut self, committed: BatchNo, now: Millis) {
        self.forget_commands();
        self.taken_at = committed;
        self.called_at.clear();
        self.active_since = Some(now);
        let carried = !planted::is(Bug::SessionsNotCarried);
        self.not_before = if carried { now + self.timers.takeover_quiet_ms } else { now };
        self.last_awake = now;
        for contact in self.contacts.values_mut() {
            contact.active_since = Some(now);
            contact.behind = None;
        }
    }

    /// This controller is no longer active. Notes of contacts stay.
    pub fn step_down(&mut self) {
        self.forget_commands();
        self.active_since = None;
    }

    fn forget_commands(&mut self) {
        self.fencing.clear();
        self.deposing.clear();
        self.forget_registrations();
        self.proofs = Proofs::default();
        self.ends = LogEnds::default();
        self.memo = WorkMemo::default();
        for contact in self.contacts.values_mut() {
            contact.submitted = None;
            contact.free_since = None;
        }
    }

    /// A registration that was decided and may never commit: its epoch would make every heartbeat of the registration that
    /// the log does hold an old one, for ever. If it commits after all, the first heartbeat under it brings its notes back.
    fn forget_registrations(&mut self) {
        for (broker, (epoch, former)) in std::mem::take(&mut self.registering) {
            if self.contacts.get(&broker).is_some_and(|c| c.epoch == epoch) {
                self.contacts.remove(&broker);
                self.contacts.extend(former.map(|contact| (broker, contact)));
            }
        }
    }

    /// The fate of the batch that [`super::batch::run_batch`] returned last is known: `applied` or certainly not.
    /// While it is unknown nobody calls this, and the brokers it fences stay unanswered.
    pub fn settled(&mut self, applied: bool) {
        self.fencing.clear();
        self.deposing.clear();
        if applied {
            self.registering.clear();
        } else {
            self.forget_registrations();
            self.memo = WorkMemo::default();
        }
    }

    /// Whether this controller is active.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active_since.is_some()
    }

    /// What is known of a broker under this registration.
    #[must_use]
    pub fn contact(&self, broker: BrokerId, epoch: BrokerEpoch) -> Option<&Contact> {
        self.contacts.get(&broker).filter(|c| c.epoch == epoch)
    }

    /// Notes a heartbeat; every controller does. Returns false for one that does not count: of an old registration,
    /// or of a stream that a later one replaced.
    pub fn note_heartbeat(&mut self, image: &MetadataImage, heartbeat: &Heartbeat, now: Millis) -> bool {
        self.awake(now);
        let full = self.contacts.len() >= BROKERS_MAX && !self.contacts.contains_key(&heartbeat.broker);
        let newer = self.contacts.get(&heartbeat.broker).is_some_and(|c| c.epoch > heartbeat.epoch);
        if full || newer {
            return false;
        }
        let since = self.active_since;
        let contact = self.contacts.entry(heartbeat.broker).or_insert_with(|| Contact::begin(heartbeat, now, since));
        if contact.epoch != heartbeat.epoch {
            *contact = Contact::begin(heartbeat, now, since);
        }
        contact.note(image.batch_no, heartbeat, now)
    }

    /// Notes that a heartbeat stream broke. A stream that a later one replaced says nothing.
    pub fn note_reset(&mut self, broker: BrokerId, stream: u64) {
        if let Some(contact) = self.contacts.get_mut(&broker).filter(|c| c.stream == stream) {
            contact.reset = true;
            contact.stream = 0;
        }
    }

    /// Notes a heartbeat and says what the active controller does with it. `quorum_fresh`: the last quorum
    /// acknowledgement, counted from its send, is younger than the minimum election timeout.
    pub fn answer_heartbeat(
        &mut self,
        image: &MetadataImage,
        heartbeat: &Heartbeat,
        now: Millis,
        quorum_fresh: bool,
    ) -> HeartbeatDecision {
        let known = image.brokers.get(heartbeat.broker);
        let current = known.filter(|b| b.epoch == heartbeat.epoch);
        let counted = current.is_some() && self.note_heartbeat(image, heartbeat, now);
        if !quorum_fresh || !self.is_active() {
            return HeartbeatDecision::Silent;
        }
        let Some(broker) = current else {
            let ahead = known.is_some_and(|b| b.epoch < heartbeat.epoch);
            return if ahead { HeartbeatDecision::Silent } else { refuse(image, known, heartbeat) };
        };
        let regressed = self.contact(broker.id, broker.epoch).is_some_and(|c| c.regressed);
        if regressed && broker.is_fenced() {
            return refuse(image, known, heartbeat);
        }
        let fencing =
            self.fencing.contains(&(broker.id, broker.epoch)) && !planted::is(Bug::HeartbeatAnsweredDuringFence);
        if !counted || regressed || fencing {
            return HeartbeatDecision::Silent;
        }
        let may_stop = heartbeat.wants_shutdown && self.may_stop(image, broker);
        let committed = image.batch_no;
        let deposing = self.deposing.get(&broker.id).filter(|_| !planted::is(Bug::LeaseRenewedDuringDeposition));
        let renews_at = deposing.copied().unwrap_or(committed).max(committed);
        let answer = HeartbeatAnswer { committed, renews_at, fenced: broker.is_fenced(), may_stop, error: None };
        HeartbeatDecision::Answer { answer, submit: self.submits(broker, heartbeat, now) }
    }

    /// A wish is queued once; again only if nothing came of it for one lease (a full queue, a dropped batch).
    fn submits(&mut self, broker: &Broker, heartbeat: &Heartbeat, now: Millis) -> bool {
        let wish = match broker.state {
            BrokerState::Fenced => wants_unfence(heartbeat) && !heartbeat.wants_shutdown,
            BrokerState::Active => heartbeat.wants_shutdown,
            BrokerState::ShuttingDown => false,
        };
        let lease = self.timers.lease_ms;
        let Some(contact) = self.contacts.get_mut(&broker.id) else { return false };
        let waiting = contact.submitted.is_some_and(|at| now.saturating_sub(at) < lease);
        if wish && !waiting {
            contact.submitted = Some(now);
        }
        wish && !waiting
    }

    /// A queued wish was decided; the next heartbeat may queue another.
    pub(super) fn wish_decided(&mut self, broker: BrokerId) {
        if let Some(contact) = self.contacts.get_mut(&broker) {
            contact.submitted = None;
        }
    }

    /// Controlled shutdown ends when the broker leads nothing, is in no ISR, and every broker that takes part has
    /// applied that: none of them sends a client to it any more.
    pub(super) fn may_stop(&mut self, image: &MetadataImage, broker: &Broker) -> bool {
        if broker.is_fenced() {
            return true;
        }
        let Some(contact) = self.contacts.get_mut(&broker.id) else { return false };
        if broker.is_active() || image.topics.in_sync_places_of(broker.id).next().is_some() {
            contact.free_since = None;
            return false;
        }
        let free = *contact.free_since.get_or_insert(image.batch_no);
        image
            .brokers
            .iter()
            .filter(|b| b.id != broker.id && !b.is_fenced())
            .all(|b| self.contact(b.id, b.epoch).is_some_and(|c| c.applied >= free))
    }

    /// A registration was decided for batch `at`: notes of earlier ones are void, and it counts as heard of.
    pub(super) fn registered(&mut self, broker: BrokerId, epoch: BrokerEpoch, at: BatchNo, now: Millis) {
        self.called_at.insert(broker, at);
        let first =
            Heartbeat { broker, epoch, stream: 0, applied: BatchNo(0), wants_unfence: false, wants_shutdown: false };
        let replaced = self.contacts.insert(broker, Contact::begin(&first, now, None));
        self.registering.entry(broker).or_insert((epoch, replaced)).0 = epoch;
        self.proofs.forget(broker);
        self.ends.forget(broker);
    }

    /// The broker takes part from now on: the hold before leadership returns to it begins.
    pub(super) fn unfenced(&mut self, broker: BrokerId, now: Millis) {
        if let Some(contact) = self.contacts.get_mut(&broker) {
            contact.active_since = Some(now);
        }
    }

    /// Batch `batch` fences this registration and is being written.
    pub(super) fn fence_in_flight(&mut self, at: BrokerRef, batch: BatchNo) {
        self.fencing.insert((at.broker, at.epoch));
        self.called_at.insert(at.broker, batch);
    }

    /// Batch `batch` takes a partition from this leader and is being written.
    pub(super) fn deposes(&mut self, leader: BrokerId, batch: BatchNo) {
        self.deposing.insert(leader, batch);
    }

    /// The image a broker must have applied before it is unfenced: it holds the broker's registration and its last
    /// fencing.
    pub(super) fn must_have_applied(&self, broker: BrokerId) -> BatchNo {
        self.called_at.get(&broker).copied().unwrap_or(self.taken_at)
    }

    /// Last time this broker may have heard from an active controller, whichever that was.
    #[must_use]
    pub fn last_heard(&self, broker: BrokerId) -> Option<Millis> {
        let noted = self.contacts.get(&broker).map(|c| c.last);
        noted.max(self.active_since)
    }

    /// Whether a process with this registration is taken to be alive.
    pub(super) fn lives(&self, broker: &Broker, now: Millis) -> bool {
        now < self.deadline(broker)
    }

    /// When the broker's session ends if nothing more is heard.
    fn deadline(&self, broker: &Broker) -> Millis {
        let begun = self.active_since.unwrap_or(0);
        match self.contact(broker.id, broker.epoch) {
            Some(contact) if contact.reset => contact.last + self.timers.fence_after_reset_ms,
            Some(contact) => contact.last + self.timers.session_timeout_ms,
            None => begun + self.timers.session_timeout_ms,
        }
    }

    /// A controller that was itself asleep for longer than a lease (stopped, starved) listens for one before it fences:
    /// the silence was its own.
    fn awake(&mut self, now: Millis) {
        if now.saturating_sub(self.last_awake) > self.timers.lease_ms {
            self.not_before = self.not_before.max(now + self.timers.lease_ms);
        }
        self.last_awake = self.last_awake.max(now);
    }

    /// Brokers to fence now.
    pub(super) fn expired(&mut self, image: &MetadataImage, now: Millis) -> Vec<BrokerRef> {
        self.awake(now);
        if self.active_since.is_none() || now < self.not_before {
            return Vec::new();
        }
        let dead = |b: &&Broker| {
            let regressed = self.contact(b.id, b.epoch).is_some_and(|c| c.regressed);
            !b.is_fenced() && (regressed || now >= self.deadline(b))
        };
        image.brokers.iter().filter(dead).map(|b| BrokerRef { broker: b.id, epoch: b.epoch }).collect()
    }

    /// Whether the broker has not applied, for one session timeout, what was committed when it was last level.
    #[must_use]
    pub fn is_lagging(&self, broker: &Broker, now: Millis) -> bool {
        let behind = self.contact(broker.id, broker.epoch).and_then(|c| c.behind);
        behind.is_some_and(|(_, since)| now.saturating_sub(since) >= self.timers.session_timeout_ms)
    }

    /// Whether the broker has been active, and level, for so long that leadership may return to it.
    pub(super) fn is_steady(&self, broker: &Broker, now: Millis) -> bool {
        let since = match self.contact(broker.id, broker.epoch) {
            Some(contact) if contact.reset => None,
            Some(contact) => contact.active_since,
            None => self.active_since,
        };
        broker.is_active()
            && !self.is_lagging(broker, now)
            && since.is_some_and(|at| now.saturating_sub(at) >= super::limits::PREFERRED_HOLD_MS)
    }
}

impl Contact {
    fn begin(heartbeat: &Heartbeat, now: Millis, active_since: Option<Millis>) -> Self {
        Self {
            epoch: heartbeat.epoch,
            last: now,
            reset: false,
            applied: heartbeat.applied,
            wants_unfence: heartbeat.wants_unfence,
            wants_shutdown: heartbeat.wants_shutdown,
            regressed: false,
            stream: heartbeat.stream,
            submitted: None,
            behind: None,
            active_since,
            free_since: None,
        }
    }

    fn note(&mut self, committed: BatchNo, heartbeat: &Heartbeat, now: Millis) -> bool {
        if heartbeat.stream < self.stream {
            return false;
        }
        self.regressed |= heartbeat.applied < self.applied;
        self.stream = heartbeat.stream;
        self.last = self.last.max(now);
        self.reset = false;
        self.applied = self.applied.max(heartbeat.applied);
        self.wants_unfence = heartbeat.wants_unfence;
        self.wants_shutdown = heartbeat.wants_shutdown;
        self.behind = match self.behind {
            _ if self.applied >= committed => None,
            Some((target, since)) if self.applied < target => Some((target, since)),
            _ => Some((committed, now)),
        };
        true
    }
}

/// Whether the broker says that it is fit to be let in.
pub(super) fn wants_unfence(heartbeat: &Heartbeat) -> bool {
    heartbeat.wants_unfence || planted::is(Bug::UnfenceOnFirstHeartbeat)
}

fn refuse(image: &MetadataImage, known: Option<&Broker>, heartbeat: &Heartbeat) -> HeartbeatDecision {
    let error = match known {
        Some(broker) => ApiError::bad(
            ErrorCode::StaleBrokerEpoch,
            "broker_epoch",
            heartbeat.epoch,
            format!("{}, the registered epoch of broker {}", broker.epoch, broker.id),
        ),
        None => ApiError::bad(ErrorCode::UnknownBroker, "broker_id", heartbeat.broker, "a registered broker"),
    };
    let committed = image.batch_no;
    let answer = HeartbeatAnswer { committed, renews_at: committed, fenced: true, may_stop: false, error: Some(error) };
    HeartbeatDecision::Answer { answer, submit: false }
}

#[cfg(test)]
mod tests;
