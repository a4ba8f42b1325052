//! What applications ask of a process: produce, read, list offsets, delete records; and what leaves it, when.
//!
//! Invariant: an answer that needs a lease is judged at the moment it leaves, as the shells of the product do.

use super::Process;
use crate::sim::buggify::Point;
use crate::sim::clock::wall;
use crate::sim::laws::Laws;
use crate::sim::sometimes::Sometimes;
use crate::sim::told::Told;
use crate::sim::wire::{Answer, Ask};
use broker::partition::OffsetQuestion;
use broker::replica::effect::ProduceOutcome;
use broker::replica::input::{Acks, Input, Produce, RequestId};
use broker::replica::lease::Guard;
use broker::replica::read::{FetchQuery, ReadRefusal};
use broker::replica::{Lease, Now, RoleName};
use bytes::Bytes;
use protocol::batch::{BatchBuilder, Compression, Limits, batches, records};
use protocol::error::ErrorCode;
use protocol::ids::{LeaderEpoch, Millis, TopicPartition};
use std::collections::VecDeque;

/// A request that the replica has and has not answered.
#[derive(Debug)]
pub(super) struct Request {
    op: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Produce { acks: Acks, epoch: LeaderEpoch, values: Vec<u64> },
    Delete { epoch: LeaderEpoch },
}

/// An answer that has been made and has not left.
#[derive(Debug)]
pub(super) struct Leaving {
    op: u64,
    at: TopicPartition,
    epoch: LeaderEpoch,
    /// That it was made under.
    lease: Lease,
    /// End of what may be read there, None = unknown.
    upto: Option<u64>,
    what: Made,
}

#[derive(Debug)]
enum Made {
    Records(Vec<(u64, u64)>, Option<LeaderEpoch>),
    Latest(u64),
    Earliest(u64),
}

/// Bytes added to each value, so that segments fill.
fn padding(value: u64, large: bool) -> usize {
    if large { 200 + usize::try_from(value % 900).unwrap_or(0) } else { 0 }
}

impl Process {
    pub(super) fn ask(
        &mut self,
        op: u64,
        at: TopicPartition,
        ask: Ask,
        now: Millis,
        laws: &mut Laws,
    ) -> Result<(), String> {
        self.touched.insert(at);
        match ask {
            Ask::Produce { acks, epoch, values, patience } => {
                self.produce(op, at, acks, epoch, values, patience, now, laws)
            }
            Ask::Delete { before, patience } => {
                if !self.partitions.contains_key(&at) {
                    self.answers.push((op, Answer::Refused(ErrorCode::NotLeader)));
                    return Ok(());
                }
                let epoch = self.partitions.get(&at).map(|p| p.replica().wire_state().leader_epoch).unwrap_or_default();
                let id = self.enter(Request { op, what: What::Delete { epoch } });
                laws.observe(now, &Told::DeleteAsked { at, before: before.unwrap_or(u64::MAX) })?;
                let deadline = self.setup.clock.shows(now) + patience;
                self.step(at, Input::DeleteRecords { id, before, deadline }, VecDeque::new(), now);
                Ok(())
            }
            Ask::Read { query, max_bytes } => {
                self.read(op, at, &query, max_bytes, now);
                Ok(())
            }
            Ask::Offset { latest, epoch } => {
                self.offset(op, at, latest, epoch, now);
                Ok(())
            }
        }
    }

    /// The watcher of free space is more careful than it would need to be.
    fn refuses_now(&self, op: u64) -> bool {
        self.is(Point::NoRoomNow) && op.is_multiple_of(61)
    }

