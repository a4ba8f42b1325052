//! Cuts and closes of a log on a disk on which nothing may grow.

use std::io;

use log::storage::memory::{Call, Fault, MemStorage, Op};
use log::{Log, LogError};

use crate::common::*;

/// Nothing may grow. Marks go into pages that are there.
fn fill(disk: &MemStorage) {
    disk.set_hook(Some(Box::new(|call: &Call<'_>| {
        let grows = matches!(call.op, Op::Create | Op::CreateDir | Op::Preallocate)
            || (call.op == Op::Write && call.position >= 4096);
        grows.then(|| Fault::Short(100, io::ErrorKind::StorageFull.into()))
    })));
}

fn filled(disk: &MemStorage, batches: u64) -> Log {
    let (mut log, _) = open(disk, tiny());
    for next in 0..batches {
        log.append(next, &batch(next, 1, 1, 600, 1)).expect("append");
    }
    log
}

fn refused<T: std::fmt::Debug>(log: &Log, result: Result<T, LogError>) {
    assert!(matches!(result, Err(LogError::DiskFull { .. })), "{result:?}");
    assert!(!log.is_poisoned());
}

#[test]
fn a_truncation_without_room_changes_nothing_and_works_when_there_is_some() {
    let disk = disk();
    let mut log = filled(&disk, 20);
    log.sync().expect("sync");
    log.append(20, &batch(20, 1, 1, 60, 1)).expect("append");
    let (segments, generation) = (log.segments(), log.generation());
    let job = log.flush_job().expect("dirty");
    fill(&disk);
    let result = log.truncate(3);
    refused(&log, result);
    assert_eq!((log.end_offset(), log.segments(), log.generation()), (21, segments, generation));
    disk.set_hook(None);
    let flushed = job.run().expect("a flush that was under way counts");
    log.flushed(flushed).expect("apply");
    assert_eq!(log.durable_end(), 21);
    assert_eq!(log.truncate(3).expect("there is room"), 3);
    disk.crash(&mut || false);
    assert_eq!(open(&disk, tiny()).0.end_offset(), 3);
}

#[test]
fn a_truncation_of_what_was_never_flushed_waits_for_room() {
    let disk = disk();
    let mut log = filled(&disk, 2);
    fill(&disk);
    let result = log.truncate(1);
    refused(&log, result);
    assert_eq!(log.end_offset(), 2);
    disk.set_hook(None);
    assert_eq!(log.truncate(1).expect("there is room"), 1);
}

#[test]
fn a_reset_without_room_changes_nothing_and_works_when_there_is_some() {
    for batches in [0, 20] {
        let disk = disk();
        let mut log = filled(&disk, batches);
        log.sync().expect("sync");
        fill(&disk);
        let result = log.reset(500);
        refused(&log, result);
        assert_eq!((log.start_offset(), log.end_offset(), log.durable_end()), (0, batches, batches));
        disk.set_hook(None);
        log.reset(500).expect("there is room");
        log.append(500, &batch(500, 1, 1, 60, 1)).expect("append");
        log.sync().expect("sync");
        disk.crash(&mut || false);
        let (log, _) = open(&disk, tiny());
        assert_eq!((log.start_offset(), log.end_offset()), (500, 501));
    }
}

#[test]
fn a_close_without_room_for_the_first_note_keeps_every_byte() {
    let disk = disk();
    let log = filled(&disk, 2);
    fill(&disk);
    log.close_clean().expect("nothing is lost by it");
    disk.crash(&mut || false);
    assert_eq!(open(&disk, tiny()).0.end_offset(), 2);
}
