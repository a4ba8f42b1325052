//! Which partitions ever had data in this directory, and under which flush policy.
//!
//! Owns: [`Registry`], an append-only, synced log of events per partition, and its compaction at open.
//! Never: looks at a partition's files, decides what follows from an entry.
//! Invariant: an event is durable before what it announces is acted on. `DirCreated` before a partition's first
//! record is acknowledged, `PolicyNoted` before the new policy is followed.
//! Why it exists: a partition's directory is made at its first append, so an absent directory means either "never
//! had data" (provably empty) or "somebody deleted it" (everything is lost). Only a record kept elsewhere can tell.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::batch::{self, BatchBuilder, Compression, Limits};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::engine::{Log, LogConfig, Verify};
use crate::error::{Damage, LogError};
use crate::flush::{FlushJob, Flushed};
use crate::limits::{REGISTRY_BATCH_EVENTS, REGISTRY_COMPACTION_EVENTS};
use crate::recovery::Recovery;
use crate::slot_file::StateFile;
use crate::storage::{Storage, remove_tree};

/// A partition of a topic, by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PartitionKey {
    /// Topic id.
    pub topic: Uuid,
    /// Partition number.
    pub partition: u32,
}

/// When records of a partition are made durable (DESIGN section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Before they are acknowledged.
    Sync,
    /// Every so often.
    Interval,
    /// Whenever the operating system likes.
    Os,
}

/// Something that happened to a partition's data here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Its directory is about to be made, for its first append.
    DirCreated,
    /// From now on this policy is followed; `Sync` after a full sync.
    PolicyNoted(Policy),
    /// Its data were deleted by a committed fact.
    Removed,
    /// Its directory was moved out of the way.
    SetAside,
}

/// What is known about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// Data may exist, or may have existed: an absent directory is a loss.
    pub dir_created: bool,
    /// The policy last noted.
    pub policy: Option<Policy>,
    /// Data were moved away since.
    pub set_aside: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum Line {
    /// First of every registry log, so that an empty one is damage.
    Begin,
    Event(PartitionKey, Event),
}

/// The registry of one data directory.
#[derive(Debug)]
pub struct Registry {
    log: Log,
    recovery: Recovery,
    entries: BTreeMap<PartitionKey, Entry>,
}

fn fold(entries: &mut BTreeMap<PartitionKey, Entry>, key: PartitionKey, event: Event) {
    match event {
        Event::DirCreated => {
            let entry = entries.entry(key).or_default();
            entry.dir_created = true;
            entry.set_aside = false;
        }
        Event::PolicyNoted(policy) => entries.entry(key).or_default().policy = Some(policy),
        Event::SetAside => entries.entry(key).or_default().set_aside = true,
        Event::Removed => {
            entries.remove(&key);
        }
    }
}

/// The shortest list of events that folds to an entry.
fn unfold(entry: &Entry) -> impl Iterator<Item = Event> {
    let created = entry.dir_created.then_some(Event::DirCreated);
    let policy = entry.policy.map(Event::PolicyNoted);
    created.into_iter().chain(policy).chain(entry.set_aside.then_some(Event::SetAside))
}

fn config() -> LogConfig {
    // No reservation: a note on a full disk is a small write, which may use what is kept back for it.
    LogConfig { verify: Verify::Everything, preallocate: false, ..LogConfig::default() }
}

fn log_dir(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log-{number}"))
}

fn current_file(storage: &Arc<dyn Storage>, dir: &Path) -> StateFile {
    StateFile::new(storage.clone(), dir.join("current"))
}

fn append_lines(log: &mut Log, lines: impl IntoIterator<Item = Line>) -> Result<(), LogError> {
    let lines: Vec<Line> = lines.into_iter().collect();
    for chunk in lines.chunks(REGISTRY_BATCH_EVENTS) {
        let mut builder = BatchBuilder::new(Compression::None);
        for line in chunk {
            let bytes = postcard::to_stdvec(line).expect("plain events always serialise");
            builder.push(0, None, Some(&bytes), &[])?;
        }
        let mut bytes = builder.build()?;
        batch::stamp(&mut bytes, log.end_offset(), 0);
        log.append(log.end_offset(), &bytes)?;
    }
    Ok(())
}

impl Registry {
    /// Makes an empty registry in `dir`, which exists; durable on return. Part of formatting.
    pub(crate) fn create(storage: &Arc<dyn Storage>, dir: &Path) -> Result<(), LogError> {
        // Leftovers of a formatting that did not finish.
        write_log(storage, dir, 0, std::iter::empty())?;
        current_file(storage, dir).store(&0u64.to_le_bytes())
    }

