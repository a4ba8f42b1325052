//! Names of the controller's metrics, in one place, after Kafka's concepts. Gauges are set by `report`; counters and
//! histograms where the thing happens.

/// 1 on the active controller, else 0.
pub const ACTIVE_CONTROLLER_COUNT: &str = "seawall_controller_active_controller_count";
/// Registered brokers.
pub const BROKER_COUNT: &str = "seawall_controller_broker_count";
/// Registered brokers that are fenced.
pub const FENCED_BROKER_COUNT: &str = "seawall_controller_fenced_broker_count";
/// Live topics.
pub const TOPIC_COUNT: &str = "seawall_controller_topic_count";
/// Partitions of live topics.
pub const PARTITION_COUNT: &str = "seawall_controller_partition_count";
/// Partitions without a leader.
pub const OFFLINE_PARTITIONS: &str = "seawall_controller_offline_partitions_count";
/// Partitions whose ISR is smaller than their replicas.
pub const UNDER_REPLICATED_PARTITIONS: &str = "seawall_controller_under_replicated_partitions_count";
/// Partitions whose ISR does not satisfy the durability rule.
pub const UNDER_MIN_ISR_PARTITIONS: &str = "seawall_controller_under_min_isr_partitions_count";
/// Partitions led by another than their first replica.
pub const PREFERRED_REPLICA_IMBALANCE: &str = "seawall_controller_preferred_replica_imbalance_count";
/// Number of the last applied batch of facts.
pub const METADATA_APPLIED_BATCH: &str = "seawall_controller_metadata_applied_batch";
/// Batches that apply dropped because they were decided on another image.
pub const BATCHES_DROPPED: &str = "seawall_controller_batches_dropped_total";
/// Batches written by this controller.
pub const BATCHES_WRITTEN: &str = "seawall_controller_batches_written_total";
/// Raft term.
pub const RAFT_TERM: &str = "seawall_controller_raft_term";
/// Last index in the Raft log.
pub const RAFT_LOG_INDEX: &str = "seawall_controller_raft_last_log_index";
/// Committed index as known here.
pub const RAFT_COMMIT_INDEX: &str = "seawall_controller_raft_commit_index";
/// Applied index.
pub const RAFT_APPLIED_INDEX: &str = "seawall_controller_raft_applied_index";
/// Last index in the newest snapshot.
pub const RAFT_SNAPSHOT_INDEX: &str = "seawall_controller_raft_snapshot_index";
/// Everything up to this index was purged.
pub const RAFT_PURGED_INDEX: &str = "seawall_controller_raft_purged_index";
/// Leader changes seen.
pub const LEADER_CHANGES: &str = "seawall_controller_raft_leader_changes_total";
/// Snapshots written.
pub const SNAPSHOTS_WRITTEN: &str = "seawall_controller_raft_snapshots_written_total";
/// Snapshots received and installed.
pub const SNAPSHOTS_INSTALLED: &str = "seawall_controller_raft_snapshots_installed_total";
/// Appends that shared one sync.
pub const APPENDS_PER_SYNC: &str = "seawall_controller_raft_appends_per_sync";
/// Seconds a sync of the Raft log took.
pub const SYNC_SECONDS: &str = "seawall_controller_raft_sync_seconds";
/// Commands waiting for the decider.
pub const EVENT_QUEUE_SIZE: &str = "seawall_controller_event_queue_size";
/// Seconds from the arrival of a command to its answer.
pub const EVENT_SECONDS: &str = "seawall_controller_event_seconds";
/// Heartbeats answered without the decider.
pub const HEARTBEATS_ANSWERED: &str = "seawall_controller_heartbeats_answered_total";
/// Heartbeats left unanswered: the quorum was not fresh, or the broker is being fenced.
pub const HEARTBEATS_WITHHELD: &str = "seawall_controller_heartbeats_withheld_total";
/// Followers of the feed.
pub const FEED_FOLLOWERS: &str = "seawall_controller_feed_followers";
/// Feed followers dropped because they did not keep up.
pub const FEED_FOLLOWERS_DROPPED: &str = "seawall_controller_feed_followers_dropped_total";
