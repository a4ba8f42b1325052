//! Writing a batch, who leads, and the read barrier. A write names the term it was decided in: another leadership
//! refuses it before it is appended. What was not certainly refused has an unknown outcome.

use super::types::alias::CommittedLeaderId;
use super::types::{BatchBytes, TypeConfig, Verdict, VoterId, VoterNode};
use super::{Halt, Quorum};
use crate::limits::{BARRIER_DEADLINE, DISK_FLOOR_BYTES, WRITE_DEADLINE_BASE, deadline_for};
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardReason, ForwardToLeader};
use openraft::impls::ProgressResponder;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{RaftMetrics, ReadPolicy};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Who leads the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lead {
    /// This node, in this term.
    Me {
        /// Raft term.
        term: u64,
    },
    /// Another one.
    Other {
        /// Raft term.
        term: u64,
        /// Which voter.
        voter: VoterId,
        /// Where it is.
        node: VoterNode,
    },
    /// Nobody known.
    Nobody,
}

/// Why a batch has no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It was certainly not appended: this node does not lead (any more) in that term.
    #[error("this controller does not lead in term {term}")]
    NotLeader {
        /// The term it was decided in.
        term: u64,
    },
    /// It was not appended: this controller's disk is nearly full.
    #[error("the controller's disk has less than {DISK_FLOOR_BYTES} bytes of room: free some, nothing was written")]
    DiskFull,
    /// It may commit, now or later.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// Pause before a write that a fresh leader refused is tried again.
const LEASE_RETRY: Duration = Duration::from_millis(10);

impl Quorum {
    /// Writes one batch as one entry and waits for what apply says.
    ///
    /// # Errors
    /// [`WriteError`]. After `Unknown` the caller must pass [`Self::settle`] before it decides again in this term.
    pub async fn write(&self, term: u64, batch: Bytes) -> Result<Verdict, WriteError> {
        let limit = Duration::from_millis(self.timers.write_deadline_ms(batch.len()));
        let limit = limit.max(deadline_for(WRITE_DEADLINE_BASE, batch.len()));
        let deadline = Instant::now() + limit;
        if self.is_disk_full() {
            return Err(WriteError::DiskFull);
        }
        loop {
            match tokio::time::timeout_at(deadline, self.write_once(term, batch.clone())).await {
                Ok(Ok(verdict)) => return Ok(verdict),
                Ok(Err(Refusal::Final(error))) => return Err(error),
                Ok(Err(Refusal::NotYet)) if Instant::now() + LEASE_RETRY < deadline => {
                    tokio::time::sleep(LEASE_RETRY).await;
                }
                Ok(Err(Refusal::NotYet)) => return Err(WriteError::NotLeader { term }),
                Err(_) => return Err(WriteError::Unknown(format!("no verdict within {limit:?}"))),
            }
        }
    }

    async fn write_once(&self, term: u64, batch: Bytes) -> Result<Verdict, Refusal> {
        let unknown = |text: String| Refusal::Final(WriteError::Unknown(text));
        let (responder, answer) = ProgressResponder::complete_only();
        self.raft
            .write(BatchBytes(batch))
            .with_leader(CommittedLeaderId::new(term))
            .responder(responder)
            .await
            .map_err(|fatal| unknown(fatal.to_string()))?;
        match answer.await {
            Ok(Ok(written)) => Ok(written.data),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(self.forwarded(term, &forward)),
            Ok(Err(other)) => Err(unknown(other.to_string())),
            Err(_) => Err(unknown("raft dropped the write".to_owned())),
        }
    }

    /// A leader whose lease is not yet (or no longer) confirmed refuses before appending; it may be asked again while
    /// the term stands.
    fn forwarded(&self, term: u64, forward: &ForwardToLeader<TypeConfig>) -> Refusal {
        let still_leads = *self.lead.borrow() == Lead::Me { term };
        if forward.reason == ForwardReason::LeaseExpired && still_leads {
            return Refusal::NotYet;
        }
        Refusal::Final(WriteError::NotLeader { term })
    }

