//! How commands find a dev cluster without a flag: a small file in the user's state directory.
//!
//! Owns: the file's place and form; `seawall dev` writes and removes it.
//! Never: checks whether the cluster runs.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// The dev cluster started last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevCluster {
    /// Brokers' client addresses, `HOST:PORT`.
    pub bootstrap: Vec<String>,
    /// Its data directory.
    pub data_dir: PathBuf,
}

/// `$XDG_STATE_HOME/seawall/dev.json`, else under `~/.local/state`. `None` without a home.
#[must_use]
pub fn path() -> Option<PathBuf> {
    path_in(std::env::var_os("XDG_STATE_HOME").map(PathBuf::from), std::env::var_os("HOME").map(PathBuf::from))
}

fn path_in(state: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |p: &PathBuf| p.is_absolute();
    let state = state.filter(absolute).or_else(|| home.filter(absolute).map(|h| h.join(".local/state")));
    state.map(|state| state.join("seawall").join("dev.json"))
}

/// Reads the file.
///
/// # Errors
/// A text that says why there is nothing to be read.
pub fn read() -> Result<DevCluster, String> {
    let path = path().ok_or("neither XDG_STATE_HOME nor HOME is set")?;
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err("no dev cluster is running".to_owned()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes the file, whole or not at all.
///
/// # Errors
/// The state directory cannot be made or written.
pub fn write(dev: &DevCluster) -> io::Result<()> {
    let path = path().ok_or_else(|| io::Error::other("neither XDG_STATE_HOME nor HOME is set"))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let next = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&next, serde_json::to_vec_pretty(dev)?)?;
    std::fs::rename(&next, &path)
}

/// Removes the file if it names this data directory.
///
/// # Errors
/// It cannot be removed.
pub fn remove(data_dir: &std::path::Path) -> io::Result<()> {
    match (read(), path()) {
        (Ok(dev), Some(path)) if dev.data_dir == data_dir => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_follows_xdg() {
        let at = |state: Option<&str>, home: Option<&str>| path_in(state.map(Into::into), home.map(Into::into));
        assert_eq!(at(Some("/s"), Some("/h")), Some("/s/seawall/dev.json".into()));
        assert_eq!(at(Some("relative"), Some("/h")), Some("/h/.local/state/seawall/dev.json".into()));
        assert_eq!(at(None, None), None);
    }
}
