//! Leading: which offset a batch gets, when a produce is answered, how far the high watermark reaches.
//!
//! Every answer to a producer is released here and nowhere else. The high watermark is the minimum over the maximal
//! ISR, and moves only while the committed ISR of the applied image satisfies the durability rule: counting a pending
//! change in that gate would lose data (DESIGN.md section 5).

use super::Base;
use super::effect::{Abdication, AppendSource, Effect, ProduceOutcome};
use super::input::{Acks, BatchSpan, Produce};
use super::isr::Isr;
use super::leader_deletes::Deletes;
use super::lease::{Guard, Now};
use super::limits::PENDING_ANSWERS_MAX;
use super::pending::{Pending, Waiting};
use super::positions::Positions;
use super::view::PartitionView;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, LeaderEpoch, Millis};
use protocol::metadata::configs::FlushPolicy;
use protocol::planted::{self, Bug};

/// One leadership: from the image that named us to the next leader epoch.
#[derive(Debug, Clone)]
pub(super) struct Leadership {
    pub(super) view: PartitionView,
    /// Our log's end when we became leader: the offset at which this epoch begins. A follower without everything
    /// below it may lack records that a former leader committed.
    pub(super) epoch_start: u64,
    pub(super) positions: Positions,
    pub(super) isr: Isr,
    /// Whether the committed ISR satisfies the durability rule; both change with the view only.
    pub(super) satisfied: bool,
    /// acks=all: released by the high watermark.
    by_high_watermark: Pending,
    /// acks=1: released by our own position.
    by_own_position: Pending,
    /// Delete-records: released by where the ISR's logs begin.
    pub(super) deletes: Deletes,
}

/// What is outstanding between `Append` and its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appending {
    produce: Produce,
    pub(super) base: u64,
    pub(super) end: u64,
    forwarded: bool,
}