    /// Waits until this node has confirmed with a quorum that it leads in this term, and has applied everything
    /// committed before and an entry of its own term.
    ///
    /// # Errors
    /// [`WriteError::NotLeader`] when it does not lead, or could not confirm it in time.
    pub async fn barrier(&self, term: u64) -> Result<(), WriteError> {
        let confirmed = tokio::time::timeout(BARRIER_DEADLINE, self.raft.ensure_linearizable(ReadPolicy::ReadIndex));
        let refused = WriteError::NotLeader { term };
        match confirmed.await {
            Ok(Ok(_)) if *self.lead.borrow() == (Lead::Me { term }) => Ok(()),
            Ok(Ok(_)) => Err(refused),
            Ok(Err(error)) => {
                tracing::debug!(%error, term, "read barrier refused");
                Err(refused)
            }
            Err(_) => {
                tracing::warn!(term, "read barrier not passed in {BARRIER_DEADLINE:?}");
                Err(refused)
            }
        }
    }

    /// Makes the fate of every write before it in this term known: writes an empty entry in the term and waits until it
    /// is applied here. An earlier entry then stands applied below it, or was never appended and never will be. The read
    /// barrier alone does not say that: it waits for what is committed, not for what is in the log.
    ///
    /// # Errors
    /// [`WriteError::NotLeader`] when this node does not lead in the term; [`WriteError::Unknown`] when the entry was not
    /// applied in time.
    pub async fn settle(&self, term: u64) -> Result<(), WriteError> {
        match tokio::time::timeout(BARRIER_DEADLINE, self.raft.write_blank()).await {
            Ok(Ok(written)) if written.log_id.leader_id.term == term => Ok(()),
            Ok(Ok(_)) => Err(WriteError::NotLeader { term }),
            Ok(Err(error)) => {
                tracing::debug!(%error, term, "the settling entry was refused");
                Err(WriteError::NotLeader { term })
            }
            Err(_) => Err(WriteError::Unknown(format!("the settling entry was not applied in {BARRIER_DEADLINE:?}"))),
        }
    }
}

enum Refusal {
    /// Certainly not appended, but worth another try at once.
    NotYet,
    Final(WriteError),
}

/// Publishes who leads; halts when Raft died by itself.
pub(super) async fn watch_lead(
    me: VoterId,
    mut metrics: WatchReceiverOf<TypeConfig, RaftMetrics<TypeConfig>>,
    lead: watch::Sender<Lead>,
    stopping: Arc<AtomicBool>,
    halt: Halt,
) {
    loop {
        let (now, fatal) = {
            let seen = metrics.borrow_watched();
            (lead_of(me, &seen), seen.running_state.as_ref().err().map(ToString::to_string))
        };
        let changed = lead.send_if_modified(|held| {
            let changed = *held != now;
            held.clone_from(&now);
            changed
        });
        if changed {
            metrics::counter!(crate::metrics::LEADER_CHANGES).increment(1);
            tracing::info!(lead = ?now, "quorum leadership");
        }
        if let Some(reason) = fatal
            && !stopping.load(Ordering::SeqCst)
        {
            halt.now(&format!("raft stopped: {reason}"));
            return;
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

fn lead_of(me: VoterId, metrics: &RaftMetrics<TypeConfig>) -> Lead {
    let term = metrics.current_term;
    match metrics.current_leader {
        Some(voter) if voter == me && metrics.state.is_leader() && metrics.running_state.is_ok() => Lead::Me { term },
        Some(voter) if voter != me => match metrics.membership_config.membership().get_node(&voter) {
            Some(node) => Lead::Other { term, voter, node: node.clone() },
            None => Lead::Nobody,
        },
        _ => Lead::Nobody,
    }
}
