//! What can be found in a history, and the verdict.
//!
//! Owns the names of the classes (Jepsen's where it has one). Invariant: an anomaly names the smallest set of events
//! that shows it, so that a person can follow it without the rest.

use super::event::KeyId;
use serde::Serialize;
use std::collections::BTreeMap;

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// A kind of anomaly.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Class {
            $($(#[$doc])* $name,)*
        }

        impl Class {
            /// Every class.
            pub const ALL: &'static [Class] = &[$(Class::$name,)*];

            /// Its name as printed.
            pub fn name(self) -> &'static str {
                match self { $(Class::$name => $text,)* }
            }
        }
    };
}

classes! {
    /// One offset, two values.
    InconsistentOffsets = "inconsistent-offsets";
    /// One value at two offsets, where that is forbidden.
    Duplicate = "duplicate";
    /// Acknowledged, and not there at the end.
    LostWrite = "lost-write";
    /// Acknowledged, and the final reads did not get so far.
    Unseen = "unseen";
    /// Read once, and not there at the end.
    LostRead = "lost-read";
    /// A send that certainly failed was read.
    FailedSendSeen = "failed-send-seen";
    /// A value that nobody had sent yet was read.
    Phantom = "phantom";
    /// A reader was led past a record.
    PollSkip = "poll-skip";
    /// A reader was led back.
    NonmonotonicPoll = "nonmonotonic-poll";
    /// A producer's records are not in its order.
    NonmonotonicSend = "nonmonotonic-send";
    /// A hole in what one read, or the final reads, returned.
    Gap = "gap";
    /// The high watermark fell within an epoch, or below what had been read.
    HighWatermarkFell = "high-watermark-fell";
    /// A record at or above the answer's own high watermark.
    ReadAboveHighWatermark = "read-above-high-watermark";
    /// One epoch, two leaders.
    TwoLeaders = "two-leaders";
    /// In a healthy window a read missed what had long been acknowledged.
    StaleRead = "stale-read";
    /// The log start fell within an epoch, or below an answered delete.
    LogStartFell = "log-start-fell";
    /// The log start passed records that nobody asked to delete.
    LogStartPassed = "log-start-passed";
    /// After the heal a key took no record in time.
    NotLive = "not-live";
    /// A planned fault was not seen to take effect.
    FaultUnconfirmed = "fault-unconfirmed";
    /// No order of the operations on a topic or a register explains their answers.
    NotLinearizable = "not-linearizable";
    /// The history contradicts itself: a mistake of the run, not of the cluster.
    Malformed = "malformed";
}

/// One thing that must not be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Anomaly {
    /// What kind.
    pub class: Class,
    /// Where, if it has a place.
    pub key: Option<KeyId>,
    /// The offset, value, epoch or fault that it is about: with class and key, its identity.
    pub subject: u64,
    /// In words.
    pub what: String,
    /// Sequence numbers of the events that show it.
    pub events: Vec<u64>,
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Operations invoked.
    pub operations: u64,
    /// Values acknowledged.
    pub acknowledged: u64,
    /// Acknowledged values found at the end.
    pub checked: u64,
    /// Acknowledged values below a log start.
    pub removed: u64,
    /// Acknowledged values that a typed truncation took.
    pub truncated: u64,
    /// Values acknowledged with less than all, and not there at the end: allowed.
    pub lost_unsafe: u64,
    /// Values of unknown outcome.
    pub unknown: u64,
    /// Values that certainly were not written.
    pub failed: u64,
    /// Values read at the end that were of unknown outcome.
    pub unacknowledged: u64,
    /// Offsets at the end that repeat a value.
    pub duplicates: u64,
    /// Records returned to readers.
    pub read: u64,
    /// Answers in healthy windows that had to show what was acknowledged before.
    pub recent: u64,
    /// Faults confirmed, by class.
    pub faults: BTreeMap<String, u64>,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing was found, and everything was looked at.
    Valid,
    /// Something was found.
    Invalid,
    /// Nothing was found, but not everything could be looked at. No pass.
    Unknown,
}

impl Verdict {
    /// The exit code of a program that judges.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Valid => 0,
            Verdict::Invalid => 1,
            Verdict::Unknown => 2,
        }
    }
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// What must not be.
    pub anomalies: Vec<Anomaly>,
    /// What could not be looked at.
    pub doubts: Vec<String>,
    /// What was looked at.
    pub counts: Counts,
}

impl Findings {
    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        match (self.anomalies.is_empty(), self.doubts.is_empty()) {
            (false, _) => Verdict::Invalid,
            (true, false) => Verdict::Unknown,
            (true, true) => Verdict::Valid,
        }
    }

    /// Whether a class is among them.
    pub fn has(&self, class: Class) -> bool {
        self.anomalies.iter().any(|anomaly| anomaly.class == class)
    }

    /// Anomalies by class.
    pub fn by_class(&self) -> BTreeMap<&'static str, usize> {
        let mut found = BTreeMap::new();
        for anomaly in &self.anomalies {
            *found.entry(anomaly.class.name()).or_default() += 1;
        }
        found
    }

    /// Adds one.
    pub(crate) fn accuse(&mut self, class: Class, key: Option<KeyId>, subject: u64, events: &[u64], what: String) {
        let mut events = events.to_vec();
        events.sort_unstable();
        events.dedup();
        self.anomalies.push(Anomaly { class, key, subject, what, events });
    }
}
