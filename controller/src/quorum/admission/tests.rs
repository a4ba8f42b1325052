//! Every message that controllers send passes; every kind of message that none sends is refused with the field that is wrong.

use super::super::types::alias::{CommittedLeaderId, Entry, LogId, SnapshotMeta, StoredMembership, Vote};
use super::*;
use bytes::Bytes;
use openraft::entry::RaftEntry;
use protocol::metadata::record::{Fact, TopicPurged};

type Append = AppendEntriesRequest<TypeConfig>;
type Voters = Membership<VoterId, VoterNode>;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn voter(id: u32) -> VoterId {
    VoterId { id, directory: uuid::Uuid::from_u128(u128::from(id)) }
}

fn led(term: u64, by: u32) -> Vote {
    Vote { committed: true, ..Vote::new(term, voter(by)) }
}

/// Voter 2 in term 7; committed up to (6, 10).
fn local() -> Local {
    Local { me: voter(2), term: 7, committed: Some(id(6, 10)), batch_no: BatchNo(9) }
}

fn batch() -> Bytes {
    let purged = Fact::TopicPurged(TopicPurged { topic: protocol::ids::TopicId::default() });
    Bytes::from(MetadataBatch { base: BatchNo(9), facts: vec![purged] }.encode())
}

fn voters(ids: &[u32]) -> Voters {
    let nodes: BTreeMap<_, _> = ids.iter().map(|id| (voter(*id), VoterNode::default())).collect();
    Membership::new(vec![nodes.keys().copied().collect()], nodes).expect("voters with their nodes")
}

/// As a peer can write it and openraft's own constructor would not.
fn forged(configs: &[&[u32]], nodes: &[u32]) -> Voters {
    let configs: Vec<BTreeSet<VoterId>> = configs.iter().map(|c| c.iter().map(|id| voter(*id)).collect()).collect();
    let nodes: BTreeMap<_, _> = nodes.iter().map(|id| (voter(*id), VoterNode::default())).collect();
    let bytes = postcard::to_stdvec(&(configs, nodes)).expect("plain maps");
    postcard::from_bytes(&bytes).expect("a membership is these two")
}

fn legal() -> Append {
    let entries = vec![
        Entry::new_blank(id(7, 12)),
        Entry::new_normal(id(7, 13), BatchBytes(batch())),
        Entry::new_membership(id(7, 14), voters(&[1, 2, 3])),
    ];
    Append { vote: led(7, 1), prev_log_id: Some(id(6, 11)), entries, leader_commit: Some(id(7, 13)) }
}

fn legal_head() -> SnapshotHead {
    let last_membership = StoredMembership::new(Some(id(1, 0)), voters(&[1, 2, 3]));
    SnapshotHead { vote: led(7, 1), meta: SnapshotMeta { last_log_id: Some(id(7, 20)), last_membership } }
}

fn field<T: std::fmt::Debug>(refused: Result<T, Inadmissible>) -> &'static str {
    refused.expect_err("it must be refused").field
}

#[test]
fn what_controllers_send_passes() {
    assert_eq!(append(&legal(), &local()), Ok(()));
    let heartbeat = Append { entries: vec![], ..legal() };
    assert_eq!(append(&heartbeat, &local()), Ok(()));
    let bare = Append { prev_log_id: None, leader_commit: None, ..heartbeat };
    assert_eq!(append(&bare, &local()), Ok(()));
    let first = Append {
        vote: led(1, 1),
        prev_log_id: None,
        entries: vec![Entry::new_membership(id(0, 0), voters(&[1])), Entry::new_blank(id(1, 1))],
        leader_commit: Some(id(0, 0)),
    };
    assert_eq!(append(&first, &Local { term: 0, committed: None, ..local() }), Ok(()));
    let question = VoteRequest::new(Vote::new(8, voter(1)), Some(id(7, 20)));
    assert_eq!(vote(&question, &local()), Ok(()));
    assert_eq!(transfer(&TransferLeaderRequest::new(led(7, 1), voter(2), Some(id(7, 20))), &local()), Ok(()));
    assert_eq!(snapshot(&legal_head(), BatchNo(9), &local()), Ok(()));
}

#[test]
fn a_deposed_leader_passes_so_that_raft_can_tell_it_the_later_term() {
    // Its log parted from what was committed since: only a later leader has to hold that.
    let stale = Append {
        vote: led(5, 1),
        prev_log_id: Some(id(5, 10)),
        entries: vec![Entry::new_blank(id(5, 11))],
        leader_commit: Some(id(5, 8)),
    };
    assert_eq!(append(&stale, &local()), Ok(()));
    let mut late = legal_head();
    late.vote = led(5, 1);
    late.meta.last_log_id = Some(id(5, 11));
    assert_eq!(snapshot(&late, BatchNo(1), &local()), Ok(()));
    let older = SnapshotHead { meta: SnapshotMeta { last_log_id: Some(id(5, 8)), ..late.meta }, vote: led(7, 1) };
    assert_eq!(snapshot(&older, BatchNo(1), &local()), Ok(()), "Raft leaves out what it has");
}

