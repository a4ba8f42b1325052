//! Changing the voters: learners first, caught up, then one joint change for all of them. One change at a time; a change
//! that stopped half way is flattened before the next, after a failure, and by whoever leads (`upkeep`). The guard judges
//! the change. A change runs as a task of its own: a caller that goes away leaves no half of it behind. Each step is
//! compare-and-set on the membership that the one before it left, and on the term it was judged in.

use super::guard::{DcVerdict, LayoutRefused, ToleranceLost, check_change, check_layout, verdicts};
use super::types::alias::{CommittedLeaderId, LogId};
use super::{Lead, Quorum, VoterId, VoterNode, VoterSpec};
use crate::limits::{MEMBERSHIP_REPAIR_DEADLINE, VOTERS_MAX};
use crate::tasks::{self, AbortOnDrop};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Entries by which a learner may be behind when it becomes a voter: less than a heartbeat's worth of writes.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// How often a learner's progress is looked at.
const CATCH_UP_LOOK: Duration = Duration::from_millis(20);

/// A wanted change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VoterChange {
    /// Voters to add.
    pub add: Vec<VoterSpec>,
    /// Voters to remove.
    pub remove: Vec<VoterId>,
    /// Go on against the layout guard.
    pub force: bool,
    /// Only say what would come of it.
    pub dry_run: bool,
}

/// What came of it, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterChanged {
    /// The target set.
    pub voters: Vec<VoterSpec>,
    /// What the loss of each data centre does to it.
    pub verdicts: Vec<DcVerdict>,
}

