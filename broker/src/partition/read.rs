//! What applications read from a partition: the replica permits, the log delivers.

use bytes::Bytes;
use log::LogError;
use protocol::batch::Header;
use protocol::error::ErrorCode;
use protocol::ids::LeaderEpoch;

use super::Partition;
use super::outside::Outside;
use crate::replica::input::Input;
use crate::replica::lease::Now;
use crate::replica::read::{FetchQuery, ReadRefusal};

/// How a time is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuestion {
    /// The high watermark.
    Latest,
    /// The log start.
    Earliest,
    /// First record at or after this wall time, ms.
    Time(i64),
}

impl Partition {
    /// Whole batches from the one that holds `query.offset`, below the high watermark; empty when there is nothing yet.
    ///
    /// # Errors
    /// The replica's refusal; `LogDamaged` when the bytes are bad, which is also stepped.
    pub fn read(
        &mut self,
        query: &FetchQuery,
        max_bytes: usize,
        now: Now,
        out: &mut dyn Outside,
    ) -> Result<Bytes, ReadRefusal> {
        let permit = self.replica.fetch(query, now)?;
        if permit.upto <= query.offset {
            return Ok(Bytes::new());
        }
        match self.log.read(query.offset, max_bytes, permit.upto, true) {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(ReadRefusal::Code(self.read_failed(error, now, out))),
        }
    }

    /// The offset that stands for a time, and the time of its record; None = no record at or after it.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn offset_for(
        &mut self,
        question: OffsetQuestion,
        leader_epoch: Option<LeaderEpoch>,
        now: Now,
        out: &mut dyn Outside,
    ) -> Result<Option<(u64, i64)>, ReadRefusal> {
        match question {
            OffsetQuestion::Latest => Ok(Some((self.replica.latest(leader_epoch, now)?.upto, -1))),
            OffsetQuestion::Earliest => Ok(Some((self.replica.earliest(leader_epoch, now)?.0, -1))),
            OffsetQuestion::Time(time) => {
                let upto = self.replica.latest(leader_epoch, now)?.upto;
                match self.log.offset_for_time(time) {
                    Ok(found) => Ok(found.filter(|(offset, _)| *offset < upto)),
                    Err(error) => Err(ReadRefusal::Code(self.read_failed(error, now, out))),
                }
            }
        }
    }

    fn read_failed(&mut self, error: LogError, now: Now, out: &mut dyn Outside) -> ErrorCode {
        match error {
            LogError::BelowStart { .. } | LogError::AboveEnd { .. } => ErrorCode::OffsetOutOfRange,
            LogError::Damaged(damage) => {
                tracing::error!(partition = %self.at, %damage, "a read found damage");
                self.step(Input::DamageFound, now, out);
                ErrorCode::LogDamaged
            }
            error => {
                let fatal = self.disk("read", &error);
                self.die(fatal, out);
                ErrorCode::Internal
            }
        }
    }
}

/// Offset after the last of concatenated whole batches.
#[must_use]
pub fn end_of(batches: &Bytes) -> Option<u64> {
    protocol::batch::batches(batches)
        .filter_map(Result::ok)
        .last()
        .and_then(|batch| Header::parse(&batch).ok())
        .map(|header| header.next_offset())
}
