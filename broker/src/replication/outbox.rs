//! What a replication stream will send next: a queue, and things of which only the newest counts (acknowledgements,
//! credit, positions), so that a slow stream gets fewer messages rather than a longer queue.
//!
//! Invariant: the queue goes first, so a merged message never overtakes the one that opened its subscription.

use futures_util::Stream;
use parking_lot::Mutex;
use protocol::rpc::pb::replication::v1 as wire;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use tokio::sync::Notify;

/// Messages of which a later one replaces or adds to an earlier one.
pub trait Merged: Default + Send + 'static {
    /// The stream's message type.
    type Message: Send + 'static;
    /// Everything merged so far as one message; None when there is nothing.
    fn take(&mut self) -> Option<Self::Message>;
}

/// Acknowledgements by subscription, and credit to give back.
#[derive(Debug, Default)]
pub struct MergedAcks {
    acks: BTreeMap<u64, wire::Ack>,
    credit: u64,
}

impl MergedAcks {
    /// A newer acknowledgement of the same subscription takes the place of the older.
    pub fn ack(&mut self, ack: wire::Ack) {
        self.acks.insert(ack.subscription, ack);
    }
    /// Pushed bytes that have been taken in.
    pub fn credit(&mut self, bytes: u64) {
        self.credit += bytes;
    }
}

impl Merged for MergedAcks {
    type Message = wire::FollowerMessage;

    fn take(&mut self) -> Option<Self::Message> {
        if self.acks.is_empty() && self.credit == 0 {
            return None;
        }
        let acks = std::mem::take(&mut self.acks).into_values().collect();
        let acks = wire::Acks { acks, credit_bytes: std::mem::take(&mut self.credit) };
        Some(wire::FollowerMessage { message: Some(wire::follower_message::Message::Acks(acks)) })
    }
}

/// High watermarks and log starts without data, by subscription.
#[derive(Debug, Default)]
pub struct MergedAdvances {
    advances: BTreeMap<u64, wire::Advance>,
}

impl MergedAdvances {
    /// A newer position of the same subscription takes the place of the older.
    pub fn advance(&mut self, advance: wire::Advance) {
        self.advances.insert(advance.subscription, advance);
    }
}

impl Merged for MergedAdvances {
    type Message = wire::LeaderMessage;

    fn take(&mut self) -> Option<Self::Message> {
        let (_, advance) = self.advances.pop_first()?;
        Some(wire::LeaderMessage { message: Some(wire::leader_message::Message::Advance(advance)) })
    }
}

struct State<M: Merged> {
    queue: VecDeque<M::Message>,
    merged: M,
    closed: bool,
}

/// The sending half of a stream, shared by whoever has something to send on it.
pub struct Outbox<M: Merged> {
    state: Mutex<State<M>>,
    wake: Notify,
}

impl<M: Merged> fmt::Debug for Outbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Outbox").field("queued", &state.queue.len()).field("closed", &state.closed).finish()
    }
}

impl<M: Merged> Default for Outbox<M> {
    fn default() -> Self {
        let state = State { queue: VecDeque::new(), merged: M::default(), closed: false };
        Self { state: Mutex::new(state), wake: Notify::new() }
    }
}

impl<M: Merged> Outbox<M> {
    /// Queues a message. Bounded by its senders: handshakes by subscriptions, pushes by credit.
    pub fn push(&self, message: M::Message) {
        self.state.lock().queue.push_back(message);
        self.wake.notify_one();
    }

    /// Changes what is merged.
    pub fn merge(&self, change: impl FnOnce(&mut M)) {
        change(&mut self.state.lock().merged);
        self.wake.notify_one();
    }

    /// Ends the stream once the queue is sent.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_one();
    }

    /// None: wait. Some(None): the end.
    fn next(&self) -> Option<Option<M::Message>> {
        let mut state = self.state.lock();
        if let Some(message) = state.queue.pop_front() {
            return Some(Some(message));
        }
        if let Some(message) = state.merged.take() {
            return Some(Some(message));
        }
        state.closed.then_some(None)
    }

    /// Everything sent, in order, as a stream. For one reader.
    pub fn messages(self: Arc<Self>) -> impl Stream<Item = M::Message> + Send + 'static {
        futures_util::stream::unfold(self, |outbox| async move {
            loop {
                let woken = outbox.wake.notified();
                if let Some(next) = outbox.next() {
                    return next.map(|message| {
                        drop(woken);
                        (message, outbox.clone())
                    });
                }
                woken.await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;
    use wire::follower_message::Message;

    fn ack(subscription: u64, log_end: u64) -> wire::Ack {
        wire::Ack { subscription, log_end, ..wire::Ack::default() }
    }

    #[tokio::test]
    async fn a_slow_stream_sees_only_the_newest_acknowledgements_and_all_credit() {
        let outbox: Arc<Outbox<MergedAcks>> = Arc::default();
        for end in 1..=3 {
            outbox.merge(|m| m.ack(ack(7, end)));
            outbox.merge(|m| m.credit(100));
        }
        outbox
            .push(wire::FollowerMessage { message: Some(Message::Unsubscribe(wire::Unsubscribe { subscription: 1 })) });
        outbox.close();
        let sent: Vec<_> = outbox.messages().filter_map(|m| async { m.message }).collect().await;
        assert!(matches!(sent[0], Message::Unsubscribe(_)), "the queue goes first");
        let Message::Acks(acks) = &sent[1] else { panic!("acknowledgements follow") };
        assert_eq!((acks.acks.len(), acks.acks[0].log_end, acks.credit_bytes), (1, 3, 300));
        assert_eq!(sent.len(), 2);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let outbox: Arc<Outbox<MergedAdvances>> = Arc::default();
        let mut stream = Box::pin(outbox.clone().messages());
        let reader = tokio::spawn(async move { stream.next().await });
        tokio::task::yield_now().await;
        outbox.merge(|m| m.advance(wire::Advance { subscription: 2, log_start: 5, ..wire::Advance::default() }));
        let message = reader.await.expect("the reader ends").expect("a message");
        assert!(matches!(message.message, Some(wire::leader_message::Message::Advance(a)) if a.log_start == 5));
    }
}
