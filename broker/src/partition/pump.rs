//! Pumps: what each follower has been sent, and the batches kept in memory until all of them have it.
//!
//! Invariant: a follower is sent every batch from its start on, in order and once per subscription; what is no longer in
//! memory is read from the log. Nothing is kept for followers that stand still longer than the kept bytes reach.

use bytes::Bytes;
use log::LogError;
use protocol::ids::BrokerId;
use std::collections::{BTreeMap, VecDeque};

use super::Partition;
use super::outside::{Outside, PushOut, Subscription};
use crate::limits;
use crate::replica::input::{Input, SubscriptionId};
use crate::replica::lease::Now;

type Key = (BrokerId, SubscriptionId);

#[derive(Debug, Clone, Copy)]
struct Pump {
    next: u64,
    /// Positions that travelled last.
    told: Option<(Option<u64>, u64)>,
}

#[derive(Debug)]
struct Kept {
    base: u64,
    end: u64,
    batch: Bytes,
}

/// All pumps of one partition.
#[derive(Debug, Default)]
pub(super) struct Pumps {
    pumps: BTreeMap<Key, Pump>,
    kept: VecDeque<Kept>,
    kept_bytes: usize,
}

impl Pumps {
    pub(super) fn start(&mut self, follower: BrokerId, subscription: SubscriptionId, from: u64) {
        self.pumps.insert((follower, subscription), Pump { next: from, told: None });
    }

    pub(super) fn stop(&mut self, follower: BrokerId, subscription: SubscriptionId) {
        self.pumps.remove(&(follower, subscription));
        if self.pumps.is_empty() {
            self.forget_kept();
        }
    }

    /// Keeps a batch while a pump may still want it.
    pub(super) fn keep(&mut self, base: u64, end: u64, batch: Bytes) {
        if self.pumps.is_empty() || self.kept.back().is_some_and(|last| last.end != base) {
            self.forget_kept();
        }
        if self.pumps.is_empty() {
            return;
        }
        self.kept_bytes += batch.len();
        self.kept.push_back(Kept { base, end, batch });
        while self.kept_bytes > limits::KEPT_BYTES_PER_PARTITION {
            self.drop_first();
        }
    }

    pub(super) fn forget_kept(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.kept.pop_front() {
            self.kept_bytes -= first.batch.len();
        }
    }

    /// Drops what every pump has sent.
    fn trim(&mut self) {
        let least = self.pumps.values().map(|p| p.next).min().unwrap_or(u64::MAX);
        while self.kept.front().is_some_and(|first| first.end <= least) {
            self.drop_first();
        }
    }

    fn kept_at(&self, offset: u64) -> Option<(u64, Bytes)> {
        let at = self.kept.binary_search_by_key(&offset, |k| k.base).ok()?;
        self.kept.get(at).map(|k| (k.end, k.batch.clone()))
    }
}

impl Partition {
    fn subscription(&self, (follower, number): Key) -> Subscription {
        Subscription { at: self.at, follower, number }
    }

    fn push_out(&self, base: u64, batches: Bytes) -> PushOut {
        let state = self.replica.wire_state();
        PushOut {
            leader_epoch: state.leader_epoch,
            base,
            high_watermark: state.high_watermark,
            log_start: state.log_start,
            batches,
        }
    }

    /// Sends a batch that is about to be appended to every pump that stands exactly there.
    pub(super) fn offer(&mut self, base: u64, end: u64, batch: &Bytes, _now: Now, out: &mut dyn Outside) {
        let push = self.push_out(base, batch.clone());
        for ((follower, number), pump) in &mut self.pumps.pumps {
            let to = Subscription { at: self.at, follower: *follower, number: *number };
            if pump.next == base && out.may_push(to) {
                pump.next = end;
                pump.told = Some((push.high_watermark, push.log_start));
                out.push(to, push.clone());
            }
        }
    }

    /// Sends whatever credit allows, and positions to those that have everything.
    pub(super) fn pump(&mut self, now: Now, out: &mut dyn Outside) {
        if self.pumps.pumps.is_empty() {
            return;
        }
        let keys: Vec<_> = self.pumps.pumps.keys().copied().collect();
        for key in keys {
            self.pump_one(key, now, out);
            if self.dead {
                return;
            }
        }
        self.pumps.trim();
    }

    fn pump_one(&mut self, key: Key, now: Now, out: &mut dyn Outside) {
        let (follower, subscription) = key;
        let to = self.subscription(key);
        while let Some(pump) = self.pumps.pumps.get(&key).copied() {
            if pump.next >= self.log.end_offset() {
                return self.tell_positions(key, pump, out);
            }
            if !out.may_push(to) {
                return;
            }
            let (end, batches) = match self.batches_from(pump.next) {
                Ok(found) => found,
                Err(LogError::BelowStart { .. }) => {
                    return self.step(Input::PumpBelowStart { follower, subscription }, now, out);
                }
                Err(LogError::Damaged(damage)) => {
                    tracing::error!(partition = %self.at, %damage, "a follower cannot be fed");
                    return self.step(Input::PumpUnreadable { follower, subscription }, now, out);
                }
                Err(error) => {
                    let fatal = self.disk("read", &error);
                    return self.die(fatal, out);
                }
            };
            let push = self.push_out(pump.next, batches);
            let told = Some((push.high_watermark, push.log_start));
            self.pumps.pumps.insert(key, Pump { next: end, told });
            out.push(to, push);
        }
    }

    /// A follower that has everything hears of a moved high watermark or log start once.
    fn tell_positions(&mut self, key: Key, pump: Pump, out: &mut dyn Outside) {
        let push = self.push_out(pump.next, Bytes::new());
        let told = Some((push.high_watermark, push.log_start));
        if pump.told != told {
            self.pumps.pumps.insert(key, Pump { told, ..pump });
            out.push(self.subscription(key), push);
        }
    }

    fn batches_from(&self, from: u64) -> Result<(u64, Bytes), LogError> {
        if let Some(kept) = self.pumps.kept_at(from) {
            return Ok(kept);
        }
        let end = self.log.end_offset();
        let bytes = self.log.read(from, limits::PUSH_BYTES, end, true)?;
        let next = super::read::end_of(&bytes).unwrap_or(end);
        Ok((next, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_once_the_last_pump_stops() {
        let mut pumps = Pumps::default();
        let (two, three) = (BrokerId(2), BrokerId(3));
        pumps.start(two, SubscriptionId(1), 0);
        pumps.start(three, SubscriptionId(1), 0);
        pumps.keep(0, 5, Bytes::from_static(b"batch"));
        pumps.stop(two, SubscriptionId(1));
        assert_eq!(pumps.kept_bytes, 5, "the other one still wants it");
        pumps.stop(three, SubscriptionId(1));
        assert_eq!((pumps.kept_bytes, pumps.kept.len()), (0, 0));
    }
}
