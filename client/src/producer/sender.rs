//! The producer's one loop: takes ready batches out of the accumulator, hands them to the link of their leader, and
//! carries out the verdict on each attempt that ended.
//!
//! Owns: the links, the order of events. Policy is in `accumulator`, `verdict` and `routing`.
//! Never: blocks on a broker; a slow one delays its own partitions only.
//! Invariant: a batch is in the accumulator, in a link, or settled; never in two of them.

use super::accumulator::{Batch, Key};
use super::delivery::Ticket;
use super::link::{Ended, Link, Outgoing};
use super::verdict::{AttemptEnd, Verdict, judge};
use super::{BatchReport, Shared};
use crate::error::{Effect, Error};
use crate::limits;
use crate::retry::Dice;
use protocol::error::{ApiError, ErrorCode, Next};
use protocol::ids::Millis;
use protocol::metadata::record::Endpoint;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A batch that is out: what to settle if the producer is closed meanwhile.
struct Out {
    ticket: Ticket,
    key: Key,
    records: u32,
    attempts: u32,
}

pub(super) struct Sender {
    shared: Arc<Shared>,
    links: BTreeMap<(u32, Endpoint), mpsc::UnboundedSender<Outgoing>>,
    ended: mpsc::UnboundedSender<Ended>,
    out: BTreeMap<u64, Out>,
    dice: Dice,
}

impl Sender {
    /// Runs until the producer is closed.
    pub(super) async fn run(shared: Arc<Shared>) {
        let (ended, mut ends) = mpsc::unbounded_channel();
        let mut changes = shared.cluster.changes();
        let dice = Dice::new(crate::clock::seed());
        let mut sender = Self { shared, links: BTreeMap::new(), ended, out: BTreeMap::new(), dice };
        let clock = sender.shared.cluster.clock();
        loop {
            let now = clock.now();
            sender.expire(now);
            sender.dispatch(now);
            let (next, closed) = {
                let state = sender.shared.state.lock();
                (state.batches.next_event(), state.closed)
            };
            if closed {
                while let Ok(end) = ends.try_recv() {
                    sender.conclude(end);
                }
                return sender.abandon();
            }
            let wait = clock.instant(next.unwrap_or(now + limits::IDLE_MS));
            tokio::select! {
                Some(end) = ends.recv() => {
                    sender.conclude(end);
                    while let Ok(end) = ends.try_recv() {
                        sender.conclude(end);
                    }
                    sender.shared.progress.notify_waiters();
                }
                () = sender.shared.look.notified() => {}
                Ok(()) = changes.changed() => sender.routing_changed(),
                () = tokio::time::sleep_until(wait) => {}
            }
        }
    }

    fn routing_changed(&self) {
        let routing = self.shared.cluster.routing();
        let mut state = self.shared.state.lock();
        state.topics.renew(&routing);
        state.batches.unblock_all();
    }

    fn expire(&mut self, now: Millis) {
        let gone = self.shared.state.lock().batches.expire(now);
        let any = !gone.is_empty();
        for mut batch in gone {
            let error = batch.progress.timeout(now);
            self.report_failure(&mut batch, error.effect(), error);
        }
        if any {
            self.shared.progress.notify_waiters();
        }
    }

    fn dispatch(&mut self, now: Millis) {
        let ready = self.shared.state.lock().batches.ready(now);
        if ready.is_empty() {
            return;
        }
        let routing = self.shared.cluster.routing();
        for key in ready {
            let topic = self.shared.state.lock().topics.name(key.topic);
            if routing.topic(&topic).is_none() {
                self.refuse_unknown(key, topic);
                continue;
            }
            let Some(leader) = routing.leader(&topic, key.partition) else {
                self.shared.state.lock().batches.block(key, now + limits::LEADERLESS_PAUSE_MS);
                self.shared.cluster.refresh_soon();
                continue;
            };
            let Some(batch) = self.take(key) else { continue };
            let out = Outgoing { batch, topic, topic_id: leader.topic_id, epoch: leader.epoch };
            self.hand_over((leader.broker, leader.address), out);
        }
    }

    fn take(&mut self, key: Key) -> Option<Batch<Ticket>> {
        let mut state = self.shared.state.lock();
        let (batch, early) = state.batches.take(key)?;
        if early {
            state.topics.batch_closed(key);
        }
        drop(state);
        let (ticket, attempts) = (batch.ticket.clone(), batch.progress.attempts);
        self.out.insert(batch.id, Out { ticket, key, records: batch.records, attempts });
        Some(batch)
    }

