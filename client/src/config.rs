//! Options of the three handles, under the names Kafka's users know.
//!
//! Owns: [`ClientConfig`], [`ProducerConfig`], [`ConsumerConfig`], their keys, ranges and defaults.
//! Never: reads files or the environment (the CLI does), keeps an unchecked value.
//! Invariant: a config that exists is valid: each setter and [`ProducerConfig::set`] refuses what is out of range, naming
//! key, value and limit, and an unknown key with the nearest known one.

use crate::limits;
use crate::retry::Backoff;
use protocol::batch::Compression;
use protocol::metadata::record::Endpoint;
use protocol::rpc::channel::Dialer;

/// An option that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such key.
    #[error("unknown option {key}{hint}", hint = suggestion.map_or(String::new(), |s| format!("; did you mean {s}?")))]
    UnknownKey {
        /// The key as given.
        key: String,
        /// The nearest known key.
        suggestion: Option<&'static str>,
    },
    /// A value out of range.
    #[error("option {key} is {value}, allowed: {limit}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// The value as given.
        value: String,
        /// What is allowed.
        limit: String,
    },
}

/// One option for documentation and completion.
#[derive(Debug, Clone, Copy)]
pub struct OptionDoc {
    /// Key.
    pub key: &'static str,
    /// One sentence.
    pub doc: &'static str,
}

const fn option(key: &'static str, doc: &'static str) -> OptionDoc {
    OptionDoc { key, doc }
}

/// Keys of every handle.
pub const CLIENT_OPTIONS: &[OptionDoc] = &[
    option("bootstrap.servers", "Comma separated HOST:PORT of brokers to begin with"),
    option("client.id", "Name of this client in the servers' logs"),
    option("request.timeout.ms", "Longest wait for one answer"),
    option("socket.connection.setup.timeout.ms", "Longest wait for a connection"),
    option("metadata.max.age.ms", "Age at which routing is fetched again"),
    option("retry.backoff.ms", "First pause before a retry"),
    option("retry.backoff.max.ms", "Longest pause before a retry"),
];

/// Keys of the producer besides [`CLIENT_OPTIONS`].
pub const PRODUCER_OPTIONS: &[OptionDoc] = &[
    option("acks", "Who must hold a record before it is acknowledged: all, 1 (the leader) or 0 (nobody)"),
    option("linger.ms", "How long an open batch waits for more records"),
    option("batch.size", "Bytes of records at which a batch is closed"),
    option("compression.type", "none, lz4 or zstd"),
    option("delivery.timeout.ms", "Time after which a record that is not acknowledged counts as failed"),
    option("max.in.flight", "Unanswered batches per partition; more than 1 may reorder under retries"),
    option("buffer.memory", "Bytes of records that may wait"),
    option("max.block.ms", "Longest wait of send for buffer room or routing"),
];

/// Keys of the consumer besides [`CLIENT_OPTIONS`].
pub const CONSUMER_OPTIONS: &[OptionDoc] = &[
    option("fetch.min.bytes", "Bytes a broker waits for before it answers a fetch"),
    option("fetch.max.wait.ms", "How long it waits for them"),
    option("fetch.max.bytes", "Largest answer"),
    option("max.partition.fetch.bytes", "Largest part of an answer per partition"),
    option("queued.max.bytes", "Fetched bytes that may wait for the application"),
    option(
        "auto.offset.reset",
        "Where to go when the position is outside the log: none (an error), earliest (from below its start only), latest",
    ),
    option("check.crcs", "Whether fetched batches are checked against their checksum"),
];

/// Options common to producer, consumer and admin.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub(crate) bootstrap: Vec<Endpoint>,
    pub(crate) client_id: String,
    pub(crate) request_timeout_ms: u64,
    pub(crate) connect_timeout_ms: u64,
    pub(crate) metadata_max_age_ms: u64,
    pub(crate) backoff: Backoff,
    pub(crate) dialer: Dialer,
}

/// Who must hold a record before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// Nobody: sent is enough. Failures after sending are not reported.
    None,
    /// The leader.
    Leader,
    /// Every member of the ISR, under the topic's durability rule.
    #[default]
    All,
}

/// Where a consumer goes when its position is outside the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OffsetReset {
    /// Nowhere: the stream yields [`crate::Error::OffsetOutOfRange`], and the partition waits for a seek.
    #[default]
    None,
    /// The first record of the log, from a position below it; a position above the end is an error all the same.
    Earliest,
    /// The high watermark.
    Latest,
}

