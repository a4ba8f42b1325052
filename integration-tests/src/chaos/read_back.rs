//! Everything read again at the end, from the leaders, up to their high watermarks.
//!
//! Owns the reading, and writes down each read as a poll; judges nothing. Uses the bare wire client, so that a mistake of the consumer cannot hide one of the
//! broker.

use super::stamp::{Partition, Stamp};
use super::tape::{Tape, source};
use crate::checker::event::{Answer, NO_ANSWER, Op, Process};
use crate::wait::{eventually_async, within_patience_async};
use crate::wire;
use bytes::Bytes;
use protocol::batch::{Limits, batches, records};
use protocol::rpc::pb::data::v1::{DataState, RoutingPartition, RoutingResponse};
use std::collections::BTreeMap;

/// The reader in the history.
const READER: Process = (1_000, 1);

/// One partition as read at the end.
#[derive(Debug, Default, Clone)]
pub struct ReadBack {
    /// The first offset that exists.
    pub log_start: u64,
    /// The offset after the last record read.
    pub upto: u64,
}

/// Where a partition is led now.
#[derive(Debug, Clone)]
pub struct Led {
    /// Number within the topic.
    pub partition: u32,
    /// The leader.
    pub leader_id: u32,
    /// The leader's client address.
    pub leader: String,
    /// ISR and replicas, to see whether the partition is whole.
    pub isr: Vec<u32>,
    /// All replicas.
    pub replicas: Vec<u32>,
}

/// The topic's id and its partitions, once every partition has a leader and a full ISR.
///
/// # Panics
/// When that does not come in time.
pub async fn whole_topic(bootstrap: &str, topic: &str) -> (Bytes, Vec<Led>) {
    becomes_whole(bootstrap, topic).await.unwrap_or_else(|why| panic!("{why}"))
}

/// The same for a caller that has something to do when it does not come.
///
/// # Errors
/// What was missing when patience ended.
pub async fn becomes_whole(bootstrap: &str, topic: &str) -> Result<(Bytes, Vec<Led>), String> {
    let what = format!("every partition of {topic} has a leader and all its replicas");
    within_patience_async(&what, || first_answer(bootstrap, topic, led)).await
}

/// What `take` makes of the first broker's answer that it can use.
async fn first_answer<T>(
    bootstrap: &str,
    topic: &str,
    take: impl Fn(&RoutingResponse) -> Result<T, String>,
) -> Result<T, String> {
    let mut last = "no broker answered".to_owned();
    for address in bootstrap.split(',') {
        match wire::routing(address, topic).await.and_then(|routing| take(&routing)) {
            Ok(found) => return Ok(found),
            Err(why) => last = why,
        }
    }
    Err(last)
}

pub(crate) fn led(routing: &RoutingResponse) -> Result<(Bytes, Vec<Led>), String> {
    let (topic_id, partitions) = each_led(routing)?;
    Ok((topic_id, partitions.into_iter().map(|(_, led)| led.and_then(whole)).collect::<Result<_, _>>()?))
}

fn whole(led: Led) -> Result<Led, String> {
    if led.isr.len() < led.replicas.len() {
        return Err(format!("partition {}: ISR {:?} of {:?}", led.partition, led.isr, led.replicas));
    }
    Ok(led)
}

/// A partition's number, and who leads it, if anybody does.
type Numbered = (u32, Result<Led, String>);

/// The topic's id, and each partition with who leads it, if anybody does.
fn each_led(routing: &RoutingResponse) -> Result<(Bytes, Vec<Numbered>), String> {
    let address = |id: u32| {
        let broker = routing.brokers.iter().find(|broker| broker.id == id && !broker.fenced)?;
        let client = broker.client.as_ref()?;
        Some(format!("{}:{}", client.host, client.port))
    };
    let topic = routing.topics.first().ok_or("no topic in the answer")?;
    if let Some(error) = &topic.error {
        return Err(error.message.clone());
    }
    let led = |partition: &RoutingPartition| {
        let (number, isr, replicas) = (partition.partition, partition.isr.clone(), partition.replicas.clone());
        let leader_id = partition.leader_id;
        match address(leader_id) {
            Some(leader) => Ok(Led { partition: number, leader_id, leader, isr, replicas }),
            None => Err(format!("partition {number}: no leader in reach, ISR {isr:?} of {replicas:?}")),
        }
    };
    let partitions = topic.partitions.iter().map(|partition| (partition.partition, led(partition)));
    Ok((topic.topic_id.clone(), partitions.collect()))
}

