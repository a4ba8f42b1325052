//! Files as somebody else left them: segments, indexes, registries, identities, Raft directories, and tables of epochs.

use super::mutate::change;
use super::records::batch_of;
use super::replica::at;
use super::{Depth, seal};
use crate::chaos::random::Random;
use log::data_dir::{BrokerState, DataDir, Expected, Identity, Role};
use log::registry::{Event, PartitionKey, Registry};
use log::slot_file::StateFile;
use log::storage::Storage;
use log::storage::memory::MemStorage;
use log::{EpochTable, Log, LogConfig};
use protocol::batch::{Compression, stamp};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

const ROOT: &str = "/data";
const SEGMENT: &str = "00000000000000000000.log";
/// Bytes of a read: more than any log here has.
const ALL: usize = 1 << 20;

fn config() -> LogConfig {
    LogConfig { preallocate: false, segment_bytes: 1, index_interval_bytes: 1, ..LogConfig::default() }
}

fn shared(disk: &MemStorage) -> Arc<dyn Storage> {
    Arc::new(disk.clone())
}

/// A log of a few batches of two epochs, closed cleanly or not.
fn logged(batches: u64, segment_bytes: u64, clean: bool) -> MemStorage {
    let disk = MemStorage::new();
    let config = LogConfig { segment_bytes, ..config() };
    let (mut log, _) = Log::open(shared(&disk), Path::new(ROOT), config).expect("an empty log opens");
    for number in 0..batches {
        let mut batch = batch_of(Compression::None, 1, &[7; 150]);
        stamp(&mut batch, number, u32::from(number * 2 >= batches));
        log.append(number, &batch).expect("a legal batch");
    }
    log.sync().expect("a healthy disk");
    if clean {
        log.close_clean().expect("a healthy disk");
    }
    disk
}

fn contents(log: &Log) -> Option<Vec<u8>> {
    let (mut next, mut bytes) = (log.start_offset(), Vec::new());
    while next < log.end_offset() {
        let some = log.read(next, ALL, log.end_offset(), true).ok()?;
        next = broker::partition::end_of(&some).filter(|end| *end > next)?;
        bytes.extend_from_slice(&some);
    }
    Some(bytes)
}

/// A segment of somebody's making. What opens can be appended to, and opens again with what was appended.
pub(super) fn segment_body(bytes: &[u8]) -> Depth {
    let disk = MemStorage::new();
    let storage = shared(&disk);
    let built = log::storage::create_dir_durably(&*storage, Path::new(ROOT))
        .and_then(|()| storage.create(&Path::new(ROOT).join(SEGMENT)))
        .and_then(|file| file.write_at(0, bytes));
    assert!(built.is_ok(), "a simulated disk takes a file");
    let Ok((mut log, _)) = Log::open(shared(&disk), Path::new(ROOT), config()) else { return Depth::Refused };
    let Some(before) = contents(&log) else { return Depth::Decoded };
    let mut batch = batch_of(Compression::None, 1, b"after");
    let (end, epoch) = (log.end_offset(), log.last_epoch().unwrap_or(0));
    stamp(&mut batch, end, epoch);
    if log.append(end, &batch).is_err() {
        return Depth::Decoded;
    }
    log.sync().expect("a healthy disk");
    drop(log);
    let (log, _) = Log::open(shared(&disk), Path::new(ROOT), config()).expect("what opened once opens again");
    let after = contents(&log).expect("what was read once is read again");
    assert!(after.starts_with(&before) && after.ends_with(&batch), "a batch was lost between two starts");
    if before.is_empty() { Depth::Decoded } else { Depth::Accepted }
}

pub(super) fn segments() -> Vec<Vec<u8>> {
    let of = |disk: MemStorage| disk.contents(&Path::new(ROOT).join(SEGMENT)).expect("the first segment");
    let mut corpus = vec![of(logged(1, 1 << 20, true)), of(logged(6, 1 << 20, true)), of(logged(6, 1 << 20, false))];
    corpus.iter_mut().for_each(|file| file.truncate(super::mutate::INPUT_BYTES_MAX));
    corpus
}

/// A log of several segments with its indexes, and where they are.
fn indexed() -> &'static (MemStorage, Vec<PathBuf>, Vec<u8>) {
    static LOG: OnceLock<(MemStorage, Vec<PathBuf>, Vec<u8>)> = OnceLock::new();
    LOG.get_or_init(|| {
        let disk = logged(40, 2_048, true);
        let files = disk.files_below(Path::new(ROOT)).expect("it has files");
        let beside: Vec<_> = files.into_iter().filter(|f| f.extension().is_none_or(|e| e != "log")).collect();
        assert!(beside.len() > 1, "no index was written");
        let (log, _) = Log::open(shared(&disk.fork()), Path::new(ROOT), config()).expect("it was closed cleanly");
        let bytes = contents(&log).expect("it is whole");
        (disk, beside, bytes)
    })
}

