//! Readers that go along with the writers: what they are shown while faults last.
//!
//! * [`Session::consumer`]: names the newest leader epoch it has met, as consumers must (KIP-320), and asks every broker
//!   in turn: it must never be led back. * [`Session::listener`]: hears one broker only and names nothing, so that a
//!   leader that was deposed is heard for as long as it answers. * [`library`]: the product's own consumer.
//!
//! Owns where each stands. Every read goes into the history; each session is one client there, and a client's view must
//! never go back. Two sessions may see different things at one time: a deposed leader answers within its lease.

use super::read_back::{polled, take};
use super::stamp::Stamp;
use super::tape::source;
use super::workload::{Shared, pause};
use crate::checker::event::{Answer, NO_ANSWER, Op, Process, Source};
use crate::wire::{self, EARLIEST, LATEST};
use bytes::Bytes;
use client::{ConsumerConfig, ConsumerRecord, Start};
use protocol::error::{ApiError, ErrorCode};
use protocol::rpc::channel::Channel;
use protocol::rpc::pb::data::v1::data_client::DataClient;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The reader that goes along with the writers of a topic; the topic's number is added.
const CONSUMER: u32 = 1_100;

/// The first of those that listen to one broker.
const LISTENER: u32 = 1_200;

/// The product's consumer.
const LIBRARY: Process = (1_300, 1);

/// Pause between two rounds over all partitions: readers, not a load.
const PAUSE: Duration = Duration::from_millis(20);

/// One round in so many asks for the first and the next offset too.
const LIST_EVERY: usize = 5;

/// The product's consumer has caught up once nothing came for so long, after everybody stopped.
const SILENCE: Duration = Duration::from_secs(5);

/// Records of one partition that enter the history as one read of the product's consumer.
const CHUNK: usize = 256;

/// Where a session stands in one partition.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    next: u64,
    /// The newest leader epoch that was met.
    epoch: Option<u32>,
}

/// A broker, and a connection to it that is used again and again.
#[derive(Debug)]
struct Broker {
    address: String,
    client: DataClient<Channel>,
}

impl Broker {
    fn new(address: &str) -> Self {
        Self { address: address.to_owned(), client: wire::data(address) }
    }

    /// A connection that brings no answer may hang for longer than the fault that it met.
    fn heard(&mut self, error: &ApiError) {
        if matches!(error.code, ErrorCode::Timeout | ErrorCode::NotReachable) {
            self.client = wire::data(&self.address);
        }
    }
}

/// One client of the bare wire.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    process: Process,
    topic: &'static str,
    brokers: Vec<Broker>,
    /// Names the epoch that it has met.
    names: bool,
    at: Vec<Place>,
}

