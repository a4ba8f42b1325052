//! A world for one partition that remembers everything and does nothing by itself: the test decides when a flush, a note
//! or an answer comes.

use broker::fatal::Fatal;
use broker::partition::outside::{IsrProposal, Life, Note, Outside, PushOut, Subscription};
use broker::partition::{Opened, Partition, log_config};
use broker::replica::Checkpoint;
use broker::replica::effect::{LogEndReport, ProduceOutcome, ToFollower, ToLeader};
use broker::replica::input::{Acks, Input, Produce, RequestId};
use broker::replica::lease::{Lease, Now};
use broker::replica::read::WireState;
use broker::replica::view::{Member, PartitionView, ReplicaConfig};
use bytes::Bytes;
use log::data_dir::{DataDir, Expected, Identity, Role};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use log::{FlushJob, Log};
use protocol::batch::{BatchBuilder, Compression};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicId, TopicPartition};
use protocol::metadata::configs::{FlushPolicy, TopicConfig};
use protocol::metadata::durability::DurabilityRule;
use protocol::metadata::image::MetadataImage;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

pub(crate) const ME: BrokerId = BrokerId(1);
pub(crate) const OTHER: BrokerId = BrokerId(2);
pub(crate) const ROOT: &str = "/data";

pub(crate) fn at() -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), partition: 0 }
}

pub(crate) fn format(storage: &MemStorage) {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    let identity =
        Identity { cluster_id: Uuid::from_u128(1), node_id: ME.0, role: Role::Broker, directory: Uuid::from_u128(2) };
    DataDir::format(&storage, Path::new(ROOT), &identity).expect("formats an empty disk");
}

pub(crate) fn open(storage: &MemStorage) -> DataDir {
    let storage: Arc<dyn Storage> = Arc::new(storage.clone());
    let expected = Expected { cluster_id: None, node_id: ME.0, role: Role::Broker };
    DataDir::open(storage, Path::new(ROOT), &expected).expect("opens what was formatted")
}

/// What happened around the partition.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) replies: Vec<(RequestId, ProduceOutcome)>,
    pub(crate) pushes: Vec<PushOut>,
    pub(crate) to_leader: Vec<ToLeader>,
    pub(crate) jobs: Vec<(Life, FlushJob)>,
    pub(crate) notes: Vec<(Life, Note)>,
    pub(crate) proposals: Vec<IsrProposal>,
    pub(crate) fatal: Option<Fatal>,
    pub(crate) credit: usize,
}

impl Outside for World {
    fn reply(&mut self, _: TopicPartition, id: RequestId, outcome: ProduceOutcome, _: WireState) {
        self.replies.push((id, outcome));
    }
    fn delete_reply(&mut self, _: TopicPartition, _: RequestId, _: Result<u64, ErrorCode>, _: WireState) {}
    fn to_follower(&mut self, _: Subscription, _: ToFollower) {}
    fn may_push(&self, _: Subscription) -> bool {
        self.credit > 0
    }
    fn has_room(&self) -> bool {
        true
    }
    fn push(&mut self, _: Subscription, push: PushOut) {
        if !push.batches.is_empty() {
            self.credit = self.credit.saturating_sub(1);
        }
        self.pushes.push(push);
    }
    fn to_leader(&mut self, _: TopicPartition, _: BrokerId, message: ToLeader) {
        self.to_leader.push(message);
    }
    fn flush(&mut self, life: Life, job: FlushJob) {
        self.jobs.push((life, job));
    }
    fn note(&mut self, life: Life, note: Note) {
        self.notes.push((life, note));
    }
    fn alter(&mut self, proposal: IsrProposal) {
        self.proposals.push(proposal);
    }
    fn report_log_end(&mut self, _: TopicPartition, _: LogEndReport) {}
    fn moved(&mut self, _: TopicPartition, _: Option<Checkpoint>) {}
    fn fatal(&mut self, fatal: Fatal) {
        self.fatal = Some(fatal);
    }
}

pub(crate) fn config() -> TopicConfig {
    MetadataImage::default().topic_config(at().topic)
}

