//! Which role the applied image gives this replica. Level-triggered; an older image changes nothing.
//!
//! No incarnation continues a leadership: an epoch in which the image named this broker as leader before this process
//! was fit to lead (not registered yet, or fenced) is barred for ever, else two records could share offset and epoch.

use super::effect::{Effect, FatalReason};
use super::follower::Following;
use super::leader::Leadership;
use super::lease::Now;
use super::view::PartitionView;
use super::{LogOp, Replica, Role};
use protocol::ids::BrokerId;
use protocol::planted::{self, Bug};

/// What the image asks for.
enum Wanted {
    Idle,
    Leaderless,
    Lead,
    Resign,
    Follow(BrokerId),
}

impl Replica {
    pub(super) fn assign(&mut self, view: PartitionView, now: Now, effects: &mut Vec<Effect>) {
        if self.seen.is_some_and(|seen| view.partition_epoch < seen) {
            return;
        }
        self.seen = Some(view.partition_epoch);
        let wanted = self.wanted(&view);
        self.base.log.policy.want(view.config.flush_policy, self.base.log.end);
        match wanted {
            Wanted::Idle => self.become_idle(effects),
            Wanted::Leaderless => self.become_leaderless(view, effects),
            Wanted::Resign => {
                self.leave(effects);
                self.role = Role::Resigned(Box::new(view));
            }
            Wanted::Lead => self.lead(view, now, effects),
            Wanted::Follow(leader) => self.follow(view, leader, effects),
        }
    }

    fn wanted(&mut self, view: &PartitionView) -> Wanted {
        let (me, epoch) = (self.base.id.me, self.base.id.broker_epoch);
        let named = view.leader == Some(me);
        let fenced = view.members.get(&me).is_none_or(|m| m.fenced);
        let fit = view.registered(me, epoch) && !fenced;
        if named && !fit {
            self.barred = self.barred.max(Some(view.leader_epoch));
        }
        if !view.registered(me, epoch) {
            return Wanted::Idle;
        }
        match view.leader {
            None => Wanted::Leaderless,
            Some(leader) if leader != me => Wanted::Follow(leader),
            Some(_) if (self.leads_in(view) && fit) || planted::is(Bug::SameEpochLeaderRestart) => Wanted::Lead,
            Some(_) if self.barred >= Some(view.leader_epoch) => Wanted::Resign,
            // An epoch that our log already has batches of was led by someone: never begin it anew.
            Some(_) if self.base.log.last_epoch() >= Some(view.leader_epoch) => Wanted::Resign,
            Some(_) => Wanted::Lead,
        }
    }

    fn leads_in(&self, view: &PartitionView) -> bool {
        matches!(&self.role, Role::Leader(l) if l.epoch() == view.leader_epoch)
    }

    fn lead(&mut self, view: PartitionView, now: Now, effects: &mut Vec<Effect>) {
        if let Role::Leader(leadership) = &mut self.role
            && leadership.epoch() == view.leader_epoch
        {
            return leadership.applied(view, &self.base, now, effects);
        }
        self.leave(effects);
        self.role = Role::Leader(Box::new(Leadership::begin(view, &self.base, now)));
    }

    fn follow(&mut self, view: PartitionView, leader: BrokerId, effects: &mut Vec<Effect>) {
        if let Role::Follower(following) = &mut self.role
            && following.epoch() == view.leader_epoch
        {
            if following.leader != leader {
                effects.push(Effect::Fatal(FatalReason::Invariant("two leaders in one leader epoch")));
            }
            following.view = view;
            return;
        }
        self.leave(effects);
        self.role = Role::Follower(Box::new(Following::begin(view, leader, &mut self.base, effects)));
        let to = self.base.high_watermark.get();
        if planted::is(Bug::TruncateToHighWatermark) && to < self.base.log.end {
            effects.push(Effect::Truncate { to, keep_aside: false });
            self.outstanding = Some(LogOp::Cut { reset: false });
        }
    }

    fn become_leaderless(&mut self, view: PartitionView, effects: &mut Vec<Effect>) {
        let known = matches!(&self.role, Role::Leaderless(old) if old.leader_epoch == view.leader_epoch);
        self.leave(effects);
        self.role = Role::Leaderless(Box::new(view));
        if !known {
            effects.extend(self.log_end_report().map(Effect::ReportLogEnd));
        }
    }

    pub(super) fn become_idle(&mut self, effects: &mut Vec<Effect>) {
        self.leave(effects);
    }

    /// Gives this leadership up: its epoch is barred.
    pub(super) fn resign(&mut self, effects: &mut Vec<Effect>) {
        if let Role::Leader(leadership) = &self.role {
            let view = leadership.view.clone();
            self.barred = self.barred.max(Some(view.leader_epoch));
            self.leave(effects);
            self.role = Role::Resigned(Box::new(view));
        }
    }

    /// Ends the present role and everything that hangs on it.
    fn leave(&mut self, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.role, Role::Idle) {
            Role::Leader(leadership) => leadership.end(effects),
            Role::Follower(following) => following.end(effects),
            Role::Idle | Role::Leaderless(_) | Role::Resigned(_) => {}
        }
    }
}
