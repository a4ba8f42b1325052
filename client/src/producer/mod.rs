//! The producer: records in, acknowledged batches out.
//!
//! Owns: the [`Producer`] handle, back-pressure, the numbering of topics.
//! Never: talks to a broker on the caller's time; `send` returns once the record is in a batch.
//! Invariant: records of one partition that were sent one after the other are stored in that order as long as
//! `max.in.flight` is 1; every record handed over reaches exactly one outcome.
//!
//! Delivery is at least once: an attempt whose answer was lost is repeated until `delivery.timeout.ms`, so a record may
//! be stored twice, and one whose time ran out after such an attempt resolves as [`Effect::Unknown`].

pub mod accumulator;
mod delivery;
mod link;
pub mod partitioner;
pub mod schedule;
mod sender;
#[cfg(test)]
mod tests;
pub mod verdict;

pub use delivery::{Delivery, DeliveryFailure, ProducerRecord, Written};

use crate::cluster::Cluster;
use crate::config::{Acks, ProducerConfig};
use crate::error::{Effect, Error};
use crate::routing::{Routing, TopicInfo};
use accumulator::{Accumulator, Key, Parts, PushError, Settings};
use delivery::Ticket;
use parking_lot::Mutex;
use partitioner::{Sticky, partition_of_key};
use protocol::batch::{BatchError, Compression, Header};
use protocol::error::{ApiError, ErrorCode};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The end of a batch, for callers that count instead of awaiting each record.
#[derive(Debug)]
pub struct BatchReport<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: u32,
    /// Records in it.
    pub records: u32,
    /// Attempts made.
    pub attempts: u32,
    /// Offset of the first record (unknown with acks=0), or why it failed.
    pub outcome: Result<Option<u64>, (Effect, &'a Error)>,
}

/// Called at the end of each batch, from the producer's own task: must not block.
pub type OnBatch = Arc<dyn Fn(&BatchReport<'_>) + Send + Sync>;

/// A record that was not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct SendError {
    /// Why. Nothing was sent.
    pub error: Error,
    /// The record, given back.
    pub record: Box<ProducerRecord>,
}

struct Shared {
    cluster: Cluster,
    acks: Acks,
    compression: Compression,
    batch_bytes: usize,
    memory: usize,
    max_block_ms: u64,
    state: Mutex<State>,
    /// The sender should look: a batch was opened or closed, somebody flushes or closes.
    look: Notify,
    /// Memory was released, batches were settled.
    progress: Notify,
    on_batch: Option<OnBatch>,
}

struct State {
    batches: Accumulator<Ticket>,
    topics: Topics,
    closed: bool,
}

/// Topics by number, and what is needed to place a record.
#[derive(Default)]
struct Topics {
    numbers: BTreeMap<Arc<str>, u32>,
    slots: Vec<Slot>,
}

struct Slot {
    name: Arc<str>,
    info: Option<Arc<TopicInfo>>,
    sticky: Sticky,
}

impl Topics {
    fn name(&self, number: u32) -> Arc<str> {
        self.slots[number as usize].name.clone()
    }

    fn learn(&mut self, name: &Arc<str>, info: Arc<TopicInfo>) {
        match self.numbers.get(name) {
            Some(number) => self.slots[*number as usize].info = Some(info),
            None => {
                self.numbers.insert(name.clone(), self.slots.len() as u32);
                let sticky = Sticky::new(crate::clock::seed());
                self.slots.push(Slot { name: name.clone(), info: Some(info), sticky });
            }
        }
    }

    /// Takes over what routing knows; a topic that vanished must be asked for again before more is sent to it.
    fn renew(&mut self, routing: &Routing) {
        for slot in &mut self.slots {
            slot.info = routing.topic(&slot.name).cloned();
        }
    }

    fn batch_closed(&mut self, key: Key) {
        self.slots[key.topic as usize].sticky.batch_closed(key.partition);
    }
}

/// Why a record was not taken, inside.
enum Refusal {
    NoRouting,
    Full,
    Error(Error),
}

/// Sends records. Cheap to share by reference; dropping it gives up what was not sent yet, see [`Producer::close`].
pub struct Producer {
    shared: Arc<Shared>,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("acks", &self.shared.acks).finish_non_exhaustive()
    }
}

