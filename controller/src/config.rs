//! Configuration of a controller process: what was written ([`RawConfig`]) and what the process needs ([`Config`]).
//! Knows keys, defaults and ranges. Reads no file, environment or argument (the binary layers those into one flat map)
//! and keeps nothing global. A [`Config`] was checked whole; an unknown key is an error, never ignored.

use crate::limits::{RAFT_SEGMENT_BYTES_DEFAULT, RAFT_SEGMENT_BYTES_MAX, RAFT_SEGMENT_BYTES_MIN};
use crate::limits::{SCRUB_INTERVAL_MS_DEFAULT, SCRUB_INTERVAL_MS_MAX, SCRUB_INTERVAL_MS_MIN};
use crate::limits::{SNAPSHOT_EVERY_DEFAULT, SNAPSHOT_EVERY_MAX, SNAPSHOT_EVERY_MIN, VOTERS_MAX};
use crate::quorum::{VoterId, VoterNode, VoterSpec};
use protocol::ids::ControllerId;
use protocol::limits::RTT_MS_DEFAULT;
use protocol::locality::Locality;
use protocol::metadata::record::Endpoint;
use protocol::timers::Timers;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Every key that may be written, in the order of the documentation.
pub const KEYS: &[&str] = &[
    "node.id",
    "node.locality",
    "data.dir",
    "listen",
    "advertise",
    "metrics.listen",
    "max.inter.dc.rtt.ms",
    "voters",
    "snapshot.every",
    "raft.segment.bytes",
    "scrub.interval.ms",
    "storage",
    "log.format",
    "log.level",
];

/// Why a configuration is refused. Names key, value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A key this role does not have.
    #[error("config key {key:?} is unknown; keys of a controller are {}", KEYS.join(", "))]
    UnknownKey {
        /// As written.
        key: String,
    },
    /// A key without default is missing.
    #[error("config key {key} is missing: {what}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What it has to say.
        what: &'static str,
    },
    /// A value out of range or not readable.
    #[error("config {key} is {value:?}, allowed: {limit}")]
    Invalid {
        /// The key.
        key: &'static str,
        /// As written.
        value: String,
        /// What is allowed.
        limit: String,
    },
}

fn invalid(key: &'static str, value: &str, limit: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key, value: value.to_owned(), limit: limit.into() }
}

/// Values as written, by dotted key. Known keys only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawConfig {
    values: BTreeMap<String, String>,
}

