use super::*;
use proptest::prelude::*;
use protocol::batch::{BatchBuilder, Compression, stamp};

const TOPIC: Uuid = Uuid::from_u128(7);

fn settings() -> Settings {
    Settings {
        partition_bytes: 300,
        queued_bytes: 1_000,
        reset: OffsetReset::None,
        check_crcs: true,
        backoff: Backoff { first_ms: 10, max_ms: 100 },
    }
}

fn positions() -> Positions {
    Positions::new(settings(), 1)
}

fn key(partition: u32) -> Key {
    Key { topic: "t".into(), partition }
}

/// A batch of offsets `from..to` under `epoch`, each with its offset as value.
fn batch(from: u64, to: u64, epoch: u32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for offset in from..to {
        builder.push(0, None, Some(offset.to_string().as_bytes()), &[]).unwrap();
    }
    let mut bytes = builder.build().unwrap();
    stamp(&mut bytes, from, epoch);
    bytes
}

fn marks(end: u64) -> Marks {
    Marks { high_watermark: Some(end), log_start: 0 }
}

fn offsets(positions: &mut Positions) -> Vec<u64> {
    std::iter::from_fn(|| positions.take_next()).map(|r| r.unwrap().offset).collect()
}

fn only_work(positions: &Positions, now: Millis) -> Work {
    let work = positions.work(now);
    assert_eq!(work.len(), 1, "{work:?}");
    work[0].clone()
}

#[test]
fn resolves_then_fetches_from_there_and_names_the_last_epoch() {
    let mut positions = positions();
    positions.seek(key(0), Start::Earliest);
    let work = only_work(&positions, 0);
    assert_eq!(work.ask, Ask::Offset(Start::Earliest));
    assert_eq!(positions.position(&key(0)), None);
    positions.asked(&work, TOPIC);
    assert!(positions.work(0).is_empty(), "one question at a time");
    positions.resolved(&work, Some(5));
    let work = only_work(&positions, 0);
    assert_eq!(work.ask, Ask::Records { offset: 5, last_epoch: None });
    positions.asked(&work, TOPIC);
    positions.fetched(&work, [batch(0, 8, 2), batch(8, 9, 3)].concat().into(), marks(9));
    assert_eq!(only_work(&positions, 0).ask, Ask::Records { offset: 9, last_epoch: Some(3) });
    assert_eq!(offsets(&mut positions), [5, 6, 7, 8], "records before the position are left out");
    assert_eq!(positions.position(&key(0)), Some(9));
    assert_eq!(positions.marks(&key(0)), Some(marks(9)));
}

#[test]
fn nothing_of_before_a_seek_comes_after_it() {
    let mut positions = positions();
    positions.seek(key(0), Start::Offset(0));
    let old = only_work(&positions, 0);
    positions.asked(&old, TOPIC);
    positions.fetched(&old, batch(0, 5, 1).into(), marks(20));
    assert_eq!(positions.take_next().unwrap().unwrap().offset, 0);
    positions.seek(key(0), Start::Offset(10));
    positions.fetched(&old, batch(5, 9, 1).into(), marks(20));
    positions.failed(&old, ApiError::new(ErrorCode::MessageTooLarge, "x"), None, "b", 0);
    assert!(offsets(&mut positions).is_empty());
    let new = only_work(&positions, 0);
    positions.fetched(&new, batch(10, 12, 1).into(), marks(20));
    assert_eq!(offsets(&mut positions), [10, 11]);
}

#[test]
fn a_full_queue_is_not_fetched_until_it_is_read() {
    let mut positions = positions();
    positions.seek(key(0), Start::Offset(0));
    let work = only_work(&positions, 0);
    positions.fetched(&work, [batch(0, 20, 1), batch(20, 40, 1)].concat().into(), marks(40));
    assert!(positions.work(0).is_empty());
    let (first, room) = positions.next_noting_room();
    assert!(first.unwrap().is_ok() && room, "the first batch has left its queue");
    assert_eq!(positions.work(0).len(), 1);
}

