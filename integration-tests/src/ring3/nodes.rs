//! The processes: one controller and one broker in each data centre, started from configuration files as users write them.
//!
//! Owns the folder, the files and the lives. Each node runs in its own namespace; every process is known by number and
//! start time (`deploy::dev::process`), so only our own are ever signalled.

use super::Failure;
use super::net::{CLIENTS, DCS, Net, address, sh};
use super::scene::CHECKED;
use crate::wait::{eventually, within_patience};
use deploy::dev::http;
use deploy::dev::layout::{NodeName, Role};
use deploy::dev::process::{self, Life, ProcessId, Signal};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Port of clients (brokers), of peers and clients (controllers).
const PORT: u16 = 9_092;

/// Port of brokers for nodes.
const INTERNAL_PORT: u16 = 9_093;

/// Port of the HTTP listener.
const METRICS_PORT: u16 = 9_094;

/// Slots of addresses within a data centre, by namespace letter.
pub const SLOTS: [(&str, u32); 2] = [("c", 1), ("b", 2)];

/// The cluster under test.
#[derive(Debug)]
pub struct Nodes {
    net: Net,
    program: PathBuf,
    folder: PathBuf,
    cluster_id: Uuid,
    processes: BTreeMap<NodeName, ProcessId>,
}

/// The namespace of a node.
pub fn place(node: NodeName) -> String {
    match node.role {
        Role::Controller => format!("c{}", node.id),
        Role::Broker => format!("b{}", node.id),
    }
}

/// The address of a node, without port. Node N lives in data centre N.
pub fn address_of(node: NodeName) -> String {
    address(node.id, if node.role == Role::Controller { 1 } else { 2 })
}

/// Every node, controllers first.
pub fn all() -> Vec<NodeName> {
    (1..=DCS).map(NodeName::controller).chain((1..=DCS).map(NodeName::broker)).collect()
}

/// What clients begin with.
pub fn bootstrap() -> String {
    (1..=DCS).map(|dc| format!("{}:{PORT}", address_of(NodeName::broker(dc)))).collect::<Vec<_>>().join(",")
}

/// The controllers' addresses.
pub fn controllers() -> Vec<String> {
    (1..=DCS).map(|dc| format!("{}:{PORT}", address_of(NodeName::controller(dc)))).collect()
}

impl Nodes {
    /// Writes configuration and formats every directory; starts nothing. `settings` are lines of the files.
    ///
    /// # Errors
    /// When a file cannot be written or the program refuses.
    pub fn lay_out(net: Net, program: &Path, folder: &Path, settings: &[&str]) -> Result<Self, Failure> {
        let cluster_id = Uuid::new_v4();
        let directories: Vec<Uuid> = (1..=DCS).map(|_| Uuid::new_v4()).collect();
        let voter = |(dc, directory): (u32, &Uuid)| {
            let at = address_of(NodeName::controller(dc));
            format!("\"{dc}@{at}:{PORT}@local/dc{dc}/r1#{directory}\"")
        };
        let voters = (1..=DCS).zip(&directories).map(voter).collect::<Vec<_>>().join(", ");
        let nodes = Self {
            net,
            program: program.to_path_buf(),
            folder: folder.to_path_buf(),
            cluster_id,
            processes: BTreeMap::new(),
        };
        for node in all() {
            let home = folder.join(node.to_string());
            std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
            let text = nodes.config(node, &voters, settings);
            let file = home.join("node.toml");
            std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
            let (role, id) = (node.role.to_string(), cluster_id.to_string());
            let (file, program) = (file.to_string_lossy().into_owned(), program.to_string_lossy().into_owned());
            let directory = directories[node.id as usize - 1].to_string();
            let mut arguments = vec!["format", &role, "--config", &file, "--cluster-id", &id];
            if node.role == Role::Controller {
                arguments.extend(["--directory-id", &directory]);
            }
            sh(&program, &arguments)?;
        }
        Ok(nodes)
    }

