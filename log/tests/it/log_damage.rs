//! Damage of every byte of a small log of several segments: detected, harmless, or above the end mark and reported.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use log::inspect::inspect;
use log::storage::Storage;
use log::storage::memory::{Call, Fault, MemStorage, Op};
use log::{Log, LogConfig, LogError, Verify};
use protocol::batch::Header;

use crate::common::*;

struct Healthy {
    disk: MemStorage,
    batches: Vec<Bytes>,
    start: u64,
    /// At and above this offset records were not covered by a durable mark.
    marked: u64,
}

/// Segments of about 1 KiB with several epochs and a raised start; the last batches lie above the end mark.
fn healthy() -> Healthy {
    let disk = disk();
    let (mut log, _) = open(&disk, config(Verify::Tail));
    for i in 0..21 {
        log.append(i * 2, &batch(i * 2, 1 + i as u32 / 6, 2, 20, i)).expect("append");
    }
    log.drop_head(5).expect("drop");
    log.idle_mark().expect("idle");
    assert!(log.segments().len() >= 3, "{:?}", log.segments());
    let marked = log.end_offset();
    for i in 21..24 {
        log.append(i * 2, &batch(i * 2, 9, 2, 20, i)).expect("append");
    }
    let batches = read_all(&log);
    let start = log.start_offset();
    // The machine writes everything back, the process dies.
    disk.crash(&mut || true);
    Healthy { disk, batches, start, marked }
}

fn config(verify: Verify) -> LogConfig {
    LogConfig { verify, segment_bytes: 4096 + 1024, ..tiny() }
}

/// Reads the log from its start; the first error ends it.
fn read_checked(log: &Log) -> Result<Vec<Bytes>, LogError> {
    let mut out = Vec::new();
    let mut at = log.start_offset();
    while at < log.end_offset() {
        let bytes = log.read(at, 300, u64::MAX, true)?;
        assert!(!bytes.is_empty(), "a read below the end answers with a batch or an error");
        for one in protocol::batch::batches(&bytes) {
            let one = one.expect("whole batches");
            at = Header::parse(&one).expect("header").next_offset();
            out.push(one);
        }
    }
    Ok(out)
}

#[derive(Debug, PartialEq, Eq, Clone, Copy, PartialOrd, Ord)]
enum Outcome {
    AtOpen,
    AtRead,
    Harmless,
    Cut,
    EpochAboveMark,
}

impl Healthy {
    /// Opens and reads the log with one file replaced, and judges what comes out.
    fn judge(&self, file: &Path, contents: Vec<u8>, verify: Verify, what: &str) -> Outcome {
        let disk = self.disk.fork();
        let good = disk.contents(file).expect("contents");
        let contents_end = good.starts_with(trim(&contents));
        disk.damage(file, contents).expect("damage");
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        disk.set_hook(Some(Box::new(|call: &Call<'_>| {
            assert!(!call.op.changes_disk(), "inspection makes {call:?}");
            None
        })));
        let seen = if verify == Verify::Everything {
            Some(inspect(&storage, &log_dir(), &mut |_| {}).expect("inspection").damage)
        } else {
            None
        };
        disk.set_hook(None);
        let opened = try_open(&disk, config(verify));
        if let Some(seen) = seen {
            assert_eq!(seen.is_some(), opened.is_err(), "{what}: inspection and opening disagree: {seen:?}");
        }
        let (log, recovery) = match opened {
            Err(LogError::Damaged(damage)) => {
                assert!(damage.file.starts_with(log_dir()), "{what}: {damage}");
                return Outcome::AtOpen;
            }
            Err(other) => panic!("{what}: {other}"),
            Ok(opened) => opened,
        };
        let found = match read_checked(&log) {
            Err(LogError::Damaged(_)) => {
                assert_eq!(verify, Verify::Tail, "{what}: opening said that every byte is good");
                return Outcome::AtRead;
            }
            Err(other) => panic!("{what}: {other}"),
            Ok(found) => found,
        };
        assert_eq!(log.start_offset(), self.start, "{what}");
        if found == self.batches {
            return Outcome::Harmless;
        }
        // Above the mark nothing covers the leader epoch (see `recovery`).
        let without_epoch = |b: &Bytes| {
            let mut b = b.to_vec();
            if Header::parse(&b).expect("header").base_offset >= self.marked {
                b[12..16].fill(0);
            }
            b
        };
        let same = |n: usize| found.iter().map(without_epoch).eq(self.batches[..n].iter().map(without_epoch));
        if same(self.batches.len()) {
            return Outcome::EpochAboveMark;
        }
        // A file that ends exactly between two batches above the mark is what a power cut may leave of a healthy one.
        assert!(recovery.cut.is_some() || contents_end, "{what}: records are gone without a word");
        assert!(log.end_offset() >= self.marked, "{what}: shortened below the end mark");
        assert!(same(found.len()), "{what}: other records");
        Outcome::Cut
    }
}

