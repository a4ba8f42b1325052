//! The committed image and the batches that led to it, for everybody on this node who reads: handlers, the decider, and
//! followers of the metadata feed. Only the state machine publishes. Invariant: the image never goes back, and a
//! follower continues only from a batch number whose chain hash equals ours; otherwise it is told that histories parted.

use crate::limits::{CHAIN_HISTORY, FEED_RING_BATCHES, FEED_RING_BYTES};
use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use protocol::ids::BatchNo;
use protocol::metadata::image::MetadataImage;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// One applied batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedBatch {
    /// Its number.
    pub batch_no: BatchNo,
    /// Chain hash after it.
    pub chain_hash: u64,
    /// Encoded `MetadataBatch`.
    pub data: Bytes,
}

/// What a follower gets next.
#[derive(Debug, Clone)]
pub enum FeedStep {
    /// Too far behind (or new): this image, whole.
    Snapshot(Arc<MetadataImage>),
    /// The batches after its position, at least one.
    Batches(Vec<AppliedBatch>),
    /// Nothing after its position yet.
    Idle,
}

/// The follower's batch number has another chain hash here: one of us has another history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("chain hash {theirs:#x} at batch {batch_no}, here it is {ours:#x}: the histories parted, the node must stop")]
pub struct FeedDiverged {
    /// Where.
    pub batch_no: BatchNo,
    /// The follower's hash.
    pub theirs: u64,
    /// Ours.
    pub ours: u64,
}

#[derive(Default)]
struct Ring {
    batches: VecDeque<AppliedBatch>,
    bytes: usize,
    /// Chain hashes after batches `first_hash..`, dense, the last one being the image's.
    hashes: VecDeque<u64>,
    first_hash: u64,
}

impl Ring {
    fn begin_at(image: &MetadataImage) -> Self {
        Self { hashes: VecDeque::from([image.chain_hash]), first_hash: image.batch_no.0, ..Self::default() }
    }

    fn push(&mut self, batch: AppliedBatch) {
        self.hashes.push_back(batch.chain_hash);
        if self.hashes.len() > CHAIN_HISTORY {
            self.hashes.pop_front();
            self.first_hash += 1;
        }
        self.bytes += batch.data.len();
        self.batches.push_back(batch);
        while self.batches.len() > FEED_RING_BATCHES || self.bytes > FEED_RING_BYTES {
            self.bytes -= self.batches.pop_front().map_or(0, |b| b.data.len());
        }
    }

    fn hash_after(&self, batch_no: BatchNo) -> Option<u64> {
        let place = batch_no.0.checked_sub(self.first_hash)?;
        self.hashes.get(usize::try_from(place).ok()?).copied()
    }
}

/// See the module's text.
pub struct Feed {
    image: ArcSwap<MetadataImage>,
    ring: Mutex<Ring>,
    position: watch::Sender<BatchNo>,
}

impl Default for Feed {
    fn default() -> Self {
        let image = MetadataImage::default();
        Self {
            ring: Mutex::new(Ring::begin_at(&image)),
            position: watch::Sender::new(image.batch_no),
            image: ArcSwap::from_pointee(image),
        }
    }
}

impl Feed {
    /// The committed image as applied here.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    /// Batch number of the image, and a wake-up whenever it moves.
    #[must_use]
    pub fn position(&self) -> watch::Receiver<BatchNo> {
        self.position.subscribe()
    }

    /// Publishes the image after one more batch.
    pub(crate) fn publish(&self, image: MetadataImage, data: Bytes) {
        let (batch_no, chain_hash) = (image.batch_no, image.chain_hash);
        self.ring.lock().push(AppliedBatch { batch_no, chain_hash, data });
        self.image.store(Arc::new(image));
        self.position.send_replace(batch_no);
    }

    /// Publishes an image that came as a snapshot; followers behind it get a snapshot too.
    pub(crate) fn replace(&self, image: MetadataImage) {
        let batch_no = image.batch_no;
        *self.ring.lock() = Ring::begin_at(&image);
        self.image.store(Arc::new(image));
        self.position.send_replace(batch_no);
    }

