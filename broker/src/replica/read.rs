//! What an application may read from this replica, and what it is told instead.
//!
//! Nobody sees anything at or above the high watermark, and nobody sees it fall: until it has reached the start of
//! the leader's epoch, it is "unknown", and offsets between it and the log's end are "not available", never out of range
//! (DESIGN.md section 5). Without the lease, reads below the high watermark go on for the grace time, flagged.

use super::leader::{Leadership, epoch_refusal};
use super::lease::{Guard, Now};
use super::{Replica, Role};
use protocol::error::ErrorCode;
use protocol::ids::LeaderEpoch;
use protocol::planted::{self, Bug};

/// What a reader asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchQuery {
    /// First offset wanted.
    pub offset: u64,
    /// The reader's belief, None = any.
    pub leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last batch it has read, None = unknown.
    pub last_fetched_epoch: Option<LeaderEpoch>,
}

/// Permission to read `[offset, upto)`. Empty at the high watermark: wait for `Moved`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPermit {
    /// First offset that must not be read.
    pub upto: u64,
    /// Under which the answer may leave; `Grace` means it must be flagged as unleased.
    pub guard: Guard,
}

/// No permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadRefusal {
    /// A code says all.
    Code(ErrorCode),
    /// The reader's history parts from ours: ours of this epoch ends here (KIP-320).
    Diverged {
        /// Largest epoch here that is not above the reader's; None = none.
        epoch: Option<LeaderEpoch>,
        /// Its end.
        end: u64,
    },
}

/// What every data answer says of the replica that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireState {
    /// Leader epoch it acts in.
    pub leader_epoch: LeaderEpoch,
    /// None = unknown in this epoch.
    pub high_watermark: Option<u64>,
    /// First offset.
    pub log_start: u64,
}

impl Replica {
    /// Whether, and how far, an application may read from `query.offset`. A reader that ends in an epoch which this log
    /// has not between ones it knows has read another history, even if ours is as long (KIP-320, KIP-595).
    ///
    /// # Errors
    /// [`ReadRefusal`] with the code to answer.
    pub fn fetch(&self, query: &FetchQuery, now: Now) -> Result<ReadPermit, ReadRefusal> {
        let (leadership, guard) = self.reading(query.leader_epoch, now)?;
        let log = &self.base.log;
        if let Some(epoch) = query.last_fetched_epoch
            && let Some(parted) = log.epochs.divergence(Some(epoch.0), query.offset, log.end)
            && (parted.end < query.offset || parted.epoch.is_some_and(|known| known < epoch.0))
        {
            return Err(ReadRefusal::Diverged { epoch: parted.epoch.map(LeaderEpoch), end: parted.end });
        }
        let high_watermark = self.base.high_watermark.get();
        if query.offset < log.start || query.offset > log.end {
            return Err(ReadRefusal::Code(ErrorCode::OffsetOutOfRange));
        }
        let unknown = leadership.known_high_watermark(&self.base).is_none();
        if query.offset >= high_watermark && unknown {
            return Err(ReadRefusal::Code(ErrorCode::OffsetNotAvailable));
        }
        let seen = if planted::is(Bug::ConsumerAboveHighWatermark) { log.end } else { high_watermark };
        Ok(ReadPermit { upto: seen.max(query.offset), guard })
    }

    /// The offset after the last one that may be read: "latest".
    ///
    /// # Errors
    /// `OffsetNotAvailable` until the high watermark is known in this epoch; codes as for [`Self::fetch`].
    pub fn latest(&self, leader_epoch: Option<LeaderEpoch>, now: Now) -> Result<ReadPermit, ReadRefusal> {
        let (leadership, guard) = self.reading(leader_epoch, now)?;
        let known = leadership.known_high_watermark(&self.base);
        let upto = known.ok_or(ReadRefusal::Code(ErrorCode::OffsetNotAvailable))?;
        Ok(ReadPermit { upto, guard })
    }

    /// The first offset: "earliest".
    ///
    /// # Errors
    /// Codes as for [`Self::fetch`].
    pub fn earliest(&self, leader_epoch: Option<LeaderEpoch>, now: Now) -> Result<(u64, Guard), ReadRefusal> {
        let (_, guard) = self.reading(leader_epoch, now)?;
        Ok((self.base.log.start, guard))
    }

    /// Leadership, epoch and lease for a read.
    fn reading(&self, believed: Option<LeaderEpoch>, now: Now) -> Result<(&Leadership, Guard), ReadRefusal> {
        let refused = |code| Err(ReadRefusal::Code(code));
        let Role::Leader(leadership) = &self.role else { return refused(self.not_leading()) };
        if let Some(code) = epoch_refusal(believed, leadership.epoch()) {
            return refused(code);
        }
        match [Guard::Lease, Guard::Grace].into_iter().find(|guard| now.permits(*guard)) {
            Some(guard) => Ok((leadership, guard)),
            None => refused(ErrorCode::LeaseExpired),
        }
    }

    /// Up to where a delete-records may go: checks who leads, the lease, and the range.
    pub(super) fn delete_point(&self, before: Option<u64>, now: Now) -> Result<u64, ErrorCode> {
        let Role::Leader(leadership) = &self.role else { return Err(self.not_leading()) };
        if !now.permits(Guard::Lease) {
            return Err(ErrorCode::LeaseExpired);
        }
        if leadership.deletes.is_full() {
            return Err(ErrorCode::Overloaded);
        }
        let high_watermark = self.trimmable();
        let known = leadership.known_high_watermark(&self.base);
        match before {
            None => known.ok_or(ErrorCode::OffsetNotAvailable),
            Some(to) if to <= high_watermark => Ok(to),
            Some(to) if known.is_none() && to <= self.base.log.end => Err(ErrorCode::OffsetNotAvailable),
            Some(_) => Err(ErrorCode::OffsetOutOfRange),
        }
    }

    /// What answers, pushes and advances carry.
    #[must_use]
    pub fn wire_state(&self) -> WireState {
        let high_watermark = match &self.role {
            Role::Leader(leadership) => leadership.known_high_watermark(&self.base),
            _ => Some(self.base.high_watermark.get()),
        };
        let leader_epoch = self.view().map(|v| v.leader_epoch).unwrap_or_default();
        WireState { leader_epoch, high_watermark, log_start: self.base.log.start }
    }

    /// Everything below is committed; a lower bound where [`WireState::high_watermark`] is unknown.
    #[must_use]
    pub fn high_watermark(&self) -> u64 {
        self.base.high_watermark.get()
    }

    /// First offset of the log.
    #[must_use]
    pub fn log_start(&self) -> u64 {
        self.base.log.start
    }

    /// Offset after the last.
    #[must_use]
    pub fn log_end(&self) -> u64 {
        self.base.log.end
    }

    /// End of what is on disk.
    #[must_use]
    pub fn durable_end(&self) -> u64 {
        self.base.log.durable_end()
    }

    /// How far retention may drop the head here: the high watermark on a leader; a follower drops only what its leader dropped.
    #[must_use]
    pub fn retention_limit(&self) -> u64 {
        match &self.role {
            Role::Leader(_) => self.trimmable(),
            _ => self.base.log.start,
        }
    }

    /// Up to where the head may be dropped: what is committed.
    pub(super) fn trimmable(&self) -> u64 {
        let anything = planted::is(Bug::RetentionPastHighWatermark);
        if anything { self.base.log.end } else { self.base.high_watermark.get() }
    }
}
