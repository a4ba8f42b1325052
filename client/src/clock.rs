//! The client's clocks, read at the edges only; deciding code gets times as arguments.
//!
//! Owns: monotonic ms since the handle was made, and wall time for record timestamps.
//! Never: compares one with the other.

use protocol::ids::Millis;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Monotonic milliseconds since this clock was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Millis {
        self.start.elapsed().as_millis() as Millis
    }

    /// The instant at which [`Clock::now`] reaches `at`.
    pub(crate) fn instant(&self, at: Millis) -> Instant {
        self.start + Duration::from_millis(at)
    }
}

/// Wall time in ms since 1970, for record timestamps.
pub(crate) fn wall_ms() -> i64 {
    if let Some(machine) = protocol::machine::simulated() {
        return machine.clocks().wall.as_millis() as i64;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// A seed for jitter and sticky choices; no secret depends on it.
pub(crate) fn seed() -> u64 {
    protocol::machine::random()
}
