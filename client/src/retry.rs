//! How long to wait before trying again, and when to stop.
//!
//! Owns: the pause (exponential, capped, with jitter), the stop at the deadline, the client's random numbers.
//! Never: reads a clock or an entropy source; `now` and seeds come as arguments.
//! Invariant: a wait never ends past the deadline; the same seed gives the same waits.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use protocol::ids::Millis;

/// Pauses between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Pause before the first retry, ms.
    pub first_ms: u64,
    /// Longest pause, ms.
    pub max_ms: u64,
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Try again at this time.
    At(Millis),
    /// The deadline would pass: stop.
    Stop,
}

impl Backoff {
    /// The pause before retry number `attempt` (1 = the first retry): `first_ms` doubled each time, at most `max_ms`,
    /// of which the upper half is random.
    #[must_use]
    pub fn pause(&self, attempt: u32, dice: &mut Dice) -> u64 {
        let doubled = self.first_ms.saturating_mul(1_u64 << attempt.saturating_sub(1).min(20));
        let pause = doubled.min(self.max_ms).max(1);
        pause - dice.below(pause / 2 + 1)
    }

    /// When to try again after attempt number `attempt` failed at `now`.
    #[must_use]
    pub fn next(&self, attempt: u32, now: Millis, deadline: Millis, dice: &mut Dice) -> Retry {
        let at = now.saturating_add(self.pause(attempt, dice));
        if at >= deadline { Retry::Stop } else { Retry::At(at) }
    }
}

/// A seeded sequence of numbers (splitmix64): for jitter and sticky choices, never for secrets.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// A sequence decided by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (0 if `bound` is 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.roll() % bound }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_stay_between_half_and_the_cap(first in 1_u64..1_000, max in 1_u64..10_000, attempt in 0_u32..100, seed: u64) {
            let pause = Backoff { first_ms: first, max_ms: max }.pause(attempt, &mut Dice::new(seed));
            prop_assert!(pause >= 1 && pause <= max.max(1));
            if attempt <= 1 {
                prop_assert!(pause >= first.min(max) / 2);
            }
        }

        #[test]
        fn never_waits_past_the_deadline(now in 0_u64..1_000_000, left in 0_u64..5_000, attempt in 0_u32..30, seed: u64) {
            let deadline = now + left;
            match (Backoff { first_ms: 10, max_ms: 200 }).next(attempt, now, deadline, &mut Dice::new(seed)) {
                Retry::At(at) => prop_assert!(at > now && at < deadline),
                Retry::Stop => prop_assert!(left <= 200),
            }
        }
    }
}
