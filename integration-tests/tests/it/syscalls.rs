//! The kernel's account of what was synced before it was acknowledged.
//!
//! `SEAWALL_TEST_TRACED_ACKS` sets the number of acknowledgements, `SEAWALL_TEST_TRACED_TOPICS` that of metadata writes.

use crate::{PROGRAM, size};
use integration_tests::syscalls::run::{self, PARTITIONS, Run};
use protocol::planted::Bug;

/// Names what a machine may leave unproved, with commas between; see `.ci/run`.
const MAY_SKIP: &str = "CI_MAY_SKIP";

/// Runs a cluster under the tracer; None, with the reason printed, where nothing can be traced and that is allowed.
fn traced(bugs: &[Bug], acks: u64, topics: u64) -> Option<Run> {
    let untraced = |why: &String| {
        let allowed = std::env::var(MAY_SKIP).is_ok_and(|names| names.split(',').any(|name| name == "strace"));
        assert!(allowed, "nothing can be traced here, so nothing is proved ({MAY_SKIP}=strace allows it): {why}");
        eprintln!("NOT PROVED, nothing can be traced here: {why}");
    };
    run::traced(PROGRAM, bugs, acks, topics).inspect_err(untraced).ok()
}

#[test]
fn acknowledgements_leave_after_the_syncs_that_cover_them() {
    let acks = size("SEAWALL_TEST_TRACED_ACKS", 2_000);
    let topics = size("SEAWALL_TEST_TRACED_TOPICS", 20);
    let Some(run) = traced(&[], acks, topics) else { return };
    assert!(run.records.claims as u64 >= acks && run.metadata.claims as u64 > topics);
    assert!(run.segments > 2 * 3 * PARTITIONS as usize, "only {} files: no segment was rolled", run.segments);
    assert_eq!(run.records.mismatches, Vec::<String>::new());
    assert_eq!(run.metadata.mismatches, Vec::<String>::new());
}

#[test]
fn the_trace_shows_names_that_no_sync_covers() {
    let Some(run) = traced(&[Bug::MissingDirectoryFsync], 300, 1) else { return };
    assert_eq!(run.records.mismatches.len(), run.records.claims, "{:?}", run.records);
    assert!(
        run.records.mismatches.iter().all(|mismatch| mismatch.contains("no sync of the name")),
        "{:?}",
        run.records
    );
}

/// Every sync is there, only later than the answer: the order is what is judged.
#[test]
fn the_trace_shows_answers_that_do_not_wait_for_the_sync() {
    let Some(run) = traced(&[Bug::AnswerBeforeSync], 300, 1) else { return };
    assert!(!run.records.mismatches.is_empty(), "{:?}", run.records);
    assert_eq!(run.metadata.mismatches, Vec::<String>::new());
}

#[test]
fn the_trace_shows_syncs_that_are_missing() {
    let Some(run) = traced(&[Bug::PartitionSync, Bug::RaftAppendSync], 300, 5) else { return };
    // An idle log's end mark is synced even so, and what it covers by chance is covered.
    assert!(run.records.mismatches.len() * 2 > run.records.claims, "{:?}", run.records);
    assert!(run.metadata.mismatches.len() * 2 > run.metadata.claims, "{:?}", run.metadata);
}
