//! A cluster of real processes for one test: started in a fresh folder on free ports, gone when dropped.
//!
//! Owns the test's side of a dev cluster: ports that no other test uses, the processes' end, and what is printed when a
//! test fails. All acting on the cluster is `deploy::dev::cluster`'s, which users run too.
//! Invariant: one such cluster at a time on this machine, whoever runs the tests: timings of two would disturb each
//! other. A file lock, held for the cluster's life, sees to it.

use crate::wait::PATIENCE;
use deploy::dev::cluster::{Cluster, DevError, NodeState};
use deploy::dev::layout::{Node, NodeName, Role, Spec, bootstrap};
use deploy::dev::process::{Life, Signal};
use deploy::dev::state::State;
use protocol::planted::{self, Bug};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Port bases to choose from: below the range from which systems take ports by themselves (32768 and up).
const PORT_BASES: std::ops::Range<u16> = 20_000..32_000;

/// Distance of two port bases: room for nine controllers and a dozen brokers.
const PORT_STEP: u16 = 300;

/// What a test wants of its cluster.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Controllers.
    pub controllers: u32,
    /// Brokers.
    pub brokers: u32,
    /// Data centres.
    pub dcs: u32,
    /// Settings, `[controller:|broker:]key=value`.
    pub settings: Vec<String>,
    /// A deliberate mistake in every node.
    pub planted: Option<Bug>,
}

impl Default for Wish {
    fn default() -> Self {
        Self { controllers: 3, brokers: 3, dcs: 3, settings: vec![], planted: None }
    }
}

impl Wish {
    /// Adds settings for nodes.
    #[must_use]
    pub fn with(mut self, settings: &[&str]) -> Self {
        self.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
        self
    }
}

/// A running cluster.
pub struct TestCluster {
    /// To act on it.
    pub cluster: Cluster,
    program: PathBuf,
    state: State,
    folder: tempfile::TempDir,
    _alone: File,
}

impl TestCluster {
    /// Starts a cluster of `program` and waits until every node is ready.
    ///
    /// # Panics
    /// When it does not come up; the nodes' last words are printed.
    pub fn start(program: &str, wish: &Wish) -> Self {
        let cluster = Self::laid_out(program, wish);
        let names = cluster.names();
        cluster.start_nodes(&names);
        cluster
    }

    /// Formats a cluster and starts nothing.
    ///
    /// # Panics
    /// When no free ports are found, or the folder cannot be written.
    pub fn laid_out(program: &str, wish: &Wish) -> Self {
        let alone = alone();
        let folder =
            tempfile::Builder::new().prefix("seawall-test-").tempdir().expect("a temporary folder can be made");
        let program = match wish.planted {
            None => PathBuf::from(program),
            Some(bug) => with_planted(bug, program, folder.path()),
        };
        let cluster = Cluster::new(&folder.path().join("cluster"), &program).expect("the path is absolute");
        let settings = wish.settings.iter().map(|s| s.parse().expect("a setting of the test")).collect::<Vec<_>>();
        for port_base in PORT_BASES.step_by(usize::from(PORT_STEP)) {
            let spec = Spec {
                controllers: wish.controllers,
                brokers: wish.brokers,
                dcs: wish.dcs,
                port_base,
                settings: settings.clone(),
            };
            match cluster.create(spec) {
                Ok(state) => return Self { cluster, program, state, folder, _alone: alone },
                Err(DevError::PortTaken { .. }) => {}
                Err(error) => panic!("cannot lay out a cluster: {error}"),
            }
        }
        panic!("no {PORT_STEP} free ports in a row in {PORT_BASES:?}");
    }

    /// Starts these nodes and waits until they are ready.
    ///
    /// # Panics
    /// When they are not in time.
    pub fn start_nodes(&self, names: &[NodeName]) {
        self.cluster.start(names).unwrap_or_else(|error| panic!("{error}"));
        self.cluster.wait_ready(names, PATIENCE, |_| ()).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Every node, controllers first.
    pub fn names(&self) -> Vec<NodeName> {
        self.state.nodes.iter().map(|node| node.name).collect()
    }

    /// The nodes' layout.
    pub fn nodes(&self) -> &[Node] {
        &self.state.nodes
    }

    /// One node's layout.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn node(&self, name: NodeName) -> &Node {
        self.state.node(name).expect("the test named a node of its cluster")
    }

    /// The nodes of one data centre.
    pub fn in_dc(&self, dc: &str) -> Vec<NodeName> {
        self.state.nodes.iter().filter(|node| node.dc == dc).map(|node| node.name).collect()
    }

