//! Which of a peer's messages Raft may see. Raft and its storage take what they are told for true: an entry that does not
//! decode is found when it is applied, ids out of order break their assertions, and either ends the node. So a message that no
//! controller sends is refused here, with the field that is wrong.
//!
//! Pure. Never judges what is well formed and a lie, nor what is on this node's own disk: damage there halts. A fact of a kind
//! or version that this build does not know is well formed: a newer controller wrote it, and who applies it has to stop.

use super::network::SnapshotHead;
use super::types::alias::{LogId, Payload, Vote};
use super::types::{BatchBytes, TypeConfig, VoterId, VoterNode};
use crate::limits::{RAFT_INDEX_MAX, RAFT_TERM_MAX};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, Membership};
use protocol::ids::BatchNo;
use protocol::limits::BATCH_BYTES_MAX;
use protocol::metadata::batch::{BatchDecodeError, MetadataBatch};
use protocol::metadata::record::FactError;
use std::collections::{BTreeMap, BTreeSet};

/// A message that no controller sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {found}, allowed: {rule}")]
pub struct Inadmissible {
    /// What is wrong with it.
    pub field: &'static str,
    /// As in the message.
    pub found: String,
    /// What would be right.
    pub rule: String,
}

type Admitted = Result<(), Inadmissible>;

/// What this node knows when the message comes. It may be a little old: what it says stays true.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local {
    pub(super) me: VoterId,
    /// Of its vote.
    pub(super) term: u64,
    /// Last entry that it knows to be committed.
    pub(super) committed: Option<LogId>,
    /// Of its image.
    pub(super) batch_no: BatchNo,
}

fn refuse<T>(field: &'static str, found: impl ToString, rule: impl ToString) -> Result<T, Inadmissible> {
    Err(Inadmissible { field, found: found.to_string(), rule: rule.to_string() })
}

/// Entries as a leader sends them; a heartbeat has none.
pub(super) fn append(request: &AppendEntriesRequest<TypeConfig>, local: &Local) -> Admitted {
    let term = leader("vote", &request.vote, local.me)?;
    let prev = request.prev_log_id;
    id_within("prev_log_id", prev.as_ref(), term)?;
    id_within("leader_commit", request.leader_commit.as_ref(), term)?;
    let known = local.committed.filter(|_| term >= local.term);
    let mut last = prev;
    agree("leader_commit", request.leader_commit.as_ref(), prev.as_ref())?;
    agree("prev_log_id", prev.as_ref(), known.as_ref())?;
    for entry in &request.entries {
        let id = entry.log_id;
        let next = last.map_or(0, |last| last.index + 1);
        if id.index != next {
            return refuse("entries.index", id.index, format!("{next}, the one after its predecessor"));
        }
        id_within("entries.log_id", Some(&id), term)?;
        agree("entries.log_id", Some(&id), last.as_ref())?;
        agree("entries.log_id", Some(&id), known.as_ref())?;
        agree("leader_commit", request.leader_commit.as_ref(), Some(&id))?;
        payload(&entry.payload)?;
        last = Some(id);
    }
    agree("leader_commit", request.leader_commit.as_ref(), known.as_ref())
}

/// A candidate's question, in earnest or not.
pub(super) fn vote(request: &VoteRequest<TypeConfig>, local: &Local) -> Admitted {
    let term = term_of("vote", &request.vote)?;
    if request.vote.committed {
        return refuse("vote.committed", true, "false: nobody leads who asks for votes");
    }
    not_me("vote", &request.vote, local.me)?;
    id_within("last_log_id", request.last_log_id.as_ref(), term)
}

/// A leader's word that it hands over.
pub(super) fn transfer(request: &TransferLeaderRequest<TypeConfig>, local: &Local) -> Admitted {
    let term = leader("from_leader", request.from_leader(), local.me)?;
    id_within("last_log_id", request.last_log_id(), term)
}

