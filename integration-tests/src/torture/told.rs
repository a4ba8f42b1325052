//! What the storage was told and what it promised, kept outside of it.
//!
//! Owns: for each thing stored, the states that may be found after a crash: one while nothing is under way, two while a
//! change is. Never: reads the disk or asks the code under test what it meant.
//! Invariant: a call that answered without an error leaves one state; one that failed or never answered leaves both.

use bytes::Bytes;
use protocol::batch::Header;

/// A value of which a crash leaves one of these states, the newest last.
#[derive(Debug, Clone)]
pub(super) struct Maybe<T>(Vec<T>);

impl<T: Clone + PartialEq> Maybe<T> {
    pub(super) fn is(value: T) -> Maybe<T> {
        Maybe(vec![value])
    }

    /// A change to `value` begins.
    pub(super) fn begin(&mut self, value: T) {
        self.0.push(value);
    }

    /// The change that began last is done.
    pub(super) fn done(&mut self) {
        self.0.drain(..self.0.len() - 1);
    }

    /// The change that began last was refused, and nothing has changed.
    pub(super) fn refused(&mut self) {
        self.0.pop();
    }

    pub(super) fn newest(&self) -> &T {
        self.0.last().expect("there is always a state")
    }

    pub(super) fn newest_mut(&mut self) -> &mut T {
        self.0.last_mut().expect("there is always a state")
    }

    pub(super) fn all(&self) -> &[T] {
        &self.0
    }

    pub(super) fn all_mut(&mut self) -> &mut [T] {
        &mut self.0
    }

    pub(super) fn allows(&self, found: &T) -> bool {
        self.0.contains(found)
    }
}

/// A log as it was when it was last opened or read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundLog {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) batches: Vec<Bytes>,
    /// The start says that nothing is missing.
    pub(super) whole: bool,
}

/// One state of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogState {
    pub(super) start: u64,
    /// Everything appended and not cut, whole batches.
    pub(super) batches: Vec<Bytes>,
    /// Records below were acknowledged as durable.
    pub(super) durable: u64,
    /// What was acknowledged before the last flush began: an end mark covers it, on the disk or within the flush.
    pub(super) durable_before: u64,
    /// Records below lie under an end mark that is durable itself.
    pub(super) marked: u64,
    /// It may be missing altogether: set aside or deleted.
    pub(super) given_up: bool,
}

pub(super) fn header(batch: &[u8]) -> Header {
    Header::parse(batch).expect("batches of the torture are whole")
}

impl LogState {
    pub(super) fn new() -> LogState {
        LogState { start: 0, batches: Vec::new(), durable: 0, durable_before: 0, marked: 0, given_up: false }
    }

    pub(super) fn end(&self) -> u64 {
        self.batches.last().map_or(self.start, |b| header(b).next_offset())
    }

    pub(super) fn flushed(&mut self, upto: u64) {
        if upto > self.durable {
            self.durable_before = self.durable;
            self.durable = upto;
        }
    }

    /// Without what lies at and above `to` (whole batches go).
    pub(super) fn truncated(&self, to: u64) -> LogState {
        let mut cut = self.clone();
        cut.batches.retain(|b| header(b).next_offset() <= to);
        let end = cut.end();
        cut.durable = cut.durable.min(end);
        cut.durable_before = cut.durable_before.min(end);
        cut.marked = cut.marked.min(end);
        cut
    }

    pub(super) fn without_head(&self, upto: u64) -> LogState {
        let mut cut = self.clone();
        cut.start = upto;
        cut.batches.retain(|b| header(b).next_offset() > upto);
        cut
    }

    /// Why a log found after a power cut is not this one. `floor`: the least that must be there.
    pub(super) fn refuses(&self, found: &FoundLog, floor: u64) -> Option<String> {
        if found.start != self.start {
            return Some(format!("starts at {}, not at {}", found.start, self.start));
        }
        if found.end < floor {
            return Some(format!("ends at {}, records up to {floor} were promised", found.end));
        }
        let same = found.batches.iter().zip(&self.batches).take_while(|(a, b)| a == b).count();
        if same < found.batches.len() {
            return Some(format!("batch {same} of {} is another one", found.batches.len()));
        }
        let end = found.batches.last().map_or(found.start, |b| header(b).next_offset());
        (end != found.end).then(|| format!("says it ends at {}, its batches end at {end}", found.end))
    }
}

/// A batch without its leader epoch: above an end mark nothing covers that field.
fn without_epoch(batch: &Bytes) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    bytes[12..16].fill(0);
    bytes
}

impl LogState {
    /// As [`LogState::refuses`], but above `floor` the epoch of a batch may be another.
    pub(super) fn refuses_but_epochs(&self, found: &FoundLog, floor: u64) -> Option<String> {
        let mut found = found.clone();
        for (batch, told) in found.batches.iter_mut().zip(&self.batches) {
            if header(told).base_offset >= floor && without_epoch(batch) == without_epoch(told) {
                *batch = told.clone();
            }
        }
        self.refuses(&found, floor)
    }
}

impl Maybe<LogState> {
    /// Why none of the states is what was found after a power cut.
    pub(super) fn refuse(&self, found: &FoundLog) -> Option<String> {
        let mut whys = Vec::new();
        for state in self.all() {
            let promised = state.durable > state.start;
            if state.given_up || (!found.whole && !promised && found.end == state.start) {
                return None;
            }
            if !found.whole {
                whys.push("is called damaged or lost".to_owned());
                continue;
            }
            match state.refuses(found, state.durable) {
                None => return None,
                Some(why) => whys.push(why),
            }
        }
        Some(whys.join("; or "))
    }
}
