//! The consumer: positions in, records out.
//!
//! Owns: the [`Consumer`] handle, its background fetching.
//! Never: skips or repeats a record between two seeks; moves a position by itself except as `auto.offset.reset` says.
//! Invariant: records of a partition come in offset order, each below the high watermark its leader stated.
//!
//! Consumers read by assignment; positions live in this process. Errors of one partition are items of the stream and
//! stop that partition until it is sought; the others go on.

mod fetcher;
pub mod positions;
#[cfg(test)]
mod tests;

use crate::cluster::Cluster;
use crate::config::ConsumerConfig;
use crate::error::{Effect, Error};
use crate::limits;
use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use positions::{Key, Positions, Settings};
use protocol::batch::RecordHeader;
use protocol::error::{ApiError, ErrorCode, Next};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Notify;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first record of the log.
    Earliest,
    /// The high watermark.
    Latest,
    /// This offset.
    Offset(u64),
    /// The first record at or after this time (ms since 1970); the high watermark if there is none.
    Time(i64),
}

/// A record as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerRecord {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Offset.
    pub offset: u64,
    /// Time in ms since 1970.
    pub timestamp: i64,
    /// Epoch of the leader that wrote it.
    pub leader_epoch: Option<u32>,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<RecordHeader>,
}

struct Shared {
    cluster: Cluster,
    config: ConsumerConfig,
    state: Mutex<State>,
    look: Notify,
}

struct State {
    positions: Positions,
    waker: Option<Waker>,
    closed: bool,
}

/// Reads partitions. A [`Stream`] of records; [`Consumer::recv`] is the same as a future. Both are cancellation safe.
pub struct Consumer {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Consumer {
    /// A consumer of nothing. Must be made inside a tokio runtime; fetching begins with [`Consumer::assign`].
    #[must_use]
    pub fn new(config: ConsumerConfig) -> Self {
        let settings = Settings {
            partition_bytes: config.partition_fetch_bytes,
            queued_bytes: config.queued_max_bytes,
            reset: config.offset_reset,
            check_crcs: config.check_crcs,
            backoff: config.client.backoff,
        };
        let positions = Positions::new(settings, crate::clock::seed());
        let shared = Arc::new(Shared {
            cluster: Cluster::new(config.client.clone()),
            config,
            state: Mutex::new(State { positions, waker: None, closed: false }),
            look: Notify::new(),
        });
        tokio::spawn(fetcher::Fetcher::run(shared.clone()));
        Self { shared }
    }

    /// Adds partitions of a topic (`None` = all there are now), each to begin at `start`. Partitions that were assigned
    /// are moved there. Returns the partitions.
    ///
    /// # Errors
    /// Unknown topic or partition, or nobody answers within `request.timeout.ms`; then nothing was assigned.
    pub async fn assign(&self, topic: &str, partitions: Option<&[u32]>, start: Start) -> Result<Vec<u32>, Error> {
        let partitions = self.partitions(topic, partitions).await?;
        let topic: Arc<str> = topic.into();
        let mut state = self.shared.state.lock();
        for partition in &partitions {
            state.positions.seek(Key { topic: topic.clone(), partition: *partition }, start);
        }
        drop(state);
        self.shared.look.notify_one();
        Ok(partitions)
    }

    /// Moves an assigned partition; what was fetched of it is dropped. Returns false if it is not assigned.
    pub fn seek(&self, topic: &str, partition: u32, start: Start) -> bool {
        let key = Key { topic: topic.into(), partition };
        let mut state = self.shared.state.lock();
        let assigned = state.positions.marks(&key).is_some();
        if assigned {
            state.positions.seek(key, start);
        }
        drop(state);
        self.shared.look.notify_one();
        assigned
    }

    /// Takes partitions of a topic out (`None` = all).
    pub fn unassign(&self, topic: &str, partitions: Option<&[u32]>) {
        let mut state = self.shared.state.lock();
        let gone = |key: &&Key| &*key.topic == topic && partitions.is_none_or(|list| list.contains(&key.partition));
        let gone: Vec<Key> = state.positions.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|key| state.positions.remove(key));
    }

