//! A sync that failed, seen from the next process of the same boot: the page cache still shows what the disk will never
//! get by itself.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use log::storage::Storage;
use log::storage::memory::{Call, Fault, MemStorage, Op};
use log::{Log, LogConfig, LogError, StateFile};

use crate::common::*;

/// The `nth` call of `op` fails from now on, counted from 0, once.
fn fail(disk: &MemStorage, op: Op, nth: u64) {
    let seen = AtomicU64::new(0);
    disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
        let hit = call.op == op && seen.fetch_add(1, Ordering::Relaxed) == nth;
        hit.then(|| Fault::Fail(io::Error::other("the disk is dying")))
    })));
}

fn grow(log: &mut Log, epoch: u32, count: u64) -> Result<(), LogError> {
    for salt in 0..count {
        let end = log.end_offset();
        log.append(end, &batch(end, epoch, 1, 150, salt))?;
    }
    Ok(())
}

/// First flush, flushes over several segments, a truncation below the active one, a head drop, a reset, a clean stop.
fn work(disk: &MemStorage, config: &LogConfig) -> Result<(), LogError> {
    let (mut log, _) = try_open(disk, config.clone())?;
    grow(&mut log, 1, 3)?;
    log.sync()?;
    grow(&mut log, 1, 30)?;
    log.sync()?;
    let to = log.segments()[1].base + 2;
    log.truncate(to)?;
    grow(&mut log, 2, 20)?;
    log.sync()?;
    log.drop_head(log.segments()[1].next)?;
    grow(&mut log, 2, 5)?;
    log.sync()?;
    log.reset(log.end_offset() + 100)?;
    grow(&mut log, 3, 12)?;
    log.close_clean()
}

#[test]
fn what_a_start_after_a_failed_sync_claims_survives_a_power_cut() {
    let mut kept = 0;
    for config in [tiny(), LogConfig { preallocate: false, ..tiny() }] {
        for op in [Op::Sync, Op::SyncDir] {
            for nth in 0.. {
                let disk = disk();
                fail(&disk, op, nth);
                let done = work(&disk, &config);
                disk.kill_process();
                if done.is_ok() {
                    assert!(nth > 10, "{nth} calls of {op:?} are no test");
                    break;
                }
                let context = format!("{op:?} {nth}, preallocate {}", config.preallocate);
                let (mut log, recovery) = try_open(&disk, config.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
                kept += recovery.kept_bytes;
                assert_eq!(log.durable_end(), log.end_offset(), "{context}");
                let lost = disk.fork();
                let (claimed, start, end) = (read_all(&log), log.start_offset(), log.end_offset());
                lost.crash(&mut || false);
                let (found, _) = try_open(&lost, config.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_eq!((found.start_offset(), found.end_offset()), (start, end), "{context}");
                assert_eq!(read_all(&found), claimed, "{context}");
                // And so does what the new process adds.
                let epoch = log.last_epoch().unwrap_or(0) + 1;
                grow(&mut log, epoch, 4).expect("append");
                log.sync().expect("sync");
                let claimed = read_all(&log);
                disk.crash(&mut || false);
                let (found, _) = try_open(&disk, config.clone()).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_eq!(read_all(&found), claimed, "{context}");
            }
        }
    }
    assert!(kept > 0, "no start had to keep anything");
}

/// A head drop moves no end mark: the log that was closed cleanly before it still reads as closed cleanly after it.
#[test]
fn a_log_start_shown_by_a_clean_start_survives_a_power_cut() {
    let mut only_shown = 0;
    for nth in 0.. {
        let disk = disk();
        let (mut log, _) = open(&disk, tiny());
        grow(&mut log, 1, 3).expect("append");
        log.close_clean().expect("close");
        let (mut log, _) = open(&disk, tiny());
        fail(&disk, Op::SyncDir, nth);
        let dropped = log.drop_head(2);
        drop(log);
        disk.kill_process();
        if dropped.is_ok() {
            assert!(nth > 0, "the drop syncs no directory");
            break;
        }
        let (log, recovery) = open(&disk, tiny());
        let shown = log.start_offset();
        only_shown += u64::from(recovery.clean && shown == 2);
        drop(log);
        disk.crash(&mut || false);
        assert_eq!(open(&disk, tiny()).0.start_offset(), shown, "SyncDir {nth}");
    }
    assert!(only_shown > 0, "no clean start showed a start that was in the cache only");
}

/// A process that dies between the rename and the sync of the directory leaves a record that is only in the cache. Who
/// acts on it must not find the older one after a power cut: for a vote that would be a second one in the same term.
#[test]
fn a_record_that_was_read_does_not_go_back() {
    let disk = disk();
    let vote = || StateFile::new(Arc::new(disk.clone()) as Arc<dyn Storage>, "/data/vote");
    vote().store(b"old").expect("store");
    fail(&disk, Op::SyncDir, 0);
    vote().store(b"new").expect_err("the directory cannot be synced");
    disk.kill_process();
    assert_eq!(vote().load().expect("load").as_deref(), Some(b"new".as_slice()));
    disk.crash(&mut || false);
    assert_eq!(vote().load().expect("load").as_deref(), Some(b"new".as_slice()));
    fail(&disk, Op::SyncDir, 0);
    vote().delete().expect_err("the directory cannot be synced");
    disk.kill_process();
    vote().delete().expect("it is gone already");
    disk.crash(&mut || false);
    assert_eq!(vote().load().expect("load"), None);
}

/// The process dies at each call of a truncation, the machine lives: where the next start says the log ends, it ends after
/// a power cut too. The cut itself may be in the cache only.
#[test]
fn a_truncation_that_a_start_shows_survives_a_power_cut() {
    let mut shown = std::collections::BTreeSet::new();
    for nth in 0.. {
        let disk = disk();
        let (mut log, _) = open(&disk, LogConfig::default());
        grow(&mut log, 1, 9).expect("room");
        log.idle_mark().expect("idle");
        let died_at = disk.calls() + nth;
        disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
            (call.number >= died_at).then(|| Fault::Fail(io::Error::other("the process is dead")))
        })));
        let done = log.truncate(4);
        disk.kill_process();
        let (log, _) = open(&disk, LogConfig::default());
        let end = log.end_offset();
        shown.insert(end);
        disk.crash(&mut || false);
        let (log, _) = open(&disk, LogConfig::default());
        assert_eq!(log.end_offset(), end, "died at call {nth} of the truncation");
        if done.is_ok() {
            break;
        }
    }
    assert_eq!(shown.into_iter().collect::<Vec<_>>(), [4, 9], "it died before the cut and after it");
}

