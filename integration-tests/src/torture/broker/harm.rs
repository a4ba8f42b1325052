//! What damage of a broker's file may make of what a start finds.
//!
//! Owns: what each file is, which error speaks of it, and the judgement of a difference. Never: opens a file itself,
//! except through what the product offers to operators for what lies aside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use log::data_dir::{DataDir, parse_partition};
use log::inspect::inspect;
use log::registry::{Entry, Event, Registry};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use log::{Log, LogConfig, LogError};

use super::super::batch::{batch, check_lookups, read_all};
use super::super::told::{FoundLog, header};
use super::super::{Difference, Refusal, Subject};
use super::{Broker, Found, ROOT, Told, config, expected, key, topic};

/// A directory that was set aside, as the operator's tools show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stray {
    batches: Vec<Bytes>,
    damaged: bool,
    cut: bool,
}

/// Everything of a partition that was set aside; the tails of overruled logs are for people only.
pub(super) fn strays(disk: &MemStorage, data: &DataDir) -> Result<BTreeMap<PathBuf, Stray>, Refusal> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut found = BTreeMap::new();
    for dir in data.strays()? {
        if dir == broker::strays::tails_dir(data) {
            continue;
        }
        let mut batches = Vec::new();
        let report = inspect(&storage, &dir, &mut |place| batches.push(Bytes::copy_from_slice(place.bytes)))?;
        let stray = Stray { batches, damaged: report.damage.is_some(), cut: report.recovery.cut.is_some() };
        found.insert(dir, stray);
    }
    Ok(found)
}

/// Where a file belongs.
enum Place<'a> {
    Partition(u32),
    Stray(&'a Path),
    Tail,
    Registry,
    Node,
}

fn place(file: &Path) -> Place<'_> {
    let inside = file.strip_prefix(ROOT).unwrap_or(file);
    let mut parts = inside.iter().map(|part| part.to_str().unwrap_or_default());
    match (parts.next(), parts.next()) {
        (Some("partitions"), Some(name)) => {
            parse_partition(name).map_or(Place::Node, |(_, partition)| Place::Partition(partition))
        }
        (Some("strays"), Some("tails")) => Place::Tail,
        (Some("strays"), Some(_)) => file.parent().map_or(Place::Node, Place::Stray),
        (Some("registry"), Some(_)) => Place::Registry,
        _ => Place::Node,
    }
}

/// Whether a file is there for one partition.
pub(super) fn of_a_partition(file: &Path) -> bool {
    matches!(place(file), Place::Partition(_) | Place::Stray(_) | Place::Tail)
}

/// What a message about damage of this file has to name: itself, or the log that it is a part of.
pub(super) fn unit(file: &Path) -> &Path {
    match place(file) {
        Place::Partition(_) | Place::Stray(_) => file.parent().unwrap_or(file),
        Place::Registry if file.ends_with("current") => file,
        Place::Registry => file.parent().unwrap_or(file),
        Place::Tail | Place::Node => file,
    }
}

pub(super) fn kind(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let owner = match place(file) {
        Place::Partition(_) => "partition",
        Place::Stray(_) => "set aside:",
        Place::Tail => return "kept tail of an overruled log".to_owned(),
        Place::Registry => "registry",
        Place::Node => "node",
    };
    match file.extension().and_then(|e| e.to_str()) {
        Some("log") if name.starts_with("00000000000000000000") => format!("{owner} first segment"),
        Some("log") => format!("{owner} segment"),
        Some("index") => format!("{owner} index (offsets, times, epochs)"),
        _ if name == "state" => format!("{owner} log state"),
        _ => format!("{owner} {name}"),
    }
}

/// As the whole start, for the files of one partition: its log alone is opened, as the start's recovery opens it.
pub(super) fn find_again(disk: &MemStorage, before: &Found, file: &Path) -> Result<Found, Refusal> {
    let Place::Partition(partition) = place(file) else { return Broker::find(disk) };
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut found = before.clone();
    let log = match Log::open(storage, unit(file), LogConfig::default()) {
        Ok((log, _)) => {
            let (start, end, batches) = (log.start_offset(), log.end_offset(), read_all(&log)?);
            check_lookups(&log, &batches)?;
            FoundLog { start, end, batches, whole: true }
        }
        Err(LogError::Damaged(damage)) if damage.file.starts_with(unit(file)) => {
            found.aside = 1;
            found.notes.entry(key(partition)).or_default().set_aside = true;
            FoundLog { start: 0, end: 0, batches: Vec::new(), whole: false }
        }
        Err(error) => return Err(error.into()),
    };
    found.logs.insert(partition, log);
    Ok(found)
}

/// Goes on writing a little where the file belongs, cuts the power, and finds again.
pub(super) fn grows(disk: &MemStorage, found: &Found, file: &Path) -> Result<(), String> {
    let failed = |refusal: Refusal| format!("after going on: {refusal}");
    match place(file) {
        Place::Partition(partition) => log_grows(disk, &found.logs[&partition], partition).map_err(failed)?,
        Place::Stray(_) | Place::Tail | Place::Registry | Place::Node => {
            note_more(disk).map_err(failed)?;
            disk.crash(&mut || false);
            if Broker::find(disk).map_err(failed)? != *found {
                return Err("other contents after going on".to_owned());
            }
        }
    }
    Ok(())
}

