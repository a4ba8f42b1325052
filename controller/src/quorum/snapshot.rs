//! Snapshots on disk: Raft's meta and the image as facts, in one checksummed file named after the last entry in it.
//! Written to a temporary name, synced, renamed, the directory synced; only then are older ones removed. The newest
//! file counts; if it is damaged the controller does not start, whatever older file may be there: entries up to it may be
//! gone from the log.

use super::types::alias::{LogId, SnapshotMeta};
use bytes::{BufMut, Bytes, BytesMut};
use crc32c::crc32c;
use log::storage::{Storage, create_dir_durably, read_up_to};
use parking_lot::Mutex;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::snapshot;
use protocol::planted::{self, Bug};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"SWSNAP01";
/// magic, body length (8), crc32c of body (4), crc32c of this head (4)
const HEAD_LEN: usize = 24;
const SUFFIX: &str = ".snapshot";
const TEMPORARY: &str = "writing.tmp";

/// Why a snapshot could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Bytes on disk are not what was written.
    #[error("snapshot {file} is damaged at byte {position}: {what}")]
    Damaged {
        /// Path.
        file: PathBuf,
        /// Where.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// A call failed.
    #[error("snapshot {file}: {action} failed: {source}")]
    Io {
        /// Path.
        file: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Cause.
        source: io::Error,
    },
}

/// An image as `protocol::metadata::snapshot` writes it, all chunks in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageBytes(pub(crate) Bytes);

impl ImageBytes {
    /// Writes an image.
    pub(crate) fn encode(image: &MetadataImage) -> Self {
        let mut out = BytesMut::new();
        snapshot::encode(image).iter().for_each(|chunk| out.extend_from_slice(chunk));
        Self(out.freeze())
    }

    /// Reads it back.
    pub(crate) fn decode(&self) -> Result<MetadataImage, snapshot::SnapshotError> {
        snapshot::decode([&self.0])
    }
}

/// A snapshot that can be stored.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) meta: SnapshotMeta,
    pub(crate) data: ImageBytes,
}

/// The snapshots of one controller.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    current: Mutex<Option<Built>>,
    /// Builder and installer may meet; one writes at a time.
    writing: Mutex<()>,
}

impl SnapshotStore {
    /// Opens the directory (created if missing) and verifies the newest snapshot.
    pub(crate) fn open(storage: Arc<dyn Storage>, dir: &Path) -> Result<Self, SnapshotError> {
        create_dir_durably(&*storage, dir).map_err(io_error(dir, "create directory"))?;
        let store = Self { storage, dir: dir.to_owned(), current: Mutex::new(None), writing: Mutex::new(()) };
        let newest = store.names()?.pop();
        if let Some(name) = newest {
            *store.current.lock() = Some(store.read(&dir.join(&name))?);
            // Whoever renamed it may have died before its name was durable, and entries go once it is believed.
            store.storage.sync_dir(dir).map_err(io_error(dir, "sync directory"))?;
            store.remove_others(&name)?;
        }
        Ok(store)
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Option<Built> {
        self.current.lock().clone()
    }

    /// Last entry in the newest snapshot.
    pub(crate) fn last_log_id(&self) -> Option<LogId> {
        self.current.lock().as_ref().and_then(|built| built.meta.last_log_id)
    }

    /// Stores a snapshot, durable on return. One that is not newer than the current one is left out.
    pub(crate) fn store(&self, built: Built) -> Result<(), SnapshotError> {
        let _one_writer = self.writing.lock();
        if self.current.lock().as_ref().is_some_and(|held| held.meta.last_log_id >= built.meta.last_log_id) {
            return Ok(());
        }
        let name = name_of(built.meta.last_log_id);
        let (path, temporary) = (self.dir.join(&name), self.dir.join(TEMPORARY));
        self.write(&temporary, &built)?;
        self.storage.rename(&temporary, &path).map_err(io_error(&path, "rename"))?;
        if !planted::is(Bug::PurgeBeforeSnapshot) {
            self.storage.sync_dir(&self.dir).map_err(io_error(&self.dir, "sync directory"))?;
        }
        *self.current.lock() = Some(built);
        self.remove_others(&name)
    }

    /// Reads the newest snapshot back and checks it.
    pub(crate) fn scrub(&self) -> Result<(), SnapshotError> {
        let _no_writer = self.writing.lock();
        match self.last_log_id() {
            None => Ok(()),
            at => self.read(&self.dir.join(name_of(at))).map(drop),
        }
    }

    fn write(&self, temporary: &Path, built: &Built) -> Result<(), SnapshotError> {
        match self.storage.remove(temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error(temporary, "remove")(e)),
            _ => {}
        }
        let bytes = framed(&body_of(built));
        let file = self.storage.create(temporary).map_err(io_error(temporary, "create"))?;
        file.write_at(0, &bytes).map_err(io_error(temporary, "write"))?;
        file.sync().map_err(io_error(temporary, "sync"))
    }

