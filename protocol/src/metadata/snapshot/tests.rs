//! Damage, loss and forgery of snapshots; the round trip itself is a law (`metadata::tests::laws`).

use super::*;
use crate::ids::{BatchNo, BrokerId};
use crate::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_PARTITIONS_PER_FACT};
use crate::metadata::envelope::FactError;
use crate::metadata::record::{Fact, TopicPurged};
use crate::testing::{FactGen, applied};

fn small() -> MetadataImage {
    let rich = |i: &MetadataImage| i.topics.partition_count() > 3 && i.topics.deleted().count() > 0;
    let fold = |seed| applied(&MetadataImage::default(), &FactGen::history(seed, 60)).0;
    (0..).map(fold).find(rich).expect("some seed reaches it")
}

/// One topic of many partitions, so that the snapshot takes several facts and several chunks.
fn large(partitions: u32) -> MetadataImage {
    let mut image = small();
    let topic = image.topics.iter().find(|t| t.is_live() && !t.partitions.is_empty()).expect("it is rich").clone();
    let template = topic.partition(0).expect("it is not empty").clone();
    for _ in 0..partitions {
        image.topics.restore_partition(topic.id, template.clone());
    }
    image
}

#[test]
fn the_empty_image_has_a_snapshot_too() {
    let image = MetadataImage::default();
    assert_eq!(decode(encode(&image)), Ok(image));
}

const SMALL_CHUNK: usize = 20_000;

fn small_chunks(image: &MetadataImage) -> Vec<Bytes> {
    encode_in(image, ChunkWriter::new(SMALL_CHUNK))
}

#[test]
fn a_large_image_takes_several_chunks_each_within_its_bound() {
    let image = large(5_000);
    let chunks = small_chunks(&image);
    assert!(chunks.len() > 4, "{} chunks", chunks.len());
    assert!(chunks.iter().all(|c| c.len() <= SMALL_CHUNK));
    assert!(records(&image).count() > 5_000 / SNAPSHOT_PARTITIONS_PER_FACT);
    assert_eq!(decode(&chunks).as_ref(), Ok(&image));
    assert_eq!(encode(&image).len(), 1);
    assert_eq!(decode(encode(&image)), Ok(image), "the size of chunks says nothing");
}

#[test]
fn the_largest_fact_fits_a_chunk() {
    let all: Vec<BrokerId> = (0..32).map(|n| BrokerId(u32::MAX - n)).collect();
    let partition = PartitionRestored {
        replicas: all.clone(),
        adding: all.clone(),
        removing: all.clone(),
        isr: all.clone(),
        elr: Vec::new(),
        observers: all.clone(),
        leader: Some(BrokerId(u32::MAX)),
        leader_epoch: u32::MAX.into(),
        partition_epoch: u32::MAX.into(),
        recovery: crate::metadata::record::RecoveryState::Recovering,
        unclean_epoch: Some(u32::MAX.into()),
    };
    let partitions = vec![partition; SNAPSHOT_PARTITIONS_PER_FACT];
    let fact = PartitionsRestored { topic: crate::ids::TopicId::default(), first: u32::MAX, partitions };
    assert!(Restored::PartitionsRestored(fact).encoded_len() < SNAPSHOT_CHUNK_BYTES);
}

#[test]
fn chunks_lost_repeated_or_swapped_are_noticed_although_each_crc_holds() {
    let chunks = small_chunks(&large(3_000));
    for place in 0..chunks.len() {
        let mut lost = chunks.clone();
        lost.remove(place);
        assert!(decode(&lost).is_err(), "lost {place}");
        let mut twice = chunks.clone();
        twice.insert(place, chunks[place].clone());
        assert!(decode(&twice).is_err(), "repeated {place}");
        if place > 0 {
            let mut swapped = chunks.clone();
            swapped.swap(place, place - 1);
            assert!(decode(&swapped).is_err(), "swapped {place}");
        }
    }
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    let image = small();
    let bytes = encode(&image).concat();
    for place in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut damaged = bytes.clone();
            damaged[place] ^= bit;
            assert!(decode([&damaged]).is_err(), "byte {place} of {} flipped unnoticed", bytes.len());
        }
        assert!(matches!(decode([&bytes[..place]]), Err(SnapshotError::Truncated { .. })), "cut at {place}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(decode([&longer]), Err(SnapshotError::LeftOver));
    assert!(decode([&bytes, &bytes]).is_err(), "two snapshots are not one");
}

/// A stream of these envelopes with a right crc and an end that fits: what only meaning can refuse.
fn forged(envelopes: &[Envelope]) -> Vec<u8> {
    forged_for(envelopes, envelopes)
}

