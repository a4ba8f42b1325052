//! Record batches and metadata: what producers, peers and the metadata log bring.

use bytes::Bytes;
use protocol::batch::{self, BatchBuilder, Compression, Limits, Origin, RecordHeader};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::snapshot;
use protocol::testing::FactGen;

/// Bytes of a batch before its checksum, and where the checksum begins to count.
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

/// Whatever is accepted can be read by everybody: as a whole, as one of several, and after a leader stamped it.
fn accepted(bytes: &[u8]) {
    let limits = Limits::default();
    let whole = Bytes::copy_from_slice(bytes);
    for one in batch::batches(&whole) {
        let Ok(one) = one else { break };
        batch::check(&one, &limits, Origin::Cluster).ok();
    }
    let Ok(info) = batch::check(bytes, &limits, Origin::Client) else { return };
    assert_eq!(info.header.total_len(), bytes.len(), "one batch, and nothing after it");
    let mut stamped = bytes.to_vec();
    batch::stamp(&mut stamped, 77, 3);
    let again = batch::check(&stamped, &limits, Origin::Cluster).expect("a stamp breaks no batch");
    assert_eq!((again.header.base_offset, again.header.leader_epoch), (77, Some(3)));
    let stamped = Bytes::from(stamped);
    let split: Vec<_> = batch::batches(&stamped).collect();
    assert!(matches!(&split[..], [Ok(only)] if *only == stamped), "it is one batch to a follower too");
    if batch::check_records(&stamped, &limits).is_err() {
        return;
    }
    let mut next = 77;
    for record in batch::records(&stamped, &limits).expect("its records were checked") {
        let record = record.expect("its records were checked");
        assert!(record.offset >= next, "offsets go up");
        next = record.offset + 1;
    }
    assert!(next <= again.header.next_offset(), "no record lies beyond its batch");
}

pub(super) fn batch_body(bytes: &[u8]) {
    accepted(bytes);
}

/// As a hostile client would: the checksum and the length are always right.
pub(super) fn sealed_body(bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if bytes.len() < CRC_FROM {
        return;
    }
    let crc = crc32c(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    let length = u32::try_from(bytes.len() - 12).unwrap_or(0);
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    accepted(&bytes);
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

fn image(seed: u64, facts: usize) -> MetadataImage {
    protocol::testing::applied(&MetadataImage::default(), &FactGen::history(seed, facts)).0
}

/// A batch that decodes is either refused by the image as a whole, or folds; and it encodes to what it was.
pub(super) fn facts_body(bytes: &[u8]) {
    let Ok(decoded) = MetadataBatch::decode(bytes) else { return };
    let encoded = decoded.encode();
    assert_eq!(MetadataBatch::decode(&encoded).as_ref(), Ok(&decoded), "what was read can be written");
    assert_eq!(encoded.len(), decoded.encoded_len());
    let before = MetadataImage::default();
    let batch = MetadataBatch { base: before.batch_no, ..decoded };
    if let Ok((after, _)) = before.apply(&batch, bytes) {
        assert_eq!(after.batch_no, before.batch_no.next());
    }
}

pub(super) fn facts() -> Vec<Vec<u8>> {
    (0..12u64)
        .map(|seed| {
            let facts = FactGen::history(seed, 3 + usize::try_from(seed).unwrap_or(0));
            MetadataBatch { base: MetadataImage::default().batch_no, facts }.encode()
        })
        .collect()
}

/// A snapshot that is accepted is the image it says: written again, it reads as the same.
pub(super) fn snapshot_body(bytes: &[u8]) {
    let Ok(image) = snapshot::decode([bytes]) else { return };
    let again = snapshot::decode(snapshot::encode(&image)).expect("an image can be written");
    assert_eq!(again, image, "two readings differ");
}

pub(super) fn snapshots() -> Vec<Vec<u8>> {
    (0..6u64).map(|seed| snapshot::encode(&image(seed, 40)).concat()).collect()
}