    fn read(&self, path: &Path) -> Result<Built, SnapshotError> {
        let damaged = |position: u64, what: &str| SnapshotError::Damaged {
            file: path.to_owned(),
            position,
            what: what.to_owned(),
        };
        let file = self.storage.open(path).map_err(io_error(path, "open"))?;
        let len = file.len().map_err(io_error(path, "length"))?;
        let whole = usize::try_from(len).map_err(|_| damaged(0, "larger than memory"))?;
        let bytes = Bytes::from(read_up_to(&*file, 0, whole).map_err(io_error(path, "read"))?);
        let head = bytes.get(..HEAD_LEN).ok_or_else(|| damaged(len, "ends within its head"))?;
        if &head[..8] != MAGIC || crc32c(&head[..20]).to_le_bytes() != head[20..24] {
            return Err(damaged(0, "head does not match its checksum"));
        }
        let body = bytes.slice(HEAD_LEN..);
        if head[8..16] != (body.len() as u64).to_le_bytes() {
            return Err(damaged(8, "length is not the one in the head"));
        }
        if head[16..20] != crc32c(&body).to_le_bytes() {
            return Err(damaged(HEAD_LEN as u64, "body does not match its checksum"));
        }
        let built = split_body(&body).ok_or_else(|| damaged(HEAD_LEN as u64, "meta does not decode"))?;
        if path.file_name().and_then(|n| n.to_str()) != Some(&name_of(built.meta.last_log_id)) {
            return Err(damaged(0, "is not the snapshot its name says"));
        }
        Ok(built)
    }

    fn names(&self) -> Result<Vec<String>, SnapshotError> {
        let entries = self.storage.list(&self.dir).map_err(io_error(&self.dir, "list"))?;
        Ok(entries.into_iter().map(|e| e.name).filter(|name| name.ends_with(SUFFIX)).collect())
    }

    fn remove_others(&self, keep: &str) -> Result<(), SnapshotError> {
        for name in self.names()?.into_iter().filter(|name| name != keep) {
            let path = self.dir.join(name);
            self.storage.remove(&path).map_err(io_error(&path, "remove"))?;
        }
        Ok(())
    }
}

/// Length of the meta, the meta, the image.
pub(super) fn body_of(built: &Built) -> Bytes {
    let meta = postcard::to_stdvec(&built.meta).expect("snapshot meta holds only types that postcard can write");
    let mut body = BytesMut::with_capacity(4 + meta.len() + built.data.0.len());
    body.put_u32_le(u32::try_from(meta.len()).expect("a membership of a few voters is small"));
    body.extend_from_slice(&meta);
    body.extend_from_slice(&built.data.0);
    body.freeze()
}

/// A body behind its head.
pub(super) fn framed(body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_LEN + body.len());
    bytes.extend_from_slice(MAGIC);
    bytes.put_u64_le(body.len() as u64);
    bytes.put_u32_le(crc32c(body));
    let head_crc = crc32c(&bytes);
    bytes.put_u32_le(head_crc);
    bytes.extend_from_slice(body);
    bytes.freeze()
}

pub(super) fn split_body(body: &Bytes) -> Option<Built> {
    let len = u32::from_le_bytes(body.get(..4)?.try_into().ok()?) as usize;
    let meta = postcard::from_bytes(body.get(4..4 + len)?).ok()?;
    Some(Built { meta, data: ImageBytes(body.slice(4 + len..)) })
}

/// Names sort by index; the term follows for people.
pub(super) fn name_of(last: Option<LogId>) -> String {
    match last {
        Some(id) => format!("{:020}-{}{SUFFIX}", id.index, id.leader_id.term),
        None => format!("{:020}-empty{SUFFIX}", 0),
    }
}

fn io_error(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    let file = path.to_owned();
    move |source| SnapshotError::Io { file, action, source }
}