    fn config(&self, node: NodeName, voters: &str, settings: &[&str]) -> String {
        let at = address_of(node);
        let mut lines = vec![
            format!("\"node.id\" = {}", node.id),
            format!("\"node.locality\" = \"local/dc{}/r1\"", node.id),
            format!("\"data.dir\" = {:?}", self.data_dir(node).to_string_lossy()),
            format!("\"metrics.listen\" = \"{at}:{METRICS_PORT}\""),
        ];
        match node.role {
            Role::Controller => {
                lines.push(format!("\"listen\" = \"{at}:{PORT}\"\n\"advertise\" = \"{at}:{PORT}\""));
                lines.push(format!("\"voters\" = [{voters}]"));
            }
            Role::Broker => {
                for (name, port) in [("client", PORT), ("internal", INTERNAL_PORT)] {
                    lines.push(format!("\"{name}.listen\" = \"{at}:{port}\"\n\"{name}.advertise\" = \"{at}:{port}\""));
                }
                let controllers = controllers().iter().map(|at| format!("{at:?}")).collect::<Vec<_>>().join(", ");
                lines.push(format!("\"controllers\" = [{controllers}]"));
            }
        }
        lines.extend(settings.iter().map(|line| (*line).to_owned()));
        lines.join("\n") + "\n"
    }

    /// The network below.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// A node's data directory.
    pub fn data_dir(&self, node: NodeName) -> PathBuf {
        self.folder.join(node.to_string()).join("data")
    }

    /// Starts nodes; does not wait.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub fn start(&mut self, nodes: &[NodeName]) -> Result<(), Failure> {
        for node in nodes {
            let (name, role) = (self.net.name(&place(*node)), node.role.to_string());
            let home = self.folder.join(node.to_string());
            let (program, config) = (self.program.to_string_lossy(), home.join("node.toml"));
            let arguments = ["netns", "exec", &name, &program, &role, "--config", &config.to_string_lossy()];
            let process = process::spawn(Path::new("ip"), &arguments, &home.join("process.log"))
                .map_err(|error| format!("{node}: {error}"))?;
            self.processes.insert(*node, process);
        }
        Ok(())
    }

    /// Waits until every node says that it is ready.
    ///
    /// # Errors
    /// The first that is not in time, with its last words.
    pub fn wait_ready(&self) -> Result<(), Failure> {
        for node in all() {
            let at = format!("{}:{METRICS_PORT}", address_of(node));
            within_patience(&format!("{node} is ready"), || match http::get(&at, "/readyz") {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{}; its log: {}", answer.body.trim(), self.last_words(node))),
                Err(error) => Err(format!("{error}; its log: {}", self.last_words(node))),
            })?;
        }
        Ok(())
    }

    fn last_words(&self, node: NodeName) -> String {
        let text = std::fs::read_to_string(self.folder.join(node.to_string()).join("process.log")).unwrap_or_default();
        text.lines().rev().take(2).collect::<Vec<_>>().join(" | ")
    }

    /// Whether a node lives, and how.
    pub fn life(&self, node: NodeName) -> Life {
        self.processes.get(&node).map_or(Life::Gone, ProcessId::life)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the kernel refuses; or the process is gone already, which nobody asked of it.
    pub fn signal(&self, node: NodeName, signal: Signal) -> Result<(), Failure> {
        let process = self.processes.get(&node).ok_or_else(|| format!("{node} was never started"))?;
        match process.signal(signal) {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.died(node)),
            Err(error) => Err(format!("{node}: {error}")),
        }
    }

    fn died(&self, node: NodeName) -> Failure {
        format!("{node} died by itself; its last words: {}", self.last_words(node))
    }

    /// Every node that was started and not killed since still lives.
    ///
    /// # Errors
    /// The first that does not, with its last words.
    pub fn all_live(&self) -> Result<(), Failure> {
        let gone = self.processes.iter().find(|(_, process)| process.life() == Life::Gone);
        gone.map_or(Ok(()), |(node, _)| Err(self.died(*node)))
    }

    /// No node ever panicked, halted or said that something went wrong which must not.
    ///
    /// # Errors
    /// The lines that say so.
    pub fn logs_are_clean(&self) -> Result<(), Failure> {
        let mut found = vec![];
        for node in all() {
            let file = self.folder.join(node.to_string()).join("process.log");
            let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let text = String::from_utf8_lossy(&bytes);
            found.extend(text.lines().filter(|line| is_bad(line)).map(|line| format!("{node}: {line}")));
        }
        if found.is_empty() { Ok(()) } else { Err(format!("{} bad lines:\n{}", found.len(), found.join("\n"))) }
    }

    /// Kills nodes at the same moment and waits until they are gone.
    ///
    /// # Errors
    /// When the kernel refuses, or one was gone already.
    ///
    /// # Panics
    /// When one does not die.
    pub fn kill(&self, nodes: &[NodeName]) -> Result<(), Failure> {
        for node in nodes {
            self.signal(*node, Signal::KILL)?;
        }
        eventually("the killed are gone", || {
            let alive = nodes.iter().filter(|node| self.life(**node) != Life::Gone).count();
            if alive == 0 { Ok(()) } else { Err(format!("{alive} live")) }
        });
        Ok(())
    }

    /// Kills every node that still lives.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill_what_lives(&self) -> Result<(), Failure> {
        let living: Vec<_> = all().into_iter().filter(|node| self.life(*node) != Life::Gone).collect();
        self.kill(&living)
    }

    /// Runs the program's command line as a client; what it printed.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn cli(&self, arguments: &[&str]) -> Result<String, Failure> {
        let name = self.net.name(CLIENTS);
        let (program, brokers) = (self.program.to_string_lossy(), format!("SEAWALL_BOOTSTRAP={}", bootstrap()));
        sh("ip", &[&["netns", "exec", &name, "env", &brokers, &program][..], arguments].concat())
    }
}

