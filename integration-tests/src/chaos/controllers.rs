//! The controllers' Raft logs on disk, compared entry by entry after every process is gone; and, while they still run, what
//! must be equal on all of them: how far they have applied, and the hash of what came of it.
//!
//! Owns both. No entry below the commit index, once known to all, may differ: an entry is its index, its term and its bytes.

use crate::wait::eventually_async;
use crate::wire;
use bytes::Bytes;
use deploy::log_tool::{find, inspect};
use protocol::rpc::pb::admin::v1::{DescribeQuorumRequest, DescribeQuorumResponse, MetadataHashRequest};
use std::collections::BTreeMap;
use std::path::Path;

/// One controller's log.
#[derive(Debug, Clone, Default)]
pub struct RaftLog {
    /// First index that is there; what lies below is in a snapshot.
    pub start: u64,
    /// Index after the last.
    pub end: u64,
    /// Entries by index: term and bytes.
    pub entries: BTreeMap<u64, (Option<u32>, Bytes)>,
}

/// The commit index that every voter is known to have reached, and the batch that all have applied with equal hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Raft index.
    pub committed: u64,
    /// Metadata batch.
    pub batch_no: u64,
}

/// Waits until every voter holds what is committed and all images are the same.
///
/// # Panics
/// When they do not come to agree, or two images of one batch differ.
pub async fn settled(controllers: &[String]) -> Settled {
    let committed = eventually_async("every voter holds what is committed", || async {
        let mut why = "no controller leads".to_owned();
        for address in controllers {
            match wire::call(wire::admin(address).describe_quorum(DescribeQuorumRequest {})).await {
                Ok(told) if told.answered_by_leader => return held(&told),
                Ok(_) => {}
                Err(error) => why = error,
            }
        }
        Err(why)
    })
    .await;
    let batch_no = eventually_async("every controller has applied the same batch", || async {
        let mut hashes = vec![];
        for address in controllers {
            let told = wire::call(wire::admin(address).metadata_hash(MetadataHashRequest {})).await?;
            hashes.push((told.batch_no, told.chain_hash, told.image_hash));
        }
        let same = hashes.windows(2).all(|two| two[0].0 == two[1].0);
        let equal = hashes.windows(2).all(|two| two[0] == two[1]);
        assert!(!same || equal, "at one batch the controllers' images differ: {hashes:x?}");
        hashes.first().filter(|_| equal).map(|(batch_no, ..)| *batch_no).ok_or_else(|| format!("{hashes:x?}"))
    })
    .await;
    Settled { committed, batch_no }
}

fn held(told: &DescribeQuorumResponse) -> Result<u64, String> {
    let behind = |voter: &&protocol::rpc::pb::admin::v1::VoterDescription| {
        u64::try_from(voter.matched_index).is_ok_and(|matched| matched < told.committed_index)
            || voter.matched_index < 0
    };
    match told.voters.iter().find(behind) {
        Some(voter) => Err(format!("{} of {}: {voter:?}", voter.matched_index, told.committed_index)),
        None => Ok(told.committed_index),
    }
}

/// Reads the Raft log below a controller's data directory.
///
/// # Panics
/// When there is not exactly one, or it is damaged.
pub fn read(data_dir: &Path) -> RaftLog {
    let logs = find::logs(data_dir).unwrap_or_else(|error| panic!("{}: {error}", data_dir.display()));
    let [dir] = &logs[..] else { panic!("{}: one log, not {logs:?}", data_dir.display()) };
    let (log, _) = inspect::open(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut entries = BTreeMap::new();
    inspect::walk(&log, 0, |header, batch| {
        entries.insert(header.base_offset, (header.leader_epoch, batch.clone()));
        true
    })
    .unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    RaftLog { start: log.start_offset(), end: log.end_offset(), entries }
}

/// Where two logs differ in what is committed: indexes up to and including `committed`. Otherwise how many entries both have.
///
/// # Errors
/// The difference, or that one ends below.
pub fn compare(one: &RaftLog, other: &RaftLog, committed: u64) -> Result<usize, String> {
    for log in [one, other] {
        if log.end <= committed {
            return Err(format!("a log ends at {}, and {committed} was committed on every voter", log.end));
        }
    }
    let start = one.start.max(other.start);
    let within = |log: &RaftLog| -> BTreeMap<u64, (Option<u32>, Bytes)> {
        log.entries.range(start..=committed).map(|(index, entry)| (*index, entry.clone())).collect()
    };
    let (ours, theirs) = (within(one), within(other));
    if let Some(index) = ours.keys().chain(theirs.keys()).find(|index| ours.get(index) != theirs.get(index)) {
        let term = |log: &BTreeMap<u64, (Option<u32>, Bytes)>| log.get(index).map(|(term, bytes)| (*term, bytes.len()));
        return Err(format!("entry {index} is (term, bytes) {:?} here and {:?} there", term(&ours), term(&theirs)));
    }
    Ok(ours.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(start: u64, entries: &[(u32, &'static [u8])]) -> RaftLog {
        let entry =
            |(index, (term, bytes)): (u64, &(u32, &'static [u8]))| (index, (Some(*term), Bytes::from_static(bytes)));
        let entries: BTreeMap<_, _> = (start..).zip(entries).map(entry).collect();
        RaftLog { start, end: start + entries.len() as u64, entries }
    }

    #[test]
    fn entries_that_differ_below_the_commit_index_are_found() {
        let one = log(1, &[(1, b"a"), (1, b"b"), (2, b"c")]);
        assert_eq!(compare(&one, &one, 3), Ok(3));
        assert!(compare(&one, &log(1, &[(1, b"a"), (1, b"x"), (2, b"c")]), 3).is_err());
        assert!(compare(&one, &log(1, &[(1, b"a"), (2, b"b"), (2, b"c")]), 3).is_err(), "another term");
        assert!(compare(&one, &log(1, &[(1, b"a"), (1, b"b")]), 3).is_err(), "it ends below");
        // What is not committed may differ; what one has in a snapshot is not there to compare.
        assert_eq!(compare(&one, &log(1, &[(1, b"a"), (1, b"b"), (3, b"d")]), 2), Ok(2));
        assert_eq!(compare(&one, &log(2, &[(1, b"b"), (2, b"c")]), 3), Ok(2));
    }
}
