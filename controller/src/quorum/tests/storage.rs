//! Vote, log and snapshots: openraft's own suite, reopening, power cuts at every call, every byte flipped.

use super::super::disk::Disk;
use super::super::halt::Halt;
use super::super::log_store::LogStore;
use super::super::snapshot::{Built, ImageBytes, SnapshotStore};
use super::super::state_machine::StateMachine;
use super::super::types::alias::{CommittedLeaderId, Entry, LogId, SnapshotMeta, Vote};
use super::super::types::{BatchBytes, TypeConfig, VoterId};
use crate::feed::Feed;
use bytes::Bytes;
use log::storage::Storage;
use log::storage::memory::{Fault, MemStorage, Op};
use openraft::StorageError;
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use protocol::metadata::image::MetadataImage;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SEGMENT: u64 = 64 << 10;

fn dir() -> PathBuf {
    PathBuf::from("/raft")
}

fn no_halt() -> Halt {
    Halt::recording(|reason| eprintln!("halt: {reason}"))
}

fn open(storage: &MemStorage) -> Result<Disk, super::super::disk::DiskError> {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    Disk::open(&storage, &dir(), SEGMENT).map(|(disk, _)| disk)
}

fn start(storage: &MemStorage) -> LogStore {
    LogStore::start(open(storage).expect("an undamaged disk"), no_halt()).expect("a thread").0
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn entry(term: u64, index: u64) -> Entry {
    let bytes = Bytes::from(format!("entry {index} of term {term}").into_bytes());
    Entry::new_normal(id(term, index), BatchBytes(bytes))
}

fn vote(term: u64) -> Vote {
    Vote::new(term, VoterId::from(1))
}

async fn append(store: &mut LogStore, entries: impl IntoIterator<Item = Entry>) -> std::io::Result<()> {
    let entries: Vec<Entry> = entries.into_iter().collect();
    store.blocking_append(entries).await.map_err(std::io::Error::other)
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, ()> for Builder {
    async fn build(&self) -> Result<((), LogStore, StateMachine), StorageError<TypeConfig>> {
        let disk = MemStorage::new();
        let store = start(&disk);
        let snapshots = SnapshotStore::open(Arc::new(disk), Path::new("/snapshots")).expect("an empty disk");
        let machine = StateMachine::new(Arc::new(Feed::default()), Arc::new(snapshots), no_halt());
        Ok(((), store, machine))
    }
}

#[tokio::test]
async fn passes_the_suite_of_the_consensus_library() {
    Suite::test_all(Builder).await.expect("the storage keeps its contract");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_power_cut() {
    let disk = MemStorage::new();
    let mut store = start(&disk);
    store.save_vote(&vote(3)).await.expect("saved");
    append(&mut store, (0..50).map(|i| entry(3, i))).await.expect("appended");
    disk.crash(&mut || false);
    let mut store = start(&disk);
    assert_eq!(store.read_vote().await.expect("a vote"), Some(vote(3)));
    let entries = store.try_get_log_entries(0..100).await.expect("readable");
    assert_eq!(entries, (0..50).map(|i| entry(3, i)).collect::<Vec<_>>());
    store.truncate_after(Some(id(3, 29))).await.expect("truncated");
    store.purge(id(3, 9)).await.expect("purged");
    disk.crash(&mut || false);
    let mut store = start(&disk);
    let state = store.get_log_state().await.expect("readable");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(3, 9)), Some(id(3, 29))));
    assert_eq!(store.try_get_log_entries(..).await.expect("readable").len(), 20);
    store.save_vote(&vote(4)).await.expect("saved");
    append(&mut store, [entry(4, 30)]).await.expect("appended after the cut");
    disk.crash(&mut || false);
    let mut store = start(&disk);
    assert_eq!(store.try_get_log_entries(29..).await.expect("readable"), vec![entry(3, 29), entry(4, 30)]);
}

#[tokio::test]
async fn a_purge_beyond_the_end_begins_anew_there() {
    let disk = MemStorage::new();
    let mut store = start(&disk);
    store.save_vote(&vote(1)).await.expect("saved");
    append(&mut store, (0..5).map(|i| entry(1, i))).await.expect("appended");
    store.purge(id(1, 100)).await.expect("purged");
    disk.crash(&mut || false);
    let mut store = start(&disk);
    let state = store.get_log_state().await.expect("readable");
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(id(1, 100)), Some(id(1, 100))));
    append(&mut store, [entry(1, 101)]).await.expect("appended");
    disk.crash(&mut || false);
    assert_eq!(start(&disk).try_get_log_entries(..).await.expect("readable"), vec![entry(1, 101)]);
}

