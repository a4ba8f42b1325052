//! The loop of a shard: take what has come, step, settle what was touched, sleep until the next deadline.

use bytes::Bytes;
use log::data_dir::DataDir;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, TopicPartition};
use protocol::rpc::channel::Dialer;
use protocol::rpc::pb::data::v1 as data;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::leaders::Leaders;
use super::message::{Control, Produce, Request};
use super::world::{Open, World, WorldParts};
use super::{ShardQueues, ShardSender, Shards};
use crate::checkpoints::CheckpointWriter;
use crate::clock;
use crate::controller_queue::ControllerQueue;
use crate::disk_room::DiskRoom;
use crate::fatal::Halt;
use crate::flush_pool::FlushPool;
use crate::lease_cell::LeaseCell;
use crate::limits;
use crate::metadata::follower::Images;
use crate::metadata::reconcile::Local;
use crate::notes::NoteWriter;
use crate::partition::outside::Outside;
use crate::partition::{Opened, Partition, flushed_too_late};
use crate::replica::RoleName;
use crate::replica::effect::ProduceOutcome;
use crate::replica::input::{self, Input};
use crate::replica::lease::Now;
use crate::replica::read::WireState;

/// What a shard is made of.
pub struct ShardParts {
    /// Its number.
    pub index: usize,
    /// All shards.
    pub shards: Shards,
    /// The way into it.
    pub sender: ShardSender,
    /// Its queues.
    pub queues: ShardQueues,
    /// This broker.
    pub me: BrokerId,
    /// Its data directory.
    pub data: Arc<DataDir>,
    /// Partitions of this shard that recovery found.
    pub recovered: BTreeMap<TopicPartition, Opened>,
    /// The lease.
    pub lease: LeaseCell,
    /// Syncs.
    pub flush_pool: FlushPool,
    /// The registry's writer.
    pub notes: NoteWriter,
    /// The way to the controller.
    pub controller: ControllerQueue,
    /// Published images: leaders' addresses.
    pub images: Arc<Images>,
    /// How leaders are dialled.
    pub dialer: Dialer,
    /// Remembered high watermarks.
    pub checkpoints: CheckpointWriter,
    /// Numbers replicas of this process.
    pub slots: Arc<AtomicU32>,
    /// Whether the disk has room for more records.
    pub disk: Arc<DiskRoom>,
    /// The end of the road.
    pub halt: Halt,
}

/// State in answers about a partition that is not here.
const NOTHING_HERE: WireState = WireState { leader_epoch: LeaderEpoch(0), high_watermark: None, log_start: 0 };

/// See [`super`].
pub struct Shard {
    pub(super) index: usize,
    pub(super) shards: Shards,
    queues: ShardQueues,
    pub(super) me: BrokerId,
    pub(super) epoch: Option<BrokerEpoch>,
    pub(super) data: Arc<DataDir>,
    pub(super) recovered: BTreeMap<TopicPartition, Opened>,
    pub(super) partitions: BTreeMap<TopicPartition, Partition>,
    pub(super) local: BTreeMap<TopicPartition, Local>,
    /// An image that holds our registration was planned for; from then on deltas suffice.
    pub(super) planned: bool,
    pub(super) world: World,
    deadlines: BTreeSet<(Millis, TopicPartition)>,
    deadline_of: BTreeMap<TopicPartition, Millis>,
    pub(super) images: Arc<Images>,
    pub(super) dialer: Dialer,
    pub(super) checkpoints: CheckpointWriter,
    pub(super) slots: Arc<AtomicU32>,
    pub(super) housekeeping: super::housekeeping::Housekeeping,
    stopped: bool,
}

