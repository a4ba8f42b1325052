//! Data set aside: partitions that the image does not place here, damaged logs, and tails that an unclean election
//! overruled. Nothing here deletes anything unless a command says so.

use log::data_dir::DataDir;
use log::storage::create_dir_durably;
use log::{Log, LogError};
use protocol::ids::TopicPartition;
use std::path::{Path, PathBuf};

/// Bytes copied at a time into a kept tail.
const COPY_BYTES: usize = 1 << 20;

/// Copies everything from `from` on into a file of its own below `aside`, durable on return: concatenated batches, as
/// `log dump` reads them.
///
/// # Errors
/// The log's or the disk's; nothing was cut.
pub fn keep_tail(log: &Log, data: &DataDir, at: TopicPartition, from: u64) -> Result<(), LogError> {
    let (mut next, end) = (from.max(log.start_offset()), log.end_offset());
    if next >= end {
        return Ok(());
    }
    let aside = tails_dir(data);
    let storage = data.storage();
    let failed =
        |op: &'static str, path: &Path, source: std::io::Error| LogError::Io { op, path: path.to_owned(), source };
    // A copy that a crash left unfinished is written over by the next attempt.
    let room = |op: &'static str, path: &Path, wanted: usize, source: std::io::Error| match source.kind() {
        std::io::ErrorKind::StorageFull => LogError::DiskFull { path: path.to_owned(), wanted: wanted as u64 },
        _ => failed(op, path, source),
    };
    create_dir_durably(&**storage, &aside).map_err(|e| room("create directory", &aside, 0, e))?;
    let path = aside.join(format!("{}-{}.{next}-{end}.batches", at.topic, at.partition));
    let file = match storage.create(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => storage.open(&path),
        other => other,
    }
    .map_err(|e| room("create", &path, 0, e))?;
    let mut copy = || {
        let mut position = 0;
        while next < end {
            let bytes = log.read(next, COPY_BYTES, end, true)?;
            let Some(reached) = crate::partition::end_of(&bytes) else { break };
            file.write_at(position, &bytes).map_err(|e| room("write", &path, bytes.len(), e))?;
            position += bytes.len() as u64;
            next = reached;
        }
        Ok(())
    };
    if let Err(error) = copy() {
        // Half a copy would hold the very room that is missing.
        if matches!(error, LogError::DiskFull { .. }) {
            storage.remove(&path).map_err(|e| failed("remove", &path, e))?;
        }
        return Err(error);
    }
    file.sync().map_err(|e| failed("sync", &path, e))?;
    storage.sync_dir(&aside).map_err(|e| failed("sync of directory", &aside, e))
}

/// Where cut tails are kept.
#[must_use]
pub fn tails_dir(data: &DataDir) -> PathBuf {
    data.root().join("strays").join("tails")
}

/// Everything set aside in this directory.
///
/// # Errors
/// The disk's.
pub fn list(data: &DataDir) -> Result<Vec<PathBuf>, LogError> {
    data.strays()
}

/// Deletes one of [`list`]'s entries, by command of an operator. The broker of the directory must be stopped, which the
/// directory's lock ensures.
///
/// # Errors
/// Not one of them, or the disk's.
pub fn purge(data: &DataDir, stray: &Path) -> Result<(), LogError> {
    data.delete_stray(stray)
}
