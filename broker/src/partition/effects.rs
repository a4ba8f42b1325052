//! Running a replica's effects over the log and the outside, in the order given.

use bytes::{Bytes, BytesMut};
use log::LogError;
use protocol::batch::{Header, stamp};
use protocol::ids::LeaderEpoch;

use super::Partition;
use super::outside::{IsrProposal, Note, Outside, Subscription};
use crate::fatal::Fatal;
use crate::replica::effect::{Abdication, AppendSource, Effect, FatalReason};
use crate::replica::input::Input;
use crate::replica::lease::Now;

impl Partition {
    /// Runs one effect; the result of one that touches the log is stepped next.
    pub(super) fn run(&mut self, effect: Effect, now: Now, out: &mut dyn Outside) -> Result<Option<Input>, Fatal> {
        match effect {
            Effect::Forward { base, end } => {
                self.forward(base, end, now, out);
                Ok(None)
            }
            Effect::Append { source, base, end, leader_epoch } => {
                self.append(source, base, end, leader_epoch, out).map(Some)
            }
            Effect::Truncate { to, keep_aside } => self.truncate(to, keep_aside).map(Some),
            Effect::Reset { start, keep_aside } => self.reset(start, keep_aside).map(Some),
            Effect::AdvanceStart { to } => {
                match self.log.drop_head(to) {
                    Ok(_) => {}
                    // Nothing has changed; retention and the leader's positions ask again.
                    Err(LogError::DiskFull { .. }) => {
                        tracing::warn!(partition = %self.at, to, "no room to drop the head")
                    }
                    Err(error) => return Err(self.disk("drop of the head", &error)),
                }
                Ok(Some(Input::StartAdvanced { start: self.log.start_offset() }))
            }
            other => {
                self.run_outside(other, out)?;
                Ok(None)
            }
        }
    }

    fn run_outside(&mut self, effect: Effect, out: &mut dyn Outside) -> Result<(), Fatal> {
        match effect {
            Effect::Flush { generation, upto } => self.flush.want(generation, upto),
            Effect::NoteDirectory => out.note(self.life(), Note::Directory),
            Effect::NotePolicy(policy) => out.note(self.life(), Note::Policy(policy)),
            Effect::ToFollower { follower, subscription, message } => {
                out.to_follower(Subscription { at: self.at, follower, number: subscription }, message);
            }
            Effect::StartPump { follower, subscription, from } => self.pumps.start(follower, subscription, from),
            Effect::StopPump { follower, subscription } => self.pumps.stop(follower, subscription),
            Effect::ToLeader { leader, message } => out.to_leader(self.at, leader, message),
            Effect::Reply { id, outcome } => out.reply(self.at, id, outcome, self.replica.wire_state()),
            Effect::DeleteReply { id, outcome } => out.delete_reply(self.at, id, outcome, self.replica.wire_state()),
            Effect::Moved { checkpoint, .. } => out.moved(self.at, checkpoint),
            Effect::AlterPartition { attempt, leader_epoch, partition_epoch, new_isr } => {
                out.alter(IsrProposal { life: self.life(), attempt, leader_epoch, partition_epoch, new_isr });
            }
            Effect::ReportLogEnd(report) => out.report_log_end(self.at, report),
            Effect::Abdicate { leader_epoch, reason: Abdication::AppendFailedAfterForward } => {
                let text = format!(
                    "{}: an append failed after its batch went to followers in epoch {leader_epoch}; its offsets are \
                     taken, so this broker stops and lets another lead",
                    self.at
                );
                return Err(Fatal::Disk(text));
            }
            Effect::Fatal(FatalReason::Damaged) => return Err(self.quarantine()),
            Effect::Fatal(reason) => return Err(fatal(self.at, &reason)),
            Effect::Forward { .. }
            | Effect::Append { .. }
            | Effect::Truncate { .. }
            | Effect::Reset { .. }
            | Effect::AdvanceStart { .. } => unreachable!("effects on the log are run by `run`"),
        }
        Ok(())
    }

    /// What an operation on the log that failed comes to: damage is moved out of the way first, or the next start, which
    /// reads no sealed segment, would meet it again.
    pub(super) fn disk(&self, op: &str, error: &LogError) -> Fatal {
        if matches!(error, LogError::Damaged(_)) {
            tracing::error!(partition = %self.at, %error, op, "found damage");
            return self.quarantine();
        }
        Fatal::Disk(format!("{op} of {} in {}: {error}", self.at, self.log.dir().display()))
    }

    /// A damaged log is moved out of the way before the process stops: the next start misses it, proves nothing for it
    /// and copies it anew. Left in place, a start that reads no sealed segment would prove it and stop here again.
    fn quarantine(&self) -> Fatal {
        match self.data.set_aside(self.at.topic.0, self.at.partition) {
            Ok(to) => Fatal::Disk(format!(
                "{}: {}; set aside as {}, the next start copies it anew from its leader",
                self.at,
                FatalReason::Damaged,
                to.display()
            )),
            Err(error) => Fatal::Disk(format!("setting aside of the damaged log of {}: {error}", self.at)),
        }
    }

