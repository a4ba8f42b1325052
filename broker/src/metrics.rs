//! Names of the broker's metrics, all in one place, after Kafka's concepts. Values are recorded by their owners; the
//! recorder belongs to the binary.
//!
//! Gauges carry the label `shard`; the broker's value is their sum, unless the gauge says otherwise.

use metrics::{counter, gauge, histogram};

/// Records produced or refused, batches. Label `outcome`: `ok` or the error code's name.
pub const PRODUCE_BATCHES: &str = "seawall_broker_produce_batches_total";
/// Bytes of batches taken from producers.
pub const BYTES_IN: &str = "seawall_broker_bytes_in_total";
/// Bytes of batches sent to consumers.
pub const BYTES_OUT: &str = "seawall_broker_bytes_out_total";
/// Bytes pushed to followers.
pub const REPLICATION_BYTES_OUT: &str = "seawall_broker_replication_bytes_out_total";
/// Bytes received from leaders.
pub const REPLICATION_BYTES_IN: &str = "seawall_broker_replication_bytes_in_total";
/// Seconds from a batch's arrival at its shard to its answer.
pub const PRODUCE_SECONDS: &str = "seawall_broker_produce_seconds";
/// Partitions with a replica here.
pub const PARTITIONS: &str = "seawall_broker_partitions";
/// Partitions led here.
pub const LEADERS: &str = "seawall_broker_leader_count";
/// Replicas here of partitions that nobody leads.
pub const OFFLINE: &str = "seawall_broker_offline_partitions";
/// Partitions led here whose ISR lacks a replica.
pub const UNDER_REPLICATED: &str = "seawall_broker_under_replicated_partitions";
/// Partitions led here whose ISR does not satisfy the durability rule.
pub const UNDER_MIN_ISR: &str = "seawall_broker_under_min_isr_partitions";
/// Bytes of all logs here.
pub const LOG_BYTES: &str = "seawall_broker_log_bytes";
/// ISR changes asked for. Label `kind`: `shrink` or `expand`.
pub const ISR_CHANGES: &str = "seawall_broker_isr_changes_total";
/// Milliseconds that the lease still runs; negative once it has run out.
pub const LEASE_MS: &str = "seawall_broker_lease_remaining_ms";
/// Batch number of the applied image.
pub const METADATA_BATCH: &str = "seawall_broker_metadata_applied_batch";
/// 1 while produce is refused for want of disk space.
pub const DISK_FULL: &str = "seawall_broker_disk_full";
/// Milliseconds by which the wall clock is ahead of the time that retention goes by; the broker's value is the largest.
pub const RETENTION_UNBELIEVED_MS: &str = "seawall_broker_retention_clock_unbelieved_ms";
/// Tails cut from logs here because another leader's history differs.
pub const TRUNCATIONS: &str = "seawall_broker_log_truncations_total";

/// Counters of one shard.
#[derive(Debug, Default)]
pub struct ShardMetrics {}

impl ShardMetrics {
    /// A produce was answered.
    pub fn produced(&self, bytes: u64, millis: u64, error: Option<u32>) {
        let outcome = error.map_or("ok", |code| protocol::error::ErrorCode::from_wire(code).name());
        counter!(PRODUCE_BATCHES, "outcome" => outcome).increment(1);
        if error.is_none() {
            counter!(BYTES_IN).increment(bytes);
            histogram!(PRODUCE_SECONDS).record(millis as f64 / 1_000.0);
        }
    }

    /// A change of an ISR was asked for.
    pub fn isr_change(&self, grows: bool) {
        counter!(ISR_CHANGES, "kind" => if grows { "expand" } else { "shrink" }).increment(1);
    }

    /// Bytes went to a consumer.
    pub fn fetched(&self, bytes: usize) {
        counter!(BYTES_OUT).increment(bytes as u64);
    }

    /// Bytes went to a follower.
    pub fn pushed(&self, bytes: usize) {
        counter!(REPLICATION_BYTES_OUT).increment(bytes as u64);
    }

    /// Bytes came from a leader.
    pub fn replicated(&self, bytes: usize) {
        counter!(REPLICATION_BYTES_IN).increment(bytes as u64);
    }
}

/// Gauges of one shard.
#[derive(Debug, Clone, Default)]
pub struct ShardGauges {
    shard: String,
    /// See [`PARTITIONS`].
    pub partitions: u64,
    /// See [`LEADERS`].
    pub leaders: u64,
    /// See [`OFFLINE`].
    pub leaderless: u64,
    /// See [`UNDER_REPLICATED`].
    pub under_replicated: u64,
    /// See [`UNDER_MIN_ISR`].
    pub under_min_isr: u64,
    /// See [`LOG_BYTES`].
    pub log_bytes: u64,
}

impl ShardGauges {
    /// Of this shard, all zero.
    #[must_use]
    pub fn new(index: usize) -> Self {
        Self { shard: index.to_string(), ..Self::default() }
    }

    /// The same shard's, all zero.
    #[must_use]
    pub fn reset(&self) -> Self {
        Self { shard: self.shard.clone(), ..Self::default() }
    }

    /// Records [`RETENTION_UNBELIEVED_MS`].
    pub fn retention_unbelieved(&self, millis: i64) {
        gauge!(RETENTION_UNBELIEVED_MS, "shard" => self.shard.clone()).set(millis as f64);
    }

    /// Hands the values to the recorder.
    pub fn publish(&self) {
        let values = [
            (PARTITIONS, self.partitions),
            (LEADERS, self.leaders),
            (OFFLINE, self.leaderless),
            (UNDER_REPLICATED, self.under_replicated),
            (UNDER_MIN_ISR, self.under_min_isr),
            (LOG_BYTES, self.log_bytes),
        ];
        for (name, value) in values {
            gauge!(name, "shard" => self.shard.clone()).set(value as f64);
        }
    }
}
