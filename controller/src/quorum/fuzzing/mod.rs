//! Ways in for hostile bytes to what the quorum decodes: Raft messages and answers, log entries, snapshots. Exists only with
//! the feature `fuzzing` (test builds); see [`crate::fuzzing`].
//!
//! What the gate admits goes on as it would in a member: into the log on a disk, out of it again after a restart, into the
//! state machine. Nothing of it may stop the member, but for what a gate cannot know (see `applied`).

mod files;
mod vary;

pub use files::{raft_directories, raft_directory, snapshot_body, snapshot_file, snapshot_files};
pub use vary::raft_message;

use super::admission::{self, Asked, Local};
use super::disk::Disk;
use super::network::SnapshotHead;
use super::snapshot::{Built, ImageBytes, SnapshotStore};
use super::state_machine::StateMachine;
use super::types::alias::{CommittedLeaderId, Entry, LogId, Payload, Vote};
use super::types::{BatchBytes, TypeConfig, VoterId, VoterNode};
use super::{Halt, Inadmissible};
use crate::feed::Feed;
use crate::fuzzing::Depth;
use log::storage::Storage;
use log::storage::memory::MemStorage;
use openraft::entry::RaftEntry;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, Membership};
use protocol::ids::BatchNo;
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::{ApplyError, MetadataImage};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};

const SEGMENT_BYTES: u64 = 1 << 16;
const DIR: &str = "/raft";
/// Kinds of payload: four messages, then the answers to them.
pub(crate) const KINDS: u8 = 8;
/// Term of the vote of the member under attack, the last entry that it knows to be committed, and its entries.
const TERM: u64 = 3;
const COMMITTED: u64 = 2;
const LOG: [(u64, u64); 4] = [(0, 0), (1, 1), (3, 2), (3, 3)];

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn voter(id: u32) -> VoterId {
    VoterId { id, directory: uuid::Uuid::from_u128(u128::from(id)) }
}

fn led(term: u64, by: u32) -> Vote {
    Vote { committed: true, ..Vote::new(term, voter(by)) }
}

fn voters(ids: &[u32]) -> Membership<VoterId, VoterNode> {
    let node = |id: u32| VoterNode { host: format!("c{id}"), port: 9, locality: "r/dc/k".into() };
    let nodes: BTreeMap<_, _> = ids.iter().map(|id| (voter(*id), node(*id))).collect();
    let ids: BTreeSet<_> = nodes.keys().copied().collect();
    Membership::new(vec![ids], nodes).expect("voters with their nodes")
}

fn local() -> Local {
    Local { me: voter(2), term: TERM, committed: Some(id(3, COMMITTED)), batch_no: BatchNo(0) }
}

/// A member's disk with [`LOG`] on it.
fn lived() -> MemStorage {
    static DISK: OnceLock<MemStorage> = OnceLock::new();
    let disk = DISK.get_or_init(|| {
        let memory = MemStorage::new();
        let mut disk = opened(&memory);
        disk.save_vote(&led(TERM, 1)).expect("a healthy disk");
        disk.append(&Entry::new_membership(id(0, 0), voters(&[1, 2, 3]))).expect("a healthy disk");
        for (term, index) in &LOG[1..] {
            disk.append(&Entry::new_blank(id(*term, *index))).expect("a healthy disk");
        }
        flush(&mut disk);
        disk.close().expect("a healthy disk");
        memory
    });
    disk.fork()
}

fn opened(memory: &MemStorage) -> Disk {
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    Disk::open(&storage, Path::new(DIR), SEGMENT_BYTES).expect("what was written can be read").0
}

fn flush(disk: &mut Disk) {
    if let Some(job) = disk.flush_job() {
        disk.flushed(job.run().expect("a healthy disk")).expect("a healthy disk");
    }
}

/// What decodes can be written, and reads as the same again.
fn round_trip<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Option<T> {
    let value = postcard::from_bytes::<T>(bytes).ok()?;
    let written = postcard::to_stdvec(&value).expect("what was read can be written");
    let again: T = postcard::from_bytes(&written).expect("what was written can be read");
    assert_eq!(postcard::to_stdvec(&again).expect("as before"), written, "two readings differ");
    Some(value)
}

fn gated<T: DeserializeOwned + Serialize>(bytes: &[u8], gate: impl FnOnce(&T) -> Result<(), Inadmissible>) -> Depth {
    let Some(message) = round_trip::<T>(bytes) else { return Depth::Refused };
    match gate(&message) {
        Ok(()) => Depth::Accepted,
        Err(refused) => {
            assert!(!refused.field.is_empty() && !refused.rule.is_empty(), "a refusal says what is wrong");
            Depth::Decoded
        }
    }
}