/// Whatever an index holds, the log reads the same or says that it is damaged; whatever else stands beside the segments, it reads nothing that was not
/// written. The first byte chooses the file.
pub(super) fn index_body(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    let (disk, files, truth) = indexed();
    let disk = disk.fork();
    let file = &files[usize::from(*kind) % files.len()];
    disk.damage(file, bytes.to_vec()).expect("the file exists");
    let rebuilt = file.extension().is_some_and(|e| e == "index");
    // Not every file beside a segment can be rebuilt: one that cannot is damage, and says so.
    let Ok((log, _)) = Log::open(shared(&disk), Path::new(ROOT), config()) else {
        assert!(!rebuilt, "an index kept a log from opening");
        return Depth::Refused;
    };
    match contents(&log) {
        Some(read) if rebuilt => assert_eq!(&read, truth, "an index changed what a log holds"),
        // A state that is well formed may say that the head was dropped.
        Some(read) => assert!(truth.ends_with(&read), "a state brought up what was not written"),
        // A sealed chain hash that is a lie: what lies before it is confirmed by nothing.
        None => return Depth::Decoded,
    }
    log.offset_for_time(1_000).ok();
    Depth::Accepted
}

fn with_kind(files: &[PathBuf], disk: &MemStorage) -> Vec<Vec<u8>> {
    (0u8..)
        .zip(files)
        .map(|(kind, file)| [&[kind], &disk.contents(file).expect("it exists")[..]].concat())
        .filter(|input| input.len() <= super::mutate::INPUT_BYTES_MAX)
        .collect()
}

pub(super) fn indexes() -> Vec<Vec<u8>> {
    let (disk, files, _) = indexed();
    with_kind(files, disk)
}

/// A data directory in use: identity, state, marker, registry.
fn directory() -> &'static (MemStorage, Vec<PathBuf>) {
    static DIRECTORY: OnceLock<(MemStorage, Vec<PathBuf>)> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let disk = MemStorage::new();
        let identity =
            Identity { cluster_id: Uuid::from_u128(1), node_id: 1, role: Role::Broker, directory: Uuid::from_u128(2) };
        DataDir::format(&shared(&disk), Path::new(ROOT), &identity).expect("an empty disk");
        let data = open(&disk).expect("it was formatted");
        let boot_id = data.boot_id().expect("a healthy disk");
        let state = BrokerState { broker_epoch: 4, earlier_epoch: Some(3), boot_id };
        data.store_broker_state(&state).and_then(|()| data.mark_clean_shutdown(4)).expect("a healthy disk");
        let mut registry = Registry::open(data.storage(), &data.registry_dir()).expect("it was formatted");
        let key = PartitionKey { topic: at().topic.0, partition: 0 };
        registry.record(&[(key, Event::DirCreated)]).expect("a healthy disk");
        registry.close().expect("a healthy disk");
        drop(data);
        let files = disk.files_below(Path::new(ROOT)).expect("it has files");
        (disk, files)
    })
}

fn open(disk: &MemStorage) -> Result<DataDir, log::data_dir::DataDirError> {
    DataDir::open(shared(disk), Path::new(ROOT), &Expected { cluster_id: None, node_id: 1, role: Role::Broker })
}

/// A file of a data directory of somebody's making. The first byte chooses which.
pub(super) fn directory_body(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    let (disk, files) = directory();
    let disk = disk.fork();
    disk.damage(&files[usize::from(*kind) % files.len()], bytes.to_vec()).expect("the file exists");
    let file = StateFile::new(shared(&disk), files[usize::from(*kind) % files.len()].clone());
    let whole = file.load().is_ok();
    let Ok(data) = open(&disk) else { return if whole { Depth::Decoded } else { Depth::Refused } };
    let state = data.broker_state();
    if let Ok(Some(state)) = &state {
        data.store_broker_state(state).expect("what was read can be written");
        assert_eq!(data.broker_state().ok(), Some(Some(state.clone())));
    }
    let read = state.is_ok() && data.clean_shutdown().is_ok() && data.strays().is_ok();
    let evidence = broker::recovery::take_evidence(&data).is_ok();
    let registry = Registry::open(data.storage(), &data.registry_dir());
    let recovered = registry.is_ok_and(|mut registry| {
        broker::recovery::recover(&data, &mut registry, &broker::checkpoints::NoCheckpoints, 1).is_ok()
    });
    match (read && evidence && recovered, whole) {
        (true, _) => Depth::Accepted,
        (false, true) => Depth::Decoded,
        (false, false) => Depth::Refused,
    }
}

pub(super) fn directories() -> Vec<Vec<u8>> {
    let (disk, files) = directory();
    with_kind(files, disk)
}

fn registry_files() -> Vec<PathBuf> {
    let (_, files) = directory();
    files.iter().filter(|f| f.to_string_lossy().contains("registry")).cloned().collect()
}

