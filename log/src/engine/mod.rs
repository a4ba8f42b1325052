//! [`Log`]: one directory of segments, one writer.
//!
//! Owns: what the log is right now (segments, epochs, start, end, durable end), and opening.
//! Never: runs a thread, reads a clock, repairs durable bytes. Appending lives in `append`, reading in `read`,
//! truncation, head drop and reset in `cut`, the background half of a sync in [`crate::flush`].
//! Invariant: `start <= durable_end <= end`; every segment but the last is frozen; segments join without a gap in
//! offset, chain hash and epoch.

mod append;
mod config;
pub(crate) mod cut;
mod durable;
pub(crate) mod read;
pub(crate) mod shared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

pub use config::{LogConfig, Verify};
pub use cut::Dropped;
pub(crate) use shared::{Cutting, DirState, Gate, Shared};

use crate::epochs::EpochTable;
use crate::error::LogError;
use crate::limits::{FIRST_PREALLOCATION_BYTES, SEGMENT_HEADER_BYTES};
use crate::recovery::{self, Recovery};
use crate::segment::{Identity, Mark, Outline, SegmentFile};
use crate::settle::settle;
use crate::storage::Storage;

/// A segment as retention and describe see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentMeta {
    /// Offset of its first record.
    pub base: u64,
    /// Offset after its last record.
    pub next: u64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Largest timestamp in ms, `i64::MIN` if empty.
    pub max_timestamp: i64,
    /// False for the segment being written, and for one whose end is not durable yet.
    pub sealed: bool,
}

/// A segment that takes no more appends.
#[derive(Debug)]
pub(crate) struct Frozen {
    pub(crate) identity: Identity,
    pub(crate) mark: Mark,
    /// Still open: its end is not durably sealed.
    pub(crate) pending: Option<(Arc<SegmentFile>, Arc<Outline>)>,
}

/// The segment being written.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) outline: Outline,
    /// Length of the file, reserved bytes included.
    pub(crate) allocated: u64,
    /// Position up to which the index beside the file reaches.
    pub(crate) snapshot_end: u64,
}

impl Active {
    pub(crate) fn is_empty(&self) -> bool {
        self.outline.end == SEGMENT_HEADER_BYTES
    }
}

/// What recovery found; the engine starts from it.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) state: DirState,
    pub(crate) dir_exists: bool,
    pub(crate) frozen: BTreeMap<u64, Frozen>,
    pub(crate) active: Option<Active>,
    pub(crate) epochs: EpochTable,
    pub(crate) durable_end: u64,
    /// The directory may hold names that no directory sync covers.
    pub(crate) names_unsynced: bool,
    /// Files to remove: leftovers, and segments that do not count.
    pub(crate) garbage: Vec<PathBuf>,
}

/// A segmented, checksummed, synced log of record batches in one directory. `Send`; reads take `&self`.
#[derive(Debug)]
pub struct Log {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    config: LogConfig,
    shared: Arc<Shared>,
    frozen: BTreeMap<u64, Frozen>,
    active: Option<Active>,
    epochs: EpochTable,
    start: u64,
    end: u64,
    durable_end: u64,
    /// Offset of the newest end mark that is durable itself.
    marked: u64,
    generation: u64,
    life: u64,
    dir_exists: bool,
    parent_unsynced: bool,
    /// Counts changes of names in the directory, and how many of them a directory sync covers.
    names: u64,
    names_synced: u64,
    /// Next reservation step in bytes.
    step: u64,
    /// Indexes of frozen segments, most recently used last.
    loaded: Mutex<Vec<(u64, Arc<Outline>)>>,
}

