//! List offsets, delete records, describe: one question to one shard each.

use protocol::error::{ApiError, ErrorCode};
use protocol::rpc::convert::{maybe_epoch, maybe_number};
use protocol::rpc::pb::data::v1 as data;
use std::time::Duration;
use tokio::sync::oneshot;

use super::{Context, gone};
use crate::limits;
use crate::shard::message::{DeleteRecords, ListOffset, Request};

/// Answers a list-offsets request; errors stand beside their partitions.
///
/// # Errors
/// Of the whole request only.
pub async fn list(context: &Context, request: data::ListOffsetsRequest) -> Result<data::ListOffsetsResponse, ApiError> {
    let count = request.partitions.len();
    if count > limits::FETCH_PARTITIONS_MAX {
        return Err(ApiError::bad(ErrorCode::InvalidRequest, "partitions", count, limits::FETCH_PARTITIONS_MAX));
    }
    let mut partitions = Vec::with_capacity(count);
    for wanted in request.partitions {
        let (topic_id, partition) = (wanted.topic_id.clone(), wanted.partition);
        let answer = list_one(context, wanted).await.unwrap_or_else(|error| data::ListedOffset {
            topic_id,
            partition,
            error: Some(error.into()),
            offset: -1,
            timestamp_ms: -1,
            state: None,
        });
        partitions.push(answer);
    }
    Ok(data::ListOffsetsResponse { partitions })
}

async fn list_one(context: &Context, wanted: data::ListOffsetsPartition) -> Result<data::ListedOffset, ApiError> {
    let leader_epoch = maybe_epoch("leader_epoch", wanted.leader_epoch)?;
    if wanted.timestamp_ms < -2 {
        let limit = "-1 latest, -2 earliest, or ms since 1970";
        return Err(ApiError::bad(ErrorCode::InvalidRequest, "timestamp_ms", wanted.timestamp_ms, limit));
    }
    let (at, _) = context.partition(&wanted.topic_id, wanted.partition).await?;
    let (reply, answer) = oneshot::channel();
    let list = ListOffset { at, timestamp_ms: wanted.timestamp_ms, leader_epoch, reply };
    context.shards.of(at).request(Request::ListOffset(list)).await;
    answer.await.map_err(|_| gone())
}

/// Answers a delete-records request.
pub async fn delete(context: &Context, request: data::DeleteRecordsRequest) -> data::DeleteRecordsResponse {
    match delete_one(context, request).await {
        Ok((log_start, state)) => data::DeleteRecordsResponse { error: None, log_start, state: Some(state) },
        Err(error) => data::DeleteRecordsResponse { error: Some(error.into()), log_start: 0, state: None },
    }
}

async fn delete_one(
    context: &Context,
    request: data::DeleteRecordsRequest,
) -> Result<(u64, data::DataState), ApiError> {
    let before = maybe_number("before_offset", request.before_offset)?;
    let (at, _) = context.partition(&request.topic_id, request.partition).await?;
    let (reply, answer) = oneshot::channel();
    context.shards.of(at).request(Request::DeleteRecords(DeleteRecords { at, before, reply })).await;
    let patience = u64::from(request.timeout_ms).clamp(1, limits::PRODUCE_TIMEOUT_MS_MAX);
    match tokio::time::timeout(Duration::from_millis(patience), answer).await {
        Ok(answer) => answer.map_err(|_| gone())?,
        Err(_) => Err(ApiError::new(ErrorCode::Timeout, "the records may be deleted later")),
    }
}

/// Describes this broker's replica of a partition.
pub async fn describe(context: &Context, request: data::DescribeReplicaRequest) -> data::DescribeReplicaResponse {
    let described = async {
        let (at, _) = context.partition(&request.topic_id, request.partition).await?;
        let (reply, answer) = oneshot::channel();
        context.shards.of(at).request(Request::Describe { at, reply }).await;
        answer.await.map_err(|_| gone())
    };
    described.await.unwrap_or_else(|error| data::DescribeReplicaResponse {
        error: Some(error.into()),
        node_id: context.me.0,
        ..Default::default()
    })
}
