//! Stories of a producer.

use crate::fake::{Fake, Fault, eventually};
use client::{Acks, Delivery, DeliveryFailure, Effect, Error, Producer, ProducerConfig, ProducerRecord, Written};
use futures_util::future::join_all;
use protocol::error::ErrorCode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn config(fake: &Fake) -> ProducerConfig {
    ProducerConfig::new(&fake.bootstrap()).unwrap().set("linger.ms", "1").unwrap()
}

async fn send(producer: &Producer, record: ProducerRecord) -> Delivery {
    producer.send(record).await.unwrap()
}

async fn deliver(producer: &Producer, record: ProducerRecord) -> Result<Written, DeliveryFailure> {
    send(producer, record).await.await
}

fn numbered(n: usize) -> ProducerRecord {
    ProducerRecord::new("t", n.to_string()).key(format!("k{}", n % 17))
}

/// Per partition: values without repeats are in the order sent.
fn assert_first_occurrences_in_order(fake: &Fake, partitions: u32, sent: usize) {
    let mut seen = 0;
    for partition in 0..partitions {
        let values: Vec<usize> = fake.with("t", partition, |p| p.values()).iter().map(|v| v.parse().unwrap()).collect();
        let mut highest = None;
        for value in values {
            if highest.is_none_or(|h| value > h) {
                highest = Some(value);
                seen += 1;
            }
        }
    }
    assert_eq!(seen, sent, "a record is missing, or a first occurrence is out of order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_tell_the_offsets_in_the_log() {
    let fake = Fake::start(3).await;
    fake.topic("t", 6);
    for compression in ["none", "lz4", "zstd"] {
        let producer = Producer::new(config(&fake).set("compression.type", compression).unwrap());
        let mut deliveries = Vec::new();
        for n in 0..2_000 {
            deliveries.push(send(&producer, numbered(n)).await);
        }
        let written = join_all(deliveries).await;
        let stored: Vec<Vec<String>> = (0..6).map(|p| fake.with("t", p, |p| p.values())).collect();
        for (n, written) in written.into_iter().enumerate() {
            let Written { partition, offset, .. } = written.unwrap();
            assert_eq!(stored[partition as usize][offset.unwrap() as usize], n.to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_cost_duplicates_but_no_record_and_no_order() {
    let fake = Fake::start(3).await;
    fake.topic("t", 4);
    let reports = Arc::new(AtomicU64::new(0));
    let counted = reports.clone();
    let producer = Producer::with_reports(
        config(&fake).set("batch.size", "200").unwrap(),
        Arc::new(move |report| {
            counted.fetch_add(u64::from(report.records), Ordering::Relaxed);
        }),
    );
    let mut deliveries = Vec::new();
    for n in 0..3_000 {
        if n % 100 == 0 {
            use Fault::{LoseAnswer, LoseRequest, Refuse, RefuseAfterAppend};
            let codes = [ErrorCode::NotEnoughReplicasAfterAppend, ErrorCode::Overloaded, ErrorCode::Timeout];
            let faults =
                [LoseAnswer, RefuseAfterAppend(codes[0]), Refuse(codes[1]), LoseRequest, RefuseAfterAppend(codes[2])];
            fake.script([faults[n / 100 % faults.len()]]);
        }
        deliveries.push(send(&producer, numbered(n)).await);
    }
    for written in join_all(deliveries).await {
        written.unwrap();
    }
    assert_first_occurrences_in_order(&fake, 4, 3_000);
    let stored: usize = (0..4).map(|p| fake.with("t", p, |p| p.values().len())).sum();
    assert!(stored > 3_000, "lost answers were scripted, so something is stored twice");
    assert_eq!(reports.load(Ordering::Relaxed), 3_000, "each record is reported once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_leaders_with_and_without_hints() {
    for hints in [true, false] {
        let fake = Fake::start(3).await;
        fake.topic("t", 3);
        fake.world.lock().hints = hints;
        let producer = Producer::new(config(&fake).set("batch.size", "300").unwrap());
        let mut deliveries = Vec::new();
        for n in 0..2_000 {
            if n % 50 == 0 {
                fake.lead("t", (n / 50 % 3) as u32, (n / 150 % 3 + 1) as u32);
            }
            deliveries.push(send(&producer, numbered(n)).await);
        }
        for written in join_all(deliveries).await {
            written.unwrap();
        }
        assert_first_occurrences_in_order(&fake, 3, 2_000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_left_for_the_next_one_and_taken_back() {
    let fake = Fake::start(3).await;
    fake.topic("t", 1);
    let producer = Producer::new(config(&fake));
    deliver(&producer, numbered(0)).await.unwrap();
    fake.kill(1).await;
    let waiting = send(&producer, numbered(1)).await;
    fake.lead("t", 0, 0);
    let begun = Instant::now();
    fake.lead("t", 0, 2);
    waiting.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    fake.restart(1).await;
    fake.kill(2).await;
    fake.lead("t", 0, 1);
    deliver(&producer, numbered(2)).await.unwrap();
    assert_first_occurrences_in_order(&fake, 1, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_leader_is_left_once_there_is_a_newer_one() {
    let fake = Fake::start(2).await;
    fake.topic("t", 1);
    let producer = Producer::new(config(&fake));
    deliver(&producer, numbered(0)).await.unwrap();
    fake.script([Fault::Silence]);
    let waiting = send(&producer, numbered(1)).await;
    let request_seen = || fake.world.lock().produce_requests == 2;
    eventually(request_seen).await;
    fake.lead("t", 0, 2);
    let begun = Instant::now();
    waiting.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_not_written_only_if_nothing_can_have_been_written() {
    let fake = Fake::start(1).await;
    fake.topic("t", 1);
    let producer = Producer::new(config(&fake).set("delivery.timeout.ms", "400").unwrap());
    deliver(&producer, numbered(0)).await.unwrap();

    fake.script([Fault::Refuse(ErrorCode::CorruptMessage)]);
    let failure = deliver(&producer, numbered(1)).await.unwrap_err();
    assert_eq!((failure.effect, failure.attempts), (Effect::NotWritten, 1));
    assert_eq!(failure.error.code(), Some(ErrorCode::CorruptMessage));
    assert_eq!(failure.record.unwrap().value.as_deref(), Some(&b"1"[..]));

    fake.script(std::iter::repeat_n(Fault::Refuse(ErrorCode::NotEnoughReplicas), 1_000));
    let failure = deliver(&producer, numbered(2)).await.unwrap_err();
    assert_eq!(failure.effect, Effect::NotWritten);
    assert!(matches!(&failure.error, Error::Timeout { last, .. } if last.contains("NotEnoughReplicas")), "{failure}");
    fake.world.lock().faults.clear();
    assert_eq!(fake.with("t", 0, |p| p.values()), ["0"]);

    fake.script([Fault::LoseRequest]);
    fake.script(std::iter::repeat_n(Fault::Refuse(ErrorCode::NotEnoughReplicas), 1_000));
    let failure = deliver(&producer, numbered(3)).await.unwrap_err();
    assert_eq!(failure.effect, Effect::Unknown, "the first attempt's answer was lost");
    fake.world.lock().faults.clear();

    fake.lead("t", 0, 0);
    let failure = deliver(&producer, numbered(4)).await.unwrap_err();
    assert_eq!(failure.effect, Effect::NotWritten, "no leader, so it was never sent");
    assert!(matches!(failure.error, Error::Timeout { .. } | Error::Refused { .. }), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_buffer_holds_senders_back_and_lets_them_go_on() {
    let fake = Fake::start(1).await;
    fake.topic("t", 1);
    let producer = Producer::new(config(&fake).set("buffer.memory", "65536").unwrap());
    producer.prepare(&"t".into(), Duration::from_secs(5)).await.unwrap();
    fake.lead("t", 0, 0);
    let record = || ProducerRecord::new("t", vec![b'x'; 10_000]);
    let mut deliveries = Vec::new();
    let refused = loop {
        match producer.try_send(record()) {
            Ok(delivery) => deliveries.push(delivery),
            Err(refused) => break refused,
        }
    };
    assert_eq!(deliveries.len(), 6);
    assert!(matches!(refused.error, Error::BufferFull { limit: 65_536 }) && refused.error.is_retriable());
    assert_eq!(refused.record.value.map(|v| v.len()), Some(10_000), "the record comes back");
    let blocked = producer.send(record());
    tokio::pin!(blocked);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut blocked).await.is_err(), "it waits");
    fake.lead("t", 0, 1);
    blocked.await.unwrap().await.unwrap();
    for written in join_all(deliveries).await {
        written.unwrap();
    }
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_records_are_refused_with_field_value_and_limit() {
    let fake = Fake::start(1).await;
    fake.topic("t", 2);
    let producer = Producer::new(config(&fake));
    let error = producer.send(ProducerRecord::new("nope", "v")).await.unwrap_err().error;
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
    assert!(error.to_string().contains("nope"), "{error}");
    let error = producer.send(ProducerRecord::new("t", "v").partition(2)).await.unwrap_err().error;
    assert!(error.to_string().contains("partition is 2, allowed: 0 to 1"), "{error}");
    let huge = vec![b'x'; 1_100_000];
    let error = producer.send(ProducerRecord::new("t", huge.clone())).await.unwrap_err().error;
    assert!(error.to_string().contains("exceeds the limit of 1048588 bytes"), "{error}");

    let squeezed = Producer::new(config(&fake).set("compression.type", "lz4").unwrap());
    deliver(&squeezed, ProducerRecord::new("t", huge)).await.expect("it compresses to almost nothing");
    let noise: Vec<u8> = (0..1_100_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let failure = deliver(&squeezed, ProducerRecord::new("t", noise.clone())).await.unwrap_err();
    assert_eq!(failure.effect, Effect::NotWritten);
    assert!(failure.error.to_string().contains("exceeds the limit"), "{failure}");
    assert_eq!(failure.record.unwrap().value.as_deref(), Some(&noise[..]), "the record comes back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_behind_the_same_address_is_refused() {
    let fake = Fake::start(1).await;
    fake.topic("t", 1);
    let producer = Producer::new(config(&fake).set("delivery.timeout.ms", "2000").unwrap());
    deliver(&producer, numbered(0)).await.unwrap();
    fake.kill(1).await;
    fake.world.lock().cluster_id = uuid::Uuid::new_v4();
    fake.restart(1).await;
    let failure = deliver(&producer, numbered(1)).await.unwrap_err();
    assert_eq!(failure.error.code(), Some(ErrorCode::WrongCluster), "{failure}");
    assert_eq!(fake.with("t", 0, |p| p.values()), ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_again_gets_the_records_meant_for_its_name() {
    let fake = Fake::start(1).await;
    fake.topic("t", 1);
    let producer = Producer::new(config(&fake));
    deliver(&producer, numbered(0)).await.unwrap();
    fake.topic("t", 1);
    deliver(&producer, numbered(1)).await.unwrap();
    assert_eq!(fake.with("t", 0, |p| p.values()), ["1"]);
    fake.world.lock().topics.clear();
    fake.world.lock().batch_no += 1;
    let failure = match producer.send(numbered(2)).await {
        Ok(delivery) => delivery.await.unwrap_err().error,
        Err(refused) => refused.error,
    };
    assert_eq!(failure.code(), Some(ErrorCode::UnknownTopic), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_waits_for_what_was_sent_and_close_settles_the_rest() {
    let fake = Fake::start(1).await;
    fake.topic("t", 1);
    let slow = || config(&fake).set("linger.ms", "60000").unwrap();
    let producer = Producer::new(slow());
    let delivery = send(&producer, numbered(0)).await;
    producer.flush().await;
    assert_eq!(futures_util::FutureExt::now_or_never(delivery).unwrap().unwrap().offset, Some(0));

    let unsent = send(&producer, numbered(1)).await;
    drop(producer);
    let failure = unsent.await.unwrap_err();
    assert_eq!((failure.effect, failure.record.is_some()), (Effect::NotWritten, true));

    let producer = Producer::new(slow());
    fake.script([Fault::Silence]);
    let silent = send(&producer, numbered(2)).await;
    assert!(!producer.close(Duration::from_millis(300)).await);
    assert_eq!(silent.await.unwrap_err().effect, Effect::Unknown);
    assert_eq!(fake.with("t", 0, |p| p.values()), ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_zero_resolves_when_sent() {
    let fake = Fake::start(1).await;
    fake.topic("t", 1);
    let producer = Producer::new(config(&fake).acks(Acks::None));
    assert_eq!(deliver(&producer, numbered(0)).await.unwrap().offset, None);
    eventually(|| fake.with("t", 0, |p| p.values()) == ["0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_in_flight_settle_each_batch_once() {
    let fake = Fake::start(2).await;
    fake.topic("t", 2);
    let options = config(&fake).set("max.in.flight", "5").unwrap().set("batch.size", "100").unwrap();
    let producer = Producer::new(options);
    let mut deliveries = Vec::new();
    for n in 0..1_000 {
        if n % 90 == 0 {
            fake.script([Fault::LoseAnswer]);
        }
        deliveries.push(send(&producer, numbered(n)).await);
    }
    let mut stored: BTreeMap<(u32, u64), usize> = BTreeMap::new();
    for (n, written) in join_all(deliveries).await.into_iter().enumerate() {
        let written = written.unwrap();
        assert!(stored.insert((written.partition, written.offset.unwrap()), n).is_none(), "two records at one offset");
    }
    let logs: Vec<Vec<String>> = (0..2).map(|p| fake.with("t", p, |p| p.values())).collect();
    for ((partition, offset), n) in stored {
        assert_eq!(logs[partition as usize][offset as usize], n.to_string());
    }
}
