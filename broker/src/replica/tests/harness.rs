//! One replica driven by hand: log operations succeed inline, everything else is up to the story.

use super::super::effect::{AppendSource, Effect, ProduceOutcome, ToFollower, ToLeader};
use super::super::input::{Acks, BatchSpan, FollowerAck, Input, Produce, Pushed, RequestId, Subscribe, SubscriptionId};
use super::super::lease::{Lease, Now};
use super::super::view::{Member, PartitionView, ReplicaConfig};
use super::super::{Checkpoint, Identity, LogFacts, Replica};
use protocol::error::ErrorCode;
use protocol::ids::{BrokerEpoch, BrokerId, LeaderEpoch, Millis, PartitionEpoch, TopicId, TopicPartition};
use protocol::metadata::configs::FlushPolicy;
use protocol::metadata::durability::DurabilityRule;
use std::collections::BTreeSet;

pub(super) const ME: BrokerId = BrokerId(1);
pub(super) const TWO: BrokerId = BrokerId(2);
pub(super) const THREE: BrokerId = BrokerId(3);
pub(super) const LAG: Millis = 5_000;
/// How long a delete waits.
pub(super) const DELETE_MS: Millis = 400;

/// Registration of a broker in the stories: 10 + its id.
pub(super) fn epoch_of(id: BrokerId) -> BrokerEpoch {
    BrokerEpoch(10 + u64::from(id.0))
}

/// We lead in epoch 1 with all three in sync, `flush.policy=sync`, two of three needed.
pub(super) fn view() -> PartitionView {
    let member = |id: u32| Member {
        broker_epoch: Some(epoch_of(BrokerId(id))),
        data_centre: Some(format!("eu/dc{id}")),
        active: true,
        fenced: false,
        counts: true,
    };
    PartitionView {
        leader: Some(ME),
        leader_epoch: LeaderEpoch(1),
        partition_epoch: PartitionEpoch(1),
        isr: [ME, TWO, THREE].into(),
        elr: BTreeSet::new(),
        members: (1..=3).map(|id| (BrokerId(id), member(id))).collect(),
        recovering: false,
        rule: DurabilityRule { min_replicas: 2, min_dcs: 1 },
        config: ReplicaConfig {
            flush_policy: FlushPolicy::Sync,
            flush_interval_ms: 1_000,
            max_batch_bytes: 1_000,
            lag_max_ms: LAG,
        },
    }
}

/// The same, somebody else leading.
pub(super) fn following(leader: BrokerId, epoch: u32) -> PartitionView {
    PartitionView { leader: Some(leader), leader_epoch: LeaderEpoch(epoch), ..view() }
}

pub(super) struct Rig {
    pub(super) replica: Replica,
    pub(super) now: Millis,
    pub(super) lease: Lease,
    /// The next `Append` fails.
    pub(super) no_room: bool,
    requests: u64,
}

impl Rig {
    /// Over a recovered log that the registry knows of; 0 = no checkpoint.
    pub(super) fn over(facts: LogFacts, checkpoint: u64) -> Self {
        let before = checkpoint.checked_sub(1).and_then(|offset| facts.epochs.epoch_at(offset));
        let epoch = before.map(LeaderEpoch);
        let facts = LogFacts { directory_noted: true, ..facts };
        Self::recovered(facts, epoch.map(|epoch| Checkpoint { high_watermark: checkpoint, epoch }))
    }

    pub(super) fn recovered(facts: LogFacts, checkpoint: Option<Checkpoint>) -> Self {
        let at = TopicPartition { topic: TopicId::default(), partition: 0 };
        let id = Identity { at, me: ME, broker_epoch: epoch_of(ME), slot: 1 };
        let lease = Lease { valid_until: 1 << 40, grace_until: 1 << 41 };
        Self { replica: Replica::new(id, facts, checkpoint), now: 1_000, lease, no_room: false, requests: 0 }
    }

