//! Stories of one log on a simulated disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use log::inspect::inspect;
use log::storage::Storage;
use log::storage::memory::{Call, Fault, Op};
use log::{EpochStart, LogConfig, LogError};

use crate::common::*;

#[test]
fn nothing_is_created_before_the_first_append() {
    let disk = disk();
    let (log, recovery) = open(&disk, tiny());
    assert!(recovery.clean);
    assert_eq!((log.start_offset(), log.end_offset(), log.durable_end(), log.last_epoch()), (0, 0, 0, None));
    assert!(!disk.exists(&log_dir()).expect("exists"));
    log.close_clean().expect("nothing to close");
    assert!(!disk.exists(&log_dir()).expect("exists"));
}

#[test]
fn appended_is_readable_at_once_and_durable_after_a_flush() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    let first = batch(0, 1, 3, 50, 1);
    log.append(0, &first).expect("append");
    assert_eq!((log.end_offset(), log.durable_end()), (3, 0));
    assert_eq!(log.read(1, 4096, u64::MAX, false).expect("read"), first);
    let job = log.flush_job().expect("dirty");
    assert_eq!(job.upto(), 3);
    let flushed = job.run().expect("flush");
    log.append(3, &batch(3, 1, 2, 50, 2)).expect("append during a flush");
    assert_eq!(log.flushed(flushed).expect("apply"), Some(3));
    assert_eq!((log.end_offset(), log.durable_end()), (5, 3));
    disk.crash(&mut || false);
    let (log, recovery) = open(&disk, tiny());
    assert_eq!((log.end_offset(), log.durable_end()), (3, 3));
    assert_eq!(recovery.cut, None, "reserved zeros are no cut");
    assert_eq!(read_all(&log), [first]);
}

#[test]
fn an_append_must_continue_the_log() {
    let disk = disk();
    let (mut log, _) = open(&disk, LogConfig { max_batch_bytes: 2000, ..tiny() });
    log.append(0, &batch(0, 5, 3, 50, 1)).expect("append");
    assert!(matches!(log.append(2, &batch(2, 5, 1, 1, 1)), Err(LogError::NotNext { offset: 2, end: 3 })));
    assert!(matches!(log.append(3, &batch(4, 5, 1, 1, 1)), Err(LogError::NotNext { offset: 4, end: 3 })));
    assert!(matches!(log.append(3, &batch(3, 4, 1, 1, 1)), Err(LogError::EpochFell { epoch: 4, last: 5 })));
    let mut unstamped = batch(3, 5, 1, 1, 1);
    unstamped[12..16].copy_from_slice(&(-1i32).to_be_bytes());
    assert!(matches!(log.append(3, &unstamped), Err(LogError::NotStamped)));
    let cut = batch(3, 5, 1, 1, 1);
    assert!(matches!(log.append(3, &cut[..cut.len() - 1]), Err(LogError::Batch(_))));
    assert!(matches!(log.append(3, &batch(3, 5, 1, 3000, 1)), Err(LogError::Batch(_))));
    log.append(3, &batch(3, 6, 1, 1, 1)).expect("a refused append changes nothing");
    assert_eq!(log.epochs().entries(), [EpochStart { epoch: 5, start: 0 }, EpochStart { epoch: 6, start: 3 }]);
}

#[test]
fn reads_respect_their_bounds() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    let batches: Vec<Vec<u8>> = (0..40).map(|i| batch(i * 2, 1, 2, 60, i)).collect();
    for (i, b) in batches.iter().enumerate() {
        log.append(i as u64 * 2, b).expect("append");
    }
    assert!(log.segments().len() > 2, "the log rolled");
    log.sync().expect("sync");
    let one = batches[0].len();
    assert_eq!(log.read(1, one - 1, u64::MAX, false).expect("too small").len(), 0);
    assert_eq!(log.read(1, one - 1, u64::MAX, true).expect("one anyway"), batches[0]);
    assert_eq!(log.read(0, 2 * one, 4, false).expect("two"), [&*batches[0], &*batches[1]].concat());
    assert_eq!(log.read(0, usize::MAX / 2, 3, true).expect("bounded"), batches[0], "nothing reaches the bound");
    assert_eq!(log.read(0, 1 << 20, 0, true).expect("nothing").len(), 0);
    assert_eq!(log.read(80, 1 << 20, u64::MAX, true).expect("at the end").len(), 0);
    assert!(matches!(log.read(81, 1, u64::MAX, true), Err(LogError::AboveEnd { offset: 81, end: 80 })));
    assert_eq!(read_all(&log).concat(), batches.concat());
    for at in 0..80 {
        let bytes = log.read(at, 1, u64::MAX, true).expect("any offset");
        assert_eq!(bytes, batches[at as usize / 2], "offset {at}");
    }
}

