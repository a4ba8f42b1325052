//! Power cuts and failing calls at every storage call of a scripted run.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use log::storage::memory::{Call, Fault, MemStorage, Op};
use log::{Log, LogConfig, LogError};
use protocol::batch::Header;

use crate::common::*;

/// What the script has been promised so far.
#[derive(Debug, Clone, Default)]
struct Promises {
    /// Batches acknowledged as durable, with the log start and end of that time.
    durable: Vec<Bytes>,
    start: u64,
    /// Everything ever appended that was not cut on purpose before `end` was durable.
    appended: Vec<Bytes>,
    /// A cut under way: the log may show its state before or after.
    unsettled: Option<(u64, u64)>,
}

impl Promises {
    fn durable_end(&self) -> u64 {
        self.durable.last().map_or(self.start, next)
    }
}

fn next(bytes: &Bytes) -> u64 {
    Header::parse(bytes).expect("a batch of ours").next_offset()
}

/// A run that meets every durable step: first append, flushes in and out of order, rolls, idle marks, truncations in
/// the active and in earlier segments, head drops, a reset, a clean stop and a second life.
struct Script {
    disk: MemStorage,
    config: LogConfig,
    promises: Promises,
    salt: u64,
}

impl Script {
    fn append(&mut self, log: &mut Log, epoch: u32, count: usize) -> Result<(), LogError> {
        for _ in 0..count {
            self.salt += 1;
            let bytes =
                batch(log.end_offset(), epoch, 1 + self.salt as usize % 3, 100 + self.salt as usize % 90, self.salt);
            let base = log.end_offset();
            self.promises.appended.push(Bytes::from(bytes.clone()));
            log.append(base, &bytes)?;
        }
        Ok(())
    }

    fn settle(&mut self, log: &Log) {
        let durable = log.durable_end();
        self.promises.start = log.start_offset();
        self.promises.durable = self.promises.appended.iter().filter(|b| next(b) <= durable).cloned().collect();
        self.promises.unsettled = None;
    }

    fn flush(&mut self, log: &mut Log) -> Result<(), LogError> {
        if let Some(job) = log.flush_job() {
            let flushed = job.run()?;
            log.flushed(flushed)?;
        }
        self.settle(log);
        Ok(())
    }

    fn truncate(&mut self, log: &mut Log, to: u64) -> Result<(), LogError> {
        self.promises.unsettled = Some((log.start_offset(), to));
        let end = log.truncate(to)?;
        self.promises.appended.retain(|b| next(b) <= end);
        self.settle(log);
        Ok(())
    }

    fn drop_head(&mut self, log: &mut Log, upto: u64) -> Result<(), LogError> {
        self.promises.unsettled = Some((upto, log.durable_end()));
        log.drop_head(upto)?;
        self.settle(log);
        Ok(())
    }

    fn run(&mut self) -> Result<(), LogError> {
        let (mut log, _) = try_open(&self.disk, self.config.clone())?;
        self.append(&mut log, 1, 2)?;
        self.flush(&mut log)?;
        self.append(&mut log, 1, 25)?;
        self.flush(&mut log)?;
        log.idle_mark()?;
        self.append(&mut log, 2, 3)?;
        let early = log.flush_job().expect("dirty");
        self.append(&mut log, 2, 3)?;
        self.flush(&mut log)?;
        let early = early.run()?;
        log.flushed(early)?;
        self.append(&mut log, 3, 2)?;
        let to = log.end_offset() - 4;
        self.truncate(&mut log, to)?;
        self.append(&mut log, 4, 20)?;
        self.flush(&mut log)?;
        self.drop_head(&mut log, 11)?;
        let to = log.segments()[1].base + 3;
        self.truncate(&mut log, to)?;
        self.append(&mut log, 5, 25)?;
        self.flush(&mut log)?;
        let upto = log.segments()[1].next;
        self.drop_head(&mut log, upto)?;
        self.append(&mut log, 5, 3)?;
        self.flush(&mut log)?;
        log.close_clean()?;
        let (mut log, recovery) = try_open(&self.disk, self.config.clone())?;
        assert!(recovery.clean);
        self.append(&mut log, 6, 4)?;
        self.flush(&mut log)?;
        self.promises.unsettled = Some((500, 0));
        log.reset(500)?;
        self.promises.appended.clear();
        self.settle(&log);
        self.append(&mut log, 1, 4)?;
        self.flush(&mut log)
    }
}

