//! The high watermark: everything below it is kept by every member of the ISR and may be seen. Its only mutators
//! are `advance`, which never lowers it, and `overrule`, for what an unclean election took back.

/// A monotone offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HighWatermark(u64);

impl HighWatermark {
    /// From the checkpoint, held within the log; a lost checkpoint is the log's start.
    pub(super) fn recovered(checkpoint: u64, log_start: u64, log_end: u64) -> Self {
        Self(checkpoint.clamp(log_start, log_end))
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
        let mut hw = HighWatermark::recovered(50, 10, 40);
        assert_eq!(hw.get(), 40, "a checkpoint is never above the log");
        assert!(!hw.advance(30));
        assert!(hw.advance(41));
        assert_eq!(hw.get(), 41);
        assert_eq!(HighWatermark::recovered(0, 10, 40).get(), 10, "a lost checkpoint starts at the log start");
    }
}