fn log_grows(disk: &MemStorage, found: &FoundLog, partition: u32) -> Result<(), Refusal> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let dir = Path::new(ROOT).join("partitions").join(format!("{}-{partition}", topic()));
    let (mut log, _) = Log::open(storage.clone(), &dir, config(partition))?;
    let (end, epoch) = (log.end_offset(), log.last_epoch().unwrap_or(1));
    let more = batch(end, epoch, 1, 30, 7);
    log.append(end, &more)?;
    log.sync()?;
    drop(log);
    disk.crash(&mut || false);
    let (log, _) = Log::open(storage, &dir, LogConfig::default())?;
    let batches = read_all(&log)?;
    check_lookups(&log, &batches)?;
    let same = batches.split_last().is_some_and(|(last, rest)| *last == more && rest == found.batches);
    if same && log.start_offset() == found.start { Ok(()) } else { Err(Refusal::Failed("other contents".to_owned())) }
}

fn note_more(disk: &MemStorage) -> Result<(), Refusal> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let data = DataDir::open(storage, Path::new(ROOT), &expected())?;
    let mut registry = Registry::open(data.storage(), &data.registry_dir())?;
    registry.record(&[(key(77), Event::DirCreated), (key(77), Event::Removed)])?;
    Ok(())
}

/// Whether the start over a damaged disk says that something above an end mark was cut.
pub(super) fn reports(disk: &MemStorage, file: &Path) -> bool {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let dir = file.parent().unwrap_or(file);
    match place(file) {
        Place::Partition(_) => {
            Log::open(storage, dir, LogConfig::default()).is_ok_and(|(_, recovery)| recovery.cut.is_some())
        }
        Place::Registry => {
            let registry = Registry::open(&storage, &Path::new(ROOT).join("registry"));
            registry.is_ok_and(|registry| registry.recovery().cut.is_some())
        }
        Place::Stray(dir) => inspect(&storage, dir, &mut |_| {}).is_ok_and(|report| report.recovery.cut.is_some()),
        Place::Tail | Place::Node => false,
    }
}

/// What the difference is that damage of `file` made.
pub(super) fn differs(told: &Told, before: &Found, after: &Found, file: &Path) -> Result<Difference, String> {
    let mut rest = after.clone();
    let difference = match place(file) {
        Place::Partition(partition) => {
            let difference = partition_differs(told, before, after, partition)?;
            rest.logs.clone_from(&before.logs);
            if difference == Difference::Said {
                rest.notes.clone_from(&before.notes);
            }
            difference
        }
        Place::Stray(dir) => {
            rest.strays.clone_from(&before.strays);
            stray_differs(&before.strays[dir], after.strays.get(dir))?
        }
        Place::Registry if after.notes == told.notes_before => {
            rest.notes.clone_from(&before.notes);
            Difference::Gone { batches: 1, acknowledged: 1 }
        }
        Place::Registry => return Err(format!("the registry says {:?} without a word", after.notes)),
        Place::Tail | Place::Node => return Err("other contents without a word".to_owned()),
    };
    let others = |found: &Found, partition: u32| found.logs.keys().filter(|p| **p != partition).count();
    match place(file) {
        Place::Partition(partition) if others(after, partition) != others(before, partition) => {
            Err("another partition is gone".to_owned())
        }
        _ if rest != *before => Err("something else is changed, too".to_owned()),
        _ => Ok(difference),
    }
}

fn partition_differs(told: &Told, before: &Found, after: &Found, partition: u32) -> Result<Difference, String> {
    let (Some(old), Some(new)) = (before.logs.get(&partition), after.logs.get(&partition)) else {
        return Err("the partition is gone without a word".into());
    };
    for (other, log) in &before.logs {
        if *other != partition && after.logs.get(other) != Some(log) {
            return Err(format!("partition {other} is changed, too"));
        }
    }
    if after.aside > 0 {
        let note = before.notes.get(&key(partition)).copied().unwrap_or_default();
        let mut notes = before.notes.clone();
        notes.insert(key(partition), Entry { set_aside: true, ..note });
        let empty = FoundLog { start: 0, end: 0, batches: Vec::new(), whole: false };
        let said = *new == empty && after.notes == notes && after.aside == 1;
        return if said { Ok(Difference::Said) } else { Err(format!("set aside, and there is {new:?}")) };
    }
    if !new.whole {
        return Err("it is called lost, and nothing was set aside".to_owned());
    }
    let state = told.logs[&partition].newest();
    let floor = state.marked.max(state.durable_before);
    if let Some(why) = state.refuses_but_epochs(new, floor) {
        return Err(format!("partition {partition} {why}"));
    }
    let gone = old.batches.get(new.batches.len()..).unwrap_or_default();
    if gone.is_empty() {
        let batches = old.batches.iter().zip(&new.batches).filter(|(a, b)| a != b).count() as u64;
        return Ok(Difference::Epochs { batches });
    }
    if !old.batches.starts_with(&new.batches) {
        return Err(format!("partition {partition} lost its tail and changed what is left"));
    }
    let acknowledged = gone.iter().filter(|b| header(b).base_offset < state.durable).count() as u64;
    Ok(Difference::Gone { batches: gone.len() as u64, acknowledged })
}

fn stray_differs(old: &Stray, new: Option<&Stray>) -> Result<Difference, String> {
    match new {
        None => Err("what was set aside is gone".to_owned()),
        Some(new) if new.damaged => Ok(Difference::Said),
        Some(new) if new.cut && old.batches.starts_with(&new.batches) => {
            let batches = (old.batches.len() - new.batches.len()) as u64;
            Ok(Difference::Gone { batches, acknowledged: batches })
        }
        Some(_) => Err("what was set aside reads otherwise without a word".to_owned()),
    }
}
