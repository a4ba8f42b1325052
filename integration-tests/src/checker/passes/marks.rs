//! Marks that only rise: high watermark, log start; and how soon an acknowledged record must be visible.
//!
//! Owns the comparison of an answer with what was known *before it was asked for*: answers to requests that overlap
//! have no order. One sweep over the events of a key.

use crate::checker::anomaly::{Class, Findings};
use crate::checker::event::{Answer, Event, KeyId, Op, Phase, Process, Rules};
use crate::checker::view::{Cut, Done, KeyView, Polled, View};
use std::collections::BTreeMap;

/// Walks operations in real time: `before` at each invocation, and `after` at each end with what `before` gave. Pairs of
/// (invoke, end) by sequence number, in order of invocation.
fn sweep<S, K>(
    spans: &[(u64, u64)],
    state: &mut S,
    mut before: impl FnMut(&S, usize) -> K,
    mut after: impl FnMut(&mut S, usize, K),
) {
    let mut moments: Vec<(u64, usize, bool)> = Vec::with_capacity(spans.len() * 2);
    for (at, (invoke, end)) in spans.iter().enumerate() {
        moments.push((*invoke, at, false));
        moments.push((*end, at, true));
    }
    moments.sort_unstable();
    let mut kept: Vec<Option<K>> = spans.iter().map(|_| None).collect();
    for (_, at, ended) in moments {
        if !ended {
            kept[at] = Some(before(state, at));
        } else if let Some(known) = kept[at].take() {
            after(state, at, known);
        }
    }
}

/// A mark as known so far, and the event that told.
type Mark = (u64, u64);

#[derive(Debug, Default)]
struct Known {
    by_epoch: BTreeMap<(Process, u32), Mark>,
    read: BTreeMap<Process, Mark>,
}

fn raise(mark: &mut Mark, now: Mark) {
    if now.0 > mark.0 {
        *mark = now;
    }
}

/// How far a mark must be still, given permitted losses up to an epoch.
fn allowed(cuts: &[Cut], epoch: Option<u32>, floor: u64) -> u64 {
    let taken = cuts.iter().filter(|cut| epoch.is_none_or(|epoch| cut.epoch <= epoch)).map(|cut| cut.from).min();
    taken.map_or(floor, |from| floor.min(from))
}

/// The high watermark never falls for one reader in one epoch, and never below what that reader has read, in whatever
/// epoch it is answered: a reader that asks several brokers names the epoch that it has met, so that no older one answers.
pub fn high_watermark(key: KeyId, view: &KeyView, findings: &mut Findings) {
    let polls: Vec<&Polled> = view.polls.iter().collect();
    let spans: Vec<(u64, u64)> = polls.iter().map(|poll| (poll.invoke.seq, poll.end.seq)).collect();
    let floors = |known: &Known, at: usize| {
        let who = polls[at].invoke.process();
        let same_epoch = polls[at].source.epoch.and_then(|epoch| known.by_epoch.get(&(who, epoch)).copied());
        (same_epoch, known.read.get(&who).copied())
    };
    sweep(&spans, &mut Known::default(), floors, |known, at, (same_epoch, read)| {
        let poll = polls[at];
        let who = poll.invoke.process();
        if let Some(mark) = poll.high_watermark {
            let fell = [(same_epoch, "before in this epoch"), (read, "what this reader has read")]
                .into_iter()
                .filter_map(|(floor, what)| Some((floor?, what)))
                .find(|((floor, _), _)| mark < allowed(&view.cuts, poll.source.epoch, *floor));
            if let Some(((floor, event), whose)) = fell {
                let what = format!("the high watermark is {mark}; {whose}: {floor}");
                findings.accuse(Class::HighWatermarkFell, Some(key), mark, &[event, poll.end.seq], what);
            }
            if let Some(epoch) = poll.source.epoch {
                raise(known.by_epoch.entry((who, epoch)).or_default(), (mark, poll.end.seq));
            }
        }
        if let Some((last, _)) = poll.records.last() {
            raise(known.read.entry(who).or_default(), (last + 1, poll.end.seq));
        }
    });
}

/// What says where the log begins.
struct Start {
    span: (u64, u64),
    who: Process,
    epoch: Option<u32>,
    /// Answered log start.
    at: u64,
    /// The answer is to a delete: nothing may bring these records back.
    delete: bool,
}

fn starts(view: &KeyView) -> Vec<Start> {
    let polls = view.polls.iter().filter_map(|poll| {
        let (span, who) = ((poll.invoke.seq, poll.end.seq), poll.invoke.process());
        Some(Start { span, who, epoch: poll.source.epoch, at: poll.log_start?, delete: false })
    });
    let others = view.others.iter().filter_map(|done| {
        let (span, who) = ((done.invoke.seq, done.end?.seq), done.invoke.process());
        match (done.op, done.answer()?) {
            (Op::ListOffset { latest: false, .. }, Answer::Offset { offset, source }) => {
                Some(Start { span, who, epoch: source.epoch, at: *offset, delete: false })
            }
            (Op::DeleteRecords { .. }, Answer::Deleted { log_start, source }) => {
                Some(Start { span, who, epoch: source.epoch, at: *log_start, delete: true })
            }
            _ => None,
        }
    });
    polls.chain(others).collect()
}

/// How far the log was cut by answered deletes, by the epoch in which they were answered.
type Cuts = BTreeMap<u32, Mark>;

