//! A bare client over the generated services: no cache, no retries, no opinion. What the tests check with must not share
//! the code they check.

use bytes::Bytes;
use protocol::error::{ApiError, ErrorCode};
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::Channel;
use protocol::rpc::channel::{Dialer, Traffic, admin_client, data_client};
use protocol::rpc::convert::from_status;
use protocol::rpc::pb::admin::v1::admin_client::AdminClient;
use protocol::rpc::pb::data::v1::data_client::DataClient;
use protocol::rpc::pb::data::v1::{
    DataState, DeleteRecordsRequest, DescribeReplicaRequest, DescribeReplicaResponse, FetchPartition, FetchRequest,
    ListOffsetsPartition, ListOffsetsRequest, RoutingRequest, RoutingResponse,
};
use std::time::Duration;

/// Longest wait for one answer.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// A channel to `host:port`; connects at the first call.
///
/// # Panics
/// When the address is none.
pub fn channel(address: &str, traffic: Traffic) -> Channel {
    let (host, port) = address.rsplit_once(':').expect("host:port");
    let endpoint = Endpoint { host: host.to_owned(), port: port.parse().expect("a port") };
    Dialer::plain().lazy(&endpoint, traffic).expect("the harness's own address")
}

/// The data service of a broker.
pub fn data(address: &str) -> DataClient<Channel> {
    data_client(channel(address, Traffic::Data))
}

/// The admin service of a broker or controller.
pub fn admin(address: &str) -> AdminClient<Channel> {
    admin_client(channel(address, Traffic::Control))
}

/// Runs a call under the deadline; errors as text.
///
/// # Errors
/// The status, or "no answer".
pub async fn call<T>(answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, String> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(format!("{}: {}", status.code(), status.message())),
        Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
    }
}

/// The same with the error as it came: its code says whether anything may have happened.
///
/// # Errors
/// The status, or `Timeout`.
pub async fn ask<T>(answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, ApiError> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => Err(ApiError::new(ErrorCode::Timeout, format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

/// What one broker knows of a topic's routing.
///
/// # Errors
/// As [`call`].
pub async fn routing(address: &str, topic: &str) -> Result<RoutingResponse, String> {
    call(data(address).routing(RoutingRequest { topics: vec![topic.to_owned()], all: false })).await
}

/// What one broker says about its replica of a partition.
///
/// # Errors
/// As [`call`], and the broker's own refusal.
pub async fn replica(address: &str, topic: Bytes, partition: u32) -> Result<DescribeReplicaResponse, String> {
    let request = DescribeReplicaRequest { topic_id: topic, partition };
    let answer = call(data(address).describe_replica(request)).await?;
    match &answer.error {
        Some(error) => Err(error.message.clone()),
        None => Ok(answer),
    }
}

/// The first offset of a partition, from its leader.
///
/// # Errors
/// As [`call`], and the leader's own refusal.
pub async fn log_start(address: &str, topic: Bytes, partition: u32) -> Result<u64, String> {
    let listed = list(data(address), topic, partition, EARLIEST, None).await;
    listed.map(|(offset, _)| offset).map_err(|error| error.message)
}

/// In a list of offsets: the first one.
pub const EARLIEST: i64 = -2;

/// In a list of offsets: the high watermark.
pub const LATEST: i64 = -1;

/// An offset of a partition, and the state of the replica that told it. `epoch` is the leader epoch that the asker
/// believes in: a broker that acts in another one refuses.
///
/// # Errors
/// As [`ask`], and the leader's own refusal.
pub async fn list(
    mut client: DataClient<Channel>,
    topic: Bytes,
    partition: u32,
    timestamp_ms: i64,
    epoch: Option<u32>,
) -> Result<(u64, DataState), ApiError> {
    let leader_epoch = epoch.map_or(-1, i64::from);
    let asked = ListOffsetsPartition { topic_id: topic, partition, timestamp_ms, leader_epoch };
    let answer = ask(client.list_offsets(ListOffsetsRequest { partitions: vec![asked] })).await?;
    let listed = answer.partitions.into_iter().next().ok_or_else(|| malformed("the partition asked for"))?;
    if let Some(error) = listed.error {
        return Err(error.into());
    }
    let offset = u64::try_from(listed.offset).map_err(|_| malformed("an offset"))?;
    Ok((offset, listed.state.ok_or_else(|| malformed("the replica's state"))?))
}

/// Whole batches from an offset, and the state of the replica that gave them.
///
/// # Errors
/// As [`call`], and the leader's own refusal.
pub async fn fetch(address: &str, topic: Bytes, partition: u32, offset: u64) -> Result<(Bytes, DataState), String> {
    fetch_in(data(address), topic, partition, offset, None).await.map_err(|error| error.message)
}

/// The same, from a broker that acts in this leader epoch, if one is named.
///
/// # Errors
/// As [`ask`], and the leader's own refusal.
pub async fn fetch_in(
    mut client: DataClient<Channel>,
    topic: Bytes,
    partition: u32,
    offset: u64,
    epoch: Option<u32>,
) -> Result<(Bytes, DataState), ApiError> {
    let asked = FetchPartition {
        topic_id: topic,
        partition,
        offset,
        max_bytes: 1 << 20,
        leader_epoch: epoch.map_or(-1, i64::from),
        last_fetched_epoch: -1,
    };
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 1 << 20,
        partitions: vec![asked],
        cluster_id: Bytes::new(),
    };
    let answer = ask(client.fetch(request)).await?;
    let fetched = answer.partitions.into_iter().next().ok_or_else(|| malformed("the partition asked for"))?;
    if let Some(error) = fetched.error {
        return Err(error.into());
    }
    let state = fetched.state.ok_or_else(|| malformed("the replica's state"))?;
    Ok((fetched.batches, state))
}

/// Removes what lies below an offset; where the log begins now, and who says so.
///
/// # Errors
/// As [`ask`], and the leader's own refusal.
pub async fn delete_records(
    address: &str,
    topic: Bytes,
    partition: u32,
    before: u64,
) -> Result<(u64, DataState), ApiError> {
    let before_offset = i64::try_from(before).unwrap_or(i64::MAX);
    let timeout_ms = u32::try_from(DEADLINE.as_millis()).unwrap_or(u32::MAX);
    let request = DeleteRecordsRequest { topic_id: topic, partition, before_offset, timeout_ms };
    let answer = ask(data(address).delete_records(request)).await?;
    match answer.error {
        Some(error) => Err(error.into()),
        None => Ok((answer.log_start, answer.state.ok_or_else(|| malformed("the replica's state"))?)),
    }
}

fn malformed(without: &str) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("an answer without {without}"))
}
