//! One broker process: the shells' work done synchronously, one input at a time, over the real cores and log.

use super::laws::{Contents, Laws};
use super::node::ROOT;
use super::outbox::{Out, Outbox};
use super::wire::{Attempt, ToBroker, Wish};
use broker::checkpoints::NoCheckpoints;
use broker::evidence::Evidence;
use broker::lifecycle::state::{Effect, ImageFacts, Input as LifeInput, Lifecycle};
use broker::metadata::reconcile::{Local, Me, Op, Scope, plan};
use broker::notes::{key, stored_policy};
use broker::partition::note::Note;
use broker::partition::outside::{Life, Subscription};
use broker::partition::{Opened, Partition, log_config};
use broker::recovery::recover;
use broker::replica::effect::{LogEndReport, ProduceOutcome, ToFollower};
use broker::replica::input::{Acks, Input, Produce, RequestId};
use broker::replica::{Lease, Now, RoleName};
use bytes::Bytes;
use controller::decide::command::{AlterPartition, AlterPartitions};
use log::data_dir::{BrokerState, DataDir, Expected, Role};
use log::registry::{Event, Registry};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use log::{FlushJob, Log};
use protocol::batch::{BatchBuilder, Compression, Limits, batches, records};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, Millis, TopicId, TopicPartition};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use protocol::timers::Timers;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use uuid::Uuid;

#[derive(Debug)]
pub(super) struct Process {
    id: BrokerId,
    life: u64,
    pub(super) incarnation: Uuid,
    data: Arc<DataDir>,
    registry: Registry,
    recovered: BTreeMap<TopicPartition, Opened>,
    evidence: Evidence,
    pub(super) claimed: BrokerEpoch,
    pub(super) admissible: bool,
    lifecycle: Lifecycle,
    lease: Lease,
    pub(super) image: MetadataImage,
    planned: bool,
    local: BTreeMap<TopicPartition, Local>,
    partitions: BTreeMap<TopicPartition, Partition>,
    slots: u32,
    requests: BTreeMap<RequestId, (TopicPartition, Vec<u64>)>,
    next_request: u64,
    flushes: BTreeMap<u64, (Life, FlushJob)>,
    next_flush: u64,
    /// Flushes begun in this turn; the world says when they run.
    pub(super) started: Vec<u64>,
    pub(super) reports: BTreeMap<TopicPartition, LogEndReport>,
    idle_at: Millis,
    /// What partitions asked for in this turn and the world must carry.
    pub(super) outgoing: Vec<Out>,
    pub(super) wishes: Vec<Wish>,
}

impl Process {
    /// A start: locks and recovers the data directory, as a broker does before it opens a socket.
    pub(super) fn start(
        id: BrokerId,
        life: u64,
        disk: &MemStorage,
        timers: Timers,
        incarnation: Uuid,
    ) -> Result<Self, String> {
        let text = |e: &dyn std::fmt::Display| format!("broker {id} cannot start: {e}");
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let expected = Expected { cluster_id: None, node_id: id.0, role: Role::Broker };
        let data = DataDir::open(storage, Path::new(ROOT), &expected).map_err(|e| text(&e))?;
        let mut evidence = broker::recovery::take_evidence(&data).map_err(|e| text(&e))?;
        let mut registry = Registry::open(data.storage(), &data.registry_dir()).map_err(|e| text(&e))?;
        let found = recover(&data, &mut registry, &NoCheckpoints).map_err(|e| text(&e))?;
        evidence.found = found.found;
        data.clear_clean_shutdown().map_err(|e| text(&e))?;
        let local = found.partitions.keys().map(|at| (*at, Local::Closed)).collect();
        Ok(Self {
            id,
            life,
            incarnation,
            data: Arc::new(data),
            registry,
            recovered: found.partitions,
            evidence,
            claimed: BrokerEpoch(0),
            admissible: false,
            lifecycle: Lifecycle::new(timers),
            lease: Lease::NONE,
            image: MetadataImage::default(),
            planned: false,
            local,
            partitions: BTreeMap::new(),
            slots: 0,
            requests: BTreeMap::new(),
            next_request: 0,
            flushes: BTreeMap::new(),
            next_flush: 0,
            started: Vec::new(),
            reports: BTreeMap::new(),
            idle_at: 0,
            outgoing: Vec::new(),
            wishes: Vec::new(),
        })
    }

    fn now(&self, at: Millis) -> Now {
        Now { at, lease: self.lease }
    }

