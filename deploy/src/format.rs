//! `seawall format`: gives a data directory its identity, once, explicitly.
//!
//! Owns the command; the storage engine and the controller own what is written. Never formats a directory that has an
//! identity: an empty disk that formats itself would be taken for a replica that lost nothing.

use crate::config;
use crate::dev::layout::{Node, Role};
use crate::exit::Exit;
use clap::Args;
use controller::quorum::VoterSpec;
use log::data_dir::{DataDir, DataDirError, Identity};
use log::storage::Storage;
use log::storage::file::FileStorage;
use protocol::ids::ControllerId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// `seawall format [ROLE] ...`.
#[derive(Debug, Args)]
pub struct FormatArgs {
    /// Print a fresh cluster id (or directory id) and do nothing else
    #[arg(long, exclusive = true)]
    new_id: bool,
    /// What the directory is for
    #[arg(required_unless_present = "new_id")]
    role: Option<FormatRole>,
    /// The node's configuration file: data.dir, node.id, and for controllers voters
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override of a configuration key
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// The cluster's id, the same for every node
    #[arg(long, required_unless_present = "new_id")]
    cluster_id: Option<Uuid>,
    /// Identity of this directory [default: as in `voters`, else a fresh one]
    #[arg(long)]
    directory_id: Option<Uuid>,
    /// A controller that will be added to a running quorum: writes no first voter set
    #[arg(long)]
    join: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FormatRole {
    Controller,
    Broker,
}

/// Why a directory cannot be formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Layers(#[from] config::LayerError),
    /// A key is missing or not readable.
    #[error("config {key} is {value}, allowed: {limit}")]
    Key {
        /// The key.
        key: &'static str,
        /// As written, or "missing".
        value: String,
        /// What is allowed.
        limit: &'static str,
    },
    /// A controller that is in no voter set and does not say that it joins one.
    #[error(
        "controller {id} is not in config voters ({voters}); name it there, or say --join to add it to a running quorum"
    )]
    NotAVoter {
        /// The controller.
        id: u32,
        /// The voters as written.
        voters: String,
    },
    /// The directory: formatted already, in use, or not ours.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// The controller's first voter set.
    #[error(transparent)]
    Controller(#[from] controller::format::FormatError),
}

/// What was made.
#[derive(Debug)]
struct Formatted {
    identity: String,
    next: String,
}

/// Runs the command; errors are printed here.
pub fn run(args: &FormatArgs) -> Exit {
    if args.new_id {
        println!("{}", Uuid::new_v4());
        return Exit::Ok;
    }
    let (Some(role), Some(cluster_id)) = (args.role, args.cluster_id) else { return Exit::Usage };
    match format(role, cluster_id, args) {
        Ok(done) => {
            println!("{}", done.identity);
            eprintln!("{}", done.next);
            Exit::Ok
        }
        Err(error) => {
            eprintln!("seawall format: {error}");
            match error {
                FormatError::Layers(_) | FormatError::Key { .. } | FormatError::NotAVoter { .. } => Exit::Usage,
                FormatError::Directory(_) | FormatError::Controller(_) => Exit::Refused,
            }
        }
    }
}

fn format(role: FormatRole, cluster_id: Uuid, args: &FormatArgs) -> Result<Formatted, FormatError> {
    let layered = config::load(args.config.as_deref(), std::env::vars(), &args.overrides)?;
    let get = |key: &'static str| layered.values.get(key).map(String::as_str);
    let missing = |key, limit| FormatError::Key { key, value: "missing".to_owned(), limit };
    let text = get("node.id").ok_or_else(|| missing("node.id", "the node's number, from 1"))?;
    let id: u32 = text.parse().ok().filter(|id| *id > 0).ok_or_else(|| FormatError::Key {
        key: "node.id",
        value: text.to_owned(),
        limit: "a whole number from 1",
    })?;
    let dir = PathBuf::from(get("data.dir").ok_or_else(|| missing("data.dir", "the directory to format"))?);
    match role {
        FormatRole::Broker => {
            let directory = args.directory_id.unwrap_or_else(Uuid::new_v4);
            format_broker(&dir, cluster_id, id, directory)?;
            let identity = format!("broker {id} of cluster {cluster_id}, directory {directory}, in {}", dir.display());
            Ok(Formatted { identity, next: "start it with `seawall broker --config FILE`".to_owned() })
        }
        FormatRole::Controller => {
            let voters = if args.join { String::new() } else { get("voters").unwrap_or_default().to_owned() };
            let (specs, directory) = first_voters(id, &voters, args)?;
            format_controller(&dir, cluster_id, id, directory, &specs)?;
            let identity =
                format!("controller {id} of cluster {cluster_id}, directory {directory}, in {}", dir.display());
            let next = if args.join {
                format!("start it, then `seawall quorum add {id}@HOST:PORT@REGION/DC/RACK#{directory}`")
            } else {
                format!("one of {} first voters; start it with `seawall controller --config FILE`", specs.len())
            };
            Ok(Formatted { identity, next })
        }
    }
}

/// The first voter set and this controller's directory id in it.
fn first_voters(id: u32, voters: &str, args: &FormatArgs) -> Result<(Vec<VoterSpec>, Uuid), FormatError> {
    let specs = parse_voters(voters.split(',').map(str::trim).filter(|voter| !voter.is_empty()))?;
    if args.join {
        return Ok((vec![], args.directory_id.unwrap_or_else(Uuid::new_v4)));
    }
    let me = specs.iter().find(|spec| spec.voter.id == id);
    let me = me.ok_or_else(|| FormatError::NotAVoter { id, voters: voters.to_owned() })?;
    let directory = args.directory_id.unwrap_or(me.voter.directory);
    Ok((specs, directory))
}

fn parse_voters<'a>(voters: impl Iterator<Item = &'a str>) -> Result<Vec<VoterSpec>, FormatError> {
    let limit = "ID@HOST:PORT@region/dc/rack#DIRECTORY-UUID";
    let key = "voters";
    voters.map(|text| text.parse().map_err(|_| FormatError::Key { key, value: text.to_owned(), limit })).collect()
}

fn storage(dir: &Path) -> Arc<dyn Storage> {
    Arc::new(FileStorage::new(dir))
}

fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf())
}

fn format_broker(dir: &Path, cluster_id: Uuid, node_id: u32, directory: Uuid) -> Result<(), FormatError> {
    let dir = absolute(dir);
    let identity = Identity { cluster_id, node_id, role: log::data_dir::Role::Broker, directory };
    Ok(DataDir::format(&storage(&dir), &dir, &identity)?)
}

fn format_controller(
    dir: &Path,
    cluster_id: Uuid,
    id: u32,
    directory: Uuid,
    voters: &[VoterSpec],
) -> Result<(), FormatError> {
    let dir = absolute(dir);
    let storage = storage(&dir);
    Ok(controller::format::format_controller(&storage, &dir, cluster_id, ControllerId(id), directory, voters)?)
}

/// Formats a node of a dev cluster. `voters` are all its controllers, as in a configuration; unused for brokers.
///
/// # Errors
/// [`FormatError`].
pub fn format_dev_node(dir: &Path, cluster_id: Uuid, node: &Node, voters: &[String]) -> Result<(), FormatError> {
    match node.name.role {
        Role::Broker => format_broker(dir, cluster_id, node.name.id, node.directory),
        Role::Controller => {
            let voters = parse_voters(voters.iter().map(String::as_str))?;
            format_controller(dir, cluster_id, node.name.id, node.directory, &voters)
        }
    }
}
