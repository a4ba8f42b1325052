//! The checker's own proof: hand-made histories of every class, histories of an ideal cluster that pass, spoilt ones that
//! do not, a plain reference beside it, the file's format, the shrinking.

use super::anomaly::{Class, Findings, Verdict};
use super::event::*;
use super::model::{self, Shape};
use super::{file, judge, mutate, reference, report, shrink};
use crate::chaos::random::Random;
use std::collections::{BTreeMap, BTreeSet};

const MS: u64 = 1_000_000;
const BAD: u16 = 20;

/// A history told step by step; every step takes a millisecond.
struct Story(History);

fn story() -> Story {
    let rules = Rules {
        definite: BTreeSet::from([BAD, 12, 10]),
        exists: 12,
        absent: 10,
        accuse_duplicates: true,
        recency_ns: Some(5 * MS),
        liveness_ns: None,
        search_max: 10_000,
    };
    let header = Header { run: "told".to_owned(), seed: 0, rules };
    let begun = Story(History { header, events: vec![], torn: false });
    begun.note(Body::Key { key: 0, topic: "t".to_owned(), partition: 0, retention: false })
}

fn led_by(epoch: u32, node: u32) -> Source {
    Source { epoch: Some(epoch), node: Some(node) }
}

impl Story {
    fn push(&mut self, who: u32, body: Body) -> u64 {
        let seq = self.0.events.len() as u64 + 1;
        let ns = seq * MS;
        self.0.events.push(Event { seq, wall_ns: ns, mono_ns: ns, process: who, incarnation: 1, body });
        seq
    }

    fn note(mut self, body: Body) -> Self {
        self.push(0, body);
        self
    }

    fn phase(self, phase: Phase) -> Self {
        self.note(Body::Phase(phase))
    }

    fn wait(mut self, ms: u64) -> Self {
        let node = Node { name: "x".to_owned(), incarnation: 1, what: "waits".to_owned() };
        for _ in 0..ms {
            self.push(0, Body::Node(node.clone()));
        }
        self
    }

    fn begin(mut self, who: u32, op: Op) -> Self {
        self.push(who, Body::Invoke(op));
        self
    }

    /// Ends the `back`-th last invocation still open.
    fn end(mut self, back: usize, end: impl FnOnce(u64) -> Body) -> Self {
        let ended: BTreeSet<u64> = self.0.events.iter().filter_map(|event| event.body.completes()).collect();
        let open = |event: &&Event| matches!(event.body, Body::Invoke(_)) && !ended.contains(&event.seq);
        let event = self.0.events.iter().rev().filter(open).nth(back).expect("an open operation").clone();
        self.push(event.process, end(event.seq));
        self
    }

    fn does(self, who: u32, op: Op, answer: Answer) -> Self {
        self.begin(who, op).end(0, |of| Body::Ok { of, answer })
    }

    fn sent(self, who: u32, value: u64, base: u64) -> Self {
        let answer = Answer::Sent { base: Some(base), source: led_by(1, 1) };
        self.does(who, Op::Send { key: 0, values: vec![value], acks: -1 }, answer)
    }

    fn failed(self, who: u32, value: u64) -> Self {
        let op = Op::Send { key: 0, values: vec![value], acks: -1 };
        self.begin(who, op).end(0, |of| Body::Fail { of, code: BAD })
    }

    fn unknown(self, who: u32, values: &[u64]) -> Self {
        let op = Op::Send { key: 0, values: values.to_vec(), acks: -1 };
        self.begin(who, op).end(0, |of| Body::Info { of, code: 0 })
    }

    fn polled_in(self, who: u32, from: Option<u64>, records: &[(u64, u64)], mark: u64, start: u64, by: Source) -> Self {
        let records = records.to_vec();
        let answer = Answer::Polled { records, high_watermark: Some(mark), log_start: Some(start), source: by };
        self.does(who, Op::Poll { key: 0, from }, answer)
    }

    fn polled(self, who: u32, from: Option<u64>, records: &[(u64, u64)], mark: u64) -> Self {
        self.polled_in(who, from, records, mark, 0, led_by(1, 1))
    }

    /// Final reads that show exactly this from offset 0.
    fn finally(self, values: &[u64]) -> Self {
        let records: Vec<(u64, u64)> = (0..).zip(values.iter().copied()).collect();
        let mark = records.len() as u64;
        self.phase(Phase::FinalReads).polled(99, Some(0), &records, mark)
    }

