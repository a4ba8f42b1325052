//! What a member does with messages that no controller sends: it refuses them by name, lives on, and keeps none of them.

use super::super::ServeError;
use super::super::network::{SnapshotHead, encode};
use super::super::snapshot::ImageBytes;
use super::super::transport::Call;
use super::super::types::alias::{CommittedLeaderId, Entry, LogId, SnapshotMeta, StoredMembership, Vote};
use super::super::types::{BatchBytes, TypeConfig};
use super::links::{World, spec};
use bytes::Bytes;
use futures_util::StreamExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::entry::RaftEntry;
use openraft::raft::{AppendEntriesRequest, VoteRequest};
use protocol::ids::BatchNo;
use protocol::metadata::image::MetadataImage;

type Append = AppendEntriesRequest<TypeConfig>;

const ALL: [u32; 3] = [1, 2, 3];

/// A vote of a later leader: Raft would take anything from it.
fn later(term: u64, leader: u32) -> Vote {
    Vote { committed: true, ..Vote::new(term + 100, spec(leader).voter) }
}

fn entry_after(last: LogId, term: u64, batch: &'static [u8]) -> Entry {
    Entry::new_normal(LogId::new(CommittedLeaderId::new(term), last.index + 1), BatchBytes(Bytes::from_static(batch)))
}

fn field<T: std::fmt::Debug>(answer: Result<T, ServeError>) -> &'static str {
    match answer {
        Err(ServeError::Inadmissible(refused)) => refused.field,
        other => panic!("not refused by name: {other:?}"),
    }
}

#[tokio::test]
async fn no_message_of_a_peer_stops_a_member_or_stays_in_its_log() {
    let mut world = World::start(3).await;
    world.set(&ALL, 1000).await;
    let (leader, term) = world.leader().await;
    let follower = ALL.into_iter().find(|id| *id != leader).expect("three members");
    world.converged(&ALL).await;
    let node = world.node(follower);
    world.until("grants votes", follower, |quorum| !quorum.just_started()).await;
    let last = node.raft.metrics().borrow_watched().local_committed.expect("something is committed");
    let vote = later(term, leader);
    let empty = Append { vote, prev_log_id: Some(last), entries: vec![], leader_commit: None };
    let undecodable = Append { entries: vec![entry_after(last, term, b"no facts at all")], ..empty.clone() };
    let gap = Append { entries: vec![Entry::new_blank(LogId::new(last.leader_id, last.index + 2))], ..empty.clone() };
    let candidate = Append { vote: Vote { committed: false, ..vote }, ..empty.clone() };
    for (request, wrong) in [(&undecodable, "entries.batch"), (&gap, "entries.index"), (&candidate, "vote")] {
        assert_eq!(field(node.serve(Call::Append, encode(request)).await), wrong);
        let requests = futures_util::stream::iter([encode(request)]).chain(futures_util::stream::pending());
        let answers: Vec<_> = node.serve_appends(requests.boxed()).collect().await;
        assert_eq!(answers.into_iter().map(field).collect::<Vec<_>>(), [wrong], "the stream ends with the refusal");
    }
    let question = VoteRequest::<TypeConfig>::new(vote, Some(last));
    assert_eq!(field(node.serve(Call::Vote, encode(&question)).await), "vote.committed");
    let membership = node.raft.metrics().borrow_watched().membership_config.membership().clone();
    let last_membership = StoredMembership::new(Some(last), membership);
    let ahead = LogId::new(last.leader_id, last.index + 50);
    let head = SnapshotHead { vote, meta: SnapshotMeta { last_log_id: Some(ahead), last_membership } };
    let old = MetadataImage { batch_no: BatchNo(0), ..MetadataImage::default() };
    assert_eq!(field(node.serve_snapshot(&encode(&head), ImageBytes::encode(&old).0).await), "data.batch_no");
    assert!(world.halts.lock().is_empty(), "{:?}", world.halts.lock());
    world.set(&ALL, 2000).await;
    world.converged(&ALL).await;
    world.cut_power(follower).await;
    world.boot(follower).await;
    world.converged(&ALL).await;
}
