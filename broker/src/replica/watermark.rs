//! The high watermark: everything below it is kept by every member of the ISR and may be seen. Its only mutators
//! are `advance`, which never lowers it, and `overrule`, for what an unclean election took back.

use super::own_log::LogFacts;
use protocol::ids::LeaderEpoch;

/// A high watermark as remembered over a restart, with what tells whether it was learned of the log that is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// The high watermark.
    pub high_watermark: u64,
    /// Epoch of the record before it.
    pub epoch: LeaderEpoch,
}

/// A monotone offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HighWatermark(u64);

impl HighWatermark {
    /// From the checkpoint, if the log still has the record that it names: two logs that share (epoch, offset) of one
    /// record share everything below (KIP-101). One from before an unclean election cut the log names a record that is
    /// gone, however far the log has grown again. A checkpoint lost or not believed is the log's start.
    pub(super) fn recovered(checkpoint: Option<Checkpoint>, log: &LogFacts) -> Self {
        let within = checkpoint.filter(|c| c.high_watermark > log.start && c.high_watermark <= log.end);
        let known = within.filter(|c| log.epochs.epoch_at(c.high_watermark - 1) == Some(c.epoch.0));
        Self(known.map_or(log.start, |c| c.high_watermark))
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }

    /// Moves up to `to`; whether it moved.
    pub(super) fn advance(&mut self, to: u64) -> bool {
        let moved = to > self.0;
        self.0 = self.0.max(to);
        moved
    }

    /// An unclean election overruled what this replica held committed: nothing at or above `to` is.
    pub(super) fn overrule(&mut self, to: u64) {
        self.0 = self.0.min(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_rises_and_stays_within_the_log() {
        let mut hw = HighWatermark::recovered(checkpoint(40, 3), &log());
        assert!(!hw.advance(30));
        assert!(hw.advance(41));
        assert_eq!(hw.get(), 41);
        assert_eq!(HighWatermark::recovered(None, &log()).get(), 10, "a lost checkpoint starts at the log start");
    }

    /// Records 10..30 of epoch 1, 30..40 of epoch 3.
    fn log() -> LogFacts {
        let mut log = LogFacts { start: 10, end: 40, durable_end: 40, ..LogFacts::empty() };
        log.epochs.assign(1, 10);
        log.epochs.assign(3, 30);
        log
    }

    fn checkpoint(high_watermark: u64, epoch: u32) -> Option<Checkpoint> {
        Some(Checkpoint { high_watermark, epoch: LeaderEpoch(epoch) })
    }

    #[test]
    fn a_checkpoint_is_believed_only_if_the_log_has_the_record_before_it() {
        let cases =
            [(40, 3, 40), (30, 1, 30), (31, 3, 31), (31, 1, 10), (30, 2, 10), (41, 3, 10), (10, 1, 10), (0, 0, 10)];
        for (offset, epoch, expected) in cases {
            let recovered = HighWatermark::recovered(checkpoint(offset, epoch), &log());
            assert_eq!(recovered.get(), expected, "{offset} after a record of epoch {epoch}");
        }
    }
}