    fn hand_over(&mut self, to: (u32, Endpoint), out: Outgoing) {
        let link = self.links.entry(to).or_insert_with_key(|(broker, address)| {
            let (sender, inbox) = mpsc::unbounded_channel();
            let link = Link {
                broker: *broker,
                address: address.clone(),
                cluster: self.shared.cluster.clone(),
                acks: self.shared.acks,
                ended: self.ended.clone(),
            };
            tokio::spawn(link.run(inbox));
            sender
        });
        if let Err(mpsc::error::SendError(out)) = link.send(out) {
            // A link ends only with this sender, so this is a link that panicked: the batch was not sent.
            let end = AttemptEnd::Lost { sent: false, cause: "the link has stopped".to_owned() };
            self.conclude(Ended { batch: out.batch, topic: out.topic, broker: 0, end });
        }
    }

    /// The topic vanished from routing: the batch's attempt ends as if a broker had said so.
    fn refuse_unknown(&mut self, key: Key, topic: Arc<str>) {
        let Some(batch) = self.take(key) else { return };
        let error = ApiError::bad(ErrorCode::UnknownTopic, "topic", &topic, "a topic that exists");
        self.conclude(Ended { batch, topic, broker: 0, end: AttemptEnd::Refused(error) });
    }

    fn conclude(&mut self, ended: Ended) {
        let Ended { mut batch, topic, broker, end } = ended;
        let shared = self.shared.clone();
        let now = shared.cluster.clock().now();
        self.out.remove(&batch.id);
        match &end {
            AttemptEnd::Refused(error) if error.code.next() == Next::RefreshMetadata => {
                shared.cluster.follow(&topic, batch.key.partition, error.hint.as_deref());
            }
            AttemptEnd::Lost { .. } => shared.cluster.refresh_soon(),
            AttemptEnd::Refused(error)
                if matches!(error.code, ErrorCode::UnknownTopic | ErrorCode::UnknownPartition) =>
            {
                shared.cluster.refresh_soon();
            }
            _ => {}
        }
        let node = if broker == 0 { "the client".to_owned() } else { format!("broker {broker}") };
        let backoff = shared.cluster.config().backoff;
        match judge(&mut batch.progress, end, &node, now, backoff, &mut self.dice) {
            Verdict::Retry(at) => {
                tracing::debug!(topic = %topic, partition = batch.key.partition, attempts = batch.progress.attempts,
                    failure = batch.progress.last_failure, "batch is tried again");
                shared.state.lock().batches.retry(batch, at);
            }
            Verdict::Written(receipt) => {
                shared.state.lock().batches.settle(&batch);
                let (partition, records, attempts) = (batch.key.partition, batch.records, batch.progress.attempts);
                let outcome = Ok(receipt.base_offset);
                self.report(&BatchReport { topic: &topic, partition, records, attempts, outcome });
                batch.ticket.written(receipt);
            }
            Verdict::Failed { effect, error } => {
                shared.state.lock().batches.settle(&batch);
                self.report_failure(&mut batch, effect, error);
            }
        }
    }

    fn report_failure(&self, batch: &mut Batch<Ticket>, effect: Effect, error: Error) {
        let topic = self.shared.state.lock().topics.name(batch.key.topic);
        tracing::debug!(topic = %topic, partition = batch.key.partition, records = batch.records, %error, "batch failed");
        let (partition, records, attempts) = (batch.key.partition, batch.records, batch.progress.attempts);
        let outcome = Err((effect, &error));
        self.report(&BatchReport { topic: &topic, partition, records, attempts, outcome });
        let bytes = batch.build().ok();
        batch.ticket.failed(effect, error, attempts, bytes);
    }

    fn report(&self, report: &BatchReport<'_>) {
        if let Some(on_batch) = &self.shared.on_batch {
            on_batch(report);
        }
    }

    /// The producer is closed: what waits was not written (unless an earlier attempt may have been), what is out is unknown.
    fn abandon(mut self) {
        let waiting = self.shared.state.lock().batches.drain();
        for mut batch in waiting {
            let effect = if batch.progress.maybe_written { Effect::Unknown } else { Effect::NotWritten };
            self.report_failure(&mut batch, effect, Error::Closed);
        }
        for Out { ticket, key, records, attempts } in std::mem::take(&mut self.out).into_values() {
            let topic = self.shared.state.lock().topics.name(key.topic);
            let outcome = Err((Effect::Unknown, &Error::Closed));
            self.report(&BatchReport { topic: &topic, partition: key.partition, records, attempts, outcome });
            ticket.failed(Effect::Unknown, Error::Closed, attempts, None);
        }
        self.shared.progress.notify_waiters();
    }
}