    /// Takes one message and does everything that follows from it.
    pub(super) fn take(
        &mut self,
        message: ToBroker,
        log: &[(MetadataBatch, Bytes)],
        now: Millis,
        laws: &mut Laws,
    ) -> Result<(), String> {
        match message {
            ToBroker::Wake => self.wake(now),
            ToBroker::Registered(Ok(registered)) => {
                self.admissible = registered.proof_admissible;
                laws.tally.proofs += u64::from(self.admissible);
                self.live(LifeInput::Registered { epoch: registered.epoch }, now);
            }
            ToBroker::Registered(Err(code)) => self.live(LifeInput::RegisterFailed(code), now),
            ToBroker::ProofTaken(Ok(())) => self.live(LifeInput::ProofTaken, now),
            ToBroker::ProofTaken(Err(code)) => self.live(LifeInput::ProofFailed(code), now),
            ToBroker::Answer(answer) => self.live(LifeInput::Answer(answer), now),
            ToBroker::Feed => self.feed(log, now)?,
            ToBroker::Partition { at, input, hand, .. } => self.step(at, *input, hand, now),
            ToBroker::IsrResult { attempt: Attempt { life, number }, outcome } => {
                self.with(life.at, now, |p, now, out| p.isr_result(life, number, outcome, now, out));
            }
            ToBroker::RunFlush(number) => self.run_flush(number, now),
            ToBroker::Noted(life, note) => self.note(life, note, now),
            ToBroker::Produce { at, values, deadline } => self.produce(at, values, deadline, now),
        }
        self.settle(now, laws)
    }