fn script(disk: &MemStorage, config: &LogConfig) -> Script {
    Script { disk: disk.clone(), config: config.clone(), promises: Promises::default(), salt: 0 }
}

/// The log holds what was promised, and nothing that was never appended.
fn check(log: &Log, promises: &Promises, context: &str) {
    assert_eq!(log.durable_end(), log.end_offset(), "{context}");
    let found = read_all(log);
    let known = |b: &Bytes| promises.appended.contains(b) || promises.durable.contains(b);
    assert!(found.iter().all(known), "{context}: a batch that was never appended");
    match promises.unsettled {
        None => {
            assert_eq!(log.start_offset(), promises.start, "{context}");
            assert!(log.end_offset() >= promises.durable_end(), "{context}: durable records are gone");
            let visible = promises.durable.iter().filter(|b| next(b) > promises.start);
            assert!(visible.zip(&found).all(|(a, b)| a == b), "{context}: other records");
        }
        Some((start, end)) => {
            let (low, high) = (promises.start.min(start), promises.start.max(start));
            assert!((low..=high).contains(&log.start_offset()), "{context}: start {}", log.start_offset());
            let least = promises.durable_end().min(end.max(log.start_offset()).saturating_sub(3));
            assert!(log.end_offset() >= least, "{context}: end {} below {least}", log.end_offset());
        }
    }
}

