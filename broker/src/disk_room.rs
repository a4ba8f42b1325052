//! Whether the disk has room for records: the one answer that produce, replication and the watcher of free space share.
//!
//! Owns: the count of bytes that may still be taken before the floor, and the mode. Never: writes a record or asks twice.
//! Invariant: between two looks at the disk no more bytes are admitted than the last look found above the floor, and
//! nothing is admitted while the reserve is given up. So what is not a record (notes, states of logs, marks) finds room.
//! What was admitted before a look and is written after it is in neither count: a batch or push of each shard, between its
//! admission and its append in the same turn. The floor is many times as large.
//! Why twice the floor to come back: a disk at the edge would otherwise refuse and take in turns.

use log::storage::reserve::Reserve;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use crate::limits::DISK_FLOOR_BYTES;

/// See the module.
#[derive(Debug)]
pub struct DiskRoom {
    reserve: Arc<Reserve>,
    full: AtomicBool,
    /// Bytes that may be taken until the next look.
    left: AtomicI64,
    /// Whether anybody has looked yet; held while looking.
    looked: Mutex<bool>,
}

/// What a look at the disk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Records are refused from now on.
    pub full: bool,
    /// That is another answer than before.
    pub changed: bool,
    /// Free bytes at which the answer changes.
    pub floor: u64,
}

impl DiskRoom {
    /// A disk that was not looked at yet: nothing is admitted.
    #[must_use]
    pub fn new(reserve: Arc<Reserve>) -> Arc<Self> {
        let (full, left) = (AtomicBool::new(false), AtomicI64::new(0));
        Arc::new(Self { reserve, full, left, looked: Mutex::new(false) })
    }

    /// Whether records are taken at present.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.full.load(Ordering::SeqCst) && self.reserve.is_held()
    }

    /// Takes room for `bytes` of records. False: there is none, and none until a later look finds more.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        if !self.has_room() {
            return false;
        }
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let before = self.left.fetch_sub(bytes, Ordering::SeqCst);
        let fits = before >= bytes;
        if !fits {
            self.full.store(true, Ordering::SeqCst);
        }
        fits
    }

    /// Records of so many bytes that were taken were not written.
    pub fn give_back(&self, bytes: usize) {
        self.left.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// The disk has so many bytes free: takes the reserve back where there is room for it, and answers for the time until
    /// the next look.
    pub fn look(&self, free: u64) -> Look {
        let mut looked = self.looked.lock();
        let first = !std::mem::replace(&mut *looked, true);
        let was_full = !self.has_room();
        let floor = if self.full.load(Ordering::SeqCst) { 2 * DISK_FLOOR_BYTES } else { DISK_FLOOR_BYTES };
        let mut free = free;
        if let Err(error) = self.reserve.adopt() {
            tracing::warn!(%error, "the reserve cannot be looked at");
        }
        if !self.reserve.is_held() && free.saturating_sub(floor) >= self.reserve.bytes() {
            match self.reserve.hold() {
                Ok(()) => free -= self.reserve.bytes(),
                Err(error) => tracing::warn!(%error, "the reserve cannot be taken"),
            }
        }
        let full = free <= floor || !self.reserve.is_held();
        let left = free.saturating_sub(DISK_FLOOR_BYTES);
        self.left.store(i64::try_from(left).unwrap_or(i64::MAX), Ordering::SeqCst);
        self.full.store(full, Ordering::SeqCst);
        // A start that finds room is no news.
        Look { full, changed: full != (was_full && !first), floor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::storage::Storage;
    use log::storage::memory::{Call, Fault, MemStorage, Op};
    use std::path::Path;

    const RESERVE: u64 = 1 << 20;

    fn room() -> (MemStorage, Arc<Reserve>, Arc<DiskRoom>) {
        let disk = MemStorage::new();
        let reserve = Reserve::new(Arc::new(disk.clone()), "/reserve".into(), RESERVE);
        let room = DiskRoom::new(reserve.clone());
        (disk, reserve, room)
    }

    #[test]
    fn nothing_is_taken_before_the_first_look() {
        let (_, _, room) = room();
        assert!(!room.take(1));
        assert!(!room.look(DISK_FLOOR_BYTES + RESERVE + 1).full);
        assert!(room.take(1));
    }

    #[test]
    fn a_restart_just_above_the_floor_takes_records_as_the_process_before_it_did() {
        let (disk, reserve, _) = room();
        reserve.hold().expect("room is there");
        disk.kill_process();
        let room = DiskRoom::new(Reserve::new(Arc::new(disk), "/reserve".into(), RESERVE));
        assert!(!room.look(DISK_FLOOR_BYTES + 1).full, "the reserve is there and costs nothing");
    }

    #[test]
    fn what_was_refused_after_all_is_given_back() {
        let (_, _, room) = room();
        room.look(u64::MAX);
        room.look(DISK_FLOOR_BYTES + 1_000);
        for _ in 0..10 {
            assert!(room.take(600));
            room.give_back(600);
        }
    }

    #[test]
    fn between_two_looks_no_more_is_taken_than_lies_above_the_floor() {
        let (_, _, room) = room();
        room.look(u64::MAX);
        room.look(DISK_FLOOR_BYTES + 1_000);
        assert!(room.take(600));
        assert!(!room.take(600), "that would reach below the floor");
        assert!(!room.take(1), "full until a look says otherwise");
        assert!(room.look(DISK_FLOOR_BYTES + 1_000).full, "just above the floor is not enough to come back");
        assert!(!room.look(2 * DISK_FLOOR_BYTES + 1).full);
        assert!(room.take(600));
    }

    #[test]
    fn a_given_up_reserve_refuses_records_at_once_and_is_taken_back_first() {
        let (disk, reserve, room) = room();
        assert!(!room.look(u64::MAX).changed);
        let storage = log::storage::reserve::ReservedStorage::new(Arc::new(disk.clone()), reserve.clone());
        let full =
            |call: &Call<'_>| (call.op == Op::CreateDir).then(|| Fault::Fail(std::io::ErrorKind::StorageFull.into()));
        disk.set_hook(Some(Box::new(full)));
        storage.create_dir(Path::new("/a")).expect_err("no room, even so");
        disk.set_hook(None);
        assert!(!reserve.is_held());
        assert!(!room.take(1), "without waiting for a look");
        assert!(room.look(DISK_FLOOR_BYTES).full);
        assert!(room.look(2 * DISK_FLOOR_BYTES + RESERVE - 1).full, "not even the reserve fits");
        let look = room.look(2 * DISK_FLOOR_BYTES + RESERVE + 1);
        assert!(!look.full && look.changed && reserve.is_held());
    }
}
