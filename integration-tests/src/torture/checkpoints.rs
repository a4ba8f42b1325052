//! A sample of damages of the broker's checkpoints, the one thing that is not stored through the storage engine.
//!
//! Owns: the sample, chosen by a seed. Never: takes all of them: the database allots half a MiB and is opened anew for each.
//! Invariant: whatever is damaged, the database opens or is begun anew, and tells no value that was never remembered.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use broker::checkpoints::{Checkpoints as _, SledCheckpoints};
use broker::replica::Checkpoint;
use parking_lot::Mutex;
use protocol::ids::{LeaderEpoch, TopicId, TopicPartition};

use super::harm::Harm;
use super::{Dice, without_panic};

/// Partitions remembered.
const VALUES: u32 = 50;

/// What the sample came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// Bytes of the database's files.
    pub bytes: u64,
    /// Damages done.
    pub done: u64,
    /// The database told everything as it was.
    pub harmless: u64,
    /// It was begun anew, or lacked values: they cost time only.
    pub forgotten: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
}

fn at(n: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(uuid::Uuid::from_u128(u128::from(n))), partition: n }
}

fn value(n: u32) -> Checkpoint {
    Checkpoint { high_watermark: u64::from(n) * 7, epoch: LeaderEpoch(n / 3) }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("the torture's own folder").flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

/// `count` damages of a database of checkpoints on the machine's own disk.
#[must_use]
pub fn damage_checkpoints(seed: u64, count: u64, jobs: usize) -> Checkpoints {
    let folder = tempfile::Builder::new().prefix("seawall-checkpoints-").tempdir().expect("a temporary folder");
    let good = folder.path().join("good");
    let remembered = SledCheckpoints::open(&good).expect("an empty folder opens");
    remembered.remember(&(0..VALUES).map(|n| (at(n), value(n))).collect::<Vec<_>>());
    drop(remembered);
    let stored: Vec<(PathBuf, Vec<u8>)> = files(&good)
        .into_iter()
        .map(|path| {
            let bytes = std::fs::read(&path).expect("just written");
            (path.strip_prefix(&good).expect("below it").to_owned(), bytes)
        })
        .collect();
    let bytes = stored.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let sum = Mutex::new(Checkpoints { bytes, ..Checkpoints::default() });
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            let place = folder.path().join(number.to_string());
            let outcome = damage_one(&place, &stored, &mut Dice(seed ^ (number << 20)));
            std::fs::remove_dir_all(&place).ok();
            let mut sum = sum.lock();
            sum.done += 1;
            match outcome {
                Ok(true) => sum.harmless += 1,
                Ok(false) => sum.forgotten += 1,
                Err(why) => sum.wrong.push(format!("checkpoints, damage {number}: {why}")),
            }
        }
    };
    std::thread::scope(|scope| (0..jobs.max(1)).for_each(|_| drop(scope.spawn(work))));
    let mut sum = sum.into_inner();
    sum.wrong.sort();
    sum
}

/// Where something is written, most of the time: the rest of the file is allotted room.
fn spot(bytes: &[u8], dice: &mut Dice) -> u32 {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
    let most = if dice.below(4) == 0 { bytes.len() } else { written };
    u32::try_from(dice.below(most as u64)).expect("the database is small")
}

/// True: everything was told as before.
fn damage_one(place: &Path, stored: &[(PathBuf, Vec<u8>)], dice: &mut Dice) -> Result<bool, String> {
    let hurt: Vec<usize> = (0..stored.len()).filter(|n| !stored[*n].1.is_empty()).collect();
    let hurt = hurt[dice.below(hurt.len() as u64) as usize];
    for (number, (path, bytes)) in stored.iter().enumerate() {
        let spot = spot(bytes, dice);
        let harm = match dice.below(4) {
            0 => Harm::Length(spot),
            1 => Harm::Zeroed(spot / 512),
            _ => Harm::Flip(spot, dice.below(8) as u8),
        };
        let bytes = if number == hurt { harm.apply(bytes, &[]) } else { bytes.clone() };
        let path = place.join(path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, bytes));
        made.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let told = without_panic(|| {
        let opened = SledCheckpoints::open(place);
        opened.map(|opened| (0..VALUES).map(|n| opened.recall(at(n))).collect::<Vec<_>>())
    })?;
    let told = told.ok_or("it does not open, and cannot be begun anew")?;
    for (n, told) in (0u32..).zip(&told) {
        if told.is_some_and(|told| told != value(n)) {
            return Err(format!("{}: partition {n} is told {told:?}", stored[hurt].0.display()));
        }
    }
    Ok(told.iter().all(Option::is_some))
}
