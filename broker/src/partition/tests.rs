//! Three partitions over real logs on simulated disks, driven without a runtime: what replica, log and effects make of
//! each other.

use super::outside::{IsrProposal, PushOut, Subscription};
use super::*;
use crate::replica::effect::{LogEndReport, ToFollower, ToLeader};
use crate::replica::input::{Acks, BatchSpan, FollowerAck, IsrOutcome, Pushed, RequestId, SubscriptionId};
use crate::replica::lease::Lease;
use crate::replica::read::{FetchQuery, WireState};
use crate::replica::view::{Member, PartitionView, ReplicaConfig};
use log::FlushJob;
use log::data_dir::{Expected, Identity as DirIdentity, Role};
use log::storage::Storage;
use log::storage::memory::{Call, Fault, MemStorage, Op};
use protocol::batch::{BatchBuilder, Compression};
use protocol::ids::{LeaderEpoch, PartitionEpoch, TopicId};
use protocol::metadata::durability::DurabilityRule;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use uuid::Uuid;

const AT: TopicPartition = TopicPartition { topic: TopicId(Uuid::nil()), partition: 0 };
const ROOT: &str = "/data";

#[derive(Debug)]
enum Sent {
    ToLeader(BrokerId, ToLeader),
    ToFollower(Subscription, ToFollower),
    Push(Subscription, PushOut),
}

#[derive(Debug, Default)]
struct Queue {
    sent: VecDeque<Sent>,
    replies: Vec<(RequestId, ProduceOutcome)>,
    deletes: Vec<Result<u64, ErrorCode>>,
    jobs: Vec<(Life, FlushJob)>,
    notes: Vec<(Life, Note)>,
    proposals: Vec<IsrProposal>,
    fatal: Option<Fatal>,
    disk_full: bool,
}

impl Outside for Queue {
    fn reply(&mut self, _: TopicPartition, id: RequestId, outcome: ProduceOutcome, _: WireState) {
        self.replies.push((id, outcome));
    }
    fn delete_reply(&mut self, _: TopicPartition, _: RequestId, outcome: Result<u64, ErrorCode>, _: WireState) {
        self.deletes.push(outcome);
    }
    fn to_follower(&mut self, to: Subscription, message: ToFollower) {
        self.sent.push_back(Sent::ToFollower(to, message));
    }
    fn may_push(&self, _: Subscription) -> bool {
        true
    }
    fn has_room(&self) -> bool {
        !self.disk_full
    }
    fn push(&mut self, to: Subscription, push: PushOut) {
        self.sent.push_back(Sent::Push(to, push));
    }
    fn to_leader(&mut self, _: TopicPartition, leader: BrokerId, message: ToLeader) {
        self.sent.push_back(Sent::ToLeader(leader, message));
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
        self.fatal.get_or_insert(fatal);
    }
}

struct Node {
    storage: MemStorage,
    epoch: BrokerEpoch,
    partition: Partition,
    out: Queue,
    noted: Option<FlushPolicy>,
    directory: bool,
}

struct Trio {
    nodes: BTreeMap<BrokerId, Node>,
    view: PartitionView,
    now: Now,
    requests: u64,
    slots: u32,
    /// Whose messages, either way, are lost.
    cut_off: BTreeSet<BrokerId>,
}

fn ids() -> [BrokerId; 3] {
    [BrokerId(1), BrokerId(2), BrokerId(3)]
}

fn config() -> LogConfig {
    LogConfig { segment_bytes: 16_384, preallocate: true, ..LogConfig::default() }
}

fn open(storage: &MemStorage, id: BrokerId) -> (Log, Arc<DataDir>) {
    let shared: Arc<dyn Storage> = Arc::new(storage.clone());
    let expected = Expected { cluster_id: None, node_id: id.0, role: Role::Broker };
    let data = DataDir::open(shared.clone(), Path::new(ROOT), &expected).expect("formatted");
    let (log, _) = Log::open(shared, &data.partition_dir(AT.topic.0, AT.partition), config()).expect("a whole log");
    (log, Arc::new(data))
}

