//! Leading: who leaves the ISR and who joins it.
//!
//! A member leaves after `replica.lag.max` without reaching the leader's end, or at once when it holds less than the
//! high watermark. A follower joins when it has reached the high watermark AND the start of this leader epoch (a new
//! leader's high watermark is old), by what it counts (durable under `sync`), under the registration that the image
//! knows (KIP-903), and when its log begins no lower than ours: or deleted records would come back with it.

use super::Base;
use super::effect::Effect;
use super::isr::Members;
use super::leader::Leadership;
use super::lease::Now;
use super::positions::Follower;
use protocol::ids::{BrokerId, Millis};
use protocol::planted::{self, Bug};

impl Leadership {
    /// Proposes a change of the ISR if one is due and none is under way.
    pub(super) fn review_isr(&mut self, base: &mut Base, now: Now, effects: &mut Vec<Effect>) {
        // The controller takes no proposal of a broker that is on its way out; whoever leads next looks again.
        let heard = self.view.members.get(&base.id.me).is_some_and(|m| m.active);
        if !heard || !self.isr.ready(now.at) {
            return;
        }
        self.isr.looked_at();
        let settling = || self.isr.in_doubt().then(|| self.named(self.isr.committed().iter().copied(), base));
        let Some(new_isr) = self.wanted_change(base, now.at).or_else(settling) else { return };
        let attempt = base.next_isr_attempt();
        self.isr.propose(attempt, new_isr.clone());
        effects.push(Effect::AlterPartition {
            attempt,
            leader_epoch: self.epoch(),
            partition_epoch: self.isr.partition_epoch(),
            new_isr: new_isr.into_iter().collect(),
        });
    }

    /// The ISR as it should be, if that differs from the committed one.
    fn wanted_change(&self, base: &Base, now: Millis) -> Option<Members> {
        let committed = self.isr.committed();
        let stays = committed.iter().copied().filter(|id| *id == base.id.me || !self.has_fallen_out(*id, base, now));
        let joins = self.positions.iter().filter(|(id, f)| !committed.contains(id) && self.may_join(*id, f, base));
        let wanted: Vec<BrokerId> = stays.chain(joins.map(|(id, _)| id)).collect();
        if wanted.len() == committed.len() && wanted.iter().all(|id| committed.contains(id)) {
            return None;
        }
        Some(self.named(wanted, base))
    }

    /// Each by its registration. One member that does not take part would have the whole proposal refused; the controller
    /// takes it out itself.
    fn named(&self, members: impl IntoIterator<Item = BrokerId>, base: &Base) -> Members {
        let named = |id: BrokerId| match self.view.members.get(&id) {
            _ if id == base.id.me => Some((id, base.id.broker_epoch)),
            Some(member) if member.active => member.broker_epoch.map(|epoch| (id, epoch)),
            _ => None,
        };
        members.into_iter().filter_map(named).collect()
    }

    fn has_fallen_out(&self, id: BrokerId, base: &Base, now: Millis) -> bool {
        let Some(follower) = self.positions.get(id) else { return true };
        let lost_data = follower.position.is_some_and(|p| p.log_end < base.high_watermark.get());
        lost_data || self.left_at(follower, base).is_some_and(|at| now >= at)
    }

    /// When a member leaves if nothing comes from it; None while it has everything.
    fn left_at(&self, follower: &Follower, base: &Base) -> Option<Millis> {
        let behind = !follower.is_caught_up(self.strict(), base.log.end);
        behind.then(|| follower.caught_up_at.saturating_add(self.view.config.lag_max_ms))
    }

    fn may_join(&self, id: BrokerId, follower: &Follower, base: &Base) -> bool {
        let Some(position) = follower.position else { return false };
        let fit = self.view.members.get(&id).is_some_and(|m| m.counts && m.active);
        let start = if planted::is(Bug::IsrGrowthWithoutEpochRule) { 0 } else { self.epoch_start };
        let unsynced = planted::is(Bug::GrowthByUnsyncedEnd);
        let counted = if unsynced { position.log_end } else { position.counted(self.strict()) };
        let reached = counted >= base.high_watermark.get().max(start);
        let dropped = position.log_start >= base.log.start;
        let stale_counts = planted::is(Bug::StalePositionAcrossIncarnations);
        fit && reached && dropped && (stale_counts || self.view.registered(id, position.broker_epoch))
    }

    /// When the ISR will have to be looked at although nothing happens.
    pub(super) fn next_isr_deadline(&self, base: &Base, now: Millis) -> Option<Millis> {
        let committed = self.isr.committed().iter().filter(|id| **id != base.id.me);
        let leaving = committed.filter_map(|id| self.positions.get(*id)).filter_map(|f| self.left_at(f, base)).min();
        if !self.view.members.get(&base.id.me).is_some_and(|m| m.active) {
            return None;
        }
        self.isr.paused_until().into_iter().chain(leaving.filter(|_| self.isr.ready(now))).min()
    }
}
