//! The fate of a record: a future per record, one cell per batch.
//!
//! Owns: [`Delivery`] and what it resolves to; records given back on failure are decoded from the batch's own bytes.
//! Never: cancels anything when a future is dropped.
//! Invariant: a cell is settled exactly once; a delivery that resolves to `Ok` was acknowledged as the producer's `acks`
//! asks, one that resolves to [`Effect::NotWritten`] is certainly in no log.

use crate::error::{Effect, Error};
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::batch::{Limits, RecordHeader, records};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

/// A record to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerRecord {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition, or `None`: by key, or any if there is no key.
    pub partition: Option<u32>,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<RecordHeader>,
    /// Time in ms since 1970, or `None`: when it is handed over.
    pub timestamp: Option<i64>,
}

impl ProducerRecord {
    /// A record with a value.
    #[must_use]
    pub fn new(topic: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        let (topic, value) = (topic.into(), Some(value.into()));
        Self { topic, partition: None, key: None, value, headers: Vec::new(), timestamp: None }
    }

    /// The same with a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same for one partition.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }
}

/// Where a record was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: u32,
    /// Offset; `None` with acks=0, where nobody tells.
    pub offset: Option<u64>,
    /// The leader epoch in which it was acknowledged; `None` with acks=0.
    pub leader_epoch: Option<u32>,
    /// The broker that acknowledged it; `None` with acks=0.
    pub broker: Option<u32>,
}

/// What was told of a batch that was written; nothing with acks=0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Offset of its first record.
    pub base_offset: Option<u64>,
    /// The leader epoch of the answer.
    pub leader_epoch: Option<u32>,
    /// Who answered.
    pub broker: Option<u32>,
}

/// A record that was not acknowledged.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {error}", match effect { Effect::NotWritten => "not written", Effect::Unknown => "outcome unknown, it may have been written" })]
pub struct DeliveryFailure {
    /// Whether it may be in the log all the same.
    pub effect: Effect,
    /// Why.
    pub error: Error,
    /// The partition it was for.
    pub partition: u32,
    /// Attempts made.
    pub attempts: u32,
    /// The record, given back. `None` if its batch was under way when the producer was closed, or could not be encoded.
    pub record: Option<ProducerRecord>,
}

#[derive(Debug)]
struct Failure {
    effect: Effect,
    error: Error,
    attempts: u32,
    batch: Option<Bytes>,
    records: OnceLock<Vec<ProducerRecord>>,
}

#[derive(Debug, Clone)]
enum State {
    Pending(BTreeMap<u32, Waker>),
    Written(Receipt),
    Failed(Arc<Failure>),
}

/// A batch's fate, shared by the deliveries of its records.
#[derive(Debug, Clone)]
pub(crate) struct Ticket(Arc<Cell>);

#[derive(Debug)]
struct Cell {
    topic: Arc<str>,
    partition: u32,
    state: Mutex<State>,
}

impl Ticket {
    pub(crate) fn new(topic: Arc<str>, partition: u32) -> Self {
        Self(Arc::new(Cell { topic, partition, state: Mutex::new(State::Pending(BTreeMap::new())) }))
    }

    pub(crate) fn delivery(&self, index: u32) -> Delivery {
        Delivery { cell: self.0.clone(), index }
    }

    /// Settles: written, as this says.
    pub(crate) fn written(&self, receipt: Receipt) {
        self.settle(State::Written(receipt));
    }

    /// Settles: failed. `batch` holds the records to give back.
    pub(crate) fn failed(&self, effect: Effect, error: Error, attempts: u32, batch: Option<Bytes>) {
        let records = OnceLock::new();
        self.settle(State::Failed(Arc::new(Failure { effect, error, attempts, batch, records })));
    }

    fn settle(&self, outcome: State) {
        let before = std::mem::replace(&mut *self.0.state.lock(), outcome);
        match before {
            State::Pending(wakers) => wakers.into_values().for_each(Waker::wake),
            State::Written(_) | State::Failed(_) => {
                unreachable!("a batch leaves the accumulator once, and settles then")
            }
        }
    }
}

/// Resolves when the record's fate is known. Dropping it changes nothing: the record is sent all the same.
#[derive(Debug)]
#[must_use = "a record whose delivery nobody looks at may be lost unnoticed; drop it explicitly if that is meant"]
pub struct Delivery {
    cell: Arc<Cell>,
    index: u32,
}

impl Future for Delivery {
    type Output = Result<Written, DeliveryFailure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let failure = match &mut *self.cell.state.lock() {
            State::Pending(wakers) => {
                wakers.insert(self.index, cx.waker().clone());
                return Poll::Pending;
            }
            State::Written(Receipt { base_offset, leader_epoch, broker }) => {
                let offset = base_offset.map(|base| base + u64::from(self.index));
                let (topic, partition) = (self.cell.topic.clone(), self.cell.partition);
                let (leader_epoch, broker) = (*leader_epoch, *broker);
                return Poll::Ready(Ok(Written { topic, partition, offset, leader_epoch, broker }));
            }
            State::Failed(failure) => failure.clone(),
        };
        let records =
            failure.records.get_or_init(|| decode(&self.cell.topic, self.cell.partition, failure.batch.as_ref()));
        Poll::Ready(Err(DeliveryFailure {
            effect: failure.effect,
            error: failure.error.clone(),
            partition: self.cell.partition,
            attempts: failure.attempts,
            record: records.get(self.index as usize).cloned(),
        }))
    }
}

fn decode(topic: &Arc<str>, partition: u32, batch: Option<&Bytes>) -> Vec<ProducerRecord> {
    let decoded = batch.and_then(|batch| records(batch, &Limits::default()).ok());
    let record = |stored: protocol::batch::StoredRecord| ProducerRecord {
        topic: topic.clone(),
        partition: Some(partition),
        key: stored.record.key,
        value: stored.record.value,
        headers: stored.record.headers,
        timestamp: Some(stored.record.timestamp),
    };
    decoded.into_iter().flatten().map_while(Result::ok).map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use protocol::batch::{BatchBuilder, Compression};

    fn ticket() -> Ticket {
        Ticket::new("t".into(), 3)
    }

    #[test]
    fn offsets_count_from_the_base() {
        let ticket = ticket();
        let mut second = ticket.delivery(1);
        assert!((&mut second).now_or_never().is_none());
        ticket.written(Receipt { base_offset: Some(40), leader_epoch: Some(6), broker: Some(2) });
        assert_eq!(second.now_or_never().unwrap().unwrap().offset, Some(41));
    }

    #[test]
    fn a_failure_gives_each_record_back() {
        let mut batch = BatchBuilder::new(Compression::Lz4);
        batch.push(7, Some(b"k0"), Some(b"v0"), &[]).unwrap();
        batch.push(8, None, None, &[RecordHeader { key: "h".into(), value: None }]).unwrap();
        let ticket = ticket();
        let deliveries = [ticket.delivery(0), ticket.delivery(1)];
        ticket.failed(Effect::Unknown, Error::Closed, 2, Some(batch.build().unwrap().into()));
        let [first, second] = deliveries.map(|d| d.now_or_never().unwrap().unwrap_err());
        let first = first.record.unwrap();
        assert_eq!((first.key.as_deref(), first.value.as_deref()), (Some(&b"k0"[..]), Some(&b"v0"[..])));
        assert_eq!((first.partition, first.timestamp), (Some(3), Some(7)));
        assert_eq!(second.to_string(), "outcome unknown, it may have been written: the handle is closed");
        assert_eq!(second.record.unwrap().headers.len(), 1);
    }
}