    /// A node's data directory.
    pub fn data_dir(&self, name: NodeName) -> PathBuf {
        self.node(name).data_dir(self.cluster.root())
    }

    /// A node's output so far.
    pub fn log_text(&self, name: NodeName) -> String {
        let bytes = std::fs::read(self.node(name).log_file(self.cluster.root())).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What clients begin with.
    pub fn bootstrap(&self) -> String {
        bootstrap(&self.state.nodes).join(",")
    }

    /// Kills a node (SIGKILL) and waits until it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self, name: NodeName) {
        self.cluster.kill(name).unwrap_or_else(|error| panic!("{error}"));
    }

    /// How a node is.
    ///
    /// # Panics
    /// When the state cannot be read.
    pub fn state_of(&self, name: NodeName) -> NodeState {
        let nodes = self.cluster.status().unwrap_or_else(|error| panic!("{error}"));
        let found = nodes.iter().find(|node| node.role == name.role && node.id == name.id);
        found.map(|node| node.state).expect("the test named a node of its cluster")
    }

    /// Kills every running node at the same moment: one signal after another, no waiting between.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn kill_all(&self) {
        let state = self.cluster.state().unwrap_or_else(|error| panic!("{error}"));
        let processes: Vec<_> = state.processes.values().collect();
        for process in &processes {
            process.signal(Signal::KILL).expect("the test's own process");
        }
        crate::wait::eventually("every process is gone", || {
            let alive = processes.iter().filter(|p| p.life() != Life::Gone).count();
            if alive == 0 { Ok(()) } else { Err(format!("{alive} live")) }
        });
    }

    /// Runs the program's command line against this cluster.
    ///
    /// # Panics
    /// When the program cannot be run.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.cli_with(arguments, &[])
    }

    /// The same with input.
    ///
    /// # Panics
    /// When the program cannot be run.
    pub fn cli_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self.command(arguments).spawn().expect("the program runs");
        let mut stdin = child.stdin.take().expect("asked for above");
        let input = input.to_vec();
        let feeder = std::thread::spawn(move || {
            // A program that stops reading early closes the pipe; its exit code tells the test.
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().expect("the program ends");
        feeder.join().expect("the feeder only writes");
        output
    }

    /// The program's command line against this cluster, all streams piped.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("SEAWALL_BOOTSTRAP", self.bootstrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the command line and insists that it succeeds; returns what it printed.
    ///
    /// # Panics
    /// When it does not.
    pub fn cli_ok(&self, arguments: &[&str]) -> String {
        self.cli_or(arguments, &[0])
    }

    /// The same for commands that may answer with other exit codes too.
    ///
    /// # Panics
    /// When it ends with none of them.
    pub fn cli_or(&self, arguments: &[&str], codes: &[i32]) -> String {
        let output = self.cli(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let expected = output.status.code().is_some_and(|code| codes.contains(&code));
        assert!(expected, "seawall {}: {}\n{out}{err}", arguments.join(" "), output.status);
        out.into_owned()
    }

    /// The names of one role.
    pub fn of_role(&self, role: Role) -> Vec<NodeName> {
        self.names().into_iter().filter(|name| name.role == role).collect()
    }

    /// The test's folder, removed with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.state.nodes {
                let text = self.log_text(node.name);
                let lines: Vec<&str> = text.lines().collect();
                let last = &lines[lines.len().saturating_sub(40)..];
                eprintln!("--- {} (last of {} lines)\n{}", node.name, lines.len(), last.join("\n"));
            }
            if std::env::var_os("SEAWALL_TEST_KEEP").is_some() {
                self.folder.disable_cleanup(true);
                eprintln!("kept {}", self.folder.path().display());
                let Ok(state) = self.cluster.state() else { return };
                for process in state.processes.values() {
                    let _ = process.signal(Signal::KILL);
                }
                return;
            }
        }
        let _ = self.cluster.purge();
    }
}

/// Waits until no other test cluster exists on this machine, and keeps others waiting while the file is held.
fn alone() -> File {
    let path = std::env::temp_dir().join("seawall-test-cluster.lock");
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).expect("the temporary folder is writable");
    file.lock().expect("locks are supported");
    file
}

/// A program that is `program` with `bug` planted: nodes get no variables of the test's own.
///
/// # Panics
/// When the folder is not writable.
pub fn with_planted(bug: Bug, program: &str, folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("seawall-planted");
    let text = format!("#!/bin/sh\n{}={} exec '{program}' \"$@\"\n", planted::VARIABLE, bug.name());
    std::fs::write(&path, text).expect("the test's folder is writable");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("the test's own file");
    path
}