    /// Opens the registry in `dir`, reading all of it; compacts it if most of it is dead.
    pub fn open(storage: &Arc<dyn Storage>, dir: &Path) -> Result<Registry, LogError> {
        let current = current_file(storage, dir);
        let damaged = |what: &str| LogError::from(Damage::new(current.path(), 0, what));
        let bytes = current.load()?.ok_or_else(|| damaged("the record that names the registry's log is missing"))?;
        let number = u64::from_le_bytes(bytes.try_into().map_err(|_| damaged("record is no log number"))?);
        let (log, recovery) = Log::open(storage.clone(), &log_dir(dir, number), config())?;
        if let Some(cut) = &recovery.cut {
            let (bytes, file) = (cut.bytes, cut.file.display());
            tracing::warn!(bytes, %file, position = cut.position, reason = cut.reason, "a torn tail of the registry was cut");
        }
        let entries = replay(&log)?;
        let mut registry = Registry { log, recovery, entries };
        let current = registry.compact(storage, dir, number)?;
        remove_others(storage, dir, current)?;
        Ok(registry)
    }

    fn compact(&mut self, storage: &Arc<dyn Storage>, dir: &Path, number: u64) -> Result<u64, LogError> {
        let live: u64 = self.entries.values().map(|e| unfold(e).count() as u64).sum();
        let dead = self.log.end_offset().saturating_sub(live + 1);
        if dead <= live.max(REGISTRY_COMPACTION_EVENTS) {
            return Ok(number);
        }
        let lines = self.entries.iter().flat_map(|(key, entry)| unfold(entry).map(|event| Line::Event(*key, event)));
        self.log = write_log(storage, dir, number + 1, lines)?;
        current_file(storage, dir).store(&(number + 1).to_le_bytes())?;
        Ok(number + 1)
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// What is known about a partition; `None`: it never had data here, or they were removed by a committed fact.
    pub fn get(&self, key: &PartitionKey) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&PartitionKey, &Entry)> {
        self.entries.iter()
    }

    /// Notes events durably: one sync for all of them, on this thread.
    pub fn record(&mut self, events: &[(PartitionKey, Event)]) -> Result<(), LogError> {
        self.append(events)?;
        self.log.sync()
    }

    /// Notes events without waiting; they count once [`Registry::durable_end`] has reached the offset returned.
    pub fn append(&mut self, events: &[(PartitionKey, Event)]) -> Result<u64, LogError> {
        append_lines(&mut self.log, events.iter().map(|(key, event)| Line::Event(*key, *event)))?;
        events.iter().for_each(|(key, event)| fold(&mut self.entries, *key, *event));
        Ok(self.log.end_offset())
    }

    /// As [`Log::flush_job`].
    pub fn flush_job(&self) -> Option<FlushJob> {
        self.log.flush_job()
    }

    /// As [`Log::flushed`].
    pub fn flushed(&mut self, flushed: Flushed) -> Result<Option<u64>, LogError> {
        self.log.flushed(flushed)
    }

    /// Offset up to which events are durable.
    pub fn durable_end(&self) -> u64 {
        self.log.durable_end()
    }

    /// Closes it cleanly.
    pub fn close(self) -> Result<(), LogError> {
        self.log.close_clean()
    }
}

fn replay(log: &Log) -> Result<BTreeMap<PartitionKey, Entry>, LogError> {
    let limits = Limits::default();
    let mut entries = BTreeMap::new();
    let mut at = log.start_offset();
    let damaged = |what: String| LogError::from(Damage::new(log.dir(), 0, what));
    if log.end_offset() == 0 {
        return Err(damaged("the registry's log is empty, but it was begun when the directory was formatted".into()));
    }
    while at < log.end_offset() {
        for one in batch::batches(&log.read(at, limits.max_batch_bytes, u64::MAX, true)?) {
            let records = batch::records(&one?, &limits)?;
            let next = records.header().next_offset();
            for stored in records {
                let stored = stored?;
                let line = postcard::from_bytes(stored.record.value.as_deref().unwrap_or_default());
                match line.map_err(|e| damaged(format!("event {} does not decode: {e}", stored.offset)))? {
                    Line::Begin => {}
                    Line::Event(key, event) => fold(&mut entries, key, event),
                }
            }
            // Not after its last record: a batch may end beyond it, and would be read again for ever.
            at = next;
        }
    }
    Ok(entries)
}

/// Writes a fresh log with the given lines, durably. Whatever an unfinished attempt left there goes first.
fn write_log(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    number: u64,
    lines: impl Iterator<Item = Line>,
) -> Result<Log, LogError> {
    let path = log_dir(dir, number);
    remove_tree(&**storage, &path).map_err(LogError::io("remove", &path))?;
    let (mut log, _) = Log::open(storage.clone(), &path, config())?;
    append_lines(&mut log, std::iter::once(Line::Begin).chain(lines))?;
    log.sync()?;
    Ok(log)
}

/// Logs that compaction replaced, or did not finish.
fn remove_others(storage: &Arc<dyn Storage>, dir: &Path, current: u64) -> Result<(), LogError> {
    for entry in storage.list(dir).map_err(LogError::read(dir))? {
        let number = entry.name.strip_prefix("log-").and_then(|n| n.parse::<u64>().ok());
        if entry.is_dir && number.is_some_and(|n| n != current) {
            let path = dir.join(&entry.name);
            remove_tree(&**storage, &path).map_err(LogError::io("remove", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