#[test]
fn batches_of_partitions_take_turns() {
    let mut positions = positions();
    for partition in [0, 1, 2] {
        positions.seek(key(partition), Start::Offset(0));
    }
    for work in positions.work(0) {
        positions.fetched(&work, [batch(0, 2, 1), batch(2, 4, 1)].concat().into(), marks(4));
    }
    let order: Vec<u32> =
        std::iter::from_fn(|| positions.take_next()).map(|r| r.unwrap().partition).collect::<Vec<_>>();
    assert_eq!(order, [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
}

#[test]
fn failures_wait_refresh_stop_or_reset() {
    let mut positions = Positions::new(Settings { reset: OffsetReset::Earliest, ..settings() }, 1);
    positions.seek(key(0), Start::Offset(50));
    let work = only_work(&positions, 0);
    let mut fail = |code, marks, now| {
        let after = positions.failed(&work, ApiError::new(code, "x"), marks, "broker 1", now);
        (after, positions.next_event(), positions.take_next())
    };
    let (after, next, error) = fail(ErrorCode::NotLeader, None, 100);
    assert_eq!((after, error.is_none()), (After::Refresh, true));
    assert!(next.is_some_and(|at| (105..=110).contains(&at)));
    assert_eq!(fail(ErrorCode::OffsetNotAvailable, None, 200).0, After::Nothing);
    assert_eq!(fail(ErrorCode::Timeout, None, 300).0, After::Refresh, "no answer may mean a dead leader");
    let log_start = Marks { high_watermark: Some(90), log_start: 60 };
    assert!(fail(ErrorCode::OffsetOutOfRange, Some(log_start), 400).2.is_none());
    assert_eq!(only_work(&positions, 1_000).ask, Ask::Offset(Start::Earliest));
    positions.seek(key(0), Start::Offset(95));
    let work = only_work(&positions, 1_000);
    positions.failed(&work, ApiError::new(ErrorCode::OffsetOutOfRange, "x"), Some(log_start), "b", 1_000);
    assert!(matches!(positions.take_next(), Some(Err(Error::OffsetOutOfRange { offset: 95, .. }))));
    assert!(positions.work(u64::MAX).is_empty(), "it waits for a seek");
}

#[test]
fn an_unknown_topic_is_given_a_while() {
    let mut positions = positions();
    positions.seek(key(0), Start::Offset(0));
    let work = only_work(&positions, 0);
    let unknown = || ApiError::new(ErrorCode::UnknownTopic, "x");
    assert_eq!(positions.failed(&work, unknown(), None, "b", 1_000), After::Refresh);
    assert!(positions.take_next().is_none());
    positions.failed(&work, unknown(), None, "b", 1_000 + UNKNOWN_TOPIC_PATIENCE_MS);
    assert!(matches!(positions.take_next(), Some(Err(Error::Refused { .. }))));
}

#[test]
fn a_batch_that_cannot_be_read_stops_the_partition() {
    let mut positions = positions();
    positions.seek(key(0), Start::Offset(0));
    let work = only_work(&positions, 0);
    positions.fetched(&work, [batch(0, 2, 5), batch(2, 4, 4)].concat().into(), marks(4));
    assert_eq!(positions.take_next().unwrap().unwrap().offset, 0, "what came before is good");
    assert_eq!(positions.take_next().unwrap().unwrap().offset, 1);
    assert!(matches!(positions.take_next(), Some(Err(Error::Batch { .. }))), "the epoch falls");
    assert!(positions.work(u64::MAX).is_empty());

    positions.seek(key(0), Start::Offset(0));
    let work = only_work(&positions, 0);
    let mut cut = batch(0, 2, 1);
    cut.pop();
    positions.fetched(&work, cut.into(), marks(4));
    assert!(matches!(positions.take_next(), Some(Err(Error::Batch { .. }))), "cut off, and nothing before it");
}

#[derive(Debug, Clone)]
enum Step {
    Fetch(u32, u64, u64),
    Fail(u32, usize),
    Read(usize),
    Seek(u32, u64),
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u32..2, 0_u64..5, 1_u64..30).prop_map(|(p, back, n)| Step::Fetch(p, back, n)),
        3 => (0_u32..2, 0_usize..ErrorCode::ALL.len()).prop_map(|(p, c)| Step::Fail(p, c)),
        6 => (1_usize..40).prop_map(Step::Read),
        1 => (0_u32..2, 0_u64..100).prop_map(|(p, o)| Step::Seek(p, o)),
        2 => (1_u64..200).prop_map(Step::Tick),
    ]
}

