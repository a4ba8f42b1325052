//! What a broker may still answer, by the age of its last heartbeat answer.
//!
//! The lease promises for acks 0/1 and for unflagged reads that a deposed leader serves at most L after the batch
//! that deposed it committed. Safety of acks=all never rests on it: epochs and the ISR carry that, so acks=all and
//! reads below the high watermark (flagged) go on through the grace time (DESIGN.md section 4). A lease is checked
//! when an answer leaves, so an answer carries the [`Guard`] under which it may.

use protocol::ids::Millis;
use protocol::planted::{self, Bug};

/// Until when this broker's leadership is trusted. Times are on the boot-time clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    /// Send time of the last counted heartbeat + L. At and after this moment the lease is lost.
    pub valid_until: Millis,
    /// `valid_until` + `lease.grace`.
    pub grace_until: Millis,
}

/// What an answer needs at the moment it leaves the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// Nothing: refusals.
    Nothing,
    /// The lease or its grace: acks=all, flagged reads.
    Grace,
    /// The lease itself: acks 0 and 1, unflagged reads, delete-records.
    Lease,
}

impl Lease {
    /// Never granted.
    pub const NONE: Self = Self { valid_until: 0, grace_until: 0 };

    /// What both permit.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            valid_until: self.valid_until.min(other.valid_until),
            grace_until: self.grace_until.min(other.grace_until),
        }
    }

    /// Whether an answer under `guard` may leave at `now`.
    #[must_use]
    pub fn permits(&self, guard: Guard, now: Millis) -> bool {
        match guard {
            _ if planted::is(Bug::ZombieLeaderWithoutLease) => true,
            Guard::Nothing => true,
            Guard::Grace => now < self.grace_until.max(self.valid_until),
            Guard::Lease => now < self.valid_until,
        }
    }
}

/// The moment of a step: time and lease as the shell knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Boot-time clock, ms.
    pub at: Millis,
    /// The broker's lease at that time.
    pub lease: Lease,
}

impl Now {
    /// Whether an answer under `guard` may leave now.
    #[must_use]
    pub fn permits(&self, guard: Guard) -> bool {
        self.lease.permits(guard, self.at)
    }

    /// Whether an answer under `guard` may leave now: asked again when it leaves, whatever held when the request came.
    #[must_use]
    pub fn lets_out(&self, guard: Guard) -> bool {
        planted::is(Bug::LeaseCheckedOnEntryOnly) || self.permits(guard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lease_ends_at_its_moment_and_grace_after_it() {
        let lease = Lease { valid_until: 400, grace_until: 1_000 };
        for (now, leased, grace) in [(399, true, true), (400, false, true), (999, false, true), (1_000, false, false)] {
            assert_eq!(lease.permits(Guard::Lease, now), leased, "lease at {now}");
            assert_eq!(lease.permits(Guard::Grace, now), grace, "grace at {now}");
            assert!(lease.permits(Guard::Nothing, now));
        }
        assert!(!Lease::NONE.permits(Guard::Grace, 0));
    }

    #[test]
    fn two_leases_permit_together_what_each_permits() {
        let leases = [(0, 0), (0, 900), (400, 1_000), (500, 900), (400, 400)];
        let leases = leases.map(|(valid_until, grace_until)| Lease { valid_until, grace_until });
        for (a, b) in leases.iter().flat_map(|a| leases.iter().map(move |b| (a, b))) {
            assert_eq!(a.and(b), b.and(a));
            for now in [0, 399, 400, 499, 500, 899, 900, 999, 1_000] {
                for guard in [Guard::Nothing, Guard::Grace, Guard::Lease] {
                    let each = a.permits(guard, now) && b.permits(guard, now);
                    assert_eq!(a.and(b).permits(guard, now), each, "{a:?} and {b:?}, {guard:?} at {now}");
                }
            }
        }
    }
}
