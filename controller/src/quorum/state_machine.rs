//! Applies committed entries: decode, compare-and-append, publish. The verdict is the same on every node, since it
//! looks at nothing but image and batch. A batch that cannot be decoded or folded here halts the node: skipping it
//! would part the images. Never decides anything; never blocks on a reader.

use super::halt::Halt;
use super::snapshot::{Built, ImageBytes, SnapshotStore};
use super::types::alias::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership};
use super::types::{BatchBytes, TypeConfig, Verdict};
use crate::feed::Feed;
use futures_util::stream::{Stream, TryStreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::{ApplyError, MetadataImage};
use protocol::planted::{self, Bug};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module's text.
pub(crate) struct StateMachine {
    feed: Arc<Feed>,
    snapshots: Arc<SnapshotStore>,
    halt: Halt,
    applied: Option<LogId>,
    membership: StoredMembership,
    /// Bytes of batches applied since the last snapshot was begun or installed.
    applied_bytes: Arc<AtomicU64>,
}

impl StateMachine {
    pub(crate) fn new(feed: Arc<Feed>, snapshots: Arc<SnapshotStore>, halt: Halt) -> Self {
        let (membership, applied_bytes) = (StoredMembership::default(), Arc::default());
        Self { feed, snapshots, halt, applied: None, membership, applied_bytes }
    }

    /// Bytes of batches applied since the last snapshot was begun or installed.
    pub(crate) fn applied_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.applied_bytes)
    }

    pub(super) fn apply_entry(&mut self, entry: Entry) -> io::Result<Verdict> {
        let log_id = entry.log_id();
        let verdict = match entry.payload {
            EntryPayload::Blank => Verdict::NoBatch,
            EntryPayload::Normal(batch) => {
                self.applied_bytes.fetch_add(batch.0.len() as u64, Ordering::SeqCst);
                self.apply_batch(&log_id, &batch)?
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                Verdict::NoBatch
            }
        };
        self.applied = Some(log_id);
        Ok(verdict)
    }

    fn apply_batch(&self, at: &LogId, bytes: &BatchBytes) -> io::Result<Verdict> {
        let batch = MetadataBatch::decode(&bytes.0)
            .map_err(|e| self.halt.now(&format!("raft entry {at} cannot be applied: {e}")))?;
        match self.feed.image().apply(&batch, &bytes.0) {
            Ok((image, _delta)) => {
                let batch_no = image.batch_no;
                self.feed.publish(image, bytes.0.clone());
                Ok(Verdict::Applied { batch_no })
            }
            Err(ApplyError::Mismatch { base, at }) => {
                tracing::warn!(%base, %at, "batch dropped: decided on another image");
                Ok(Verdict::Dropped { base, at })
            }
            Err(illegal @ ApplyError::Illegal { .. }) => {
                Err(self.halt.now(&format!("raft entry {at} cannot be applied: {illegal}")))
            }
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = ImageBytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let verdict = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(verdict);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.applied_bytes.store(0, Ordering::SeqCst);
        let bare = planted::is(Bug::SnapshotWithoutMembership);
        let last_membership = if bare { StoredMembership::default() } else { self.membership.clone() };
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership };
        Builder { meta, image: self.feed.image(), snapshots: Arc::clone(&self.snapshots), halt: self.halt.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: ImageBytes) -> io::Result<()> {
        let image = data.decode().map_err(|e| self.halt.now(&format!("raft snapshot cannot be read: {e}")))?;
        let known = self.feed.image().batch_no;
        if image.batch_no < known {
            let reason = format!("raft snapshot at batch {} would take the image back from {known}", image.batch_no);
            return Err(self.halt.now(&reason));
        }
        store(&self.snapshots, &self.halt, meta.clone(), data).await?;
        self.feed.replace(image);
        self.applied_bytes.store(0, Ordering::SeqCst);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.current().map(|held| Snapshot { meta: held.meta, snapshot: held.data }))
    }
}

/// Writes the snapshot off the async threads: it syncs.
async fn store(snapshots: &Arc<SnapshotStore>, halt: &Halt, meta: SnapshotMeta, data: ImageBytes) -> io::Result<()> {
    let snapshots = Arc::clone(snapshots);
    let stored = protocol::machine::blocking(move || snapshots.store(Built { meta, data })).await;
    let stored = stored.map_err(|e| halt.now(&format!("snapshot writer: {e}")))?;
    stored.map_err(|e| halt.now(&e))
}

/// Writes one snapshot; holds the image as it was when asked.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    image: Arc<MetadataImage>,
    snapshots: Arc<SnapshotStore>,
    halt: Halt,
}

#[cfg(feature = "bare-storage")]
impl Builder {
    /// What it would write.
    pub(super) fn parts(self) -> (SnapshotMeta, Arc<MetadataImage>) {
        (self.meta, self.image)
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = ImageBytes;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let image = Arc::clone(&self.image);
        let encoded = protocol::machine::blocking(move || ImageBytes::encode(&image)).await;
        let data = encoded.map_err(|e| self.halt.now(&format!("snapshot encoder: {e}")))?;
        store(&self.snapshots, &self.halt, self.meta.clone(), data.clone()).await?;
        metrics::counter!(crate::metrics::SNAPSHOTS_WRITTEN).increment(1);
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}
