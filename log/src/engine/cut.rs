//! Taking bytes away: truncating the tail, dropping the head, starting over.
//!
//! Owns: the order of durable steps, so that a power cut at any of them leaves the log before or after, never
//! damaged.
//! Never: decides where to cut (replication and retention do).
//! Invariant: a truncation lowers the mark durably, cuts, and syncs the cut before it returns; the log start is
//! durable before a segment below it is unlinked; a new generation begins before the first byte is touched, so
//! that no flush in flight writes a mark for what is being cut.

use std::path::Path;
use std::sync::Arc;

use protocol::planted::{self, Bug};

use super::read::{Cursor, look_twice, step};
use super::shared::{DirState, Gate};
use super::{Active, Cutting, Log};
use crate::epochs::{EpochStart, EpochTable};
use crate::error::{Damage, LogError};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::segment::walk::Walker;
use crate::segment::{Mark, Outline, SegmentFile, index_path, segment_path};
use crate::storage::Storage;

/// What a head drop removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Segments removed.
    pub segments: usize,
    /// Bytes of their batches.
    pub bytes: u64,
}

impl Log {
    /// Cuts everything at and above `to`; durable on return. A batch that straddles `to` goes whole, so the log may
    /// end below: the new end is returned. Flushes in flight become void. Syncs on this thread.
    /// Errors: `to` outside of the log; `DiskFull`, and the log is as before.
    pub fn truncate(&mut self, to: u64) -> Result<u64, LogError> {
        self.shared.check()?;
        if to > self.end {
            return Err(LogError::AboveEnd { offset: to, end: self.end });
        }
        if to < self.start {
            return Err(LogError::BelowStart { offset: to, start: self.start });
        }
        if to == self.end {
            return Ok(self.end);
        }
        // The lowered mark may only speak of durable bytes, and seals of earlier segments and names come before it.
        self.sync()?;
        let outline = look_twice(|| self.outline_up_to(to))?;
        if outline.next < self.start {
            let start = self.start;
            return self.reset(start).map(|()| start);
        }
        self.cut_to(outline)?;
        Ok(self.end)
    }

    /// The outline, ending at the last batch boundary at or below `to`, of the segment that holds it. What it adds up is
    /// compared with the next place that is known of the batches about to go: afterwards nothing else could tell.
    fn outline_up_to(&self, to: u64) -> Result<Outline, LogError> {
        let (full, file) = self.segment_at(to)?;
        let mut outline = full.rewound(to);
        let Some(mut cursor) = full.floor(to).map(|entry| Cursor::new(&full, entry)) else { return Ok(outline) };
        let mut walker = Walker::new(&*file.file, full.end);
        while outline.next < to {
            let found = walker.next(&outline).map_err(|e| Damage::new(&file.path, outline.end, e.to_string()))?;
            let (header, _) = found.map_err(|stop| Damage::new(&file.path, outline.end, format!("{stop:?}")))?;
            if header.next_offset() > to {
                break;
            }
            step(&full, &file, &mut cursor, &header)?;
            outline.add(&header, self.config.index_interval_bytes);
        }
        self.confirm(&full, &file, &mut cursor, &[])?;
        Ok(outline)
    }

    fn cut_to(&mut self, outline: Outline) -> Result<(), LogError> {
        let cutting = Cutting::at(&outline);
        let later: Vec<u64> = self.segment_bases().filter(|base| *base > outline.base).collect();
        let shared = self.shared.clone();
        let mut gate = shared.gate();
        if self.frozen.contains_key(&outline.base) || !later.is_empty() {
            gate.state.cutting = Some(cutting);
            if let Err(error) = shared.guard(shared.store(&gate)) {
                gate.state.cutting = None;
                return Err(error);
            }
        }
        gate.generation += 1;
        self.generation = gate.generation;
        let result = self.cut_files(&mut gate, outline, cutting, &later);
        shared.guard_steps(result)
    }

