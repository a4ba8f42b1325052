//! The snapshot as bytes: chunks of `[length u32][crc32c u32][envelopes]`, little endian. Owns framing, order and the
//! final comparison; meaning is `rebuild`'s. Invariant: a decoder holds at most one chunk, and gives an image only after
//! the end fact's count and hash matched and nothing followed.

use super::super::envelope::{Envelope, FactError};
use super::super::image::MetadataImage;
use super::hashed;
use super::rebuild::restore;
use super::restored::{Restored, SnapshotEnded};
use crate::limits::SNAPSHOT_CHUNK_BYTES_MAX;
use bytes::Bytes;

const HEAD_BYTES: usize = 8;

/// Why bytes are not a snapshot that this build can fold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// A chunk announces more than any encoder writes.
    #[error("snapshot chunk {chunk} announces {bytes} bytes, at most {SNAPSHOT_CHUNK_BYTES_MAX} are written")]
    ChunkTooLarge {
        /// Number of the chunk, from 0.
        chunk: u64,
        /// As announced.
        bytes: usize,
    },
    /// A chunk's bytes are not those that were written.
    #[error("snapshot chunk {chunk} fails its crc: stored {stored:#010x}, computed {computed:#010x}")]
    Crc {
        /// Number of the chunk, from 0.
        chunk: u64,
        /// As stored.
        stored: u32,
        /// As found.
        computed: u32,
    },
    /// A chunk does not hold whole envelopes.
    #[error("snapshot chunk {chunk} does not decode: {reason}")]
    Malformed {
        /// Number of the chunk, from 0.
        chunk: u64,
        /// What is wrong.
        reason: String,
    },
    /// A fact in it cannot be folded by this build.
    #[error(transparent)]
    Fact(#[from] FactError),
    /// No image says this.
    #[error("fact {number} ({name}) of the snapshot cannot be restored: {reason}")]
    Illegal {
        /// Its place after the head, from 0.
        number: u64,
        /// Kind.
        name: &'static str,
        /// What it breaks.
        reason: String,
    },
    /// The bytes end before the end fact.
    #[error("snapshot ends after {records} facts and {left} bytes of an unfinished chunk, without its end fact")]
    Truncated {
        /// Facts read after the head.
        records: u64,
        /// Bytes that make no whole chunk.
        left: usize,
    },
    /// Facts were lost, repeated or reordered.
    #[error("snapshot holds {found:?}, its end fact says {expected:?}")]
    Mismatch {
        /// As counted and hashed.
        found: SnapshotEnded,
        /// As written.
        expected: SnapshotEnded,
    },
    /// Something follows the end fact.
    #[error("snapshot goes on after its end fact")]
    LeftOver,
}

/// Packs envelopes into chunks of at most `limit` bytes; one larger envelope stands alone.
pub(super) struct ChunkWriter {
    limit: usize,
    done: Vec<Bytes>,
    open: Vec<u8>,
}

impl ChunkWriter {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, done: Vec::new(), open: Vec::new() }
    }

    pub(super) fn push(&mut self, envelope: &Envelope) {
        let bytes = postcard::to_stdvec(envelope).expect("envelopes hold only types that postcard can always write");
        if !self.open.is_empty() && HEAD_BYTES + self.open.len() + bytes.len() > self.limit {
            self.close();
        }
        self.open.extend_from_slice(&bytes);
    }

    fn close(&mut self) {
        let body = std::mem::take(&mut self.open);
        let length = u32::try_from(body.len()).expect("chunks are limited far below 4 GiB");
        let mut chunk = Vec::with_capacity(HEAD_BYTES + body.len());
        chunk.extend_from_slice(&length.to_le_bytes());
        chunk.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        chunk.extend_from_slice(&body);
        self.done.push(chunk.into());
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.close();
        }
        self.done
    }
}

/// Reads a snapshot piece by piece, cut anywhere.
#[derive(Debug, Default)]
pub struct SnapshotDecoder {
    buffer: Vec<u8>,
    chunk: u64,
    began: bool,
    ended: Option<SnapshotEnded>,
    image: MetadataImage,
    records: u64,
    hash: u64,
}

impl SnapshotDecoder {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`SnapshotError`]; the decoder is of no further use.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), SnapshotError> {
        self.buffer.extend_from_slice(piece);
        let buffer = std::mem::take(&mut self.buffer);
        let mut taken = 0;
        while let Some(body) = self.next_chunk(&buffer[taken..])? {
            taken += HEAD_BYTES + body.len();
            self.read_chunk(body)?;
            self.chunk += 1;
        }
        self.buffer = buffer[taken..].to_vec();
        Ok(())
    }

    /// The image, once everything was pushed.
    ///
    /// # Errors
    /// [`SnapshotError::Truncated`] or [`SnapshotError::Mismatch`].
    pub fn finish(self) -> Result<MetadataImage, SnapshotError> {
        let found = SnapshotEnded { records: self.records, image_hash: self.hash };
        match self.ended {
            None => Err(SnapshotError::Truncated { records: self.records, left: self.buffer.len() }),
            Some(_) if !self.buffer.is_empty() => Err(SnapshotError::LeftOver),
            Some(expected) if expected != found => Err(SnapshotError::Mismatch { found, expected }),
            Some(_) => Ok(self.image),
        }
    }

    /// The body of the first whole chunk in `bytes`; None until there is one.
    fn next_chunk<'a>(&self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, SnapshotError> {
        let (Some(length), Some(stored)) = (word(bytes, 0), word(bytes, 4)) else { return Ok(None) };
        let (length, chunk) = (length as usize, self.chunk);
        if HEAD_BYTES + length > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(SnapshotError::ChunkTooLarge { chunk, bytes: length });
        }
        let Some(body) = bytes.get(HEAD_BYTES..HEAD_BYTES + length) else { return Ok(None) };
        let computed = crc32c::crc32c(body);
        if computed == stored { Ok(Some(body)) } else { Err(SnapshotError::Crc { chunk, stored, computed }) }
    }

    fn read_chunk(&mut self, body: &[u8]) -> Result<(), SnapshotError> {
        let malformed = |chunk, reason: String| SnapshotError::Malformed { chunk, reason };
        if body.is_empty() {
            return Err(malformed(self.chunk, "it is empty".to_owned()));
        }
        let mut rest = body;
        while !rest.is_empty() {
            let (envelope, behind): (Envelope, _) =
                postcard::take_from_bytes(rest).map_err(|e| malformed(self.chunk, e.to_string()))?;
            rest = behind;
            self.read_fact(&envelope)?;
        }
        Ok(())
    }

    fn read_fact(&mut self, envelope: &Envelope) -> Result<(), SnapshotError> {
        if self.ended.is_some() {
            return Err(SnapshotError::LeftOver);
        }
        let fact = Restored::from_envelope(envelope)?;
        let (name, number) = (fact.name(), self.records);
        match fact {
            Restored::SnapshotBegan(f) if !self.began => {
                self.image.batch_no = f.batch_no;
                self.image.chain_hash = f.chain_hash;
                self.began = true;
                return Ok(());
            }
            Restored::SnapshotEnded(f) if self.began => {
                self.ended = Some(f);
                return Ok(());
            }
            _ if !self.began => {
                let reason = "no head stands before it".to_owned();
                return Err(SnapshotError::Illegal { number, name, reason });
            }
            fact => restore(&mut self.image, fact).map_err(|reason| SnapshotError::Illegal { number, name, reason })?,
        }
        self.records += 1;
        self.hash = hashed(self.hash, envelope);
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
}
