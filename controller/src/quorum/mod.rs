//! The metadata quorum: openraft behind a handle. Nothing outside this folder names openraft; this folder knows neither
//! gRPC nor facts beyond "bytes of a batch". `write` puts one batch into the log under a leadership and tells apply's
//! verdict; `lead` says who leads; `barrier` makes a new leader wait for everything before it. Vote, log
//! and snapshots are durable before they are acknowledged, and damage halts the process.

mod admission;
#[cfg(feature = "bare-storage")]
pub mod bare;
mod cache;
mod disk;
mod fresh;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
pub mod guard;
mod halt;
mod log_store;
mod membership;
mod network;
mod runtime;
mod serve;
mod settings;
mod snapshot;
mod state_machine;
mod status;
pub mod transport;
mod types;
mod upkeep;
mod write;

#[cfg(test)]
mod tests;

pub use admission::Inadmissible;
pub use disk::DiskError;
pub use halt::Halt;
pub use membership::{ChangeError, VoterChange, VoterChanged, check_first_voters};
pub use serve::ServeError;
pub use snapshot::SnapshotError;
pub use status::{QuorumStatus, VoterStatus};
pub use types::{Verdict, VoterId, VoterNode, VoterSpec};
pub use write::{Lead, WriteError};

use crate::feed::Feed;
use crate::limits::STOP_DEADLINE;
use crate::tasks::{self, AbortOnDrop};
use disk::Disk;
use fresh::Freshness;
use log::storage::Storage;
use log_store::LogStore;
use network::Factory;
use openraft::Raft;
use parking_lot::Mutex;
use protocol::machine::Worker;
use protocol::metadata::image::MetadataImage;
use protocol::timers::Timers;
use snapshot::SnapshotStore;
use state_machine::StateMachine;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use transport::Transport;
use types::TypeConfig;

/// What a quorum member needs.
#[derive(Debug, Clone)]
pub struct QuorumConfig {
    /// This voter.
    pub me: VoterId,
    /// Directory for vote, log and snapshots; created if missing.
    pub dir: PathBuf,
    /// Timers.
    pub timers: Timers,
    /// Entries between snapshots.
    pub snapshot_every: u64,
    /// Size of a log segment.
    pub segment_bytes: u64,
    /// Time between two readings of everything on the disk.
    pub scrub_every: Duration,
    /// Where voters are reached, if not where the membership says: a machine that moved is found before it can say so.
    pub addresses: BTreeMap<VoterId, VoterNode>,
    /// First voter set as formatted; used only while nothing was ever voted or logged. Empty: wait to be added.
    pub bootstrap: Vec<VoterSpec>,
}

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum QuorumStartError {
    /// Vote, log or marker.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Entries were purged up to here, but no snapshot holds them.
    #[error("{dir}: entries up to {purged} were purged, the newest snapshot ends at {snapshot}: a snapshot is missing")]
    SnapshotMissing {
        /// Directory of the snapshots.
        dir: PathBuf,
        /// Purged up to.
        purged: u64,
        /// Index of the newest snapshot, or "nothing".
        snapshot: String,
    },
    /// The flush thread could not be started.
    #[error("raft flush thread: {0}")]
    Thread(std::io::Error),
    /// openraft refused.
    #[error("raft: {0}")]
    Raft(String),
}

/// One member of the metadata quorum. Share it in an `Arc`.
pub struct Quorum {
    me: VoterId,
    raft: Raft<TypeConfig, StateMachine>,
    feed: Arc<Feed>,
    store: LogStore,
    flusher: Mutex<Option<Worker>>,
    timers: Timers,
    started: Instant,
    lead: watch::Receiver<Lead>,
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Bytes of batches applied since the last snapshot.
    applied_bytes: Arc<AtomicU64>,
    /// The change of voters under way, and those before it that have not quite ended.
    changes: Mutex<Vec<AbortOnDrop>>,
    stopping: Arc<AtomicBool>,
    disk_full: AtomicBool,
    freshness: Freshness,
    peers: Factory,
    tasks: Mutex<Vec<AbortOnDrop>>,
}

impl Quorum {
    /// Opens the disk, verifies everything on it, and joins.
    ///
    /// # Errors
    /// [`QuorumStartError`]; damage names file and position.
    pub async fn start(
        config: QuorumConfig,
        storage: Arc<dyn Storage>,
        transport: Arc<dyn Transport>,
        feed: Arc<Feed>,
        halt: Halt,
    ) -> Result<Arc<Self>, QuorumStartError> {
        let (disk, recovery) = Disk::open(&storage, &config.dir, config.segment_bytes)?;
        tracing::info!(?recovery, "raft log recovered");
        let snapshot_dir = config.dir.join("snapshots");
        let snapshots = Arc::new(SnapshotStore::open(Arc::clone(&storage), &snapshot_dir)?);
        check_snapshot(&disk, &snapshots, snapshot_dir)?;
        let (store, flusher) = LogStore::start(disk, halt.clone()).map_err(QuorumStartError::Thread)?;
        let machine = StateMachine::new(Arc::clone(&feed), Arc::clone(&snapshots), halt.clone());
        let applied_bytes = machine.applied_bytes();
        let settings = settings::raft_config(&config.timers, config.snapshot_every);
        let mut settings = settings.validate().map_err(|e| QuorumStartError::Raft(e.to_string()))?;
        // Enabled after one maximum election timeout: a restarted voter may have forgotten a lease it gave.
        settings.enable_elect = false;
        let network = Factory { me: config.me, transport, addresses: config.addresses.clone() };
        let peers = network.clone();
        let raft = Raft::new(config.me, Arc::new(settings), network, store.clone(), machine)
            .await
            .map_err(|e| QuorumStartError::Raft(e.to_string()))?;
        let (lead_sender, lead) = watch::channel(Lead::Nobody);
        let quorum = Arc::new(Self {
            me: config.me,
            raft,
            feed,
            store,
            flusher: Mutex::new(Some(flusher)),
            timers: config.timers,
            started: Instant::now(),
            lead,
            changing: Arc::default(),
            applied_bytes,
            changes: Mutex::default(),
            stopping: Arc::new(AtomicBool::new(false)),
            disk_full: AtomicBool::new(false),
            freshness: Freshness::new(),
            peers,
            tasks: Mutex::new(Vec::new()),
        });
        quorum.spawn_tasks(lead_sender, config, storage, snapshots, halt);
        Ok(quorum)
    }

