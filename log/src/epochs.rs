//! Leader epochs of a log and where each begins (KIP-101, KIP-279).
//!
//! Owns: [`EpochTable`], the map from epoch to first offset, and the questions replication asks of it.
//! Never: does I/O; the engine derives the table from the batches and keeps what dropped segments leave behind.
//! Invariant: epochs and starts both strictly grow. Truncation to a divergence point found here never removes a
//! record that both sides share; truncation to a high watermark would.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::{Deserialize, Serialize};

/// First offset of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// The leader epoch.
    pub epoch: u32,
    /// Offset of its first batch.
    pub start: u64,
}

/// A log that ends at offset `end`, the last records up to there being of `epoch`: where two logs part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch; `None` if the log knows none at or below the one asked for.
    pub epoch: Option<u32>,
    /// First offset that does not belong to it.
    pub end: u64,
}

/// Epochs of a log in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EpochTable {
    entries: Vec<EpochStart>,
}

impl EpochTable {
    /// An empty table.
    pub fn new() -> EpochTable {
        EpochTable::default()
    }

    /// The entries in order.
    pub fn entries(&self) -> &[EpochStart] {
        &self.entries
    }

    /// The last epoch.
    pub fn last(&self) -> Option<EpochStart> {
        self.entries.last().copied()
    }

    /// Notes that a batch of `epoch` is appended at `start`. Does nothing if the epoch is the last one.
    ///
    /// # Panics
    /// If epoch or offset falls: the engine refuses such appends.
    pub fn assign(&mut self, epoch: u32, start: u64) {
        if let Some(last) = self.last() {
            if last.epoch == epoch {
                return;
            }
            assert!(last.epoch < epoch && last.start < start, "epoch {epoch} at {start} after {last:?}");
        }
        self.entries.push(EpochStart { epoch, start });
    }

    /// Epoch of the record at `offset`, which must be below the log end. `None` below the first entry.
    pub fn epoch_at(&self, offset: u64) -> Option<u32> {
        let at = self.entries.partition_point(|e| e.start <= offset);
        at.checked_sub(1).map(|i| self.entries[i].epoch)
    }

    /// Largest epoch at or below `epoch` and the offset where it ends in this log, whose log end is `log_end`.
    /// With no such epoch the answer is the start of the first known epoch (nothing below it can be compared).
    pub fn end_offset_for(&self, epoch: u32, log_end: u64) -> EpochEnd {
        let at = self.entries.partition_point(|e| e.epoch <= epoch);
        let end = self.entries.get(at).map_or(log_end, |next| next.start);
        EpochEnd { epoch: at.checked_sub(1).map(|i| self.entries[i].epoch), end }
    }

    /// A leader's check of a follower whose log ends at `their_end` with `their_epoch`: `None` if that is a prefix of
    /// this log, else where ours ends for the largest epoch not above theirs; the follower cuts with
    /// [`EpochTable::truncation_point`] and asks again.
    pub fn divergence(&self, their_epoch: Option<u32>, their_end: u64, log_end: u64) -> Option<EpochEnd> {
        let their_epoch = their_epoch?;
        let ours = self.end_offset_for(their_epoch, log_end);
        let prefix = ours.epoch == Some(their_epoch) && their_end <= ours.end;
        (!prefix).then_some(ours)
    }

    /// Where a follower with this table and log end `log_end` cuts when the leader answered `theirs`: the last offset
    /// both may share. Never above `log_end`.
    pub fn truncation_point(&self, theirs: EpochEnd, log_end: u64) -> u64 {
        let ours = match theirs.epoch {
            Some(epoch) => self.end_offset_for(epoch, log_end),
            None => EpochEnd { epoch: None, end: theirs.end },
        };
        // Our records of an epoch the leader does not have lie above the end of the last one we share.
        ours.end.min(theirs.end).min(log_end)
    }

