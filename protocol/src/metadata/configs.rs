//! Configs kept in the metadata log: schema (key, type, default, range, whose), values, and the typed view of a topic's.
//! A value enters the log only after `check`; readers may therefore rely on it.

use super::image::MetadataImage;
use super::record::ConfigResource;
use crate::error::{ApiError, ErrorCode};
use crate::ids::TopicId;
use rpds::RedBlackTreeMapSync;
use std::str::FromStr;

/// Type and range of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whole number, inclusive range.
    Integer {
        /// Lowest.
        min: i64,
        /// Highest.
        max: i64,
    },
    /// One of these words.
    Word(&'static [&'static str]),
}

/// One config key.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// Name.
    pub key: &'static str,
    /// Type and range.
    pub kind: Kind,
    /// Default, as text.
    pub default: &'static str,
    /// May be set on topics (and as cluster-wide default).
    pub topic: bool,
    /// May be set on brokers (and as cluster-wide default).
    pub broker: bool,
    /// One sentence.
    pub doc: &'static str,
}

const fn topic(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Definition {
    Definition { key, kind, default, topic: true, broker: false, doc }
}

const fn cluster(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Definition {
    Definition { key, kind, default, topic: false, broker: false, doc }
}

const fn broker(key: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Definition {
    Definition { key, kind, default, topic: false, broker: true, doc }
}

const fn range(min: i64, max: i64) -> Kind {
    Kind::Integer { min, max }
}

const DAY_MS: i64 = 86_400_000;

/// How long acks=all goes on without a lease.
pub const LEASE_GRACE: &str = "lease.grace.ms";

/// What [`LEASE_GRACE`] was before it was lowered, as long as some broker may still act on it. No command sets it.
pub const LEASE_GRACE_LOWERED_FROM: &str = "lease.grace.lowered.from.ms";

/// Every key.
pub const SCHEMA: &[Definition] = &[
    topic(
        "min.insync.replicas",
        range(1, 32),
        "2",
        "ISR members (at most RF) that must hold a record before acks=all answers",
    ),
    topic("min.insync.dcs", range(1, 16), "1", "Distinct data centres the ISR must cover before acks=all answers"),
    topic(
        "flush.policy",
        Kind::Word(&["sync", "interval", "os"]),
        "sync",
        "What counts as held: synced to disk, synced at intervals, or written to the page cache",
    ),
    topic("flush.interval.ms", range(10, 3_600_000), "1000", "Longest time between syncs under flush.policy=interval"),
    topic("retention.ms", range(-1, i64::MAX), "604800000", "Age after which sealed segments go; -1 keeps them"),
    topic(
        "retention.bytes",
        range(-1, i64::MAX),
        "-1",
        "Size of a partition above which its oldest segments go; -1 keeps them",
    ),
    topic(
        "segment.bytes",
        range(16_384, 1 << 30),
        "134217728",
        "Size at which a segment is sealed and a new one begun",
    ),
    topic("segment.ms", range(1_000, i64::MAX), "604800000", "Age at which a segment with records is sealed"),
    topic("max.message.bytes", range(1_024, 16 << 20), "1048588", "Largest record batch taken"),
    topic(
        "message.timestamp.after.max.ms",
        range(0, i64::MAX),
        "3600000",
        "How far ahead of the broker's clock a record's time may be",
    ),
    topic(
        "unclean.recovery.policy",
        Kind::Word(&["manual", "longest"]),
        "manual",
        "What happens when no replica is known to hold every committed record: wait for an operator, or elect the longest log of all survivors",
    ),
    broker(
        "replica.lag.max.ms",
        range(100, 600_000),
        "5000",
        "Time without reaching the leader's log end after which a follower leaves the ISR",
    ),
    broker("retention.check.interval.ms", range(100, 3_600_000), "60000", "Time between retention runs"),
    cluster("default.replication.factor", range(1, 32), "3", "Replicas of a topic created without a number"),
    cluster(
        LEASE_GRACE,
        range(0, DAY_MS),
        "600000",
        "How long acks=all and reads below the high watermark go on without a lease",
    ),
    cluster(
        LEASE_GRACE_LOWERED_FROM,
        range(0, DAY_MS),
        "0",
        "Written by the controller alone while a lowered lease.grace.ms may not be in force everywhere: the value to wait for",
    ),
    cluster("delete.grace.ms", range(0, 365 * DAY_MS), "86400000", "How long a deleted topic can be restored"),
];

/// Looks a key up.
#[must_use]
pub fn definition(key: &str) -> Option<&'static Definition> {
    SCHEMA.iter().find(|d| d.key == key)
}

impl Definition {
    /// Whether the key may be set on this kind of resource.
    #[must_use]
    pub fn allowed_on(&self, resource: ConfigResource) -> bool {
        match resource {
            ConfigResource::Cluster => true,
            ConfigResource::Broker(_) => self.broker,
            ConfigResource::Topic(_) => self.topic,
        }
    }

    /// What is allowed, in words.
    #[must_use]
    pub fn limit(&self) -> String {
        match self.kind {
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
        }
    }

    fn accepts(&self, value: &str) -> bool {
        match self.kind {
            Kind::Integer { min, max } => value.parse::<i64>().is_ok_and(|v| (min..=max).contains(&v)),
            Kind::Word(words) => words.contains(&value),
        }
    }
}

/// Checks one setting.
///
/// # Errors
/// `InvalidConfig` that names key, value and what is allowed.
pub fn check(resource: ConfigResource, key: &str, value: &str) -> Result<(), ApiError> {
    let known = definition(key).filter(|d| d.allowed_on(resource));
    let Some(definition) = known else {
        let keys: Vec<_> = SCHEMA.iter().filter(|d| d.allowed_on(resource)).map(|d| d.key).collect();
        return Err(ApiError::bad(ErrorCode::InvalidConfig, "config key", key, format!("one of {}", keys.join(", "))));
    };
    if definition.accepts(value) {
        Ok(())
    } else {
        Err(ApiError::bad(ErrorCode::InvalidConfig, key, value, definition.limit()))
    }
}

/// Values set, by resource and key. A resource without values has no entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigsImage {
    values: RedBlackTreeMapSync<ConfigResource, RedBlackTreeMapSync<String, String>>,
}

impl ConfigsImage {
    /// The value set on exactly this resource.
    #[must_use]
    pub fn get(&self, resource: ConfigResource, key: &str) -> Option<&str> {
        self.values.get(&resource).and_then(|values| values.get(key)).map(String::as_str)
    }

    /// Everything set, ordered by resource and key.
    pub fn iter(&self) -> impl Iterator<Item = (ConfigResource, &str, &str)> {
        self.values.iter().flat_map(|(r, values)| values.iter().map(|(k, v)| (*r, k.as_str(), v.as_str())))
    }

    /// Set on this resource, ordered by key.
    pub fn of(&self, resource: ConfigResource) -> impl Iterator<Item = (&str, &str)> {
        let values = self.values.get(&resource);
        values.into_iter().flat_map(|values| values.iter().map(|(k, v)| (k.as_str(), v.as_str())))
    }

    pub(super) fn set(&mut self, resource: ConfigResource, key: &str, value: &str) {
        if !self.values.contains_key(&resource) {
            self.values.insert_mut(resource, RedBlackTreeMapSync::new_sync());
        }
        if let Some(values) = self.values.get_mut(&resource) {
            values.insert_mut(key.to_owned(), value.to_owned());
        }
    }

    pub(super) fn unset(&mut self, resource: ConfigResource, key: &str) {
        let Some(values) = self.values.get_mut(&resource) else { return };
        values.remove_mut(key);
        if values.is_empty() {
            self.values.remove_mut(&resource);
        }
    }

    /// Drops everything set on a resource; whether there was anything.
    pub(super) fn forget(&mut self, resource: ConfigResource) -> bool {
        self.values.remove_mut(&resource)
    }
}

/// What a replica does before it counts a record as held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum FlushPolicy {
    /// Synced to disk.
    Sync,
    /// Written; synced at intervals.
    Interval,
    /// Written; synced when the operating system likes.
    Os,
}