#[test]
fn a_fact_of_a_newer_build_passes_and_stops_who_applies_it() {
    // As a batch is stored: base, one fact of kind 999, version 3, no bytes; then kind 12 of version 2.
    for alien in [vec![9, 1, 0xe7, 0x07, 3, 0], vec![9, 1, 12, 2, 0]] {
        let mut request = legal();
        request.entries[1].payload = EntryPayload::Normal(BatchBytes(Bytes::from(alien)));
        assert_eq!(append(&request, &local()), Ok(()));
    }
}

fn refused(change: impl FnOnce(&mut Append)) -> &'static str {
    let mut request = legal();
    change(&mut request);
    field(append(&request, &local()))
}

#[test]
fn an_append_of_nobody_who_leads_is_refused() {
    assert_eq!(refused(|r| r.vote.committed = false), "vote");
    assert_eq!(refused(|r| r.vote = led(7, 2)), "vote", "this node does not send to itself");
    assert_eq!(refused(|r| r.vote = led(RAFT_TERM_MAX + 1, 1)), "vote");
}

#[test]
fn entries_out_of_order_are_refused() {
    assert_eq!(refused(|r| r.prev_log_id = Some(id(8, 11))), "prev_log_id", "of a later term than the leader");
    assert_eq!(refused(|r| r.prev_log_id = Some(id(5, 11))), "prev_log_id", "before (6, 10), which is committed");
    assert_eq!(refused(|r| r.prev_log_id = Some(id(6, RAFT_INDEX_MAX + 1))), "prev_log_id");
    assert_eq!(refused(|r| r.prev_log_id = None), "entries.index");
    assert_eq!(refused(|r| r.entries[1].log_id = id(7, 14)), "entries.index");
    assert_eq!(refused(|r| r.entries.swap(0, 1)), "entries.index");
    assert_eq!(refused(|r| r.entries[1].log_id = id(8, 13)), "entries.log_id");
    assert_eq!(refused(|r| r.entries[1].log_id = id(6, 13)), "entries.log_id", "terms do not fall");
    let over_committed = |r: &mut Append| {
        r.prev_log_id = Some(id(6, 9));
        r.entries = vec![Entry::new_blank(id(7, 10))];
        r.leader_commit = None;
    };
    assert_eq!(refused(over_committed), "entries.log_id", "another entry where one is committed");
}

#[test]
fn a_commit_that_fits_no_log_is_refused() {
    assert_eq!(refused(|r| r.leader_commit = Some(id(8, 13))), "leader_commit");
    assert_eq!(refused(|r| r.leader_commit = Some(id(6, 13))), "leader_commit", "the entry there is of term 7");
    assert_eq!(refused(|r| r.leader_commit = Some(id(7, 5))), "leader_commit", "before the previous entry");
    assert_eq!(refused(|r| r.leader_commit = Some(id(6, 99))), "leader_commit", "after an entry of term 7");
}

#[test]
fn an_entry_that_cannot_be_applied_is_refused() {
    let holds = |bytes: Vec<u8>| refused(|r| r.entries[1].payload = EntryPayload::Normal(BatchBytes(bytes.into())));
    assert_eq!(holds(b"a batch".to_vec()), "entries.batch");
    assert_eq!(holds(Vec::new()), "entries.batch");
    assert_eq!(holds([&batch()[..], &[0]].concat()), "entries.batch", "something is left over");
    assert_eq!(holds(batch()[..batch().len() - 1].to_vec()), "entries.batch", "cut");
    assert_eq!(holds(vec![0; BATCH_BYTES_MAX + 1]), "entries.batch");
}

#[test]
fn voters_that_make_no_sense_are_refused() {
    let named = |membership: Voters| refused(|r| r.entries[2].payload = EntryPayload::Membership(membership));
    assert_eq!(named(forged(&[], &[1])), "entries.membership", "nobody votes");
    assert_eq!(named(forged(&[&[]], &[1])), "entries.membership", "an empty set");
    assert_eq!(named(forged(&[&[1, 2], &[]], &[1, 2])), "entries.membership", "an empty set beside another");
    assert_eq!(named(forged(&[&[1, 2]], &[1])), "entries.membership", "a voter without a node");
    assert_eq!(named(forged(&[&[1], &[1, 2], &[2]], &[1, 2])), "entries.membership", "three sets");
    assert_eq!(named(forged(&[&[0]], &[0])), "entries.membership", "id 0");
    let joint = forged(&[&[1, 2], &[2, 3]], &[1, 2, 3, 4]);
    assert_eq!(members("m", &joint), Ok(()), "old and new, and a learner");
}

