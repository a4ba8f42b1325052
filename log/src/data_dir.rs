//! A node's data directory: who may use it, whose it is, how its last user left.
//!
//! Owns: the exclusive lock, the identity record, the layout of the directory, the broker's restart evidence (last
//! broker epoch with boot id, clean-shutdown marker), and setting damaged or stray partitions aside.
//! Never: formats on its own account, generates an id, or trusts a directory whose identity does not match.
//! Invariant: one process at a time; the identity is written last when formatting, so a directory with an identity
//! is complete.
//!
//! ```text
//! lock  identity  broker-state  clean-shutdown
//! partitions/<topic uuid>-<partition>/   strays/   registry/   raft/   cache/
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::error::{Damage, LogError};
use crate::limits::FORMAT_VERSION;
use crate::registry::Registry;
use crate::slot_file::StateFile;
use crate::storage::{Storage, StorageLock, create_dir_durably, remove_tree};

/// What kind of node the directory belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Votes on and keeps the metadata log.
    Controller,
    /// Keeps partitions.
    Broker,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Controller => "controller",
            Role::Broker => "broker",
        })
    }
}

/// Whose directory it is. Written once, by formatting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: Uuid,
    /// The node's configured number.
    pub node_id: u32,
    /// Its kind.
    pub role: Role,
    /// Names this directory for ever; a wiped and formatted disk has another one.
    pub directory: Uuid,
}

/// Whose directory the starting process takes it for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The cluster; `None` if the configuration does not say (the directory then does).
    pub cluster_id: Option<Uuid>,
    /// The node's configured number.
    pub node_id: u32,
    /// Its kind.
    pub role: Role,
}

/// Proof of where the last incarnation stood, made durable before it was unfenced (DESIGN section 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerState {
    /// Epoch of the last registration.
    pub broker_epoch: u64,
    /// The registration under which this directory was last unfenced, while the last one is not known to have been:
    /// a process that dies between the two must not cost what the earlier one could prove.
    pub earlier_epoch: Option<u64>,
    /// Boot of the machine at that time, if known: while it lasts the page cache does.
    pub boot_id: Option<String>,
}

/// Why a data directory cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Nobody formatted it.
    #[error("data directory {} is not formatted; run `seawall format` for it first", path.display())]
    Unformatted {
        /// The directory.
        path: PathBuf,
    },
    /// It has an identity already.
    #[error("data directory {} is formatted already for {} {} of cluster {}", path.display(), found.role, found.node_id, found.cluster_id)]
    AlreadyFormatted {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: Identity,
    },
    /// It holds something else.
    #[error("directory {} cannot be formatted: it holds {name:?}, which is not ours to overwrite", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// The first thing found.
        name: String,
    },
    /// Another process has it.
    #[error("data directory {} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to another cluster.
    #[error("data directory {} belongs to cluster {found}, not {expected}", path.display())]
    WrongCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        found: Uuid,
        /// The configured one.
        expected: Uuid,
    },
    /// It belongs to another node.
    #[error("data directory {} belongs to {found_role} {found}, not {expected_role} {expected}", path.display())]
    WrongNode {
        /// The directory.
        path: PathBuf,
        /// Kind of its node.
        found_role: Role,
        /// Its node.
        found: u32,
        /// Configured kind.
        expected_role: Role,
        /// Configured node.
        expected: u32,
    },
    /// A record or log in it is damaged, or the disk failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<Damage> for DataDirError {
    fn from(damage: Damage) -> Self {
        DataDirError::Log(damage.into())
    }
}

const LOCK: &str = "lock";
const IDENTITY: &str = "identity";
const BROKER_STATE: &str = "broker-state";
const CLEAN_SHUTDOWN: &str = "clean-shutdown";
const PARTITIONS: &str = "partitions";
const STRAYS: &str = "strays";
const REGISTRY: &str = "registry";
const RAFT: &str = "raft";
const CACHE: &str = "cache";

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    identity: Identity,
}

/// An open, locked data directory. The lock is held until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    storage: Arc<dyn Storage>,
    root: PathBuf,
    identity: Identity,
    _lock: Box<dyn StorageLock>,
}

fn load<T: DeserializeOwned>(file: &StateFile) -> Result<Option<T>, LogError> {
    let Some(bytes) = file.load()? else {
        return Ok(None);
    };
    let value = postcard::from_bytes(&bytes);
    Ok(Some(value.map_err(|e| Damage::new(file.path(), 0, format!("record does not decode: {e}")))?))
}

fn store<T: Serialize>(file: &StateFile, value: &T) -> Result<(), LogError> {
    file.store(&postcard::to_stdvec(value).expect("plain records always serialise"))
}

