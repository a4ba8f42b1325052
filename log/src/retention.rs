//! Which segments of a log may go, given sizes and times, and which time counts for that.
//!
//! Owns: the rule of retention by time and by size; the time that it goes by. Pure.
//! Never: removes anything, reads a clock, or touches the active segment (the shell rolls it first if it is old).
//! Invariant: nothing at or above the high watermark is ever chosen, and only a prefix of the log. A wall clock that
//! leaps ahead makes nothing older than the time that has passed.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::SegmentMeta;

/// What a log may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetentionLimits {
    /// Age in ms after which a segment goes, counted from its newest record; `None`: never.
    pub max_age_ms: Option<u64>,
    /// Size in bytes above which the oldest segments go; `None`: never.
    pub max_bytes: Option<u64>,
}

/// The new log start that the limits allow, at most `high_watermark`; `None` if nothing may go. `now_ms` is wall
/// time in ms since 1970, comparable with record timestamps.
pub fn new_start(segments: &[SegmentMeta], limits: &RetentionLimits, now_ms: i64, high_watermark: u64) -> Option<u64> {
    let mut size: u64 = segments.iter().map(|s| s.bytes).sum();
    let mut start = None;
    for segment in segments.iter().take_while(|s| s.sealed && s.next <= high_watermark) {
        let age = now_ms.saturating_sub(segment.max_timestamp);
        let old = limits.max_age_ms.is_some_and(|max| age > 0 && age.unsigned_abs() > max);
        // Only if the rest alone still fills the limit: the last bytes kept are at least the limit.
        let surplus = limits.max_bytes.is_some_and(|max| size - segment.bytes >= max);
        if !old && !surplus {
            break;
        }
        size -= segment.bytes;
        start = Some(segment.next);
    }
    start
}

/// The wall clock as retention believes it. Records that are gone do not come back when a clock is set right again, so
/// this time follows the wall clock back at once, but ahead by no more than what has passed on the boot-time clock and a
/// tenth of it: room for a clock that is slewed. A wall clock that was wrong when this began is not recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionClock {
    boot_ms: u64,
    believed_ms: i64,
}

impl RetentionClock {
    /// Believes the wall clock as it is: ms since 1970, and on the boot-time clock.
    #[must_use]
    pub fn new(boot_ms: u64, wall_ms: i64) -> Self {
        Self { boot_ms, believed_ms: wall_ms }
    }