impl Producer {
    /// A producer. Must be made inside a tokio runtime; connects when the first record is sent.
    #[must_use]
    pub fn new(config: ProducerConfig) -> Self {
        Self::build(config, None)
    }

    /// A producer that reports the end of each batch, before the deliveries of its records resolve.
    #[must_use]
    pub fn with_reports(config: ProducerConfig, on_batch: OnBatch) -> Self {
        Self::build(config, Some(on_batch))
    }

    fn build(config: ProducerConfig, on_batch: Option<OnBatch>) -> Self {
        let batches = Accumulator::new(Settings {
            batch_bytes: config.batch_bytes,
            linger_ms: config.linger_ms,
            memory_bytes: config.buffer_memory,
            max_in_flight: config.max_in_flight,
            delivery_timeout_ms: config.delivery_timeout_ms,
            compression: config.compression,
        });
        let shared = Arc::new(Shared {
            cluster: Cluster::new(config.client),
            acks: config.acks,
            compression: config.compression,
            batch_bytes: config.batch_bytes,
            memory: config.buffer_memory,
            max_block_ms: config.max_block_ms,
            state: Mutex::new(State { batches, topics: Topics::default(), closed: false }),
            look: Notify::new(),
            progress: Notify::new(),
            on_batch,
        });
        tokio::spawn(sender::Sender::run(shared.clone()));
        Self { shared }
    }