fn load_identity(storage: &Arc<dyn Storage>, root: &Path) -> Result<Option<Identity>, DataDirError> {
    let file = StateFile::new(storage.clone(), root.join(IDENTITY));
    match load::<Stored>(&file)? {
        Some(stored) if stored.format != FORMAT_VERSION => {
            let what = format!("directory has format {}, this build reads {FORMAT_VERSION}", stored.format);
            Err(Damage::new(file.path(), 0, what).into())
        }
        stored => Ok(stored.map(|s| s.identity)),
    }
}

fn lock(storage: &Arc<dyn Storage>, root: &Path) -> Result<Box<dyn StorageLock>, DataDirError> {
    let path = root.join(LOCK);
    match storage.lock(&path) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(DataDirError::Locked { path: root.to_owned() }),
        Err(e) => Err(LogError::io("lock", &path)(e).into()),
        Ok(lock) => Ok(lock),
    }
}

impl DataDir {
    /// Makes `root` (created if missing) the data directory of `identity`. Refuses a directory that has an identity
    /// or holds anything else. May be repeated after a crash in the middle.
    pub fn format(storage: &Arc<dyn Storage>, root: &Path, identity: &Identity) -> Result<(), DataDirError> {
        create_dir_durably(&**storage, root).map_err(LogError::io("create directory", root))?;
        if let Some(found) = load_identity(storage, root)? {
            return Err(DataDirError::AlreadyFormatted { path: root.to_owned(), found });
        }
        check_nothing_foreign(storage, root)?;
        let _lock = lock(storage, root)?;
        for name in [PARTITIONS, STRAYS, REGISTRY, RAFT, CACHE] {
            let path = root.join(name);
            match storage.create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(LogError::io("create directory", &path)(e).into());
                }
                _ => {}
            }
        }
        storage.sync_dir(root).map_err(LogError::io("sync of directory", root))?;
        if identity.role == Role::Broker {
            Registry::create(storage, &root.join(REGISTRY))?;
        }
        let stored = Stored { format: FORMAT_VERSION, identity: *identity };
        Ok(store(&StateFile::new(storage.clone(), root.join(IDENTITY)), &stored)?)
    }

    /// Locks and opens the directory for the node that `expected` names.
    pub fn open(storage: Arc<dyn Storage>, root: &Path, expected: &Expected) -> Result<DataDir, DataDirError> {
        let unformatted = || DataDirError::Unformatted { path: root.to_owned() };
        load_identity(&storage, root)?.ok_or_else(unformatted)?;
        let lock = lock(&storage, root)?;
        let identity = load_identity(&storage, root)?.ok_or_else(unformatted)?;
        let path = root.to_owned();
        if let Some(expected) = expected.cluster_id.filter(|id| *id != identity.cluster_id) {
            return Err(DataDirError::WrongCluster { path, found: identity.cluster_id, expected });
        }
        if (identity.role, identity.node_id) != (expected.role, expected.node_id) {
            return Err(DataDirError::WrongNode {
                path,
                found_role: identity.role,
                found: identity.node_id,
                expected_role: expected.role,
                expected: expected.node_id,
            });
        }
        Ok(DataDir { storage, root: path, identity, _lock: lock })
    }

    /// Reads the identity of a directory without locking it; `None` if it is not formatted.
    pub fn peek(storage: &Arc<dyn Storage>, root: &Path) -> Result<Option<Identity>, DataDirError> {
        load_identity(storage, root)
    }

    /// Whose directory it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The storage it lies on.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a partition's log lies, by topic id: names of topics may be used again, ids are not.
    pub fn partition_dir(&self, topic: Uuid, partition: u32) -> PathBuf {
        self.root.join(PARTITIONS).join(format!("{topic}-{partition}"))
    }

    /// For the controller's Raft log, vote and snapshots.
    pub fn raft_dir(&self) -> PathBuf {
        self.root.join(RAFT)
    }

    /// For the partition registry.
    pub fn registry_dir(&self) -> PathBuf {
        self.root.join(REGISTRY)
    }

    /// For what can be rebuilt; may be deleted while the node is stopped.
    pub fn cache_dir(&self) -> PathBuf {
        self.root.join(CACHE)
    }

    /// Partitions whose directories exist, in order; names that are no partition's are ignored.
    pub fn partitions(&self) -> Result<Vec<(Uuid, u32)>, LogError> {
        let dir = self.root.join(PARTITIONS);
        let entries = self.storage.list(&dir).map_err(LogError::read(&dir))?;
        Ok(entries.iter().filter(|e| e.is_dir).filter_map(|e| parse_partition(&e.name)).collect())
    }

    /// Free bytes on the directory's file system.
    pub fn free_space(&self) -> Result<u64, LogError> {
        self.storage.free_space(&self.root).map_err(LogError::read(&self.root))
    }

    fn state(&self, name: &str) -> StateFile {
        StateFile::new(self.storage.clone(), self.root.join(name))
    }

    /// The restart evidence that the last incarnation left.
    pub fn broker_state(&self) -> Result<Option<BrokerState>, LogError> {
        load(&self.state(BROKER_STATE))
    }

    /// Makes the evidence of this incarnation durable: after registering, before asking to be unfenced.
    pub fn store_broker_state(&self, state: &BrokerState) -> Result<(), LogError> {
        store(&self.state(BROKER_STATE), state)
    }

    /// The machine's boot id, for [`BrokerState`].
    pub fn boot_id(&self) -> Result<Option<String>, LogError> {
        self.storage.boot_id().map_err(LogError::read(&self.root))
    }

    /// Notes durably that the incarnation with this broker epoch closed every log. The last act of a clean stop.
    pub fn mark_clean_shutdown(&self, broker_epoch: u64) -> Result<(), LogError> {
        store(&self.state(CLEAN_SHUTDOWN), &broker_epoch)
    }

    /// The broker epoch of a clean stop, if the last stop was one. Stays until [`DataDir::clear_clean_shutdown`].
    pub fn clean_shutdown(&self) -> Result<Option<u64>, LogError> {
        load(&self.state(CLEAN_SHUTDOWN))
    }

    /// Removes the marker durably; before anything is served or written.
    pub fn clear_clean_shutdown(&self) -> Result<(), LogError> {
        self.state(CLEAN_SHUTDOWN).delete()
    }

    /// Moves a partition's directory out of the way durably (damaged, or not in the image) and returns where it is.
    /// Its log must be closed. Nothing is deleted.
    pub fn set_aside(&self, topic: Uuid, partition: u32) -> Result<PathBuf, LogError> {
        let from = self.partition_dir(topic, partition);
        let strays = self.root.join(STRAYS);
        let taken = self.storage.list(&strays).map_err(LogError::read(&strays))?;
        let name = |n: u64| format!("{topic}-{partition}.{n}");
        let free = (0..).find(|n| taken.iter().all(|e| e.name != name(*n))).expect("the numbers do not run out");
        let to = strays.join(name(free));
        self.storage.rename(&from, &to).map_err(LogError::io("rename", &from))?;
        for dir in [&strays, &self.root.join(PARTITIONS)] {
            self.storage.sync_dir(dir).map_err(LogError::io("sync of directory", dir))?;
        }
        Ok(to)
    }

    /// Directories set aside, in order.
    pub fn strays(&self) -> Result<Vec<PathBuf>, LogError> {
        let dir = self.root.join(STRAYS);
        let entries = self.storage.list(&dir).map_err(LogError::read(&dir))?;
        Ok(entries.into_iter().map(|e| dir.join(e.name)).collect())
    }

    /// Deletes a partition's directory for good (its topic was purged by a committed fact). A missing one is fine.
    pub fn delete_partition(&self, topic: Uuid, partition: u32) -> Result<(), LogError> {
        let dir = self.partition_dir(topic, partition);
        remove_tree(&*self.storage, &dir).map_err(LogError::io("remove", &dir))
    }

    /// Deletes a directory that was set aside, by command of an operator.
    pub fn delete_stray(&self, stray: &Path) -> Result<(), LogError> {
        let inside = stray.parent() == Some(&*self.root.join(STRAYS)) && stray.file_name().is_some();
        if !inside {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a directory that was set aside");
            return Err(LogError::Read { path: stray.to_owned(), source });
        }
        remove_tree(&*self.storage, stray).map_err(LogError::io("remove", stray))
    }
}