impl RawConfig {
    /// Takes a flat map of dotted keys (lists as comma-separated text).
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`].
    pub fn from_flat(values: BTreeMap<String, String>) -> Result<Self, ConfigError> {
        match values.keys().find(|key| !KEYS.contains(&key.as_str())) {
            Some(key) => Err(ConfigError::UnknownKey { key: key.clone() }),
            None => Ok(Self { values }),
        }
    }

    fn get(&self, key: &'static str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    fn required(&self, key: &'static str, what: &'static str) -> Result<&str, ConfigError> {
        self.get(key).ok_or(ConfigError::Missing { key, what })
    }

    fn number(&self, key: &'static str, min: u64, max: u64, default: u64) -> Result<u64, ConfigError> {
        let Some(text) = self.get(key) else { return Ok(default) };
        match text.parse::<u64>() {
            Ok(value) if (min..=max).contains(&value) => Ok(value),
            _ => Err(invalid(key, text, format!("a whole number from {min} to {max}"))),
        }
    }
}

/// How files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageKind {
    /// Real files.
    File,
    /// Real files whose unsynced bytes stay in process memory, so that SIGKILL is a power loss. Test builds only.
    PowerLoss,
}

/// A controller's configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The controller's number, from 1.
    pub node_id: ControllerId,
    /// Where it stands.
    pub locality: Locality,
    /// Its formatted data directory.
    pub data_dir: PathBuf,
    /// Bind address of the listener for everybody.
    pub listen: String,
    /// What others dial; None = the bound address.
    pub advertise: Option<Endpoint>,
    /// Bind address of the HTTP listener.
    pub metrics_listen: String,
    /// Timers, from `max.inter.dc.rtt.ms`.
    pub timers: Timers,
    /// Where voters are reached, if not where the membership says.
    pub voters: Vec<VoterSpec>,
    /// Entries between snapshots.
    pub snapshot_every: u64,
    /// Size of a Raft log segment.
    pub raft_segment_bytes: u64,
    /// Time between two readings of vote, log and snapshot.
    pub scrub_every: Duration,
    /// Kind of storage.
    pub storage: StorageKind,
}

fn endpoint(key: &'static str, text: &str) -> Result<Endpoint, ConfigError> {
    let wrong = || invalid(key, text, "host:port with a port from 1 to 65535");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || port == 0 {
        return Err(wrong());
    }
    Ok(Endpoint { host: host.to_owned(), port })
}

fn bind(raw: &RawConfig, key: &'static str) -> Result<String, ConfigError> {
    let text = raw.required(key, "the address to listen on, host:port (port 0 = any free one)")?;
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.to_owned()),
        _ => Err(invalid(key, text, "host:port with a port from 0 to 65535")),
    }
}

impl TryFrom<RawConfig> for Config {
    type Error = ConfigError;

    fn try_from(raw: RawConfig) -> Result<Self, ConfigError> {
        let id = raw.required("node.id", "the controller's number, from 1")?;
        let node_id = match id.parse::<u32>() {
            Ok(value) if value > 0 => ControllerId(value),
            _ => return Err(invalid("node.id", id, format!("a whole number from 1 to {}", u32::MAX))),
        };
        let place = raw.required("node.locality", "region/dc/rack")?;
        let locality = place.parse::<Locality>().map_err(|e| invalid("node.locality", place, e.to_string()))?;
        let rtt = raw.number("max.inter.dc.rtt.ms", 0, u64::MAX, RTT_MS_DEFAULT)?;
        let timers = Timers::checked(rtt).map_err(|e| invalid("max.inter.dc.rtt.ms", &e.value, e.limit.clone()))?;
        let storage = match raw.get("storage").unwrap_or("file") {
            "file" => StorageKind::File,
            "power-loss" => StorageKind::PowerLoss,
            other => return Err(invalid("storage", other, "file, or power-loss in test builds")),
        };
        let segment = (RAFT_SEGMENT_BYTES_MIN, RAFT_SEGMENT_BYTES_MAX, RAFT_SEGMENT_BYTES_DEFAULT);
        let every = (SNAPSHOT_EVERY_MIN, SNAPSHOT_EVERY_MAX, SNAPSHOT_EVERY_DEFAULT);
        let scrub = (SCRUB_INTERVAL_MS_MIN, SCRUB_INTERVAL_MS_MAX, SCRUB_INTERVAL_MS_DEFAULT);
        Ok(Self {
            node_id,
            locality,
            data_dir: PathBuf::from(raw.required("data.dir", "the formatted data directory")?),
            listen: bind(&raw, "listen")?,
            advertise: raw.get("advertise").map(|text| endpoint("advertise", text)).transpose()?,
            metrics_listen: bind(&raw, "metrics.listen")?,
            timers,
            voters: voters(raw.get("voters").unwrap_or_default())?,
            snapshot_every: raw.number("snapshot.every", every.0, every.1, every.2)?,
            raft_segment_bytes: raw.number("raft.segment.bytes", segment.0, segment.1, segment.2)?,
            scrub_every: Duration::from_millis(raw.number("scrub.interval.ms", scrub.0, scrub.1, scrub.2)?),
            storage,
        })
    }
}

fn voters(list: &str) -> Result<Vec<VoterSpec>, ConfigError> {
    let items = list.split(',').map(str::trim).filter(|s| !s.is_empty());
    let voters = items.map(|item| item.parse::<VoterSpec>().map_err(|e| invalid("voters", item, e.limit)));
    let voters = voters.collect::<Result<Vec<_>, _>>()?;
    if voters.len() > VOTERS_MAX {
        return Err(invalid("voters", list, format!("at most {VOTERS_MAX}")));
    }
    Ok(voters)
}

/// A text that is not a voter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("voter {value:?} is not {limit}")]
pub struct VoterSpecError {
    /// As written.
    pub value: String,
    /// What it should be.
    pub limit: String,
}

/// `ID@HOST:PORT@region/dc/rack#DIRECTORY-UUID`, as in `voters` and `format`.
impl FromStr for VoterSpec {
    type Err = VoterSpecError;