/// The log start never falls for one reader in one epoch, nor for anyone below a delete that was answered in this or an
/// earlier epoch (a leader that was deposed may know less of what its successor deletes, as long as its lease lasts);
/// and it passes nothing that nobody asked to delete.
pub fn log_start(key: KeyId, view: &KeyView, findings: &mut Findings) {
    let starts = starts(view);
    let spans: Vec<(u64, u64)> = starts.iter().map(|start| start.span).collect();
    let floors = |known: &(Known, Cuts), at: usize| {
        let seen = starts[at].epoch.and_then(|epoch| known.0.by_epoch.get(&(starts[at].who, epoch)).copied());
        let cut = known.1.range(..=starts[at].epoch.unwrap_or(u32::MAX)).map(|(_, mark)| *mark).max();
        seen.max(cut).unwrap_or_default()
    };
    sweep(&spans, &mut (Known::default(), Cuts::new()), floors, |known, at, (floor, event)| {
        let start = &starts[at];
        if start.at < floor {
            let what = format!("the log begins at {}, and began at {floor} before", start.at);
            findings.accuse(Class::LogStartFell, Some(key), start.at, &[event, start.span.1], what);
        }
        let now = (start.at, start.span.1);
        if start.delete {
            raise(known.1.entry(start.epoch.unwrap_or(0)).or_default(), now);
        } else if let Some(epoch) = start.epoch {
            raise(known.0.by_epoch.entry((start.who, epoch)).or_default(), now);
        }
    });
    if !view.retention {
        passed(key, &starts, &view.others, findings);
    }
}

/// Without retention the log begins no higher than somebody asked, in a request made before the answer.
fn passed(key: KeyId, starts: &[Start], others: &[Done], findings: &mut Findings) {
    let mut asked: Vec<(u64, u64)> = Vec::new();
    for done in others {
        if let Op::DeleteRecords { before, .. } = done.op {
            let most = asked.last().map_or(0, |(_, most)| *most);
            asked.push((done.invoke.seq, most.max(*before)));
        }
    }
    for start in starts {
        let until = asked.partition_point(|(seq, _)| *seq < start.span.1);
        let most = until.checked_sub(1).map_or(0, |at| asked[at].1);
        if start.at > most {
            let what = format!("the log begins at {}; deletes asked for {most} at most", start.at);
            findings.accuse(Class::LogStartPassed, Some(key), start.at, &[start.span.1], what);
        }
    }
}

/// Healthy windows in monotonic time.
pub fn healthy(view: &View) -> Vec<(u64, u64)> {
    let mut windows: Vec<(u64, u64)> = Vec::new();
    let mut open = None;
    for (event, phase) in &view.phases {
        match phase {
            Phase::HealthyBegins => open = open.or(Some(event.mono_ns)),
            Phase::HealthyEnds => windows.extend(open.take().map(|begin| (begin, event.mono_ns))),
            Phase::Healed | Phase::FinalReads => {}
        }
    }
    let end = view.history.events.last().map_or(0, |event| event.mono_ns);
    windows.extend(open.map(|begin| (begin, end)));
    windows
}

/// Whoever told how far the log could be read: begin and end of the request, and the high watermark.
fn looks<'a>(view: &KeyView<'a>) -> Vec<(&'a Event, &'a Event, u64)> {
    let polls = view.polls.iter().filter_map(|poll| Some((poll.invoke, poll.end, poll.high_watermark?)));
    let lists = view.others.iter().filter_map(|done| match (done.op, done.answer()?) {
        (Op::ListOffset { latest: true, .. }, Answer::Offset { offset, .. }) => Some((done.invoke, done.end?, *offset)),
        _ => None,
    });
    polls.chain(lists).collect()
}

/// In a healthy window a read that begins longer than the bound after an acknowledgement sees it.
pub fn recency(key: KeyId, view: &KeyView, rules: &Rules, windows: &[(u64, u64)], findings: &mut Findings) {
    let Some(bound) = rules.recency_ns else { return };
    let mut acked: Vec<(u64, u64, u64)> = Vec::new();
    for sent in view.sends.iter().filter(|sent| sent.acks == -1) {
        if let (Some((Some(base), _)), Some(end)) = (sent.ok, sent.end) {
            acked.push((end.mono_ns, base + sent.values.len() as u64, end.seq));
        }
    }
    acked.sort_unstable();
    // From here on each entry says: by then, this much was acknowledged.
    for at in 1..acked.len() {
        if acked[at].1 < acked[at - 1].1 {
            (acked[at].1, acked[at].2) = (acked[at - 1].1, acked[at - 1].2);
        }
    }
    for (invoke, end, mark) in looks(view) {
        let inside = |(begin, until): &(u64, u64)| invoke.mono_ns >= begin + bound && end.mono_ns <= *until;
        if !windows.iter().any(inside) {
            continue;
        }
        let known = acked.partition_point(|(time, _, _)| time + bound < invoke.mono_ns);
        let Some((_, upto, event)) = known.checked_sub(1).map(|at| acked[at]) else { continue };
        findings.counts.recent += 1;
        if mark < allowed(&view.cuts, None, upto) {
            let late = (invoke.mono_ns - acked[known - 1].0) / 1_000_000;
            let what = format!("acknowledged up to {upto}, and {late} ms later the high watermark is {mark}");
            findings.accuse(Class::StaleRead, Some(key), mark, &[event, invoke.seq, end.seq], what);
        }
    }
}