impl Trio {
    fn new() -> Self {
        let member = |id: &BrokerId| Member {
            broker_epoch: Some(BrokerEpoch(u64::from(id.0))),
            data_centre: Some(format!("eu/dc{id}")),
            active: true,
            fenced: false,
            counts: true,
        };
        let view = PartitionView {
            leader: Some(BrokerId(1)),
            leader_epoch: LeaderEpoch(1),
            partition_epoch: PartitionEpoch(1),
            isr: ids().into(),
            elr: BTreeSet::new(),
            members: ids().iter().map(|id| (*id, member(id))).collect(),
            recovering: false,
            rule: DurabilityRule { min_replicas: 2, min_dcs: 1 },
            config: ReplicaConfig {
                flush_policy: FlushPolicy::Sync,
                flush_interval_ms: 1_000,
                max_batch_bytes: 1 << 20,
                lag_max_ms: 500,
            },
        };
        let lease = Lease { valid_until: 1 << 40, grace_until: 1 << 41 };
        let now = Now { at: 1_000, lease };
        let (nodes, cut_off) = (BTreeMap::new(), BTreeSet::new());
        let mut trio = Self { nodes, view, now, requests: 0, slots: 0, cut_off };
        for id in ids() {
            trio.format(id);
        }
        trio.assign_all();
        trio.settle();
        trio
    }

    /// A new disk with nothing on it.
    fn format(&mut self, id: BrokerId) {
        let storage = MemStorage::new();
        let directory = Uuid::from_u128(u128::from(id.0));
        let identity = DirIdentity { cluster_id: Uuid::nil(), node_id: id.0, role: Role::Broker, directory };
        let shared: Arc<dyn Storage> = Arc::new(storage.clone());
        DataDir::format(&shared, Path::new(ROOT), &identity).expect("an empty disk");
        self.start(id, storage, None, false);
    }

    fn start(&mut self, id: BrokerId, storage: MemStorage, noted: Option<FlushPolicy>, directory: bool) {
        self.slots += 1;
        let epoch = self.view.members[&id].broker_epoch.expect("registered");
        let (log, data) = open(&storage, id);
        let opened =
            Opened { at: AT, log, noted_policy: noted, directory_noted: directory, damaged: false, checkpoint: None };
        let partition = Partition::new(id, epoch, self.slots, opened, data);
        self.nodes.insert(id, Node { storage, epoch, partition, out: Queue::default(), noted, directory });
    }

    fn with<T>(&mut self, id: u32, run: impl FnOnce(&mut Partition, Now, &mut Queue) -> T) -> T {
        let now = self.now;
        let node = self.nodes.get_mut(&BrokerId(id)).expect("one of three");
        run(&mut node.partition, now, &mut node.out)
    }

    fn assign_all(&mut self) {
        for id in ids() {
            let view = self.view.clone();
            self.with(id.0, |p, now, out| p.step(Input::Assign(Box::new(view)), now, out));
        }
    }

    /// The image changes and everybody applies it.
    fn commit(&mut self, change: impl FnOnce(&mut PartitionView)) {
        change(&mut self.view);
        self.view.partition_epoch = self.view.partition_epoch.next();
        self.assign_all();
    }

    fn lead(&mut self, id: u32) {
        self.commit(|view| {
            view.leader = Some(BrokerId(id));
            view.leader_epoch = view.leader_epoch.next();
        });
    }

    fn produce(&mut self, id: u32, value: &str, records: usize, acks: Acks) {
        self.requests += 1;
        let mut builder = BatchBuilder::new(Compression::None);
        for _ in 0..records {
            builder.push(1_000, None, Some(value.as_bytes()), &[]).expect("small");
        }
        let batch = Bytes::from(builder.build().expect("not empty"));
        let bytes = u32::try_from(batch.len()).expect("small");
        let offsets = u32::try_from(records).expect("small");
        let (request, deadline) = (RequestId(self.requests), self.now.at + 10_000);
        let produce = Produce { id: request, acks, deadline, leader_epoch: None, offsets, bytes };
        self.with(id, |p, now, out| p.produce(produce, batch, now, out));
    }

