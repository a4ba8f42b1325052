//! What stands at which offset: every acknowledgement and every record read, merged per key.
//!
//! Owns inconsistent offsets, phantoms, failed sends seen, duplicates, and the order of a producer's records. A permitted
//! loss (an election that was allowed to lose records) begins a new era for the offsets it covers; values are compared
//! within an era only. O(n log n) in the observations.

use crate::checker::anomaly::{Class, Findings};
use crate::checker::event::{Body, KeyId, Process};
use crate::checker::view::{Cut, KeyView, Sent};
use std::collections::BTreeMap;

/// One look at one offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Where.
    pub offset: u64,
    /// In which era of that offset; None when the answer did not tell and it matters.
    pub era: Option<usize>,
    /// What.
    pub value: u64,
    /// The event that says so.
    pub seq: u64,
    /// By a read (not only by an acknowledgement).
    pub read: bool,
}

/// In which era of an offset an answer of this leader epoch stands.
pub fn era(cuts: &[Cut], offset: u64, epoch: Option<u32>) -> Option<usize> {
    let mut covering = cuts.iter().filter(|cut| cut.from <= offset).peekable();
    if covering.peek().is_none() {
        return Some(0);
    }
    let epoch = epoch?;
    Some(covering.filter(|cut| cut.epoch <= epoch).count())
}

/// Every look at the key, sorted by offset.
pub fn observations(view: &KeyView) -> Vec<Seen> {
    let mut seen = Vec::new();
    // What only the leader had acknowledged may be replaced by another leader's records.
    for sent in view.sends.iter().filter(|sent| sent.acks == -1) {
        if let (Some((Some(base), source)), Some(end)) = (sent.ok, sent.end) {
            for (offset, value) in (base..).zip(sent.values) {
                let era = era(&view.cuts, offset, source.epoch);
                seen.push(Seen { offset, era, value: *value, seq: end.seq, read: false });
            }
        }
    }
    for poll in &view.polls {
        for (offset, value) in poll.records {
            let era = era(&view.cuts, *offset, poll.source.epoch);
            seen.push(Seen { offset: *offset, era, value: *value, seq: poll.end.seq, read: true });
        }
    }
    seen.sort_unstable();
    seen
}

/// Where each value was sent.
pub type Origins<'v, 'a> = BTreeMap<u64, &'v Sent<'a>>;

/// Value to send. A value sent twice makes the history malformed.
pub fn origins<'v, 'a>(key: KeyId, view: &'v KeyView<'a>, findings: &mut Findings) -> Origins<'v, 'a> {
    let mut pairs: Vec<(u64, &Sent)> =
        view.sends.iter().flat_map(|sent| sent.values.iter().map(move |value| (*value, sent))).collect();
    pairs.sort_by_key(|(value, sent)| (*value, sent.invoke.seq));
    for two in pairs.windows(2).filter(|two| two[0].0 == two[1].0) {
        let events = [two[0].1.invoke.seq, two[1].1.invoke.seq];
        let what = format!("value {} is sent twice", two[0].0);
        findings.accuse(Class::Malformed, Some(key), two[0].0, &events, what);
    }
    pairs.into_iter().collect()
}

/// One offset, one value.
pub fn consistent(key: KeyId, seen: &[Seen], findings: &mut Findings) {
    let mut at = 0;
    while at < seen.len() {
        let first = seen[at];
        let same = seen[at..].iter().take_while(|one| one.offset == first.offset && one.era == first.era).count();
        let group = &seen[at..at + same];
        at += same;
        if first.era.is_none() {
            continue; // it may be of either side of a permitted loss
        }
        if let Some(other) = group.iter().find(|one| one.value != first.value) {
            let what = format!("offset {} holds {} and {}", first.offset, first.value, other.value);
            let events = [first.seq, other.seq];
            findings.accuse(Class::InconsistentOffsets, Some(key), first.offset, &events, what);
        }
    }
}

