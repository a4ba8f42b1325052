//! Power cuts: before every call of a life, with every kind of outcome, and before every call of the recovery.
//!
//! Owns: the points, the outcomes, the count. Never: knows what a call means.
//! Invariant: each state is judged twice: what the first start finds is a state that was promised; and after a second
//! power cut, which loses everything that no sync covered, another start finds the same again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log::storage::memory::{LARGE_SECTOR_BYTES, MemStorage, SECTOR_BYTES};
use parking_lot::Mutex;

use super::{Dice, Subject, without_panic};

/// What became of what no sync covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is there.
    Nothing,
    /// Everything is.
    Everything,
    /// Each change with this chance in percent, in sectors of this size: reordered, torn.
    Some(u64, u64),
    /// The first changes up to a point, the one at it torn; nothing behind.
    Front,
    /// All but one change.
    AllButOne,
    /// The process died, the machine did not.
    Kill,
}

/// All outcomes tried at each point.
pub(super) const OUTCOMES: [Outcome; 8] = [
    Outcome::Nothing,
    Outcome::Everything,
    Outcome::Some(50, SECTOR_BYTES),
    Outcome::Some(50, LARGE_SECTOR_BYTES),
    Outcome::Some(85, SECTOR_BYTES),
    Outcome::Front,
    Outcome::AllButOne,
    Outcome::Kill,
];

impl Outcome {
    /// Makes it so.
    pub(super) fn cut(self, disk: &MemStorage, seed: u64) {
        let mut dice = Dice(seed);
        match self {
            Outcome::Nothing => disk.crash(&mut || false),
            Outcome::Everything => disk.crash(&mut || true),
            Outcome::Some(percent, sector) => {
                disk.set_sector(sector);
                disk.crash(&mut || dice.below(100) < percent);
            }
            Outcome::Front | Outcome::AllButOne => {
                let mut all = 0;
                disk.fork().crash(&mut || {
                    all += 1;
                    false
                });
                let (point, mut asked) = (dice.below(all + 1), 0);
                disk.crash(&mut || {
                    asked += 1;
                    if self == Outcome::Front { asked <= point } else { asked != point }
                });
            }
            Outcome::Kill => disk.kill_process(),
        }
    }
}

/// What was tried.
#[derive(Debug, Default)]
pub struct Crashes {
    /// Calls before which the power was cut.
    pub points: u64,
    /// States recovered and judged.
    pub states: u64,
    /// Of these, ones whose recovery was cut off, too.
    pub within_recovery: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
}

impl Crashes {
    fn add(&mut self, other: Crashes) {
        self.points += other.points;
        self.states += other.states;
        self.within_recovery += other.within_recovery;
        self.wrong.extend(other.wrong);
    }
}

/// Starts over a disk after a cut, judges, cuts again and judges again. The error has the name of the check before a colon.
pub(super) fn judge<S: Subject>(disk: &MemStorage, told: &S::Told) -> Result<(), String> {
    let found = without_panic(|| S::find(disk))?;
    if let Some(why) = S::refuse(told, &found) {
        return Err(format!("found-is-promised: {why}"));
    }
    let Ok(found) = found else { return Ok(()) };
    disk.crash(&mut || false);
    let why = match without_panic(|| S::find(disk))? {
        Ok(again) => S::unshown(&found, &again),
        Err(refusal) => Some(format!("it does not open any more: {refusal}")),
    };
    why.map_or(Ok(()), |why| Err(format!("shown-is-durable: {why}")))
}

/// A disk and the promise at one call of a life.
pub(super) type Point<S> = (MemStorage, <S as Subject>::Told, String);