impl Shard {
    /// Takes its parts.
    #[must_use]
    pub fn new(parts: ShardParts) -> Self {
        let world = World::new(WorldParts {
            me: parts.me,
            shard: parts.sender,
            lease: parts.lease,
            leaders: Leaders::default(),
            flush_pool: parts.flush_pool,
            notes: parts.notes,
            controller: parts.controller,
            disk: parts.disk,
            halt: parts.halt,
        });
        Self {
            index: parts.index,
            shards: parts.shards,
            queues: parts.queues,
            me: parts.me,
            epoch: None,
            data: parts.data,
            local: parts.recovered.keys().map(|at| (*at, Local::Closed)).collect(),
            recovered: parts.recovered,
            partitions: BTreeMap::new(),
            planned: false,
            world,
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            images: parts.images,
            dialer: parts.dialer,
            checkpoints: parts.checkpoints,
            slots: parts.slots,
            housekeeping: super::housekeeping::Housekeeping::new(parts.index, clock::now()),
            stopped: false,
        }
    }

    /// Runs until told to stop. To be driven on the shard's own thread.
    pub async fn run(mut self) {
        let mut requests = Vec::with_capacity(limits::SHARD_TURN);
        while !self.stopped {
            let wait = self.until_next();
            tokio::select! {
                biased;
                message = self.queues.control.recv() => match message {
                    Some(message) => self.on_control(message),
                    None => return,
                },
                count = self.queues.requests.recv_many(&mut requests, limits::SHARD_TURN) => {
                    if count == 0 {
                        return;
                    }
                    for request in requests.drain(..) {
                        self.on_request(request);
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            for _ in 0..limits::SHARD_TURN {
                let Ok(message) = self.queues.control.try_recv() else { break };
                self.on_control(message);
            }
            self.finish_turn();
            // Connections live on this thread: let them send what this turn answered.
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn now(&self) -> Now {
        self.world.lease.now()
    }

    fn until_next(&self) -> Duration {
        let now = clock::now();
        if !self.world.touched.is_empty() {
            return Duration::ZERO;
        }
        let deadline = self.deadlines.first().map_or(Millis::MAX, |(at, _)| *at).min(self.housekeeping.next());
        Duration::from_millis(deadline.saturating_sub(now))
    }

    /// Steps an input on a partition that is here; false if it is not.
    pub(super) fn step(&mut self, at: TopicPartition, input: Input) -> bool {
        self.step_with(at, input, VecDeque::new())
    }

    pub(super) fn step_with(&mut self, at: TopicPartition, input: Input, hand: VecDeque<Bytes>) -> bool {
        let now = self.now();
        let Some(partition) = self.partitions.get_mut(&at) else { return false };
        partition.step_with(input, hand, now, &mut self.world);
        self.world.touched.insert(at);
        true
    }

    fn on_control(&mut self, message: Control) {
        let now = self.now();
        match message {
            Control::Image { image, change, done } => {
                self.take_image(image, &change);
                done.send(()).ok();
            }
            Control::Registered(epoch) => {
                self.epoch = Some(epoch);
                self.plan_everything();
            }
            Control::Flushed { life, outcome } => match self.partitions.get_mut(&life.at) {
                Some(partition) => {
                    partition.flushed(life, outcome, now, &mut self.world);
                    self.world.touched.insert(life.at);
                }
                None => flushed_too_late(life, outcome, &mut self.world),
            },
            Control::Noted { life, note } => {
                if let Some(partition) = self.partitions.get_mut(&life.at) {
                    partition.noted(life, note, now, &mut self.world);
                    self.world.touched.insert(life.at);
                }
            }
            Control::Isr { life, attempt, outcome } => {
                if let Some(partition) = self.partitions.get_mut(&life.at) {
                    partition.isr_result(life, attempt, outcome, now, &mut self.world);
                    self.world.touched.insert(life.at);
                }
            }
            Control::ActiveControllerChanged => self.report_again(),
            Control::Stop { done } => {
                done.send(self.close_all()).ok();
                self.stopped = true;
            }
        }
    }

    pub(super) fn report_again(&mut self) {
        for (at, partition) in &self.partitions {
            if let Some(report) = partition.replica().log_end_report() {
                self.world.report_log_end(*at, report);
            }
        }
    }

    /// Ends every partition cleanly; whether all of them did.
    fn close_all(&mut self) -> bool {
        let mut clean = true;
        let opened = std::mem::take(&mut self.recovered).into_values().map(|opened| opened.log.close_clean());
        let running = std::mem::take(&mut self.partitions).into_values().map(Partition::close);
        for result in opened.chain(running) {
            if let Err(error) = result {
                tracing::error!(%error, "a partition was not closed cleanly");
                clean = false;
            }
        }
        self.checkpoints.remember(std::mem::take(&mut self.world.checkpoints).into_iter().collect());
        clean
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Produce(produce) => self.produce(produce),
            Request::Read(read) => self.read(read),
            Request::ListOffset(list) => self.list_offset(list),
            Request::DeleteRecords(delete) => self.delete_records(delete),
            Request::Describe { at, reply } => {
                reply.send(self.describe(at)).ok();
            }
            Request::FromFollower { stream, event } => self.from_follower(&stream, event),
            Request::FromLeader { leader, event } => self.from_leader(leader, event),
        }
    }

    fn produce(&mut self, produce: Produce) {
        let Produce { at, acks, deadline, leader_epoch, info, batch, reply } = produce;
        let now = self.now();
        let (bytes, offsets) = (batch.len(), info.header.last_offset_delta.saturating_add(1));
        let id = self.world.enter(Open::Produce { reply, began: now.at, bytes: bytes as u64 });
        let Some(partition) = self.partitions.get_mut(&at) else {
            let outcome = ProduceOutcome::Refused(self.absent(at).code);
            return self.world.reply(at, id, outcome, NOTHING_HERE);
        };
        let leads = matches!(partition.replica().role(), RoleName::Leader(_));
        if leads && !self.world.disk.take(bytes) {
            let state = partition.replica().wire_state();
            return self.world.reply(at, id, ProduceOutcome::Refused(ErrorCode::DiskFull), state);
        }
        let end = partition.log().end_offset();
        let request = input::Produce {
            id,
            acks,
            deadline,
            leader_epoch,
            offsets,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        };
        partition.produce(request, batch, now, &mut self.world);
        if leads && partition.log().end_offset() == end {
            self.world.disk.give_back(bytes);
        }
        self.world.touched.insert(at);
    }

    /// Why a partition that is not here is not here.
    pub(super) fn absent(&self, at: TopicPartition) -> ApiError {
        let topic = self.world.image.topics.get(at.topic).filter(|t| t.is_live());
        let code = match topic {
            None => ErrorCode::UnknownTopic,
            Some(topic) if topic.partition(at.partition).is_none() => ErrorCode::UnknownPartition,
            Some(_) => ErrorCode::NotLeader,
        };
        super::world::refusal(&self.world.image, at, code)
    }

    /// State in answers about a partition that is not here.
    pub(super) fn no_state(&self) -> data::DataState {
        self.world.state(NOTHING_HERE, self.world.lease.get())
    }

    fn finish_turn(&mut self) {
        let now = self.now();
        while let Some((_, at)) = self.deadlines.first().filter(|(due, _)| *due <= now.at).copied() {
            self.forget_deadline(at);
            self.step(at, Input::Tick);
        }
        for at in std::mem::take(&mut self.world.touched) {
            if let Some(partition) = self.partitions.get_mut(&at) {
                partition.settle(now, &mut self.world);
                let due = partition.replica().next_deadline(now.at);
                self.set_deadline(at, due);
            }
        }
        self.dial_leaders();
        if now.at >= self.housekeeping.next() {
            self.keep_house(now);
        }
    }

    pub(super) fn forget_deadline(&mut self, at: TopicPartition) {
        if let Some(due) = self.deadline_of.remove(&at) {
            self.deadlines.remove(&(due, at));
        }
    }

    fn set_deadline(&mut self, at: TopicPartition, due: Option<Millis>) {
        self.forget_deadline(at);
        if let Some(due) = due {
            self.deadline_of.insert(at, due);
            self.deadlines.insert((due, at));
        }
    }
}
