//! Small logs, deterministic choices, and a dumb model of what a log is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use log::storage::memory::MemStorage;
use log::storage::{Storage, create_dir_durably};
use log::{Log, LogConfig, Recovery};
use protocol::batch::{self, BatchBuilder, Compression, Header};

/// Directory of the log under test; its parent exists durably.
pub(crate) fn log_dir() -> PathBuf {
    PathBuf::from("/data/log")
}

/// A simulated disk with `/data`.
pub(crate) fn disk() -> MemStorage {
    let disk = MemStorage::new();
    create_dir_durably(&disk, Path::new("/data")).expect("an empty disk takes a directory");
    disk
}

/// Segments of 2 KiB behind their header page, an index entry every 200 bytes.
pub(crate) fn tiny() -> LogConfig {
    LogConfig { segment_bytes: 4096 + 2048, index_interval_bytes: 200, ..LogConfig::default() }
}

pub(crate) fn open(disk: &MemStorage, config: LogConfig) -> (Log, Recovery) {
    try_open(disk, config).expect("log opens")
}

pub(crate) fn try_open(disk: &MemStorage, config: LogConfig) -> Result<(Log, Recovery), log::LogError> {
    Log::open(Arc::new(disk.clone()) as Arc<dyn Storage>, &log_dir(), config)
}

/// A stamped batch of `records` records, its bytes determined by the arguments.
pub(crate) fn batch(base: u64, epoch: u32, records: usize, payload: usize, salt: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for i in 0..records {
        let fill = (salt as u8).wrapping_add(i as u8) | 1;
        let timestamp = 1_000_000 + (base + i as u64) as i64 * 10;
        let key = format!("{salt:x}");
        builder.push(timestamp, Some(key.as_bytes()), Some(&vec![fill; payload]), &[]).expect("small record");
    }
    let mut bytes = builder.build().expect("small batch");
    batch::stamp(&mut bytes, base, epoch);
    bytes
}

/// splitmix64: deterministic choices from a seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }
}

/// Every batch of the log, read in small steps.
pub(crate) fn read_all(log: &Log) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut at = log.start_offset();
    while at < log.end_offset() {
        let bytes = log.read(at, 700, u64::MAX, true).expect("a healthy log reads");
        assert!(!bytes.is_empty(), "no progress at {at}");
        for one in batch::batches(&bytes) {
            let one = one.expect("whole batches");
            at = Header::parse(&one).expect("header").next_offset();
            out.push(one);
        }
    }
    out
}
