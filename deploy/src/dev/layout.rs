//! Where everything of a dev cluster goes: which nodes, in which data centre, on which ports, with which settings.
//!
//! Pure: from a [`Spec`] and fresh ids to [`Node`]s and the text of their configuration files. Touches no file.
//! Invariant: no two nodes share a port, and each role is spread over the data centres round robin, so that three
//! controllers in three data centres survive the loss of any one.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::limits;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use uuid::Uuid;

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Number of controllers, all voters.
    pub controllers: u32,
    /// Number of brokers.
    pub brokers: u32,
    /// Number of simulated data centres.
    pub dcs: u32,
    /// First port.
    pub port_base: u16,
    /// Extra settings of nodes.
    pub settings: Vec<Setting>,
}

/// One setting for some or all nodes, written `[controller:|broker:]key=value`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The role it is for; None = both.
    pub role: Option<Role>,
    /// Dotted key.
    pub key: String,
    /// Value as text.
    pub value: String,
}

/// Why a [`Spec`] or a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A number out of range.
    #[error("{field} is {value}, allowed: {limit}")]
    OutOfRange {
        /// The flag.
        field: &'static str,
        /// As given.
        value: u64,
        /// What is allowed.
        limit: String,
    },
    /// Not the name of a node.
    #[error("node {0:?}, allowed: controller-N or broker-N, say broker-2")]
    Name(String),
    /// Not a setting.
    #[error("-X {0:?}, allowed: key=value, controller:key=value or broker:key=value")]
    Setting(String),
}

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A voter of the metadata quorum.
    Controller,
    /// A store of partitions.
    Broker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Controller => "controller",
            Role::Broker => "broker",
        })
    }
}

/// A node's name: role and number, `broker-2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeName {
    /// What it is.
    pub role: Role,
    /// Its number within the role, from 1.
    pub id: u32,
}

impl NodeName {
    /// The controller of that number.
    pub fn controller(id: u32) -> Self {
        Self { role: Role::Controller, id }
    }

    /// The broker of that number.
    pub fn broker(id: u32) -> Self {
        Self { role: Role::Broker, id }
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.role, self.id)
    }
}

impl FromStr for NodeName {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        let wrong = || LayoutError::Name(text.to_owned());
        let (role, id) = text.split_once('-').ok_or_else(wrong)?;
        let role = match role {
            "controller" => Role::Controller,
            "broker" => Role::Broker,
            _ => return Err(wrong()),
        };
        let id = id.parse::<u32>().ok().filter(|id| *id > 0).ok_or_else(wrong)?;
        Ok(Self { role, id })
    }
}

impl FromStr for Setting {
    type Err = LayoutError;

    fn from_str(text: &str) -> Result<Self, LayoutError> {
        let (role, rest) = match text.split_once(':') {
            Some(("controller", rest)) => (Some(Role::Controller), rest),
            Some(("broker", rest)) => (Some(Role::Broker), rest),
            _ => (None, text),
        };
        let (key, value) = rest.split_once('=').ok_or_else(|| LayoutError::Setting(text.to_owned()))?;
        Ok(Self { role, key: key.trim().to_owned(), value: value.trim().to_owned() })
    }
}

/// One process of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Role and number.
    #[serde(flatten)]
    pub name: NodeName,
    /// Data centre, `dc1`.
    pub dc: String,
    /// Identity of its data directory.
    pub directory: Uuid,
    /// Port for peers and clients (controllers), for clients (brokers).
    pub port: u16,
    /// Port for nodes of the cluster; brokers only.
    pub internal_port: Option<u16>,
    /// Port of the HTTP listener.
    pub metrics_port: u16,
}

/// Host of every dev node.
pub const HOST: &str = "127.0.0.1";

impl Node {
    /// `127.0.0.1:port` for clients and peers.
    pub fn address(&self) -> String {
        format!("{HOST}:{}", self.port)
    }

    /// `127.0.0.1:port` of the HTTP listener.
    pub fn metrics(&self) -> String {
        format!("{HOST}:{}", self.metrics_port)
    }

    /// `region/dc/rack`.
    pub fn locality(&self) -> String {
        format!("local/{}/r1", self.dc)
    }

    /// Every port it listens on.
    pub fn ports(&self) -> Vec<u16> {
        [Some(self.port), self.internal_port, Some(self.metrics_port)].into_iter().flatten().collect()
    }

    /// Its folder below the cluster's: configuration, output and data.
    pub fn folder(&self, root: &Path) -> PathBuf {
        root.join(self.name.to_string())
    }

    /// Its data directory.
    pub fn data_dir(&self, root: &Path) -> PathBuf {
        self.folder(root).join("data")
    }

