//! Listening: the one place where servers get their limits and layers: deadline, concurrency limit, load shed, trace,
//! HTTP/2 bounds, message sizes per service. It knows no service's meaning. Why here: tonic limits neither streams, calls,
//! resets nor time unless told, and one forgotten listener is the one that is attacked.

use super::connections::{Incoming, Places};
use super::pb;
use super::socket::Listener;
use crate::limits as l;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};
use tower::limit::GlobalConcurrencyLimitLayer;

/// The builder every listener starts from.
pub type LayeredServer = Server<Stack<GlobalConcurrencyLimitLayer, Identity>>;

/// Changes the server before layers are added, for example to add TLS.
pub type ServerHook = Arc<dyn Fn(Server) -> Result<Server, tonic::transport::Error> + Send + Sync>;

/// Bounds of one listener.
#[derive(Clone)]
pub struct ServerOptions {
    /// HTTP/2 streams open at once per connection.
    pub streams: u32,
    /// Calls worked on at once by the whole listener; more are shed as `Overloaded`.
    pub calls: usize,
    /// Longest work on one unary call, or on a stream's head.
    pub deadline: Duration,
    /// HTTP/2 window per stream, bytes.
    pub stream_window: u32,
    /// HTTP/2 window per connection, bytes.
    pub connection_window: u32,
    /// TLS enters here.
    pub hook: Option<ServerHook>,
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions")
            .field("streams", &self.streams)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl ServerOptions {
    /// A listener for nodes that carries commands only: controllers.
    #[must_use]
    pub fn control() -> Self {
        Self {
            streams: l::NODE_STREAMS_MAX,
            stream_window: l::CONTROL_WINDOW_BYTES,
            connection_window: l::CONTROL_WINDOW_BYTES,
            ..Self::client()
        }
    }

    /// A broker's listener for nodes: replication.
    #[must_use]
    pub fn internal() -> Self {
        Self { streams: l::NODE_STREAMS_MAX, ..Self::client() }
    }

    /// A broker's listener for applications.
    #[must_use]
    pub fn client() -> Self {
        Self {
            streams: l::CLIENT_STREAMS_MAX,
            calls: l::CALLS_IN_FLIGHT_MAX,
            deadline: Duration::from_millis(l::SERVER_DEADLINE_MS),
            stream_window: l::STREAM_WINDOW_BYTES,
            connection_window: l::CONNECTION_WINDOW_BYTES,
            hook: None,
        }
    }

    /// The same with a hook.
    #[must_use]
    pub fn with_hook(mut self, hook: ServerHook) -> Self {
        self.hook = Some(hook);
        self
    }
}

/// A server with every layer and limit; the caller adds services and serves it on [`incoming`] connections. Build it once
/// per listener: the limit on calls is shared by its clones.
///
/// # Errors
/// What the hook refuses, for example unreadable certificates.
pub fn server(options: &ServerOptions) -> Result<LayeredServer, tonic::transport::Error> {
    let base = match &options.hook {
        Some(hook) => hook(Server::builder())?,
        None => Server::builder(),
    };
    let interval = Duration::from_millis(l::KEEPALIVE_INTERVAL_MS);
    Ok(base
        .load_shed(true)
        .timeout(options.deadline)
        .trace_fn(|request| tracing::debug_span!("rpc", method = %request.uri().path()))
        .max_concurrent_streams(options.streams)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .max_frame_size(l::FRAME_BYTES_MAX)
        .http2_max_header_list_size(l::HEADER_LIST_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(l::PENDING_RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(l::LOCAL_RESETS_MAX))
        .http2_keepalive_interval(Some(interval))
        .http2_keepalive_timeout(Some(Duration::from_millis(l::KEEPALIVE_TIMEOUT_MS)))
        .layer(GlobalConcurrencyLimitLayer::new(options.calls)))
}

/// Binds a listening socket now, so that a taken port is an error at start and not a silent retry.
///
/// # Errors
/// The operating system's, for example `AddrInUse`.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Accepted connections of a bound socket, as many as there are places.
#[must_use]
pub fn incoming(listener: impl Into<Listener>, places: Places) -> Incoming {
    Incoming::new(listener.into(), places)
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident: $trait:path => $server:ident, $receive:expr, $send:expr;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name<T: $trait>(service: T) -> $server<T> {
            $server::new(service).max_decoding_message_size($receive).max_encoding_message_size($send)
        })*
    };
}

use pb::admin::v1::admin_server::AdminServer;
use pb::data::v1::data_server::DataServer;
use pb::lifecycle::v1::lifecycle_server::LifecycleServer;
use pb::metadata::v1::metadata_server::MetadataServer;
use pb::raft::v1::raft_server::RaftServer;
use pb::replication::v1::replication_server::ReplicationServer;

services! {
    /// Raft between controllers, under its message limits.
    raft: pb::raft::v1::raft_server::Raft => RaftServer, l::RAFT_MESSAGE_BYTES_MAX, l::RAFT_MESSAGE_BYTES_MAX;
    /// The metadata feed, under its message limits.
    metadata: pb::metadata::v1::metadata_server::Metadata => MetadataServer, l::FEED_MESSAGE_BYTES_MAX, l::FEED_MESSAGE_BYTES_MAX;
    /// Broker to controller, under its message limits.
    lifecycle: pb::lifecycle::v1::lifecycle_server::Lifecycle => LifecycleServer, l::LIFECYCLE_MESSAGE_BYTES_MAX, l::LIFECYCLE_MESSAGE_BYTES_MAX;
    /// Follower to leader, under its message limits.
    replication: pb::replication::v1::replication_server::Replication => ReplicationServer, l::PRODUCE_MESSAGE_BYTES_MAX, l::PRODUCE_MESSAGE_BYTES_MAX;
    /// Application to broker, under its message limits.
    data: pb::data::v1::data_server::Data => DataServer, l::PRODUCE_MESSAGE_BYTES_MAX, l::FETCH_MESSAGE_BYTES_MAX;
    /// Administration, under its message limits.
    admin: pb::admin::v1::admin_server::Admin => AdminServer, l::ADMIN_REQUEST_BYTES_MAX, l::ADMIN_RESPONSE_BYTES_MAX;
}

#[cfg(test)]
mod tests;
