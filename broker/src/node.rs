//! A broker process: builds its parts in order and stops them in reverse.
//!
//! Order: data directory (lock, identity), evidence, recovery of every partition, sockets, shards, feed, lifecycle
//! (register, prove, heartbeats). Stop: leaders move away, listeners close, logs are closed cleanly, and only then the
//! clean-shutdown marker is written.
//! Never: installs a logger or a metrics recorder; those belong to the binary.

mod background;
mod storage;
mod threads;

use log::LogError;
use log::data_dir::{DataDir, DataDirError};
use log::storage::Storage;
use protocol::ids::BrokerId;
use protocol::machine::{self, NoThread, Worker};
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::Dialer;
use protocol::rpc::socket::Socket;
use protocol::timers::Timers;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::checkpoints::CheckpointWriter;
use crate::config::Config;
use crate::controller_queue::ControllerQueue;
use crate::disk_room::DiskRoom;
use crate::fatal::Halt;
use crate::flush_pool::FlushPool;
use crate::handlers::Context;
use crate::http::Render;
use crate::lease_cell::LeaseCell;
use crate::lifecycle::state::Phase;
use crate::lifecycle::task::Registrant;
use crate::limits;
use crate::link::Controllers;
use crate::metadata::follower::Images;
use crate::notes::NoteWriter;
use crate::shard::{self, ShardParts, ShardQueues, ShardSender, Shards};
use background::{Control, Tasks};
use storage::Opening;
use threads::{Listening, ShardThread};

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory: not formatted, in use, of another node or cluster, damaged.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Recovery met an error of the disk.
    #[error("recovery: {0}")]
    Recovery(#[from] LogError),
    /// A listener's address is taken or not ours.
    #[error("{key} {address}: {source}")]
    Listen {
        /// Config key.
        key: &'static str,
        /// As configured.
        address: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A shard got no thread, or its thread no runtime.
    #[error(transparent)]
    NoThread(#[from] NoThread),
    /// Another thread cannot be started, or a service not built.
    #[error("{what}: {reason}")]
    Build {
        /// What.
        what: &'static str,
        /// Why not.
        reason: String,
    },
}

impl StartError {
    fn build(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |error| Self::Build { what, reason: error.to_string() }
    }
}

/// The broker role.
#[derive(Debug)]
pub struct Broker;

/// A started broker. Dropping it does not stop it; [`RunningBroker::stop`] does.
pub struct RunningBroker {
    id: BrokerId,
    addresses: Addresses,
    shared: Shared,
    tasks: Tasks,
    workers: Vec<Worker>,
    data: Arc<DataDir>,
}

/// Where a broker listens.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// For applications.
    pub client: SocketAddr,
    /// For nodes.
    pub internal: SocketAddr,
    /// HTTP.
    pub metrics: SocketAddr,
}

impl RunningBroker {
    /// The broker's number.
    #[must_use]
    pub fn id(&self) -> BrokerId {
        self.id
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where it is in its life, as it changes.
    #[must_use]
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.tasks.phase.clone()
    }

    /// Resolves when the broker wants to end of its own accord: an operator asked the cluster to shut it down.
    pub async fn asked_to_stop(&self) {
        self.shared.stop_asked.cancelled().await;
    }

    /// Ends cleanly: leaders move away first, every log is closed, and then the clean-shutdown marker is written.
    /// True if all of that succeeded; else the next start has to prove what it can.
    pub async fn stop(self) -> bool {
        self.shared.stop_asked.cancel();
        let released = self.tasks.lifecycle.await.unwrap_or(false);
        self.shared.lease.set(crate::replica::lease::Lease::NONE);
        self.shared.stop.cancel();
        let mut closed = true;
        for shard in self.shared.shards.iter() {
            let (done, told) = oneshot::channel();
            shard.control(shard::message::Control::Stop { done });
            closed &= told.await.unwrap_or(false);
        }
        let epoch = *self.tasks.registered.borrow();
        let data = self.data;
        drop(self.shared);
        let mut joined = true;
        for worker in self.workers {
            joined &= worker.join().await;
        }
        let finished = machine::blocking(move || {
            let marked = match epoch.filter(|_| closed && joined) {
                Some(epoch) => data.mark_clean_shutdown(epoch.0).is_ok(),
                None => false,
            };
            drop(data);
            marked
        });
        let marked = finished.await.unwrap_or(false);
        tracing::info!(broker = %self.id, released, marked, "stopped");
        marked
    }
}

struct Sockets {
    client: Socket,
    internal: Socket,
    metrics: Socket,
    addresses: Addresses,
}

fn bind(key: &'static str, address: &str) -> Result<(Socket, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { key, address: address.to_owned(), source };
    let socket = Socket::bind(address).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

impl Sockets {
    fn bind(config: &Config) -> Result<Self, StartError> {
        let (client, client_at) = bind("client.listen", &config.client_listen)?;
        let (internal, internal_at) = bind("internal.listen", &config.internal_listen)?;
        let (metrics, metrics_at) = bind("metrics.listen", &config.metrics_listen)?;
        let addresses = Addresses { client: client_at, internal: internal_at, metrics: metrics_at };
        Ok(Self { client, internal, metrics, addresses })
    }
}

fn advertised(configured: Option<&Endpoint>, bound: SocketAddr) -> Endpoint {
    configured.cloned().unwrap_or_else(|| Endpoint { host: bound.ip().to_string(), port: bound.port() })
}

impl Broker {
    /// Starts a broker on the runtime that calls this, which becomes its control runtime; shards get threads of their own.
    /// Returns once it listens; registration goes on in the background.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config, storage: Arc<dyn Storage>, render: Render) -> Result<RunningBroker, StartError> {
        Self::start_with(config, storage, render, Halt::process()).await
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
    ) -> Result<RunningBroker, StartError> {
        let opening = Opening::open(&config, storage)?;
        let sockets = Sockets::bind(&config)?;
        let build = Build { config, sockets, halt, opening, dialer: Dialer::plain() };
        build.run(render)
    }
}

/// What `start` has gathered before the first thread runs.
struct Build {
    config: Config,
    sockets: Sockets,
    halt: Halt,
    opening: Opening,
    dialer: Dialer,
}

/// What every part shares.
#[derive(Clone)]
struct Shared {
    images: Arc<Images>,
    controllers: Controllers,
    lease: LeaseCell,
    shards: Shards,
    disk: Arc<DiskRoom>,
    stop: CancellationToken,
    stop_asked: CancellationToken,
}

impl Shared {
    fn new(config: &Config, dialer: &Dialer, senders: Vec<ShardSender>, disk: Arc<DiskRoom>) -> Self {
        Self {
            images: Arc::default(),
            controllers: Controllers::new(config.controllers.clone(), dialer.clone()),
            lease: LeaseCell::default(),
            shards: Shards::new(senders),
            disk,
            stop: CancellationToken::new(),
            stop_asked: CancellationToken::new(),
        }
    }
}

impl Build {
    fn run(self, render: Render) -> Result<RunningBroker, StartError> {
        let (senders, queues): (Vec<ShardSender>, Vec<ShardQueues>) =
            (0..self.config.shards).map(|_| ShardSender::new()).unzip();
        let Self { config, sockets, halt, opening, dialer } = self;
        let Opening { data, registry, recovered, evidence, disk, checkpoints } = opening;
        let shared = Shared::new(&config, &dialer, senders, disk);
        let (flush_pool, mut workers) = FlushPool::start().map_err(StartError::build("flush threads"))?;
        let (notes, note_writer) =
            NoteWriter::start(registry, halt.clone()).map_err(StartError::build("registry thread"))?;
        workers.push(note_writer);
        let (checkpoints, checkpoint_writer) =
            CheckpointWriter::start(checkpoints).map_err(StartError::build("checkpoint thread"))?;
        workers.push(checkpoint_writer);
        let (controller, controller_end) = ControllerQueue::new();
        let mut by_shard: Vec<BTreeMap<_, _>> = queues.iter().map(|_| BTreeMap::new()).collect();
        for (at, opened) in recovered {
            by_shard[shared.shards.index_of(at)].insert(at, opened);
        }
        let slots = Arc::new(AtomicU32::new(1));
        let parts = queues.into_iter().zip(by_shard).enumerate().map(|(index, (queues, recovered))| ShardParts {
            index,
            shards: shared.shards.clone(),
            sender: shared.shards.at(index).clone(),
            queues,
            me: config.node_id,
            data: data.clone(),
            recovered,
            lease: shared.lease.clone(),
            flush_pool: flush_pool.clone(),
            notes: notes.clone(),
            controller: controller.clone(),
            images: shared.images.clone(),
            dialer: dialer.clone(),
            checkpoints: checkpoints.clone(),
            slots: slots.clone(),
            disk: shared.disk.clone(),
            halt: halt.clone(),
        });
        let (reporter, health) = tonic_health::server::health_reporter();
        let listening = Listening::new(
            config.node_id,
            context(&config, &shared, data.identity().cluster_id),
            &shared,
            &sockets,
            health,
        )?;
        // The shards' own clones keep the pool, the registry's writer and the queue alive; when they go, those end.
        let parts: Vec<_> = parts.collect();
        drop((flush_pool, notes, controller, checkpoints));
        for parts in parts {
            workers.push(ShardThread { parts, listening: listening.clone() }.start()?);
        }
        let Sockets { metrics, addresses, .. } = sockets;
        let control = Control {
            me: config.node_id,
            timers: Timers::from_rtt(config.max_inter_dc_rtt_ms),
            registrant: registrant(&config, &data, &addresses),
            shared: shared.clone(),
            data: data.clone(),
            evidence,
            halt,
        };
        let tasks = control.start(controller_end, metrics, render, reporter)?;
        tracing::info!(broker = %config.node_id, client = %addresses.client, internal = %addresses.internal, "listening");
        Ok(RunningBroker { id: config.node_id, addresses, shared, tasks, workers, data })
    }
}

fn registrant(config: &Config, data: &DataDir, addresses: &Addresses) -> Registrant {
    Registrant {
        me: config.node_id,
        incarnation: machine::uuid_v4(),
        internal: advertised(config.internal_advertise.as_ref(), addresses.internal),
        client: advertised(config.client_advertise.as_ref(), addresses.client),
        locality: config.locality.to_string(),
        directory: data.identity().directory,
    }
}

fn context(config: &Config, shared: &Shared, cluster_id: Uuid) -> Context {
    let units = limits::PRODUCE_BUDGET_BYTES / limits::BUDGET_UNIT_BYTES;
    Context {
        me: config.node_id,
        cluster_id,
        images: shared.images.clone(),
        shards: shared.shards.clone(),
        lease: shared.lease.clone(),
        produce_budget: Arc::new(Semaphore::new(units)),
    }
}
