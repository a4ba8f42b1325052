//! How far each follower is, as the leader knows it.
//!
//! A position belongs to (leader epoch, follower's broker epoch, subscription). It begins with a handshake that found
//! no divergence, ends with the subscription or the leadership, and an acknowledgement that names another triple moves
//! nothing (DESIGN.md section 5). So neither a former incarnation nor a late message can vouch for bytes.

use super::input::{FollowerAck, Subscribe, SubscriptionId};
use protocol::ids::{BrokerEpoch, BrokerId, Millis};
use protocol::metadata::configs::FlushPolicy;
use protocol::planted::{self, Bug};
use std::collections::BTreeMap;

/// What a follower has said it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) subscription: SubscriptionId,
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) log_end: u64,
    pub(super) durable_end: u64,
    /// Where its log begins, durably.
    pub(super) log_start: u64,
    noted_policy: FlushPolicy,
}

impl Position {
    fn begun(s: &Subscribe) -> Self {
        Self {
            subscription: s.subscription,
            broker_epoch: s.broker_epoch,
            log_end: s.log_end,
            durable_end: s.durable_end.min(s.log_end),
            log_start: s.log_start.min(s.log_end),
            noted_policy: s.noted_policy,
        }
    }

    /// How far it counts: its durable end if either the topic or its own note says `sync`.
    pub(super) fn counted(&self, strict: bool) -> u64 {
        let strict = (strict || self.noted_policy == FlushPolicy::Sync) && !planted::is(Bug::AnswerBeforeSync);
        if strict { self.durable_end } else { self.log_end }
    }
}

/// One follower in this leader epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Follower {
    pub(super) position: Option<Position>,
    /// Newest subscription seen of its registration; older ones are late messages.
    newest: Option<(BrokerEpoch, SubscriptionId)>,
    /// Last time at which it had everything that the leader had.
    pub(super) caught_up_at: Millis,
    /// Leader's end at an earlier time: reaching it proves the follower was at most that far behind.
    goal: Option<(u64, Millis)>,
}

impl Follower {
    fn new(now: Millis) -> Self {
        Self { position: None, newest: None, caught_up_at: now, goal: None }
    }

    /// Whether it has everything the leader has.
    pub(super) fn is_caught_up(&self, strict: bool, leader_end: u64) -> bool {
        self.position.is_some_and(|p| p.counted(strict) >= leader_end)
    }

    fn progressed(&mut self, strict: bool, leader_end: u64, now: Millis) {
        let Some(counted) = self.position.map(|p| p.counted(strict)) else { return };
        if counted >= leader_end {
            self.caught_up_at = now;
            self.goal = None;
        } else if let Some((goal, since)) = self.goal {
            if counted >= goal {
                self.caught_up_at = self.caught_up_at.max(since);
                self.goal = Some((leader_end, now));
            }
        } else {
            self.goal = Some((leader_end, now));
        }
    }
}

/// All followers of a leadership.
#[derive(Debug, Clone, Default)]
pub(super) struct Positions {
    followers: BTreeMap<BrokerId, Follower>,
}

impl Positions {
    /// Nobody's position is known; everyone gets the full lag time from now.
    pub(super) fn forgotten(members: impl IntoIterator<Item = BrokerId>, now: Millis) -> Self {
        Self { followers: members.into_iter().map(|id| (id, Follower::new(now))).collect() }
    }

