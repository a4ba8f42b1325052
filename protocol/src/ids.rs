//! Identities and counters that cross process borders. Each is its own type, so that a leader epoch
//! can never be passed where a partition epoch is meant. Nothing here knows how a value is chosen.

use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

number!(
    /// A broker's configured number, 1 or more. 0 on the wire means "no broker".
    BrokerId(u32)
);
number!(
    /// A controller's configured number, 1 or more. With a directory uuid it names a voter.
    ControllerId(u32)
);
number!(
    /// Names one registration of a broker: a counter in the metadata image, never reused (KIP-903).
    BrokerEpoch(u64)
);
number!(
    /// Grows by one whenever a partition gets a leader (or loses one by a replica's removal).
    LeaderEpoch(u32)
);
number!(
    /// Grows by one on every change of a partition's state in the image.
    PartitionEpoch(u32)
);
number!(
    /// How many batches of facts an image has folded. Batch n makes image n out of image n-1.
    BatchNo(u64)
);
number!(
    /// A record's place in its partition. Also the place of the next record: a log end is an offset.
    Offset(u64)
);

impl LeaderEpoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl PartitionEpoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl BatchNo {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A topic's identity, new at each creation, so that a topic made again under an old name is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct TopicId(pub Uuid);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// One partition of one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicPartition {
    /// The topic's identity.
    pub topic: TopicId,
    /// The partition's number, from 0.
    pub partition: u32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Wall or monotonic milliseconds, as the place that uses it says.
pub type Millis = u64;
