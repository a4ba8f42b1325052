//! What a running member does besides Raft: it begins a new cluster once, reads its disk back now and then, and steps
//! aside while its disk is nearly full. None of it decides anything about entries.

use super::log_store::LogStore;
use super::snapshot::SnapshotStore;
use super::state_machine::StateMachine;
use super::types::{TypeConfig, VoterId, VoterNode, VoterSpec};
use super::{Halt, Quorum};
use crate::limits::{DISK_CHECK, DISK_FLOOR_BYTES, MEMBERSHIP_CHECK, SNAPSHOT_CHECK, SNAPSHOT_LOG_BYTES};
use log::storage::Storage;
use openraft::Raft;
use protocol::timers::Timers;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// A member of a new cluster starts it from the formatted voter set: the first in order after one maximum election timeout,
/// the others later and only if nothing reached them meanwhile.
pub(super) async fn begin(
    raft: Raft<TypeConfig, StateMachine>,
    me: VoterId,
    bootstrap: Vec<VoterSpec>,
    timers: Timers,
) {
    let members: BTreeMap<VoterId, VoterNode> = bootstrap.into_iter().map(|spec| (spec.voter, spec.node)).collect();
    let Some(rank) = members.keys().position(|voter| *voter == me) else { return };
    let turn = timers.election_max_ms.saturating_mul(4).saturating_mul(rank as u64);
    tokio::time::sleep(Duration::from_millis(timers.election_max_ms.saturating_add(turn))).await;
    match raft.is_initialized().await {
        Ok(false) => {}
        Ok(true) | Err(_) => return,
    }
    match raft.initialize(members).await {
        Ok(()) => tracing::info!("the cluster begins with the formatted voters"),
        Err(error) => tracing::info!(%error, "the formatted voter set was not needed"),
    }
}

/// Reads vote, log and snapshot back now and then; damage halts with file and position.
pub(super) async fn scrub(store: LogStore, snapshots: Arc<SnapshotStore>, every: Duration, halt: Halt) {
    let mut turns = tokio::time::interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns.tick().await;
    loop {
        turns.tick().await;
        let (store, snapshots, halt) = (store.clone(), Arc::clone(&snapshots), halt.clone());
        let checked = protocol::machine::blocking(move || {
            store.scrub().is_ok() && snapshots.scrub().map_err(|e| halt.now(&e)).is_ok()
        });
        if !checked.await.unwrap_or(false) {
            return;
        }
    }
}

/// Ends a joint membership that a leader left behind when it lost its leadership in the middle of a change.
pub(super) async fn flatten(quorum: Weak<Quorum>) {
    let mut looks = tokio::time::interval(MEMBERSHIP_CHECK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(quorum) = quorum.upgrade() else { return };
        quorum.flatten_leftover().await;
    }
}

/// Takes a snapshot after so many bytes of batches, too: Raft itself counts entries, and one may hold 1 MiB.
pub(super) async fn snapshot_by_bytes(raft: Raft<TypeConfig, StateMachine>, applied: Arc<AtomicU64>) {
    let mut looks = tokio::time::interval(SNAPSHOT_CHECK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        // Begins to count anew when the snapshot begins.
        if applied.load(Ordering::SeqCst) >= SNAPSHOT_LOG_BYTES && raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}

/// Lets the member stand for election only after its first maximum election timeout, and only with room on its disk. A
/// leader without room hands over to a voter that has some, if there is one; a write without room is refused before it is appended (DESIGN.md section 6).
pub(super) async fn stand_aside(quorum: Weak<Quorum>, storage: Arc<dyn Storage>, dir: PathBuf) {
    let mut looks = tokio::time::interval(DISK_CHECK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Some(wait) = quorum.upgrade().map(|q| Duration::from_millis(q.timers.election_max_ms)) else { return };
    tokio::time::sleep(wait).await;
    let mut stands = false;
    loop {
        let Some(quorum) = quorum.upgrade() else { return };
        let free = storage.free_space(&dir);
        let full = free.as_ref().is_ok_and(|free| *free < DISK_FLOOR_BYTES);
        if full != quorum.disk_full.swap(full, Ordering::SeqCst) {
            tracing::warn!(?free, full, floor = DISK_FLOOR_BYTES, "room on the controller's disk");
        }
        if stands == full {
            stands = !full;
            quorum.raft.runtime_config().elect(stands);
        }
        if full {
            quorum.hand_over().await;
        }
        drop(quorum);
        looks.tick().await;
    }
}
