//! The disk as the engine sees it: every call that can fail, hang or lie is a method here.
//!
//! Owns: the [`Storage`] and [`StorageFile`] traits. Implementations: [`mod@file`] (real files), [`memory`]
//! (simulated disk with faults and crashes), `power_loss` (real processes whose unsynced bytes die with them), and
//! [`reserve`], which keeps room back for the day a disk is full.
//! Never: buffers, retries, or hides an error; decides what an error means.
//! Invariant: bytes of a file survive a crash only if [`StorageFile::sync`] returned after they were written, and
//! a name survives only if [`Storage::sync_dir`] of its directory returned after it was made. Everything above is
//! written against that, whatever a particular file system gives for free.

pub mod file;
pub mod memory;
mod namespace;
#[cfg(feature = "power-loss")]
pub mod power_loss;
pub mod reserve;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// File name, without the directory. Names that are not UTF-8 are not ours and are not listed.
    pub name: String,
    /// True for a directory.
    pub is_dir: bool,
}

/// Keeps an exclusive lock until dropped (or the process dies).
pub trait StorageLock: Send + Sync + Debug {}

/// Directories and names. All paths are absolute. Every method may fail with any [`io::Error`]; `NotFound` and
/// `AlreadyExists` mean what they say.
pub trait Storage: Send + Sync + Debug {
    /// Creates a file that must not exist, readable and writable by the owner only.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// Opens an existing file for reading and writing. Symbolic links are not followed.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;
    /// Renames a file or directory, replacing a file of the new name. Atomic, durable after `sync_dir` of both.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory whose parent exists.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Lists a directory, sorted by name.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Takes an exclusive lock on a file, created if missing. `WouldBlock` if another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>>;
    /// Identity of the machine's current boot: the page cache lives exactly as long as it. `None` if unknown.
    fn boot_id(&self) -> io::Result<Option<String>>;
    /// Bytes that an unprivileged process may still allocate on the file system of `path`.
    fn free_space(&self, path: &Path) -> io::Result<u64>;

    /// True if a file or directory of that name exists.
    fn exists(&self, path: &Path) -> io::Result<bool> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(true);
        };
        match self.list(parent) {
            Ok(entries) => Ok(entries.iter().any(|e| name.to_str() == Some(&e.name))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// An open file. Positions and lengths are bytes. Safe to use from several threads: a sync covers all writes that
/// returned before it began.
#[expect(clippy::len_without_is_empty, reason = "a length in bytes that may fail, not a collection")]
pub trait StorageFile: Send + Sync + Debug {
    /// Writes all of `bytes` at `position`, extending the file if needed. After an error any prefix may be there.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads into `out`; fewer bytes than asked only at the end of the file.
    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize>;
    /// Makes contents and length durable (fdatasync). Never retried after an error: the kernel marks the pages
    /// clean and the next call lies.
    fn sync(&self) -> io::Result<()>;
    /// Cuts or extends (with zeros) to `len`.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space and extends the file with zeros to `len`; never shrinks it.
    fn preallocate(&self, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
}

/// Reads exactly `len` bytes, or fewer if the file ends before.
pub fn read_up_to(file: &dyn StorageFile, position: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    let got = file.read_at(position, &mut out)?;
    out.truncate(got);
    Ok(out)
}

/// Creates `path` and its missing parents below an existing one, syncing the parent of each new directory.
pub fn create_dir_durably(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    if storage.exists(path)? {
        return Ok(());
    }
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    create_dir_durably(storage, parent)?;
    match storage.create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    storage.sync_dir(parent)
}

/// Removes a directory and everything below it, then syncs its parent. A missing one is fine.
pub fn remove_tree(storage: &dyn Storage, path: &Path) -> io::Result<()> {
    let entries = match storage.list(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let child = path.join(&entry.name);
        if entry.is_dir { remove_tree(storage, &child)? } else { storage.remove(&child)? }
    }
    storage.remove_dir(path)?;
    path.parent().map_or(Ok(()), |parent| storage.sync_dir(parent))
}
