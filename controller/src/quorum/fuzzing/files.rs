//! Files of a controller of somebody's making: its Raft directory and its snapshots. The first byte of an input says which
//! file it is, and whether the input is all of the file or what stands in it under a right checksum: the product writes that.

use super::super::disk::Disk;
use super::super::network::SnapshotHead;
use super::super::snapshot::{Built, ImageBytes, SnapshotStore, framed, name_of, split_body};
use super::super::types::BatchBytes;
use super::super::types::alias::{Entry, SnapshotMeta, StoredMembership};
use super::{Depth, flush, id, installed, led, voters};
use bytes::Bytes;
use log::slot_file::StateFile;
use log::storage::Storage;
use log::storage::memory::MemStorage;
use log::{Log, LogConfig};
use openraft::entry::RaftEntry;
use protocol::batch::{BatchBuilder, Compression, stamp};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::testing::FactGen;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

const DIR: &str = "/raft";
/// Small, so that a few entries fill several.
const SEGMENT_BYTES: u64 = 8 << 10;
const ENTRIES: u64 = 24;
const PURGED: u64 = 9;

fn shared(memory: &MemStorage) -> Arc<dyn Storage> {
    Arc::new(memory.clone())
}

/// A directory after some life: several segments, a purge, a vote; and its files but for the empty ones.
fn directory() -> &'static (MemStorage, Vec<PathBuf>) {
    static LIFE: OnceLock<(MemStorage, Vec<PathBuf>)> = OnceLock::new();
    LIFE.get_or_init(|| {
        let memory = MemStorage::new();
        let (mut disk, _) = Disk::open(&shared(&memory), Path::new(DIR), SEGMENT_BYTES).expect("an empty disk");
        disk.save_vote(&led(4, 1)).expect("a healthy disk");
        disk.append(&Entry::new_membership(id(0, 0), voters(&[1, 2, 3]))).expect("a healthy disk");
        for index in 1..ENTRIES {
            let facts = FactGen::history(index, 12);
            let batch = MetadataBatch { base: MetadataImage::default().batch_no, facts };
            let entry = Entry::new_normal(id(1 + index / 8, index), BatchBytes(Bytes::from(batch.encode())));
            disk.append(&entry).expect("a healthy disk");
            flush(&mut disk);
        }
        disk.purge(id(1 + PURGED / 8, PURGED)).expect("a healthy disk");
        disk.close().expect("a healthy disk");
        let files = memory.files_below(Path::new(DIR)).expect("it has files");
        let filled = |file: &PathBuf| memory.contents(file).is_ok_and(|bytes| !bytes.is_empty());
        let files: Vec<_> = files.into_iter().filter(filled).collect();
        assert!(files.len() > 3, "{files:?}");
        (memory, files)
    })
}

/// One file of the directory, or a directory of that file alone. Opened twice: what the first start accepted, the second
/// accepts too.
#[must_use]
pub fn raft_directory(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    let (lived, files) = directory();
    let dir = Path::new(DIR);
    let (memory, checked) = match kind % 6 {
        0 => {
            let Some((which, bytes)) = bytes.split_first() else { return Depth::Refused };
            let memory = lived.fork();
            memory.damage(&files[usize::from(*which) % files.len()], bytes.to_vec()).expect("the file exists");
            let log = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
            let whole = Log::open(shared(&memory.fork()), &dir.join("log"), log).is_ok();
            let records = ["vote", "marker"].map(|name| StateFile::new(shared(&memory), dir.join(name)).load().is_ok());
            (memory, whole && records == [true, true])
        }
        1 => (with_record(lived, "vote", bytes), true),
        2 => (with_record(lived, "marker", bytes), true),
        3 => (with_frame(bytes), true),
        4 => (with_record(&MemStorage::new(), "vote", bytes), true),
        _ => (alone(bytes), Log::open(shared(&alone(bytes)), &dir.join("log"), LogConfig::default()).is_ok()),
    };
    let storage = shared(&memory);
    let Ok((disk, _)) = Disk::open(&storage, dir, SEGMENT_BYTES) else {
        return if checked { Depth::Decoded } else { Depth::Refused };
    };
    let entries = disk.read_all(disk.first_index(), u64::MAX).map(|e| e.len()).ok();
    drop(disk);
    let (again, _) = Disk::open(&storage, dir, SEGMENT_BYTES).expect("what one start accepted, the next does");
    assert_eq!(again.read_all(again.first_index(), u64::MAX).map(|e| e.len()).ok(), entries);
    Depth::Accepted
}

/// The directory with another vote or marker, under a right checksum.
fn with_record(memory: &MemStorage, name: &str, payload: &[u8]) -> MemStorage {
    let memory = memory.fork();
    let made = log::storage::create_dir_durably(&*shared(&memory), Path::new(DIR));
    assert!(made.is_ok(), "a simulated disk takes a directory");
    StateFile::new(shared(&memory), Path::new(DIR).join(name)).store(payload).expect("a healthy disk");
    memory
}

