//! What clients were told, and whether the cluster kept its word: a black-box checker.
//!
//! Owns the history of acknowledgements and what was read back at the end; knows nothing of the broker's insides. Pure:
//! facts in, anomalies out. Laws: an acknowledged value is found at the offset it was acknowledged at; no offset ever
//! has two values; no (partition, leader epoch) has two leaders; per writer and partition, first occurrences are in
//! order. Duplicates are legal without idempotence: they are counted, not accused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A partition of the one cluster under test.
pub type Partition = (String, u32);

/// What a writer wrote: its number, and its own running count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Which writer.
    pub writer: u32,
    /// Its count, from 0, growing with every record.
    pub seq: u64,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}-{}", self.writer, self.seq)
    }
}

impl std::str::FromStr for Stamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (writer, seq) = text.strip_prefix('w')?.split_once('-')?;
            Some(Self { writer: writer.parse().ok()?, seq: seq.split(' ').next()?.parse().ok()? })
        };
        read().ok_or_else(|| format!("{text:?} was not written by this test"))
    }
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// Acknowledged, and not there.
    Lost {
        /// Where.
        partition: Partition,
        /// At which offset it was acknowledged.
        offset: u64,
        /// What.
        stamp: Stamp,
    },
    /// One offset, two values.
    TwoValues {
        /// Where.
        partition: Partition,
        /// Which offset.
        offset: u64,
        /// The one.
        one: Stamp,
        /// The other.
        other: Stamp,
    },
    /// One epoch, two leaders.
    TwoLeaders {
        /// Where.
        partition: Partition,
        /// Which leader epoch.
        epoch: u32,
        /// The one.
        one: u32,
        /// The other.
        other: u32,
    },
    /// A writer's records in the wrong order.
    OutOfOrder {
        /// Where.
        partition: Partition,
        /// Read first.
        first: Stamp,
        /// Read later, written earlier, never seen before.
        then: Stamp,
    },
    /// Offsets read back with a hole, or backwards.
    Gap {
        /// Where.
        partition: Partition,
        /// Expected next.
        expected: u64,
        /// Found.
        found: u64,
    },
}

/// Everything clients were told.
#[derive(Debug, Default)]
pub struct History {
    acknowledged: BTreeMap<Partition, BTreeMap<u64, Stamp>>,
    leaders: BTreeMap<(Partition, u32), u32>,
    anomalies: Vec<Anomaly>,
    acks: u64,
}

/// One partition as read at the end: the first offset that exists, and every record from there on.
#[derive(Debug, Default, Clone)]
pub struct ReadBack {
    /// Log start: acknowledged records below it were removed on request.
    pub log_start: u64,
    /// Records in the order read.
    pub records: Vec<(u64, Stamp)>,
}

/// What the comparison found.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Broken promises; empty when all is well.
    pub anomalies: Vec<Anomaly>,
    /// Acknowledgements checked by reading.
    pub checked: u64,
    /// Acknowledged records below a log start.
    pub removed: u64,
    /// Records read more than once.
    pub duplicates: u64,
    /// Records read that were never acknowledged (their outcome was unknown).
    pub unacknowledged: u64,
}

impl History {
    /// A record was acknowledged at an offset.
    pub fn acknowledged(&mut self, partition: &Partition, offset: u64, stamp: Stamp) {
        self.acks += 1;
        let offsets = self.acknowledged.entry(partition.clone()).or_default();
        if let Some(before) = offsets.insert(offset, stamp)
            && before != stamp
        {
            let partition = partition.clone();
            self.anomalies.push(Anomaly::TwoValues { partition, offset, one: before, other: stamp });
        }
    }

    /// A node was seen leading a partition in an epoch.
    pub fn led(&mut self, partition: &Partition, epoch: u32, node: u32) {
        let before = *self.leaders.entry((partition.clone(), epoch)).or_insert(node);
        if before != node {
            let partition = partition.clone();
            self.anomalies.push(Anomaly::TwoLeaders { partition, epoch, one: before, other: node });
        }
    }

    /// Acknowledgements so far.
    pub fn acks(&self) -> u64 {
        self.acks
    }

    /// Leader changes seen: epochs beyond the first of each partition.
    pub fn epochs_seen(&self) -> usize {
        self.leaders.len()
    }

    /// Compares everything told with everything read.
    pub fn judge(&self, read: &BTreeMap<Partition, ReadBack>) -> Verdict {
        let mut verdict = Verdict { anomalies: self.anomalies.clone(), ..Verdict::default() };
        let none = (ReadBack::default(), BTreeMap::new());
        let partitions: BTreeSet<&Partition> = read.keys().chain(self.acknowledged.keys()).collect();
        for partition in partitions {
            let back = read.get(partition).unwrap_or(&none.0);
            let told = self.acknowledged.get(partition).unwrap_or(&none.1);
            check_kept(partition, told, back, &mut verdict);
            check_order(partition, told, back, &mut verdict);
        }
        verdict
    }
}

