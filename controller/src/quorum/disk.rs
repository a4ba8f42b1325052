//! Raft's vote, entries and purge marker on disk, without openraft's traits and without async. Entries stand in a
//! `log::Log` as record batches of one record: base offset = index, leader epoch = term, key = term again (the header's
//! epoch is outside the batch's checksum, and only what is below the end mark is in the chain), value = payload. The vote and
//! the marker are `StateFile`s. Rules: the marker is durable before anything below it goes; a log
//! that should hold entries and does not, or a vote older than the log, is damage; nothing is ever shortened silently.

use super::cache::EntryCache;
use super::types::alias::{CommittedLeaderId, Entry, LogId, Payload, Vote};
use crate::limits::{APPEND_BYTES_MAX, ENTRY_CACHE_BYTES, RAFT_FRAME_MAX, SCRUB_STEP_BYTES};
use bytes::Bytes;
use log::slot_file::StateFile;
use log::storage::{Storage, create_dir_durably};
use log::{FlushJob, Flushed, Log, LogConfig, LogError, Recovery, Verify};
use openraft::entry::RaftEntry;
use protocol::batch::{BatchBuilder, Compression, Limits, batches, records, stamp};
use protocol::planted::{self, Bug};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the Raft log, vote or marker cannot be used. All of them stop the controller.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The log engine found damage or a call failed.
    #[error("raft storage: {0}")]
    Log(#[from] LogError),
    /// Files do not fit each other, or hold what this build cannot read.
    #[error("raft storage {file} is damaged at {position}: {what}")]
    Damaged {
        /// Path.
        file: PathBuf,
        /// Byte or entry.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// The directory could not be made.
    #[error("raft directory {dir}: {source}")]
    Directory {
        /// Path.
        dir: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
}

/// What must survive the entries themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    /// Everything up to here may be gone from the log.
    purged: Option<LogId>,
    /// The log was to begin anew after `purged` (a snapshot beyond its end was installed).
    begin_anew: bool,
    /// Entries were made durable once: an empty log is a lost one.
    has_entries: bool,
}

/// See the module's text.
pub(super) struct Disk {
    dir: PathBuf,
    log: Log,
    cache: EntryCache,
    vote_file: StateFile,
    marker_file: StateFile,
    /// Beside the directory: entries were durable in it once. An emptied directory must not vote again as if it were new.
    witness_file: StateFile,
    vote: Option<Vote>,
    marker: Marker,
}

impl Disk {
    /// Opens what is there and verifies every entry it will ever serve.
    pub(super) fn open(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        segment_bytes: u64,
    ) -> Result<(Self, Recovery), DiskError> {
        create_dir_durably(&**storage, dir).map_err(|source| DiskError::Directory { dir: dir.to_owned(), source })?;
        let vote_file = StateFile::new(Arc::clone(storage), dir.join("vote"));
        let marker_file = StateFile::new(Arc::clone(storage), dir.join("marker"));
        let witness_file = StateFile::new(Arc::clone(storage), witness_of(dir));
        let vote = load(&vote_file, &dir.join("vote"))?;
        let marker: Marker = load(&marker_file, &dir.join("marker"))?.unwrap_or_default();
        let config = LogConfig {
            segment_bytes,
            max_batch_bytes: RAFT_FRAME_MAX,
            verify: Verify::Everything,
            ..LogConfig::default()
        };
        let (log, recovery) = Log::open(Arc::clone(storage), &dir.join("log"), config)?;
        let cache = EntryCache::new(ENTRY_CACHE_BYTES);
        let mut disk = Self { dir: dir.to_owned(), log, cache, vote_file, marker_file, witness_file, vote, marker };
        disk.finish_purge()?;
        disk.verify()?;
        Ok((disk, recovery))
    }

    fn damaged(&self, name: &str, position: u64, what: impl Into<String>) -> DiskError {
        DiskError::Damaged { file: self.dir.join(name), position, what: what.into() }
    }

    /// Completes a purge that a crash interrupted after its marker.
    fn finish_purge(&mut self) -> Result<(), DiskError> {
        let first = self.first_index();
        if self.log.start_offset() > first {
            return Err(self.damaged("log", self.log.start_offset(), format!("entries from {first} on are missing")));
        }
        if self.log.end_offset() >= first && self.log.end_offset() > self.log.start_offset() {
            if self.log.start_offset() < first {
                self.log.drop_head(first)?;
            }
        } else if self.log.end_offset() < first {
            if !self.marker.begin_anew {
                let end = self.log.end_offset();
                return Err(self.damaged(
                    "log",
                    end,
                    format!("the log ends at {end}, entries were kept up to {first}"),
                ));
            }
            self.log.reset(first)?;
        }
        Ok(())
    }

    fn verify(&mut self) -> Result<(), DiskError> {
        let began = self.witness_file.load()?.is_some();
        if began && self.marker == Marker::default() && self.log.end_offset() == 0 {
            return Err(self.damaged("log", 0, "this voter had entries, and its directory is empty"));
        }
        if self.marker.has_entries && self.marker.purged.is_none() && self.log.end_offset() == 0 {
            return Err(self.damaged("log", 0, "the log held entries and is empty"));
        }
        let first = self.first_index();
        let mut next = first;
        while next < self.log.end_offset() {
            let entries = self.read_disk(next, self.log.end_offset(), APPEND_BYTES_MAX)?;
            for (entry, bytes) in entries {
                next = entry.index() + 1;
                self.cache.push(entry, bytes);
            }
        }
        let last_term = self.last_log_id()?.map_or(0, |id| id.leader_id.term);
        let voted = self.vote.as_ref().map_or(0, |v| v.leader_id().term);
        if voted < last_term {
            return Err(self.damaged(
                "vote",
                0,
                format!("vote of term {voted}, but the log has entries of {last_term}"),
            ));
        }
        Ok(())
    }

    /// Index of the first entry that counts.
    pub(super) fn first_index(&self) -> u64 {
        self.marker.purged.as_ref().map_or(0, |id| id.index + 1)
    }

    pub(super) fn purged(&self) -> Option<LogId> {
        self.marker.purged
    }

    pub(super) fn vote(&self) -> Option<Vote> {
        self.vote
    }

    /// Last entry's id, the purged one's when the log is empty.
    pub(super) fn last_log_id(&self) -> Result<Option<LogId>, DiskError> {
        let end = self.log.end_offset();
        if end <= self.first_index() {
            return Ok(self.marker.purged);
        }
        if let Some(entry) = self.cache.last() {
            return Ok(Some(entry.log_id()));
        }
        let entries = self.read_disk(end - 1, end, 1)?;
        Ok(entries.last().map(|(entry, _)| entry.log_id()))
    }

    /// Appends to the page cache; durable after the next flush.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<(), DiskError> {
        let (index, frame) = (entry.index(), self.frame(entry)?);
        if self.log.end_offset() == 0 && self.marker.purged.is_none() && index > 0 {
            // Raft's first entry is number 0; openraft's storage suite begins at others. Reopening such a log fails.
            self.log.reset(index)?;
        }
        self.log.append(index, &frame)?;
        self.cache.push(entry.clone(), frame.len());
        Ok(())
    }

    fn frame(&self, entry: &Entry) -> Result<Vec<u8>, DiskError> {
        let id = entry.log_id();
        let term = u32::try_from(id.leader_id.term)
            .map_err(|_| self.damaged("log", id.index, format!("term {} does not fit 32 bits", id.leader_id.term)))?;
        let payload = postcard::to_stdvec(&entry.payload).expect("entries hold only types that postcard can write");
        let mut builder = BatchBuilder::with_limits(Compression::None, frame_limits());
        let malformed = |e: protocol::batch::BatchError| self.damaged("log", id.index, e.to_string());
        // The header's epoch field is outside the checksum; the key is inside it.
        builder.push(0, Some(&term.to_be_bytes()), Some(&payload), &[]).map_err(malformed)?;
        let mut frame = builder.build().map_err(malformed)?;
        stamp(&mut frame, id.index, term);
        Ok(frame)
    }

    /// What a flush must make durable, if anything.
    pub(super) fn flush_job(&self) -> Option<FlushJob> {
        self.log.flush_job()
    }

    pub(super) fn flushed(&mut self, done: Flushed) -> Result<(), DiskError> {
        self.log.flushed(done)?;
        if !self.marker.has_entries && self.log.durable_end() > self.first_index() {
            if self.witness_file.load()?.is_none() {
                self.witness_file.store(b"began")?;
            }
            self.store_marker(Marker { has_entries: true, begin_anew: false, ..self.marker.clone() })?;
        }
        Ok(())
    }

    /// Durable on return.
    pub(super) fn save_vote(&mut self, vote: &Vote) -> Result<(), DiskError> {
        if !planted::is(Bug::VoteNotSynced) {
            self.vote_file.store(&encode(vote))?;
        }
        self.vote = Some(*vote);
        Ok(())
    }

    /// Cuts everything after `last`. Durable on return.
    pub(super) fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), DiskError> {
        let to = last.map_or(0, |id| id.index + 1).max(self.first_index());
        if to < self.log.end_offset() {
            if to <= self.first_index() && self.marker.has_entries {
                self.store_marker(Marker { has_entries: false, ..self.marker.clone() })?;
            }
            self.log.truncate(to)?;
            self.cache.truncate(to);
        }
        Ok(())
    }

    /// Drops everything up to `upto`. The marker is durable before the entries go.
    pub(super) fn purge(&mut self, upto: LogId) -> Result<(), DiskError> {
        if self.marker.purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        let first = upto.index + 1;
        let begin_anew = first > self.log.end_offset();
        let has_entries = self.marker.has_entries && !begin_anew;
        self.store_marker(Marker { purged: Some(upto), begin_anew, has_entries })?;
        if begin_anew {
            self.log.reset(first)?;
        } else {
            self.log.drop_head(first)?;
        }
        self.cache.purge(first);
        Ok(())
    }

    fn store_marker(&mut self, marker: Marker) -> Result<(), DiskError> {
        self.marker_file.store(&encode(&marker))?;
        self.marker = marker;
        Ok(())
    }

    /// Entries of `start..end`, as many as fit `max_bytes`, at least one if there is one.
    pub(super) fn read(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<Entry>, DiskError> {
        let first = self.first_index().max(self.log.start_offset());
        let (start, end) = (start.max(first), end.min(self.log.end_offset()));
        if start >= end {
            return Ok(Vec::new());
        }
        if let Some(cached) = self.cache.range(start, end, max_bytes) {
            return Ok(cached);
        }
        Ok(self.read_disk(start, end, max_bytes)?.into_iter().map(|(entry, _)| entry).collect())
    }

    /// Every entry of `start..end`.
    pub(super) fn read_all(&self, start: u64, end: u64) -> Result<Vec<Entry>, DiskError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = start;
        loop {
            let more = self.read(next, end, APPEND_BYTES_MAX)?;
            let Some(last) = more.last() else { return Ok(entries) };
            next = last.index() + 1;
            entries.extend(more);
        }
    }

    fn read_disk(&self, start: u64, end: u64, max_bytes: usize) -> Result<Vec<(Entry, usize)>, DiskError> {
        let bytes = self.log.read(start, max_bytes, end, true)?;
        let mut entries = Vec::new();
        for frame in batches(&bytes) {
            let frame = frame.map_err(|e| self.damaged("log", start, e.to_string()))?;
            entries.push((self.entry(&frame, start)?, frame.len()));
        }
        Ok(entries)
    }

    fn entry(&self, frame: &Bytes, near: u64) -> Result<Entry, DiskError> {
        let malformed = |what: String| self.damaged("log", near, what);
        let mut records = records(frame, &frame_limits()).map_err(|e| malformed(e.to_string()))?;
        let header = *records.header();
        let first = records.next().ok_or_else(|| malformed("frame without an entry".to_owned()))?;
        let record = first.map_err(|e| malformed(e.to_string()))?;
        if header.next_offset() != record.offset + 1 {
            // Who goes on after the entry would read the same frame again for ever.
            return Err(malformed(format!("frame of {} entries", header.next_offset() - header.base_offset)));
        }
        let value = record.record.value.ok_or_else(|| malformed("entry without a payload".to_owned()))?;
        let payload: Payload = postcard::from_bytes(&value).map_err(|e| malformed(e.to_string()))?;
        let term = header.leader_epoch.ok_or_else(|| malformed("entry without a term".to_owned()))?;
        if record.record.key.as_deref() != Some(term.to_be_bytes().as_slice()) {
            return Err(malformed(format!("the header says term {term}, the entry was written in another")));
        }
        Ok(Entry { log_id: LogId::new(CommittedLeaderId::new(u64::from(term)), record.offset), payload })
    }

    /// Reads vote and marker back and checks them: for a running controller.
    pub(super) fn scrub_records(&self) -> Result<(), DiskError> {
        let vote: Option<Vote> = load(&self.vote_file, &self.dir.join("vote"))?;
        if vote != self.vote {
            return Err(self.damaged("vote", 0, "is not the vote last saved"));
        }
        let marker: Option<Marker> = load(&self.marker_file, &self.dir.join("marker"))?;
        if marker.unwrap_or_default() != self.marker {
            return Err(self.damaged("marker", 0, "is not the marker last saved"));
        }
        Ok(())
    }

    /// Reads [`SCRUB_STEP_BYTES`] of entries back, from index `from` on. The index to go on with, None at the end.
    pub(super) fn scrub_entries(&self, from: u64) -> Result<Option<u64>, DiskError> {
        let (from, end) = (from.max(self.first_index()), self.log.durable_end());
        if from >= end {
            return Ok(None);
        }
        let entries = self.read_disk(from, end, SCRUB_STEP_BYTES)?;
        Ok(entries.last().map(|(entry, _)| entry.index() + 1))
    }

    /// Makes the end mark durable when nothing was written for a while.
    pub(super) fn idle(&mut self) -> Result<(), DiskError> {
        if self.log.needs_idle_mark() {
            self.log.idle_mark()?;
        }
        Ok(())
    }

    /// Leaves a clean end mark behind.
    pub(super) fn close(self) -> Result<(), DiskError> {
        Ok(self.log.close_clean()?)
    }
}

/// `<directory>.began`, beside the directory.
fn witness_of(dir: &Path) -> PathBuf {
    dir.with_extension("began")
}

fn frame_limits() -> Limits {
    Limits { max_batch_bytes: RAFT_FRAME_MAX, ..Limits::default() }
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("vote and marker hold only types that postcard can write")
}

fn load<T: for<'a> Deserialize<'a>>(file: &StateFile, path: &Path) -> Result<Option<T>, DiskError> {
    let Some(bytes) = file.load()? else { return Ok(None) };
    let damaged = |what: String| DiskError::Damaged { file: path.to_owned(), position: 0, what };
    match postcard::take_from_bytes(&bytes) {
        Ok((value, [])) => Ok(Some(value)),
        Ok((_, rest)) => Err(damaged(format!("{} bytes left over", rest.len()))),
        Err(error) => Err(damaged(error.to_string())),
    }
}
