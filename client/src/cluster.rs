//! The connection to a cluster: who may be asked, and what they last said about routing.
//!
//! Owns: connections, the current [`Routing`] picture, its refresh by one background task.
//! Never: decides what a routing answer means (`routing` does), retries a caller's request.
//! Invariant: at most one refresh runs at a time; a refresh that was asked for begins after the asking, so its answer
//! is no older than the question; no node that fails to answer holds up a refresh while another one could answer.

use crate::clock::Clock;
use crate::config::ClientConfig;
use crate::error::Error;
use crate::limits;
use crate::routing::{Routing, RoutingError, TopicInfo};
use crate::transport::{Node, Nodes};
use futures_util::stream::{FuturesUnordered, StreamExt};
use parking_lot::{Mutex, RwLock};
use protocol::error::{ApiError, ErrorCode, Hint};
use protocol::ids::Millis;
use protocol::metadata::record::Endpoint;
use protocol::rpc::pb::data::v1::{RoutingRequest, RoutingResponse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// A shared handle. The background task ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Cluster(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    nodes: Nodes,
    clock: Clock,
    routing: RwLock<Arc<Routing>>,
    topics: Mutex<BTreeSet<String>>,
    failed: Mutex<BTreeMap<Endpoint, Millis>>,
    turn: AtomicUsize,
    asked: AtomicU64,
    wake: Arc<Notify>,
    rounds: watch::Sender<Round>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Clone)]
struct Round {
    number: u64,
    outcome: Result<(), Error>,
}

impl Cluster {
    /// A handle; must be made inside a tokio runtime. Nothing is asked yet.
    pub(crate) fn new(config: ClientConfig) -> Self {
        let shared = Arc::new(Shared {
            nodes: Nodes::new(config.dialer.clone(), config.connect_timeout_ms),
            config,
            clock: Clock::new(),
            routing: RwLock::default(),
            topics: Mutex::default(),
            failed: Mutex::default(),
            turn: AtomicUsize::new(crate::clock::seed() as usize % 1_000),
            asked: AtomicU64::new(0),
            wake: Arc::new(Notify::new()),
            rounds: watch::channel(Round { number: 0, outcome: Ok(()) }).0,
            changes: watch::channel(0).0,
        });
        tokio::spawn(refresher(Arc::downgrade(&shared), shared.wake.clone(), shared.config.metadata_max_age_ms));
        Self(shared)
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.0.config
    }

    pub(crate) fn clock(&self) -> Clock {
        self.0.clock
    }

    pub(crate) fn nodes(&self) -> &Nodes {
        &self.0.nodes
    }

    /// The picture as it stands.
    pub(crate) fn routing(&self) -> Arc<Routing> {
        self.0.routing.read().clone()
    }

    /// Moves whenever the picture changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Asks for a refresh without waiting for it.
    pub(crate) fn refresh_soon(&self) {
        self.0.asked.fetch_add(1, Ordering::AcqRel);
        self.0.wake.notify_one();
    }

