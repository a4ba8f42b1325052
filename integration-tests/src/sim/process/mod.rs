//! One broker process: the shells' work done synchronously, one input at a time, over the real cores and log.
//!
//! Never: knows the world's time or draws a random number. What takes time is asked for and comes back as a message.

mod life;
mod look;
mod serve;

use super::buggify::Point;
use super::clock::Clock;
use super::laws::{Law, Laws};
use super::node::{ROOT, Remembered};
use super::outbox::{Out, Outbox};
use super::sometimes::Sometimes;
use super::told::{Told, Who};
use super::wire::{Answer, Attempt, ToBroker, Wish};
use broker::checkpoints::Checkpoints;
use broker::evidence::Evidence;
use broker::lifecycle::state::{Input as LifeInput, Lifecycle};
use broker::metadata::feed::FeedReader;
use broker::metadata::reconcile::Local;
use broker::notes::{key, stored_policy};
use broker::partition::note::Note;
use broker::partition::outside::{Life, Subscription};
use broker::partition::{Opened, Partition, flushed_too_late};
use broker::recovery::recover;
use broker::replica::effect::{LogEndReport, ToFollower};
use broker::replica::input::{Input, RequestId};
use broker::replica::{Lease, Now, RoleName};
use bytes::Bytes;
use controller::decide::command::{AlterPartition, AlterPartitions};
use log::data_dir::{DataDir, Expected, Role};
use log::registry::{Event, Registry};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use log::{FlushJob, Flushed, LogError};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, Millis, TopicPartition};
use protocol::metadata::image::MetadataImage;
use protocol::timers::Timers;
use serve::Request;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

/// How often logs that have gone idle are marked and retention looks, ms.
const HOUSE_MS: Millis = 700;

/// What a process is started with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) id: BrokerId,
    pub(super) life: u64,
    pub(super) timers: Timers,
    pub(super) incarnation: Uuid,
    pub(super) clock: Clock,
    pub(super) buggify: u64,
}

/// Where the feed of this process comes from.
#[derive(Debug, Default)]
pub(super) struct FeedState {
    /// Which controller.
    pub(super) source: usize,
    /// Counts streams; an item of an earlier one is dropped.
    pub(super) stream: u64,
    reader: FeedReader,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) setup: Setup,
    data: Arc<DataDir>,
    remembered: Arc<Remembered>,
    registry: Registry,
    recovered: BTreeMap<TopicPartition, Opened>,
    evidence: Evidence,
    pub(super) claimed: BrokerEpoch,
    pub(super) admissible: bool,
    lifecycle: Lifecycle,
    /// The image holds a formed cluster: registration may begin.
    may_register: bool,
    lease: Lease,
    pub(super) image: MetadataImage,
    pub(super) feed: FeedState,
    planned: bool,
    local: BTreeMap<TopicPartition, Local>,
    partitions: BTreeMap<TopicPartition, Partition>,
    slots: u32,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    flushes: BTreeMap<u64, (Life, FlushJob)>,
    next_flush: u64,
    /// Flushes that are done and of which nobody has heard.
    flushed: BTreeMap<u64, (Life, Flushed)>,
    leaving: BTreeMap<u64, serve::Leaving>,
    next_leaving: u64,
    /// What is due for which partition, on this node's clock.
    deadlines: BTreeMap<TopicPartition, Millis>,
    house_at: Millis,
    retain_at: Millis,
    /// The disk has no room for records at present.
    pub(super) full: bool,
    cut_before: u64,
    /// Segments and cuts of each log, as last seen.
    shapes: BTreeMap<TopicPartition, (usize, u64)>,
    /// Partitions that the present turn touched.
    pub(super) touched: BTreeSet<TopicPartition>,
    /// Flushes begun in this turn; the world says when they run.
    pub(super) started: Vec<u64>,
    /// Flushes that are done; the world says when they are heard of.
    pub(super) finished: Vec<u64>,
    /// Answers that leave later; the world says when.
    pub(super) delayed: Vec<u64>,
    /// Answers that left in this turn.
    pub(super) answers: Vec<(u64, Answer)>,
    /// What partitions asked for in this turn and the world must carry.
    pub(super) outgoing: Vec<Out>,
    pub(super) wishes: Vec<Wish>,
    pub(super) seen: Vec<Sometimes>,
}

