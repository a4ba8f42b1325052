//! Checkpoints that only save time: high watermarks. Everything in here can be rebuilt from the logs; a lost
//! high watermark starts at the log start, and replication raises it again (DESIGN section 6).
//!
//! Invariant: nothing reads a checkpoint as proof of anything. A value is used only as "not above the log end", so a
//! wrong one at worst hides committed records until the ISR has spoken.
//! Why so careful: sled loses keys silently after a flipped bit and may panic on others (ENGINEERING section 4).
//! Hence: behind a trait, opened with a panic guard, deleted and begun again at any doubt, never synced.

use protocol::ids::TopicPartition;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::limits;

/// Where high watermarks are remembered between runs.
pub trait Checkpoints: Send + Sync {
    /// The last remembered value, if any.
    fn high_watermark(&self, at: TopicPartition) -> Option<u64>;
    /// Remembers values. Failing is allowed and silent: the next start is slower.
    fn remember(&self, values: &[(TopicPartition, u64)]);
}

/// Remembers nothing. For tests, simulations, and disks on which sled cannot be opened.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoCheckpoints;

impl Checkpoints for NoCheckpoints {
    fn high_watermark(&self, _: TopicPartition) -> Option<u64> {
        None
    }
    fn remember(&self, _: &[(TopicPartition, u64)]) {}
}

/// Checkpoints in a sled database below the data directory.
#[derive(Debug)]
pub struct SledCheckpoints {
    tree: sled::Db,
}

/// Bytes of a stored value: offset and its check.
const VALUE_BYTES: usize = 12;

fn key(at: TopicPartition) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(at.topic.0.as_bytes());
    key[16..].copy_from_slice(&at.partition.to_be_bytes());
    key
}

/// A value binds itself to its key, so that a value under a wrong key is seen.
fn check(key: &[u8], offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), &offset.to_be_bytes())
}

impl SledCheckpoints {
    /// Opens the database at `path`, or deletes it and begins a new one. None when not even that works.
    #[must_use]
    pub fn open(path: &Path) -> Option<Self> {
        if let Some(opened) = Self::guarded(path) {
            return Some(opened);
        }
        tracing::warn!(path = %path.display(), "checkpoints cannot be read; beginning anew, which costs start time only");
        std::fs::remove_dir_all(path).ok();
        Self::guarded(path)
    }

    fn guarded(path: &Path) -> Option<Self> {
        let path: PathBuf = path.to_path_buf();
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let tree = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open().ok()?;
            // Touch every entry: what cannot be walked is thrown away now rather than half way through a start.
            let whole = tree.iter().all(|entry| entry.is_ok_and(|(k, v)| decode(&k, &v).is_some()));
            whole.then_some(Self { tree })
        }));
        opened.unwrap_or(None)
    }
}

/// Memory that sled may use for its pages, bytes: a million partitions' checkpoints need no more.
const CACHE_BYTES: u64 = 16 << 20;

fn decode(key: &[u8], value: &[u8]) -> Option<u64> {
    let value: &[u8; VALUE_BYTES] = value.try_into().ok()?;
    let offset = u64::from_be_bytes(value[..8].try_into().ok()?);
    let stored = u32::from_be_bytes(value[8..].try_into().ok()?);
    (stored == check(key, offset)).then_some(offset)
}

impl Checkpoints for SledCheckpoints {
    fn high_watermark(&self, at: TopicPartition) -> Option<u64> {
        let key = key(at);
        let value = catch_unwind(AssertUnwindSafe(|| self.tree.get(key).ok().flatten())).ok().flatten()?;
        decode(&key, &value)
    }

    fn remember(&self, values: &[(TopicPartition, u64)]) {
        let written = catch_unwind(AssertUnwindSafe(|| {
            for (at, offset) in values {
                let key = key(*at);
                let mut value = [0; VALUE_BYTES];
                value[..8].copy_from_slice(&offset.to_be_bytes());
                value[8..].copy_from_slice(&check(&key, *offset).to_be_bytes());
                self.tree.insert(key, &value)?;
            }
            self.tree.flush().map(drop)
        }));
        if !matches!(written, Ok(Ok(()))) {
            tracing::warn!("checkpoints were not written; the next start is slower");
        }
    }
}

/// Remembers on a thread of its own, so that no shard waits for the database's files. A batch that finds the queue full
/// is dropped: a checkpoint only saves time.
#[derive(Debug, Clone)]
pub struct CheckpointWriter {
    queue: SyncSender<Vec<(TopicPartition, u64)>>,
}

impl CheckpointWriter {
    /// Starts the thread; it ends when every clone is dropped and the queue is empty.
    ///
    /// # Errors
    /// The operating system's, when the thread cannot be started.
    pub fn start(checkpoints: Box<dyn Checkpoints>) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (queue, values) = sync_channel::<Vec<_>>(limits::CHECKPOINT_QUEUE);
        let work = move || values.iter().for_each(|values| checkpoints.remember(&values));
        let thread = std::thread::Builder::new().name("checkpoints".into()).spawn(work)?;
        Ok((Self { queue }, thread))
    }

    /// Hands values over without waiting.
    pub fn remember(&self, values: Vec<(TopicPartition, u64)>) {
        if !values.is_empty() {
            self.queue.try_send(values).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::TopicId;

    fn at(n: u32) -> TopicPartition {
        TopicPartition { topic: TopicId(uuid::Uuid::from_u128(u128::from(n))), partition: n }
    }

    fn filled(path: &Path) {
        let checkpoints = SledCheckpoints::open(path).expect("a new directory opens");
        checkpoints.remember(&(0..50).map(|n| (at(n), u64::from(n) * 7)).collect::<Vec<_>>());
    }

    #[test]
    fn values_come_back_after_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        filled(dir.path());
        let checkpoints = SledCheckpoints::open(dir.path()).expect("opens again");
        assert!((0..50).all(|n| checkpoints.high_watermark(at(n)) == Some(u64::from(n) * 7)));
        assert_eq!(checkpoints.high_watermark(at(99)), None);
    }

    #[test]
    fn flipped_bytes_give_no_wrong_value_and_never_stop_a_start() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for step in 0..24usize {
            let path = dir.path().join(step.to_string());
            filled(&path);
            for entry in walk(&path) {
                let mut bytes = std::fs::read(&entry).expect("sled's file reads");
                let length = bytes.len();
                for spot in (step * 13..length).step_by(997) {
                    bytes[spot] ^= 1 << (step % 8);
                }
                std::fs::write(&entry, bytes).expect("sled's file writes");
            }
            if let Some(checkpoints) = SledCheckpoints::open(&path) {
                for n in 0..50 {
                    let value = checkpoints.high_watermark(at(n));
                    assert!(value.is_none() || value == Some(u64::from(n) * 7), "partition {n} reads {value:?}");
                }
            }
        }
    }

    fn walk(path: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).expect("lists").flatten() {
            if entry.path().is_dir() { files.extend(walk(&entry.path())) } else { files.push(entry.path()) }
        }
        files
    }
}
