//! How long partitions took no acknowledged writes, and which faults that came with.

use super::faults::Fault;
use super::tally::Tally;
use protocol::ids::{Millis, TopicPartition};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Shorter gaps are the clients' own pauses.
const GAP_MS: Millis = 300;
/// A fault may act for so long before its gap begins: one that is over in a moment, and one that lasts.
const BEFORE_MS: Millis = 500;
const LASTS_MS: Millis = 7_000;
/// Classes that last.
const LASTING: [Fault; 13] = [
    Fault::Pause,
    Fault::PauseController,
    Fault::LagController,
    Fault::PairCut,
    Fault::OneWayCut,
    Fault::Isolated,
    Fault::DcCut,
    Fault::DcCutOneWay,
    Fault::Flapping,
    Fault::ControllersCut,
    Fault::FullDisk,
    Fault::SlowDisk,
    Fault::DiskReplaced,
];

#[derive(Debug, Default)]
pub(super) struct Measures {
    /// Since when somebody tries to write there, without an acknowledgement.
    wanted: BTreeMap<TopicPartition, Millis>,
    /// Until when each may have begun a gap.
    faults: VecDeque<(Millis, Millis, Fault)>,
}

impl Measures {
    pub(super) fn fault(&mut self, now: Millis, fault: Fault) {
        let acts = if LASTING.contains(&fault) { LASTS_MS } else { BEFORE_MS };
        self.faults.push_back((now, now + acts, fault));
        while self.faults.len() > 200 {
            self.faults.pop_front();
        }
    }

    /// A write with acks=all is sent.
    pub(super) fn wanted(&mut self, now: Millis, at: TopicPartition) {
        self.wanted.entry(at).or_insert(now);
    }

    /// One was acknowledged.
    pub(super) fn acknowledged(&mut self, now: Millis, at: TopicPartition, tally: &mut Tally) {
        let Some(since) = self.wanted.remove(&at) else { return };
        let gap = now.saturating_sub(since);
        if gap < GAP_MS {
            return;
        }
        let near = self.faults.iter().filter(|(when, until, _)| *until >= since && *when <= now);
        let classes: BTreeSet<_> = near.map(|(_, _, fault)| *fault).collect();
        let class = match classes.first() {
            None => "no fault near",
            Some(fault) if classes.len() == 1 => fault.name(),
            Some(_) => "several",
        };
        tally.unavailable_ms.entry(class.to_owned()).or_default().push(gap);
    }

    /// The run is over: writes that nobody acknowledged waited at least so long.
    pub(super) fn end(&mut self, now: Millis, tally: &mut Tally) {
        let open: Vec<_> = self.wanted.values().map(|since| now.saturating_sub(*since)).collect();
        let gaps = open.into_iter().filter(|gap| *gap >= GAP_MS);
        tally.unavailable_ms.entry("open at the end".to_owned()).or_default().extend(gaps);
    }
}
