//! The nodes of a run: real controllers and brokers, each on a simulated disk.
//!
//! Owns: names, disks, configurations, how a node starts on its host and how it dies. Never: decides when.
//! Invariant: a node's disk is dead before its tasks are dropped, so that nothing it does while dying reaches the disk.

use super::links::Links;
use super::record::{Law, Shared};
use broker::fatal;
use controller::quorum::{Halt, Lead, Quorum, VoterId, VoterNode, VoterSpec};
use futures_util::FutureExt;
use log::data_dir::{DataDir, Identity, Role};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use protocol::ids::{BrokerId, ControllerId};
use protocol::locality::Locality;
use protocol::metadata::record::Endpoint;
use protocol::timers::Timers;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

/// Port of a controller.
const CONTROLLER_PORT: u16 = 9_000;
/// Port of a broker for applications.
const CLIENT_PORT: u16 = 9_001;
/// Port of a broker for nodes.
const INTERNAL_PORT: u16 = 9_002;
/// Port of the pages.
const PAGES_PORT: u16 = 9_003;
/// Where each disk holds its data.
const ROOT: &str = "/data";
/// Entries between Raft snapshots: few, so that snapshots and purges happen in a short run.
const SNAPSHOT_EVERY: u64 = 40;
/// Between two looks of a controller at its own leadership.
const LOOK: Duration = Duration::from_millis(1);
/// Size of a Raft segment: small, so that there are several.
const RAFT_SEGMENT_BYTES: u64 = 1 << 20;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A voter from the start, or one that waits to be added.
    Controller,
    /// A broker.
    Broker,
}

/// One node.
pub struct Node {
    /// Name of its host.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its number.
    pub id: u32,
    /// Its directory's id.
    pub directory: Uuid,
    /// Its disk.
    pub disk: MemStorage,
    /// Its process runs.
    pub up: Cell<bool>,
    /// Lives of its process so far.
    pub lives: Cell<u64>,
    /// The term that it leads as the active controller, and whether it would answer reads now: as it says itself, by its own
    /// clock, every millisecond.
    pub leads: Cell<Option<(u64, bool)>>,
    stop: Notify,
    quorum: RefCell<Weak<Quorum>>,
    active: RefCell<Option<Rc<controller::node::RunningController>>>,
    halts: Arc<Mutex<Vec<String>>>,
}

/// What all nodes share.
pub struct Cluster {
    /// Every node, controllers first.
    pub nodes: Vec<Rc<Node>>,
    rtt_ms: u64,
    shards: usize,
    record: Shared,
    links: Arc<Links>,
}

/// How large a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Voters at the start.
    pub voters: u32,
    /// Controllers that wait to be added.
    pub spares: u32,
    /// Brokers.
    pub brokers: u32,
    /// Shards of each.
    pub shards: usize,
    /// Declared round trip, ms.
    pub rtt_ms: u64,
}

fn endpoint(name: &str, port: u16) -> Endpoint {
    Endpoint { host: name.to_owned(), port }
}

fn directory(id: u32, kind: Kind) -> Uuid {
    let base = if kind == Kind::Controller { 0x1000 } else { 0x2000 };
    // Controllers show the first digits: they must differ.
    Uuid::from_u128(u128::from(base + id) << 96 | u128::from(id))
}

fn place(id: u32) -> Locality {
    format!("eu/dc{}/r1", (id - 1) % 3 + 1).parse().expect("a legal place")
}

impl Cluster {
    /// Formats the disks of a cluster.
    pub fn format(size: Size, record: Shared, links: Arc<Links>) -> Rc<Self> {
        let id = Uuid::from_u128(0x5EA);
        let controllers = (1..=size.voters + size.spares).map(|n| node(Kind::Controller, n));
        let nodes: Vec<Rc<Node>> = controllers.chain((1..=size.brokers).map(|n| node(Kind::Broker, n))).collect();
        let voters: Vec<VoterSpec> = nodes.iter().take(size.voters as usize).map(|node| spec(node)).collect();
        for node in &nodes {
            let storage: Arc<dyn Storage> = Arc::new(node.disk.clone());
            let path = Path::new(ROOT);
            match node.kind {
                Kind::Controller => {
                    let first: &[VoterSpec] = if node.id <= size.voters { &voters } else { &[] };
                    let number = ControllerId(node.id);
                    controller::format::format_controller(&storage, path, id, number, node.directory, first)
                        .expect("an empty disk takes a format");
                }
                Kind::Broker => {
                    let identity =
                        Identity { cluster_id: id, node_id: node.id, role: Role::Broker, directory: node.directory };
                    DataDir::format(&storage, path, &identity).expect("an empty disk takes a format");
                }
            }
        }
        Rc::new(Self { nodes, rtt_ms: size.rtt_ms, shards: size.shards, record, links })
    }

    /// Its timers.
    pub fn timers(&self) -> Timers {
        Timers::from_rtt(self.rtt_ms)
    }

