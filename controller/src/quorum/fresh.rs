//! Whether nobody else can lead: this node leads in the asked term, and a quorum acknowledged a round that it sent less
//! than the minimal election timeout ago. Three things end that at once: another term, a hand-over that begins (it
//! tells the voters to forget the lease they gave), and a machine that slept. Raft counts on CLOCK_MONOTONIC, which
//! stands still in suspend, so it is compared with CLOCK_BOOTTIME: whatever was sent before a jump between the two
//! counts no more.

use super::Quorum;
use super::types::TypeConfig;
use crate::clock::{self, Clocks};
use crate::limits::SUSPEND_TOLERANCE;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, RaftMetrics};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What an acknowledgement must also be measured by.
pub(super) struct Freshness {
    awake: Mutex<Awake>,
    /// Term whose leadership this node gives away; 0 = none.
    leaving: AtomicU64,
}

impl Freshness {
    pub(super) fn new() -> Self {
        Self { awake: Mutex::new(Awake::new(clock::clocks())), leaving: AtomicU64::new(0) }
    }

    /// In this term nothing is fresh any more. Terms only rise.
    pub(super) fn leave(&self, term: u64) {
        self.leaving.fetch_max(term, Ordering::SeqCst);
    }

    fn is_leaving(&self, term: u64) -> bool {
        self.leaving.load(Ordering::SeqCst) >= term
    }
}

/// What the two clocks have shown so far. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Awake {
    /// CLOCK_BOOTTIME was ahead of CLOCK_MONOTONIC by at least this, when last it was taken anew.
    ahead: Duration,
    /// CLOCK_MONOTONIC at that look.
    since: Duration,
}

impl Awake {
    fn new(clocks: Clocks) -> Self {
        Self { ahead: clocks.boot.saturating_sub(clocks.mono_after), since: clocks.mono_after }
    }

    /// Looks at the clocks. Returns how long the machine has been awake without a break as far as is known, and the sleep
    /// that may hide in it, at most [`SUSPEND_TOLERANCE`].
    fn look(&mut self, clocks: Clocks) -> (Duration, Duration) {
        let hidden = clocks.boot.saturating_sub(clocks.mono_before).saturating_sub(self.ahead);
        if hidden > SUSPEND_TOLERANCE {
            *self = Self::new(clocks);
            return (Duration::ZERO, Duration::ZERO);
        }
        (clocks.mono_after.saturating_sub(self.since), hidden)
    }
}

impl Quorum {
    /// Time since the send of the last round that a quorum acknowledged. None: this node does not lead in `term`, is no
    /// voter any more, gives its leadership away, or slept since. The only voter is its own quorum and sends no rounds.
    #[must_use]
    pub fn quorum_ack_age(&self, term: u64) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let age = {
            let seen = metrics.borrow_watched();
            self.age_in(&seen, term)?
        };
        let (awake, hidden) = self.freshness.awake.lock().look(clock::clocks());
        let sent_awake = age.is_zero() || age < awake;
        // Looked at last: a hand-over that has begun by now may have told the voters already.
        (sent_awake && !self.freshness.is_leaving(term)).then(|| age + hidden)
    }

    /// As one snapshot of Raft's metrics says.
    fn age_in(&self, metrics: &RaftMetrics<TypeConfig>, term: u64) -> Option<Duration> {
        let leads = metrics.state.is_leader() && metrics.current_leader == Some(self.me);
        if !leads || metrics.current_term != term || metrics.running_state.is_err() {
            return None;
        }
        // A leader that the voters have removed leads on for a moment, while they may vote for its successor already.
        if metrics.membership_config.membership().voter_ids().all(|voter| voter != self.me) {
            return None;
        }
        if metrics.membership_config.membership().voter_ids().all(|voter| voter == self.me) {
            return Some(Duration::ZERO);
        }
        Some(metrics.last_quorum_acked?.into_inner().elapsed())
    }

    /// Leads in this term, and a quorum acknowledged that more recently than the minimum election timeout: nobody else
    /// can lead.
    #[must_use]
    pub fn is_fresh(&self, term: u64) -> bool {
        self.quorum_ack_age(term).is_some_and(|age| age < Duration::from_millis(self.timers.election_min_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64, slept_ms: u64) -> Clocks {
        let mono = Duration::from_millis(mono_ms);
        Clocks { mono_before: mono, boot: mono + Duration::from_millis(slept_ms), mono_after: mono }
    }

    #[test]
    fn what_was_sent_before_a_sleep_counts_no_more() {
        let mut awake = Awake::new(at(1_000, 500));
        assert_eq!(awake.look(at(1_400, 500)), (Duration::from_millis(400), Duration::ZERO));
        assert_eq!(awake.look(at(1_410, 60_500)), (Duration::ZERO, Duration::ZERO), "a minute of sleep");
        assert_eq!(
            awake.look(at(1_450, 60_500)),
            (Duration::from_millis(40), Duration::ZERO),
            "counted from the waking"
        );
    }

    #[test]
    fn short_sleeps_add_up_and_being_held_between_two_looks_is_no_sleep() {
        let mut awake = Awake::new(at(1_000, 0));
        let half = SUSPEND_TOLERANCE / 2;
        let slept = |times: u32| Clocks { boot: Duration::from_millis(2_000) + half * times, ..at(2_000, 0) };
        assert_eq!(awake.look(slept(1)), (Duration::from_secs(1), half));
        assert_eq!(awake.look(slept(2)), (Duration::from_secs(1), half * 2), "not forgiven by looking twice");
        assert_eq!(awake.look(slept(3)).0, Duration::ZERO);
        // Not run for a while between two readings: at worst too careful once, never blind afterwards.
        let mut awake = Awake::new(Clocks { mono_after: Duration::from_millis(1_300), ..at(1_000, 0) });
        assert_eq!(awake.look(at(1_300, 400)).0, Duration::ZERO, "a sleep is seen even so");
    }

    #[test]
    fn a_leadership_given_away_stays_so_and_a_later_one_is_another() {
        let freshness = Freshness::new();
        freshness.leave(7);
        freshness.leave(5);
        assert!(freshness.is_leaving(7) && freshness.is_leaving(6) && !freshness.is_leaving(8));
    }
}