/// A file of the registry of somebody's making. What one start reads, the next reads too.
pub(super) fn registry_body(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    let disk = directory().0.fork();
    let files = registry_files();
    let file = &files[usize::from(*kind) % files.len()];
    disk.damage(file, bytes.to_vec()).expect("the file exists");
    let dir = Path::new(ROOT).join("registry");
    let whole = match file.extension() {
        Some(_) => Log::open(shared(&disk.fork()), file.parent().unwrap_or(&dir), LogConfig::default()).is_ok(),
        None => StateFile::new(shared(&disk), file.clone()).load().is_ok(),
    };
    let Ok(registry) = Registry::open(&shared(&disk), &dir) else {
        return if whole { Depth::Decoded } else { Depth::Refused };
    };
    let entries: Vec<_> = registry.iter().map(|(key, entry)| (*key, *entry)).collect();
    drop(registry);
    let again = Registry::open(&shared(&disk), &dir).expect("what one start read, the next reads");
    assert_eq!(again.iter().map(|(key, entry)| (*key, *entry)).collect::<Vec<_>>(), entries);
    Depth::Accepted
}

pub(super) fn registries() -> Vec<Vec<u8>> {
    with_kind(&registry_files(), &directory().0)
}

/// Files of a controller's Raft directory and what stands in them, each as the product writes it.
pub(super) fn raft_directories() -> Vec<Vec<u8>> {
    let mut corpus = controller::fuzzing::raft_directories();
    corpus.retain(|input| input.len() <= super::mutate::INPUT_BYTES_MAX);
    corpus
}

/// Where the product makes the file itself, an entry, a vote or a marker changes; else the bytes.
pub(super) fn vary_raft_directory(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    match bytes.split_first() {
        Some((3, rest)) if !rest.is_empty() => {
            let term = [3, if rng.chance(80) { 4 } else { rng.number().to_le_bytes()[0] }];
            [&term[..], &super::services::raft_message(rng, u8::MAX)].concat()
        }
        Some((kind, rest)) if matches!(kind % 6, 1 | 2 | 4) => {
            let mut rest = rest.to_vec();
            change(rng, &mut rest);
            [&[*kind], &rest[..]].concat()
        }
        _ => super::mutate::bytes(rng, bytes),
    }
}

pub(super) fn seal_raft_directory(rng: &mut Random, bytes: &mut Vec<u8>) {
    match bytes.first().map(|kind| kind % 6) {
        Some(0) => seal::behind::<2>(rng, bytes),
        Some(5) => seal::behind::<1>(rng, bytes),
        _ => {}
    }
}

/// Two histories of epochs, one byte a record: how much its epoch grows over the one before. Everything that replication
/// asks of the tables is compared with walking the records.
pub(super) fn epochs_body(bytes: &[u8]) -> Depth {
    let Some((split, bytes)) = bytes.split_first() else { return Depth::Refused };
    let (one, two) = bytes.split_at(usize::from(*split).min(bytes.len()));
    let [ours, theirs] = [one, two].map(|steps| {
        steps
            .iter()
            .scan(0u32, |epoch, step| {
                *epoch += u32::from(step % 4).saturating_sub(1);
                Some(*epoch)
            })
            .collect::<Vec<_>>()
    });
    let (us, them) = (table(&ours), table(&theirs));
    let (our_end, their_end) = (ours.len() as u64, theirs.len() as u64);
    let common = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count() as u64;
    assert_eq!(us.common_point(our_end, &them, their_end), common);
    let mut cut = them.clone();
    let (mut end, mut rounds) = (their_end, 0);
    while let Some(answer) = us.divergence(cut.last().map(|e| e.epoch), end, our_end) {
        let to = cut.truncation_point(answer, end);
        assert!(to < end, "a follower that diverges cuts something");
        cut.truncate(to);
        end = to;
        rounds += 1;
        assert!(rounds <= 300, "the handshake does not end");
    }
    assert!(end >= common.min(their_end), "a record that both have was cut");
    for (at, epoch) in theirs.iter().enumerate().take(usize::try_from(end).unwrap_or(0)) {
        assert_eq!(cut.epoch_at(at as u64), Some(*epoch));
    }
    Depth::Accepted
}

fn table(records: &[u32]) -> EpochTable {
    let mut table = EpochTable::new();
    records.iter().enumerate().for_each(|(at, epoch)| table.assign(*epoch, at as u64));
    table
}

pub(super) fn epochs() -> Vec<Vec<u8>> {
    vec![
        [&[6u8][..], &[1, 1, 2, 1, 1, 3], &[1, 1, 2, 1, 2, 1]].concat(),
        [&[3u8][..], &[1; 3], &[1, 1, 1, 3, 2, 1]].concat(),
        [&[200u8][..], &[2; 200], &[3; 200]].concat(),
    ]
}
