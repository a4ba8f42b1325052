//! The life of a broker's data directory, scripted: everything a broker does to its disk, in small.
//!
//! Owns: the script, what it was promised, and what a start over the same directory finds. Never: looks into a file.
//! Invariant: each step tells [`Told`] before it begins and after it is done, so that a power cut at any call in between
//! finds the promise as it stood at that call.

mod harm;
mod notes;
mod script;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker::checkpoints::NoCheckpoints;
use broker::recovery::{recover, take_evidence};
use bytes::Bytes;
use log::data_dir::{BrokerState, DataDir, DataDirError, Expected, Identity, Role};
use log::registry::{Entry, Event, PartitionKey, Registry};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use log::storage::reserve::Reserve;
use log::{Log, LogConfig, LogError, make_durable};
use parking_lot::Mutex;
use protocol::ids::{TopicId, TopicPartition};
use uuid::Uuid;

use self::harm::{Stray, strays};
use self::notes::{fold, refuse_notes};
use super::batch::{batch, check_lookups, read_all};
use super::told::{FoundLog, LogState, Maybe};
use super::{Dice, Difference, Refusal, Stop, Subject};

pub(super) const ROOT: &str = "/node";

/// Partitions of the script.
const PARTITIONS: u32 = 4;

/// Bytes of the reserve; nobody reads them.
const RESERVE_BYTES: u64 = 700;

/// What the broker was promised.
#[derive(Debug, Clone)]
pub struct Told {
    formatted: Maybe<bool>,
    epoch: Maybe<Option<u64>>,
    clean: Maybe<Option<u64>>,
    notes: Maybe<BTreeMap<PartitionKey, Entry>>,
    /// The notes before the last one: the end mark of the last one lies within its own flush.
    notes_before: BTreeMap<PartitionKey, Entry>,
    logs: BTreeMap<u32, Maybe<LogState>>,
}

impl Default for Told {
    fn default() -> Self {
        Told {
            formatted: Maybe::is(false),
            epoch: Maybe::is(None),
            clean: Maybe::is(None),
            notes: Maybe::is(BTreeMap::new()),
            notes_before: BTreeMap::new(),
            logs: BTreeMap::new(),
        }
    }
}

/// What a start finds.
#[derive(Debug, Clone)]
pub struct Found {
    epoch: Option<u64>,
    clean: Option<u64>,
    notes: BTreeMap<PartitionKey, Entry>,
    logs: BTreeMap<u32, FoundLog>,
    /// Directories that were set aside as damaged by this start.
    aside: usize,
    /// What lay aside before it.
    strays: BTreeMap<PathBuf, Stray>,
}

/// The broker's directory as a subject of torture.
#[derive(Debug)]
pub struct Broker;

fn topic() -> Uuid {
    Uuid::from_u128(0x7067)
}

fn key(partition: u32) -> PartitionKey {
    PartitionKey { topic: topic(), partition }
}

fn identity() -> Identity {
    Identity { cluster_id: Uuid::from_u128(1), node_id: 3, role: Role::Broker, directory: Uuid::from_u128(2) }
}

fn expected() -> Expected {
    Expected { cluster_id: Some(Uuid::from_u128(1)), node_id: 3, role: Role::Broker }
}

/// Small segments; odd partitions reserve no room.
fn config(partition: u32) -> LogConfig {
    let preallocate = partition.is_multiple_of(2);
    LogConfig { segment_bytes: 4096 + 900, index_interval_bytes: 200, preallocate, ..LogConfig::default() }
}

struct Life<'a> {
    told: &'a Mutex<Told>,
    /// The only partition there is; `None`: all of them.
    only: Option<u32>,
    data: DataDir,
    registry: Registry,
    logs: BTreeMap<u32, Log>,
    salt: u64,
    dice: Dice,
}