    /// Nodes of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Rc<Node>> {
        self.nodes.iter().filter(move |node| node.kind == kind)
    }

    /// Addresses of a kind, for clients.
    pub fn bootstrap(&self, kind: Kind) -> String {
        let port = if kind == Kind::Controller { CONTROLLER_PORT } else { CLIENT_PORT };
        self.of(kind).map(|node| format!("{}:{port}", node.name)).collect::<Vec<_>>().join(",")
    }

    /// The controller that believes to be active.
    pub fn active(&self) -> Option<Rc<Node>> {
        self.of(Kind::Controller).find(|node| node.up.get() && node.is_active()).cloned()
    }

    /// Runs a node until its process ends.
    pub async fn run(self: Rc<Self>, node: Rc<Node>) -> turmoil::Result {
        self.links.begins(&node.name);
        // A wish of the life before that found nobody.
        let _nobody_waited = node.stop.notified().now_or_never();
        node.up.set(true);
        node.lives.set(node.lives.get() + 1);
        let failed = match node.kind {
            Kind::Controller => self.run_controller(&node).await.err(),
            Kind::Broker => self.run_broker(&node).await.err(),
        };
        node.up.set(false);
        if let Some(why) = failed {
            let at = turmoil::sim_elapsed().unwrap_or_default();
            self.record.borrow_mut().broke(Law::EveryoneStarts, at, format!("{}: {why}", node.name));
        }
        Ok(())
    }

    async fn run_controller(&self, node: &Rc<Node>) -> Result<(), String> {
        let config = controller::config::Config {
            node_id: ControllerId(node.id),
            locality: place(node.id),
            data_dir: ROOT.into(),
            listen: format!("0.0.0.0:{CONTROLLER_PORT}"),
            advertise: Some(endpoint(&node.name, CONTROLLER_PORT)),
            metrics_listen: format!("0.0.0.0:{PAGES_PORT}"),
            timers: self.timers(),
            voters: Vec::new(),
            snapshot_every: SNAPSHOT_EVERY,
            raft_segment_bytes: RAFT_SEGMENT_BYTES,
            scrub_every: Duration::from_secs(10),
            storage: controller::config::StorageKind::File,
        };
        let halts = Arc::clone(&node.halts);
        let halt = Halt::recording(move |why| halts.lock().expect("no holder panics").push(why.to_owned()));
        let storage = Arc::new(node.disk.clone());
        let running = controller::node::Controller::start_with(config, storage, Arc::new(String::new), halt);
        let running = Rc::new(running.await.map_err(|error| error.to_string())?);
        *node.quorum.borrow_mut() = Arc::downgrade(running.quorum());
        *node.active.borrow_mut() = Some(Rc::clone(&running));
        let stop = node.stop.notified();
        tokio::pin!(stop);
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = looks.tick() => node.leads.set(node.lead_now()),
            }
        }
        node.leads.set(None);
        node.active.borrow_mut().take();
        if let Ok(running) = Rc::try_unwrap(running) {
            running.stop().await;
        }
        Ok(())
    }

    async fn run_broker(&self, node: &Rc<Node>) -> Result<(), String> {
        let controllers = self.of(Kind::Controller).map(|c| endpoint(&c.name, CONTROLLER_PORT)).collect();
        let config = broker::config::Config {
            node_id: BrokerId(node.id),
            locality: place(node.id),
            data_dir: ROOT.into(),
            client_listen: format!("0.0.0.0:{CLIENT_PORT}"),
            client_advertise: Some(endpoint(&node.name, CLIENT_PORT)),
            internal_listen: format!("0.0.0.0:{INTERNAL_PORT}"),
            internal_advertise: Some(endpoint(&node.name, INTERNAL_PORT)),
            metrics_listen: format!("0.0.0.0:{PAGES_PORT}"),
            controllers,
            shards: self.shards,
            max_inter_dc_rtt_ms: self.rtt_ms,
            storage: broker::config::StorageKind::File,
        };
        let halts = Arc::clone(&node.halts);
        let halt = fatal::Halt::with(move |why| halts.lock().expect("no holder panics").push(why.to_string()));
        let storage = Arc::new(node.disk.clone());
        let running = broker::node::Broker::start_with(config, storage, Arc::new(String::new), halt);
        let running = running.await.map_err(|error| error.to_string())?;
        node.stop.notified().await;
        running.stop().await;
        Ok(())
    }
}

fn node(kind: Kind, id: u32) -> Rc<Node> {
    let letter = if kind == Kind::Controller { 'c' } else { 'b' };
    Rc::new(Node {
        name: format!("{letter}{id}"),
        kind,
        id,
        directory: directory(id, kind),
        disk: MemStorage::new(),
        up: Cell::new(false),
        lives: Cell::new(0),
        leads: Cell::new(None),
        stop: Notify::new(),
        quorum: RefCell::new(Weak::new()),
        active: RefCell::new(None),
        halts: Arc::default(),
    })
}

/// A controller as a voter.
pub fn spec(node: &Node) -> VoterSpec {
    let VoterNode { host, port, locality } =
        VoterNode { host: node.name.clone(), port: CONTROLLER_PORT, locality: place(node.id).to_string() };
    VoterSpec { voter: VoterId { id: node.id, directory: node.directory }, node: VoterNode { host, port, locality } }
}

impl Node {
    /// Asks its process to end in order.
    pub fn ask_to_stop(&self) {
        self.stop.notify_one();
    }

    /// The host was taken down: nothing of the process is left.
    pub fn forget(&self) {
        self.up.set(false);
        self.leads.set(None);
        self.active.borrow_mut().take();
        *self.quorum.borrow_mut() = Weak::new();
    }

    /// What halted it, if anything did.
    pub fn halted(&self) -> Option<String> {
        self.halts.lock().expect("no holder panics").pop()
    }

    /// Its member of the quorum.
    pub fn quorum(&self) -> Option<Arc<Quorum>> {
        self.quorum.borrow().upgrade()
    }

    /// Believes to be the active controller.
    pub fn is_active(&self) -> bool {
        self.active.borrow().as_ref().is_some_and(|running| running.is_active())
    }

    /// Must be called on its own host: freshness is counted by its clock.
    fn lead_now(&self) -> Option<(u64, bool)> {
        let quorum = self.quorum().filter(|_| self.is_active())?;
        match *quorum.lead().borrow() {
            Lead::Me { term } => Some((term, quorum.is_fresh(term))),
            _ => None,
        }
    }
}
