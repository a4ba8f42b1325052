//! Applications: producers that retry and do not know what became of their writes, consumers that follow a history, and
//! now and then delete what they have read. Their metadata is old.
//!
//! Never: knows more than a broker told it.

use super::buggify::Point;
use super::told::Told;
use super::wire::{Answer, Ask, Event, ToBroker};
use super::world::World;
use broker::replica::input::Acks;
use broker::replica::read::FetchQuery;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerId, LeaderEpoch, Millis, TopicPartition};
use std::collections::BTreeMap;

/// Attempts at one write.
const TRIES: u32 = 4;
/// How long a client waits before it believes that no answer comes, beyond the request's own deadline, ms.
const SILENCE_MS: Millis = 400;

#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    offset: Option<u64>,
    last: Option<LeaderEpoch>,
}

#[derive(Debug)]
struct Write {
    at: TopicPartition,
    acks: Acks,
    values: Vec<u64>,
    tries: u32,
}

/// One application.
#[derive(Debug, Default)]
pub(super) struct Client {
    reads: bool,
    waiting: Option<(u64, TopicPartition)>,
    write: Option<Write>,
    cursors: BTreeMap<TopicPartition, Cursor>,
    /// Whom it believes to lead, and in which epoch.
    believed: BTreeMap<TopicPartition, (Option<BrokerId>, LeaderEpoch)>,
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Op {
    pub(super) client: usize,
    pub(super) at: TopicPartition,
    /// A write with acks=all.
    pub(super) all: bool,
}

impl Client {
    pub(super) fn new(reads: bool) -> Self {
        Self { reads, ..Self::default() }
    }
}

impl World {
    pub(super) fn client(&mut self, number: usize) -> Result<(), String> {
        let pause = self.rng.between(5, self.plan.load.pause_ms);
        self.after(pause, Event::Client(number));
        if self.clients[number].waiting.is_some() {
            return Ok(());
        }
        if self.clients[number].reads { self.read_on(number) } else { self.write_on(number) }
    }

    /// Learns who leads from some broker's image, which may be old.
    fn refresh(&mut self, number: usize) {
        let running: Vec<_> = self.nodes.values().filter(|n| n.process.is_some()).map(|n| n.id).collect();
        if running.is_empty() {
            return;
        }
        let whom = *self.rng.one_of(&running);
        let Some(process) = self.nodes.get(&whom).and_then(|n| n.process.as_ref()) else { return };
        let client = &mut self.clients[number];
        client.believed.clear();
        for topic in process.image.topics.iter().filter(|t| t.is_live()) {
            for (partition, p) in (0u32..).zip(topic.partitions.iter()) {
                client.believed.insert(TopicPartition { topic: topic.id, partition }, (p.leader, p.leader_epoch));
            }
        }
    }

    fn pick(&mut self, number: usize) -> Option<TopicPartition> {
        if self.clients[number].believed.is_empty() || self.rng.chance(3) {
            self.refresh(number);
        }
        let known: Vec<_> = self.clients[number].believed.keys().copied().collect();
        (!known.is_empty()).then(|| *self.rng.one_of(&known))
    }

    fn write_on(&mut self, number: usize) -> Result<(), String> {
        if !self.faults && !self.settling_writes && self.due.is_empty() {
            return Ok(());
        }
        self.write_what_is_due(number);
        if self.clients[number].write.is_none() {
            let Some(at) = self.pick(number) else { return Ok(()) };
            let count = self.rng.between(1, 3);
            let values = (0..count).map(|i| self.values + i).collect();
            self.values += count;
            let (none, leader) = self.plan.load.acks_0_and_1;
            let drawn = self.rng.below(100);
            let acks = if drawn < none {
                Acks::None
            } else if drawn < none + leader {
                Acks::Leader
            } else {
                Acks::All
            };
            self.clients[number].write = Some(Write { at, acks, values, tries: 0 });
        }
        let Some(write) = self.clients[number].write.as_mut() else { return Ok(()) };
        write.tries += 1;
        let (at, acks, values) = (write.at, write.acks, write.values.clone());
        let impatient = Point::Impatient.is_on(self.plan.buggify) && self.rng.chance(30);
        let patience = if impatient { self.rng.between(5, 60) } else { 3_000 };
        let named = Point::EpochsNamed.is_on(self.plan.buggify);
        let believed = self.clients[number].believed.get(&at).copied();
        let epoch = believed.map(|(_, epoch)| epoch).filter(|_| named);
        let to = self.route(number, at);
        if let Some(to) = to {
            self.laws.observe(self.now, &Told::Asked { at, to, acks, values: &values })?;
        }
        let all = acks == Acks::All;
        if all {
            self.measures.wanted(self.now, at);
        }
        self.request(number, at, to, Ask::Produce { acks, epoch, values, patience }, patience, all);
        Ok(())
    }

    /// In the end every partition must take a write.
    fn write_what_is_due(&mut self, number: usize) {
        let due: Vec<_> = self.due.iter().copied().collect();
        if due.is_empty() || self.clients[number].write.as_ref().is_some_and(|w| w.tries > 0 && due.contains(&w.at)) {
            return;
        }
        let at = *self.rng.one_of(&due);
        if !self.clients[number].believed.contains_key(&at) {
            self.refresh(number);
        }
        self.clients[number].write = Some(Write { at, acks: Acks::All, values: vec![self.values], tries: 0 });
        self.values += 1;
    }

