//! The quorum's storage without Raft, for tests that cut its power and damage its files: vote, log, marker and snapshots
//! opened, checked and written as a running controller does, on the caller's thread and in plain types.
//!
//! Never: is built into a shipped program (feature `bare-storage`); decides anything a running controller does not.
//! Invariant: an answer without an error is what Raft would take for an acknowledgement.

use super::disk::{Disk, DiskError};
use super::log_store::Flusher;
use super::snapshot::{Built, ImageBytes, SnapshotStore};
use super::state_machine::StateMachine;
use super::types::alias::{CommittedLeaderId, Entry, LogId, SnapshotMeta, StoredMembership, Vote};
use super::types::{BatchBytes, VoterId, VoterNode, VoterSpec};
use super::{Halt, QuorumStartError, check_snapshot};
use crate::feed::Feed;
use crate::format::{FormatError, read_bootstrap};
use bytes::Bytes;
use futures_util::FutureExt;
use log::Recovery;
use log::storage::Storage;
use openraft::storage::RaftStateMachine;
use openraft::{EntryPayload, Membership};
use parking_lot::Mutex;
use protocol::metadata::image::MetadataImage;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// Term and index of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct At {
    /// Index.
    pub index: u64,
    /// Term.
    pub term: u64,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A leader's first.
    Blank,
    /// Bytes of a batch; nobody looks into them.
    Batch(Bytes),
    /// From here on these vote.
    Voters(BTreeSet<u32>),
}

/// What a stopped controller's directory says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Term and candidate of the vote.
    pub vote: Option<(u64, u32)>,
    /// Everything up to here may be gone.
    pub purged: Option<At>,
    /// Entries in the log.
    pub entries: Vec<(At, What)>,
    /// The newest snapshot: its last entry, its voters, its bytes.
    pub snapshot: Option<(At, BTreeSet<u32>, Bytes)>,
    /// Who votes: the newest membership in log or snapshot.
    pub voters: BTreeSet<u32>,
}

/// See the module's text.
pub struct BareStorage {
    disk: Arc<Mutex<Option<Disk>>>,
    flusher: Flusher,
    snapshots: Arc<SnapshotStore>,
    machine: StateMachine,
}

fn voter(id: u32) -> VoterId {
    VoterId { id, directory: Uuid::from_u128(u128::from(id) + 1) }
}

fn id(at: At) -> LogId {
    LogId::new(CommittedLeaderId::new(at.term), at.index)
}

fn at(id: &LogId) -> At {
    At { index: id.index, term: id.leader_id.term }
}

fn entry(at: At, what: &What) -> Entry {
    let payload = match what {
        What::Blank => EntryPayload::Blank,
        What::Batch(bytes) => EntryPayload::Normal(BatchBytes(bytes.clone())),
        What::Voters(voters) => {
            let ids: BTreeSet<VoterId> = voters.iter().map(|id| voter(*id)).collect();
            EntryPayload::Membership(Membership::new_with_defaults(vec![ids], Vec::<VoterId>::new()))
        }
    };
    Entry { log_id: id(at), payload }
}

fn voters_of(membership: &Membership<VoterId, VoterNode>) -> BTreeSet<u32> {
    membership.voter_ids().map(|v| v.id).collect()
}

fn plain(entry: Entry) -> (At, What) {
    let what = match entry.payload {
        EntryPayload::Blank => What::Blank,
        EntryPayload::Normal(bytes) => What::Batch(bytes.0),
        EntryPayload::Membership(membership) => What::Voters(voters_of(&membership)),
    };
    (at(&entry.log_id), what)
}

/// The first voter set in a formatted directory, as the start of the voter `me` reads it.
///
/// # Errors
/// Damage.
pub fn first_voters(storage: &Arc<dyn Storage>, raft: &Path, me: VoterId) -> Result<Vec<VoterSpec>, FormatError> {
    read_bootstrap(storage, raft, me)
}