    /// The time for [`new_start`] while the two clocks show this.
    pub fn now_ms(&mut self, boot_ms: u64, wall_ms: i64) -> i64 {
        let passed = boot_ms.saturating_sub(self.boot_ms);
        let room = i64::try_from(passed.saturating_add(passed / 10)).unwrap_or(i64::MAX);
        let furthest = self.believed_ms.saturating_add(room);
        self.boot_ms = self.boot_ms.max(boot_ms);
        // While the wall clock is behind this stands still, so that it is believed again where it comes back to.
        self.believed_ms = wall_ms.clamp(self.believed_ms, furthest);
        self.believed_ms.min(wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_MS: i64 = 86_400_000;

    #[test]
    fn a_wall_clock_that_leaps_ahead_deletes_nothing_that_is_not_old() {
        let begin = 20_000 * DAY_MS;
        let mut clock = RetentionClock::new(0, begin);
        let week = RetentionLimits { max_age_ms: Some(7 * DAY_MS as u64), max_bytes: None };
        let segment = |day: i64| {
            let (base, max_timestamp) = (day as u64 * 10, begin - (10 - day) * DAY_MS);
            SegmentMeta { base, next: base + 10, bytes: 1, max_timestamp, sealed: day < 9 }
        };
        let segments: Vec<_> = (0..10).map(segment).collect();
        let mut start = |passed: i64, leap: i64| {
            let now = clock.now_ms(passed as u64, begin + passed + leap);
            new_start(&segments, &week, now, 100)
        };
        let minute = 60_000;
        assert_eq!(start(minute, 0), Some(40), "the segments of days 0 to 3 are older than a week");
        assert_eq!(start(2 * minute, 400 * DAY_MS), Some(40), "a leap makes no other one old");
        assert_eq!(start(2 * minute + DAY_MS, 400 * DAY_MS), Some(50), "a day later one more is");
        assert_eq!(start(3 * minute + DAY_MS, 0), Some(50), "and the clock is right again");
        assert_eq!(start(4 * minute + DAY_MS, -400 * DAY_MS), None, "nothing is old by a clock that went back");
        assert_eq!(start(5 * minute + DAY_MS, 0), Some(50), "nor is more when that one is right again");
    }

    proptest! {
        #[test]
        fn the_time_of_retention_never_runs_ahead_of_the_wall_clock_or_of_what_has_passed(
            looks in proptest::collection::vec((0u64..100_000, -2_000_000i64..2_000_000), 1..50),
        ) {
            let (begin, mut boot) = (1_000_000_000, 0);
            let mut clock = RetentionClock::new(0, begin);
            for (passed, off) in looks {
                boot += passed;
                let wall = begin + boot as i64 + off;
                let now = clock.now_ms(boot, wall);
                prop_assert!(now <= wall);
                prop_assert!(now <= begin + (boot + boot / 10) as i64);
            }
        }

        #[test]
        fn a_clock_that_is_slewed_and_set_by_little_is_followed(
            looks in proptest::collection::vec((1_000u64..100_000, -100i64..=100), 1..50),
        ) {
            let (begin, mut boot, mut wall) = (1_000_000_000, 0, 1_000_000_000);
            let mut clock = RetentionClock::new(0, begin);
            for (passed, off) in looks {
                boot += passed;
                wall += passed as i64 + off;
                prop_assert_eq!(clock.now_ms(boot, wall), wall);
            }
        }
    }

    fn arb_segments() -> impl Strategy<Value = Vec<SegmentMeta>> {
        proptest::collection::vec((1u64..50, 0u64..1000, 0i64..1000), 1..8).prop_map(|parts| {
            let mut base = 0;
            let last = parts.len() - 1;
            let meta = |(i, (records, bytes, max_timestamp)): (usize, (u64, u64, i64))| {
                let next = base + records;
                let meta = SegmentMeta { base, next, bytes, max_timestamp, sealed: i < last };
                base = next;
                meta
            };
            parts.into_iter().enumerate().map(meta).collect()
        })
    }

    proptest! {
        #[test]
        fn only_a_prefix_below_the_high_watermark_that_breaks_a_limit_goes(
            segments in arb_segments(),
            age in proptest::option::of(0u64..1500),
            bytes in proptest::option::of(0u64..3000),
            now in 0i64..2000,
            high_watermark in 0u64..400,
        ) {
            let limits = RetentionLimits { max_age_ms: age, max_bytes: bytes };
            let start = new_start(&segments, &limits, now, high_watermark);
            let gone: Vec<_> = segments.iter().filter(|s| start.is_some_and(|start| s.next <= start)).collect();
            prop_assert!(start.is_none_or(|start| start <= high_watermark));
            prop_assert!(gone.iter().all(|s| s.sealed), "the active segment stays");
            let kept: u64 = segments.iter().map(|s| s.bytes).sum::<u64>() - gone.iter().map(|s| s.bytes).sum::<u64>();
            if let Some(last) = gone.last() {
                let old = age.is_some_and(|age| now - last.max_timestamp > age as i64);
                prop_assert!(old || bytes.is_some_and(|max| kept >= max), "size never falls below its limit");
            }
            if let Some(next) = segments.get(gone.len()).filter(|s| s.sealed && s.next <= high_watermark) {
                let old = age.is_some_and(|age| now - next.max_timestamp > age as i64);
                prop_assert!(!old, "nothing old is kept");
                prop_assert!(bytes.is_none_or(|max| kept - next.bytes < max), "no surplus is kept");
            }
        }
    }
}
