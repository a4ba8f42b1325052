//! Limits and sizes of the storage engine, each with its reason.
//!
//! Owns the numbers. Never: enforces them (the module that names one does).
//! Invariant: sizes that are part of the file format never change without a new format version.

/// Version of the segment and index formats, written into each file.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes before the first batch of a segment: identity and end mark slots, one page so that batches start aligned.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;

/// Position of the first end mark slot. Sectors apart from the identity and from each other, so that a sector torn
/// while one of them is rewritten cannot harm the others.
pub const SLOT_A_AT: u64 = 1024;

/// Position of the second end mark slot.
pub const SLOT_B_AT: u64 = 2048;

/// Default size at which a segment is closed and the next begun: the unit of retention, and what an unclean
/// start reads again per busy log.
pub const DEFAULT_SEGMENT_BYTES: u64 = 256 * 1024 * 1024;

/// Smallest segment size accepted, in bytes: below it files cost more than data. Tests roll often with it.
pub const MIN_SEGMENT_BYTES: u64 = 1024;

/// Default distance of index entries in bytes: what a read at a random offset walks over at most to find its first batch, and
/// in headers behind its last to confirm it.
pub const DEFAULT_INDEX_INTERVAL_BYTES: u64 = 16 * 1024;

/// First reservation of a synced segment in bytes: thousands of idle partitions must not cost gigabytes.
pub const FIRST_PREALLOCATION_BYTES: u64 = 16 * 1024;

/// Largest step by which a reservation grows, in bytes: growth costs one size commit per step, 16 MiB makes it rare.
pub const MAX_PREALLOCATION_STEP_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes read at a time when a segment is walked from front to back.
pub const SCAN_CHUNK_BYTES: usize = 1024 * 1024;

/// Bytes written at a time to reserve space on a file system that knows no reservations.
pub const FILL_CHUNK_BYTES: usize = 64 * 1024;

/// Indexes of closed segments that a log keeps in memory; a consumer that lags reads one or two segments at a time.
pub const MAX_LOADED_INDEXES: usize = 4;

/// Least growth of an active segment, in bytes, after which a flush writes its index beside it again (and at least an
/// eighth of the segment): bounds what an unclean start walks, without rewriting the index at every flush.
pub const INDEX_SNAPSHOT_BYTES: u64 = 4 * 1024 * 1024;

/// Largest state file (identity, vote, markers, epoch table) in bytes: it is read whole at start.
pub const MAX_STATE_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Dead events in the partition registry that start a compaction at open, beside being more than the live ones.
pub const REGISTRY_COMPACTION_EVENTS: u64 = 1024;

/// Events in one batch of the partition registry: 1,000 partitions created at once are a few batches and one sync.
pub const REGISTRY_BATCH_EVENTS: usize = 4096;
