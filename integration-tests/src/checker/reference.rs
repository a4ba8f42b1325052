//! The same laws, said once more as plainly as possible: every pair of events is looked at, nothing is sorted or kept.
//! For small histories; what it finds must be what the passes find.

use super::anomaly::Class;
use super::event::{Answer, Body, Event, History, KeyId, Op, Phase, Source};
use std::collections::BTreeSet;

struct Poll<'a> {
    invoke: &'a Event,
    end: &'a Event,
    key: KeyId,
    from: Option<u64>,
    records: &'a [(u64, u64)],
    mark: Option<u64>,
    start: Option<u64>,
    source: Source,
}

struct Send<'a> {
    invoke: &'a Event,
    end: Option<&'a Event>,
    key: KeyId,
    values: &'a [u64],
    all: bool,
    base: Option<u64>,
    ok: bool,
    failed: bool,
}

struct Facts<'a> {
    history: &'a History,
    polls: Vec<Poll<'a>>,
    sends: Vec<Send<'a>>,
    end: u64,
}

fn completion(history: &History, seq: u64) -> Option<&Event> {
    history.events.iter().find(|event| event.body.completes() == Some(seq))
}

fn facts(history: &History) -> Facts<'_> {
    let phase = |event: &&Event| matches!(event.body, Body::Phase(Phase::FinalReads));
    let end = history.events.iter().find(phase).map_or(u64::MAX, |event| event.seq);
    let mut facts = Facts { history, polls: vec![], sends: vec![], end };
    for invoke in &history.events {
        let Body::Invoke(op) = &invoke.body else { continue };
        let end = completion(history, invoke.seq);
        match (op, end.map(|end| &end.body)) {
            (Op::Poll { key, from }, Some(Body::Ok { answer, .. })) => {
                let Answer::Polled { records, high_watermark, log_start, source } = answer else { continue };
                let (mark, start, source) = (*high_watermark, *log_start, *source);
                let end = end.expect("matched above");
                facts.polls.push(Poll { invoke, end, key: *key, from: *from, records, mark, start, source });
            }
            (Op::Send { key, values, acks }, body) => {
                let (base, ok) = match body {
                    Some(Body::Ok { answer: Answer::Sent { base, .. }, .. }) => (*base, true),
                    _ => (None, false),
                };
                let failed = matches!(body, Some(Body::Fail { .. }));
                facts.sends.push(Send { invoke, end, key: *key, values, all: *acks == -1, base, ok, failed });
            }
            _ => {}
        }
    }
    facts
}

/// Every (class, key) that breaks a law of records, for histories without permitted losses.
pub(super) fn judge(history: &History) -> BTreeSet<(Class, KeyId)> {
    let facts = facts(history);
    let mut found = BTreeSet::new();
    facts.values(&mut found);
    facts.kept(&mut found);
    facts.readers(&mut found);
    facts.marks(&mut found);
    facts.leaders(&mut found);
    found
}