impl Process {
    /// A start: locks and recovers the data directory, as a broker does before it opens a socket.
    pub(super) fn start(setup: Setup, disk: &MemStorage, remembered: Arc<Remembered>) -> Result<Self, String> {
        let id = setup.id;
        let text = |e: &dyn std::fmt::Display| Law::SoundDisksStart.broken(format!("broker {id} cannot start: {e}"));
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let expected = Expected { cluster_id: None, node_id: id.0, role: Role::Broker };
        let data = DataDir::open(storage, Path::new(ROOT), &expected).map_err(|e| text(&e))?;
        let mut evidence = broker::recovery::take_evidence(&data).map_err(|e| text(&e))?;
        let mut registry = Registry::open(data.storage(), &data.registry_dir()).map_err(|e| text(&e))?;
        let found = recover(&data, &mut registry, &*remembered, 1).map_err(|e| text(&e))?;
        evidence.found = found.found;
        data.clear_clean_shutdown().map_err(|e| text(&e))?;
        let local = found.partitions.keys().map(|at| (*at, Local::Closed)).collect();
        let mut seen = Vec::new();
        if evidence.clean.is_some() {
            seen.push(Sometimes::CleanRestart);
        }
        if found.partitions.values().any(|opened| opened.damaged) {
            seen.push(Sometimes::DamageFound);
        }
        let source = usize::try_from(id.0).unwrap_or(0);
        Ok(Self {
            setup,
            data: Arc::new(data),
            remembered,
            registry,
            recovered: found.partitions,
            evidence,
            claimed: BrokerEpoch(0),
            admissible: false,
            lifecycle: Lifecycle::new(setup.timers),
            may_register: false,
            lease: Lease::NONE,
            image: MetadataImage::default(),
            feed: FeedState { source, ..FeedState::default() },
            planned: false,
            local,
            partitions: BTreeMap::new(),
            slots: 0,
            requests: BTreeMap::new(),
            next_request: 0,
            flushes: BTreeMap::new(),
            next_flush: 0,
            flushed: BTreeMap::new(),
            leaving: BTreeMap::new(),
            next_leaving: 0,
            deadlines: BTreeMap::new(),
            house_at: 0,
            retain_at: 0,
            full: false,
            cut_before: 0,
            shapes: BTreeMap::new(),
            touched: BTreeSet::new(),
            started: Vec::new(),
            finished: Vec::new(),
            delayed: Vec::new(),
            answers: Vec::new(),
            outgoing: Vec::new(),
            wishes: vec![Wish::Follow],
            seen,
        })
    }

    pub(super) fn who(&self) -> Who {
        Who { id: self.setup.id, life: self.setup.life }
    }

    fn is(&self, point: Point) -> bool {
        point.is_on(self.setup.buggify)
    }

    fn outbox(&self) -> Outbox {
        Outbox { out: Vec::new(), full: self.full, credits: !self.is(Point::CreditsScarce) }
    }

    fn now(&self, now: Millis) -> Now {
        Now { at: self.setup.clock.shows(now), lease: self.lease }
    }

