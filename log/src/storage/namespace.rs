//! Names with two lives: what the running process sees, and what a crash would leave.
//!
//! Owns: the tree of directories behind the simulated disk and the power-loss storage, and the list of name
//! changes that no directory sync has covered yet.
//! Never: holds file contents (`F` is the implementation's business), does I/O, chooses what a crash keeps.
//! Invariant: `durable` changes only in [`Namespace::sync_dir`] and [`Namespace::crash`]. A rename is one change,
//! kept or lost whole, even between two directories.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::DirEntry;

/// Names a file or directory for its whole life, whatever it is called.
pub(super) type NodeId = u64;

/// The root directory.
pub(super) const ROOT: NodeId = 0;

/// A name in a directory.
pub(super) type Key = (NodeId, String);

/// A change of names that is not durable yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NameOp {
    /// A new name for a new node.
    Link(Key, NodeId),
    /// A name removed.
    Unlink(Key, NodeId),
    /// A node renamed.
    Move(Key, Key, NodeId),
}

impl NameOp {
    fn keys(&self) -> Vec<&Key> {
        match self {
            NameOp::Link(key, _) | NameOp::Unlink(key, _) => vec![key],
            NameOp::Move(from, to, _) => vec![from, to],
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Dir {
    seen: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

#[derive(Debug, Clone)]
enum Node<F> {
    File(F),
    Dir(Dir),
}

/// The tree. `F` is a cheap handle of a file's contents.
#[derive(Debug, Clone)]
pub(super) struct Namespace<F> {
    nodes: BTreeMap<NodeId, Node<F>>,
    next: NodeId,
    pending: Vec<NameOp>,
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl<F: Clone> Namespace<F> {
    pub(super) fn new() -> Self {
        Namespace { nodes: BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]), next: ROOT + 1, pending: Vec::new() }
    }

    fn names(path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir => {}
                Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
                _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "paths are absolute and plain")),
            }
        }
        Ok(names)
    }

    fn dir(&self, id: NodeId, path: &Path) -> io::Result<&Dir> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{}", path.display()))),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> &mut Dir {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => dir,
            _ => unreachable!("keys of name changes name directories"),
        }
    }

    /// The node of `path`.
    pub(super) fn resolve(&self, path: &Path) -> io::Result<NodeId> {
        let mut at = ROOT;
        for name in Self::names(path)? {
            at = *self.dir(at, path)?.seen.get(&name).ok_or_else(|| not_found(path))?;
        }
        Ok(at)
    }

    /// Directory and name of `path`, whose parent must exist.
    pub(super) fn key(&self, path: &Path) -> io::Result<Key> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the root has no name"));
        };
        let dir = self.resolve(parent)?;
        self.dir(dir, parent)?;
        Ok((dir, name.to_string_lossy().into_owned()))
    }

    /// The contents handle of a file.
    pub(super) fn file(&self, path: &Path) -> io::Result<(NodeId, F)> {
        let id = self.resolve(path)?;
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok((id, file.clone())),
            _ => Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{}", path.display()))),
        }
    }

    fn link(&mut self, path: &Path, node: Node<F>) -> io::Result<NodeId> {
        let key = self.key(path)?;
        if self.dir(key.0, path)?.seen.contains_key(&key.1) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", path.display())));
        }
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        self.dir_mut(key.0).seen.insert(key.1.clone(), id);
        self.pending.push(NameOp::Link(key, id));
        Ok(id)
    }

    pub(super) fn create(&mut self, path: &Path, file: F) -> io::Result<NodeId> {
        self.link(path, Node::File(file))
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<NodeId> {
        self.link(path, Node::Dir(Dir::default()))
    }

    /// Adds a node that is durable already (found on disk at the start).
    #[cfg_attr(not(feature = "power-loss"), expect(dead_code, reason = "only the power-loss storage starts full"))]
    pub(super) fn adopt(&mut self, parent: NodeId, name: &str, file: Option<F>) -> NodeId {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, file.map_or_else(|| Node::Dir(Dir::default()), Node::File));
        let dir = self.dir_mut(parent);
        dir.seen.insert(name.to_owned(), id);
        dir.durable.insert(name.to_owned(), id);
        id
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.file(path)?;
        self.unlink(path)
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.resolve(path)?;
        if !self.dir(id, path)?.seen.is_empty() {
            return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, format!("{}", path.display())));
        }
        self.unlink(path)
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let key = self.key(path)?;
        let id = self.resolve(path)?;
        self.dir_mut(key.0).seen.remove(&key.1);
        self.pending.push(NameOp::Unlink(key, id));
        Ok(())
    }

    pub(super) fn rename(&mut self, from_path: &Path, to: &Path) -> io::Result<()> {
        let id = self.resolve(from_path)?;
        let (from, to_key) = (self.key(from_path)?, self.key(to)?);
        self.may_replace(id, from_path, to)?;
        self.dir_mut(from.0).seen.remove(&from.1);
        self.dir_mut(to_key.0).seen.insert(to_key.1.clone(), id);
        self.pending.push(NameOp::Move(from, to_key, id));
        Ok(())
    }

    /// The rules of rename(2): nothing into itself, a directory only over an empty one, a file only over a file.
    fn may_replace(&self, id: NodeId, from: &Path, to: &Path) -> io::Result<()> {
        if to.starts_with(from) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a directory cannot move into itself"));
        }
        let moves_dir = matches!(self.nodes.get(&id), Some(Node::Dir(_)));
        let Ok(old) = self.resolve(to) else {
            return Ok(());
        };
        let kind = match self.nodes.get(&old) {
            Some(Node::Dir(_)) if !moves_dir => io::ErrorKind::IsADirectory,
            Some(Node::Dir(dir)) if !dir.seen.is_empty() => io::ErrorKind::DirectoryNotEmpty,
            Some(Node::File(_)) if moves_dir => io::ErrorKind::NotADirectory,
            _ => return Ok(()),
        };
        Err(io::Error::new(kind, format!("{}", to.display())))
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let id = self.resolve(path)?;
        let dir = self.dir(id, path)?;
        let entry = |(name, id): (&String, &NodeId)| DirEntry {
            name: name.clone(),
            is_dir: matches!(self.nodes.get(id), Some(Node::Dir(_))),
        };
        Ok(dir.seen.iter().map(entry).collect())
    }

    fn apply(&mut self, op: &NameOp) {
        match op {
            NameOp::Link(key, id) => {
                self.dir_mut(key.0).durable.insert(key.1.clone(), *id);
            }
            NameOp::Unlink(key, id) => self.forget(key, *id),
            NameOp::Move(from, to, id) => {
                self.forget(from, *id);
                self.dir_mut(to.0).durable.insert(to.1.clone(), *id);
            }
        }
    }

    fn forget(&mut self, key: &Key, id: NodeId) {
        let durable = &mut self.dir_mut(key.0).durable;
        if durable.get(&key.1) == Some(&id) {
            durable.remove(&key.1);
        }
    }

    /// Makes the names of a directory durable and returns what changed, in order. A change that an earlier one of
    /// another directory must precede (the same name, renamed later) takes that one along.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<Vec<NameOp>> {
        let id = self.resolve(path)?;
        self.dir(id, path)?;
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let mut chosen = vec![false; self.pending.len()];
        for (i, op) in self.pending.iter().enumerate().rev() {
            chosen[i] = op.keys().into_iter().any(|key| key.0 == id || keys.contains(key));
            if chosen[i] {
                keys.extend(op.keys().into_iter().cloned());
            }
        }
        let mut done = Vec::new();
        let mut rest = Vec::new();
        for (op, chosen) in std::mem::take(&mut self.pending).into_iter().zip(chosen) {
            if chosen { done.push(op) } else { rest.push(op) }
        }
        self.pending = rest;
        done.iter().for_each(|op| self.apply(op));
        if done.iter().any(|op| !matches!(op, NameOp::Link(..))) {
            self.prune();
        }
        Ok(done)
    }

    /// A power cut: each change not yet durable is kept if `keep` says so, then only durable names remain.
    pub(super) fn crash(&mut self, keep: &mut dyn FnMut() -> bool) {
        for op in std::mem::take(&mut self.pending) {
            if keep() {
                self.apply(&op);
            }
        }
        for node in self.nodes.values_mut() {
            if let Node::Dir(dir) = node {
                dir.seen = dir.durable.clone();
            }
        }
        let mut live = BTreeSet::from([ROOT]);
        let mut queue = vec![ROOT];
        while let Some(id) = queue.pop() {
            if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
                queue.extend(dir.seen.values().filter(|id| live.insert(**id)));
            }
        }
        self.nodes.retain(|id, _| live.contains(id));
    }

    /// Drops nodes that no name, seen or durable or in a pending change, leads to.
    fn prune(&mut self) {
        let pending = self.pending.iter().map(|op| match op {
            NameOp::Link(_, id) | NameOp::Unlink(_, id) | NameOp::Move(_, _, id) => *id,
        });
        let dirs = self.pending.iter().flat_map(NameOp::keys).map(|key| key.0);
        let mut queue: Vec<NodeId> = std::iter::once(ROOT).chain(pending).chain(dirs).collect();
        let mut live: BTreeSet<NodeId> = queue.iter().copied().collect();
        while let Some(id) = queue.pop() {
            if let Some(Node::Dir(dir)) = self.nodes.get(&id) {
                queue.extend(dir.seen.values().chain(dir.durable.values()).filter(|id| live.insert(**id)));
            }
        }
        self.nodes.retain(|id, _| live.contains(id));
    }

    /// Every file, in a fixed order.
    pub(super) fn files(&self) -> Vec<F> {
        let file = |node: &Node<F>| if let Node::File(f) = node { Some(f.clone()) } else { None };
        self.nodes.values().filter_map(file).collect()
    }

    /// How many directories there are, the root among them.
    pub(super) fn directories(&self) -> u64 {
        self.nodes.values().filter(|node| matches!(node, Node::Dir(_))).count() as u64
    }

    /// Replaces every file's contents handle (a deep copy of the disk).
    pub(super) fn map_files(&mut self, mut copy: impl FnMut(&F) -> F) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                *file = copy(file);
            }
        }
    }
}