fn power_fails_at(number: u64) -> log::storage::memory::Hook {
    Box::new(move |call: &Call<'_>| (call.number >= number).then(|| Fault::Fail(io::Error::other("power is gone"))))
}

fn crash(disk: &MemStorage, seed: u64) {
    let mut dice = Dice(seed);
    match seed % 4 {
        0 => disk.crash(&mut || false),
        1 => disk.crash(&mut || true),
        2 => disk.crash(&mut || dice.below(2) == 0),
        _ => disk.crash(&mut || dice.below(8) > 0),
    }
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_durable() {
    let mut states = 0;
    for config in [tiny(), LogConfig { preallocate: false, ..tiny() }] {
        let base = disk();
        let begin = base.calls();
        let whole = base.fork();
        script(&whole, &config).run().expect("the script runs");
        let calls = whole.calls() - begin;
        assert!(calls > 300, "the script makes {calls} calls");
        for stop in 0..=calls {
            for seed in 0..6 {
                let disk = base.fork();
                disk.set_hook(Some(power_fails_at(begin + stop)));
                let mut script = script(&disk, &config);
                let done = script.run();
                assert_eq!(done.is_ok(), stop == calls, "call {stop}: {done:?}");
                crash(&disk, seed + stop * 4);
                states += 1;
                let context = format!("cut at call {stop}, seed {seed}");
                if seed == 5 {
                    crash_in_recovery(&disk, &config, stop);
                }
                let (mut log, _) = try_open(&disk, config.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
                check(&log, &script.promises, &context);
                // And it goes on.
                let (end, epoch) = (log.end_offset(), log.last_epoch().unwrap_or(0));
                log.append(end, &batch(end, epoch, 1, 10, 1)).expect("append");
                log.sync().expect("sync");
                let all = read_all(&log);
                disk.crash(&mut || false);
                assert_eq!(read_all(&open(&disk, config.clone()).0), all, "{context}");
            }
        }
    }
    assert!(states > 3000, "{states} crash states");
}

/// Power fails again while the log is recovered, a few times.
fn crash_in_recovery(disk: &MemStorage, config: &LogConfig, seed: u64) {
    for again in 0..3 {
        let calls = disk.calls();
        disk.set_hook(Some(power_fails_at(calls + 3 + (seed * 7 + again * 5) % 40)));
        drop(try_open(disk, config.clone()));
        crash(disk, seed + again);
    }
}

#[test]
fn any_failing_call_that_changes_the_disk_poisons_the_log() {
    let base = disk();
    let begin = base.calls();
    let whole = base.fork();
    let config = tiny();
    script(&whole, &config).run().expect("the script runs");
    let mut sites = std::collections::BTreeMap::new();
    for at in begin..whole.calls() {
        for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            for short in [0, 100] {
                let disk = base.fork();
                let seen = Arc::new(AtomicU64::new(u64::MAX));
                let note = seen.clone();
                disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
                    if call.number != at {
                        return None;
                    }
                    note.store(call.op as u64, Ordering::Relaxed);
                    let error = io::Error::new(kind, "injected");
                    Some(if short > 0 { Fault::Short(short, error) } else { Fault::Fail(error) })
                })));
                let mut script = script(&disk, &config);
                let result = script.run();
                let op = seen.load(Ordering::Relaxed);
                let context = format!("call {at}, {kind:?}, short {short}, op {op}: {result:?}");
                *sites.entry(op).or_insert(0) += 1;
                // Index files are rebuilt, so failing to read one, or having no room for one, is no error; everything else
                // is answered.
                let any = |ops: &[Op]| ops.iter().any(|o| *o as u64 == op);
                let full = any(&[Op::Preallocate]) && kind == io::ErrorKind::StorageFull;
                let no_room = any(&[Op::Create, Op::Write]) && kind == io::ErrorKind::StorageFull;
                match &result {
                    Ok(()) => assert!(no_room || any(&[Op::Open, Op::Read, Op::Len]), "{context}"),
                    Err(LogError::DiskFull { .. }) => {
                        let dir = any(&[Op::CreateDir]) && kind == io::ErrorKind::StorageFull;
                        assert!(full || no_room || dir, "{context}");
                    }
                    Err(LogError::Io { .. }) => assert!(!full, "{context}"),
                    Err(LogError::Read { .. } | LogError::Damaged(_)) => {
                        let read = [Op::Open, Op::Read, Op::Len, Op::List].map(|o| o as u64);
                        assert!(read.contains(&op), "{context}");
                    }
                    Err(other) => panic!("{context}: {other}"),
                }
                // The process stops, as it must; power may fail on top.
                crash(&disk, at);
                let (log, _) = try_open(&disk, config.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
                check(&log, &script.promises, &context);
            }
        }
    }
    for op in [Op::Create, Op::Write, Op::Sync, Op::SyncDir, Op::SetLen, Op::Rename, Op::Remove, Op::Preallocate] {
        assert!(sites.contains_key(&(op as u64)), "no call of {op:?} was failed");
    }
}

#[test]
fn a_poisoned_log_answers_nothing_more() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    log.append(0, &batch(0, 1, 1, 10, 1)).expect("append");
    let early = log.flush_job().expect("dirty");
    disk.set_hook(Some(Box::new(|call: &Call<'_>| {
        (call.op == Op::Sync).then(|| Fault::Fail(io::Error::other("the disk is dying")))
    })));
    let job = log.flush_job().expect("dirty");
    assert!(matches!(job.run(), Err(LogError::Io { op: "sync", .. })));
    disk.set_hook(None);
    let poisoned = |result: Result<(), LogError>| match result {
        Err(LogError::Poisoned { cause, .. }) => assert!(cause.contains("the disk is dying"), "{cause}"),
        other => panic!("{other:?}"),
    };
    assert!(log.is_poisoned());
    poisoned(early.run().map(drop));
    poisoned(log.append(1, &batch(1, 1, 1, 10, 1)));
    poisoned(log.sync());
    poisoned(log.idle_mark());
    poisoned(log.read(0, 100, u64::MAX, true).map(drop));
    poisoned(log.truncate(0).map(drop));
    poisoned(log.drop_head(1).map(drop));
    poisoned(log.reset(5));
    poisoned(log.offset_for_time(0).map(drop));
    poisoned(log.roll_if_needed(i64::MAX).map(drop));
    assert_eq!(log.durable_end(), 0);
    poisoned(log.close_clean());
    disk.crash(&mut || true);
    assert_eq!(open(&disk, tiny()).0.end_offset(), 0, "what the failed sync forgot is gone, and was never promised");
}
