//! Ways to spoil a valid history so that one class of anomaly must be found: the proof that the checker can see.
//!
//! Owns one spoiler per class. Each looks for a place where its change is certain to break that promise, and gives up
//! when the history has none. Others may be found with it (a lost tail is a lost write and a lost read).

use super::anomaly::Class;
use super::event::{Answer, Body, History, KeyId, Op, Phase, Process, Step};
use super::model::REFUSED;
use crate::chaos::random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// The history, spoilt; None if it has no place for this.
pub fn spoil(history: &History, class: Class, random: &mut Random) -> Option<History> {
    let mut spoilt = Spoilt { history: history.clone(), random };
    match class {
        Class::InconsistentOffsets => spoilt.change_a_value(),
        Class::Duplicate => spoilt.repeat_a_value(),
        Class::LostWrite => spoilt.lose_a_write(),
        Class::Unseen => spoilt.stop_reading(),
        Class::LostRead => spoilt.cut_the_end(true),
        Class::FailedSendSeen => spoilt.fail_a_seen_send(),
        Class::Phantom => spoilt.forget_a_send(),
        Class::PollSkip => spoilt.skip(),
        Class::NonmonotonicPoll => spoilt.step_back(),
        Class::NonmonotonicSend => spoilt.swap_two(),
        Class::Gap => spoilt.hole(),
        Class::HighWatermarkFell => spoilt.lower_the_mark(),
        Class::ReadAboveHighWatermark => spoilt.read_too_far(),
        Class::TwoLeaders => spoilt.second_leader(),
        Class::StaleRead => spoilt.stale(),
        Class::LogStartFell => spoilt.bring_back(),
        Class::LogStartPassed => spoilt.drop_the_head(),
        Class::NotLive => spoilt.stay_away(),
        Class::FaultUnconfirmed => spoilt.unconfirm(),
        Class::NotLinearizable => spoilt.lie_about_a_topic(),
        Class::Malformed => spoilt.contradict(),
    }?;
    Some(spoilt.history)
}

/// Records, high watermark and log start of an answer.
type Parts<'p> = (&'p mut Vec<(u64, u64)>, &'p mut Option<u64>, &'p mut Option<u64>);

struct Spoilt<'r> {
    history: History,
    random: &'r mut Random,
}

/// A poll's parts, as they stand in the history.
struct PollAt {
    /// Index of the end's event.
    at: usize,
    invoked: u64,
    process: Process,
    key: KeyId,
    from: Option<u64>,
    last: bool,
}

