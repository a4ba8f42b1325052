//! Which peers answer, said once when it changes: the consensus library warns at every attempt, several times a second.
//!
//! Owns: misses in a row per peer. Never: decides anything by them; elections and replication have their own clocks.
//! Invariant: a peer is called lost once, after a few misses in a row, and back once, at its next answer.

use crate::limits::PEER_LOST_MISSES;
use crate::quorum::VoterId;
use crate::quorum::transport::LinkError;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// What an attempt has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Lost,
    Back,
}

/// See the module. Holds one number per voter there ever was.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<BTreeMap<VoterId, u32>>);

impl Peers {
    fn note(&self, peer: VoterId, answered: bool) -> Option<Change> {
        let mut peers = self.0.lock();
        let misses = peers.entry(peer).or_default();
        let before = std::mem::replace(misses, if answered { 0 } else { misses.saturating_add(1) });
        match (answered, before) {
            (true, PEER_LOST_MISSES..) => Some(Change::Back),
            (false, before) if before == PEER_LOST_MISSES - 1 => Some(Change::Lost),
            _ => None,
        }
    }

    /// A heartbeat or vote request ended like this.
    pub(crate) fn tried<T>(&self, peer: VoterId, outcome: &Result<T, LinkError>) {
        match (self.note(peer, outcome.is_ok()), outcome) {
            (Some(Change::Lost), Err(error)) => {
                tracing::warn!(controller = peer.id, %error, "a controller does not answer");
            }
            (Some(Change::Back), _) => tracing::info!(controller = peer.id, "the controller answers again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_lost_peer_is_told_of_once_and_its_return_once() {
        let peers = Peers::default();
        let peer = VoterId { id: 2, directory: Uuid::nil() };
        let told = |answered, times| -> Vec<Change> { (0..times).filter_map(|_| peers.note(peer, answered)).collect() };
        assert_eq!(told(true, 3), [], "it was never lost");
        assert_eq!(told(false, PEER_LOST_MISSES - 1), [], "a slow answer or two are no news");
        assert_eq!(told(true, 1), []);
        assert_eq!(told(false, 1_000), [Change::Lost]);
        assert_eq!(told(true, 1_000), [Change::Back]);
        assert_eq!(told(false, 1_000), [Change::Lost]);
    }
}
