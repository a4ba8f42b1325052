//! What a dev cluster remembers between commands: its layout and which process each node is.
//!
//! Owns `dev.json` in the cluster's folder, written whole and renamed into place under a lock, so that two commands at
//! once (`dev kill` here, `dev start` there) lose nothing. Holds nothing that a node needs: deleting it loses the
//! cluster's processes from view, never its data.

use super::layout::{Node, NodeName, Spec};
use super::process::ProcessId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Version of the file; another one is not read.
const VERSION: u32 = 1;

/// The file's contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Of this file.
    pub version: u32,
    /// The cluster's identity.
    pub cluster_id: Uuid,
    /// What was asked for.
    pub spec: Spec,
    /// The nodes, controllers first.
    pub nodes: Vec<Node>,
    /// Whether every node's folder is complete. Until then nothing has run, and the folders may be made anew.
    pub formatted: bool,
    /// The last process started for each node, by name.
    pub processes: BTreeMap<String, ProcessId>,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// There is no cluster in that folder.
    #[error("no dev cluster in {}; `seawall dev` makes one there", .0.display())]
    None(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not ours, or of another version.
    #[error("{}: {what}; `seawall dev purge` removes a cluster of this version only", path.display())]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
}

impl State {
    /// The state of a cluster that has never run.
    pub fn new(cluster_id: Uuid, spec: Spec, nodes: Vec<Node>) -> Self {
        Self { version: VERSION, cluster_id, spec, nodes, formatted: false, processes: BTreeMap::new() }
    }

    /// The node of that name.
    pub fn node(&self, name: NodeName) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The last process of that node.
    pub fn process(&self, name: NodeName) -> Option<&ProcessId> {
        self.processes.get(&name.to_string())
    }

    /// Reads the state of the cluster in `root`.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(root: &Path) -> Result<Self, StateError> {
        let path = file(root);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StateError::None(root.to_path_buf())),
            Err(error) => return Err(StateError::Io { path, error }),
        };
        let state: Self = serde_json::from_str(&text)
            .map_err(|error| StateError::Foreign { path: path.clone(), what: error.to_string() })?;
        if state.version != VERSION {
            return Err(StateError::Foreign { path, what: format!("version {}, known: {VERSION}", state.version) });
        }
        Ok(state)
    }

    /// Writes the state of the cluster in `root`.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn save(&self, root: &Path) -> Result<(), StateError> {
        let path = file(root);
        let fresh = root.join("dev.json.new");
        let text = serde_json::to_string_pretty(self).expect("numbers, texts and maps with text keys are JSON");
        std::fs::write(&fresh, text + "\n")
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(|error| StateError::Io { path, error })
    }

    /// Loads, changes and saves under the folder's lock.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn update<T>(root: &Path, change: impl FnOnce(&mut Self) -> T) -> Result<(Self, T), StateError> {
        let _lock = lock(root)?;
        let mut state = Self::load(root)?;
        let result = change(&mut state);
        state.save(root)?;
        Ok((state, result))
    }
}

/// The state file of the cluster in `root`.
pub fn file(root: &Path) -> PathBuf {
    root.join("dev.json")
}

/// Held while the state changes; released when dropped, or when its process ends.
fn lock(root: &Path) -> Result<File, StateError> {
    let path = root.join("dev.lock");
    let open = || {
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|error| StateError::Io { path: path.clone(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::layout;

    fn state() -> State {
        let spec = Spec { controllers: 1, brokers: 1, dcs: 1, port_base: 20_000, settings: vec![] };
        let nodes = spec.nodes(Uuid::new_v4).expect("in range");
        State::new(Uuid::new_v4(), spec, nodes)
    }

    #[test]
    fn a_saved_state_reads_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let written = state();
        written.save(dir.path()).expect("writable");
        assert_eq!(State::load(dir.path()).expect("readable"), written);
        assert_eq!(layout::bootstrap(&written.nodes), ["127.0.0.1:20110"]);
    }

    #[test]
    fn no_cluster_and_a_strange_file_are_told_apart() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(matches!(State::load(dir.path()), Err(StateError::None(_))));
        std::fs::write(file(dir.path()), "{\"version\": 99}").expect("writable");
        assert!(matches!(State::load(dir.path()), Err(StateError::Foreign { .. })));
    }

    #[test]
    fn changes_at_once_are_all_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        state().save(dir.path()).expect("writable");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let root = dir.path();
                scope.spawn(move || {
                    let process = ProcessId { pid: number, start_ticks: 0, boot_id: String::new() };
                    State::update(root, |state| state.processes.insert(format!("broker-{number}"), process))
                });
            }
        });
        assert_eq!(State::load(dir.path()).expect("readable").processes.len(), 8);
    }
}
