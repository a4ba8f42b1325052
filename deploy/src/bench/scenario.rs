//! What the failover bench breaks, what it measures, and what is promised for it. Pure.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde::Serialize;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// The leader of a partition dies (SIGKILL).
    LeaderKill,
    /// A follower in the ISR of a partition dies.
    FollowerKill,
    /// The active controller dies.
    ControllerKill,
    /// The active controller and the broker of its data centre, which leads a partition, die together.
    DcKill,
    /// The leader of a partition freezes (SIGSTOP).
    LeaderPause,
}

/// A measured figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// From the fault to the first acknowledged write, handed over after it, on the partition that lost its leader.
    NextWrite,
    /// The longest time between two acknowledgements on a partition whose follower died.
    AckGap,
    /// The longest such time over all partitions.
    WorstAckGap,
    /// From the fault to the first acknowledged topic creation asked for after it.
    NextTopicCreate,
}

/// What is promised of a figure, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Bound of the median, if any.
    pub p50_ms: Option<u32>,
    /// Bound of the longest.
    pub max_ms: u32,
}

impl Scenario {
    /// All of them, in the order they are run.
    pub const ALL: [Scenario; 5] = [
        Scenario::LeaderKill,
        Scenario::FollowerKill,
        Scenario::ControllerKill,
        Scenario::DcKill,
        Scenario::LeaderPause,
    ];

    /// What is measured, and what is promised. `session_timeout_ms` is the cluster's.
    pub fn figures(self, session_timeout_ms: u32) -> Vec<(Figure, Target)> {
        let failover = Target { p50_ms: Some(700), max_ms: 3000 };
        let at_most = |max_ms| Target { p50_ms: None, max_ms };
        match self {
            Scenario::LeaderKill => vec![(Figure::NextWrite, failover)],
            Scenario::FollowerKill => vec![(Figure::AckGap, failover)],
            Scenario::ControllerKill => {
                vec![(Figure::NextTopicCreate, at_most(2000)), (Figure::WorstAckGap, at_most(500))]
            }
            Scenario::DcKill => vec![(Figure::NextWrite, at_most(3000))],
            Scenario::LeaderPause => vec![(Figure::NextWrite, at_most(session_timeout_ms + 1000))],
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::LeaderKill => "leader-kill",
            Scenario::FollowerKill => "follower-kill",
            Scenario::ControllerKill => "controller-kill",
            Scenario::DcKill => "dc-kill",
            Scenario::LeaderPause => "leader-pause",
        }
    }
}

impl Figure {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Figure::NextWrite => "next acknowledged write",
            Figure::AckGap => "longest gap of acks=all",
            Figure::WorstAckGap => "longest gap, any partition",
            Figure::NextTopicCreate => "next topic create",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_measures_something_against_a_promise() {
        for scenario in Scenario::ALL {
            let figures = scenario.figures(2000);
            assert!(!figures.is_empty() && figures.iter().all(|(_, target)| target.max_ms > 0), "{}", scenario.name());
        }
        assert_eq!(Scenario::LeaderPause.figures(2000)[0].1.max_ms, 3000);
    }
}