    /// Takes one message and does everything that follows from it. `now` is the world's.
    pub(super) fn take(&mut self, message: ToBroker, now: Millis, laws: &mut Laws) -> Result<(), String> {
        self.touched.clear();
        match message {
            ToBroker::Wake => self.wake(now),
            ToBroker::ActiveStands(batch_no) => self.live(LifeInput::ActiveStands(batch_no), now),
            ToBroker::Registered(Ok(registered)) => {
                self.admissible = registered.proof_admissible;
                laws.tally.proofs += u64::from(self.admissible);
                self.seen.push(if self.admissible { Sometimes::ProvedRestart } else { Sometimes::UnprovedRestart });
                self.live(LifeInput::Registered { epoch: registered.epoch }, now);
            }
            ToBroker::Registered(Err(code)) => {
                self.seen.extend((code == ErrorCode::StaleBrokerView).then_some(Sometimes::StaleRegistration));
                self.live(LifeInput::RegisterFailed(code), now);
            }
            ToBroker::ProofTaken(Ok(())) => self.live(LifeInput::ProofTaken, now),
            ToBroker::ProofTaken(Err(code)) => self.live(LifeInput::ProofFailed(code), now),
            ToBroker::Answer(answer) => self.live(LifeInput::Answer(answer), now),
            ToBroker::Feed { stream, item } => self.fed(stream, item, now, laws)?,
            ToBroker::FeedBroke(stream, _) => self.change_source(stream),
            ToBroker::Partition { at, input, hand, .. } => self.step(at, *input, hand, now),
            ToBroker::IsrResult { attempt: Attempt { life, number }, outcome } => {
                laws.observe(now, &Told::AlterAnswered { who: self.who(), at: life.at, attempt: number })?;
                if self.partitions.get(&life.at).is_none_or(|p| !matches!(p.replica().role(), RoleName::Leader(_))) {
                    self.seen.push(Sometimes::StaleIsrAnswer);
                }
                self.with(life.at, now, |p, now, out| p.isr_result(life, number, outcome, now, out));
            }
            ToBroker::RunFlush(number) => self.run_flush(number, now),
            ToBroker::HearFlush(number) => {
                if let Some((life, flushed)) = self.flushed.remove(&number) {
                    self.hear_flush(life, Ok(flushed), now);
                }
            }
            ToBroker::Noted(life, note) => self.note(life, note, now),
            ToBroker::Ask { op, at, ask } => self.ask(op, at, ask, now, laws)?,
            ToBroker::Leave(number) => self.leave(number, now, laws)?,
            ToBroker::Stop => self.live(LifeInput::Stop, now),
        }
        self.settle(now, laws)
    }

    fn wake(&mut self, now: Millis) {
        self.live(LifeInput::Tick, now);
        let local = self.setup.clock.shows(now);
        let due: Vec<_> = self.deadlines.iter().filter(|(_, due)| **due <= local).map(|(at, _)| *at).collect();
        for at in due {
            self.deadlines.remove(&at);
            self.step(at, Input::Tick, VecDeque::new(), now);
        }
        if local >= self.house_at {
            self.house_at = local + if self.is(Point::BusyHouse) { HOUSE_MS / 10 } else { HOUSE_MS };
            self.keep_house(now);
        }
    }

    /// When it wants to be woken, on the world's clock.
    pub(super) fn due(&self) -> Millis {
        let partitions = self.deadlines.values().copied().min();
        let due = [partitions, self.lifecycle.next_deadline()].into_iter().flatten().fold(self.house_at, Millis::min);
        self.setup.clock.when(due)
    }

    fn step(&mut self, at: TopicPartition, input: Input, hand: VecDeque<Bytes>, now: Millis) {
        let moment = self.now(now);
        let mut out = self.outbox();
        self.touched.insert(at);
        match (self.partitions.get_mut(&at), input) {
            (Some(partition), input) => partition.step_with(input, hand, moment, &mut out),
            // As a shard does for a partition that it does not run (yet).
            (None, Input::Subscribe(s)) => {
                let to = Subscription { at, follower: s.follower, number: s.subscription };
                out.out.push(Out::ToFollower(to, ToFollower::Refused(ErrorCode::UnknownPartition)));
            }
            (None, _) => {}
        }
        self.outgoing.append(&mut out.out);
    }

    fn run_flush(&mut self, number: u64, now: Millis) {
        let Some((life, job)) = self.flushes.remove(&number) else { return };
        match job.unless(protocol::planted::Bug::PartitionSync).run() {
            Ok(flushed) if self.is(Point::LateFlushes) => {
                self.flushed.insert(number, (life, flushed));
                self.finished.push(number);
            }
            outcome => self.hear_flush(life, outcome, now),
        }
    }

    fn hear_flush(&mut self, life: Life, outcome: Result<Flushed, LogError>, now: Millis) {
        if self.partitions.contains_key(&life.at) {
            return self.with(life.at, now, |p, now, out| p.flushed(life, outcome, now, out));
        }
        let mut out = self.outbox();
        flushed_too_late(life, outcome, &mut out);
        self.outgoing.append(&mut out.out);
    }

