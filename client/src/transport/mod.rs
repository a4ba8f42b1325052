//! Calls to nodes: the only place in the client that names tonic.
//!
//! Owns: one shared connection per node for calls, and a connection of its own for each produce stream.
//! Never: chooses a node, retries, interprets an answer.
//! Invariant: every call has a deadline; a failure keeps the effect that `protocol::rpc::convert` gives it.

mod produce;

pub(crate) use produce::ProduceStream;

use crate::config::show_address;
use parking_lot::Mutex;
use protocol::error::{ApiError, ErrorCode};
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::{self, Channel, Dialer, Traffic};
use protocol::rpc::convert::from_status;
use protocol::rpc::pb::{admin::v1 as admin, data::v1 as data};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Connections by address.
#[derive(Debug)]
pub(crate) struct Nodes {
    dialer: Dialer,
    connect_timeout: Duration,
    channels: Mutex<BTreeMap<Endpoint, Channel>>,
}

impl Nodes {
    pub(crate) fn new(dialer: Dialer, connect_timeout_ms: u64) -> Self {
        Self { dialer, connect_timeout: Duration::from_millis(connect_timeout_ms), channels: Mutex::default() }
    }

    /// A node by address. Connects at the first call, again after each loss.
    pub(crate) fn node(&self, address: &Endpoint) -> Result<Node, ApiError> {
        let mut channels = self.channels.lock();
        let channel = match channels.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = self.dialer.endpoint(address, Traffic::Data)?.connect_timeout(self.connect_timeout);
                channels.entry(address.clone()).or_insert(channel::open_lazy(&endpoint)).clone()
            }
        };
        Ok(Node { address: address.clone(), channel })
    }

    /// A connection of its own for produce requests. Failing is definite: nothing was sent.
    pub(crate) async fn produce_stream(&self, address: &Endpoint) -> Result<ProduceStream, ApiError> {
        let endpoint = self.dialer.endpoint(address, Traffic::Data)?.connect_timeout(self.connect_timeout);
        let dial = tokio::time::timeout(self.connect_timeout, channel::open(&endpoint));
        let failed = |why: &str| {
            ApiError::new(ErrorCode::NotReachable, format!("no connection to {}: {why}", show_address(address)))
        };
        match dial.await {
            Ok(Ok(channel)) => Ok(ProduceStream::open(channel)),
            Ok(Err(error)) => Err(protocol::rpc::convert::unreachable(address, &error)),
            Err(_) => Err(failed(&format!("nothing within {} ms", self.connect_timeout.as_millis()))),
        }
    }
}

/// One node, for unary calls.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    address: Endpoint,
    channel: Channel,
}

macro_rules! calls {
    ($($module:ident :: $name:ident via $client:ident ($request:ident) -> $response:ident;)*) => {
        impl Node {
            $(pub(crate) async fn $name(
                &self,
                message: $module::$request,
                within: Duration,
            ) -> Result<$module::$response, ApiError> {
                let mut client = channel::$client(self.channel.clone());
                let mut request = Request::new(message);
                request.set_timeout(within);
                self.answer(within, client.$name(request)).await
            })*
        }
    };
}

calls! {
    data::routing via data_client(RoutingRequest) -> RoutingResponse;
    data::fetch via data_client(FetchRequest) -> FetchResponse;
    data::list_offsets via data_client(ListOffsetsRequest) -> ListOffsetsResponse;
    data::delete_records via data_client(DeleteRecordsRequest) -> DeleteRecordsResponse;
    data::describe_replica via data_client(DescribeReplicaRequest) -> DescribeReplicaResponse;
    admin::create_topic via admin_client(CreateTopicRequest) -> CreateTopicResponse;
    admin::delete_topic via admin_client(DeleteTopicRequest) -> DeleteTopicResponse;
    admin::create_partitions via admin_client(CreatePartitionsRequest) -> CreatePartitionsResponse;
    admin::describe_topics via admin_client(DescribeTopicsRequest) -> DescribeTopicsResponse;
    admin::alter_configs via admin_client(AlterConfigsRequest) -> AlterConfigsResponse;
    admin::describe_configs via admin_client(DescribeConfigsRequest) -> DescribeConfigsResponse;
    admin::describe_cluster via admin_client(DescribeClusterRequest) -> DescribeClusterResponse;
    admin::describe_quorum via admin_client(DescribeQuorumRequest) -> DescribeQuorumResponse;
    admin::change_voters via admin_client(ChangeVotersRequest) -> ChangeVotersResponse;
    admin::elect_leaders via admin_client(ElectLeadersRequest) -> ElectLeadersResponse;
    admin::shutdown_broker via admin_client(ShutdownBrokerRequest) -> ShutdownBrokerResponse;
    admin::explain_partition via admin_client(ExplainPartitionRequest) -> ExplainPartitionResponse;
    admin::metadata_hash via admin_client(MetadataHashRequest) -> MetadataHashResponse;
}

impl Node {
    pub(crate) fn address(&self) -> String {
        show_address(&self.address)
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.address
    }

    async fn answer<T>(
        &self,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(within, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(from_status(&status)),
            Err(_) => {
                let text = format!("no answer from {} within {} ms", self.address(), within.as_millis());
                Err(ApiError::new(ErrorCode::Timeout, text))
            }
        }
    }
}
