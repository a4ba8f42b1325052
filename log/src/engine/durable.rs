//! The log's half of making bytes durable: handing out flush jobs and applying their completions.
//!
//! Owns: when a job is due, what it captures, and the advance of the durable end.
//! Never: syncs on the appending thread, except through [`Log::sync`], [`Log::idle_mark`] and
//! [`Log::close_clean`], which say so.
//! Invariant: the durable end moves only by a completion of the current generation, and only forward.

use std::sync::Arc;

use protocol::planted::{self, Bug};

use super::Log;
use crate::error::LogError;
use crate::flush::{FlushJob, Flushed};
use crate::limits::INDEX_SNAPSHOT_BYTES;
use crate::segment::{Mark, Outline};

impl Log {
    fn is_dirty(&self) -> bool {
        self.end > self.durable_end
            || self.frozen.values().next_back().is_some_and(|f| f.pending.is_some())
            || (self.active.is_some() && (self.names > self.names_synced || self.parent_unsynced))
    }

    /// A job that makes everything appended so far durable, or `None` if it is already. Run it on any thread
    /// ([`FlushJob::run`]) while appends go on, then hand the outcome to [`Log::flushed`]. Several may be under way.
    pub fn flush_job(&self) -> Option<FlushJob> {
        self.is_dirty().then(|| self.job())
    }

    /// The active segment's index, if it grew by `growth` bytes, and by an eighth of the segment, since it was last
    /// written beside it.
    fn snapshot(&self, growth: u64) -> Option<Outline> {
        let active = self.active.as_ref()?;
        let grown = active.outline.end.saturating_sub(active.snapshot_end);
        (grown >= growth.max(active.outline.end / 8)).then(|| active.outline.clone())
    }

    fn job(&self) -> FlushJob {
        let pending = self.frozen.values().rev().map_while(|f| f.pending.clone());
        let mut frozen: Vec<_> = pending.collect();
        frozen.reverse();
        FlushJob {
            storage: self.storage.clone(),
            dir: self.dir.clone(),
            shared: self.shared.clone(),
            generation: self.generation,
            frozen,
            active: self.active.as_ref().map(|a| (a.file.clone(), a.outline.mark(false))),
            snapshot: self.snapshot(INDEX_SNAPSHOT_BYTES),
            sync_parent: self.parent_unsynced,
            sync_names: self.names > self.names_synced,
            names: self.names,
            upto: self.end,
            without: None,
        }
    }

    /// Applies a finished job. Returns the durable end if it moved; `None` for a job of an older generation, whose
    /// bytes may have been cut since.
    pub fn flushed(&mut self, flushed: Flushed) -> Result<Option<u64>, LogError> {
        self.shared.check()?;
        let former = flushed.void || flushed.generation != self.generation;
        if former && planted::is(Bug::FlushFromBeforeTruncation) {
            self.durable_end = self.durable_end.max(flushed.upto.min(self.end));
            return Ok(Some(self.durable_end));
        }
        if former {
            return Ok(None);
        }
        for base in flushed.sealed {
            if let Some(frozen) = self.frozen.get_mut(&base) {
                frozen.pending = None;
            }
        }
        if flushed.parent_synced {
            self.parent_unsynced = false;
        }
        self.names_synced = self.names_synced.max(flushed.names);
        self.marked = self.marked.max(flushed.marked);
        if let (Some(active), Some((base, end))) = (self.active.as_mut(), flushed.snapshot)
            && active.outline.base == base
        {
            active.snapshot_end = active.snapshot_end.max(end);
        }
        if flushed.upto <= self.durable_end {
            return Ok(None);
        }
        assert!(flushed.upto <= self.end, "a flush of this generation covers only what was appended");
        self.durable_end = flushed.upto;
        Ok(Some(self.durable_end))
    }

    /// Makes everything durable on this thread: for votes, recovery, truncation. One job, run and applied.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.shared.check()?;
        if let Some(job) = self.flush_job() {
            let flushed = job.run()?;
            self.flushed(flushed)?;
        }
        Ok(())
    }

    /// As [`Log::sync`]; with `bug` planted it only says so.
    pub(crate) fn sync_unless(&mut self, bug: Bug) -> Result<(), LogError> {
        if let Some(job) = self.flush_job() {
            let flushed = job.unless(bug).run()?;
            self.flushed(flushed)?;
        }
        Ok(())
    }

    /// True if [`Log::idle_mark`] has something to do: data not durable, or an end mark that is not.
    pub fn needs_idle_mark(&self) -> bool {
        self.is_dirty() || (self.active.is_some() && self.marked < self.durable_end)
    }

    /// A job that makes the newest end mark durable, for a log gone idle whose data are durable already; run and
    /// applied like a flush job. Call within a second of the last append.
    pub fn idle_job(&self) -> Option<FlushJob> {
        self.needs_idle_mark().then(|| self.job())
    }

    /// Makes data and end mark durable on this thread: within a second of going idle.
    pub fn idle_mark(&mut self) -> Result<(), LogError> {
        self.sync()?;
        if let Some(job) = self.idle_job() {
            let flushed = job.run()?;
            self.flushed(flushed)?;
        }
        Ok(())
    }

    /// Ends the life of this log in the process cleanly: trims reserved space, makes all durable, and marks it so
    /// that the next open reads nothing again. Nothing is written if nothing changed since a clean stop. Flushes in
    /// flight become void: the directory may be moved, and another log begun in its place, once this returns.
    /// Without room to note that the log is not empty any more its bytes and names are durable, but not marked: the next
    /// open reads them once more.
    pub fn close_clean(mut self) -> Result<(), LogError> {
        match self.sync() {
            Err(error @ LogError::DiskFull { .. }) => {
                tracing::warn!(dir = %self.dir.display(), %error, "no room to mark a log as closed");
                self.shared.gate().generation += 1;
                return Ok(());
            }
            other => other?,
        }
        self.shared.gate().generation += 1;
        let result = self.close();
        self.shared.guard(result)
    }

    fn close(&mut self) -> Result<(), LogError> {
        let Some(active) = self.active.as_ref() else {
            return Ok(());
        };
        let file = Arc::clone(&active.file);
        let mark = Mark { closed: true, ..active.outline.mark(false) };
        if file.mark() == mark && active.allocated == active.outline.end {
            return Ok(());
        }
        let active = self.active.as_mut().expect("checked above");
        let mut slots = file.slots();
        if active.outline.end > active.snapshot_end {
            self.shared.write_index(&active.outline)?;
            active.snapshot_end = active.outline.end;
        }
        if active.allocated > active.outline.end {
            file.file.set_len(active.outline.end).map_err(LogError::io("cut", &file.path))?;
            active.allocated = active.outline.end;
        }
        file.write_mark(&mut slots, mark)?;
        file.sync()
    }
}
