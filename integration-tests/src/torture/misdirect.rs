//! Writes that land elsewhere while the node lives, and report success.
//!
//! Owns: the writes, where they land, the count. Never: knows which write matters.
//! Invariant: what was promised is there, or the start says what is damaged. A node that notices earlier and stops has said
//! so, and its start is judged all the same. The exception: an end mark that lands on the very records that it would have
//! covered takes the last flush with it, and the start reports a cut.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::storage::memory::{Fault, MemStorage, Op, SECTOR_BYTES};
use parking_lot::Mutex;

use super::{Refusal, Subject, without_panic};

/// Sectors at the beginning of a file in which any of its writes may land.
const FRONT: [u64; 4] = [0, 2, 4, 8];

/// What was tried.
#[derive(Debug, Default)]
pub struct Misdirected {
    /// Lives with one write elsewhere, by the kind of file it was meant for.
    pub runs: BTreeMap<String, u64>,
    /// Starts that said what is damaged.
    pub detected: u64,
    /// Starts that found what was promised.
    pub harmless: u64,
    /// Starts that reported a cut, of the last flush at most.
    pub cut: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
}

/// A write of a life, and a place where it may land.
struct Astray {
    call: u64,
    meant: PathBuf,
    lands: (PathBuf, u64),
}

/// Every `step`-th write of a life, in every place: the sectors before and behind its own in the same file, some at the
/// beginning of that file, and its own place in the other file that was written last.
fn astray<S: Subject>(seed: u64, step: usize) -> Vec<Astray> {
    let disk = MemStorage::new();
    let writes: Arc<Mutex<Vec<(u64, PathBuf, u64)>>> = Arc::default();
    let seen = writes.clone();
    disk.set_hook(Some(Box::new(move |call| {
        if call.op == Op::Write {
            seen.lock().push((call.number, call.path.to_owned(), call.position));
        }
        None
    })));
    drop(S::live(&disk, &Mutex::default(), seed));
    disk.set_hook(None);
    let writes = std::mem::take(&mut *writes.lock());
    let mut all = Vec::new();
    for (at, (call, path, position)) in writes.iter().enumerate().step_by(step.max(1)) {
        let other = writes[..at].iter().rev().map(|(_, other, _)| other).find(|other| *other != path);
        let beside = [position.checked_sub(SECTOR_BYTES), Some(position + SECTOR_BYTES)];
        let front = FRONT.map(|sector| sector * SECTOR_BYTES);
        let same = beside.into_iter().flatten().chain(front).filter(|to| to != position).map(|to| (path.clone(), to));
        let lands = same.chain(other.map(|other| (other.clone(), *position)));
        all.extend(lands.map(|lands| Astray { call: *call, meant: path.clone(), lands }));
    }
    all
}

enum Verdict {
    Detected,
    Harmless,
    Cut,
}

fn lead_astray<S: Subject>(seed: u64, astray: &Astray) -> Result<Verdict, String> {
    let disk = MemStorage::new();
    let told: Mutex<S::Told> = Mutex::default();
    let (call, lands) = (astray.call, astray.lands.clone());
    disk.set_hook(Some(Box::new(move |made| {
        (made.number == call).then(|| Fault::Elsewhere(lands.0.clone(), lands.1))
    })));
    drop(without_panic(|| S::live(&disk, &told, seed))?);
    disk.crash(&mut || true);
    let told = told.into_inner();
    let stopped = disk.fork();
    let found = without_panic(|| S::find(&disk))?;
    if S::refuse(&told, &found).is_none() {
        return Ok(Verdict::Harmless);
    }
    match &found {
        Err(Refusal::Damaged { .. }) => Ok(Verdict::Detected),
        Err(Refusal::Failed(text)) if text.contains("damaged") => Ok(Verdict::Detected),
        Err(refusal) => Err(format!("refused without a word of damage: {refusal}")),
        Ok(found) => match S::unsaid(&told, found, false) {
            None => Ok(Verdict::Detected),
            Some(why) if S::unsaid(&told, found, true).is_some() || !S::reports(&stopped, &astray.lands.0) => Err(why),
            Some(_) => Ok(Verdict::Cut),
        },
    }
}

/// Leads every `step`-th write of a life astray, one life each.
#[must_use]
pub fn misdirect_everywhere<S: Subject>(seed: u64, step: usize, jobs: usize) -> Misdirected {
    let all = astray::<S>(seed, step);
    let (next, sum) = (AtomicUsize::new(0), Mutex::new(Misdirected::default()));
    let work = || {
        while let Some(astray) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let outcome = lead_astray::<S>(seed, astray);
            let mut sum = sum.lock();
            *sum.runs.entry(S::kind(plain(&astray.meant).as_path())).or_insert(0) += 1;
            match outcome {
                Ok(Verdict::Detected) => sum.detected += 1,
                Ok(Verdict::Harmless) => sum.harmless += 1,
                Ok(Verdict::Cut) => sum.cut += 1,
                Err(why) => {
                    let (call, meant) = (astray.call, astray.meant.display());
                    let (path, at) = (astray.lands.0.display(), astray.lands.1);
                    let name = S::NAME;
                    sum.wrong
                        .push(format!("{name} seed {seed}, write {call} of {meant} lands in {path} at {at}: {why}"));
                }
            }
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    let mut sum = sum.into_inner();
    sum.wrong.sort();
    sum
}

/// The name that a file will have once it is written.
fn plain(path: &Path) -> PathBuf {
    if path.extension().is_some_and(|e| e == "tmp") { path.with_extension("") } else { path.to_owned() }
}