fn check_kept(partition: &Partition, told: &BTreeMap<u64, Stamp>, back: &ReadBack, verdict: &mut Verdict) {
    let found: BTreeMap<u64, Stamp> = back.records.iter().copied().collect();
    for (offset, stamp) in told {
        if *offset < back.log_start {
            verdict.removed += 1;
            continue;
        }
        verdict.checked += 1;
        let partition = partition.clone();
        match found.get(offset) {
            None => verdict.anomalies.push(Anomaly::Lost { partition, offset: *offset, stamp: *stamp }),
            Some(other) if other != stamp => {
                verdict.anomalies.push(Anomaly::TwoValues { partition, offset: *offset, one: *stamp, other: *other });
            }
            Some(_) => {}
        }
    }
}

fn check_order(partition: &Partition, told: &BTreeMap<u64, Stamp>, back: &ReadBack, verdict: &mut Verdict) {
    let mut expected = back.log_start;
    let mut seen: BTreeSet<Stamp> = BTreeSet::new();
    let mut last: BTreeMap<u32, Stamp> = BTreeMap::new();
    for (offset, stamp) in &back.records {
        if *offset != expected {
            let partition = partition.clone();
            verdict.anomalies.push(Anomaly::Gap { partition, expected, found: *offset });
        }
        expected = offset + 1;
        if !told.contains_key(offset) {
            verdict.unacknowledged += 1;
        }
        if !seen.insert(*stamp) {
            verdict.duplicates += 1;
            continue;
        }
        match last.get(&stamp.writer) {
            Some(first) if first.seq > stamp.seq => {
                let partition = partition.clone();
                verdict.anomalies.push(Anomaly::OutOfOrder { partition, first: *first, then: *stamp });
            }
            _ => {
                last.insert(stamp.writer, *stamp);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(seq: u64) -> Stamp {
        Stamp { writer: 1, seq }
    }

    fn partition() -> Partition {
        ("t".to_owned(), 0)
    }

    fn judged(told: &[(u64, u64)], log_start: u64, read: &[(u64, u64)]) -> Verdict {
        let mut history = History::default();
        for (offset, seq) in told {
            history.acknowledged(&partition(), *offset, stamp(*seq));
        }
        let records = read.iter().map(|(offset, seq)| (*offset, stamp(*seq))).collect();
        history.judge(&BTreeMap::from([(partition(), ReadBack { log_start, records })]))
    }

    #[test]
    fn kept_promises_are_not_accused() {
        let verdict = judged(&[(5, 1), (6, 2), (8, 3)], 6, &[(6, 2), (7, 2), (8, 3)]);
        assert_eq!(verdict.anomalies, vec![]);
        assert_eq!((verdict.checked, verdict.removed, verdict.duplicates, verdict.unacknowledged), (2, 1, 1, 1));
    }

    #[test]
    fn every_broken_promise_is_found() {
        assert!(matches!(judged(&[(0, 1)], 0, &[]).anomalies[..], [Anomaly::Lost { offset: 0, .. }]));
        assert!(matches!(judged(&[(0, 1)], 0, &[(0, 2)]).anomalies[..], [Anomaly::TwoValues { .. }]));
        assert!(matches!(judged(&[(0, 1), (0, 2)], 1, &[]).anomalies[..], [Anomaly::TwoValues { .. }]));
        assert!(matches!(judged(&[], 0, &[(0, 2), (1, 1)]).anomalies[..], [Anomaly::OutOfOrder { .. }]));
        assert!(matches!(judged(&[], 0, &[(1, 2)]).anomalies[..], [Anomaly::Gap { expected: 0, found: 1, .. }]));
        let mut history = History::default();
        history.led(&partition(), 3, 1);
        history.led(&partition(), 3, 1);
        history.led(&partition(), 3, 2);
        assert!(matches!(history.judge(&BTreeMap::new()).anomalies[..], [Anomaly::TwoLeaders { epoch: 3, .. }]));
    }

    #[test]
    fn a_partition_that_nobody_read_lost_everything() {
        let mut history = History::default();
        history.acknowledged(&partition(), 0, stamp(0));
        assert_eq!(history.judge(&BTreeMap::new()).anomalies.len(), 1);
    }

    #[test]
    fn stamps_read_back_from_a_value() {
        assert_eq!(Stamp { writer: 3, seq: 77 }.to_string().parse(), Ok(Stamp { writer: 3, seq: 77 }));
        assert_eq!("w1-5 padding".parse(), Ok(stamp(5)));
        assert!("x1-5".parse::<Stamp>().is_err());
    }
}