impl Life<'_> {
    fn skips(&self, partition: u32) -> bool {
        self.only.is_some_and(|only| only != partition)
    }

    fn note(&mut self, partition: u32, event: Event) -> Result<(), Stop> {
        if self.skips(partition) {
            return Ok(());
        }
        let mut notes = self.told.lock().notes.newest().clone();
        let before = notes.clone();
        fold(&mut notes, key(partition), event);
        self.told.lock().notes.begin(notes);
        // A refused note may be in the registry's memory already; its writer asks again until there is room.
        let mut recorded = self.registry.record(&[(key(partition), event)]);
        if let Err(LogError::DiskFull { .. }) = &recorded {
            recorded = self.registry.record(&[(key(partition), event)]);
        }
        recorded.map_err(|e| Stop::Dead(e.to_string()))?;
        let mut told = self.told.lock();
        told.notes.done();
        told.notes_before = before;
        Ok(())
    }

    /// Runs a change of one log between telling and being told.
    fn change<T>(
        &mut self,
        partition: u32,
        next: impl FnOnce(&LogState) -> LogState,
        work: impl FnOnce(&mut Log) -> Result<T, LogError>,
    ) -> Result<T, Stop> {
        let after = next(self.told.lock().logs[&partition].newest());
        if let Some(states) = self.told.lock().logs.get_mut(&partition) {
            // What is about to go is promised no longer.
            let end = after.end().max(after.start);
            states.all_mut().iter_mut().for_each(|s| {
                s.durable = s.durable.min(end);
                s.durable_before = s.durable_before.min(end);
                s.marked = s.marked.min(end);
            });
            states.begin(after);
        }
        let done = work(self.logs.get_mut(&partition).expect("the script opened it"));
        let mut told = self.told.lock();
        let states = told.logs.get_mut(&partition).expect("the script opened it");
        match &done {
            Ok(_) => states.done(),
            Err(LogError::DiskFull { .. }) => states.refused(),
            Err(_) => {}
        }
        Ok(done?)
    }

    fn open(&mut self, partition: u32) -> Result<(), Stop> {
        if self.skips(partition) {
            return Ok(());
        }
        let dir = self.data.partition_dir(topic(), partition);
        let (log, _) = Log::open(self.data.storage().clone(), &dir, config(partition))?;
        self.told.lock().logs.entry(partition).or_insert_with(|| Maybe::is(LogState::new()));
        self.logs.insert(partition, log);
        Ok(())
    }

    fn append(&mut self, partition: u32, batches: u32, epoch: u32) -> Result<(), Stop> {
        if self.skips(partition) {
            return Ok(());
        }
        for _ in 0..batches {
            let log = self.logs.get_mut(&partition).expect("the script opened it");
            let records = 1 + self.dice.below(3) as usize;
            let payload = 10 + self.dice.below(150) as usize;
            self.salt += 1;
            let bytes = Bytes::from(batch(log.end_offset(), epoch, records, payload, self.salt));
            let appended = log.append(log.end_offset(), &bytes);
            // A batch whose append failed half way may be there, whole: nobody gave a promise about it.
            let mut told = self.told.lock();
            let states = told.logs.get_mut(&partition).expect("the script opened it");
            match appended {
                Ok(()) => states.all_mut().iter_mut().for_each(|s| s.batches.push(bytes.clone())),
                Err(LogError::DiskFull { .. }) => return Err(Stop::Full),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn flush(&mut self, partition: u32) -> Result<(), Stop> {
        if self.skips(partition) {
            return Ok(());
        }
        let log = self.logs.get_mut(&partition).expect("the script opened it");
        let Some(job) = log.flush_job() else { return Ok(()) };
        for done in make_durable(vec![job]) {
            if let Some(upto) = log.flushed(done?)? {
                self.told.lock().logs.get_mut(&partition).expect("told").newest_mut().flushed(upto);
            }
        }
        Ok(())
    }

    fn idle(&mut self, partition: u32) -> Result<(), Stop> {
        if self.skips(partition) {
            return Ok(());
        }
        self.flush(partition)?;
        let log = self.logs.get_mut(&partition).expect("the script opened it");
        log.idle_mark()?;
        let end = log.durable_end();
        self.told.lock().logs.get_mut(&partition).expect("told").newest_mut().marked = end;
        Ok(())
    }

    fn truncate(&mut self, partition: u32, back: u64) -> Result<(), Stop> {
        if self.skips(partition) {
            return Ok(());
        }
        let log = &self.logs[&partition];
        let to = log.end_offset().saturating_sub(back).max(log.start_offset() + 4).min(log.end_offset());
        self.change(partition, |s| s.truncated(to), |log| log.truncate(to))?;
        Ok(())
    }

    fn drop_head(&mut self, partition: u32, forward: u64) -> Result<(), Stop> {
        if self.skips(partition) {
            return Ok(());
        }
        let log = &self.logs[&partition];
        let to = (log.start_offset() + forward).min(log.durable_end());
        self.change(partition, |s| s.without_head(to), |log| log.drop_head(to))?;
        Ok(())
    }

    fn store_epoch(&mut self, epoch: u64) -> Result<(), Stop> {
        self.told.lock().epoch.begin(Some(epoch));
        let boot_id = self.data.boot_id()?;
        let stored = self.data.store_broker_state(&BrokerState { broker_epoch: epoch, earlier_epoch: None, boot_id });
        let mut told = self.told.lock();
        match &stored {
            Ok(()) => told.epoch.done(),
            Err(LogError::DiskFull { .. }) => told.epoch.refused(),
            Err(_) => {}
        }
        Ok(stored?)
    }

    /// Sets a partition aside and begins it anew.
    fn begin_anew(&mut self, partition: u32) -> Result<(), Stop> {
        if self.skips(partition) {
            return Ok(());
        }
        if let Some(states) = self.told.lock().logs.get_mut(&partition) {
            states.begin(LogState { given_up: true, ..LogState::new() });
        }
        self.logs.remove(&partition);
        self.data.set_aside(topic(), partition)?;
        script::or_full(self.note(partition, Event::SetAside))?;
        script::or_full(self.note(partition, Event::DirCreated))?;
        self.told.lock().logs.insert(partition, Maybe::is(LogState::new()));
        self.open(partition)
    }

    /// Throws a partition's log away, its tail kept aside, for one that begins at `start`.
    fn reset(&mut self, partition: u32, start: u64) -> Result<(), Stop> {
        if self.skips(partition) {
            return Ok(());
        }
        let at = TopicPartition { topic: TopicId(topic()), partition };
        let log = &self.logs[&partition];
        broker::strays::keep_tail(log, &self.data, at, log.end_offset().saturating_sub(5))?;
        let fresh = |s: &LogState| LogState { start, ..LogState { given_up: s.given_up, ..LogState::new() } };
        self.change(partition, fresh, |log| log.reset(start))
    }

    fn close(mut self, epoch: u64) -> Result<(), Stop> {
        for (partition, log) in std::mem::take(&mut self.logs) {
            let end = log.end_offset();
            log.close_clean()?;
            let mut told = self.told.lock();
            let state = told.logs.get_mut(&partition).expect("told").newest_mut();
            state.flushed(end);
            state.marked = end;
        }
        self.registry.close()?;
        self.told.lock().clean.begin(Some(epoch));
        self.data.mark_clean_shutdown(epoch)?;
        self.told.lock().clean.done();
        Ok(())
    }
}

/// Whether it is held makes no difference to anything that is stored.
fn hold_reserve(storage: &Arc<dyn Storage>) {
    let reserve = Reserve::new(storage.clone(), Path::new(ROOT).join("reserve"), RESERVE_BYTES);
    if !reserve.adopt().unwrap_or(false) {
        reserve.hold().ok();
    }
}

fn start<'a>(disk: &MemStorage, told: &'a Mutex<Told>, seed: u64, only: Option<u32>) -> Result<Life<'a>, Stop> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let data = DataDir::open(storage, Path::new(ROOT), &expected())?;
    hold_reserve(data.storage());
    take_evidence(&data)?;
    let registry = Registry::open(data.storage(), &data.registry_dir())?;
    told.lock().clean.begin(None);
    data.clear_clean_shutdown()?;
    told.lock().clean.done();
    Ok(Life { told, only, data, registry, logs: BTreeMap::new(), salt: 0, dice: Dice(seed) })
}