/// One life of a log, cut off at each storage call in turn: what was acknowledged before the cut is there after it, a
/// reopened log is a prefix-consistent one, and opening never fails.
#[tokio::test]
async fn a_power_cut_at_any_call_loses_nothing_acknowledged() {
    let mut cut_at = 0;
    loop {
        let disk = MemStorage::new();
        disk.set_hook(Some(Box::new(move |call| {
            (call.number >= cut_at).then(|| Fault::Fail(std::io::Error::other("power is gone")))
        })));
        let acknowledged = live(&disk).await;
        let finished = acknowledged.last_step == STEPS;
        let mut odd = cut_at;
        disk.crash(&mut || {
            odd = odd.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            odd >> 63 == 1
        });
        let mut store = start(&disk);
        let voted = store.read_vote().await.expect("a vote or none").map_or(0, |v| v.leader_id.term);
        assert!(voted >= acknowledged.vote, "cut at call {cut_at}: vote {voted} after {}", acknowledged.vote);
        let entries = store.try_get_log_entries(..).await.expect("readable");
        for expected in &acknowledged.entries {
            let purged = store.get_log_state().await.expect("readable").last_purged_log_id;
            if purged.is_some_and(|p| p.index >= expected.index()) {
                continue;
            }
            assert!(entries.contains(expected), "cut at call {cut_at}: {expected} is gone");
        }
        if finished {
            return;
        }
        cut_at += 1;
    }
}

const STEPS: u32 = 6;

#[derive(Default)]
struct Acknowledged {
    vote: u64,
    entries: Vec<Entry>,
    last_step: u32,
}

/// Votes, appends, truncates, purges; stops at the first failure. Returns what was acknowledged and not given up since.
async fn live(disk: &MemStorage) -> Acknowledged {
    let mut done = Acknowledged::default();
    let Ok(opened) = open(disk) else { return done };
    let (mut store, _) = LogStore::start(opened, Halt::recording(|_| ())).expect("a thread");
    for step in 1..=STEPS {
        let kept = done.entries.clone();
        let outcome = match step {
            1 => store.save_vote(&vote(1)).await.map(|()| done.vote = 1),
            2 => append(&mut store, (0..10).map(|i| entry(1, i))).await.map(|()| {
                done.entries = (0..10).map(|i| entry(1, i)).collect();
            }),
            3 => {
                done.entries.retain(|e| e.index() <= 6);
                store.truncate_after(Some(id(1, 6))).await
            }
            4 => store.save_vote(&vote(2)).await.map(|()| done.vote = 2),
            5 => append(&mut store, (7..20).map(|i| entry(2, i))).await.map(|()| {
                done.entries = kept.into_iter().chain((7..20).map(|i| entry(2, i))).collect();
            }),
            _ => store.purge(id(1, 3)).await,
        };
        if outcome.is_err() {
            return done;
        }
        done.last_step = step;
    }
    done
}

fn flipped(disk: &MemStorage, file: &Path, position: usize) -> MemStorage {
    let copy = disk.fork();
    let mut bytes = copy.contents(file).expect("the file is there");
    bytes[position] ^= 0x10;
    copy.damage(file, bytes).expect("damaged");
    copy
}

/// A flipped byte stops the controller with the file's name, or changes nothing that is read.
#[tokio::test]
async fn every_flipped_byte_of_vote_log_and_marker_is_detected_or_harmless() {
    let disk = MemStorage::new();
    let mut store = start(&disk);
    store.save_vote(&vote(7)).await.expect("saved");
    append(&mut store, (0..12).map(|i| entry(7, i))).await.expect("appended");
    store.purge(id(7, 2)).await.expect("purged");
    store.close().await.expect("closed");
    disk.kill_process();
    let read = |disk: &MemStorage| {
        let opened = open(disk)?;
        let entries = opened.read_all(0, u64::MAX)?;
        Ok::<_, super::super::disk::DiskError>((opened.vote(), opened.purged(), entries))
    };
    let expected = read(&disk.fork()).expect("undamaged");
    let (mut detected, mut harmless) = (0, 0);
    for file in disk.files_below(Path::new("/")).expect("listed") {
        for position in 0..disk.contents(&file).expect("there").len() {
            match read(&flipped(&disk, &file, position)) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains(file.to_str().expect("utf-8")), "{text} does not name {}", file.display());
                    detected += 1;
                }
                Ok(found) => {
                    assert_eq!(found, expected, "{} byte {position}", file.display());
                    harmless += 1;
                }
            }
        }
    }
    assert!(detected > 1000, "{detected} detected, {harmless} harmless");
}

