//! Making bytes durable away from the thread that appends them.
//!
//! Owns: [`FlushJob`], the order of calls that turns appended bytes into durable ones, and [`make_durable`], the
//! one place that decides how a set of dirty ranges is made durable.
//! Never: touches a log's own state (the completion is applied by [`crate::Log::flushed`]), retries a sync, or
//! writes a mark of an older generation.
//! Invariant, the order: data synced; then names; then the directory state says "not empty"; then finished
//! segments are sealed; then the end mark of the last segment is written. So a mark proves everything before it.
//!
//! Today every dirty file costs one fdatasync. A journal for many small ranges takes its place inside
//! [`make_durable`], which is why callers collect jobs and hand them over together.

use std::path::PathBuf;
use std::sync::Arc;

use protocol::planted::{self, Bug};

use crate::engine::{Gate, Shared};
use crate::error::LogError;
use crate::segment::{Mark, Outline, SegmentFile};
use crate::storage::Storage;

/// Everything needed to make a log durable up to a captured offset. `Send`; run it once, anywhere.
#[derive(Debug)]
#[must_use = "bytes become durable only when the job is run and its outcome applied"]
pub struct FlushJob {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) generation: u64,
    /// Finished segments not sealed yet, oldest first.
    pub(crate) frozen: Vec<(Arc<SegmentFile>, Arc<Outline>)>,
    /// The active segment and the mark it deserves once synced.
    pub(crate) active: Option<(Arc<SegmentFile>, Mark)>,
    /// The active segment's index, if it grew enough to be written beside it again.
    pub(crate) snapshot: Option<Outline>,
    pub(crate) sync_parent: bool,
    pub(crate) sync_names: bool,
    pub(crate) names: u64,
    pub(crate) upto: u64,
    /// The planted bug that turns this job into a mere claim.
    pub(crate) without: Option<Bug>,
}

/// Outcome of a [`FlushJob`], to be handed to the log it came from.
#[derive(Debug)]
#[must_use = "the durable end moves only when the outcome is applied"]
pub struct Flushed {
    pub(crate) generation: u64,
    pub(crate) upto: u64,
    /// A truncation came in between; nothing was marked.
    pub(crate) void: bool,
    pub(crate) sealed: Vec<u64>,
    pub(crate) parent_synced: bool,
    pub(crate) names: u64,
    /// Offset of the mark that this sync made durable.
    pub(crate) marked: u64,
    /// Base of the segment whose index was written, and the position it reaches.
    pub(crate) snapshot: Option<(u64, u64)>,
}

impl Flushed {
    /// Offset up to which the job made the log durable, in its generation.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// Generation of the log when the job was made.
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

impl FlushJob {
    /// Offset up to which the log will be durable.
    pub fn upto(&self) -> u64 {
        self.upto
    }

    /// Generation of the log when the job was made.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Names the planted bug that turns this job into a mere claim.
    pub fn unless(mut self, bug: Bug) -> FlushJob {
        self.without = Some(bug);
        self
    }

    /// Does it. `DiskFull`: nothing was marked, a later job may do it when there is room. Any other error poisons the log:
    /// the process must stop, and must not run another job instead.
    pub fn run(self) -> Result<Flushed, LogError> {
        self.shared.check()?;
        let shared = self.shared.clone();
        shared.guard(self.steps())
    }

    fn steps(self) -> Result<Flushed, LogError> {
        if self.without.is_some_and(planted::is) {
            return Ok(self.pretended());
        }
        if planted::is(Bug::EndMarkAheadOfSync) {
            self.mark()?;
        }
        for (file, _) in &self.frozen {
            self.shared.guard(file.sync())?;
        }
        // A mark written before this sync begins is durable after it.
        let marked = self.active.as_ref().map_or(0, |(file, _)| file.mark().next);
        if let Some((file, _)) = &self.active {
            self.shared.guard(file.sync())?;
        }
        let mut outcome = Flushed {
            generation: self.generation,
            upto: self.upto,
            void: true,
            sealed: Vec::new(),
            parent_synced: self.sync_parent,
            names: self.names,
            marked,
            snapshot: self.snapshot.as_ref().map(|o| (o.base, o.end)),
        };
        if !self.names()? || !self.declare_not_empty()? {
            return Ok(outcome);
        }
        for (file, outline) in &self.frozen {
            if !self.shared.seal(self.generation, file, outline)? {
                return Ok(outcome);
            }
            outcome.sealed.push(outline.base);
        }
        outcome.void = !self.mark()?;
        Ok(outcome)
    }

