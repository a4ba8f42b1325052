//! How heartbeats become a lease: each is remembered by its send time; an answer counts only once the batch number it
//! carries is applied here; the lease runs from the send, never from the receipt.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::limits::HEARTBEATS_REMEMBERED_MAX;
use crate::replica::lease::Lease;
use protocol::ids::{BatchNo, Millis};
use std::collections::VecDeque;

/// See the module's header.
#[derive(Debug, Clone)]
pub(super) struct Renewals {
    lease_ms: Millis,
    last_seq: u64,
    /// (number, send time), both growing.
    sent: VecDeque<(u64, Millis)>,
    /// (batch number to apply first, valid until).
    waiting: VecDeque<(BatchNo, Millis)>,
    lease: Lease,
}

impl Renewals {
    pub(super) fn new(lease_ms: Millis) -> Self {
        Self { lease_ms, last_seq: 0, sent: VecDeque::new(), waiting: VecDeque::new(), lease: Lease::NONE }
    }

    pub(super) fn lease(&self) -> Lease {
        self.lease
    }

    pub(super) fn next_seq(&self) -> u64 {
        self.last_seq + 1
    }

    /// A heartbeat leaves now; returns its number.
    pub(super) fn sent(&mut self, now: Millis) -> u64 {
        self.last_seq += 1;
        self.sent.push_back((self.last_seq, now));
        while self.sent.len() > HEARTBEATS_REMEMBERED_MAX {
            self.sent.pop_front();
        }
        self.last_seq
    }

    /// The active controller answered heartbeat `seq`; it counts once batch `renews_at` is applied. That batch may never
    /// commit: the answer is then forgotten when its time is over, or when another batch of that number has come.
    pub(super) fn answered(&mut self, seq: u64, renews_at: BatchNo, now: Millis) {
        let Some((_, at)) = self.sent.iter().find(|(number, _)| *number == seq) else { return };
        let until = at.saturating_add(self.lease_ms);
        self.waiting.retain(|(_, other)| *other > now);
        if until > now {
            self.waiting.push_back((renews_at, until));
        }
        while self.waiting.len() > HEARTBEATS_REMEMBERED_MAX {
            self.waiting.pop_front();
        }
    }

    /// The image is at `applied`: what waited for it counts. The lease never gets shorter by an answer.
    pub(super) fn applied(&mut self, applied: BatchNo, grace_ms: Millis, now: Millis) {
        let counted = self.waiting.iter().filter(|(no, until)| *no <= applied && *until > now);
        let until = counted.map(|(_, until)| *until).max();
        self.waiting.retain(|(no, _)| *no > applied);
        self.lease.valid_until = self.lease.valid_until.max(until.unwrap_or(0));
        if self.lease.valid_until > 0 {
            self.lease.grace_until = self.lease.valid_until.saturating_add(grace_ms);
        }
    }

    /// We are fenced: nothing may be answered until an answer says otherwise.
    pub(super) fn revoke(&mut self) {
        self.waiting.clear();
        self.lease = Lease::NONE;
    }
}