/// A snapshot that decoded to an image of `batch_no`.
pub(super) fn snapshot(head: &SnapshotHead, batch_no: BatchNo, local: &Local) -> Admitted {
    let term = leader("vote", &head.vote, local.me)?;
    let Some(last) = head.meta.last_log_id else {
        return refuse("meta.last_log_id", "missing", "the last entry in the snapshot");
    };
    id_within("meta.last_log_id", Some(&last), term)?;
    let stored = &head.meta.last_membership;
    let Some(at) = *stored.log_id() else {
        return refuse("meta.last_membership.log_id", "missing", "the entry of the membership");
    };
    if at.index > last.index {
        return refuse("meta.last_membership.log_id", at, format!("up to {last}, the last in the snapshot"));
    }
    agree("meta.last_membership.log_id", Some(&at), Some(&last))?;
    members("meta.last_membership", stored.membership())?;
    let Some(committed) = local.committed.filter(|_| term >= local.term) else { return Ok(()) };
    agree("meta.last_log_id", Some(&last), Some(&committed))?;
    if last.index > committed.index && batch_no < local.batch_no {
        return refuse("data.batch_no", batch_no, format!("{} or more: an image does not go back", local.batch_no));
    }
    Ok(())
}

/// What a request of appends covers; an answer is held against it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) me: VoterId,
    pub(super) term: u64,
    pub(super) prev: Option<LogId>,
    pub(super) last: Option<LogId>,
}

impl Asked {
    pub(super) fn of(me: VoterId, request: &AppendEntriesRequest<TypeConfig>) -> Self {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        Self { me, term: request.vote.leader_id.term, prev: request.prev_log_id, last }
    }

    fn taken(&self, upto: Option<&LogId>) -> Admitted {
        let told = |id: Option<&LogId>| id.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        if upto == self.last.as_ref() {
            return Ok(());
        }
        refuse("answer.matching", told(upto), format!("{}, the last that was sent", told(self.last.as_ref())))
    }

    fn in_conflict(&self, at: Option<&LogId>) -> Admitted {
        let Some(prev) = self.prev else {
            return refuse("answer.conflict", "a conflict", "none: nothing comes before the first entry");
        };
        match at.filter(|at| **at != prev) {
            Some(at) => refuse("answer.conflict", at, format!("{prev}, the entry asked about")),
            None => Ok(()),
        }
    }
}

/// The answer to one request of a stream of appends.
pub(super) fn streamed(answer: &StreamAppendResult<TypeConfig>, asked: Option<&Asked>) -> Admitted {
    let Some(asked) = asked else { return refuse("answer", "one more", "one for each request") };
    match answer {
        Ok(upto) => asked.taken(upto.as_ref()),
        Err(StreamAppendError::Conflict(at)) => asked.in_conflict(Some(at)),
        Err(StreamAppendError::HigherVote(vote)) => another_vote("answer.vote", vote, asked.me, asked.term),
    }
}

/// The answer to one append.
pub(super) fn appended(answer: &AppendEntriesResponse<TypeConfig>, asked: &Asked) -> Admitted {
    match answer {
        AppendEntriesResponse::Success => Ok(()),
        AppendEntriesResponse::PartialSuccess(upto) => asked.taken(upto.as_ref()),
        AppendEntriesResponse::Conflict => asked.in_conflict(None),
        AppendEntriesResponse::HigherVote(vote) => another_vote("answer.vote", vote, asked.me, asked.term),
    }
}

/// The answer to a question for a vote in `term`.
pub(super) fn voted(answer: &VoteResponse<TypeConfig>, me: VoterId, term: u64) -> Admitted {
    another_vote("answer.vote", &answer.vote, me, term)?;
    id_within("answer.last_log_id", answer.last_log_id.as_ref(), RAFT_TERM_MAX)
}