    /// What comes after a follower's position. `max_bytes` bounds a step; at least one batch is given.
    ///
    /// # Errors
    /// [`FeedDiverged`] when the follower's chain hash is known to be another one than ours.
    pub fn next(&self, at: BatchNo, chain_hash: u64, max_bytes: usize) -> Result<FeedStep, FeedDiverged> {
        let ring = self.ring.lock();
        if let Some(ours) = ring.hash_after(at).filter(|ours| *ours != chain_hash) {
            return Err(FeedDiverged { batch_no: at, theirs: chain_hash, ours });
        }
        let image = self.image();
        if at >= image.batch_no {
            return Ok(FeedStep::Idle);
        }
        let Some(first) = ring.batches.front().map(|b| b.batch_no.0).filter(|first| *first <= at.0 + 1) else {
            return Ok(FeedStep::Snapshot(image));
        };
        let skip = usize::try_from(at.0 + 1 - first).unwrap_or(usize::MAX);
        let mut room = max_bytes;
        let mut batches = Vec::new();
        for batch in ring.batches.iter().skip(skip) {
            if !batches.is_empty() && batch.data.len() > room {
                break;
            }
            room = room.saturating_sub(batch.data.len());
            batches.push(batch.clone());
        }
        Ok(if batches.is_empty() { FeedStep::Idle } else { FeedStep::Batches(batches) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(batch_no: u64) -> MetadataImage {
        MetadataImage { batch_no: BatchNo(batch_no), chain_hash: 1000 + batch_no, ..MetadataImage::default() }
    }

    fn feed_with(batches: u64) -> Feed {
        let feed = Feed::default();
        for n in 1..=batches {
            feed.publish(image(n), Bytes::from(vec![0; 100]));
        }
        feed
    }

    fn numbers(step: Result<FeedStep, FeedDiverged>) -> Vec<u64> {
        match step {
            Ok(FeedStep::Batches(batches)) => batches.iter().map(|b| b.batch_no.0).collect(),
            other => panic!("expected batches, got {other:?}"),
        }
    }

    #[test]
    fn a_follower_gets_what_comes_after_its_position_within_its_bytes() {
        let feed = feed_with(10);
        assert_eq!(numbers(feed.next(BatchNo(0), 0, usize::MAX)), (1..=10).collect::<Vec<_>>());
        assert_eq!(numbers(feed.next(BatchNo(3), 1003, 250)), vec![4, 5]);
        assert_eq!(numbers(feed.next(BatchNo(9), 1009, 1)), vec![10], "at least one");
        assert!(matches!(feed.next(BatchNo(10), 1010, 1), Ok(FeedStep::Idle)));
    }

    #[test]
    fn another_chain_hash_is_another_history() {
        let feed = feed_with(10);
        let refused = feed.next(BatchNo(4), 7, usize::MAX).expect_err("diverged");
        assert_eq!(refused, FeedDiverged { batch_no: BatchNo(4), theirs: 7, ours: 1004 });
        assert!(feed.next(BatchNo(10), 7, usize::MAX).is_err(), "also where there is nothing new");
    }

    #[test]
    fn one_who_is_ahead_waits() {
        assert!(matches!(feed_with(3).next(BatchNo(5), 9, 1), Ok(FeedStep::Idle)));
    }

    #[test]
    fn one_who_fell_out_of_the_ring_gets_the_image_but_its_history_is_still_checked() {
        let batches = FEED_RING_BATCHES as u64 + 5;
        let feed = feed_with(batches);
        assert!(matches!(feed.next(BatchNo(2), 1002, 1), Ok(FeedStep::Snapshot(i)) if i.batch_no == BatchNo(batches)));
        assert!(feed.next(BatchNo(2), 7, 1).is_err());
    }

    #[test]
    fn after_a_snapshot_the_ring_begins_there() {
        let feed = feed_with(3);
        feed.replace(image(50));
        assert!(matches!(feed.next(BatchNo(3), 1003, 1), Ok(FeedStep::Snapshot(_))));
        feed.publish(image(51), Bytes::from_static(b"x"));
        assert_eq!(numbers(feed.next(BatchNo(50), 1050, 1)), vec![51]);
        assert_eq!(*feed.position().borrow(), BatchNo(51));
    }
}
