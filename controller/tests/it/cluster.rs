//! Three controllers on loopback ports and temporary directories, each on a runtime of its own, so that one can be
//! killed without a last word.

use controller::config::{Config, RawConfig};
use controller::format::format_controller;
use controller::node::{Controller, RunningController, StartError};
use controller::quorum::{VoterId, VoterNode, VoterSpec};
use log::storage::Storage;
use log::storage::file::FileStorage;
use protocol::ids::ControllerId;
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::Channel;
use protocol::rpc::channel::{Dialer, Traffic};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use uuid::Uuid;

/// Longest wait for anything that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Declared round trip: heartbeats of 50 ms, elections after 200 to 250 ms.
const RTT_MS: &str = "10";

pub(crate) struct Node {
    runtime: tokio::runtime::Runtime,
    running: Option<RunningController>,
}

pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) cluster_id: Uuid,
    pub(crate) voters: Vec<VoterSpec>,
    pub(crate) nodes: BTreeMap<u32, Node>,
    pub(crate) extra: Vec<(String, String)>,
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    probe.local_addr().expect("a bound address").port()
}

pub(crate) fn voter(id: u32, directory: Uuid) -> VoterSpec {
    let node = VoterNode { host: "127.0.0.1".to_owned(), port: free_port(), locality: format!("eu/dc{id}/r1") };
    VoterSpec { voter: VoterId { id, directory }, node }
}

/// Waits until `look` gives something.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

/// The same, for a thread.
pub(crate) fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < SOON, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Cluster {
    /// Formats, without starting.
    pub(crate) fn formatted(count: u32) -> Self {
        let voters: Vec<_> = (1..=count).map(|id| voter(id, Uuid::new_v4())).collect();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let cluster = Self { dir, cluster_id: Uuid::new_v4(), voters, nodes: BTreeMap::new(), extra: Vec::new() };
        for spec in &cluster.voters {
            cluster.format(spec, &cluster.voters);
        }
        cluster
    }

    pub(crate) fn started(count: u32) -> Self {
        let mut cluster = Self::formatted(count);
        for id in 1..=count {
            cluster.start(id);
        }
        cluster
    }

    pub(crate) fn path(&self, id: u32) -> PathBuf {
        self.dir.path().join(format!("controller-{id}"))
    }

    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(FileStorage::new(self.dir.path()))
    }

    pub(crate) fn format(&self, spec: &VoterSpec, voters: &[VoterSpec]) {
        let (id, directory) = (ControllerId(spec.voter.id), spec.voter.directory);
        let path = self.path(spec.voter.id);
        format_controller(&self.storage(), &path, self.cluster_id, id, directory, voters).expect("formatted");
    }

    pub(crate) fn config(&self, id: u32) -> Config {
        let node = &self.spec(id).node;
        let keys = [
            ("node.id", id.to_string()),
            ("node.locality", node.locality.clone()),
            ("data.dir", self.path(id).display().to_string()),
            ("listen", format!("127.0.0.1:{}", node.port)),
            ("metrics.listen", "127.0.0.1:0".to_owned()),
            ("max.inter.dc.rtt.ms", RTT_MS.to_owned()),
        ];
        let flat = keys.into_iter().map(|(k, v)| (k.to_owned(), v)).chain(self.extra.iter().cloned()).collect();
        RawConfig::from_flat(flat).and_then(Config::try_from).expect("a legal configuration")
    }

    fn spec(&self, id: u32) -> &VoterSpec {
        self.voters.iter().rev().find(|v| v.voter.id == id).expect("a known controller")
    }

    pub(crate) fn try_start(&self, config: Config) -> Result<Node, StartError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().expect("a runtime");
        let starting = Controller::start(config, self.storage(), Arc::new(|| "seawall_up 1\n".to_owned()));
        let running = runtime.block_on(starting);
        match running {
            Ok(running) => Ok(Node { runtime, running: Some(running) }),
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    pub(crate) fn start(&mut self, id: u32) {
        let node = self.try_start(self.config(id)).unwrap_or_else(|e| panic!("controller {id}: {e}"));
        self.nodes.insert(id, node);
    }

    /// Ends a controller without a last word.
    pub(crate) fn kill(&mut self, id: u32) {
        let mut node = self.nodes.remove(&id).expect("a running controller");
        drop(node.running.take());
        node.runtime.shutdown_timeout(Duration::from_secs(5));
    }

    /// Stops a controller in order.
    pub(crate) fn stop(&mut self, id: u32) {
        let mut node = self.nodes.remove(&id).expect("a running controller");
        if let Some(running) = node.running.take() {
            node.runtime.block_on(running.stop());
        }
        node.runtime.shutdown_timeout(Duration::from_secs(5));
    }

    pub(crate) fn running(&self, id: u32) -> &RunningController {
        let node = self.nodes.get(&id).expect("a running controller");
        node.running.as_ref().expect("started")
    }

    /// The id of the active controller, waiting for one.
    pub(crate) fn active(&self) -> u32 {
        wait_until("an active controller", || self.nodes.keys().copied().find(|id| self.running(*id).is_active()))
    }

    pub(crate) fn channel(&self, id: u32) -> Channel {
        let node = &self.spec(id).node;
        let address = Endpoint { host: node.host.clone(), port: node.port };
        Dialer::plain().lazy(&address, Traffic::Control).expect("a legal address")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for (_, mut node) in std::mem::take(&mut self.nodes) {
            drop(node.running.take());
            node.runtime.shutdown_background();
        }
    }
}
