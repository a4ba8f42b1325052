//! Every timer that derives from the declared largest round trip between data centres (`max.inter.dc.rtt.ms`). One
//! formula for both sides: brokers and controllers that compute them apart would fence healthy peers.
//! Pure. Invariants: election minimum is several heartbeats; no broker is fenced while its lease can still run.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::error::{ApiError, ErrorCode};
use crate::ids::Millis;
use crate::limits::{
    HEARTBEAT_MS_MIN, LINK_BYTES_PER_MS_MIN, QUORUM_PROBE_MS_MIN, RTT_MS_DEFAULT, RTT_MS_MAX, RTT_MS_MIN,
    SESSION_TIMEOUT_MS_MIN,
};

/// Timers of one cluster, all in milliseconds on a monotonic clock (DESIGN.md sections 3 and 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// The declared largest round trip.
    pub rtt_ms: Millis,
    /// Raft heartbeat: max(25, 5 x RTT).
    pub raft_heartbeat_ms: Millis,
    /// Shortest silence after which a follower stands: 4 heartbeats. A leader whose last quorum acknowledgement,
    /// counted from the send, is older answers neither heartbeats nor reads.
    pub election_min_ms: Millis,
    /// Longest such silence: 5 heartbeats. A restarted voter neither votes nor stands for this long.
    pub election_max_ms: Millis,
    /// How often a leader checks that a quorum still answers: max(1000, 2 x election maximum).
    pub quorum_probe_ms: Millis,
    /// A broker's heartbeat: max(25, 5 x RTT).
    pub broker_heartbeat_ms: Millis,
    /// Lease L: 4 broker heartbeats from the send time of the last one answered by the active controller.
    pub lease_ms: Millis,
    /// Time since the last receipt before which a broker whose stream was reset is not fenced: 1.1 L, rounded up.
    pub fence_after_reset_ms: Millis,
    /// Silence after which a broker is fenced: max(500, 20 broker heartbeats).
    pub session_timeout_ms: Millis,
    /// A new active controller fences nobody for this long after its takeover: one lease.
    pub takeover_quiet_ms: Millis,
}

impl Timers {
    /// The timers of a cluster with this largest round trip, ms. 0 counts as 1; configs are checked by [`Self::checked`].
    #[must_use]
    pub fn from_rtt(rtt_ms: Millis) -> Self {
        let rtt_ms = rtt_ms.max(RTT_MS_MIN);
        let heartbeat = rtt_ms.saturating_mul(5).max(HEARTBEAT_MS_MIN);
        let election_max_ms = heartbeat.saturating_mul(5);
        let lease_ms = heartbeat.saturating_mul(4);
        Self {
            rtt_ms,
            raft_heartbeat_ms: heartbeat,
            election_min_ms: heartbeat.saturating_mul(4),
            election_max_ms,
            quorum_probe_ms: election_max_ms.saturating_mul(2).max(QUORUM_PROBE_MS_MIN),
            broker_heartbeat_ms: heartbeat,
            lease_ms,
            fence_after_reset_ms: lease_ms.saturating_mul(11).div_ceil(10),
            session_timeout_ms: heartbeat.saturating_mul(20).max(SESSION_TIMEOUT_MS_MIN),
            takeover_quiet_ms: lease_ms,
        }
    }

    /// The same, for a value out of a config file.
    ///
    /// # Errors
    /// `InvalidConfig` naming key, value and range.
    pub fn checked(rtt_ms: Millis) -> Result<Self, ApiError> {
        if (RTT_MS_MIN..=RTT_MS_MAX).contains(&rtt_ms) {
            return Ok(Self::from_rtt(rtt_ms));
        }
        let limit = format!("{RTT_MS_MIN} to {RTT_MS_MAX}");
        Err(ApiError::bad(ErrorCode::InvalidConfig, "max.inter.dc.rtt.ms", rtt_ms, limit))
    }

    /// How long one Raft append of this many bytes may take before it is given up: the election minimum plus its time
    /// on the slowest link. Heartbeats do not wait for it, so a large entry never costs a leadership.
    #[must_use]
    pub fn append_deadline_ms(&self, bytes: usize) -> Millis {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.election_min_ms.saturating_add(bytes.div_ceil(LINK_BYTES_PER_MS_MIN))
    }