    fn spawn_tasks(
        self: &Arc<Self>,
        lead: watch::Sender<Lead>,
        config: QuorumConfig,
        storage: Arc<dyn Storage>,
        snapshots: Arc<SnapshotStore>,
        halt: Halt,
    ) {
        let metrics = self.raft.metrics();
        let watcher = write::watch_lead(self.me, metrics, lead, Arc::clone(&self.stopping), halt.clone());
        let beginning = upkeep::begin(self.raft.clone(), self.me, config.bootstrap, self.timers);
        let scrubbing = upkeep::scrub(self.store.clone(), snapshots, config.scrub_every, halt);
        let flattening = upkeep::flatten(Arc::downgrade(self));
        let snapshotting = upkeep::snapshot_by_bytes(self.raft.clone(), Arc::clone(&self.applied_bytes));
        let standing = upkeep::stand_aside(Arc::downgrade(self), storage, config.dir);
        *self.tasks.lock() = vec![
            AbortOnDrop(tasks::spawn("raft-lead", watcher)),
            AbortOnDrop(tasks::spawn("raft-begin", beginning)),
            AbortOnDrop(tasks::spawn("raft-scrub", scrubbing)),
            AbortOnDrop(tasks::spawn("raft-flatten", flattening)),
            AbortOnDrop(tasks::spawn("raft-snapshot", snapshotting)),
            AbortOnDrop(tasks::spawn("raft-stand-aside", standing)),
        ];
    }

    /// This voter.
    #[must_use]
    pub fn me(&self) -> VoterId {
        self.me
    }

    /// Who leads, as known here.
    #[must_use]
    pub fn lead(&self) -> watch::Receiver<Lead> {
        self.lead.clone()
    }

    /// The committed image as applied here.
    #[must_use]
    pub fn committed(&self) -> Arc<MetadataImage> {
        self.feed.image()
    }

    /// Free space is below the floor: this member does not lead and refuses writes.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::SeqCst)
    }

    /// In its first maximum election timeout after the start.
    fn just_started(&self) -> bool {
        self.started.elapsed() < Duration::from_millis(self.timers.election_max_ms)
    }

    /// Hands leadership over if held, then stops Raft and closes the log cleanly.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.hand_over().await;
        self.end().await;
    }

    async fn end(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "raft did not shut down in order");
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "raft log was not closed cleanly");
        }
        self.tasks.lock().clear();
        self.changes.lock().clear();
        let flusher = self.flusher.lock().take();
        if let Some(thread) = flusher
            && !thread.join().await
        {
            tracing::warn!("raft flush thread did not end in order");
        }
    }

    /// Of the other voters that would take leadership over, the one that holds most of the log. Asked first: in the term in
    /// which a hand-over began this node neither leads on nor writes, so one that nobody takes costs an election timeout.
    async fn successor(&self) -> Option<VoterId> {
        let deadline = Duration::from_millis(self.timers.election_min_ms);
        let others = self.status().voters.into_iter().filter(|v| v.voter != self.me && v.matched.is_some());
        let asked = others.map(|v| {
            let answer = self.peers.would_lead(v.voter, &v.node, deadline);
            async move { answer.await.then_some((v.matched, v.voter)) }
        });
        let willing = futures_util::future::join_all(asked).await.into_iter().flatten();
        willing.max().map(|(_, voter)| voter)
    }

    /// Gives leadership to a voter that would take it; without one this node leads on. Best effort.
    async fn hand_over(&self) {
        let mut lead = self.lead.clone();
        let Lead::Me { term } = *lead.borrow() else { return };
        let Some(successor) = self.successor().await else { return };
        if *lead.borrow() != (Lead::Me { term }) {
            return;
        }
        // From the first message of it on the voters may forget the lease that freshness counts on.
        self.freshness.leave(term);
        if self.raft.trigger().transfer_leader(successor).await.is_err() {
            return;
        }
        let given = lead.wait_for(|lead| !matches!(lead, Lead::Me { .. }));
        if tokio::time::timeout(STOP_DEADLINE, given).await.is_err() {
            tracing::warn!(%successor, "leadership was not taken over in time");
        }
    }
}

fn check_snapshot(disk: &Disk, snapshots: &SnapshotStore, dir: PathBuf) -> Result<(), QuorumStartError> {
    let Some(purged) = disk.purged() else { return Ok(()) };
    let newest = snapshots.last_log_id();
    if newest.is_some_and(|id| id.index >= purged.index) {
        return Ok(());
    }
    let snapshot = newest.map_or_else(|| "nothing".to_owned(), |id| id.index.to_string());
    Err(QuorumStartError::SnapshotMissing { dir, purged: purged.index, snapshot })
}
