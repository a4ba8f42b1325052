//! Leading: the leader's half of the handshake, acknowledgements, and the end of subscriptions.
//!
//! The handshake has three answers: batches follow from here; diverged at (epoch, offset); begin at my log start. Only
//! the first makes the follower count. Divergence is found by (epoch, offset), never by a high watermark.

use super::Base;
use super::effect::{Effect, ToFollower};
use super::input::{FollowerAck, Subscribe, SubscriptionId};
use super::leader::Leadership;
use super::lease::Now;
use super::own_log::OwnLog;
use log::epochs::EpochEnd;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, LeaderEpoch};

/// What a follower's (last epoch, log end) means to a leader with this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// What it has is a prefix of what we have.
    Prefix,
    /// Our end of the largest epoch not above its last.
    Diverged(EpochEnd),
    /// Nothing it has joins what we have.
    BeginAtStart,
}

fn compare(log: &OwnLog, s: &Subscribe) -> Verdict {
    if s.log_end < log.start {
        return Verdict::BeginAtStart;
    }
    match log.epochs.divergence(s.last_epoch.map(|e| e.0), s.log_end, log.end) {
        None if s.log_end <= log.end => Verdict::Prefix,
        None => Verdict::Diverged(EpochEnd { epoch: None, end: log.end }),
        Some(EpochEnd { epoch: Some(epoch), end }) if end >= log.start => {
            Verdict::Diverged(EpochEnd { epoch: Some(epoch), end })
        }
        Some(_) => Verdict::BeginAtStart,
    }
}

/// Refuses a subscription on behalf of a replica that leads nothing.
pub(super) fn refuse(s: &Subscribe, code: ErrorCode, effects: &mut Vec<Effect>) {
    let message = ToFollower::Refused(code);
    effects.push(Effect::ToFollower { follower: s.follower, subscription: s.subscription, message });
}

impl Leadership {
    /// A follower's handshake.
    pub(super) fn subscribe(&mut self, s: &Subscribe, base: &Base, now: Now, effects: &mut Vec<Effect>) {
        if let Some(code) = self.subscription_refusal(s, base.id.me) {
            return refuse(s, code, effects);
        }
        let Ok(replaced) = self.positions.replace(s) else {
            return refuse(s, ErrorCode::SubscriptionReplaced, effects);
        };
        if let Some(subscription) = replaced {
            effects.push(Effect::StopPump { follower: s.follower, subscription });
        }
        let (follower, subscription, leader_epoch) = (s.follower, s.subscription, self.epoch());
        let message = match compare(&base.log, s) {
            Verdict::BeginAtStart => ToFollower::BeginAt { leader_epoch, log_start: base.log.start },
            Verdict::Diverged(EpochEnd { epoch, end }) => {
                ToFollower::Diverged { leader_epoch, epoch: epoch.map(LeaderEpoch), end }
            }
            Verdict::Prefix => {
                self.positions.begin(s, self.strict(), base.log.end, now.at);
                let high_watermark = self.known_high_watermark(base);
                let log_start = base.log.start;
                ToFollower::Started { leader_epoch, from: s.log_end, high_watermark, log_start }
            }
        };
        effects.push(Effect::ToFollower { follower, subscription, message });
        if matches!(message, ToFollower::Started { .. }) {
            effects.push(Effect::StartPump { follower, subscription, from: s.log_end });
        }
    }

    fn subscription_refusal(&self, s: &Subscribe, me: BrokerId) -> Option<ErrorCode> {
        if let Some(code) = super::leader::epoch_refusal(Some(s.leader_epoch), self.epoch()) {
            return Some(code);
        }
        let known = s.follower != me && self.view.registered(s.follower, s.broker_epoch);
        (!known).then_some(ErrorCode::UnknownFollower)
    }

    /// An acknowledgement: counts only if it is of this leader epoch and the present subscription.
    pub(super) fn acknowledged(&mut self, ack: &FollowerAck, base: &Base, now: Now) {
        if ack.leader_epoch == self.epoch() {
            self.positions.acknowledged(ack, self.strict(), base.log.end, now.at);
        }
    }

    /// The follower unsubscribed or its stream is gone.
    pub(super) fn unsubscribed(&mut self, follower: BrokerId, subscription: SubscriptionId, effects: &mut Vec<Effect>) {
        if self.positions.ended(follower, subscription) {
            effects.push(Effect::StopPump { follower, subscription });
        }
    }

    /// The follower needs what we have dropped: it must begin anew, and counts for nothing until then.
    pub(super) fn pump_below_start(
        &mut self,
        follower: BrokerId,
        subscription: SubscriptionId,
        base: &Base,
        effects: &mut Vec<Effect>,
    ) {
        if self.positions.ended(follower, subscription) {
            effects.push(Effect::StopPump { follower, subscription });
            let message = ToFollower::BeginAt { leader_epoch: self.epoch(), log_start: base.log.start };
            effects.push(Effect::ToFollower { follower, subscription, message });
        }
    }

    /// What the follower needs cannot be read: its subscription ends, else it would wait for ever.
    pub(super) fn pump_unreadable(
        &mut self,
        follower: BrokerId,
        subscription: SubscriptionId,
        effects: &mut Vec<Effect>,
    ) {
        if self.positions.ended(follower, subscription) {
            effects.push(Effect::StopPump { follower, subscription });
            let message = ToFollower::Refused(ErrorCode::LogDamaged);
            effects.push(Effect::ToFollower { follower, subscription, message });
        }
    }
}