impl Facts<'_> {
    /// (key, offset, value, event, by a read)
    fn seen(&self) -> Vec<(KeyId, u64, u64, u64, bool)> {
        let mut seen = vec![];
        for poll in &self.polls {
            seen.extend(poll.records.iter().map(|(offset, value)| (poll.key, *offset, *value, poll.end.seq, true)));
        }
        for send in self.sends.iter().filter(|send| send.all) {
            if let (Some(base), Some(end)) = (send.base, send.end) {
                seen.extend(
                    (base..).zip(send.values).map(|(offset, value)| (send.key, offset, *value, end.seq, false)),
                );
            }
        }
        seen
    }

    fn values(&self, found: &mut BTreeSet<(Class, KeyId)>) {
        let seen = self.seen();
        for one in &seen {
            for other in seen.iter().filter(|other| other.0 == one.0) {
                if one.1 == other.1 && one.2 != other.2 {
                    found.insert((Class::InconsistentOffsets, one.0));
                }
                if one.1 != other.1 && one.2 == other.2 && self.history.header.rules.accuse_duplicates {
                    found.insert((Class::Duplicate, one.0));
                }
            }
            let send = self.sends.iter().find(|send| send.key == one.0 && send.values.contains(&one.2));
            match send {
                _ if !one.4 => {}
                None => drop(found.insert((Class::Phantom, one.0))),
                Some(send) if send.invoke.seq > one.3 => drop(found.insert((Class::Phantom, one.0))),
                Some(send) if send.failed => drop(found.insert((Class::FailedSendSeen, one.0))),
                Some(_) => {}
            }
        }
        // The first place at the end, if everything before it was read as well.
        let holds = |key: KeyId, offset: u64| {
            self.end < u64::MAX && self.finals(key).any(|poll| poll.records.iter().any(|(at, _)| *at == offset))
        };
        let first = |key: KeyId, value: u64| {
            let places = self.finals(key).flat_map(|poll| poll.records).filter(|(_, one)| *one == value);
            let place = places.map(|(offset, _)| *offset).min()?;
            (self.end < u64::MAX && (0..place).all(|before| holds(key, before))).then_some(place)
        };
        // Every acknowledged value: key, producer, when it was sent, where it was told to be.
        let mut told = vec![];
        for send in self.sends.iter().filter(|send| send.all) {
            let Some(base) = send.base else { continue };
            for (index, value) in (0..).zip(send.values) {
                told.push((send.key, send.invoke.process(), (send.invoke.seq, index), *value, base + index));
            }
        }
        for one in &told {
            for next in told.iter().filter(|next| (next.0, next.1) == (one.0, one.1) && next.2 > one.2) {
                let stood = first(one.0, one.3).zip(first(next.0, next.3)).is_some_and(|(one, next)| one >= next);
                if one.4 >= next.4 || stood {
                    found.insert((Class::NonmonotonicSend, one.0));
                }
            }
        }
    }

    fn finals(&self, key: KeyId) -> impl Iterator<Item = &Poll<'_>> {
        self.polls.iter().filter(move |poll| poll.key == key && poll.invoke.seq > self.end)
    }

    fn kept(&self, found: &mut BTreeSet<(Class, KeyId)>) {
        if self.end == u64::MAX {
            return;
        }
        let there = |key, offset: u64| {
            self.finals(key)
                .flat_map(|poll| poll.records)
                .filter(|(at, _)| *at == offset)
                .last()
                .map(|(_, value)| *value)
        };
        let start = |key| self.finals(key).filter_map(|poll| poll.start).max().unwrap_or(0);
        let upto = |key| {
            self.finals(key).flat_map(|poll| poll.records).map(|(offset, _)| offset + 1).max().unwrap_or(start(key))
        };
        let complete = |key| {
            let mark = self.finals(key).filter_map(|poll| poll.mark).max();
            mark.is_some_and(|mark| upto(key).max(start(key)) >= mark)
        };
        for send in self.sends.iter().filter(|send| send.ok && send.all) {
            if send.end.is_some_and(|end| end.seq > self.end) {
                continue;
            }
            for (index, value) in (0..).zip(send.values) {
                let missing = match send.base {
                    Some(base) if base + index < start(send.key) => false,
                    Some(base) => there(send.key, base + index) != Some(*value),
                    None if start(send.key) > 0 => false,
                    None => !self.finals(send.key).any(|poll| poll.records.iter().any(|(_, one)| one == value)),
                };
                let reached = complete(send.key) || send.base.is_some_and(|base| base + index < upto(send.key));
                if missing {
                    found.insert((if reached { Class::LostWrite } else { Class::Unseen }, send.key));
                }
            }
        }
        for poll in self.polls.iter().filter(|poll| poll.end.seq < self.end) {
            for (offset, _) in poll.records.iter().filter(|(offset, _)| *offset >= start(poll.key)) {
                let reached = complete(poll.key) || *offset < upto(poll.key);
                if reached && there(poll.key, *offset).is_none() {
                    found.insert((Class::LostRead, poll.key));
                }
            }
        }
        for poll in self.polls.iter().filter(|poll| poll.invoke.seq > self.end) {
            for (offset, _) in poll.records.iter().filter(|(offset, _)| *offset > start(poll.key)) {
                let before = self
                    .finals(poll.key)
                    .flat_map(|poll| poll.records)
                    .any(|(at, _)| at < offset && *at >= start(poll.key));
                if before && there(poll.key, offset - 1).is_none() {
                    found.insert((Class::Gap, poll.key));
                }
            }
        }
    }

    fn readers(&self, found: &mut BTreeSet<(Class, KeyId)>) {
        for poll in self.polls.iter().filter(|poll| !poll.records.is_empty()) {
            let before = self
                .polls
                .iter()
                .filter(|other| other.key == poll.key && other.invoke.process() == poll.invoke.process())
                .filter(|other| other.invoke.seq < poll.invoke.seq && !other.records.is_empty())
                .max_by_key(|other| other.invoke.seq);
            let position = before.and_then(|other| other.records.iter().map(|(offset, _)| offset + 1).max());
            let first = poll.records[0].0;
            if let Some(start) = poll.from.or(position) {
                if first < start {
                    found.insert((Class::NonmonotonicPoll, poll.key));
                } else if poll.start.is_some_and(|log| first > start.max(log)) {
                    found.insert((Class::PollSkip, poll.key));
                }
            }
            for at in 1..poll.records.len() {
                match poll.records[at].0 {
                    next if next <= poll.records[at - 1].0 => drop(found.insert((Class::NonmonotonicPoll, poll.key))),
                    next if next > poll.records[at - 1].0 + 1 => drop(found.insert((Class::Gap, poll.key))),
                    _ => {}
                }
            }
            if poll.records.iter().any(|(offset, _)| poll.mark.is_some_and(|mark| *offset >= mark)) {
                found.insert((Class::ReadAboveHighWatermark, poll.key));
            }
        }
    }

    fn marks(&self, found: &mut BTreeSet<(Class, KeyId)>) {
        for poll in &self.polls {
            let earlier = self.polls.iter().filter(|other| {
                let mine = other.key == poll.key && other.invoke.process() == poll.invoke.process();
                mine && other.end.seq < poll.invoke.seq
            });
            for other in earlier {
                let Some(mark) = poll.mark else { continue };
                let read = other.records.last().map_or(0, |(offset, _)| offset + 1);
                let same = other.source.epoch == poll.source.epoch && poll.source.epoch.is_some();
                if mark < read || (same && other.mark.is_some_and(|before| mark < before)) {
                    found.insert((Class::HighWatermarkFell, poll.key));
                }
            }
        }
    }

    fn leaders(&self, found: &mut BTreeSet<(Class, KeyId)>) {
        let answers: Vec<(KeyId, Source)> = self.polls.iter().map(|poll| (poll.key, poll.source)).collect();
        for one in &answers {
            for other in answers.iter().filter(|other| other.0 == one.0) {
                let known = one.1.epoch.is_some() && one.1.node.is_some() && other.1.node.is_some();
                if known && one.1.epoch == other.1.epoch && one.1.node != other.1.node {
                    found.insert((Class::TwoLeaders, one.0));
                }
            }
        }
    }
}