/// Vote, marker or log taken away behind the controller's back: noticed, never taken for "nothing yet".
#[tokio::test]
async fn a_file_that_is_gone_is_damage() {
    let disk = MemStorage::new();
    let mut store = start(&disk);
    store.save_vote(&vote(7)).await.expect("saved");
    append(&mut store, (0..12).map(|i| entry(7, i))).await.expect("appended");
    let before_purge = disk.fork();
    store.purge(id(7, 2)).await.expect("purged");
    store.close().await.expect("closed");
    disk.kill_process();
    let without = |disk: &MemStorage, name: &str| {
        let copy = disk.fork();
        copy.kill_process();
        let path = if name.is_empty() { dir() } else { dir().join(name) };
        log::storage::remove_tree(&copy, &path).or_else(|_| copy.remove(&path)).expect("removed");
        open(&copy).err().map(|e| e.to_string())
    };
    // "" is the whole directory: an emptied one must not vote again as if it were new.
    for name in ["vote", "log", "marker", ""] {
        for disk in [&disk, &before_purge] {
            if let Some(error) = without(disk, name) {
                assert!(error.contains("damage"), "{name:?}: {error}");
            } else {
                // Without a purge, the marker only repeats what the log says.
                assert!(name == "marker" && std::ptr::eq(disk, &before_purge), "{name:?} is gone and nobody noticed");
            }
        }
    }
}

fn snapshot(index: u64) -> Built {
    let image = MetadataImage { batch_no: protocol::ids::BatchNo(index), ..MetadataImage::default() };
    let meta = SnapshotMeta { last_log_id: Some(id(1, index)), ..SnapshotMeta::default() };
    Built { meta, data: ImageBytes::encode(&image) }
}

fn open_snapshots(disk: &MemStorage) -> Result<SnapshotStore, super::super::snapshot::SnapshotError> {
    SnapshotStore::open(Arc::new(disk.clone()), Path::new("/snapshots"))
}

#[test]
fn every_flipped_byte_of_a_snapshot_is_detected() {
    let disk = MemStorage::new();
    let store = open_snapshots(&disk).expect("empty");
    store.store(snapshot(5)).expect("stored");
    store.store(snapshot(9)).expect("stored");
    let files = disk.files_below(Path::new("/snapshots")).expect("listed");
    assert_eq!(files.len(), 1, "the older one is gone: {files:?}");
    for position in 0..disk.contents(&files[0]).expect("there").len() {
        let error = open_snapshots(&flipped(&disk, &files[0], position)).expect_err("detected").to_string();
        assert!(error.contains("damaged at byte") && error.contains(files[0].to_str().expect("utf-8")), "{error}");
    }
    assert!(store.scrub().is_ok());
    let damaged = flipped(&disk, &files[0], 30);
    disk.damage(&files[0], damaged.contents(&files[0]).expect("there")).expect("damaged");
    assert!(store.scrub().is_err(), "a running controller notices too");
}

#[test]
fn a_power_cut_while_a_snapshot_is_written_leaves_the_old_or_the_new_one() {
    let mut cut_at = 0;
    loop {
        let disk = MemStorage::new();
        let store = open_snapshots(&disk).expect("empty");
        store.store(snapshot(5)).expect("stored");
        let from = disk.calls() + cut_at;
        disk.set_hook(Some(Box::new(move |call| {
            (call.number >= from).then(|| Fault::Fail(std::io::Error::other("power is gone")))
        })));
        let stored = store.store(snapshot(9)).is_ok();
        let mut odd = cut_at;
        disk.crash(&mut || {
            odd = odd.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            odd >> 63 == 1
        });
        let found = open_snapshots(&disk).expect("one of the two").last_log_id().expect("a snapshot");
        assert!(found == id(1, 9) || (found == id(1, 5) && !stored), "cut at call {cut_at}: {found}");
        if stored {
            return;
        }
        cut_at += 1;
    }
}

/// The writer died between the rename and the sync of the directory: what the next start believes, and purges entries for,
/// must outlive a power cut.
#[test]
fn a_snapshot_that_a_start_believes_survives_a_power_cut() {
    let disk = MemStorage::new();
    let store = open_snapshots(&disk).expect("empty");
    store.store(snapshot(5)).expect("stored");
    disk.set_hook(Some(Box::new(|call| {
        (call.op == Op::SyncDir).then(|| Fault::Fail(std::io::Error::other("the process dies here")))
    })));
    store.store(snapshot(9)).expect_err("not acknowledged");
    disk.kill_process();
    let shown = open_snapshots(&disk).expect("whole").last_log_id();
    disk.crash(&mut || false);
    assert_eq!(open_snapshots(&disk).expect("whole").last_log_id(), shown);
    assert_eq!(shown, Some(id(1, 9)));
}

