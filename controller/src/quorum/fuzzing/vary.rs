//! Raft messages by their fields: legal ones, then with a field or two that no controller would send.

use super::*;
use crate::limits::{RAFT_INDEX_MAX, RAFT_TERM_MAX};
use bytes::Bytes;
use openraft::raft::StreamAppendError;
use protocol::testing::FactGen;

/// Where choices come from: a number below the one given.
type Below<'a> = &'a mut dyn FnMut(u64) -> u64;

const TERMS: [u64; 10] = [0, 1, 2, 3, 4, 5, RAFT_TERM_MAX, RAFT_TERM_MAX + 1, 1 << 31, u64::MAX];
const INDEXES: [u64; 10] = [0, 1, 2, 3, 4, 5, 9, RAFT_INDEX_MAX, RAFT_INDEX_MAX + 1, u64::MAX];

fn one<T: Copy>(below: Below<'_>, items: &[T]) -> T {
    items[usize::try_from(below(items.len() as u64)).unwrap_or(0)]
}

fn any_id(below: Below<'_>) -> LogId {
    id(one(below, &TERMS), one(below, &INDEXES))
}

fn maybe_id(below: Below<'_>) -> Option<LogId> {
    (below(5) > 0).then(|| any_id(below))
}

fn any_vote(below: Below<'_>) -> Vote {
    let by = one(below, &[1, 2, 3, 0]);
    Vote { committed: below(2) == 0, ..Vote::new(one(below, &TERMS), voter(by)) }
}

/// A batch of facts that are legal from nothing, now and then with bytes that are none.
fn batch(below: Below<'_>) -> Bytes {
    let seed = below(64);
    let facts = FactGen::history(seed, usize::try_from(below(9)).unwrap_or(0));
    let mut bytes = MetadataBatch { base: BatchNo(one(below, &[0, 0, 0, 1, u64::MAX])), facts }.encode();
    let at = usize::try_from(below(bytes.len() as u64)).unwrap_or(0);
    match below(24) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << below(8),
        2 => bytes.push(0),
        3 => bytes = vec![0, 1, 0xe7, 0x07, 3, 0],
        _ => {}
    }
    Bytes::from(bytes)
}

/// As a peer can write it: openraft's own constructor would not.
fn odd_voters(below: Below<'_>) -> Membership<VoterId, VoterNode> {
    let set = |below: Below<'_>| (0..below(4)).map(|_| voter(one(below, &[0, 1, 2, 3, u32::MAX]))).collect();
    let configs: Vec<BTreeSet<VoterId>> = (0..below(4)).map(|_| set(below)).collect();
    let known: BTreeSet<VoterId> = set(below);
    let nodes: BTreeMap<_, _> = known.into_iter().map(|voter| (voter, VoterNode::default())).collect();
    let bytes = postcard::to_stdvec(&(configs, nodes)).expect("plain maps");
    postcard::from_bytes(&bytes).expect("a membership is these two")
}

fn payload(below: Below<'_>) -> Payload {
    match below(8) {
        0 => EntryPayload::Blank,
        1 => EntryPayload::Membership(voters(&[1, 2, 3])),
        2 => EntryPayload::Membership(odd_voters(below)),
        _ => EntryPayload::Normal(BatchBytes(batch(below))),
    }
}

fn append(below: Below<'_>) -> AppendEntriesRequest<TypeConfig> {
    let term = 3 + below(3);
    let from = below(5);
    let prev = LOG.get(usize::try_from(from).unwrap_or(0)).map(|(term, index)| id(*term, *index));
    let mut entries: Vec<Entry> = Vec::new();
    for _ in 0..below(5) {
        let last = entries.last().map(|entry| entry.log_id).or(prev);
        let log_id =
            id(last.map_or(0, |id| id.leader_id.term).max(one(below, &[3, term])), last.map_or(0, |id| id.index + 1));
        entries.push(Entry { log_id, payload: payload(below) });
    }
    let known = entries.iter().map(|entry| entry.log_id).chain(prev).collect::<Vec<_>>();
    let leader_commit = (!known.is_empty() && below(4) > 0).then(|| one(below, &known));
    let mut request = AppendEntriesRequest { vote: led(term, 1), prev_log_id: prev, entries, leader_commit };
    for _ in 0..below(3) {
        distort(&mut request, below);
    }
    request
}

