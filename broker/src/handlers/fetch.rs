//! Fetch: ask each partition's shard, and if there is too little, wait for news of any of them until the deadline.

use bytes::Bytes;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::TopicPartition;
use protocol::rpc::convert::{maybe_epoch, topic_id_bytes};
use protocol::rpc::pb::data::v1 as data;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{Context, Patience, check_leaving, gone};
use crate::limits;
use crate::replica::lease::Lease;
use crate::shard::message::{Read, Request};

/// Answers a fetch.
///
/// # Errors
/// Of the whole request only; a partition's error stands in its part of the answer.
pub async fn fetch(context: &Context, request: data::FetchRequest) -> Result<data::FetchResponse, ApiError> {
    context.check_cluster(&request.cluster_id)?;
    let count = request.partitions.len();
    if count > limits::FETCH_PARTITIONS_MAX {
        return Err(ApiError::bad(ErrorCode::InvalidRequest, "partitions", count, limits::FETCH_PARTITIONS_MAX));
    }
    let wait = Duration::from_millis(u64::from(request.max_wait_ms).min(limits::FETCH_WAIT_MS_MAX));
    let deadline = Instant::now() + wait;
    let (patience, news) = (Patience::of_a_request(), Arc::new(Notify::new()));
    loop {
        let (mut partitions, leases) = once(context, &request, patience, &news).await?;
        let bytes: usize = partitions.iter().map(|p| p.batches.len()).sum();
        let failed = partitions.iter().any(|p| p.error.is_some());
        // An answer that is as long as it may get has nothing to wait for.
        let enough = bytes >= enough_bytes(&request).min(room(&request));
        if enough || failed || count == 0 || Instant::now() >= deadline {
            let leaving = context.leaving();
            partitions.iter_mut().zip(leases).for_each(|(p, lease)| {
                if check_leaving(&leaving(lease), &mut p.state, &mut p.error) {
                    p.batches = Bytes::new();
                }
            });
            return Ok(data::FetchResponse { partitions });
        }
        // A wake-up that came while we read is kept by `Notify`.
        tokio::time::timeout_at(deadline, news.notified()).await.ok();
    }
}

async fn once(
    context: &Context,
    request: &data::FetchRequest,
    patience: Patience,
    news: &Arc<Notify>,
) -> Result<(Vec<data::FetchedPartition>, Vec<Lease>), ApiError> {
    let (mut room, enough) = (room(request), enough_bytes(request));
    let found = context.partitions(request.partitions.iter().map(|p| (&p.topic_id[..], p.partition)), patience).await;
    let (mut answers, mut leases) = (Vec::with_capacity(found.len()), Vec::with_capacity(found.len()));
    for (wanted, at) in request.partitions.iter().zip(found) {
        let (answer, lease) = match room {
            0 => (empty(wanted), Lease::NONE),
            _ => one(context, wanted, at, (room, enough), news).await,
        };
        room = room.saturating_sub(answer.batches.len());
        answers.push(answer);
        leases.push(lease);
    }
    Ok((answers, leases))
}

/// Bytes of the whole answer at most, one batch excepted.
fn room(request: &data::FetchRequest) -> usize {
    usize::try_from(request.max_bytes).unwrap_or(usize::MAX).clamp(1, limits::FETCH_BYTES_MAX)
}

/// Bytes of the whole answer below which it waits.
fn enough_bytes(request: &data::FetchRequest) -> usize {
    usize::try_from(request.min_bytes).unwrap_or(usize::MAX).max(1)
}

fn empty(wanted: &data::FetchPartition) -> data::FetchedPartition {
    data::FetchedPartition { topic_id: wanted.topic_id.clone(), partition: wanted.partition, ..Default::default() }
}

async fn one(
    context: &Context,
    wanted: &data::FetchPartition,
    at: Result<TopicPartition, ApiError>,
    (room, enough_bytes): (usize, usize),
    news: &Arc<Notify>,
) -> (data::FetchedPartition, Lease) {
    let answer = match at {
        Ok(at) => read(context, wanted, at, (room, enough_bytes), news).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) => answer,
        Err(error) => (data::FetchedPartition { error: Some(error.into()), ..empty(wanted) }, Lease::NONE),
    }
}

async fn read(
    context: &Context,
    wanted: &data::FetchPartition,
    at: TopicPartition,
    (room, enough_bytes): (usize, usize),
    news: &Arc<Notify>,
) -> Result<(data::FetchedPartition, Lease), ApiError> {
    let leader_epoch = maybe_epoch("leader_epoch", wanted.leader_epoch)?;
    let last_fetched_epoch = maybe_epoch("last_fetched_epoch", wanted.last_fetched_epoch)?;
    let (reply, answer) = oneshot::channel();
    let read = Read {
        at,
        offset: wanted.offset,
        max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(usize::MAX).min(room),
        leader_epoch,
        last_fetched_epoch,
        enough_bytes,
        waiter: Arc::downgrade(news),
        reply,
    };
    context.shards.of(at).request(Request::Read(read)).await;
    let (mut answer, lease) = answer.await.map_err(|_| gone())?;
    answer.topic_id = topic_id_bytes(at.topic);
    Ok((answer, lease))
}