#[tokio::test]
async fn a_running_log_is_read_back_piece_by_piece_and_damage_is_noticed() {
    let disk = MemStorage::new();
    let mut store = start(&disk);
    store.save_vote(&vote(1)).await.expect("saved");
    let large = |index| Entry::new_normal(id(1, index), BatchBytes(Bytes::from(vec![7; 600 << 10])));
    append(&mut store, (0..8).map(large)).await.expect("appended");
    store.close().await.expect("closed");
    let reopened = open(&disk).expect("undamaged");
    let mut pieces = Vec::new();
    let mut next = reopened.scrub_entries(0).expect("undamaged");
    while let Some(from) = next {
        pieces.push(from);
        next = reopened.scrub_entries(from).expect("undamaged");
    }
    assert_eq!(pieces, (1..=8).collect::<Vec<_>>(), "two of 600 KiB are more than a piece");
    drop(reopened);
    let store = start(&disk);
    assert!(store.scrub().is_ok());
    let files = disk.files_below(&dir().join("log")).expect("listed");
    let segment = files.into_iter().max_by_key(|file| disk.contents(file).map_or(0, |c| c.len())).expect("a segment");
    let damaged = flipped(&disk, &segment, 100_000);
    disk.damage(&segment, damaged.contents(&segment).expect("there")).expect("damaged");
    assert!(store.scrub().is_err());
}

#[tokio::test]
async fn a_flipped_term_is_never_believed_above_the_end_mark_either() {
    let disk = MemStorage::new();
    let mut store = start(&disk);
    // A vote far above leaves room for wrong terms that nothing else contradicts.
    store.save_vote(&vote(1_000)).await.expect("saved");
    let written: Vec<Entry> = (0..4).map(|index| entry(4, index)).collect();
    for entry in written.clone() {
        append(&mut store, [entry]).await.expect("appended");
    }
    drop(store);
    disk.crash(&mut || false);
    let files = disk.files_below(&dir().join("log")).expect("listed");
    let segment = files.into_iter().max_by_key(|file| disk.contents(file).map_or(0, |c| c.len())).expect("a segment");
    let mut whole = 0;
    for position in 0..disk.contents(&segment).expect("there").len() {
        let Ok(opened) = open(&flipped(&disk, &segment, position)) else { continue };
        let read = opened.read_all(0, 10).expect("what was opened can be read");
        assert_eq!(read, written[..read.len()], "byte {position}");
        whole += usize::from(read.len() == written.len());
    }
    assert!(whole > 0, "some bytes matter to no entry");
}

#[test]
fn an_entry_of_the_last_term_that_a_peer_may_name_can_be_written_and_so_can_later_ones() {
    use crate::limits::RAFT_TERM_MAX;
    let storage: Arc<dyn Storage> = Arc::new(MemStorage::new());
    let dir = std::path::Path::new("/raft");
    log::storage::create_dir_durably(&*storage, &dir.join("log")).expect("a healthy disk");
    let (mut disk, _) = Disk::open(&storage, dir, 1 << 16).expect("empty");
    let terms = [RAFT_TERM_MAX, RAFT_TERM_MAX + 1, RAFT_TERM_MAX + 1_000_000];
    for (index, term) in (0..).zip(terms) {
        let id = LogId::new(CommittedLeaderId::new(term), index);
        disk.append(&Entry::new_blank(id)).expect("a frame holds it");
    }
    let read = disk.read_all(0, u64::MAX).expect("a healthy disk");
    assert_eq!(read.iter().map(|entry| entry.log_id.leader_id.term).collect::<Vec<_>>(), terms);
}

#[test]
fn a_frame_that_covers_more_than_its_entry_is_damage_and_is_not_read_for_ever() {
    use protocol::batch::{BatchBuilder, Compression, stamp};
    let memory = MemStorage::new();
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    let dir = std::path::Path::new("/raft");
    log::storage::create_dir_durably(&memory, &dir.join("log")).expect("a healthy disk");
    let (mut log, _) =
        log::Log::open(Arc::clone(&storage), &dir.join("log"), log::LogConfig::default()).expect("empty");
    let payload = postcard::to_stdvec(&super::super::types::alias::Payload::Blank).expect("a blank can be written");
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(0, Some(&0u32.to_be_bytes()), Some(&payload), &[]).expect("a small record");
    let mut frame = builder.build().expect("a small batch");
    // The header's last offset is one beyond that of its only record; then the checksum, as a writer would have made it.
    frame[23..27].copy_from_slice(&1i32.to_be_bytes());
    let crc = crc32c::crc32c(&frame[21..]);
    frame[17..21].copy_from_slice(&crc.to_be_bytes());
    stamp(&mut frame, 0, 0);
    log.append(0, &frame).expect("a batch by its header");
    log.close_clean().expect("a healthy disk");
    let refused = super::super::disk::Disk::open(&storage, dir, 1 << 16).err().expect("it is no frame of ours");
    assert!(refused.to_string().contains("frame of 2 entries"), "{refused}");
}
