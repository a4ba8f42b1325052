//! Limits of a listener over real loopback connections: shed, late, too large, missing, unreachable.

use super::*;
use crate::error::{ApiError, Effect, ErrorCode};
use crate::limits as l;
use crate::metadata::record::Endpoint;
use crate::rpc::channel::{Dialer, Traffic, admin_client};
use crate::rpc::convert::from_status;
use pb::admin::v1 as admin_pb;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};
use tonic::{Request, Response, Status};

/// Answers `MetadataHash` once the gate opens; every other call is refused as not implemented.
struct Gated {
    entered: Arc<Notify>,
    gate: Arc<Semaphore>,
}

macro_rules! gated {
    ($($name:ident: $request:ident -> $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl admin_pb::admin_server::Admin for Gated {
            async fn metadata_hash(
                &self,
                _: Request<admin_pb::MetadataHashRequest>,
            ) -> Result<Response<admin_pb::MetadataHashResponse>, Status> {
                self.entered.notify_one();
                let _permit = self.gate.acquire().await.map_err(|_| Status::internal("closed"))?;
                Ok(Response::new(admin_pb::MetadataHashResponse { node_id: 7, ..Default::default() }))
            }

            $(async fn $name(
                &self,
                _: Request<admin_pb::$request>,
            ) -> Result<Response<admin_pb::$response>, Status> {
                Err(ApiError::bad(ErrorCode::InvalidName, "name", "a b", "letters").into())
            })*
        }
    };
}

gated!(
    create_topic: CreateTopicRequest -> CreateTopicResponse,
    delete_topic: DeleteTopicRequest -> DeleteTopicResponse,
    create_partitions: CreatePartitionsRequest -> CreatePartitionsResponse,
    describe_topics: DescribeTopicsRequest -> DescribeTopicsResponse,
    alter_configs: AlterConfigsRequest -> AlterConfigsResponse,
    describe_configs: DescribeConfigsRequest -> DescribeConfigsResponse,
    describe_cluster: DescribeClusterRequest -> DescribeClusterResponse,
    describe_quorum: DescribeQuorumRequest -> DescribeQuorumResponse,
    change_voters: ChangeVotersRequest -> ChangeVotersResponse,
    elect_leaders: ElectLeadersRequest -> ElectLeadersResponse,
    shutdown_broker: ShutdownBrokerRequest -> ShutdownBrokerResponse,
    explain_partition: ExplainPartitionRequest -> ExplainPartitionResponse,
);

struct Running {
    address: Endpoint,
    entered: Arc<Notify>,
    gate: Arc<Semaphore>,
}

async fn start(options: ServerOptions) -> Running {
    let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let (entered, gate) = (Arc::new(Notify::new()), Arc::new(Semaphore::new(0)));
    let service = admin(Gated { entered: entered.clone(), gate: gate.clone() });
    let mut builder = server(&options).expect("no hook, no refusal");
    let serving = builder.add_service(service).serve_with_incoming(incoming(listener, Places::new("test", 16)));
    tokio::spawn(serving);
    Running { address: Endpoint { host: "127.0.0.1".to_owned(), port }, entered, gate }
}

async fn hash(channel: crate::rpc::channel::Channel) -> Result<u32, ApiError> {
    let answer = admin_client(channel).metadata_hash(admin_pb::MetadataHashRequest {}).await;
    answer.map(|r| r.into_inner().node_id).map_err(|s| from_status(&s))
}

#[tokio::test]
async fn calls_over_the_limit_are_shed_as_definite_refusals_even_on_other_connections() {
    let running = start(ServerOptions { calls: 1, ..ServerOptions::control() }).await;
    let dialer = Dialer::plain();
    let first = dialer.connect(&running.address, Traffic::Control).await.expect("it listens");
    let second = dialer.connect(&running.address, Traffic::Control).await.expect("it listens");
    let held = tokio::spawn(hash(first));
    running.entered.notified().await;
    let refused = hash(second.clone()).await.expect_err("the only place is taken");
    assert_eq!((refused.code, refused.code.effect()), (ErrorCode::Overloaded, Effect::None));
    running.gate.add_permits(2);
    assert_eq!(held.await.expect("the call does not panic"), Ok(7));
    assert_eq!(hash(second).await, Ok(7), "the place is free again");
}

#[tokio::test]
async fn a_call_past_the_deadline_ends_as_an_unknown_outcome() {
    let options = ServerOptions { deadline: Duration::from_millis(20), ..ServerOptions::control() };
    let running = start(options).await;
    let channel = Dialer::plain().lazy(&running.address, Traffic::Control).expect("a legal address");
    let error = hash(channel).await.expect_err("the gate never opens");
    assert_eq!((error.code, error.code.effect()), (ErrorCode::Timeout, Effect::Unknown));
}

#[tokio::test]
async fn a_typed_refusal_arrives_whole() {
    let running = start(ServerOptions::client()).await;
    let channel = Dialer::plain().connect(&running.address, Traffic::Data).await.expect("it listens");
    let status =
        admin_client(channel).create_topic(admin_pb::CreateTopicRequest::default()).await.expect_err("refused");
    assert_eq!(from_status(&status), ApiError::bad(ErrorCode::InvalidName, "name", "a b", "letters"));
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn a_service_that_the_listener_does_not_have_is_a_definite_refusal() {
    let running = start(ServerOptions::client()).await;
    let channel = Dialer::plain().connect(&running.address, Traffic::Control).await.expect("it listens");
    let request = pb::metadata::v1::FollowRequest::default();
    let status = crate::rpc::channel::metadata_client(channel).follow(request).await.expect_err("no such service");
    assert_eq!(from_status(&status).code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_definite_refusal_both_ways() {
    let free = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("loopback has a free port");
    let port = free.local_addr().expect("a bound socket has an address").port();
    drop(free);
    let address = Endpoint { host: "127.0.0.1".to_owned(), port };
    let dialled = Dialer::plain().connect(&address, Traffic::Control).await.expect_err("nobody listens");
    assert_eq!(dialled.code, ErrorCode::NotReachable);
    assert!(dialled.message.contains(&port.to_string()), "{dialled}");
    let lazy = Dialer::plain().lazy(&address, Traffic::Control).expect("a legal address");
    assert_eq!(hash(lazy).await.expect_err("nobody listens").code, ErrorCode::NotReachable);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_before_the_handler() {
    let running = start(ServerOptions::control()).await;
    let channel = Dialer::plain().connect(&running.address, Traffic::Control).await.expect("it listens");
    let mut client = admin_client(channel).max_encoding_message_size(usize::MAX);
    let request = admin_pb::DeleteTopicRequest { name: "x".repeat(l::ADMIN_REQUEST_BYTES_MAX + 1) };
    let status = client.delete_topic(request).await.expect_err("too large");
    assert_ne!(from_status(&status).code, ErrorCode::InvalidName, "the handler never saw it");
}

#[tokio::test]
async fn a_taken_port_is_an_error_at_bind() {
    let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("loopback has a free port");
    let address = first.local_addr().expect("a bound socket has an address");
    assert_eq!(bind(address).await.expect_err("taken").kind(), io::ErrorKind::AddrInUse);
}