    /// Adds newcomers, drops who left; returns the subscriptions that ended with it.
    pub(super) fn retain(&mut self, members: &[BrokerId], now: Millis) -> Vec<(BrokerId, SubscriptionId)> {
        let gone: Vec<_> = self.subscriptions().filter(|(id, _)| !members.contains(id)).collect();
        self.followers.retain(|id, _| members.contains(id));
        for id in members {
            self.followers.entry(*id).or_insert_with(|| Follower::new(now));
        }
        gone
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (BrokerId, &Follower)> {
        self.followers.iter().map(|(id, f)| (*id, f))
    }

    pub(super) fn get(&self, id: BrokerId) -> Option<&Follower> {
        self.followers.get(&id)
    }

    /// Subscriptions that are being fed.
    pub(super) fn subscriptions(&self) -> impl Iterator<Item = (BrokerId, SubscriptionId)> {
        self.followers.iter().filter_map(|(id, f)| f.position.map(|p| (*id, p.subscription)))
    }

    /// How far a follower counts; None while it is not subscribed.
    pub(super) fn counted(&self, id: BrokerId, strict: bool) -> Option<u64> {
        self.get(id).and_then(|f| f.position).map(|p| p.counted(strict))
    }

    /// Whoever has everything up to now was caught up until now. Called before anything changes what "everything" is:
    /// an idle follower sends nothing, and must get the full lag time when the next batch comes.
    pub(super) fn refresh(&mut self, strict: bool, leader_end: u64, now: Millis) {
        for follower in self.followers.values_mut().filter(|f| f.is_caught_up(strict, leader_end)) {
            follower.caught_up_at = now;
            follower.goal = None;
        }
    }

    /// Takes note of a subscription, whatever its handshake finds: older ones are late from now on, and the position
    /// under the one before is forgotten. `Err`: this one is late itself. `Ok`: the subscription it replaces.
    pub(super) fn replace(&mut self, s: &Subscribe) -> Result<Option<SubscriptionId>, ()> {
        let Some(follower) = self.followers.get_mut(&s.follower) else { return Err(()) };
        let offered = (s.broker_epoch, s.subscription);
        if follower.newest.is_some_and(|newest| offered <= newest) {
            return Err(());
        }
        follower.newest = Some(offered);
        Ok(follower.position.take().map(|p| p.subscription))
    }

    /// The handshake found no divergence: from here on the follower counts.
    pub(super) fn begin(&mut self, s: &Subscribe, strict: bool, leader_end: u64, now: Millis) {
        if let Some(follower) = self.followers.get_mut(&s.follower) {
            follower.position = Some(Position::begun(s));
            follower.goal = None;
            follower.progressed(strict, leader_end, now);
        }
    }

    /// Moves a position, if the acknowledgement is of the present subscription and possible; whether it did. A stream
    /// keeps order, so the last word counts, also when it is less: claiming less is never unsafe.
    pub(super) fn acknowledged(&mut self, ack: &FollowerAck, strict: bool, leader_end: u64, now: Millis) -> bool {
        let Some(follower) = self.followers.get_mut(&ack.follower) else { return false };
        let Some(position) = follower.position.as_mut() else { return false };
        let same = position.subscription == ack.subscription && position.broker_epoch == ack.broker_epoch;
        let possible = ack.log_end <= leader_end && ack.durable_end.max(ack.log_start) <= ack.log_end;
        let same = same || planted::is(Bug::AckOfFormerSubscription);
        if !(same && possible) {
            return false;
        }
        position.log_end = ack.log_end;
        position.durable_end = ack.durable_end;
        position.log_start = ack.log_start;
        position.noted_policy = ack.noted_policy;
        follower.progressed(strict, leader_end, now);
        true
    }

    /// The subscription is over, if it is the present one; whether it was.
    pub(super) fn ended(&mut self, id: BrokerId, subscription: SubscriptionId) -> bool {
        let Some(follower) = self.followers.get_mut(&id) else { return false };
        if follower.position.is_none_or(|p| p.subscription != subscription) {
            return false;
        }
        follower.position = None;
        follower.goal = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::LeaderEpoch;

    const TWO: BrokerId = BrokerId(2);

    fn subscribe(broker_epoch: u64, number: u64, log_end: u64) -> Subscribe {
        Subscribe {
            follower: TWO,
            broker_epoch: BrokerEpoch(broker_epoch),
            subscription: SubscriptionId(number),
            leader_epoch: LeaderEpoch(1),
            log_start: 0,
            log_end,
            durable_end: log_end,
            last_epoch: None,
            noted_policy: FlushPolicy::Sync,
        }
    }

    fn ack(broker_epoch: u64, number: u64, log_end: u64, durable_end: u64) -> FollowerAck {
        FollowerAck {
            follower: TWO,
            broker_epoch: BrokerEpoch(broker_epoch),
            subscription: SubscriptionId(number),
            leader_epoch: LeaderEpoch(1),
            log_start: 0,
            log_end,
            durable_end,
            noted_policy: FlushPolicy::Sync,
        }
    }

    fn begun() -> Positions {
        let mut positions = Positions::forgotten([TWO], 0);
        let s = subscribe(7, 1, 10);
        assert_eq!(positions.replace(&s), Ok(None));
        positions.begin(&s, true, 100, 0);
        positions
    }

    #[test]
    fn only_the_present_triple_moves_a_position() {
        let cases = [
            ("former registration", ack(6, 1, 20, 20), 10),
            ("another subscription", ack(7, 2, 20, 20), 10),
            ("the present one", ack(7, 1, 20, 15), 15),
            ("less than before: it knows best what it holds", ack(7, 1, 9, 9), 9),
            ("past the leader's end", ack(7, 1, 101, 101), 10),
            ("durable past its own end", ack(7, 1, 20, 21), 10),
        ];
        for (what, ack, expected) in cases {
            let mut positions = begun();
            positions.acknowledged(&ack, true, 100, 1);
            assert_eq!(positions.counted(TWO, true), Some(expected), "{what}");
        }
    }

    #[test]
    fn a_new_subscription_forgets_the_position_of_the_old_and_makes_it_late() {
        let mut positions = begun();
        assert_eq!(positions.replace(&subscribe(7, 2, 10)), Ok(Some(SubscriptionId(1))));
        assert_eq!(positions.counted(TWO, true), None, "until its handshake finds no divergence");
        assert!(!positions.acknowledged(&ack(7, 1, 50, 50), true, 100, 1));
        assert_eq!(positions.replace(&subscribe(7, 1, 10)), Err(()));
        assert_eq!(positions.replace(&subscribe(8, 1, 10)), Ok(None), "a new registration begins anew");
    }

    #[test]
    fn a_follower_that_notes_sync_counts_durably_whatever_the_topic_says() {
        let mut positions = begun();
        positions.acknowledged(&ack(7, 1, 40, 30), true, 100, 1);
        assert_eq!(positions.counted(TWO, false), Some(30));
        positions.acknowledged(&FollowerAck { noted_policy: FlushPolicy::Os, ..ack(7, 1, 40, 30) }, false, 100, 1);
        assert_eq!((positions.counted(TWO, false), positions.counted(TWO, true)), (Some(40), Some(30)));
    }

    #[test]
    fn under_constant_load_the_time_of_the_reached_goal_counts() {
        let mut positions = begun();
        positions.acknowledged(&ack(7, 1, 90, 90), true, 200, 100);
        assert_eq!(positions.get(TWO).map(|f| f.caught_up_at), Some(0));
        positions.acknowledged(&ack(7, 1, 150, 150), true, 300, 200);
        assert_eq!(positions.get(TWO).map(|f| f.caught_up_at), Some(0), "100 was the end at time 0");
        positions.acknowledged(&ack(7, 1, 300, 300), true, 400, 300);
        assert_eq!(positions.get(TWO).map(|f| f.caught_up_at), Some(200), "300 was the end at time 200");
    }
}
