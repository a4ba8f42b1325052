//! Configuration of a broker process: what was written ([`RawConfig`]) and what the process needs ([`Config`]).
//!
//! Owns: keys, defaults, ranges. Never: reads files, the environment or arguments (the binary layers those into one
//! flat map), keeps anything global.
//! Invariant: a [`Config`] was checked whole; an unknown key is an error, never ignored.

use protocol::ids::BrokerId;
use protocol::limits::{RTT_MS_DEFAULT, RTT_MS_MAX, RTT_MS_MIN};
use protocol::locality::Locality;
use protocol::metadata::record::Endpoint;
use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::limits;

/// Every key that may be written, in the order of the documentation.
pub const KEYS: &[&str] = &[
    "node.id",
    "node.locality",
    "data.dir",
    "client.listen",
    "client.advertise",
    "internal.listen",
    "internal.advertise",
    "metrics.listen",
    "controllers",
    "shards",
    "max.inter.dc.rtt.ms",
    "storage",
    "log.format",
    "log.level",
];

/// Why a configuration is refused. Names key, value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A key this role does not have.
    #[error("config key {key:?} is unknown; keys of a broker are {}", KEYS.join(", "))]
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

fn invalid(key: &'static str, value: &str, limit: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { key, value: value.to_owned(), limit: limit.into() }
}

/// How partition and identity files are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageKind {
    /// Real files.
    File,
    /// Real files whose unsynced bytes stay in process memory, so that SIGKILL is a power loss. Test builds only.
    PowerLoss,
}

/// A broker's configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The broker's number, from 1.
    pub node_id: BrokerId,
    /// Where it stands.
    pub locality: Locality,
    /// Its formatted data directory.
    pub data_dir: PathBuf,
    /// Bind address of the listener for applications.
    pub client_listen: String,
    /// What applications dial; None = the bound address.
    pub client_advertise: Option<Endpoint>,
    /// Bind address of the listener for nodes of the cluster.
    pub internal_listen: String,
    /// What nodes dial; None = the bound address.
    pub internal_advertise: Option<Endpoint>,
    /// Bind address of the HTTP listener.
    pub metrics_listen: String,
    /// Controllers to begin with.
    pub controllers: Vec<Endpoint>,
    /// Threads that own partitions.
    pub shards: usize,
    /// Declared longest round trip between data centres, ms: timers derive from it.
    pub max_inter_dc_rtt_ms: u64,
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
        let id = raw.required("node.id", "the broker's number, from 1")?;
        let node_id = match id.parse::<u32>() {
            Ok(value) if value > 0 => BrokerId(value),
            _ => return Err(invalid("node.id", id, format!("a whole number from 1 to {}", u32::MAX))),
        };
        let place = raw.required("node.locality", "region/dc/rack")?;
        let locality = place.parse::<Locality>().map_err(|e| invalid("node.locality", place, e.to_string()))?;
        let list = raw.required("controllers", "host:port of the controllers, comma separated")?;
        let controllers = list
            .split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(|s| endpoint("controllers", s))
            .collect::<Result<Vec<_>, _>>()?;
        if controllers.is_empty() {
            return Err(invalid("controllers", list, "at least one host:port"));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let default_shards = cores.min(limits::SHARDS_DEFAULT_MAX);
        let shards = raw.number("shards", 1, limits::SHARDS_MAX, default_shards)?;
        let storage = match raw.get("storage").unwrap_or("file") {
            "file" => StorageKind::File,
            "power-loss" => StorageKind::PowerLoss,
            other => return Err(invalid("storage", other, "file, or power-loss in test builds")),
        };
        let advertise = |key| raw.get(key).map(|text| endpoint(key, text)).transpose();
        Ok(Self {
            node_id,
            locality,
            data_dir: PathBuf::from(raw.required("data.dir", "the formatted data directory")?),
            client_listen: bind(&raw, "client.listen")?,
            client_advertise: advertise("client.advertise")?,
            internal_listen: bind(&raw, "internal.listen")?,
            internal_advertise: advertise("internal.advertise")?,
            metrics_listen: bind(&raw, "metrics.listen")?,
            controllers,
            shards: usize::try_from(shards).unwrap_or(1),
            max_inter_dc_rtt_ms: raw.number("max.inter.dc.rtt.ms", RTT_MS_MIN, RTT_MS_MAX, RTT_MS_DEFAULT)?,
            storage,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(extra: &[(&str, &str)]) -> BTreeMap<String, String> {
        let base = [
            ("node.id", "3"),
            ("node.locality", "eu/a/r1"),
            ("data.dir", "/d"),
            ("client.listen", "127.0.0.1:0"),
            ("internal.listen", "127.0.0.1:0"),
            ("metrics.listen", "127.0.0.1:0"),
            ("controllers", "a:1, b:2"),
        ];
        base.iter().chain(extra).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn config(extra: &[(&str, &str)]) -> Result<Config, ConfigError> {
        RawConfig::from_flat(flat(extra)).and_then(Config::try_from)
    }

    #[test]
    fn a_minimal_file_is_enough() {
        let config = config(&[]).expect("the base map is complete");
        assert_eq!(config.node_id, BrokerId(3));
        assert_eq!(config.controllers.len(), 2);
        assert_eq!(config.max_inter_dc_rtt_ms, RTT_MS_DEFAULT);
    }

    #[test]
    fn errors_name_key_value_and_limit() {
        for (key, value) in [
            ("node.id", "0"),
            ("node.locality", "eu"),
            ("controllers", "nowhere"),
            ("controllers", ","),
            ("client.advertise", "host:0"),
            ("shards", "0"),
            ("max.inter.dc.rtt.ms", "x"),
            ("storage", "tape"),
            ("internal.listen", "9092"),
        ] {
            let error = config(&[(key, value)]).expect_err("the value is out of range").to_string();
            assert!(error.contains(key) && error.contains("allowed"), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = config(&[("node.idd", "1")]).expect_err("no such key");
        assert_eq!(error, ConfigError::UnknownKey { key: "node.idd".into() });
    }
}
