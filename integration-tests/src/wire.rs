//! A bare client over the generated services: no cache, no retries, no opinion. What the tests check with must not share
//! the code they check.

use bytes::Bytes;
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::Channel;
use protocol::rpc::channel::{Dialer, Traffic, admin_client, data_client};
use protocol::rpc::pb::admin::v1::admin_client::AdminClient;
use protocol::rpc::pb::data::v1::data_client::DataClient;
use protocol::rpc::pb::data::v1::{
    DescribeReplicaRequest, DescribeReplicaResponse, FetchPartition, FetchRequest, ListOffsetsPartition,
    ListOffsetsRequest, RoutingRequest, RoutingResponse,
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
    let asked = ListOffsetsPartition { topic_id: topic, partition, timestamp_ms: -2, leader_epoch: -1 };
    let answer = call(data(address).list_offsets(ListOffsetsRequest { partitions: vec![asked] })).await?;
    let listed = answer.partitions.into_iter().next().ok_or("an answer without the partition asked for")?;
    match listed.error {
        Some(error) => Err(error.message),
        None => u64::try_from(listed.offset).map_err(|_| format!("log start {}", listed.offset)),
    }
}

/// Whole batches from an offset, and the high watermark: `(bytes, high watermark)`.
///
/// # Errors
/// As [`call`], and the leader's own refusal.
pub async fn fetch(address: &str, topic: Bytes, partition: u32, offset: u64) -> Result<(Bytes, i64), String> {
    let asked = FetchPartition {
        topic_id: topic,
        partition,
        offset,
        max_bytes: 1 << 20,
        leader_epoch: -1,
        last_fetched_epoch: -1,
    };
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 0,
        max_bytes: 1 << 20,
        partitions: vec![asked],
        cluster_id: Bytes::new(),
    };
    let answer = call(data(address).fetch(request)).await?;
    let fetched = answer.partitions.into_iter().next().ok_or("an answer without the partition asked for")?;
    if let Some(error) = fetched.error {
        return Err(error.message);
    }
    let state = fetched.state.ok_or("an answer without the replica's state")?;
    Ok((fetched.batches, state.high_watermark))
}
