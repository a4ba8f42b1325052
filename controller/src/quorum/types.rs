//! The types that Raft is built with here: who a voter is, what an entry carries, what applying one says.
//! A voter is the pair (id, directory uuid), so that a wiped disk is another voter. An entry carries an encoded
//! batch of facts and nothing else; Raft never looks into it.

use bytes::Bytes;
use protocol::ids::BatchNo;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use uuid::Uuid;

openraft::declare_raft_types!(
    /// openraft's type parameters. `leader_id_std`: one leader a term, as in the paper.
    pub(crate) TypeConfig:
        D = BatchBytes,
        R = Verdict,
        NodeId = VoterId,
        Node = VoterNode,
        AsyncRuntime = super::runtime::Runtime,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

/// A controller with the disk it votes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct VoterId {
    /// Controller id, 1 or more.
    pub id: u32,
    /// Uuid of its data directory, made by `format`.
    pub directory: Uuid,
}

impl fmt::Display for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.directory.simple().to_string();
        write!(f, "{}#{}", self.id, &text[..8])
    }
}

#[cfg(test)]
impl From<u64> for VoterId {
    fn from(id: u64) -> Self {
        Self { id: u32::try_from(id).expect("test ids are small"), directory: Uuid::from_u128(u128::from(id) + 1) }
    }
}

/// Where a voter is reached and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VoterNode {
    /// Advertised host.
    pub host: String,
    /// Advertised port of the controller listener.
    pub port: u16,
    /// `region/dc/rack`.
    pub locality: String,
}

impl fmt::Display for VoterNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} in {}", self.host, self.port, self.locality)
    }
}

/// A voter as configured: what `format` writes and membership changes name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterSpec {
    /// Identity.
    pub voter: VoterId,
    /// Address and place.
    pub node: VoterNode,
}

/// An encoded `MetadataBatch`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BatchBytes(pub(crate) Bytes);

impl fmt::Debug for BatchBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for BatchBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Serialize for BatchBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for BatchBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = BatchBytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes of a batch")
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<BatchBytes, E> {
        Ok(BatchBytes(Bytes::copy_from_slice(value)))
    }

    fn visit_byte_buf<E: de::Error>(self, value: Vec<u8>) -> Result<BatchBytes, E> {
        Ok(BatchBytes(Bytes::from(value)))
    }
}

/// What applying an entry says: the same on every node, and the only source of replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The entry carried no batch (a new leader's blank, or a membership).
    NoBatch,
    /// The batch was applied and is now number `batch_no`.
    Applied {
        /// The image's batch number after it.
        batch_no: BatchNo,
    },
    /// The batch was decided on another image and dropped (compare-and-append).
    Dropped {
        /// Where it was decided.
        base: BatchNo,
        /// Where the image was.
        at: BatchNo,
    },
}

/// Names of openraft's types with our parameters filled in.
pub(crate) mod alias {
    use super::{BatchBytes, TypeConfig, VoterId, VoterNode};

    pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
    pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
    pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
    pub(crate) type Payload = openraft::EntryPayload<BatchBytes, VoterId, VoterNode>;
    pub(crate) type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
    pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
    pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
    pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, super::super::snapshot::ImageBytes>;
    pub(crate) type IOFlushed = openraft::storage::IOFlushed<TypeConfig>;
    pub(crate) type RPCError = openraft::errors::RPCError<TypeConfig>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_bytes_survive_postcard() {
        let bytes = BatchBytes(Bytes::from_static(b"facts"));
        let stored = postcard::to_stdvec(&bytes).expect("bytes can be written");
        let back: BatchBytes = postcard::from_bytes(&stored).expect("bytes can be read");
        assert_eq!(back, bytes);
    }

    #[test]
    fn a_voter_prints_id_and_the_head_of_its_directory() {
        let voter = VoterId { id: 3, directory: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef) };
        assert_eq!(voter.to_string(), "3#01234567");
    }
}
