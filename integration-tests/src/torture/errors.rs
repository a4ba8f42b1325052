//! Errors at every call to the disk: the call fails, there is no room, half of it is done.
//!
//! Owns: the calls, the faults, the list of sites. Never: knows which call matters.
//! Invariant: whatever fails, the life ends with an error or goes on; and a start afterwards finds what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log::storage::memory::{Call, Fault, MemStorage, Op};
use parking_lot::Mutex;

use super::crash::{Outcome, judge};
use super::{Subject, without_panic};

/// A kind of call to a kind of file.
pub(super) type Site = (Op, String);

/// What was tried.
#[derive(Debug, Default)]
pub struct Errors {
    /// Lives with one failed call.
    pub runs: u64,
    /// Sites that a healthy life has.
    pub(super) sites: BTreeSet<Site>,
    /// Faults that took effect, per site.
    pub(super) hit: BTreeMap<Site, u64>,
    /// What was wrong.
    pub wrong: Vec<String>,
}

impl Errors {
    /// Sites whose calls never failed.
    #[must_use]
    pub fn missed(&self) -> Vec<String> {
        let missed = self.sites.iter().filter(|site| !self.hit.contains_key(*site));
        missed.map(|(op, kind)| format!("{op:?} of {kind}")).collect()
    }
}

#[derive(Debug, Clone, Copy)]
enum Error {
    Io,
    NoRoom,
    Short,
}

fn site<S: Subject>(call: &Call<'_>) -> Site {
    let names = matches!(call.op, Op::SyncDir | Op::CreateDir | Op::RemoveDir | Op::List);
    let name = call.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let inside = call.path.parent().is_some_and(|p| p.ends_with("partitions") || p.ends_with("strays"));
    let kind = match (names, inside) {
        (_, true) => "a partition's directory".to_owned(),
        (true, false) => format!("directory {name}"),
        (false, false) if name.ends_with(".tmp") => {
            format!("{} being written", S::kind(Path::new(&name[..name.len() - 4])))
        }
        (false, false) => S::kind(call.path),
    };
    (call.op, kind)
}

/// Whether such a call can fail in such a way.
fn applies(error: Error, op: Op) -> bool {
    match error {
        Error::Io => true,
        Error::NoRoom => op.takes_room() || op == Op::Sync || op == Op::Rename || op == Op::SyncDir,
        Error::Short => op == Op::Write,
    }
}

fn fault(error: Error, len: usize) -> Fault {
    match error {
        Error::Io => Fault::Fail(io::Error::other("the disk fails")),
        Error::NoRoom => Fault::Fail(io::ErrorKind::StorageFull.into()),
        Error::Short => Fault::Short(len / 2, io::Error::other("the disk fails half way")),
    }
}

/// One life in which call `number` fails. True: it was made.
fn fail_one<S: Subject>(seed: u64, number: u64, error: Error, sum: &Mutex<Errors>) -> bool {
    let disk = MemStorage::new();
    let told: Mutex<S::Told> = Mutex::default();
    let hit: Arc<Mutex<Option<Site>>> = Arc::default();
    let (made, noted) = (Arc::new(AtomicU64::new(0)), hit.clone());
    let reached = made.clone();
    disk.set_hook(Some(Box::new(move |call| {
        if call.number != number {
            return None;
        }
        reached.store(1, Ordering::Relaxed);
        if !applies(error, call.op) {
            return None;
        }
        *noted.lock() = Some(site::<S>(call));
        Some(fault(error, call.len))
    })));
    let lived = without_panic(|| S::live(&disk, &told, seed));
    disk.set_hook(None);
    let Some(site) = hit.lock().take() else { return made.load(Ordering::Relaxed) == 1 };
    let name = format!("{} seed {seed}, call {number} ({site:?}) fails with {error:?}", S::NAME);
    let mut wrong: Vec<String> = lived.err().map(|panic| format!("{name}: {panic}")).into_iter().collect();
    for outcome in [Outcome::Nothing, Outcome::Everything, Outcome::Kill] {
        let after = disk.fork();
        outcome.cut(&after, number);
        if let Err(why) = judge::<S>(&after, &told.lock()) {
            wrong.push(format!("{name}, then {outcome:?}: {why}"));
        }
    }
    let mut sum = sum.lock();
    sum.runs += 1;
    *sum.hit.entry(site).or_insert(0) += 1;
    sum.wrong.extend(wrong);
    true
}

/// Fails every `step`-th call of a life in every way, one life each, and every site at least once.
#[must_use]
pub fn fail_everywhere<S: Subject>(seed: u64, step: u64, jobs: usize) -> Errors {
    let disk = MemStorage::new();
    let calls: Arc<Mutex<Vec<Site>>> = Arc::default();
    let seen = calls.clone();
    disk.set_hook(Some(Box::new(move |call| {
        seen.lock().push(site::<S>(call));
        None
    })));
    drop(S::live(&disk, &Mutex::default(), seed));
    disk.set_hook(None);
    let calls = std::mem::take(&mut *calls.lock());
    let mut known = BTreeSet::new();
    let chosen: Vec<u64> = (0u64..)
        .zip(&calls)
        .filter(|(number, site)| known.insert((*site).clone()) || number.is_multiple_of(step))
        .map(|(number, _)| number)
        .collect();
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Errors { sites: known, ..Errors::default() }));
    let work = || {
        while let Some(number) = chosen.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            for error in [Error::Io, Error::NoRoom, Error::Short] {
                fail_one::<S>(seed, *number, error, &sum);
            }
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    sum.into_inner()
}

/// For planted bugs: a sync of file contents fails once; the life goes on as it likes; then the power is cut.
pub(super) fn fail_a_sync<S: Subject>(seed: u64, number: u64) -> Result<(), String> {
    let disk = MemStorage::new();
    let told: Mutex<S::Told> = Mutex::default();
    let syncs = AtomicU64::new(0);
    disk.set_hook(Some(Box::new(move |call| {
        let hit = call.op == Op::Sync && syncs.fetch_add(1, Ordering::Relaxed) == number;
        hit.then(|| Fault::Fail(io::Error::other("the disk fails")))
    })));
    drop(S::live(&disk, &told, seed));
    Outcome::Nothing.cut(&disk, number);
    judge::<S>(&disk, &told.lock())
}