fn format(disk: &MemStorage, told: &Mutex<Told>) -> Result<(), Stop> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    told.lock().formatted.begin(true);
    DataDir::format(&storage, Path::new(ROOT), &identity())?;
    told.lock().formatted.done();
    Ok(())
}

fn live(disk: &MemStorage, told: &Mutex<Told>, seed: u64, stage: u32, only: Option<u32>) -> Result<(), Stop> {
    format(disk, told)?;
    let mut life = start(disk, told, seed, only)?;
    script::first_life(&mut life)?;
    if stage == 0 {
        return Ok(());
    }
    life.close(5)?;
    if stage == 1 {
        return Ok(());
    }
    let mut life = start(disk, told, seed ^ 1, only)?;
    life.salt = 1000;
    script::second_life(&mut life)
}

impl Subject for Broker {
    type Told = Told;
    type Found = Found;
    const NAME: &'static str = "broker";

    /// The four partitions each in a node of its own, and a node with all of them for the files that they share.
    const PARTS: u32 = PARTITIONS + 1;

    fn live(disk: &MemStorage, told: &Mutex<Told>, seed: u64) -> Result<(), Stop> {
        live(disk, told, seed, Self::STAGES - 1, None)
    }

    fn stop(disk: &MemStorage, told: &Mutex<Told>, seed: u64, stage: u32, part: u32) -> Result<(), Stop> {
        live(disk, told, seed, stage, Some(part).filter(|part| *part < PARTITIONS))
    }

    fn harmed(part: u32, file: &Path) -> bool {
        harm::of_a_partition(file) == (part < PARTITIONS)
    }

