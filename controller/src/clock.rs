//! The clocks of the controller's shell. Deciding code gets what they say as an argument. Sessions and leases count on
//! CLOCK_BOOTTIME: a suspended machine must not believe that no time passed.

use crate::decide::command::Now;
use protocol::ids::Millis;
use protocol::machine;
use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// CLOCK_BOOTTIME between two looks at CLOCK_MONOTONIC, which stands still while the machine is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clocks {
    /// CLOCK_MONOTONIC, looked at first.
    pub(crate) mono_before: Duration,
    /// CLOCK_BOOTTIME.
    pub(crate) boot: Duration,
    /// CLOCK_MONOTONIC again.
    pub(crate) mono_after: Duration,
}

/// Both clocks now.
#[must_use]
pub(crate) fn clocks() -> Clocks {
    let mono_before = read(ClockId::Monotonic);
    let boot = read(ClockId::Boottime);
    Clocks { mono_before, boot, mono_after: read(ClockId::Monotonic) }
}

fn read(clock: ClockId) -> Duration {
    if let Some(machine) = machine::simulated() {
        let clocks = machine.clocks();
        return if clock == ClockId::Boottime { clocks.boot } else { clocks.awake };
    }
    let time = clock_gettime(clock);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Monotonic milliseconds, suspended time included.
#[must_use]
pub(crate) fn mono() -> Millis {
    u64::try_from(read(ClockId::Boottime).as_millis()).unwrap_or(u64::MAX)
}

/// Wall clock, ms since 1970.
#[must_use]
pub(crate) fn wall() -> Millis {
    if let Some(machine) = machine::simulated() {
        return u64::try_from(machine.clocks().wall.as_millis()).unwrap_or(u64::MAX);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Both, for a decision.
#[must_use]
pub(crate) fn now() -> Now {
    Now { mono: mono(), wall: wall() }
}
