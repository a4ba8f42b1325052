//! From measured times to the figures of a distribution. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::Serialize;
use std::time::Duration;

/// A distribution of times, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distribution {
    /// How many.
    pub count: usize,
    /// Shortest.
    pub min_ms: f64,
    /// Half are at most this.
    pub p50_ms: f64,
    /// Nine in ten are at most this.
    pub p90_ms: f64,
    /// Longest.
    pub max_ms: f64,
    /// Each, in the order measured.
    pub each_ms: Vec<f64>,
}

impl Distribution {
    /// Of these times; None if there are none.
    pub fn of(times: &[Duration]) -> Option<Self> {
        let each_ms: Vec<f64> = times.iter().map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0).collect();
        let mut sorted = each_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let (min_ms, max_ms) = (*sorted.first()?, *sorted.last()?);
        // Nearest rank: a figure that was measured, never one between two.
        let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self { count: sorted.len(), min_ms, p50_ms: rank(50), p90_ms: rank(90), max_ms, each_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_measured_values() {
        let times: Vec<Duration> = (1..=20).rev().map(Duration::from_millis).collect();
        let figures = Distribution::of(&times).expect("there are twenty");
        assert_eq!((figures.min_ms, figures.p50_ms, figures.p90_ms, figures.max_ms), (1.0, 10.0, 18.0, 20.0));
        assert_eq!(figures.each_ms[0], 20.0);
        assert_eq!(Distribution::of(&[]), None);
        let one = Distribution::of(&[Duration::from_millis(7)]).expect("one is enough");
        assert_eq!((one.p50_ms, one.max_ms), (7.0, 7.0));
    }
}
