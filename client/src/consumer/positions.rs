//! Where a consumer stands in each partition, and what it fetched but did not hand out.
//!
//! Owns: per partition the next offset to hand out and to fetch, the epoch of the last fetched batch, the queue between
//! the two; what a fetch's failure means; the next record.
//! Never: asks a broker, reads a clock, waits.
//! Invariants: offsets handed out of a partition strictly grow between two seeks; nothing fetched for an earlier
//! position is handed out after a seek (generations); a partition that failed for good is silent until it is sought.
//! Why the epoch: a leader whose log does not contain (last epoch, offset) says so instead of serving other records
//! under the same offsets (KIP-320).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod intake;

use super::{ConsumerRecord, Start};
use crate::config::OffsetReset;
use crate::error::Error;
use crate::limits::UNKNOWN_TOPIC_PATIENCE_MS;
use crate::retry::{Backoff, Dice};
use bytes::Bytes;
use intake::{limits, outside};
use protocol::batch::{BatchError, Header, Records, records};
use protocol::error::{ApiError, Effect, ErrorCode, Next};
use protocol::ids::Millis;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use uuid::Uuid;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
}

/// What positions need of the consumer's options.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Queued bytes of one partition at which it is not fetched.
    pub partition_bytes: usize,
    /// Queued bytes of all together at which none is.
    pub queued_bytes: usize,
    /// What to do outside the log.
    pub reset: OffsetReset,
    /// Whether checksums are checked.
    pub check_crcs: bool,
    /// Pauses after failures.
    pub backoff: Backoff,
}

/// Something a broker should be asked for a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The partition.
    pub key: Key,
    /// To be returned with the answer.
    pub generation: u64,
    /// What.
    pub ask: Ask,
}

/// What to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The offset of a starting point.
    Offset(Start),
    /// Records.
    Records {
        /// From here.
        offset: u64,
        /// Epoch of the batch before.
        last_epoch: Option<u32>,
    },
}

/// What an answer said besides records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// High watermark, if the leader knows it.
    pub high_watermark: Option<u64>,
    /// Where the log begins.
    pub log_start: u64,
}

/// What a failure asks of the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing more than to go on.
    Nothing,
    /// Routing may be stale.
    Refresh,
}

#[derive(Debug)]
enum State {
    /// To be asked.
    Ready,
    /// Asked.
    Asked,
    /// To be asked again at this time.
    Waiting(Millis),
    /// Failed for good; waits for a seek.
    Stopped,
}

#[derive(Debug)]
struct Position {
    generation: u64,
    state: State,
    /// The topic that its offsets are of, from the first answer on: the name may come to mean another one.
    topic: Option<Uuid>,
    /// The topic of the question under way.
    asked_of: Option<Uuid>,
    start: Option<Start>,
    deliver: u64,
    fetch: u64,
    last_epoch: Option<u32>,
    marks: Marks,
    queue: VecDeque<(Header, Bytes)>,
    queued: usize,
    failures: u32,
    unknown_since: Option<Millis>,
    /// What is to be reported once everything queued before it was handed out.
    report: Option<Error>,
}

/// The batch being handed out.
#[derive(Debug)]
struct Current {
    key: Key,
    epoch: Option<u32>,
    next: u64,
    records: Records,
}

/// See the module.
#[derive(Debug)]
pub struct Positions {
    settings: Settings,
    dice: Dice,
    partitions: BTreeMap<Key, Position>,
    current: Option<Current>,
    turn: Option<Key>,
    queued: usize,
    next_generation: u64,
}