    fn listed(self, who: u32, latest: bool, offset: u64) -> Self {
        self.does(who, Op::ListOffset { key: 0, latest }, Answer::Offset { offset, source: led_by(1, 1) })
    }

    fn deleted(self, before: u64, log_start: u64) -> Self {
        self.deleted_in(before, log_start, led_by(1, 1))
    }

    fn deleted_in(self, before: u64, log_start: u64, source: Source) -> Self {
        self.does(7, Op::DeleteRecords { key: 0, before }, Answer::Deleted { log_start, source })
    }

    fn admin(self, who: u32, change: Change, answer: Answer) -> Self {
        self.does(who, Op::Admin { topic: "a".to_owned(), change }, answer)
    }

    fn fault(self, id: u32, step: Step) -> Self {
        self.note(Body::Fault(Fault { id, class: "cut".to_owned(), target: "dc1".to_owned(), step }))
    }

    fn live_within(mut self, ms: u64) -> Self {
        self.0.header.rules.liveness_ns = Some(ms * MS);
        self
    }

    fn findings(&self) -> Findings {
        judge(&self.0)
    }

    /// The class is found, with a witness of events that are in the history.
    fn shows(self, class: Class) {
        let findings = self.findings();
        let found = findings.anomalies.iter().find(|anomaly| anomaly.class == class);
        let found = found.unwrap_or_else(|| panic!("{} is missing in {:?}", class.name(), findings.anomalies));
        assert!(!found.events.is_empty() && found.events.iter().all(|seq| self.0.event(*seq).is_some()), "{found:?}");
        assert_eq!(findings.verdict(), Verdict::Invalid);
        assert!(report::text(&self.0, &findings).contains(class.name()));
    }

    fn passes(self) -> Findings {
        let findings = self.findings();
        assert_eq!(findings.anomalies, vec![]);
        assert_eq!(findings.doubts, Vec::<String>::new());
        findings
    }
}

fn sends(values: &[u64]) -> Story {
    values.iter().fold(story(), |story, value| story.sent(1, *value, *value))
}

#[test]
fn kept_promises_are_not_accused() {
    let told =
        sends(&[0, 1, 2]).failed(1, 50).unknown(1, &[3]).unknown(1, &[60]).polled(2, Some(0), &[(0, 0), (1, 1)], 3);
    let findings = told.polled(2, None, &[(2, 2), (3, 3)], 4).finally(&[0, 1, 2, 3]).passes();
    let counts = &findings.counts;
    assert_eq!((counts.acknowledged, counts.checked, counts.unknown, counts.failed), (3, 3, 2, 1));
    assert_eq!((counts.unacknowledged, counts.read), (1, 8));
    // Below a log start that was asked for, and acknowledged by the leader alone: nothing is promised.
    let answer = Answer::Sent { base: Some(3), source: led_by(1, 1) };
    let told = sends(&[0, 1]).deleted(1, 1).does(1, Op::Send { key: 0, values: vec![9], acks: 1 }, answer);
    let told = told.phase(Phase::FinalReads).polled_in(9, Some(0), &[(1, 1)], 2, 1, led_by(1, 1));
    let counts = told.passes().counts;
    assert_eq!((counts.removed, counts.checked, counts.lost_unsafe), (1, 1, 1));
}

#[test]
fn one_offset_with_two_values() {
    let class = Class::InconsistentOffsets;
    story().sent(1, 5, 0).sent(2, 6, 0).shows(class);
    story().sent(1, 5, 0).unknown(2, &[6]).polled(3, Some(0), &[(0, 6)], 1).shows(class);
    story()
        .unknown(1, &[5])
        .unknown(1, &[6])
        .polled(3, Some(0), &[(0, 5)], 1)
        .polled(4, Some(0), &[(0, 6)], 1)
        .shows(class);
    let two = story().sent(1, 5, 0).note(Body::Truncated { key: 0, from: 1, epoch: 2 }).unknown(1, &[6]);
    two.polled_in(3, Some(0), &[(0, 6)], 1, 0, led_by(2, 2)).shows(class);
}

