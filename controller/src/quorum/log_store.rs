//! openraft's log storage over [`Disk`]. One thread makes everything durable, in one FIFO for appends, votes, truncations
//! and purges: openraft reads a later completion as an acknowledgement of everything before it. Appends that arrive
//! during a sync share the next one. A failed sync halts; it is never retried.

use super::disk::{Disk, DiskError};
use super::halt::Halt;
use super::types::TypeConfig;
use super::types::alias::{Entry, IOFlushed, LogId, Vote};
use crate::limits::{APPEND_BYTES_MAX, FLUSH_QUEUE_MAX, IDLE_MARK_AFTER};
use openraft::OptionalSend;
use openraft::storage::{LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use protocol::machine::{self, Worker};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

type Done = oneshot::Sender<io::Result<()>>;

enum Job {
    /// Entries were appended; tell this when they are durable.
    Appended(IOFlushed),
    Vote(Vote, Done),
    Truncate(Option<LogId>, Done),
    Purge(LogId, Done),
    Close(Done),
}

/// Handle on the log; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    disk: Arc<Mutex<Option<Disk>>>,
    jobs: mpsc::Sender<Job>,
    halt: Halt,
    committed: Option<LogId>,
}

impl LogStore {
    /// Takes an opened disk and starts the flush thread, which ends after `close` or with the last handle.
    pub(crate) fn start(disk: Disk, halt: Halt) -> io::Result<(Self, Worker)> {
        let disk = Arc::new(Mutex::new(Some(disk)));
        let (jobs, queue) = mpsc::channel(FLUSH_QUEUE_MAX);
        let flusher = Flusher { disk: Arc::clone(&disk), halt: halt.clone() };
        let thread = Worker::start("raft-flush", move || Ok::<_, io::Error>(flusher.run(queue)))?;
        Ok((Self { disk, jobs, halt, committed: None }, thread))
    }

    /// Reads everything back from disk and checks it; damage halts. The disk is free for others after every
    /// [`crate::limits::SCRUB_STEP_BYTES`], and the flush thread has no part in it. Not for async threads.
    pub(crate) fn scrub(&self) -> io::Result<()> {
        self.with(|disk| disk.scrub_records())?;
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.with(|disk| disk.scrub_entries(from))?;
        }
        Ok(())
    }

    /// Flushes, leaves a clean end mark and ends the flush thread.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.ask(Job::Close).await
    }

    async fn ask(&self, job: impl FnOnce(Done) -> Job) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(job(done)).await?;
        answer.await.map_err(|_| io::Error::other("the flush thread ended"))?
    }

    async fn send(&self, job: Job) -> io::Result<()> {
        self.jobs.send(job).await.map_err(|_| io::Error::other("the flush thread ended"))
    }

    /// Uses the disk; what goes wrong with it halts.
    fn with<T>(&self, work: impl FnOnce(&mut Disk) -> Result<T, DiskError>) -> io::Result<T> {
        let mut held = self.disk.lock();
        let disk = held.as_mut().ok_or_else(closed)?;
        work(disk).map_err(|e| self.halt.now(&e))
    }
}

fn closed() -> io::Error {
    io::Error::other("the raft log is closed")
}

/// Does the jobs, in order.
pub(super) struct Flusher {
    pub(super) disk: Arc<Mutex<Option<Disk>>>,
    pub(super) halt: Halt,
}

impl Flusher {
    async fn run(self, mut queue: mpsc::Receiver<Job>) {
        loop {
            let goes_on = match timeout(IDLE_MARK_AFTER, queue.recv()).await {
                Ok(Some(job)) => {
                    machine::pause().await;
                    self.turn(job, &mut queue)
                }
                Ok(None) => false,
                Err(_) => self.with(Disk::idle).is_ok(),
            };
            if !goes_on {
                return;
            }
        }
    }

    /// One sync for every append that waits, then the job behind them. False: the thread ends.
    fn turn(&self, job: Job, queue: &mut mpsc::Receiver<Job>) -> bool {
        let mut appended = Vec::new();
        let mut next = Some(job);
        while let Some(Job::Appended(callback)) = next {
            appended.push(callback);
            next = queue.try_recv().ok();
        }
        self.flush(appended).is_ok() && next.is_none_or(|job| self.perform(job))
    }

    /// Makes what was appended durable and says so, in order.
    fn flush(&self, appended: Vec<IOFlushed>) -> io::Result<()> {
        if !appended.is_empty() {
            metrics::histogram!(crate::metrics::APPENDS_PER_SYNC).record(appended.len() as f64);
        }
        let outcome = self.sync();
        for callback in appended {
            let told = outcome.as_ref().map(drop).map_err(|e| io::Error::other(e.to_string()));
            callback.io_completed(told);
        }
        outcome
    }

    /// The disk is free for appends and reads while the files are synced.
    pub(super) fn sync(&self) -> io::Result<()> {
        let Some(job) = self.with(|disk| Ok(disk.flush_job()))? else { return Ok(()) };
        let begun = std::time::Instant::now();
        let done = job.unless(protocol::planted::Bug::RaftAppendSync).run().map_err(|e| self.halt.now(&e))?;
        metrics::histogram!(crate::metrics::SYNC_SECONDS).record(begun.elapsed().as_secs_f64());
        self.with(|disk| disk.flushed(done))
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Disk) -> Result<T, DiskError>) -> io::Result<T> {
        let mut held = self.disk.lock();
        let disk = held.as_mut().ok_or_else(closed)?;
        work(disk).map_err(|e| self.halt.now(&e))
    }

    /// False: the thread ends.
    fn perform(&self, job: Job) -> bool {
        let (result, done) = match job {
            Job::Appended(callback) => return self.flush(vec![callback]).is_ok(),
            Job::Vote(vote, done) => (self.with(|disk| disk.save_vote(&vote)), done),
            Job::Truncate(last, done) => (self.with(|disk| disk.truncate_after(last)), done),
            Job::Purge(upto, done) => (self.with(|disk| disk.purge(upto)), done),
            Job::Close(done) => {
                let disk = self.disk.lock().take();
                let closing = disk.map_or(Ok(()), Disk::close).map_err(|e| self.halt.now(&e));
                let _nobody_waits = done.send(closing);
                return false;
            }
        };
        let goes_on = result.is_ok();
        if done.send(result).is_err() {
            tracing::debug!("nobody waits for a finished raft storage job");
        }
        goes_on
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.with(|disk| disk.read_all(start, end))
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        self.with(|disk| Ok(disk.vote()))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.with(|disk| disk.read(start, end, APPEND_BYTES_MAX))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        self.with(|disk| Ok(LogState { last_purged_log_id: disk.purged(), last_log_id: disk.last_log_id()? }))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let vote = *vote;
        self.ask(|done| Job::Vote(vote, done)).await
    }

    /// In memory only: it is a hint that commits at start what a quorum commits anyway, and runs inside Raft's core.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.with(|disk| entries.into_iter().try_for_each(|entry| disk.append(&entry)))?;
        self.send(Job::Appended(callback)).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.ask(|done| Job::Truncate(last, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.ask(|done| Job::Purge(upto, done)).await
    }
}
