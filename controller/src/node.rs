//! Starts a controller's parts in order (directory, listeners, quorum, decider, services) and stops them in reverse. A
//! taken port, a missing format, another cluster or damage is an error before anything is served. Installs neither
//! logging nor a metrics recorder: the binary does.

use crate::clock;
use crate::config::{Config, StorageKind};
use crate::decide::sessions::Sessions;
use crate::decider::Decider;
use crate::feed::Feed;
use crate::format::{FormatError, read_bootstrap};
use crate::limits::{FEED_FOLLOWERS_MAX, HEARTBEAT_STREAMS_MAX, STOP_DEADLINE};
use crate::quorum::transport::Transport;
use crate::quorum::{Halt, Lead, Quorum, QuorumConfig, QuorumStartError, VoterId};
use crate::rpc::http::{Capped, not_ready, router};
use crate::rpc::raft_client::GrpcTransport;
use crate::rpc::{Context, Reception, Walks, routes};
use crate::tasks::{self, AbortOnDrop};
use log::data_dir::{DataDir, DataDirError, Expected, Role};
use log::storage::Storage;
use protocol::limits::NODE_CONNECTIONS_MAX;
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::Dialer;
use protocol::rpc::connections::Places;
use protocol::rpc::server::{self, ServerOptions};
use protocol::rpc::socket::{Listener, Socket};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Renders all metrics of the process; made by whoever installed the recorder.
pub type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// Why a controller does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Unformatted, in use, of another cluster or node, damaged.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// The record of the first voters.
    #[error(transparent)]
    Bootstrap(#[from] FormatError),
    /// Vote, log or snapshot, with file and position.
    #[error(transparent)]
    Quorum(#[from] QuorumStartError),
    /// An address cannot be listened on.
    #[error("config {key} is {address}: cannot listen there: {source}")]
    Listen {
        /// Config key.
        key: &'static str,
        /// As configured.
        address: String,
        /// Cause, for example a taken port.
        source: std::io::Error,
    },
    /// The metadata on this disk is another cluster's.
    #[error("the metadata in {dir} belongs to cluster {found}, the directory is formatted for {expected}")]
    WrongCluster {
        /// Data directory.
        dir: std::path::PathBuf,
        /// Cluster id in the image.
        found: Uuid,
        /// Cluster id of the identity.
        expected: Uuid,
    },
    /// The gRPC server could not be set up.
    #[error("services: {0}")]
    Services(String),
}

/// Starts controllers.
pub struct Controller;

/// A running controller.
pub struct RunningController {
    context: Arc<Context>,
    address: SocketAddr,
    advertised: Endpoint,
    metrics_address: SocketAddr,
    /// Listeners: they end by themselves once told to.
    listeners: Vec<AbortOnDrop>,
    /// Loops: cut off.
    loops: Vec<AbortOnDrop>,
    _directory: DataDir,
}

impl Controller {
    /// Starts a controller over a formatted directory. `storage` is where files live; `render` prints all metrics.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        config: Config,
        storage: Arc<dyn Storage>,
        render: Render,
    ) -> Result<RunningController, StartError> {
        Self::start_with(config, storage, render, Halt::abort()).await
    }

    /// The same with another reaction to what is fatal.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_with(
        config: Config,
        storage: Arc<dyn Storage>,
        render: Render,
        halt: Halt,
    ) -> Result<RunningController, StartError> {
        let expected = Expected { cluster_id: None, node_id: config.node_id.0, role: Role::Controller };
        let directory = DataDir::open(Arc::clone(&storage), &config.data_dir, &expected)?;
        let (listener, address) = listen("listen", &config.listen)?;
        let (http, metrics_address) = listen("metrics.listen", &config.metrics_listen)?;
        if config.storage == StorageKind::PowerLoss {
            tracing::warn!("unsynced bytes live in this process only: for tests");
        }
        let identity = *directory.identity();
        let me = VoterId { id: identity.node_id, directory: identity.directory };
        let feed = Arc::new(Feed::default());
        let transport = GrpcTransport::new(identity.cluster_id, me, Dialer::plain(), Arc::clone(&feed));
        let quorum = start_quorum(&config, me, storage, &directory, Arc::new(transport), &feed, halt).await?;
        check_cluster(&config, &feed, identity.cluster_id)?;
        let sessions = Sessions::new(config.timers);
        let (decider, handle) = Decider::new(Arc::clone(&quorum), sessions, identity.cluster_id);
        let context = Arc::new(Context {
            cluster_id: identity.cluster_id,
            quorum,
            feed,
            decider: handle,
            timers: config.timers,
            walks: Walks::default(),
            reception: Reception::default(),
            streams: AtomicU64::new(0),
            heartbeat_places: Arc::new(Semaphore::new(HEARTBEAT_STREAMS_MAX)),
            feed_places: Arc::new(Semaphore::new(FEED_FOLLOWERS_MAX)),
            stopping: CancellationToken::new(),
        });
        let (grpc, readiness) = serve(&context, listener)?;
        let loops = vec![AbortOnDrop(tasks::spawn("decider", decider.run())), readiness];
        let http = pages(router(&context, render), http, context.stopping.clone());
        let listeners = vec![grpc, AbortOnDrop(tasks::spawn("http", http))];
        let host = address.ip().to_string();
        let advertised = config.advertise.unwrap_or(Endpoint { host, port: address.port() });
        tracing::info!(%me, %address, %metrics_address, now = clock::wall(), "controller started");
        Ok(RunningController { context, address, advertised, metrics_address, listeners, loops, _directory: directory })
    }
}

