//! Limits of the record batch format: what a batch may weigh, stored and decoded.
//!
//! Owns the numbers and their reasons; never decides what happens when one is passed (`check`, `records` do).
//! Invariant: every decoder in this folder is bounded by a value of [`Limits`], never by an announced count.

/// Largest stored batch by default, header included, in bytes. One gRPC frame of 1 MiB carries it (ENGINEERING
/// section 3), and Kafka's clients build batches up to 1 MiB by default.
pub const DEFAULT_MAX_BATCH_BYTES: usize = 1024 * 1024 + 4096;

/// Hard ceiling of a configured batch size, in bytes: a batch is held in memory whole at every node it passes.
pub const MAX_BATCH_BYTES_CEILING: usize = 64 * 1024 * 1024;

/// Largest decoded size of one batch's records, in bytes: bounds what a small compressed batch can make a reader hold.
pub const MAX_DECOMPRESSED_BYTES: usize = 64 * 1024 * 1024;

/// Largest decoded size as a multiple of the compressed size. Real logs reach 20 to 100; a bomb exceeds 1,000.
pub const MAX_DECOMPRESSION_RATIO: usize = 1000;

/// Decoded size that is always allowed, whatever the ratio, in bytes: a small batch of one repeated line
/// compresses without bound and harms nobody.
pub const DECOMPRESSION_FLOOR_BYTES: usize = 1024 * 1024;

/// Largest zstd window accepted, as a power of two (8 MiB, what RFC 8878 asks every decoder to support): the
/// window is allocated from the frame's announcement, before a byte of it is proved.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// zstd level of batches we build: the library's default, the usual middle of speed and ratio.
pub const ZSTD_LEVEL: i32 = 3;

/// Bytes asked from a decompressor at a time: memory grows with proved output only.
pub const DECOMPRESSION_STEP_BYTES: usize = 64 * 1024;

/// Most headers of one record; Kafka has no limit, a record with more is a mistake or an attack.
pub const MAX_RECORD_HEADERS: usize = 1024;

/// Bounds under which batches are built, checked and decoded. All sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest stored batch, header included.
    pub max_batch_bytes: usize,
    /// Largest decoded size of a batch's records.
    pub max_decompressed_bytes: usize,
    /// Largest decoded size as a multiple of the compressed size, above [`DECOMPRESSION_FLOOR_BYTES`].
    pub max_decompression_ratio: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_batch_bytes: DEFAULT_MAX_BATCH_BYTES,
            max_decompressed_bytes: MAX_DECOMPRESSED_BYTES,
            max_decompression_ratio: MAX_DECOMPRESSION_RATIO,
        }
    }
}

impl Limits {
    /// The default limits with another largest batch size (bytes, capped at [`MAX_BATCH_BYTES_CEILING`]).
    pub fn with_max_batch_bytes(max_batch_bytes: usize) -> Self {
        Limits { max_batch_bytes: max_batch_bytes.min(MAX_BATCH_BYTES_CEILING), ..Limits::default() }
    }

    /// Largest decoded size, in bytes, allowed for `compressed` bytes of input.
    pub fn decoded_cap(&self, compressed: usize) -> usize {
        compressed
            .saturating_mul(self.max_decompression_ratio)
            .max(DECOMPRESSION_FLOOR_BYTES)
            .min(self.max_decompressed_bytes)
    }
}
