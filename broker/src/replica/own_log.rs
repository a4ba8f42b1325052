//! What the replica knows of its own log: ends, epochs, generation, and what still has to be synced.
//!
//! The durable end never comes from a flush of an older generation: bytes written after a cut would count as synced. And
//! nothing is durable before the registry durably knows of the directory: one that vanishes before would be taken for a
//! log that never was, and the replica for one that kept all it ever claimed.

use super::effect::Effect;
use super::input::BatchSpan;
use super::policy::PolicyNotes;
use log::epochs::EpochTable;
use protocol::ids::{LeaderEpoch, Millis};
use protocol::metadata::configs::FlushPolicy;
use protocol::planted::{self, Bug};

/// What recovery found of a partition's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFacts {
    /// First offset.
    pub start: u64,
    /// Offset after the last.
    pub end: u64,
    /// End of what is on disk.
    pub durable_end: u64,
    /// Epochs of its batches.
    pub epochs: EpochTable,
    /// The policy durably noted, None = never.
    pub noted_policy: Option<FlushPolicy>,
    /// The registry durably knows that the log's directory exists.
    pub directory_noted: bool,
    /// Part of the log was set aside as damaged; what is here is not all there was.
    pub damaged: bool,
}

impl LogFacts {
    /// A log that was never written.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            start: 0,
            end: 0,
            durable_end: 0,
            epochs: EpochTable::new(),
            noted_policy: None,
            directory_noted: false,
            damaged: false,
        }
    }
}

/// What the registry knows of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DirectoryNote {
    Missing,
    UnderWay,
    Durable,
}

/// The log as far as the replica needs it.
#[derive(Debug, Clone)]
pub(super) struct OwnLog {
    pub(super) start: u64,
    pub(super) end: u64,
    durable_end: u64,
    pub(super) epochs: EpochTable,
    generation: u64,
    pub(super) policy: PolicyNotes,
    directory: DirectoryNote,
    /// A flush up to here was asked for in this generation.
    flush_asked: u64,
    /// Under `interval`: since when something is not asked to be synced.
    dirty_since: Option<Millis>,
    pub(super) damaged: bool,
}

impl OwnLog {
    pub(super) fn recovered(facts: LogFacts) -> Self {
        Self {
            start: facts.start,
            end: facts.end,
            durable_end: facts.durable_end.min(facts.end),
            policy: PolicyNotes::recovered(facts.noted_policy, facts.end),
            directory: if facts.directory_noted { DirectoryNote::Durable } else { DirectoryNote::Missing },
            epochs: facts.epochs,
            generation: 0,
            flush_asked: 0,
            dirty_since: None,
            damaged: facts.damaged,
        }
    }

    /// How much no loss short of the disk's takes away.
    pub(super) fn durable_end(&self) -> u64 {
        if self.directory_is_noted() { self.durable_end } else { 0 }
    }

    pub(super) fn directory_is_noted(&self) -> bool {
        self.directory == DirectoryNote::Durable
    }

    pub(super) fn directory_noted(&mut self) {
        self.directory = DirectoryNote::Durable;
    }

    fn strict(&self) -> bool {
        self.policy.strict() || !self.directory_is_noted()
    }

    /// The policy to name to others: the one counted by.
    pub(super) fn named_policy(&self) -> FlushPolicy {
        if self.strict() { FlushPolicy::Sync } else { self.policy.named() }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Epoch of the last batch ever appended below the end, None = none.
    pub(super) fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.last().map(|e| LeaderEpoch(e.epoch))
    }

    /// How far this replica counts: the durable end unless a looser policy is noted and wanted.
    pub(super) fn position(&self) -> u64 {
        let strict = self.strict() && !planted::is(Bug::AnswerBeforeSync);
        if strict { self.durable_end() } else { self.end }
    }

    pub(super) fn appended(&mut self, batches: &[BatchSpan]) {
        for batch in batches {
            self.epochs.assign(batch.epoch.0, batch.base);
            self.end = batch.end;
        }
    }

    /// A cut (or reset) is done and synced: a new generation begins.
    pub(super) fn cut(&mut self, reset: bool, start: u64, end: u64) {
        if reset {
            self.epochs = EpochTable::new();
        } else {
            self.epochs.truncate(end);
        }
        self.start = start;
        self.end = end;
        self.durable_end = self.durable_end.min(end).max(start);
        self.generation += 1;
        self.flush_asked = 0;
    }

    pub(super) fn start_advanced(&mut self, start: u64) {
        self.start = self.start.max(start).min(self.end);
        // What is below the start is durably gone.
        self.durable_end = self.durable_end.max(self.start);
        self.epochs.trim_head(self.start);
    }

