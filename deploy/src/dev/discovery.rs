//! Where a dev cluster lies by default, and how other commands find a running one without a flag.
//!
//! Owns the default folder. The announcement itself is the client's (`client::cli::discover`), which reads it too. It is
//! advice: removed when its cluster stops, and a command that finds nobody at its addresses says so.

use super::cluster::DevError;
use client::cli::discover::{self, DevCluster};
use std::io;
use std::path::{Path, PathBuf};

/// Where a dev cluster lies unless told otherwise: `$XDG_DATA_HOME/seawall/dev`, or below `~/.local/share`.
///
/// # Errors
/// When the user has no home folder.
pub fn default_root() -> Result<PathBuf, DevError> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    let folder = folder.ok_or_else(|| DevError::Io {
        what: "neither XDG_DATA_HOME nor HOME is set; say --data-dir".to_owned(),
        error: io::ErrorKind::NotFound.into(),
    })?;
    Ok(folder.join("seawall").join("dev"))
}

/// Says that the cluster in `root` runs.
///
/// # Errors
/// When the file cannot be written.
pub fn announce(root: &Path, bootstrap: Vec<String>) -> io::Result<()> {
    discover::write(&DevCluster { bootstrap, data_dir: root.to_path_buf() })
}

/// Takes the announcement back, if it is about `root`.
pub fn forget(root: &Path) {
    if let Err(error) = discover::remove(root) {
        eprintln!("seawall dev: {error}");
    }
}

/// The folder of the cluster announced last.
pub fn running() -> Option<PathBuf> {
    discover::read().ok().map(|announced| announced.data_dir)
}
