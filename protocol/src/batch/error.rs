//! Why a record batch is refused: one variant per field and rule, with the value and the limit.
//!
//! Owns the error type of the folder; never decides what a server answers (the caller maps it to a wire code).
//! Invariant: every variant is a definite refusal: the bytes were not interpreted any further.

use thiserror::Error;

/// A batch that cannot be accepted, or bytes that are no batch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Fewer bytes than the header or the announced length needs.
    #[error("batch of {have} bytes is shorter than the {need} bytes it needs")]
    Truncated {
        /// Bytes at hand.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Bytes follow the announced end of the batch, or of its last record.
    #[error("{extra} bytes follow the end of the {of}")]
    TrailingBytes {
        /// What ended early: "batch" or "records".
        of: &'static str,
        /// Bytes left over.
        extra: usize,
    },
    /// Batch larger than the configured limit.
    #[error("batch of {size} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// Size in bytes, header included.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// The length field is below what a header needs.
    #[error("batch length field is {length}, the least possible is {least}")]
    BadLength {
        /// Value of the field.
        length: i32,
        /// Smallest legal value.
        least: i32,
    },
    /// A format version other than 2.
    #[error("batch format version (magic) is {magic}, only 2 is supported")]
    Magic {
        /// Value of the field.
        magic: u8,
    },
    /// The checksum does not cover these bytes.
    #[error("batch checksum is {stored:#010x} but its bytes give {computed:#010x}")]
    Crc {
        /// Checksum in the header.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// A field that cannot be negative is.
    #[error("batch field {field} is {value}, it cannot be negative")]
    Negative {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: i64,
    },
    /// Record count and last offset delta do not belong together.
    #[error("batch of {count} records has last offset delta {last_offset_delta}")]
    Count {
        /// Record count.
        count: u32,
        /// Last offset delta.
        last_offset_delta: u32,
    },
    /// The offsets of the batch pass the largest offset.
    #[error("batch at base offset {base_offset} with last offset delta {last_offset_delta} passes the largest offset")]
    OffsetOverflow {
        /// Base offset.
        base_offset: u64,
        /// Last offset delta.
        last_offset_delta: u32,
    },
    /// Attribute bits without a meaning.
    #[error("batch attributes {attributes:#06x} have unknown bits set")]
    UnknownAttributes {
        /// All attribute bits.
        attributes: u16,
    },
    /// A compression this build cannot decode; code as in the attributes.
    #[error("batch compression {name} (code {code}) is not supported, use none, lz4 or zstd")]
    UnsupportedCompression {
        /// Code in the attributes.
        code: u8,
        /// Its name.
        name: &'static str,
    },
    /// A bit that only the cluster itself may set.
    #[error("batch from a client has the {bit} bit set")]
    Reserved {
        /// Name of the bit.
        bit: &'static str,
    },
    /// Compressed data that is not what the attributes say.
    #[error("batch records do not decompress as {codec}: {what}")]
    Decompression {
        /// Name of the codec.
        codec: &'static str,
        /// The codec's own words.
        what: String,
    },
    /// Decoded records exceed their cap.
    #[error("batch records of {compressed} compressed bytes decode to more than the limit of {limit} bytes")]
    Bomb {
        /// Compressed size in bytes.
        compressed: usize,
        /// Cap in bytes.
        limit: usize,
    },
    /// A record that does not parse.
    #[error("record {index} of the batch: {what}")]
    Record {
        /// Position of the record in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Largest timestamp in the header differs from the records'.
    #[error("batch max timestamp is {stored} but its records give {computed}")]
    MaxTimestamp {
        /// In the header, ms.
        stored: i64,
        /// Largest of the records, ms.
        computed: i64,
    },
    /// A batch needs at least one record.
    #[error("batch has no records")]
    Empty,
    /// A record that does not fit into a batch being built.
    #[error("record field {field} is {value}, the limit is {limit}")]
    RecordLimit {
        /// Name of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The limit.
        limit: u64,
    },
}
