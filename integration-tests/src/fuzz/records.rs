//! Record batches and metadata: what producers, peers and the metadata log bring.

use super::mutate::EDGES;
use super::{Depth, seal, values};
use crate::chaos::random::Random;
use bytes::Bytes;
use protocol::batch::{self, BatchBuilder, Compression, Limits, Origin, RecordHeader};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use protocol::metadata::snapshot::{self, SnapshotError};
use protocol::testing::FactGen;
use std::collections::BTreeSet;

/// Facts tried until one of each kind was met.
const FACTS_TRIED_MAX: usize = 5_000;

/// Whatever is accepted can be read by everybody: as a whole, as one of several, and after a leader stamped it.
fn accepted(bytes: &[u8]) -> Depth {
    let limits = Limits::default();
    let whole = Bytes::copy_from_slice(bytes);
    for one in batch::batches(&whole) {
        let Ok(one) = one else { break };
        batch::check(&one, &limits, Origin::Cluster).ok();
    }
    let Ok(info) = batch::check(bytes, &limits, Origin::Client) else { return Depth::Refused };
    assert_eq!(info.header.total_len(), bytes.len(), "one batch, and nothing after it");
    let mut stamped = bytes.to_vec();
    batch::stamp(&mut stamped, 77, 3);
    let again = batch::check(&stamped, &limits, Origin::Cluster).expect("a stamp breaks no batch");
    assert_eq!((again.header.base_offset, again.header.leader_epoch), (77, Some(3)));
    let stamped = Bytes::from(stamped);
    let split: Vec<_> = batch::batches(&stamped).collect();
    assert!(matches!(&split[..], [Ok(only)] if *only == stamped), "it is one batch to a follower too");
    if batch::check_records(&stamped, &limits).is_err() {
        return Depth::Decoded;
    }
    let mut next = 77;
    for record in batch::records(&stamped, &limits).expect("its records were checked") {
        let record = record.expect("its records were checked");
        assert!(record.offset >= next, "offsets go up");
        next = record.offset + 1;
    }
    assert!(next <= again.header.next_offset(), "no record lies beyond its batch");
    Depth::Accepted
}

pub(super) fn batch_body(bytes: &[u8]) -> Depth {
    accepted(bytes)
}

/// As a hostile client would: the checksum and the length are always right.
pub(super) fn sealed_body(bytes: &[u8]) -> Depth {
    let mut bytes = bytes.to_vec();
    seal::batch(&mut bytes);
    accepted(&bytes)
}

/// A batch with records that were packed anew after a change: what the decompressor gives is hostile, its frame is not.
pub(super) fn vary_batch(rng: &mut Random, _: &[u8]) -> Vec<u8> {
    let kind = *rng.one_of(&[Compression::None, Compression::Lz4, Compression::Zstd]);
    let value = vec![rng.number().to_le_bytes()[0]; usize::try_from(rng.below(3_000)).unwrap_or(0)];
    let count = usize::try_from(rng.between(1, 40)).unwrap_or(1);
    let mut bytes = batch_of(kind, count, &value);
    if rng.chance(70) {
        // A word of the header: attributes, last offset delta, times, producer, sequence, count.
        let at = usize::try_from(rng.between(12, 60)).unwrap_or(0);
        let edge = rng.one_of(&EDGES).to_be_bytes();
        let width = *rng.one_of(&[1usize, 2, 4, 8]);
        for (byte, new) in bytes.iter_mut().skip(at).zip(&edge[8 - width..]) {
            *byte = *new;
        }
    }
    bytes
}

#[expect(clippy::ptr_arg, reason = "every seal is of one type, and some make the input longer")]
pub(super) fn seal_batch(_: &mut Random, bytes: &mut Vec<u8>) {
    seal::batch(bytes);
}

/// CRC-32C bit by bit: the oracle of the one that the product uses.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

/// A batch of a few records.
pub(super) fn batch_of(compression: Compression, records: usize, value: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(compression);
    let headers = [RecordHeader { key: "h".into(), value: Some(Bytes::from_static(b"v")) }];
    for number in 0..records {
        let key = number.to_be_bytes();
        let headers = if number == 1 { &headers[..] } else { &[] };
        builder.push(1_000 + number as i64, Some(&key), Some(value), headers).expect("a legal record");
    }
    builder.build().expect("a legal batch")
}

