//! Clients under faults: writers whose every acknowledgement is written down, and an administrator who never rests.
//!
//! Owns the clients' loops. A writer never gives a number twice: a record whose fate is unknown stays unknown, and may
//! turn up in the log or not. Stops when told, after its records in flight were settled.

use super::stamp::Stamp;
use super::tape::{NOT_WRITTEN, Tape, code_of};
use crate::checker::event::{Answer, Op, Source};
use crate::wire;
use client::{Producer, ProducerConfig, ProducerRecord};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use protocol::rpc::pb::admin::v1::{AlterConfigsRequest, ConfigEntry, ResourceKind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many failures of each kind are printed: enough to see why, not so many that nothing else is seen.
const FAILURES_SHOWN: u64 = 5;

/// What the writers share.
#[derive(Debug)]
pub struct Shared {
    /// What clients asked and were told.
    pub tape: Tape,
    /// Acknowledged records.
    pub acknowledged: AtomicU64,
    /// Set to end the writers.
    pub stop: AtomicBool,
    /// Records certainly not written.
    pub not_written: AtomicU64,
    /// Records whose fate is unknown.
    pub unknown: AtomicU64,
    /// Administrative changes that were acknowledged.
    pub changes: AtomicU64,
    /// Heads of logs that were removed for certain.
    pub heads_removed: AtomicU64,
    /// What must not be and has no place in the history; empty at the end of a good run.
    pub wrong: Mutex<Vec<String>>,
}

impl Shared {
    /// Nothing written yet.
    pub fn new(tape: Tape) -> Self {
        Self {
            tape,
            acknowledged: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            not_written: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            heads_removed: AtomicU64::new(0),
            wrong: Mutex::new(vec![]),
        }
    }

    /// Something that must not be.
    ///
    /// # Panics
    /// Never: nobody panics while holding the list.
    pub fn accuse(&self, what: String) {
        eprintln!("{what}");
        self.wrong.lock().expect("nobody panics while holding it").push(what);
    }

    /// Acknowledged records so far.
    pub fn acks(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether clients are to end.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What a writer writes to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// Length of a value in bytes: small segments fill sooner with longer ones.
    pub value_len: usize,
    /// Records in flight per writer.
    pub in_flight: usize,
    /// What an acknowledgement is to mean: -1 for all, 1, 0. Each promises what it says and no more.
    pub acks: i8,
    /// Pause after each record; where nothing is waited for, nothing else holds a writer back.
    pub pause: Duration,
}

impl Target {
    /// Records of 120 bytes that every member of the ISR must have, as fast as it goes.
    pub fn new(topic: &str, partitions: u32, in_flight: usize) -> Self {
        let topic = topic.to_owned();
        Self { topic, partitions, value_len: 120, in_flight, acks: -1, pause: Duration::ZERO }
    }

    /// A producer for it.
    pub fn producer(&self, bootstrap: &str) -> Producer {
        patient_producer(bootstrap, if self.acks == -1 { "all".to_owned() } else { self.acks.to_string() }.as_str())
    }
}

/// A producer that does not give up while faults last: the test decides what is lost, not a deadline.
///
/// # Panics
/// Never: the options are known.
pub fn patient_producer(bootstrap: &str, acks: &str) -> Producer {
    let set = |config: ProducerConfig, key: &str, value: &str| config.set(key, value).expect("a known option in range");
    let mut config = ProducerConfig::new(bootstrap).expect("the harness's own addresses");
    for (key, value) in [
        ("acks", acks),
        ("linger.ms", "2"),
        ("batch.size", "8192"),
        ("delivery.timeout.ms", "180000"),
        ("max.block.ms", "180000"),
        ("request.timeout.ms", "10000"),
    ] {
        config = set(config, key, value);
    }
    Producer::new(config)
}

/// A rest between two operations of a client that is to be no load.
pub(super) async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::timeout(time, std::future::pending::<()>()).await.unwrap_or_default();
    }
}

