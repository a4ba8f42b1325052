//! The way to one broker: a produce stream, opened when there is something to send, opened again after a loss.
//!
//! Owns: matching of answers with batches, their deadlines, leaving a leader that keeps silent once there is a newer one.
//! Never: decides what a failure means (`verdict` does), keeps a batch whose attempt has ended.
//! Invariants: every batch taken in comes out exactly once, with the end of its attempt; one that was handed to the
//! connection never comes out as certainly unsent.

use super::accumulator::Batch;
use super::delivery::{Receipt, Ticket};
use super::verdict::AttemptEnd;
use crate::cluster::Cluster;
use crate::config::Acks;
use crate::limits;
use crate::transport::ProduceStream;
use futures_util::StreamExt;
use protocol::error::{ApiError, Effect, ErrorCode, Next};
use protocol::ids::Millis;
use protocol::metadata::record::Endpoint;
use protocol::rpc::convert::uuid_bytes;
use protocol::rpc::pb::data::v1::{ProduceRequest, ProduceResponse};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use uuid::Uuid;

/// A batch on its way to a leader.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) batch: Batch<Ticket>,
    pub(super) topic: Arc<str>,
    pub(super) topic_id: Uuid,
    pub(super) epoch: u32,
}

/// A batch whose attempt has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) batch: Batch<Ticket>,
    pub(super) topic: Arc<str>,
    pub(super) broker: u32,
    pub(super) end: AttemptEnd,
}

/// What a link needs.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) broker: u32,
    pub(super) address: Endpoint,
    pub(super) cluster: Cluster,
    pub(super) acks: Acks,
    pub(super) ended: mpsc::UnboundedSender<Ended>,
}

impl Link {
    /// Runs until the inbox closes and everything in it has ended.
    pub(super) async fn run(self, mut inbox: mpsc::UnboundedReceiver<Outgoing>) {
        while let Some(first) = inbox.recv().await {
            match self.cluster.nodes().produce_stream(&self.address).await {
                Ok(stream) => {
                    self.cluster.note(&self.address, None);
                    Session::new(&self, first).run(stream, &mut inbox).await;
                }
                Err(error) => {
                    self.cluster.note(&self.address, Some(&error));
                    self.unsent(first, &error.message);
                    while let Ok(next) = inbox.try_recv() {
                        self.unsent(next, &error.message);
                    }
                }
            }
        }
    }

    fn unsent(&self, out: Outgoing, cause: &str) {
        self.end(out, AttemptEnd::Lost { sent: false, cause: cause.to_owned() });
    }

    fn end(&self, out: Outgoing, end: AttemptEnd) {
        // The sender is gone only when the producer was dropped; its batches are settled there.
        let _ = self.ended.send(Ended { batch: out.batch, topic: out.topic, broker: self.broker, end });
    }
}

struct Pending {
    out: Outgoing,
    sent: Millis,
    deadline: Millis,
}

/// One life of the stream.
struct Session<'a> {
    link: &'a Link,
    waiting: VecDeque<Outgoing>,
    pending: BTreeMap<u64, Pending>,
    next: u64,
    looked: Millis,
    heard: bool,
}

impl<'a> Session<'a> {
    fn new(link: &'a Link, first: Outgoing) -> Self {
        Self { link, waiting: VecDeque::from([first]), pending: BTreeMap::new(), next: 0, looked: 0, heard: false }
    }

