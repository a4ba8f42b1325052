//! What an answer brings to a position: batches for its queue, or that it lies outside the log.
//!
//! Owns: the checks of fetched batches, the choice of where to go from outside.
//! Never: hands out records. Invariant: the fetch position only grows, by whole batches.

use super::{Ask, Marks, Position, Start, Work};
use crate::config::OffsetReset;
use crate::error::Error;
use bytes::Bytes;
use protocol::batch::limits::MAX_BATCH_BYTES_CEILING;
use protocol::batch::{BatchError, Header, Limits, Origin, batches, check};
use protocol::error::ApiError;

impl Position {
    /// Queues batches from the fetch position on; earlier ones are dropped.
    pub(super) fn take(&mut self, bytes: &Bytes, check_crcs: bool) -> Result<(), BatchError> {
        for batch in batches(bytes) {
            let batch = match batch {
                // A full answer may end in a cut-off batch; the next fetch begins with it.
                Err(BatchError::Truncated { .. }) if !self.queue.is_empty() => return Ok(()),
                batch => batch?,
            };
            let header = match check_crcs {
                true => check(&batch, &limits(), Origin::Cluster)?.header,
                false => Header::parse(&batch)?,
            };
            if header.next_offset() <= self.fetch {
                continue;
            }
            if let (Some(last), Some(epoch)) = (self.last_epoch, header.leader_epoch)
                && epoch < last
            {
                let what = "leader epoch falls behind that of the batch before";
                return Err(BatchError::Record { index: 0, what });
            }
            self.fetch = header.next_offset();
            self.last_epoch = header.leader_epoch.or(self.last_epoch);
            self.queued += batch.len();
            self.queue.push_back((header, batch));
        }
        Ok(())
    }
}

pub(super) fn limits() -> Limits {
    Limits::with_max_batch_bytes(MAX_BATCH_BYTES_CEILING)
}

/// Where to go from outside the log, or the error to report. `earliest` helps only below the log's start: from above
/// its end it would repeat records. A history that parted is always reported.
pub(super) fn outside(work: &Work, error: &ApiError, marks: Marks, reset: OffsetReset) -> Result<Start, Error> {
    let (topic, partition) = (work.key.topic.to_string(), work.key.partition);
    let Ask::Records { offset, .. } = work.ask else { return Ok(Start::Latest) };
    if error.field == "last_fetched_epoch" {
        return Err(Error::LogTruncated { topic, partition, offset, diverged_at: error.limit.parse().ok() });
    }
    match reset {
        OffsetReset::Latest => Ok(Start::Latest),
        OffsetReset::Earliest if offset < marks.log_start => Ok(Start::Earliest),
        _ => {
            let Marks { log_start, high_watermark } = marks;
            Err(Error::OffsetOutOfRange { topic, partition, offset, log_start, high_watermark })
        }
    }
}