/// One life with its points: before each call that changes the disk, and at the end.
pub(super) fn points<S: Subject>(seed: u64, wanted: impl Fn(u64) -> bool + Send + Sync + 'static) -> Vec<Point<S>>
where
    S::Told: 'static,
{
    let disk = MemStorage::new();
    let told: Arc<Mutex<S::Told>> = Arc::default();
    let out: Arc<Mutex<Vec<Point<S>>>> = Arc::default();
    let (seen, promise, points) = (disk.clone(), told.clone(), out.clone());
    let number = AtomicU64::new(0);
    disk.set_hook(Some(Box::new(move |call| {
        if call.op.changes_disk() && wanted(number.fetch_add(1, Ordering::Relaxed)) {
            let what = format!("{:?} of {}", call.op, call.path.display());
            // The script holds its promise only while it changes it.
            points.lock().push((seen.fork(), promise.lock().clone(), what));
        }
        None
    })));
    let lived = S::live(&disk, &told, seed);
    disk.set_hook(None);
    let mut points = std::mem::take(&mut *out.lock());
    let last = told.lock().clone();
    points.push((disk.fork(), last, format!("the end ({lived:?})")));
    points
}

/// How many calls of a life change the disk.
pub(super) fn calls<S: Subject>(seed: u64) -> u64
where
    S::Told: 'static,
{
    let counted = Arc::new(AtomicU64::new(0));
    let count = counted.clone();
    points::<S>(seed, move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        false
    });
    counted.load(Ordering::Relaxed)
}

/// Cuts the power at every point of a life (every `step`-th), with every outcome, and inside of every `deep`-th recovery.
#[must_use]
pub fn crash_everywhere<S: Subject>(seed: u64, step: u64, deep: u64, jobs: usize) -> Crashes
where
    S::Told: 'static,
{
    let points = points::<S>(seed, move |n| n.is_multiple_of(step));
    let next = AtomicU64::new(0);
    let sum = Mutex::new(Crashes::default());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(point) = points.get(at as usize) else { return };
            let crashes = crash_at::<S>(point, at, seed, deep);
            sum.lock().add(crashes);
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    sum.into_inner()
}

fn crash_at<S: Subject>((disk, told, what): &Point<S>, at: u64, seed: u64, deep: u64) -> Crashes {
    let mut sum = Crashes { points: 1, ..Crashes::default() };
    for (n, outcome) in (0u64..).zip(OUTCOMES) {
        let dice = seed.wrapping_mul(1_000_003) ^ (at * 8 + n);
        let cut = disk.fork();
        outcome.cut(&cut, dice);
        let name = || format!("{} seed {seed}, power cut {at} before {what}, {outcome:?}", S::NAME);
        sum.states += 1;
        if let Err(why) = judge::<S>(&cut.fork(), told) {
            sum.wrong.push(format!("{}: {why}", name()));
        }
        if (at * OUTCOMES.len() as u64 + n).is_multiple_of(deep) {
            for (call, why) in crash_recovery::<S>(&cut, told, dice, &mut sum) {
                sum.wrong.push(format!("{}, then before {call} of the recovery: {why}", name()));
            }
        }
    }
    sum
}

/// Cuts the power at each call of the recovery that changes the disk, with an outcome that the dice choose.
fn crash_recovery<S: Subject>(cut: &MemStorage, told: &S::Told, seed: u64, sum: &mut Crashes) -> Vec<(String, String)> {
    let disk = cut.fork();
    let forks: Arc<Mutex<Vec<(MemStorage, String)>>> = Arc::default();
    let (seen, kept) = (disk.clone(), forks.clone());
    disk.set_hook(Some(Box::new(move |call| {
        if call.op.changes_disk() {
            let path: PathBuf = call.path.to_owned();
            kept.lock().push((seen.fork(), format!("{:?} of {}", call.op, path.display())));
        }
        None
    })));
    // What it finds is judged elsewhere.
    drop(without_panic(|| S::find(&disk)));
    disk.set_hook(None);
    let mut wrong = Vec::new();
    let mut dice = Dice(seed);
    for (disk, call) in std::mem::take(&mut *forks.lock()) {
        let outcome = OUTCOMES[dice.below(OUTCOMES.len() as u64) as usize];
        outcome.cut(&disk, dice.roll());
        sum.states += 1;
        sum.within_recovery += 1;
        if let Err(why) = judge::<S>(&disk, told) {
            wrong.push((format!("{call}, {outcome:?}"), why));
        }
    }
    wrong
}