/// A vote that a peer holds: it may be for `me`, but not in a later term than the question's, `term`. (To an old question it
/// may: nobody waits for that answer.)
pub(super) fn another_vote(field: &'static str, vote: &Vote, me: VoterId, term: u64) -> Admitted {
    let theirs = term_of(field, vote)?;
    if vote.leader_id.voted_for == me && theirs > term {
        return refuse(field, vote, format!("a vote for another, or in a term up to {term}"));
    }
    Ok(())
}

fn term_of(field: &'static str, vote: &Vote) -> Result<u64, Inadmissible> {
    let term = vote.leader_id.term;
    if term > RAFT_TERM_MAX {
        return refuse(field, vote, format!("a term up to {RAFT_TERM_MAX}"));
    }
    Ok(term)
}

fn not_me(field: &'static str, vote: &Vote, me: VoterId) -> Admitted {
    if vote.leader_id.voted_for == me {
        return refuse(field, vote, "a vote for the sender: this is who was asked");
    }
    Ok(())
}

/// The vote of somebody else who leads; its term.
fn leader(field: &'static str, vote: &Vote, me: VoterId) -> Result<u64, Inadmissible> {
    let term = term_of(field, vote)?;
    if !vote.committed {
        return refuse(field, vote, "a vote that was granted: only who leads sends this");
    }
    not_me(field, vote, me)?;
    Ok(term)
}

/// No entry is of a later term than whoever sends it.
fn id_within(field: &'static str, id: Option<&LogId>, term: u64) -> Admitted {
    let Some(id) = id else { return Ok(()) };
    if id.leader_id.term > term {
        return refuse(field, id, format!("an entry of a term up to {term}"));
    }
    if id.index > RAFT_INDEX_MAX {
        return refuse(field, id, format!("an index up to {RAFT_INDEX_MAX}"));
    }
    Ok(())
}

/// Two entries of one log: terms do not fall, and an index has one term.
fn agree(field: &'static str, id: Option<&LogId>, with: Option<&LogId>) -> Admitted {
    let (Some(id), Some(with)) = (id, with) else { return Ok(()) };
    let (index, term) = (id.index.cmp(&with.index), id.leader_id.term.cmp(&with.leader_id.term));
    let parted = if index.is_eq() { term.is_ne() } else { term == index.reverse() };
    if parted {
        return refuse(field, id, format!("what can stand in one log with {with}"));
    }
    Ok(())
}

fn payload(payload: &Payload) -> Admitted {
    match payload {
        EntryPayload::Blank => Ok(()),
        EntryPayload::Normal(batch) => facts(batch),
        EntryPayload::Membership(membership) => members("entries.membership", membership),
    }
}

fn facts(batch: &BatchBytes) -> Admitted {
    if batch.0.len() > BATCH_BYTES_MAX {
        return refuse("entries.batch", format!("{} bytes", batch.0.len()), format!("up to {BATCH_BYTES_MAX} bytes"));
    }
    match MetadataBatch::decode(&batch.0) {
        Ok(_) | Err(BatchDecodeError::Fact(FactError::UnknownKind { .. } | FactError::UnknownVersion { .. })) => Ok(()),
        Err(error) => refuse("entries.batch", error, "facts"),
    }
}

/// At most two sets of voters, none empty, each voter with its node.
fn members(field: &'static str, membership: &Membership<VoterId, VoterNode>) -> Admitted {
    let configs: Vec<BTreeSet<VoterId>> = membership.get_joint_config().clone();
    // openraft's own check looks into each set, and finds nothing wrong where there is none.
    if !(1..=2).contains(&configs.len()) {
        return refuse(field, format!("{} sets of voters", configs.len()), "one set, or the old and the new");
    }
    let nodes: BTreeMap<VoterId, VoterNode> = membership.nodes().map(|(id, node)| (*id, node.clone())).collect();
    if nodes.keys().any(|voter| voter.id == 0) {
        return refuse(field, "a member with the id 0", "ids from 1 on");
    }
    match Membership::new(configs, nodes) {
        Ok(_) => Ok(()),
        Err(error) => refuse(field, error, "voters, each with its node"),
    }
}

#[cfg(test)]
mod tests;
