//! What is there at the end against what was promised.
//!
//! Owns lost writes, unseen writes, lost reads and holes of the final reads, and the counts of them. Without final reads
//! nothing can be said, and that is a doubt. Records below a log start were removed; records that a permitted loss took
//! are counted.

use super::offsets::{Origins, Seen, era};
use crate::checker::anomaly::{Class, Findings};
use crate::checker::event::KeyId;
use crate::checker::view::{KeyView, Sent};
use std::collections::BTreeMap;

/// What the final reads of a key showed.
#[derive(Debug, Default)]
struct End {
    /// Offset to value and the event that read it.
    at: BTreeMap<u64, (u64, u64)>,
    /// Value to its offsets' first.
    of: BTreeMap<u64, u64>,
    log_start: u64,
    /// Everything below was read, if it exists.
    read_to: u64,
    /// The reads reached the high watermark.
    complete: bool,
    epoch: Option<u32>,
}

impl End {
    fn of(view: &KeyView, begin: u64) -> Self {
        let mut end = Self::default();
        let mut high_watermark = None;
        for poll in view.polls.iter().filter(|poll| poll.invoke.seq > begin) {
            end.log_start = end.log_start.max(poll.log_start.unwrap_or(0));
            high_watermark = high_watermark.max(poll.high_watermark);
            end.epoch = end.epoch.max(poll.source.epoch);
            for (offset, value) in poll.records {
                end.at.insert(*offset, (*value, poll.end.seq));
            }
        }
        for (offset, (value, _)) in &end.at {
            end.of.entry(*value).or_insert(*offset);
        }
        end.read_to = end.at.last_key_value().map_or(end.log_start, |(offset, _)| offset + 1);
        end.complete = high_watermark.is_some_and(|mark| end.read_to.max(end.log_start) >= mark);
        end
    }
}

/// Compares the final reads with every promise.
pub fn at_the_end(
    key: KeyId,
    view: &KeyView,
    seen: &[Seen],
    origins: &Origins,
    begin: Option<u64>,
    findings: &mut Findings,
) {
    findings.counts.read += view.polls.iter().map(|poll| poll.records.len() as u64).sum::<u64>();
    let Some(begin) = begin else {
        if !view.sends.is_empty() {
            findings.doubts.push(format!("key {key}: nothing was read at the end"));
        }
        return;
    };
    let late = view.sends.iter().filter(|sent| sent.last_seq() > begin).count();
    if late > 0 {
        findings.doubts.push(format!("key {key}: {late} sends ended after the final reads had begun"));
    }
    let end = End::of(view, begin);
    holes(key, &end, findings);
    for sent in view.sends.iter().filter(|sent| sent.last_seq() < begin) {
        written(key, view, sent, &end, findings);
    }
    reads(key, view, seen, &end, begin, findings);
    for (value, (offset, count)) in repeated(&end) {
        findings.counts.duplicates += count - 1;
        debug_assert!(end.at.get(&offset).is_some_and(|(at, _)| *at == value));
    }
    let unknown = |value: &u64| origins.get(value).is_some_and(|sent| sent.ok.is_none());
    findings.counts.unacknowledged += end.of.keys().filter(|value| unknown(value)).count() as u64;
}

fn repeated(end: &End) -> BTreeMap<u64, (u64, u64)> {
    let mut count: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (offset, (value, _)) in &end.at {
        count.entry(*value).or_insert((*offset, 0)).1 += 1;
    }
    count.retain(|_, (_, times)| *times > 1);
    count
}

/// Consecutive offsets, from the first that was read.
fn holes(key: KeyId, end: &End, findings: &mut Findings) {
    let mut before: Option<(u64, u64)> = None;
    for (offset, (_, seq)) in end.at.range(end.log_start..) {
        if let Some((last, event)) = before
            && *offset != last + 1
        {
            let what = format!("the final reads show offset {last} and then {offset}");
            findings.accuse(Class::Gap, Some(key), last + 1, &[event, *seq], what);
        }
        before = Some((*offset, *seq));
    }
}

