//! Administration through a broker: every call goes unchanged to the active controller, and its answer unchanged back.
//!
//! Why: an application needs one address only. Never: reads or answers a command itself.
//! Invariant: a command whose outcome is unknown is not sent twice.

use protocol::error::{ApiError, ErrorCode};
use protocol::rpc::channel::admin_client;
use protocol::rpc::convert::status;
use protocol::rpc::pb::admin::v1::admin_server::Admin;
use protocol::rpc::pb::admin::v1::*;
use std::time::Duration;
use tokio::runtime::Handle;
use tonic::{Request, Response, Status};

use crate::limits::ADMIN_DEADLINE_MS;
use crate::link::{CallOptions, Controllers, Repeat};

/// The forwarding service.
#[derive(Debug, Clone)]
pub struct AdminForward {
    controllers: Controllers,
    control: Handle,
}

impl AdminForward {
    /// Forwards to whichever controller is active. Calls run on `control`, so that the connections which ISR changes
    /// share do not live on a shard's thread.
    #[must_use]
    pub fn new(controllers: Controllers, control: Handle) -> Self {
        Self { controllers, control }
    }
}

/// The control runtime ended while the command was under way.
fn stopping() -> ApiError {
    ApiError::new(ErrorCode::OutcomeUnknown, "this broker is stopping: the command may have taken effect")
}

fn command() -> CallOptions {
    CallOptions::command(Repeat::OnlyIfRefused, Duration::from_millis(ADMIN_DEADLINE_MS))
}

fn lookup() -> CallOptions {
    CallOptions::command(Repeat::Harmless, Duration::from_millis(ADMIN_DEADLINE_MS))
}

fn question() -> CallOptions {
    CallOptions::question(Duration::from_millis(ADMIN_DEADLINE_MS))
}

macro_rules! forward {
    ($($method:ident: $request:ty => $response:ty, $options:expr;)*) => {
        #[tonic::async_trait]
        impl Admin for AdminForward {
            $(async fn $method(&self, request: Request<$request>) -> Result<Response<$response>, Status> {
                let (message, controllers) = (request.into_inner(), self.controllers.clone());
                let forwarded = self.control.spawn(async move {
                    let operation = |channel| {
                        let (mut client, message) = (admin_client(channel), message.clone());
                        async move { client.$method(message).await }
                    };
                    controllers.call($options, operation).await
                });
                forwarded.await.unwrap_or_else(|_| Err(stopping())).map(Response::new).map_err(status)
            })*
        }
    };
}

forward! {
    create_topic: CreateTopicRequest => CreateTopicResponse, command();
    delete_topic: DeleteTopicRequest => DeleteTopicResponse, command();
    create_partitions: CreatePartitionsRequest => CreatePartitionsResponse, command();
    describe_topics: DescribeTopicsRequest => DescribeTopicsResponse, lookup();
    alter_configs: AlterConfigsRequest => AlterConfigsResponse, command();
    describe_configs: DescribeConfigsRequest => DescribeConfigsResponse, lookup();
    describe_cluster: DescribeClusterRequest => DescribeClusterResponse, lookup();
    describe_quorum: DescribeQuorumRequest => DescribeQuorumResponse, question();
    change_voters: ChangeVotersRequest => ChangeVotersResponse, command();
    elect_leaders: ElectLeadersRequest => ElectLeadersResponse, command();
    shutdown_broker: ShutdownBrokerRequest => ShutdownBrokerResponse, command();
    explain_partition: ExplainPartitionRequest => ExplainPartitionResponse, lookup();
    metadata_hash: MetadataHashRequest => MetadataHashResponse, question();
}