pub(super) fn batches() -> Vec<Vec<u8>> {
    let kinds = [Compression::None, Compression::Lz4, Compression::Zstd];
    let long = vec![7; 3_000];
    kinds
        .into_iter()
        .flat_map(|kind| [batch_of(kind, 1, b""), batch_of(kind, 5, b"value"), batch_of(kind, 3, &long)])
        .collect()
}

/// A batch that decodes is either refused by the image as a whole, or folds; and it encodes to what it was.
pub(super) fn facts_body(bytes: &[u8]) -> Depth {
    let Ok(decoded) = MetadataBatch::decode(bytes) else { return Depth::Refused };
    let encoded = decoded.encode();
    assert_eq!(MetadataBatch::decode(&encoded).as_ref(), Ok(&decoded), "what was read can be written");
    assert_eq!(encoded.len(), decoded.encoded_len());
    let before = MetadataImage::default();
    let batch = MetadataBatch { base: before.batch_no, ..decoded };
    let Ok((after, _)) = before.apply(&batch, bytes) else { return Depth::Decoded };
    assert_eq!(after.batch_no, before.batch_no.next());
    Depth::Accepted
}

/// Histories from nothing, and one of facts that are plausible and not all legal: every kind of fact is there.
pub(super) fn facts() -> Vec<Vec<u8>> {
    let mut generator = FactGen::new(1);
    let mut image = MetadataImage::default();
    let (mut kinds, mut odd) = (BTreeSet::new(), Vec::new());
    for _ in 0..FACTS_TRIED_MAX {
        let legal = generator.legal(&image);
        image = protocol::testing::applied(&image, std::slice::from_ref(&legal)).0;
        let any = generator.any(&image).into_iter().chain([legal]);
        odd.extend(any.filter(|fact| kinds.insert(fact.kind())));
        if kinds.len() == Fact::KINDS.len() {
            break;
        }
    }
    let history = |seed: u64| FactGen::history(seed, 3 + usize::try_from(seed).unwrap_or(0) * 3);
    let batch = |facts| MetadataBatch { base: MetadataImage::default().batch_no, facts }.encode();
    (0..12u64).map(|seed| batch(history(seed))).chain([batch(odd)]).collect()
}

/// A snapshot that is accepted is the image it says: written again, it reads as the same.
pub(super) fn snapshot_body(bytes: &[u8]) -> Depth {
    let image = match snapshot::decode([bytes]) {
        Ok(image) => image,
        Err(SnapshotError::Illegal { .. } | SnapshotError::Mismatch { .. } | SnapshotError::Fact(_)) => {
            return Depth::Decoded;
        }
        Err(_) => return Depth::Refused,
    };
    let again = snapshot::decode(snapshot::encode(&image)).expect("an image can be written");
    assert_eq!(again, image, "two readings differ");
    Depth::Accepted
}

pub(super) fn snapshots() -> Vec<Vec<u8>> {
    (0..6u64).map(|seed| snapshot::encode(&values::image(seed, 40)).concat()).collect()
}

pub(super) fn vary_snapshot(rng: &mut Random, _: &[u8]) -> Vec<u8> {
    values::stream(rng)
}

#[expect(clippy::ptr_arg, reason = "every seal is of one type, and some make the input longer")]
pub(super) fn seal_snapshot(_: &mut Random, bytes: &mut Vec<u8>) {
    seal::chunks(bytes);
}

/// Snapshots of the quorum: whole files, and bodies that stand under a right head.
pub(super) fn snapshot_files() -> Vec<Vec<u8>> {
    controller::fuzzing::snapshot_files(&snapshots())
}

pub(super) fn vary_snapshot_file(rng: &mut Random, _: &[u8]) -> Vec<u8> {
    [&[1], &controller::fuzzing::snapshot_body(&values::stream(rng))[..]].concat()
}

/// The image in a body; the product makes the head right.
#[expect(clippy::ptr_arg, reason = "every seal is of one type, and some make the input longer")]
pub(super) fn seal_snapshot_file(_: &mut Random, bytes: &mut Vec<u8>) {
    let image = controller::fuzzing::snapshot_body(&[]).len();
    if let Some(image) = bytes.get_mut(1 + image..) {
        seal::chunks(image);
    }
}