    async fn run(mut self, mut stream: ProduceStream, inbox: &mut mpsc::UnboundedReceiver<Outgoing>) {
        let mut tick = tokio::time::interval(Duration::from_millis(limits::STALL_TICK_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut open = true;
        let cause = loop {
            if !open && self.waiting.is_empty() && self.pending.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                answer = stream.answers.next() => match answer {
                    Some(Ok(answer)) => self.answered(answer),
                    Some(Err(error)) => break error,
                    None => break lost("the broker ended the stream"),
                },
                next = inbox.recv(), if open => match next {
                    Some(out) => self.waiting.push_back(out),
                    None => open = false,
                },
                permit = stream.requests.reserve(), if !self.waiting.is_empty() => match permit {
                    Ok(permit) => if let Some(request) = self.request() { permit.send(request) },
                    Err(_) => break lost("the connection is gone"),
                },
                _ = tick.tick(), if !(self.pending.is_empty() && self.waiting.is_empty()) => {
                    if let Some(cause) = self.check() { break lost(&cause) }
                }
            }
        };
        self.lose(&cause);
    }

    /// The next waiting batch as a request; from here on it counts as sent.
    fn request(&mut self) -> Option<ProduceRequest> {
        let mut out = self.waiting.pop_front()?;
        let cluster = &self.link.cluster;
        let now = cluster.clock().now();
        let batch = match out.batch.bytes() {
            Ok(bytes) => bytes,
            Err(error) => {
                self.link.end(out, AttemptEnd::Unbuildable(error));
                return None;
            }
        };
        let left = out.batch.progress.deadline.saturating_sub(now).max(1);
        let timeout = cluster.config().request_timeout_ms.min(left);
        let correlation = self.next;
        self.next += 1;
        let cluster_id = match correlation {
            0 => cluster.routing().cluster_id().map(uuid_bytes).unwrap_or_default(),
            _ => Default::default(),
        };
        let request = ProduceRequest {
            correlation,
            cluster_id,
            topic_id: uuid_bytes(out.topic_id),
            partition: out.batch.key.partition,
            leader_epoch: i64::from(out.epoch),
            acks: match self.link.acks {
                Acks::None => 0,
                Acks::Leader => 1,
                Acks::All => -1,
            },
            timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
            batch,
        };
        if self.link.acks == Acks::None {
            self.link.end(out, AttemptEnd::Written(Receipt::default()));
        } else {
            let deadline = now + timeout + limits::ANSWER_GRACE_MS;
            self.pending.insert(correlation, Pending { out, sent: now, deadline });
        }
        Some(request)
    }

    fn answered(&mut self, answer: ProduceResponse) {
        self.heard = true;
        let Some(pending) = self.pending.remove(&answer.correlation) else {
            // An attempt that was given up, or acks=0: only a refusal is news, that routing is stale.
            if answer.error.is_some() {
                self.link.cluster.refresh_soon();
            }
            return;
        };
        let end = match answer.error.map(ApiError::from) {
            None => {
                let base_offset = Some(answer.base_offset);
                let (leader_epoch, broker) = answer.state.map(|state| (state.leader_epoch, state.node_id)).unzip();
                AttemptEnd::Written(Receipt { base_offset, leader_epoch, broker })
            }
            Some(error) => AttemptEnd::Refused(error),
        };
        self.link.end(pending.out, end);
    }

    /// Looks at what is unanswered. Returns why the stream must be given up, if so.
    fn check(&mut self) -> Option<String> {
        let now = self.link.cluster.clock().now();
        let (late, waiting): (VecDeque<_>, _) =
            self.waiting.drain(..).partition(|out| out.batch.progress.deadline <= now);
        self.waiting = waiting;
        late.into_iter().for_each(|out| self.link.unsent(out, "the connection takes nothing more"));
        if let Some(overdue) = self.pending.values().find(|p| p.deadline <= now) {
            return Some(format!("no answer within {} ms", now - overdue.sent));
        }
        let stalled = |p: &Pending| now.saturating_sub(p.sent) >= limits::STALL_MS;
        if !self.pending.values().any(stalled) {
            return None;
        }
        if now.saturating_sub(self.looked) >= limits::STALL_TICK_MS {
            self.looked = now;
            self.link.cluster.refresh_soon();
        }
        let routing = self.link.cluster.routing();
        let moved =
            |p: &Pending| routing.moved_on(&p.out.topic, p.out.topic_id, p.out.batch.key.partition, p.out.epoch);
        let left: Vec<u64> = self.pending.iter().filter(|(_, p)| stalled(p) && moved(p)).map(|(c, _)| *c).collect();
        for correlation in left {
            if let Some(pending) = self.pending.remove(&correlation) {
                let cause = format!("no answer within {} ms, and leadership has moved", now - pending.sent);
                self.link.end(pending.out, AttemptEnd::Lost { sent: true, cause });
            }
        }
        None
    }

    /// Ends everything: the stream is lost. A stream that was refused as a whole before any answer wrote nothing;
    /// of any other the batches under way may have been written.
    fn lose(self, error: &ApiError) {
        self.link.cluster.note(&self.link.address, Some(error));
        let refused = !self.heard && error.code.next() == Next::GiveUp && error.code.effect() == Effect::None;
        for pending in self.pending.into_values() {
            let end = if refused {
                AttemptEnd::Refused(error.clone())
            } else {
                AttemptEnd::Lost { sent: true, cause: error.message.clone() }
            };
            self.link.end(pending.out, end);
        }
        for out in self.waiting {
            self.link.unsent(out, &error.message);
        }
    }
}

fn lost(cause: &str) -> ApiError {
    ApiError::new(ErrorCode::Timeout, cause)
}
