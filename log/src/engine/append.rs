//! Appending, rolling and reserving space.
//!
//! Owns: the checks before a batch gets its place, the switch to a new segment, preallocation.
//! Never: syncs; the checksum of a batch is checked on arrival, by the caller.
//! Invariant: an append that returns an error which is not fatal has changed nothing that a reader can see, and
//! the next append is accepted at the same offset.

use std::io;
use std::sync::Arc;

use protocol::batch::{BatchError, Header};

use super::{Active, Frozen, Log};
use crate::error::LogError;
use crate::limits::{FIRST_PREALLOCATION_BYTES, MAX_PREALLOCATION_STEP_BYTES, SEGMENT_HEADER_BYTES};
use crate::segment::{Identity, Outline, SegmentFile, chain_seed, segment_path};

/// Reservations end on this boundary: the block size of the file systems we meet.
const BLOCK_BYTES: u64 = 4096;

impl Log {
    /// Appends one stamped batch whose checksum the caller has checked. `base_offset` must be the log end and the
    /// batch's own base offset, its leader epoch at least the last one. Readable on return, durable after a flush.
    pub fn append(&mut self, base_offset: u64, batch: &[u8]) -> Result<(), LogError> {
        self.shared.check()?;
        let header = self.check_next(base_offset, batch)?;
        let result = self.place(&header, batch);
        self.shared.guard(result)
    }

    /// Sees to it that an append of `len` bytes will find room, before an offset is given to it.
    /// Errors: `DiskFull` (the log is as before), I/O errors.
    pub fn make_ready(&mut self, len: usize) -> Result<(), LogError> {
        self.shared.check()?;
        let result = self.make_room(len as u64);
        self.shared.guard(result)
    }

    fn check_next(&self, base_offset: u64, batch: &[u8]) -> Result<Header, LogError> {
        let header = Header::parse(batch)?;
        let (have, need) = (batch.len(), header.total_len());
        if have < need {
            return Err(BatchError::Truncated { have, need }.into());
        }
        if have > need {
            return Err(BatchError::TrailingBytes { of: "batch", extra: have - need }.into());
        }
        if need > self.config.max_batch_bytes {
            return Err(BatchError::TooLarge { size: need, limit: self.config.max_batch_bytes }.into());
        }
        for offset in [base_offset, header.base_offset] {
            if offset != self.end {
                return Err(LogError::NotNext { offset, end: self.end });
            }
        }
        let epoch = header.leader_epoch.ok_or(LogError::NotStamped)?;
        match self.last_epoch() {
            Some(last) if epoch < last => Err(LogError::EpochFell { epoch, last }),
            _ => Ok(header),
        }
    }

    fn place(&mut self, header: &Header, batch: &[u8]) -> Result<(), LogError> {
        self.make_room(batch.len() as u64)?;
        let active = self.active.as_mut().expect("making room creates the first segment");
        let (path, wanted) = (&active.file.path, batch.len() as u64);
        // A part of it may be there even so: no mark will cover it, the next append overwrites it, a seal cuts it off.
        active.allocated = active.allocated.max(active.outline.end + wanted);
        active.file.file.write_at(active.outline.end, batch).map_err(LogError::room("write", path, wanted))?;
        active.outline.add(header, self.config.index_interval_bytes);
        if let Some(epoch) = header.leader_epoch {
            self.epochs.assign(epoch, header.base_offset);
        }
        self.end = header.next_offset();
        Ok(())
    }

    /// Sees to it that `len` bytes fit behind the active segment's end, in a new segment if need be.
    fn make_room(&mut self, len: u64) -> Result<(), LogError> {
        let full = |a: &Active| !a.is_empty() && a.outline.end + len > self.config.segment_bytes;
        match &self.active {
            None => self.begin_segment()?,
            Some(active) if full(active) => self.begin_segment()?,
            Some(_) => {}
        }
        if self.config.preallocate { self.reserve(len) } else { Ok(()) }
    }

    fn reserve(&mut self, len: u64) -> Result<(), LogError> {
        let active = self.active.as_mut().expect("a segment was begun before space in it is reserved");
        let needed = active.outline.end + len;
        if needed <= active.allocated {
            return Ok(());
        }
        let most = self.config.segment_bytes.max(needed);
        let wanted = (active.allocated + self.step).clamp(needed, most).next_multiple_of(BLOCK_BYTES);
        match active.file.file.preallocate(wanted) {
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                Err(LogError::DiskFull { path: active.file.path.clone(), wanted: len })
            }
            Err(e) => Err(LogError::io("preallocation", &active.file.path)(e)),
            Ok(()) => {
                active.allocated = wanted;
                self.step = (self.step * 2).min(MAX_PREALLOCATION_STEP_BYTES);
                Ok(())
            }
        }
    }

    /// Creates the directory if it is not there yet.
    pub(super) fn make_dir(&mut self) -> Result<(), LogError> {
        if self.dir_exists {
            return Ok(());
        }
        match self.storage.create_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                return Err(LogError::DiskFull { path: self.dir.clone(), wanted: BLOCK_BYTES });
            }
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(LogError::io("create directory", &self.dir)(e));
            }
            _ => {}
        }
        self.dir_exists = true;
        self.parent_unsynced = true;
        Ok(())
    }

    /// Begins a new segment at the log end; the one before it is frozen.
    pub(super) fn begin_segment(&mut self) -> Result<(), LogError> {
        self.make_dir()?;
        let (chain, epoch) = match &self.active {
            Some(active) => (active.outline.chain, active.outline.epoch()),
            None => (chain_seed(self.end), None),
        };
        let identity = Identity { life: self.life, base: self.end, chain, epoch };
        let reserve = if self.config.preallocate { FIRST_PREALLOCATION_BYTES } else { 0 };
        let Some(file) = SegmentFile::create(&*self.storage, &self.dir, identity, reserve)? else {
            return Err(LogError::DiskFull { path: segment_path(&self.dir, self.end), wanted: reserve });
        };
        self.names += 1;
        self.freeze()?;
        self.active = Some(Active {
            file: Arc::new(file),
            outline: Outline::new(&identity),
            allocated: reserve.max(SEGMENT_HEADER_BYTES),
            snapshot_end: SEGMENT_HEADER_BYTES,
        });
        Ok(())
    }

    /// Moves the active segment to the frozen ones; the next flush seals it.
    fn freeze(&mut self) -> Result<(), LogError> {
        let Some(active) = self.active.take() else {
            return Ok(());
        };
        if active.allocated > active.outline.end {
            let cut = active.file.file.set_len(active.outline.end);
            cut.map_err(LogError::io("cut", &active.file.path))?;
        }
        let frozen = Frozen {
            identity: active.file.identity,
            mark: active.outline.mark(true),
            pending: Some((active.file, Arc::new(active.outline))),
        };
        self.frozen.insert(frozen.identity.base, frozen);
        Ok(())
    }

    /// Begins a new segment if the active one holds records and its first batch is older than `older_than_ms`
    /// (record time, ms): retention by time only drops whole segments. True if it did.
    pub fn roll_if_needed(&mut self, older_than_ms: i64) -> Result<bool, LogError> {
        self.shared.check()?;
        let old = self.active.as_ref().and_then(|a| a.outline.first_timestamp).is_some_and(|t| t < older_than_ms);
        if old {
            let result = self.begin_segment();
            self.shared.guard(result)?;
        }
        Ok(old)
    }
}