    fn enter(&mut self, request: Request) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.requests.insert(id, request);
        id
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    fn produce(
        &mut self,
        op: u64,
        at: TopicPartition,
        acks: Acks,
        leader_epoch: Option<LeaderEpoch>,
        values: Vec<u64>,
        patience: Millis,
        now: Millis,
        laws: &mut Laws,
    ) -> Result<(), String> {
        let leads = |p: &broker::partition::Partition| matches!(p.replica().role(), RoleName::Leader(_));
        let code = match self.partitions.get(&at) {
            None => Some(ErrorCode::NotLeader),
            Some(partition) if leads(partition) && (self.full || self.refuses_now(op)) => Some(ErrorCode::DiskFull),
            Some(_) => None,
        };
        if let Some(code) = code {
            return self.refuse(op, at, acks, &values, code, now, laws);
        }
        let large = self.is(Point::LargeBatches);
        let mut builder = BatchBuilder::new(Compression::None);
        for value in &values {
            let mut bytes = value.to_be_bytes().to_vec();
            bytes.resize(8 + padding(*value, large), 0);
            builder.push(wall(now), None, Some(&bytes), &[]).expect("a value of a few bytes fits a batch");
        }
        let batch = Bytes::from(builder.build().expect("a batch of a few values is within the limits"));
        let offsets = u32::try_from(values.len()).unwrap_or(1);
        let epoch = self.partitions.get(&at).map(|p| p.replica().wire_state().leader_epoch).unwrap_or_default();
        let id = self.enter(Request { op, what: What::Produce { acks, epoch, values } });
        let deadline = self.setup.clock.shows(now) + patience;
        let bytes = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let request = Produce { id, acks, deadline, leader_epoch, offsets, bytes };
        self.with(at, now, |partition, now, out| partition.produce(request, batch, now, out));
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one answer")]
    fn refuse(
        &mut self,
        op: u64,
        at: TopicPartition,
        acks: Acks,
        values: &[u64],
        code: ErrorCode,
        now: Millis,
        laws: &mut Laws,
    ) -> Result<(), String> {
        match code {
            ErrorCode::NotEnoughReplicas => self.seen.push(Sometimes::NotEnoughReplicas),
            ErrorCode::Timeout | ErrorCode::OutcomeUnknown => self.seen.push(Sometimes::ProduceTimedOut),
            ErrorCode::LeaseExpired | ErrorCode::LeaseExpiredAfterAppend => {
                self.seen.push(Sometimes::LeaseRefusedAnswer);
            }
            _ => {}
        }
        self.answers.push((op, Answer::Refused(code)));
        laws.observe(now, &Told::Refused { who: self.who(), at, acks, values, code })
    }

    /// A produce is decided: its answer leaves at once, under the lease as it is now.
    pub(super) fn produced(
        &mut self,
        at: TopicPartition,
        id: RequestId,
        outcome: ProduceOutcome,
        now: Millis,
        laws: &mut Laws,
    ) -> Result<(), String> {
        let Some(Request { op, what: What::Produce { acks, epoch, values } }) = self.requests.remove(&id) else {
            return Ok(());
        };
        let code = match outcome {
            ProduceOutcome::Written { base, guard } if self.now(now).lets_out(guard) => {
                self.answers.push((op, Answer::Written { base }));
                match acks {
                    Acks::None => self.seen.push(Sometimes::AcksZero),
                    Acks::Leader => self.seen.push(Sometimes::AcksOne),
                    Acks::All => {}
                }
                return laws.observe(now, &Told::Written { who: self.who(), at, epoch, acks, base, values: &values });
            }
            ProduceOutcome::Written { .. } => ErrorCode::LeaseExpiredAfterAppend,
            ProduceOutcome::Refused(code) => code,
        };
        self.refuse(op, at, acks, &values, code, now, laws)
    }

    pub(super) fn deleted(
        &mut self,
        at: TopicPartition,
        id: RequestId,
        outcome: Result<u64, ErrorCode>,
        now: Millis,
        laws: &mut Laws,
    ) -> Result<(), String> {
        let Some(Request { op, what: What::Delete { epoch } }) = self.requests.remove(&id) else { return Ok(()) };
        let leased = self.now(now).lets_out(Guard::Lease);
        let outcome = outcome.and_then(|start| leased.then_some(start).ok_or(ErrorCode::LeaseExpiredAfterAppend));
        match outcome {
            Ok(before) => {
                self.seen.push(Sometimes::RecordsDeleted);
                self.answers.push((op, Answer::Offset(before)));
                laws.observe(now, &Told::Deleted { who: self.who(), at, epoch, before })
            }
            Err(code) => {
                self.answers.push((op, Answer::Refused(code)));
                Ok(())
            }
        }
    }

    fn read(&mut self, op: u64, at: TopicPartition, query: &FetchQuery, max_bytes: usize, now: Millis) {
        let (moment, mut out) = (self.now(now), self.outbox());
        let Some(partition) = self.partitions.get_mut(&at) else {
            return self.answers.push((op, Answer::Refused(ErrorCode::NotLeader)));
        };
        let read = partition.read(query, max_bytes, moment, &mut out);
        let state = partition.replica().wire_state();
        self.outgoing.append(&mut out.out);
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(refusal) => {
                let answer = self.refused_read(refusal);
                return self.answers.push((op, answer));
            }
        };
        let (records, last_epoch) = decoded(&bytes, query.offset);
        self.leave_later(Leaving {
            op,
            at,
            lease: moment.lease,
            epoch: state.leader_epoch,
            upto: state.high_watermark,
            what: Made::Records(records, last_epoch),
        });
    }