pub(crate) fn view(leader: BrokerId, epoch: u32, isr: &[BrokerId], policy: FlushPolicy) -> PartitionView {
    let member = || Member {
        broker_epoch: Some(BrokerEpoch(1)),
        data_centre: Some("eu/a".into()),
        active: true,
        fenced: false,
        counts: true,
    };
    PartitionView {
        leader: Some(leader),
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(epoch),
        isr: isr.iter().copied().collect(),
        elr: BTreeSet::new(),
        members: BTreeMap::from([(ME, member()), (OTHER, member())]),
        recovering: false,
        rule: DurabilityRule { min_replicas: 1, min_dcs: 1 },
        config: ReplicaConfig {
            flush_policy: policy,
            flush_interval_ms: 1_000,
            max_batch_bytes: 1 << 20,
            lag_max_ms: 5_000,
        },
    }
}

/// One partition on one simulated disk, and its world.
pub(crate) struct Bench {
    pub(crate) disk: MemStorage,
    pub(crate) data: Arc<DataDir>,
    pub(crate) world: World,
    pub(crate) partition: Partition,
    pub(crate) now: Now,
    slot: u32,
    next: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let disk = MemStorage::new();
        format(&disk);
        let data = Arc::new(open(&disk));
        let partition = begun(&data, 1);
        let now = Now { at: 1_000, lease: Lease { valid_until: 1 << 40, grace_until: 1 << 40 } };
        Self { disk, data, world: World::default(), partition, now, slot: 1, next: 0 }
    }

    /// The partition is taken away, its data set aside, and it is opened anew over the empty place.
    pub(crate) fn set_aside_and_reopen(&mut self) {
        self.step(Input::Withdraw);
        self.slot += 1;
        // Held open by nothing meanwhile: an empty log elsewhere takes the partition's place.
        let aside = std::mem::replace(&mut self.partition, begun_in(&self.data, 0, "/nowhere"));
        aside.close().expect("the disk works");
        let dir = self.data.partition_dir(at().topic.0, at().partition);
        if self.data.storage().exists(&dir).expect("the disk works") {
            self.data.set_aside(at().topic.0, at().partition).expect("the directory moves");
        }
        self.partition = begun(&self.data, self.slot);
    }

    pub(crate) fn assign(&mut self, view: PartitionView) {
        self.step(Input::Assign(Box::new(view)));
    }

    pub(crate) fn step(&mut self, input: Input) {
        self.partition.step(input, self.now, &mut self.world);
        self.partition.settle(self.now, &mut self.world);
    }

    pub(crate) fn produce(&mut self, acks: Acks) -> RequestId {
        self.next += 1;
        let id = RequestId(self.next);
        let bytes = batch(&format!("record {}", self.next));
        let request = Produce { id, acks, deadline: 1 << 30, leader_epoch: None, offsets: 1, bytes: 100 };
        self.partition.produce(request, bytes, self.now, &mut self.world);
        self.partition.settle(self.now, &mut self.world);
        id
    }

    /// Runs the oldest flush job that was started.
    pub(crate) fn finish_flush(&mut self) {
        let (life, job) = self.world.jobs.remove(0);
        let outcome = job.run();
        self.partition.flushed(life, outcome, self.now, &mut self.world);
        self.partition.settle(self.now, &mut self.world);
    }

    pub(crate) fn finish_notes(&mut self) {
        for (life, note) in std::mem::take(&mut self.world.notes) {
            self.partition.noted(life, note, self.now, &mut self.world);
            self.partition.settle(self.now, &mut self.world);
        }
    }

    pub(crate) fn outcome(&self, id: RequestId) -> Option<ProduceOutcome> {
        self.world.replies.iter().find(|(of, _)| *of == id).map(|(_, outcome)| *outcome)
    }
}

/// A partition over what is in its directory: nothing.
fn begun(data: &Arc<DataDir>, slot: u32) -> Partition {
    let dir = data.partition_dir(at().topic.0, at().partition);
    begun_in(data, slot, dir)
}

fn begun_in(data: &Arc<DataDir>, slot: u32, dir: impl AsRef<Path>) -> Partition {
    let (log, _) = Log::open(data.storage().clone(), dir.as_ref(), log_config(&config())).expect("an empty log opens");
    let opened = Opened { at: at(), log, noted_policy: None, directory_noted: false, damaged: false, checkpoint: None };
    Partition::new(ME, BrokerEpoch(1), slot, opened, data.clone())
}

pub(crate) fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(1_000, None, Some(value.as_bytes()), &[]).expect("a legal record");
    Bytes::from(builder.build().expect("a legal batch").to_vec())
}
