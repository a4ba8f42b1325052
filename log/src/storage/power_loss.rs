//! Real files whose unsynced bytes and names live in process memory: SIGKILL is a power loss.
//!
//! Owns: the overlay of dirty pages per file, names not yet covered by a directory sync, a boot id per process.
//! Never: is built into a shipped program (feature `power-loss`, for tests with real processes); calls fdatasync
//! (the machine is not going down, the process is).
//! Invariant: a real file holds exactly what syncs wrote, and a real name exists exactly if a directory sync made it
//! durable; whatever kills the process, the next one finds that and nothing more. A kill during a sync leaves any
//! prefix of its pages, as a torn write would.
//!
//! New files and directories begin in a hidden directory beside the root and are renamed into place by the directory
//! sync that makes their names durable. Unsynced bytes are never written back on their own, so a log that never
//! syncs grows in memory. One instance per root and process.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use super::file::FileStorage;
use super::namespace::{NameOp, Namespace, NodeId, ROOT};
use super::{DirEntry, Storage, StorageFile, StorageLock};

const PAGE_BYTES: u64 = 4096;

/// Unsynced state of one file.
#[derive(Debug, Default)]
struct Overlay {
    /// Length as the process sees it; `None` until the real file was looked at.
    len: Option<u64>,
    /// Bytes of the real file that still count; beyond them it reads as zeros.
    real_len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

type Contents = Arc<Mutex<Overlay>>;

#[derive(Debug)]
struct Names {
    seen: Namespace<Contents>,
    /// Where nodes with durable names are on the real disk.
    places: BTreeMap<NodeId, (NodeId, String)>,
}

/// See the module. Clones share it.
#[derive(Debug, Clone)]
pub struct PowerLossStorage {
    real: FileStorage,
    root: PathBuf,
    hidden: PathBuf,
    boot_id: String,
    names: Arc<Mutex<Names>>,
}

impl PowerLossStorage {
    /// Takes over the real directory `root` (absolute; need not exist). What an earlier process had not synced is
    /// gone.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<PowerLossStorage> {
        let root: PathBuf = root.into();
        let hidden = root.with_extension("power-loss");
        match std::fs::remove_dir_all(&hidden) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => std::fs::create_dir_all(&hidden)?,
        }
        let mut names = Names { seen: Namespace::new(), places: BTreeMap::new() };
        names.adopt_path(&root)?;
        Ok(PowerLossStorage {
            // The hidden directory lies beside the root, so the real storage is confined to their parent.
            real: FileStorage::new(root.parent().unwrap_or(&root)),
            root,
            hidden,
            boot_id: Uuid::new_v4().to_string(),
            names: Arc::new(Mutex::new(names)),
        })
    }

    fn place(&self, names: &Names, id: NodeId) -> PathBuf {
        match names.places.get(&id) {
            _ if id == ROOT => PathBuf::from("/"),
            Some((dir, name)) => self.place(names, *dir).join(name),
            None => self.hidden.join(id.to_string()),
        }
    }

    fn apply(&self, names: &mut Names, op: &NameOp) -> io::Result<()> {
        match op {
            NameOp::Link(key, id) | NameOp::Move(_, key, id) => {
                let from = self.place(names, *id);
                let to = self.place(names, key.0).join(&key.1);
                self.real.rename(&from, &to)?;
                names.places.retain(|_, place| place != key);
                names.places.insert(*id, key.clone());
            }
            NameOp::Unlink(key, id) if names.places.get(id) == Some(key) => {
                let path = self.place(names, *id);
                match self.real.remove(&path) {
                    Err(e) if e.kind() == io::ErrorKind::IsADirectory => self.real.remove_dir(&path)?,
                    other => other?,
                }
                names.places.remove(id);
            }
            NameOp::Unlink(..) => {}
        }
        Ok(())
    }

    fn handle(&self, real: Arc<dyn StorageFile>, contents: Contents) -> io::Result<Arc<dyn StorageFile>> {
        let mut overlay = contents.lock();
        if overlay.len.is_none() {
            overlay.real_len = real.len()?;
            overlay.len = Some(overlay.real_len);
        }
        drop(overlay);
        Ok(Arc::new(PowerLossFile { real, contents }))
    }
}

impl Names {
    /// Adopts the directories down to `root` that exist, and everything below it.
    fn adopt_path(&mut self, root: &Path) -> io::Result<()> {
        let mut at = ROOT;
        let mut path = PathBuf::from("/");
        for component in root.components().skip(1) {
            path.push(component);
            if !path.try_exists()? {
                return Ok(());
            }
            at = self.adopt(at, &component.as_os_str().to_string_lossy(), None);
        }
        self.adopt_below(at, &path)
    }

