//! List offsets, delete records, describe: one question to one shard each.

use protocol::error::{ApiError, ErrorCode};
use protocol::ids::TopicPartition;
use protocol::rpc::convert::{maybe_epoch, maybe_number};
use protocol::rpc::pb::data::v1 as data;
use std::time::Duration;
use tokio::sync::oneshot;

use super::{Context, Patience, check_leaving, gone};
use crate::clock;
use crate::limits;
use crate::replica::lease::{Lease, Now};
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
    let patience = Patience::of_a_request();
    let (mut partitions, mut leases) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let found = context.partitions(request.partitions.iter().map(|p| (&p.topic_id[..], p.partition)), patience).await;
    for (wanted, at) in request.partitions.into_iter().zip(found) {
        let answer = match at {
            Ok(at) => list_one(context, &wanted, at).await,
            Err(error) => Err(error),
        };
        let (answer, lease) = answer.unwrap_or_else(|error| {
            let (topic_id, partition) = (wanted.topic_id, wanted.partition);
            let (error, offset, timestamp_ms) = (Some(error.into()), -1, -1);
            (data::ListedOffset { topic_id, partition, error, offset, timestamp_ms, state: None }, Lease::NONE)
        });
        partitions.push(answer);
        leases.push(lease);
    }
    // Other partitions were asked meanwhile: each offset is what a leader said that may no longer lead.
    let leaving = context.leaving();
    partitions.iter_mut().zip(leases).for_each(|(answer, lease)| leave(&leaving(lease), answer));
    Ok(data::ListOffsetsResponse { partitions })
}

fn leave(now: &Now, answer: &mut data::ListedOffset) {
    if check_leaving(now, &mut answer.state, &mut answer.error) {
        (answer.offset, answer.timestamp_ms) = (-1, -1);
    }
}

async fn list_one(
    context: &Context,
    wanted: &data::ListOffsetsPartition,
    at: TopicPartition,
) -> Result<(data::ListedOffset, Lease), ApiError> {
    let leader_epoch = maybe_epoch("leader_epoch", wanted.leader_epoch)?;
    if wanted.timestamp_ms < -2 {
        let limit = "-1 latest, -2 earliest, or ms since 1970";
        return Err(ApiError::bad(ErrorCode::InvalidRequest, "timestamp_ms", wanted.timestamp_ms, limit));
    }
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
    let (at, _) = context.partition(&request.topic_id, request.partition, Patience::of_a_request()).await?;
    let (reply, answer) = oneshot::channel();
    let patience = u64::from(request.timeout_ms).clamp(1, limits::PRODUCE_TIMEOUT_MS_MAX);
    let deadline = clock::now() + patience;
    context.shards.of(at).request(Request::DeleteRecords(DeleteRecords { at, before, deadline, reply })).await;
    match tokio::time::timeout(Duration::from_millis(patience), answer).await {
        Ok(answer) => answer.map_err(|_| gone())?,
        Err(_) => Err(ApiError::new(ErrorCode::Timeout, "the records may be deleted later")),
    }
}

/// Describes this broker's replica of a partition.
pub async fn describe(context: &Context, request: data::DescribeReplicaRequest) -> data::DescribeReplicaResponse {
    let described = async {
        let (at, _) = context.partition(&request.topic_id, request.partition, Patience::of_a_request()).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_does_not_leave_after_the_lease_and_its_grace() {
        let listed = || data::ListedOffset { offset: 7, state: Some(data::DataState::default()), ..Default::default() };
        let lease = Lease { valid_until: 400, grace_until: 1_000 };
        let at = |at| {
            let mut answer = listed();
            leave(&Now { at, lease }, &mut answer);
            let state = answer.state.expect("it stays");
            (answer.offset, state.unleased, answer.error.map(|e| ErrorCode::from_wire(e.code)))
        };
        assert_eq!(at(399), (7, false, None));
        assert_eq!(at(400), (7, true, None));
        assert_eq!(at(1_000), (-1, true, Some(ErrorCode::LeaseExpired)));
    }
}
