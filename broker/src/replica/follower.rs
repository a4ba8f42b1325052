//! Following: subscribe, cut what diverged, append what is pushed, say what is held.
//!
//! A follower cuts only at the divergence point found by (epoch, offset), never at its high watermark. A member of ISR
//! or ELR holds every committed record, so a cut below its high watermark means that the protocol is broken: it
//! stops. Anyone else may find that an unclean election overruled it: the cut tail is kept aside.

use super::effect::{AppendSource, Effect, FatalReason, ToLeader};
use super::input::{FollowerAck, Pushed, Subscribe, SubscriptionId};
use super::lease::Now;
use super::limits::{NO_ROOM_PAUSE_MS, RESUBSCRIBE_PAUSE_MS, RESUBSCRIBE_PAUSE_MS_MAX};
use super::view::PartitionView;
use super::{Base, LogOp};
use log::epochs::EpochEnd;
use protocol::ids::{BrokerId, LeaderEpoch, Millis};

/// Where the follower stands with its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    /// Asked; no answer yet.
    Asked(SubscriptionId),
    /// Batches flow.
    Copying(SubscriptionId),
    /// A cut is under way; then it asks again.
    Cutting,
    /// Refused or in doubt; asks again at this time.
    Pausing(Millis),
}

/// One broker followed in one leader epoch.
#[derive(Debug, Clone)]
pub(super) struct Following {
    pub(super) view: PartitionView,
    pub(super) leader: BrokerId,
    link: Link,
    /// Subscriptions in a row that came to nothing.
    failures: u32,
    /// A head drop that found no room: up to where, and when to try again.
    head_waits: Option<(Millis, u64)>,
}