    /// Everything that waits happens, until nothing does.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            for id in ids() {
                self.with(id.0, |p, now, out| p.settle(now, out));
            }
            let moved: Vec<bool> = ids().into_iter().map(|id| self.turn(id)).collect();
            if !moved.contains(&true) {
                return;
            }
        }
        panic!("it never settles");
    }

    fn turn(&mut self, id: BrokerId) -> bool {
        let out = std::mem::take(&mut self.nodes.get_mut(&id).expect("one of three").out);
        let Queue { sent, replies, deletes, jobs, notes, proposals, fatal, disk_full } = out;
        let busy = !(sent.is_empty() && jobs.is_empty() && notes.is_empty() && proposals.is_empty());
        let kept = Queue { replies, deletes, fatal, disk_full, ..Queue::default() };
        self.nodes.get_mut(&id).expect("one of three").out = kept;
        for message in sent {
            self.deliver(id, message);
        }
        for (life, job) in jobs {
            let outcome = job.run();
            self.with(id.0, |p, now, out| p.flushed(life, outcome, now, out));
        }
        for (life, note) in notes {
            let node = self.nodes.get_mut(&id).expect("one of three");
            match note {
                Note::Directory => node.directory = true,
                Note::Policy(policy) => node.noted = Some(policy),
            }
            self.with(id.0, |p, now, out| p.noted(life, note, now, out));
        }
        for proposal in proposals {
            self.decide(id, proposal);
        }
        busy
    }

    fn decide(&mut self, id: BrokerId, proposal: IsrProposal) {
        let current = (proposal.leader_epoch, proposal.partition_epoch)
            == (self.view.leader_epoch, self.view.partition_epoch)
            && self.view.leader == Some(id);
        let outcome = if current {
            let isr = proposal.new_isr.iter().map(|(id, _)| *id).collect();
            self.commit(|view| view.isr = isr);
            IsrOutcome::Committed(self.view.partition_epoch)
        } else {
            IsrOutcome::Refused(ErrorCode::InvalidUpdateVersion)
        };
        let (life, attempt) = (proposal.life, proposal.attempt);
        self.with(id.0, |p, now, out| p.isr_result(life, attempt, outcome, now, out));
    }

    fn deliver(&mut self, from: BrokerId, message: Sent) {
        let to = match &message {
            Sent::ToLeader(leader, _) => *leader,
            Sent::ToFollower(to, _) | Sent::Push(to, _) => to.follower,
        };
        if self.cut_off.contains(&from) || self.cut_off.contains(&to) {
            return;
        }
        let broker_epoch = self.nodes[&from].epoch;
        let (input, hand) = match message {
            Sent::ToLeader(_, ToLeader::Subscribe(s)) => (Input::Subscribe(s), VecDeque::new()),
            Sent::ToLeader(_, ToLeader::Unsubscribe(subscription)) => {
                (Input::Unsubscribed { follower: from, subscription }, VecDeque::new())
            }
            Sent::ToLeader(_, ToLeader::Ack(ack)) => (Input::Ack(FollowerAck { broker_epoch, ..ack }), VecDeque::new()),
            Sent::ToFollower(to, message) => (told(to.number, message), VecDeque::new()),
            Sent::Push(to, push) => pushed(to.number, push),
        };
        self.with(to.0, |p, now, out| p.step_with(input, hand, now, out));
    }

    fn wait(&mut self, ms: u64) {
        self.now.at += ms;
        for id in ids() {
            self.with(id.0, |p, now, out| p.step(Input::Tick, now, out));
        }
        self.settle();
    }

    /// The stream of everything lost meanwhile breaks: followers ask anew.
    fn reconnect(&mut self) {
        self.cut_off.clear();
        self.view.leader_epoch = self.view.leader_epoch.next();
        self.commit(|_| {});
        self.wait(1_000);
    }

    /// Power is lost at one broker, and comes back: a new registration, as the proof of a synced log allows.
    fn power_cycle(&mut self, id: u32) {
        let id = BrokerId(id);
        let Node { storage, partition, noted, directory, .. } = self.nodes.remove(&id).expect("one of three");
        drop(partition);
        storage.crash(&mut || false);
        let epoch =
            BrokerEpoch(self.view.members.values().filter_map(|m| m.broker_epoch).map(|e| e.0).max().unwrap_or(0) + 1);
        self.view.members.get_mut(&id).expect("a member").broker_epoch = Some(epoch);
        self.start(id, storage, noted, directory);
    }

    fn log(&self, id: u32) -> (u64, u64, Bytes) {
        let log = &self.nodes[&BrokerId(id)].partition.log;
        let (start, end) = (log.start_offset(), log.end_offset());
        let (mut bytes, mut from) = (Vec::new(), start);
        while from < end {
            let more = log.read(from, 1 << 20, end, true).expect("readable");
            from = end_of(&more).expect("whole batches");
            bytes.extend_from_slice(&more);
        }
        let bytes = Bytes::from(bytes);
        (start, end, bytes)
    }

    fn assert_equal(&self, end: u64) {
        let reference = self.log(1);
        assert_eq!(reference.1, end);
        for id in [2, 3] {
            let (start, end, bytes) = self.log(id);
            assert_eq!((start, end, bytes.len()), (reference.0, reference.1, reference.2.len()), "broker {id} and 1");
            assert!(bytes == reference.2, "broker {id} and broker 1 differ");
        }
        for (id, node) in &self.nodes {
            assert_eq!(node.partition.replica.high_watermark(), end, "broker {id}");
            assert!(node.out.fatal.is_none(), "broker {id}: {:?}", node.out.fatal);
        }
    }

    fn written(&self, id: u32) -> usize {
        let replies = &self.nodes[&BrokerId(id)].out.replies;
        replies.iter().filter(|(_, o)| matches!(o, ProduceOutcome::Written { .. })).count()
    }
}