    /// Hands a record over. Waits, at most `max.block.ms`, while the buffer is full or the topic's routing is unknown.
    /// The delivery tells its fate; the record is sent even if the delivery is dropped.
    ///
    /// # Errors
    /// The record was not taken and is given back: no room in time, unknown topic or partition, too large, closed.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery, SendError> {
        let refusal = match self.push(&record) {
            Ok(delivery) => return Ok(delivery),
            Err(refusal) => refusal,
        };
        self.send_slowly(&record, refusal).await.map_err(|error| SendError { error, record: Box::new(record) })
    }

    async fn send_slowly(&self, record: &ProducerRecord, mut refusal: Refusal) -> Result<Delivery, Error> {
        let deadline = Instant::now() + Duration::from_millis(self.shared.max_block_ms);
        loop {
            match refusal {
                Refusal::Error(error) => return Err(error),
                Refusal::NoRouting => {
                    let left = deadline.saturating_duration_since(Instant::now()).as_millis() as u64;
                    let info = self.shared.cluster.topic(&record.topic, left).await?;
                    self.shared.state.lock().topics.learn(&record.topic, info);
                }
                Refusal::Full => {
                    // Enabled before the buffer is tried again, so that a release in between is not missed.
                    let progress = self.shared.progress.notified();
                    tokio::pin!(progress);
                    progress.as_mut().enable();
                    self.shared.look.notify_one();
                    match self.push(record) {
                        Err(Refusal::Full) => {}
                        Ok(delivery) => return Ok(delivery),
                        Err(other) => {
                            refusal = other;
                            continue;
                        }
                    }
                    if tokio::time::timeout_at(deadline, progress).await.is_err() {
                        return Err(Error::BufferFull { limit: self.shared.memory });
                    }
                }
            }
            match self.push(record) {
                Ok(delivery) => return Ok(delivery),
                Err(again) => refusal = again,
            }
        }
    }

    /// Hands a record over without waiting.
    ///
    /// # Errors
    /// As [`Producer::send`]; [`Error::BufferFull`] and a topic whose routing was not fetched (see
    /// [`Producer::prepare`]) are retriable.
    pub fn try_send(&self, record: ProducerRecord) -> Result<Delivery, SendError> {
        self.push(&record).map_err(|refusal| {
            let error = match refusal {
                Refusal::Error(error) => error,
                Refusal::Full => Error::BufferFull { limit: self.shared.memory },
                Refusal::NoRouting => Error::Timeout {
                    request: "routing",
                    waited_ms: 0,
                    effect: Effect::NotWritten,
                    last: format!("routing of topic {} is not known yet", record.topic),
                },
            };
            SendError { error, record: Box::new(record) }
        })
    }

    /// Fetches a topic's routing, so that the first record need not wait for it.
    ///
    /// # Errors
    /// Unknown topic, or no broker answers in time.
    pub async fn prepare(&self, topic: &Arc<str>, within: Duration) -> Result<(), Error> {
        let info = self.shared.cluster.topic(topic, within.as_millis() as u64).await?;
        self.shared.state.lock().topics.learn(topic, info);
        Ok(())
    }

    fn push(&self, record: &ProducerRecord) -> Result<Delivery, Refusal> {
        let shared = &*self.shared;
        let parts = Parts {
            timestamp: record.timestamp.unwrap_or_else(crate::clock::wall_ms),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &record.headers,
        };
        let now = shared.cluster.clock().now();
        let mut state = shared.state.lock();
        if state.closed {
            return Err(Refusal::Error(Error::Closed));
        }
        let State { batches, topics, .. } = &mut *state;
        let number = *topics.numbers.get(&record.topic).ok_or(Refusal::NoRouting)?;
        let slot = &mut topics.slots[number as usize];
        let info = slot.info.as_ref().ok_or(Refusal::NoRouting)?;
        let partition = place(record, parts.bytes(), info, &mut slot.sticky, shared.batch_bytes, |p| {
            batches.queued(Key { topic: number, partition: p })
        });
        let partition = partition.map_err(|error| Refusal::Error(refused(error)))?;
        let limit = info.max_message_bytes;
        let least = parts.key.map_or(0, <[u8]>::len) + parts.value.map_or(0, <[u8]>::len) + Header::LEN;
        if shared.compression == Compression::None && least > limit {
            return Err(too_large(record, BatchError::TooLarge { size: least, limit }));
        }
        let key = Key { topic: number, partition };
        let pushed = batches.push(key, &parts, limit, now, || Ticket::new(slot.name.clone(), partition));
        match pushed {
            Ok(pushed) => {
                let (delivery, look) = (pushed.ticket.delivery(pushed.index), pushed.look);
                drop(state);
                if look {
                    shared.look.notify_one();
                }
                Ok(delivery)
            }
            Err(PushError::Full) => Err(Refusal::Full),
            Err(PushError::Batch(error)) => Err(too_large(record, error)),
        }
    }

    /// Sends everything handed over so far without lingering and waits until each record's fate is known.
    pub async fn flush(&self) {
        let upto = self.shared.state.lock().batches.flush();
        self.shared.look.notify_one();
        loop {
            let progress = self.shared.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if self.is_settled(upto) {
                return;
            }
            progress.await;
        }
    }

    fn is_settled(&self, upto: u64) -> bool {
        let state = self.shared.state.lock();
        state.closed || state.batches.settled_below(upto)
    }

    /// Flushes for at most `timeout`, then closes: what still waits fails as not written, what is under way as unknown.
    /// Returns whether everything was settled in time.
    pub async fn close(self, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, self.flush()).await.is_ok()
    }

    /// Bytes of records that wait or are under way.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.shared.state.lock().batches.used()
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.look.notify_one();
    }
}

/// The partition of a record: as given, by its key, or the sticky choice.
fn place(
    record: &ProducerRecord,
    bytes: usize,
    info: &TopicInfo,
    sticky: &mut Sticky,
    batch_bytes: usize,
    queued: impl Fn(u32) -> usize,
) -> Result<u32, ApiError> {
    let partitions = info.partitions.len() as u32;
    match (record.partition, &record.key) {
        (Some(partition), _) if partition < partitions => Ok(partition),
        (Some(partition), _) => {
            let limit = format!("0 to {}", partitions.saturating_sub(1));
            Err(ApiError::bad(ErrorCode::UnknownPartition, "partition", partition, limit))
        }
        (None, Some(key)) => Ok(partition_of_key(key, partitions)),
        (None, None) => {
            let led = |p: u32| info.partitions.get(p as usize).is_some_and(|state| state.leader.is_some());
            Ok(sticky.choose(partitions, bytes, batch_bytes, led, queued))
        }
    }
}

fn refused(error: ApiError) -> Error {
    Error::Refused { request: "send", node: "the client".to_owned(), error: Box::new(error) }
}

fn too_large(record: &ProducerRecord, error: BatchError) -> Refusal {
    Refusal::Error(Error::Batch { context: format!("record for topic {}", record.topic), error })
}
