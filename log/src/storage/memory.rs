//! A simulated disk: deterministic, with a fault for any call and a crash that loses what was not synced.
//!
//! Owns: volatile and durable contents of every file, the hook that injects faults, the call counter, locks.
//! Never: draws a random number or reads a clock; the caller's closures choose what fails and what survives.
//! Invariant: after [`MemStorage::crash`] a file holds its synced bytes plus, sector by sector, whichever unsynced
//! changes the caller chose to keep: harsher than any real disk, so code that survives it survives those.
//! After a failed sync the pending bytes stay readable and are never written: later syncs lie about them, as
//! Linux does (Rebello et al., ATC'20).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::namespace::Namespace;
use super::{DirEntry, Storage, StorageFile, StorageLock};

/// Unit in which a crash keeps or loses written bytes: the smallest that disks write whole.
pub const SECTOR_BYTES: u64 = 512;

/// Which method is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after the methods of the traits")]
pub enum Op {
    Create,
    Open,
    Rename,
    Remove,
    CreateDir,
    RemoveDir,
    List,
    SyncDir,
    Lock,
    BootId,
    FreeSpace,
    Write,
    Read,
    Sync,
    SetLen,
    Preallocate,
    Len,
}

impl Op {
    /// True if the call changes the disk or makes a change durable.
    pub fn changes_disk(self) -> bool {
        !matches!(self, Op::Open | Op::List | Op::Lock | Op::BootId | Op::FreeSpace | Op::Read | Op::Len)
    }
}

/// A call about to be made.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Counts every call of this disk, from 0.
    pub number: u64,
    /// The method.
    pub op: Op,
    /// The path, or the path under which the file was opened.
    pub path: &'a Path,
    /// Position of a read or write, or the wanted length.
    pub position: u64,
    /// Bytes to be read or written.
    pub len: usize,
}

/// What happens instead of the call.
#[derive(Debug)]
pub enum Fault {
    /// It fails and does nothing (a failed sync also forgets what was pending).
    Fail(io::Error),
    /// A write puts down its first bytes, then fails.
    Short(usize, io::Error),
    /// It reports success and does nothing: a lost write.
    Lost,
}

/// Decides about each call.
pub type Hook = Box<dyn Fn(&Call<'_>) -> Option<Fault> + Send + Sync>;

#[derive(Debug, Clone)]
enum FileOp {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Extend(u64),
}

#[derive(Debug, Clone, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<FileOp>,
}

type File = Arc<Mutex<Inode>>;

#[derive(Clone, Debug)]
struct State {
    names: Namespace<File>,
    locks: BTreeSet<PathBuf>,
    calls: u64,
    boot: u64,
    /// Handles of an earlier process are dead.
    process: u64,
    free_space: u64,
}

struct Inner {
    state: Mutex<State>,
    hook: Mutex<Option<Hook>>,
}

/// The simulated disk. Clones share it.
#[derive(Clone)]
pub struct MemStorage {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for MemStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.inner.state.lock();
        write!(f, "MemStorage(call {}, boot {})", state.calls, state.boot)
    }
}

impl Default for MemStorage {
    fn default() -> Self {
        Self::new()
    }
}

fn apply(data: &mut Vec<u8>, op: &FileOp) {
    match op {
        FileOp::Write(position, bytes) => write(data, *position, bytes),
        FileOp::SetLen(len) => data.resize(*len as usize, 0),
        FileOp::Extend(len) => data.resize((*len as usize).max(data.len()), 0),
    }
}

fn write(data: &mut Vec<u8>, position: u64, bytes: &[u8]) {
    let (start, end) = (position as usize, position as usize + bytes.len());
    if data.len() < end {
        data.resize(end, 0);
    }
    data[start..end].copy_from_slice(bytes);
}

impl Inode {
    fn change(&mut self, op: FileOp) {
        apply(&mut self.seen, &op);
        self.pending.push(op);
    }

