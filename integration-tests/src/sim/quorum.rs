//! A model of the controllers: one linear log, three sets of notes about brokers, one of them active at most, each with
//! an image of its own.
//!
//! A batch in flight commits after a while. When its controller is deposed first, the batch is lost, or commits later
//! unheard; compare-and-append must drop it if another came before.

use super::buggify::Point;
use super::clock::Clock;
use super::laws::{Law, Laws};
use super::sometimes::Sometimes;
use super::told::Told;
use super::watch::watch;
use super::wire::Origin;
use crate::chaos::random::Random;
use bytes::Bytes;
use controller::decide::batch::{Plan, run_batch};
use controller::decide::brokers::why_fenced;
use controller::decide::command::{Command, Heartbeat, HeartbeatAnswer, Now, Reply};
use controller::decide::sessions::{HeartbeatDecision, Sessions};
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BatchNo, BrokerId, ControllerId, Millis};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::brokers::Broker;
use protocol::metadata::image::{ApplyError, MetadataImage};
use protocol::metadata::record::Fact;
use protocol::timers::Timers;
use std::collections::VecDeque;

/// Controllers of the model.
pub(super) const CONTROLLERS: usize = 3;
/// Commands that wait at most.
const QUEUE_MAX: usize = 64;

pub(super) type Answered = Vec<(Origin, Result<Reply, ApiError>)>;

#[derive(Debug)]
struct InFlight {
    batch: MetadataBatch,
    answers: Answered,
    /// When it commits: standbys hear of it from then on.
    due: Millis,
    /// When the active controller itself has applied it.
    applies: Millis,
    /// Committed and not yet applied there: the verdict.
    verdict: Option<bool>,
}

/// One controller.
#[derive(Debug)]
pub(super) struct Controller {
    sessions: Sessions,
    pub(super) clock: Clock,
    /// Batches that it has applied.
    pub(super) applied: usize,
    /// Batches before this one are in its snapshot only.
    pub(super) feed_from: usize,
    /// It does not run until then.
    pub(super) frozen_until: Millis,
    /// It applies nothing until then.
    pub(super) lags_until: Millis,
}

#[derive(Debug)]
pub(super) struct Quorum {
    /// The fold of everything committed.
    pub(super) image: MetadataImage,
    /// Encoded batches, in order from batch 1.
    pub(super) log: Vec<Bytes>,
    /// The image after so many batches.
    pub(super) images: Vec<MetadataImage>,
    pub(super) members: Vec<Controller>,
    pub(super) active: Option<usize>,
    next_active_at: Millis,
    ticked_at: Millis,
    queue: VecDeque<(Command, Origin)>,
    in_flight: Option<InFlight>,
    /// A deposed controller that does not know it yet: it answers heartbeats on its old image, in the belief that a quorum
    /// stands behind it until the first moment, and is told at the second. Nobody is elected before the first.
    zombie: Option<(usize, Millis, Millis)>,
    /// Of a deposed controller: may still commit.
    unheard: Option<(Millis, MetadataBatch)>,
    /// Depose the active controller as soon as a batch is in flight.
    pub(super) depose_in_flight: bool,
    buggify: u64,
    tick_ms: Millis,
    more: bool,
}

impl Quorum {
    pub(super) fn new(timers: Timers, clocks: &[Clock], buggify: u64) -> Self {
        let member = |clock: &Clock| Controller {
            sessions: Sessions::new(timers),
            clock: *clock,
            applied: 0,
            feed_from: 0,
            frozen_until: 0,
            lags_until: 0,
        };
        let slow = if Point::RareTicks.is_on(buggify) { 3 } else { 1 };
        Self {
            image: MetadataImage::default(),
            log: Vec::new(),
            images: vec![MetadataImage::default()],
            members: clocks.iter().map(member).collect(),
            active: None,
            next_active_at: 0,
            ticked_at: 0,
            queue: VecDeque::new(),
            in_flight: None,
            zombie: None,
            unheard: None,
            depose_in_flight: false,
            buggify,
            tick_ms: timers.lease_ms / 4 * slow,
            more: false,
        }
    }

