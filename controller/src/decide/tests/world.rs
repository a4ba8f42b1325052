//! A small cluster in memory for the decider's tests: image, soft state and a clock moved by hand. Every batch is
//! encoded, bounded and applied as a controller would, so an illegal fact or an oversized entry fails any test.

use crate::decide::batch::{Plan, run_batch};
use crate::decide::command::*;
use crate::decide::sessions::{HeartbeatDecision, Sessions};
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerEpoch, BrokerId, TopicId, TopicPartition};
use protocol::metadata::batch::{BATCH_BYTES_MAX, MetadataBatch};
use protocol::metadata::brokers::{Broker, BrokerView};
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{ClusterFormed, Endpoint, Fact};
use protocol::metadata::topics::Partition;
use protocol::timers::Timers;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Wall clock when the monotonic one stands at 0.
pub(in crate::decide) const WALL_0: u64 = 1_700_000_000_000;

pub(in crate::decide) struct World {
    pub(in crate::decide) image: MetadataImage,
    pub(in crate::decide) sessions: Sessions,
    pub(in crate::decide) mono: u64,
    pub(in crate::decide) streams: BTreeMap<u32, u64>,
    pub(in crate::decide) last_facts: Vec<Fact>,
}

pub(in crate::decide) fn b(id: u32) -> BrokerId {
    BrokerId(id)
}