    /// From here on the cut is made whatever happens, by the next start if need be.
    fn cut_files(
        &mut self,
        gate: &mut Gate,
        outline: Outline,
        cutting: Cutting,
        later: &[u64],
    ) -> Result<(), LogError> {
        let file = match self.active.take().filter(|a| a.outline.base == outline.base) {
            Some(active) => active.file,
            None => self.open_segment(outline.base)?,
        };
        finish_cut(&*self.storage, &self.dir, &file, cutting.mark(), later)?;
        if gate.state.cutting.take().is_some() {
            self.shared.store(gate)?;
        }
        self.frozen.retain(|base, _| *base < outline.base);
        self.loaded.lock().retain(|(base, _)| *base < outline.base);
        self.epochs.truncate(outline.next);
        self.end = outline.next;
        self.durable_end = self.durable_end.min(self.end);
        self.marked = self.marked.min(self.end);
        self.active = Some(Active { file, allocated: outline.end, snapshot_end: SEGMENT_HEADER_BYTES, outline });
        Ok(())
    }

    /// The open file of a frozen segment.
    fn open_segment(&self, base: u64) -> Result<Arc<SegmentFile>, LogError> {
        if let Some((file, _)) = self.frozen.get(&base).and_then(|f| f.pending.clone()) {
            return Ok(file);
        }
        let path = segment_path(&self.dir, base);
        Ok(Arc::new(SegmentFile::open(&*self.storage, &path)??))
    }

    fn segment_bases(&self) -> impl Iterator<Item = u64> + '_ {
        self.frozen.keys().copied().chain(self.active.iter().map(|a| a.outline.base))
    }

    /// Raises the log start to `upto` (retention, delete-records) and removes segments that lie wholly below.
    /// The new start is durable on return; `upto` at or below the start does nothing. Syncs on this thread.
    /// The caller keeps `upto` at or below the high watermark. Errors: `upto` above the log end; `DiskFull`, and the log is
    /// as before.
    pub fn drop_head(&mut self, upto: u64) -> Result<Dropped, LogError> {
        self.shared.check()?;
        if upto > self.end {
            return Err(LogError::AboveEnd { offset: upto, end: self.end });
        }
        if upto <= self.start {
            return Ok(Dropped::default());
        }
        let unsealed = self.frozen.values().any(|f| f.mark.next <= upto && f.pending.is_some());
        if self.durable_end < upto || unsealed {
            self.sync()?;
        }
        self.store_start(upto)?;
        let result = self.remove_below(upto);
        self.shared.guard_steps(result)
    }

    /// Makes the new start durable. Without room for that nothing has changed.
    fn store_start(&mut self, upto: u64) -> Result<(), LogError> {
        let mut epochs = self.epochs.clone();
        epochs.trim_head(upto);
        // What covers the record before the new start, for when the batches that began it are gone.
        let covering = |e: &&EpochStart| e.start < upto;
        let covering = epochs.entries().iter().filter(covering).copied().collect();
        let shared = self.shared.clone();
        let mut gate = shared.gate();
        let before = gate.state.clone();
        gate.state.start = upto;
        gate.state.epochs = covering;
        if let Err(error) = shared.guard(shared.store(&gate)) {
            gate.state = before;
            return Err(error);
        }
        drop(gate);
        self.start = upto;
        self.epochs = epochs;
        Ok(())
    }

    fn remove_below(&mut self, upto: u64) -> Result<Dropped, LogError> {
        let gone: Vec<(u64, u64)> = self
            .frozen
            .values()
            .take_while(|f| f.mark.next <= upto)
            .map(|f| (f.identity.base, f.mark.end - f.identity.initial_mark().end))
            .collect();
        let mut dropped = Dropped::default();
        for (base, bytes) in gone {
            remove_segment(&*self.storage, &self.dir, base)?;
            self.frozen.remove(&base);
            self.loaded.lock().retain(|(loaded, _)| *loaded != base);
            dropped.segments += 1;
            dropped.bytes += bytes;
        }
        Ok(dropped)
    }

    /// Throws everything away and begins at `start`, durably: for a follower whose log lies below its leader's, and
    /// a Raft log purged past its end. Flushes in flight become void. Syncs on this thread.
    /// Errors: `DiskFull`, and the log is as before.
    pub fn reset(&mut self, start: u64) -> Result<(), LogError> {
        self.shared.check()?;
        let made = self.make_dir().and_then(|()| self.sync_name());
        self.shared.guard(made)?;
        let shared = self.shared.clone();
        let mut gate = shared.gate();
        let fresh = DirState { life: self.life + 1, start, ..DirState::fresh() };
        let before = std::mem::replace(&mut gate.state, fresh);
        if let Err(error) = shared.guard(shared.store(&gate)) {
            gate.state = before;
            return Err(error);
        }
        gate.generation += 1;
        self.generation = gate.generation;
        self.life += 1;
        let result = self.start_over(start);
        shared.guard_steps(result)
    }

    /// Makes the name of the directory durable if it is new.
    fn sync_name(&mut self) -> Result<(), LogError> {
        if self.parent_unsynced
            && let Some(parent) = self.dir.parent()
        {
            self.storage.sync_dir(parent).map_err(LogError::io("sync of directory", parent))?;
            self.parent_unsynced = false;
        }
        Ok(())
    }

    /// The new life has begun durably: what is left of the old one is garbage.
    fn start_over(&mut self, start: u64) -> Result<(), LogError> {
        let bases: Vec<u64> = self.segment_bases().collect();
        for base in bases {
            remove_segment(&*self.storage, &self.dir, base)?;
        }
        self.storage.sync_dir(&self.dir).map_err(LogError::io("sync of directory", &self.dir))?;
        self.frozen.clear();
        self.active = None;
        self.loaded.lock().clear();
        self.epochs = EpochTable::new();
        (self.start, self.end, self.durable_end, self.marked) = (start, start, start, start);
        self.names_synced = self.names;
        Ok(())
    }
}