fn told(subscription: SubscriptionId, message: ToFollower) -> Input {
    match message {
        ToFollower::Started { leader_epoch, from, high_watermark, log_start } => {
            Input::Started { subscription, leader_epoch, from, high_watermark, log_start }
        }
        ToFollower::Diverged { leader_epoch, epoch, end } => Input::Diverged { subscription, leader_epoch, epoch, end },
        ToFollower::BeginAt { leader_epoch, log_start } => Input::BeginAt { subscription, leader_epoch, log_start },
        ToFollower::Refused(code) => Input::Refused { subscription, code },
    }
}

fn pushed(subscription: SubscriptionId, push: PushOut) -> (Input, VecDeque<Bytes>) {
    let PushOut { leader_epoch, high_watermark, log_start, batches, .. } = push;
    if batches.is_empty() {
        return (Input::Advance { subscription, leader_epoch, high_watermark, log_start }, VecDeque::new());
    }
    let hand: VecDeque<_> = protocol::batch::batches(&batches).map(|b| b.expect("whole")).collect();
    let span = |batch: &Bytes| {
        let header = protocol::batch::Header::parse(batch).expect("a header");
        let epoch = LeaderEpoch(header.leader_epoch.expect("stamped"));
        BatchSpan { base: header.base_offset, end: header.next_offset(), epoch }
    };
    let batches = hand.iter().map(span).collect();
    (Input::Pushed(Pushed { subscription, leader_epoch, batches, high_watermark, log_start }), hand)
}

#[test]
fn what_is_acknowledged_is_byte_for_byte_on_all_three_disks() {
    let mut trio = Trio::new();
    for n in 0..50 {
        trio.produce(1, &format!("value {n}"), 1 + n % 3, Acks::All);
        if n % 7 == 0 {
            trio.settle();
        }
    }
    trio.settle();
    assert_eq!(trio.written(1), 50);
    let end = trio.log(1).1;
    trio.assert_equal(end);
    for id in 1..=3 {
        assert_eq!(trio.nodes[&BrokerId(id)].partition.log.durable_end(), end);
        assert_eq!(trio.nodes[&BrokerId(id)].noted, Some(FlushPolicy::Sync));
    }
}

#[test]
fn nothing_is_acknowledged_before_its_bytes_are_durable() {
    let mut trio = Trio::new();
    trio.produce(1, "a", 1, Acks::All);
    for _ in 0..20 {
        for id in ids() {
            trio.with(id.0, |p, now, out| p.settle(now, out));
            let node = trio.nodes.get_mut(&id).expect("one of three");
            for message in std::mem::take(&mut node.out.sent) {
                trio.deliver(id, message);
            }
        }
    }
    assert_eq!(trio.written(1), 0, "appended everywhere, synced nowhere");
    trio.settle();
    assert_eq!(trio.written(1), 1);
}