impl Session {
    /// Reads along as a consumer does: names epochs, asks every broker. `number` tells the sessions of topics apart.
    pub fn consumer(
        shared: Arc<Shared>,
        bootstrap: &str,
        number: u32,
        (topic, partitions): (&'static str, u32),
    ) -> Self {
        let brokers = bootstrap.split(',').map(Broker::new).collect();
        let at = vec![Place::default(); partitions as usize];
        Self { shared, process: (CONSUMER + number, 1), topic, brokers, names: true, at }
    }

    /// Listens to the `number`-th broker only, and takes it at its word.
    pub fn listener(shared: Arc<Shared>, address: &str, number: u32, (topic, partitions): (&'static str, u32)) -> Self {
        let at = vec![Place::default(); partitions as usize];
        let brokers = vec![Broker::new(address)];
        Self { shared, process: (LISTENER + number, 1), topic, brokers, names: false, at }
    }

    /// Reads from the first offset on, one partition after another, until told to stop.
    pub async fn run(mut self) {
        let (mut id, mut turn) = (None, 0);
        while !self.shared.stopping() {
            turn += 1;
            let broker = turn % self.brokers.len();
            let Some(topic) = id.clone() else {
                let known = wire::routing(&self.brokers[broker].address, self.topic).await.ok();
                id = known.and_then(|routing| Some(routing.topics.first()?.topic_id.clone()));
                pause(PAUSE).await;
                continue;
            };
            for partition in (0_u32..).take(self.at.len()) {
                self.read(broker, &topic, partition).await;
                if turn.is_multiple_of(LIST_EVERY) {
                    self.list(broker, &topic, partition, turn.is_multiple_of(2)).await;
                }
            }
            pause(PAUSE).await;
        }
    }

    fn named(&self, partition: u32) -> Option<u32> {
        self.at[partition as usize].epoch.filter(|_| self.names)
    }

    async fn read(&mut self, broker: usize, topic: &Bytes, partition: u32) {
        let from = self.at[partition as usize].next;
        let tape = &self.shared.tape;
        let op = Op::Poll { key: tape.key(self.topic, partition), from: Some(from) };
        let of = tape.recorder.invoke(self.process, op);
        let client = self.brokers[broker].client.clone();
        let answer = wire::fetch_in(client, topic.clone(), partition, from, self.named(partition)).await;
        let read = answer.and_then(|(bytes, state)| {
            let records = take(&bytes, from).map_err(|why| ApiError::new(ErrorCode::CorruptMessage, why))?;
            Ok((records, state))
        });
        match read {
            Ok((records, state)) => {
                let next = records.last().map_or(from, |(offset, _)| offset + 1);
                tape.recorder.ok(self.process, of, polled(records, &state));
                let place = &mut self.at[partition as usize];
                *place = Place { next, epoch: place.epoch.max(Some(state.leader_epoch)) };
            }
            Err(error) => {
                tape.recorder.info(self.process, of, NO_ANSWER);
                self.refused(broker, topic, partition, &error).await;
            }
        }
    }

    /// What a refusal teaches: of a newer leader, or that the head was dropped.
    async fn refused(&mut self, broker: usize, topic: &Bytes, partition: u32, error: &ApiError) {
        self.brokers[broker].heard(error);
        match error.code {
            ErrorCode::CorruptMessage => {
                let address = &self.brokers[broker].address;
                self.shared.accuse(format!("{}/{partition}: {address} gave what cannot be read: {error}", self.topic));
            }
            ErrorCode::FencedLeaderEpoch => {
                let routing = wire::routing(&self.brokers[broker].address, self.topic).await;
                let routing = routing.unwrap_or_default();
                let known = routing.topics.first().and_then(|t| t.partitions.iter().find(|p| p.partition == partition));
                let place = &mut self.at[partition as usize];
                place.epoch = place.epoch.max(known.map(|partition| partition.leader_epoch));
            }
            ErrorCode::OffsetOutOfRange => {
                if let Some(start) = self.list(broker, topic, partition, false).await {
                    let place = &mut self.at[partition as usize];
                    place.next = place.next.max(start);
                }
            }
            _ => {}
        }
    }

    /// The next offset, or the first.
    async fn list(&mut self, broker: usize, topic: &Bytes, partition: u32, latest: bool) -> Option<u64> {
        let tape = &self.shared.tape;
        let op = Op::ListOffset { key: tape.key(self.topic, partition), latest };
        let of = tape.recorder.invoke(self.process, op);
        let which = if latest { LATEST } else { EARLIEST };
        let client = self.brokers[broker].client.clone();
        match wire::list(client, topic.clone(), partition, which, self.named(partition)).await {
            Ok((offset, state)) => {
                tape.recorder.ok(self.process, of, Answer::Offset { offset, source: source(&state) });
                let place = &mut self.at[partition as usize];
                place.epoch = place.epoch.max(Some(state.leader_epoch));
                Some(offset)
            }
            Err(error) => {
                tape.recorder.info(self.process, of, NO_ANSWER);
                self.brokers[broker].heard(&error);
                None
            }
        }
    }
}

/// Reads a topic with the product's consumer until it is told to stop and has caught up with what is acknowledged then.
/// An error of its own is a finding: nothing of the topic is ever lost or removed. Returns the next offset of each
/// partition.
pub async fn library(shared: Arc<Shared>, bootstrap: String, topic: &'static str) -> BTreeMap<u32, u64> {
    let config = ConsumerConfig::new(&bootstrap).expect("the harness's own addresses");
    let mut consumer = client::Consumer::new(config);
    let mut next = BTreeMap::new();
    while let Err(error) = consumer.assign(topic, None, Start::Earliest).await {
        if shared.stopping() {
            shared.accuse(format!("the consumer could not begin: {error}"));
            return next;
        }
    }
    loop {
        let wait = tokio::time::timeout(SILENCE, consumer.recv()).await;
        let Ok(first) = wait else {
            if shared.stopping() {
                return next;
            }
            continue;
        };
        let mut chunk: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        let more = std::iter::from_fn(|| consumer.try_recv()).take(CHUNK);
        for item in std::iter::once(first).chain(more) {
            match item.map_err(|error| error.to_string()).and_then(|record| place(&record)) {
                Ok((partition, at)) => chunk.entry(partition).or_default().push(at),
                Err(why) => shared.accuse(format!("the consumer: {why}")),
            }
        }
        for (partition, records) in chunk {
            let key = shared.tape.key(topic, partition);
            // It began with the first offset, and no head is removed: it may pass over nothing.
            let from = (!next.contains_key(&partition)).then_some(0);
            next.extend(records.last().map(|(offset, _)| (partition, offset + 1)));
            let of = shared.tape.recorder.invoke(LIBRARY, Op::Poll { key, from });
            let (high_watermark, log_start) = (None, Some(0));
            let answer = Answer::Polled { records, high_watermark, log_start, source: Source::default() };
            shared.tape.recorder.ok(LIBRARY, of, answer);
        }
    }
}

fn place(record: &ConsumerRecord) -> Result<(u32, (u64, u64)), String> {
    let stamp: Stamp = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).parse()?;
    Ok((record.partition, (record.offset, stamp.value())))
}