/// Why the voters stay as they are (or, for `Unknown`, may not).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Ask the leader.
    #[error("this controller does not lead")]
    NotLeader,
    /// Another change runs.
    #[error("another membership change is under way")]
    InProgress,
    /// The membership is not the one that the change was judged on.
    #[error("the membership changed meanwhile: look at it again")]
    Moved,
    /// The request names something impossible.
    #[error("{field} is {value}, allowed: {limit}")]
    Invalid {
        /// Field.
        field: &'static str,
        /// As given.
        value: String,
        /// The rule.
        limit: String,
    },
    /// The target set breaks the layout guard.
    #[error(transparent)]
    Layout(#[from] LayoutRefused),
    /// The change takes away a loss that the voters bear now.
    #[error(transparent)]
    Tolerance(#[from] ToleranceLost),
    /// A new voter did not catch up; it was taken out again.
    #[error("controller {voter} did not catch up within {waited:?}: is it formatted, running and reachable?")]
    NotCaughtUp {
        /// Which.
        voter: VoterId,
        /// How long was waited.
        waited: Duration,
    },
    /// The change may or may not have committed.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

type Members = BTreeMap<VoterId, VoterNode>;

/// What a step of a change rests on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Basis {
    /// Term of this node's leadership.
    pub(super) term: u64,
    /// Entry of the membership that was looked at, or that the step before wrote.
    pub(super) membership: Option<LogId>,
}

impl Quorum {
    /// Changes the voters, within `limit`. The change goes on when the caller does not wait for it.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change_voters(
        self: &Arc<Self>,
        change: VoterChange,
        limit: Duration,
    ) -> Result<VoterChanged, ChangeError> {
        let one_at_a_time = Arc::clone(&self.changing).try_lock_owned().map_err(|_| ChangeError::InProgress)?;
        let (answer, outcome) = oneshot::channel();
        let quorum = Arc::clone(self);
        let task = async move {
            let outcome = quorum.change_within(change, limit).await;
            drop(one_at_a_time);
            if let Err(outcome) = answer.send(outcome) {
                tracing::info!(?outcome, "nobody waits for the outcome of a change of voters any more");
            }
        };
        {
            // Held over the spawning: a task that ends at once is not stored after the next one. The one before may still be
            // about to answer, and is left to it.
            let mut changes = self.changes.lock();
            changes.retain(|change| !change.0.is_finished());
            changes.push(AbortOnDrop(tasks::spawn("change-voters", task)));
        }
        outcome.await.map_err(|_| ChangeError::Unknown("this controller is stopping".to_owned()))?
    }

    async fn change_within(&self, change: VoterChange, limit: Duration) -> Result<VoterChanged, ChangeError> {
        let deadline = Instant::now() + limit;
        if self.status().joint && !change.dry_run {
            self.flatten(deadline).await?;
        }
        let mut basis = self.basis()?;
        let voters = self.voters();
        let target = target_set(&voters, &change)?;
        if !change.force {
            check_layout(localities(&target))?;
            check_change(localities(&voters), localities(&target))?;
        }
        let result = VoterChanged {
            voters: target.iter().map(|(v, n)| VoterSpec { voter: *v, node: n.clone() }).collect(),
            verdicts: verdicts(localities(&target)),
        };
        if change.dry_run || target == voters {
            return Ok(result);
        }
        self.add_learners(&voters, &target, &mut basis, deadline).await?;
        if !target.keys().eq(voters.keys()) {
            self.switch(target.keys().copied().collect(), &mut basis, deadline).await?;
        }
        Ok(result)
    }

    /// This leadership and the membership now. Taken before the voters are looked at: what changes between the two makes
    /// the first step fail. A leader that the voters have removed leads on for a moment, until Raft lets go of it: it changes
    /// the voters no more, and Raft takes no such entry from it.
    pub(super) fn basis(&self) -> Result<Basis, ChangeError> {
        let Lead::Me { term } = *self.lead.borrow() else { return Err(ChangeError::NotLeader) };
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        if seen.membership_config.membership().voter_ids().all(|voter| voter != self.me) {
            return Err(ChangeError::NotLeader);
        }
        Ok(Basis { term, membership: *seen.membership_config.log_id() })
    }

    fn voters(&self) -> Members {
        self.status().voters.into_iter().map(|v| (v.voter, v.node)).collect()
    }

    /// Makes new voters known, as learners, and waits until they have the log; gives known ones their new address.
    async fn add_learners(
        &self,
        voters: &Members,
        target: &Members,
        basis: &mut Basis,
        deadline: Instant,
    ) -> Result<(), ChangeError> {
        for (voter, node) in target.iter().filter(|(voter, node)| voters.get(voter) != Some(*node)) {
            // Adding never changes a known address; setting does.
            let set = ChangeMembers::SetNodes(BTreeMap::from([(*voter, node.clone())]));
            self.change(set, true, basis, deadline).await?;
            if !voters.contains_key(voter)
                && let Err(error) = self.caught_up(*voter, deadline).await
            {
                self.forget(*voter, basis).await;
                return Err(error);
            }
        }
        Ok(())
    }

    async fn caught_up(&self, voter: VoterId, deadline: Instant) -> Result<(), ChangeError> {
        let begun = Instant::now();
        loop {
            let status = self.status();
            let matched = status.learners.iter().find(|l| l.voter == voter).and_then(|l| l.matched);
            let last = status.last_index.unwrap_or(0);
            if matched.is_some_and(|at| at + CAUGHT_UP_ENTRIES >= last) {
                return Ok(());
            }
            if !matches!(status.lead, Lead::Me { .. }) {
                return Err(ChangeError::NotLeader);
            }
            if Instant::now() + CATCH_UP_LOOK > deadline {
                return Err(ChangeError::NotCaughtUp { voter, waited: begun.elapsed() });
            }
            tokio::time::sleep(CATCH_UP_LOOK).await;
        }
    }

    /// Takes a learner out again. Best effort: as a learner it harms nobody.
    async fn forget(&self, voter: VoterId, basis: &mut Basis) {
        let remove = ChangeMembers::RemoveNodes(BTreeSet::from([voter]));
        if let Err(error) = self.change(remove, false, basis, Instant::now() + MEMBERSHIP_REPAIR_DEADLINE).await {
            tracing::warn!(%voter, %error, "learner stays in the membership");
        }
    }

    /// One joint change to the target set. Two entries: what stopped after the first is completed by whoever leads, so a
    /// failure is told as it is only while the membership is the one that it began from.
    pub(super) async fn switch(
        &self,
        target: BTreeSet<VoterId>,
        basis: &mut Basis,
        deadline: Instant,
    ) -> Result<(), ChangeError> {
        let from = basis.membership;
        let change = ChangeMembers::ReplaceAllVoters(target.clone());
        let Err(error) = self.change(change, false, basis, deadline).await else { return Ok(()) };
        let mut flattened = None;
        if self.status().joint {
            match self.flatten(Instant::now() + MEMBERSHIP_REPAIR_DEADLINE).await {
                Ok(at) => flattened = at,
                Err(error) => tracing::warn!(%error, "membership stays joint; whoever leads flattens it"),
            }
        }
        self.come_of(&target, from, flattened, error)
    }

    /// What came of a switch that failed with `error`: done if the target is committed, undecided if the membership is
    /// not the one it began `from`. `flattened` is known to be committed, if the metrics do not show it yet.
    fn come_of(
        &self,
        target: &BTreeSet<VoterId>,
        from: Option<LogId>,
        flattened: Option<LogId>,
        error: ChangeError,
    ) -> Result<(), ChangeError> {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched();
        let now = *metrics.membership_config.log_id();
        let committed = now <= metrics.last_applied.max(flattened);
        if committed && metrics.membership_config.membership().get_joint_config() == std::slice::from_ref(target) {
            return Ok(());
        }
        if now == from {
            return Err(error);
        }
        Err(ChangeError::Unknown(format!("{error}; the change is under way, and whoever leads completes it")))
    }

    /// Ends a joint membership in its target set. Returns the entry that did.
    async fn flatten(&self, deadline: Instant) -> Result<Option<LogId>, ChangeError> {
        let mut basis = self.basis()?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), false, &mut basis, deadline).await?;
        Ok(basis.membership)
    }

    /// Flattens a joint membership that somebody left behind, if this node leads and no change is under way.
    pub(super) async fn flatten_leftover(&self) {
        let Ok(_no_change) = Arc::clone(&self.changing).try_lock_owned() else { return };
        if !matches!(*self.lead.borrow(), Lead::Me { .. }) || !self.status().joint {
            return;
        }
        match self.flatten(Instant::now() + MEMBERSHIP_REPAIR_DEADLINE).await {
            Ok(_) => tracing::info!("a membership that was left joint is flattened"),
            Err(error) => tracing::warn!(%error, "membership stays joint until the next look"),
        }
    }

    /// One step, only on what it rests on; moves the basis on.
    pub(super) async fn change(
        &self,
        members: ChangeMembers<VoterId, VoterNode>,
        retain: bool,
        basis: &mut Basis,
        deadline: Instant,
    ) -> Result<(), ChangeError> {
        let on = [
            Precondition::CommittedLeaderId { committed_leader_id: CommittedLeaderId::new(basis.term) },
            Precondition::LastMembershipLogId { last_membership_log_id: basis.membership },
        ];
        let changing = self.raft.change_membership_if(members, retain, on);
        match tokio::time::timeout_at(deadline, changing).await {
            Ok(Ok(written)) => {
                basis.membership = Some(written.log_id);
                Ok(())
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Err(ChangeError::NotLeader),
            Ok(Err(RaftError::APIError(ClientWriteError::PreconditionFailed(_)))) => Err(ChangeError::Moved),
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_),
            )))) => Err(ChangeError::InProgress),
            Ok(Err(error)) => Err(ChangeError::Unknown(error.to_string())),
            Err(_) => Err(ChangeError::Unknown("no answer from the quorum in time".to_owned())),
        }
    }
}

