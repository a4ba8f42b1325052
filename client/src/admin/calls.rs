//! Repeating an administrative request until it is done, refused for good, or out of time.
//!
//! Owns: the order in which nodes are asked, and what is known about an attempt's effect.
//! Never: repeats what was refused for good; calls the refusal of a repeat the whole call's outcome.

use super::Admin;
use crate::error::{Effect, Error};
use crate::limits;
use crate::retry::{Dice, Retry};
use crate::transport::Node;
use protocol::error::{ApiError, ErrorCode, Next};
use protocol::metadata::record::Endpoint;
use std::future::Future;
use std::time::Duration;

impl Admin {
    /// A command that may be repeated.
    pub(super) async fn command<Q: Clone, A, F: Future<Output = Result<A, ApiError>>>(
        &self,
        what: &'static str,
        request: Q,
        call: impl Fn(Node, Q, Duration) -> F,
    ) -> Result<A, Error> {
        let mut tries = Tries::default();
        let outcome = self.call(what, request, &mut tries, call).await;
        outcome.map_err(|error| tries.in_doubt(error))
    }

    /// A question: it changes nothing, so every refusal is definite.
    pub(super) async fn question<Q: Clone, A, F: Future<Output = Result<A, ApiError>>>(
        &self,
        what: &'static str,
        request: Q,
        call: impl Fn(Node, Q, Duration) -> F,
    ) -> Result<A, Error> {
        self.call(what, request, &mut Tries::default(), call).await
    }

    /// Asks one node after the other until one does it, refuses for good, or time is up.
    pub(super) async fn call<Q: Clone, A, F: Future<Output = Result<A, ApiError>>>(
        &self,
        what: &'static str,
        request: Q,
        tries: &mut Tries,
        call: impl Fn(Node, Q, Duration) -> F,
    ) -> Result<A, Error> {
        let clock = self.cluster.clock();
        let (start, mut dice) = (clock.now(), Dice::new(crate::clock::seed()));
        let deadline = start + self.timeout_ms;
        // An attempt that hardly has time would end in an unknown outcome where the one before was definite.
        let last_start = deadline.saturating_sub(limits::ADMIN_LEAST_ATTEMPT_MS).max(start + self.timeout_ms / 2);
        let mut hinted: Option<Endpoint> = None;
        let mut nodes = self.cluster.candidates().into_iter();
        loop {
            let node = match hinted.take().and_then(|address| self.cluster.nodes().node(&address).ok()) {
                Some(node) => node,
                None => match nodes.next() {
                    Some(node) => node,
                    None => {
                        nodes = self.cluster.candidates().into_iter();
                        continue;
                    }
                },
            };
            let left = Duration::from_millis(deadline.saturating_sub(clock.now()).max(1));
            let error = match call(node.clone(), request.clone(), left).await {
                Ok(answer) => {
                    self.cluster.note(node.endpoint(), None);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.cluster.note(node.endpoint(), Some(&error));
            tries.failed(&error, &node);
            if error.code.next() == Next::GiveUp {
                return Err(refused(what, node.address(), error));
            }
            if tries.once && tries.maybe_done {
                return Err(tries.give_up(what, clock.now() - start));
            }
            hinted = hint(&error, node.endpoint());
            match self.cluster.config().backoff.next(tries.count, clock.now(), last_start, &mut dice) {
                Retry::At(at) => tokio::time::sleep_until(clock.instant(at)).await,
                Retry::Stop => return Err(tries.give_up(what, clock.now() - start)),
            }
        }
    }

    /// Asks the leader of a partition until it answers for good or time is up.
    pub(super) async fn at_leader<A, F: Future<Output = Result<A, ApiError>>>(
        &self,
        what: &'static str,
        topic: &str,
        partition: u32,
        call: impl Fn(Node, Duration) -> F,
    ) -> Result<A, Error> {
        let clock = self.cluster.clock();
        let (start, mut dice) = (clock.now(), Dice::new(crate::clock::seed()));
        let deadline = start + self.timeout_ms;
        // An attempt that hardly has time would end in an unknown outcome where the one before was definite.
        let last_start = deadline.saturating_sub(limits::ADMIN_LEAST_ATTEMPT_MS).max(start + self.timeout_ms / 2);
        let mut tries = Tries::default();
        loop {
            let info = self.cluster.topic(topic, self.timeout_ms).await?;
            if partition as usize >= info.partitions.len() {
                let limit = format!("0 to {}", info.partitions.len().saturating_sub(1));
                let error = ApiError::bad(ErrorCode::UnknownPartition, "partition", partition, limit);
                return Err(refused(what, "the client".to_owned(), error));
            }
            let leader = self.cluster.routing().leader(topic, partition);
            match leader.and_then(|leader| self.cluster.nodes().node(&leader.address).ok()) {
                None => {
                    tries.last = format!("partition {topic}/{partition} has no leader");
                    tries.count += 1;
                    self.cluster.refresh_soon();
                }
                Some(node) => {
                    let left = Duration::from_millis(deadline.saturating_sub(clock.now()).max(1));
                    match call(node.clone(), left).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) if error.code.next() == Next::GiveUp => {
                            return Err(refused(what, node.address(), error));
                        }
                        Err(error) => {
                            tries.failed(&error, &node);
                            self.cluster.follow(topic, partition, error.hint.as_deref());
                        }
                    }
                }
            }
            match self.cluster.config().backoff.next(tries.count, clock.now(), last_start, &mut dice) {
                Retry::At(at) => tokio::time::sleep_until(clock.instant(at)).await,
                Retry::Stop => return Err(tries.give_up(what, clock.now() - start)),
            }
        }
    }
}

