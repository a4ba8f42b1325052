//! Torture of everything that is stored: power cuts at every call to the disk and within the recovery from them, errors
//! at every kind of call, every bit flipped, every length, every sector zeroed or misdirected.
//!
//! Owns: the scripts of a broker's and a controller's disk, what was promised in them, and the judgement of what is
//! found. Never: asks the storage engine what it promised; [`told`] keeps that apart.
//! Invariant: what is found after a power cut is a state that the promise allows; what is found after damage is the same
//! as before it, or an error that names the file, or lies above the end mark, is reported, and is at most one flush.

mod batch;
mod broker;
mod checkpoints;
mod controller;
mod crash;
mod damage;
mod errors;
mod ground;
mod harm;
mod misdirect;
mod report;
mod told;

pub use broker::Broker;
pub use checkpoints::{Checkpoints, damage_checkpoints};
pub use controller::Controller;
pub use crash::{Crashes, crash_everywhere};
pub use damage::{Damages, damage_everything};
pub use errors::{Errors, fail_everywhere};
pub(crate) use ground::GROUND;
pub use misdirect::{Misdirected, misdirect_everywhere};
pub use report::main;

use std::fmt::{self, Debug};
use std::io;
use std::path::{Path, PathBuf};

use log::LogError;
use log::data_dir::DataDirError;
use log::storage::memory::MemStorage;
use parking_lot::Mutex;

/// Why a script ended.
#[derive(Debug)]
pub enum Stop {
    /// No room: the step had no effect.
    Full,
    /// A call failed in a way that stops the process.
    Dead(String),
}

impl From<LogError> for Stop {
    fn from(error: LogError) -> Stop {
        match error {
            LogError::DiskFull { .. } => Stop::Full,
            other => Stop::Dead(other.to_string()),
        }
    }
}

impl From<DataDirError> for Stop {
    fn from(error: DataDirError) -> Stop {
        Stop::Dead(error.to_string())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Dead(error.to_string())
    }
}

/// Why a directory does not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nobody formatted it.
    NothingThere,
    /// Damage with its place.
    Damaged {
        /// The file.
        file: PathBuf,
        /// The text, position included.
        text: String,
    },
    /// Anything else.
    Failed(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NothingThere => f.write_str("nothing there"),
            Refusal::Damaged { text, .. } | Refusal::Failed(text) => f.write_str(text),
        }
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Refusal {
        let text = error.to_string();
        match error {
            LogError::Damaged(damage) => Refusal::Damaged { file: damage.file, text },
            _ => Refusal::Failed(text),
        }
    }
}

impl From<DataDirError> for Refusal {
    fn from(error: DataDirError) -> Refusal {
        match error {
            DataDirError::Log(error) => error.into(),
            DataDirError::Unformatted { .. } => Refusal::NothingThere,
            other => Refusal::Failed(other.to_string()),
        }
    }
}

/// How a start over a damaged file differs from one over the file as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// What the file belongs to is said to be damaged; nothing else is different.
    Said,
    /// The newest batches of the log are gone, all of them above the end mark.
    Gone {
        /// How many.
        batches: u64,
        /// How many of them had been acknowledged, in the last flush.
        acknowledged: u64,
    },
    /// Batches above the end mark are said to be of another leader epoch.
    Epochs {
        /// How many.
        batches: u64,
    },
}

/// A data directory with a life.
pub trait Subject: Sync + Debug {
    /// What was promised.
    type Told: Clone + Default + Debug + Send + Sync;
    /// What is found.
    type Found: Clone + PartialEq + Debug + Send + Sync;
    /// Its name in tables.
    const NAME: &'static str;
    /// How many stages a life has.
    const STAGES: u32 = 3;

    /// Into how many nodes a life is divided where files are damaged: each small, together with everything in them.
    const PARTS: u32;

    /// Lives to the end, telling `told` before and after each step.
    ///
    /// # Errors
    /// What stopped it.
    fn live(disk: &MemStorage, told: &Mutex<Self::Told>, seed: u64) -> Result<(), Stop>;

    /// Lives up to a stage, with what belongs to a part only.
    ///
    /// # Errors
    /// What stopped it.
    fn stop(disk: &MemStorage, told: &Mutex<Self::Told>, seed: u64, stage: u32, part: u32) -> Result<(), Stop>;

    /// Whether this file is damaged in the node of this part.
    fn harmed(part: u32, file: &Path) -> bool;

    /// Starts over the directory as the product does, and reads everything.
    ///
    /// # Errors
    /// The product's refusal.
    fn find(disk: &MemStorage) -> Result<Self::Found, Refusal>;

    /// As [`Subject::find`], but only what `file` belongs to is opened: the rest is as it was found `before`. For the many
    /// damages of one log; that both find the same is checked again and again.
    ///
    /// # Errors
    /// The product's refusal.
    fn find_again(disk: &MemStorage, before: &Self::Found, file: &Path) -> Result<Self::Found, Refusal>;

    /// Why the promise does not allow what a start after a crash found; `None`: it does.
    fn refuse(told: &Self::Told, found: &Result<Self::Found, Refusal>) -> Option<String>;

    /// As [`Subject::refuse`], but what the start itself says is damaged may be missing; and the last flush of a log, if
    /// `but_last_flush`.
    fn unsaid(told: &Self::Told, found: &Self::Found, but_last_flush: bool) -> Option<String>;

    /// What a start showed that a start after another power cut shows otherwise.
    fn unshown(first: &Self::Found, again: &Self::Found) -> Option<String>;

    /// Goes on writing a little where `file` belongs, cuts the power, and finds again: `found`, and what was written.
    ///
    /// # Errors
    /// What is there instead.
    fn grows(disk: &MemStorage, found: &Self::Found, file: &Path) -> Result<(), String>;

    /// What the difference is between what a start finds of a node and what it finds when `file` is damaged.
    ///
    /// # Errors
    /// Why damage may not make such a difference.
    fn differs(told: &Self::Told, before: &Self::Found, after: &Self::Found, file: &Path)
    -> Result<Difference, String>;

    /// Whether the start over this disk says that something of the log that `file` belongs to was cut.
    fn reports(disk: &MemStorage, file: &Path) -> bool;

    /// The file or directory that a message about damage of `file` has to name, or a file in it.
    fn unit(file: &Path) -> &Path;

    /// What a file is, in tables.
    fn kind(file: &Path) -> String;
}

/// splitmix64: choices from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
}

/// Runs something that must not panic.
pub(crate) fn without_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        format!("panic: {}", text.unwrap_or_default())
    })
}
