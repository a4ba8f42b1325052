//! The clients of a run, each on a host of its own: writers, readers, one that gives the register values and some that ask
//! for metadata, one that changes the voters.
//!
//! Owns: what clients do and what they write down. Never: reaches into a node; they know addresses only.
//! Invariant: what a client writes down was told to it by an answer, or is a question it is about to ask.

mod metadata;
mod reading;

use super::links::Links;
use super::nodes::{Cluster, Kind, spec};
use super::record::Shared;
use crate::chaos::random::Random;
use crate::chaos::stamp::Stamp;
use crate::chaos::tape::{NOT_WRITTEN, code_of};
use crate::checker::event::{Answer, Op, Process, Source};
use client::admin::{wire, wire_common};
use client::{Admin, ClientConfig, Error, NewTopic, Producer, ProducerConfig, ProducerRecord};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use protocol::error::ErrorCode;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The topic that records go to.
pub const TOPIC: &str = "records";
/// How the phases of a run are told to the clients.
#[derive(Debug, Default)]
pub struct Stage {
    /// The topics exist.
    pub ready: Cell<bool>,
    /// Writers and askers stop.
    pub stop: Cell<bool>,
    /// Writers and askers that have stopped.
    pub stopped: Cell<usize>,
    /// Everything was read back.
    pub read: Cell<bool>,
    /// Changes of voters to be made.
    pub changes: RefCell<VecDeque<VoterWish>>,
}

/// A change of voters, as far as the nemesis decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoterWish {
    /// One more.
    Add,
    /// One less.
    Remove,
    /// One for another.
    Replace,
}

/// What every client has.
#[derive(Clone)]
pub struct Client {
    /// The cluster, for addresses.
    pub cluster: Rc<Cluster>,
    /// What it writes down.
    pub record: Shared,
    /// Where it is.
    pub links: Arc<Links>,
    /// The name of its host.
    pub host: String,
    /// Its number in the history.
    pub number: u32,
    /// The phases.
    pub stage: Rc<Stage>,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Its own choices.
    pub seed: u64,
}

/// A record on its way.
#[derive(Debug, Clone, Copy)]
struct Sent {
    stamp: Stamp,
    partition: u32,
    of: u64,
    /// It was sent after the faults had ended.
    healed: bool,
}

/// Lets simulated time pass: the pace of a client. Nobody waits for it.
async fn simulated_pause(time: Duration) {
    tokio::time::sleep(time).await;
}

fn now() -> Duration {
    super::machine::simulated_now().unwrap_or_default()
}

fn text(error: &Error) -> String {
    error.to_string().split(';').next().unwrap_or_default().to_owned()
}

impl Client {
    fn config(&self, bootstrap: &str) -> ClientConfig {
        let config = ClientConfig::new(bootstrap).and_then(|c| c.set("request.timeout.ms", "3000"));
        config.expect("legal options")
    }

    fn note(&self, what: &str) {
        self.record.borrow_mut().note(now(), what);
    }

    fn process(&self) -> Process {
        (self.number, 1)
    }

    /// It runs on its host from now on.
    pub fn begins(&self) {
        self.links.begins(&self.host);
    }

    async fn ready(&self) {
        while !self.stage.ready.get() {
            simulated_pause(Duration::from_millis(100)).await;
        }
    }

    /// Makes the topics.
    async fn make_topics(&self, replicas: u32, policy: &str) {
        let admin = Admin::new(self.config(&self.cluster.bootstrap(Kind::Broker)));
        let topic = |name: &str, partitions| NewTopic {
            name: name.to_owned(),
            partitions,
            replicas,
            configs: vec![
                ("min.insync.replicas".to_owned(), 2.min(replicas).to_string()),
                ("flush.policy".to_owned(), policy.to_owned()),
            ],
        };
        for topic in [topic(TOPIC, self.partitions), topic(metadata::REGISTER, 1)] {
            while let Err(error) = admin.create_topic(&topic, false).await {
                if error.code() == Some(ErrorCode::TopicExists) {
                    break;
                }
                self.note(&format!("topic {} not yet: {}", topic.name, text(&error)));
                simulated_pause(Duration::from_millis(200)).await;
            }
            self.note(&format!("topic {} exists", topic.name));
        }
        self.stage.ready.set(true);
    }

    fn leave(&self) {
        self.stage.stopped.set(self.stage.stopped.get() + 1);
    }

