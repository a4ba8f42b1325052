//! Leading: when a delete-records is answered.
//!
//! Owns the deletes whose head drop is done here and not answered. The answer promises that no clean election brings the
//! records back, so it waits until every member of the maximal ISR has said that its log begins at or past the point,
//! and until the committed ISR satisfies the rule (then there is no ELR whose members might begin lower). A follower
//! joins the ISR only with a log that begins where ours does (`leader_isr`).

use super::Base;
use super::effect::Effect;
use super::input::RequestId;
use super::leader::Leadership;
use super::lease::{Guard, Now};
use super::limits::DELETES_WAITING_MAX;
use protocol::error::ErrorCode;
use protocol::ids::Millis;

/// One delete-records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deleting {
    pub(super) id: RequestId,
    /// First offset to keep.
    pub(super) to: u64,
    pub(super) deadline: Millis,
}

/// Those that wait, in the order in which they came. Few: each is an operator's command.
#[derive(Debug, Clone, Default)]
pub(super) struct Deletes(Vec<Deleting>);

impl Deletes {
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= DELETES_WAITING_MAX
    }

    pub(super) fn push(&mut self, delete: Deleting) {
        self.0.push(delete);
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.0.iter().map(|d| d.deadline).min()
    }

    /// Leadership ends: the records may be gone or may come back.
    pub(super) fn end(self, effects: &mut Vec<Effect>) {
        let outcome = Err(ErrorCode::NotEnoughReplicasAfterAppend);
        effects.extend(self.0.into_iter().map(|d| Effect::DeleteReply { id: d.id, outcome }));
    }

    fn settle(&mut self, confirmed: Option<u64>, now: Now, effects: &mut Vec<Effect>) {
        self.0.retain(|delete| {
            let outcome = match confirmed.filter(|start| *start >= delete.to) {
                Some(start) if now.lets_out(Guard::Lease) => Ok(start),
                Some(_) => Err(ErrorCode::LeaseExpiredAfterAppend),
                None if delete.deadline <= now.at => Err(ErrorCode::Timeout),
                None => return true,
            };
            effects.push(Effect::DeleteReply { id: delete.id, outcome });
            false
        });
    }
}

impl Leadership {
    /// Answers whom the ISR confirms, or whose time is up.
    pub(super) fn settle_deletes(&mut self, base: &Base, now: Now, effects: &mut Vec<Effect>) {
        if !self.deletes.0.is_empty() {
            let confirmed = self.confirmed_start(base);
            self.deletes.settle(confirmed, now, effects);
        }
    }

    /// Where the log begins, or further, on every replica that a clean election may name.
    fn confirmed_start(&self, base: &Base) -> Option<u64> {
        let others = self.isr.maximal().filter(|id| *id != base.id.me);
        let starts = others.map(|id| self.positions.get(id).and_then(|f| f.position).map(|p| p.log_start));
        let lowest = starts.chain([Some(base.log.start)]).collect::<Option<Vec<_>>>()?.into_iter().min();
        lowest.filter(|_| self.satisfied)
    }
}
