//! A dev cluster as a thing to act on: create it, start, pause, kill and stop its nodes, see how they are.
//!
//! Owns the order of those steps; knows no command line and prints nothing, so that tests and benches drive clusters
//! through it too. Invariants: nothing is started while a port it needs is taken; a folder that is not a dev cluster is
//! never written into or deleted; only processes this cluster started are ever signalled.

use super::layout::{self, LayoutError, Node, NodeName, Role, Spec};
use super::process::{self, Life, ProcessId, Signal};
use super::state::{State, StateError};
use super::{http, limits};
use serde::Serialize;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Why a dev cluster does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A number or name out of range.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The cluster's state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Another program listens on a port.
    #[error("port {port} of {node} is taken ({error}); nothing was started; --port-base chooses other ports")]
    PortTaken {
        /// The port.
        port: u16,
        /// Which node needs it.
        node: NodeName,
        /// What the system said.
        error: io::Error,
    },
    /// The folder holds something that is not a dev cluster.
    #[error("{} is not empty and holds no dev cluster; choose another --data-dir", .0.display())]
    NotEmpty(PathBuf),
    /// The cluster already runs.
    #[error("the dev cluster in {} runs already ({running} processes); `seawall dev stop` stops it", root.display())]
    Running {
        /// Its folder.
        root: PathBuf,
        /// How many processes live.
        running: usize,
    },
    /// The cluster in that folder was made with other numbers.
    #[error("the dev cluster in {} has {flag} {has}, not {asked}; `seawall dev purge` removes it", root.display())]
    OtherSpec {
        /// Its folder.
        root: PathBuf,
        /// Which number differs.
        flag: &'static str,
        /// As it is.
        has: String,
        /// As asked.
        asked: String,
    },
    /// No such node.
    #[error("there is no {name}; the nodes are {nodes}")]
    NoNode {
        /// As asked.
        name: NodeName,
        /// The ones there are.
        nodes: String,
    },
    /// The node does not run.
    #[error("{0} does not run; `seawall dev start {0}` starts it")]
    NotRunning(NodeName),
    /// The node runs already.
    #[error("{0} runs already")]
    RunsAlready(NodeName),
    /// A node ended while starting.
    #[error("{node} ended while starting; the end of {}:\n{tail}", log.display())]
    Died {
        /// Which.
        node: NodeName,
        /// Its output.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A node is not ready in time.
    #[error("{node} is not ready after {seconds} s: {why}")]
    NotReady {
        /// Which.
        node: NodeName,
        /// The time given.
        seconds: u64,
        /// What it answered last.
        why: String,
    },
    /// Making the data directories.
    #[error("cannot format {node}: {error}")]
    Format {
        /// Which.
        node: NodeName,
        /// Why.
        error: crate::format::FormatError,
    },
    /// Files and processes.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        error: io::Error,
    },
}

impl DevError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It runs and says that it is ready.
    Running,
    /// It runs and is not ready.
    NotReady,
    /// It is stopped by a signal.
    Paused,
    /// It does not run.
    Stopped,
}

/// A node as `dev status` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Role.
    pub role: Role,
    /// Number.
    pub id: u32,
    /// Data centre.
    pub dc: String,
    /// Process number, if one lives.
    pub pid: Option<i32>,
    /// `host:port` for clients (brokers) or peers (controllers).
    pub address: String,
    /// `host:port` of the HTTP listener.
    pub metrics: String,
    /// How it is.
    pub state: NodeState,
}

/// A dev cluster in a folder.
#[derive(Debug, Clone)]
pub struct Cluster {
    root: PathBuf,
    program: PathBuf,
}