impl Following {
    /// Begins to follow: the first subscription goes out at once.
    pub(super) fn begin(view: PartitionView, leader: BrokerId, base: &mut Base, effects: &mut Vec<Effect>) -> Self {
        let mut following = Self { view, leader, link: Link::Cutting, failures: 0, head_waits: None };
        following.ask(base, effects);
        following
    }

    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.view.leader_epoch
    }

    fn subscription(&self) -> Option<SubscriptionId> {
        match self.link {
            Link::Asked(subscription) | Link::Copying(subscription) => Some(subscription),
            Link::Cutting | Link::Pausing(_) => None,
        }
    }

    /// Whether a message is for the present subscription in the present leader epoch.
    fn is_mine(&self, subscription: SubscriptionId, leader_epoch: LeaderEpoch) -> bool {
        self.subscription() == Some(subscription) && leader_epoch == self.epoch()
    }

    fn send(&self, message: ToLeader, effects: &mut Vec<Effect>) {
        effects.push(Effect::ToLeader { leader: self.leader, message });
    }

    fn ask(&mut self, base: &mut Base, effects: &mut Vec<Effect>) {
        let subscription = base.next_subscription();
        self.link = Link::Asked(subscription);
        let subscribe = Subscribe {
            follower: base.id.me,
            broker_epoch: base.id.broker_epoch,
            subscription,
            leader_epoch: self.epoch(),
            log_start: base.log.start,
            log_end: base.log.end,
            durable_end: base.log.durable_end(),
            last_epoch: base.log.last_epoch(),
            noted_policy: base.log.named_policy(),
        };
        self.send(ToLeader::Subscribe(subscribe), effects);
    }

    /// Something does not fit: let go of the subscription and ask again after a pause.
    fn give_up(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let pause = self.failed();
        self.pause(pause, now, effects);
    }

    /// Another subscription came to nothing: how long to wait before the next.
    fn failed(&mut self) -> Millis {
        let pause = RESUBSCRIBE_PAUSE_MS.saturating_mul(1_u64.checked_shl(self.failures).unwrap_or(u64::MAX));
        self.failures = self.failures.saturating_add(1);
        pause.min(RESUBSCRIBE_PAUSE_MS_MAX)
    }

    fn pause(&mut self, ms: Millis, now: Now, effects: &mut Vec<Effect>) {
        if let Some(subscription) = self.subscription() {
            self.send(ToLeader::Unsubscribe(subscription), effects);
        }
        self.link = Link::Pausing(now.at.saturating_add(ms));
    }

    /// Follows no longer.
    pub(super) fn end(self, effects: &mut Vec<Effect>) {
        if let Some(subscription) = self.subscription() {
            self.send(ToLeader::Unsubscribe(subscription), effects);
        }
    }

    /// Says what is held, if anybody asked.
    pub(super) fn acknowledge(&self, base: &Base, effects: &mut Vec<Effect>) {
        let Link::Copying(subscription) = self.link else { return };
        let ack = FollowerAck {
            follower: base.id.me,
            broker_epoch: base.id.broker_epoch,
            subscription,
            leader_epoch: self.epoch(),
            log_start: base.log.start,
            log_end: base.log.end,
            durable_end: base.log.durable_end(),
            noted_policy: base.log.named_policy(),
        };
        self.send(ToLeader::Ack(ack), effects);
    }

    /// Returns a head drop to make.
    pub(super) fn tick(&mut self, base: &mut Base, now: Now, effects: &mut Vec<Effect>) -> Option<LogOp> {
        if let Link::Pausing(until) = self.link
            && now.at >= until
        {
            self.ask(base, effects);
        }
        let (_, to) = self.head_waits.take_if(|(at, _)| now.at >= *at)?;
        advance_start(to.min(base.high_watermark.get()), base, effects)
    }

    /// A head drop ended; without room for it it is tried again later. Where the log begins now is the leader's to know.
    pub(super) fn start_advanced(&mut self, to: u64, base: &Base, now: Now, effects: &mut Vec<Effect>) {
        self.head_waits = (base.log.start < to).then(|| (now.at.saturating_add(NO_ROOM_PAUSE_MS), to));
        self.acknowledge(base, effects);
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let pause = match self.link {
            Link::Pausing(until) => Some(until),
            _ => None,
        };
        pause.into_iter().chain(self.head_waits.map(|(at, _)| at)).min()
    }

    /// The stream is gone: ask again at once; the shell holds the message until a stream is up.
    pub(super) fn stream_lost(&mut self, subscription: SubscriptionId, base: &mut Base, effects: &mut Vec<Effect>) {
        if self.subscription() == Some(subscription) {
            self.ask(base, effects);
        }
    }

    pub(super) fn refused(&mut self, subscription: SubscriptionId, now: Now) {
        if self.subscription() == Some(subscription) {
            self.link = Link::Pausing(now.at.saturating_add(self.failed()));
        }
    }

    /// No divergence; batches will come from `from`.
    pub(super) fn started(
        &mut self,
        subscription: SubscriptionId,
        leader_epoch: LeaderEpoch,
        from: u64,
        base: &Base,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.link != Link::Asked(subscription) || leader_epoch != self.epoch() {
            return;
        }
        if from != base.log.end {
            return self.give_up(now, effects);
        }
        self.link = Link::Copying(subscription);
        self.acknowledge(base, effects);
    }

    /// The leader's history parts from ours. Returns the cut to make.
    pub(super) fn diverged(
        &mut self,
        subscription: SubscriptionId,
        leader_epoch: LeaderEpoch,
        theirs: EpochEnd,
        base: &mut Base,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<LogOp> {
        if !self.is_mine(subscription, leader_epoch) {
            return None;
        }
        let to = base.log.epochs.truncation_point(theirs, base.log.end);
        if to >= base.log.end {
            self.give_up(now, effects);
            return None;
        }
        let reset = to < base.log.start;
        self.cut(to, reset, base, effects)
    }

    /// Nothing we have joins the leader's log. Returns the reset to make.
    pub(super) fn begin_at(
        &mut self,
        subscription: SubscriptionId,
        leader_epoch: LeaderEpoch,
        log_start: u64,
        base: &mut Base,
        effects: &mut Vec<Effect>,
    ) -> Option<LogOp> {
        if !self.is_mine(subscription, leader_epoch) {
            return None;
        }
        self.cut(log_start, true, base, effects)
    }

    fn cut(&mut self, to: u64, reset: bool, base: &mut Base, effects: &mut Vec<Effect>) -> Option<LogOp> {
        let high_watermark = base.high_watermark.get();
        let overruled = to < high_watermark;
        let member = self.view.isr.contains(&base.id.me) || self.view.elr.contains(&base.id.me);
        if overruled && member {
            effects.push(Effect::Fatal(FatalReason::TruncateBelowHighWatermark { to, high_watermark }));
            return None;
        }
        if reset {
            base.log.ask_note(true, effects);
        }
        self.link = Link::Cutting;
        effects.push(if reset {
            Effect::Reset { start: to, keep_aside: overruled }
        } else {
            Effect::Truncate { to, keep_aside: overruled }
        });
        Some(LogOp::Cut { reset })
    }

    /// The cut is done: ask again with the end that is left.
    pub(super) fn cut_done(&mut self, base: &mut Base, effects: &mut Vec<Effect>) {
        if self.link == Link::Cutting {
            self.ask(base, effects);
        }
    }

    /// No room for the cut: nothing has changed, and it is asked for again later.
    pub(super) fn cut_failed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.pause(NO_ROOM_PAUSE_MS, now, effects);
    }

    /// Batches: exactly at our end, without a gap, epochs between our last and the leader's. Returns the append.
    pub(super) fn pushed(
        &mut self,
        push: Pushed,
        base: &mut Base,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<LogOp> {
        if !self.is_mine(push.subscription, push.leader_epoch) {
            return None;
        }
        if self.link == Link::Copying(push.subscription)
            && let Some(start) = covering_start(&push, base)
        {
            base.log.ask_note(true, effects);
            effects.push(Effect::Reset { start, keep_aside: false });
            return Some(LogOp::Realign(Box::new(push)));
        }
        if self.link != Link::Copying(push.subscription) || !continues(&push, base, self.epoch()) {
            self.give_up(now, effects);
            return None;
        }
        Some(self.append(push, base, effects))
    }

    fn append(&self, push: Pushed, base: &mut Base, effects: &mut Vec<Effect>) -> LogOp {
        let (from, end) = (base.log.end, push.batches.last().map_or(base.log.end, |b| b.end));
        base.log.ask_note(true, effects);
        let leader_epoch = self.epoch();
        effects.push(Effect::Append { source: AppendSource::Push, base: from, end, leader_epoch });
        LogOp::AppendPush(Box::new(push))
    }

    /// The empty log now begins where the push does: append it.
    pub(super) fn realigned(
        &mut self,
        push: Pushed,
        base: &mut Base,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<LogOp> {
        if continues(&push, base, self.epoch()) {
            return Some(self.append(push, base, effects));
        }
        base.high_watermark.overrule(base.log.end);
        self.give_up(now, effects);
        None
    }

    /// The push is in the log: say so, and take over what it said of the leader. Returns a head drop to make.
    pub(super) fn appended(&mut self, push: &Pushed, base: &mut Base, effects: &mut Vec<Effect>) -> Option<LogOp> {
        base.log.appended(&push.batches);
        self.failures = 0;
        self.acknowledge(base, effects);
        learn(push.high_watermark, push.log_start, base, effects)
    }

    /// No room: what was appended stays, the rest is asked for again later.
    pub(super) fn append_failed(
        &mut self,
        push: &Pushed,
        end: u64,
        base: &mut Base,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let whole: Vec<_> = push.batches.iter().copied().filter(|b| b.end <= end).collect();
        base.log.appended(&whole);
        base.high_watermark.overrule(base.log.end);
        self.pause(NO_ROOM_PAUSE_MS, now, effects);
    }

    /// High watermark and log start without batches. Returns a head drop to make.
    pub(super) fn advance(
        &mut self,
        subscription: SubscriptionId,
        leader_epoch: LeaderEpoch,
        high_watermark: Option<u64>,
        log_start: u64,
        base: &mut Base,
        effects: &mut Vec<Effect>,
    ) -> Option<LogOp> {
        let mine = self.is_mine(subscription, leader_epoch) && self.link == Link::Copying(subscription);
        if mine { learn(high_watermark, log_start, base, effects) } else { None }
    }
}

/// Where to begin if our log is empty and ends within the first batch: a leader whose start lies inside a batch pushes
/// that batch whole.
fn covering_start(push: &Pushed, base: &Base) -> Option<u64> {
    let (first, end) = (push.batches.first()?, base.log.end);
    (base.log.start == end && first.base < end && end < first.end).then_some(first.base)
}

fn continues(push: &Pushed, base: &Base, leader_epoch: LeaderEpoch) -> bool {
    let (mut end, mut epoch) = (base.log.end, base.log.last_epoch().unwrap_or_default());
    for batch in &push.batches {
        if batch.base != end || batch.end <= batch.base || batch.epoch < epoch || batch.epoch > leader_epoch {
            return false;
        }
        (end, epoch) = (batch.end, batch.epoch);
    }
    !push.batches.is_empty()
}

/// Takes over the leader's high watermark as far as our log reaches, and its log start as far as our high watermark
/// does: never past what is known to be committed. A leader that does not know its high watermark yet knows that
/// everything below its start is committed, or it would not have dropped it.
fn learn(high_watermark: Option<u64>, log_start: u64, base: &mut Base, effects: &mut Vec<Effect>) -> Option<LogOp> {
    let known = high_watermark.unwrap_or(log_start).min(base.log.end);
    if base.high_watermark.advance(known) {
        effects.push(base.moved());
    }
    let to = log_start.min(base.high_watermark.get());
    advance_start(to, base, effects)
}

fn advance_start(to: u64, base: &Base, effects: &mut Vec<Effect>) -> Option<LogOp> {
    base.advance_start(to, effects).then_some(LogOp::AdvanceStart { to, delete: None })
}