#[test]
fn a_permitted_loss_covers_what_it_names_and_no_more() {
    let lost = || sends(&[0, 1]).note(Body::Truncated { key: 0, from: 1, epoch: 2 }).unknown(3, &[7]);
    let after = |records: &[(u64, u64)], story: Story| {
        story.phase(Phase::FinalReads).polled_in(9, Some(0), records, records.len() as u64, 0, led_by(2, 2))
    };
    assert_eq!(after(&[(0, 0), (1, 7)], lost()).passes().counts.truncated, 1);
    after(&[(0, 7)], lost()).shows(Class::LostWrite);
    let answer = Answer::Sent { base: Some(1), source: led_by(2, 2) };
    let again = lost().does(4, Op::Send { key: 0, values: vec![8], acks: -1 }, answer);
    after(&[(0, 0), (1, 7)], again).shows(Class::InconsistentOffsets);
}

#[test]
fn one_value_at_two_offsets_where_that_is_forbidden() {
    let class = Class::Duplicate;
    story().sent(1, 5, 0).finally(&[5, 5]).shows(class);
    story().unknown(1, &[5]).polled(2, Some(0), &[(0, 5)], 1).polled(2, None, &[(1, 5)], 2).shows(class);
    story().sent(1, 5, 3).polled(2, Some(1), &[(1, 5)], 2).shows(class);
    let mut counted = story().sent(1, 5, 0).finally(&[5, 5]);
    counted.0.header.rules.accuse_duplicates = false;
    assert_eq!(counted.passes().counts.duplicates, 1);
}

#[test]
fn an_acknowledged_record_that_is_gone() {
    let class = Class::LostWrite;
    sends(&[0, 1]).finally(&[0]).shows(class);
    sends(&[0]).unknown(2, &[9]).finally(&[9]).shows(class);
    story().unknown(1, &[5, 6]).finally(&[5]).shows(class);
    let gap = sends(&[0, 1, 2]).phase(Phase::FinalReads).polled(9, Some(0), &[(0, 0)], 3);
    gap.polled(9, Some(2), &[(2, 2)], 3).shows(class);
    let nowhere = Answer::Sent { base: None, source: Source::default() };
    story().does(1, Op::Send { key: 0, values: vec![4], acks: -1 }, nowhere).finally(&[]).shows(class);
}

#[test]
fn an_acknowledged_record_that_the_final_reads_did_not_reach() {
    let class = Class::Unseen;
    sends(&[0, 1]).phase(Phase::FinalReads).polled(9, Some(0), &[(0, 0)], 2).shows(class);
    sends(&[0]).phase(Phase::FinalReads).shows(class);
    let unknown_mark = Answer::Polled { records: vec![], high_watermark: None, log_start: None, source: led_by(2, 2) };
    sends(&[0]).phase(Phase::FinalReads).does(9, Op::Poll { key: 0, from: Some(0) }, unknown_mark).shows(class);
}

#[test]
fn a_record_that_was_read_and_is_gone() {
    let class = Class::LostRead;
    story().unknown(1, &[5]).polled(2, Some(0), &[(0, 5)], 1).finally(&[]).shows(class);
    story().unknown(1, &[5, 6]).polled(2, Some(0), &[(0, 5), (1, 6)], 2).finally(&[5]).shows(class);
    let answer = Answer::Sent { base: Some(0), source: led_by(1, 1) };
    let told = story().does(1, Op::Send { key: 0, values: vec![5], acks: 1 }, answer);
    told.polled(2, Some(0), &[(0, 5)], 1).finally(&[]).shows(class);
}

#[test]
fn a_failed_send_that_is_seen() {
    let class = Class::FailedSendSeen;
    story().failed(1, 5).finally(&[5]).shows(class);
    story().failed(1, 5).polled(2, Some(0), &[(0, 5)], 1).shows(class);
    let early = story().begin(1, Op::Send { key: 0, values: vec![5], acks: -1 }).polled(2, Some(0), &[(0, 5)], 1);
    early.end(0, |of| Body::Fail { of, code: BAD }).shows(class);
}

#[test]
fn a_value_that_nobody_had_sent() {
    let class = Class::Phantom;
    story().finally(&[5]).shows(class);
    story().polled(2, Some(0), &[(0, 5)], 1).sent(1, 5, 0).shows(class);
    sends(&[0]).polled(2, Some(0), &[(0, 0), (1, 77)], 2).shows(class);
}

