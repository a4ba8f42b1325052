//! Damage of every byte of every file of a stopped node.
//!
//! Owns: the nodes, the verdict on each damage, the sums. Never: knows a format; asks the code under test what it meant.
//! Invariant: after damage a start says so and names the file or the log it belongs to; or finds what it would have found,
//! and still does after going on; or something above an end mark is gone or changed, within one flush, and the start
//! reported a cut, unless the damaged file is, byte for byte, what a healthy log of fewer batches looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::inspect::inspect;
use log::storage::Storage;
use log::storage::memory::MemStorage;
use parking_lot::Mutex;

use super::harm::{Harm, Other};
use super::{Difference, Refusal, Subject, without_panic};

/// Of so many damages one is put to the whole start, if otherwise only the log that it belongs to is opened. No divisor of
/// a bit's or a sector's number.
const WHOLE_START: usize = 37;

/// A file that a later stage of the same part left as it was is damaged in full once, and then every so many-th bit.
const AGAIN: usize = 67;

/// What damages of one kind of file came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Damages {
    /// Files of this kind.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Damages by what was done.
    pub done: BTreeMap<&'static str, u64>,
    /// Said with the name of a file.
    pub detected: u64,
    /// The same was found, also after more was written.
    pub harmless: u64,
    /// Above the end mark, within one flush, and a cut was reported.
    pub cut: u64,
    /// A file that ends just between two batches above the mark: what a power cut leaves of a healthy one.
    pub short: u64,
    /// The leader epoch of a batch above the mark, which nothing covers.
    pub epoch: u64,
    /// The most batches that one damage took or changed; all of them above the mark.
    pub most: u64,
    /// The most of them that had been acknowledged, in the last flush.
    pub acknowledged: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
}

enum Verdict {
    Detected,
    Harmless,
    Cut(Difference),
    Short(Difference),
    Epoch(Difference),
}

/// A stopped node.
struct Exhibit<S: Subject> {
    disk: MemStorage,
    told: S::Told,
    found: S::Found,
    /// Where the batches of each segment end.
    frames: BTreeMap<PathBuf, Vec<u64>>,
    name: String,
}

fn exhibit<S: Subject>(seed: u64, stage: u32, part: u32) -> Exhibit<S> {
    let disk = MemStorage::new();
    let told: Mutex<S::Told> = Mutex::default();
    S::stop(&disk, &told, seed, stage, part).expect("a healthy disk lets the script live");
    // The machine writes everything back, the process dies.
    disk.crash(&mut || true);
    let found = S::find(&disk.fork()).expect("what nobody damaged opens");
    let told = told.into_inner();
    assert_eq!(S::refuse(&told, &Ok(found.clone())), None, "what nobody damaged is what was promised");
    let frames = frames(&disk.fork());
    Exhibit { disk, told, found, frames, name: format!("stage {stage}, part {part}") }
}

fn frames(disk: &MemStorage) -> BTreeMap<PathBuf, Vec<u64>> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let files = disk.files_below(Path::new("/")).expect("listed");
    let logs = files.iter().filter(|file| file.extension().is_some_and(|e| e == "log"));
    let mut frames: BTreeMap<PathBuf, Vec<u64>> = BTreeMap::new();
    for file in logs {
        let ends = frames.entry(file.clone()).or_default();
        let dir = file.parent().expect("every file lies in a directory");
        let mut visit = |place: &log::inspect::Place<'_>| {
            if place.file == file {
                ends.push(place.position + place.bytes.len() as u64);
            }
        };
        inspect(&storage, dir, &mut visit).expect("what nobody damaged is read");
    }
    frames
}

impl<S: Subject> Exhibit<S> {
    /// `whole`: that the whole start finds the same as the start of what the file belongs to is checked, too.
    fn judge(&self, file: &Path, bad: &[u8], good: &[u8], whole: bool) -> Result<Verdict, String> {
        let disk = self.damaged(file, bad)?;
        let again = without_panic(|| S::find_again(&disk, &self.found, file))?;
        if whole {
            let disk = self.damaged(file, bad)?;
            let found = without_panic(|| S::find(&disk))?;
            if found != again {
                return Err(format!("the whole start finds {found:?}, not {again:?}"));
            }
        }
        let found = match again {
            Err(refusal) if names(&refusal, S::unit(file)) => return Ok(Verdict::Detected),
            Err(refusal) => return Err(format!("refused without the name of the file: {refusal:?}")),
            Ok(found) => found,
        };
        if found == self.found {
            let grown = without_panic(|| S::grows(&disk, &found, file))?;
            return grown.map(|()| Verdict::Harmless).map_err(|why| format!("harmless at first, {why}"));
        }
        let difference = S::differs(&self.told, &self.found, &found, file)?;
        match difference {
            Difference::Said => Ok(Verdict::Detected),
            Difference::Epochs { .. } => Ok(Verdict::Epoch(difference)),
            Difference::Gone { batches, .. } => {
                let damaged = self.damaged(file, bad)?;
                if without_panic(|| S::reports(&damaged, file))? {
                    return Ok(Verdict::Cut(difference));
                }
                let short = self.ends_between(file, bad, good, batches);
                let why = || "records above the end mark are gone without a word".to_owned();
                short.then_some(Verdict::Short(difference)).ok_or_else(why)
            }
        }
    }

