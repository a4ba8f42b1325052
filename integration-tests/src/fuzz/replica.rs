//! One partition of one broker under attack: a leader of three replicas, or a follower, over the real log on a simulated
//! disk. What it wants done outside is done at once (syncs, notes) or dropped.

use broker::fatal::Fatal;
use broker::partition::note::Note;
use broker::partition::outside::{IsrProposal, Life, Outside, PushOut, Subscription};
use broker::partition::{Opened, Partition, log_config};
use broker::replica::effect::{LogEndReport, ProduceOutcome, ToFollower, ToLeader};
use broker::replica::input::{Acks, Input, Produce, RequestId, SubscriptionId};
use broker::replica::lease::Lease;
use broker::replica::read::WireState;
use broker::replica::view::{Member, PartitionView, ReplicaConfig};
use broker::replica::{Checkpoint, Now};
use bytes::Bytes;
use log::data_dir::{DataDir, Expected, Identity, Role};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use log::{FlushJob, Log, LogConfig};
use protocol::batch::Compression;
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition};
use protocol::metadata::configs::FlushPolicy;
use protocol::metadata::durability::DurabilityRule;
use protocol::metadata::image::MetadataImage;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// Registration of every broker of the attacked cluster.
pub(super) const EPOCH: BrokerEpoch = BrokerEpoch(5);
/// The leader epoch in force.
pub(super) const LEADER_EPOCH: LeaderEpoch = LeaderEpoch(3);
const LEASE: Lease = Lease { valid_until: u64::MAX, grace_until: u64::MAX };

/// The partition under attack.
pub(super) fn at() -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: 0 }
}

/// What the partition asked for.
#[derive(Debug, Default)]
struct Around {
    flushes: VecDeque<(Life, FlushJob)>,
    notes: VecDeque<(Life, Note)>,
    subscribed: Option<SubscriptionId>,
    fatal: Option<String>,
}

impl Outside for Around {
    fn reply(&mut self, _: TopicPartition, _: RequestId, _: ProduceOutcome, _: WireState) {}
    fn delete_reply(&mut self, _: TopicPartition, _: RequestId, _: Result<u64, ErrorCode>, _: WireState) {}
    fn to_follower(&mut self, _: Subscription, _: ToFollower) {}
    fn may_push(&self, _: Subscription) -> bool {
        true
    }
    fn push(&mut self, _: Subscription, push: PushOut) {
        assert!(push.high_watermark.is_none_or(|hw| hw >= push.log_start), "a high watermark below the log start");
    }
    fn has_room(&self) -> bool {
        true
    }
    fn to_leader(&mut self, _: TopicPartition, _: BrokerId, message: ToLeader) {
        if let ToLeader::Subscribe(subscribe) = message {
            self.subscribed = Some(subscribe.subscription);
        }
    }
    fn flush(&mut self, life: Life, job: FlushJob) {
        self.flushes.push_back((life, job));
    }
    fn note(&mut self, life: Life, note: Note) {
        self.notes.push_back((life, note));
    }
    fn alter(&mut self, _: IsrProposal) {}
    fn report_log_end(&mut self, _: TopicPartition, _: LogEndReport) {}
    fn moved(&mut self, _: TopicPartition, _: Option<Checkpoint>) {}
    fn fatal(&mut self, fatal: Fatal) {
        self.fatal = Some(fatal.to_string());
    }
}

/// A partition and the little world around it.
#[derive(Debug)]
pub(super) struct Attacked {
    pub(super) partition: Partition,
    around: Around,
    now: u64,
    acked: u64,
}

fn formatted() -> MemStorage {
    static DISK: OnceLock<MemStorage> = OnceLock::new();
    let disk = DISK.get_or_init(|| {
        let disk = MemStorage::new();
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let identity =
            Identity { cluster_id: Uuid::from_u128(1), node_id: 1, role: Role::Broker, directory: Uuid::from_u128(2) };
        DataDir::format(&storage, Path::new("/data"), &identity).expect("an empty simulated disk can be formatted");
        disk
    });
    disk.fork()
}