impl Cluster {
    /// The cluster in `root` (which need not exist yet), its nodes run by `program`.
    ///
    /// # Errors
    /// When the current directory is needed and cannot be read.
    pub fn new(root: &Path, program: &Path) -> Result<Self, DevError> {
        let root = std::path::absolute(root).map_err(DevError::io("the current directory"))?;
        Ok(Self { root, program: program.to_path_buf() })
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What runs its nodes.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// What it remembers.
    ///
    /// # Errors
    /// [`DevError::State`], also when there is no cluster.
    pub fn state(&self) -> Result<State, DevError> {
        Ok(State::load(&self.root)?)
    }

    /// Lays out a new cluster: folders, identities, configuration files. Starts nothing.
    ///
    /// # Errors
    /// [`DevError`]; a failure leaves a folder that the next call completes.
    pub fn create(&self, spec: Spec) -> Result<State, DevError> {
        let nodes = spec.nodes(Uuid::new_v4)?;
        check_ports(&nodes)?;
        std::fs::create_dir_all(&self.root).map_err(DevError::io(self.root.display().to_string()))?;
        let mut entries = std::fs::read_dir(&self.root).map_err(DevError::io(self.root.display().to_string()))?;
        if entries.next().is_some() {
            return Err(DevError::NotEmpty(self.root.clone()));
        }
        let state = State::new(Uuid::new_v4(), spec, nodes);
        state.save(&self.root)?;
        self.lay_out(state)
    }

    /// Writes every node's folder of a cluster that has never run.
    fn lay_out(&self, mut state: State) -> Result<State, DevError> {
        let voters = layout::voters(&state.nodes);
        for node in &state.nodes {
            let folder = node.folder(&self.root);
            if folder.exists() {
                std::fs::remove_dir_all(&folder).map_err(DevError::io(folder.display().to_string()))?;
            }
            std::fs::create_dir_all(&folder).map_err(DevError::io(folder.display().to_string()))?;
            let config = node.config_file(&self.root);
            let text = layout::config_text(&self.root, &state.spec, &state.nodes, node);
            std::fs::write(&config, text).map_err(DevError::io(config.display().to_string()))?;
            let voters: &[String] = if node.name.role == Role::Controller { &voters } else { &[] };
            crate::format::format_dev_node(&node.data_dir(&self.root), state.cluster_id, node, voters)
                .map_err(|error| DevError::Format { node: node.name, error })?;
        }
        state.formatted = true;
        state.save(&self.root)?;
        Ok(state)
    }

    /// The cluster in the folder, completed if its making was interrupted; None if there is none.
    ///
    /// # Errors
    /// [`DevError`].
    pub fn existing(&self) -> Result<Option<State>, DevError> {
        match State::load(&self.root) {
            Ok(state) if state.formatted => Ok(Some(state)),
            Ok(state) => self.lay_out(state).map(Some),
            Err(StateError::None(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Every node's name, controllers first.
    ///
    /// # Errors
    /// As [`Cluster::state`].
    pub fn names(&self) -> Result<Vec<NodeName>, DevError> {
        Ok(self.state()?.nodes.iter().map(|node| node.name).collect())
    }

    /// Starts these nodes and returns at once. All ports are looked at before the first is started.
    ///
    /// # Errors
    /// [`DevError::PortTaken`], [`DevError::RunsAlready`], [`DevError::NoNode`], [`DevError::Io`].
    pub fn start(&self, names: &[NodeName]) -> Result<(), DevError> {
        let state = self.state()?;
        let nodes = names.iter().map(|name| self.node(&state, *name)).collect::<Result<Vec<_>, _>>()?;
        for node in &nodes {
            if state.process(node.name).is_some_and(|process| process.life() != Life::Gone) {
                return Err(DevError::RunsAlready(node.name));
            }
        }
        check_ports(&nodes)?;
        for node in nodes {
            let config = node.config_file(&self.root);
            let role = node.name.role.to_string();
            let arguments = [role.as_str(), "--config", &config.to_string_lossy()];
            let process = process::spawn(&self.program, &arguments, &node.log_file(&self.root))
                .map_err(DevError::io(format!("cannot start {}", node.name)))?;
            State::update(&self.root, |state| state.processes.insert(node.name.to_string(), process))?;
        }
        Ok(())
    }

    fn node(&self, state: &State, name: NodeName) -> Result<Node, DevError> {
        state.node(name).cloned().ok_or_else(|| DevError::NoNode {
            name,
            nodes: state.nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Waits until each of these nodes says it is ready; `progress` hears of each one.
    ///
    /// # Errors
    /// [`DevError::Died`] with the end of its output, [`DevError::NotReady`] with what it answered last.
    pub fn wait_ready(
        &self,
        names: &[NodeName],
        timeout: Duration,
        mut progress: impl FnMut(NodeName),
    ) -> Result<(), DevError> {
        let state = self.state()?;
        let deadline = Instant::now() + timeout;
        let mut waiting = names.iter().map(|name| self.node(&state, *name)).collect::<Result<Vec<_>, _>>()?;
        loop {
            let mut last = String::new();
            let mut still = Vec::new();
            for node in waiting {
                match self.readiness(&state, &node)? {
                    None => progress(node.name),
                    Some(why) => {
                        last = why;
                        still.push(node);
                    }
                }
            }
            waiting = still;
            let Some(node) = waiting.first() else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(DevError::NotReady { node: node.name, seconds: timeout.as_secs(), why: last });
            }
            std::thread::sleep(limits::POLL_INTERVAL);
        }
    }

    /// Why the node is not ready, or None if it is.
    fn readiness(&self, state: &State, node: &Node) -> Result<Option<String>, DevError> {
        if state.process(node.name).is_none_or(|process| process.life() == Life::Gone) {
            let log = node.log_file(&self.root);
            let tail = tail(&log);
            return Err(DevError::Died { node: node.name, log, tail });
        }
        Ok(match http::get(&node.metrics(), "/readyz") {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(answer.body.trim().to_owned()),
            Err(error) => Some(error.to_string()),
        })
    }

    /// Sends a signal to a running node.
    ///
    /// # Errors
    /// [`DevError::NoNode`], [`DevError::NotRunning`], [`DevError::Io`].
    pub fn signal(&self, name: NodeName, signal: Signal) -> Result<(), DevError> {
        let state = self.state()?;
        self.node(&state, name)?;
        let process = state.process(name).ok_or(DevError::NotRunning(name))?;
        match process.signal(signal).map_err(DevError::io(format!("cannot signal {name}")))? {
            true => Ok(()),
            false => Err(DevError::NotRunning(name)),
        }
    }

    /// Kills a node (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// As [`Cluster::signal`].
    pub fn kill(&self, name: NodeName) -> Result<(), DevError> {
        self.signal(name, Signal::KILL)?;
        let state = self.state()?;
        let process = state.process(name).ok_or(DevError::NotRunning(name))?;
        wait_gone(&[process], limits::DEV_STOP_TIMEOUT);
        Ok(())
    }

    /// How every node is.
    ///
    /// # Errors
    /// As [`Cluster::state`].
    pub fn status(&self) -> Result<Vec<NodeStatus>, DevError> {
        let state = self.state()?;
        Ok(state.nodes.iter().map(|node| node_status(&state, node)).collect())
    }

    /// How many of its processes live.
    ///
    /// # Errors
    /// As [`Cluster::state`].
    pub fn running(&self) -> Result<usize, DevError> {
        let state = self.state()?;
        Ok(state.processes.values().filter(|process| process.life() != Life::Gone).count())
    }

    /// Stops the brokers, then the controllers; kills what does not stop in time. Returns the killed ones.
    ///
    /// # Errors
    /// As [`Cluster::state`], and when the kernel refuses a signal.
    pub fn stop(&self) -> Result<Vec<NodeName>, DevError> {
        let state = self.state()?;
        let mut killed = Vec::new();
        for role in [Role::Broker, Role::Controller] {
            let of_role = state.nodes.iter().filter(|node| node.name.role == role);
            let living: Vec<(NodeName, &ProcessId)> = of_role
                .filter_map(|node| Some((node.name, state.process(node.name)?)))
                .filter(|(_, process)| process.life() != Life::Gone)
                .collect();
            for (name, process) in &living {
                for signal in [Signal::CONT, Signal::TERM] {
                    process.signal(signal).map_err(DevError::io(format!("cannot signal {name}")))?;
                }
            }
            wait_gone(&living.iter().map(|(_, process)| *process).collect::<Vec<_>>(), limits::DEV_STOP_TIMEOUT);
            for (name, process) in living {
                if process.signal(Signal::KILL).map_err(DevError::io(format!("cannot signal {name}")))? {
                    wait_gone(&[process], limits::DEV_STOP_TIMEOUT);
                    killed.push(name);
                }
            }
        }
        Ok(killed)
    }

    /// Kills every process and removes the cluster's files; the folder itself goes if nothing else is in it.
    ///
    /// # Errors
    /// As [`Cluster::state`], and when a file cannot be removed.
    pub fn purge(&self) -> Result<(), DevError> {
        let state = self.state()?;
        let living: Vec<&ProcessId> = state.processes.values().filter(|p| p.life() != Life::Gone).collect();
        for process in &living {
            process.signal(Signal::KILL).map_err(DevError::io("cannot kill a node"))?;
        }
        wait_gone(&living, limits::DEV_STOP_TIMEOUT);
        for node in &state.nodes {
            let folder = node.folder(&self.root);
            if folder.exists() {
                std::fs::remove_dir_all(&folder).map_err(DevError::io(folder.display().to_string()))?;
            }
        }
        for file in ["dev.lock", "dev.json.new", "dev.json"] {
            let path = self.root.join(file);
            if path.exists() {
                std::fs::remove_file(&path).map_err(DevError::io(path.display().to_string()))?;
            }
        }
        let empty = std::fs::read_dir(&self.root).is_ok_and(|mut entries| entries.next().is_none());
        if empty {
            std::fs::remove_dir(&self.root).map_err(DevError::io(self.root.display().to_string()))?;
        }
        Ok(())
    }
}

fn node_status(state: &State, node: &Node) -> NodeStatus {
    let process = state.process(node.name);
    let life = process.map_or(Life::Gone, ProcessId::life);
    let ready = || http::get(&node.metrics(), "/readyz").is_ok_and(|answer| answer.status == 200);
    let status = match life {
        Life::Gone => NodeState::Stopped,
        Life::Paused => NodeState::Paused,
        Life::Running if ready() => NodeState::Running,
        Life::Running => NodeState::NotReady,
    };
    NodeStatus {
        role: node.name.role,
        id: node.name.id,
        dc: node.dc.clone(),
        pid: process.filter(|_| life != Life::Gone).map(|process| process.pid),
        address: node.address(),
        metrics: node.metrics(),
        state: status,
    }
}

/// Whether every port of the nodes can be listened on.
fn check_ports(nodes: &[Node]) -> Result<(), DevError> {
    for node in nodes {
        for port in node.ports() {
            TcpListener::bind((layout::HOST, port)).map_err(|error| DevError::PortTaken {
                port,
                node: node.name,
                error,
            })?;
        }
    }
    Ok(())
}

fn wait_gone(processes: &[&ProcessId], timeout: Duration) {
    let deadline = Instant::now() + timeout;
    while processes.iter().any(|process| process.life() != Life::Gone) && Instant::now() < deadline {
        std::thread::sleep(limits::POLL_INTERVAL);
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(limits::LOG_TAIL_LINES)..].join("\n")
}
