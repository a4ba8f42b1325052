//! What else version 1 fixes: sizes that DESIGN.md section 2 promises, the chain hash, and the fold itself.

use super::{facts, ids, kept, topic};
use crate::ids::BrokerId;
use crate::limits::PARTITION_CHANGE_BYTES_MAX;
use crate::metadata::batch::{MetadataBatch, chain};
use crate::metadata::image::MetadataImage;
use crate::metadata::record::*;
use crate::metadata::snapshot::{decode, encode, image_hash};
use crate::testing::FactGen;

fn changed(changes: Vec<PartitionChange>) -> usize {
    Fact::PartitionsChanged(PartitionsChanged { topic: topic(), changes }).encoded_len()
}

/// What fencing a broker makes of a partition: leader, ISR and ELR change; ids up to five digits, numbers up to 100,000.
fn failover(partition: u32) -> PartitionChange {
    PartitionChange {
        partition,
        leader: LeaderChange::Broker(BrokerId(60_001)),
        isr: Some(ids(&[60_001, 60_002])),
        elr: Some(ids(&[60_003])),
        ..PartitionChange::default()
    }
}

#[test]
fn a_partition_costs_32_bytes_or_less_in_a_change() {
    let many = changed((99_000..100_000).map(failover).collect());
    assert!(many <= 1_000 * PARTITION_CHANGE_BYTES_MAX, "{} bytes each", many / 1_000);
}

#[test]
fn a_new_partition_costs_32_bytes_or_less() {
    let assignment = Assignment {
        replicas: ids(&[60_001, 60_002, 60_003]),
        isr: ids(&[60_001, 60_002, 60_003]),
        leader: Some(BrokerId(60_001)),
    };
    let fact = PartitionsCreated { topic: topic(), first: 0, assignments: vec![assignment; 1_000] };
    let bytes = Fact::PartitionsCreated(fact).encoded_len();
    assert!(bytes <= 1_000 * PARTITION_CHANGE_BYTES_MAX, "{} bytes each", bytes / 1_000);
}

#[test]
fn announced_lengths_are_the_lengths_written() {
    let facts = facts();
    for fact in &facts {
        let batch = MetadataBatch { base: crate::ids::BatchNo(300), facts: vec![fact.clone()] };
        assert_eq!(batch.encoded_len(), batch.encode().len(), "{}", fact.name());
    }
    for count in [0, 127, 128, 20_000] {
        let fact = PartitionsChanged { topic: topic(), changes: vec![PartitionChange::default(); count] };
        let batch = MetadataBatch { base: crate::ids::BatchNo(0), facts: vec![Fact::PartitionsChanged(fact)] };
        assert_eq!(batch.encoded_len(), batch.encode().len(), "{count} changes");
    }
}

#[test]
fn the_chain_is_pinned() {
    // Feeds of different builds compare these values: another hash function would halt every follower.
    assert_eq!(chain(0, b""), 0xa8c7_f832_281a_39c5);
    assert_eq!(chain(1, b"seawall"), 0x2d66_a5b2_e16a_9707);
}

/// A history as it was written once, and what its fold said then.
#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    batches: Vec<Vec<u8>>,
    chain_hash: u64,
    image_hash: u64,
    snapshot: Vec<u8>,
}

fn fold(batches: &[Vec<u8>]) -> MetadataImage {
    batches.iter().fold(MetadataImage::default(), |image, bytes| {
        let batch = MetadataBatch::decode(bytes).expect("version 1 is read for ever");
        image.apply(&batch, bytes).expect("it was legal when it was written").0
    })
}

fn write() -> Vec<u8> {
    let rich = |facts: &Vec<Fact>| {
        let image = crate::testing::applied(&MetadataImage::default(), facts).0;
        let kinds: std::collections::BTreeSet<u16> = facts.iter().map(Fact::kind).collect();
        image.topics.partition_count() > 8 && kinds.len() + 1 == Fact::KINDS.len()
    };
    let facts = (0..).map(|seed| FactGen::history(seed, 250)).find(rich).expect("some seed reaches it");
    let batches: Vec<Vec<u8>> = (0..)
        .zip(facts.chunks(7))
        .map(|(base, facts)| MetadataBatch { base: crate::ids::BatchNo(base), facts: facts.to_vec() }.encode())
        .collect();
    let image = fold(&batches);
    let (chain_hash, image_hash, snapshot) = (image.chain_hash, image_hash(&image), encode(&image).concat());
    postcard::to_stdvec(&Kept { batches, chain_hash, image_hash, snapshot }).expect("postcard writes plain data")
}

#[test]
fn a_history_written_once_folds_to_the_same_image_for_ever() {
    let kept: Kept = postcard::from_bytes(&kept("history/v1.bin", write)).expect("it was written by this test");
    let image = fold(&kept.batches);
    assert_eq!(image.chain_hash, kept.chain_hash);
    assert_eq!(image_hash(&image), kept.image_hash, "the fold of version 1 has changed: that is a new version");
    assert_eq!(decode([&kept.snapshot]).as_ref(), Ok(&image), "the snapshot of that time still decodes");
    let partitions = image.topics.partition_count();
    assert!(partitions > 8 && image.brokers.iter().count() > 3, "{partitions} partitions: the history says something");
}