/// The directory with one more entry, in a frame of the log: the first byte is its term, the rest its payload.
fn with_frame(bytes: &[u8]) -> MemStorage {
    let memory = directory().0.fork();
    let (term, payload) = bytes.split_first().map_or((4, bytes), |(term, rest)| (u32::from(*term), rest));
    let config = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
    let (mut log, _) = Log::open(shared(&memory), &Path::new(DIR).join("log"), config).expect("it was closed cleanly");
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(0, Some(&term.to_be_bytes()), Some(payload), &[]).expect("a small record");
    let mut frame = builder.build().expect("a small batch");
    stamp(&mut frame, log.end_offset(), term);
    if log.append(log.end_offset(), &frame).is_ok() {
        log.close_clean().expect("a healthy disk");
    }
    memory
}

/// A log of one segment and nothing else.
fn alone(bytes: &[u8]) -> MemStorage {
    let memory = MemStorage::new();
    let dir = Path::new(DIR).join("log");
    let made = log::storage::create_dir_durably(&memory, &dir)
        .and_then(|()| memory.create(&dir.join("00000000000000000000.log"))?.write_at(0, bytes));
    assert!(made.is_ok(), "a simulated disk takes a file");
    memory
}

/// Inputs of [`raft_directory`] as the product writes them.
#[must_use]
pub fn raft_directories() -> Vec<Vec<u8>> {
    let (lived, files) = directory();
    let mut corpus = Vec::new();
    for (which, file) in (0u8..).zip(files) {
        let bytes = lived.contents(file).expect("it exists");
        corpus.push([&[0, which], &bytes[..]].concat());
        if file.extension().is_some_and(|e| e == "log") {
            corpus.push([&[5], &bytes[..]].concat());
        }
        let record = StateFile::new(shared(lived), file.clone());
        let kind = match file.file_name().and_then(|name| name.to_str()) {
            Some("vote") => 1,
            Some("marker") => 2,
            _ => continue,
        };
        let payload = record.load().ok().flatten().expect("it was stored");
        corpus.push([&[kind], &payload[..]].concat());
        corpus.push([&[4], &payload[..]].concat());
    }
    let (disk, _) = Disk::open(&shared(&lived.fork()), Path::new(DIR), SEGMENT_BYTES).expect("it was closed cleanly");
    for entry in disk.read_all(PURGED, u64::MAX).expect("it is whole").iter().take(6) {
        let payload = postcard::to_stdvec(&entry.payload).expect("it was read");
        corpus.push([&[3, 4], &payload[..]].concat());
    }
    corpus
}

/// A snapshot as a file of the store, then as what a leader sends. The first byte says whether the input is the whole file
/// or its body, which then stands under a right head.
#[must_use]
pub fn snapshot_file(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    let file = if kind % 2 == 0 { Bytes::copy_from_slice(bytes) } else { framed(bytes) };
    let body = file.slice(framed(&[]).len().min(file.len())..);
    let name = name_of(split_body(&body).and_then(|built| built.meta.last_log_id));
    let (dir, storage) = (Path::new("/snapshots"), Arc::new(MemStorage::new()) as Arc<dyn Storage>);
    let built = log::storage::create_dir_durably(&*storage, dir)
        .and_then(|()| storage.create(&dir.join(name))?.write_at(0, &file));
    assert!(built.is_ok(), "a simulated disk takes a file");
    let Ok(store) = SnapshotStore::open(storage, dir) else { return Depth::Refused };
    store.scrub().expect("what was read at the start reads the same now");
    let Some(Built { meta, data }) = store.current() else { return Depth::Refused };
    let Ok(image) = data.decode() else { return Depth::Decoded };
    assert_eq!(ImageBytes::encode(&image).decode().as_ref(), Ok(&image), "two readings differ");
    let _refused_or_stored = installed(SnapshotHead { vote: led(9, 1), meta }, Some(data));
    Depth::Accepted
}

/// The body of a snapshot's file around an encoded image.
#[must_use]
pub fn snapshot_body(image: &[u8]) -> Vec<u8> {
    let last_membership = StoredMembership::new(Some(id(0, 0)), voters(&[1, 2, 3]));
    let meta = SnapshotMeta { last_log_id: Some(id(5, 60)), last_membership };
    super::super::snapshot::body_of(&Built { meta, data: ImageBytes(Bytes::copy_from_slice(image)) }).to_vec()
}

/// Inputs of [`snapshot_file`] as the product writes them, of encoded images.
#[must_use]
pub fn snapshot_files(images: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let bodies = images.iter().map(|image| snapshot_body(image));
    bodies.flat_map(|body| [[&[0], &framed(&body)[..]].concat(), [&[1], &body[..]].concat()]).collect()
}