    fn from_str(text: &str) -> Result<Self, VoterSpecError> {
        let wrong = |limit: String| VoterSpecError { value: text.to_owned(), limit };
        let form = || wrong("ID@HOST:PORT@region/dc/rack#DIRECTORY-UUID".to_owned());
        let (head, directory) = text.rsplit_once('#').ok_or_else(form)?;
        let mut parts = head.splitn(3, '@');
        let (Some(id), Some(address), Some(place)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(form());
        };
        let id: u32 = id.parse().ok().filter(|id| *id > 0).ok_or_else(form)?;
        let directory = directory.parse().map_err(|_| form())?;
        let endpoint = endpoint("voters", address).map_err(|e| wrong(e.to_string()))?;
        let locality: Locality = place.parse().map_err(|e: protocol::locality::LocalityError| wrong(e.to_string()))?;
        let node = VoterNode { host: endpoint.host, port: endpoint.port, locality: locality.to_string() };
        Ok(Self { voter: VoterId { id, directory }, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOTER: &str = "2@host:9000@eu/dc2/r1#01234567-89ab-cdef-0123-456789abcdef";

    fn config(extra: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let base = [
            ("node.id", "3"),
            ("node.locality", "eu/a/r1"),
            ("data.dir", "/d"),
            ("listen", "127.0.0.1:0"),
            ("metrics.listen", "127.0.0.1:0"),
        ];
        let flat = base.iter().chain(extra).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        RawConfig::from_flat(flat).and_then(Config::try_from)
    }

    #[test]
    fn a_minimal_file_is_enough() {
        let config = config(&[("voters", VOTER)]).expect("the base map is complete");
        assert_eq!(config.node_id, ControllerId(3));
        assert_eq!(config.timers, Timers::default());
        assert_eq!(config.snapshot_every, SNAPSHOT_EVERY_DEFAULT);
        assert_eq!(config.voters[0].voter.id, 2);
        assert_eq!(config.voters[0].node.to_string(), "host:9000 in eu/dc2/r1");
    }

    #[test]
    fn errors_name_key_value_and_limit() {
        for (key, value) in [
            ("node.id", "0"),
            ("node.locality", "eu"),
            ("voters", "1@host:1"),
            ("voters", "0@host:1@a/b/c#01234567-89ab-cdef-0123-456789abcdef"),
            ("advertise", "host:0"),
            ("listen", "9092"),
            ("max.inter.dc.rtt.ms", "0"),
            ("max.inter.dc.rtt.ms", "x"),
            ("snapshot.every", "1"),
            ("raft.segment.bytes", "10"),
            ("scrub.interval.ms", "1"),
            ("storage", "tape"),
        ] {
            let error = config(&[(key, value)]).expect_err("the value is out of range").to_string();
            assert!(error.contains(key) && error.contains("allowed"), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_list_of_keys() {
        let error = config(&[("node.idd", "1")]).expect_err("a typo").to_string();
        assert!(error.contains("node.idd") && error.contains("snapshot.every"), "{error}");
    }

    #[test]
    fn a_missing_key_says_what_it_is_for() {
        let error = RawConfig::default();
        let error = Config::try_from(error).expect_err("nothing is given");
        assert!(matches!(error, ConfigError::Missing { key: "node.id", .. }));
    }
}