    /// Whether the durable end moved.
    pub(super) fn flushed(&mut self, generation: u64, upto: u64) -> bool {
        let former = generation != self.generation && !planted::is(Bug::FlushFromBeforeTruncation);
        if former || upto.min(self.end) <= self.durable_end {
            return false;
        }
        self.durable_end = upto.min(self.end);
        true
    }

    /// Asks for what the policy calls for: a sync of everything at once, or of what has waited long enough.
    pub(super) fn ask_flush(&mut self, interval_ms: Millis, now: Millis, effects: &mut Vec<Effect>) {
        if self.end <= self.durable_end.max(self.flush_asked) {
            self.dirty_since = None;
            return;
        }
        if !self.policy.strict() {
            let since = *self.dirty_since.get_or_insert(now);
            let due = self.policy.wanted() == FlushPolicy::Interval && now >= since.saturating_add(interval_ms);
            if !due {
                return;
            }
        }
        self.dirty_since = None;
        self.flush_asked = self.end;
        effects.push(Effect::Flush { generation: self.generation, upto: self.end });
    }

    /// When `ask_flush` may have something to say without another append.
    pub(super) fn flush_due(&self, interval_ms: Millis) -> Option<Millis> {
        let since = self.dirty_since.filter(|_| self.policy.wanted() == FlushPolicy::Interval)?;
        Some(since.saturating_add(interval_ms))
    }

    /// Asks for the notes of policy and directory once there is (or is about to be) something to note them for.
    pub(super) fn ask_note(&mut self, about_to_begin: bool, effects: &mut Vec<Effect>) {
        if !about_to_begin && self.end == 0 {
            return;
        }
        if let Some(policy) = self.policy.next_note(self.end, self.durable_end) {
            effects.push(Effect::NotePolicy(policy));
        }
        if self.directory == DirectoryNote::Missing {
            self.directory = DirectoryNote::UnderWay;
            effects.push(Effect::NoteDirectory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(end: u64) -> OwnLog {
        let mut log = OwnLog::recovered(LogFacts { directory_noted: true, ..LogFacts::empty() });
        log.policy.want(FlushPolicy::Sync, 0);
        log.appended(&[BatchSpan { base: 0, end, epoch: LeaderEpoch(1) }]);
        log
    }

    #[test]
    fn a_flush_from_before_a_cut_counts_for_nothing() {
        let mut log = log(10);
        let before = log.generation();
        log.cut(false, 0, 4);
        log.appended(&[BatchSpan { base: 4, end: 12, epoch: LeaderEpoch(2) }]);
        assert!(!log.flushed(before, 10));
        assert_eq!(log.durable_end(), 0);
        assert!(log.flushed(log.generation(), 12));
        assert_eq!(log.durable_end(), 12);
    }

    #[test]
    fn under_sync_every_append_asks_for_one_flush() {
        let mut log = log(10);
        let mut effects = Vec::new();
        log.ask_flush(1_000, 0, &mut effects);
        log.ask_flush(1_000, 0, &mut effects);
        assert_eq!(effects, vec![Effect::Flush { generation: 0, upto: 10 }]);
        log.cut(false, 0, 5);
        log.appended(&[BatchSpan { base: 5, end: 6, epoch: LeaderEpoch(2) }]);
        log.ask_flush(1_000, 0, &mut effects);
        assert_eq!(effects.last(), Some(&Effect::Flush { generation: 1, upto: 6 }));
    }

    #[test]
    fn under_interval_a_flush_is_asked_once_per_interval() {
        let noted_policy = Some(FlushPolicy::Interval);
        let mut log = OwnLog::recovered(LogFacts { noted_policy, directory_noted: true, ..LogFacts::empty() });
        log.policy.want(FlushPolicy::Interval, 0);
        log.appended(&[BatchSpan { base: 0, end: 3, epoch: LeaderEpoch(1) }]);
        let mut effects = Vec::new();
        log.ask_flush(100, 50, &mut effects);
        assert_eq!((effects.len(), log.flush_due(100)), (0, Some(150)));
        log.ask_flush(100, 150, &mut effects);
        assert_eq!(effects, vec![Effect::Flush { generation: 0, upto: 3 }]);
        assert_eq!(log.flush_due(100), None);
        assert_eq!(log.position(), 3, "a loose policy counts what is written");
    }

    #[test]
    fn a_reset_forgets_the_epochs_and_a_head_drop_keeps_the_one_that_covers_the_start() {
        let mut log = log(10);
        log.appended(&[BatchSpan { base: 10, end: 20, epoch: LeaderEpoch(3) }]);
        log.start_advanced(20);
        assert_eq!(log.last_epoch(), Some(LeaderEpoch(3)));
        log.cut(true, 40, 40);
        assert_eq!((log.last_epoch(), log.start, log.end, log.durable_end()), (None, 40, 40, 40));
    }
}
