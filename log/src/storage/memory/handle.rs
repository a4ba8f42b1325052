//! The simulated disk as the engine sees it: the two traits.
//!
//! Owns: what each call does when no hook interferes, and how each fault shows in it; handles and locks.
//! Never: decides about faults.
//! Invariant: every call is counted and offered to the hook exactly once, before it does anything. A handle of a
//! process that died fails every call, uncounted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::inode::{FileOp, Inode};
use super::room::{BLOCK_BYTES, blocks};
use super::{Call, DirEntry, Fault, File, MemStorage, Op, State, Storage, StorageFile, StorageLock};

impl MemStorage {
    /// Counts the call and asks the hook.
    fn enter(&self, op: Op, path: &Path, position: u64, len: usize) -> Option<Fault> {
        let number = self.inner.count_call();
        let hook = self.inner.hook()?;
        hook.as_ref().and_then(|hook| hook(&Call { number, op, path, position, len }))
    }

    /// Runs a call on the names, unless the hook fails or loses it.
    fn names<T: Default>(&self, op: Op, path: &Path, call: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        match self.enter(op, path, 0, 0) {
            None => call(&mut self.inner.state.lock()),
            Some(fault) => fault.error().map_or_else(|| Ok(T::default()), Err),
        }
    }

    fn handle(&self, path: &Path, inode: File) -> Arc<dyn StorageFile> {
        let process = self.inner.process();
        Arc::new(MemFile { disk: self.clone(), inode, path: path.to_owned(), process })
    }

    /// Makes a name for something of one block.
    fn with_block<T>(&self, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if !self.inner.room.take(1) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        call().inspect_err(|_| self.inner.room.give_back(1))
    }

    fn lost_name(&self, file: &File) {
        let mut inode = file.lock();
        if std::mem::replace(&mut inode.named, false) {
            self.inner.room.give_back(blocks(inode.len()));
        }
    }
}

impl Storage for MemStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let inode = File::default();
        self.names(Op::Create, path, |s| self.with_block(|| s.names.create(path, inode.clone()).map(drop)))?;
        Ok(self.handle(path, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let inode = self.names(Op::Open, path, |s| Ok(s.names.file(path)?.1))?;
        Ok(self.handle(path, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.names(Op::Rename, from, |s| {
            let replaced = s.names.file(to).ok().filter(|_| from != to);
            s.names.rename(from, to)?;
            if let Some((_, file)) = replaced {
                self.lost_name(&file);
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.names(Op::Remove, path, |s| {
            let (_, file) = s.names.file(path)?;
            s.names.remove(path)?;
            self.lost_name(&file);
            Ok(())
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.names(Op::CreateDir, path, |s| self.with_block(|| s.names.create_dir(path).map(drop)))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.names(Op::RemoveDir, path, |s| {
            s.names.remove_dir(path)?;
            self.inner.room.give_back(1);
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.names(Op::List, path, |s| s.names.list(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.names(Op::SyncDir, path, |s| s.names.sync_dir(path).map(drop))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        let process = self.inner.process();
        self.names(Op::Lock, path, |s| {
            if s.locks.insert(path.to_owned()) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        })?;
        Ok(Box::new(MemLock { disk: self.clone(), path: path.to_owned(), process }))
    }

    fn boot_id(&self) -> io::Result<Option<String>> {
        self.names(Op::BootId, Path::new("/"), |s| Ok(Some(format!("boot-{}", s.boot))))
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.names(Op::FreeSpace, path, |s| Ok(s.free_space.min(self.inner.room.free().saturating_mul(BLOCK_BYTES))))
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
        if self.disk.inner.process() == self.process {
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
    fn alive(&self) -> io::Result<()> {
        if self.disk.inner.process() == self.process {
            return Ok(());
        }
        Err(io::Error::other("file handle of a process that died"))
    }

    /// Grows or shrinks the room of a file that is about to have another length. False: there is not enough.
    fn resize(&self, inode: &Inode, len: u64) -> bool {
        let (now, then) = (blocks(inode.len()), blocks(len));
        if inode.named && then > now {
            return self.disk.inner.room.take(then - now);
        }
        if inode.named {
            self.disk.inner.room.give_back(now - then);
        }
        true
    }

    /// Writes all, or, if there is no room for all, only what ends within the blocks that the file has already.
    fn put(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inode = self.inode.lock();
        let end = position + bytes.len() as u64;
        if self.resize(&inode, end.max(inode.len())) {
            inode.change(FileOp::Write(position, bytes.to_vec()));
            return Ok(());
        }
        let fits = (blocks(inode.len()) - 1).saturating_mul(BLOCK_BYTES).saturating_sub(position);
        let fits = usize::try_from(fits).unwrap_or(usize::MAX).min(bytes.len());
        if fits > 0 {
            inode.change(FileOp::Write(position, bytes[..fits].to_vec()));
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    fn put_elsewhere(&self, path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
        let found = self.disk.inner.state.lock().names.file(path);
        let Ok((_, inode)) = found else { return Ok(()) };
        let there = MemFile { disk: self.disk.clone(), inode, path: path.to_owned(), process: self.process };
        there.put(position, bytes)
    }

    fn change(&self, op: Op, wanted: u64, change: FileOp) -> io::Result<()> {
        self.alive()?;
        if let Some(fault) = self.disk.enter(op, &self.path, wanted, 0) {
            return fault.error().map_or(Ok(()), Err);
        }
        let mut inode = self.inode.lock();
        let len = if op == Op::SetLen { wanted } else { wanted.max(inode.len()) };
        if !self.resize(&inode, len) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inode.change(change);
        Ok(())
    }
}

impl StorageFile for MemFile {
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.alive()?;
        match self.disk.enter(Op::Write, &self.path, position, bytes.len()) {
            None | Some(Fault::Flip(_)) => self.put(position, bytes),
            Some(Fault::Lost) => Ok(()),
            Some(Fault::Elsewhere(path, at)) => self.put_elsewhere(&path, at, bytes),
            Some(Fault::Fail(e)) => Err(e),
            Some(Fault::Short(n, e)) => {
                self.put(position, &bytes[..n.min(bytes.len())])?;
                Err(e)
            }
        }
    }

    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        self.alive()?;
        let flip = match self.disk.enter(Op::Read, &self.path, position, out.len()) {
            Some(Fault::Flip(bit)) => Some(bit),
            Some(Fault::Fail(e) | Fault::Short(_, e)) => return Err(e),
            _ => None,
        };
        let inode = self.inode.lock();
        let seen = inode.seen();
        let from = (position as usize).min(seen.len());
        let len = out.len().min(seen.len() - from);
        out[..len].copy_from_slice(&seen[from..from + len]);
        if let Some(bit) = flip.filter(|_| len > 0) {
            let bit = bit % (len as u64 * 8);
            out[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        Ok(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.alive()?;
        match self.disk.enter(Op::Sync, &self.path, 0, 0).map(Fault::error) {
            None => self.inode.lock().sync(),
            Some(None) => {}
            Some(Some(e)) => {
                self.inode.lock().forget_pending();
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
        self.alive()?;
        match self.disk.enter(Op::Len, &self.path, 0, 0).and_then(Fault::error) {
            Some(e) => Err(e),
            None => Ok(self.inode.lock().len()),
        }
    }
}