fn listen(key: &'static str, address: &str) -> Result<(Listener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { key, address: address.to_owned(), source };
    let socket = Socket::bind(address).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket.listen().map_err(failed)?, bound))
}

async fn start_quorum(
    config: &Config,
    me: VoterId,
    storage: Arc<dyn Storage>,
    directory: &DataDir,
    transport: Arc<dyn Transport>,
    feed: &Arc<Feed>,
    halt: Halt,
) -> Result<Arc<Quorum>, StartError> {
    let dir = directory.raft_dir();
    let bootstrap = read_bootstrap(&storage, &dir, me)?;
    let quorum = QuorumConfig {
        me,
        dir,
        timers: config.timers,
        snapshot_every: config.snapshot_every,
        segment_bytes: config.raft_segment_bytes,
        scrub_every: config.scrub_every,
        addresses: config.voters.iter().map(|spec| (spec.voter, spec.node.clone())).collect(),
        bootstrap,
    };
    Ok(Quorum::start(quorum, storage, transport, Arc::clone(feed), halt).await?)
}

fn check_cluster(config: &Config, feed: &Feed, expected: Uuid) -> Result<(), StartError> {
    let cluster = &feed.image().cluster;
    if cluster.is_formed() && cluster.cluster_id != expected {
        let dir = config.data_dir.clone();
        return Err(StartError::WrongCluster { dir, found: cluster.cluster_id, expected });
    }
    Ok(())
}

fn serve(context: &Arc<Context>, listener: Listener) -> Result<(AbortOnDrop, AbortOnDrop), StartError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let routes = routes(context, health).map_err(StartError::Services)?;
    let mut server = server::server(&ServerOptions::control()).map_err(|e| StartError::Services(e.to_string()))?;
    let router = server.add_routes(routes);
    let stopping = context.stopping.clone().cancelled_owned();
    let serving = async move {
        let incoming = server::incoming(listener, Places::new("controller", NODE_CONNECTIONS_MAX));
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopping).await {
            tracing::error!(%error, "the controller listener failed");
        }
    };
    let watched = Arc::clone(context);
    let readiness = async move {
        let mut looks = tokio::time::interval(Duration::from_millis(watched.timers.raft_heartbeat_ms));
        loop {
            looks.tick().await;
            let status = if not_ready(&watched).is_empty() {
                tonic_health::ServingStatus::Serving
            } else {
                tonic_health::ServingStatus::NotServing
            };
            reporter.set_service_status("", status).await;
        }
    };
    Ok((AbortOnDrop(tasks::spawn("listener", serving)), AbortOnDrop(tasks::spawn("readiness", readiness))))
}

async fn pages(router: axum::Router, listener: Listener, stopping: CancellationToken) {
    let serving = axum::serve(Capped::new(listener), router).with_graceful_shutdown(stopping.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "the HTTP listener failed");
    }
}

impl RunningController {
    /// Address the controller listener is bound to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What others dial.
    #[must_use]
    pub fn advertised(&self) -> &Endpoint {
        &self.advertised
    }

    /// Address the HTTP listener is bound to.
    #[must_use]
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Whether it leads the quorum, has passed the barrier, and takes commands.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.context.decider.is_active()
    }

    /// Who leads the quorum, as known here.
    #[must_use]
    pub fn lead(&self) -> Lead {
        self.context.quorum.lead().borrow().clone()
    }

    /// The quorum member, for tests and tools in the same process.
    #[must_use]
    pub fn quorum(&self) -> &Arc<Quorum> {
        &self.context.quorum
    }

    /// Hands leadership over, ends every stream, closes the log cleanly.
    pub async fn stop(self) {
        // Streams first would make brokers count resets; leadership first lets them go on elsewhere at once.
        self.context.quorum.stop().await;
        self.context.stopping.cancel();
        drop(self.loops);
        for mut listener in self.listeners {
            if tokio::time::timeout(STOP_DEADLINE, &mut listener.0).await.is_err() {
                tracing::debug!("a listener did not end by itself and is cut off");
            }
        }
    }
}
