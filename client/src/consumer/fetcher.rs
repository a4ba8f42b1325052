//! The consumer's one loop: asks the leaders of its partitions for offsets and records, and feeds the answers back.
//!
//! Owns: the calls under way. What to ask and what an answer means is in `positions`.
//! Never: hands out records; waits for a broker that keeps silent once there is a newer leader.
//! Invariant: a partition is part of at most one call at a time.

use super::positions::{After, Ask, Marks, Work};
use super::{Shared, Start};
use crate::cluster::Cluster;
use crate::limits;
use crate::routing::Leader;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use protocol::error::{ApiError, ErrorCode};
use protocol::metadata::record::Endpoint;
use protocol::rpc::convert::uuid_bytes;
use protocol::rpc::pb::data::v1 as pb;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Work with the leader it goes to.
type Routed = (Work, Leader);

/// An answer per partition.
enum Answer {
    Offset(Option<u64>),
    Records(Bytes, Marks),
    Failed(ApiError, Option<Marks>),
}

struct Done {
    broker: u32,
    answers: Vec<(Work, Answer)>,
}

type Calls = FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>;

pub(super) struct Fetcher {
    shared: Arc<Shared>,
    calls: Calls,
    under_way: BTreeMap<u32, usize>,
}

impl Fetcher {
    /// Runs until the consumer is dropped.
    pub(super) async fn run(shared: Arc<Shared>) {
        let mut changes = shared.cluster.changes();
        let mut fetcher = Self { shared, calls: FuturesUnordered::new(), under_way: BTreeMap::new() };
        let clock = fetcher.shared.cluster.clock();
        loop {
            let now = clock.now();
            fetcher.start(now);
            let next = {
                let state = fetcher.shared.state.lock();
                if state.closed {
                    return;
                }
                state.positions.next_event()
            };
            let wait = clock.instant(next.unwrap_or(now + limits::IDLE_MS).max(now + 1));
            tokio::select! {
                Some(done) = fetcher.calls.next(), if !fetcher.calls.is_empty() => fetcher.finish(done),
                () = fetcher.shared.look.notified() => {}
                Ok(()) = changes.changed() => fetcher.shared.state.lock().positions.unblock_all(),
                () = tokio::time::sleep_until(wait) => {}
            }
        }
    }

    /// Starts calls for what may be asked now, one per broker and kind.
    fn start(&mut self, now: u64) {
        let cluster = self.shared.cluster.clone();
        let routing = cluster.routing();
        let mut offsets: BTreeMap<u32, Vec<Routed>> = BTreeMap::new();
        let mut fetches: BTreeMap<u32, Vec<Routed>> = BTreeMap::new();
        let mut waker = None;
        let mut state = self.shared.state.lock();
        for work in state.positions.work(now) {
            let Some(leader) = routing.leader(&work.key.topic, work.key.partition) else {
                state.positions.postpone(&work, now + limits::LEADERLESS_PAUSE_MS);
                cluster.refresh_soon();
                continue;
            };
            if self.under_way.get(&leader.broker).is_some_and(|n| *n >= limits::FETCHES_PER_BROKER) {
                continue;
            }
            if !state.positions.asked(&work, leader.topic_id) {
                // Whoever waits for a record hears of it.
                waker = state.waker.take().or(waker);
                continue;
            }
            let group = if matches!(work.ask, Ask::Offset(_)) { &mut offsets } else { &mut fetches };
            group.entry(leader.broker).or_default().push((work, leader));
        }
        drop(state);
        waker.into_iter().for_each(std::task::Waker::wake);
        for (broker, work) in offsets {
            self.call(broker, list_offsets(cluster.clone(), work));
        }
        for (broker, work) in fetches {
            let request = self.fetch_request(&work);
            self.call(broker, fetch(cluster.clone(), work, request));
        }
    }

    fn call(&mut self, broker: u32, answers: impl Future<Output = Vec<(Work, Answer)>> + Send + 'static) {
        *self.under_way.entry(broker).or_default() += 1;
        self.calls.push(Box::pin(async move { Done { broker, answers: answers.await } }));
    }