    /// Leads in epoch 1 over an empty log.
    pub(super) fn leader() -> Self {
        let mut rig = Self::over(LogFacts::empty(), 0);
        rig.assign(view());
        rig
    }

    /// A log of batches (base, end, epoch), all durable, noted `sync`.
    pub(super) fn log(batches: &[(u64, u64, u32)]) -> LogFacts {
        let mut facts = LogFacts { noted_policy: Some(FlushPolicy::Sync), ..LogFacts::empty() };
        for (base, end, epoch) in batches {
            facts.epochs.assign(*epoch, *base);
            (facts.end, facts.durable_end) = (*end, *end);
        }
        facts.start = batches.first().map_or(0, |(base, ..)| *base);
        facts
    }

    pub(super) fn moment(&self) -> Now {
        Now { at: self.now, lease: self.lease }
    }

    /// Steps, runs log operations inline, returns every effect in order.
    pub(super) fn step(&mut self, input: Input) -> Vec<Effect> {
        let (mut all, mut inputs) = (Vec::new(), vec![input]);
        while let Some(input) = inputs.pop() {
            let mut effects = Vec::new();
            self.replica.step(input, self.moment(), &mut effects);
            for effect in &effects {
                let (start, end) = (self.replica.log_start(), self.replica.log_end());
                inputs.extend(match effect {
                    Effect::Append { .. } if std::mem::take(&mut self.no_room) => Some(Input::AppendFailed { end }),
                    Effect::Append { .. } => Some(Input::Appended),
                    Effect::Truncate { .. } | Effect::Reset { .. } if std::mem::take(&mut self.no_room) => {
                        Some(Input::CutFailed)
                    }
                    Effect::Truncate { to, .. } => Some(Input::Cut { start, end: *to }),
                    Effect::Reset { start, .. } => Some(Input::Cut { start: *start, end: *start }),
                    Effect::AdvanceStart { to } => Some(Input::StartAdvanced { start: *to }),
                    _ => None,
                });
            }
            all.extend(effects);
        }
        all
    }

    pub(super) fn assign(&mut self, view: PartitionView) -> Vec<Effect> {
        self.step(Input::Assign(Box::new(view)))
    }

    pub(super) fn wait(&mut self, ms: Millis) -> Vec<Effect> {
        self.now += ms;
        self.step(Input::Tick)
    }

    /// One batch of `offsets`; its request's number is the count of requests so far.
    pub(super) fn produce(&mut self, acks: Acks, offsets: u32) -> Vec<Effect> {
        self.requests += 1;
        let id = RequestId(self.requests);
        let deadline = self.now + 10_000;
        self.step(Input::Produce(Produce { id, acks, deadline, leader_epoch: None, offsets, bytes: 100 }))
    }

    pub(super) fn delete(&mut self, id: u64, before: Option<u64>) -> Vec<Effect> {
        let deadline = self.now + DELETE_MS;
        self.step(Input::DeleteRecords { id: RequestId(id), before, deadline })
    }

    pub(super) fn flushed(&mut self, upto: u64) -> Vec<Effect> {
        self.step(Input::Flushed { generation: self.replica.generation(), upto })
    }

    /// A follower's handshake with a log that ends at `log_end` in `last_epoch`, all durable.
    pub(super) fn subscribe(
        &mut self,
        id: BrokerId,
        number: u64,
        log_end: u64,
        last_epoch: Option<u32>,
    ) -> Vec<Effect> {
        let RoleEpoch(leader_epoch) = self.role_epoch();
        self.step(Input::Subscribe(Subscribe {
            follower: id,
            broker_epoch: epoch_of(id),
            subscription: SubscriptionId(number),
            leader_epoch,
            log_start: self.replica.log_start().min(log_end),
            log_end,
            durable_end: log_end,
            last_epoch: last_epoch.map(LeaderEpoch),
            noted_policy: FlushPolicy::Sync,
        }))
    }