    fn find(disk: &MemStorage) -> Result<Found, Refusal> {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let data = match DataDir::open(storage, Path::new(ROOT), &expected()) {
            Err(DataDirError::Unformatted { .. }) => return Err(Refusal::NothingThere),
            other => other?,
        };
        hold_reserve(data.storage());
        let before = data.strays()?.len();
        let lying_aside = strays(disk, &data)?;
        let evidence = take_evidence(&data)?;
        let mut registry = Registry::open(data.storage(), &data.registry_dir())?;
        let recovered = recover(&data, &mut registry, &NoCheckpoints, 1)?;
        let mut logs = BTreeMap::new();
        for (at, opened) in &recovered.partitions {
            let found = recovered.found.get(at).copied();
            let (batches, log) = (read_all(&opened.log)?, &opened.log);
            check_lookups(log, &batches)?;
            let whole = found.is_some_and(|f| f.whole);
            let (start, end) = (log.start_offset(), log.end_offset());
            logs.insert(at.partition, FoundLog { start, end, batches, whole });
        }
        let notes = registry.iter().map(|(key, entry)| (*key, *entry)).collect();
        let aside = data.strays()?.len() - before;
        let epoch = Some(evidence.epoch).filter(|epoch| *epoch > 0);
        Ok(Found { epoch, clean: evidence.clean, notes, logs, aside, strays: lying_aside })
    }

    fn find_again(disk: &MemStorage, before: &Found, file: &Path) -> Result<Found, Refusal> {
        harm::find_again(disk, before, file)
    }

    fn refuse(told: &Told, found: &Result<Found, Refusal>) -> Option<String> {
        let found = match found {
            Err(Refusal::NothingThere) if told.formatted.allows(&false) => return None,
            Err(refusal) => return Some(format!("the directory does not open: {refusal}")),
            Ok(found) => found,
        };
        let damaged = found.logs.iter().find(|(partition, log)| {
            let states = told.logs.get(partition);
            !log.whole && states.is_some_and(|states| states.refuse(log).is_some())
        });
        match damaged {
            Some((partition, _)) => Some(format!("partition {partition} is called damaged or lost")),
            None => Broker::unsaid(told, found, false),
        }
    }

    fn unsaid(told: &Told, found: &Found, but_last_flush: bool) -> Option<String> {
        if !told.epoch.allows(&found.epoch) {
            return Some(format!("broker epoch {:?}, not of {:?}", found.epoch, told.epoch));
        }
        if !told.clean.allows(&found.clean) {
            return Some(format!("clean shutdown {:?}, not of {:?}", found.clean, told.clean));
        }
        for (partition, states) in &told.logs {
            let nothing = FoundLog { start: 0, end: 0, batches: Vec::new(), whole: true };
            let log = found.logs.get(partition).unwrap_or(&nothing);
            let newest = states.newest();
            let floor = newest.marked.max(newest.durable_before);
            let less = but_last_flush && newest.refuses(log, floor).is_none();
            if let Some(why) = states.refuse(log).filter(|_| log.whole && !less) {
                return Some(format!("partition {partition} {why}"));
            }
        }
        refuse_notes(told, found)
    }

    fn unshown(first: &Found, again: &Found) -> Option<String> {
        if (first.epoch, first.clean, &first.notes) != (again.epoch, again.clean, &again.notes) {
            let show = |f: &Found| format!("{:?} {:?} {:?}", f.epoch, f.clean, f.notes);
            return Some(format!("records: {} then {}", show(first), show(again)));
        }
        // That a log is empty was no promise.
        let shown = first.logs.iter().filter(|(_, log)| log.end > 0);
        let gone = shown.filter(|(partition, log)| again.logs.get(partition) != Some(*log)).map(|(partition, log)| {
            let show =
                |l: &FoundLog| format!("{}..{} of {} batches, whole {}", l.start, l.end, l.batches.len(), l.whole);
            format!("partition {partition}: {} then {:?}", show(log), again.logs.get(partition).map(show))
        });
        gone.reduce(|a, b| format!("{a}; {b}"))
    }

    fn grows(disk: &MemStorage, found: &Found, file: &Path) -> Result<(), String> {
        harm::grows(disk, found, file)
    }

    fn differs(told: &Told, before: &Found, after: &Found, file: &Path) -> Result<Difference, String> {
        harm::differs(told, before, after, file)
    }

    fn reports(disk: &MemStorage, file: &Path) -> bool {
        harm::reports(disk, file)
    }

    fn unit(file: &Path) -> &Path {
        harm::unit(file)
    }

    fn kind(file: &Path) -> String {
        harm::kind(file)
    }
}

impl PartialEq for Found {
    /// Whether this start or the one before it set a directory aside makes no difference.
    fn eq(&self, other: &Found) -> bool {
        let parts = |f: &Found| (f.epoch, f.clean);
        let same = self.notes == other.notes && self.logs == other.logs && self.strays == other.strays;
        same && parts(self) == parts(other)
    }
}