#[test]
fn a_reader_that_is_led_past_a_record() {
    let class = Class::PollSkip;
    sends(&[0, 1, 2]).polled(2, Some(0), &[(0, 0)], 3).polled(2, None, &[(2, 2)], 3).shows(class);
    sends(&[0, 1, 2]).polled(2, Some(1), &[(2, 2)], 3).shows(class);
    let told = sends(&[0, 1, 2]).deleted(1, 1).polled_in(2, Some(0), &[(2, 2)], 3, 1, led_by(1, 1));
    told.shows(class);
    let fine = sends(&[0, 1, 2]).polled(2, Some(0), &[(0, 0)], 3).deleted(2, 2);
    let fine = fine.polled_in(2, None, &[(2, 2)], 3, 2, led_by(1, 1));
    fine.phase(Phase::FinalReads).polled_in(9, Some(0), &[(2, 2)], 3, 2, led_by(1, 1)).passes();
}

#[test]
fn a_reader_that_is_led_back() {
    let class = Class::NonmonotonicPoll;
    sends(&[0, 1]).polled(2, Some(0), &[(0, 0), (1, 1)], 2).polled(2, None, &[(1, 1)], 2).shows(class);
    sends(&[0, 1]).polled(2, Some(1), &[(0, 0)], 2).shows(class);
    sends(&[0, 1]).polled(2, Some(0), &[(0, 0), (1, 1), (0, 0)], 2).shows(class);
}

#[test]
fn a_producer_whose_order_is_not_kept() {
    let class = Class::NonmonotonicSend;
    story().sent(1, 5, 1).sent(1, 6, 0).shows(class);
    let overlapping = story()
        .begin(1, Op::Send { key: 0, values: vec![5], acks: -1 })
        .begin(1, Op::Send { key: 0, values: vec![6], acks: -1 });
    let told = |base| move |of| Body::Ok { of, answer: Answer::Sent { base: Some(base), source: led_by(1, 1) } };
    overlapping.end(0, told(0)).end(0, told(3)).shows(class);
    // The copy that a retry left behind stands before what was sent earlier.
    let mut copies = story().sent(1, 5, 1).sent(1, 6, 2).finally(&[6, 5, 6]);
    copies.0.header.rules.accuse_duplicates = false;
    copies.shows(class);
    let others = story().sent(1, 5, 1).sent(2, 6, 0).finally(&[6, 5]);
    others.passes();
}

#[test]
fn a_hole() {
    let class = Class::Gap;
    sends(&[0, 1, 2]).polled(2, Some(0), &[(0, 0), (2, 2)], 3).shows(class);
    let finals = sends(&[0, 1, 2]).phase(Phase::FinalReads).polled(9, Some(0), &[(0, 0)], 3);
    finals.polled(9, Some(2), &[(2, 2)], 3).shows(class);
    story().unknown(1, &[1, 2]).phase(Phase::FinalReads).polled(9, Some(0), &[(0, 1), (5, 2)], 6).shows(class);
}

#[test]
fn a_high_watermark_that_falls() {
    let class = Class::HighWatermarkFell;
    sends(&[0, 1]).polled(2, Some(0), &[], 2).polled(2, Some(0), &[], 1).shows(class);
    let read = sends(&[0, 1]).polled(2, Some(0), &[(0, 0), (1, 1)], 2);
    read.polled_in(2, None, &[], 1, 0, led_by(2, 2)).shows(class);
    let three = sends(&[0, 1]).polled(2, Some(0), &[], 1).polled(2, Some(0), &[], 2).polled(2, Some(0), &[], 0);
    three.shows(class);
    // Another leader may know less, as long as nothing of it was read; so may another reader's answer.
    let fine = sends(&[0, 1]).polled(2, Some(0), &[], 2).polled_in(2, Some(0), &[], 1, 0, led_by(2, 2));
    fine.polled(3, Some(0), &[], 1).finally(&[0, 1]).passes();
}

#[test]
fn a_record_above_the_high_watermark() {
    let class = Class::ReadAboveHighWatermark;
    sends(&[0]).polled(2, Some(0), &[(0, 0)], 0).shows(class);
    sends(&[0, 1]).polled(2, Some(0), &[(0, 0), (1, 1)], 1).shows(class);
    sends(&[0, 1, 2]).polled(2, Some(2), &[(2, 2)], 2).shows(class);
}

