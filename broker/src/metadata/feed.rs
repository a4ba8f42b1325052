//! What one item of the feed does to the image (pure). Owns the rules of DESIGN section 2: batches continue exactly, the
//! chain hash agrees, an image never goes back, an unknown fact stops the node.
//!
//! Never: chooses a source, waits, publishes.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use protocol::ids::{BatchNo, TopicId};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::delta::Delta;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use protocol::metadata::snapshot;
use protocol::planted::{self, Bug};
use protocol::rpc::pb::metadata::v1::{FeedBatch, FeedItem, FeedSnapshot, feed_item::Item};

use std::collections::BTreeSet;

use crate::limits;

/// What separates an image from the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Where to look.
    pub delta: Delta,
    /// Topics named by `TopicPurged` facts. Never derived from a difference of images: only such a fact removes data.
    pub purged: BTreeSet<TopicId>,
}

/// What an item led to.
#[derive(Debug)]
pub enum Fed {
    /// A new image, and what it changed.
    Image(Box<MetadataImage>, Change),
    /// Nothing new; the source stands at this batch number.
    Position(BatchNo),
    /// Part of a snapshot.
    Partial,
}

/// Why an item cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeedFault {
    /// Another source must be asked; nothing is wrong with this node's image.
    #[error("feed source cannot be used: {0}")]
    Switch(String),
    /// This node cannot go on.
    #[error("{0}")]
    Halt(String),
}

/// Follows one stream. A new one is made per source, so that half a snapshot never outlives its stream.
#[derive(Debug, Default)]
pub struct FeedReader {
    snapshot: Vec<Bytes>,
    snapshot_bytes: usize,
}

impl FeedReader {
    /// Takes one item on the image as it stands.
    ///
    /// # Errors
    /// [`FeedFault`].
    pub fn take(&mut self, image: &MetadataImage, item: FeedItem) -> Result<Fed, FeedFault> {
        match item.item {
            Some(Item::Batch(batch)) => take_batch(image, &batch),
            Some(Item::Snapshot(chunk)) => self.take_chunk(image, chunk),
            Some(Item::Position(at)) if is_behind(BatchNo(at.batch_no), image) => Err(FeedFault::Switch(format!(
                "it stands at batch {}, behind this node's {}",
                at.batch_no, image.batch_no
            ))),
            Some(Item::Position(at)) => Ok(Fed::Position(BatchNo(at.batch_no))),
            None => Err(FeedFault::Halt("feed item of a kind this build does not know: upgrade the node".into())),
        }
    }

    fn take_chunk(&mut self, image: &MetadataImage, chunk: FeedSnapshot) -> Result<Fed, FeedFault> {
        self.snapshot_bytes += chunk.data.len();
        if self.snapshot_bytes > limits::SNAPSHOT_BYTES_MAX {
            let text = format!("its snapshot passes {} bytes", limits::SNAPSHOT_BYTES_MAX);
            return Err(FeedFault::Switch(text));
        }
        self.snapshot.push(chunk.data.clone());
        if !chunk.last {
            return Ok(Fed::Partial);
        }
        let chunks = std::mem::take(&mut self.snapshot);
        self.snapshot_bytes = 0;
        let sum = chunks.iter().fold(0, |sum, data| crc32c::crc32c_append(sum, data));
        if sum != chunk.crc32c {
            return Err(FeedFault::Switch(format!(
                "its snapshot has checksum {sum:#x}, announced {:#x}",
                chunk.crc32c
            )));
        }
        let new = snapshot::decode(&chunks).map_err(|e| FeedFault::Halt(format!("snapshot of the feed: {e}")))?;
        if (new.batch_no.0, new.chain_hash) != (chunk.batch_no, chunk.chain_hash) {
            return Err(FeedFault::Switch("its snapshot is not of the batch it announces".into()));
        }
        if is_behind(new.batch_no, image) {
            return Err(FeedFault::Switch(format!(
                "its snapshot is of batch {}, behind this node's {}",
                new.batch_no, image.batch_no
            )));
        }
        if new.batch_no == image.batch_no && new.chain_hash != image.chain_hash {
            return Err(FeedFault::Halt(parted(image.batch_no, image.chain_hash, new.chain_hash)));
        }
        let delta = Delta::between(image, &new);
        Ok(Fed::Image(Box::new(new), Change { delta, purged: BTreeSet::new() }))
    }
}

/// Whether a source stands behind this node: its image is not taken.
fn is_behind(source: BatchNo, image: &MetadataImage) -> bool {
    source < image.batch_no && !planted::is(Bug::ImageBackwards)
}

fn parted(at: BatchNo, ours: u64, theirs: u64) -> String {
    format!("histories parted: at batch {at} the chain hash is {ours:#018x} here and {theirs:#018x} at the controller")
}