impl Log {
    /// Opens the log in `dir`, recovering it if the last process did not close it. Creates nothing: a directory that
    /// does not exist is an empty log at offset 0, and is made at the first append.
    ///
    /// On return every byte that the log shows is durable. Errors: [`LogError::Damaged`] if bytes at or below the
    /// end mark are bad or missing (nothing was changed), I/O errors.
    pub fn open(storage: Arc<dyn Storage>, dir: &Path, config: LogConfig) -> Result<(Log, Recovery), LogError> {
        let config = config.checked();
        let (parts, recovery) = recovery::scan(&storage, dir, &config)?;
        let shared = Arc::new(Shared::new(storage.clone(), dir, parts.state.clone()));
        let end = match &parts.active {
            Some(active) => active.outline.next,
            None => parts.state.start,
        };
        let closed = parts.active.as_ref().is_none_or(|a| a.file.mark().closed);
        let mut log = Log {
            storage,
            dir: dir.to_owned(),
            config,
            shared,
            frozen: parts.frozen,
            active: parts.active,
            epochs: parts.epochs,
            start: parts.state.start,
            end,
            durable_end: parts.durable_end,
            marked: if closed { parts.durable_end } else { 0 },
            generation: 0,
            life: parts.state.life,
            dir_exists: parts.dir_exists,
            parent_unsynced: parts.dir_exists && parts.names_unsynced,
            // Whoever died storing the state last may have left a name that is not durable: the first flush sees to it.
            names: u64::from(parts.dir_exists && !recovery.clean),
            names_synced: 0,
            step: FIRST_PREALLOCATION_BYTES,
            loaded: Mutex::new(Vec::new()),
        };
        settle(&mut log, &recovery, parts.names_unsynced, &parts.garbage)?;
        Ok((log, recovery))
    }

    /// Takes other settings for what is appended from now on; files that exist stay as they are.
    pub fn reconfigure(&mut self, config: LogConfig) {
        self.config = config.checked();
    }

    /// First offset that may be read.
    pub fn start_offset(&self) -> u64 {
        self.start
    }

    /// Offset of the next append (log end offset).
    pub fn end_offset(&self) -> u64 {
        self.end
    }

    /// Offset up to which every record survives a power cut.
    pub fn durable_end(&self) -> u64 {
        self.durable_end
    }

    /// Leader epoch of the last batch; `None` if the log never had one, or was reset. What the segment being written says of
    /// the batches before it counts too: the next start holds an append against it.
    pub fn last_epoch(&self) -> Option<u32> {
        let before = self.active.as_ref().and_then(|active| active.outline.epoch());
        self.epochs.last().map(|e| e.epoch).max(before)
    }

    /// Epochs and where they begin.
    pub fn epochs(&self) -> &EpochTable {
        &self.epochs
    }

    /// Directory of the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Grows by one with every truncation and reset; a flush that was started in an older generation is void.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Segments in offset order; the last one is being written.
    pub fn segments(&self) -> Vec<SegmentMeta> {
        let frozen = self.frozen.values().map(|f| SegmentMeta {
            base: f.identity.base,
            next: f.mark.next,
            bytes: f.mark.end - SEGMENT_HEADER_BYTES,
            max_timestamp: f.mark.max_timestamp,
            sealed: f.pending.is_none(),
        });
        let active = self.active.iter().map(|a| SegmentMeta {
            base: a.outline.base,
            next: a.outline.next,
            bytes: a.outline.end - SEGMENT_HEADER_BYTES,
            max_timestamp: a.outline.max_timestamp,
            sealed: false,
        });
        frozen.chain(active).collect()
    }

    /// Bytes of all batches, dropped ones in the first segment included.
    pub fn size_bytes(&self) -> u64 {
        self.segments().iter().map(|s| s.bytes).sum()
    }

    /// True if an earlier write or sync failed; the process must stop.
    pub fn is_poisoned(&self) -> bool {
        self.shared.check().is_err()
    }

    /// Segments behind the active one whose end is not durably sealed, with what they hold.
    pub(crate) fn pending(&self) -> Vec<(Arc<SegmentFile>, Arc<Outline>)> {
        self.frozen.values().filter_map(|f| f.pending.clone()).collect()
    }

    pub(crate) fn active_mut(&mut self) -> Option<&mut Active> {
        self.active.as_mut()
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}