    /// First offset at which two logs differ by (epoch, offset), at most the smaller log end.
    pub fn common_point(&self, log_end: u64, theirs: &EpochTable, their_end: u64) -> u64 {
        let end = log_end.min(their_end);
        let starts = self.entries.iter().chain(&theirs.entries).map(|e| e.start);
        let mut cuts: Vec<u64> = starts.filter(|start| *start < end).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts.into_iter().find(|at| self.epoch_at(*at) != theirs.epoch_at(*at)).unwrap_or(end)
    }

    /// Forgets everything at or above `to`.
    pub fn truncate(&mut self, to: u64) {
        self.entries.retain(|e| e.start < to);
    }

    /// Forgets epochs below a new log start. The epoch of the record before `start` stays, with its true first
    /// offset: it is the last epoch of a log that is cut back to its start.
    pub fn trim_head(&mut self, start: u64) {
        let covering = self.entries.partition_point(|e| e.start < start).saturating_sub(1);
        self.entries.drain(..covering);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A log as a list of epochs, one per record.
    fn table(log: &[u32]) -> EpochTable {
        let mut table = EpochTable::new();
        log.iter().enumerate().for_each(|(at, epoch)| table.assign(*epoch, at as u64));
        table
    }

    /// Two logs as Raft-like histories make them: a common prefix, then epochs that only one of them has.
    fn arb_logs() -> impl Strategy<Value = (Vec<u32>, Vec<u32>)> {
        let run = |parity: u32| {
            proptest::collection::vec((0u32..4, 1usize..4), 0..4).prop_map(move |runs| {
                let mut epoch = 10 + parity;
                let mut out = Vec::new();
                for (step, len) in runs {
                    epoch += 2 * step;
                    out.extend(std::iter::repeat_n(epoch, len));
                }
                out
            })
        };
        let prefix = proptest::collection::vec(0u32..3, 0..6).prop_map(|mut v| {
            v.sort_unstable();
            v
        });
        (prefix, run(0), run(1)).prop_map(|(prefix, a, b)| ([prefix.clone(), a].concat(), [prefix, b].concat()))
    }

    fn first_difference(a: &[u32], b: &[u32]) -> u64 {
        a.iter().zip(b).take_while(|(x, y)| x == y).count() as u64
    }

    proptest! {
        #[test]
        fn asking_the_leader_ends_at_the_first_difference((leader, follower) in arb_logs()) {
            let (lead, end) = (table(&leader), leader.len() as u64);
            let mut log = follower.clone();
            let mut rounds = 0;
            loop {
                let ours = table(&log);
                let Some(answer) = lead.divergence(log.last().copied(), log.len() as u64, end) else { break };
                let to = ours.truncation_point(answer, log.len() as u64);
                prop_assert!(to < log.len() as u64, "every answer makes progress");
                prop_assert!(to >= first_difference(&leader, &follower), "nothing shared is cut");
                log.truncate(to as usize);
                rounds += 1;
                prop_assert!(rounds < 20);
            }
            prop_assert_eq!(log.len() as u64, first_difference(&leader, &follower));
        }

        #[test]
        fn the_common_point_is_the_first_difference((a, b) in arb_logs()) {
            let point = table(&a).common_point(a.len() as u64, &table(&b), b.len() as u64);
            prop_assert_eq!(point, first_difference(&a, &b));
        }

        #[test]
        fn truncating_and_trimming_keep_what_is_left((log, _) in arb_logs(), to in 0u64..12, from in 0u64..12) {
            let to = to.min(log.len() as u64);
            let mut cut = table(&log);
            cut.truncate(to);
            prop_assert_eq!(&cut, &table(&log[..to as usize]));
            let mut trimmed = table(&log);
            trimmed.trim_head(from);
            for at in from..log.len() as u64 {
                prop_assert_eq!(trimmed.epoch_at(at), Some(log[at as usize]));
            }
        }
    }
}