fn written(key: KeyId, view: &KeyView, sent: &Sent, end: &End, findings: &mut Findings) {
    let number = sent.values.len() as u64;
    let Some((base, source)) = sent.ok else {
        let count = if sent.failed { &mut findings.counts.failed } else { &mut findings.counts.unknown };
        *count += number;
        if view.cuts.is_empty() {
            torn(key, sent, end, findings);
        }
        return;
    };
    findings.counts.acknowledged += number;
    for (index, value) in (0..).zip(sent.values) {
        let told = base.map(|base| base + index);
        // Its place as told counts; a copy elsewhere is a duplicate and saves nothing.
        let there = match told {
            Some(offset) => end.at.get(&offset).is_some_and(|(at, _)| at == value),
            None => end.of.contains_key(value),
        };
        // An unknown place may be any that a permitted loss took.
        let place = told.unwrap_or(u64::MAX);
        let before = era(&view.cuts, place, source.epoch);
        let covered = before.is_none() || before != era(&view.cuts, place, Some(u32::MAX));
        if told.is_some_and(|offset| offset < end.log_start) {
            findings.counts.removed += 1;
        } else if there {
            findings.counts.checked += 1;
        } else if covered {
            findings.counts.truncated += 1;
        } else if told.is_none() && end.log_start > 0 {
            // Its place was not told: it may lie below the log start.
            findings.counts.removed += 1;
        } else if sent.acks != -1 {
            findings.counts.lost_unsafe += 1;
        } else {
            missing(key, sent, *value, told, end, findings);
        }
    }
}

fn missing(key: KeyId, sent: &Sent, value: u64, told: Option<u64>, end: &End, findings: &mut Findings) {
    let events = [sent.invoke.seq, sent.last_seq()];
    let place = told.map_or_else(String::new, |offset| format!(" at offset {offset}"));
    let reached = end.complete || told.is_some_and(|offset| offset < end.read_to);
    if reached {
        let instead = told.and_then(|offset| end.at.get(&offset));
        let found = instead.map_or_else(|| "nothing".to_owned(), |(other, _)| other.to_string());
        let what = format!("{value} was acknowledged{place}; {found} is there");
        let events = [&events[..], &instead.map(|(_, seq)| *seq).into_iter().collect::<Vec<_>>()].concat();
        findings.accuse(Class::LostWrite, Some(key), value, &events, what);
    } else {
        let what = format!("{value} was acknowledged{place}; the final reads ended at {}", end.read_to);
        findings.accuse(Class::Unseen, Some(key), value, &events, what);
    }
}

/// A batch is there whole or not at all: siblings of a value that was found must be found.
fn torn(key: KeyId, sent: &Sent, end: &End, findings: &mut Findings) {
    if sent.failed || sent.values.len() < 2 {
        return;
    }
    let found = (0_u64..).zip(sent.values).find_map(|(index, value)| Some((index, *end.of.get(value)?)));
    let Some((index, offset)) = found else { return };
    let Some(base) = offset.checked_sub(index) else { return };
    for (at, value) in (base..).zip(sent.values) {
        if at >= end.log_start && (at < end.read_to || end.complete) && !end.of.contains_key(value) {
            let what = format!("{value} was sent in one batch with the record at offset {offset}, and is not there");
            findings.accuse(Class::LostWrite, Some(key), *value, &[sent.invoke.seq], what);
        }
    }
}

/// What was read once is there at the end.
fn reads(key: KeyId, view: &KeyView, seen: &[Seen], end: &End, begin: u64, findings: &mut Findings) {
    let mut last = None;
    for one in seen.iter().filter(|one| one.read && one.seq < begin && one.offset >= end.log_start) {
        let newest = era(&view.cuts, one.offset, Some(u32::MAX));
        if last == Some(one.offset) || one.era.is_none() || one.era != newest || end.at.contains_key(&one.offset) {
            continue; // another value there is an inconsistent offset
        }
        last = Some(one.offset);
        if one.offset < end.read_to || end.complete {
            let what = format!("{} was read at offset {}; nothing is there at the end", one.value, one.offset);
            findings.accuse(Class::LostRead, Some(key), one.offset, &[one.seq], what);
        }
    }
}