    /// Its configuration file.
    pub fn config_file(&self, root: &Path) -> PathBuf {
        self.folder(root).join("node.toml")
    }

    /// Where its output goes.
    pub fn log_file(&self, root: &Path) -> PathBuf {
        self.folder(root).join("process.log")
    }
}

impl Spec {
    /// Whether the numbers fit.
    ///
    /// # Errors
    /// [`LayoutError::OutOfRange`].
    pub fn check(&self) -> Result<(), LayoutError> {
        let range = |field, value: u32, max: u32| match value {
            value if (1..=max).contains(&value) => Ok(()),
            value => Err(LayoutError::OutOfRange { field, value: value.into(), limit: format!("1 to {max}") }),
        };
        range("--controllers", self.controllers, limits::DEV_CONTROLLERS_MAX)?;
        range("--brokers", self.brokers, limits::DEV_BROKERS_MAX)?;
        range("--dcs", self.dcs, self.controllers.max(self.brokers))?;
        if self.dcs == 2 && self.controllers > 1 && self.controllers % 2 == 1 {
            let limit = "1, or 3 and more, or an even number of --controllers: one of two would hold the majority";
            return Err(LayoutError::OutOfRange { field: "--dcs", value: 2, limit: limit.to_owned() });
        }
        let highest = u64::from(self.port_base) + 100 + 10 * u64::from(self.brokers) + 2;
        if self.port_base < 1024 || highest > u64::from(u16::MAX) {
            let limit = format!("1024 to {}", u64::from(u16::MAX) - (highest - u64::from(self.port_base)));
            return Err(LayoutError::OutOfRange { field: "--port-base", value: self.port_base.into(), limit });
        }
        Ok(())
    }

    /// The nodes, controllers first. `fresh` makes directory ids.
    ///
    /// # Errors
    /// As [`Spec::check`].
    pub fn nodes(&self, mut fresh: impl FnMut() -> Uuid) -> Result<Vec<Node>, LayoutError> {
        self.check()?;
        let dc = |id: u32| format!("dc{}", (id - 1) % self.dcs + 1);
        let offset = |id: u32, base: u16| self.port_base + base + 10 * u16::try_from(id).unwrap_or(u16::MAX / 20);
        let controllers = (1..=self.controllers).map(|id| (NodeName::controller(id), offset(id, 0)));
        let brokers = (1..=self.brokers).map(|id| (NodeName::broker(id), offset(id, 100)));
        let node = |(name, port): (NodeName, u16)| Node {
            name,
            dc: dc(name.id),
            directory: fresh(),
            port,
            internal_port: (name.role == Role::Broker).then_some(port + 1),
            metrics_port: if name.role == Role::Broker { port + 2 } else { port + 1 },
        };
        Ok(controllers.chain(brokers).map(node).collect())
    }
}

/// What clients are given to begin with.
pub fn bootstrap(nodes: &[Node]) -> Vec<String> {
    nodes.iter().filter(|node| node.name.role == Role::Broker).map(Node::address).collect()
}

/// The voters as `ID@HOST:PORT@region/dc/rack#DIRECTORY`.
pub fn voters(nodes: &[Node]) -> Vec<String> {
    let controllers = nodes.iter().filter(|node| node.name.role == Role::Controller);
    controllers.map(|n| format!("{}@{}@{}#{}", n.name.id, n.address(), n.locality(), n.directory)).collect()
}