#[test]
fn two_leaders_in_one_epoch() {
    let class = Class::TwoLeaders;
    let led = |node| Body::Led { key: 0, epoch: 3, node };
    story().note(led(1)).note(led(2)).shows(class);
    sends(&[0]).polled_in(2, Some(0), &[], 1, 0, led_by(1, 2)).shows(class);
    story().note(led(1)).polled_in(2, Some(0), &[], 1, 0, led_by(3, 2)).shows(class);
}

#[test]
fn a_read_that_misses_what_was_long_acknowledged() {
    let class = Class::StaleRead;
    let healthy = || story().phase(Phase::HealthyBegins).sent(1, 0, 0).wait(10);
    healthy().polled(2, Some(0), &[], 0).shows(class);
    healthy().listed(2, true, 0).shows(class);
    healthy().sent(1, 1, 1).wait(10).polled(2, Some(0), &[(0, 0)], 1).shows(class);
    healthy().listed(2, true, 1).phase(Phase::HealthyEnds).wait(10).listed(3, true, 0).finally(&[0]).passes();
    story().phase(Phase::HealthyBegins).wait(10).sent(1, 0, 0).listed(2, true, 0).finally(&[0]).passes();
}

#[test]
fn a_log_start_that_falls() {
    let class = Class::LogStartFell;
    sends(&[0, 1]).deleted(1, 1).listed(2, false, 0).shows(class);
    let polls = sends(&[0, 1]).begin(7, Op::DeleteRecords { key: 0, before: 1 });
    let polls = polls.polled_in(2, Some(0), &[], 2, 1, led_by(1, 1)).polled_in(2, Some(0), &[], 2, 0, led_by(1, 1));
    polls.shows(class);
    sends(&[0, 1]).deleted(1, 1).polled_in(2, Some(0), &[], 2, 0, led_by(2, 2)).shows(class);
    // A leader that was deposed answers readers within its lease, and has not heard of what another deleted since.
    let deposed = sends(&[0, 1]).deleted_in(1, 1, led_by(2, 2)).polled_in(2, Some(0), &[], 2, 0, led_by(1, 1));
    deposed.phase(Phase::FinalReads).polled_in(9, Some(1), &[(1, 1)], 2, 1, led_by(2, 2)).passes();
}

#[test]
fn a_log_start_that_nobody_asked_for() {
    let class = Class::LogStartPassed;
    sends(&[0, 1]).listed(2, false, 1).shows(class);
    sends(&[0, 1]).deleted(1, 2).shows(class);
    sends(&[0, 1]).polled_in(2, Some(0), &[], 2, 2, led_by(1, 1)).deleted(2, 2).shows(class);
    let mut kept = sends(&[0, 1]).listed(2, false, 1).phase(Phase::FinalReads);
    kept.0.events[0].body = Body::Key { key: 0, topic: "t".to_owned(), partition: 0, retention: true };
    kept.polled_in(9, Some(0), &[(1, 1)], 2, 1, led_by(1, 1)).passes();
}

#[test]
fn a_key_that_does_not_come_back() {
    let class = Class::NotLive;
    story().live_within(5).sent(1, 0, 0).phase(Phase::Healed).unknown(1, &[1]).shows(class);
    story().live_within(5).phase(Phase::Healed).wait(6).sent(1, 0, 0).shows(class);
    let begun = story().live_within(5).begin(1, Op::Send { key: 0, values: vec![0], acks: -1 }).phase(Phase::Healed);
    let answer = Answer::Sent { base: Some(0), source: led_by(1, 1) };
    begun.end(0, |of| Body::Ok { of, answer }).failed(1, 2).shows(class);
    story().live_within(5).phase(Phase::Healed).wait(2).sent(1, 0, 0).finally(&[0]).passes();
    let silent = sends(&[0]).live_within(5).phase(Phase::Healed).finally(&[0]).findings();
    assert_eq!(silent.verdict(), Verdict::Unknown);
}

#[test]
fn a_planned_fault_that_did_not_happen() {
    let class = Class::FaultUnconfirmed;
    story().fault(1, Step::Planned).shows(class);
    story().fault(1, Step::Planned).fault(1, Step::Begins).fault(1, Step::Ends).shows(class);
    let other = story().fault(1, Step::Planned).fault(2, Step::Planned).fault(2, Step::Confirmed("seen".to_owned()));
    other.shows(class);
    let seen = sends(&[0]).fault(1, Step::Planned).fault(1, Step::Confirmed("seen".to_owned())).finally(&[0]);
    assert_eq!(seen.passes().counts.faults, BTreeMap::from([("cut".to_owned(), 1)]));
}