impl Spoilt<'_> {
    fn invocation(&self, of: u64) -> Option<&Op> {
        match &self.history.event(of)?.body {
            Body::Invoke(op) => Some(op),
            _ => None,
        }
    }

    fn final_seq(&self) -> u64 {
        let begins = |body: &Body| matches!(body, Body::Phase(Phase::FinalReads));
        self.history.events.iter().find(|event| begins(&event.body)).map_or(u64::MAX, |event| event.seq)
    }

    fn cut_keys(&self) -> BTreeSet<KeyId> {
        let cut = |body: &Body| match body {
            Body::Truncated { key, .. } => Some(*key),
            _ => None,
        };
        self.history.events.iter().filter_map(|event| cut(&event.body)).collect()
    }

    /// Answered polls of keys without permitted losses.
    fn polls(&self) -> Vec<PollAt> {
        let (end, cut) = (self.final_seq(), self.cut_keys());
        let mut found = Vec::new();
        for (at, event) in self.history.events.iter().enumerate() {
            let Body::Ok { of, answer: Answer::Polled { .. } } = &event.body else { continue };
            if let Some(Op::Poll { key, from }) = self.invocation(*of)
                && !cut.contains(key)
            {
                let (process, last) = (event.process(), *of > end);
                found.push(PollAt { at, invoked: *of, process, key: *key, from: *from, last });
            }
        }
        found
    }

    fn records(&self, at: usize) -> &[(u64, u64)] {
        match &self.history.events[at].body {
            Body::Ok { answer: Answer::Polled { records, .. }, .. } => records,
            _ => &[],
        }
    }

    /// The parts of a poll's answer that can be changed: records, high watermark, log start.
    fn answer(&mut self, at: usize) -> Option<Parts<'_>> {
        match &mut self.history.events[at].body {
            Body::Ok { answer: Answer::Polled { records, high_watermark, log_start, .. }, .. } => {
                Some((records, high_watermark, log_start))
            }
            _ => None,
        }
    }

    /// Acknowledged sends with all: (index of the end, process, key, base, values).
    fn acked(&self) -> Vec<(usize, Process, KeyId, u64, Vec<u64>)> {
        let (end, cut) = (self.final_seq(), self.cut_keys());
        let mut found = Vec::new();
        for (at, event) in self.history.events.iter().enumerate().filter(|(_, event)| event.seq < end) {
            if let Body::Ok { of, answer: Answer::Sent { base: Some(base), .. } } = &event.body
                && let Some(Op::Send { key, values, acks: -1 }) = self.invocation(*of)
                && !cut.contains(key)
            {
                found.push((at, event.process(), *key, *base, values.clone()));
            }
        }
        found
    }

    fn one<T>(&mut self, items: Vec<T>) -> Option<T> {
        let mut items = items;
        let count = items.len() as u64;
        let at = if count == 0 { return None } else { self.random.below(count) };
        Some(items.swap_remove(usize::try_from(at).ok()?))
    }

    fn change_a_value(&mut self) -> Option<()> {
        let mut times: BTreeMap<(KeyId, u64), u32> = BTreeMap::new();
        let polls = self.polls();
        for poll in &polls {
            for (offset, _) in self.records(poll.at) {
                *times.entry((poll.key, *offset)).or_default() += 1;
            }
        }
        let twice = |poll: &&PollAt| self.records(poll.at).iter().any(|(offset, _)| times[&(poll.key, *offset)] > 1);
        let (at, key) = self.one(polls.iter().filter(twice).map(|poll| (poll.at, poll.key)).collect())?;
        let place = self.records(at).iter().position(|(offset, _)| times[&(key, *offset)] > 1)?;
        let value = self.records(at)[place].1;
        self.answer(at)?.0[place].1 = value ^ 1;
        Some(())
    }

    fn repeat_a_value(&mut self) -> Option<()> {
        self.history.header.rules.accuse_duplicates = true;
        let lasts = self.polls().into_iter().filter(|poll| poll.last && !self.records(poll.at).is_empty()).collect();
        let poll = self.one(lasts)?;
        let (offset, value) = *self.records(poll.at).last()?;
        let (records, mark, _) = self.answer(poll.at)?;
        records.push((offset + 1, value));
        *mark = mark.map(|mark| mark.max(offset + 2));
        Some(())
    }

    /// Drops what the final reads show from an offset on, high watermark included.
    fn cut_the_end(&mut self, of_a_read: bool) -> Option<()> {
        let polls = self.polls();
        let start = |poll: &PollAt| match &self.history.events[poll.at].body {
            Body::Ok { answer: Answer::Polled { log_start, .. }, .. } => log_start.unwrap_or(0),
            _ => 0,
        };
        let starts: BTreeMap<KeyId, u64> =
            polls.iter().filter(|poll| poll.last).map(|poll| (poll.key, start(poll))).collect();
        let places: Vec<(KeyId, u64)> = if of_a_read {
            let early = polls.iter().filter(|poll| !poll.last);
            early.flat_map(|poll| self.records(poll.at).iter().map(|(offset, _)| (poll.key, *offset))).collect()
        } else {
            self.acked().into_iter().map(|(_, _, key, base, _)| (key, base)).collect()
        };
        let there = places.into_iter().filter(|(key, offset)| starts.get(key).is_some_and(|start| offset >= start));
        let (key, from) = self.one(there.collect())?;
        for poll in polls.iter().filter(|poll| poll.last && poll.key == key) {
            let (records, mark, _) = self.answer(poll.at)?;
            records.retain(|(offset, _)| *offset < from);
            *mark = mark.map(|mark| mark.min(from));
        }
        Some(())
    }

    fn lose_a_write(&mut self) -> Option<()> {
        if self.random.chance(50) {
            return self.cut_the_end(false);
        }
        let acked: BTreeSet<(KeyId, u64)> = self.acked().into_iter().map(|(_, _, key, base, _)| (key, base)).collect();
        let lasts: Vec<PollAt> = self.polls().into_iter().filter(|poll| poll.last).collect();
        let mut places = Vec::new();
        for poll in &lasts {
            let kept = self.records(poll.at);
            let inner = kept.len().saturating_sub(1);
            let found = kept[..inner].iter().filter(|(offset, _)| acked.contains(&(poll.key, *offset)));
            places.extend(found.map(|(offset, _)| (poll.at, *offset)));
        }
        let (at, gone) = self.one(places)?;
        self.answer(at)?.0.retain(|(offset, _)| *offset != gone);
        Some(())
    }

    fn stop_reading(&mut self) -> Option<()> {
        let acked = self.acked();
        let lasts: Vec<PollAt> = self.polls().into_iter().filter(|poll| poll.last).collect();
        let holds = |poll: &PollAt| {
            let inside = |base: &u64| self.records(poll.at).iter().any(|(offset, _)| offset == base);
            acked.iter().any(|(_, _, key, base, _)| *key == poll.key && inside(base))
        };
        let at = self.one(lasts.iter().filter(|poll| holds(poll)).map(|poll| (poll.at, poll.key)).collect())?;
        for poll in lasts.iter().filter(|poll| poll.key == at.1 && poll.at >= at.0) {
            self.answer(poll.at)?.0.clear();
        }
        Some(())
    }

    /// Values that some poll returned, by key.
    fn read_values(&self) -> BTreeSet<(KeyId, u64)> {
        let polls = self.polls();
        polls.iter().flat_map(|poll| self.records(poll.at).iter().map(|(_, value)| (poll.key, *value))).collect()
    }

    fn fail_a_seen_send(&mut self) -> Option<()> {
        let read = self.read_values();
        let seen = |(_, _, key, _, values): &(usize, Process, KeyId, u64, Vec<u64>)| {
            values.iter().any(|value| read.contains(&(*key, *value)))
        };
        let (at, ..) = self.one(self.acked().into_iter().filter(seen).collect())?;
        let of = self.history.events[at].body.completes()?;
        self.history.events[at].body = Body::Fail { of, code: REFUSED };
        Some(())
    }

    fn forget_a_send(&mut self) -> Option<()> {
        let read = self.read_values();
        let seen = |(_, _, key, _, values): &(usize, Process, KeyId, u64, Vec<u64>)| {
            values.iter().any(|value| read.contains(&(*key, *value)))
        };
        let (at, ..) = self.one(self.acked().into_iter().filter(seen).collect())?;
        let of = self.history.events[at].body.completes()?;
        self.history.events.retain(|event| event.seq != of && event.body.completes() != Some(of));
        Some(())
    }

    /// Polls that go on where one before ended: (the one before, this one).
    fn successions(&self) -> Vec<(usize, usize)> {
        let mut before: BTreeMap<(Process, KeyId), usize> = BTreeMap::new();
        let mut polls = self.polls();
        polls.sort_by_key(|poll| poll.invoked);
        let mut found = Vec::new();
        for poll in polls.iter().filter(|poll| !self.records(poll.at).is_empty()) {
            if let Some(last) = before.insert((poll.process, poll.key), poll.at)
                && poll.from.is_none()
            {
                found.push((last, poll.at));
            }
        }
        found
    }

    fn skip(&mut self) -> Option<()> {
        let goes_on = |(last, at): &(usize, usize)| {
            let end = self.records(*last).last().map(|(offset, _)| offset + 1);
            self.records(*at).len() > 1 && self.records(*at).first().map(|(offset, _)| *offset) == end
        };
        let (_, at) = self.one(self.successions().into_iter().filter(goes_on).collect())?;
        self.answer(at)?.0.remove(0);
        Some(())
    }

    fn step_back(&mut self) -> Option<()> {
        let (last, at) = self.one(self.successions())?;
        let again = *self.records(last).last()?;
        self.answer(at)?.0.insert(0, again);
        Some(())
    }

    fn swap_two(&mut self) -> Option<()> {
        let single: Vec<_> = self.acked().into_iter().filter(|(.., values)| values.len() == 1).collect();
        let mut pairs = Vec::new();
        for (index, one) in single.iter().enumerate() {
            let next = single[index + 1..].iter().find(|other| (other.1, other.2) == (one.1, one.2));
            pairs.extend(next.map(|other| (one.clone(), other.clone())));
        }
        let (one, other) = self.one(pairs)?;
        for (at, base) in [(one.0, other.3), (other.0, one.3)] {
            if let Body::Ok { answer: Answer::Sent { base: told, .. }, .. } = &mut self.history.events[at].body {
                *told = Some(base);
            }
        }
        let (a, b) = (one.4[0], other.4[0]);
        for poll in self.polls().into_iter().filter(|poll| poll.key == one.2) {
            for (_, value) in self.answer(poll.at)?.0.iter_mut() {
                *value = if *value == a {
                    b
                } else if *value == b {
                    a
                } else {
                    *value
                };
            }
        }
        Some(())
    }

    fn hole(&mut self) -> Option<()> {
        let long: Vec<usize> =
            self.polls().iter().map(|poll| poll.at).filter(|at| self.records(*at).len() > 2).collect();
        let at = self.one(long)?;
        let middle = self.records(at).len() / 2;
        self.answer(at)?.0.remove(middle);
        Some(())
    }

    fn lower_the_mark(&mut self) -> Option<()> {
        let falls = |(last, at): &(usize, usize)| {
            let begun = self.history.events[*at].body.completes().unwrap_or(0);
            self.history.events[*last].seq < begun && !self.records(*last).is_empty()
        };
        let (last, at) = self.one(self.successions().into_iter().filter(falls).collect())?;
        let read = self.records(last).last()?.0;
        *self.answer(at)?.1 = Some(read);
        Some(())
    }

    fn read_too_far(&mut self) -> Option<()> {
        let some: Vec<usize> =
            self.polls().iter().map(|poll| poll.at).filter(|at| !self.records(*at).is_empty()).collect();
        let at = self.one(some)?;
        let last = self.records(at).last()?.0;
        *self.answer(at)?.1 = Some(last);
        Some(())
    }

    fn second_leader(&mut self) -> Option<()> {
        let mut by_epoch: BTreeMap<(KeyId, u32), Vec<usize>> = BTreeMap::new();
        for poll in self.polls() {
            if let Body::Ok { answer: Answer::Polled { source, .. }, .. } = &self.history.events[poll.at].body {
                by_epoch.entry((poll.key, source.epoch?)).or_default().push(poll.at);
            }
        }
        let places = by_epoch.into_values().filter(|places| places.len() > 1).flatten().collect();
        let at = self.one(places)?;
        if let Body::Ok { answer: Answer::Polled { source, .. }, .. } = &mut self.history.events[at].body {
            source.node = source.node.map(|node| node + 10);
        }
        Some(())
    }

    fn stale(&mut self) -> Option<()> {
        let bound = self.history.header.rules.recency_ns?;
        let mut window = (u64::MAX, 0);
        for event in &self.history.events {
            match event.body {
                Body::Phase(Phase::HealthyBegins) => window.0 = event.mono_ns,
                Body::Phase(Phase::HealthyEnds) => window.1 = event.mono_ns,
                _ => {}
            }
        }
        let mut first: BTreeMap<KeyId, (u64, u64)> = BTreeMap::new();
        for (at, _, key, base, _) in self.acked() {
            first.entry(key).or_insert((self.history.events[at].mono_ns, base));
        }
        let late = |poll: &PollAt| {
            let begun = self.history.event(poll.invoked).map_or(0, |event| event.mono_ns);
            let known = first.get(&poll.key).is_some_and(|(when, _)| when + bound < begun);
            known && begun > window.0 + bound && self.history.events[poll.at].mono_ns < window.1
        };
        let poll = self.one(self.polls().into_iter().filter(late).collect())?;
        let base = first.get(&poll.key)?.1;
        *self.answer(poll.at)?.1 = Some(base);
        Some(())
    }

    fn bring_back(&mut self) -> Option<()> {
        let mut deleted: BTreeMap<KeyId, u64> = BTreeMap::new();
        for event in &self.history.events {
            if let Body::Ok { of, answer: Answer::Deleted { log_start, .. } } = event.body
                && let (Some(Op::DeleteRecords { key, .. }), true) = (self.invocation(of), log_start > 0)
            {
                deleted.entry(*key).or_insert(event.seq);
            }
        }
        let after = |poll: &PollAt| deleted.get(&poll.key).is_some_and(|seq| *seq < poll.invoked);
        let poll = self.one(self.polls().into_iter().filter(after).collect())?;
        *self.answer(poll.at)?.2 = Some(0);
        Some(())
    }

    fn drop_the_head(&mut self) -> Option<()> {
        let polls = self.polls();
        let poll = self.one(polls)?;
        let upto = (*self.answer(poll.at)?.1)?;
        // Far beyond whatever anybody may have asked for meanwhile.
        *self.answer(poll.at)?.2 = Some(upto + 1_000_000);
        Some(())
    }

    fn stay_away(&mut self) -> Option<()> {
        let healed = self.history.events.iter().position(|event| matches!(event.body, Body::Phase(Phase::Healed)))?;
        let keys = self.acked().into_iter().filter(|(at, ..)| *at > healed).map(|(_, _, key, ..)| key).collect();
        let key = self.one(keys)?;
        for at in healed..self.history.events.len() {
            if let Body::Ok { of, answer: Answer::Sent { .. } } = self.history.events[at].body
                && self.invocation(of)?.key() == Some(key)
            {
                self.history.events[at].body = Body::Info { of, code: 0 };
            }
        }
        Some(())
    }

    fn unconfirm(&mut self) -> Option<()> {
        let before = self.history.events.len();
        self.history
            .events
            .retain(|event| !matches!(&event.body, Body::Fault(fault) if matches!(fault.step, Step::Confirmed(_))));
        (self.history.events.len() < before).then_some(())
    }

    /// Turns round the answer of a question that overlapped with nothing about its topic: at such a moment the creations
    /// and deletions before it say what there is.
    fn lie_about_a_topic(&mut self) -> Option<()> {
        let mut open: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        let mut spans: BTreeMap<u64, (String, bool)> = BTreeMap::new();
        let mut doubtful: BTreeSet<String> = BTreeSet::new();
        let mut quiet: Vec<(usize, String)> = Vec::new();
        for (at, event) in self.history.events.iter().enumerate() {
            if let Body::Invoke(Op::Admin { topic, .. }) = &event.body {
                let now = open.entry(topic.clone()).or_default();
                now.iter().for_each(|seq| spans.entry(*seq).and_modify(|span| span.1 = false).or_default().1 = false);
                spans.insert(event.seq, (topic.clone(), now.is_empty()));
                now.insert(event.seq);
            } else if let Some(of) = event.body.completes()
                && let Some((topic, alone)) = spans.get(&of).cloned()
            {
                open.entry(topic.clone()).or_default().remove(&of);
                match &event.body {
                    Body::Info { .. } => drop(doubtful.insert(topic)),
                    Body::Ok { answer: Answer::Exists(_), .. } if alone => quiet.push((at, topic)),
                    _ => {}
                }
            }
        }
        let (at, _) = self.one(quiet.into_iter().filter(|(_, topic)| !doubtful.contains(topic)).collect())?;
        if let Body::Ok { answer: Answer::Exists(there), .. } = &mut self.history.events[at].body {
            *there = !*there;
        }
        Some(())
    }

    fn contradict(&mut self) -> Option<()> {
        let ends: Vec<usize> =
            (0..self.history.events.len()).filter(|at| self.history.events[*at].body.completes().is_some()).collect();
        let at = self.one(ends)?;
        let of = self.history.events[at].body.completes()?;
        match self.random.below(3) {
            0 => self.history.events.retain(|event| event.seq != of),
            1 => self.history.events[at].body = Body::Fail { of, code: 999 },
            _ => self.history.events[at].process += 1000,
        }
        Some(())
    }
}
