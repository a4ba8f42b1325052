//! Making a controller's data directory: identity, and the first voter set if it belongs to it. Done by an explicit
//! command, never by a starting process: a majority of empty disks must not elect a leader that lacks committed facts.

use crate::quorum::{ChangeError, VoterId, VoterSpec, check_first_voters};
use log::data_dir::{DataDir, DataDirError, Identity, Role};
use log::storage::{Storage, create_dir_durably};
use log::{LogError, StateFile};
use protocol::ids::ControllerId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;

/// Name of the record that holds the first voter set.
const BOOTSTRAP: &str = "bootstrap";

/// Directory of the Raft state within a data directory.
const RAFT: &str = "raft";

/// Why a directory was not formatted, or its first voter set not read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The directory: in use, formatted already, or a call failed.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// The voter record.
    #[error(transparent)]
    Record(#[from] LogError),
    /// The directory could not be made.
    #[error("creating directory {dir} failed: {source}")]
    Create {
        /// Path.
        dir: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The voter record's checksum holds, its contents do not decode.
    #[error("damage in {file}: the first voter set does not decode: {what}")]
    Malformed {
        /// Path.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The first voter set is one that no change of voters would be allowed to make.
    #[error("first voter set: {0}")]
    Voters(#[from] ChangeError),
    /// The first voter set names this controller with another directory.
    #[error("voter {id} of the first voter set has directory {named}, this directory is {directory}")]
    AnotherDirectory {
        /// Controller id.
        id: u32,
        /// As in the voter set.
        named: Uuid,
        /// As formatted.
        directory: Uuid,
    },
}

/// Formats a directory for a controller. `voters` is the first voter set, the same on each of its members; empty for a
/// controller that will be added to a running quorum.
///
/// # Errors
/// [`FormatError`]; nothing is changed when the directory was formatted before.
pub fn format_controller(
    storage: &Arc<dyn Storage>,
    path: &Path,
    cluster_id: Uuid,
    node_id: ControllerId,
    directory: Uuid,
    voters: &[VoterSpec],
) -> Result<(), FormatError> {
    if let Some(spec) = voters.iter().find(|v| v.voter.id == node_id.0 && v.voter.directory != directory) {
        return Err(FormatError::AnotherDirectory { id: node_id.0, named: spec.voter.directory, directory });
    }
    if !voters.is_empty() {
        check_first_voters(voters)?;
    }
    let identity = Identity { cluster_id, node_id: node_id.0, role: Role::Controller, directory };
    // The identity is written last, so a formatted directory has its voters; an earlier identity leaves all as it is.
    if DataDir::peek(storage, path)?.is_none() && !voters.is_empty() {
        let raft = path.join(RAFT);
        create_dir_durably(&**storage, &raft).map_err(|source| FormatError::Create { dir: raft.clone(), source })?;
        let bytes = postcard::to_stdvec(voters).expect("voters hold only types that postcard can write");
        StateFile::new(Arc::clone(storage), raft.join(BOOTSTRAP)).store(&bytes)?;
    }
    Ok(DataDir::format(storage, path, &identity)?)
}

/// The first voter set, empty when there is none or this directory's voter is not in it.
///
/// # Errors
/// [`FormatError`] on damage.
pub(crate) fn read_bootstrap(
    storage: &Arc<dyn Storage>,
    raft: &Path,
    me: VoterId,
) -> Result<Vec<VoterSpec>, FormatError> {
    let file = raft.join(BOOTSTRAP);
    let Some(bytes) = StateFile::new(Arc::clone(storage), file.clone()).load()? else { return Ok(Vec::new()) };
    let voters: Vec<VoterSpec> =
        postcard::from_bytes(&bytes).map_err(|e| FormatError::Malformed { file, what: e.to_string() })?;
    Ok(if voters.iter().any(|v| v.voter == me) { voters } else { Vec::new() })
}
