//! Dialling: the one place where client sides get their HTTP/2 and TCP settings, message sizes included. It never retries
//! and never picks a node; callers do. Why here: tonic's defaults (64 KiB windows, 16 KiB frames, no keep-alive) cost half
//! the throughput and leave streams hanging on a cut network.

use super::pb;
use crate::error::{ApiError, ErrorCode};
use crate::limits as l;
use crate::metadata::record::Endpoint as Address;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Endpoint;

pub use super::guard::Channel;
use super::guard::guarded;
#[cfg(feature = "simulation")]
use crate::machine;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Commands, heartbeats, Raft, the feed: small windows.
    Control,
    /// Record batches: large windows and frames.
    Data,
}

/// Changes an endpoint before it is dialled, for example to add TLS.
pub type EndpointHook = Arc<dyn Fn(Endpoint) -> Result<Endpoint, tonic::transport::Error> + Send + Sync>;

/// Dials with the shared settings. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    scheme: &'static str,
    hook: Option<EndpointHook>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("scheme", &self.scheme).field("hook", &self.hook.is_some()).finish()
    }
}

impl Dialer {
    /// Plain text.
    #[must_use]
    pub fn plain() -> Self {
        Self { scheme: "http", hook: None }
    }

    /// Encrypted: `hook` puts the TLS settings on each endpoint.
    #[must_use]
    pub fn tls(hook: EndpointHook) -> Self {
        Self { scheme: "https", hook: Some(hook) }
    }

    /// The endpoint of a node, with every setting.
    ///
    /// # Errors
    /// `InvalidRequest` naming host and port when they make no address.
    pub fn endpoint(&self, address: &Address, traffic: Traffic) -> Result<Endpoint, ApiError> {
        let host = &address.host;
        let authority = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let bad = |e: tonic::transport::Error| {
            let value = format!("{host}:{}", address.port);
            ApiError::bad(ErrorCode::InvalidRequest, "address", value, format!("host:port ({e})"))
        };
        let uri = format!("{}://{authority}:{}", self.scheme, address.port);
        let endpoint = settings(Endpoint::from_shared(uri).map_err(bad)?, traffic);
        match &self.hook {
            Some(hook) => hook(endpoint).map_err(bad),
            None => Ok(endpoint),
        }
    }

    /// A channel that connects at its first call and again after each loss.
    ///
    /// # Errors
    /// See [`Self::endpoint`].
    pub fn lazy(&self, address: &Address, traffic: Traffic) -> Result<Channel, ApiError> {
        Ok(open_lazy(&self.endpoint(address, traffic)?))
    }

    /// A connected channel. A failure to connect is definite: nothing was sent.
    ///
    /// # Errors
    /// `NotReachable` when no connection came about within [`l::CONNECT_TIMEOUT_MS`].
    pub async fn connect(&self, address: &Address, traffic: Traffic) -> Result<Channel, ApiError> {
        let connected = open(&self.endpoint(address, traffic)?).await;
        connected.map_err(|e| super::convert::unreachable(address, &e))
    }
}

/// A channel to an endpoint of [`Dialer::endpoint`] that connects at its first call and again after each loss.
#[must_use]
pub fn open_lazy(endpoint: &Endpoint) -> Channel {
    #[cfg(feature = "simulation")]
    if let Some(machine) = machine::simulated() {
        return guarded(endpoint.connect_with_connector_lazy(simulation::connector(machine)));
    }
    guarded(endpoint.connect_lazy())
}

/// A connected channel to an endpoint of [`Dialer::endpoint`].
///
/// # Errors
/// When no connection came about.
pub async fn open(endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
    #[cfg(feature = "simulation")]
    if let Some(machine) = machine::simulated() {
        return endpoint.connect_with_connector(simulation::connector(machine)).await.map(guarded);
    }
    endpoint.connect().await.map(guarded)
}

#[cfg(feature = "simulation")]
mod simulation {
    use crate::machine::{Later, Machine, Wire};
    use hyper_util::rt::TokioIo;
    use std::io;
    use std::sync::Arc;
    use tonic::codegen::http::Uri;
    use tower::Service;

    type Io = TokioIo<Box<dyn Wire>>;

