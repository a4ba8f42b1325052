//! The clock of one node: it goes a little faster or slower than the world's and began at another number. Its wall clock
//! may be anything.

use protocol::ids::Millis;

/// What the world's clock began at, as wall time.
const WALL_MS: i64 = 1_700_000_000_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// Thousandths of the world's rate.
    rate: u64,
    offset: Millis,
    /// How far the wall clock is off, ms.
    pub(super) wall_error: i64,
}

impl Clock {
    pub(super) fn new(rate: u64, offset: Millis) -> Self {
        Self { rate, offset, wall_error: 0 }
    }

    /// What it shows. It never stands still, also while the machine sleeps.
    pub(super) fn shows(&self, now: Millis) -> Millis {
        self.offset + now * self.rate / 1_000
    }

    /// The first moment of the world at which it shows that, or later.
    pub(super) fn when(&self, local: Millis) -> Millis {
        (local.saturating_sub(self.offset) * 1_000).div_ceil(self.rate)
    }

    /// What its wall clock shows, ms since 1970.
    pub(super) fn wall(&self, now: Millis) -> i64 {
        wall(now) + self.wall_error
    }
}

/// True wall time.
pub(super) fn wall(now: Millis) -> i64 {
    WALL_MS + i64::try_from(now).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_asked_for_is_never_early() {
        for rate in [960, 1_000, 1_037] {
            let clock = Clock::new(rate, 77);
            for local in 77..3_000 {
                assert!(clock.shows(clock.when(local)) >= local);
                assert!(clock.when(local) == 0 || clock.shows(clock.when(local) - 1) < local);
            }
        }
    }
}