/// As above, but each write puts down its first bytes before the process dies. The second slot's mark stood above the cut:
/// torn, it says nothing any more, and that a cut was under way must be seen all the same.
#[test]
fn a_truncation_cut_short_within_a_write_that_a_start_shows_survives_a_power_cut() {
    let mut shown = std::collections::BTreeSet::new();
    let mut short = 0;
    // The mark's slot is 76 bytes: before its checksum, within it, none but one byte, and half.
    for first_bytes in [1, 24, 38, 74, 75] {
        for nth in 0.. {
            let disk = disk();
            let (mut log, _) = open(&disk, LogConfig::default());
            grow(&mut log, 1, 9).expect("room");
            log.idle_mark().expect("idle");
            let (died_at, dead) = (disk.calls() + nth, Arc::new(AtomicU64::new(0)));
            let torn = dead.clone();
            disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
                let gone = || io::Error::other("the process is dead");
                if call.number < died_at {
                    return None;
                }
                if call.number == died_at && call.op == Op::Write && call.len > first_bytes {
                    torn.store(1, Ordering::Relaxed);
                    return Some(Fault::Short(first_bytes, gone()));
                }
                Some(Fault::Fail(gone()))
            })));
            let done = log.truncate(4);
            disk.kill_process();
            let (log, _) = open(&disk, LogConfig::default());
            let end = log.end_offset();
            shown.insert(end);
            short += dead.load(Ordering::Relaxed);
            disk.crash(&mut || false);
            let (log, _) = open(&disk, LogConfig::default());
            assert_eq!(log.end_offset(), end, "died at call {nth} of the truncation, {first_bytes} bytes into it");
            if done.is_ok() {
                break;
            }
        }
    }
    assert_eq!(shown.into_iter().collect::<Vec<_>>(), [4, 9], "it died before the cut and after it");
    assert_eq!(short, 10, "each write of the two slots was cut short");
}
