//! Looking into a log directory without changing a byte of it: for `log dump` and `log verify`.
//!
//! Owns: [`inspect`], which walks every batch of every segment and says what opening the log would find.
//! Never: writes, locks, or repairs; a log that a process is writing may show an unfinished tail.
//! Invariant: the verdict is recovery's own, with every byte read: `damage` is `None` exactly if the log opens under
//! [`Verify::Everything`]. A truncation under way is the exception: opening finishes it first.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::batch::Header;

use crate::engine::shared::load_state;
use crate::engine::{LogConfig, Verify};
use crate::error::{Damage, LogError};
use crate::recovery::{Recovery, scan};
use crate::segment::walk::{Stop, Walker};
use crate::segment::{Outline, SegmentFile, segment_base, segment_path};
use crate::storage::Storage;

/// A batch where it lies.
#[derive(Debug)]
pub struct Place<'a> {
    /// The segment file.
    pub file: &'a Path,
    /// Position in it, in bytes.
    pub position: u64,
    /// The batch's header; its checksum holds.
    pub header: Header,
    /// The whole batch.
    pub bytes: &'a [u8],
    /// Not covered by the end mark: opening keeps it, but nothing proves that it was durable.
    pub above_mark: bool,
}

/// What one segment holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file.
    pub file: PathBuf,
    /// Offset of its first record.
    pub base: u64,
    /// Offset after its last whole batch.
    pub next: u64,
    /// Batches.
    pub batches: u64,
    /// Bytes up to the end of the last whole batch, header page included.
    pub bytes: u64,
    /// Offset up to which the end mark proves durability.
    pub marked: u64,
    /// Finished, with a successor.
    pub sealed: bool,
    /// Why the walk ended before the end of the file; `None` if only reserved zeros follow.
    pub stopped: Option<String>,
}

/// What a log directory holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogReport {
    /// Log start.
    pub start: u64,
    /// Segments in offset order, those with an unreadable header left out.
    pub segments: Vec<SegmentReport>,
    /// What would keep the log from opening.
    pub damage: Option<Damage>,
    /// What opening would keep and cut above the end mark.
    pub recovery: Recovery,
    /// A truncation to this offset was begun and not finished; opening finishes it.
    pub truncating_to: Option<u64>,
}

/// Walks the log in `dir`, calling `visit` for every whole batch in order. Errors: a directory that cannot be read.
pub fn inspect(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    visit: &mut dyn FnMut(&Place<'_>),
) -> Result<LogReport, LogError> {
    let mut report = LogReport::default();
    let entries = storage.list(dir).map_err(LogError::read(dir))?;
    for base in entries.iter().filter_map(|e| segment_base(&e.name, "log")) {
        match SegmentFile::open(&**storage, &segment_path(dir, base)) {
            Ok(Ok(segment)) => report.segments.push(walk(&segment, visit)?),
            Ok(Err(_)) | Err(LogError::Damaged(_)) => {}
            Err(other) => return Err(other),
        }
    }
    let verdict = load_state(storage, dir).and_then(|state| {
        report.start = state.as_ref().map_or(0, |s| s.start);
        report.truncating_to = state.and_then(|s| s.cutting).map(|c| c.next);
        match report.truncating_to {
            Some(_) => Ok(Recovery::default()),
            None => {
                let config = LogConfig { verify: Verify::Everything, ..LogConfig::default() };
                scan(storage, dir, &config).map(|(_, recovery)| recovery)
            }
        }
    });
    match verdict {
        Ok(recovery) => report.recovery = recovery,
        Err(LogError::Damaged(damage)) => report.damage = Some(damage),
        Err(other) => return Err(other),
    }
    Ok(report)
}

fn walk(segment: &SegmentFile, visit: &mut dyn FnMut(&Place<'_>)) -> Result<SegmentReport, LogError> {
    let mark = segment.mark();
    let mut outline = Outline::new(&segment.identity);
    let mut walker = Walker::new(&*segment.file, segment.len()?);
    let mut batches = 0;
    let stopped = loop {
        match walker.next(&outline) {
            Ok(Ok((header, bytes))) => {
                let (file, position) = (segment.path.as_path(), outline.end);
                visit(&Place { file, position, header, bytes, above_mark: position >= mark.end });
                batches += 1;
                outline.add(&header, u64::MAX);
            }
            Ok(Err(Stop::Bad(why))) => break Some(why),
            Ok(Err(Stop::Limit | Stop::Zero)) => break None,
            Err(e) => break Some(format!("cannot be read: {e}")),
        }
    };
    Ok(SegmentReport {
        file: segment.path.clone(),
        base: segment.identity.base,
        next: outline.next,
        batches,
        bytes: outline.end,
        marked: mark.next,
        sealed: mark.sealed,
        stopped,
    })
}
