//! The end of opening a log: what the scan kept becomes durable, what it did not keep goes away.
//!
//! Owns: [`settle`].
//! Never: decides what is kept ([`crate::recovery`] did), shows a byte that no sync of this process covers.
//! Invariant: **bytes above the end mark are written again before they are synced.** An earlier process may have been
//! told that their sync failed. Linux then calls their pages clean, goes on showing them, and reports the error once:
//! another sync without another write returns success and writes nothing (Rebello et al., ATC'20). Bytes at or below a
//! mark were synced before the mark was written, and no mark is written after a sync that failed ([`SegmentFile::sync`]).
//! Names need no second making, a sync of the directory covers them whoever made them; it comes before anything is done
//! that would outlive a state that went back: here before files go, later with the first flush or truncation.

use std::path::PathBuf;
use std::sync::Arc;

use protocol::planted::{self, Bug};

use crate::engine::Log;
use crate::engine::cut::remove_if_there;
use crate::error::{Damage, LogError};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::recovery::Recovery;
use crate::segment::walk::Walker;
use crate::segment::{Outline, SegmentFile, identity_of, marks_of};
use crate::storage::read_up_to;

/// Makes what the scan kept durable, and what it did not keep go away, before the log is shown. `names_unsynced`: segments
/// may have names that no directory sync covers.
pub(crate) fn settle(
    log: &mut Log,
    recovery: &Recovery,
    names_unsynced: bool,
    garbage: &[PathBuf],
) -> Result<(), LogError> {
    let result = clear(log, recovery, names_unsynced, garbage);
    log.shared().guard(result)?;
    if recovery.clean {
        return Ok(());
    }
    if planted::is(Bug::KeptTailNotSynced) {
        return log.sync_unless(Bug::KeptTailNotSynced);
    }
    let result = rewrite(log);
    log.shared().guard(result)?;
    // The length to which a truncation cut the file may be in the cache only, and what it took away would come back.
    let cut = log.active_mut().map(|active| active.file.clone()).filter(|file| file.was_cut);
    if let Some(file) = cut {
        log.shared().guard(file.sync())?;
    }
    if names_unsynced || recovery.kept_bytes > 0 || recovery.cut.is_some() {
        log.sync()?;
        // And the mark itself, so that this work is never judged again.
        log.idle_mark()?;
    }
    Ok(())
}

fn clear(log: &mut Log, recovery: &Recovery, names_unsynced: bool, garbage: &[PathBuf]) -> Result<(), LogError> {
    let storage = log.storage().clone();
    let sync = |log: &Log| storage.sync_dir(log.dir()).map_err(LogError::io("sync of directory", log.dir()));
    let drops = garbage.iter().any(|path| path.extension().is_some_and(|e| e == "log"));
    let begun_anew = log.active_mut().is_none() && names_unsynced;
    // The state that says where the log starts, and that makes garbage of segments, may be in the cache only.
    if drops || begun_anew || log.start_offset() > 0 {
        sync(log)?;
    }
    for path in garbage {
        remove_if_there(&*storage, path)?;
    }
    if drops {
        sync(log)?;
    }
    let Some(active) = log.active_mut() else {
        return Ok(());
    };
    let file = &active.file.file;
    if recovery.cut.is_some() {
        file.set_len(active.outline.end).map_err(LogError::io("cut", &active.file.path))?;
    }
    active.allocated = file.len().map_err(LogError::read(&active.file.path))?.max(active.outline.end);
    Ok(())
}

/// Writes again, unsynced, whatever of the segments that are not sealed an earlier process may have failed to sync.
fn rewrite(log: &mut Log) -> Result<(), LogError> {
    for (file, outline) in log.pending() {
        rewrite_segment(&file, &outline, outline.end)?;
    }
    let Some(active) = log.active_mut() else {
        return Ok(());
    };
    rewrite_segment(&active.file, &active.outline, active.allocated)
}

/// The first page, every batch above the mark, the length. What is written is what was judged: it is checked once more,
/// for the cache may have dropped a page since and read an older one from the disk.
fn rewrite_segment(file: &Arc<SegmentFile>, outline: &Outline, len: u64) -> Result<(), LogError> {
    let unreadable = |at: u64, e: std::io::Error| Damage::new(&file.path, at, format!("cannot be read: {e}"));
    let changed = |at: u64| Damage::new(&file.path, at, "other bytes are read here than a moment ago");
    let mark = file.mark();
    let page = read_up_to(&*file.file, 0, SEGMENT_HEADER_BYTES as usize).map_err(|e| unreadable(0, e))?;
    let newest = marks_of(&page, &file.identity).first().map(|(_, mark)| *mark);
    if identity_of(&page) != Ok(file.identity) || newest != Some(mark) {
        return Err(changed(0).into());
    }
    let write = |at: u64, bytes: &[u8]| file.file.write_at(at, bytes).map_err(LogError::io("write", &file.path));
    write(0, &page)?;
    let mut at = outline.rewound(mark.next);
    let mut walker = Walker::new(&*file.file, outline.end);
    while at.end < outline.end {
        let position = at.end;
        let step = walker.next(&at).map_err(|e| unreadable(position, e))?;
        let (header, bytes) = step.map_err(|_| changed(position))?;
        if position >= mark.end {
            write(position, bytes)?;
        }
        at.add(&header, u64::MAX);
    }
    if (at.next, at.chain) != (outline.next, outline.chain) {
        return Err(changed(at.end).into());
    }
    file.file.set_len(len).map_err(LogError::io("cut", &file.path))
}
