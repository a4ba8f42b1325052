//! The shell's clocks. Pure cores get these numbers as arguments and never come here.
//!
//! `now` counts CLOCK_BOOTTIME: it goes on while the machine is suspended, so that a lease runs out in a sleep too
//! (DESIGN section 4). `wall_ms` is for records and retention only, never for a lease or a timeout.

use protocol::ids::Millis;
use protocol::machine;
use std::time::{SystemTime, UNIX_EPOCH};

/// Monotonic milliseconds since boot, suspend included.
#[must_use]
pub fn now() -> Millis {
    if let Some(machine) = machine::simulated() {
        return u64::try_from(machine.clocks().boot.as_millis()).unwrap_or(u64::MAX);
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000 + nanos / 1_000_000
}

/// Wall-clock milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> i64 {
    if let Some(machine) = machine::simulated() {
        return i64::try_from(machine.clocks().wall.as_millis()).unwrap_or(i64::MAX);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