    fn refused_read(&mut self, refusal: ReadRefusal) -> Answer {
        match refusal {
            ReadRefusal::Diverged { end, .. } => {
                self.seen.push(Sometimes::DivergedReader);
                Answer::Diverged(end)
            }
            ReadRefusal::Code(code) => {
                if code == ErrorCode::OffsetNotAvailable {
                    self.seen.push(Sometimes::OffsetNotAvailable);
                }
                Answer::Refused(code)
            }
        }
    }

    fn offset(&mut self, op: u64, at: TopicPartition, latest: bool, epoch: Option<LeaderEpoch>, now: Millis) {
        let (moment, mut out) = (self.now(now), self.outbox());
        let Some(partition) = self.partitions.get_mut(&at) else {
            return self.answers.push((op, Answer::Refused(ErrorCode::NotLeader)));
        };
        let question = if latest { OffsetQuestion::Latest } else { OffsetQuestion::Earliest };
        let found = partition.offset_for(question, epoch, moment, &mut out);
        let state = partition.replica().wire_state();
        self.outgoing.append(&mut out.out);
        match found {
            Ok(Some((offset, _))) => {
                let what = if latest { Made::Latest(offset) } else { Made::Earliest(offset) };
                self.leave_later(Leaving {
                    op,
                    at,
                    lease: moment.lease,
                    epoch: state.leader_epoch,
                    upto: state.high_watermark,
                    what,
                });
            }
            Ok(None) => self.answers.push((op, Answer::Refused(ErrorCode::OffsetNotAvailable))),
            Err(refusal) => {
                let answer = self.refused_read(refusal);
                self.answers.push((op, answer));
            }
        }
    }

    fn leave_later(&mut self, leaving: Leaving) {
        self.next_leaving += 1;
        self.leaving.insert(self.next_leaving, leaving);
        self.delayed.push(self.next_leaving);
    }

    /// An answer leaves: under the lease that it was made under, under its grace flagged, else refused.
    pub(super) fn leave(&mut self, number: u64, now: Millis, laws: &mut Laws) -> Result<(), String> {
        let Some(Leaving { op, at, epoch, lease, upto, what }) = self.leaving.remove(&number) else { return Ok(()) };
        let (moment, who) = (Now { at: self.setup.clock.shows(now), lease }, self.who());
        if !moment.lets_out(Guard::Grace) {
            self.seen.push(Sometimes::LeaseRefusedAnswer);
            self.answers.push((op, Answer::Refused(ErrorCode::LeaseExpired)));
            return Ok(());
        }
        let flagged = !moment.lets_out(Guard::Lease);
        self.seen.push(if flagged { Sometimes::FlaggedRead } else { Sometimes::UnflaggedRead });
        match what {
            Made::Records(records, last) => {
                laws.observe(now, &Told::Read { who, at, epoch, flagged, upto, records: &records })?;
                self.answers.push((op, Answer::Records(records, last)));
            }
            Made::Latest(offset) => {
                laws.observe(now, &Told::Latest { who, at, epoch, flagged, offset })?;
                self.answers.push((op, Answer::Offset(offset)));
            }
            Made::Earliest(offset) => {
                laws.observe(now, &Told::Earliest { who, at, epoch, flagged, offset })?;
                self.answers.push((op, Answer::Offset(offset)));
            }
        }
        Ok(())
    }
}

/// (offset, value) of every record from `from` on, and the epoch of the last batch.
fn decoded(bytes: &Bytes, from: u64) -> (Vec<(u64, u64)>, Option<LeaderEpoch>) {
    let (mut found, mut last) = (Vec::new(), None);
    for batch in batches(bytes).filter_map(Result::ok) {
        last = protocol::batch::Header::parse(&batch).ok().and_then(|h| h.leader_epoch).map(LeaderEpoch);
        let Ok(stored) = records(&batch, &Limits::default()) else { continue };
        for stored in stored.filter_map(Result::ok).filter(|s| s.offset >= from) {
            found.push((stored.offset, value_of(stored.record.value.as_deref()).unwrap_or(u64::MAX)));
        }
    }
    (found, last)
}

/// The number in a record's value.
pub(super) fn value_of(value: Option<&[u8]>) -> Option<u64> {
    value.and_then(|bytes| bytes.first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes))
}