    fn sync(&mut self) {
        for op in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, &op);
        }
    }

    fn crash(&mut self, keep: &mut dyn FnMut() -> bool) {
        for op in std::mem::take(&mut self.pending) {
            let FileOp::Write(position, bytes) = op else {
                if keep() {
                    apply(&mut self.durable, &op);
                }
                continue;
            };
            let (mut at, mut rest) = (position, bytes.as_slice());
            while !rest.is_empty() {
                let len = (SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len() as u64) as usize;
                if keep() {
                    write(&mut self.durable, at, &rest[..len]);
                }
                at += len as u64;
                rest = &rest[len..];
            }
        }
        self.seen = self.durable.clone();
    }
}

impl MemStorage {
    /// An empty disk with a root directory.
    pub fn new() -> MemStorage {
        let state = State {
            names: Namespace::new(),
            locks: BTreeSet::new(),
            calls: 0,
            boot: 1,
            process: 1,
            free_space: u64::MAX,
        };
        MemStorage { inner: Arc::new(Inner { state: Mutex::new(state), hook: Mutex::new(None) }) }
    }

    /// Sets or clears the closure that sees every call and may fail it.
    pub fn set_hook(&self, hook: Option<Hook>) {
        *self.inner.hook.lock() = hook;
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        self.inner.state.lock().calls
    }

    /// Sets what [`Storage::free_space`] answers, in bytes.
    pub fn set_free_space(&self, bytes: u64) {
        self.inner.state.lock().free_space = bytes;
    }

    /// A power cut of the machine: `keep` is asked once per unsynced name change and per unsynced sector (or
    /// change of length) of each file, in a fixed order. Open files and locks of the old process are dead, the
    /// boot id is new, the hook is cleared.
    pub fn crash(&self, keep: &mut dyn FnMut() -> bool) {
        self.set_hook(None);
        let mut state = self.inner.state.lock();
        let files = state.names.files();
        files.iter().for_each(|file| file.lock().crash(keep));
        state.names.crash(keep);
        state.boot += 1;
        state.process += 1;
        state.locks.clear();
    }

    /// Death of the process only: the page cache stays, handles and locks are gone, the boot id is the same.
    pub fn kill_process(&self) {
        self.set_hook(None);
        let mut state = self.inner.state.lock();
        state.process += 1;
        state.locks.clear();
    }

    /// An independent copy of the disk as it is now, pending changes included, without the hook.
    pub fn fork(&self) -> MemStorage {
        let mut state = self.inner.state.lock().clone();
        state.names.map_files(|file| Arc::new(Mutex::new(file.lock().clone())));
        MemStorage { inner: Arc::new(Inner { state: Mutex::new(state), hook: Mutex::new(None) }) }
    }

    /// Contents of a file as the process sees them.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let (_, file) = self.inner.state.lock().names.file(path)?;
        let contents = file.lock().seen.clone();
        Ok(contents)
    }

    /// Overwrites a file behind the engine's back, durably: damage for tests.
    pub fn damage(&self, path: &Path, contents: Vec<u8>) -> io::Result<()> {
        let (_, file) = self.inner.state.lock().names.file(path)?;
        *file.lock() = Inode { seen: contents.clone(), durable: contents, pending: Vec::new() };
        Ok(())
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

    /// Counts the call and asks the hook. `Ok(false)`: pretend it worked.
    fn enter(&self, op: Op, path: &Path, position: u64, len: usize) -> Result<bool, (usize, io::Error)> {
        let number = {
            let mut state = self.inner.state.lock();
            state.calls += 1;
            state.calls - 1
        };
        let hook = self.inner.hook.lock();
        match hook.as_ref().and_then(|hook| hook(&Call { number, op, path, position, len })) {
            None => Ok(true),
            Some(Fault::Lost) => Ok(false),
            Some(Fault::Fail(e)) => Err((0, e)),
            Some(Fault::Short(n, e)) => Err((n, e)),
        }
    }

    /// Runs a call on the names, unless the hook fails or loses it.
    fn names<T: Default>(&self, op: Op, path: &Path, call: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        match self.enter(op, path, 0, 0) {
            Err((_, e)) => Err(e),
            Ok(false) => Ok(T::default()),
            Ok(true) => call(&mut self.inner.state.lock()),
        }
    }

    fn handle(&self, path: &Path, inode: File) -> Arc<dyn StorageFile> {
        let process = self.inner.state.lock().process;
        Arc::new(MemFile { disk: self.clone(), inode, path: path.to_owned(), process })
    }
}

