//! Fetch: ask each partition's shard, and if there is too little, wait for news of any of them until the deadline.

use bytes::Bytes;
use protocol::error::{ApiError, ErrorCode};
use protocol::rpc::convert::{maybe_epoch, topic_id_bytes};
use protocol::rpc::pb::data::v1 as data;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{Context, Patience, check_leaving, gone};
use crate::limits;
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
        let mut partitions = once(context, &request, patience, &news).await?;
        let bytes: usize = partitions.iter().map(|p| p.batches.len()).sum();
        let failed = partitions.iter().any(|p| p.error.is_some());
        // An answer that is as long as it may get has nothing to wait for.
        let enough = bytes >= enough_bytes(&request).min(room(&request));
        if enough || failed || count == 0 || Instant::now() >= deadline {
            let now = context.lease.now();
            partitions.iter_mut().for_each(|p| {
                if check_leaving(&now, &mut p.state, &mut p.error) {
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
) -> Result<Vec<data::FetchedPartition>, ApiError> {
    let (mut room, enough) = (room(request), enough_bytes(request));
    let mut answers = Vec::with_capacity(request.partitions.len());
    for wanted in &request.partitions {
        let answer = if room == 0 { empty(wanted) } else { one(context, wanted, (room, enough), patience, news).await };
        room = room.saturating_sub(answer.batches.len());
        answers.push(answer);
    }
    Ok(answers)
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
    (room, enough_bytes): (usize, usize),
    patience: Patience,
    news: &Arc<Notify>,
) -> data::FetchedPartition {
    match read(context, wanted, (room, enough_bytes), patience, news).await {
        Ok(answer) => answer,
        Err(error) => data::FetchedPartition { error: Some(error.into()), ..empty(wanted) },
    }
}

async fn read(
    context: &Context,
    wanted: &data::FetchPartition,
    (room, enough_bytes): (usize, usize),
    patience: Patience,
    news: &Arc<Notify>,
) -> Result<data::FetchedPartition, ApiError> {
    let leader_epoch = maybe_epoch("leader_epoch", wanted.leader_epoch)?;
    let last_fetched_epoch = maybe_epoch("last_fetched_epoch", wanted.last_fetched_epoch)?;
    let (at, _) = context.partition(&wanted.topic_id, wanted.partition, patience).await?;
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
    let mut answer = answer.await.map_err(|_| gone())?;
    answer.topic_id = topic_id_bytes(at.topic);
    Ok(answer)
}
