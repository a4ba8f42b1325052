//! Flush jobs on another thread while the log appends, truncates, drops and resets.

use std::sync::mpsc;

use log::storage::memory::{Call, Op};
use log::{FlushJob, Flushed, LogError, Verify};

use crate::common::*;

/// Whatever the threads do to each other, what was reported durable survives a power cut and nothing looks damaged.
#[test]
fn flushes_race_with_cuts_and_lose_nothing() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let disk = disk();
        // A pause at every step of a job widens the gaps between them.
        disk.set_hook(Some(Box::new(|call: &Call<'_>| {
            if matches!(call.op, Op::Sync | Op::SyncDir | Op::Write | Op::Rename) {
                std::thread::yield_now();
            }
            None
        })));
        let (mut log, _) = open(&disk, tiny());
        std::thread::scope(|scope| {
            let (jobs, inbox) = mpsc::channel::<FlushJob>();
            let (outbox, done) = mpsc::channel::<Result<Flushed, LogError>>();
            scope.spawn(move || inbox.iter().try_for_each(|job| outbox.send(job.run())));
            let mut epoch = 0;
            for step in 0..120 {
                match dice.below(12) {
                    0 => {
                        let to = log.start_offset() + dice.below(log.end_offset() - log.start_offset() + 1);
                        log.truncate(to).expect("truncate");
                        epoch += 1;
                    }
                    1 => {
                        let upto = log.start_offset() + dice.below(log.durable_end() - log.start_offset() + 1);
                        log.drop_head(upto).expect("drop");
                    }
                    2 if dice.below(4) == 0 => {
                        log.reset(log.end_offset() + dice.below(9)).expect("reset");
                    }
                    3..6 => {
                        if let Some(job) = log.flush_job() {
                            jobs.send(job).expect("the worker lives");
                        }
                    }
                    _ => {
                        let end = log.end_offset();
                        log.append(end, &batch(end, epoch, 2, 150, step)).expect("append");
                    }
                }
                for flushed in done.try_iter() {
                    log.flushed(flushed.expect("flush")).expect("apply");
                }
            }
            drop(jobs);
            for flushed in done.iter() {
                log.flushed(flushed.expect("flush")).expect("apply");
            }
        });
        let (start, durable) = (log.start_offset(), log.durable_end());
        let promised: Vec<_> = read_all(&log);
        disk.crash(&mut || dice.below(3) == 0);
        let config = log::LogConfig { verify: Verify::Everything, ..tiny() };
        let (log, _) = try_open(&disk, config).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        assert_eq!(log.start_offset(), start, "seed {seed}");
        assert!(log.end_offset() >= durable, "seed {seed}: durable records are gone");
        let found = read_all(&log);
        assert_eq!(found, promised[..found.len()], "seed {seed}: other records");
    }
}