    /// Connects through the machine's network.
    pub(super) fn connector(
        machine: Arc<dyn Machine>,
    ) -> impl Service<Uri, Response = Io, Error = io::Error, Future = Later<io::Result<Io>>> + Send + 'static {
        tower::service_fn(move |uri: Uri| -> Later<io::Result<Io>> {
            let connecting = machine.connect(uri.host().unwrap_or_default(), uri.port_u16().unwrap_or_default());
            Box::pin(async move { connecting.await.map(TokioIo::new) })
        })
    }
}

fn settings(endpoint: Endpoint, traffic: Traffic) -> Endpoint {
    let (stream, connection) = match traffic {
        Traffic::Control => (l::CONTROL_WINDOW_BYTES, l::CONTROL_WINDOW_BYTES),
        Traffic::Data => (l::STREAM_WINDOW_BYTES, l::CONNECTION_WINDOW_BYTES),
    };
    endpoint
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_millis(l::TCP_KEEPALIVE_MS)))
        .connect_timeout(Duration::from_millis(l::CONNECT_TIMEOUT_MS))
        .http2_keep_alive_interval(Duration::from_millis(l::KEEPALIVE_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(l::KEEPALIVE_TIMEOUT_MS))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        .max_frame_size(l::FRAME_BYTES_MAX)
        .http2_max_header_list_size(l::HEADER_LIST_BYTES_MAX)
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $client:ty, $send:expr, $receive:expr;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(channel: Channel) -> $client {
            <$client>::new(channel).max_encoding_message_size($send).max_decoding_message_size($receive)
        })*
    };
}

clients! {
    /// Raft between controllers, under its message limit.
    raft_client: pb::raft::v1::raft_client::RaftClient<Channel>, l::RAFT_MESSAGE_BYTES_MAX, l::RAFT_MESSAGE_BYTES_MAX;
    /// The metadata feed, under its message limit.
    metadata_client: pb::metadata::v1::metadata_client::MetadataClient<Channel>, l::FEED_MESSAGE_BYTES_MAX, l::FEED_MESSAGE_BYTES_MAX;
    /// Broker to controller, under its message limit.
    lifecycle_client: pb::lifecycle::v1::lifecycle_client::LifecycleClient<Channel>, l::LIFECYCLE_MESSAGE_BYTES_MAX, l::LIFECYCLE_MESSAGE_BYTES_MAX;
    /// Follower to leader, under its message limit.
    replication_client: pb::replication::v1::replication_client::ReplicationClient<Channel>, l::PRODUCE_MESSAGE_BYTES_MAX, l::PRODUCE_MESSAGE_BYTES_MAX;
    /// Application to broker, under its message limits.
    data_client: pb::data::v1::data_client::DataClient<Channel>, l::PRODUCE_MESSAGE_BYTES_MAX, l::FETCH_MESSAGE_BYTES_MAX;
    /// Administration, under its message limits.
    admin_client: pb::admin::v1::admin_client::AdminClient<Channel>, l::ADMIN_REQUEST_BYTES_MAX, l::ADMIN_RESPONSE_BYTES_MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> Address {
        Address { host: host.to_owned(), port }
    }

    #[test]
    fn names_v4_and_v6_hosts_make_endpoints() {
        for (host, shown) in [("broker-1", "broker-1:9"), ("127.0.0.1", "127.0.0.1:9"), ("::1", "[::1]:9")] {
            let endpoint = Dialer::plain().endpoint(&address(host, 9), Traffic::Data).expect("a legal address");
            assert_eq!(endpoint.uri().authority().map(ToString::to_string), Some(shown.to_owned()));
        }
    }

    #[test]
    fn a_host_that_is_none_is_refused_by_value() {
        let error = Dialer::plain().endpoint(&address("a b", 9), Traffic::Control).expect_err("a space in a host");
        assert_eq!(
            (error.code, error.field.as_str(), error.value.as_str()),
            (ErrorCode::InvalidRequest, "address", "a b:9")
        );
    }

    #[test]
    fn the_hook_sees_every_endpoint() {
        let hook: EndpointHook = Arc::new(|e| Ok(e.connect_timeout(Duration::from_millis(7))));
        let endpoint = Dialer::tls(hook).endpoint(&address("h", 1), Traffic::Control).expect("a legal address");
        assert_eq!(endpoint.get_connect_timeout(), Some(Duration::from_millis(7)));
        assert_eq!(endpoint.uri().scheme_str(), Some("https"));
    }
}
