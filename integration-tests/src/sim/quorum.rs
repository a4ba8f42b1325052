//! A model of the controllers: one linear log, three sets of notes about brokers, one of them active at most.
//!
//! A batch in flight commits after a while. When its controller is deposed first, the batch is lost, or commits later
//! unheard; compare-and-append must drop it if another came before.

use super::laws::Laws;
use super::wire::Origin;
use crate::chaos::random::Random;
use bytes::Bytes;
use controller::decide::batch::{Plan, run_batch};
use controller::decide::command::{Command, Heartbeat, Now, Reply};
use controller::decide::sessions::{HeartbeatDecision, Sessions};
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerId, Millis};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::{ApplyError, MetadataImage};
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
    due: Millis,
}

#[derive(Debug)]
pub(super) struct Quorum {
    pub(super) image: MetadataImage,
    /// Encoded batches, in order from batch 1.
    pub(super) log: Vec<(MetadataBatch, Bytes)>,
    sessions: Vec<Sessions>,
    pub(super) active: Option<usize>,
    next_active_at: Millis,
    queue: VecDeque<(Command, Origin)>,
    in_flight: Option<InFlight>,
    /// Of a deposed controller: may still commit.
    unheard: Option<(Millis, MetadataBatch)>,
    /// Depose the active controller as soon as a batch is in flight.
    pub(super) depose_in_flight: bool,
}

impl Quorum {
    pub(super) fn new(timers: Timers) -> Self {
        Self {
            image: MetadataImage::default(),
            log: Vec::new(),
            sessions: (0..CONTROLLERS).map(|_| Sessions::new(timers)).collect(),
            active: None,
            next_active_at: 0,
            queue: VecDeque::new(),
            in_flight: None,
            unheard: None,
            depose_in_flight: false,
        }
    }

    /// Writes facts before anybody is there to decide.
    pub(super) fn seed(&mut self, facts: Vec<protocol::metadata::record::Fact>) {
        let batch = MetadataBatch { base: self.image.batch_no, facts };
        self.append(batch).expect("the first facts are legal on an empty image");
    }

    fn append(&mut self, batch: MetadataBatch) -> Result<bool, String> {
        let bytes = Bytes::from(batch.encode());
        match self.image.apply(&batch, &bytes) {
            Ok((image, _)) => {
                self.image = image;
                self.log.push((batch, bytes));
                Ok(true)
            }
            Err(ApplyError::Mismatch { .. }) => Ok(false),
            Err(error @ ApplyError::Illegal { .. }) => Err(format!("the metadata log stops every node: {error}")),
        }
    }

    /// A batch is in flight.
    pub(super) fn is_writing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// The active controller loses its place; its batch in flight may commit unheard.
    pub(super) fn depose(&mut self, now: Millis, rng: &mut Random) -> Answered {
        let Some(active) = self.active.take() else { return Vec::new() };
        self.sessions[active].step_down();
        self.depose_in_flight = false;
        self.next_active_at = now + rng.between(50, 900);
        let mut answers: Answered = self.queue.drain(..).map(|(_, origin)| (origin, Err(unknown()))).collect();
        if let Some(in_flight) = self.in_flight.take() {
            if rng.chance(60) {
                self.unheard = Some((now + rng.between(1, 1_500), in_flight.batch));
            }
            answers.extend(in_flight.answers.into_iter().map(|(origin, _)| (origin, Err(unknown()))));
        }
        answers
    }

    /// Queues a command; refused when nobody is active or the queue is full.
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

    /// A heartbeat reaches one controller; what it answers.
    pub(super) fn heartbeat(
        &mut self,
        to: usize,
        heartbeat: &Heartbeat,
        now: Millis,
    ) -> Option<controller::decide::command::HeartbeatAnswer> {
        let sessions = &mut self.sessions[to];
        if self.active != Some(to) {
            sessions.note_heartbeat(&self.image, heartbeat, now);
            return None;
        }
        match sessions.answer_heartbeat(&self.image, heartbeat, now, true) {
            HeartbeatDecision::Silent => None,
            HeartbeatDecision::Answer { answer, submit } => {
                if submit && self.queue.len() < QUEUE_MAX {
                    self.queue.push_back((Command::Heartbeat(*heartbeat), Origin::Nobody));
                }
                Some(answer)
            }
        }
    }

    pub(super) fn stream_reset(&mut self, broker: BrokerId, stream: u64) {
        for sessions in &mut self.sessions {
            sessions.note_reset(broker, stream);
        }
    }

    /// One turn: commits what is due, elects an active controller, decides. `Err`: every node would stop.
    pub(super) fn turn(&mut self, now: Millis, rng: &mut Random, laws: &mut Laws) -> Result<Answered, String> {
        let mut answers = Vec::new();
        if let Some((due, batch)) = self.unheard.take() {
            if due > now {
                self.unheard = Some((due, batch));
            } else if !self.append(batch)? {
                laws.tally.dropped_batches += 1;
            }
        }
        if self.active.is_none() && now >= self.next_active_at {
            let next = usize::try_from(rng.below(CONTROLLERS as u64)).unwrap_or(0);
            self.sessions[next].takeover(self.image.batch_no, now);
            self.active = Some(next);
            laws.tally.failovers += 1;
        }
        let Some(active) = self.active else { return Ok(answers) };
        if let Some(in_flight) = self.in_flight.take() {
            if in_flight.due > now {
                self.in_flight = Some(in_flight);
                return Ok(answers);
            }
            let applied = self.append(in_flight.batch)?;
            self.sessions[active].settled(applied);
            if !applied {
                laws.tally.dropped_batches += 1;
            }
            let verdict = |(origin, reply)| if applied { (origin, reply) } else { (origin, Err(unknown())) };
            answers.extend(in_flight.answers.into_iter().map(verdict));
        }
        self.decide(active, now, rng, &mut answers);
        Ok(answers)
    }

    fn decide(&mut self, active: usize, now: Millis, rng: &mut Random, answers: &mut Answered) {
        let commands: Vec<Command> = self.queue.iter().map(|(command, _)| command.clone()).collect();
        let moment = Now { mono: now, wall: 1_700_000_000_000 + now };
        let Plan { facts, replies, .. } = run_batch(&self.image, &mut self.sessions[active], moment, &commands);
        let origins = self.queue.drain(..replies.len()).map(|(_, origin)| origin);
        let decided: Answered = origins.zip(replies).collect();
        if facts.is_empty() {
            self.sessions[active].settled(true);
            answers.extend(decided);
            return;
        }
        let batch = MetadataBatch { base: self.image.batch_no, facts };
        self.in_flight = Some(InFlight { batch, answers: decided, due: now + rng.between(1, 40) });
    }
}

fn unknown() -> ApiError {
    ApiError::new(ErrorCode::OutcomeUnknown, "the batch's fate is not known")
}
