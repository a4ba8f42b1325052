//! Checkpoints that only save time: high watermarks. Everything in here can be rebuilt from the logs; a lost
//! high watermark starts at the log start, and replication raises it again (DESIGN section 6).
//!
//! Invariant: nothing reads a checkpoint as proof of anything. A value is believed only if the log has the record that it
//! names (an unclean election may have cut the log since, and no write here is durable); what is not believed hides
//! committed records until the ISR has spoken, no more.
//! Why so careful: sled loses keys silently after a flipped bit and may panic on others (ENGINEERING section 4).
//! Hence: behind a trait, opened with a panic guard, deleted and begun again at any doubt, never synced.

use protocol::ids::{LeaderEpoch, TopicPartition};
use protocol::machine::Worker;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc::{Sender, channel};

use crate::limits;
use crate::replica::Checkpoint;

/// Where high watermarks are remembered between runs.
pub trait Checkpoints: Send + Sync {
    /// One of the remembered values, the last one unless it was lost.
    fn recall(&self, at: TopicPartition) -> Option<Checkpoint>;
    /// Remembers values. Failing is allowed and silent: the next start is slower.
    fn remember(&self, values: &[(TopicPartition, Checkpoint)]);
}

/// Remembers nothing. For tests, simulations, and disks on which sled cannot be opened.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoCheckpoints;

impl Checkpoints for NoCheckpoints {
    fn recall(&self, _: TopicPartition) -> Option<Checkpoint> {
        None
    }
    fn remember(&self, _: &[(TopicPartition, Checkpoint)]) {}
}

/// Checkpoints in a sled database below the data directory.
#[derive(Debug)]
pub struct SledCheckpoints {
    tree: sled::Db,
}

/// Bytes of a stored value: offset, epoch, and their check.
const VALUE_BYTES: usize = 16;

/// Bytes of them that the check covers.
const CHECKED_BYTES: usize = 12;

fn key(at: TopicPartition) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(at.topic.0.as_bytes());
    key[16..].copy_from_slice(&at.partition.to_be_bytes());
    key
}

/// A value binds itself to its key, so that a value under a wrong key is seen.
fn check(key: &[u8], checked: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), checked)
}

fn encode(key: &[u8], checkpoint: Checkpoint) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    value[..8].copy_from_slice(&checkpoint.high_watermark.to_be_bytes());
    value[8..CHECKED_BYTES].copy_from_slice(&checkpoint.epoch.0.to_be_bytes());
    let check = check(key, &value[..CHECKED_BYTES]);
    value[CHECKED_BYTES..].copy_from_slice(&check.to_be_bytes());
    value
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

fn decode(key: &[u8], value: &[u8]) -> Option<Checkpoint> {
    let value: &[u8; VALUE_BYTES] = value.try_into().ok()?;
    let high_watermark = u64::from_be_bytes(value[..8].try_into().ok()?);
    let epoch = LeaderEpoch(u32::from_be_bytes(value[8..CHECKED_BYTES].try_into().ok()?));
    let stored = u32::from_be_bytes(value[CHECKED_BYTES..].try_into().ok()?);
    (stored == check(key, &value[..CHECKED_BYTES])).then_some(Checkpoint { high_watermark, epoch })
}

impl Checkpoints for SledCheckpoints {
    fn recall(&self, at: TopicPartition) -> Option<Checkpoint> {
        let key = key(at);
        let value = catch_unwind(AssertUnwindSafe(|| self.tree.get(key).ok().flatten())).ok().flatten()?;
        decode(&key, &value)
    }

    fn remember(&self, values: &[(TopicPartition, Checkpoint)]) {
        let written = catch_unwind(AssertUnwindSafe(|| {
            for (at, checkpoint) in values {
                let key = key(*at);
                self.tree.insert(key, &encode(&key, *checkpoint))?;
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
    queue: Sender<Vec<(TopicPartition, Checkpoint)>>,
}

impl CheckpointWriter {
    /// Starts the thread; it ends when every clone is dropped and the queue is empty.
    ///
    /// # Errors
    /// The operating system's, when the thread cannot be started.
    pub fn start(checkpoints: Box<dyn Checkpoints>) -> std::io::Result<(Self, Worker)> {
        let (queue, mut values) = channel::<Vec<_>>(limits::CHECKPOINT_QUEUE);
        let work = async move {
            while let Some(values) = values.recv().await {
                checkpoints.remember(&values);
            }
        };
        let thread = Worker::start("checkpoints", move || Ok::<_, std::io::Error>(work))?;
        Ok((Self { queue }, thread))
    }

    /// Hands values over without waiting.
    pub fn remember(&self, values: Vec<(TopicPartition, Checkpoint)>) {
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

    fn value(n: u32) -> Checkpoint {
        Checkpoint { high_watermark: u64::from(n) * 7, epoch: LeaderEpoch(n / 3) }
    }

    fn filled(path: &Path) {
        let checkpoints = SledCheckpoints::open(path).expect("a new directory opens");
        checkpoints.remember(&(0..50).map(|n| (at(n), value(n))).collect::<Vec<_>>());
    }

    #[test]
    fn values_come_back_after_a_restart() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        filled(dir.path());
        let checkpoints = SledCheckpoints::open(dir.path()).expect("opens again");
        assert!((0..50).all(|n| checkpoints.recall(at(n)) == Some(value(n))));
        assert_eq!(checkpoints.recall(at(99)), None);
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
                    let read = checkpoints.recall(at(n));
                    assert!(read.is_none_or(|read| read == value(n)), "partition {n} reads {read:?}");
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