fn take_batch(image: &MetadataImage, item: &FeedBatch) -> Result<Fed, FeedFault> {
    let leaps = item.batch_no > image.batch_no.0 + 1 && planted::is(Bug::FeedGapSkipped);
    if item.batch_no != image.batch_no.0 + 1 && !leaps {
        let text = format!("it sent batch {} after batch {}", item.batch_no, image.batch_no);
        return Err(FeedFault::Switch(text));
    }
    let mut batch = MetadataBatch::decode(&item.data).map_err(|e| FeedFault::Halt(e.to_string()))?;
    if leaps {
        batch.base = image.batch_no;
    }
    let (mut new, delta) = image.apply(&batch, &item.data).map_err(|e| FeedFault::Halt(e.to_string()))?;
    if leaps {
        (new.batch_no, new.chain_hash) = (BatchNo(item.batch_no), item.chain_hash);
    }
    if new.chain_hash != item.chain_hash {
        return Err(FeedFault::Halt(parted(new.batch_no, new.chain_hash, item.chain_hash)));
    }
    let purged = batch.facts.iter().filter_map(|fact| match fact {
        Fact::TopicPurged(purged) => Some(purged.topic),
        _ => None,
    });
    Ok(Fed::Image(Box::new(new), Change { delta, purged: purged.collect() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::metadata::record::{ClusterFormed, ConfigResource, ConfigSet};
    use protocol::rpc::pb::metadata::v1::FeedPosition;
    use uuid::Uuid;

    fn formed() -> Fact {
        Fact::ClusterFormed(ClusterFormed { cluster_id: Uuid::from_u128(7), incarnation: 1, metadata_version: 1 })
    }

    fn config(value: &str) -> Fact {
        let (key, value) = ("retention.ms".to_owned(), value.to_owned());
        Fact::ConfigSet(ConfigSet { resource: ConfigResource::Cluster, key, value })
    }

    fn next(image: &MetadataImage, fact: Fact) -> (FeedItem, MetadataImage) {
        let batch = MetadataBatch { base: image.batch_no, facts: vec![fact] };
        let data = batch.encode();
        let (new, _) = image.apply(&batch, &data).expect("the fact is legal");
        let item = FeedBatch { batch_no: new.batch_no.0, chain_hash: new.chain_hash, data: data.into() };
        (FeedItem { item: Some(Item::Batch(item)) }, new)
    }

    fn fault(image: &MetadataImage, item: FeedItem) -> FeedFault {
        FeedReader::default().take(image, item).expect_err("the item is refused")
    }

    #[test]
    fn batches_build_the_image() {
        let (item, expected) = next(&MetadataImage::default(), formed());
        let fed = FeedReader::default().take(&MetadataImage::default(), item).expect("the first batch");
        assert!(matches!(fed, Fed::Image(image, change) if *image == expected && change.delta.cluster));
    }

    #[test]
    fn a_gap_or_a_repetition_asks_for_another_source() {
        let (first, one) = next(&MetadataImage::default(), formed());
        let (_, two) = next(&one, config("1000"));
        let (third, _) = next(&two, config("2000"));
        assert!(matches!(fault(&one, third), FeedFault::Switch(_)));
        assert!(matches!(fault(&one, first), FeedFault::Switch(_)));
    }

    #[test]
    fn another_history_halts_the_node() {
        let (_, one) = next(&MetadataImage::default(), formed());
        let (mut item, _) = next(&one, config("1000"));
        if let Some(Item::Batch(batch)) = &mut item.item {
            batch.chain_hash ^= 1;
        }
        assert!(matches!(fault(&one, item), FeedFault::Halt(text) if text.contains("histories parted")));
    }

    #[test]
    fn a_fact_of_an_unknown_kind_halts_the_node_with_a_message_that_says_so() {
        // One envelope of kind 999: base 0, one fact, kind, version, no bytes.
        let data = postcard::to_stdvec(&(0u64, vec![(999u16, 1u16, Vec::<u8>::new())])).expect("encodes");
        let item = FeedBatch { batch_no: 1, chain_hash: 0, data: data.into() };
        let fault = fault(&MetadataImage::default(), FeedItem { item: Some(Item::Batch(item)) });
        assert!(matches!(fault, FeedFault::Halt(text) if text.contains("unknown kind 999")));
    }

    #[test]
    fn a_source_that_is_behind_is_not_used() {
        let (_, one) = next(&MetadataImage::default(), formed());
        let item = FeedItem { item: Some(Item::Position(FeedPosition { batch_no: 0 })) };
        assert!(matches!(fault(&one, item), FeedFault::Switch(_)));
    }
}
