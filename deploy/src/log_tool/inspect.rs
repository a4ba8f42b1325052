//! Reads one log whole: every batch, every check the engine makes on a read.
//!
//! Owns the walk over a log's batches and what is said about each. Judges nothing: damage is an answer here.

use super::overlay::Overlay;
use bytes::Bytes;
use log::storage::file::FileStorage;
use log::{Log, LogConfig, LogError, Recovery, Verify};
use protocol::batch::limits::MAX_BATCH_BYTES_CEILING;
use protocol::batch::{Header, batches};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at a time.
const CHUNK: usize = 4 << 20;

/// What one log holds.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Its directory.
    pub log: PathBuf,
    /// First offset.
    pub start: u64,
    /// Offset after the last record.
    pub end: u64,
    /// Last leader epoch (term, in the Raft log).
    pub last_epoch: Option<u32>,
    /// Segments.
    pub segments: usize,
    /// Bytes of batches.
    pub bytes: u64,
    /// Batches read.
    pub batches: u64,
    /// Records they say they hold.
    pub records: u64,
    /// A tail that a starting node would cut: file, position, reason.
    pub torn_tail: Option<String>,
    /// The first damage, if any: file, position, what.
    pub damage: Option<String>,
}

/// One batch.
#[derive(Debug, Clone, Serialize)]
pub struct BatchLine {
    /// Offset of its first record.
    pub base_offset: u64,
    /// Offset of its last record.
    pub last_offset: u64,
    /// Leader epoch.
    pub leader_epoch: Option<u32>,
    /// Records.
    pub records: u32,
    /// Bytes, header included.
    pub bytes: usize,
    /// Compression.
    pub compression: String,
    /// First timestamp, ms since 1970.
    pub base_timestamp: i64,
    /// Largest timestamp, ms since 1970.
    pub max_timestamp: i64,
    /// Checksum as stored; it was checked.
    pub crc: String,
}

/// Opens the log in `dir` without changing it.
///
/// # Errors
/// Damage, or a file that cannot be read.
pub fn open(dir: &Path) -> Result<(Log, Recovery), LogError> {
    let root = dir.ancestors().last().unwrap_or(dir);
    let storage = Arc::new(Overlay::new(Arc::new(FileStorage::new(root))));
    let config =
        LogConfig { max_batch_bytes: MAX_BATCH_BYTES_CEILING, verify: Verify::Everything, ..LogConfig::default() };
    Log::open(storage, dir, config)
}

/// Reads everything from `from` on; `each` sees every batch and may end the walk.
///
/// # Errors
/// As the engine's reads.
pub fn walk(log: &Log, from: u64, mut each: impl FnMut(&Header, &Bytes) -> bool) -> Result<(), LogError> {
    let mut next = from.max(log.start_offset());
    while next < log.end_offset() {
        let bytes = log.read(next, CHUNK, log.end_offset(), true)?;
        if bytes.is_empty() {
            return Ok(());
        }
        for batch in batches(&bytes) {
            let batch = batch?;
            let header = Header::parse(&batch)?;
            next = header.next_offset();
            if !each(&header, &batch) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What is said about a batch.
pub fn line(header: &Header, batch: &Bytes) -> BatchLine {
    let compression = header.attributes.compression();
    BatchLine {
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        leader_epoch: header.leader_epoch,
        records: header.record_count,
        bytes: batch.len(),
        compression: compression.map_or_else(|error| error.to_string(), |known| known.name().to_owned()),
        base_timestamp: header.base_timestamp,
        max_timestamp: header.max_timestamp,
        crc: format!("{:08x}", header.crc),
    }
}

/// Reads the log in `dir` whole and says what it holds; damage is part of the answer.
///
/// # Errors
/// A file that cannot be read at all.
pub fn summary(dir: &Path) -> Result<Summary, LogError> {
    let mut summary = Summary {
        log: dir.to_path_buf(),
        start: 0,
        end: 0,
        last_epoch: None,
        segments: 0,
        bytes: 0,
        batches: 0,
        records: 0,
        torn_tail: None,
        damage: None,
    };
    let (log, recovery) = match open(dir) {
        Ok(opened) => opened,
        Err(LogError::Damaged(damage)) => {
            summary.damage = Some(damage.to_string());
            return Ok(summary);
        }
        Err(error) => return Err(error),
    };
    summary.start = log.start_offset();
    summary.end = log.end_offset();
    summary.last_epoch = log.last_epoch();
    summary.segments = log.segments().len();
    summary.torn_tail =
        recovery.cut.map(|cut| format!("{} at byte {}: {}", cut.file.display(), cut.position, cut.reason));
    let (mut batches, mut records, mut bytes) = (0, 0, 0);
    let outcome = walk(&log, 0, |header, batch| {
        batches += 1;
        records += u64::from(header.record_count);
        bytes += batch.len() as u64;
        true
    });
    (summary.batches, summary.records, summary.bytes) = (batches, records, bytes);
    match outcome {
        Ok(()) => {}
        Err(LogError::Damaged(damage)) => summary.damage = Some(damage.to_string()),
        Err(error) => return Err(error),
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::batch::{BatchBuilder, Compression, stamp};

    fn filled(dir: &Path) -> PathBuf {
        let storage = Arc::new(FileStorage::new(dir));
        let path = dir.join("log");
        let (mut log, _) = Log::open(storage, &path, LogConfig::default()).expect("a fresh log opens");
        for number in 0..3_u64 {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(5, None, Some(b"value"), &[]).expect("a small record");
            let mut batch = builder.build().expect("a small batch");
            stamp(&mut batch, number, 1);
            log.append(number, &batch).expect("in order");
        }
        log.close_clean().expect("the disk is well");
        path
    }

    #[test]
    fn a_log_is_read_whole_and_left_as_it_was() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = filled(dir.path());
        let segment = path.join(format!("{:020}.log", 0));
        let before = std::fs::read(&segment).expect("readable");
        let summary = summary(&path).expect("readable");
        assert_eq!((summary.start, summary.end, summary.batches, summary.records), (0, 3, 3, 3));
        assert_eq!((summary.damage, summary.torn_tail), (None, None));
        assert_eq!(std::fs::read(&segment).expect("readable"), before);
        let (log, _) = open(&path).expect("readable");
        let mut offsets = Vec::new();
        walk(&log, 1, |header, batch| {
            offsets.push(line(header, batch).base_offset);
            true
        })
        .expect("nothing is damaged");
        assert_eq!(offsets, [1, 2]);
    }

    #[test]
    fn damage_is_named_with_file_and_position() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = filled(dir.path());
        let segment = path.join(format!("{:020}.log", 0));
        let mut bytes = std::fs::read(&segment).expect("readable");
        let at = bytes.windows(5).position(|window| window == b"value").expect("three of them are there");
        bytes[at] ^= 1;
        std::fs::write(&segment, &bytes).expect("writable");
        let damage = summary(&path).expect("readable").damage.expect("a flipped bit is damage");
        assert!(damage.contains("00000000000000000000.log") && damage.contains("at byte"), "{damage}");
    }
}