/// A node's configuration file.
pub fn config_text(root: &Path, spec: &Spec, nodes: &[Node], node: &Node) -> String {
    let mut keys: Vec<(String, String)> = Vec::new();
    let mut set = |key: &str, value: String| keys.push((key.to_owned(), value));
    set("node.id", node.name.id.to_string());
    set("node.locality", quoted(&node.locality()));
    set("data.dir", quoted(&node.data_dir(root).to_string_lossy()));
    match node.name.role {
        Role::Controller => {
            set("listen", quoted(&node.address()));
            set("advertise", quoted(&node.address()));
            set("voters", list(&voters(nodes)));
        }
        Role::Broker => {
            let internal = format!("{HOST}:{}", node.internal_port.unwrap_or_default());
            set("client.listen", quoted(&node.address()));
            set("client.advertise", quoted(&node.address()));
            set("internal.listen", quoted(&internal));
            set("internal.advertise", quoted(&internal));
            let controllers = nodes.iter().filter(|node| node.name.role == Role::Controller);
            set("controllers", list(&controllers.map(Node::address).collect::<Vec<_>>()));
        }
    }
    set("metrics.listen", quoted(&node.metrics()));
    for setting in spec.settings.iter().filter(|setting| setting.role.is_none_or(|role| role == node.name.role)) {
        keys.retain(|(key, _)| *key != setting.key);
        keys.push((setting.key.clone(), quoted(&setting.value)));
    }
    let mut text = format!("# {} of a dev cluster; written by `seawall dev`.\n", node.name);
    for (key, value) in keys {
        let _ = writeln!(text, "\"{key}\" = {value}");
    }
    text
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn list(items: &[String]) -> String {
    toml::Value::Array(items.iter().map(|item| toml::Value::String(item.clone())).collect()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn spec(controllers: u32, brokers: u32, dcs: u32) -> Spec {
        Spec { controllers, brokers, dcs, port_base: limits::DEV_PORT_BASE, settings: vec![] }
    }

    fn nodes(spec: &Spec) -> Vec<Node> {
        let mut next = 0;
        let fresh = || {
            next += 1;
            Uuid::from_u128(next)
        };
        spec.nodes(fresh).expect("the spec is in range")
    }

    #[test]
    fn no_two_nodes_share_a_port_or_directory() {
        let nodes = nodes(&spec(9, 50, 3));
        let ports: BTreeSet<u16> = nodes.iter().flat_map(Node::ports).collect();
        assert_eq!(ports.len(), 9 * 2 + 50 * 3);
        assert_eq!(nodes.iter().map(|n| n.directory).collect::<BTreeSet<_>>().len(), 59);
    }

    #[test]
    fn ports_are_where_the_documentation_says() {
        let nodes = nodes(&spec(3, 3, 3));
        let broker = nodes.iter().find(|n| n.name == NodeName::broker(2)).expect("there are three");
        assert_eq!((broker.port, broker.internal_port, broker.metrics_port), (19210, Some(19211), 19212));
        assert_eq!((nodes[0].port, nodes[0].metrics_port), (19100, 19101));
        assert_eq!(bootstrap(&nodes).join(","), "127.0.0.1:19200,127.0.0.1:19210,127.0.0.1:19220");
        assert_eq!(voters(&nodes)[2], "3@127.0.0.1:19120@local/dc3/r1#00000000-0000-0000-0000-000000000003");
    }

    #[test]
    fn each_role_is_spread_over_the_data_centres() {
        let nodes = nodes(&spec(3, 5, 3));
        let of = |role| nodes.iter().filter(|n| n.name.role == role).map(|n| n.dc.as_str()).collect::<Vec<_>>();
        assert_eq!(of(Role::Controller), ["dc1", "dc2", "dc3"]);
        assert_eq!(of(Role::Broker), ["dc1", "dc2", "dc3", "dc1", "dc2"]);
    }

    #[test]
    fn numbers_out_of_range_are_named_with_their_limit() {
        for (bad, flag) in [(spec(10, 3, 3), "--controllers"), (spec(3, 0, 1), "--brokers"), (spec(3, 3, 4), "--dcs")] {
            let error = bad.check().expect_err("out of range").to_string();
            assert!(error.contains(flag) && error.contains("allowed: 1 to"), "{error}");
        }
        assert!(spec(3, 3, 2).check().expect_err("2-1").to_string().contains("--dcs"));
        assert!([spec(4, 3, 2), spec(1, 3, 2), spec(5, 3, 3)].iter().all(|fine| fine.check().is_ok()));
        let high = Spec { port_base: 65_500, ..spec(3, 3, 3) };
        assert!(high.check().expect_err("too high").to_string().contains("--port-base is 65500, allowed: 1024 to"));
    }

    #[test]
    fn settings_reach_the_roles_they_name() {
        let settings = ["broker:shards=2", "max.inter.dc.rtt.ms=1"].map(|s| s.parse().expect("a setting")).to_vec();
        let spec = Spec { settings, ..spec(1, 1, 1) };
        let nodes = nodes(&spec);
        let text = |at: usize| config_text(Path::new("/d"), &spec, &nodes, &nodes[at]);
        assert!(!text(0).contains("shards") && text(0).contains("\"max.inter.dc.rtt.ms\" = \"1\""));
        assert!(text(1).contains("\"shards\" = \"2\"") && text(1).contains("\"controllers\" = [\"127.0.0.1:19100\"]"));
        toml::from_str::<toml::Table>(&text(0)).expect("it is TOML");
    }

    #[test]
    fn names_are_read_back() {
        assert_eq!("broker-12".parse(), Ok(NodeName::broker(12)));
        for bad in ["broker", "broker-0", "broker-x", "node-1", ""] {
            assert!(matches!(bad.parse::<NodeName>(), Err(LayoutError::Name(_))), "{bad}");
        }
    }
}
