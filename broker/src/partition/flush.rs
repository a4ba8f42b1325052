//! Group commit of one partition: one flush under way, everything appended meanwhile goes with the next.
//!
//! Invariant: a completion is stepped with the replica's generation at the time its job was made, so a flush from before
//! a cut never counts for bytes after it, and only in the life of the partition that asked for it.

use log::{Flushed, LogError};

use super::Partition;
use super::outside::{Life, Outside};
use crate::fatal::Fatal;
use crate::replica::input::Input;
use crate::replica::lease::Now;

/// What is wanted and what is under way.
#[derive(Debug, Default)]
pub(super) struct FlushState {
    wanted: Option<(u64, u64)>,
    under_way: Option<u64>,
    /// The last one found no room to note what it had synced: nothing is tried before [`Partition::retry_flush`].
    no_room: bool,
}

impl FlushState {
    pub(super) fn want(&mut self, generation: u64, upto: u64) {
        let upto = self.wanted.filter(|(g, _)| *g == generation).map_or(upto, |(_, before)| before.max(upto));
        self.wanted = Some((generation, upto));
    }

    /// A cut came: what was wanted is moot.
    pub(super) fn forget(&mut self) {
        self.wanted = None;
    }
}

impl Partition {
    /// Starts the wanted flush unless one is under way.
    pub(super) fn start_flush(&mut self, now: Now, out: &mut dyn Outside) {
        if self.flush.no_room || self.flush.under_way.is_some() || self.flush.wanted.is_none() {
            return;
        }
        self.flush.wanted = None;
        match self.log.flush_job() {
            Some(job) => {
                self.flush.under_way = Some(self.replica.generation());
                out.flush(self.life(), job);
            }
            // A cut or a head drop has synced it already: the replica waits for the word all the same.
            None => {
                let (generation, upto) = (self.replica.generation(), self.log.durable_end());
                self.step(Input::Flushed { generation, upto }, now, out);
            }
        }
    }

    /// The end mark of a log gone idle is made durable; call about once a second.
    pub fn idle(&mut self, out: &mut dyn Outside) {
        if self.dead || self.flush.under_way.is_some() || !self.log.needs_idle_mark() {
            return;
        }
        if let Some(job) = self.log.idle_job() {
            self.flush.under_way = Some(self.replica.generation());
            out.flush(self.life(), job);
        }
    }

    /// A flush that found no room may be tried again; true if there was one. Call every so often, then settle.
    pub fn retry_flush(&mut self) -> bool {
        std::mem::take(&mut self.flush.no_room)
    }

    /// A flush ended.
    pub fn flushed(&mut self, life: Life, outcome: Result<Flushed, LogError>, now: Now, out: &mut dyn Outside) {
        if self.dead {
            return;
        }
        if life != self.life() {
            return flushed_too_late(life, outcome, out);
        }
        let generation = self.flush.under_way.take();
        let applied = outcome.and_then(|flushed| self.log.flushed(flushed));
        match (applied, generation) {
            // Nothing was marked, and no sync failed. What waits for it waits on: a follower leaves the ISR by its lag.
            (Err(LogError::DiskFull { .. }), _) => {
                tracing::warn!(partition = %self.at, "no room to note what was synced");
                self.flush.no_room = true;
                self.flush.want(self.replica.generation(), self.log.end_offset());
            }
            (Err(error), _) => {
                let fatal = self.disk("sync", &error);
                self.die(fatal, out);
            }
            (Ok(_), Some(generation)) => {
                let upto = self.log.durable_end();
                self.step(Input::Flushed { generation, upto }, now, out);
            }
            (Ok(_), None) => {}
        }
    }
}

/// A flush of a partition that was taken away meanwhile ended. Its log was closed with a sync of its own, which the disk
/// may have told nothing of an error that this one was told: a failure counts.
pub fn flushed_too_late(life: Life, outcome: Result<Flushed, LogError>, out: &mut dyn Outside) {
    match outcome {
        Ok(_) | Err(LogError::DiskFull { .. }) => {}
        Err(error) => out.fatal(Fatal::Disk(format!("sync of {}, which was taken away: {error}", life.at))),
    }
}
