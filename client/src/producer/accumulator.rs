//! Records on their way into batches, and batches on their way to a leader.
//!
//! Owns: per partition the open batch, the closed ones and how many are unanswered; the memory they use; when a batch
//! is ready, and when a waiting one has run out of time.
//! Never: knows leaders, sockets, wakers or the clock; compresses (whoever takes a batch builds it).
//! Invariants: batches of a partition leave in the order they were opened, a retried one before every younger one; at
//! most `max_in_flight` of a partition are out at a time; `used` is the sum of what every batch charged that was not
//! settled yet, and no push makes it exceed `memory_bytes`.
//! Why a ticket: the shell hangs what waits for a batch (futures, counters) on it without this file knowing.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::producer::schedule::{Schedule, Times};
use crate::producer::verdict::Progress;
use bytes::Bytes;
use protocol::batch::limits::MAX_BATCH_BYTES_CEILING;
use protocol::batch::{BatchBuilder, BatchError, Compression, Limits, RecordHeader};
use protocol::ids::Millis;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A partition of a topic, the topic by its number in the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Number of the topic in this producer.
    pub topic: u32,
    /// Partition.
    pub partition: u32,
}

/// What the accumulator needs of the producer's options.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bytes of records at which a batch is closed.
    pub batch_bytes: usize,
    /// How long an open batch waits for more.
    pub linger_ms: u64,
    /// Most bytes that may wait or be under way.
    pub memory_bytes: usize,
    /// Most batches of a partition that are out at a time.
    pub max_in_flight: usize,
    /// Life of a batch.
    pub delivery_timeout_ms: u64,
    /// Compression of batches.
    pub compression: Compression,
}

/// A record's parts.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// Time in ms since 1970.
    pub timestamp: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: &'a [RecordHeader],
}

impl Parts<'_> {
    /// Bytes that the record is charged with.
    #[must_use]
    pub fn bytes(&self) -> usize {
        BatchBuilder::record_len_bound(self.key, self.value, self.headers)
    }
}

/// A batch: open, waiting or out.
#[derive(Debug)]
pub struct Batch<T> {
    /// Order of opening, over the whole producer.
    pub id: u64,
    /// Where it goes.
    pub key: Key,
    /// What waits for it.
    pub ticket: T,
    /// Number of records.
    pub records: u32,
    /// How its delivery went so far.
    pub progress: Progress,
    content: Content,
    max_bytes: usize,
    charged: usize,
}

#[derive(Debug)]
enum Content {
    Records(BatchBuilder),
    Built(Bytes),
    Unbuildable(BatchError),
}

impl<T> Batch<T> {
    /// The batch as sent, built and compressed once. Fails if it is larger than the topic takes.
    pub fn bytes(&mut self) -> Result<Bytes, BatchError> {
        let bytes = self.build()?;
        let (size, limit) = (bytes.len(), self.max_bytes);
        if size > limit { Err(BatchError::TooLarge { size, limit }) } else { Ok(bytes) }
    }

    /// The batch, whatever its size: to give its records back.
    pub fn build(&mut self) -> Result<Bytes, BatchError> {
        let content = std::mem::replace(&mut self.content, Content::Unbuildable(BatchError::Empty));
        self.content = match content {
            Content::Records(records) => {
                records.build().map_or_else(Content::Unbuildable, |b| Content::Built(Bytes::from(b)))
            }
            built => built,
        };
        match &self.content {
            Content::Built(bytes) => Ok(bytes.clone()),
            Content::Unbuildable(error) => Err(error.clone()),
            Content::Records(_) => Err(BatchError::Empty),
        }
    }

    fn has_room(&self, bytes: usize, target: usize) -> bool {
        matches!(&self.content, Content::Records(records) if records.uncompressed_len() + bytes <= target)
    }
}

#[derive(Debug)]
struct Queue<T> {
    open: Option<Batch<T>>,
    closed: VecDeque<Batch<T>>,
    out: usize,
    blocked_until: Millis,
    flush: bool,
    /// As the schedule has them.
    times: Times,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { open: None, closed: VecDeque::new(), out: 0, blocked_until: 0, flush: false, times: Times::default() }
    }
}

impl<T> Queue<T> {
    fn is_idle(&self) -> bool {
        self.open.is_none() && self.closed.is_empty() && self.out == 0
    }

    fn close_open(&mut self) {
        self.closed.extend(self.open.take());
    }

