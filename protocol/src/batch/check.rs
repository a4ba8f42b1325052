//! Whole-batch checks, stamping, and splitting of concatenated batches.
//!
//! Owns: what a batch must satisfy before it is appended, and the two fields a leader writes.
//! Never: decodes records in [`check`] (that is [`check_records`], for bytes of strangers).
//! Invariant: a batch that passed [`check`] passes it again after [`stamp`].

use bytes::Bytes;

use super::header::Header;
use super::records::records;
use super::{BatchError, Limits};

/// Where a batch comes from; decides which bits it may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer: control, transactional and delete-horizon bits are refused, and the batch must be dense
    /// (record count = last offset delta + 1).
    Client,
    /// A node of the cluster or the node's own disk: any known bit; compaction may have thinned the batch.
    Cluster,
}

/// What [`check`] learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchInfo {
    /// The header.
    pub header: Header,
    /// Bytes of the batch, header included.
    pub len: usize,
}

/// Checks that `bytes` are exactly one whole batch: size limit, format version, checksum, counts, attributes.
/// The records themselves are not decoded.
pub fn check(bytes: &[u8], limits: &Limits, origin: Origin) -> Result<BatchInfo, BatchError> {
    if bytes.len() > limits.max_batch_bytes {
        return Err(BatchError::TooLarge { size: bytes.len(), limit: limits.max_batch_bytes });
    }
    let header = Header::parse(bytes)?;
    let len = header.total_len();
    if len > limits.max_batch_bytes {
        return Err(BatchError::TooLarge { size: len, limit: limits.max_batch_bytes });
    }
    if bytes.len() < len {
        return Err(BatchError::Truncated { have: bytes.len(), need: len });
    }
    if bytes.len() > len {
        return Err(BatchError::TrailingBytes { of: "batch", extra: bytes.len() - len });
    }
    let computed = crc32c::crc32c(&bytes[Header::CRC_FROM..]);
    if computed != header.crc {
        return Err(BatchError::Crc { stored: header.crc, computed });
    }
    check_fields(&header, origin)?;
    Ok(BatchInfo { header, len })
}

fn check_fields(header: &Header, origin: Origin) -> Result<(), BatchError> {
    let attributes = header.attributes;
    if !attributes.is_known() {
        return Err(BatchError::UnknownAttributes { attributes: attributes.0 });
    }
    attributes.compression()?;
    let (count, last_offset_delta) = (header.record_count, header.last_offset_delta);
    let fits = match origin {
        Origin::Client => u64::from(count) == u64::from(last_offset_delta) + 1,
        Origin::Cluster => u64::from(count) <= u64::from(last_offset_delta) + 1,
    };
    if origin == Origin::Client {
        if count == 0 {
            return Err(BatchError::Empty);
        }
        let bits = [
            (attributes.is_control(), "control"),
            (attributes.is_transactional(), "transactional"),
            (attributes.has_delete_horizon(), "delete horizon"),
        ];
        if let Some((_, bit)) = bits.into_iter().find(|(set, _)| *set) {
            return Err(BatchError::Reserved { bit });
        }
    }
    if fits { Ok(()) } else { Err(BatchError::Count { count, last_offset_delta }) }
}

/// Decodes every record of a batch that passed [`check`] and compares the header with them, so that nothing is
/// stored which a consumer could not read: each record parses, offsets are dense when the count says so, the
/// largest timestamp is the records'. Costs a full decode; for bytes that come from outside the cluster.
pub fn check_records(batch: &Bytes, limits: &Limits) -> Result<(), BatchError> {
    let mut newest = None;
    let iter = records(batch, limits)?;
    let header = *iter.header();
    for record in iter {
        let timestamp = record?.record.timestamp;
        newest = Some(newest.map_or(timestamp, |t: i64| t.max(timestamp)));
    }
    match newest {
        Some(computed) if computed != header.max_timestamp => {
            Err(BatchError::MaxTimestamp { stored: header.max_timestamp, computed })
        }
        _ => Ok(()),
    }
}

/// Writes base offset and leader epoch in place. Both lie outside the checksum, so nothing is recomputed.
/// `batch` must begin with a whole header (checked on arrival).
///
/// # Panics
/// If `batch` is shorter than a header, or a value does not fit the signed field on the wire: broken invariants
/// of the caller, since offsets and epochs are counted up by the cluster itself.
pub fn stamp(batch: &mut [u8], base_offset: u64, leader_epoch: u32) {
    assert!(batch.len() >= Header::LEN, "a stamped batch was checked, so it has a header");
    let offset = i64::try_from(base_offset).expect("offsets are counted up from zero and fit i64");
    let epoch = i32::try_from(leader_epoch).expect("leader epochs are counted up from zero and fit i32");
    batch[0..8].copy_from_slice(&offset.to_be_bytes());
    batch[12..16].copy_from_slice(&epoch.to_be_bytes());
}

/// Splits concatenated batches. Each item is one batch by its announced length, a slice of `bytes`; checksums are
/// not checked. Ends after the first error, such as a batch that is cut off.
pub fn batches(bytes: &Bytes) -> impl Iterator<Item = Result<Bytes, BatchError>> + use<> {
    let mut rest = bytes.clone();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let item = Header::parse(&rest).and_then(|header| {
            let need = header.total_len();
            if rest.len() < need {
                return Err(BatchError::Truncated { have: rest.len(), need });
            }
            Ok(rest.split_to(need))
        });
        if item.is_err() {
            rest.clear();
        }
        Some(item)
    })
}