#[test]
fn a_tail_that_nobody_else_has_is_cut_and_the_cut_counts_without_another_append() {
    let mut trio = Trio::new();
    trio.produce(1, "shared", 3, Acks::All);
    trio.settle();
    trio.cut_off = [BrokerId(1)].into();
    trio.produce(1, "alone", 2, Acks::All);
    trio.settle();
    assert_eq!((trio.log(1).1, trio.log(2).1), (5, 3));
    trio.lead(2);
    trio.settle();
    trio.produce(2, "instead", 1, Acks::All);
    trio.wait(600);
    assert_eq!(trio.view.isr, [BrokerId(2), BrokerId(3)].into());
    trio.reconnect();
    trio.assert_equal(4);
    assert_eq!(trio.written(1) + trio.written(2), 2);

    trio.cut_off = [BrokerId(1)].into();
    trio.lead(1);
    trio.produce(1, "alone again", 2, Acks::All);
    trio.settle();
    trio.lead(2);
    trio.reconnect();
    trio.assert_equal(4);
}

#[test]
fn a_replica_with_an_empty_disk_gets_everything_from_the_start_inside_a_batch_on() {
    let mut trio = Trio::new();
    for n in 0..40 {
        trio.produce(1, &format!("{n:0>500}"), 4, Acks::All);
    }
    trio.settle();
    let before = Some(90);
    let deadline = trio.now.at + 1_000;
    trio.with(1, |p, now, out| p.step(Input::DeleteRecords { id: RequestId(0), before, deadline }, now, out));
    trio.settle();
    assert_eq!(trio.nodes[&BrokerId(1)].out.deletes, [Ok(90)]);
    trio.commit(|view| {
        view.isr.remove(&BrokerId(3));
        view.members.get_mut(&BrokerId(3)).expect("a member").broker_epoch = Some(BrokerEpoch(9));
    });
    trio.format(BrokerId(3));
    trio.assign_all();
    trio.settle();
    trio.wait(1_000);
    trio.assert_equal(160);
    assert_eq!(trio.log(3).0, 90);
    assert_eq!(trio.view.isr.len(), 3, "and is in sync again");
}

#[test]
fn power_lost_everywhere_at_once_loses_nothing_acknowledged() {
    let mut trio = Trio::new();
    for n in 0..20 {
        trio.produce(1, &format!("kept {n}"), 2, Acks::All);
    }
    trio.settle();
    let kept = trio.log(1);
    trio.produce(1, "in flight", 1, Acks::All);
    for id in 1..=3 {
        trio.power_cycle(id);
    }
    trio.lead(2);
    trio.settle();
    trio.wait(1_000);
    trio.assert_equal(40);
    assert_eq!(trio.log(1), kept);
    trio.produce(2, "after", 1, Acks::All);
    trio.settle();
    trio.assert_equal(41);
}

#[test]
fn a_damaged_log_is_set_aside_before_the_process_stops() {
    let mut trio = Trio::new();
    for n in 0..60 {
        trio.produce(1, &format!("{n:0>1000}"), 1, Acks::All);
    }
    trio.settle();
    let node = &trio.nodes[&BrokerId(1)];
    let dir = node.partition.log.dir().to_owned();
    let segments = node.partition.log.segments();
    assert!(segments.len() > 2, "a sealed segment to damage");
    let file = node
        .storage
        .files_below(&dir)
        .expect("listable")
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "log"))
        .min()
        .expect("the first segment");
    let mut bytes = node.storage.contents(&file).expect("readable");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    node.storage.damage(&file, bytes).expect("damaged");
    let query = |offset| FetchQuery { offset, leader_epoch: None, last_fetched_epoch: None };
    let refused = (0..60).find_map(|offset| trio.with(1, |p, now, out| p.read(&query(offset), 1_000, now, out)).err());
    assert!(refused.is_some(), "the flipped bit is found by a read");
    let node = &trio.nodes[&BrokerId(1)];
    assert!(matches!(node.out.fatal, Some(Fatal::Disk(_))), "{:?}", node.out.fatal);
    assert!(!node.storage.exists(&dir).expect("listable"), "out of the way, so that the next start misses it");
}

#[test]
fn without_room_a_produce_is_refused_before_it_has_an_offset() {
    let mut trio = Trio::new();
    trio.produce(1, "a", 1, Acks::All);
    trio.settle();
    let full =
        |call: &Call<'_>| (call.op == Op::Preallocate).then(|| Fault::Fail(std::io::ErrorKind::StorageFull.into()));
    trio.nodes[&BrokerId(1)].storage.set_hook(Some(Box::new(full)));
    for _ in 0..200 {
        trio.produce(1, &"x".repeat(1_000), 1, Acks::All);
    }
    trio.settle();
    let refused = ProduceOutcome::Refused(ErrorCode::DiskFull);
    let node = &trio.nodes[&BrokerId(1)];
    assert!(node.out.replies.iter().any(|(_, outcome)| *outcome == refused));
    assert!(node.out.fatal.is_none(), "{:?}", node.out.fatal);
    let end = trio.log(1).1;
    assert_eq!(trio.written(1) as u64, end, "what was not refused was written");
    trio.assert_equal(end);
}