impl Storage for MemStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let inode = File::default();
        self.names(Op::Create, path, |s| s.names.create(path, inode.clone()))?;
        Ok(self.handle(path, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let inode = self.names(Op::Open, path, |s| Ok(s.names.file(path)?.1))?;
        Ok(self.handle(path, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.names(Op::Rename, from, |s| s.names.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.names(Op::Remove, path, |s| s.names.remove(path))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.names(Op::CreateDir, path, |s| s.names.create_dir(path).map(drop))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.names(Op::RemoveDir, path, |s| s.names.remove_dir(path))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.names(Op::List, path, |s| s.names.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.names(Op::SyncDir, path, |s| s.names.sync_dir(path).map(drop))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        let process = self.names(Op::Lock, path, |s| {
            if s.locks.insert(path.to_owned()) { Ok(s.process) } else { Err(io::ErrorKind::WouldBlock.into()) }
        })?;
        Ok(Box::new(MemLock { disk: self.clone(), path: path.to_owned(), process }))
    }

    fn boot_id(&self) -> io::Result<Option<String>> {
        self.names(Op::BootId, Path::new("/"), |s| Ok(Some(format!("boot-{}", s.boot))))
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.names(Op::FreeSpace, path, |s| Ok(s.free_space))
    }
}

#[derive(Debug)]
struct MemLock {
    disk: MemStorage,
    path: PathBuf,
    process: u64,
}

impl StorageLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        let mut state = self.disk.inner.state.lock();
        if state.process == self.process {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
struct MemFile {
    disk: MemStorage,
    inode: File,
    path: PathBuf,
    process: u64,
}

impl MemFile {
    fn enter(&self, op: Op, position: u64, len: usize) -> Result<bool, (usize, io::Error)> {
        if self.disk.inner.state.lock().process != self.process {
            return Err((0, io::Error::other("file handle of a process that died")));
        }
        self.disk.enter(op, &self.path, position, len)
    }

    fn change(&self, op: Op, wanted: u64, change: FileOp) -> io::Result<()> {
        match self.enter(op, wanted, 0) {
            Err((_, e)) => Err(e),
            Ok(real) => {
                if real {
                    self.inode.lock().change(change);
                }
                Ok(())
            }
        }
    }
}

impl StorageFile for MemFile {
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        match self.enter(Op::Write, position, bytes.len()) {
            Ok(true) => self.inode.lock().change(FileOp::Write(position, bytes.to_vec())),
            Ok(false) => {}
            Err((0, e)) => return Err(e),
            Err((n, e)) => {
                self.inode.lock().change(FileOp::Write(position, bytes[..n.min(bytes.len())].to_vec()));
                return Err(e);
            }
        }
        Ok(())
    }

    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        self.enter(Op::Read, position, out.len()).map_err(|(_, e)| e)?;
        let inode = self.inode.lock();
        let from = (position as usize).min(inode.seen.len());
        let len = out.len().min(inode.seen.len() - from);
        out[..len].copy_from_slice(&inode.seen[from..from + len]);
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        match self.enter(Op::Sync, 0, 0) {
            Ok(true) => self.inode.lock().sync(),
            Ok(false) => {}
            Err((_, e)) => {
                self.inode.lock().pending.clear();
                return Err(e);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Op::SetLen, len, FileOp::SetLen(len))
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.change(Op::Preallocate, len, FileOp::Extend(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.enter(Op::Len, 0, 0).map_err(|(_, e)| e)?;
        Ok(self.inode.lock().seen.len() as u64)
    }
}
