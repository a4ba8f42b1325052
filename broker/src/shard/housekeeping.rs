//! What a shard does every so often: end marks of idle logs, retention, checkpoints, reports of partitions that nobody
//! leads, streams that carry nothing, gauges.

use log::retention::RetentionClock;
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
    report_at: Millis,
    /// When retention ran last; the interval in force is asked at each look, so that a shorter one counts at once.
    retained_at: Millis,
    retention_clock: RetentionClock,
    gauges: ShardGauges,
    /// Log ends at the last round: a log that has not moved since is idle.
    ends: BTreeMap<protocol::ids::TopicPartition, u64>,
}

impl Housekeeping {
    pub(super) fn new(index: usize, now: Millis) -> Self {
        Self {
            next: now,
            checkpoint_at: now,
            report_at: now,
            retained_at: now,
            retention_clock: RetentionClock::new(now, clock::wall_ms()),
            gauges: ShardGauges::new(index),
            ends: BTreeMap::new(),
        }
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
        if now.at >= self.housekeeping.report_at {
            self.housekeeping.report_at = now.at + limits::REPORT_AGAIN_MS;
            self.report_again();
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
        let believed = self.housekeeping.retention_clock.now_ms(now.at, wall);
        let unbelieved = wall.saturating_sub(believed);
        if unbelieved > limits::RETENTION_UNBELIEVED_WARN_MS {
            tracing::warn!(unbelieved_ms = unbelieved, "the wall clock leapt ahead: retention does not go by it");
        }
        self.housekeeping.gauges.retention_unbelieved(unbelieved);
        let image = self.world.image.clone();
        for (at, partition) in &mut self.partitions {
            let config = image.topic_config(at.topic);
            partition.retain(&config, believed, now, &mut self.world);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoints::{CheckpointWriter, NoCheckpoints};
    use crate::controller_queue::ControllerQueue;
    use crate::disk_room::DiskRoom;
    use crate::fatal::Halt;
    use crate::flush_pool::FlushPool;
    use crate::lease_cell::LeaseCell;
    use crate::metadata::reconcile::tests::{at, image};
    use crate::notes::NoteWriter;
    use crate::replica::lease::Lease;
    use crate::shard::{ShardParts, ShardSender, Shards};
    use log::data_dir::{DataDir, Expected, Identity, Role};
    use log::registry::Registry;
    use log::storage::Storage;
    use log::storage::memory::MemStorage;
    use log::storage::reserve::Reserve;
    use protocol::ids::{BrokerEpoch, BrokerId};
    use protocol::metadata::draft::Fold;
    use protocol::metadata::record::{Assignment, Fact, PartitionsCreated, TopicCreated};
    use protocol::rpc::channel::Dialer;
    use std::path::Path;
    use std::sync::Arc;
    use uuid::Uuid;

    const ME: BrokerId = BrokerId(1);

    fn data() -> DataDir {
        let storage: Arc<dyn Storage> = Arc::new(MemStorage::new());
        let (cluster_id, directory) = (Uuid::from_u128(9), Uuid::from_u128(1));
        let identity = Identity { cluster_id, node_id: ME.0, role: Role::Broker, directory };
        DataDir::format(&storage, Path::new("/data"), &identity).expect("formats an empty disk");
        let expected = Expected { cluster_id: None, node_id: ME.0, role: Role::Broker };
        DataDir::open(storage, Path::new("/data"), &expected).expect("opens what was formatted")
    }

    fn shard(controller: ControllerQueue) -> Shard {
        let (sender, queues) = ShardSender::new();
        let data = Arc::new(data());
        let halt = Halt::with(|fatal| panic!("{fatal}"));
        let registry = Registry::open(data.storage(), &data.registry_dir()).expect("formatted");
        Shard::new(ShardParts {
            index: 0,
            shards: Shards::new(vec![sender.clone()]),
            sender,
            queues,
            me: ME,
            recovered: BTreeMap::new(),
            lease: LeaseCell::default(),
            flush_pool: FlushPool::start().expect("threads").0,
            notes: NoteWriter::start(registry, halt.clone()).expect("a thread").0,
            controller,
            images: Arc::default(),
            dialer: Dialer::plain(),
            checkpoints: CheckpointWriter::start(Box::new(NoCheckpoints)).expect("a thread").0,
            slots: Arc::default(),
            disk: DiskRoom::new(Reserve::new(data.storage().clone(), "/reserve".into(), 1)),
            halt,
            data,
        })
    }

    #[test]
    fn a_replica_that_nobody_leads_reports_every_so_often() {
        let (controller, mut end) = ControllerQueue::new();
        let mut shard = shard(controller);
        let mut image = image();
        let (topic, name) = (at(11, 0).topic, "leaderless".to_owned());
        image.fold(&Fact::TopicCreated(TopicCreated { topic, name, replication_factor: 1, created_ms: 0 }));
        let assignments = vec![Assignment { replicas: vec![ME], leader: None, isr: vec![ME] }];
        image.fold(&Fact::PartitionsCreated(PartitionsCreated { topic, first: 0, assignments }));
        shard.epoch = Some(BrokerEpoch(1));
        shard.world.image = Arc::new(image);
        shard.plan_everything();
        assert!(shard.partitions.contains_key(&at(10, 0)) && shard.partitions.contains_key(&at(11, 0)));
        end.reported();

        let begin = clock::now() + 1;
        let mut reports_at = |later| {
            shard.keep_house(Now { at: begin + later, lease: Lease::NONE });
            end.reported().into_iter().map(|(at, _)| at).collect::<Vec<_>>()
        };
        reports_at(0);
        for round in 1..4 {
            let due = round * limits::REPORT_AGAIN_MS;
            assert_eq!(reports_at(due - 1), [], "round {round}");
            assert_eq!(reports_at(due), [at(11, 0)], "round {round}");
        }
    }
}