/// Writes until told to stop; every acknowledgement goes into the history.
pub async fn write(shared: Arc<Shared>, producer: Producer, target: Target, writer: u32) {
    let mut in_flight = FuturesUnordered::new();
    let topic: Arc<str> = Arc::from(target.topic.as_str());
    let mut seq = 0;
    while !shared.stopping() {
        let stamp = Stamp { writer, seq };
        let partition = u32::try_from(seq % u64::from(target.partitions)).unwrap_or(0);
        seq += 1;
        let value = format!("{:<width$}", format!("{stamp} "), width = target.value_len);
        let key = shared.tape.key(&target.topic, partition);
        let of =
            shared.tape.recorder.invoke((writer, 1), Op::Send { key, values: vec![stamp.value()], acks: target.acks });
        match producer.send(ProducerRecord::new(topic.clone(), value).partition(partition)).await {
            Ok(delivery) => in_flight.push(async move { (stamp, of, delivery.await) }),
            Err(_) => {
                shared.tape.recorder.fail((writer, 1), of, NOT_WRITTEN);
                shared.not_written.fetch_add(1, Ordering::Relaxed);
            }
        }
        pause(target.pause).await;
        while in_flight.len() >= target.in_flight {
            let Some((stamp, of, outcome)) = in_flight.next().await else { break };
            settle(&shared, &target.topic, stamp, of, outcome);
        }
    }
    while let Some((stamp, of, outcome)) = in_flight.next().await {
        settle(&shared, &target.topic, stamp, of, outcome);
    }
}

fn settle(
    shared: &Shared,
    topic: &str,
    stamp: Stamp,
    of: u64,
    outcome: Result<client::Written, client::DeliveryFailure>,
) {
    let client = (stamp.writer, 1);
    match outcome {
        Ok(written) => {
            shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            let source = Source { epoch: written.leader_epoch, node: written.broker };
            let answer = Answer::Sent { base: written.offset, source };
            shared.tape.recorder.ok(client, of, answer);
        }
        Err(failure) => {
            let (definite, code) = code_of(&failure);
            let counter = if definite {
                shared.tape.recorder.fail(client, of, code);
                &shared.not_written
            } else {
                shared.tape.recorder.info(client, of, code);
                &shared.unknown
            };
            if counter.fetch_add(1, Ordering::Relaxed) < FAILURES_SHOWN {
                eprintln!("{topic}: {stamp} after {} attempts: {failure}", failure.attempts);
            }
        }
    }
}

/// Changes configs of topics without rest, several at a time, so that the metadata log grows and is compacted. Refusals
/// and silence while nobody leads are part of it.
pub async fn administer(shared: Arc<Shared>, bootstrap: String) {
    let addresses: Vec<String> = bootstrap.split(',').map(str::to_owned).collect();
    let mut under_way = FuturesUnordered::new();
    let mut turn: usize = 0;
    loop {
        while under_way.len() < 8 && !shared.stopping() {
            turn += 1;
            under_way.push(change(addresses[turn % addresses.len()].clone(), turn));
        }
        match under_way.next().await {
            Some(true) => {
                shared.changes.fetch_add(1, Ordering::Relaxed);
            }
            Some(false) => tokio::task::yield_now().await,
            None => return,
        }
    }
}

/// One change of a config that means nothing to the records. True if it was acknowledged.
async fn change(address: String, turn: usize) -> bool {
    let request = AlterConfigsRequest {
        kind: ResourceKind::ResourceTopic.into(),
        name: ["checked", "trimmed", "unsynced"][turn % 3].to_owned(),
        set: vec![ConfigEntry { key: "retention.ms".to_owned(), value: (600_000_000 + turn).to_string() }],
        unset: vec![],
        validate_only: false,
    };
    wire::call(wire::admin(&address).alter_configs(request)).await.is_ok()
}

/// Sets configs for the whole cluster, trying until it is acknowledged.
///
/// # Panics
/// When nobody acknowledges it in time.
pub async fn set_for_cluster(bootstrap: &str, configs: &[(&str, &str)]) {
    let set: Vec<ConfigEntry> =
        configs.iter().map(|(key, value)| ConfigEntry { key: (*key).to_owned(), value: (*value).to_owned() }).collect();
    crate::wait::eventually_async("the cluster's configs are set", || async {
        let address = bootstrap.split(',').next().unwrap_or_default();
        let request = AlterConfigsRequest {
            kind: ResourceKind::ResourceCluster.into(),
            set: set.clone(),
            ..AlterConfigsRequest::default()
        };
        wire::call(wire::admin(address).alter_configs(request)).await.map(|_| ())
    })
    .await;
}