#[test]
fn offsets_are_found_by_time() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    for i in 0..60 {
        log.append(i * 3, &batch(i * 3, 1, 3, 60, i)).expect("append");
    }
    log.sync().expect("sync");
    log.drop_head(10).expect("drop");
    for (timestamp, expected) in [
        (0, Some((10, 1_000_100))),
        (1_000_101, Some((11, 1_000_110))),
        (1_000_500, Some((50, 1_000_500))),
        (1_001_790, Some((179, 1_001_790))),
        (1_001_791, None),
    ] {
        assert_eq!(log.offset_for_time(timestamp).expect("search"), expected, "time {timestamp}");
    }
}

#[test]
fn a_flush_that_runs_after_a_clean_close_touches_no_name_of_the_directory() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    log.append(0, &batch(0, 1, 2, 50, 1)).expect("append");
    let late = log.flush_job().expect("dirty");
    log.close_clean().expect("closes");
    disk.rename(&log_dir(), Path::new("/data/aside")).expect("the directory is moved away");
    let outcome = late.run().expect("a log that was closed has nothing left to sync");
    assert_eq!(outcome.upto(), 2);
    assert!(!disk.exists(&log_dir()).expect("exists"), "and puts nothing where another may be begun");
}

#[test]
fn a_flush_older_than_a_truncation_is_void() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    log.append(0, &batch(0, 1, 2, 50, 1)).expect("append");
    log.append(2, &batch(2, 1, 2, 50, 2)).expect("append");
    let before = log.flush_job().expect("dirty");
    let ran = log.flush_job().expect("dirty").run().expect("flush that ends before the truncation");
    assert_eq!(log.truncate(2).expect("truncate"), 2);
    let late = before.run().expect("flush that ends after the truncation");
    log.append(2, &batch(2, 2, 2, 50, 3)).expect("append");
    assert_eq!(log.flushed(ran).expect("apply"), None);
    assert_eq!(log.flushed(late).expect("apply"), None);
    assert_eq!(log.durable_end(), 2, "bytes written after the cut do not count as synced");
    disk.crash(&mut || false);
    let (log, _) = open(&disk, tiny());
    assert_eq!(log.end_offset(), 2);
}

#[test]
fn a_truncation_cuts_straddling_batches_whole_and_forgets_epochs() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    for i in 0..40 {
        log.append(i * 4, &batch(i * 4, 1 + i as u32 / 10, 4, 40, i)).expect("append");
    }
    assert!(log.segments().len() > 3);
    assert_eq!(log.truncate(150).expect("in the last segment"), 148);
    assert_eq!(log.truncate(41).expect("far below"), 40);
    assert_eq!((log.end_offset(), log.durable_end(), log.last_epoch()), (40, 40, Some(1)));
    assert!(matches!(log.truncate(41), Err(LogError::AboveEnd { .. })));
    log.append(40, &batch(40, 9, 1, 40, 7)).expect("append");
    log.sync().expect("sync");
    disk.crash(&mut || false);
    let (log, _) = open(&disk, tiny());
    assert_eq!((log.end_offset(), log.last_epoch()), (41, Some(9)));
    assert_eq!(read_all(&log).len(), 11);
}

