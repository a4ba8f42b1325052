//! The ISR as the leader knows it: what is committed, and what has been asked for and may commit.
//!
//! Committed state comes from the applied image only. Until the image's partition epoch moves, everybody who was ever
//! proposed under it, and not definitely refused, belongs to the *maximal* ISR that the high watermark waits for:
//! a change in flight counts both ways. An answer that never came may still commit, so its proposal stays; every
//! proposal names the partition epoch it was made on, so the first one that commits voids the others.

use super::input::IsrOutcome;
use super::limits::ISR_RETRY_PAUSE_MS;
use super::view::PartitionView;
use protocol::error::{Effect as ErrorEffect, ErrorCode};
use protocol::ids::{BrokerEpoch, BrokerId, Millis, PartitionEpoch};
use protocol::planted::{self, Bug};
use std::collections::{BTreeMap, BTreeSet};

/// Members asked for, each under the registration meant.
pub(super) type Members = BTreeMap<BrokerId, BrokerEpoch>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Proposal {
    members: Members,
    /// An attempt with these members got no clear answer.
    doubtful: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flight {
    /// Nothing is under way.
    None,
    /// This attempt of the last proposal.
    Sent(u64),
    /// It committed; the image will show this partition epoch.
    Confirmed(PartitionEpoch),
}

/// See the module's header.
#[derive(Debug, Clone)]
pub(super) struct Isr {
    committed: BTreeSet<BrokerId>,
    partition_epoch: PartitionEpoch,
    /// Made on `partition_epoch`, fate not known to be "refused". The one in flight is last.
    proposals: Vec<Proposal>,
    flight: Flight,
    /// A pause after an attempt, until the first look at the ISR after it.
    retry_at: Option<Millis>,
}

impl Isr {
    pub(super) fn committed_in(view: &PartitionView) -> Self {
        Self {
            committed: view.isr.clone(),
            partition_epoch: view.partition_epoch,
            proposals: Vec::new(),
            flight: Flight::None,
            retry_at: None,
        }
    }

    /// A newer image. If the partition's epoch moved, whatever was in flight has either committed into it or never will.
    pub(super) fn applied(&mut self, view: &PartitionView) {
        if view.partition_epoch > self.partition_epoch {
            *self = Self::committed_in(view);
            return;
        }
        // A member registered anew: the controller refuses the old registration for ever (KIP-903).
        let in_flight = matches!(self.flight, Flight::Sent(_)).then_some(self.proposals.len().wrapping_sub(1));
        let mut number = 0;
        self.proposals.retain(|proposal| {
            let keep = Some(number) == in_flight || proposal.members.iter().all(|(id, e)| view.registered(*id, *e));
            number += 1;
            keep
        });
    }

    pub(super) fn committed(&self) -> &BTreeSet<BrokerId> {
        &self.committed
    }

    pub(super) fn partition_epoch(&self) -> PartitionEpoch {
        self.partition_epoch
    }

    /// Committed and everybody who may be committed by now.
    /// Some are named more than once.
    pub(super) fn maximal(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let proposed = self.proposals.iter().flat_map(|p| p.members.keys());
        self.committed.iter().chain(proposed).copied()
    }

    /// Whether the ISR is only this broker, or will be if a change that was asked for commits.
    pub(super) fn may_be_only(&self, me: BrokerId) -> bool {
        let committed = self.committed.iter().all(|id| *id == me);
        committed || self.proposals.iter().any(|p| p.members.keys().all(|id| *id == me))
    }

    /// Whether a change may be proposed now: none in flight, none confirmed and awaited, no pause.
    pub(super) fn ready(&self, now: Millis) -> bool {
        let free = self.flight == Flight::None || planted::is(Bug::TwoAltersInFlight);
        free && self.retry_at.is_none_or(|at| now >= at)
    }

    /// The ISR is looked at after the pause: nothing is due any more.
    pub(super) fn looked_at(&mut self) {
        self.retry_at = None;
    }

    /// When a pause ends, if nobody has looked since: also one that is over, or a late clock would lose the retry.
    pub(super) fn paused_until(&self) -> Option<Millis> {
        self.retry_at.filter(|_| self.flight == Flight::None)
    }

    /// Whether the fate of a proposal is open. It counts until the partition epoch moves, whatever a later attempt is
    /// told, so the epoch must be made to move: any change does, the committed ISR proposed again if none is wanted.
    pub(super) fn in_doubt(&self) -> bool {
        self.proposals.iter().any(|p| p.doubtful)
    }

    /// Puts a proposal in flight. `attempt` never named another one of this replica, of an earlier leadership neither:
    /// a late answer must not be taken for this one's.
    pub(super) fn propose(&mut self, attempt: u64, members: Members) {
        let known = self.proposals.iter().position(|p| p.members == members);
        let proposal = match known {
            Some(at) => self.proposals.remove(at),
            None => Proposal { members, doubtful: false },
        };
        self.proposals.push(proposal);
        self.flight = Flight::Sent(attempt);
    }

    /// The fate of an attempt. Only a definite refusal of a proposal without an open attempt takes it back.
    pub(super) fn answered(&mut self, attempt: u64, outcome: IsrOutcome, now: Millis) {
        if self.flight != Flight::Sent(attempt) {
            return;
        }
        self.flight = Flight::None;
        let open = match outcome {
            IsrOutcome::Committed(epoch) if epoch > self.partition_epoch => {
                self.flight = Flight::Confirmed(epoch);
                return;
            }
            IsrOutcome::Committed(_) => false,
            // Says of itself that the change committed; the image will show that we lead no more.
            IsrOutcome::Refused(ErrorCode::NewLeaderElected) => true,
            IsrOutcome::Refused(code) => code.effect() == ErrorEffect::Unknown,
            IsrOutcome::Unknown => true,
        };
        self.retry_at = Some(now.saturating_add(ISR_RETRY_PAUSE_MS));
        if let Some(last) = self.proposals.last_mut() {
            last.doubtful |= open;
        }
        if self.proposals.last().is_some_and(|p| !p.doubtful) {
            self.proposals.pop();
        }
    }

    /// For people: committed, growing, shrinking or both.
    pub(super) fn state(&self) -> &'static str {
        let grows = self.proposals.iter().any(|p| p.members.keys().any(|id| !self.committed.contains(id)));
        let shrinks = self.proposals.iter().any(|p| self.committed.iter().any(|id| !p.members.contains_key(id)));
        match (grows, shrinks) {
            (false, false) => "committed",
            (true, false) => "growing",
            (false, true) => "shrinking",
            (true, true) => "growing and shrinking",
        }
    }
}
