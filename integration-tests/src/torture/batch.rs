//! Batches whose bytes follow from their arguments, and a log read whole.

use bytes::Bytes;
use log::{Log, LogError};
use protocol::batch::{self, BatchBuilder, Compression};

use super::Refusal;
use super::told::header;

/// A stamped batch.
pub(super) fn batch(base: u64, epoch: u32, records: usize, payload: usize, salt: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for i in 0..records {
        let fill = (salt as u8).wrapping_mul(31).wrapping_add(i as u8) | 1;
        let timestamp = 1_000_000 + (base + i as u64) as i64 * 10;
        let key = salt.to_be_bytes();
        let pushed = builder.push(timestamp, Some(&key), Some(&vec![fill; payload]), &[]);
        pushed.expect("a small record fits");
    }
    let mut bytes = builder.build().expect("a small batch fits");
    batch::stamp(&mut bytes, base, epoch);
    bytes
}

/// Every batch of a log from its start, each as it is read.
pub(super) fn read_all(log: &Log) -> Result<Vec<Bytes>, LogError> {
    let mut out = Vec::new();
    let mut at = log.start_offset();
    while at < log.end_offset() {
        let bytes = log.read(at, 700, u64::MAX, true)?;
        for one in batch::batches(&bytes) {
            let one = one?;
            at = header(&one).next_offset();
            out.push(one);
        }
    }
    Ok(out)
}

/// Whether what is looked up by offset, by time and by epoch is what the batches, read one after the other, say.
/// Timestamps of the torture rise with the offset.
pub(super) fn check_lookups(log: &Log, batches: &[Bytes]) -> Result<(), Refusal> {
    let wrong = |what: &str, at: u64| Refusal::Failed(format!("{}: {what} of offset {at}", log.dir().display()));
    for batch in batches {
        let header = header(batch);
        let last = header.last_offset();
        if log.offset_for_time(header.max_timestamp)? != Some((last, header.max_timestamp)) {
            return Err(wrong("another answer to the time", last));
        }
        if log.epochs().epoch_at(last) != header.leader_epoch {
            return Err(wrong("another epoch", last));
        }
        let at = header.base_offset.max(log.start_offset());
        if log.read(at, 1, u64::MAX, true)? != batch {
            return Err(wrong("another batch", at));
        }
    }
    Ok(())
}
