//! What a log shares with its flush jobs on other threads: the poison, the generation, the directory state.
//!
//! Owns: [`Shared`], and [`DirState`], the small record that outlives segments: life, log start, a truncation under
//! way, epochs of dropped segments.
//! Never: is locked during a sync of data, so a truncation or append never waits for one (it may wait for the
//! first flush of a log, for a seal, and for another store of the state).
//! Invariant: a job that finds another generation than its own touches no mark any more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::epochs::EpochStart;
use crate::error::{Damage, LogError};
use crate::segment::{Mark, Outline, SegmentFile, index_path};
use crate::slot_file::StateFile;
use crate::storage::Storage;

/// A truncation that reaches below the active segment: finished by recovery if it was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cutting {
    /// Base offset of the segment that becomes the last one.
    pub(crate) base: u64,
    pub(crate) end: u64,
    pub(crate) next: u64,
    pub(crate) chain: u64,
    pub(crate) epoch: Option<u32>,
    pub(crate) max_timestamp: i64,
}

impl Cutting {
    pub(crate) fn at(outline: &Outline) -> Cutting {
        Cutting {
            base: outline.base,
            end: outline.end,
            next: outline.next,
            chain: outline.chain,
            epoch: outline.epoch(),
            max_timestamp: outline.max_timestamp,
        }
    }

    /// The mark that the cut segment gets.
    pub(crate) fn mark(&self) -> Mark {
        let Cutting { end, next, chain, epoch, max_timestamp, .. } = *self;
        Mark { end, next, chain, epoch, max_timestamp, sealed: false, closed: false }
    }
}

/// Durable facts about the directory that no segment carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DirState {
    /// Grows by one with each reset; segments of older lives are garbage.
    pub(crate) life: u64,
    /// Log start.
    pub(crate) start: u64,
    /// Nothing of this life was ever reported durable, so its segments may be missing.
    pub(crate) empty: bool,
    pub(crate) cutting: Option<Cutting>,
    /// The epoch of the record before the log start, as of when that was last raised.
    pub(crate) epochs: Vec<EpochStart>,
}

impl DirState {
    /// A log that never held anything.
    pub(crate) fn fresh() -> DirState {
        DirState { life: 0, start: 0, empty: true, cutting: None, epochs: Vec::new() }
    }

    fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain numbers always serialise")
    }
}

/// File that holds the directory state.
pub(crate) fn state_path(dir: &Path) -> PathBuf {
    dir.join("state")
}

/// Loads the directory state, which may not be durable; `None` if none was ever stored.
pub(crate) fn load_state(storage: &Arc<dyn Storage>, dir: &Path) -> Result<Option<DirState>, LogError> {
    let path = state_path(dir);
    let Some(bytes) = StateFile::new(storage.clone(), &path).read()? else {
        return Ok(None);
    };
    let state = postcard::from_bytes(&bytes);
    Ok(Some(state.map_err(|e| Damage::new(&path, 0, format!("log state does not decode: {e}")))?))
}

/// Guarded by one lock.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) generation: u64,
    pub(crate) state: DirState,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    file: StateFile,
    poison: OnceLock<String>,
    gate: Mutex<Gate>,
}

impl Shared {
    pub(crate) fn new(storage: Arc<dyn Storage>, dir: &Path, state: DirState) -> Shared {
        let file = StateFile::new(storage.clone(), state_path(dir));
        let gate = Mutex::new(Gate { generation: 0, state });
        Shared { storage, dir: dir.to_owned(), file, poison: OnceLock::new(), gate }
    }

    /// Refuses everything after the first failed write or sync.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        match self.poison.get() {
            None => Ok(()),
            Some(cause) => Err(LogError::Poisoned { dir: self.dir.clone(), cause: cause.clone() }),
        }
    }

    /// Poisons the log if `result` is a failed write or sync.
    pub(crate) fn guard<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        if result.as_ref().is_err_and(LogError::is_fatal) { self.guard_steps(result) } else { result }
    }

    /// Poisons the log on any error: for steps that must not stop half way.
    pub(crate) fn guard_steps<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(error) = &result
            && self.poison.set(error.to_string()).is_ok()
        {
            tracing::error!(dir = %self.dir.display(), %error, "log is poisoned");
        }
        result
    }

    pub(crate) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock()
    }

    /// Stores the state of the gate durably.
    pub(crate) fn store(&self, gate: &Gate) -> Result<(), LogError> {
        self.file.store(&gate.state.encode())
    }

    /// Writes the final mark of a frozen segment, makes it durable and puts its index beside it. False: the
    /// generation is over.
    pub(crate) fn seal(&self, generation: u64, file: &SegmentFile, outline: &Outline) -> Result<bool, LogError> {
        let gate = self.gate();
        self.check()?;
        if gate.generation != generation {
            return Ok(false);
        }
        let mut slots = file.slots();
        if !slots.mark.sealed {
            let sealed = file.write_mark(&mut slots, outline.mark(true)).and_then(|()| file.sync());
            self.guard(sealed)?;
            self.write_index(outline)?;
        }
        Ok(true)
    }

    /// Puts an outline beside its segment, unsynced: a power cut may lose it, its checksum tells. The caller holds
    /// the segment's slots (or is the only user of the directory).
    pub(crate) fn write_index(&self, outline: &Outline) -> Result<(), LogError> {
        write_index(&*self.storage, &self.dir, outline)
    }
}

/// See [`Shared::write_index`]. On a full disk there is none: opening walks the segment instead.
pub(crate) fn write_index(storage: &dyn Storage, dir: &Path, outline: &Outline) -> Result<(), LogError> {
    let path = index_path(dir, outline.base);
    let temporary = path.with_extension("index.tmp");
    match storage.remove(&temporary) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(LogError::io("remove", &temporary)(e)),
        _ => {}
    }
    match prepare_index(storage, &temporary, &outline.encode()) {
        Err(LogError::DiskFull { .. }) => super::cut::remove_if_there(storage, &temporary),
        Err(error) => Err(error),
        Ok(()) => storage.rename(&temporary, &path).map_err(LogError::io("rename", &path)),
    }
}

fn prepare_index(storage: &dyn Storage, temporary: &Path, bytes: &[u8]) -> Result<(), LogError> {
    let wanted = bytes.len() as u64;
    let file = storage.create(temporary).map_err(LogError::room("create", temporary, wanted))?;
    file.write_at(0, bytes).map_err(LogError::room("write", temporary, wanted))
}