    /// Writes facts before anybody is there to decide.
    pub(super) fn seed(&mut self, facts: Vec<Fact>, laws: &mut Laws) {
        let batch = MetadataBatch { base: self.image.batch_no, facts };
        self.append(batch, 0, laws).expect("the first facts are legal on an empty image");
    }

    fn append(&mut self, batch: MetadataBatch, now: Millis, laws: &mut Laws) -> Result<bool, String> {
        let bytes = Bytes::from(batch.encode());
        match self.image.apply(&batch, &bytes) {
            Ok((image, _)) => {
                laws.observe(now, &Told::Committed { batch: &batch, before: &self.image, after: &image })?;
                watch(&self.image, &image, &batch, laws);
                self.image = image.clone();
                self.images.push(image);
                self.log.push(bytes);
                Ok(true)
            }
            Err(ApplyError::Mismatch { .. }) => {
                laws.tally.dropped_batches += 1;
                laws.tally.sometimes(Sometimes::BatchDropped);
                laws.observe(now, &Told::Dropped { batch: &batch, image: &self.image })?;
                Ok(false)
            }
            Err(error @ ApplyError::Illegal { .. }) => {
                let law = if batch.base == self.image.batch_no { Law::LogIsLegal } else { Law::DecidedOnWhatItChanges };
                Err(law.broken(format!("the metadata log stops every node: {error}")))
            }
        }
    }