impl BareStorage {
    /// Opens and verifies what is in `dir`, as the start of a quorum member does.
    ///
    /// # Errors
    /// As the start of a member; what goes wrong later goes to `halt`.
    pub fn open(
        storage: &Arc<dyn Storage>,
        dir: &Path,
        segment_bytes: u64,
        halt: Halt,
    ) -> Result<(BareStorage, Recovery), QuorumStartError> {
        let (disk, recovery) = Disk::open(storage, dir, segment_bytes)?;
        let snapshot_dir = dir.join("snapshots");
        let snapshots = Arc::new(SnapshotStore::open(Arc::clone(storage), &snapshot_dir)?);
        check_snapshot(&disk, &snapshots, snapshot_dir)?;
        let machine = StateMachine::new(Arc::new(Feed::default()), Arc::clone(&snapshots), halt.clone());
        let disk = Arc::new(Mutex::new(Some(disk)));
        let flusher = Flusher { disk: Arc::clone(&disk), halt };
        Ok((BareStorage { disk, flusher, snapshots, machine }, recovery))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Disk) -> Result<T, DiskError>) -> io::Result<T> {
        self.flusher.with(work)
    }

    /// Saves a vote.
    ///
    /// # Errors
    /// The disk's; the process would stop.
    pub fn save_vote(&self, term: u64, candidate: u32) -> io::Result<()> {
        self.with(|disk| disk.save_vote(&Vote::new(term, voter(candidate))))
    }

    /// Appends entries and makes them durable.
    ///
    /// # Errors
    /// As [`BareStorage::save_vote`].
    pub fn append(&self, entries: &[(At, What)]) -> io::Result<()> {
        self.with(|disk| entries.iter().try_for_each(|(at, what)| disk.append(&entry(*at, what))))?;
        self.flusher.sync()
    }

    /// Applies a blank or a membership that was appended.
    ///
    /// # Errors
    /// What the state machine halts for.
    pub fn apply(&mut self, at: At, what: &What) -> io::Result<()> {
        self.machine.apply_entry(entry(at, what)).map(drop)
    }

    /// Cuts everything after `last`.
    ///
    /// # Errors
    /// As [`BareStorage::save_vote`].
    pub fn truncate_after(&self, last: Option<At>) -> io::Result<()> {
        self.with(|disk| disk.truncate_after(last.map(id)))
    }

    /// Drops everything up to `upto`; a snapshot holds it.
    ///
    /// # Errors
    /// As [`BareStorage::save_vote`].
    pub fn purge(&self, upto: At) -> io::Result<()> {
        self.with(|disk| disk.purge(id(upto)))
    }

    /// Takes a snapshot of what was applied.
    ///
    /// # Errors
    /// As [`BareStorage::save_vote`].
    pub fn snapshot(&mut self) -> io::Result<()> {
        let builder = self.machine.get_snapshot_builder().now_or_never();
        let (meta, image) = builder.ok_or_else(|| io::Error::other("a builder is made at once"))?.parts();
        self.snapshots.store(Built { meta, data: ImageBytes::encode(&image) }).map_err(io::Error::other)
    }

    /// Stores a snapshot that came from another member.
    ///
    /// # Errors
    /// As [`BareStorage::save_vote`].
    pub fn install(&self, last: At, voters: &BTreeSet<u32>) -> io::Result<()> {
        let EntryPayload::Membership(membership) = entry(last, &What::Voters(voters.clone())).payload else {
            return Ok(());
        };
        let last_membership = StoredMembership::new(Some(id(last)), membership);
        let meta = SnapshotMeta { last_log_id: Some(id(last)), last_membership };
        let data = ImageBytes::encode(&MetadataImage::default());
        self.snapshots.store(Built { meta, data }).map_err(io::Error::other)
    }

    /// Makes the end mark durable, as after a second without a write.
    ///
    /// # Errors
    /// As [`BareStorage::save_vote`].
    pub fn idle(&self) -> io::Result<()> {
        self.with(Disk::idle)
    }

    /// Everything that is there.
    ///
    /// # Errors
    /// The disk's, and damage.
    pub fn contents(&self) -> io::Result<Contents> {
        let (vote, purged, entries) =
            self.with(|disk| Ok((disk.vote(), disk.purged(), disk.read_all(0, u64::MAX)?)))?;
        let entries: Vec<(At, What)> = entries.into_iter().map(plain).collect();
        let held = self.snapshots.current();
        let snapshot = held.and_then(|built| {
            let voters = voters_of(built.meta.last_membership.membership());
            built.meta.last_log_id.as_ref().map(|last| (at(last), voters, built.data.0))
        });
        let newest = entries.iter().rev().find_map(|(_, what)| match what {
            What::Voters(voters) => Some(voters.clone()),
            What::Blank | What::Batch(_) => None,
        });
        let voters = newest.or_else(|| snapshot.as_ref().map(|(_, voters, _)| voters.clone())).unwrap_or_default();
        let vote = vote.map(|v| (v.leader_id.term, v.leader_id.voted_for.id));
        Ok(Contents { vote, purged: purged.as_ref().map(at), entries, snapshot, voters })
    }

    /// Leaves a clean end mark behind.
    ///
    /// # Errors
    /// As [`BareStorage::save_vote`].
    pub fn close(self) -> io::Result<()> {
        let disk = self.disk.lock().take();
        disk.map_or(Ok(()), Disk::close).map_err(io::Error::other)
    }
}