fn invalid(field: &'static str, value: impl ToString, limit: impl ToString) -> ChangeError {
    ChangeError::Invalid { field, value: value.to_string(), limit: limit.to_string() }
}

/// The voters after a change. Removals come first, so that one change can replace a voter's disk.
fn target_set(voters: &Members, change: &VoterChange) -> Result<Members, ChangeError> {
    let mut target = voters.clone();
    for voter in &change.remove {
        if target.remove(voter).is_none() {
            let known: Vec<String> = voters.keys().map(ToString::to_string).collect();
            return Err(invalid("remove", voter, format!("a voter: {}", known.join(", "))));
        }
    }
    for spec in &change.add {
        if spec.voter.id == 0 || spec.voter.directory.is_nil() {
            return Err(invalid("add", spec.voter, "an id from 1 and a directory uuid"));
        }
        let locality: Result<protocol::locality::Locality, _> = spec.node.locality.parse();
        locality.map_err(|e| invalid("add.locality", &spec.node.locality, e))?;
        if target.keys().any(|known| known.id == spec.voter.id && *known != spec.voter) {
            let limit = "an id of no other voter: a wiped disk is another voter, remove the old one in the same change";
            return Err(invalid("add", spec.voter, limit));
        }
        target.insert(spec.voter, spec.node.clone());
    }
    if target.is_empty() || target.len() > VOTERS_MAX {
        return Err(invalid("voters", target.len(), format!("1 to {VOTERS_MAX}")));
    }
    Ok(target)
}

fn localities(members: &Members) -> impl Iterator<Item = &str> {
    members.values().map(|node| node.locality.as_str())
}

