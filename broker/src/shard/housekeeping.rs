//! What a shard does every so often: end marks of idle logs, retention, checkpoints, streams that carry nothing, gauges.

use protocol::ids::Millis;
use protocol::metadata::record::ConfigResource;
use std::collections::BTreeMap;

use super::run::Shard;
use crate::clock;
use crate::limits;
use crate::metrics::ShardGauges;
use crate::replica::RoleName;
use crate::replica::lease::Now;

/// When which is due.
#[derive(Debug)]
pub(super) struct Housekeeping {
    next: Millis,
    checkpoint_at: Millis,
    /// When retention ran last; the interval in force is asked at each look, so that a shorter one counts at once.
    retained_at: Millis,
    gauges: ShardGauges,
    /// Log ends at the last round: a log that has not moved since is idle.
    ends: BTreeMap<protocol::ids::TopicPartition, u64>,
}

impl Housekeeping {
    pub(super) fn new(index: usize, now: Millis) -> Self {
        Self { next: now, checkpoint_at: now, retained_at: now, gauges: ShardGauges::new(index), ends: BTreeMap::new() }
    }

    pub(super) fn next(&self) -> Millis {
        self.next
    }
}

impl Shard {
    pub(super) fn keep_house(&mut self, now: Now) {
        self.housekeeping.next = now.at + limits::HOUSEKEEPING_MS;
        self.mark_idle();
        self.world.leaders.drop_idle();
        if now.at >= self.housekeeping.checkpoint_at {
            self.housekeeping.checkpoint_at = now.at + limits::CHECKPOINT_MS;
            self.checkpoints.remember(std::mem::take(&mut self.world.checkpoints).into_iter().collect());
        }
        if now.at >= self.housekeeping.retained_at.saturating_add(self.retention_interval()) {
            self.housekeeping.retained_at = now.at;
            self.retain(now);
        }
        self.gauge();
    }

    fn mark_idle(&mut self) {
        for (at, partition) in &mut self.partitions {
            if partition.retry_flush() {
                self.world.touched.insert(*at);
            }
            let end = partition.log().end_offset();
            if self.housekeeping.ends.insert(*at, end) == Some(end) {
                partition.idle(&mut self.world);
            }
        }
        let partitions = &self.partitions;
        self.housekeeping.ends.retain(|at, _| partitions.contains_key(at));
    }

    fn retention_interval(&self) -> Millis {
        let resource = ConfigResource::Broker(self.me);
        let interval = self.world.image.config_number(resource, "retention.check.interval.ms");
        interval.unwrap_or(limits::CHECKPOINT_MS)
    }

    fn retain(&mut self, now: Now) {
        let wall = clock::wall_ms();
        let image = self.world.image.clone();
        for (at, partition) in &mut self.partitions {
            let config = image.topic_config(at.topic);
            partition.retain(&config, wall, now, &mut self.world);
            self.world.touched.insert(*at);
        }
    }

    fn gauge(&self) {
        let mut gauges = self.housekeeping.gauges.reset();
        for partition in self.partitions.values() {
            let described = partition.replica().describe(0);
            gauges.partitions += 1;
            gauges.log_bytes += partition.log().size_bytes();
            match described.role {
                RoleName::Leader(_) => gauges.leaders += 1,
                RoleName::Leaderless => gauges.leaderless += 1,
                _ => {}
            }
            gauges.under_replicated += u64::from(described.under_replicated);
            gauges.under_min_isr += u64::from(described.under_min_isr);
        }
        gauges.publish();
    }
}