#[test]
fn a_follower_without_room_leaves_the_isr_and_comes_back_when_there_is_some() {
    let mut trio = Trio::new();
    trio.produce(1, "a", 1, Acks::All);
    trio.settle();
    trio.nodes.get_mut(&BrokerId(3)).expect("one of three").out.disk_full = true;
    for _ in 0..3 {
        trio.produce(1, "b", 1, Acks::All);
        trio.settle();
    }
    assert_eq!(trio.log(3).1, 1, "nothing is half written");
    assert_eq!(trio.written(1), 1, "a member of the ISR still counts");
    for _ in 0..4 {
        trio.wait(400);
    }
    assert!(!trio.view.isr.contains(&BrokerId(3)), "its lag takes it out");
    assert_eq!(trio.written(1), 4, "and the others go on");
    trio.nodes.get_mut(&BrokerId(3)).expect("one of three").out.disk_full = false;
    trio.wait(crate::replica::limits::NO_ROOM_PAUSE_MS);
    trio.wait(400);
    assert!(trio.view.isr.contains(&BrokerId(3)));
    trio.assert_equal(4);
    assert!(trio.nodes.values().all(|node| node.out.fatal.is_none()));
}

#[test]
fn without_room_heads_stay_and_deletes_are_refused_until_there_is_some() {
    let mut trio = Trio::new();
    for _ in 0..5 {
        trio.produce(1, "a", 1, Acks::All);
    }
    trio.settle();
    let full = |call: &Call<'_>| (call.op == Op::Create).then(|| Fault::Fail(std::io::ErrorKind::StorageFull.into()));
    for node in trio.nodes.values() {
        node.storage.set_hook(Some(Box::new(full)));
    }
    let deadline = trio.now.at + 10_000;
    let delete = |id| Input::DeleteRecords { id: RequestId(id), before: Some(3), deadline };
    trio.with(1, |p, now, out| p.step(delete(100), now, out));
    trio.settle();
    assert_eq!(trio.nodes[&BrokerId(1)].out.deletes, [Err(ErrorCode::DiskFull)]);
    assert!(ids().iter().all(|id| trio.log(id.0).0 == 0));
    trio.nodes[&BrokerId(1)].storage.set_hook(None);
    trio.with(1, |p, now, out| p.step(delete(101), now, out));
    trio.settle();
    assert_eq!((trio.log(1).0, trio.log(2).0), (3, 0), "a follower without room keeps its head");
    assert_eq!(trio.nodes[&BrokerId(1)].out.deletes.len(), 1, "and the delete waits for it");
    trio.nodes.values().for_each(|node| node.storage.set_hook(None));
    trio.wait(crate::replica::limits::NO_ROOM_PAUSE_MS);
    assert!(ids().iter().all(|id| trio.log(id.0).0 == 3), "it tries again by itself");
    assert_eq!(trio.nodes[&BrokerId(1)].out.deletes.last(), Some(&Ok(3)));
    assert!(trio.nodes.values().all(|node| node.out.fatal.is_none()));
}

#[test]
fn a_first_sync_that_cannot_be_noted_for_want_of_room_is_done_when_there_is_some() {
    let mut trio = Trio::new();
    let full = |call: &Call<'_>| {
        let state = call.path.to_string_lossy().ends_with("state.tmp");
        (state && call.op == Op::Create).then(|| Fault::Fail(std::io::ErrorKind::StorageFull.into()))
    };
    trio.nodes[&BrokerId(1)].storage.set_hook(Some(Box::new(full)));
    trio.produce(1, "a", 1, Acks::All);
    trio.settle();
    assert_eq!((trio.written(1), trio.nodes[&BrokerId(1)].out.fatal.is_none()), (0, true));
    trio.nodes[&BrokerId(1)].storage.set_hook(None);
    assert!(trio.with(1, |p, _, _| p.retry_flush()));
    trio.settle();
    assert_eq!(trio.written(1), 1);
    trio.assert_equal(1);
}
