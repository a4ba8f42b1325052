//! One partition on one broker: its log, its replica, and the running of the replica's effects in order (sync, no
//! runtime). The shard drives it in production, the simulator in tests.
//!
//! Owns: the bytes in hand, the pumps that feed followers. Never: decides what is answered or cut (that is `replica`),
//! reads a clock, starts a thread.
//! Invariant: an effect that touches the log is run inline and its result stepped before any other input; a completion
//! counts only in the life of the partition that asked.

mod effects;
mod flush;
pub mod note;
pub mod outside;
mod pump;
mod read;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use log::data_dir::DataDir;
use log::retention::{self, RetentionLimits};
use log::{Log, LogConfig, LogError};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, TopicPartition};
use protocol::metadata::configs::{FlushPolicy, TopicConfig};
use std::collections::VecDeque;
use std::sync::Arc;

use crate::fatal::Fatal;
use crate::replica::effect::{Effect, ProduceOutcome};
use crate::replica::input::{Input, IsrOutcome, Produce};
use crate::replica::{Checkpoint, Identity, LogFacts, Now, Replica, RoleName};
use flush::FlushState;
use note::Note;
use outside::{Life, Outside};
use pump::Pumps;

pub use flush::flushed_too_late;
pub use read::{OffsetQuestion, end_of};

/// What is needed to take a partition over from recovery (or to begin an empty one).
#[derive(Debug)]
pub struct Opened {
    /// Which partition.
    pub at: TopicPartition,
    /// Its log.
    pub log: Log,
    /// The policy durably noted, None = never.
    pub noted_policy: Option<FlushPolicy>,
    /// The registry knows that its directory exists.
    pub directory_noted: bool,
    /// Part of the log was set aside as damaged.
    pub damaged: bool,
    /// The checkpoint, if any; never trusted beyond what the log bears out.
    pub checkpoint: Option<Checkpoint>,
}

/// One partition.
#[derive(Debug)]
pub struct Partition {
    at: TopicPartition,
    slot: u32,
    log: Log,
    replica: Replica,
    /// Where tails that an unclean election overruled are kept.
    data: Arc<DataDir>,
    effects: VecDeque<Effect>,
    scratch: Vec<Effect>,
    /// Batches of the request or push being stepped, in order, each with its base offset once known.
    hand: VecDeque<Bytes>,
    flush: FlushState,
    pumps: Pumps,
    dead: bool,
}

impl Partition {
    /// Takes a recovered (or empty) log, for one broker registration. `slot` as [`Identity::slot`].
    #[must_use]
    pub fn new(me: BrokerId, broker_epoch: BrokerEpoch, slot: u32, opened: Opened, data: Arc<DataDir>) -> Self {
        let Opened { at, log, noted_policy, directory_noted, damaged, checkpoint } = opened;
        let facts = LogFacts {
            start: log.start_offset(),
            end: log.end_offset(),
            durable_end: log.durable_end(),
            epochs: log.epochs().clone(),
            noted_policy,
            directory_noted,
            damaged,
        };
        Self {
            at,
            slot,
            replica: Replica::new(Identity { at, me, broker_epoch, slot }, facts, checkpoint),
            log,
            data,
            effects: VecDeque::new(),
            scratch: Vec::new(),
            hand: VecDeque::new(),
            flush: FlushState::default(),
            pumps: Pumps::default(),
            dead: false,
        }
    }

    /// Which partition.
    #[must_use]
    pub fn at(&self) -> TopicPartition {
        self.at
    }

    /// Which life of it: to be given back with whatever is answered later.
    #[must_use]
    pub fn life(&self) -> Life {
        Life { at: self.at, slot: self.slot }
    }

    /// The replica, for questions.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The log, for questions.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Steps an input that brings no bytes.
    pub fn step(&mut self, input: Input, now: Now, out: &mut dyn Outside) {
        self.step_with(input, VecDeque::new(), now, out);
    }

