//! Which segments of a log may go, given sizes and times.
//!
//! Owns: the rule of retention by time and by size. Pure.
//! Never: removes anything, reads a clock, or touches the active segment (the shell rolls it first if it is old).
//! Invariant: nothing at or above the high watermark is ever chosen, and only a prefix of the log.
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
