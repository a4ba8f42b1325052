//! What each listener of a broker serves, and serving it on one shard's thread. Every shard accepts on a clone of the same
//! socket, so its connections live on its own thread; a request for another shard's partition goes through that
//! shard's queue.
//!
//! Invariant: the client listener has no internal service, the internal one no application's.

use protocol::rpc::connections::Places;
use protocol::rpc::server::{self, ServerOptions};
use protocol::rpc::socket::Socket;
use std::future::Future;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

use super::admin::AdminForward;
use super::data::{DataService, NodeDataService};
use super::replication::ReplicationService;

/// Why a listener cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket.
    #[error("listener: {0}")]
    Io(#[from] std::io::Error),
    /// The layers or services.
    #[error("services: {0}")]
    Services(String),
}

/// Everything for applications.
///
/// # Errors
/// When the descriptors are not readable.
pub fn client_routes<H: Health>(
    data: DataService,
    admin: AdminForward,
    health: HealthServer<H>,
) -> Result<Routes, ListenError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(protocol::rpc::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| ListenError::Services(e.to_string()))?;
    Ok(Routes::new(health).add_service(reflection).add_service(server::data(data)).add_service(server::admin(admin)))
}

/// Everything for nodes of the cluster.
#[must_use]
pub fn internal_routes(replication: ReplicationService, data: DataService) -> Routes {
    Routes::new(server::replication(replication)).add_service(server::data(NodeDataService(data)))
}

/// Serves on this runtime until told to stop.
///
/// # Errors
/// When the listener cannot be built; afterwards problems end connections, not the listener.
pub fn serve(
    socket: &Socket,
    options: &ServerOptions,
    places: Places,
    routes: Routes,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static, ListenError> {
    let incoming = server::incoming(socket.listen()?, places);
    let mut builder = server::server(options).map_err(|e| ListenError::Services(e.to_string()))?;
    let router = builder.add_routes(routes);
    Ok(async move { router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await })
}