impl FlushPolicy {
    /// Number on the wire.
    #[must_use]
    pub fn to_wire(self) -> u32 {
        match self {
            Self::Sync => 1,
            Self::Interval => 2,
            Self::Os => 3,
        }
    }

    /// From the wire; anything unknown counts as the strictest.
    #[must_use]
    pub fn from_wire(number: u32) -> Self {
        match number {
            2 => Self::Interval,
            3 => Self::Os,
            _ => Self::Sync,
        }
    }

    /// As written in configs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Interval => "interval",
            Self::Os => "os",
        }
    }
}

/// What happens to a partition none of whose safe leaders is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UncleanRecoveryPolicy {
    /// Wait for an operator.
    Manual,
    /// Elect the longest log by (last epoch, log end) of all survivors.
    Longest,
}

/// A topic's configs with cluster-wide values and defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicConfig {
    /// `min.insync.replicas`
    pub min_insync_replicas: u16,
    /// `min.insync.dcs`
    pub min_insync_dcs: u16,
    /// `flush.policy`
    pub flush_policy: FlushPolicy,
    /// `flush.interval.ms`
    pub flush_interval_ms: u64,
    /// `retention.ms`, None = keep
    pub retention_ms: Option<u64>,
    /// `retention.bytes`, None = keep
    pub retention_bytes: Option<u64>,
    /// `segment.bytes`
    pub segment_bytes: u64,
    /// `segment.ms`
    pub segment_ms: u64,
    /// `max.message.bytes`
    pub max_message_bytes: u32,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: u64,
    /// `unclean.recovery.policy`
    pub unclean_recovery_policy: UncleanRecoveryPolicy,
}

