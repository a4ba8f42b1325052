//! Room kept back for the day the disk is full: a preallocated file that is given up when a small write finds no space.
//!
//! Owns: [`Reserve`], the file, and [`ReservedStorage`], which gives it up and makes the failed call once more.
//! Never: gives it up for a reservation ([`StorageFile::preallocate`]), which is how records of a synced topic ask for room
//! and are refused before an offset is given; repeats a sync, or any call that failed for another reason.
//! Records of a topic that is not synced ask for nothing, and neither does the first page of a new segment: on a disk that
//! filled up between two looks at it such a write gives the reserve up, and is the last one taken.
//! Invariant: while the reserve is held, a state file, a note or a directory entry finds room. Once it is given up, the
//! owner takes no more records ([`Reserve::is_held`]) until [`Reserve::hold`] has it back.
//! Why a file and not only a floor of free space: other programs that write to the same disk know of no floor.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{DirEntry, Storage, StorageFile, StorageLock};

/// The file that keeps the room.
#[derive(Debug)]
pub struct Reserve {
    storage: Arc<dyn Storage>,
    path: PathBuf,
    bytes: u64,
    held: AtomicBool,
    /// How often it was given up; guards giving up and taking back.
    given_up: Mutex<u64>,
}

impl Reserve {
    /// The reserve of `bytes` at `path`, not held yet.
    pub fn new(storage: Arc<dyn Storage>, path: PathBuf, bytes: u64) -> Arc<Reserve> {
        Arc::new(Reserve { storage, path, bytes, held: AtomicBool::new(false), given_up: Mutex::new(0) })
    }

    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the room is still kept.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Takes over what an earlier process kept, which costs no room: on a disk that is full the start itself may need it.
    /// True: it is held.
    ///
    /// # Errors
    /// The disk's; then it is not held.
    pub fn adopt(&self) -> io::Result<bool> {
        let _guard = self.given_up.lock();
        if self.is_held() {
            return Ok(true);
        }
        let found = match self.storage.open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let whole = found.len()? >= self.bytes;
        self.held.store(whole, Ordering::SeqCst);
        Ok(whole)
    }

    /// Takes the room, or takes it back. A file left by an earlier process is used again.
    ///
    /// # Errors
    /// The disk's; then it is not held.
    pub fn hold(&self) -> io::Result<()> {
        let _guard = self.given_up.lock();
        if self.is_held() {
            return Ok(());
        }
        let file = match self.storage.open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.storage.create(&self.path)?,
            other => other?,
        };
        match file.preallocate(self.bytes) {
            Ok(()) => {
                self.held.store(true, Ordering::SeqCst);
                Ok(())
            }
            Err(error) => {
                self.storage.remove(&self.path).ok();
                Err(error)
            }
        }
    }

    /// Room was missing in a call that began when the reserve had been given up `seen` times. True: there is some now.
    fn give_up(&self, seen: u64) -> bool {
        let mut given_up = self.given_up.lock();
        if *given_up != seen {
            return true;
        }
        if !self.is_held() {
            return false;
        }
        self.held.store(false, Ordering::SeqCst);
        *given_up += 1;
        match self.storage.remove(&self.path) {
            Ok(()) => {
                tracing::warn!(path = %self.path.display(), bytes = self.bytes, "the disk is full: the reserve is given up");
                true
            }
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the disk is full and the reserve cannot be removed");
                false
            }
        }
    }

    fn with_room<T>(&self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let seen = *self.given_up.lock();
        match call() {
            Err(e) if e.kind() == io::ErrorKind::StorageFull && self.give_up(seen) => call(),
            other => other,
        }
    }
}

/// A storage whose small writes may use the reserve.
#[derive(Debug)]
pub struct ReservedStorage {
    inner: Arc<dyn Storage>,
    reserve: Arc<Reserve>,
}

impl ReservedStorage {
    /// `inner`, with what `reserve` keeps back.
    pub fn new(inner: Arc<dyn Storage>, reserve: Arc<Reserve>) -> ReservedStorage {
        ReservedStorage { inner, reserve }
    }

    fn file(&self, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(ReservedFile { inner: file, reserve: self.reserve.clone() })
    }
}