/// Reads a whole topic; every read goes into the history.
///
/// # Panics
/// When a leader does not answer in time, or a batch cannot be decoded.
pub async fn read_topic(tape: &Tape, bootstrap: &str, topic: &str) -> BTreeMap<Partition, ReadBack> {
    let (id, partitions) = whole_topic(bootstrap, topic).await;
    let mut read = BTreeMap::new();
    for led in partitions {
        let back = read_partition(tape, bootstrap, topic, &id, led.partition).await;
        read.insert((topic.to_owned(), led.partition), back);
    }
    read
}

/// Reads what can be read of a topic that did not become whole: each partition once, from the leader that it has. So that
/// what was lost is seen to be lost, and not hidden behind what is out of reach.
///
/// # Errors
/// When no broker says who leads.
pub async fn read_remains(tape: &Tape, bootstrap: &str, topic: &str) -> Result<(), String> {
    let (id, partitions) = first_answer(bootstrap, topic, each_led).await?;
    for (partition, led) in partitions {
        let read = match led {
            Ok(led) => read_from(tape, &led.leader, topic, &id, partition).await.map(|_| ()),
            Err(why) => Err(why),
        };
        if let Err(why) = read {
            eprintln!("{topic}/{partition} was not read to its end: {why}");
        }
    }
    Ok(())
}

async fn read_partition(tape: &Tape, bootstrap: &str, topic: &str, id: &Bytes, partition: u32) -> ReadBack {
    let what = format!("{topic}/{partition} can be read to its high watermark");
    // Leadership may still move after the last fault: each try asks again who leads.
    eventually_async(&what, || async {
        let (_, partitions) = whole_topic(bootstrap, topic).await;
        let leader = &partitions.iter().find(|led| led.partition == partition).ok_or("no such partition")?.leader;
        read_from(tape, leader, topic, id, partition).await
    })
    .await
}

async fn read_from(tape: &Tape, leader: &str, topic: &str, id: &Bytes, partition: u32) -> Result<ReadBack, String> {
    let key = tape.key(topic, partition);
    let log_start = wire::log_start(leader, id.clone(), partition).await?;
    let mut next = log_start;
    loop {
        let from = next;
        let of = tape.recorder.invoke(READER, Op::Poll { key, from: Some(from) });
        let fetched = wire::fetch(leader, id.clone(), partition, from).await;
        let (bytes, state) = fetched.inspect_err(|_| tape.recorder.info(READER, of, NO_ANSWER))?;
        let records = take(&bytes, from)?;
        next = records.last().map_or(from, |(offset, _)| offset + 1);
        let empty = records.is_empty();
        tape.recorder.ok(READER, of, polled(records, &state));
        let high_watermark = u64::try_from(state.high_watermark).ok();
        let high_watermark = high_watermark.ok_or("the high watermark is not known yet")?;
        if next >= high_watermark {
            return Ok(ReadBack { log_start, upto: next });
        }
        if empty {
            return Err(format!("nothing at {next}, high watermark {high_watermark}"));
        }
    }
}

pub(crate) fn polled(records: Vec<(u64, u64)>, state: &DataState) -> Answer {
    let high_watermark = u64::try_from(state.high_watermark).ok();
    Answer::Polled { records, high_watermark, log_start: Some(state.log_start), source: source(state) }
}

/// Decodes fetched batches from offset `next` on.
pub(crate) fn take(bytes: &Bytes, next: u64) -> Result<Vec<(u64, u64)>, String> {
    let mut found = Vec::new();
    for batch in batches(bytes) {
        let batch = batch.map_err(|error| error.to_string())?;
        for stored in records(&batch, &Limits::default()).map_err(|error| error.to_string())? {
            let stored = stored.map_err(|error| error.to_string())?;
            if stored.offset < next {
                continue; // the batch began before the offset asked for
            }
            let value = stored.record.value.unwrap_or_default();
            let stamp: Stamp = String::from_utf8_lossy(&value).parse()?;
            found.push((stored.offset, stamp.value()));
        }
    }
    Ok(found)
}
