//! How a log is laid out and how hard its opening looks.
//!
//! Owns: [`LogConfig`]. Never: reads a file; the caller fills it from topic and node configuration.
//! Invariant: after [`LogConfig::checked`] every value is within its limits.

use protocol::batch::limits::{DEFAULT_MAX_BATCH_BYTES, MAX_BATCH_BYTES_CEILING};

use crate::limits::{DEFAULT_INDEX_INTERVAL_BYTES, DEFAULT_SEGMENT_BYTES, MIN_SEGMENT_BYTES};

/// How much of the durable bytes opening a log reads again. The part above the end mark is always read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// The segment being written, from where an index beside it ends: for thousands of partitions. Older bytes are
    /// checked when they are read.
    #[default]
    Tail,
    /// Every byte of every segment: for the Raft log, which is read whole at start anyway.
    Everything,
}

/// Settings of one log. May differ from those under which the files were written.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Size in bytes at which a segment is closed (one batch more or less).
    pub segment_bytes: u64,
    /// Distance of index entries in bytes.
    pub index_interval_bytes: u64,
    /// Largest batch in bytes that an append takes.
    pub max_batch_bytes: usize,
    /// Reserve space ahead, in growing steps: halves the cost of a sync and turns a full disk into a typed error
    /// before an offset is given. Off for logs that are not synced on the acknowledgement path.
    pub preallocate: bool,
    /// How much opening reads again.
    pub verify: Verify,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: DEFAULT_SEGMENT_BYTES,
            index_interval_bytes: DEFAULT_INDEX_INTERVAL_BYTES,
            max_batch_bytes: DEFAULT_MAX_BATCH_BYTES,
            preallocate: true,
            verify: Verify::default(),
        }
    }
}

impl LogConfig {
    /// The same with every value moved into its limits.
    pub(crate) fn checked(mut self) -> LogConfig {
        self.segment_bytes = self.segment_bytes.max(MIN_SEGMENT_BYTES);
        self.index_interval_bytes = self.index_interval_bytes.max(1);
        self.max_batch_bytes = self.max_batch_bytes.min(MAX_BATCH_BYTES_CEILING);
        self
    }
}