impl Storage for ReservedStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.reserve.with_room(|| self.inner.create(path)).map(|f| self.file(f))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        self.inner.open(path).map(|f| self.file(f))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.reserve.with_room(|| self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.reserve.with_room(|| self.inner.create_dir(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        self.inner.lock(path)
    }

    fn boot_id(&self) -> io::Result<Option<String>> {
        self.inner.boot_id()
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_space(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }
}

#[derive(Debug)]
struct ReservedFile {
    inner: Arc<dyn StorageFile>,
    reserve: Arc<Reserve>,
}

impl StorageFile for ReservedFile {
    /// Writing the same bytes at the same place again is harmless, however far the first attempt came.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.reserve.with_room(|| self.inner.write_at(position, bytes))
    }

    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(position, out)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.inner.preallocate(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::{Call, Fault, MemStorage, Op};

    const PATH: &str = "/reserve";

    /// A disk without room for anything until the reserve is removed, and the storage over it.
    fn full() -> (MemStorage, ReservedStorage, Arc<Reserve>) {
        let disk = MemStorage::new();
        let inner: Arc<dyn Storage> = Arc::new(disk.clone());
        let reserve = Reserve::new(inner.clone(), PATH.into(), 1 << 20);
        reserve.hold().expect("room is there");
        let freed = AtomicBool::new(false);
        disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
            if call.op == Op::Remove && call.path == Path::new(PATH) {
                freed.store(true, Ordering::SeqCst);
            }
            let grows = matches!(call.op, Op::Create | Op::CreateDir | Op::Write | Op::Preallocate);
            let refused = grows && !freed.load(Ordering::SeqCst);
            refused.then(|| Fault::Fail(io::ErrorKind::StorageFull.into()))
        })));
        (disk, ReservedStorage::new(inner, reserve.clone()), reserve)
    }

    #[test]
    fn a_small_write_on_a_full_disk_uses_the_reserve_once() {
        let (disk, storage, reserve) = full();
        let file = storage.create(Path::new("/a")).expect("the reserve makes room");
        assert!(!reserve.is_held(), "and is gone");
        file.write_at(0, b"note").expect("there is room now");
        disk.set_hook(Some(Box::new(|call: &Call<'_>| {
            (call.op == Op::Write).then(|| Fault::Fail(io::ErrorKind::StorageFull.into()))
        })));
        assert_eq!(file.write_at(4, b"more").expect_err("no reserve is left").kind(), io::ErrorKind::StorageFull);
        disk.set_hook(None);
        reserve.hold().expect("room is back");
        assert!(reserve.is_held());
    }

    #[test]
    fn a_reservation_for_records_leaves_the_reserve_alone() {
        let (disk, storage, reserve) = full();
        disk.set_hook(None);
        let file = storage.create(Path::new("/a")).expect("room");
        let none =
            |call: &Call<'_>| (call.op == Op::Preallocate).then(|| Fault::Fail(io::ErrorKind::StorageFull.into()));
        disk.set_hook(Some(Box::new(none)));
        file.preallocate(1 << 20).expect_err("records are refused");
        assert!(reserve.is_held());
    }

    #[test]
    fn a_reserve_of_an_earlier_process_is_there_for_the_start_on_a_full_disk() {
        let (disk, _, earlier) = full();
        let inner: Arc<dyn Storage> = Arc::new(disk.clone());
        let reserve = Reserve::new(inner.clone(), PATH.into(), earlier.bytes());
        assert!(reserve.adopt().expect("opens"));
        let storage: Arc<dyn Storage> = Arc::new(ReservedStorage::new(inner.clone(), reserve.clone()));
        crate::StateFile::new(storage, "/broker-state").store(b"epoch").expect("the reserve makes room");
        assert!(!reserve.is_held());
        assert!(!reserve.adopt().expect("opens"), "it is gone");
        disk.set_hook(None);
        inner.create(Path::new(PATH)).expect("room").set_len(earlier.bytes() - 1).expect("room");
        assert!(!reserve.adopt().expect("opens"), "a part of it is no reserve");
    }

    #[test]
    fn another_failure_is_passed_on_and_made_once() {
        let (disk, storage, reserve) = full();
        disk.set_hook(None);
        let file = storage.create(Path::new("/a")).expect("room");
        let dying = |call: &Call<'_>| (call.op == Op::Write).then(|| Fault::Fail(io::Error::other("dying")));
        disk.set_hook(Some(Box::new(dying)));
        let calls = disk.calls();
        file.write_at(0, b"x").expect_err("the disk is dying");
        assert_eq!((disk.calls() - calls, reserve.is_held()), (1, true));
    }

    #[test]
    fn without_room_the_reserve_is_not_held_and_nothing_is_left() {
        let disk = MemStorage::new();
        let none =
            |call: &Call<'_>| (call.op == Op::Preallocate).then(|| Fault::Fail(io::ErrorKind::StorageFull.into()));
        disk.set_hook(Some(Box::new(none)));
        let reserve = Reserve::new(Arc::new(disk.clone()), PATH.into(), 1 << 20);
        reserve.hold().expect_err("no room");
        assert!(!reserve.is_held());
        disk.set_hook(None);
        assert!(!disk.exists(Path::new(PATH)).expect("lists"));
    }
}