/// How a call went so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    count: u32,
    reached: bool,
    pub(super) maybe_done: bool,
    /// No attempt follows one that may have taken effect.
    once: bool,
    asked: Vec<String>,
    last: String,
}

impl Tries {
    /// Of a command whose repeat could do more than the first.
    pub(super) fn once() -> Self {
        Self { once: true, ..Self::default() }
    }

    /// What a failure says of the whole call: the refusal of a repeat says nothing of the attempt before, which may be
    /// the very reason for it.
    pub(super) fn in_doubt(&self, error: Error) -> Error {
        let Error::Refused { request, node, error: refusal } = error else { return error };
        if !self.maybe_done || Effect::of(refusal.code) == Effect::Unknown {
            return Error::Refused { request, node, error: refusal };
        }
        let message = format!("an earlier attempt may have taken effect; the repeat was refused: {refusal}");
        let error = Box::new(ApiError { code: ErrorCode::OutcomeUnknown, message, ..*refusal });
        Error::Refused { request, node, error }
    }

    fn failed(&mut self, error: &ApiError, node: &Node) {
        self.count += 1;
        self.reached |= error.code != ErrorCode::NotReachable;
        self.maybe_done |= Effect::of(error.code) == Effect::Unknown;
        self.last = format!("{}: {error}", node.address());
        if !self.asked.contains(&node.address()) {
            self.asked.push(node.address());
        }
    }

    fn give_up(&self, request: &'static str, waited_ms: u64) -> Error {
        if self.reached {
            let effect = if self.maybe_done { Effect::Unknown } else { Effect::NotWritten };
            return Error::Timeout { request, waited_ms, effect, last: self.last.clone() };
        }
        Error::Unreachable { asked: self.asked.join(","), waited_ms, cause: self.last.clone() }
    }
}

/// The node a refusal points to, unless it is the one that refused.
fn hint(error: &ApiError, from: &Endpoint) -> Option<Endpoint> {
    let hint = error.hint.as_deref().filter(|h| !h.host.is_empty())?;
    let address = Endpoint { host: hint.host.clone(), port: hint.port };
    (address != *from).then_some(address)
}

pub(super) fn refused(request: &'static str, node: String, error: ApiError) -> Error {
    if error.code == ErrorCode::NotReachable {
        return Error::Unreachable { asked: node, waited_ms: 0, cause: error.message };
    }
    Error::Refused { request, node, error: Box::new(error) }
}
