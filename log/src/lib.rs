//! Seawall's storage engine: one engine for the Raft log and for partitions. Synchronous, no tokio.
//!
//! * [`storage`]: the disk as a trait; real files, a simulated disk, and (feature `power-loss`) real files whose
//!   unsynced bytes die with the process.
//! * [`Log`]: segments of record batches: append, flush, read, truncate, drop the head, reset, recover.
//! * [`flush`]: making bytes durable on another thread. [`recovery`]: what opening finds.
//! * [`epochs`], [`retention`]: pure rules.
//! * [`slot_file`]: small durable records. [`data_dir`]: lock, identity, markers of a node's directory.
//!   [`registry`]: which partitions ever had data here, and under which flush policy.
//! * [`inspect`]: reading a log directory without changing it, for `log dump` and `log verify`.
//!
//! A log's life in the hands of a shard:
//! ```text
//! let (mut log, recovery) = Log::open(storage, dir, config)?;   // every byte it shows is durable
//! log.append(log.end_offset(), &stamped_batch)?;                // readable at once
//! if let Some(job) = log.flush_job() { pool.run(job) }           // FlushJob::run on any thread
//! if let Some(durable_end) = log.flushed(outcome)? { ... }       // the only thing that may be acknowledged
//! log.read(from, max_bytes, high_watermark, true)?;             // whole batches, every check made
//! ```
//! Absences: nothing here retries a sync, falls back to older bytes, shortens what an end mark covers, or knows
//! what a high watermark, a replica or a vote is. After a failed write or sync every call answers `Poisoned`.

pub mod data_dir;
mod engine;
pub mod epochs;
pub mod error;
pub mod flush;
pub mod inspect;
pub mod limits;
pub mod recovery;
pub mod registry;
pub mod retention;
mod segment;
mod settle;
pub mod slot_file;
pub mod storage;

pub use engine::{Dropped, Log, LogConfig, SegmentMeta, Verify};
pub use epochs::{EpochEnd, EpochStart, EpochTable};
pub use error::{Damage, LogError};
pub use flush::{FlushJob, Flushed, make_durable};
pub use recovery::{Cut, Recovery};
pub use slot_file::StateFile;