    /// A batch is in flight.
    pub(super) fn is_writing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The batch in flight is committed, and the active controller has not applied it yet.
    fn is_applying(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.verdict.is_some())
    }

    /// The active controller loses its place; its batch in flight may commit unheard.
    pub(super) fn depose(&mut self, now: Millis, rng: &mut Random, laws: &mut Laws) -> Answered {
        let Some(active) = self.active.take() else { return Vec::new() };
        self.end_zombie();
        self.depose_in_flight = false;
        self.next_active_at = now + rng.between(50, 900);
        let mut fresh_until = now;
        if rng.chance(50) {
            fresh_until = rng.between(now, self.next_active_at);
            self.zombie = Some((active, fresh_until, fresh_until + rng.between(1, 3_000)));
        } else {
            self.members[active].sessions.step_down();
        }
        let refused = || ApiError::new(ErrorCode::NotController, "leadership moved");
        let mut answers: Answered = self.queue.drain(..).map(|(_, origin)| (origin, Err(refused()))).collect();
        if let Some(in_flight) = self.in_flight.take() {
            if let Some(applied) = in_flight.verdict {
                if applied {
                    laws.tally.sometimes(Sometimes::DeposedBeforeItApplied);
                }
            } else if rng.chance(60) {
                // Unheard by its own controller, it is told as committed by a successor only, and none is elected while this
                // one is fresh.
                let due = now + rng.between(1, 1_500);
                self.unheard = Some((due.max(fresh_until), in_flight.batch));
            } else {
                laws.tally.sometimes(Sometimes::ControllerLostBatch);
            }
            answers.extend(in_flight.answers.into_iter().map(|(origin, _)| (origin, Err(unknown()))));
        }
        answers
    }

    /// Who believed to be the active one hears that it is not.
    fn end_zombie(&mut self) {
        if let Some((member, _, _)) = self.zombie.take() {
            self.members[member].sessions.step_down();
        }
    }

    /// A controller's process ends and begins again: its notes are gone.
    pub(super) fn restart(&mut self, which: usize, timers: Timers) {
        if self.zombie.is_some_and(|(member, _, _)| member == which) {
            self.zombie = None;
        }
        self.members[which].sessions = Sessions::new(timers);
    }

    /// Queues a command; refused when the asked controller is not the active one, or the queue is full.
    pub(super) fn command(&mut self, command: Command, origin: Origin) -> Option<(Origin, ApiError)> {
        if self.active.is_none() {
            return Some((origin, ApiError::new(ErrorCode::NotController, "nobody is active")));
        }
        if self.queue.len() >= QUEUE_MAX {
            return Some((origin, ApiError::new(ErrorCode::Overloaded, "the queue is full")));
        }
        self.queue.push_back((command, origin));
        None
    }

    /// The image that a controller has.
    pub(super) fn image_at(&self, controller: usize) -> &MetadataImage {
        &self.images[self.members[controller].applied]
    }

    /// A heartbeat reaches one controller; what it answers.
    pub(super) fn heartbeat(
        &mut self,
        to: usize,
        heartbeat: &Heartbeat,
        now: Millis,
        fresh: bool,
    ) -> Option<HeartbeatAnswer> {
        let member = &mut self.members[to];
        let (image, mono) = (&self.images[member.applied], member.clock.shows(now));
        if let Some((_, fresh_until, _)) = self.zombie.filter(|(zombie, _, _)| *zombie == to) {
            return match member.sessions.answer_heartbeat(image, heartbeat, mono, fresh && now < fresh_until) {
                HeartbeatDecision::Silent => None,
                HeartbeatDecision::Answer { answer, .. } => Some(answer),
            };
        }
        if self.active != Some(to) {
            member.sessions.note_heartbeat(image, heartbeat, mono);
            return None;
        }
        match member.sessions.answer_heartbeat(image, heartbeat, mono, fresh) {
            HeartbeatDecision::Silent => None,
            HeartbeatDecision::Answer { answer, submit } => {
                if submit && self.queue.len() < QUEUE_MAX {
                    self.queue.push_back((Command::Heartbeat(*heartbeat), Origin::Nobody));
                }
                Some(answer)
            }
        }
    }

    pub(super) fn stream_reset(&mut self, to: usize, broker: BrokerId, stream: u64) {
        self.members[to].sessions.note_reset(broker, stream);
    }

    /// A standby applies what has come; true if it moved.
    pub(super) fn catch_up(&mut self, controller: usize, now: Millis, rng: &mut Random) -> bool {
        let applies_late = self.active == Some(controller) && self.is_applying();
        let (newest, member) = (self.log.len(), &mut self.members[controller]);
        let cut_off = applies_late || self.zombie.is_some_and(|(zombie, _, _)| zombie == controller);
        if cut_off || member.applied == newest || member.lags_until > now || member.frozen_until > now {
            return false;
        }
        if Point::StandbysLag.is_on(self.buggify) && self.active != Some(controller) && rng.chance(95) {
            return false;
        }
        member.applied = newest;
        if Point::FeedSnapshots.is_on(self.buggify) && rng.chance(10) {
            member.feed_from = newest;
        }
        true
    }

    fn elect(&mut self, now: Millis, rng: &mut Random, laws: &mut Laws) -> Result<(), String> {
        if self.zombie.is_some_and(|(_, _, told_at)| told_at <= now) {
            self.end_zombie();
        }
        let zombie = self.zombie.map(|(member, _, _)| member);
        let awake = |c: &usize| self.members[*c].frozen_until <= now && zombie != Some(*c);
        let able: Vec<usize> = (0..CONTROLLERS).filter(awake).collect();
        if self.active.is_some() || now < self.next_active_at || able.is_empty() {
            return Ok(());
        }
        let next = *rng.one_of(&able);
        self.take_over(next, now, laws)?;
        laws.tally.failovers += 1;
        Ok(())
    }

    fn take_over(&mut self, next: usize, now: Millis, laws: &mut Laws) -> Result<(), String> {
        let member = &mut self.members[next];
        member.applied = self.log.len();
        member.sessions.takeover(self.image.batch_no, member.clock.shows(now));
        self.active = Some(next);
        let controller = ControllerId(u32::try_from(next).unwrap_or(0) + 1);
        laws.observe(now, &Told::Active { controller, taken_at: self.image.batch_no })
    }

    /// One turn: commits what is due, elects an active controller, decides. `Err`: every node would stop.
    pub(super) fn turn(&mut self, now: Millis, rng: &mut Random, laws: &mut Laws) -> Result<Answered, String> {
        let mut answers = Vec::new();
        if let Some((due, batch)) = self.unheard.take() {
            if due > now {
                self.unheard = Some((due, batch));
            } else if self.append(batch, now, laws)? {
                laws.decided_long_ago();
                laws.tally.sometimes(Sometimes::UnheardBatchCommitted);
            }
        }
        self.elect(now, rng, laws)?;
        let Some(active) = self.active else { return Ok(answers) };
        if self.members[active].frozen_until > now {
            return Ok(answers);
        }
        if !self.is_applying() {
            self.members[active].applied = self.log.len();
        }
        if let Some(mut in_flight) = self.in_flight.take() {
            if in_flight.due <= now && in_flight.verdict.is_none() {
                in_flight.verdict = Some(self.append(in_flight.batch.clone(), now, laws)?);
            }
            let Some(applied) = in_flight.verdict.filter(|_| in_flight.applies <= now) else {
                self.in_flight = Some(in_flight);
                return Ok(answers);
            };
            let member = &mut self.members[active];
            member.applied = self.log.len();
            member.sessions.settled(applied);
            let verdict = |(origin, reply)| if applied { (origin, reply) } else { (origin, Err(unknown())) };
            answers.extend(in_flight.answers.into_iter().map(verdict));
            if !applied {
                // It passes the barrier again before it decides anything.
                self.members[active].sessions.step_down();
                self.take_over(active, now, laws)?;
            }
        }
        let waits = Point::CommandsWait.is_on(self.buggify) && now % 40 >= 5;
        let asked = !self.queue.is_empty() && !waits;
        if asked || self.more || now >= self.ticked_at + self.tick_ms {
            self.ticked_at = now;
            self.decide(active, now, rng, laws, &mut answers)?;
        }
        Ok(answers)
    }

    fn decide(
        &mut self,
        active: usize,
        now: Millis,
        rng: &mut Random,
        laws: &mut Laws,
        answers: &mut Answered,
    ) -> Result<(), String> {
        let mut commands: Vec<Command> = self.queue.iter().map(|(command, _)| command.clone()).collect();
        let asked = commands.len();
        if commands.is_empty() {
            commands.push(Command::Tick);
        }
        let member = &mut self.members[active];
        let wall = u64::try_from(member.clock.wall(now)).unwrap_or(0);
        let moment = Now { mono: member.clock.shows(now), wall };
        let Plan { facts, replies, more } = run_batch(&self.image, &mut member.sessions, moment, &commands);
        self.more = more;
        let told: Vec<_> = commands.into_iter().zip(replies.iter().cloned()).collect();
        laws.observe(now, &Told::Decided { facts: &facts, decided: &told })?;
        let origins = self.queue.drain(..replies.len().min(asked)).map(|(_, origin)| origin);
        let decided: Answered = origins.zip(replies).collect();
        if facts.is_empty() {
            member.sessions.settled(true);
            answers.extend(decided);
            return Ok(());
        }
        let slow = if Point::SlowCommit.is_on(self.buggify) { 400 } else { 25 };
        let batch = MetadataBatch { base: self.image.batch_no, facts };
        let due = now + rng.between(1, slow);
        let applies = if Point::SlowApply.is_on(self.buggify) { due + rng.between(1, 600) } else { due };
        self.in_flight = Some(InFlight { batch, answers: decided, due, applies, verdict: None });
        Ok(())
    }

    /// What the active controller says of a broker that it keeps fenced.
    pub(super) fn why_fenced(&self, broker: &Broker, now: Millis) -> String {
        let Some(active) = self.active else { return "nobody is active".to_owned() };
        let member = &self.members[active];
        let why = why_fenced(&self.image, &member.sessions, broker, member.clock.shows(now));
        let noted = member.sessions.contact(broker.id, broker.epoch);
        format!("fenced: {why:?}, last noted {noted:?} at {}", member.clock.shows(now))
    }

    /// Batch number of everything committed.
    pub(super) fn committed(&self) -> BatchNo {
        self.image.batch_no
    }
}

fn unknown() -> ApiError {
    ApiError::new(ErrorCode::OutcomeUnknown, "the batch's fate is not known")
}
