//! The threads that make dirty logs durable. A shard hands over a job and goes on; the outcome comes back as a message.
//!
//! Owns: the threads and their queue. Never: retries, orders jobs of different partitions, or holds one back.
//! Invariant: a partition has at most one job here, so the queue is bounded by the number of partitions. A thread takes its
//! share of what waits and hands it to `log::make_durable` as one set, the place where a journal will make many small
//! ones cheap; with few waiting every thread syncs one, because disks sync in parallel.

use log::{FlushJob, make_durable};
use parking_lot::{Condvar, Mutex};
use protocol::machine::{self, Worker};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::limits;
use crate::partition::outside::Life;
use crate::shard::ShardSender;
use crate::shard::message::Control;

struct Job {
    life: Life,
    job: FlushJob,
    shard: ShardSender,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// The last clone of a pool that goes ends its threads.
struct Closer(Arc<Queue>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.news.notify_all();
    }
}

/// Hands jobs to the pool. Cheap to clone.
#[derive(Clone)]
pub struct FlushPool {
    queue: Arc<Closer>,
}

impl fmt::Debug for FlushPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlushPool").field("waiting", &self.queue.0.state.lock().jobs.len()).finish()
    }
}

impl FlushPool {
    /// Starts the threads. They end when every clone is dropped and the queue is empty.
    ///
    /// # Errors
    /// The operating system's, when a thread cannot be started.
    pub fn start() -> std::io::Result<(Self, Vec<Worker>)> {
        let queue: Arc<Queue> = Arc::default();
        let pool = Self { queue: Arc::new(Closer(queue.clone())) };
        if machine::simulated().is_some() {
            return Ok((pool, Vec::new()));
        }
        let thread = |n: usize| {
            let queue = queue.clone();
            std::thread::Builder::new().name(format!("flush-{n}")).spawn(move || work(&queue)).map(Worker::thread)
        };
        let threads = (0..limits::FLUSH_THREADS).map(thread).collect::<Result<Vec<_>, _>>()?;
        Ok((pool, threads))
    }

    /// Queues a job; its outcome comes to the shard.
    pub fn submit(&self, life: Life, job: FlushJob, shard: ShardSender) {
        let job = Job { life, job, shard };
        if machine::simulated().is_some() {
            tokio::spawn(sync_later(job));
            return;
        }
        self.queue.0.state.lock().jobs.push_back(job);
        self.queue.0.news.notify_one();
    }
}

/// How many of the waiting jobs one thread takes.
fn share(waiting: usize) -> usize {
    waiting.div_ceil(limits::FLUSH_THREADS).clamp(1, limits::FLUSH_JOBS_TOGETHER)
}

fn take(queue: &Queue) -> Option<Vec<Job>> {
    let mut state = queue.state.lock();
    while state.jobs.is_empty() {
        if state.closed {
            return None;
        }
        queue.news.wait(&mut state);
    }
    let count = share(state.jobs.len());
    Some(state.jobs.drain(..count).collect())
}

fn work(queue: &Queue) {
    // Without this thread some partitions would never be answered again.
    let _guard = crate::fatal::AbortOnPanic;
    while let Some(batch) = take(queue) {
        sync(batch);
    }
}

/// On a simulated machine, which has no threads.
async fn sync_later(job: Job) {
    machine::pause().await;
    sync(vec![job]);
}

fn sync(batch: Vec<Job>) {
    let mut owners = Vec::with_capacity(batch.len());
    let mut jobs = Vec::with_capacity(batch.len());
    for Job { life, job, shard } in batch {
        owners.push((life, shard));
        jobs.push(job);
    }
    for ((life, shard), outcome) in owners.into_iter().zip(make_durable(jobs)) {
        shard.control(Control::Flushed { life, outcome });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_jobs_are_spread_and_many_are_taken_in_sets() {
        assert_eq!([1, 2, 4].map(share), [1, 1, 1], "every thread syncs one");
        assert_eq!((share(20), share(500)), (5, limits::FLUSH_JOBS_TOGETHER));
    }

    #[tokio::test]
    async fn the_threads_end_with_the_last_clone() {
        let (pool, threads) = FlushPool::start().expect("threads start");
        let clone = pool.clone();
        drop(pool);
        drop(clone);
        for thread in threads {
            assert!(thread.join().await, "a thread ends by itself");
        }
    }
}