    fn adopt(&mut self, dir: NodeId, name: &str, file: Option<Contents>) -> NodeId {
        let id = self.seen.adopt(dir, name, file);
        self.places.insert(id, (dir, name.to_owned()));
        id
    }

    fn adopt_below(&mut self, dir: NodeId, path: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() {
                let id = self.adopt(dir, &name, None);
                self.adopt_below(id, &entry.path())?;
            } else {
                self.adopt(dir, &name, Some(Contents::default()));
            }
        }
        Ok(())
    }
}

impl Storage for PowerLossStorage {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let contents = Contents::default();
        let mut names = self.names.lock();
        let id = names.seen.create(path, contents.clone())?;
        let real = self.real.create(&self.place(&names, id))?;
        self.handle(real, contents)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let names = self.names.lock();
        let (id, contents) = names.seen.file(path)?;
        let real = self.real.open(&self.place(&names, id))?;
        self.handle(real, contents)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.names.lock().seen.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.names.lock().seen.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        let id = names.seen.create_dir(path)?;
        self.real.create_dir(&self.place(&names, id))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.names.lock().seen.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.names.lock().seen.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names.lock();
        let ops = names.seen.sync_dir(path)?;
        ops.iter().try_for_each(|op| self.apply(&mut names, op))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        self.real.lock(path)
    }

    fn boot_id(&self) -> io::Result<Option<String>> {
        Ok(Some(self.boot_id.clone()))
    }

    fn free_space(&self, _path: &Path) -> io::Result<u64> {
        self.real.free_space(self.root.parent().unwrap_or(&self.root))
    }
}

#[derive(Debug)]
struct PowerLossFile {
    real: Arc<dyn StorageFile>,
    contents: Contents,
}

impl Overlay {
    fn len(&self) -> u64 {
        self.len.expect("set when the file was opened")
    }

    /// The page as the process sees it.
    fn page(&self, real: &dyn StorageFile, number: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = self.pages.get(&number) {
            return Ok(page.clone());
        }
        let at = number * PAGE_BYTES;
        let mut page = vec![0; PAGE_BYTES as usize];
        let valid = self.real_len.saturating_sub(at).min(PAGE_BYTES) as usize;
        if valid > 0 {
            real.read_at(at, &mut page[..valid])?;
        }
        Ok(page)
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len() {
            self.real_len = self.real_len.min(len);
            self.pages.split_off(&len.div_ceil(PAGE_BYTES));
            if let Some(page) = self.pages.get_mut(&(len / PAGE_BYTES)) {
                page[(len % PAGE_BYTES) as usize..].fill(0);
            }
        }
        self.len = Some(len);
    }

    fn sync(&mut self, real: &dyn StorageFile) -> io::Result<()> {
        let len = self.len();
        // What was cut goes before anything new is written there.
        if real.len()? > self.real_len {
            real.set_len(self.real_len)?;
        }
        for (number, page) in &self.pages {
            let at = number * PAGE_BYTES;
            let end = len.saturating_sub(at).min(PAGE_BYTES) as usize;
            real.write_at(at, &page[..end])?;
        }
        real.set_len(len)?;
        self.pages.clear();
        self.real_len = len;
        Ok(())
    }
}

impl StorageFile for PowerLossFile {
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut overlay = self.contents.lock();
        let (mut at, mut rest) = (position, bytes);
        while !rest.is_empty() {
            let number = at / PAGE_BYTES;
            let from = (at % PAGE_BYTES) as usize;
            let len = rest.len().min(PAGE_BYTES as usize - from);
            let mut page = overlay.page(&*self.real, number)?;
            page[from..from + len].copy_from_slice(&rest[..len]);
            overlay.pages.insert(number, page);
            at += len as u64;
            rest = &rest[len..];
        }
        let len = overlay.len().max(position + bytes.len() as u64);
        overlay.len = Some(len);
        Ok(())
    }

    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let overlay = self.contents.lock();
        let total = overlay.len().saturating_sub(position).min(out.len() as u64) as usize;
        let mut done = 0;
        while done < total {
            let at = position + done as u64;
            let from = (at % PAGE_BYTES) as usize;
            let len = (total - done).min(PAGE_BYTES as usize - from);
            let page = overlay.page(&*self.real, at / PAGE_BYTES)?;
            out[done..done + len].copy_from_slice(&page[from..from + len]);
            done += len;
        }
        Ok(total)
    }

    fn sync(&self) -> io::Result<()> {
        self.contents.lock().sync(&*self.real)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.contents.lock().set_len(len);
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let mut overlay = self.contents.lock();
        if len > overlay.len() {
            overlay.len = Some(len);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.contents.lock().len())
    }
}
