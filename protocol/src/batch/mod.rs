//! Kafka record batches, format version 2, byte for byte: the unit that producers send, logs store,
//! replicas forward and consumers receive without anyone in between decoding a record.
//!
//! Owns: the 61-byte header ([`Header`]), the whole-batch check on arrival ([`check()`]), stamping of the two
//! fields that lie outside the checksum ([`stamp`]), building ([`BatchBuilder`]), bounded decoding
//! ([`records()`]) and splitting of concatenated batches ([`batches`]).
//! Never: allocates from an announced length or count, reads a clock, panics on foreign bytes.
//! Invariant: whatever [`BatchBuilder`] builds, [`check()`] and [`records()`] accept under the same [`Limits`].
//! Why the foreign format: every existing client speaks it, and bytes that are never re-encoded keep the
//! producer's checksum end to end (DESIGN section 6).
//!
//! ```text
//!  0 base offset i64 | 8 length i32 (of what follows) | 12 leader epoch i32 | 16 magic i8 | 17 crc32c u32
//! 21 attributes i16  | 23 last offset delta i32 | 27 base timestamp i64 | 35 max timestamp i64
//! 43 producer id i64 | 51 producer epoch i16 | 53 base sequence i32 | 57 record count i32 | 61 records
//! ```
//! The checksum covers byte 21 to the end.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod builder;
mod check;
mod compression;
mod error;
mod header;
pub mod limits;
mod records;
#[cfg(test)]
mod tests;
mod varint;

pub use builder::BatchBuilder;
pub use check::{BatchInfo, Origin, batches, check, check_records, stamp};
pub use compression::Compression;
pub use error::BatchError;
pub use header::{Attributes, Header};
pub use limits::Limits;
pub use records::{Record, RecordHeader, Records, StoredRecord, records};
