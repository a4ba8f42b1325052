//! The broker's lease as its shards read it: written by the lifecycle task, read at every step and every answer.
//!
//! Two numbers written apart can be seen apart: `valid_until` is stored before `grace_until` when it grows, so a reader
//! may see a shorter grace for a moment, never a longer lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock;
use crate::replica::lease::{Lease, Now};

/// Shared, cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LeaseCell {
    valid_until: Arc<AtomicU64>,
    grace_until: Arc<AtomicU64>,
}

impl LeaseCell {
    /// Takes a new lease.
    pub fn set(&self, lease: Lease) {
        self.valid_until.store(lease.valid_until, Ordering::Release);
        self.grace_until.store(lease.grace_until, Ordering::Release);
    }

    /// The lease as last set.
    #[must_use]
    pub fn get(&self) -> Lease {
        let grace_until = self.grace_until.load(Ordering::Acquire);
        Lease { valid_until: self.valid_until.load(Ordering::Acquire), grace_until }
    }

    /// This moment, for a step or an answer.
    #[must_use]
    pub fn now(&self) -> Now {
        Now { at: clock::now(), lease: self.get() }
    }
}
