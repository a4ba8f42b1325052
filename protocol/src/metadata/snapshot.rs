//! An image written back as restoring facts, and read again. Used by controllers' snapshots and by the feed. Owns the
//! stream: bounded chunks, each with its length and crc, a head with batch number and chain hash, an end with count and
//! hash of everything between. Laws: decode(encode(image)) == image, indexes included; no flipped, lost, repeated or
//! reordered byte decodes. It never reads or writes files.

mod rebuild;
mod restored;
mod stream;

pub use restored::{
    BrokerRestored, ClusterRestored, PartitionRestored, PartitionsRestored, Restored, SnapshotBegan, SnapshotEnded,
    TopicRestored,
};
pub use stream::{SnapshotDecoder, SnapshotError};

use super::batch::chain;
use super::envelope::Envelope;
use super::image::MetadataImage;
use crate::limits::SNAPSHOT_CHUNK_BYTES;
use bytes::Bytes;
use stream::ChunkWriter;

/// The facts that make this image, in the order in which they are restored; head and end of a stream are not among them.
pub fn records(image: &MetadataImage) -> impl Iterator<Item = Restored> {
    restored::cluster(image)
        .chain(restored::brokers(image))
        .chain(restored::topics(image))
        .chain(restored::configs(image))
        .chain(restored::unclean(image))
}

/// The image as a stream of chunks of at most [`crate::limits::SNAPSHOT_CHUNK_BYTES`] (one fact may exceed it alone).
/// Their concatenation is the snapshot; a decoder takes it cut anywhere.
#[must_use]
pub fn encode(image: &MetadataImage) -> Vec<Bytes> {
    encode_in(image, ChunkWriter::new(SNAPSHOT_CHUNK_BYTES))
}

fn encode_in(image: &MetadataImage, writer: ChunkWriter) -> Vec<Bytes> {
    let began = SnapshotBegan { batch_no: image.batch_no, chain_hash: image.chain_hash };
    write(began, records(image), writer)
}

/// A stream of facts that may make no image: head, end and checksums are right all the same.
#[cfg(feature = "testing")]
#[must_use]
pub fn encode_facts(began: SnapshotBegan, records: impl IntoIterator<Item = Restored>) -> Vec<Bytes> {
    write(began, records, ChunkWriter::new(SNAPSHOT_CHUNK_BYTES))
}

fn write(began: SnapshotBegan, records: impl IntoIterator<Item = Restored>, mut writer: ChunkWriter) -> Vec<Bytes> {
    writer.push(&Restored::SnapshotBegan(began).to_envelope());
    let (mut count, mut hash) = (0, 0);
    for record in records {
        let envelope = record.to_envelope();
        (count, hash) = (count + 1, hashed(hash, &envelope));
        writer.push(&envelope);
    }
    writer.push(&Restored::SnapshotEnded(SnapshotEnded { records: count, image_hash: hash }).to_envelope());
    writer.finish()
}

/// Reads what [`encode`] wrote, cut into pieces anywhere.
///
/// # Errors
/// [`SnapshotError`] for anything but exactly one whole snapshot this build can fold; the node must stop or fetch again.
pub fn decode<B: AsRef<[u8]>>(pieces: impl IntoIterator<Item = B>) -> Result<MetadataImage, SnapshotError> {
    let mut decoder = SnapshotDecoder::default();
    for piece in pieces {
        decoder.push(piece.as_ref())?;
    }
    decoder.finish()
}

/// Hash of everything the image says, for comparing nodes (`seawall metadata hash`). Batch number and chain hash are not
/// part of it: equal images reached by different cuts of the same facts have equal hashes.
#[must_use]
pub fn image_hash(image: &MetadataImage) -> u64 {
    records(image).fold(0, |hash, record| hashed(hash, &record.to_envelope()))
}

fn hashed(hash: u64, envelope: &Envelope) -> u64 {
    let head = [envelope.kind.to_le_bytes(), envelope.version.to_le_bytes()].concat();
    chain(chain(hash, &head), &envelope.bytes)
}

#[cfg(test)]
mod tests;
