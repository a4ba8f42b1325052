//! The replicas' logs on disk, compared batch by batch after every process is gone.
//!
//! Owns the reading through the engine on a disk that is never changed; compares bytes, nothing else. The last word on
//! "ISR members are equal below the high watermark": no server is asked.

use bytes::Bytes;
use deploy::log_tool::inspect;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One replica's log: batches by base offset, and where it begins and ends.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    /// First offset.
    pub start: u64,
    /// Offset after the last record.
    pub end: u64,
    /// Files of segments.
    pub segments: usize,
    /// Whole batches by base offset.
    pub batches: BTreeMap<u64, Bytes>,
}

/// Reads the log of one partition below a broker's data directory; None if it never had data.
///
/// # Panics
/// When the log is damaged or cannot be read.
pub fn read(data_dir: &Path, topic: uuid::Uuid, partition: u32) -> Option<Replica> {
    let dir: PathBuf = data_dir.join("partitions").join(format!("{topic}-{partition}"));
    if !dir.exists() {
        return None;
    }
    let (log, _) = inspect::open(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut batches = BTreeMap::new();
    inspect::walk(&log, 0, |header, batch| {
        batches.insert(header.base_offset, batch.clone());
        true
    })
    .unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    Some(Replica { start: log.start_offset(), end: log.end_offset(), segments: log.segments().len(), batches })
}

/// Whether the heads of logs may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// Nobody removes them: every replica begins where every other does.
    Kept,
    /// Retention or a client removes them: a replica may be some segments behind another.
    Removed,
}

/// Where two replicas differ below `upto`, if they do: both must hold the same bytes in every batch that begins at or
/// above both starts, and begin at the same offset where nobody removes heads.
pub fn difference(one: &Replica, other: &Replica, upto: u64, heads: Heads) -> Option<String> {
    if heads == Heads::Kept && one.start != other.start {
        return Some(format!("the one begins at {}, the other at {}", one.start, other.start));
    }
    let start = one.start.max(other.start);
    let common = |replica: &Replica| -> BTreeMap<u64, Bytes> {
        replica
            .batches
            .range(start..)
            .take_while(|(base, _)| **base < upto)
            .map(|(b, bytes)| (*b, bytes.clone()))
            .collect()
    };
    let (ours, theirs) = (common(one), common(other));
    let bases: std::collections::BTreeSet<u64> = ours.keys().chain(theirs.keys()).copied().collect();
    for base in bases {
        match (ours.get(&base), theirs.get(&base)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(_), Some(_)) => return Some(format!("the batches at offset {base} differ")),
            (Some(_), None) => return Some(format!("the batch at offset {base} is missing in the other")),
            (None, _) => return Some(format!("the batch at offset {base} is missing in the one")),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(start: u64, batches: &[(u64, &'static [u8])]) -> Replica {
        let batches = batches.iter().map(|(base, bytes)| (*base, Bytes::from_static(bytes))).collect();
        Replica { start, end: 10, segments: 1, batches }
    }

    #[test]
    fn differences_below_the_bound_are_found() {
        let one = replica(0, &[(0, b"a"), (2, b"b"), (4, b"c")]);
        assert_eq!(difference(&one, &one, 10, Heads::Kept), None);
        assert!(difference(&one, &replica(0, &[(0, b"a"), (2, b"x"), (4, b"c")]), 10, Heads::Kept).is_some());
        assert!(difference(&one, &replica(0, &[(0, b"a"), (4, b"c")]), 10, Heads::Kept).is_some());
        assert_eq!(difference(&one, &replica(2, &[(2, b"b")]), 4, Heads::Removed), None);
        // A head that is missing without having been removed is a loss.
        assert!(difference(&one, &replica(2, &[(2, b"b"), (4, b"c")]), 10, Heads::Kept).is_some());
    }
}