/// A message or an answer between controllers, of the kind that `kind` chooses.
#[must_use]
pub fn raft_payload(kind: u8, bytes: &[u8]) -> Depth {
    let (me, local) = (voter(2), local());
    let asked = Asked { me, term: TERM, prev: Some(id(3, 3)), last: Some(id(3, 6)) };
    match kind % KINDS {
        0 => round_trip::<AppendEntriesRequest<TypeConfig>>(bytes).map_or(Depth::Refused, heard),
        1 => gated::<VoteRequest<TypeConfig>>(bytes, |question| admission::vote(question, &local)),
        2 => gated::<TransferLeaderRequest<TypeConfig>>(bytes, |word| admission::transfer(word, &local)),
        3 => round_trip::<SnapshotHead>(bytes).map_or(Depth::Refused, |head| installed(head, None)),
        4 => gated::<StreamAppendResult<TypeConfig>>(bytes, |answer| admission::streamed(answer, Some(&asked))),
        5 => gated::<AppendEntriesResponse<TypeConfig>>(bytes, |answer| admission::appended(answer, &asked)),
        6 => gated::<VoteResponse<TypeConfig>>(bytes, |answer| admission::voted(answer, me, TERM)),
        _ => gated::<SnapshotResponse<TypeConfig>>(bytes, |answer| {
            admission::another_vote("answer.vote", &answer.vote, me, TERM)
        }),
    }
}

/// The payload of an entry, as it stands in the log and in a message: decoded, sent by a leader, appended, applied.
#[must_use]
pub fn raft_entry(bytes: &[u8]) -> Depth {
    let Some(payload) = round_trip::<Payload>(bytes) else { return Depth::Refused };
    let entries = vec![Entry { log_id: id(4, 4), payload }];
    let prev_log_id = Some(id(3, 3));
    heard(AppendEntriesRequest { vote: led(4, 1), prev_log_id, entries, leader_commit: Some(id(4, 4)) })
}

fn heard(request: AppendEntriesRequest<TypeConfig>) -> Depth {
    if admission::append(&request, &local()).is_err() {
        return Depth::Decoded;
    }
    if request.vote.leader_id.term >= TERM && kept(request) { Depth::Accepted } else { Depth::Decoded }
}

/// As Raft does with what it takes: what is committed or there already stays, from the first entry that differs on the log
/// is cut. False: there was nothing to append.
fn kept(request: AppendEntriesRequest<TypeConfig>) -> bool {
    let known = |log_id: &LogId| log_id.index <= COMMITTED || LOG.contains(&(log_id.leader_id.term, log_id.index));
    if request.prev_log_id.is_some_and(|prev| !known(&prev)) {
        return false;
    }
    let mut before = request.prev_log_id;
    let mut new = request.entries;
    while new.first().is_some_and(|entry| known(&entry.log_id)) {
        before = Some(new.remove(0).log_id);
    }
    let Some(first) = new.first().map(RaftEntry::index) else { return false };
    assert!(first > COMMITTED, "an entry that is committed would be cut");
    let memory = lived();
    let mut disk = opened(&memory);
    disk.save_vote(&request.vote).expect("a healthy disk");
    disk.truncate_after(before).expect("a healthy disk");
    for entry in &new {
        disk.append(entry).expect("an entry that was let in can be written");
    }
    flush(&mut disk);
    drop(disk);
    let read = opened(&memory).read_all(first, u64::MAX).expect("what was written can be read");
    let bytes = |entries: &[Entry]| postcard::to_stdvec(entries).expect("entries can be written");
    assert_eq!(bytes(&read), bytes(&new), "the log gives back other entries than were let in");
    applied(read);
    true
}

/// Commits entries. A batch of facts that decode may still be one that no decider writes on this image, or hold a fact of a
/// newer build: these halt, as they would anywhere in the cluster. Nothing else may.
fn applied(entries: Vec<Entry>) {
    let feed = Arc::new(Feed::default());
    let storage: Arc<dyn Storage> = Arc::new(MemStorage::new());
    let snapshots = SnapshotStore::open(storage, Path::new("/snapshots")).expect("an empty disk");
    let mut machine = StateMachine::new(Arc::clone(&feed), Arc::new(snapshots), Halt::recording(|_| ()));
    for entry in entries {
        let foreseen = match &entry.payload {
            EntryPayload::Normal(batch) => halts(&feed.image(), batch),
            EntryPayload::Blank | EntryPayload::Membership(_) => false,
        };
        let halted = machine.apply_entry(entry).err();
        assert!(halted.is_none() || foreseen, "an entry that was let in stops the member: {halted:?}");
        if halted.is_some() {
            return;
        }
    }
}

fn halts(image: &MetadataImage, batch: &BatchBytes) -> bool {
    match MetadataBatch::decode(&batch.0) {
        Ok(decoded) => matches!(image.apply(&decoded, &batch.0), Err(ApplyError::Illegal { .. })),
        Err(error) => error.to_string().contains("must be upgraded"),
    }
}

/// A snapshot of a leader, with an image or with an empty one: let in, stored, and there after a restart.
fn installed(head: SnapshotHead, data: Option<ImageBytes>) -> Depth {
    let data = data.unwrap_or_else(|| ImageBytes::encode(&MetadataImage::default()));
    let Ok(image) = data.decode() else { return Depth::Refused };
    if admission::snapshot(&head, image.batch_no, &local()).is_err() {
        return Depth::Decoded;
    }
    let (dir, storage) = (Path::new("/snapshots"), Arc::new(MemStorage::new()) as Arc<dyn Storage>);
    let store = SnapshotStore::open(Arc::clone(&storage), dir).expect("an empty disk");
    let last = head.meta.last_log_id;
    store.store(Built { meta: head.meta, data }).expect("a snapshot that was let in can be stored");
    let again = SnapshotStore::open(storage, dir).expect("what was stored can be read");
    assert_eq!(again.last_log_id(), last, "another snapshot than was stored");
    Depth::Accepted
}