    /// Batches of a partition are as old as their order, so the first has the earliest deadline.
    fn times(&self, settings: &Settings) -> Times {
        let expire = self.closed.front().or(self.open.as_ref()).map(|b| b.progress.deadline);
        let (leave, hurried) = match &self.open {
            _ if self.out >= settings.max_in_flight => (None, None),
            _ if !self.closed.is_empty() => (Some(self.blocked_until), None),
            Some(_) if self.flush => (Some(self.blocked_until), None),
            Some(open) => {
                let lingered = open.progress.created.saturating_add(settings.linger_ms);
                (Some(lingered.max(self.blocked_until)), Some(self.blocked_until))
            }
            None => (None, None),
        };
        Times { leave, hurried, expire }
    }

    fn bytes(&self) -> usize {
        self.closed.iter().chain(&self.open).map(|b| b.charged).sum()
    }
}

/// Where a pushed record went.
#[derive(Debug)]
pub struct Pushed<'a, T> {
    /// The ticket of its batch.
    pub ticket: &'a T,
    /// Its place in the batch.
    pub index: u32,
    /// Whether the shell should look: a batch was opened or closed.
    pub look: bool,
}

/// Why a record was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushError {
    /// No memory at the moment.
    Full,
    /// It never fits.
    Batch(BatchError),
}

/// See the module.
#[derive(Debug)]
pub struct Accumulator<T> {
    settings: Settings,
    queues: BTreeMap<Key, Queue<T>>,
    schedule: Schedule,
    outstanding: BTreeSet<u64>,
    next_id: u64,
    used: usize,
    /// Somebody waits for memory: nothing lingers.
    pressed: bool,
}