    /// The batch in hand goes to followers before it is appended here: they sync while we do.
    fn forward(&mut self, base: u64, end: u64, now: Now, out: &mut dyn Outside) {
        let Some(Effect::Append { leader_epoch, .. }) = self.effects.front() else { return };
        let epoch = *leader_epoch;
        self.stamp_hand(base, epoch);
        if let Some(batch) = self.hand.front().cloned() {
            self.pumps.keep(base, end, batch.clone());
            self.offer(base, end, &batch, now, out);
        }
    }

    fn stamp_hand(&mut self, base: u64, epoch: LeaderEpoch) {
        let Some(batch) = self.hand.pop_front() else { return };
        let mut bytes = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(shared.as_ref()));
        stamp(&mut bytes, base, epoch.0);
        self.hand.push_front(bytes.freeze());
    }

    fn append(
        &mut self,
        source: AppendSource,
        base: u64,
        end: u64,
        leader_epoch: LeaderEpoch,
        out: &mut dyn Outside,
    ) -> Result<Input, Fatal> {
        match source {
            AppendSource::Produce(_) => self.stamp_hand(base, leader_epoch),
            AppendSource::Push if !out.has_room() => {
                return Ok(Input::AppendFailed { end: self.log.end_offset() });
            }
            AppendSource::Push => {}
        }
        while let Some(batch) = self.hand.pop_front() {
            let Some(first) = base_of(&batch).filter(|first| *first < end) else { break };
            if first < base {
                continue;
            }
            match self.log.append(first, &batch) {
                Ok(()) => {}
                Err(LogError::DiskFull { .. }) => return Ok(Input::AppendFailed { end: self.log.end_offset() }),
                Err(error) => return Err(self.disk("append", &error)),
            }
        }
        if self.log.end_offset() == end {
            return Ok(Input::Appended);
        }
        let text = format!("{}: append of {base}..{end} left the log at {}", self.at, self.log.end_offset());
        Err(Fatal::Invariant(text))
    }

    fn truncate(&mut self, to: u64, keep_aside: bool) -> Result<Input, Fatal> {
        if keep_aside {
            match self.keep_tail(to) {
                Err(LogError::DiskFull { .. }) => return Ok(self.no_room_to_cut(to)),
                other => other.map_err(|e| self.disk("copy of a cut tail", &e))?,
            }
        }
        let before = self.log.end_offset();
        let end = match self.log.truncate(to) {
            // A poisoned log is cut half way: that is no refusal.
            Err(LogError::DiskFull { .. }) if !self.log.is_poisoned() => return Ok(self.no_room_to_cut(to)),
            other => other.map_err(|e| self.disk("truncation", &e))?,
        };
        if end < before {
            metrics::counter!(crate::metrics::TRUNCATIONS).increment(1);
            tracing::info!(partition = %self.at, from = end, to = before, "cut a tail that the leader does not have");
        }
        self.flush.forget();
        self.pumps.forget_kept();
        Ok(Input::Cut { start: self.log.start_offset(), end })
    }

    fn reset(&mut self, start: u64, keep_aside: bool) -> Result<Input, Fatal> {
        if keep_aside {
            match self.keep_tail(self.log.start_offset()) {
                Err(LogError::DiskFull { .. }) => return Ok(self.no_room_to_cut(start)),
                other => other.map_err(|e| self.disk("copy of a cut tail", &e))?,
            }
        }
        match self.log.reset(start) {
            Err(LogError::DiskFull { .. }) if !self.log.is_poisoned() => return Ok(self.no_room_to_cut(start)),
            other => other.map_err(|e| self.disk("reset", &e))?,
        }
        self.flush.forget();
        self.pumps.forget_kept();
        Ok(Input::Cut { start: self.log.start_offset(), end: self.log.end_offset() })
    }

    /// Copies what is about to be cut into a file of its own, durably: an unclean election overruled it, an operator may
    /// still want it.
    fn keep_tail(&self, from: u64) -> Result<(), LogError> {
        crate::strays::keep_tail(&self.log, &self.data, self.at, from)
    }

    fn no_room_to_cut(&self, to: u64) -> Input {
        tracing::warn!(partition = %self.at, to, "no room to note a cut: it is asked for again");
        Input::CutFailed
    }
}

fn base_of(batch: &Bytes) -> Option<u64> {
    Header::parse(batch).ok().map(|header| header.base_offset)
}

fn fatal(at: protocol::ids::TopicPartition, reason: &FatalReason) -> Fatal {
    match reason {
        FatalReason::Damaged => Fatal::Disk(format!("{at}: {reason}")),
        FatalReason::TruncateBelowHighWatermark { .. } | FatalReason::Invariant(_) => {
            Fatal::Invariant(format!("{at}: {reason}"))
        }
    }
}