    /// The next record, as soon as there is one. An error stops its partition until a seek, not the consumer.
    ///
    /// # Errors
    /// [`Error::OffsetOutOfRange`], [`Error::LogTruncated`], [`Error::TopicReplaced`], unreadable batches, refusals that no retry helps.
    pub async fn recv(&mut self) -> Result<ConsumerRecord, Error> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<ConsumerRecord, Error>> {
        let mut state = self.shared.state.lock();
        let (next, freed) = state.positions.next_noting_room();
        if next.is_none() {
            state.waker = Some(cx.waker().clone());
        }
        drop(state);
        if freed {
            self.shared.look.notify_one();
        }
        next.map_or(Poll::Pending, Poll::Ready)
    }

    /// The next record if one is at hand.
    pub fn try_recv(&mut self) -> Option<Result<ConsumerRecord, Error>> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(item) => Some(item),
            Poll::Pending => None,
        }
    }

    /// The offset of the next record of a partition; `None` while its starting point is being looked up.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        self.shared.state.lock().positions.position(&Key { topic: topic.into(), partition })
    }

    /// The high watermark that a partition's leader stated last.
    #[must_use]
    pub fn high_watermark(&self, topic: &str, partition: u32) -> Option<u64> {
        let key = Key { topic: topic.into(), partition };
        self.shared.state.lock().positions.marks(&key).and_then(|marks| marks.high_watermark)
    }

    /// The offset of a point in each partition (`None` = all of them); `None` in the answer: no record is that young.
    ///
    /// # Errors
    /// Unknown topic or partition; [`Error::Timeout`] if some leader does not answer within `request.timeout.ms`.
    pub async fn offsets(
        &self,
        topic: &str,
        partitions: Option<&[u32]>,
        start: Start,
    ) -> Result<BTreeMap<u32, Option<u64>>, Error> {
        let cluster = &self.shared.cluster;
        let mut open = self.partitions(topic, partitions).await?;
        let name: Arc<str> = topic.into();
        let clock = cluster.clock();
        let begun = clock.now();
        let mut found = BTreeMap::new();
        let mut last = "no leader is known".to_owned();
        while !open.is_empty() {
            let (groups, without) = fetcher::by_leader(cluster, topic, &open);
            let calls = groups.values().map(|asked| fetcher::offsets_at(cluster, &name, asked, start));
            let answers = futures_util::future::join_all(calls).await;
            open = without;
            for (partition, outcome) in answers.into_iter().flatten() {
                match outcome {
                    Ok(offset) => drop(found.insert(partition, offset)),
                    Err(error) if error.code.next() == Next::GiveUp => return Err(refused("list offsets", error)),
                    Err(error) => {
                        last = format!("{topic}/{partition}: {error}");
                        cluster.follow(topic, partition, error.hint.as_deref());
                        open.push(partition);
                    }
                }
            }
            let waited_ms = clock.now() - begun;
            if open.is_empty() {
                break;
            }
            if waited_ms >= cluster.config().request_timeout_ms {
                return Err(Error::Timeout { request: "list offsets", waited_ms, effect: Effect::NotWritten, last });
            }
            cluster.refresh_soon();
            tokio::time::sleep(Duration::from_millis(limits::LEADERLESS_PAUSE_MS)).await;
        }
        Ok(found)
    }

    /// The partitions asked for, checked against the topic.
    async fn partitions(&self, topic: &str, partitions: Option<&[u32]>) -> Result<Vec<u32>, Error> {
        let info = self.shared.cluster.topic(topic, self.shared.config.client.request_timeout_ms).await?;
        let count = info.partitions.len() as u32;
        let Some(partitions) = partitions else { return Ok((0..count).collect()) };
        match partitions.iter().find(|p| **p >= count) {
            None => Ok(partitions.to_vec()),
            Some(partition) => {
                let limit = format!("0 to {}", count.saturating_sub(1));
                let error = ApiError::bad(ErrorCode::UnknownPartition, "partition", partition, limit);
                Err(refused("assign", error))
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumerRecord, Error>;

    /// Never ends.
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx).map(Some)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.look.notify_one();
    }
}

fn refused(request: &'static str, error: ApiError) -> Error {
    Error::Refused { request, node: "the cluster".to_owned(), error: Box::new(error) }
}