/// Without the zeros at the end.
fn trim(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)]
}

fn is_padding(bytes: &[u8], at: usize) -> bool {
    let near = at.saturating_sub(16)..(at + 16).min(bytes.len());
    bytes[near].iter().all(|b| *b == 0)
}

#[test]
fn every_flipped_bit_is_detected_or_harmless_or_cut_above_the_mark() {
    let healthy = healthy();
    let mut outcomes = std::collections::BTreeMap::new();
    for file in healthy.disk.files_below(&log_dir()).expect("files") {
        let good = healthy.disk.contents(&file).expect("contents");
        for at in 0..good.len() {
            let padding = is_padding(&good, at);
            let bits = if padding { 0..usize::from(at % 16 == 0) } else { 0..8 };
            for bit in bits {
                let mut bad = good.clone();
                bad[at] ^= 1 << ((at + bit) % 8);
                let what = format!("{}: bit {} of byte {at}", file.display(), (at + bit) % 8);
                let verify = if (at + bit) % 2 == 0 { Verify::Everything } else { Verify::Tail };
                *outcomes.entry(healthy.judge(&file, bad, verify, &what)).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(outcomes.len(), 5, "every outcome was seen: {outcomes:?}");
    assert!(outcomes[&Outcome::EpochAboveMark] < 40, "{outcomes:?}");
}

#[test]
fn every_truncated_file_and_zeroed_sector_is_detected_or_harmless_or_cut_above_the_mark() {
    let healthy = healthy();
    for file in healthy.disk.files_below(&log_dir()).expect("files") {
        let good = healthy.disk.contents(&file).expect("contents");
        for len in 0..good.len() {
            let verify = if len % 2 == 0 { Verify::Everything } else { Verify::Tail };
            healthy.judge(&file, good[..len].to_vec(), verify, &format!("{} cut to {len}", file.display()));
        }
        for at in (0..good.len()).step_by(512) {
            let mut bad = good.clone();
            bad[at..(at + 512).min(good.len())].fill(0);
            for verify in [Verify::Everything, Verify::Tail] {
                healthy.judge(&file, bad.clone(), verify, &format!("{}: sector {at} zeroed", file.display()));
            }
        }
    }
}

#[test]
fn every_missing_file_is_detected_or_harmless() {
    let healthy = healthy();
    for file in healthy.disk.files_below(&log_dir()).expect("files") {
        for verify in [Verify::Everything, Verify::Tail] {
            let disk = healthy.disk.fork();
            disk.remove(&file).expect("remove");
            let index = file.extension().is_some_and(|e| e == "index");
            match try_open(&disk, config(verify)) {
                Err(LogError::Damaged(_)) => assert!(!index, "{}", file.display()),
                Ok((log, _)) if index => assert_eq!(read_all(&log), healthy.batches, "an index is rebuilt"),
                other => panic!("{} missing: {other:?}", file.display()),
            }
        }
    }
}

/// A sector of an older version of the file, a batch of another log: whole, with good checksums, in the wrong place.
#[test]
fn good_bytes_in_the_wrong_place_are_detected() {
    let healthy = healthy();
    let files = healthy.disk.files_below(&log_dir()).expect("files");
    let first = files.iter().find(|f| f.extension().is_some_and(|e| e == "log")).expect("a segment");
    let good = healthy.disk.contents(first).expect("contents");
    let mut at = 4096;
    let header = loop {
        let header = Header::parse(&good[at..]).expect("a batch");
        if header.base_offset >= 6 {
            break header;
        }
        at += header.total_len();
    };
    // Another log's batch at the same offset, of the same length and epoch.
    let foreign = batch(header.base_offset, header.leader_epoch.expect("stamped"), 2, 20, 0xe);
    assert_eq!(foreign.len(), header.total_len());
    let mut bad = good.clone();
    bad[at..at + foreign.len()].copy_from_slice(&foreign);
    assert_eq!(healthy.judge(first, bad.clone(), Verify::Everything, "foreign batch"), Outcome::AtOpen);
    assert_eq!(healthy.judge(first, bad, Verify::Tail, "foreign batch"), Outcome::AtRead);
    // A whole segment in another's place.
    let other = files.iter().rfind(|f| f.extension().is_some_and(|e| e == "log")).expect("a segment");
    let swapped = healthy.disk.contents(other).expect("contents");
    assert_eq!(healthy.judge(first, swapped, Verify::Tail, "foreign segment"), Outcome::AtOpen);
}

#[test]
fn an_index_of_another_life_is_not_believed() {
    let disk = disk();
    let (mut log, _) = open(&disk, tiny());
    for i in 0..30 {
        log.append(i, &batch(i, 1, 1, 150, i)).expect("append");
    }
    log.sync().expect("sync");
    let index = disk.files_below(&log_dir()).expect("files")[0].clone();
    assert!(index.ends_with("00000000000000000000.index"), "{}", index.display());
    let stale = disk.contents(&index).expect("contents");
    log.truncate(2).expect("truncate");
    for i in 2..30 {
        log.append(i, &batch(i, 2, 1, 140, i)).expect("append");
    }
    log.sync().expect("sync");
    let all = read_all(&log);
    disk.crash(&mut || true);
    disk.damage(&index, stale).expect("damage");
    let (log, _) = open(&disk, tiny());
    assert_eq!(read_all(&log), all);
    assert_eq!(log.offset_for_time(1_000_050).expect("search"), Some((5, 1_000_050)));
}

/// The batch's checksum does not cover its epoch, and no indexed place follows that would show a broken chain.
#[test]
fn a_flipped_epoch_is_seen_by_a_read_of_that_batch_alone() {
    let disk = disk();
    let sparse = LogConfig { index_interval_bytes: 1 << 20, ..LogConfig::default() };
    let (mut log, _) = open(&disk, sparse.clone());
    let len = batch(0, 1, 1, 50, 0).len();
    for i in 0..10 {
        log.append(i, &batch(i, 1 + i as u32 / 5, 1, 50, i)).expect("append");
    }
    log.close_clean().expect("close");
    let path = log_dir().join("00000000000000000000.log");
    let mut bad = disk.contents(&path).expect("contents");
    bad[4096 + 3 * len + 15] ^= 2;
    disk.damage(&path, bad).expect("damage");
    let (log, _) = open(&disk, sparse);
    // Nothing confirms the batches before it any more: the next known place of the chain lies behind the damage.
    for from in [2, 3] {
        match log.read(from, 1, u64::MAX, true) {
            Err(LogError::Damaged(damage)) => {
                assert_eq!((damage.file, damage.position), (path.clone(), 4096 + 3 * len as u64));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Batches of the story below; its log has an index entry every few of them.
const BATCHES: u64 = 30;

/// A log of [`BATCHES`] batches, and the same after a misdirected write: where batch `victim` was there lies one of another
/// partition, whole, with the right offset and epoch, `shift` bytes longer.
fn misdirected(victim: u64, shift: i64, config: &LogConfig) -> (MemStorage, Log, Vec<Bytes>) {
    let disk = disk();
    let (mut log, _) = open(&disk, config.clone());
    for i in 0..BATCHES {
        log.append(i, &batch(i, 1, 1, 50, i)).expect("append");
    }
    let mine = read_all(&log);
    let bases = log.segments();
    let base = bases.iter().map(|segment| segment.base).rfind(|base| *base <= victim).expect("one holds it");
    let path = log_dir().join(format!("{base:020}.log"));
    let mut bytes = disk.contents(&path).expect("contents");
    let other = batch(victim, 1, 1, (50 + shift) as usize, 200);
    let at = 4096 + mine[base as usize..victim as usize].iter().map(Bytes::len).sum::<usize>();
    bytes.resize(bytes.len().max(at + other.len()), 0);
    bytes[at..at + other.len()].copy_from_slice(&other);
    disk.damage(&path, bytes).expect("damage");
    (disk, log, mine)
}

fn sparse() -> [LogConfig; 2] {
    let one = LogConfig { index_interval_bytes: 400, ..LogConfig::default() };
    [LogConfig { segment_bytes: 4096 + 1024, ..one.clone() }, one]
}

/// Every read says damage or brings what was written; how many said damage.
fn read_everywhere(log: &Log, mine: &[Bytes]) -> u64 {
    let mut seen = 0;
    for (from, max_bytes) in (0..log.end_offset()).flat_map(|from| [(from, 1), (from, 300), (from, 5000)]) {
        match log.read(from, max_bytes, u64::MAX, true) {
            Ok(bytes) => {
                assert!(!bytes.is_empty());
                for (i, one) in protocol::batch::batches(&bytes).enumerate() {
                    assert_eq!(one.expect("whole batches"), mine[from as usize + i], "read from {from}");
                }
            }
            Err(LogError::Damaged(_)) => seen += 1,
            Err(other) => panic!("{other}"),
        }
    }
    seen
}

/// Found in ring 1 (seed 7853), where a leader served it.
#[test]
fn a_batch_of_another_log_in_the_right_place_is_never_served() {
    for (shift, victim) in [-9, 0, 9].into_iter().flat_map(|shift| (0..BATCHES).map(move |victim| (shift, victim))) {
        for config in sparse() {
            let (_disk, log, mine) = misdirected(victim, shift, &config);
            let seen = read_everywhere(&log, &mine);
            assert!(seen >= 3, "{shift} {victim}: three reads begin at the victim, and {seen} see it");
            for from in 0..BATCHES {
                let time = 1_000_000 + from as i64 * 10;
                match log.offset_for_time(time) {
                    Ok(found) => assert!(from != victim && found == Some((from, time)), "{shift} {victim}: {found:?}"),
                    Err(LogError::Damaged(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    }
}

/// A truncation adds the chain up anew from what lies on the disk: what it keeps is confirmed before the rest goes.
#[test]
fn a_truncation_does_not_make_a_batch_of_another_log_ours() {
    for (shift, victim) in [-9, 0, 9].into_iter().flat_map(|shift| (0..BATCHES).map(move |victim| (shift, victim))) {
        for (config, to) in sparse().into_iter().flat_map(|config| (1..BATCHES).map(move |to| (config.clone(), to))) {
            let (_disk, mut log, mine) = misdirected(victim, shift, &config);
            match log.truncate(to) {
                Ok(end) => {
                    assert_eq!(end, to);
                    log.append(to, &batch(to, 1, 1, 50, to)).expect("append");
                    let seen = read_everywhere(&log, &mine);
                    assert!(victim >= to || seen >= 3, "{shift} {victim} {to}: it is still seen");
                }
                Err(LogError::Damaged(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

#[test]
fn a_long_read_brings_what_is_confirmed_before_damage() {
    let [_, config] = sparse();
    for victim in 5..BATCHES {
        let (_disk, log, mine) = misdirected(victim, 9, &config);
        let bytes = log.read(0, 1 << 20, u64::MAX, true).expect("the batches before it are good");
        let len: usize = mine[..victim as usize].iter().map(Bytes::len).sum();
        assert!(bytes.len() <= len && len - bytes.len() < 400 + mine[0].len(), "{victim}: {} of {len}", bytes.len());
    }
}

/// Fails, or flips, the first `times` reads that bring anything of a segment.
fn bad_reads(disk: &MemStorage, times: u32, flip: bool) {
    let left = AtomicU32::new(times);
    disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
        let segment = call.op == Op::Read && call.path.extension().is_some_and(|e| e == "log");
        let hit = segment && left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        hit.then(|| if flip { Fault::Flip(40 * 8) } else { Fault::Fail(std::io::Error::other("medium error")) })
    })));
}

#[test]
fn one_read_that_fails_is_no_damage_and_two_are() {
    let Healthy { disk, batches, .. } = healthy();
    let (log, _) = open(&disk, config(Verify::Tail));
    let first = log.read(log.start_offset(), 300, u64::MAX, true).expect("healthy");
    for flip in [false, true] {
        bad_reads(&disk, 1, flip);
        assert_eq!(log.read(log.start_offset(), 300, u64::MAX, true).expect("the second look"), first);
        bad_reads(&disk, 1, flip);
        assert_eq!(log.offset_for_time(0).expect("the second look").map(|(at, _)| at), Some(log.start_offset()));
        bad_reads(&disk, 2, flip);
        assert!(matches!(log.read(log.start_offset(), 300, u64::MAX, true), Err(LogError::Damaged(_))));
        bad_reads(&disk, 2, flip);
        assert!(matches!(log.offset_for_time(0), Err(LogError::Damaged(_))));
    }
    disk.set_hook(None);
    assert_eq!(read_checked(&log).expect("the disk was never harmed"), batches);
}
