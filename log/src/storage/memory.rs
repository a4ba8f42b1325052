//! A simulated disk: deterministic, with a fault for any call and a crash that loses what was not synced.
//!
//! Owns: volatile and durable contents of every file ([`inode`] says how a crash tears them), the hook that injects
//! faults, the call counter, locks, the room ([`room`]).
//! Never: draws a random number or reads a clock; the caller's closures choose what fails and what survives.
//! Invariant: after [`MemStorage::crash`] a file holds its synced bytes plus, sector by sector, whichever unsynced
//! changes the caller chose to keep: harsher than any real disk, so code that survives it survives those.
//! After a failed sync the pending bytes stay readable and are never written: later syncs lie about them, as
//! Linux does (Rebello et al., ATC'20).

mod fault;
mod handle;
mod inode;
mod room;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

pub use self::fault::{Call, Fault, Hook, Op};
use self::inode::Inode;
pub use self::room::BLOCK_BYTES;
use self::room::{Room, blocks};
use super::namespace::Namespace;
use super::{DirEntry, Storage, StorageFile, StorageLock};

/// Unit in which a crash keeps or loses written bytes: the smallest that disks write whole.
pub const SECTOR_BYTES: u64 = 512;

/// The larger unit that disks of today write whole.
pub const LARGE_SECTOR_BYTES: u64 = 4096;

type File = Arc<Mutex<Inode>>;

#[derive(Clone, Debug)]
struct State {
    names: Namespace<File>,
    locks: BTreeSet<PathBuf>,
    boot: u64,
    free_space: u64,
    sector: u64,
}

struct Inner {
    state: Mutex<State>,
    hook: Mutex<Option<Hook>>,
    /// Whether there is a hook: most calls of most disks meet none.
    hooked: AtomicBool,
    calls: AtomicU64,
    /// Handles of an earlier process are dead.
    process: AtomicU64,
    room: Room,
}

impl Inner {
    fn count_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    fn process(&self) -> u64 {
        self.process.load(Ordering::Relaxed)
    }

    fn hook(&self) -> Option<MutexGuard<'_, Option<Hook>>> {
        self.hooked.load(Ordering::Acquire).then(|| self.hook.lock())
    }
}

/// The simulated disk. Clones share it.
#[derive(Clone)]
pub struct MemStorage {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for MemStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemStorage(call {}, boot {})", self.calls(), self.inner.state.lock().boot)
    }
}

impl Default for MemStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl MemStorage {
    /// An empty disk with a root directory, sectors of 512 bytes and room without an end.
    pub fn new() -> MemStorage {
        let state = State {
            names: Namespace::new(),
            locks: BTreeSet::new(),
            boot: 1,
            free_space: u64::MAX,
            sector: SECTOR_BYTES,
        };
        MemStorage::of(state, 0, 1, Room::new())
    }

    fn of(state: State, calls: u64, process: u64, room: Room) -> MemStorage {
        MemStorage {
            inner: Arc::new(Inner {
                state: Mutex::new(state),
                hook: Mutex::new(None),
                hooked: AtomicBool::new(false),
                calls: AtomicU64::new(calls),
                process: AtomicU64::new(process),
                room,
            }),
        }
    }

    /// Sets or clears the closure that sees every call and may fail it.
    pub fn set_hook(&self, hook: Option<Hook>) {
        let mut now = self.inner.hook.lock();
        self.inner.hooked.store(hook.is_some(), Ordering::Release);
        *now = hook;
    }

    /// Looks at the disk without the hook: for a judge, whose calls are none of the program's.
    pub fn unhooked<T>(&self, look: impl FnOnce() -> T) -> T {
        let was = self.inner.hooked.swap(false, Ordering::AcqRel);
        let seen = look();
        self.inner.hooked.store(was, Ordering::Release);
        seen
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        self.inner.calls.load(Ordering::Relaxed)
    }