    /// How long the decider waits for the verdict on a batch of this many bytes before it answers "outcome unknown":
    /// two attempts of the append and one election.
    #[must_use]
    pub fn write_deadline_ms(&self, bytes: usize) -> Millis {
        self.append_deadline_ms(bytes).saturating_mul(2).saturating_add(self.election_max_ms)
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self::from_rtt(RTT_MS_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_what_the_design_names() {
        let t = Timers::default();
        assert_eq!((t.raft_heartbeat_ms, t.election_min_ms, t.election_max_ms), (100, 400, 500));
        assert_eq!((t.broker_heartbeat_ms, t.lease_ms, t.session_timeout_ms), (100, 400, 2_000));
        assert_eq!((t.fence_after_reset_ms, t.quorum_probe_ms, t.takeover_quiet_ms), (440, 1_000, 400));
    }

    #[test]
    fn a_lan_fails_over_in_a_quarter_of_the_time() {
        let t = Timers::from_rtt(1);
        assert_eq!((t.raft_heartbeat_ms, t.election_min_ms, t.election_max_ms), (25, 100, 125));
        assert_eq!((t.lease_ms, t.session_timeout_ms), (100, 500));
    }

    #[test]
    fn no_broker_is_fenced_while_its_lease_can_run_at_any_round_trip() {
        for rtt in RTT_MS_MIN..=RTT_MS_MAX {
            let t = Timers::checked(rtt).expect("within the range");
            assert!(t.fence_after_reset_ms * 10 >= t.lease_ms * 11, "{t:?}");
            assert!(t.session_timeout_ms >= t.fence_after_reset_ms, "{t:?}");
            assert!(t.election_min_ms >= 3 * t.raft_heartbeat_ms && t.election_max_ms > t.election_min_ms);
            assert!(t.raft_heartbeat_ms >= 2 * t.rtt_ms, "an answer must arrive within one heartbeat");
            assert!(t.quorum_probe_ms >= 2 * t.election_max_ms);
        }
    }

    #[test]
    fn a_round_trip_out_of_range_is_refused_by_name() {
        for bad in [0, RTT_MS_MAX + 1, u64::MAX] {
            let error = Timers::checked(bad).expect_err("out of range");
            assert_eq!((error.field.as_str(), error.value), ("max.inter.dc.rtt.ms", bad.to_string()));
        }
        assert!(Timers::from_rtt(u64::MAX).lease_ms == u64::MAX, "saturates instead of wrapping to a short lease");
    }

    /// One row of docs/limits.md: its first words and its value at R = 1, 20, 100.
    fn row(label: &str, value: impl Fn(Timers) -> u64) -> (String, String) {
        let shown = |rtt| {
            let number = value(Timers::from_rtt(rtt));
            let (thousands, rest) = (number / 1_000, number % 1_000);
            if thousands > 0 { format!("{thousands},{rest:03} ms") } else { format!("{rest} ms") }
        };
        (format!("| {label}"), format!("| {} | {} | {} |", shown(1), shown(20), shown(100)))
    }

    #[test]
    fn the_table_of_derived_timers_is_what_the_formulas_give() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md");
        let text = std::fs::read_to_string(path).expect("docs/limits.md is there");
        let rows = [
            row("Raft heartbeat", |t| t.raft_heartbeat_ms),
            row("election minimum", |t| t.election_min_ms),
            row("election maximum", |t| t.election_max_ms),
            row("quorum loss probe", |t| t.quorum_probe_ms),
            row("broker heartbeat", |t| t.broker_heartbeat_ms),
            row("lease L", |t| t.lease_ms),
            row("fence after a reset", |t| t.fence_after_reset_ms),
            row("broker session", |t| t.session_timeout_ms),
        ];
        for (label, values) in rows {
            let holds = |line: &str| line.starts_with(&label) && line.ends_with(&values);
            assert!(text.lines().any(holds), "no row in docs/limits.md begins {label:?} and ends {values:?}");
        }
    }

    #[test]
    fn larger_appends_get_more_time() {
        let t = Timers::default();
        assert_eq!(t.append_deadline_ms(0), 400);
        assert!(t.append_deadline_ms(1 << 20) >= 800);
        assert!(t.write_deadline_ms(10) > t.append_deadline_ms(10));
    }
}