    /// False: the generation is over. Errors: the log was poisoned while this job ran; it may declare nothing any more.
    fn goes_on(&self, gate: &Gate) -> Result<bool, LogError> {
        self.shared.check()?;
        Ok(gate.generation == self.generation)
    }

    /// Syncs the names of new files. False: the generation is over, and after a clean close these names may be somebody
    /// else's.
    fn names(&self) -> Result<bool, LogError> {
        let gate = self.shared.gate();
        if !self.goes_on(&gate)? {
            return Ok(false);
        }
        self.shared.guard(self.sync_directories()).map(|()| true)
    }

    /// The outcome of a job that did nothing and says it did.
    fn pretended(&self) -> Flushed {
        Flushed {
            generation: self.generation,
            upto: self.upto,
            void: false,
            sealed: Vec::new(),
            parent_synced: false,
            names: 0,
            marked: 0,
            snapshot: None,
        }
    }

    fn sync_directories(&self) -> Result<(), LogError> {
        if planted::is(Bug::MissingDirectoryFsync) {
            return Ok(());
        }
        if self.sync_names {
            self.storage.sync_dir(&self.dir).map_err(LogError::io("sync of directory", &self.dir))?;
        }
        match self.dir.parent() {
            Some(parent) if self.sync_parent => {
                self.storage.sync_dir(parent).map_err(LogError::io("sync of directory", parent))
            }
            _ => Ok(()),
        }
    }

    /// From now on missing segments are damage. False: the generation is over.
    fn declare_not_empty(&self) -> Result<bool, LogError> {
        let mut gate = self.shared.gate();
        if !self.goes_on(&gate)? {
            return Ok(false);
        }
        if gate.state.empty && self.active.is_some() {
            gate.state.empty = false;
            if let Err(error) = self.shared.guard(self.shared.store(&gate)) {
                gate.state.empty = true;
                return Err(error);
            }
        }
        Ok(true)
    }

    /// Writes the end mark of the active segment. False: the generation is over.
    fn mark(&self) -> Result<bool, LogError> {
        let gate = self.shared.gate();
        if !self.goes_on(&gate)? {
            return Ok(false);
        }
        if let Some((file, mark)) = &self.active {
            let mut slots = file.slots();
            if mark.next > slots.mark.next {
                self.shared.guard(file.write_mark(&mut slots, *mark))?;
            }
            if let Some(outline) = &self.snapshot {
                self.shared.write_index(outline)?;
            }
        }
        Ok(true)
    }
}

/// Makes a set of partition logs durable the cheapest way, and answers for each in order.
pub fn make_durable(jobs: Vec<FlushJob>) -> Vec<Result<Flushed, LogError>> {
    jobs.into_iter().map(|job| job.unless(Bug::PartitionSync).run()).collect()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use protocol::batch::{BatchBuilder, Compression, stamp};

    use super::*;
    use crate::storage::memory::{Call, Fault, MemStorage, Op};
    use crate::{Log, LogConfig};

    fn append(log: &mut Log) {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(0, None, Some(&[7; 100]), &[]).expect("small record");
        let mut bytes = builder.build().expect("small batch");
        stamp(&mut bytes, log.end_offset(), 1);
        log.append(log.end_offset(), &bytes).expect("append");
    }

    /// Two threads sync one file at once and the kernel reports the lost bytes to one of them: here the second sync comes
    /// when the first has failed and its job has said so to nobody yet.
    #[test]
    fn a_job_beside_one_whose_sync_failed_marks_nothing() {
        let disk = MemStorage::new();
        disk.create_dir(Path::new("/log")).expect("directory");
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let (mut log, _) = Log::open(storage, Path::new("/log"), LogConfig::default()).expect("open");
        append(&mut log);
        log.sync().expect("sync");
        append(&mut log);
        let (failing, beside) = (log.flush_job().expect("dirty"), log.flush_job().expect("dirty"));
        let (file, before) = beside.active.as_ref().map(|(file, _)| (file.clone(), file.mark())).expect("a segment");
        disk.set_hook(Some(Box::new(|call: &Call<'_>| {
            (call.op == Op::Sync).then(|| Fault::Fail(io::Error::other("the disk is dying")))
        })));
        failing.steps().expect_err("the sync fails");
        disk.set_hook(None);
        beside.steps().expect_err("the bytes are gone");
        assert_eq!(file.mark(), before);
        file.sync().expect_err("and stay gone");
    }
}
