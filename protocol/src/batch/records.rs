//! Decoding of the records of one batch, bounded and lazy.
//!
//! Owns: the record type and the iterator over a batch's records.
//! Never: checks the batch's checksum (`check` does, on arrival and on read), trusts an announced count or length.
//! Invariant: at most `record_count` records; offsets strictly grow and stay within the batch; the iterator
//! stops at the first error.

use bytes::Bytes;

use super::header::Header;
use super::limits::MAX_RECORD_HEADERS;
use super::varint::{take_i32, take_i64, take_len, take_nullable_len};
use super::{BatchError, Compression, Limits};

/// A header of a record: a name and bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHeader {
    /// Name.
    pub key: String,
    /// Value, which may be null.
    pub value: Option<Bytes>,
}

/// A record as producers and consumers see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Time in ms since 1970.
    pub timestamp: i64,
    /// Key, which may be null.
    pub key: Option<Bytes>,
    /// Value, which may be null (a tombstone in compacted topics).
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<RecordHeader>,
}

/// A record with the offset it has in its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Absolute offset.
    pub offset: u64,
    /// The record.
    pub record: Record,
}

/// Iterator over the records of one batch.
#[derive(Debug, Clone)]
pub struct Records {
    header: Header,
    body: Bytes,
    index: u32,
    last_delta: Option<u32>,
    failed: bool,
}

/// Decodes the records of `batch`, which must be exactly one batch whose checksum the caller has checked.
/// Uncompressed keys and values are slices of `batch`, not copies. Decompression is bounded by `limits`.
pub fn records(batch: &Bytes, limits: &Limits) -> Result<Records, BatchError> {
    let header = Header::parse(batch)?;
    let total = header.total_len();
    if batch.len() < total {
        return Err(BatchError::Truncated { have: batch.len(), need: total });
    }
    if batch.len() > total {
        return Err(BatchError::TrailingBytes { of: "batch", extra: batch.len() - total });
    }
    let stored = batch.slice(Header::LEN..);
    let body = match header.attributes.compression()? {
        Compression::None => stored,
        codec => Bytes::from(codec.decompress(&stored, limits)?),
    };
    Ok(Records { header, body, index: 0, last_delta: None, failed: false })
}

impl Records {
    /// The header of the batch being read.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn error(&self, what: &'static str) -> BatchError {
        BatchError::Record { index: self.index, what }
    }

    fn next_record(&mut self) -> Result<StoredRecord, BatchError> {
        let mut rest: &[u8] = &self.body;
        let len = take_len(&mut rest).ok_or_else(|| self.error("length is cut off or past the end"))?;
        let start = self.body.len() - rest.len();
        let body = self.body.slice(start..start + len);
        let (delta, record) = self.parse(&body)?;
        let in_order = self.last_delta.is_none_or(|last| delta > last);
        if !in_order || delta > self.header.last_offset_delta {
            return Err(self.error("offset delta out of order or past the batch"));
        }
        self.body = self.body.slice(start + len..);
        self.last_delta = Some(delta);
        Ok(StoredRecord { offset: self.header.base_offset + u64::from(delta), record })
    }

    fn parse(&self, body: &Bytes) -> Result<(u32, Record), BatchError> {
        let mut rest: &[u8] = body;
        let Some((_attributes, after)) = rest.split_first() else {
            return Err(self.error("no bytes"));
        };
        rest = after;
        let time = take_i64(&mut rest).ok_or_else(|| self.error("bad timestamp delta"))?;
        let timestamp =
            self.header.base_timestamp.checked_add(time).ok_or_else(|| self.error("timestamp overflows"))?;
        let delta =
            take_i32(&mut rest).and_then(|d| u32::try_from(d).ok()).ok_or_else(|| self.error("bad offset delta"))?;
        let key = take_nullable(body, &mut rest).ok_or_else(|| self.error("bad key length"))?;
        let value = take_nullable(body, &mut rest).ok_or_else(|| self.error("bad value length"))?;
        let count = take_i32(&mut rest)
            .and_then(|c| usize::try_from(c).ok())
            .filter(|c| *c <= MAX_RECORD_HEADERS)
            .ok_or_else(|| self.error("bad header count"))?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let len = take_len(&mut rest).ok_or_else(|| self.error("bad header name length"))?;
            let (name, after) = rest.split_at(len);
            let key = std::str::from_utf8(name).map_err(|_| self.error("header name is not UTF-8"))?.to_owned();
            rest = after;
            let value = take_nullable(body, &mut rest).ok_or_else(|| self.error("bad header value length"))?;
            headers.push(RecordHeader { key, value });
        }
        if !rest.is_empty() {
            return Err(self.error("bytes follow its last field"));
        }
        let timestamp = if self.header.attributes.is_log_append_time() { self.header.max_timestamp } else { timestamp };
        Ok((delta, Record { timestamp, key, value, headers }))
    }
}

/// Takes nullable bytes off `rest` as a slice of `body`, of which `rest` is the tail.
fn take_nullable(body: &Bytes, rest: &mut &[u8]) -> Option<Option<Bytes>> {
    let Some(len) = take_nullable_len(rest)? else {
        return Some(None);
    };
    let start = body.len() - rest.len();
    *rest = &rest[len..];
    Some(Some(body.slice(start..start + len)))
}

impl Iterator for Records {
    type Item = Result<StoredRecord, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.index == self.header.record_count {
            if self.body.is_empty() {
                return None;
            }
            self.failed = true;
            return Some(Err(BatchError::TrailingBytes { of: "records", extra: self.body.len() }));
        }
        let item = self.next_record();
        self.failed = item.is_err();
        self.index += 1;
        Some(item)
    }
}