impl Positions {
    /// No partition; `seed` decides the jitter of pauses.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            dice: Dice::new(seed),
            partitions: BTreeMap::new(),
            current: None,
            turn: None,
            queued: 0,
            next_generation: 0,
        }
    }

    /// Begins a partition at `start`, or moves it there; what was queued of it is dropped.
    /// It stays a position in the same topic until [`Positions::remove`], or a report that this one is no more.
    pub fn seek(&mut self, key: Key, start: Start) {
        let topic = self.partitions.get(&key).and_then(|p| p.topic);
        self.remove(&key);
        self.next_generation += 1;
        let (start, offset) = match start {
            Start::Offset(offset) => (None, offset),
            other => (Some(other), 0),
        };
        let position = Position {
            generation: self.next_generation,
            state: State::Ready,
            topic,
            asked_of: None,
            start,
            deliver: offset,
            fetch: offset,
            last_epoch: None,
            marks: Marks::default(),
            queue: VecDeque::new(),
            queued: 0,
            failures: 0,
            unknown_since: None,
            report: None,
        };
        self.partitions.insert(key, position);
    }

    /// Ends a partition.
    pub fn remove(&mut self, key: &Key) {
        if let Some(gone) = self.partitions.remove(key) {
            self.queued -= gone.queued;
        }
        if self.current.as_ref().is_some_and(|c| c.key == *key) {
            self.current = None;
        }
    }

    /// The next offset to be handed out; `None` while the starting point is not resolved, or without such a partition.
    #[must_use]
    pub fn position(&self, key: &Key) -> Option<u64> {
        self.partitions.get(key).filter(|p| p.start.is_none()).map(|p| p.deliver)
    }

    /// What the last answer of a partition's leader said.
    #[must_use]
    pub fn marks(&self, key: &Key) -> Option<Marks> {
        self.partitions.get(key).map(|p| p.marks)
    }

    /// Partitions by name.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.partitions.keys()
    }

    /// What may be asked at `now`.
    #[must_use]
    pub fn work(&self, now: Millis) -> Vec<Work> {
        let work = |(key, p): (&Key, &Position)| {
            let due = match p.state {
                State::Ready => true,
                State::Waiting(until) => until <= now,
                State::Asked | State::Stopped => false,
            };
            let room = p.queued < self.settings.partition_bytes && self.queued < self.settings.queued_bytes;
            let ask = match p.start {
                Some(start) => Ask::Offset(start),
                None if room => Ask::Records { offset: p.fetch, last_epoch: p.last_epoch },
                None => return None,
            };
            due.then(|| Work { key: key.clone(), generation: p.generation, ask })
        };
        self.partitions.iter().filter_map(work).collect()
    }

    /// The next time at which [`Positions::work`] may say something new by itself.
    #[must_use]
    pub fn next_event(&self) -> Option<Millis> {
        let until = |p: &Position| match p.state {
            State::Waiting(until) => Some(until),
            _ => None,
        };
        self.partitions.values().filter_map(until).min()
    }

    /// The work is about to go to the leader of that topic; whether it may. It may not if the name meant another topic
    /// before: an offset of one says nothing in the other, so the partition stops and reports it.
    pub fn asked(&mut self, work: &Work, topic: Uuid) -> bool {
        let Some(position) = self.current_generation(&work.key, work.generation) else { return false };
        if let Some(was) = position.topic.filter(|was| *was != topic) {
            let (name, partition, offset) = (work.key.topic.to_string(), work.key.partition, position.deliver);
            position.topic = None;
            position.state = State::Stopped;
            position.report = Some(Error::TopicReplaced { topic: name, partition, offset, was, is: topic });
            return false;
        }
        position.asked_of = Some(topic);
        position.state = State::Asked;
        true
    }

    /// The work has to wait, for want of a leader.
    pub fn postpone(&mut self, work: &Work, until: Millis) {
        if let Some(position) = self.current_generation(&work.key, work.generation) {
            position.state = State::Waiting(until);
        }
    }

    /// Partitions that wait may be asked at once: routing has changed.
    pub fn unblock_all(&mut self) {
        for position in self.partitions.values_mut() {
            if matches!(position.state, State::Waiting(_)) {
                position.state = State::Ready;
            }
        }
    }

    /// A starting point's offset; `None`: no record is that young, so the partition begins at its end.
    pub fn resolved(&mut self, work: &Work, offset: Option<u64>) {
        let Some(position) = self.current_generation(&work.key, work.generation) else { return };
        position.state = State::Ready;
        position.topic = position.asked_of;
        position.failures = 0;
        match offset {
            Some(offset) => {
                position.start = None;
                position.deliver = offset;
                position.fetch = offset;
            }
            None => position.start = Some(Start::Latest),
        }
    }

    /// Fetched batches. An answer to an earlier position is dropped.
    pub fn fetched(&mut self, work: &Work, bytes: Bytes, marks: Marks) {
        let check_crcs = self.settings.check_crcs;
        let Some(position) = self.current_generation(&work.key, work.generation) else { return };
        position.state = State::Ready;
        position.topic = position.asked_of;
        position.failures = 0;
        position.unknown_since = None;
        position.marks = marks;
        let before = position.queued;
        let outcome = position.take(&bytes, check_crcs);
        let added = position.queued - before;
        if let Err(error) = outcome {
            let context = format!("{}/{}: fetched batch", work.key.topic, work.key.partition);
            position.state = State::Stopped;
            position.report = Some(Error::Batch { context, error });
        }
        self.queued += added;
    }

    /// The work failed. `node` names who was asked.
    pub fn failed(&mut self, work: &Work, error: ApiError, marks: Option<Marks>, node: &str, now: Millis) -> After {
        let settings = self.settings;
        let mut dice = self.dice.clone();
        let Some(position) = self.current_generation(&work.key, work.generation) else { return After::Nothing };
        position.failures += 1;
        position.marks = marks.unwrap_or(position.marks);
        let pause = now + settings.backoff.pause(position.failures, &mut dice);
        let (state, after, report) = match error.code {
            ErrorCode::OffsetOutOfRange => match outside(work, &error, position.marks, settings.reset) {
                Ok(start) => {
                    position.start = Some(start);
                    position.last_epoch = None;
                    (State::Waiting(pause), After::Nothing, None)
                }
                Err(report) => (State::Stopped, After::Nothing, Some(report)),
            },
            ErrorCode::UnknownTopic | ErrorCode::UnknownPartition
                if now.saturating_sub(*position.unknown_since.get_or_insert(now)) < UNKNOWN_TOPIC_PATIENCE_MS =>
            {
                (State::Waiting(pause), After::Refresh, None)
            }
            code => match code.next() {
                Next::GiveUp => {
                    let error = Box::new(error);
                    (
                        State::Stopped,
                        After::Nothing,
                        Some(Error::Refused { request: "fetch", node: node.to_owned(), error }),
                    )
                }
                // The node spoke, and asking it again is right; anything else may mean that it is gone or deposed.
                Next::Retry if code.effect() == Effect::None && code != ErrorCode::NotReachable => {
                    (State::Waiting(pause), After::Nothing, None)
                }
                Next::Retry | Next::RefreshMetadata | Next::FindController => {
                    (State::Waiting(pause), After::Refresh, None)
                }
            },
        };
        position.state = state;
        position.report = report;
        self.dice = dice;
        after
    }

    /// [`Positions::take_next`], and whether a batch left its queue, so that there may be room to fetch.
    pub fn next_noting_room(&mut self) -> (Option<Result<ConsumerRecord, Error>>, bool) {
        let before = self.queued;
        let next = self.take_next();
        (next, self.queued < before)
    }

    /// The next record or error, if there is one. Batches of different partitions take turns.
    pub fn take_next(&mut self) -> Option<Result<ConsumerRecord, Error>> {
        loop {
            let Some(current) = &mut self.current else {
                match self.open_next()? {
                    Ok(()) => continue,
                    Err(error) => return Some(Err(error)),
                }
            };
            let Some(position) = self.partitions.get_mut(&current.key) else {
                self.current = None;
                continue;
            };
            match current.records.next() {
                Some(Ok(stored)) if stored.offset < position.deliver => {}
                Some(Ok(stored)) => {
                    position.deliver = stored.offset + 1;
                    let record = stored.record;
                    return Some(Ok(ConsumerRecord {
                        topic: current.key.topic.clone(),
                        partition: current.key.partition,
                        offset: stored.offset,
                        timestamp: record.timestamp,
                        leader_epoch: current.epoch,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
                Some(Err(error)) => {
                    let key = current.key.clone();
                    self.damaged(&key, error);
                }
                None => {
                    position.deliver = position.deliver.max(current.next);
                    self.current = None;
                }
            }
        }
    }

    /// Takes the next queued batch into hand: of the partition after the last one, in a circle. A partition that has
    /// only a failure left reports it.
    fn open_next(&mut self) -> Option<Result<(), Error>> {
        let waiting = |(key, p): (&Key, &Position)| (!p.queue.is_empty() || p.report.is_some()).then(|| key.clone());
        let after = self.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let key = self.partitions.range((after, Bound::Unbounded)).find_map(waiting);
        let key = key.or_else(|| self.partitions.iter().find_map(waiting))?;
        self.turn = Some(key.clone());
        let position = self.partitions.get_mut(&key)?;
        let Some((header, batch)) = position.queue.pop_front() else {
            return position.report.take().map(Err);
        };
        position.queued -= batch.len();
        self.queued -= batch.len();
        if header.attributes.is_control() {
            position.deliver = position.deliver.max(header.next_offset());
            return Some(Ok(()));
        }
        match records(&batch, &limits()) {
            Ok(records) => {
                self.current = Some(Current { key, epoch: header.leader_epoch, next: header.next_offset(), records });
            }
            Err(error) => self.damaged(&key, error),
        }
        Some(Ok(()))
    }

    /// A batch that cannot be read: the partition stops there.
    fn damaged(&mut self, key: &Key, error: BatchError) {
        let offset = self.partitions.get(key).map_or(0, |p| p.deliver);
        let context = format!("{}/{} at offset {offset}", key.topic, key.partition);
        self.seek(key.clone(), Start::Offset(offset));
        if let Some(position) = self.partitions.get_mut(key) {
            position.state = State::Stopped;
            position.report = Some(Error::Batch { context, error });
        }
    }

    fn current_generation(&mut self, key: &Key, generation: u64) -> Option<&mut Position> {
        self.partitions.get_mut(key).filter(|p| p.generation == generation)
    }
}

#[cfg(test)]
mod tests;
