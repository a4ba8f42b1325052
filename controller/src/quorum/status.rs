//! What the quorum looks like from here, for describe, readiness and metrics. Reads only.

use super::guard::{DcVerdict, verdicts};
use super::{Lead, Quorum, VoterId, VoterNode};
use openraft::async_runtime::watch::WatchReceiver;
use std::time::Duration;

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterStatus {
    /// Identity.
    pub voter: VoterId,
    /// Address and place.
    pub node: VoterNode,
    /// Last index known to be durable there; only the leader knows.
    pub matched: Option<u64>,
}

/// See the module's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumStatus {
    /// Who leads.
    pub lead: Lead,
    /// Current term.
    pub term: u64,
    /// Last index in the log.
    pub last_index: Option<u64>,
    /// Committed index as known here.
    pub committed: Option<u64>,
    /// Applied index.
    pub applied: Option<u64>,
    /// Last index in the newest snapshot.
    pub snapshot: Option<u64>,
    /// Purged up to here.
    pub purged: Option<u64>,
    /// Age of the last quorum acknowledgement, on the leader.
    pub quorum_ack_age: Option<Duration>,
    /// Voters of the target set.
    pub voters: Vec<VoterStatus>,
    /// Learners, and voters that are leaving.
    pub learners: Vec<VoterStatus>,
    /// A change is half way.
    pub joint: bool,
    /// What the loss of each data centre would do.
    pub verdicts: Vec<DcVerdict>,
}

impl Quorum {
    /// The state now.
    #[must_use]
    pub fn status(&self) -> QuorumStatus {
        let receiver = self.raft.metrics();
        let metrics = receiver.borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let configs = membership.get_joint_config();
        let target = configs.last();
        let matched = |voter: &VoterId| {
            let progress = metrics.replication.as_ref()?.get(voter)?.as_ref()?;
            Some(progress.index)
        };
        let (mut voters, mut learners) = (Vec::new(), Vec::new());
        for (voter, node) in membership.nodes() {
            let matched = if *voter == self.me { metrics.last_log_index } else { matched(voter) };
            let status = VoterStatus { voter: *voter, node: node.clone(), matched };
            let is_voter = target.is_some_and(|set| set.contains(voter));
            if is_voter { voters.push(status) } else { learners.push(status) }
        }
        let verdicts = verdicts(voters.iter().map(|v| v.node.locality.as_str()));
        QuorumStatus {
            lead: self.lead.borrow().clone(),
            term: metrics.current_term,
            last_index: metrics.last_log_index,
            committed: metrics.cluster_committed.map(|id| id.index),
            applied: metrics.last_applied.map(|id| id.index),
            snapshot: metrics.snapshot.map(|id| id.index),
            purged: metrics.purged.map(|id| id.index),
            quorum_ack_age: self.quorum_ack_age(metrics.current_term),
            voters,
            learners,
            joint: configs.len() > 1,
            verdicts,
        }
    }
}
