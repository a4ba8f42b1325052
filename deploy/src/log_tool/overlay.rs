//! A disk that is read and never changed: what is written stays in memory.
//!
//! Owns the memory of changes. With it the engine's own recovery and checks run over the files of a log, a damaged or a
//! live one too, and leave every byte as it was. A file is copied into memory at its first change; recovery changes few.
//! Takes no lock: the writer of a live log holds it.

use log::storage::{DirEntry, Storage, StorageFile, StorageLock};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A storage over another one, which it only reads.
#[derive(Debug)]
pub struct Overlay {
    base: Arc<dyn Storage>,
    /// Files opened or made here; None = removed here.
    files: Mutex<BTreeMap<PathBuf, Option<Arc<OverlayFile>>>>,
}

/// A file that is copied at its first change.
#[derive(Debug)]
pub struct OverlayFile {
    state: Mutex<Contents>,
}

#[derive(Debug)]
enum Contents {
    Untouched(Arc<dyn StorageFile>),
    Copied(Vec<u8>),
}

#[derive(Debug)]
struct NoLock;

impl StorageLock for NoLock {}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds the overlay")
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Overlay {
    /// An overlay over `base`.
    pub fn new(base: Arc<dyn Storage>) -> Self {
        Self { base, files: Mutex::new(BTreeMap::new()) }
    }

    fn opened(&self, path: &Path) -> io::Result<Arc<OverlayFile>> {
        let mut files = held(&self.files);
        match files.get(path) {
            Some(Some(file)) => Ok(file.clone()),
            Some(None) => Err(not_found()),
            None => {
                let file = OverlayFile { state: Mutex::new(Contents::Untouched(self.base.open(path)?)) };
                let file = Arc::new(file);
                files.insert(path.to_path_buf(), Some(file.clone()));
                Ok(file)
            }
        }
    }
}

impl Storage for Overlay {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file = Arc::new(OverlayFile { state: Mutex::new(Contents::Copied(Vec::new())) });
        held(&self.files).insert(path.to_path_buf(), Some(file.clone()));
        Ok(file)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        Ok(self.opened(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.opened(from)?;
        let mut files = held(&self.files);
        files.insert(from.to_path_buf(), None);
        files.insert(to.to_path_buf(), Some(file));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.opened(path)?;
        held(&self.files).insert(path.to_path_buf(), None);
        Ok(())
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries: BTreeMap<String, DirEntry> = match self.base.list(path) {
            Ok(entries) => entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect(),
            Err(error) => return Err(error),
        };
        for (file, state) in held(&self.files).iter().filter(|(file, _)| file.parent() == Some(path)) {
            let Some(name) = file.file_name().and_then(|name| name.to_str()) else { continue };
            match state {
                Some(_) => entries.insert(name.to_owned(), DirEntry { name: name.to_owned(), is_dir: false }),
                None => entries.remove(name),
            };
        }
        Ok(entries.into_values().collect())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn StorageLock>> {
        Ok(Box::new(NoLock))
    }

    fn boot_id(&self) -> io::Result<Option<String>> {
        self.base.boot_id()
    }

    fn free_space(&self, path: &Path) -> io::Result<u64> {
        self.base.free_space(path)
    }
}

impl Contents {
    /// The bytes in memory, copied there if this is the first change.
    fn owned(&mut self) -> io::Result<&mut Vec<u8>> {
        if let Contents::Untouched(file) = self {
            let len = usize::try_from(file.len()?).map_err(|_| io::Error::other("a file larger than memory"))?;
            *self = Contents::Copied(log::storage::read_up_to(&**file, 0, len)?);
        }
        match self {
            Contents::Copied(bytes) => Ok(bytes),
            Contents::Untouched(_) => Err(io::Error::other("copied a moment ago")),
        }
    }
}

fn index(position: u64) -> io::Result<usize> {
    usize::try_from(position).map_err(|_| io::Error::other("a position beyond memory"))
}

impl StorageFile for OverlayFile {
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = held(&self.state);
        let contents = state.owned()?;
        let (from, to) = (index(position)?, index(position)? + bytes.len());
        if contents.len() < to {
            contents.resize(to, 0);
        }
        contents[from..to].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<usize> {
        match &*held(&self.state) {
            Contents::Untouched(file) => file.read_at(position, out),
            Contents::Copied(bytes) => {
                let from = index(position)?.min(bytes.len());
                let count = out.len().min(bytes.len() - from);
                out[..count].copy_from_slice(&bytes[from..from + count]);
                Ok(count)
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        held(&self.state).owned()?.resize(index(len)?, 0);
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        let len = index(len)?;
        let mut state = held(&self.state);
        let contents = state.owned()?;
        if contents.len() < len {
            contents.resize(len, 0);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        match &*held(&self.state) {
            Contents::Untouched(file) => file.len(),
            Contents::Copied(bytes) => Ok(bytes.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::storage::file::FileStorage;

    #[test]
    fn nothing_reaches_the_disk() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a");
        std::fs::write(&path, b"hello").expect("writable");
        let overlay = Overlay::new(Arc::new(FileStorage::new(dir.path())));

        let file = overlay.open(&path).expect("it is there");
        file.write_at(3, b"p!!").expect("in memory");
        overlay.create(&dir.path().join("b")).expect("in memory");
        overlay.rename(&path, &dir.path().join("c")).expect("in memory");

        let names: Vec<String> = overlay.list(dir.path()).expect("readable").into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["b", "c"]);
        let copied = overlay.open(&dir.path().join("c")).expect("renamed above");
        assert_eq!(log::storage::read_up_to(&*copied, 0, 10).expect("in memory"), b"help!!");
        assert!(overlay.open(&path).is_err());
        overlay.remove(&dir.path().join("c")).expect("in memory");
        assert_eq!(std::fs::read(&path).expect("still there"), b"hello");
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
    }
}
