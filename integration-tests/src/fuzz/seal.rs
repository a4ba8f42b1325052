//! Makes an input right again around what was changed in it: checksums, lengths, numbers that follow from its contents. One
//! function for each format, by the product's own numbers; whatever the product can write, it writes.

use super::records::crc32c;
use crate::chaos::random::Random;
use log::limits::{SEGMENT_HEADER_BYTES, SLOT_A_AT, SLOT_B_AT};
use log::slot_file::StateFile;
use log::storage::memory::MemStorage;
use prost::Message;
use protocol::ids::BatchNo;
use protocol::metadata::batch::{MetadataBatch, chain};
use protocol::metadata::image::MetadataImage;
use protocol::metadata::snapshot;
use protocol::rpc::pb::metadata::v1::{FeedItem, feed_item::Item};
use std::path::Path;
use std::sync::Arc;

/// Bytes of a record batch before its checksum, and where the checksum begins to count.
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;
/// Bytes of a batch before its length begins to count.
const LENGTH_FROM: usize = 12;
/// Words of a segment's identity and of its end marks, each followed by their checksum.
const IDENTITY_WORDS: usize = 6;
const SLOT_WORDS: usize = 9;
/// An index and a state record begin with a magic of this length.
const MAGIC_BYTES: usize = 8;

/// Nothing to make right.
pub(super) fn nothing(_: &mut Random, _: &mut Vec<u8>) {}

/// A record batch: its length and its checksum.
pub(super) fn batch(bytes: &mut [u8]) {
    if bytes.len() < CRC_FROM {
        return;
    }
    let crc = crc32c(&bytes[CRC_FROM..]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    let length = u32::try_from(bytes.len() - LENGTH_FROM).unwrap_or(0);
    bytes[8..LENGTH_FROM].copy_from_slice(&length.to_be_bytes());
}

/// One batch after the other; the last takes what is left.
pub(super) fn batches(mut bytes: &mut [u8]) {
    while bytes.len() >= CRC_FROM {
        let said = i32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let len = usize::try_from(said).map_or(bytes.len(), |said| said.saturating_add(LENGTH_FROM));
        let (one, rest) = bytes.split_at_mut(len.clamp(CRC_FROM, bytes.len()));
        batch(one);
        bytes = rest;
    }
}

/// A record of state as the product stores it.
pub(super) fn state_record(payload: &[u8]) -> Vec<u8> {
    let disk = MemStorage::new();
    let path = Path::new("/state");
    StateFile::new(Arc::new(disk.clone()), path).store(payload).expect("a healthy disk");
    disk.contents(path).expect("it was stored")
}

fn words(bytes: &mut [u8], at: usize, count: usize) {
    let Some(part) = bytes.get_mut(at..at + count * 8 + 4) else { return };
    if part.iter().any(|byte| *byte != 0) {
        let crc = crc32c(&part[..count * 8]);
        part[count * 8..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A segment: identity, end marks, batches. Half of the time the marks say that nothing is known to be on disk: what follows
/// them is read as a tail then, without the chain of hashes that ends in the mark.
pub(super) fn segment(rng: &mut Random, bytes: &mut [u8]) {
    let lower = rng.chance(50);
    for at in [SLOT_A_AT, SLOT_B_AT] {
        let at = usize::try_from(at).unwrap_or(0);
        if lower && bytes.len() > at + 72 && bytes[at..at + 8].iter().any(|byte| *byte != 0) {
            let identity = [3, 4, 5].map(|word| u64::from_le_bytes(std::array::from_fn(|byte| bytes[word * 8 + byte])));
            let [base, chain, epoch] = identity;
            let mark = [SEGMENT_HEADER_BYTES, base, chain, epoch, i64::MIN.cast_unsigned(), 0];
            let mark: Vec<u8> = mark.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes[at + 24..at + 72].copy_from_slice(&mark);
        }
        words(bytes, at, SLOT_WORDS);
    }
    words(bytes, 0, IDENTITY_WORDS);
    let header = usize::try_from(SEGMENT_HEADER_BYTES).unwrap_or(0);
    if let Some(tail) = bytes.get_mut(header..) {
        batches(tail);
    }
}

/// A file of the storage engine, whichever it is: a segment, a record of state, or an index.
pub(super) fn file(rng: &mut Random, bytes: &mut Vec<u8>) {
    let empty = state_record(b"");
    if bytes.starts_with(&empty[..MAGIC_BYTES]) {
        *bytes = state_record(bytes.get(empty.len()..).unwrap_or(&[]));
    } else if bytes.len() as u64 >= SEGMENT_HEADER_BYTES {
        segment(rng, bytes);
    } else if bytes.len() > MAGIC_BYTES + 4 {
        let crc = crc32c(&bytes[MAGIC_BYTES + 4..]);
        bytes[MAGIC_BYTES..MAGIC_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The file behind `lead` bytes that choose it.
pub(super) fn behind<const LEAD: usize>(rng: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.len() > LEAD {
        let mut rest = bytes.split_off(LEAD);
        file(rng, &mut rest);
        bytes.append(&mut rest);
    }
}

/// The chunks of an image: each has its length and the checksum of so many bytes.
pub(super) fn chunks(mut bytes: &mut [u8]) {
    while bytes.len() > 8 {
        let said = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let len = usize::try_from(said).unwrap_or(usize::MAX).min(bytes.len() - 8);
        bytes[..4].copy_from_slice(&u32::try_from(len).unwrap_or(0).to_le_bytes());
        let crc = crc32c(&bytes[8..8 + len]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes = &mut bytes[8 + len..];
    }
}

/// Items of the metadata feed, in turn: each batch follows the one before with its number and hash, each snapshot is of the
/// batch that it says and has its checksum.
pub(super) fn feed(items: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut image, mut held) = (MetadataImage::default(), Vec::new());
    let sealed = |bytes: Vec<u8>| {
        let Ok(mut item) = FeedItem::decode(&bytes[..]) else { return bytes };
        match &mut item.item {
            Some(Item::Batch(batch)) => {
                batch.batch_no = image.batch_no.0.saturating_add(1);
                let decoded = MetadataBatch::decode(&batch.data);
                let decoded = decoded.map(|decoded| MetadataBatch { base: image.batch_no, ..decoded });
                if let Ok(decoded) = &decoded {
                    batch.data = decoded.encode().into();
                }
                batch.chain_hash = chain(image.chain_hash, &batch.data);
                if let Some((next, _)) = decoded.ok().and_then(|decoded| image.apply(&decoded, &batch.data).ok()) {
                    image = next;
                }
            }
            Some(Item::Snapshot(chunk)) => {
                held.extend_from_slice(&chunk.data);
                chunk.crc32c = crc32c(&held);
                if chunk.last
                    && let Ok(decoded) = snapshot::decode([&std::mem::take(&mut held)])
                {
                    (chunk.batch_no, chunk.chain_hash) = (decoded.batch_no.0, decoded.chain_hash);
                    image = decoded;
                }
            }
            Some(Item::Position(position)) if BatchNo(position.batch_no) < image.batch_no => {
                position.batch_no = image.batch_no.0;
            }
            Some(Item::Position(_)) | None => {}
        }
        item.encode_to_vec()
    };
    items.into_iter().map(sealed).collect()
}