proptest! {
    /// Against a model that counts: whatever answers and failures come, a partition hands out n, n+1, n+2, ... from its
    /// last seek on, and the queue's account returns to zero.
    #[test]
    fn hands_out_every_offset_once_and_in_order(steps in prop::collection::vec(step(), 1..120)) {
        let mut positions = positions();
        let mut expected = [0_u64, 0];
        let mut now = 0;
        for partition in [0, 1] {
            positions.seek(key(partition), Start::Offset(0));
        }
        for step in steps {
            let work_of = |positions: &Positions, partition| positions.work(now).into_iter().find(|w| w.key.partition == partition);
            match step {
                Step::Fetch(partition, back, count) => if let Some(work) = work_of(&positions, partition) {
                    let Ask::Records { offset, .. } = work.ask else { continue };
                    positions.asked(&work, TOPIC);
                    let from = offset.saturating_sub(back);
                    let middle = offset + count / 2 + 1;
                    let bytes = [batch(from, middle, 1), batch(middle, middle + count, 1)].concat();
                    positions.fetched(&work, bytes.into(), marks(middle + count));
                },
                Step::Fail(partition, code) => if let Some(work) = work_of(&positions, partition) {
                    positions.failed(&work, ApiError::new(ErrorCode::ALL[code], "x"), None, "b", now);
                },
                Step::Read(count) => for _ in 0..count {
                    if let Some(Ok(record)) = positions.take_next() {
                        let expected = &mut expected[record.partition as usize];
                        prop_assert_eq!(record.offset, *expected);
                        prop_assert_eq!(record.value.unwrap(), record.offset.to_string());
                        *expected += 1;
                    }
                },
                Step::Seek(partition, offset) => {
                    positions.seek(key(partition), Start::Offset(offset));
                    expected[partition as usize] = offset;
                }
                Step::Tick(ms) => now += ms,
            }
        }
        while positions.take_next().is_some() {}
        prop_assert_eq!(positions.queued, 0);
    }
}

#[test]
fn a_position_stays_in_its_topic_over_seeks_until_the_new_one_was_reported() {
    let (mut positions, other) = (positions(), Uuid::from_u128(8));
    positions.seek(key(0), Start::Offset(0));
    let work = only_work(&positions, 0);
    assert!(positions.asked(&work, TOPIC));
    positions.failed(&work, ApiError::new(ErrorCode::NotLeader, "x"), None, "b", 0);
    let work = only_work(&positions, 100);
    assert!(positions.asked(&work, other), "nothing was read of the first");
    positions.fetched(&work, batch(0, 5, 1).into(), marks(5));
    positions.seek(key(0), Start::Offset(2));
    assert!(!positions.asked(&only_work(&positions, 100), TOPIC));
    assert!(matches!(
        positions.take_next(),
        Some(Err(Error::TopicReplaced { was, is: TOPIC, offset: 2, .. })) if was == other
    ));
    assert!(positions.work(1_000_000).is_empty(), "it waits for a seek");
    positions.seek(key(0), Start::Earliest);
    assert!(positions.asked(&only_work(&positions, 0), TOPIC));
}