    fn read_on(&mut self, number: usize) -> Result<(), String> {
        let Some(at) = self.pick(number) else { return Ok(()) };
        let cursor = self.clients[number].cursors.get(&at).copied().unwrap_or_default();
        let named = Point::EpochsNamed.is_on(self.plan.buggify);
        let believed = self.clients[number].believed.get(&at).copied();
        let epoch = believed.map(|(_, epoch)| epoch).filter(|_| named);
        let greedy = Point::GreedyDeletes.is_on(self.plan.buggify);
        let ask = match cursor.offset {
            None => Ask::Offset { latest: self.rng.chance(30), epoch },
            Some(offset) if self.faults && self.plan.deletes && self.rng.below(if greedy { 30 } else { 200 }) == 0 => {
                let before = offset + if greedy { self.rng.below(4) } else { 0 };
                Ask::Delete { before: Some(before), patience: 2_000 }
            }
            Some(_) if self.rng.chance(2) => Ask::Offset { latest: self.rng.chance(50), epoch },
            Some(offset) => {
                let max_bytes = if Point::ShortReads.is_on(self.plan.buggify) { 1 } else { 16_384 };
                Ask::Read {
                    query: FetchQuery { offset, leader_epoch: epoch, last_fetched_epoch: cursor.last },
                    max_bytes,
                }
            }
        };
        let to = self.route(number, at);
        self.request(number, at, to, ask, 2_000, false);
        Ok(())
    }

    /// The broker that it asks: whom it believes to lead, or anybody.
    fn route(&mut self, number: usize, at: TopicPartition) -> Option<BrokerId> {
        if self.rng.chance(self.plan.load.stale) {
            let ids: Vec<_> = self.nodes.keys().copied().collect();
            return Some(*self.rng.one_of(&ids));
        }
        self.clients[number].believed.get(&at).and_then(|(leader, _)| *leader)
    }

    fn request(
        &mut self,
        client: usize,
        at: TopicPartition,
        to: Option<BrokerId>,
        ask: Ask,
        patience: Millis,
        all: bool,
    ) {
        self.next_op += 1;
        let op = self.next_op;
        self.clients[client].waiting = Some((op, at));
        let lost = self.faults && self.rng.below(1_000) < self.plan.net.loss;
        let node = to.and_then(|to| self.nodes.get(&to)).filter(|n| n.process.is_some());
        let Some((id, life)) = node.map(|n| (n.id, n.life)) else {
            return self.after(10, Event::Heard { client, op, answer: None });
        };
        self.after(patience + SILENCE_MS, Event::Heard { client, op, answer: None });
        if lost {
            return;
        }
        self.ops.insert(op, Op { client, at, all });
        let slow = if Point::SlowClients.is_on(self.plan.buggify) { 60 } else { 6 };
        let delay = self.rng.between(1, slow);
        self.to_broker(id, life, delay, ToBroker::Ask { op, at, ask });
    }

    /// A broker answered: the answer travels, and may be lost.
    pub(super) fn answered(&mut self, op: u64, answer: Answer) {
        let Some(Op { client, at, all }) = self.ops.remove(&op) else { return };
        if let Answer::Written { base } = &answer {
            self.trace.fold([self.now, *base, op]);
        }
        if all && matches!(answer, Answer::Written { .. }) {
            self.due.remove(&at);
            self.measures.acknowledged(self.now, at, &mut self.laws.tally);
        }
        if self.faults && self.rng.below(1_000) < self.plan.net.loss {
            return;
        }
        let slow = if Point::SlowClients.is_on(self.plan.buggify) { 200 } else { 6 };
        let delay = self.rng.between(1, slow);
        self.after(delay, Event::Heard { client, op, answer: Some(answer) });
    }

    /// A client hears an answer, or stops waiting for it.
    pub(super) fn heard(&mut self, number: usize, op: u64, answer: Option<Answer>) {
        let client = &mut self.clients[number];
        let Some((_, at)) = client.waiting.filter(|(waits, _)| *waits == op) else { return };
        client.waiting = None;
        if client.reads {
            let cursor = client.cursors.entry(at).or_default();
            match answer {
                Some(Answer::Records(records, last)) => {
                    if let Some((offset, _)) = records.last() {
                        cursor.offset = Some(offset + 1);
                        cursor.last = last;
                    }
                }
                Some(Answer::Offset(offset)) if cursor.offset.is_none() => cursor.offset = Some(offset),
                Some(Answer::Diverged(end)) => *cursor = Cursor { offset: Some(end), last: None },
                Some(Answer::Refused(ErrorCode::OffsetOutOfRange)) => *cursor = Cursor::default(),
                Some(Answer::Refused(_)) | None => self.refresh(number),
                Some(Answer::Offset(_) | Answer::Written { .. }) => {}
            }
            return;
        }
        let done = matches!(answer, Some(Answer::Written { .. }));
        let tried = client.write.as_ref().is_some_and(|w| w.tries >= TRIES);
        if done || tried {
            client.write = None;
        }
        if !done && self.rng.chance(70) {
            self.refresh(number);
        }
    }
}
