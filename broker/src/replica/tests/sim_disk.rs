//! A partition log on a model disk: batches, what of them is synced, the policy note, the checkpoint.

use super::super::{Checkpoint, LogFacts};
use super::sim::Rng;
use log::epochs::EpochTable;
use protocol::ids::LeaderEpoch;
use protocol::metadata::configs::FlushPolicy;

/// One batch: its value stands for its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) base: u64,
    pub(super) end: u64,
    pub(super) epoch: LeaderEpoch,
    pub(super) value: u64,
}

/// See the header.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) batches: Vec<Batch>,
    pub(super) start: u64,
    /// End of an empty log.
    origin: u64,
    pub(super) durable: u64,
    pub(super) noted: Option<FlushPolicy>,
    pub(super) checkpoint: Option<Checkpoint>,
    /// A truncation or power loss cut something that was ever counted; set by the crash, read by the proof.
    pub(super) lost_unsynced: bool,
}

impl Disk {
    pub(super) fn end(&self) -> u64 {
        self.batches.last().map_or(self.origin, |b| b.end)
    }

    /// The batch that begins at `base`.
    pub(super) fn at(&self, base: u64) -> Option<Batch> {
        self.batches.binary_search_by_key(&base, |b| b.base).ok().map(|i| self.batches[i])
    }

    pub(super) fn append(&mut self, batch: Batch) {
        assert_eq!(batch.base, self.end(), "an append at the end");
        self.batches.push(batch);
    }

    pub(super) fn truncate(&mut self, to: u64) {
        self.batches.retain(|b| b.end <= to);
        if self.batches.is_empty() {
            self.origin = self.origin.max(self.start).min(to);
        }
        self.durable = self.end();
    }

    pub(super) fn reset(&mut self, start: u64) {
        self.batches.clear();
        (self.start, self.origin, self.durable) = (start, start, start);
    }

    pub(super) fn advance_start(&mut self, to: u64) {
        self.start = self.start.max(to);
        let end = self.end();
        self.batches.retain(|b| b.end > self.start);
        if self.batches.is_empty() {
            self.origin = end;
        }
        self.durable = self.durable.max(self.start);
    }

    pub(super) fn synced(&mut self, upto: u64) {
        self.durable = self.durable.max(upto.min(self.end()));
    }

    /// Power is lost: of what was not synced, some whole batches from the front may have made it.
    pub(super) fn power_loss(&mut self, rng: &mut Rng) {
        let end = self.end();
        let mut keep = self.durable;
        for batch in self.batches.iter().filter(|b| b.end > self.durable) {
            if rng.chance(50) {
                break;
            }
            keep = batch.end;
        }
        self.batches.retain(|b| b.end <= keep);
        if self.batches.is_empty() {
            self.origin = self.durable;
        }
        self.lost_unsynced = self.end() < end;
        // Recovery syncs what it keeps.
        self.durable = self.end();
    }

    /// The process died, the page cache did not; recovery syncs what it finds.
    pub(super) fn process_death(&mut self) {
        self.lost_unsynced = false;
        self.durable = self.end();
    }

    pub(super) fn wipe(&mut self) {
        *self = Self { lost_unsynced: true, ..Self::default() };
    }

    pub(super) fn facts(&self, epochs: &EpochTable) -> LogFacts {
        LogFacts {
            start: self.start,
            end: self.end(),
            durable_end: self.durable,
            epochs: epochs.clone(),
            noted_policy: self.noted,
            directory_noted: true,
            damaged: false,
        }
    }

    /// The epoch table as the batches tell it.
    pub(super) fn epochs(&self) -> EpochTable {
        let mut table = EpochTable::new();
        for batch in &self.batches {
            table.assign(batch.epoch.0, batch.base);
        }
        table
    }
}