#[test]
fn answers_about_a_topic_that_no_order_explains() {
    let class = Class::NotLinearizable;
    let done = || Answer::Done;
    story().admin(1, Change::Create, done()).admin(2, Change::Create, done()).shows(class);
    story().admin(1, Change::Create, done()).admin(2, Change::Describe, Answer::Exists(false)).shows(class);
    story().admin(1, Change::Delete, done()).shows(class);
    let ask = |change| Op::Admin { topic: "a".to_owned(), change };
    story().begin(1, ask(Change::Create)).end(0, |of| Body::Fail { of, code: 12 }).shows(class);
    // Overlapping operations may take effect in either order; one of unknown outcome at any time, or never.
    let overlapping = story().begin(1, ask(Change::Create)).begin(2, ask(Change::Delete));
    let ok = |of| Body::Ok { of, answer: Answer::Done };
    sends(&[]).passes_with(overlapping.end(0, ok).end(0, ok).admin(3, Change::Describe, Answer::Exists(false)));
    let unknown = story().begin(1, ask(Change::Create)).end(0, |of| Body::Info { of, code: 0 });
    let unknown =
        unknown.admin(2, Change::Describe, Answer::Exists(false)).admin(2, Change::Describe, Answer::Exists(true));
    sends(&[]).passes_with(unknown);
    let twice = story().begin(1, ask(Change::Create)).end(0, |of| Body::Info { of, code: 0 });
    let twice =
        twice.admin(2, Change::Describe, Answer::Exists(true)).admin(2, Change::Describe, Answer::Exists(false));
    twice.shows(class);
}

impl Story {
    fn passes_with(self, other: Story) {
        other.passes();
    }
}

#[test]
fn a_search_beyond_its_bound_is_no_pass() {
    let ask = |change| Op::Admin { topic: "a".to_owned(), change };
    let mut told = story();
    told.0.header.rules.search_max = 20;
    for client in 1..=8 {
        told = told.begin(client, ask(Change::Create)).begin(client, ask(Change::Delete));
    }
    let ok = |of| Body::Ok { of, answer: Answer::Done };
    told = (0..16).fold(told, |told, _| told.end(0, ok));
    let findings = told.admin(2, Change::Describe, Answer::Exists(false)).findings();
    assert_eq!((findings.verdict(), findings.doubts.len()), (Verdict::Unknown, 1));
}

#[test]
fn a_history_that_contradicts_itself() {
    let class = Class::Malformed;
    let sent = |of| Body::Ok { of, answer: Answer::Sent { base: Some(0), source: led_by(1, 1) } };
    let ending_nothing = story().note(sent(77));
    assert!(ending_nothing.findings().has(class));
    let mut twice = story().sent(1, 5, 0);
    twice.push(1, sent(2));
    twice.shows(class);
    let mut others = story().begin(1, Op::Send { key: 0, values: vec![1], acks: -1 });
    others.push(2, sent(2));
    others.shows(class);
    let op = Op::Send { key: 0, values: vec![1], acks: -1 };
    story().begin(1, op.clone()).end(0, |of| Body::Fail { of, code: 7 }).shows(class);
    story().begin(1, op).end(0, |of| Body::Ok { of, answer: Answer::Done }).shows(class);
    story().sent(1, 5, 0).sent(2, 5, 1).shows(class);
}

#[test]
fn without_everything_looked_at_nothing_is_valid() {
    let no_finals = sends(&[0]).findings();
    assert_eq!((no_finals.verdict(), no_finals.verdict().exit_code()), (Verdict::Unknown, 2));
    assert_eq!(story().findings().verdict(), Verdict::Unknown);
    let mut torn = sends(&[0]).finally(&[0]);
    torn.0.torn = true;
    assert_eq!(torn.findings().verdict(), Verdict::Unknown);
    // Nothing was acknowledged, so nothing could be lost; with or without a look at the end.
    assert_eq!(story().unknown(1, &[5]).failed(1, 6).findings().verdict(), Verdict::Unknown);
    assert_eq!(story().unknown(1, &[5]).finally(&[5]).findings().verdict(), Verdict::Unknown);
    // What ends after the final reads had begun is neither promised to be among them nor judged.
    let op = Op::Send { key: 0, values: vec![7], acks: -1 };
    let late = sends(&[0]).begin(1, op).finally(&[0]);
    let late = late.end(0, |of| Body::Ok { of, answer: Answer::Sent { base: Some(1), source: led_by(1, 1) } });
    assert_eq!(late.findings().verdict(), Verdict::Unknown);
}