    fn wake(&mut self, now: Millis) {
        self.live(LifeInput::Tick, now);
        let due: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, p)| p.replica().next_deadline(now).is_some_and(|at| at <= now))
            .map(|(at, _)| *at)
            .collect();
        for at in due {
            self.step(at, Input::Tick, VecDeque::new(), now);
        }
        if now >= self.idle_at {
            self.idle_at = now + 700;
            let mut out = Outbox::default();
            self.partitions.values_mut().for_each(|p| p.idle(&mut out));
            self.outgoing.append(&mut out.out);
        }
    }

    fn live(&mut self, input: LifeInput, now: Millis) {
        let mut effects = Vec::new();
        self.lifecycle.step(input, now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Register => self.wishes.push(Wish::Register),
                Effect::StoreEpoch(epoch) => self.store_epoch(epoch, now),
                Effect::Prove(_) => self.wishes.push(Wish::Prove),
                Effect::Heartbeat(heartbeat) => self.wishes.push(Wish::Heartbeat(heartbeat)),
                Effect::Lease(lease) => self.lease = lease,
                Effect::ActiveController(_) | Effect::ChangeFeedSource => {}
                Effect::Stopped { .. } => self.wishes.push(Wish::Dead("stopped".into())),
                Effect::Fatal(reason) => self.wishes.push(Wish::Dead(reason.to_string())),
            }
        }
    }

    fn store_epoch(&mut self, epoch: BrokerEpoch, now: Millis) {
        let earlier_epoch = (self.claimed.0 != 0).then_some(self.claimed.0);
        let stored = self.data.boot_id().and_then(|boot_id| {
            self.data.store_broker_state(&BrokerState { broker_epoch: epoch.0, earlier_epoch, boot_id })
        });
        match stored {
            Ok(()) => {
                self.live(LifeInput::EpochStored, now);
                self.plan(Scope::Everything, &BTreeSet::new(), now);
            }
            Err(error) => self.wishes.push(Wish::Dead(error.to_string())),
        }
    }

    /// Partitions that this start can prove, as the image has them.
    pub(super) fn proved(&self) -> Vec<TopicPartition> {
        let places = self.image.topics.places_of(self.id);
        places.filter(|at| self.admissible && self.evidence.proves(*at, self.claimed)).collect()
    }

    /// The claim to register with.
    pub(super) fn claim(&mut self) -> BrokerEpoch {
        let last_unfenced = self.image.brokers.get(self.id).and_then(|b| b.last_unfenced_epoch);
        self.claimed = self.evidence.claim(last_unfenced);
        self.claimed
    }

    pub(super) fn directory(&self) -> Uuid {
        self.data.identity().directory
    }

    pub(super) fn epoch(&self) -> Option<BrokerEpoch> {
        self.lifecycle.epoch()
    }

    fn feed(&mut self, log: &[(MetadataBatch, Bytes)], now: Millis) -> Result<(), String> {
        let at = usize::try_from(self.image.batch_no.0).unwrap_or(usize::MAX);
        for (batch, bytes) in log.get(at..).unwrap_or_default() {
            let (image, delta) = self.image.apply(batch, bytes).map_err(|e| format!("broker {}: {e}", self.id))?;
            let first = !self.image.cluster.is_formed();
            self.image = image;
            let purged: BTreeSet<TopicId> = batch
                .facts
                .iter()
                .filter_map(|f| if let Fact::TopicPurged(p) = f { Some(p.topic) } else { None })
                .collect();
            let scope = if self.planned { Scope::Touched(&delta) } else { Scope::Everything };
            self.plan(scope, &purged, now);
            self.live(LifeInput::Image(ImageFacts::of(&self.image, self.id)), now);
            self.live(LifeInput::Reconciled(self.image.batch_no), now);
            if first && self.image.cluster.is_formed() {
                self.live(LifeInput::Recovered, now);
            }
        }
        Ok(())
    }

    fn plan(&mut self, scope: Scope<'_>, purged: &BTreeSet<TopicId>, now: Millis) {
        let Some(epoch) = self.epoch() else { return };
        if !self.image.brokers.get(self.id).is_some_and(|b| b.epoch == epoch && b.proved) {
            return;
        }
        let image = self.image.clone();
        let Some(ops) = plan(&self.local, &image, Me { id: self.id, epoch }, scope, purged) else { return };
        self.planned = true;
        for op in ops {
            match op {
                Op::Open(at) => self.open(at, &image, epoch),
                Op::Assign(at, view) => self.step(at, Input::Assign(view), VecDeque::new(), now),
                Op::Park(at) | Op::SetAside(at) | Op::Purge(at) => {
                    self.step(at, Input::Withdraw, VecDeque::new(), now);
                    self.local.insert(at, Local::Parked);
                }
            }
        }
    }

    fn open(&mut self, at: TopicPartition, image: &MetadataImage, epoch: BrokerEpoch) {
        self.local.insert(at, Local::Open);
        if self.partitions.contains_key(&at) {
            return;
        }
        let opened = self.recovered.remove(&at).map_or_else(
            || {
                let dir = self.data.partition_dir(at.topic.0, at.partition);
                let config = log_config(&image.topic_config(at.topic));
                Log::open(self.data.storage().clone(), &dir, config).map(|(log, _)| Opened {
                    at,
                    log,
                    noted_policy: None,
                    directory_noted: false,
                    damaged: false,
                    checkpoint: None,
                })
            },
            Ok,
        );
        match opened {
            Ok(opened) => {
                self.slots += 1;
                let mut partition = Partition::new(self.id, epoch, self.slots, opened, self.data.clone());
                partition.configure(log_config(&image.topic_config(at.topic)));
                self.partitions.insert(at, partition);
            }
            Err(error) => self.wishes.push(Wish::Dead(error.to_string())),
        }
    }

    fn step(&mut self, at: TopicPartition, input: Input, hand: VecDeque<Bytes>, now: Millis) {
        let moment = self.now(now);
        let mut out = Outbox::default();
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

    fn produce(&mut self, at: TopicPartition, values: Vec<u64>, deadline: Millis, now: Millis) {
        let moment = self.now(now);
        let Some(partition) = self.partitions.get_mut(&at) else { return };
        let mut builder = BatchBuilder::new(Compression::None);
        for value in &values {
            builder.push(0, None, Some(&value.to_be_bytes()), &[]).expect("a value of eight bytes fits a batch");
        }
        let batch = Bytes::from(builder.build().expect("a batch of a few values is within the limits"));
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let request = Produce {
            id,
            acks: Acks::All,
            deadline,
            leader_epoch: None,
            offsets: u32::try_from(values.len()).unwrap_or(1),
            bytes: u32::try_from(batch.len()).unwrap_or(u32::MAX),
        };
        self.requests.insert(id, (at, values));
        let mut out = Outbox::default();
        partition.produce(request, batch, moment, &mut out);
        self.outgoing.append(&mut out.out);
    }

    fn run_flush(&mut self, number: u64, now: Millis) {
        let Some((life, job)) = self.flushes.remove(&number) else { return };
        let outcome = job.unless(protocol::planted::Bug::PartitionSync).run();
        self.with(life.at, now, |p, now, out| p.flushed(life, outcome, now, out));
    }

    /// What a shard does with an answer to one of its partitions: one that is not here any more hears nothing.
    fn with(&mut self, at: TopicPartition, now: Millis, run: impl FnOnce(&mut Partition, Now, &mut Outbox)) {
        let moment = self.now(now);
        let mut out = Outbox::default();
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
        if let Err(error) = self.registry.record(&[(key(life.at), event)]) {
            return self.wishes.push(Wish::Dead(error.to_string()));
        }
        self.with(life.at, now, |p, now, out| p.noted(life, note, now, out));
    }

    /// Ends the turn: flushes and pumps start, answers leave if the lease still permits, roles are looked at.
    fn settle(&mut self, now: Millis, laws: &mut Laws) -> Result<(), String> {
        let moment = self.now(now);
        let mut out = Outbox::default();
        for (at, partition) in &mut self.partitions {
            partition.settle(moment, &mut out);
            if let RoleName::Leader(epoch) = partition.replica().role() {
                laws.leads(*at, epoch, (self.id, self.life))?;
            }
        }
        self.outgoing.append(&mut out.out);
        let mut alters = Vec::new();
        for out in std::mem::take(&mut self.outgoing) {
            match out {
                Out::Reply(at, id, outcome) => self.answer(at, id, outcome, moment, laws)?,
                Out::Flush(life, job) => {
                    self.next_flush += 1;
                    self.flushes.insert(self.next_flush, (life, *job));
                    self.started.push(self.next_flush);
                }
                Out::Alter(proposal) => alters.push(proposal),
                Out::Report(at, report) => drop(self.reports.insert(at, report)),
                Out::Fatal(text) => self.wishes.push(Wish::Dead(text)),
                other => self.outgoing.push(other),
            }
        }
        if let Some(epoch) = self.epoch().filter(|_| !alters.is_empty()) {
            let attempts = alters.iter().map(|p| Attempt { life: p.life, number: p.attempt }).collect();
            let partitions = alters
                .into_iter()
                .map(|p| AlterPartition {
                    at: p.life.at,
                    leader_epoch: p.leader_epoch,
                    partition_epoch: p.partition_epoch,
                    isr: p.new_isr,
                })
                .collect();
            self.wishes.push(Wish::Alter(AlterPartitions { broker: self.id, epoch, partitions }, attempts));
        }
        Ok(())
    }

    fn answer(
        &mut self,
        at: TopicPartition,
        id: RequestId,
        outcome: ProduceOutcome,
        now: Now,
        laws: &mut Laws,
    ) -> Result<(), String> {
        let Some((_, values)) = self.requests.remove(&id) else { return Ok(()) };
        match outcome {
            ProduceOutcome::Written { base, guard } if now.permits(guard) => laws.acknowledged(at, base, &values),
            ProduceOutcome::Written { .. } | ProduceOutcome::Refused(_) => Ok(()),
        }
    }

    /// How often this process has cut a diverged tail.
    pub(super) fn truncations(&self) -> u64 {
        self.partitions.values().map(|p| p.log().generation()).sum()
    }

    /// Log end and high watermark, to see whether everything has settled.
    pub(super) fn ends(&self, at: TopicPartition) -> Option<(u64, u64)> {
        let replica = self.partitions.get(&at)?.replica();
        Some((replica.log_end(), replica.high_watermark()))
    }

    /// What every replica here says of itself, for the text of a failure.
    pub(super) fn describe(&self, now: Millis) -> Vec<String> {
        let texts = self.partitions.iter();
        texts.map(|(at, p)| format!("broker {} {}: {:?}", self.id, at.partition, p.replica().describe(now))).collect()
    }

    /// Every value in the log below its high watermark.
    pub(super) fn contents(&self, at: TopicPartition) -> Result<Contents, String> {
        let Some(partition) = self.partitions.get(&at) else { return Ok(Contents::new()) };
        let (mut next, upto) = (partition.log().start_offset(), partition.replica().high_watermark());
        let mut contents = Contents::new();
        while next < upto {
            let bytes = partition.log().read(next, 1 << 20, upto, true).map_err(|e| format!("{at}: {e}"))?;
            if bytes.is_empty() {
                break;
            }
            for batch in batches(&bytes) {
                let batch = batch.map_err(|e| format!("{at}: {e}"))?;
                for stored in records(&batch, &Limits::default()).map_err(|e| format!("{at}: {e}"))? {
                    let stored = stored.map_err(|e| format!("{at}: {e}"))?;
                    let value = stored.record.value.unwrap_or_default();
                    let value =
                        value.as_ref().try_into().map_err(|_| format!("{at}: a value of {} bytes", value.len()))?;
                    contents.insert(stored.offset, u64::from_be_bytes(value));
                    next = stored.offset + 1;
                }
            }
        }
        Ok(contents)
    }
}
