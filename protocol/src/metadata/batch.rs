//! A batch of facts: payload of one Raft entry, unit of decision and of application. It names the batch
//! number it was decided on (compare-and-append): `apply` drops it when the image is elsewhere.

use super::envelope::varint_len;
use super::record::{Envelope, Fact, FactError};
use crate::ids::BatchNo;
pub use crate::limits::BATCH_BYTES_MAX;
use crate::planted::{self, Bug};
use serde::{Deserialize, Serialize};

/// Facts decided together on image `base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataBatch {
    /// Number of batches the image had folded when this one was decided.
    pub base: BatchNo,
    /// In order; a later one may build on an earlier one.
    pub facts: Vec<Fact>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    base: BatchNo,
    facts: Vec<Envelope>,
}

/// Why bytes are not a batch this build can apply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchDecodeError {
    /// The frame itself does not decode.
    #[error("metadata batch does not decode: {0}")]
    Malformed(String),
    /// A fact in it cannot be folded here.
    #[error(transparent)]
    Fact(#[from] FactError),
}

impl MetadataBatch {
    /// Bytes as they stand in a Raft entry and in the feed.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored { base: self.base, facts: self.facts.iter().map(Fact::to_envelope).collect() };
        postcard::to_stdvec(&stored).expect("envelopes hold only types that postcard can always write")
    }

    /// Bytes [`Self::encode`] will make, without making them.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let facts: usize = self.facts.iter().map(Fact::encoded_len).sum();
        facts + varint_len(self.base.0) + varint_len(self.facts.len() as u64)
    }

    /// Reads bytes written by [`Self::encode`].
    ///
    /// # Errors
    /// [`BatchDecodeError`]: the node must stop, never skip.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchDecodeError> {
        let (stored, rest): (Stored, _) =
            postcard::take_from_bytes(bytes).map_err(|e| BatchDecodeError::Malformed(e.to_string()))?;
        if !rest.is_empty() {
            return Err(BatchDecodeError::Malformed(format!("{} bytes left over", rest.len())));
        }
        let skips =
            |e: &&Envelope| planted::is(Bug::UnknownFactSkipped) && Fact::KINDS.iter().all(|(k, _)| *k != e.kind);
        let facts = stored.facts.iter().filter(|e| !skips(e)).map(Fact::from_envelope).collect::<Result<_, _>>()?;
        Ok(Self { base: stored.base, facts })
    }
}

/// 64-bit hash that chains batches: FNV-1a over the previous value and the batch's bytes. It finds
/// histories that parted by mistake; it is no defence against forgery.
#[must_use]
pub fn chain(previous: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    previous.to_le_bytes().iter().chain(bytes).fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;
    use crate::metadata::record::TopicPurged;

    /// base 5, one fact: kind 12, version 1.
    fn encoded() -> Vec<u8> {
        let purged = Fact::TopicPurged(TopicPurged { topic: TopicId::default() });
        MetadataBatch { base: BatchNo(5), facts: vec![purged] }.encode()
    }

    #[test]
    fn one_unknown_fact_refuses_the_whole_batch_with_its_message() {
        let mut bytes = encoded();
        assert_eq!(bytes[..4], [5, 1, 12, 1], "base, count, kind, version");
        bytes[2] = 99;
        let error = MetadataBatch::decode(&bytes).expect_err("kind 99 does not exist");
        assert!(error.to_string().contains("unknown kind 99 (version 1)"), "{error}");
        bytes[2..4].copy_from_slice(&[12, 2]);
        let error = MetadataBatch::decode(&bytes).expect_err("version 2 does not exist");
        assert!(error.to_string().contains("fact TopicPurged of unknown version 2"), "{error}");
    }

    #[test]
    fn a_batch_cut_or_followed_by_anything_is_refused() {
        let bytes = encoded();
        for end in 0..bytes.len() {
            assert!(MetadataBatch::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let longer = [&bytes[..], &[0]].concat();
        let error = MetadataBatch::decode(&longer).expect_err("one byte too many");
        assert_eq!(error, BatchDecodeError::Malformed("1 bytes left over".to_owned()));
    }
}