    /// Asks for a refresh and waits for its end. Topics asked for by [`Cluster::topic`] before are part of it.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        let wanted = self.0.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.0.wake.notify_one();
        let mut rounds = self.0.rounds.subscribe();
        let round = rounds.wait_for(|round| round.number >= wanted).await.map_err(|_| Error::Closed)?;
        round.outcome.clone()
    }

    /// A topic, asked for until known. Errors: `UnknownTopic` after a short patience, or what kept every node from
    /// answering within `within_ms`.
    pub(crate) async fn topic(&self, name: &str, within_ms: u64) -> Result<Arc<TopicInfo>, Error> {
        self.0.topics.lock().insert(name.to_owned());
        let start = self.0.clock.now();
        let mut attempt = 0_u32;
        let mut dice = crate::retry::Dice::new(crate::clock::seed());
        loop {
            if let Some(topic) = self.routing().topic(name) {
                return Ok(topic.clone());
            }
            let outcome = self.refresh().await;
            if let Some(topic) = self.routing().topic(name) {
                return Ok(topic.clone());
            }
            attempt += 1;
            let patience = if outcome.is_ok() { within_ms.min(limits::UNKNOWN_TOPIC_PATIENCE_MS) } else { within_ms };
            let error = outcome.err().unwrap_or_else(|| unknown_topic(name));
            let retriable = error.is_retriable() || error.code() == Some(ErrorCode::UnknownTopic);
            match self.0.config.backoff.next(attempt, self.0.clock.now(), start + patience, &mut dice) {
                crate::retry::Retry::At(at) if retriable => tokio::time::sleep_until(self.0.clock.instant(at)).await,
                _ => {
                    self.0.topics.lock().remove(name);
                    return Err(error);
                }
            }
        }
    }

    /// Follows a refusal's hint to a partition's leader; without a usable one asks for a refresh.
    pub(crate) fn follow(&self, topic: &str, partition: u32, hint: Option<&Hint>) {
        let known = hint.filter(|h| h.node_id != 0).and_then(|h| Some((h, h.leader_epoch?)));
        if let Some((hint, epoch)) = known {
            let address = (!hint.host.is_empty()).then(|| Endpoint { host: hint.host.clone(), port: hint.port });
            let mut routing = self.0.routing.write();
            let mut next = Routing::clone(&routing);
            if next.follow(topic, partition, hint.node_id, address, epoch) {
                *routing = Arc::new(next);
                drop(routing);
                self.0.changes.send_modify(|n| *n += 1);
                return;
            }
        }
        self.refresh_soon();
    }

    /// Nodes that may be asked anything, the likely ones first: brokers of the picture, then the bootstrap list;
    /// those that failed lately last.
    pub(crate) fn candidates(&self) -> Vec<Node> {
        let routing = self.routing();
        let mut known: Vec<&Endpoint> = routing.brokers().values().filter(|b| !b.fenced).map(|b| &b.address).collect();
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
        if !known.is_empty() {
            let places = known.len();
            known.rotate_left(turn % places);
        }
        let bootstrap = &self.0.config.bootstrap;
        let first = turn % bootstrap.len().max(1);
        known.extend(bootstrap[first..].iter().chain(&bootstrap[..first]));
        known.extend(routing.brokers().values().filter(|b| b.fenced).map(|b| &b.address));
        let mut seen = BTreeSet::new();
        known.retain(|address| seen.insert((*address).clone()));
        let failed = self.0.failed.lock();
        known.sort_by_key(|address| failed.get(*address).copied().unwrap_or(0));
        known.into_iter().filter_map(|address| self.0.nodes.node(address).ok()).collect()
    }

    /// Remembers that a node did not answer, or (`None`) that it did.
    pub(crate) fn note(&self, address: &Endpoint, error: Option<&ApiError>) {
        let mut failed = self.0.failed.lock();
        match error.map(|e| e.code) {
            Some(ErrorCode::NotReachable | ErrorCode::Timeout | ErrorCode::Internal) => {
                failed.insert(address.clone(), self.0.clock.now().max(1));
            }
            _ => {
                failed.remove(address);
            }
        }
    }

    async fn fetch_routing(&self) -> Result<(), Error> {
        let topics: Vec<String> = self.0.topics.lock().iter().cloned().collect();
        let (node, answer) = self.ask_any(RoutingRequest { topics, all: false }).await?;
        let mut routing = self.0.routing.write();
        let mut next = Routing::clone(&routing);
        next.apply(answer).map_err(|error| match error {
            RoutingError::OtherCluster { expected, found } => {
                Error::OtherCluster { node: node.clone(), expected: expected.to_string(), found: found.to_string() }
            }
            RoutingError::Malformed(what) => {
                Error::Malformed { request: "routing", node: node.clone(), what: what.to_owned() }
            }
        })?;
        let changed = !next.agrees_with(&routing);
        *routing = Arc::new(next);
        drop(routing);
        if changed {
            self.0.changes.send_modify(|n| *n += 1);
        }
        Ok(())
    }

    /// The first answer of any node. One after the other is asked: the next when one fails, or keeps silent for
    /// [`limits::ROUTING_HEDGE_MS`].
    pub(crate) async fn ask_any(&self, request: RoutingRequest) -> Result<(String, RoutingResponse), Error> {
        let start = self.0.clock.now();
        let mut waiting = self.candidates().into_iter();
        let asked: Vec<String> = waiting.as_slice().iter().map(Node::address).collect();
        let mut calls = FuturesUnordered::new();
        let within = Duration::from_millis(limits::ROUTING_TIMEOUT_MS.min(self.0.config.request_timeout_ms));
        let mut cause = "no address".to_owned();
        let ask = |node: Node| {
            let request = request.clone();
            async move {
                let answer = node.routing(request, within).await;
                (node, answer)
            }
        };
        loop {
            if calls.is_empty() {
                let Some(node) = waiting.next() else {
                    let waited_ms = self.0.clock.now() - start;
                    return Err(Error::Unreachable { asked: asked.join(","), waited_ms, cause });
                };
                calls.push(ask(node));
            }
            let hedge = tokio::time::sleep(Duration::from_millis(limits::ROUTING_HEDGE_MS));
            tokio::select! {
                Some((node, answer)) = calls.next() => {
                    self.note(node.endpoint(), answer.as_ref().err());
                    match answer {
                        Ok(answer) => return Ok((node.address(), answer)),
                        Err(error) => {
                            cause = format!("{}: {}", node.address(), error.message);
                            calls.extend(waiting.next().map(ask));
                        }
                    }
                }
                () = hedge, if !waiting.as_slice().is_empty() => calls.extend(waiting.next().map(ask)),
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

async fn refresher(shared: Weak<Shared>, wake: Arc<Notify>, max_age_ms: u64) {
    loop {
        let aged = tokio::time::timeout(Duration::from_millis(max_age_ms), wake.notified()).await.is_err();
        let Some(shared) = shared.upgrade() else { return };
        if aged && shared.topics.lock().is_empty() {
            continue;
        }
        let cluster = Cluster(shared);
        let number = cluster.0.asked.load(Ordering::Acquire);
        let outcome = cluster.fetch_routing().await;
        if let Err(error) = &outcome {
            tracing::debug!(%error, "no routing");
        }
        cluster.0.rounds.send_replace(Round { number, outcome });
        drop(cluster);
        tokio::time::sleep(Duration::from_millis(limits::REFRESH_PAUSE_MS)).await;
    }
}

fn unknown_topic(name: &str) -> Error {
    let mut error = ApiError::bad(ErrorCode::UnknownTopic, "topic", name, "a topic that exists");
    error.message = format!("topic {name} does not exist; `seawall topic list` shows those that do");
    Error::Refused { request: "routing", node: "the cluster".to_owned(), error: Box::new(error) }
}
