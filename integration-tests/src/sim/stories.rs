//! Directed runs: some seeds get, on top of what they drew, the circumstances in which a rare history happens at all.
//!
//! Owns: which seeds, and what each story adds. Never: does anything that an undirected run could not meet; the laws
//! are the same.

use super::buggify::Point;
use super::faults::Fault;
use super::plan::{Plan, TopicPlan};

/// A history that chance alone would show too rarely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Story {
    /// A follower catches up and its leader asks for it to be let into the ISR; the request travels long. The follower
    /// dies and is let in under another registration, with less. Then the request arrives.
    LateGrowth,
    /// A follower acknowledges, loses its power or its disk, comes back with less and subscribes again. The leader's end of
    /// the old stream has not noticed, and what it had received there is read only now.
    FormerLife,
    /// A leader is cut off with a tail of its own and a flush of it under way. It follows another, cuts the tail and
    /// takes other records at those offsets. Then it hears that the flush is done, and the power fails.
    FormerFlush,
    /// A topic's policy is loosened. Replicas count what they have not synced, and all machines lose power before the
    /// looser policy is noted: the notes on disk still say that nothing was counted unsynced.
    LoosenedInTheDark,
    /// Controllers lag, feeds break, and a broker asks one that stands behind it.
    BehindTheFollower,
}

impl Story {
    /// Points that are on in stories only.
    pub(super) const POINTS: u64 = Point::LateAlters.bit() | Point::LoosenedInTheDark.bit() | Point::FormerLives.bit();

    /// The story of a seed; most have none.
    pub(super) fn of(seed: u64) -> Option<Self> {
        match seed % 16 {
            3 => Some(Self::LateGrowth),
            6 => Some(Self::FormerLife),
            9 => Some(Self::FormerFlush),
            12 => Some(Self::LoosenedInTheDark),
            15 => Some(Self::BehindTheFollower),
            _ => None,
        }
    }

    /// Adds its circumstances to a plan.
    pub(super) fn direct(self, plan: &mut Plan) {
        let (points, faults): (&[Point], &[(Fault, u64)]) = match self {
            Self::LateGrowth => (&[Point::LateAlters, Point::QuickRestart], &[(Fault::Kill, 6)]),
            Self::FormerLife => (
                &[Point::FormerLives, Point::HalfOpen, Point::OldStreamsDrain, Point::QuickRestart],
                &[(Fault::PowerCut, 40), (Fault::DiskReplaced, 8)],
            ),
            Self::FormerFlush => (
                &[Point::LateFlushes, Point::QuickRestart],
                &[(Fault::Isolated, 15), (Fault::Pause, 10), (Fault::PowerCut, 15)],
            ),
            Self::LoosenedInTheDark => (&[Point::LoosenedInTheDark, Point::SlowNotes], &[]),
            Self::BehindTheFollower => {
                (&[Point::OldSnapshots, Point::FeedBreaks, Point::StandbysLag], &[(Fault::LagController, 20)])
            }
        };
        plan.buggify |= points.iter().fold(0, |bits, point| bits | point.bit());
        plan.faults.extend(faults);
        match self {
            // With two of two nothing commits while one is away: what it had acknowledged is still all there is.
            Self::FormerLife => {
                plan.topics.push(loose(2));
                plan.load.pause_ms = 60;
                plan.fault_pause_ms = (800, 3_000);
            }
            Self::LoosenedInTheDark => {
                plan.topics.push(loose(3));
                plan.load.admin_ms = None;
                plan.load.pause_ms = 60;
            }
            Self::FormerFlush => plan.load.acks_0_and_1 = (0, 30),
            Self::LateGrowth | Self::BehindTheFollower => {}
        }
    }
}

/// A topic that leaves its records to the page cache, where every replica must have them.
fn loose(replicas: u32) -> TopicPlan {
    let configs = [("min.insync.replicas", "2"), ("flush.policy", "os"), ("segment.bytes", "16384")];
    let configs = configs.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    TopicPlan { name: "loose".into(), partitions: 3, replicas, configs, is_sync: false, min_isr: 2 }
}
