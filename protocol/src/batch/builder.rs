//! Builds a record batch: records in, checked bytes out.
//!
//! Owns: encoding of records, compression, header fields, checksum.
//! Never: assigns the final offset or leader epoch (the leader stamps them, [`super::stamp`]), reads a clock.
//! Invariant: what it builds passes `check` and `records` under the limits it was given; records that compress
//! past the decompression ratio are stored uncompressed instead.

use bytes::Bytes;

use super::header::{Attributes, Header};
use super::limits::MAX_RECORD_HEADERS;
use super::records::RecordHeader;
use super::varint::{len_i64, put_i64};
use super::{BatchError, Compression, Limits};

/// Collects records and builds one batch of them. Offsets inside count from 0.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    compression: Compression,
    limits: Limits,
    attributes: Attributes,
    producer: (i64, i16, i32),
    body: Vec<u8>,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty builder with the default [`Limits`].
    pub fn new(compression: Compression) -> Self {
        Self::with_limits(compression, Limits::default())
    }

    /// An empty builder under other limits.
    pub fn with_limits(compression: Compression, limits: Limits) -> Self {
        BatchBuilder {
            compression,
            limits,
            attributes: Attributes::default(),
            producer: (-1, -1, -1),
            body: Vec::new(),
            count: 0,
            base_timestamp: 0,
            max_timestamp: 0,
        }
    }

    /// Sets producer id, producer epoch and the sequence of the first record.
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    /// Marks the batch as one of the cluster's own markers; a client's batch with this bit is refused.
    pub fn control(mut self) -> Self {
        self.attributes.0 |= 0x20;
        self
    }

    /// Number of records so far.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// True before the first record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that the batch would have without compression, header included.
    pub fn uncompressed_len(&self) -> usize {
        Header::LEN + self.body.len()
    }

    /// Bytes that a record adds at most, without compression.
    pub fn record_len_bound(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[RecordHeader]) -> usize {
        let headers: usize = headers.iter().map(|h| 10 + h.key.len() + h.value.as_ref().map_or(0, Bytes::len)).sum();
        5 + 1 + 10 + 5 + 5 + key.map_or(0, <[u8]>::len) + 5 + value.map_or(0, <[u8]>::len) + 5 + headers
    }

    /// Adds a record; `timestamp` in ms. Errors name a field beyond what the format or the limits can hold; the
    /// builder is then unchanged. The stored size is only checked by [`BatchBuilder::build`], after compression.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[RecordHeader],
    ) -> Result<(), BatchError> {
        if headers.len() > MAX_RECORD_HEADERS {
            return Err(limit("headers", headers.len() as u64, MAX_RECORD_HEADERS as u64));
        }
        let grown = self.body.len() as u64 + Self::record_len_bound(key, value, headers) as u64;
        let cap = (self.limits.max_decompressed_bytes as u64).min(i32::MAX as u64 / 2);
        if grown > cap {
            return Err(limit("size", grown, cap));
        }
        let base = if self.count == 0 { timestamp } else { self.base_timestamp };
        let delta = timestamp
            .checked_sub(base)
            .ok_or_else(|| limit("timestamp distance", timestamp.abs_diff(base), i64::MAX as u64))?;
        self.encode(delta, key, value, headers);
        self.max_timestamp = if self.count == 0 { timestamp } else { self.max_timestamp.max(timestamp) };
        self.base_timestamp = base;
        self.count += 1;
        Ok(())
    }

    fn encode(&mut self, delta: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[RecordHeader]) {
        let field = |bytes: Option<&[u8]>| bytes.map_or(1, |b| len_i64(b.len() as i64) + b.len());
        let mut len = 1 + len_i64(delta) + len_i64(self.count.into()) + field(key) + field(value);
        len += len_i64(headers.len() as i64);
        len += headers.iter().map(|h| field(Some(h.key.as_bytes())) + field(h.value.as_deref())).sum::<usize>();
        let out = &mut self.body;
        put_i64(out, len as i64);
        let start = out.len();
        out.push(0);
        put_i64(out, delta);
        put_i64(out, self.count.into());
        put_bytes(out, key);
        put_bytes(out, value);
        put_i64(out, headers.len() as i64);
        for header in headers {
            put_bytes(out, Some(header.key.as_bytes()));
            put_bytes(out, header.value.as_deref());
        }
        debug_assert_eq!(out.len() - start, len, "announced record length");
    }

    /// Builds the batch with base offset 0 and leader epoch -1, ready for [`super::stamp`].
    /// Errors: no records; the stored batch exceeds the limit.
    pub fn build(self) -> Result<Vec<u8>, BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        let (code, body) = match self.compression {
            Compression::None => (Compression::None, self.body),
            codec => {
                let packed = codec.compress(&self.body)?;
                let readable = self.body.len() <= self.limits.decoded_cap(packed.len());
                if readable && packed.len() < self.body.len() {
                    (codec, packed)
                } else {
                    (Compression::None, self.body)
                }
            }
        };
        let size = Header::LEN + body.len();
        if size > self.limits.max_batch_bytes {
            return Err(BatchError::TooLarge { size, limit: self.limits.max_batch_bytes });
        }
        let mut header = Header {
            base_offset: 0,
            batch_length: (size - Header::LENGTH_END) as u32,
            leader_epoch: None,
            crc: 0,
            attributes: Attributes(self.attributes.0 | u16::from(code.code())),
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer.0,
            producer_epoch: self.producer.1,
            base_sequence: self.producer.2,
            record_count: self.count,
        };
        let mut out = vec![0; Header::LEN];
        out.extend_from_slice(&body);
        header.write(&mut out);
        header.crc = crc32c::crc32c(&out[Header::CRC_FROM..]);
        out[Header::CRC_AT..Header::CRC_FROM].copy_from_slice(&header.crc.to_be_bytes());
        Ok(out)
    }
}

fn limit(field: &'static str, value: u64, limit: u64) -> BatchError {
    BatchError::RecordLimit { field, value, limit }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_i64(out, -1),
        Some(bytes) => {
            put_i64(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