    /// Steps an input whose bytes are these batches: one unstamped batch of a produce, or the batches of a push.
    pub fn step_with(&mut self, input: Input, hand: VecDeque<Bytes>, now: Now, out: &mut dyn Outside) {
        if self.dead {
            return;
        }
        self.hand = hand;
        let mut next = Some(input);
        while let Some(input) = next.take() {
            self.replica.step(input, now, &mut self.scratch);
            self.effects.extend(self.scratch.drain(..));
            while let Some(effect) = self.effects.pop_front() {
                match self.run(effect, now, out) {
                    Ok(Some(result)) => next = Some(result),
                    Ok(None) => {}
                    Err(fatal) => return self.die(fatal, out),
                }
            }
        }
        self.hand.clear();
    }

    /// An application's batch. Room on disk is made sure of before the replica may give it an offset.
    pub fn produce(&mut self, request: Produce, batch: Bytes, now: Now, out: &mut dyn Outside) {
        if self.dead {
            return;
        }
        if matches!(self.replica.role(), RoleName::Leader(_)) {
            match self.log.make_ready(batch.len()) {
                Ok(()) => {}
                Err(LogError::DiskFull { .. }) => {
                    let outcome = ProduceOutcome::Refused(ErrorCode::DiskFull);
                    return out.reply(self.at, request.id, outcome, self.replica.wire_state());
                }
                Err(error) => {
                    let fatal = self.disk("making room", &error);
                    return self.die(fatal, out);
                }
            }
        }
        self.step_with(Input::Produce(request), VecDeque::from([batch]), now, out);
    }

    /// Retention: rolls a segment that is old enough and proposes a new log start where this replica leads. `wall_ms` is
    /// what [`retention::RetentionClock`] makes of the wall clock.
    pub fn retain(&mut self, config: &TopicConfig, wall_ms: i64, now: Now, out: &mut dyn Outside) {
        if self.dead || !matches!(self.replica.role(), RoleName::Leader(_)) {
            return;
        }
        let older_than = wall_ms.saturating_sub(i64::try_from(config.segment_ms).unwrap_or(i64::MAX));
        if let Err(error) = self.log.roll_if_needed(older_than)
            && !matches!(error, LogError::DiskFull { .. })
        {
            let fatal = self.disk("roll", &error);
            return self.die(fatal, out);
        }
        let limits = RetentionLimits { max_age_ms: config.retention_ms, max_bytes: config.retention_bytes };
        let highest = self.replica.retention_limit();
        if let Some(upto) = retention::new_start(&self.log.segments(), &limits, wall_ms, highest) {
            self.step(Input::Retain { upto }, now, out);
        }
    }

    /// What a turn of the loop leaves to do: start a flush, feed followers. Call after the inputs of a turn.
    pub fn settle(&mut self, now: Now, out: &mut dyn Outside) {
        if self.dead {
            return;
        }
        self.start_flush(now, out);
        self.pump(now, out);
    }

    fn die(&mut self, fatal: Fatal, out: &mut dyn Outside) {
        self.dead = true;
        self.effects.clear();
        out.fatal(fatal);
    }

    /// What became of a proposal. Of another life: nothing to this one.
    pub fn isr_result(&mut self, life: Life, attempt: u64, outcome: IsrOutcome, now: Now, out: &mut dyn Outside) {
        if life == self.life() {
            self.step(Input::IsrResult { attempt, outcome }, now, out);
        }
    }

    /// A note is durable. Of another life: nothing to this one, which notes for itself.
    pub fn noted(&mut self, life: Life, note: Note, now: Now, out: &mut dyn Outside) {
        if life != self.life() {
            return;
        }
        match note {
            Note::Policy(policy) => self.step(Input::PolicyNoted(policy), now, out),
            Note::Directory => self.step(Input::DirectoryNoted, now, out),
        }
    }

    /// Ends this partition in the process: everything durable, marked as closed cleanly.
    ///
    /// # Errors
    /// The log's; the process should stop without its clean-shutdown marker.
    pub fn close(self) -> Result<(), LogError> {
        self.log.close_clean()
    }

    /// Takes the topic's settings for what is appended from now on.
    pub fn configure(&mut self, config: LogConfig) {
        self.log.reconfigure(config);
    }
}

/// Settings of a partition's log out of its topic's configs.
#[must_use]
pub fn log_config(config: &TopicConfig) -> LogConfig {
    LogConfig {
        segment_bytes: config.segment_bytes,
        max_batch_bytes: protocol::batch::limits::MAX_BATCH_BYTES_CEILING,
        preallocate: config.flush_policy == FlushPolicy::Sync,
        ..LogConfig::default()
    }
}
