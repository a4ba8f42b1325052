//! What can go wrong with a log, split by what the caller must do about it.
//!
//! Owns: [`LogError`] and [`Damage`]. Never: decides (a node that sees `Io`, `Poisoned` or `Damaged` on its own
//! data stops or quarantines; that is the shell's business).
//! Invariant: every variant but `Io` and `Poisoned` is definite: the log is as it was before the call.

use std::io;
use std::path::{Path, PathBuf};

use protocol::batch::BatchError;
use thiserror::Error;

/// Bytes that were durable once and are bad or missing now. Never repaired or cut silently.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("damage in {} at byte {position}: {what}", file.display())]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub position: u64,
    /// What was expected and what was found.
    pub what: String,
}

impl Damage {
    /// Damage of `file` at `position`.
    pub fn new(file: &Path, position: u64, what: impl Into<String>) -> Damage {
        Damage { file: file.to_owned(), position, what: what.into() }
    }
}

/// Errors of the storage engine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// Durable bytes are bad or missing.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// A disk call failed. If it was a write or a sync, the log is poisoned from now on and the process must stop:
    /// what the disk holds is unknown and a second sync would lie.
    #[error("{op} of {} failed: {source}", path.display())]
    Io {
        /// The call.
        op: &'static str,
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file could not be opened or listed for reading (not damage: out of descriptors, say). Nothing changed.
    #[error("reading {} failed: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier write or sync failed; nothing more is accepted.
    #[error("log {} is poisoned by an earlier failure: {cause}", dir.display())]
    Poisoned {
        /// Directory of the log.
        dir: PathBuf,
        /// The first failure.
        cause: String,
    },
    /// Space for the next bytes could not be reserved. No offset was given and the log is as before.
    #[error("no space for {wanted} more bytes in {}", path.display())]
    DiskFull {
        /// The file that should have grown.
        path: PathBuf,
        /// Bytes that were wanted.
        wanted: u64,
    },
    /// An offset that was dropped already.
    #[error("offset {offset} is below the log start {start}")]
    BelowStart {
        /// Offset asked for.
        offset: u64,
        /// Log start.
        start: u64,
    },
    /// An offset past the log end.
    #[error("offset {offset} is above the log end {end}")]
    AboveEnd {
        /// Offset asked for.
        offset: u64,
        /// Log end.
        end: u64,
    },
    /// An append that does not continue the log.
    #[error("append at base offset {offset}, but the log ends at {end}")]
    NotNext {
        /// Base offset of the batch.
        offset: u64,
        /// Log end.
        end: u64,
    },
    /// An append whose leader epoch is below the last one.
    #[error("append with leader epoch {epoch}, but the log has {last}")]
    EpochFell {
        /// Epoch of the batch.
        epoch: u32,
        /// Last epoch of the log.
        last: u32,
    },
    /// A batch without a leader epoch: it was never stamped.
    #[error("append of a batch that carries no leader epoch")]
    NotStamped,
    /// Bytes that are no batch, or exceed a limit.
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl LogError {
    /// For `map_err`: names the call and path of a failed disk call.
    pub(crate) fn io<'a>(op: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LogError + 'a {
        move |source| LogError::Io { op, path: path.to_owned(), source }
    }

    /// For `map_err` of calls that ask for `wanted` more bytes and change nothing that counts when there is no room.
    pub(crate) fn room<'a>(op: &'static str, path: &'a Path, wanted: u64) -> impl FnOnce(io::Error) -> LogError + 'a {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => LogError::DiskFull { path: path.to_owned(), wanted },
            _ => LogError::Io { op, path: path.to_owned(), source },
        }
    }

    /// For `map_err` of calls that only read.
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> LogError + '_ {
        move |source| LogError::Read { path: path.to_owned(), source }
    }

    /// True if the process that owns the data must stop: the state of the disk is unknown.
    pub fn is_fatal(&self) -> bool {
        matches!(self, LogError::Io { .. } | LogError::Poisoned { .. })
    }
}