fn shape(random: &mut Random) -> Shape {
    Shape {
        operations: usize::try_from(random.between(60, 200)).unwrap_or(60),
        keys: u32::try_from(random.between(1, 3)).unwrap_or(1),
        clients: u32::try_from(random.between(2, 6)).unwrap_or(2),
        duplicates: random.chance(50),
        admin_every: 10,
        permitted_loss: random.chance(20),
    }
}

/// How many histories of each sort. A build without optimisation takes seconds for them.
const HISTORIES: u64 = 5_000;

#[test]
fn histories_of_an_ideal_cluster_are_valid() {
    for seed in 0..HISTORIES {
        let history = model::valid(seed, shape(&mut Random::new(seed)));
        let findings = judge(&history);
        assert_eq!(findings.anomalies, vec![], "seed {seed}");
        assert_eq!(findings.doubts, Vec::<String>::new(), "seed {seed}");
        assert!(findings.counts.acknowledged > 0, "seed {seed}: nothing was judged");
    }
}

#[test]
fn spoilt_histories_are_flagged_with_the_right_class() {
    let mut made: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seed = 0;
    while made.values().sum::<u64>() < HISTORIES {
        seed += 1;
        let mut random = Random::new(seed);
        let mut shape = shape(&mut random);
        let class = Class::ALL[usize::try_from(seed).unwrap_or(0) % Class::ALL.len()];
        shape.duplicates &= class != Class::Duplicate;
        let history = model::valid(seed, shape);
        if let Some(spoilt) = mutate::spoil(&history, class, &mut random) {
            let findings = judge(&spoilt);
            assert!(findings.has(class), "seed {seed}: {} is not among {:?}", class.name(), findings.by_class());
            *made.entry(class.name()).or_default() += 1;
        }
    }
    eprintln!("{made:?}");
    assert_eq!(made.len(), Class::ALL.len());
    assert!(made.values().all(|count| *count >= HISTORIES / 100), "{made:?}");
}

#[test]
fn the_plain_reference_finds_the_same() {
    let compared = [
        Class::InconsistentOffsets,
        Class::Duplicate,
        Class::LostWrite,
        Class::Unseen,
        Class::LostRead,
        Class::FailedSendSeen,
        Class::Phantom,
        Class::PollSkip,
        Class::NonmonotonicPoll,
        Class::NonmonotonicSend,
        Class::Gap,
        Class::HighWatermarkFell,
        Class::ReadAboveHighWatermark,
    ];
    let mut guilty = 0;
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let duplicates = random.chance(50);
        let shape = Shape { operations: 50, keys: 2, clients: 4, admin_every: 10, duplicates, permitted_loss: false };
        let mut history = model::valid(seed, shape);
        // Several wounds at once: the classes must not hide one another.
        for _ in 0..random.below(4) {
            let class = *random.one_of(&compared);
            if let Some(spoilt) = mutate::spoil(&history, class, &mut random) {
                history = spoilt;
            }
        }
        let found = judge(&history).anomalies.into_iter();
        let found: BTreeSet<_> = found
            .filter(|anomaly| compared.contains(&anomaly.class))
            .filter_map(|anomaly| Some((anomaly.class, anomaly.key?)))
            .collect();
        let plain: BTreeSet<_> =
            reference::judge(&history).into_iter().filter(|(class, _)| compared.contains(class)).collect();
        assert_eq!(found, plain, "seed {seed}");
        guilty += usize::from(!plain.is_empty());
    }
    assert!(guilty > 200, "only {guilty} histories were spoilt");
}

#[test]
fn shrinking_keeps_the_anomaly_and_little_else() {
    let mut shrunk = 0;
    for (seed, class) in (1..).zip(Class::ALL).take(Class::ALL.len()) {
        let mut random = Random::new(seed);
        let shape =
            Shape { operations: 80, keys: 2, clients: 4, admin_every: 10, duplicates: false, permitted_loss: false };
        let history = model::valid(seed + 100, shape);
        let Some(spoilt) = mutate::spoil(&history, *class, &mut random) else { continue };
        let findings = judge(&spoilt);
        let anomaly = shrink::shortest(&findings, Some(*class)).expect("flagged above");
        let small = shrink::shrink(&spoilt, anomaly);
        assert!(shrink::same(&judge(&small), anomaly), "{}", class.name());
        assert!(
            small.events.len() <= 12,
            "{}: {} events are left of {}",
            class.name(),
            small.events.len(),
            spoilt.events.len()
        );
        shrunk += 1;
    }
    assert!(shrunk >= 15, "only {shrunk} classes were shrunk");
}

