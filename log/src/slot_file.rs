//! Small durable records: vote, identity, markers, the state of a log.
//!
//! Owns: [`StateFile`], one checksummed, versioned record in one file, replaced whole.
//! Never: keeps an older version as a fallback. Two alternating slots cannot tell a torn newer record from a
//! damaged one, and falling back to an older vote is a double vote. A new record is written beside the old one,
//! synced, renamed over it, and the directory synced: the file is always one whole record, so anything else is
//! damage. A leftover of an unfinished store is ignored.
//! Invariant: after `store` returns, `load` gives those bytes until the next `store`, whatever loses power; so it does
//! after a `load`, whoever stored them and died before the name was durable; any flipped byte is an error.
//! The bytes themselves need no second write: a file whose sync failed never gets the name.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Damage, LogError};
use crate::limits::{FORMAT_VERSION, MAX_STATE_FILE_BYTES};
use crate::storage::{Storage, read_up_to};

const MAGIC: [u8; 8] = *b"SEAWSTAT";
/// Magic, version, payload length, checksum.
const PREFIX_BYTES: usize = 8 + 4 + 4 + 4;

/// One durable record. The directory must exist.
#[derive(Debug, Clone)]
pub struct StateFile {
    storage: Arc<dyn Storage>,
    path: PathBuf,
}

fn checksum(version: u32, payload: &[u8]) -> u32 {
    let head = [version.to_le_bytes(), (payload.len() as u32).to_le_bytes()].concat();
    crc32c::crc32c_append(crc32c::crc32c(&head), payload)
}

fn decode(bytes: &[u8]) -> Result<&[u8], (u64, String)> {
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes.len() < PREFIX_BYTES {
        return Err((bytes.len() as u64, format!("state record of {} bytes is cut off", bytes.len())));
    }
    if bytes[..8] != MAGIC {
        return Err((0, "no state record begins here".into()));
    }
    let (version, len, stored) = (word(8), word(12), word(16));
    if version != FORMAT_VERSION {
        return Err((8, format!("state record has format version {version}, this build reads {FORMAT_VERSION}")));
    }
    let payload = &bytes[PREFIX_BYTES..];
    if payload.len() as u64 != u64::from(len) {
        return Err((12, format!("state record announces {len} bytes and has {}", payload.len())));
    }
    let computed = checksum(version, payload);
    if stored != computed {
        return Err((16, format!("state record checksum is {stored:#010x}, its bytes give {computed:#010x}")));
    }
    Ok(payload)
}

impl StateFile {
    /// The record at `path`, which need not exist.
    pub fn new(storage: Arc<dyn Storage>, path: impl Into<PathBuf>) -> StateFile {
        StateFile { storage, path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Name under which a record is prepared; whatever is there is unfinished and means nothing.
    fn temporary(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".tmp");
        name.into()
    }

    /// The record, durable on return, or `None` if none was ever stored. Errors: damage with file and position; a failed
    /// read or sync of the directory.
    pub fn load(&self) -> Result<Option<Vec<u8>>, LogError> {
        let found = self.read()?;
        if found.is_some() {
            self.sync_parent()?;
        }
        Ok(found)
    }

    /// As [`StateFile::load`], but a power cut may bring an older record back: for who syncs the directory before acting
    /// on it.
    pub(crate) fn read(&self) -> Result<Option<Vec<u8>>, LogError> {
        let file = match self.storage.open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(LogError::read(&self.path))?,
        };
        let len = file.len().map_err(LogError::read(&self.path))?;
        if len > MAX_STATE_FILE_BYTES {
            let what = format!("state record of {len} bytes exceeds the limit of {MAX_STATE_FILE_BYTES}");
            return Err(Damage::new(&self.path, MAX_STATE_FILE_BYTES, what).into());
        }
        let bytes = read_up_to(&*file, 0, len as usize).map_err(LogError::read(&self.path))?;
        match decode(&bytes) {
            Ok(payload) => Ok(Some(payload.to_vec())),
            Err((position, what)) => Err(Damage::new(&self.path, position, what).into()),
        }
    }

    /// Replaces the record; durable on return. Errors: `DiskFull`, and the old record stands; after any other the caller
    /// must stop: which record is on the disk is unknown (the old or the new one, never a mixture).
    pub fn store(&self, payload: &[u8]) -> Result<(), LogError> {
        let len = PREFIX_BYTES as u64 + payload.len() as u64;
        assert!(len <= MAX_STATE_FILE_BYTES, "state records are small; {len} bytes would be unreadable");
        let mut bytes = Vec::with_capacity(len as usize);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&checksum(FORMAT_VERSION, payload).to_le_bytes());
        bytes.extend_from_slice(payload);
        let temporary = self.temporary();
        match self.storage.remove(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(LogError::io("remove", &temporary)(e)),
            _ => {}
        }
        let file = self.storage.create(&temporary).map_err(LogError::room("create", &temporary, len))?;
        file.write_at(0, &bytes).map_err(LogError::room("write", &temporary, len))?;
        file.sync().map_err(LogError::io("sync", &temporary))?;
        self.storage.rename(&temporary, &self.path).map_err(LogError::io("rename", &self.path))?;
        self.sync_parent()
    }

    /// Removes the record durably; a missing one is fine.
    pub fn delete(&self) -> Result<(), LogError> {
        match self.storage.remove(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(LogError::io("remove", &self.path)(e)),
            // A process that died may have removed it, and not durably.
            _ => self.sync_parent(),
        }
    }

    fn sync_parent(&self) -> Result<(), LogError> {
        let parent = self.path.parent().expect("state files are made from a directory and a name");
        self.storage.sync_dir(parent).map_err(LogError::io("sync of directory", parent))
    }
}