/// What was read had been sent before, and by a send that did not certainly fail.
pub fn sent_before_seen(key: KeyId, seen: &[Seen], origins: &Origins, findings: &mut Findings) {
    let mut first_seen: BTreeMap<u64, Seen> = BTreeMap::new();
    for one in seen.iter().filter(|one| one.read) {
        let first = first_seen.entry(one.value).or_insert(*one);
        if one.seq < first.seq {
            *first = *one;
        }
    }
    for (value, one) in first_seen {
        match origins.get(&value) {
            None => {
                let what = format!("{value} at offset {} was never sent", one.offset);
                findings.accuse(Class::Phantom, Some(key), value, &[one.seq], what);
            }
            Some(sent) if sent.invoke.seq > one.seq => {
                let what = format!("{value} at offset {} was read before it was sent", one.offset);
                findings.accuse(Class::Phantom, Some(key), value, &[one.seq, sent.invoke.seq], what);
            }
            Some(sent) if sent.failed => {
                let code = match sent.end.map(|end| &end.body) {
                    Some(Body::Fail { code, .. }) => *code,
                    _ => 0,
                };
                let what = format!("{value} failed for certain (code {code}), and is at offset {}", one.offset);
                let events = [sent.invoke.seq, sent.last_seq(), one.seq];
                findings.accuse(Class::FailedSendSeen, Some(key), value, &events, what);
            }
            Some(_) => {}
        }
    }
}

/// One value, one offset: counted at the end by [`super::kept`], accused here if the rules forbid it.
pub fn duplicates(key: KeyId, seen: &[Seen], findings: &mut Findings) {
    let mut first: BTreeMap<(u64, usize), Seen> = BTreeMap::new();
    let mut accused = std::collections::BTreeSet::new();
    for one in seen {
        let Some(era) = one.era else { continue };
        let known = *first.entry((one.value, era)).or_insert(*one);
        if known.offset != one.offset && accused.insert(one.value) {
            let what = format!("{} stands at offsets {} and {}", one.value, known.offset, one.offset);
            findings.accuse(Class::Duplicate, Some(key), one.value, &[known.seq, one.seq], what);
        }
    }
}

/// First places of values as the final reads show them, as far as these go from offset 0 on without a hole. Where a head
/// is gone, or nothing was read at the end, an earlier copy may have been there, and nothing can be said.
fn first_places(seen: &[Seen], final_reads: Option<u64>) -> BTreeMap<u64, (u64, u64)> {
    let mut first = BTreeMap::new();
    let Some(begin) = final_reads else { return first };
    let mut expected = 0;
    for one in seen.iter().filter(|one| one.read && one.seq > begin) {
        if one.offset > expected {
            break;
        }
        expected = one.offset + 1;
        first.entry(one.value).or_insert((one.offset, one.seq));
    }
    first
}

/// A producer's acknowledged records stand in the order in which it sent them: the offsets it was told rise, and so do
/// the first places at the end.
pub fn producer_order(key: KeyId, view: &KeyView, seen: &[Seen], final_reads: Option<u64>, findings: &mut Findings) {
    let first = if view.cuts.is_empty() { first_places(seen, final_reads) } else { BTreeMap::new() };
    // Per producer and era of the whole key: the highest place so far, with its value and event.
    let mut told: BTreeMap<(Process, usize), (u64, u64, u64)> = BTreeMap::new();
    let mut stood: BTreeMap<(Process, usize), (u64, u64, u64)> = BTreeMap::new();
    for sent in view.sends.iter().filter(|sent| sent.acks == -1) {
        let (Some((Some(base), source)), Some(end)) = (sent.ok, sent.end) else { continue };
        let Some(era) = era(&view.cuts, u64::MAX, source.epoch) else { continue };
        let line = (sent.invoke.process(), era);
        for (offset, value) in (base..).zip(sent.values) {
            let place = first.get(value).map(|(offset, seq)| (*offset, *value, *seq));
            let ends = [(&mut told, Some((offset, *value, end.seq))), (&mut stood, place)];
            for (so_far, now) in ends {
                let Some(now) = now else { continue };
                let before = so_far.entry(line).or_insert(now);
                if before.1 != now.1 && before.0 >= now.0 {
                    let what = format!(
                        "{} was sent after {}, and stands at {}, not above {}",
                        now.1, before.1, now.0, before.0
                    );
                    findings.accuse(Class::NonmonotonicSend, Some(key), now.1, &[before.2, now.2], what);
                    break;
                }
                *before = now;
            }
        }
    }
}
