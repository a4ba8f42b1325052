//! Ways in for hostile bytes to what the quorum decodes: Raft messages, log entries, snapshots. Exists only with the
//! feature `fuzzing` (test builds); see [`crate::fuzzing`].

use super::disk::Disk;
use super::network::SnapshotHead;
use super::snapshot::{ImageBytes, SnapshotStore};
use super::types::alias::{CommittedLeaderId, Entry, LogId, Payload, SnapshotMeta, StoredMembership, Vote};
use super::types::{BatchBytes, TypeConfig, VoterId, VoterNode};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use openraft::entry::RaftEntry;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

const SEGMENT_BYTES: u64 = 1 << 16;

/// What decodes can be written, and reads as the same again.
fn round_trip<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let Ok(value) = postcard::from_bytes::<T>(bytes) else { return };
    let written = postcard::to_stdvec(&value).expect("what was read can be written");
    let again: T = postcard::from_bytes(&written).expect("what was written can be read");
    assert_eq!(postcard::to_stdvec(&again).expect("as before"), written, "two readings differ");
}

/// A message between controllers, of the kind that `kind` chooses.
pub fn raft_payload(kind: u8, bytes: &[u8]) {
    match kind % 4 {
        0 => round_trip::<AppendEntriesRequest<TypeConfig>>(bytes),
        1 => round_trip::<VoteRequest<TypeConfig>>(bytes),
        2 => round_trip::<TransferLeaderRequest<TypeConfig>>(bytes),
        _ => round_trip::<SnapshotHead>(bytes),
    }
}

/// The payload of an entry, as it stands in the log.
pub fn raft_entry(bytes: &[u8]) {
    round_trip::<Payload>(bytes);
}

/// The files of a Raft directory: the first byte chooses which of them holds `bytes`. Opened twice: what the first start
/// accepted, the second accepts too.
pub fn raft_directory(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let dir = Path::new("/raft");
    let storage: Arc<dyn Storage> = Arc::new(MemStorage::new());
    let built = (|| {
        log::storage::create_dir_durably(&*storage, &dir.join("log"))?;
        let name = ["vote", "marker", "log/00000000000000000000.log"][usize::from(kind % 3)];
        storage.create(&dir.join(name))?.write_at(0, bytes)
    })();
    assert!(built.is_ok(), "a simulated disk takes a file");
    if let Ok((disk, _)) = Disk::open(&storage, dir, SEGMENT_BYTES) {
        let entries = disk.read_all(disk.first_index(), u64::MAX).map(|e| e.len()).ok();
        drop(disk);
        let (again, _) = Disk::open(&storage, dir, SEGMENT_BYTES).expect("what one start accepted, the next does");
        assert_eq!(again.read_all(again.first_index(), u64::MAX).map(|e| e.len()).ok(), entries);
    }
}

/// A snapshot: as a file of the store, and as what a leader streams.
pub fn snapshot_file(bytes: &[u8]) {
    ImageBytes(bytes::Bytes::copy_from_slice(bytes)).decode().ok();
    let dir = Path::new("/snapshots");
    let storage: Arc<dyn Storage> = Arc::new(MemStorage::new());
    let built = (|| {
        log::storage::create_dir_durably(&*storage, dir)?;
        storage.create(&dir.join(format!("{:020}-empty{}", 0, super::snapshot::SUFFIX)))?.write_at(0, bytes)
    })();
    assert!(built.is_ok(), "a simulated disk takes a file");
    if let Ok(store) = SnapshotStore::open(storage, dir)
        && let Some(built) = store.current()
    {
        built.data.decode().ok();
        store.scrub().expect("what was read at the start reads the same now");
    }
}

/// Messages as controllers send them, each with its kind for [`raft_payload`]: the beginning of a corpus.
#[must_use]
pub fn raft_corpus() -> Vec<(u8, Vec<u8>)> {
    let id = |index| LogId::new(CommittedLeaderId::new(3), index);
    let voter = |id: u32| VoterId { id, directory: uuid::Uuid::from_u128(u128::from(id)) };
    let vote = Vote::new(3, voter(1));
    let node = |id: u32| VoterNode { host: format!("c{id}"), port: 9, locality: "r/dc/k".into() };
    let voters: BTreeMap<_, _> = (1..=3).map(|id| (voter(id), node(id))).collect();
    let ids: BTreeSet<_> = voters.keys().copied().collect();
    let membership = openraft::Membership::new(vec![ids], voters).expect("three voters with their nodes");
    let entries = vec![
        Entry::new_blank(id(4)),
        Entry::new_normal(id(5), BatchBytes(bytes::Bytes::from_static(b"a batch"))),
        Entry::new_membership(id(6), membership.clone()),
    ];
    let append =
        AppendEntriesRequest::<TypeConfig> { vote, prev_log_id: Some(id(3)), entries, leader_commit: Some(id(2)) };
    let meta =
        SnapshotMeta { last_log_id: Some(id(6)), last_membership: StoredMembership::new(Some(id(6)), membership) };
    let written = |kind, bytes: Result<Vec<u8>, postcard::Error>| (kind, bytes.expect("these can be written"));
    vec![
        written(0, postcard::to_stdvec(&append)),
        written(1, postcard::to_stdvec(&VoteRequest::<TypeConfig>::new(vote, Some(id(6))))),
        written(2, postcard::to_stdvec(&TransferLeaderRequest::<TypeConfig>::new(vote, voter(2), Some(id(6))))),
        written(3, postcard::to_stdvec(&SnapshotHead { vote, meta })),
    ]
}
