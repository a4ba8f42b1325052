//! What the laws are told: everything that somebody outside a broker could see or was promised, in the order in which it
//! happened. Data only.

use broker::replica::input::Acks;
use controller::decide::command::{Command, Reply};
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BatchNo, BrokerId, ControllerId, LeaderEpoch, PartitionEpoch, TopicPartition};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use uuid::Uuid;

/// One life of one broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Who {
    pub(super) id: BrokerId,
    pub(super) life: u64,
}

/// One thing that the laws hear of.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "each law reads the fields that concern it")]
pub(super) enum Told<'a> {
    /// A batch was folded into the controllers' image.
    Committed { batch: &'a MetadataBatch, before: &'a MetadataImage, after: &'a MetadataImage },
    /// A batch was dropped: it was decided on another image.
    Dropped { batch: &'a MetadataBatch, image: &'a MetadataImage },
    /// The active controller decided these commands, and what it writes.
    Decided { facts: &'a [Fact], decided: &'a [(Command, Result<Reply, ApiError>)] },
    /// A controller is the active one from now on.
    Active { controller: ControllerId, taken_at: BatchNo },
    /// A broker's image is now this one.
    Image { who: Who, before: BatchNo, image: &'a MetadataImage },
    /// A heartbeat was answered by the active controller.
    Answered { broker: BrokerId, controller: ControllerId, fenced: bool, committed: BatchNo },
    /// A broker process began; on a disk that may lack what it acknowledged.
    Started { who: Who, incarnation: Uuid, sound: bool },
    /// A broker process ended; with its page cache, if the power failed.
    Ended { who: Who, power: bool },
    /// A process leads, as seen after one of its turns.
    Leads { who: Who, at: TopicPartition, epoch: LeaderEpoch },
    /// A leader asked for a change of the ISR.
    Proposed {
        who: Who,
        at: TopicPartition,
        attempt: u64,
        partition_epoch: PartitionEpoch,
        isr: &'a [(BrokerId, protocol::ids::BrokerEpoch)],
    },
    /// It hears what became of it.
    AlterAnswered { who: Who, at: TopicPartition, attempt: u64 },
    /// A producer sends these values for the first time, or again.
    Asked { at: TopicPartition, to: BrokerId, acks: Acks, values: &'a [u64] },
    /// "Written" left the broker.
    Written { who: Who, at: TopicPartition, epoch: LeaderEpoch, acks: Acks, base: u64, values: &'a [u64] },
    /// A refusal left the broker. Some codes leave open what became of the records.
    Refused { who: Who, at: TopicPartition, acks: Acks, values: &'a [u64], code: ErrorCode },
    /// Records left the broker: (offset, value). Unflagged: under the lease.
    Read {
        who: Who,
        at: TopicPartition,
        epoch: LeaderEpoch,
        flagged: bool,
        upto: Option<u64>,
        records: &'a [(u64, u64)],
    },
    /// "Latest" left the broker.
    Latest { who: Who, at: TopicPartition, epoch: LeaderEpoch, flagged: bool, offset: u64 },
    /// "Earliest" left the broker.
    Earliest { who: Who, at: TopicPartition, epoch: LeaderEpoch, flagged: bool, offset: u64 },
    /// Records below were deleted, on a client's wish; the answer left the broker.
    Deleted { who: Who, at: TopicPartition, epoch: LeaderEpoch, before: u64 },
    /// A client asks for that.
    DeleteAsked { at: TopicPartition, before: u64 },
    /// An operator asks for a leader whatever is lost.
    UncleanAsked { at: TopicPartition },
    /// Faults are over.
    Healed,
}