#[test]
fn the_head_goes_and_its_epochs_are_remembered() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    for i in 0..40 {
        log.append(i * 4, &batch(i * 4, 1 + i as u32 / 20, 4, 40, i)).expect("append");
    }
    let dropped = log.drop_head(70).expect("drop");
    assert!(dropped.segments > 0);
    assert!(matches!(log.read(69, 1, u64::MAX, true), Err(LogError::BelowStart { offset: 69, start: 70 })));
    log.sync().expect("sync");
    let epochs = log.epochs().clone();
    assert_eq!(epochs.entries()[0], EpochStart { epoch: 1, start: 0 });
    let all = read_all(&log);
    disk.crash(&mut || false);
    let (mut log, recovery) = open(&disk, tiny());
    assert_eq!(recovery.cut, None);
    assert_eq!((log.start_offset(), log.end_offset()), (70, 160));
    assert_eq!(log.epochs(), &epochs);
    assert_eq!(read_all(&log), all);
    log.drop_head(160).expect("everything");
    assert_eq!((log.start_offset(), log.last_epoch()), (160, Some(2)));
    disk.crash(&mut || true);
    let (log, _) = open(&disk, tiny());
    assert_eq!((log.start_offset(), log.end_offset(), log.last_epoch()), (160, 160, Some(2)));
}

#[test]
fn a_reset_begins_elsewhere() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    log.reset(500).expect("before anything");
    log.append(500, &batch(500, 3, 2, 50, 1)).expect("append");
    log.sync().expect("sync");
    log.reset(500).expect("same place");
    assert_eq!((log.start_offset(), log.end_offset(), log.last_epoch()), (500, 500, None));
    log.append(500, &batch(500, 1, 2, 50, 2)).expect("a lower epoch: nothing is left to compare with");
    disk.crash(&mut || true);
    let (log, _) = open(&disk, tiny());
    assert_eq!((log.start_offset(), log.end_offset(), log.last_epoch()), (500, 502, Some(1)));
}

#[test]
fn a_clean_stop_costs_nothing_at_the_next_start() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    for i in 0..40 {
        log.append(i * 4, &batch(i * 4, 1, 4, 40, i)).expect("append");
    }
    log.close_clean().expect("close");
    disk.crash(&mut || false);
    disk.set_hook(Some(Box::new(|call: &Call<'_>| {
        assert!(!call.op.changes_disk(), "{call:?} after a clean stop");
        None
    })));
    let (log, recovery) = open(&disk, tiny());
    assert!(recovery.clean);
    assert_eq!(log.durable_end(), 160);
    log.close_clean().expect("closing an untouched log writes nothing");
}

#[test]
fn what_recovery_keeps_is_synced_before_it_is_seen() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    log.append(0, &batch(0, 1, 2, 50, 1)).expect("append");
    log.sync().expect("sync");
    for i in 1..30 {
        log.append(i * 2, &batch(i * 2, 1, 2, 50, i)).expect("append");
    }
    assert!(log.segments().len() > 1);
    disk.kill_process();
    let (log, recovery) = open(&disk, tiny());
    assert!(recovery.kept_bytes > 0 && recovery.cut_at_most_one_unfinished_batch());
    assert_eq!((log.end_offset(), log.durable_end()), (60, 60));
    disk.crash(&mut || false);
    let (log, recovery) = open(&disk, tiny());
    assert_eq!((log.end_offset(), recovery.kept_bytes), (60, 0), "the mark was made durable too");
}

#[test]
fn going_idle_makes_the_mark_durable() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    log.append(0, &batch(0, 1, 2, 50, 1)).expect("append");
    log.sync().expect("sync");
    assert!(log.needs_idle_mark());
    log.idle_mark().expect("idle");
    assert!(!log.needs_idle_mark());
    disk.crash(&mut || false);
    let (_, recovery) = open(&disk, tiny());
    assert_eq!(recovery.kept_bytes, 0);
}

#[test]
fn a_full_disk_refuses_before_an_offset_is_given() {
    let disk = disk();
    let (mut log, _) = open(&disk, LogConfig::default());
    let full = Arc::new(AtomicBool::new(false));
    let hook = full.clone();
    disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
        let refuse = call.op == Op::Preallocate && hook.load(Ordering::Relaxed);
        refuse.then(|| Fault::Fail(std::io::ErrorKind::StorageFull.into()))
    })));
    log.append(0, &batch(0, 1, 1, 9000, 1)).expect("within the first reservation");
    full.store(true, Ordering::Relaxed);
    assert!(matches!(log.append(1, &batch(1, 1, 1, 9000, 1)), Err(LogError::DiskFull { .. })));
    assert!(!log.is_poisoned());
    log.append(1, &batch(1, 1, 1, 100, 2)).expect("what fits still fits");
    full.store(false, Ordering::Relaxed);
    log.append(2, &batch(2, 1, 1, 9000, 3)).expect("space is back");
    log.sync().expect("sync");
    assert_eq!(read_all(&log).len(), 3);
}

