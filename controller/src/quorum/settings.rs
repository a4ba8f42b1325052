//! openraft's settings. Its safe ones are opt-in, so each stands here with its reason and a test asserts every one.

use crate::limits::{APPEND_ENTRIES_MAX, LOG_KEEP_BELOW_SNAPSHOT, PURGE_BATCH, SNAPSHOT_DEADLINE_BASE};
use openraft::{Config, SnapshotPolicy};
use protocol::timers::Timers;

/// The settings for these timers, taking a snapshot every so many entries.
pub(super) fn raft_config(timers: &Timers, snapshot_every: u64) -> Config {
    Config {
        cluster_name: "seawall".to_owned(),
        heartbeat_interval: timers.raft_heartbeat_ms,
        election_timeout_min: timers.election_min_ms,
        election_timeout_max: timers.election_max_ms,
        // An isolated voter must not raise its term and depose the leader when it comes back.
        enable_pre_vote: Some(true),
        // A leader that can send but not receive stops being writable (openraft issue 2080).
        quorum_loss_probe_interval: Some(timers.quorum_probe_ms),
        // A restarted leader must take a new term: leader epochs and fences are per term.
        enable_leader_restore: Some(false),
        // A voter whose log went back has lost acknowledged entries; never accept it quietly.
        allow_log_reversion: Some(false),
        max_payload_entries: APPEND_ENTRIES_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: LOG_KEEP_BELOW_SNAPSHOT.min(snapshot_every),
        purge_batch_size: PURGE_BATCH.min(snapshot_every),
        install_snapshot_timeout: u64::try_from(SNAPSHOT_DEADLINE_BASE.as_millis()).unwrap_or(u64::MAX),
        // Above the snapshot interval, else a follower that needs a snapshot is chosen for one too early.
        replication_lag_threshold: snapshot_every.saturating_mul(2),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_safety_or_timing_rests_on() {
        let config = raft_config(&Timers::default(), 5000).validate().expect("openraft accepts it");
        assert_eq!(config.heartbeat_interval, 100);
        assert_eq!((config.election_timeout_min, config.election_timeout_max), (400, 500));
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_eq!(config.quorum_loss_probe_interval, Some(1000));
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.allow_log_reversion, Some(false));
        assert_eq!(config.max_payload_entries, 300);
        assert_eq!(config.snapshot_policy, SnapshotPolicy::LogsSinceLast(5000));
        assert_eq!((config.max_in_snapshot_log_to_keep, config.purge_batch_size), (1000, 1000));
        assert!(config.install_snapshot_timeout >= 10_000);
        assert!(config.replication_lag_threshold > 5000);
        assert_eq!(format!("{:?}", config.removed_leader_step_down), "After(150)");
        assert!(config.enable_tick && config.enable_heartbeat && config.enable_elect);
        assert_eq!(config.backoff, "200ms");
        assert_eq!(config.api_batch_linger_ms, 0);
    }

    #[test]
    fn any_declared_round_trip_gives_settings_that_openraft_accepts() {
        for rtt in [1, 5, 20, 50, 100, 400] {
            let timers = Timers::from_rtt(rtt);
            let config = raft_config(&timers, 200).validate().expect("openraft accepts it");
            let probe = config.quorum_loss_probe_interval.expect("set");
            assert!(probe >= 2 * config.election_timeout_max, "rtt {rtt}");
            assert_eq!(config.max_in_snapshot_log_to_keep, 200);
        }
    }
}