    /// What a shard does with an answer to one of its partitions: one that is not here any more hears nothing.
    fn with(&mut self, at: TopicPartition, now: Millis, run: impl FnOnce(&mut Partition, Now, &mut Outbox)) {
        let moment = self.now(now);
        let mut out = self.outbox();
        self.touched.insert(at);
        if let Some(partition) = self.partitions.get_mut(&at) {
            run(partition, moment, &mut out);
        }
        self.outgoing.append(&mut out.out);
    }

    fn note(&mut self, life: Life, note: Note, now: Millis) {
        let event = match note {
            Note::Directory => Event::DirCreated,
            Note::Policy(policy) => Event::PolicyNoted(stored_policy(policy)),
        };
        if self.record(life.at, event) {
            self.with(life.at, now, |p, now, out| p.noted(life, note, now, out));
        }
    }

    /// Makes an event durable in the registry; false: the process dies of it.
    fn record(&mut self, at: TopicPartition, event: Event) -> bool {
        let recorded = self.registry.record(&[(key(at), event)]);
        if let Err(error) = &recorded {
            self.wishes.push(Wish::Dead(format!("registry: {error}")));
        }
        recorded.is_ok()
    }

    /// Ends the turn: flushes and pumps start, answers leave if the lease still permits, roles are looked at.
    fn settle(&mut self, now: Millis, laws: &mut Laws) -> Result<(), String> {
        let (moment, who) = (self.now(now), self.who());
        let mut out = self.outbox();
        for at in &self.touched {
            let Some(partition) = self.partitions.get_mut(at) else { continue };
            partition.settle(moment, &mut out);
            let (segments, cuts) = (partition.log().segments().len(), partition.log().generation());
            let before = self.shapes.insert(*at, (segments, cuts)).unwrap_or((segments, cuts));
            self.seen.extend((segments > before.0).then_some(Sometimes::SegmentRolled));
            self.seen.extend((cuts > before.1).then_some(Sometimes::Truncation));
            match partition.replica().next_deadline(moment.at) {
                Some(due) => drop(self.deadlines.insert(*at, due)),
                None => drop(self.deadlines.remove(at)),
            }
            if let RoleName::Leader(epoch) = partition.replica().role() {
                laws.observe(now, &Told::Leads { who, at: *at, epoch })?;
            }
        }
        self.outgoing.append(&mut out.out);
        let (mut alters, mut reports) = (Vec::new(), Vec::new());
        for out in std::mem::take(&mut self.outgoing) {
            match out {
                Out::Reply(at, id, outcome) => self.produced(at, id, outcome, now, laws)?,
                Out::DeleteReply(at, id, outcome) => self.deleted(at, id, outcome, now, laws)?,
                Out::Flush(life, job) => {
                    self.next_flush += 1;
                    self.flushes.insert(self.next_flush, (life, *job));
                    self.started.push(self.next_flush);
                }
                Out::Moved(at, checkpoint) => self.remembered.remember(&[(at, checkpoint)]),
                Out::Alter(proposal) => alters.push(proposal),
                Out::Report(at, report) => reports.push((at, report)),
                Out::Fatal(text) => self.wishes.push(Wish::Dead(text)),
                other => self.outgoing.push(other),
            }
        }
        self.want_reports(reports);
        let Some(epoch) = self.epoch().filter(|_| !alters.is_empty()) else { return Ok(()) };
        let (mut attempts, mut partitions) = (Vec::new(), Vec::new());
        for p in alters {
            let (at, attempt) = (p.life.at, p.attempt);
            let partition_epoch = p.partition_epoch;
            laws.observe(now, &Told::Proposed { who, at, attempt, partition_epoch, isr: &p.new_isr })?;
            attempts.push(Attempt { life: p.life, number: attempt });
            let (leader_epoch, partition_epoch) = (p.leader_epoch, p.partition_epoch);
            partitions.push(AlterPartition { at, leader_epoch, partition_epoch, isr: p.new_isr });
        }
        self.wishes.push(Wish::Alter(AlterPartitions { broker: who.id, epoch, partitions }, attempts));
        Ok(())
    }

    fn want_reports(&mut self, reports: Vec<(TopicPartition, LogEndReport)>) {
        if let Some(epoch) = self.epoch().filter(|_| !reports.is_empty()) {
            self.wishes.push(Wish::Report(epoch, reports));
        }
    }
}
