//! The 61-byte header of a record batch and its attribute bits.
//!
//! Owns: field positions, parsing, the rules a header alone can break.
//! Never: looks at the records or the checksum (see `check`).
//! Invariant: a parsed header's offsets fit: `base_offset + last_offset_delta` is at most `i64::MAX - 1`, so that
//! `next_offset` never overflows.

use super::{BatchError, Compression};

/// Largest offset a record may have: the next one must still fit the i64 on the wire.
const MAX_OFFSET: u64 = i64::MAX as u64 - 1;

/// Bits of the attributes that have a meaning: compression, timestamp type, transactional, control, delete horizon.
const KNOWN_ATTRIBUTES: u16 = 0x7f;

/// Attribute bits of a batch (Kafka's record batch format, version 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes(pub u16);

impl Attributes {
    /// Code of the compression: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub fn compression_code(self) -> u8 {
        (self.0 & 0x07) as u8
    }
    /// The compression, or the error that names an unsupported one.
    pub fn compression(self) -> Result<Compression, BatchError> {
        Compression::from_code(self.compression_code())
    }
    /// True if the timestamps are the append time of the leader rather than the producer's.
    pub fn is_log_append_time(self) -> bool {
        self.0 & 0x08 != 0
    }
    /// True if the batch belongs to a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & 0x10 != 0
    }
    /// True if the records are markers of the cluster, not data.
    pub fn is_control(self) -> bool {
        self.0 & 0x20 != 0
    }
    /// True if the base timestamp is the time until which tombstones are kept (compacted logs).
    pub fn has_delete_horizon(self) -> bool {
        self.0 & 0x40 != 0
    }
    /// True if only bits with a meaning are set.
    pub fn is_known(self) -> bool {
        self.0 & !KNOWN_ATTRIBUTES == 0
    }
}

/// The fields of a batch header. Offsets are absolute, timestamps are ms since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record. 0 in a batch fresh from a client; the leader stamps it.
    pub base_offset: u64,
    /// Bytes after the length field; the whole batch is [`Header::total_len`].
    pub batch_length: u32,
    /// Epoch of the leader that stamped the batch; `None` (-1 on the wire) before that.
    pub leader_epoch: Option<u32>,
    /// Checksum over byte 21 to the end, crc32c.
    pub crc: u32,
    /// Attribute bits.
    pub attributes: Attributes,
    /// Last offset minus base offset.
    pub last_offset_delta: u32,
    /// Timestamp that the records' deltas count from.
    pub base_timestamp: i64,
    /// Largest timestamp of the records.
    pub max_timestamp: i64,
    /// Producer id, -1 for none.
    pub producer_id: i64,
    /// Producer epoch, -1 for none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 for none.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: u32,
}

/// Reads `N` bytes at `at`; the caller has checked the length.
fn at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn non_negative(field: &'static str, value: i32) -> Result<u32, BatchError> {
    u32::try_from(value).map_err(|_| BatchError::Negative { field, value: value.into() })
}

impl Header {
    /// Bytes of the header.
    pub const LEN: usize = 61;
    /// Bytes before the part that the length field counts.
    pub const LENGTH_END: usize = 12;
    /// Position of the magic byte.
    pub(super) const MAGIC_AT: usize = 16;
    /// Position of the checksum.
    pub(super) const CRC_AT: usize = 17;
    /// First byte covered by the checksum; everything before may be stamped.
    pub const CRC_FROM: usize = 21;

    /// Parses the header at the front of `bytes`, which may be longer or shorter than the batch.
    /// Errors: too short for a header, another format version, a negative or overflowing field.
    pub fn parse(bytes: &[u8]) -> Result<Header, BatchError> {
        if bytes.len() < Header::LEN {
            return Err(BatchError::Truncated { have: bytes.len(), need: Header::LEN });
        }
        let magic = bytes[Header::MAGIC_AT];
        if magic != 2 {
            return Err(BatchError::Magic { magic });
        }
        let length = i32::from_be_bytes(at(bytes, 8));
        let least = (Header::LEN - Header::LENGTH_END) as i32;
        if length < least {
            return Err(BatchError::BadLength { length, least });
        }
        let base = i64::from_be_bytes(at(bytes, 0));
        let base_offset =
            u64::try_from(base).map_err(|_| BatchError::Negative { field: "base offset", value: base })?;
        let leader_epoch = match i32::from_be_bytes(at(bytes, 12)) {
            -1 => None,
            epoch => Some(non_negative("partition leader epoch", epoch)?),
        };
        let last_offset_delta = non_negative("last offset delta", i32::from_be_bytes(at(bytes, 23)))?;
        if base_offset.checked_add(last_offset_delta.into()).is_none_or(|last| last > MAX_OFFSET) {
            return Err(BatchError::OffsetOverflow { base_offset, last_offset_delta });
        }
        Ok(Header {
            base_offset,
            batch_length: length as u32,
            leader_epoch,
            crc: u32::from_be_bytes(at(bytes, Header::CRC_AT)),
            attributes: Attributes(u16::from_be_bytes(at(bytes, 21))),
            last_offset_delta,
            base_timestamp: i64::from_be_bytes(at(bytes, 27)),
            max_timestamp: i64::from_be_bytes(at(bytes, 35)),
            producer_id: i64::from_be_bytes(at(bytes, 43)),
            producer_epoch: i16::from_be_bytes(at(bytes, 51)),
            base_sequence: i32::from_be_bytes(at(bytes, 53)),
            record_count: non_negative("record count", i32::from_be_bytes(at(bytes, 57)))?,
        })
    }

    /// Bytes of the whole batch, header included.
    pub fn total_len(&self) -> usize {
        self.batch_length as usize + Header::LENGTH_END
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> u64 {
        self.base_offset + u64::from(self.last_offset_delta)
    }

    /// Offset after the last record.
    pub fn next_offset(&self) -> u64 {
        self.last_offset() + 1
    }

    /// Writes the header to the front of `out` (at least [`Header::LEN`] bytes).
    pub(super) fn write(&self, out: &mut [u8]) {
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        let epoch = self.leader_epoch.map_or(-1, |e| e as i32);
        out[12..16].copy_from_slice(&epoch.to_be_bytes());
        out[Header::MAGIC_AT] = 2;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.0.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
    }
}
