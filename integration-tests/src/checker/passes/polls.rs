//! What one reader sees from one poll to the next.
//!
//! Owns skips, steps back, holes within an answer, and records above the answer's own high watermark. A poll that names
//! its offset is judged from there; one that does not, from where its client was. Offsets are dense: a log has no holes
//! but the head that was dropped.

use crate::checker::anomaly::{Class, Findings};
use crate::checker::event::{KeyId, Process};
use crate::checker::view::{KeyView, Polled};
use std::collections::BTreeMap;

/// Follows every reader of a key.
pub fn reader_order(key: KeyId, view: &KeyView, findings: &mut Findings) {
    let mut positions: BTreeMap<Process, (u64, u64)> = BTreeMap::new();
    for poll in &view.polls {
        let Some((first, _)) = poll.records.first() else { continue };
        let known = positions.get(&poll.invoke.process()).copied();
        let (start, before) = match (poll.from, known) {
            (Some(from), _) => (Some(from), None),
            (None, Some((position, event))) => (Some(position), Some(event)),
            (None, None) => (None, None),
        };
        if let Some(start) = start {
            let events: Vec<u64> = before.into_iter().chain([poll.end.seq]).collect();
            begins(key, poll, start, *first, &events, findings);
        }
        inside(key, poll, findings);
        if let Some((last, _)) = poll.records.iter().max() {
            positions.insert(poll.invoke.process(), (last + 1, poll.end.seq));
        }
    }
}

fn begins(key: KeyId, poll: &Polled, start: u64, first: u64, events: &[u64], findings: &mut Findings) {
    // Without a log start in the answer, the head may have been dropped up to the first record.
    let expected = start.max(poll.log_start.unwrap_or(first.max(start)));
    if first < start {
        let what = format!("the reader was at {start} and got {first}");
        findings.accuse(Class::NonmonotonicPoll, Some(key), first, events, what);
    } else if first > expected {
        let what = format!("the reader was at {start}, the log begins at {expected} or below, and it got {first}");
        findings.accuse(Class::PollSkip, Some(key), expected, events, what);
    }
}

fn inside(key: KeyId, poll: &Polled, findings: &mut Findings) {
    for two in poll.records.windows(2) {
        let (one, next) = (two[0].0, two[1].0);
        if next <= one {
            let what = format!("one answer holds offset {one} and then {next}");
            findings.accuse(Class::NonmonotonicPoll, Some(key), next, &[poll.end.seq], what);
        } else if next != one + 1 {
            let what = format!("one answer holds offset {one} and then {next}");
            findings.accuse(Class::Gap, Some(key), one + 1, &[poll.end.seq], what);
        }
    }
    let above = poll.high_watermark.and_then(|mark| poll.records.iter().find(|(offset, _)| *offset >= mark));
    if let (Some((offset, _)), Some(mark)) = (above, poll.high_watermark) {
        let what = format!("offset {offset} was returned with a high watermark of {mark}");
        findings.accuse(Class::ReadAboveHighWatermark, Some(key), *offset, &[poll.end.seq], what);
    }
}
