//! Real files through rustix: positioned reads and writes, fdatasync, fallocate, flock.
//!
//! Owns: the mapping of [`Storage`] to system calls, and the interruption loop around short reads and writes.
//! Never: follows a symbolic link, leaves its root, retries a sync.
//! Invariant: files are 0600, directories 0700, and every path lies under the root given at the start.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, FallocateFlags, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{DirEntry, Storage, StorageFile, StorageLock};
use crate::limits::FILL_CHUNK_BYTES;

/// Storage on the real file system, confined to one root directory.
#[derive(Debug, Clone)]
pub struct FileStorage {
    root: PathBuf,
}

#[derive(Debug)]
struct RealFile(OwnedFd);

/// An flock, released when the descriptor is closed.
#[derive(Debug)]
struct FileLock(#[expect(dead_code, reason = "held for its destructor, which releases the lock")] OwnedFd);

impl StorageLock for FileLock {}

const OWNER_FILE: Mode = Mode::from_raw_mode(0o600);
const OWNER_DIR: Mode = Mode::from_raw_mode(0o700);

impl FileStorage {
    /// Storage under `root`, an absolute path without `..`. Nothing is created.
    pub fn new(root: impl Into<PathBuf>) -> FileStorage {
        FileStorage { root: root.into() }
    }

    fn inside<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        let climbs = path.components().any(|c| matches!(c, Component::ParentDir));
        // The root's own ancestors are allowed: a parent directory must be synced when the root is created.
        let related = path.starts_with(&self.root) || self.root.starts_with(path);
        if climbs || !related {
            let what = format!("path {} is outside of the storage root {}", path.display(), self.root.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(path)
    }

    fn open_with(&self, path: &Path, extra: OFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | extra;
        retry(|| Ok(fs::open(self.inside(path)?, flags, OWNER_FILE)?))
    }
}

/// Repeats a call that a signal interrupted before it did anything.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl RealFile {
    /// Writes zeros from the end at `now` up to `len`. Without room for all of them the file is as long as before.
    fn fill(&self, now: u64, len: u64) -> io::Result<()> {
        let zeros = vec![0; FILL_CHUNK_BYTES];
        let mut at = now;
        while at < len {
            let part = usize::try_from(len - at).map_or(FILL_CHUNK_BYTES, |rest| rest.min(FILL_CHUNK_BYTES));
            if let Err(error) = self.write_at(at, &zeros[..part]) {
                self.set_len(now)?;
                return Err(error);
            }
            at += part as u64;
        }
        Ok(())
    }
}

impl Storage for FileStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(RealFile(self.open_with(path, OFlags::CREATE | OFlags::EXCL)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(RealFile(self.open_with(path, OFlags::empty())?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::rename(self.inside(from)?, self.inside(to)?)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(fs::unlink(self.inside(path)?)?)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Ok(fs::mkdir(self.inside(path)?, OWNER_DIR)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Ok(fs::rmdir(self.inside(path)?)?)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(self.inside(path)?)? {
            let entry = entry?;
            let is_dir = entry.file_type()?.is_dir();
            if let Some(name) = OsStr::to_str(&entry.file_name()) {
                entries.push(DirEntry { name: name.to_owned(), is_dir });
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry(|| Ok(fs::open(self.inside(path)?, flags, Mode::empty())?))?;
        Ok(fs::fsync(dir)?)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        let fd = self.open_with(path, OFlags::CREATE)?;
        match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(FileLock(fd))),
            Err(Errno::WOULDBLOCK) => Err(io::ErrorKind::WouldBlock.into()),
            Err(e) => Err(e.into()),
        }
    }

    fn boot_id(&self) -> io::Result<Option<String>> {
        match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
            Ok(id) => Ok(Some(id.trim().to_owned()).filter(|id| !id.is_empty())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        let stat = fs::statvfs(self.inside(path)?)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::lstat(self.inside(path)?) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl StorageFile for RealFile {
    fn write_at(&self, position: u64, mut bytes: &[u8]) -> io::Result<()> {
        let mut position = position;
        while !bytes.is_empty() {
            let written = retry(|| Ok(rustix::io::pwrite(&self.0, bytes, position)?))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
            position += written as u64;
        }
        Ok(())
    }

    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            let got = retry(|| Ok(rustix::io::pread(&self.0, &mut out[done..], position + done as u64)?))?;
            if got == 0 {
                break;
            }
            done += got;
        }
        Ok(done)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(fs::fdatasync(&self.0)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        retry(|| Ok(fs::ftruncate(&self.0, len)?))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let now = self.len()?;
        if len <= now {
            return Ok(());
        }
        loop {
            match fs::fallocate(&self.0, FallocateFlags::empty(), now, len - now) {
                Err(Errno::INTR) => {}
                // A file system without reservations: only bytes that were written have their place.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.fill(now, len),
                other => return Ok(other?),
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(u64::try_from(fs::fstat(&self.0)?.st_size).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_by_hand_has_its_place_on_the_disk() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let storage = FileStorage::new(temp.path());
        let fd = storage.open_with(&temp.path().join("file"), OFlags::CREATE | OFlags::EXCL).expect("create");
        let file = RealFile(fd);
        file.write_at(0, b"kept").expect("write");
        let len = 3 * FILL_CHUNK_BYTES as u64 + 7;
        file.fill(4, len).expect("there is room");
        let stat = fs::fstat(&file.0).expect("stat");
        assert_eq!(file.len().expect("length"), len);
        assert!(stat.st_blocks as u64 * 512 >= len, "{} blocks of 512 bytes", stat.st_blocks);
        let mut head = [1; 6];
        file.read_at(0, &mut head).expect("read");
        assert_eq!(&head, b"kept\0\0");
    }
}