#[test]
fn shrinking_leaves_no_topic_without_its_past() {
    let done = || Answer::Done;
    // Made and removed by one client; another then finds it there. Without the removal the last answer would be right,
    // without the creation the removal would be the wrong one.
    let told = story().admin(1, Change::Create, done()).admin(3, Change::Describe, Answer::Exists(true));
    let told = told.admin(1, Change::Delete, done()).admin(2, Change::Describe, Answer::Exists(true));
    let findings = told.findings();
    let anomaly = shrink::shortest(&findings, Some(Class::NotLinearizable)).expect("nothing makes it exist");
    let small = shrink::shrink(&told.0, anomaly);
    let changes = |history: &History| {
        let made = |event: &&Event| {
            matches!(event.body, Body::Invoke(Op::Admin { change: Change::Create | Change::Delete, .. }))
        };
        history.events.iter().filter(made).count()
    };
    assert_eq!((changes(&small), small.events.len()), (2, 6), "{:?}", small.events);
}

#[test]
fn a_history_reads_back_from_bytes_and_from_lines() {
    let history = model::valid(
        3,
        Shape { operations: 200, keys: 3, clients: 4, admin_every: 10, duplicates: true, permitted_loss: true },
    );
    let bytes = file::encode(&history);
    assert_eq!(file::decode(&bytes), Ok(history.clone()));
    let mut lines = Vec::new();
    file::export(&history, &mut lines).expect("memory takes everything");
    assert_eq!(file::import(&String::from_utf8(lines).expect("JSON is UTF-8")), Ok(history.clone()));
    let torn = History { torn: true, ..history.clone() };
    let mut lines = Vec::new();
    file::export(&torn, &mut lines).expect("memory takes everything");
    assert_eq!(file::import(&String::from_utf8(lines).expect("JSON is UTF-8")), Ok(torn));
    assert!(report::json(&history, &judge(&history))["verdict"] == "valid");
}

#[test]
fn a_torn_end_is_said_and_damage_is_refused() {
    let history = model::valid(
        4,
        Shape { operations: 20, keys: 1, clients: 2, admin_every: 10, duplicates: false, permitted_loss: false },
    );
    let bytes = file::encode(&history);
    let mut torn = 0;
    for len in 0..bytes.len() {
        match file::decode(&bytes[..len]) {
            Ok(read) => {
                assert_eq!(read.events[..], history.events[..read.events.len()]);
                torn += usize::from(read.torn);
            }
            Err(error) => assert!(error.at <= len, "{error}"),
        }
    }
    assert!(torn > bytes.len() / 2);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        match file::decode(&flipped) {
            Err(_) => {}
            // A longer length of the last record reads as a torn end.
            Ok(read) => assert!(read.torn && read.events.len() < history.events.len(), "byte {at}"),
        }
    }
}

#[test]
fn a_recorder_writes_what_is_read_back() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("run.history");
    let header = Header { run: "r".to_owned(), seed: 7, rules: Rules::default() };
    let recorder = super::recorder::Recorder::create(&path, &header).expect("the folder is writable");
    let key = recorder.key("t", 3, false);
    let of = recorder.invoke((1, 1), Op::Send { key, values: vec![9], acks: -1 });
    // An invocation is with the kernel before the request may leave.
    let early = file::decode(&std::fs::read(&path).expect("written above")).expect("a history");
    assert_eq!((early.events.len(), early.torn), (2, false));
    recorder.ok((1, 1), of, Answer::Sent { base: Some(0), source: Source::default() });
    recorder.note(Body::Phase(Phase::FinalReads));
    let read = file::decode(&std::fs::read(&path).expect("written above")).expect("a history");
    assert_eq!((read.header.seed, read.events.len()), (7, 4));
    assert!(read.events.windows(2).all(|two| two[0].seq < two[1].seq && two[0].mono_ns <= two[1].mono_ns));
}