    /// Writes stamped records until told to stop.
    pub async fn write(self, writer: u32) {
        self.begins();
        let config = ProducerConfig::new(&self.cluster.bootstrap(Kind::Broker))
            .and_then(|c| c.set("linger.ms", "5"))
            .and_then(|c| c.set("delivery.timeout.ms", "8000"))
            .and_then(|c| c.set("request.timeout.ms", "2000"))
            .and_then(|c| c.set("max.block.ms", "1000"));
        let producer = Producer::new(config.expect("legal options"));
        self.ready().await;
        let mut random = Random::new(self.seed);
        let mut under_way = FuturesUnordered::new();
        let mut seq = 0;
        while !self.stage.stop.get() {
            let stamp = Stamp { writer, seq };
            seq += 1;
            let partition = u32::try_from(random.below(u64::from(self.partitions))).unwrap_or(0);
            let record = ProducerRecord::new(TOPIC, stamp.to_string()).partition(partition);
            let sent = self.sends(stamp, partition);
            match producer.send(record).await {
                Ok(delivery) => under_way.push(delivery.map(move |outcome| (sent, outcome))),
                Err(error) => {
                    self.record.borrow().failed(self.process(), sent.of, NOT_WRITTEN);
                    self.note(&format!("{stamp} not taken: {}", text(&error.error)));
                }
            }
            let pause = simulated_pause(Duration::from_millis(random.between(1, 40)));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    biased;
                    Some((sent, outcome)) = under_way.next() => self.delivered(sent, outcome),
                    () = &mut pause => break,
                }
            }
        }
        producer.flush().await;
        while let Some((sent, outcome)) = under_way.next().await {
            self.delivered(sent, outcome);
        }
        self.leave();
    }

    fn sends(&self, stamp: Stamp, partition: u32) -> Sent {
        let record = self.record.borrow();
        let op = Op::Send { key: record.key(TOPIC, partition), values: vec![stamp.value()], acks: -1 };
        Sent { stamp, partition, of: record.invoke(self.process(), op), healed: record.is_healed() }
    }

    fn delivered(&self, sent: Sent, outcome: Result<client::Written, client::DeliveryFailure>) {
        let Sent { stamp, partition, of, healed } = sent;
        let mut record = self.record.borrow_mut();
        match outcome {
            Ok(written) => {
                record.ok(self.process(), of, Answer::Sent { base: written.offset, source: Source::default() });
                record.count("acknowledged");
                record.note(now(), &format!("acknowledged {partition} {:?} {stamp}", written.offset));
                if healed {
                    let key = record.key(TOPIC, partition);
                    record.took(key);
                }
            }
            Err(failure) => {
                record.failed(self.process(), of, code_of(&failure).1);
                record.count("not acknowledged");
                let what = format!("{stamp} failed ({:?}): {}", failure.effect, text(&failure.error));
                record.note(now(), &what);
            }
        }
    }

    /// Waits until all the other clients have ended: nobody writes any more.
    pub async fn wait_for_the_others(&self, count: usize) {
        while self.stage.stopped.get() < count {
            simulated_pause(Duration::from_millis(50)).await;
        }
    }

    /// Waits until every partition has all its replicas in sync again.
    pub async fn wait_until_whole(&self) {
        let admin = Admin::new(self.config(&self.cluster.bootstrap(Kind::Broker)));
        loop {
            match admin.describe_topics(&[TOPIC.to_owned()], true).await {
                Ok(found) => {
                    let partitions: Vec<_> = found.topics.iter().flat_map(|topic| &topic.partitions).collect();
                    let whole = |p: &&wire::PartitionState| p.leader_id != 0 && p.isr.len() == p.replicas.len();
                    if partitions.len() == self.partitions as usize && partitions.iter().all(whole) {
                        return;
                    }
                }
                Err(error) => self.note(&format!("not described: {}", text(&error))),
            }
            simulated_pause(Duration::from_millis(300)).await;
        }
    }

    /// Changes the voters when the nemesis wishes it.
    pub async fn change_voters(self) {
        self.begins();
        let admin = Admin::new(self.config(&self.cluster.bootstrap(Kind::Controller)));
        let admin = admin.with_timeout(Duration::from_secs(20));
        let mut random = Random::new(self.seed);
        while !self.stage.stop.get() {
            let wish = self.stage.changes.borrow_mut().pop_front();
            match wish {
                Some(wish) => self.change(&admin, wish, &mut random).await,
                None => simulated_pause(Duration::from_millis(50)).await,
            }
        }
        self.leave();
    }

    async fn change(&self, admin: &Admin, wish: VoterWish, random: &mut Random) {
        let Ok(quorum) = admin.describe_quorum().await else { return };
        let voting: Vec<u32> = quorum.voters.iter().map(|voter| voter.id).collect();
        let (inside, outside): (Vec<_>, Vec<_>) =
            self.cluster.of(Kind::Controller).cloned().partition(|node| voting.contains(&node.id));
        let mut request = wire::ChangeVotersRequest { force: true, ..Default::default() };
        let as_wire = |node: &Rc<super::nodes::Node>| {
            let spec = spec(node);
            wire::VoterSpec {
                id: spec.voter.id,
                directory: protocol::rpc::convert::uuid_bytes(spec.voter.directory),
                endpoint: Some(wire_common::Endpoint { host: spec.node.host, port: u32::from(spec.node.port) }),
                locality: spec.node.locality,
            }
        };
        if matches!(wish, VoterWish::Add | VoterWish::Replace) && !outside.is_empty() {
            request.add.push(as_wire(random.one_of(&outside)));
        }
        if matches!(wish, VoterWish::Remove | VoterWish::Replace) && inside.len() > 1 {
            request.remove.push(as_wire(random.one_of(&inside)));
        }
        if request.add.is_empty() && request.remove.is_empty() {
            return;
        }
        let ids = |specs: &[wire::VoterSpec]| specs.iter().map(|s| s.id).collect::<Vec<_>>();
        let what = format!("voters {voting:?} + {:?} - {:?}", ids(&request.add), ids(&request.remove));
        match admin.change_voters(request).await {
            Ok(_) => {
                self.record.borrow_mut().count("voter changes");
                self.note(&what);
            }
            Err(error) => self.note(&format!("{what}: {}", text(&error))),
        }
    }
}
