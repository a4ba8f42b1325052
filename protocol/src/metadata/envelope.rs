//! How a fact is stored: `{kind, version, bytes}`, kind and version outside the bytes, so that an unknown one is seen before
//! anything is decoded. Owns numbering and strictness, knows no kind. Invariant: what this build cannot fold exactly is an
//! error that stops the node; protobuf would drop unknown fields silently and the images would part (DESIGN.md section 2).

use serde::{Deserialize, Serialize};

/// A fact as stored: kind and version outside the bytes, so that an unknown one is seen before it is decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Number of the kind, given out by `kinds!` where facts are listed.
    pub kind: u16,
    /// Version of the kind's bytes and fold.
    pub version: u16,
    /// postcard of the kind's struct.
    pub bytes: Vec<u8>,
}

/// Why stored bytes are not facts this build can fold. The node must stop; it must not skip.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactError {
    /// Kind number not known here.
    #[error(
        "fact of unknown kind {kind} (version {version}); this build knows kinds {first} to {known}: the node must be upgraded before it can go on"
    )]
    UnknownKind {
        /// Kind found.
        kind: u16,
        /// Version found.
        version: u16,
        /// Lowest kind known here.
        first: u16,
        /// Highest kind known.
        known: u16,
    },
    /// Version of a known kind not known here.
    #[error(
        "fact {name} of unknown version {version}; this build knows version {known}: the node must be upgraded before it can go on"
    )]
    UnknownVersion {
        /// Name of the kind.
        name: &'static str,
        /// Version found.
        version: u16,
        /// Highest version known.
        known: u16,
    },
    /// Bytes do not decode, or something is left over.
    #[error("fact {name} version {version} does not decode: {reason}")]
    Malformed {
        /// Name of the kind.
        name: &'static str,
        /// Version found.
        version: u16,
        /// What is wrong.
        reason: String,
    },
}

/// Numbers the kinds of an enum of facts and writes how each is stored. Numbers are dense and never reused.
macro_rules! kinds {
    ($enum:ident $($kind:literal $name:ident;)*) => {
        impl $enum {
            /// Every kind known, with its name.
            pub const KINDS: &'static [(u16, &'static str)] = &[$(($kind, stringify!($name)),)*];

            /// The number that stands in the envelope; never reused.
            #[must_use]
            pub fn kind(&self) -> u16 {
                match self { $(Self::$name(_) => $kind,)* }
            }

            /// The kind's name.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            /// Writes the envelope at version 1, the only one that exists.
            #[must_use]
            pub fn to_envelope(&self) -> Envelope {
                let bytes = match self {
                    $(Self::$name(inner) => postcard::to_stdvec(inner),)*
                }
                .expect("facts hold only types that postcard can always write");
                Envelope { kind: self.kind(), version: 1, bytes }
            }

            /// Reads an envelope.
            ///
            /// # Errors
            /// [`FactError`] for anything this build cannot fold exactly; the caller stops the node.
            pub fn from_envelope(envelope: &Envelope) -> Result<Self, FactError> {
                match envelope.kind {
                    $($kind => $crate::metadata::envelope::decode(stringify!($name), envelope).map(Self::$name),)*
                    kind => Err(FactError::UnknownKind {
                        kind,
                        version: envelope.version,
                        first: Self::KINDS[0].0,
                        known: Self::KINDS[Self::KINDS.len() - 1].0,
                    }),
                }
            }

            /// Bytes it takes in a batch or snapshot, its envelope included, without writing it.
            #[must_use]
            pub fn encoded_len(&self) -> usize {
                let inner = match self {
                    $(Self::$name(inner) => postcard::experimental::serialized_size(inner),)*
                }
                .expect("facts hold only types that postcard can always write");
                $crate::metadata::envelope::head_len(self.kind(), inner) + inner
            }
        }
    };
}
pub(super) use kinds;

/// Reads the bytes of a kind whose only version is 1; nothing may be left over.
pub(super) fn decode<'a, T: Deserialize<'a>>(name: &'static str, envelope: &'a Envelope) -> Result<T, FactError> {
    if envelope.version != 1 {
        return Err(FactError::UnknownVersion { name, version: envelope.version, known: 1 });
    }
    let malformed = |reason: String| FactError::Malformed { name, version: envelope.version, reason };
    match postcard::take_from_bytes(&envelope.bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(malformed(format!("{} bytes left over", rest.len()))),
        Err(error) => Err(malformed(error.to_string())),
    }
}

/// Bytes of kind, version and length in front of a fact's bytes.
pub(super) fn head_len(kind: u16, bytes: usize) -> usize {
    varint_len(u64::from(kind)) + varint_len(1) + varint_len(bytes as u64)
}

/// Bytes of an unsigned number as postcard writes it: seven bits a byte.
pub(super) fn varint_len(number: u64) -> usize {
    (64 - number.leading_zeros() as usize).div_ceil(7).max(1)
}
