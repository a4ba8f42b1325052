//! `seawall log strays` and `seawall log purge-strays`: what a broker set aside in its data directory, and getting rid of it.
//!
//! Never: touches anything outside the directory of what was set aside. Invariant: nothing is deleted while the broker
//! runs (its lock is taken first), without `--yes`, or from a directory that is no broker's.

use super::find::size_of;
use crate::exit::Exit;
use broker::strays;
use log::data_dir::{DataDir, DataDirError, Expected, Role};
use log::storage::Storage;
use log::storage::file::FileStorage;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the directory's strays are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum StraysError {
    /// The path.
    #[error("{}: {source}", path.display())]
    Path {
        /// As given.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Not formatted.
    #[error("{} is not a formatted data directory", .0.display())]
    NotFormatted(PathBuf),
    /// A controller's: nothing is ever set aside there.
    #[error("{} belongs to controller {node}; only brokers set anything aside", path.display())]
    NotABroker {
        /// The directory.
        path: PathBuf,
        /// Its node.
        node: u32,
    },
    /// In use, damaged, or the disk failed.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The disk failed on the way.
    #[error(transparent)]
    Log(#[from] log::LogError),
}

impl StraysError {
    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Path { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Exit::NotFound,
            Self::Path { .. } | Self::NotFormatted(_) | Self::NotABroker { .. } => Exit::Usage,
            Self::DataDir(DataDirError::Locked { .. }) => Exit::Refused,
            Self::DataDir(_) | Self::Log(_) => Exit::Other,
        }
    }
}

/// One thing set aside.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Stray {
    /// Where it is.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// It is gone now.
    pub deleted: bool,
}

fn open(dir: &Path) -> Result<DataDir, StraysError> {
    let root = std::fs::canonicalize(dir).map_err(|source| StraysError::Path { path: dir.to_owned(), source })?;
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::new(root.clone()));
    let identity = DataDir::peek(&storage, &root)?.ok_or_else(|| StraysError::NotFormatted(root.clone()))?;
    if identity.role != Role::Broker {
        return Err(StraysError::NotABroker { path: root, node: identity.node_id });
    }
    let expected = Expected { cluster_id: Some(identity.cluster_id), node_id: identity.node_id, role: identity.role };
    Ok(DataDir::open(storage, &root, &expected)?)
}

/// What is set aside in a stopped broker's data directory; deleted, one after the other, if `purge`.
///
/// # Errors
/// [`StraysError`]; what was deleted before a failing one is gone.
pub fn set_aside(dir: &Path, purge: bool) -> Result<Vec<Stray>, StraysError> {
    let data = open(dir)?;
    let mut found = Vec::new();
    for path in strays::list(&data)? {
        let bytes = size_of(&path).map_err(|source| StraysError::Path { path: path.clone(), source })?;
        if purge {
            strays::purge(&data, &path)?;
        }
        found.push(Stray { path, bytes, deleted: purge });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::data_dir::Identity;
    use uuid::Uuid;

    fn format(root: &Path, role: Role) {
        let storage: Arc<dyn Storage> = Arc::new(FileStorage::new(root.to_owned()));
        let (cluster_id, directory) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let identity = Identity { cluster_id, node_id: 7, role, directory };
        DataDir::format(&storage, root, &identity).expect("an empty directory");
    }

    /// A broker's directory with one partition in its place and one set aside.
    fn directory() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().expect("a place for files");
        let root = folder.path().canonicalize().expect("it exists");
        format(&root, Role::Broker);
        let data = open(&root).expect("nobody has it");
        let keep = data.partition_dir(Uuid::from_u128(3), 0);
        let aside = data.partition_dir(Uuid::from_u128(4), 1);
        for dir in [&keep, &aside] {
            std::fs::create_dir(dir).expect("a new directory");
            std::fs::write(dir.join("00000000000000000000.log"), [7; 100]).expect("writes");
        }
        let to = data.set_aside(Uuid::from_u128(4), 1).expect("renamed");
        (folder, keep, to)
    }

    #[test]
    fn only_what_was_set_aside_goes_and_only_on_command() {
        let (folder, keep, aside) = directory();
        let listed = set_aside(folder.path(), false).expect("lists");
        assert_eq!(listed, [Stray { path: aside.clone(), bytes: 100, deleted: false }]);
        assert!(aside.exists());
        let purged = set_aside(folder.path(), true).expect("deletes");
        assert_eq!(purged, [Stray { path: aside.clone(), bytes: 100, deleted: true }]);
        assert!(!aside.exists() && keep.join("00000000000000000000.log").exists());
        assert_eq!(set_aside(folder.path(), true).expect("nothing is left"), []);
    }

    #[test]
    fn a_running_brokers_directory_is_refused() {
        let (folder, _, aside) = directory();
        let running = open(folder.path()).expect("the broker has it");
        let error = set_aside(folder.path(), true).expect_err("the lock is taken");
        assert_eq!(error.exit(), Exit::Refused, "{error}");
        assert!(aside.exists());
        drop(running);
        set_aside(folder.path(), true).expect("it has stopped");
    }

    #[test]
    fn other_directories_are_refused() {
        let folder = tempfile::tempdir().expect("a place for files");
        let error = set_aside(folder.path(), true).expect_err("not formatted");
        assert!(matches!(error, StraysError::NotFormatted(_)), "{error}");
        assert_eq!(set_aside(&folder.path().join("none"), true).expect_err("missing").exit(), Exit::NotFound);
        format(&folder.path().canonicalize().expect("it exists"), Role::Controller);
        let error = set_aside(folder.path(), true).expect_err("a controller's");
        assert_eq!((error.exit(), error.to_string().contains("controller 7")), (Exit::Usage, true), "{error}");
    }
}