impl Leadership {
    pub(super) fn begin(view: PartitionView, base: &Base, now: Now) -> Self {
        let others: Vec<BrokerId> = view.members.keys().copied().filter(|id| *id != base.id.me).collect();
        Self {
            epoch_start: base.log.end,
            positions: Positions::forgotten(others, now.at),
            isr: Isr::committed_in(&view),
            satisfied: view.satisfies(&view.isr),
            by_high_watermark: Pending::default(),
            by_own_position: Pending::default(),
            deletes: Deletes::default(),
            view,
        }
    }

    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.view.leader_epoch
    }

    /// Whether positions are durable ends by the topic's policy.
    pub(super) fn strict(&self) -> bool {
        self.view.config.flush_policy == FlushPolicy::Sync
    }

    /// The same leadership in a newer image: committed state, members, rule and configs may have changed.
    pub(super) fn applied(&mut self, view: PartitionView, base: &Base, now: Now, effects: &mut Vec<Effect>) {
        self.isr.applied(&view);
        self.satisfied = view.satisfies(self.isr.committed());
        self.view = view;
        let others: Vec<BrokerId> = self.view.members.keys().copied().filter(|id| *id != base.id.me).collect();
        let mut ended = self.positions.retain(&others, now.at);
        // A position of a former registration vouches for nothing.
        for (id, subscription) in self.positions.subscriptions().collect::<Vec<_>>() {
            let position = self.positions.get(id).and_then(|f| f.position);
            let former = position.is_some_and(|p| !self.view.registered(id, p.broker_epoch));
            if former && !planted::is(Bug::StalePositionAcrossIncarnations) {
                self.positions.ended(id, subscription);
                ended.push((id, subscription));
            }
        }
        effects.extend(ended.into_iter().map(|(follower, subscription)| Effect::StopPump { follower, subscription }));
    }

    /// Admission of one batch: everything that can be refused before an offset is given.
    pub(super) fn produce(
        &mut self,
        request: Produce,
        base: &mut Base,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Appending> {
        if let Some(code) = self.refusal(&request, now) {
            effects.push(Effect::Reply { id: request.id, outcome: ProduceOutcome::Refused(code) });
            return None;
        }
        base.log.ask_note(true, effects);
        let (from, end) = (base.log.end, base.log.end + u64::from(request.offsets));
        let forwarded = self.positions.subscriptions().next().is_some();
        if forwarded {
            effects.push(Effect::Forward { base: from, end });
        }
        let source = AppendSource::Produce(request.id);
        effects.push(Effect::Append { source, base: from, end, leader_epoch: self.epoch() });
        Some(Appending { produce: request, base: from, end, forwarded })
    }

    fn refusal(&self, request: &Produce, now: Now) -> Option<ErrorCode> {
        if let Some(code) = epoch_refusal(request.leader_epoch, self.epoch()) {
            return Some(code);
        }
        let guard = guard_of(request.acks);
        let waiting = self.by_high_watermark.len() + self.by_own_position.len();
        if request.offsets == 0 {
            Some(ErrorCode::CorruptMessage)
        } else if request.bytes > self.view.config.max_batch_bytes {
            Some(ErrorCode::MessageTooLarge)
        } else if !now.permits(guard) {
            Some(ErrorCode::LeaseExpired)
        } else if request.acks == Acks::All && !self.satisfied {
            Some(ErrorCode::NotEnoughReplicas)
        } else if waiting >= PENDING_ANSWERS_MAX {
            Some(ErrorCode::Overloaded)
        } else {
            None
        }
    }

    /// The append succeeded: the batch waits for what its acks call for.
    pub(super) fn appended(&mut self, op: Appending, base: &mut Base, now: Now, effects: &mut Vec<Effect>) {
        base.log.appended(&[BatchSpan { base: op.base, end: op.end, epoch: self.epoch() }]);
        let Produce { id, acks, deadline, .. } = op.produce;
        let waiting = Waiting { id, base: op.base, end: op.end, deadline };
        match acks {
            Acks::None if base.log.directory_is_noted() => answer(&waiting, Guard::Lease, now, effects),
            Acks::None | Acks::Leader => self.by_own_position.push(waiting),
            Acks::All if planted::is(Bug::AnswerBeforeCommit) => answer(&waiting, Guard::Grace, now, effects),
            Acks::All => self.by_high_watermark.push(waiting),
        }
    }

    /// The append failed. Not forwarded: nobody has it, a definite refusal. Forwarded: its offsets are taken in this
    /// epoch by a batch we do not have, so nothing more may be appended in it. Returns whether leadership must end.
    pub(super) fn append_failed(&mut self, op: Appending, effects: &mut Vec<Effect>) -> bool {
        let ends = op.forwarded && !planted::is(Bug::AppendAfterForwardFailure);
        let code = if op.forwarded { ErrorCode::NotEnoughReplicasAfterAppend } else { ErrorCode::DiskFull };
        effects.push(Effect::Reply { id: op.produce.id, outcome: ProduceOutcome::Refused(code) });
        if ends {
            let reason = Abdication::AppendFailedAfterForward;
            effects.push(Effect::Abdicate { leader_epoch: self.epoch(), reason });
        }
        ends
    }

    /// What follows from whatever just changed: high watermark, answers, ISR.
    pub(super) fn settle(&mut self, base: &mut Base, now: Now, effects: &mut Vec<Effect>) {
        self.advance_high_watermark(base, effects);
        let high_watermark = base.high_watermark.get();
        while let Some(waiting) = self.by_high_watermark.release(high_watermark) {
            answer(&waiting, Guard::Grace, now, effects);
        }
        while let Some(waiting) = self.by_own_position.release(base.log.position()) {
            answer(&waiting, Guard::Lease, now, effects);
        }
        self.expire(now, effects);
        self.settle_deletes(base, now, effects);
        self.review_isr(base, now, effects);
    }

    fn advance_high_watermark(&mut self, base: &mut Base, effects: &mut Vec<Effect>) {
        let loose = planted::is(Bug::GateOverMaximalIsr) && self.view.satisfies(&self.isr.maximal().collect());
        if !self.satisfied && !loose {
            return;
        }
        let strict = self.strict();
        let mut lowest = base.log.position();
        let counts = |id: &BrokerId| !planted::is(Bug::PositionOverSmallerIsr) || self.isr.committed().contains(id);
        for member in self.isr.maximal().filter(|id| *id != base.id.me && counts(id)) {
            let Some(counted) = self.positions.counted(member, strict) else { return };
            lowest = lowest.min(counted);
        }
        if base.high_watermark.advance(lowest) {
            effects.push(base.moved());
        }
    }

    fn expire(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let code = if self.satisfied { ErrorCode::Timeout } else { ErrorCode::NotEnoughReplicasAfterAppend };
        while let Some(waiting) = self.by_high_watermark.expire(now.at) {
            effects.push(Effect::Reply { id: waiting.id, outcome: ProduceOutcome::Refused(code) });
        }
        while let Some(waiting) = self.by_own_position.expire(now.at) {
            let outcome = ProduceOutcome::Refused(ErrorCode::Timeout);
            effects.push(Effect::Reply { id: waiting.id, outcome });
        }
    }

    /// Leadership ends: whoever waits learns that the outcome is unknown, pumps stop, positions go with it.
    pub(super) fn end(mut self, effects: &mut Vec<Effect>) {
        let outcome = ProduceOutcome::Refused(ErrorCode::NotEnoughReplicasAfterAppend);
        let waiting = self.by_high_watermark.drain().chain(self.by_own_position.drain());
        effects.extend(waiting.map(|w| Effect::Reply { id: w.id, outcome }));
        self.deletes.end(effects);
        let pumps = self.positions.subscriptions();
        effects.extend(pumps.map(|(follower, subscription)| Effect::StopPump { follower, subscription }));
    }

    /// High watermark as others may be told: None until it has reached this epoch's start.
    pub(super) fn known_high_watermark(&self, base: &Base) -> Option<u64> {
        let high_watermark = base.high_watermark.get();
        (high_watermark >= self.epoch_start).then_some(high_watermark)
    }

    /// When something will have to be done although nothing happens.
    pub(super) fn next_deadline(&self, base: &Base, now: Millis) -> Option<Millis> {
        let answers = self.by_high_watermark.next_deadline().into_iter().chain(self.by_own_position.next_deadline());
        answers.chain(self.deletes.next_deadline()).chain(self.next_isr_deadline(base, now)).min()
    }
}

/// Under which guard an answer to a produce may leave.
pub(super) fn guard_of(acks: Acks) -> Guard {
    match acks {
        Acks::None | Acks::Leader => Guard::Lease,
        Acks::All => Guard::Grace,
    }
}

/// Whether a client's belief of the leader epoch is refused.
pub(super) fn epoch_refusal(believed: Option<LeaderEpoch>, actual: LeaderEpoch) -> Option<ErrorCode> {
    match believed?.cmp(&actual) {
        std::cmp::Ordering::Less => Some(ErrorCode::FencedLeaderEpoch),
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => Some(ErrorCode::UnknownLeaderEpoch),
    }
}

fn answer(waiting: &Waiting, guard: Guard, now: Now, effects: &mut Vec<Effect>) {
    let outcome = if now.lets_out(guard) {
        ProduceOutcome::Written { base: waiting.base, guard }
    } else {
        ProduceOutcome::Refused(ErrorCode::LeaseExpiredAfterAppend)
    };
    effects.push(Effect::Reply { id: waiting.id, outcome });
}
