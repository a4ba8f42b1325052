//! The clocks of the controller's shell. Deciding code gets what they say as an argument. Sessions and leases count on
//! CLOCK_BOOTTIME: a suspended machine must not believe that no time passed.

use crate::decide::command::Now;
use protocol::ids::Millis;
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// Monotonic milliseconds, suspended time included.
#[must_use]
pub(crate) fn mono() -> Millis {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
    seconds * 1000 + millis
}

/// Wall clock, ms since 1970.
#[must_use]
pub(crate) fn wall() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Both, for a decision.
#[must_use]
pub(crate) fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}