/// Topic and partition of a directory name.
pub fn parse_partition(name: &str) -> Option<(Uuid, u32)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let parsed = (topic.parse().ok()?, partition.parse().ok()?);
    // Only the canonical spelling: two directories must never mean one partition.
    (format!("{}-{}", parsed.0, parsed.1) == name).then_some(parsed)
}

/// A directory may be formatted if it holds nothing, or what an interrupted formatting leaves.
fn check_nothing_foreign(storage: &Arc<dyn Storage>, root: &Path) -> Result<(), DataDirError> {
    let foreign = |name: String| DataDirError::NotEmpty { path: root.to_owned(), name };
    for entry in storage.list(root).map_err(LogError::read(root))? {
        let ours = match entry.name.as_str() {
            LOCK | "identity.tmp" => true,
            REGISTRY => entry.is_dir,
            PARTITIONS | STRAYS | RAFT | CACHE => {
                let path = root.join(&entry.name);
                // A controller's first voter set is written before the identity that makes it count.
                let allowed = |name: &str| entry.name == RAFT && matches!(name, "bootstrap" | "bootstrap.tmp");
                let inside = if entry.is_dir { storage.list(&path).map_err(LogError::read(&path))? } else { vec![] };
                entry.is_dir && inside.iter().all(|e| !e.is_dir && allowed(&e.name))
            }
            _ => false,
        };
        // The name that `mkfs` puts on every new ext4 file system.
        if !ours && entry.name != "lost+found" {
            return Err(foreign(entry.name));
        }
    }
    Ok(())
}