/// Whether a cluster may begin with these voters: each with an id, a directory and a place of its own, in a layout that no
/// data centre decides alone.
///
/// # Errors
/// [`ChangeError::Invalid`] or [`ChangeError::Layout`].
pub fn check_first_voters(voters: &[VoterSpec]) -> Result<(), ChangeError> {
    let members = target_set(&Members::new(), &VoterChange { add: voters.to_vec(), ..VoterChange::default() })?;
    for (at, spec) in voters.iter().enumerate() {
        let earlier = voters.iter().take(at);
        if earlier.clone().any(|known| known.voter.directory == spec.voter.directory) {
            return Err(invalid("voters", spec.voter, "each voter once, and a directory of its own"));
        }
    }
    Ok(check_layout(localities(&members))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(id: u64) -> VoterSpec {
        let node = VoterNode { host: "h".to_owned(), port: 1, locality: format!("eu/dc{id}/r") };
        VoterSpec { voter: VoterId::from(id), node }
    }

    fn members(ids: &[u64]) -> Members {
        ids.iter().map(|id| (spec(*id).voter, spec(*id).node)).collect()
    }

    #[test]
    fn a_wiped_disk_replaces_the_old_one_in_one_change_only() {
        let mut wiped = spec(2);
        wiped.voter.directory = uuid::Uuid::from_u128(99);
        let add = VoterChange { add: vec![wiped.clone()], ..VoterChange::default() };
        assert!(matches!(target_set(&members(&[1, 2, 3]), &add), Err(ChangeError::Invalid { field: "add", .. })));
        let replace = VoterChange { remove: vec![spec(2).voter], ..add };
        let target = target_set(&members(&[1, 2, 3]), &replace).expect("replaced");
        assert_eq!(target.len(), 3);
        assert!(target.contains_key(&wiped.voter) && !target.contains_key(&spec(2).voter));
    }

    #[test]
    fn a_cluster_begins_only_with_voters_that_a_change_would_let_it_have() {
        let voters: Vec<_> = (1..=3).map(spec).collect();
        assert_eq!(check_first_voters(&voters), Ok(()));
        let two_one = |v: &mut Vec<VoterSpec>| v[2].node.locality = "eu/dc1/r9".to_owned();
        let nowhere = |v: &mut Vec<VoterSpec>| v[1].node.locality = "eu".to_owned();
        let twice = |v: &mut Vec<VoterSpec>| v.push(spec(1));
        let same_disk = |v: &mut Vec<VoterSpec>| v[1].voter.directory = v[0].voter.directory;
        let same_id = |v: &mut Vec<VoterSpec>| v[1].voter.id = 1;
        let many = |v: &mut Vec<VoterSpec>| v.extend((4..=10).map(spec));
        let none = |v: &mut Vec<VoterSpec>| v.clear();
        let mut told = Vec::new();
        for break_it in [&two_one as &dyn Fn(&mut Vec<VoterSpec>), &nowhere, &twice, &same_disk, &same_id, &many, &none]
        {
            let mut voters = voters.clone();
            break_it(&mut voters);
            told.push(match check_first_voters(&voters) {
                Err(ChangeError::Layout(_)) => "layout",
                Err(ChangeError::Invalid { field, .. }) => field,
                other => panic!("expected a refusal, got {other:?}"),
            });
        }
        assert_eq!(told, ["layout", "add.locality", "voters", "voters", "add", "voters", "voters"]);
    }

    #[test]
    fn impossible_targets_are_refused_by_name() {
        let refuse = |change: VoterChange| match target_set(&members(&[1]), &change) {
            Err(ChangeError::Invalid { field, .. }) => field,
            other => panic!("expected a refusal, got {other:?}"),
        };
        assert_eq!(refuse(VoterChange { remove: vec![VoterId::from(7)], ..VoterChange::default() }), "remove");
        assert_eq!(refuse(VoterChange { remove: vec![VoterId::from(1)], ..VoterChange::default() }), "voters");
        let many: Vec<_> = (2..=12).map(spec).collect();
        assert_eq!(refuse(VoterChange { add: many, ..VoterChange::default() }), "voters");
        let mut nowhere = spec(2);
        nowhere.node.locality = "dc".to_owned();
        assert_eq!(refuse(VoterChange { add: vec![nowhere], ..VoterChange::default() }), "add.locality");
        let nobody = VoterSpec { voter: VoterId::default(), node: spec(1).node };
        assert_eq!(refuse(VoterChange { add: vec![nobody], ..VoterChange::default() }), "add");
    }
}
