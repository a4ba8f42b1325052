//! How much of a simulated disk is used.
//!
//! Owns: the capacity, the count of blocks in use.
//! Never: knows a name or a byte.
//! Invariant: a file that has a name takes one block for itself and one per [`BLOCK_BYTES`] of its length as the
//! process sees it, a directory takes one. Holes take room too, and room is back as soon as a name or a length is
//! gone (a real file system waits for its journal): both only move the moment at which the disk is full.

use std::sync::atomic::{AtomicU64, Ordering};

/// Unit in which room is given.
pub const BLOCK_BYTES: u64 = 4096;

#[derive(Debug)]
pub(super) struct Room {
    capacity: AtomicU64,
    used: AtomicU64,
}

/// Blocks of a file of this length.
pub(super) fn blocks(len: u64) -> u64 {
    1 + len.div_ceil(BLOCK_BYTES)
}

impl Room {
    /// Room without an end.
    pub(super) fn new() -> Room {
        Room { capacity: AtomicU64::new(u64::MAX), used: AtomicU64::new(1) }
    }

    pub(super) fn copy(&self) -> Room {
        let copy = |value: &AtomicU64| AtomicU64::new(value.load(Ordering::Relaxed));
        Room { capacity: copy(&self.capacity), used: copy(&self.used) }
    }

    /// `None`: without an end.
    pub(super) fn set_capacity(&self, bytes: Option<u64>) {
        self.capacity.store(bytes.map_or(u64::MAX, |b| b / BLOCK_BYTES), Ordering::Relaxed);
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn set_used(&self, blocks: u64) {
        self.used.store(blocks, Ordering::Relaxed);
    }

    /// Blocks left.
    pub(super) fn free(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed).saturating_sub(self.used())
    }

    /// Takes blocks, all of them or none.
    pub(super) fn take(&self, blocks: u64) -> bool {
        if blocks == 0 {
            return true;
        }
        let capacity = self.capacity.load(Ordering::Relaxed);
        let more = |used: u64| used.checked_add(blocks).filter(|sum| *sum <= capacity);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self, blocks: u64) {
        let less = |used: u64| Some(used.saturating_sub(blocks));
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok();
    }
}