#[test]
fn a_full_disk_at_the_roll_leaves_the_log_as_it_was() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    let mut next = 0;
    while log.segments().len() < 2 {
        log.append(next, &batch(next, 1, 1, 600, 1)).expect("append");
        next += 1;
    }
    while log.size_bytes() < 3500 {
        log.append(next, &batch(next, 1, 1, 600, 1)).expect("append");
        next += 1;
    }
    disk.set_hook(Some(Box::new(|call: &Call<'_>| {
        (call.op == Op::Preallocate).then(|| Fault::Fail(std::io::ErrorKind::StorageFull.into()))
    })));
    let segments = log.segments();
    assert!(matches!(log.append(next, &batch(next, 1, 1, 1000, 1)), Err(LogError::DiskFull { .. })));
    assert_eq!(log.segments(), segments);
    disk.set_hook(None);
    log.append(next, &batch(next, 1, 1, 1000, 1)).expect("space is back");
    assert_eq!(log.segments().len(), segments.len() + 1);
}

/// Nothing may grow, until the flag is lowered. Marks go into pages that are there.
fn fill(disk: &log::storage::memory::MemStorage) -> Arc<AtomicBool> {
    let full = Arc::new(AtomicBool::new(true));
    let hook = full.clone();
    disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
        let grows = matches!(call.op, Op::Create | Op::CreateDir | Op::Preallocate)
            || (call.op == Op::Write && call.position >= 4096);
        let refuse = grows && hook.load(Ordering::Relaxed);
        refuse.then(|| Fault::Short(100, std::io::ErrorKind::StorageFull.into()))
    })));
    full
}

#[test]
fn a_head_drop_without_room_changes_nothing_and_works_when_there_is_some() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    for next in 0..20 {
        log.append(next, &batch(next, 1, 1, 600, 1)).expect("append");
    }
    log.sync().expect("sync");
    let segments = log.segments();
    let full = fill(&disk);
    assert!(matches!(log.drop_head(10), Err(LogError::DiskFull { .. })));
    assert!(!log.is_poisoned());
    assert_eq!((log.start_offset(), log.segments()), (0, segments));
    full.store(false, Ordering::Relaxed);
    assert!(log.drop_head(10).expect("there is room").segments > 0);
    disk.crash(&mut || false);
    assert_eq!(open(&disk, tiny()).0.start_offset(), 10);
}

#[test]
fn an_unreserved_append_without_room_is_refused_and_its_torn_bytes_never_count() {
    for reopen in [false, true] {
        let disk = disk();
        let config = LogConfig { preallocate: false, ..tiny() };
        let (mut log, _) = open(&disk, config.clone());
        log.append(0, &batch(0, 1, 1, 600, 1)).expect("append");
        log.sync().expect("sync");
        let full = fill(&disk);
        assert!(matches!(log.append(1, &batch(1, 1, 1, 600, 2)), Err(LogError::DiskFull { .. })));
        assert!(!log.is_poisoned());
        log.idle_mark().expect("marks need no room");
        full.store(false, Ordering::Relaxed);
        if reopen {
            log.close_clean().expect("the torn bytes are cut off");
            log = open(&disk, config.clone()).0;
        }
        for next in 1..20 {
            log.append(next, &batch(next, 1, 1, 600, 3)).expect("there is room");
        }
        log.sync().expect("sync");
        disk.crash(&mut || false);
        assert_eq!(read_all(&open(&disk, config).0).len(), 20);
    }
}

