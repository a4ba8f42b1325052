//! The threads that make dirty logs durable. A shard hands over a job and goes on; the outcome comes back as a message.
//!
//! Owns: the threads. Never: retries, orders jobs of different partitions, or holds one back.
//! Invariant: a partition has at most one job here, so the queue is bounded by the number of partitions; jobs that wait
//! together go to `log::make_durable` together, the place where a journal will make many small ones cheap.

use log::{FlushJob, make_durable};
use parking_lot::Mutex;
use protocol::ids::TopicPartition;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::limits;
use crate::shard::ShardSender;
use crate::shard::message::Control;

struct Job {
    at: TopicPartition,
    job: FlushJob,
    shard: ShardSender,
}

/// Hands jobs to the pool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct FlushPool {
    jobs: Sender<Job>,
}

impl FlushPool {
    /// Starts the threads. They end when every clone is dropped and the queue is empty.
    ///
    /// # Errors
    /// The operating system's, when a thread cannot be started.
    pub fn start() -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let threads = (0..limits::FLUSH_THREADS)
            .map(|n| {
                let queue = queue.clone();
                std::thread::Builder::new().name(format!("flush-{n}")).spawn(move || work(&queue))
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok((Self { jobs }, threads))
    }

    /// Queues a job; its outcome comes to the shard.
    pub fn submit(&self, at: TopicPartition, job: FlushJob, shard: ShardSender) {
        self.jobs.send(Job { at, job, shard }).expect("the pool's threads outlive every sender");
    }
}

/// One thread: takes a job and those of its share that wait behind it.
fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let batch = {
            let queue = queue.lock();
            let Ok(first) = queue.recv() else { return };
            let mut batch = vec![first];
            batch.extend(queue.try_iter().take(limits::FLUSH_JOBS_TOGETHER - 1));
            batch
        };
        let mut owners = Vec::with_capacity(batch.len());
        let mut jobs = Vec::with_capacity(batch.len());
        for Job { at, job, shard } in batch {
            owners.push((at, shard));
            jobs.push(job);
        }
        for ((at, shard), outcome) in owners.into_iter().zip(make_durable(jobs)) {
            shard.control(Control::Flushed { at, outcome });
        }
    }
}
