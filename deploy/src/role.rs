//! `seawall controller` and `seawall broker`: one node as this process, from its configuration to its clean stop.
//!
//! Owns what is the process's: layers of configuration, logging, metrics, the runtime, signals, what a panic does. The
//! nodes own everything else. Invariant: a process that cannot start has served nobody and exits non-zero, naming
//! field, value and limit.

use crate::config::{self, Layered};
use crate::dev::layout::Role;
use crate::exit::Exit;
use crate::limits;
use crate::metrics::Render;
use crate::{logging, metrics};
use clap::Args;
use log::storage::Storage;
use log::storage::file::FileStorage;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Arguments of both roles.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// The node's configuration file (TOML); each key is also SEAWALL_<UPPER_SNAKE> in the environment
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override of a configuration key; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Why a node did not start, as printed.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    text: String,
}

impl Failure {
    fn usage(text: impl ToString) -> Self {
        Self { exit: Exit::Usage, text: text.to_string() }
    }

    fn start(text: impl ToString) -> Self {
        Self { exit: Exit::Other, text: text.to_string() }
    }
}

/// Runs the node until it is told to stop.
pub fn run(role: Role, args: &RoleArgs) -> Exit {
    let layered = match config::load(args.config.as_deref(), std::env::vars(), &args.overrides) {
        Ok(layered) => layered,
        Err(error) => return refuse(role, &Failure::usage(error), ""),
    };
    match start_and_serve(role, &layered) {
        Ok(()) => Exit::Ok,
        Err(failure) => refuse(role, &failure, &layered.blame(&failure.text)),
    }
}

fn refuse(role: Role, failure: &Failure, blame: &str) -> Exit {
    eprintln!("seawall {role}: cannot start: {}{blame}", failure.text);
    failure.exit
}

fn start_and_serve(role: Role, layered: &Layered) -> Result<(), Failure> {
    let get = |key: &str| layered.values.get(key).map(String::as_str);
    let (format, filter) = logging::settings(get("log.format"), get("log.level")).map_err(Failure::usage)?;
    logging::install(format, filter);
    abort_on_panic();
    let render = metrics::install().map_err(Failure::start)?;
    share_descriptors();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(limits::CONTROL_THREADS)
        .thread_name(format!("{role}-control"))
        .enable_all()
        .build()
        .map_err(Failure::start)?;
    let outcome = runtime.block_on(async {
        match role {
            Role::Controller => controller(layered, render).await,
            Role::Broker => broker(layered, render).await,
        }
    });
    runtime.shutdown_timeout(limits::RUNTIME_STOP);
    outcome
}

/// Asks the system for as many descriptors as it gives, and keeps some for files: connections may not take them all.
fn share_descriptors() {
    let given = getrlimit(Resource::Nofile);
    let wanted = given.maximum.map_or(limits::DESCRIPTORS_MAX, |maximum| maximum.min(limits::DESCRIPTORS_MAX));
    let mut descriptors = given.current.unwrap_or(limits::DESCRIPTORS_MAX);
    if descriptors < wanted {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: given.maximum }) {
            Ok(()) => descriptors = wanted,
            Err(error) => tracing::warn!(%error, descriptors, wanted, "the descriptor limit stays as it is"),
        }
    }
    let connections = descriptors / limits::CONNECTIONS_SHARE;
    tracing::info!(descriptors, connections, "descriptors shared out");
    protocol::rpc::connections::limit_process(usize::try_from(connections).unwrap_or(usize::MAX));
}

/// Where the node keeps its files: what `data.dir` names, on the kind of disk `storage` names.
fn storage(dir: &Path, power_loss: bool) -> Result<(PathBuf, Arc<dyn Storage>), Failure> {
    let dir = std::path::absolute(dir).map_err(Failure::start)?;
    if !power_loss {
        let storage = Arc::new(FileStorage::new(dir.clone()));
        return Ok((dir, storage));
    }
    #[cfg(feature = "power-loss")]
    {
        let storage = log::storage::power_loss::PowerLossStorage::new(dir.clone()).map_err(Failure::start)?;
        Ok((dir, Arc::new(storage)))
    }
    #[cfg(not(feature = "power-loss"))]
    Err(Failure::usage("config storage is \"power-loss\", allowed: file (power-loss exists in test builds only)"))
}

async fn controller(layered: &Layered, render: Render) -> Result<(), Failure> {
    use controller::config::{Config, RawConfig, StorageKind};
    let raw = RawConfig::from_flat(layered.values.clone()).map_err(Failure::usage)?;
    let mut config = Config::try_from(raw).map_err(Failure::usage)?;
    let (dir, storage) = storage(&config.data_dir, config.storage == StorageKind::PowerLoss)?;
    config.data_dir = dir;
    let mut signals = Signals::install().map_err(Failure::start)?;
    let running = controller::node::Controller::start(config, storage, render).await.map_err(Failure::start)?;
    signals.stop_wanted().await;
    signals.give_up_after("controller", running.stop()).await;
    Ok(())
}

async fn broker(layered: &Layered, render: Render) -> Result<(), Failure> {
    use broker::config::{Config, RawConfig, StorageKind};
    let raw = RawConfig::from_flat(layered.values.clone()).map_err(Failure::usage)?;
    let mut config = Config::try_from(raw).map_err(Failure::usage)?;
    let (dir, storage) = storage(&config.data_dir, config.storage == StorageKind::PowerLoss)?;
    config.data_dir = dir;
    let mut signals = Signals::install().map_err(Failure::start)?;
    let running = broker::node::Broker::start(config, storage, render).await.map_err(Failure::start)?;
    tokio::select! {
        () = signals.stop_wanted() => {}
        () = running.asked_to_stop() => tracing::info!("an operator asked the cluster to shut this broker down"),
    }
    let stopping = async {
        if !running.stop().await {
            tracing::warn!("not everything was closed cleanly: the next start proves what it can");
        }
    };
    signals.give_up_after("broker", stopping).await;
    Ok(())
}

/// SIGTERM and SIGINT, from before the node starts: a signal during the start is not lost.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn stop_wanted(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    }

    /// Waits for the clean stop; a second signal, or the deadline, ends the process regardless. Nothing is lost by
    /// that: a process may die at any moment.
    async fn give_up_after(&mut self, what: &str, stopping: impl Future<Output = ()>) {
        tokio::select! {
            () = stopping => tracing::info!("{what} stopped"),
            () = self.stop_wanted() => tracing::warn!("a second signal: the clean stop is given up"),
            () = tokio::time::sleep(limits::STOP_DEADLINE) => {
                tracing::warn!(seconds = limits::STOP_DEADLINE.as_secs(), "the clean stop took too long and is given up");
            }
        }
    }
}

/// A panic anywhere ends the process: a node that lost one of its tasks would look alive and do nothing. The checkpoint
/// database is the exception: it panics on damage, its callers catch that and rebuild it.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        let contained = info.location().is_some_and(|location| location.file().contains("/sled-"));
        if !contained {
            std::process::abort();
        }
    }));
}