/// Options of a producer.
#[derive(Debug, Clone)]
pub struct ProducerConfig {
    pub(crate) client: ClientConfig,
    pub(crate) acks: Acks,
    pub(crate) linger_ms: u64,
    pub(crate) batch_bytes: usize,
    pub(crate) compression: Compression,
    pub(crate) delivery_timeout_ms: u64,
    pub(crate) max_in_flight: usize,
    pub(crate) buffer_memory: usize,
    pub(crate) max_block_ms: u64,
}

/// Options of a consumer.
#[derive(Debug, Clone)]
pub struct ConsumerConfig {
    pub(crate) client: ClientConfig,
    pub(crate) fetch_min_bytes: usize,
    pub(crate) fetch_max_wait_ms: u64,
    pub(crate) fetch_max_bytes: usize,
    pub(crate) partition_fetch_bytes: usize,
    pub(crate) queued_max_bytes: usize,
    pub(crate) offset_reset: OffsetReset,
    pub(crate) check_crcs: bool,
}

impl ClientConfig {
    /// Options with their defaults. `bootstrap` is `HOST:PORT` of one or more brokers, comma separated.
    pub fn new(bootstrap: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            bootstrap: addresses(bootstrap)?,
            client_id: "seawall-client".to_owned(),
            request_timeout_ms: limits::REQUEST_TIMEOUT_MS,
            connect_timeout_ms: protocol::limits::CONNECT_TIMEOUT_MS,
            metadata_max_age_ms: limits::METADATA_MAX_AGE_MS,
            backoff: Backoff { first_ms: limits::RETRY_BACKOFF_MS, max_ms: limits::RETRY_BACKOFF_MAX_MS },
            dialer: Dialer::plain(),
        })
    }

    /// How connections are made: TLS enters here.
    #[must_use]
    pub fn dialer(mut self, dialer: Dialer) -> Self {
        self.dialer = dialer;
        self
    }

    /// Sets an option by its name. Errors name key, value and limit, or the nearest known key.
    pub fn set(mut self, key: &str, value: &str) -> Result<Self, ConfigError> {
        if self.apply(key, value)? { Ok(self) } else { Err(unknown(key, &[CLIENT_OPTIONS])) }
    }

    fn apply(&mut self, key: &str, value: &str) -> Result<bool, ConfigError> {
        match key {
            "bootstrap.servers" => self.bootstrap = addresses(value)?,
            "client.id" => self.client_id = value.to_owned(),
            "request.timeout.ms" => self.request_timeout_ms = number("request.timeout.ms", value, 10, 3_600_000)?,
            "socket.connection.setup.timeout.ms" => {
                self.connect_timeout_ms = number("socket.connection.setup.timeout.ms", value, 10, 600_000)?;
            }
            "metadata.max.age.ms" => self.metadata_max_age_ms = number("metadata.max.age.ms", value, 100, 86_400_000)?,
            "retry.backoff.ms" => self.backoff.first_ms = number("retry.backoff.ms", value, 1, 60_000)?,
            "retry.backoff.max.ms" => self.backoff.max_ms = number("retry.backoff.max.ms", value, 1, 600_000)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl ProducerConfig {
    /// Options with their defaults; see [`ClientConfig::new`].
    pub fn new(bootstrap: &str) -> Result<Self, ConfigError> {
        Ok(Self::with_client(ClientConfig::new(bootstrap)?))
    }

    /// Defaults over given common options.
    #[must_use]
    pub fn with_client(client: ClientConfig) -> Self {
        Self {
            client,
            acks: Acks::All,
            linger_ms: limits::LINGER_MS,
            batch_bytes: limits::BATCH_BYTES,
            compression: Compression::None,
            delivery_timeout_ms: limits::DELIVERY_TIMEOUT_MS,
            max_in_flight: limits::MAX_IN_FLIGHT,
            buffer_memory: limits::BUFFER_MEMORY_BYTES,
            max_block_ms: limits::MAX_BLOCK_MS,
        }
    }

    /// Sets an option by its name: [`PRODUCER_OPTIONS`] or [`CLIENT_OPTIONS`].
    pub fn set(mut self, key: &str, value: &str) -> Result<Self, ConfigError> {
        match key {
            "acks" => {
                self.acks = word(
                    "acks",
                    value,
                    &[("all", Acks::All), ("-1", Acks::All), ("1", Acks::Leader), ("0", Acks::None)],
                )?;
            }
            "linger.ms" => self.linger_ms = number("linger.ms", value, 0, 60_000)?,
            "batch.size" => self.batch_bytes = size("batch.size", value, 1, 16 << 20)?,
            "compression.type" => {
                let names = [Compression::None, Compression::Lz4, Compression::Zstd].map(|c| (c.name(), c));
                self.compression = word("compression.type", value, &names)?;
            }
            "delivery.timeout.ms" => self.delivery_timeout_ms = number("delivery.timeout.ms", value, 10, 86_400_000)?,
            "max.in.flight" => self.max_in_flight = size("max.in.flight", value, 1, limits::MAX_IN_FLIGHT_CEILING)?,
            "buffer.memory" => {
                self.buffer_memory = size("buffer.memory", value, limits::BUFFER_MEMORY_BYTES_MIN, usize::MAX / 2)?;
            }
            "max.block.ms" => self.max_block_ms = number("max.block.ms", value, 0, 86_400_000)?,
            _ if self.client.apply(key, value)? => {}
            _ => return Err(unknown(key, &[PRODUCER_OPTIONS, CLIENT_OPTIONS])),
        }
        Ok(self)
    }

    /// Who must hold a record before it is acknowledged.
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> Self {
        self.acks = acks;
        self
    }

    /// Compression of batches.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }
}

impl ConsumerConfig {
    /// Options with their defaults; see [`ClientConfig::new`].
    pub fn new(bootstrap: &str) -> Result<Self, ConfigError> {
        Ok(Self::with_client(ClientConfig::new(bootstrap)?))
    }

    /// Defaults over given common options.
    #[must_use]
    pub fn with_client(client: ClientConfig) -> Self {
        Self {
            client,
            fetch_min_bytes: limits::FETCH_MIN_BYTES,
            fetch_max_wait_ms: limits::FETCH_MAX_WAIT_MS,
            fetch_max_bytes: limits::FETCH_MAX_BYTES,
            partition_fetch_bytes: limits::PARTITION_FETCH_BYTES,
            queued_max_bytes: limits::QUEUED_MAX_BYTES,
            offset_reset: OffsetReset::None,
            check_crcs: true,
        }
    }

    /// Sets an option by its name: [`CONSUMER_OPTIONS`] or [`CLIENT_OPTIONS`].
    pub fn set(mut self, key: &str, value: &str) -> Result<Self, ConfigError> {
        match key {
            "fetch.min.bytes" => {
                self.fetch_min_bytes = size("fetch.min.bytes", value, 0, limits::FETCH_MAX_BYTES_CEILING)?
            }
            "fetch.max.wait.ms" => self.fetch_max_wait_ms = number("fetch.max.wait.ms", value, 0, 60_000)?,
            "fetch.max.bytes" => {
                self.fetch_max_bytes = size("fetch.max.bytes", value, 1, limits::FETCH_MAX_BYTES_CEILING)?
            }
            "max.partition.fetch.bytes" => {
                self.partition_fetch_bytes =
                    size("max.partition.fetch.bytes", value, 1, limits::FETCH_MAX_BYTES_CEILING)?;
            }
            "queued.max.bytes" => self.queued_max_bytes = size("queued.max.bytes", value, 1, usize::MAX / 2)?,
            "auto.offset.reset" => {
                let words =
                    [("none", OffsetReset::None), ("earliest", OffsetReset::Earliest), ("latest", OffsetReset::Latest)];
                self.offset_reset = word("auto.offset.reset", value, &words)?;
            }
            "check.crcs" => self.check_crcs = word("check.crcs", value, &[("true", true), ("false", false)])?,
            _ if self.client.apply(key, value)? => {}
            _ => return Err(unknown(key, &[CONSUMER_OPTIONS, CLIENT_OPTIONS])),
        }
        Ok(self)
    }

    /// Where to go when the position is outside the log.
    #[must_use]
    pub fn offset_reset(mut self, reset: OffsetReset) -> Self {
        self.offset_reset = reset;
        self
    }
}

fn addresses(list: &str) -> Result<Vec<Endpoint>, ConfigError> {
    let bad = |value: &str| ConfigError::Invalid {
        key: "bootstrap.servers",
        value: if value.is_empty() { "empty".to_owned() } else { value.to_owned() },
        limit: "HOST:PORT[,HOST:PORT...]".to_owned(),
    };
    let mut out = Vec::new();
    for address in list.split(',').map(str::trim).filter(|a| !a.is_empty()) {
        out.push(parse_address(address).ok_or_else(|| bad(address))?);
    }
    if out.is_empty() { Err(bad("")) } else { Ok(out) }
}

/// `HOST:PORT`, an IPv6 host in brackets.
pub(crate) fn parse_address(text: &str) -> Option<Endpoint> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let wire = protocol::rpc::pb::common::v1::Endpoint { host: host.to_owned(), port: port.parse().ok()? };
    Endpoint::try_from(wire).ok()
}

/// `HOST:PORT`, an IPv6 host in brackets.
pub(crate) fn show_address(address: &Endpoint) -> String {
    let Endpoint { host, port } = address;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn number(key: &'static str, value: &str, min: u64, max: u64) -> Result<u64, ConfigError> {
    value.parse().ok().filter(|v| (min..=max).contains(v)).ok_or_else(|| ConfigError::Invalid {
        key,
        value: value.to_owned(),
        limit: format!("a whole number from {min} to {max}"),
    })
}

fn size(key: &'static str, value: &str, min: usize, max: usize) -> Result<usize, ConfigError> {
    number(key, value, min as u64, max as u64).map(|v| v as usize)
}

fn word<T: Copy>(key: &'static str, value: &str, words: &[(&str, T)]) -> Result<T, ConfigError> {
    words.iter().find(|(name, _)| *name == value).map(|(_, v)| *v).ok_or_else(|| ConfigError::Invalid {
        key,
        value: value.to_owned(),
        limit: format!("one of {}", words.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")),
    })
}

fn unknown(key: &str, lists: &[&[OptionDoc]]) -> ConfigError {
    let known = lists.iter().flat_map(|list| list.iter()).map(|option| option.key);
    ConfigError::UnknownKey { key: key.to_owned(), suggestion: nearest(key, known) }
}

/// The known word nearest to `given`: one that extends or shortens it, else one within a third of its length in edits.
pub(crate) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|word| {
            let related = given.len() >= 4 && (word.starts_with(given) || given.starts_with(word));
            (if related { 0 } else { edits(given, word) }, word)
        })
        .min()
        .filter(|(distance, word)| *distance * 3 <= word.len())
        .map(|(_, word)| word)
}

/// Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_key_value_and_limit() {
        let error = ProducerConfig::new("a:1").unwrap().set("linger.ms", "soon").unwrap_err();
        assert_eq!(error.to_string(), "option linger.ms is soon, allowed: a whole number from 0 to 60000");
        let error = ProducerConfig::new("a:1").unwrap().set("acks", "2").unwrap_err();
        assert_eq!(error.to_string(), "option acks is 2, allowed: one of all, -1, 1, 0");
    }

    #[test]
    fn unknown_keys_are_errors_with_the_nearest_known_one() {
        let config = || ProducerConfig::new("a:1").unwrap();
        let text = |key| config().set(key, "1").unwrap_err().to_string();
        assert_eq!(text("linger.msec"), "unknown option linger.msec; did you mean linger.ms?");
        assert_eq!(text("batch.sise"), "unknown option batch.sise; did you mean batch.size?");
        assert_eq!(
            text("max.in.flight.requests.per.connection"),
            "unknown option max.in.flight.requests.per.connection; did you mean max.in.flight?"
        );
        assert_eq!(text("zzz"), "unknown option zzz");
        assert_eq!(
            ConsumerConfig::new("a:1").unwrap().set("linger.ms", "1").unwrap_err().to_string(),
            "unknown option linger.ms"
        );
    }

    #[test]
    fn bootstrap_takes_lists_and_ipv6_and_refuses_the_rest() {
        let config = ClientConfig::new(" a:1, [::1]:2,").unwrap();
        assert_eq!(config.bootstrap.iter().map(show_address).collect::<Vec<_>>(), ["a:1", "[::1]:2"]);
        for bad in ["", "a", "a:b", ":1", "http://a:1", "a:70000", "::1:1"] {
            assert!(ClientConfig::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_documented_option_can_be_set() {
        let value = |key: &str| match key {
            "bootstrap.servers" => "h:1",
            "acks" | "client.id" => "1",
            "compression.type" => "zstd",
            "auto.offset.reset" => "latest",
            "check.crcs" => "false",
            "buffer.memory" => "1000000",
            "max.in.flight" => "5",
            _ => "1000",
        };
        for option in PRODUCER_OPTIONS.iter().chain(CLIENT_OPTIONS) {
            ProducerConfig::new("a:1").unwrap().set(option.key, value(option.key)).unwrap();
        }
        for option in CONSUMER_OPTIONS.iter().chain(CLIENT_OPTIONS) {
            ConsumerConfig::new("a:1").unwrap().set(option.key, value(option.key)).unwrap();
        }
    }
}