impl Nodes {
    /// Who leads: the quorum of controllers, or the first partition of [`CHECKED`] that has a leader.
    ///
    /// # Errors
    /// When nobody does for as long as patience lasts.
    pub fn leader(&self, role: Role) -> Result<NodeName, Failure> {
        let question = match role {
            Role::Controller => ["quorum", "status", "-o", "json"].to_vec(),
            Role::Broker => ["topic", "describe", CHECKED.topic, "-o", "json"].to_vec(),
        };
        within_patience(&format!("a {role} leads"), || {
            let text = self.cli(&question)?;
            let id = leader_in(&text).ok_or(text)?;
            Ok(NodeName { role, id })
        })
    }
}

fn leader_in(json: &str) -> Option<u32> {
    let mut told = json.split("\"leader\":").skip(1).filter_map(|rest| {
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    told.next()
}

/// What a node says when it panics, stops itself or finds what must not be. Everything at the level of errors counts.
const BAD: [&str; 6] = ["panicked at", "fatal", "cannot start", "stopping at once", "halts:", " ERROR "];

/// The one panic that may be: sled's, in its own code, on a checkpoint whose unsynced bytes died with a process. Its callers
/// catch it and rebuild the checkpoint from the log, and the program's panic hook lets it go; nothing is lost with it.
fn is_of_a_checkpoint(line: &str) -> bool {
    line.split_once("panicked at ").is_some_and(|(_, place)| {
        let file = place.split(':').next().unwrap_or_default();
        file.contains("/sled-")
    })
}

fn is_bad(line: &str) -> bool {
    BAD.iter().any(|word| line.contains(word)) && !is_of_a_checkpoint(line)
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for process in self.processes.values() {
            // One that has ended is what is wanted; the network's end kills the rest.
            let _ = process.signal(Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_leader_that_is_known_is_found() {
        assert_eq!(leader_in(r#"{"leader": 3, "term": 9}"#), Some(3));
        assert_eq!(leader_in(r#"[{"leader":null,"leader_epoch":7},{"leader":12}]"#), Some(12));
        assert_eq!(leader_in(r#"{"leader":null}"#), None);
    }

    #[test]
    fn bad_lines_are_told_from_others() {
        for line in [
            "thread 'broker-shard' panicked at broker/src/x.rs:1:1:",
            "2026-01-01T00:00:00Z ERROR controller::quorum::halt: the controller halts reason=\"x\"",
            "seawall broker: cannot start: data.dir",
            "2026-01-01T00:00:00Z ERROR broker: /c/sled-0.34.7/src/a.rs",
            "thread 'x' panicked at broker/src/a.rs:1:1: /c/sled-0.34.7/src/a.rs",
        ] {
            assert!(is_bad(line), "{line}");
        }
        for line in [
            "2026-01-01T00:00:00Z  WARN broker: no controller answers",
            "thread 'x' panicked at /c/sled-0.34.7/src/a.rs:1",
        ] {
            assert!(!is_bad(line), "{line}");
        }
    }
}