#[test]
fn a_first_flush_without_room_marks_nothing_and_is_done_later() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    log.append(0, &batch(0, 1, 1, 600, 1)).expect("append");
    let full = fill(&disk);
    assert!(matches!(log.sync(), Err(LogError::DiskFull { .. })));
    assert!(!log.is_poisoned());
    assert_eq!(log.durable_end(), 0);
    full.store(false, Ordering::Relaxed);
    log.sync().expect("there is room");
    disk.crash(&mut || false);
    assert_eq!(open(&disk, tiny()).0.end_offset(), 1);
}

#[test]
fn a_seal_without_room_for_an_index_leaves_it_out() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    let mut next = 0;
    while log.segments().len() < 2 {
        log.append(next, &batch(next, 1, 1, 600, 1)).expect("append");
        next += 1;
    }
    log.append(next, &batch(next, 1, 1, 10, 1)).expect("append");
    disk.set_hook(Some(Box::new(|call: &Call<'_>| {
        let index = call.path.to_string_lossy().contains("index");
        (index && call.op == Op::Create).then(|| Fault::Fail(std::io::ErrorKind::StorageFull.into()))
    })));
    log.sync().expect("an index only saves time");
    assert!(log.segments()[0].sealed);
    disk.crash(&mut || false);
    assert_eq!(open(&disk, tiny()).0.end_offset(), next + 1);
}

#[test]
fn old_segments_roll_by_record_time() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    assert!(!log.roll_if_needed(i64::MAX).expect("empty"));
    log.append(0, &batch(0, 1, 1, 10, 1)).expect("append");
    assert!(!log.roll_if_needed(1_000_000).expect("young"));
    assert!(log.roll_if_needed(1_000_001).expect("old"));
    assert!(!log.roll_if_needed(i64::MAX).expect("the new one is empty"));
    log.sync().expect("sync");
    assert!(log.segments()[0].sealed);
    log.drop_head(1).expect("drop");
    assert_eq!(log.segments().len(), 1);
    disk.crash(&mut || false);
    let (log, _) = open(&disk, tiny());
    assert_eq!((log.start_offset(), log.end_offset(), log.last_epoch()), (1, 1, Some(1)));
}

#[test]
fn inspection_sees_every_batch_and_what_is_not_marked() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    for i in 0..30 {
        log.append(i, &batch(i, 1, 1, 150, i)).expect("append");
    }
    log.idle_mark().expect("idle");
    log.append(30, &batch(30, 2, 1, 150, 1)).expect("append");
    let all = read_all(&log);
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut seen = Vec::new();
    let report = inspect(&storage, &log_dir(), &mut |place| {
        assert_eq!(place.above_mark, place.header.base_offset == 30);
        seen.push(bytes::Bytes::copy_from_slice(place.bytes));
    });
    let report = report.expect("inspection");
    assert_eq!(seen, all);
    assert_eq!(report.damage, None);
    assert_eq!(report.segments.iter().map(|s| s.batches).sum::<u64>(), 31);
    assert!(report.recovery.kept_bytes > 0 && report.segments.iter().all(|s| s.stopped.is_none()));
    assert_eq!(report.segments.last().map(|s| (s.marked, s.next)), Some((30, 31)));
}

#[test]
fn an_unclean_start_reads_only_what_the_index_does_not_reach() {
    let disk = disk();
    let (mut log, _) = open(&disk, LogConfig::default());
    let mut written = 0;
    for i in 0..200 {
        let bytes = batch(i, 1, 1, 60_000, i);
        written += bytes.len();
        log.append(i, &bytes).expect("append");
        log.sync().expect("sync");
    }
    disk.kill_process();
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
        // Reserved zeros behind the last batch do not count.
        if call.op == Op::Read && call.position < written as u64 {
            count.fetch_add(call.len.min(written - call.position as usize), Ordering::Relaxed);
        }
        None
    })));
    let (log, recovery) = open(&disk, LogConfig::default());
    assert_eq!((log.end_offset(), recovery.cut), (200, None));
    let read = read.load(Ordering::Relaxed);
    assert!(read < written / 2, "{read} of {written} bytes read again");
    disk.set_hook(None);
    assert_eq!(log.read(3, 1, u64::MAX, true).expect("read"), batch(3, 1, 1, 60_000, 3));
}

#[test]
fn logs_and_jobs_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<log::Log>();
    is_send::<log::FlushJob>();
    is_send::<log::Flushed>();
}