/// Lowers the mark durably, cuts the file there, lowers the other slot too, syncs the cut, removes later segments.
/// Safe to repeat.
pub(crate) fn finish_cut(
    storage: &dyn Storage,
    dir: &Path,
    file: &SegmentFile,
    mark: Mark,
    later: &[u64],
) -> Result<(), LogError> {
    let mut slots = file.slots();
    let sync = || if planted::is(Bug::LogTruncationNotSynced) { Ok(()) } else { file.sync() };
    if planted::is(Bug::TruncationBeforeMarkLowered) {
        file.file.set_len(mark.end).map_err(LogError::io("cut", &file.path))?;
        file.sync()?;
    }
    file.write_mark(&mut slots, mark)?;
    sync()?;
    for base in later {
        remove_segment(storage, dir, *base)?;
    }
    remove_if_there(storage, &index_path(dir, file.identity.base))?;
    storage.sync_dir(dir).map_err(LogError::io("sync of directory", dir))?;
    file.file.set_len(mark.end).map_err(LogError::io("cut", &file.path))?;
    // Both slots agree now: losing one to damage cannot bring the higher mark back.
    file.write_mark(&mut slots, mark)?;
    sync()
}

/// Removes a segment and its index. Not durable until the directory is synced; coming back does no harm, because
/// the log start or the state says that it is garbage.
pub(crate) fn remove_segment(storage: &dyn Storage, dir: &Path, base: u64) -> Result<(), LogError> {
    remove_if_there(storage, &index_path(dir, base))?;
    remove_if_there(storage, &segment_path(dir, base))
}

pub(crate) fn remove_if_there(storage: &dyn Storage, path: &Path) -> Result<(), LogError> {
    match storage.remove(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(LogError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