    /// Sets the most that [`Storage::free_space`] answers, in bytes, without making the disk any smaller.
    pub fn set_free_space(&self, bytes: u64) {
        self.inner.state.lock().free_space = bytes;
    }

    /// Sets how much the disk holds, in bytes (whole blocks of [`BLOCK_BYTES`]); `None`: everything. A disk that holds
    /// more already keeps it and takes no more.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.inner.room.set_capacity(bytes);
    }

    /// Bytes in use, in whole blocks.
    pub fn used(&self) -> u64 {
        self.inner.room.used() * BLOCK_BYTES
    }

    /// Sets what a crash keeps or loses whole: [`SECTOR_BYTES`] (from the start) or [`LARGE_SECTOR_BYTES`].
    pub fn set_sector(&self, bytes: u64) {
        self.inner.state.lock().sector = bytes.max(SECTOR_BYTES);
    }

    /// A power cut of the machine: `keep` is asked once per unsynced name change and per unsynced sector (or
    /// change of length) of each file, in a fixed order. Open files and locks of the old process are dead, the
    /// boot id is new, the hook is cleared.
    pub fn crash(&self, keep: &mut dyn FnMut() -> bool) {
        self.set_hook(None);
        let mut state = self.inner.state.lock();
        let files = state.names.files();
        let sector = state.sector;
        files.iter().for_each(|file| file.lock().crash(sector, keep));
        state.names.crash(keep);
        state.boot += 1;
        state.locks.clear();
        self.inner.process.fetch_add(1, Ordering::Relaxed);
        let mut used = state.names.directories();
        for file in state.names.files() {
            let mut inode = file.lock();
            inode.named = true;
            used += blocks(inode.len());
        }
        self.inner.room.set_used(used);
    }

    /// Death of the process only: the page cache stays, handles and locks are gone, the boot id is the same.
    pub fn kill_process(&self) {
        self.set_hook(None);
        let mut state = self.inner.state.lock();
        self.inner.process.fetch_add(1, Ordering::Relaxed);
        state.locks.clear();
    }

    /// An independent copy of the disk as it is now, pending changes included, without the hook. Bytes are shared
    /// until one of the two writes to a file.
    pub fn fork(&self) -> MemStorage {
        let mut state = self.inner.state.lock().clone();
        state.names.map_files(|file| Arc::new(Mutex::new(file.lock().clone())));
        MemStorage::of(state, self.calls(), self.inner.process(), self.inner.room.copy())
    }

    fn file(&self, path: &Path) -> io::Result<File> {
        self.inner.state.lock().names.file(path).map(|(_, file)| file)
    }

    /// Contents of a file as the process sees them.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.file(path)?.lock().seen().to_vec())
    }

    /// Contents of a file as a crash that keeps nothing unsynced would leave them.
    pub fn durable_contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(self.file(path)?.lock().durable())
    }

    /// Overwrites a file behind the engine's back, durably: damage for tests.
    pub fn damage(&self, path: &Path, contents: Vec<u8>) -> io::Result<()> {
        let file = self.file(path)?;
        let mut inode = file.lock();
        let (now, then) = (blocks(inode.len()), blocks(contents.len() as u64));
        self.inner.room.set_used(self.inner.room.used().saturating_sub(now) + then);
        *inode = Inode::of(contents);
        Ok(())
    }

    /// Flips one bit of a file at rest, behind the engine's back. False: the file is shorter.
    pub fn flip(&self, path: &Path, position: u64, bit: u32) -> io::Result<bool> {
        Ok(self.file(path)?.lock().flip(position, bit))
    }

    /// Paths of all files below `dir`, sorted.
    pub fn files_below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut queue = vec![dir.to_owned()];
        while let Some(dir) = queue.pop() {
            for entry in self.inner.state.lock().names.list(&dir)? {
                let path = dir.join(&entry.name);
                if entry.is_dir { queue.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        Ok(found)
    }
}