    fn damaged(&self, file: &Path, bad: &[u8]) -> Result<MemStorage, String> {
        let disk = self.disk.fork();
        disk.damage(file, bad.to_vec()).map_err(|e| e.to_string())?;
        Ok(disk)
    }

    /// Whether the file is what it was before its last so many batches were written, or the front of what it was before the
    /// first: nothing is left of them that could be reported.
    fn ends_between(&self, file: &Path, bad: &[u8], good: &[u8], batches: u64) -> bool {
        let Some(ends) = self.frames.get(file) else { return false };
        let Some(kept) = ends.len().checked_sub(batches as usize) else { return false };
        let end = if kept == 0 { log::limits::SEGMENT_HEADER_BYTES } else { ends[kept - 1] } as usize;
        let there = bad.len().min(end);
        let whole = there == end || kept == 0;
        whole && bad[..there] == good[..there] && bad[there..].iter().all(|byte| *byte == 0)
    }
}

/// Whether the refusal says that `unit`, or something in it, is damaged.
fn names(refusal: &Refusal, unit: &Path) -> bool {
    match refusal {
        Refusal::NothingThere => false,
        Refusal::Damaged { file, text } => file.starts_with(unit) && text.contains(&*file.to_string_lossy()),
        Refusal::Failed(text) => text.contains("damaged") && text.contains(&*unit.to_string_lossy()),
    }
}

/// Damages every file of every part of a node, stopped at every stage of its life: each bit, or every `step`-th.
#[must_use]
pub fn damage_everything<S: Subject>(seed: u64, step: usize, jobs: usize) -> BTreeMap<String, Damages> {
    let sum: Mutex<BTreeMap<String, Damages>> = Mutex::default();
    let mut known: BTreeSet<(u32, Other)> = BTreeSet::new();
    for (stage, part) in (0..S::STAGES).flat_map(|stage| (0..S::PARTS).map(move |part| (stage, part))) {
        let exhibit = exhibit::<S>(seed, stage, part);
        let paths = exhibit.disk.files_below(Path::new("/")).expect("listed");
        let read = |path: PathBuf| {
            let bytes = exhibit.disk.contents(&path).expect("there");
            (path, bytes)
        };
        let files: Vec<Other> = paths.into_iter().map(read).collect();
        for (path, good) in files.iter().filter(|(path, _)| S::harmed(part, path)) {
            let again = !known.insert((part, (path.clone(), good.clone())));
            let step = if again { step.max(AGAIN) } else { step };
            let others: Vec<Other> = files.iter().filter(|(other, _)| other != path).cloned().collect();
            damage_file(&exhibit, path, good, &others, step, jobs, &sum);
        }
    }
    let mut sum = sum.into_inner();
    // In whichever order the threads came to it.
    sum.values_mut().for_each(|damages| damages.wrong.sort());
    sum
}

fn damage_file<S: Subject>(
    exhibit: &Exhibit<S>,
    file: &Path,
    good: &[u8],
    others: &[Other],
    step: usize,
    jobs: usize,
    sum: &Mutex<BTreeMap<String, Damages>>,
) {
    let all = Harm::all(good.len(), others.len(), step);
    let kind = S::kind(file);
    let there = Damages { files: 1, bytes: good.len() as u64, ..Damages::default() };
    sum.lock().entry(kind.clone()).or_default().add(there);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut own = Damages::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(harm) = all.get(number) else { break };
            let bad = harm.apply(good, others);
            // A sector of zeros that is zeroed, say.
            if bad == good {
                continue;
            }
            *own.done.entry(harm.name()).or_insert(0) += 1;
            match exhibit.judge(file, &bad, good, number.is_multiple_of(WHOLE_START)) {
                Ok(verdict) => own.count(&verdict),
                Err(why) => {
                    let (stopped, file, kind) = (&exhibit.name, file.display(), S::NAME);
                    own.wrong.push(format!("{kind}, {stopped}, {file}: {harm:?}: {why}"));
                }
            }
        }
        sum.lock().entry(kind.clone()).or_default().add(own);
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
}

impl Damages {
    fn count(&mut self, verdict: &Verdict) {
        let (sum, difference) = match verdict {
            Verdict::Detected => (&mut self.detected, None),
            Verdict::Harmless => (&mut self.harmless, None),
            Verdict::Cut(difference) => (&mut self.cut, Some(difference)),
            Verdict::Short(difference) => (&mut self.short, Some(difference)),
            Verdict::Epoch(difference) => (&mut self.epoch, Some(difference)),
        };
        *sum += 1;
        let (batches, acknowledged) = match difference {
            Some(Difference::Gone { batches, acknowledged }) => (*batches, *acknowledged),
            Some(Difference::Epochs { batches }) => (*batches, 0),
            Some(Difference::Said) | None => (0, 0),
        };
        self.most = self.most.max(batches);
        self.acknowledged = self.acknowledged.max(acknowledged);
    }

    fn add(&mut self, other: Damages) {
        for (name, count) in other.done {
            *self.done.entry(name).or_insert(0) += count;
        }
        self.files += other.files;
        self.bytes += other.bytes;
        self.detected += other.detected;
        self.harmless += other.harmless;
        self.cut += other.cut;
        self.short += other.short;
        self.epoch += other.epoch;
        self.most = self.most.max(other.most);
        self.acknowledged = self.acknowledged.max(other.acknowledged);
        self.wrong.extend(other.wrong);
    }
}