    pub(super) fn ack(&self, id: BrokerId, number: u64, log_end: u64, durable_end: u64) -> FollowerAck {
        let RoleEpoch(leader_epoch) = self.role_epoch();
        FollowerAck {
            follower: id,
            broker_epoch: epoch_of(id),
            subscription: SubscriptionId(number),
            leader_epoch,
            log_start: self.replica.log_start().min(log_end),
            log_end,
            durable_end,
            noted_policy: FlushPolicy::Sync,
        }
    }

    /// The follower holds everything up to here, durably.
    pub(super) fn acked(&mut self, id: BrokerId, number: u64, upto: u64) -> Vec<Effect> {
        self.step(Input::Ack(self.ack(id, number, upto, upto)))
    }

    fn role_epoch(&self) -> RoleEpoch {
        RoleEpoch(self.replica.wire_state().leader_epoch)
    }

    /// As follower: batches from the leader in its epoch, high watermark as given.
    pub(super) fn push(&mut self, subscription: SubscriptionId, batches: &[(u64, u64, u32)], hw: u64) -> Vec<Effect> {
        let RoleEpoch(leader_epoch) = self.role_epoch();
        let span =
            |(base, end, epoch): &(u64, u64, u32)| BatchSpan { base: *base, end: *end, epoch: LeaderEpoch(*epoch) };
        let batches = batches.iter().map(span).collect();
        self.step(Input::Pushed(Pushed { subscription, leader_epoch, batches, high_watermark: Some(hw), log_start: 0 }))
    }
}

struct RoleEpoch(LeaderEpoch);

/// The subscription sent out among these effects.
pub(super) fn subscribed(effects: &[Effect]) -> Option<Subscribe> {
    effects.iter().find_map(|e| match e {
        Effect::ToLeader { message: ToLeader::Subscribe(s), .. } => Some(*s),
        _ => None,
    })
}

/// The acknowledgement sent out last among these effects.
pub(super) fn acknowledged(effects: &[Effect]) -> Option<FollowerAck> {
    effects.iter().rev().find_map(|e| match e {
        Effect::ToLeader { message: ToLeader::Ack(ack), .. } => Some(*ack),
        _ => None,
    })
}

/// Requests answered as written, with their base offsets.
pub(super) fn written(effects: &[Effect]) -> Vec<(u64, u64)> {
    let one = |e: &Effect| match e {
        Effect::Reply { id, outcome: ProduceOutcome::Written { base, .. } } => Some((id.0, *base)),
        _ => None,
    };
    effects.iter().filter_map(one).collect()
}

/// Deletes answered.
pub(super) fn deleted(effects: &[Effect]) -> Vec<(u64, Result<u64, ErrorCode>)> {
    let one = |e: &Effect| match e {
        Effect::DeleteReply { id, outcome } => Some((id.0, *outcome)),
        _ => None,
    };
    effects.iter().filter_map(one).collect()
}

/// Requests refused, with the codes.
pub(super) fn refused(effects: &[Effect]) -> Vec<(u64, ErrorCode)> {
    let one = |e: &Effect| match e {
        Effect::Reply { id, outcome: ProduceOutcome::Refused(code) } => Some((id.0, *code)),
        _ => None,
    };
    effects.iter().filter_map(one).collect()
}

/// The ISR proposed, and the number of the attempt.
pub(super) fn proposed(effects: &[Effect]) -> Option<(u64, Vec<BrokerId>)> {
    effects.iter().find_map(|e| match e {
        Effect::AlterPartition { attempt, new_isr, .. } => {
            Some((*attempt, new_isr.iter().map(|(id, _)| *id).collect()))
        }
        _ => None,
    })
}

/// What a follower was told in its handshake.
pub(super) fn told(effects: &[Effect]) -> Option<ToFollower> {
    effects.iter().find_map(|e| match e {
        Effect::ToFollower { message, .. } => Some(*message),
        _ => None,
    })
}

/// Whether a produced batch was appended.
pub(super) fn appended(effects: &[Effect]) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Append { source: AppendSource::Produce(_), .. }))
}