fn view(leader: u32) -> PartitionView {
    let member = |id: u32| Member {
        broker_epoch: Some(EPOCH),
        data_centre: Some(format!("r/dc{id}")),
        active: true,
        fenced: false,
        counts: true,
    };
    PartitionView {
        leader: Some(BrokerId(leader)),
        leader_epoch: LEADER_EPOCH,
        partition_epoch: PartitionEpoch(9),
        isr: (1..=3).map(BrokerId).collect(),
        elr: Default::default(),
        members: (1..=3).map(|id| (BrokerId(id), member(id))).collect(),
        recovering: false,
        rule: DurabilityRule { min_replicas: 2, min_dcs: 2 },
        config: ReplicaConfig {
            flush_policy: FlushPolicy::Sync,
            flush_interval_ms: 100,
            max_batch_bytes: 1 << 20,
            lag_max_ms: 5_000,
        },
    }
}

impl Attacked {
    /// Broker 1's replica, led by `leader`; a leader has three batches of its epoch.
    pub(super) fn new(leader: u32) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(formatted());
        let expected = Expected { cluster_id: None, node_id: 1, role: Role::Broker };
        let data = DataDir::open(storage, Path::new("/data"), &expected).expect("it was formatted");
        let dir = data.partition_dir(at().topic.0, at().partition);
        let config = LogConfig { preallocate: false, ..log_config(&MetadataImage::default().topic_config(at().topic)) };
        let (log, _) = Log::open(data.storage().clone(), &dir, config).expect("an empty log opens");
        let opened = Opened {
            at: at(),
            log,
            noted_policy: Some(FlushPolicy::Sync),
            directory_noted: false,
            damaged: false,
            checkpoint: None,
        };
        let partition = Partition::new(BrokerId(1), EPOCH, 1, opened, Arc::new(data));
        let mut attacked = Self { partition, around: Around::default(), now: 10, acked: 0 };
        attacked.step(Input::Assign(Box::new(view(leader))), VecDeque::new());
        if leader == 1 {
            for number in 0..3 {
                attacked.produce(number);
            }
        }
        attacked
    }

    /// The subscription that this replica asked its leader for.
    pub(super) fn subscription(&self) -> u64 {
        self.around.subscribed.map_or(0, |number| number.0)
    }

    pub(super) fn now(&self) -> Now {
        Now { at: self.now, lease: LEASE }
    }

    fn produce(&mut self, number: u64) {
        let batch = super::records::batch_of(Compression::None, 2, b"attack");
        let request = Produce {
            id: RequestId(number),
            acks: Acks::All,
            deadline: u64::MAX,
            leader_epoch: None,
            offsets: 2,
            bytes: u32::try_from(batch.len()).unwrap_or(0),
        };
        let now = self.now();
        self.partition.produce(request, Bytes::from(batch), now, &mut self.around);
        self.settle();
    }

    /// Steps an input and everything that follows from it. What must hold afterwards is asserted here.
    pub(super) fn step(&mut self, input: Input, hand: VecDeque<Bytes>) {
        let now = self.now();
        self.partition.step_with(input, hand, now, &mut self.around);
        self.settle();
        let (log, replica) = (self.partition.log(), self.partition.replica());
        assert!(log.start_offset() <= log.end_offset() && log.durable_end() <= log.end_offset());
        assert!(replica.high_watermark() <= log.end_offset(), "a high watermark above the log end");
        self.acked = self.acked.max(replica.high_watermark());
    }

    /// A question as a client asks it.
    pub(super) fn ask(&mut self, ask: impl FnOnce(&mut Partition, Now, &mut dyn Outside)) {
        let now = self.now();
        ask(&mut self.partition, now, &mut self.around);
        self.settle();
    }

    fn settle(&mut self) {
        self.now += 7;
        for _ in 0..4 {
            let now = self.now();
            self.partition.settle(now, &mut self.around);
            while let Some((life, job)) = self.around.flushes.pop_front() {
                let flushed = job.run();
                self.partition.flushed(life, flushed, now, &mut self.around);
            }
            while let Some((life, note)) = self.around.notes.pop_front() {
                self.partition.noted(life, note, now, &mut self.around);
            }
        }
    }
}