fn distort(request: &mut AppendEntriesRequest<TypeConfig>, below: Below<'_>) {
    let len = request.entries.len();
    let at = usize::try_from(below(len.max(1) as u64)).unwrap_or(0);
    match below(8) {
        0 => request.vote = any_vote(below),
        1 => request.prev_log_id = maybe_id(below),
        2 => request.leader_commit = maybe_id(below),
        3 if len > 0 => request.entries[at].log_id = any_id(below),
        4 if len > 1 => request.entries.swap(at, len - 1),
        5 if len > 0 => drop(request.entries.remove(at)),
        6 if len > 0 => request.entries.push(request.entries[at].clone()),
        7 if len > 0 => request.entries[at].payload = EntryPayload::Membership(odd_voters(below)),
        _ => {}
    }
}

fn head(below: Below<'_>) -> SnapshotHead {
    let odd = below(3) == 0;
    let membership = if odd && below(2) == 0 { odd_voters(below) } else { voters(&[1, 2, 3]) };
    let last = if odd { maybe_id(below) } else { Some(id(3 + below(2), 4 + below(9))) };
    let at = if odd { maybe_id(below) } else { Some(id(0, 0)) };
    let last_membership = super::super::types::alias::StoredMembership::new(at, membership);
    let vote = if below(8) == 0 { any_vote(below) } else { led(4 + below(2), 1) };
    SnapshotHead { vote, meta: super::super::types::alias::SnapshotMeta { last_log_id: last, last_membership } }
}

/// A message or an answer of that kind ([`super::raft_payload`]), its fields chosen by `below`. A kind above them gives the
/// payload of an entry ([`super::raft_entry`]).
#[must_use]
pub fn raft_message(kind: u8, below: &mut dyn FnMut(u64) -> u64) -> Vec<u8> {
    let candidate = |below: Below<'_>| {
        let fair = Vote::new(4 + below(3), voter(1));
        if below(2) == 0 { fair } else { any_vote(below) }
    };
    let fair_id = |below: Below<'_>| if below(2) == 0 { Some(id(3, below(6))) } else { maybe_id(below) };
    let leader = |below: Below<'_>| if below(2) == 0 { led(3 + below(3), 1) } else { any_vote(below) };
    let written = match kind {
        0 => postcard::to_stdvec(&append(below)),
        1 => {
            let (vote, last_log_id) = (candidate(below), fair_id(below));
            let leadership_transfer = below(3) == 0;
            postcard::to_stdvec(&VoteRequest::<TypeConfig> { vote, last_log_id, leadership_transfer })
        }
        2 => {
            let to = voter(one(below, &[1, 2, 3]));
            postcard::to_stdvec(&TransferLeaderRequest::<TypeConfig>::new(leader(below), to, fair_id(below)))
        }
        3 => postcard::to_stdvec(&head(below)),
        4 => {
            let answer: StreamAppendResult<TypeConfig> = match below(4) {
                0 => Ok(Some(id(3, 6))),
                1 => Ok(maybe_id(below)),
                2 => Err(StreamAppendError::Conflict(one(below, &[id(3, 3), id(3, 2), id(9, 9)]))),
                _ => Err(StreamAppendError::HigherVote(any_vote(below))),
            };
            postcard::to_stdvec(&answer)
        }
        5 => {
            let answer: AppendEntriesResponse<TypeConfig> = match below(4) {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::Conflict,
                2 => AppendEntriesResponse::PartialSuccess(maybe_id(below)),
                _ => AppendEntriesResponse::HigherVote(any_vote(below)),
            };
            postcard::to_stdvec(&answer)
        }
        6 => {
            let (vote, last_log_id) = (candidate(below), fair_id(below));
            postcard::to_stdvec(&VoteResponse::<TypeConfig> { vote, vote_granted: below(2) == 0, last_log_id })
        }
        7 => postcard::to_stdvec(&SnapshotResponse::<TypeConfig> { vote: any_vote(below) }),
        _ => postcard::to_stdvec(&payload(below)),
    };
    written.expect("these can be written")
}