pub(in crate::decide) fn bs(ids: &[u32]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

pub(in crate::decide) fn topic_id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

pub(in crate::decide) fn timers() -> Timers {
    Timers::from_rtt(20)
}

impl World {
    /// A formed cluster without brokers, this controller active since time 10,000.
    pub(in crate::decide) fn empty() -> Self {
        let mut world = Self {
            image: MetadataImage::default(),
            sessions: Sessions::new(timers()),
            mono: 10_000,
            streams: BTreeMap::new(),
            last_facts: Vec::new(),
        };
        let formed = ClusterFormed { cluster_id: Uuid::from_u128(1), incarnation: 1, metadata_version: 1 };
        world.apply(vec![Fact::ClusterFormed(formed)]);
        world.sessions.takeover(world.image.batch_no, world.mono);
        world
    }

    /// Brokers 1 to n, active, spread over three data centres.
    pub(in crate::decide) fn of(brokers: u32) -> Self {
        let places: Vec<_> = (1..=brokers).map(|id| format!("eu/dc{}/r1", (id - 1) % 3 + 1)).collect();
        Self::at(&places.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Brokers 1.. at these places, active.
    pub(in crate::decide) fn at(places: &[&str]) -> Self {
        let mut world = Self::empty();
        for (id, place) in (1_u32..).zip(places) {
            world.start(id, place, 1);
        }
        world
    }

    /// Takes a broker from nothing to active.
    pub(in crate::decide) fn start(&mut self, id: u32, place: &str, process: u32) {
        let mut command = self.registration(id, process);
        command.locality = place.parse().expect("a legal locality");
        self.run(Command::Register(command)).expect("registered");
        self.prove(id, &[]);
        self.unfence(id);
        assert!(self.broker(id).is_active(), "{:?}", self.why(id));
    }

    pub(in crate::decide) fn now(&self) -> Now {
        Now { mono: self.mono, wall: WALL_0 + self.mono }
    }

    pub(in crate::decide) fn broker(&self, id: u32) -> &Broker {
        self.image.brokers.get(b(id)).expect("registered")
    }

    pub(in crate::decide) fn epoch(&self, id: u32) -> BrokerEpoch {
        self.broker(id).epoch
    }

    pub(in crate::decide) fn why(&self, id: u32) -> Vec<String> {
        crate::decide::brokers::why_fenced(&self.image, &self.sessions, self.broker(id), self.mono)
    }

    pub(in crate::decide) fn partition(&self, at: TopicPartition) -> &Partition {
        self.image.topics.partition(at).expect("exists")
    }

    /// One batch.
    pub(in crate::decide) fn batch(&mut self, commands: &[Command]) -> Plan {
        let now = self.now();
        let plan = run_batch(&self.image, &mut self.sessions, now, commands);
        self.last_facts.clone_from(&plan.facts);
        if !plan.facts.is_empty() {
            self.apply(plan.facts.clone());
        }
        self.sessions.settled(true);
        plan
    }

    /// Folds facts that no command decided, as another controller's batch would.
    pub(in crate::decide) fn apply(&mut self, facts: Vec<Fact>) {
        let batch = MetadataBatch { base: self.image.batch_no, facts };
        let bytes = batch.encode();
        assert!(bytes.len() <= BATCH_BYTES_MAX, "a batch of {} bytes", bytes.len());
        let (image, _) = self.image.apply(&batch, &bytes).expect("a decided batch applies");
        self.image = image;
    }

    /// One command, and all work that follows.
    pub(in crate::decide) fn run(&mut self, command: Command) -> Result<Reply, ApiError> {
        let mut plan = self.batch(&[command]);
        let reply = plan.replies.remove(0);
        if plan.more {
            self.work();
        }
        reply
    }

    /// Work until none is left.
    pub(in crate::decide) fn work(&mut self) {
        for _ in 0..1_000 {
            if !self.batch(&[Command::Tick]).more {
                return;
            }
        }
        panic!("work does not end");
    }

    pub(in crate::decide) fn refused(&mut self, command: Command) -> ApiError {
        let before = self.image.clone();
        let error = self.run(command).map(drop).expect_err("must be refused");
        assert_eq!(before, self.image, "a refusal changes nothing");
        error
    }

    pub(in crate::decide) fn heartbeat(&self, id: u32) -> Heartbeat {
        Heartbeat {
            broker: b(id),
            epoch: self.epoch(id),
            stream: self.streams.get(&id).copied().unwrap_or(1),
            applied: self.image.batch_no,
            wants_unfence: false,
            wants_shutdown: false,
        }
    }

    /// Delivers a heartbeat to the active controller and runs what it submits.
    pub(in crate::decide) fn beat(&mut self, heartbeat: Heartbeat) -> HeartbeatDecision {
        let decision = self.sessions.answer_heartbeat(&self.image, &heartbeat, self.mono, true);
        if let HeartbeatDecision::Answer { submit: true, .. } = decision {
            self.run(Command::Heartbeat(heartbeat)).expect("a submitted heartbeat is decided");
        }
        decision
    }

    /// Asks to be unfenced.
    pub(in crate::decide) fn unfence(&mut self, id: u32) {
        let heartbeat = Heartbeat { wants_unfence: true, ..self.heartbeat(id) };
        self.beat(heartbeat);
    }

    /// A whole proof in one chunk.
    pub(in crate::decide) fn prove(&mut self, id: u32, proved: &[TopicPartition]) {
        let command = ProveRestart { broker: b(id), epoch: self.epoch(id), proved: proved.to_vec(), last: true };
        self.run(Command::ProveRestart(command)).expect("a proof is taken");
    }

    /// Lets time pass in steps of 100 ms; these brokers send heartbeats, the controller ticks.
    pub(in crate::decide) fn pass(&mut self, ms: u64, alive: &[u32]) {
        for _ in 0..ms.div_ceil(100) {
            self.mono += 100;
            for id in alive {
                self.beat(self.heartbeat(*id));
            }
            self.work();
        }
    }

    /// Time passes and heartbeats of these brokers come in, but no batch is decided.
    pub(in crate::decide) fn listen(&mut self, ms: u64, alive: &[u32]) {
        for _ in 0..ms.div_ceil(100) {
            self.mono += 100;
            for id in alive {
                let heartbeat = self.heartbeat(*id);
                self.sessions.note_heartbeat(&self.image, &heartbeat, self.mono);
            }
        }
    }

    /// Silence of these brokers until they are fenced; the others live.
    pub(in crate::decide) fn kill(&mut self, dead: &[u32]) {
        let alive: Vec<u32> = self.image.brokers.iter().map(|b| b.id.0).filter(|id| !dead.contains(id)).collect();
        let wait = timers().session_timeout_ms + timers().lease_ms + 200;
        self.pass(wait, &alive);
        for id in dead {
            assert!(self.broker(*id).is_fenced(), "broker {id} is still {:?}", self.broker(*id).state);
        }
    }

    /// What a process sends that sees the image as it is.
    pub(in crate::decide) fn registration(&self, id: u32, process: u32) -> Register {
        Register { seen: self.image.brokers.view(b(id)), ..register(id, process) }
    }

    /// A new process over the same directory registers; not yet proved.
    pub(in crate::decide) fn restart(&mut self, id: u32, process: u32) -> Registered {
        let mut command = self.registration(id, process);
        command.locality = self.broker(id).locality.clone();
        command.previous_epoch = Some(self.epoch(id));
        match self.run(Command::Register(command)) {
            Ok(Reply::Registered(registered)) => registered,
            other => panic!("not registered: {other:?}"),
        }
    }

    /// Creates a topic and says where partition 0 is.
    pub(in crate::decide) fn topic(
        &mut self,
        name: &str,
        partitions: u32,
        replicas: u32,
        configs: &[(&str, &str)],
    ) -> TopicPartition {
        let command = create(name, partitions, replicas, configs);
        let topic = command.topic;
        self.run(Command::CreateTopic(command)).expect("created");
        TopicPartition { topic, partition: 0 }
    }

    /// The leader proposes an ISR with current epochs everywhere.
    pub(in crate::decide) fn proposal(&self, at: TopicPartition, isr: &[u32]) -> AlterPartition {
        let state = self.partition(at);
        AlterPartition {
            at,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            isr: isr.iter().map(|id| (b(*id), self.epoch(*id))).collect(),
        }
    }

    pub(in crate::decide) fn alter(&mut self, leader: u32, proposal: AlterPartition) -> AlterResult {
        let command = AlterPartitions { broker: b(leader), epoch: self.epoch(leader), partitions: vec![proposal] };
        match self.run(Command::AlterPartitions(command)) {
            Ok(Reply::Altered(mut results)) => results.remove(0),
            other => panic!("no results: {other:?}"),
        }
    }

    /// Brings the partition's ISR to these members through its leader.
    pub(in crate::decide) fn set_isr(&mut self, at: TopicPartition, isr: &[u32]) {
        let leader = self.partition(at).leader.expect("led").0;
        let result = self.alter(leader, self.proposal(at, isr));
        assert_eq!(result.error, None);
        assert_eq!(self.partition(at).isr, bs(isr));
    }

    /// (leader, ISR, ELR) by number.
    pub(in crate::decide) fn places(&self, at: TopicPartition) -> (Option<u32>, Vec<u32>, Vec<u32>) {
        let state = self.partition(at);
        let ids = |list: &[BrokerId]| {
            let mut ids: Vec<_> = list.iter().map(|b| b.0).collect();
            ids.sort_unstable();
            ids
        };
        (state.leader.map(|b| b.0), ids(&state.isr), ids(&state.elr))
    }
}

pub(in crate::decide) fn register(id: u32, process: u32) -> Register {
    let endpoint = |port| Endpoint { host: format!("b{id}"), port };
    Register {
        broker: b(id),
        incarnation: Uuid::from_u128(u128::from(id) << 32 | u128::from(process)),
        internal: endpoint(1_001),
        client: endpoint(1_000),
        locality: "eu/dc1/r1".parse().expect("a legal locality"),
        directories: vec![Uuid::from_u128(0xd0 << 32 | u128::from(id))],
        min_metadata_version: 1,
        max_metadata_version: 1,
        previous_epoch: None,
        seen: BrokerView::default(),
    }
}

pub(in crate::decide) fn create(name: &str, partitions: u32, replicas: u32, configs: &[(&str, &str)]) -> CreateTopic {
    let id = name.bytes().fold(7_u128, |id, byte| id.wrapping_mul(257) + u128::from(byte));
    CreateTopic {
        topic: topic_id(id),
        seed: id as u64,
        at_ms: WALL_0,
        name: name.to_owned(),
        partitions,
        replicas: Some(replicas),
        configs: configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        validate_only: false,
    }
}

/// A refusal names all three.
pub(in crate::decide) fn assert_names(error: &ApiError, code: ErrorCode, field: &str, value: &str) {
    assert_eq!((error.code, error.field.as_str(), error.value.as_str()), (code, field, value), "{error}");
    assert!(!error.limit.is_empty(), "{error}");
}
