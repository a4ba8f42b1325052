//! Stories of a consumer.

use crate::fake::{Fake, eventually};
use client::{Compression, Consumer, ConsumerConfig, ConsumerRecord, Error, OffsetReset, Start};
use futures_util::StreamExt;
use protocol::batch::BatchBuilder;
use protocol::error::ErrorCode;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

fn config(fake: &Fake) -> ConsumerConfig {
    ConsumerConfig::new(&fake.bootstrap()).unwrap().set("fetch.max.wait.ms", "100").unwrap()
}

fn batch(numbers: std::ops::Range<u64>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::Lz4);
    for n in numbers {
        builder.push(1_000 + n as i64, None, Some(n.to_string().as_bytes()), &[]).unwrap();
    }
    builder.build().unwrap()
}

async fn next(consumer: &mut Consumer) -> ConsumerRecord {
    tokio::time::timeout(Duration::from_secs(10), consumer.recv()).await.expect("a record in time").unwrap()
}

async fn next_error(consumer: &mut Consumer) -> Error {
    tokio::time::timeout(Duration::from_secs(10), consumer.recv()).await.expect("an error in time").unwrap_err()
}

fn number(record: &ConsumerRecord) -> u64 {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

/// A topic whose partition p holds 0..count, in batches of ten.
fn fill(fake: &Fake, partitions: u32, count: u64) {
    fake.topic("t", partitions);
    for partition in 0..partitions {
        for n in (0..count).step_by(10) {
            fake.append("t", partition, &batch(n..n + 10));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_each_offset_once_and_in_order_through_leader_changes() {
    let fake = Fake::start(3).await;
    fill(&fake, 4, 500);
    let small = config(&fake).set("max.partition.fetch.bytes", "300").unwrap();
    let mut consumer = Consumer::new(small);
    assert_eq!(consumer.assign("t", None, Start::Earliest).await.unwrap(), [0, 1, 2, 3]);
    let mut expected: BTreeMap<u32, u64> = (0..4).map(|p| (p, 0)).collect();
    for n in 0..4_000_u64 {
        if n % 40 == 0 {
            let moved = (n / 40 % 4) as u32;
            fake.lead("t", moved, (n / 160 % 3 + 1) as u32);
            if n < 2_000 {
                fake.append("t", moved, &batch(500 + n / 160 * 10..510 + n / 160 * 10));
            }
        }
        if n == 1_000 {
            fake.kill(2).await;
        }
        if n == 1_500 {
            fake.restart(2).await;
        }
        if expected.iter().all(|(p, next)| *next == fake.with("t", *p, |p| p.end())) && n >= 2_000 {
            break;
        }
        // A dead leader is replaced by the next step of this loop only, so step.
        let Ok(record) = tokio::time::timeout(Duration::from_millis(20), next(&mut consumer)).await else { continue };
        let want = expected.get_mut(&record.partition).unwrap();
        assert_eq!((record.offset, number(&record)), (*want, *want), "partition {}", record.partition);
        *want += 1;
        assert_eq!(consumer.position("t", record.partition), Some(*want));
    }
    for (partition, next) in expected {
        assert_eq!(next, fake.with("t", partition, |p| p.end()), "partition {partition} was not read to its end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begins_where_it_is_told() {
    let fake = Fake::start(2).await;
    fill(&fake, 2, 100);
    let mut consumer = Consumer::new(config(&fake));
    let begin = async |consumer: &mut Consumer, start| {
        consumer.assign("t", Some(&[1]), start).await.unwrap();
        next(consumer).await.offset
    };
    assert_eq!(begin(&mut consumer, Start::Offset(55)).await, 55, "inside a batch");
    assert_eq!(begin(&mut consumer, Start::Earliest).await, 0);
    assert_eq!(begin(&mut consumer, Start::Time(1_042)).await, 42);
    consumer.assign("t", Some(&[1]), Start::Latest).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(300), consumer.recv()).await;
    assert!(waiting.is_err(), "there is nothing after the end: {waiting:?}");
    fake.append("t", 1, &batch(100..110));
    assert_eq!(next(&mut consumer).await.offset, 100);
    assert_eq!(consumer.high_watermark("t", 1), Some(110));
    assert_eq!(consumer.offsets("t", None, Start::Latest).await.unwrap(), [(0, Some(100)), (1, Some(110))].into());
    assert_eq!(consumer.offsets("t", Some(&[0]), Start::Time(5_000)).await.unwrap(), [(0, None)].into());
    consumer.unassign("t", Some(&[1]));
    consumer.assign("t", Some(&[0]), Start::Time(5_000)).await.unwrap();
    eventually(|| consumer.position("t", 0) == Some(100)).await;
    fake.append("t", 0, &batch(100..101));
    assert_eq!(next(&mut consumer).await.offset, 100, "no record is that young, so it begins at the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seek_drops_what_was_fetched_before() {
    let fake = Fake::start(1).await;
    fill(&fake, 2, 100);
    let mut consumer = Consumer::new(config(&fake));
    consumer.assign("t", None, Start::Earliest).await.unwrap();
    next(&mut consumer).await;
    assert!(consumer.seek("t", 0, Start::Offset(77)));
    assert!(!consumer.seek("t", 9, Start::Earliest), "not assigned");
    let first = loop {
        let record = next(&mut consumer).await;
        if record.partition == 0 {
            break record.offset;
        }
    };
    assert_eq!(first, 77);
    consumer.unassign("t", None);
    assert!(tokio::time::timeout(Duration::from_millis(200), consumer.recv()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_the_log_it_stops_or_resets_as_told() {
    let fake = Fake::start(1).await;
    fill(&fake, 2, 100);
    fake.with("t", 0, |p| {
        p.log_start = 50;
        p.batches.drain(..5);
    });
    let mut strict = Consumer::new(config(&fake));
    strict.assign("t", None, Start::Offset(10)).await.unwrap();
    let mut others = 0;
    let error = loop {
        match strict.recv().await {
            Ok(record) => others += u32::from(record.partition == 1),
            Err(error) => break error,
        }
    };
    let text = "t/0: offset 10 is outside the log, which begins at 50 and can be read below 100; seek, or set auto.offset.reset";
    assert_eq!(error.to_string(), text);
    while others < 90 {
        assert_eq!(next(&mut strict).await.partition, 1, "only the other partition goes on");
        others += 1;
    }
    strict.seek("t", 0, Start::Offset(60));
    assert_eq!(next(&mut strict).await.offset, 60);

    let mut lenient = Consumer::new(config(&fake).offset_reset(OffsetReset::Earliest));
    lenient.assign("t", Some(&[0]), Start::Offset(10)).await.unwrap();
    assert_eq!(next(&mut lenient).await.offset, 50);
    lenient.seek("t", 0, Start::Offset(1_000));
    let error = next_error(&mut lenient).await;
    assert!(matches!(error, Error::OffsetOutOfRange { offset: 1_000, .. }), "earliest would repeat records: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_history_is_reported_and_not_read_over() {
    let fake = Fake::start(2).await;
    fill(&fake, 1, 100);
    let mut consumer = Consumer::new(config(&fake).offset_reset(OffsetReset::Latest));
    consumer.assign("t", None, Start::Earliest).await.unwrap();
    for _ in 0..100 {
        next(&mut consumer).await;
    }
    fake.with("t", 0, |p| {
        p.batches.truncate(7);
        p.cut_at = Some(70);
    });
    fake.lead("t", 0, 2);
    fake.append("t", 0, &batch(900..950));
    let error = next_error(&mut consumer).await;
    assert!(matches!(error, Error::LogTruncated { offset: 100, diverged_at: Some(70), .. }), "{error}");
    consumer.seek("t", 0, Start::Offset(70));
    let record = next(&mut consumer).await;
    assert_eq!((record.offset, number(&record), record.leader_epoch), (70, 900, Some(2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_batch_stops_its_partition() {
    let fake = Fake::start(1).await;
    fill(&fake, 1, 20);
    fake.with("t", 0, |p| {
        let mut bytes = p.batches[1].to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        p.batches[1] = bytes.into();
    });
    let mut consumer = Consumer::new(config(&fake));
    consumer.assign("t", None, Start::Earliest).await.unwrap();
    let mut read = 0;
    let error = loop {
        match consumer.recv().await {
            Ok(_) => read += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("checksum"), "{error}");
    assert_eq!(read, 10, "all before the damaged batch is handed out, nothing of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_leader_is_left_once_there_is_a_newer_one() {
    let fake = Fake::start(2).await;
    fill(&fake, 1, 20);
    let mut consumer = Consumer::new(config(&fake));
    fake.world.lock().silent_fetches.push(1);
    consumer.assign("t", None, Start::Earliest).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), consumer.recv()).await.is_err());
    fake.lead("t", 0, 2);
    let begun = Instant::now();
    assert_eq!(next(&mut consumer).await.offset, 0);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_fetching_back() {
    let fake = Fake::start(1).await;
    fake.topic("t", 1);
    let large: Vec<u8> = (0..100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for _ in 0..50 {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(0, None, Some(&large), &[]).unwrap();
        fake.append("t", 0, &builder.build().unwrap());
    }
    let mut consumer = Consumer::new(config(&fake).set("max.partition.fetch.bytes", "400000").unwrap());
    consumer.assign("t", None, Start::Earliest).await.unwrap();
    assert_eq!(next(&mut consumer).await.offset, 0);
    tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
    let fetches = fake.world.lock().fetch_requests;
    assert!(fetches <= 3, "{fetches} fetches although nobody reads");
    for offset in 1..50 {
        assert_eq!(next(&mut consumer).await.offset, offset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn is_a_stream_and_refuses_what_does_not_exist() {
    let fake = Fake::start(1).await;
    fill(&fake, 1, 30);
    let consumer = Consumer::new(config(&fake));
    let error = consumer.assign("nope", None, Start::Earliest).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
    let error = consumer.assign("t", Some(&[1]), Start::Earliest).await.unwrap_err();
    assert!(error.to_string().contains("partition is 1, allowed: 0 to 0"), "{error}");
    consumer.assign("t", None, Start::Earliest).await.unwrap();
    let read: Vec<u64> = consumer.take(30).map(|r| r.unwrap().offset).collect().await;
    assert_eq!(read, (0..30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_again_under_the_same_name_is_reported_and_not_read_on() {
    let fake = Fake::start(1).await;
    fill(&fake, 1, 20);
    let mut consumer = Consumer::new(config(&fake));
    consumer.assign("t", None, Start::Earliest).await.unwrap();
    for n in 0..20 {
        assert_eq!(number(&next(&mut consumer).await), n);
    }
    fill(&fake, 1, 50);
    let error = next_error(&mut consumer).await;
    assert!(matches!(error, Error::TopicReplaced { offset: 20, .. }), "{error}");
    assert!(consumer.seek("t", 0, Start::Earliest));
    assert_eq!(number(&next(&mut consumer).await), 0);
}

/// A broker that was deposed leads on in its own eyes for a while, and says so to whoever asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_never_goes_back_to_an_older_leader_epoch() {
    let fake = Fake::start(2).await;
    fill(&fake, 1, 10);
    let mut consumer = Consumer::new(config(&fake));
    consumer.assign("t", None, Start::Earliest).await.unwrap();
    for n in 0..10 {
        assert_eq!(next(&mut consumer).await.offset, n);
    }
    fake.lead("t", 0, 2);
    fake.append("t", 0, &batch(10..20));
    for n in 10..20 {
        assert_eq!(next(&mut consumer).await.offset, n);
    }
    // From here on every broker says what the deposed leader believes, which has records that nobody else has.
    let before = {
        let mut world = fake.world.lock();
        world.batch_no -= 1;
        let partition = &mut world.topics.get_mut("t").unwrap().partitions[0];
        (partition.leader, partition.epoch) = (1, 1);
        world.named.clear();
        world.fetch_requests
    };
    fake.append("t", 0, &batch(900..910));
    // It asks again and again.
    eventually(|| fake.world.lock().fetch_requests >= before + 3).await;
    assert!(consumer.try_recv().is_none(), "a record of the deposed leader was handed out");
    let named = std::mem::take(&mut fake.world.lock().named);
    assert!(named.iter().all(|(_, epoch)| *epoch == 2), "{named:?}");
    assert_eq!(consumer.high_watermark("t", 0), Some(20));
    // The next leader, of a higher epoch, is followed.
    {
        let mut world = fake.world.lock();
        world.batch_no += 2;
        let partition = &mut world.topics.get_mut("t").unwrap().partitions[0];
        (partition.leader, partition.epoch) = (1, 3);
        partition.batches.pop();
    }
    fake.append("t", 0, &batch(20..30));
    assert_eq!(number(&next(&mut consumer).await), 20);
    let named = std::mem::take(&mut fake.world.lock().named);
    assert!(named.iter().all(|(_, epoch)| [2, 3].contains(epoch)), "{named:?}");
}