    fn fetch_request(&self, work: &[Routed]) -> pb::FetchRequest {
        let config = &self.shared.config;
        let partition = |(work, leader): &Routed| {
            let (offset, last_epoch) = match work.ask {
                Ask::Records { offset, last_epoch } => (offset, last_epoch),
                Ask::Offset(_) => (0, None),
            };
            pb::FetchPartition {
                topic_id: uuid_bytes(leader.topic_id),
                partition: work.key.partition,
                offset,
                max_bytes: config.partition_fetch_bytes as u32,
                leader_epoch: i64::from(leader.epoch),
                last_fetched_epoch: last_epoch.map_or(-1, i64::from),
            }
        };
        pb::FetchRequest {
            max_wait_ms: config.fetch_max_wait_ms as u32,
            min_bytes: config.fetch_min_bytes as u32,
            max_bytes: config.fetch_max_bytes as u32,
            partitions: work.iter().map(partition).collect(),
            cluster_id: self.shared.cluster.routing().cluster_id().map(uuid_bytes).unwrap_or_default(),
        }
    }

    fn finish(&mut self, done: Done) {
        let Done { broker, answers } = done;
        if let Some(count) = self.under_way.get_mut(&broker) {
            *count = count.saturating_sub(1);
        }
        let now = self.shared.cluster.clock().now();
        let node = format!("broker {broker}");
        let mut state = self.shared.state.lock();
        for (work, answer) in answers {
            match answer {
                Answer::Offset(offset) => state.positions.resolved(&work, offset),
                Answer::Records(bytes, marks) => state.positions.fetched(&work, bytes, marks),
                Answer::Failed(error, marks) => {
                    tracing::debug!(topic = %work.key.topic, partition = work.key.partition, %error, "fetch failed");
                    let hint = error.hint.clone();
                    if state.positions.failed(&work, error, marks, &node, now) == After::Refresh {
                        self.shared.cluster.follow(&work.key.topic, work.key.partition, hint.as_deref());
                    }
                }
            }
        }
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(std::task::Waker::wake);
    }
}

/// Waits for a call, but not on a leader that keeps silent beyond `patience` once another one has taken over.
async fn unless_moved<T>(
    cluster: &Cluster,
    work: &[Routed],
    patience: Duration,
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let moved = |cluster: &Cluster| {
        let routing = cluster.routing();
        work.iter().any(|(w, l)| routing.moved_on(&w.key.topic, l.topic_id, w.key.partition, l.epoch))
    };
    let mut changes: watch::Receiver<u64> = cluster.changes();
    tokio::pin!(call);
    if let Ok(answer) = tokio::time::timeout(patience, &mut call).await {
        return answer;
    }
    loop {
        if moved(cluster) {
            return Err(ApiError::new(ErrorCode::Timeout, "no answer, and leadership has moved"));
        }
        cluster.refresh_soon();
        let pause = tokio::time::sleep(Duration::from_millis(limits::STALL_MS));
        tokio::select! {
            answer = &mut call => return answer,
            Ok(()) = changes.changed() => {}
            () = pause => {}
        }
    }
}

async fn fetch(cluster: Cluster, work: Vec<Routed>, request: pb::FetchRequest) -> Vec<(Work, Answer)> {
    let wait = u64::from(request.max_wait_ms);
    let within = Duration::from_millis(wait + cluster.config().request_timeout_ms);
    let patience = Duration::from_millis(wait + limits::STALL_MS);
    let Some(address) = address(&work) else { return Vec::new() };
    let outcome = match cluster.nodes().node(&address) {
        Ok(node) => unless_moved(&cluster, &work, patience, node.fetch(request, within)).await,
        Err(error) => Err(error),
    };
    cluster.note(&address, outcome.as_ref().err());
    let mut found: BTreeMap<(Bytes, u32), pb::FetchedPartition> = match outcome {
        Ok(answer) => answer.partitions.into_iter().map(|p| ((p.topic_id.clone(), p.partition), p)).collect(),
        Err(error) => return all_failed(work, &error),
    };
    let answer = |(work, leader): Routed| {
        let answer = match found.remove(&(uuid_bytes(leader.topic_id), work.key.partition)) {
            None => Answer::Failed(missing(), None),
            Some(partition) => {
                let marks = partition.state.as_ref().map(marks);
                match partition.error {
                    Some(error) => Answer::Failed(error.into(), marks),
                    None => Answer::Records(partition.batches, marks.unwrap_or_default()),
                }
            }
        };
        (work, answer)
    };
    work.into_iter().map(answer).collect()
}

