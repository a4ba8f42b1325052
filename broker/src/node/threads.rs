//! Shard threads: each has a runtime of its own on which its listeners, its connections and its loop live.

use protocol::ids::BrokerId;
use protocol::limits::{CLIENT_CONNECTIONS_MAX, NODE_CONNECTIONS_MAX};
use protocol::machine::Worker;
use protocol::rpc::connections::Places;
use protocol::rpc::server::ServerOptions;
use protocol::rpc::socket::Socket;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

use super::{Shared, Sockets, StartError};
use crate::fatal::AbortOnPanic;
use crate::handlers::Context;
use crate::rpc::admin::AdminForward;
use crate::rpc::data::DataService;
use crate::rpc::listen::{client_routes, internal_routes, serve};
use crate::rpc::replication::ReplicationService;
use crate::shard::{Shard, ShardParts};

/// What every shard listens on.
#[derive(Clone)]
pub(super) struct Listening {
    client: Arc<Socket>,
    internal: Arc<Socket>,
    client_places: Places,
    internal_places: Places,
    client_routes: Routes,
    internal_routes: Routes,
    stop: CancellationToken,
}

impl Listening {
    pub(super) fn new<H: Health>(
        me: BrokerId,
        context: Context,
        shared: &Shared,
        sockets: &Sockets,
        health: HealthServer<H>,
    ) -> Result<Self, StartError> {
        let data = DataService::new(context);
        let admin = AdminForward::new(shared.controllers.clone(), tokio::runtime::Handle::current());
        let replication = ReplicationService::new(me, shared.images.clone(), shared.shards.clone());
        let clients = client_routes(data.clone(), admin, health);
        Ok(Self {
            client: Arc::new(sockets.client.try_clone().map_err(StartError::build("client listener"))?),
            internal: Arc::new(sockets.internal.try_clone().map_err(StartError::build("internal listener"))?),
            client_places: Places::new("client", CLIENT_CONNECTIONS_MAX),
            internal_places: Places::new("internal", NODE_CONNECTIONS_MAX),
            client_routes: clients.map_err(|e| StartError::Build { what: "client services", reason: e.to_string() })?,
            internal_routes: internal_routes(replication, data),
            stop: shared.stop.clone(),
        })
    }

    /// Starts both listeners on the runtime of this thread.
    fn start(self) -> Result<(), StartError> {
        let built = |e: crate::rpc::listen::ListenError| StartError::Build { what: "listener", reason: e.to_string() };
        let (client, internal) = (ServerOptions::client(), ServerOptions::internal());
        let clients = serve(&self.client, &client, self.client_places, self.client_routes, self.stop.clone());
        let nodes = serve(&self.internal, &internal, self.internal_places, self.internal_routes, self.stop);
        for server in [boxed(clients.map_err(built)?), boxed(nodes.map_err(built)?)] {
            tokio::spawn(async move {
                if let Err(error) = server.await {
                    tracing::error!(%error, "a listener ended");
                }
            });
        }
        Ok(())
    }
}

type Server = std::pin::Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>>;

fn boxed(server: impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static) -> Server {
    Box::pin(server)
}

/// One shard, about to run.
pub(super) struct ShardThread {
    pub(super) parts: ShardParts,
    pub(super) listening: Listening,
}

impl ShardThread {
    /// Returns once it listens.
    pub(super) fn start(self) -> Result<Worker, StartError> {
        let Self { parts, listening } = self;
        Worker::start(&format!("shard-{}", parts.index), move || {
            listening.start()?;
            Ok(async move {
                // A shard that has stopped without the others would leave partitions that nobody answers for.
                let _guard = AbortOnPanic;
                Shard::new(parts).run().await;
            })
        })
    }
}