impl MetadataImage {
    /// The value in force: set on the resource, else cluster-wide, else the default. None for an unknown key.
    #[must_use]
    pub fn config_value(&self, resource: ConfigResource, key: &str) -> Option<&str> {
        let definition = definition(key)?;
        self.configs
            .get(resource, key)
            .or_else(|| self.configs.get(ConfigResource::Cluster, key))
            .or(Some(definition.default))
    }

    /// A checked number; the default if a stored one does not parse (impossible after `check`).
    #[must_use]
    pub fn config_number<T: FromStr>(&self, resource: ConfigResource, key: &str) -> Option<T> {
        self.config_value(resource, key).and_then(|v| v.parse().ok())
    }

    /// Typed view of a topic's configs.
    #[must_use]
    pub fn topic_config(&self, topic: TopicId) -> TopicConfig {
        let resource = ConfigResource::Topic(topic);
        let number = |key: &str| -> i64 {
            self.config_number(resource, key)
                .expect("values were checked against the schema before they entered the log")
        };
        let positive = |key: &str| u64::try_from(number(key)).unwrap_or(0);
        let small = |key: &str| u16::try_from(number(key)).unwrap_or(u16::MAX);
        let optional = |key: &str| u64::try_from(number(key)).ok();
        let word = |key: &str| self.config_value(resource, key).unwrap_or_default();
        TopicConfig {
            min_insync_replicas: small("min.insync.replicas"),
            min_insync_dcs: small("min.insync.dcs"),
            flush_policy: match word("flush.policy") {
                "interval" => FlushPolicy::Interval,
                "os" => FlushPolicy::Os,
                _ => FlushPolicy::Sync,
            },
            flush_interval_ms: positive("flush.interval.ms"),
            retention_ms: optional("retention.ms"),
            retention_bytes: optional("retention.bytes"),
            segment_bytes: positive("segment.bytes"),
            segment_ms: positive("segment.ms"),
            max_message_bytes: u32::try_from(number("max.message.bytes")).unwrap_or(u32::MAX),
            timestamp_after_max_ms: positive("message.timestamp.after.max.ms"),
            unclean_recovery_policy: match word("unclean.recovery.policy") {
                "longest" => UncleanRecoveryPolicy::Longest,
                _ => UncleanRecoveryPolicy::Manual,
            },
        }
    }
}

#[cfg(test)]
mod tests;