impl<T> Accumulator<T> {
    /// An empty accumulator.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (queues, schedule, outstanding) = (BTreeMap::new(), Schedule::default(), BTreeSet::new());
        Self { settings, queues, schedule, outstanding, next_id: 0, used: 0, pressed: false }
    }

    /// Brings the schedule up to date with a partition; forgets one that is idle.
    fn reschedule(&mut self, key: Key) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        let times = queue.times(&self.settings);
        self.schedule.replace(key, std::mem::replace(&mut queue.times, times), times);
        if queue.is_idle() {
            self.queues.remove(&key);
        }
    }

    /// Adds a record to its partition's open batch, which is closed first if the record does not fit. `max_batch` is
    /// the topic's largest batch in bytes; `ticket` makes a ticket for a new batch.
    pub fn push(
        &mut self,
        key: Key,
        parts: &Parts<'_>,
        max_batch: usize,
        now: Millis,
        ticket: impl FnOnce() -> T,
    ) -> Result<Pushed<'_, T>, PushError> {
        let bytes = parts.bytes();
        if bytes > self.settings.memory_bytes {
            let (value, limit) = (bytes as u64, self.settings.memory_bytes as u64);
            return Err(PushError::Batch(BatchError::RecordLimit { field: "size", value, limit }));
        }
        if self.used + bytes > self.settings.memory_bytes {
            self.pressed = true;
            return Err(PushError::Full);
        }
        let settings = self.settings;
        let queue = self.queues.entry(key).or_default();
        let target = settings.batch_bytes.min(max_batch);
        let mut look = false;
        if queue.open.as_ref().is_some_and(|batch| !batch.has_room(bytes, target)) {
            queue.close_open();
            look = true;
        }
        let mut batch = match queue.open.take() {
            Some(batch) => batch,
            None => {
                look = true;
                let progress = Progress::new(now, now.saturating_add(settings.delivery_timeout_ms));
                open_batch(self.next_id, key, ticket(), progress, settings.compression, max_batch)
            }
        };
        let added = match &mut batch.content {
            Content::Records(records) => records.push(parts.timestamp, parts.key, parts.value, parts.headers),
            Content::Built(_) | Content::Unbuildable(_) => Err(BatchError::Empty),
        };
        if let Err(error) = added {
            queue.open = (batch.records > 0).then_some(batch);
            self.reschedule(key);
            return Err(PushError::Batch(error));
        }
        let full = !batch.has_room(1, target);
        if batch.id == self.next_id {
            self.outstanding.insert(batch.id);
            self.next_id += 1;
        }
        batch.records += 1;
        batch.charged += bytes;
        self.used += bytes;
        let index = batch.records - 1;
        if full {
            queue.closed.push_back(batch);
        } else {
            queue.open = Some(batch);
        }
        self.reschedule(key);
        let queue = self.queues.get(&key).expect("a partition with a batch is not forgotten");
        let batch = queue.open.as_ref().or(queue.closed.back()).expect("the batch is open or the last closed one");
        Ok(Pushed { ticket: &batch.ticket, index, look: look || full })
    }

    /// Partitions with a batch that may leave at `now`.
    #[must_use]
    pub fn ready(&self, now: Millis) -> Vec<Key> {
        self.schedule.ready(now, self.pressed)
    }

    /// Takes the oldest batch of a partition that [`Accumulator::ready`] named. It is out until [`Accumulator::settle`]
    /// or [`Accumulator::retry`]. The flag says whether it was closed before it was full.
    pub fn take(&mut self, key: Key) -> Option<(Batch<T>, bool)> {
        let queue = self.queues.get_mut(&key)?;
        let early = queue.closed.is_empty();
        if early {
            queue.close_open();
        }
        let batch = queue.closed.pop_front()?;
        if queue.closed.is_empty() && queue.open.is_none() {
            queue.flush = false;
        }
        queue.out += 1;
        self.reschedule(key);
        Some((batch, early))
    }

    /// Keeps a partition's batches from leaving before `until`.
    pub fn block(&mut self, key: Key, until: Millis) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.blocked_until = queue.blocked_until.max(until);
        }
        self.reschedule(key);
    }

    /// Lets every partition's batches leave at once: routing has changed.
    pub fn unblock_all(&mut self) {
        self.every_queue(|queue| queue.blocked_until = 0);
    }

    fn every_queue(&mut self, change: impl Fn(&mut Queue<T>)) {
        self.queues.values_mut().for_each(change);
        let keys: Vec<Key> = self.queues.keys().copied().collect();
        keys.into_iter().for_each(|key| self.reschedule(key));
    }

    /// Puts a batch that was out back before every younger one, to leave at `at` or later.
    pub fn retry(&mut self, batch: Batch<T>, at: Millis) {
        let key = batch.key;
        let queue = self.queues.entry(key).or_default();
        queue.out = queue.out.saturating_sub(1);
        queue.blocked_until = queue.blocked_until.max(at);
        let place = queue.closed.partition_point(|b| b.id < batch.id);
        queue.closed.insert(place, batch);
        self.reschedule(key);
    }

    /// Forgets a batch that was out: its outcome is known.
    pub fn settle(&mut self, batch: &Batch<T>) {
        if let Some(queue) = self.queues.get_mut(&batch.key) {
            queue.out = queue.out.saturating_sub(1);
        }
        self.release(batch);
    }

    fn release(&mut self, batch: &Batch<T>) {
        self.used -= batch.charged;
        self.pressed = false;
        self.outstanding.remove(&batch.id);
        self.reschedule(batch.key);
    }

    /// Removes waiting batches whose deadline has passed.
    pub fn expire(&mut self, now: Millis) -> Vec<Batch<T>> {
        self.remove_waiting(self.schedule.expired(now), |b| b.progress.deadline <= now)
    }

    /// Removes everything that waits.
    pub fn drain(&mut self) -> Vec<Batch<T>> {
        self.remove_waiting(self.queues.keys().copied().collect(), |_| true)
    }

    fn remove_waiting(&mut self, keys: Vec<Key>, which: impl Fn(&Batch<T>) -> bool) -> Vec<Batch<T>> {
        let mut gone = Vec::new();
        for key in keys {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            if queue.open.as_ref().is_some_and(&which) {
                queue.close_open();
            }
            let (out, kept): (Vec<_>, Vec<_>) = queue.closed.drain(..).partition(&which);
            gone.extend(out);
            queue.closed.extend(kept);
        }
        for batch in &gone {
            self.release(batch);
        }
        gone
    }

    /// Makes every batch that exists leave without lingering; returns the id below which all must be settled.
    pub fn flush(&mut self) -> u64 {
        self.every_queue(|queue| queue.flush = true);
        self.next_id
    }

    /// Whether every batch below `id` is settled.
    #[must_use]
    pub fn settled_below(&self, id: u64) -> bool {
        self.outstanding.first().is_none_or(|first| *first >= id)
    }

    /// The next time at which [`Accumulator::ready`] or [`Accumulator::expire`] may say something new, if nothing else
    /// happens before.
    #[must_use]
    pub fn next_event(&self) -> Option<Millis> {
        self.schedule.next(self.pressed)
    }

    /// Bytes waiting for a partition.
    #[must_use]
    pub fn queued(&self, key: Key) -> usize {
        self.queues.get(&key).map_or(0, Queue::bytes)
    }

    /// Bytes charged.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used
    }
}

fn open_batch<T>(
    id: u64,
    key: Key,
    ticket: T,
    progress: Progress,
    compression: Compression,
    max_bytes: usize,
) -> Batch<T> {
    // Built under the format's ceiling, and compared with the topic's limit after compression, so that a batch that
    // turns out too large can still be read back.
    let records = BatchBuilder::with_limits(compression, Limits::with_max_batch_bytes(MAX_BATCH_BYTES_CEILING));
    Batch { id, key, ticket, records: 0, progress, content: Content::Records(records), max_bytes, charged: 0 }
}

#[cfg(test)]
mod tests;