#[test]
fn questions_for_votes_that_no_candidate_asks_are_refused() {
    let asks = |vote: Vote, last| field(super::vote(&VoteRequest::new(vote, last), &local()));
    assert_eq!(asks(led(8, 1), None), "vote.committed");
    assert_eq!(asks(Vote::new(8, voter(2)), None), "vote");
    assert_eq!(asks(Vote::new(RAFT_TERM_MAX + 1, voter(1)), None), "vote");
    assert_eq!(asks(Vote::new(8, voter(1)), Some(id(9, 1))), "last_log_id");
    let hands = |vote, last| field(transfer(&TransferLeaderRequest::new(vote, voter(2), last), &local()));
    assert_eq!(hands(Vote::new(7, voter(1)), None), "from_leader");
    assert_eq!(hands(led(7, 1), Some(id(8, 1))), "last_log_id");
}

#[test]
fn snapshots_that_no_leader_sends_are_refused() {
    let install = |change: fn(&mut SnapshotHead)| {
        let mut head = legal_head();
        change(&mut head);
        field(snapshot(&head, BatchNo(9), &local()))
    };
    assert_eq!(install(|h| h.vote = Vote::new(7, voter(1))), "vote");
    assert_eq!(install(|h| h.vote = led(7, 2)), "vote");
    assert_eq!(install(|h| h.meta.last_log_id = None), "meta.last_log_id");
    assert_eq!(install(|h| h.meta.last_log_id = Some(id(8, 20))), "meta.last_log_id");
    assert_eq!(
        install(|h| h.meta.last_log_id = Some(id(7, 10))),
        "meta.last_log_id",
        "another entry is committed there"
    );
    assert_eq!(install(|h| h.meta.last_log_id = Some(id(7, RAFT_INDEX_MAX + 1))), "meta.last_log_id");
    let voters_of = |h: &mut SnapshotHead, at, voters| h.meta.last_membership = StoredMembership::new(at, voters);
    assert_eq!(install(|h| h.meta.last_membership = StoredMembership::default()), "meta.last_membership.log_id");
    let mut head = legal_head();
    voters_of(&mut head, Some(id(7, 21)), voters(&[1]));
    assert_eq!(field(snapshot(&head, BatchNo(9), &local())), "meta.last_membership.log_id");
    voters_of(&mut head, Some(id(7, 19)), forged(&[&[1]], &[]));
    assert_eq!(field(snapshot(&head, BatchNo(9), &local())), "meta.last_membership");
    assert_eq!(field(snapshot(&legal_head(), BatchNo(8), &local())), "data.batch_no");
}

#[test]
fn answers_that_answer_something_else_are_refused() {
    let asked = Asked::of(voter(2), &legal());
    let good = [Ok(Some(id(7, 14))), Err(StreamAppendError::Conflict(id(6, 11)))];
    assert!(good.iter().all(|answer| streamed(answer, Some(&asked)).is_ok()));
    assert_eq!(streamed(&Err(StreamAppendError::HigherVote(led(9, 3))), Some(&asked)), Ok(()));
    assert_eq!(field(streamed(&Ok(Some(id(7, 14))), None)), "answer");
    for wrong in [Ok(None), Ok(Some(id(7, 15))), Ok(Some(id(6, 14)))] {
        assert_eq!(field(streamed(&wrong, Some(&asked))), "answer.matching");
    }
    assert_eq!(field(streamed(&Err(StreamAppendError::Conflict(id(6, 9))), Some(&asked))), "answer.conflict");
    let mine = StreamAppendError::HigherVote(led(9, 2));
    assert_eq!(field(streamed(&Err(mine), Some(&asked))), "answer.vote", "this node knows its own votes");
    let from_nothing = Asked { prev: None, ..asked };
    assert_eq!(appended(&AppendEntriesResponse::Conflict, &asked), Ok(()));
    assert_eq!(field(appended(&AppendEntriesResponse::Conflict, &from_nothing)), "answer.conflict");
    assert_eq!(field(appended(&AppendEntriesResponse::PartialSuccess(None), &asked)), "answer.matching");
    let answer = |vote| VoteResponse { vote, vote_granted: false, last_log_id: None };
    assert_eq!(voted(&answer(Vote::new(8, voter(2))), voter(2), 8), Ok(()));
    assert_eq!(field(voted(&answer(Vote::new(9, voter(2))), voter(2), 8)), "answer.vote");
}