async fn list_offsets(cluster: Cluster, work: Vec<Routed>) -> Vec<(Work, Answer)> {
    let within = Duration::from_millis(cluster.config().request_timeout_ms);
    let Some(address) = address(&work) else { return Vec::new() };
    let partition = |(work, leader): &Routed| pb::ListOffsetsPartition {
        topic_id: uuid_bytes(leader.topic_id),
        partition: work.key.partition,
        timestamp_ms: match work.ask {
            Ask::Offset(start) => timestamp(start),
            Ask::Records { .. } => timestamp(Start::Latest),
        },
        leader_epoch: i64::from(leader.epoch),
    };
    let request = pb::ListOffsetsRequest { partitions: work.iter().map(partition).collect() };
    let patience = Duration::from_millis(limits::STALL_MS);
    let outcome = match cluster.nodes().node(&address) {
        Ok(node) => unless_moved(&cluster, &work, patience, node.list_offsets(request, within)).await,
        Err(error) => Err(error),
    };
    cluster.note(&address, outcome.as_ref().err());
    let mut found: BTreeMap<(Bytes, u32), pb::ListedOffset> = match outcome {
        Ok(answer) => answer.partitions.into_iter().map(|p| ((p.topic_id.clone(), p.partition), p)).collect(),
        Err(error) => return all_failed(work, &error),
    };
    let answer = |(work, leader): Routed| {
        let answer = match found.remove(&(uuid_bytes(leader.topic_id), work.key.partition)) {
            None => Answer::Failed(missing(), None),
            Some(listed) => match listed.error {
                Some(error) => Answer::Failed(error.into(), listed.state.as_ref().map(marks)),
                None => Answer::Offset(u64::try_from(listed.offset).ok()),
            },
        };
        (work, answer)
    };
    work.into_iter().map(answer).collect()
}

/// A starting point on the wire.
pub(super) fn timestamp(start: Start) -> i64 {
    match start {
        Start::Latest | Start::Offset(_) => -1,
        Start::Earliest => -2,
        Start::Time(ms) => ms.max(0),
    }
}

fn address(work: &[Routed]) -> Option<Endpoint> {
    work.first().map(|(_, leader)| leader.address.clone())
}

fn marks(state: &pb::DataState) -> Marks {
    Marks { high_watermark: u64::try_from(state.high_watermark).ok(), log_start: state.log_start }
}

fn missing() -> ApiError {
    ApiError::new(ErrorCode::OperationNotAttempted, "the answer leaves this partition out")
}

fn all_failed(work: Vec<Routed>, error: &ApiError) -> Vec<(Work, Answer)> {
    work.into_iter().map(|(work, _)| (work, Answer::Failed(error.clone(), None))).collect()
}

/// One broker's answer to a question about offsets, for [`super::Consumer::offsets`].
pub(super) async fn offsets_at(
    cluster: &Cluster,
    topic: &Arc<str>,
    asked: &[(u32, Leader)],
    start: Start,
) -> Vec<(u32, Result<Option<u64>, ApiError>)> {
    let work = asked.iter().map(|(partition, leader)| {
        let key = super::positions::Key { topic: topic.clone(), partition: *partition };
        (Work { key, generation: 0, ask: Ask::Offset(start) }, leader.clone())
    });
    let answers = list_offsets(cluster.clone(), work.collect()).await;
    let plain = |(work, answer): (Work, Answer)| {
        let outcome = match answer {
            Answer::Offset(offset) => Ok(offset),
            Answer::Records(..) => Err(missing()),
            Answer::Failed(error, _) => Err(error),
        };
        (work.key.partition, outcome)
    };
    answers.into_iter().map(plain).collect()
}

/// Partitions of one broker with what is known of its leadership.
type Led = Vec<(u32, Leader)>;

/// Leaders of partitions, grouped by broker; partitions without one are returned apart.
pub(super) fn by_leader(cluster: &Cluster, topic: &str, partitions: &[u32]) -> (BTreeMap<u32, Led>, Vec<u32>) {
    let routing = cluster.routing();
    let mut groups: BTreeMap<u32, Led> = BTreeMap::new();
    let mut without = Vec::new();
    for partition in partitions {
        match routing.leader(topic, *partition) {
            Some(leader) => groups.entry(leader.broker).or_default().push((*partition, leader)),
            None => without.push(*partition),
        }
    }
    (groups, without)
}