/// The same with the end of other facts.
fn forged_for(envelopes: &[Envelope], ended_as: &[Envelope]) -> Vec<u8> {
    let mut writer = ChunkWriter::new(SMALL_CHUNK);
    let began = SnapshotBegan { batch_no: BatchNo(1), chain_hash: 1 };
    writer.push(&Restored::SnapshotBegan(began).to_envelope());
    envelopes.iter().for_each(|e| writer.push(e));
    let image_hash = ended_as.iter().fold(0, hashed);
    let ended = SnapshotEnded { records: ended_as.len() as u64, image_hash };
    writer.push(&Restored::SnapshotEnded(ended).to_envelope());
    writer.finish().concat()
}

fn refusal(change: impl FnOnce(&mut Vec<Restored>)) -> String {
    let mut facts: Vec<Restored> = records(&small()).collect();
    change(&mut facts);
    let envelopes: Vec<Envelope> = facts.iter().map(Restored::to_envelope).collect();
    match decode([forged(&envelopes)]) {
        Err(SnapshotError::Illegal { reason, .. }) => reason,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn place(facts: &[Restored], name: &str) -> usize {
    facts.iter().position(|f| f.name() == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn what_no_image_can_say_is_refused_although_the_stream_is_whole() {
    let whole: Vec<Envelope> = records(&small()).map(|r| r.to_envelope()).collect();
    assert!(decode([forged(&whole)]).is_ok(), "the forger is right about everything else");
    for name in ["ClusterRestored", "BrokerRestored", "TopicRestored", "PartitionsRestored"] {
        let reason = refusal(|facts| {
            let at = place(facts, name);
            facts.insert(at + 1, facts[at].clone());
        });
        assert!(!reason.is_empty(), "{name} twice");
    }
    let late = refusal(|facts| {
        let topic = facts.remove(place(facts, "TopicRestored"));
        facts.insert(0, topic);
    });
    assert!(late.contains("not the first thing"), "{late}");
    let partitions = |facts: &mut Vec<Restored>, change: fn(&mut PartitionRestored)| {
        let at = place(facts, "PartitionsRestored");
        let Restored::PartitionsRestored(f) = &mut facts[at] else { panic!("found by name") };
        change(&mut f.partitions[0]);
    };
    assert!(refusal(|f| partitions(f, |p| p.leader = Some(BrokerId(99)))).contains("not in ISR"));
    assert!(refusal(|f| partitions(f, |p| p.isr.push(BrokerId(99)))).contains("ISR"));
    assert!(refusal(|f| partitions(f, |p| p.elr.push(BrokerId(99)))).contains("ELR"));
    assert!(refusal(|f| partitions(f, |p| p.replicas.clear())).contains("replicas"));
    let version = refusal(|facts| {
        let Restored::ClusterRestored(f) = &mut facts[0] else { panic!("the cluster comes first") };
        f.metadata_version = 2;
    });
    assert!(version.contains("metadata.version 2") && version.contains("up to 1"), "{version}");
}

#[test]
fn an_end_that_counts_or_hashes_other_facts_is_refused_although_each_fact_is_legal() {
    let whole: Vec<Envelope> = records(&small()).map(|r| r.to_envelope()).collect();
    let mut swapped = whole.clone();
    swapped.swap(1, 2);
    assert!(decode([forged(&swapped)]).is_ok(), "two brokers in another order make the same image");
    assert!(matches!(decode([forged_for(&swapped, &whole)]), Err(SnapshotError::Mismatch { .. })));
    assert!(matches!(decode([forged_for(&whole[..whole.len() - 1], &whole)]), Err(SnapshotError::Mismatch { .. })));
}

#[test]
fn a_fact_of_an_unknown_kind_halts_and_so_does_one_of_a_batch() {
    let unknown = Envelope { kind: 1_009, version: 1, bytes: vec![] };
    let error = decode([forged(&[unknown])]).expect_err("kind 1009 does not exist");
    assert_eq!(
        error,
        SnapshotError::Fact(FactError::UnknownKind { kind: 1_009, version: 1, first: 1_001, known: 1_008 })
    );
    assert!(error.to_string().contains("must be upgraded"), "{error}");
    let batch_fact = Fact::TopicPurged(TopicPurged { topic: crate::ids::TopicId::default() }).to_envelope();
    assert!(matches!(decode([forged(&[batch_fact])]), Err(SnapshotError::Fact(_))));
}

#[test]
fn an_announced_length_never_makes_the_decoder_hold_more() {
    let mut head = u32::MAX.to_le_bytes().to_vec();
    head.extend([0; 4]);
    let bytes = u32::MAX as usize;
    assert_eq!(decode([&head]), Err(SnapshotError::ChunkTooLarge { chunk: 0, bytes }));
    let mut decoder = SnapshotDecoder::default();
    let largest = u32::try_from(SNAPSHOT_CHUNK_BYTES_MAX).expect("it fits") - 8;
    assert_eq!(decoder.push(&[&largest.to_le_bytes()[..], &[0; 4]].concat()), Ok(()), "this much may come");
}
