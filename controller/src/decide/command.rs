//! What the decider can be asked ([`Command`], one per write of the services) and what it answers ([`Reply`]).
//!
//! Plain data. Ids, seeds and wall-clock times are made at the edge and ride in the command, so that deciding is a
//! function of (image, sessions, now, command). Nothing here decides anything.

use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BatchNo, BrokerEpoch, BrokerId, LeaderEpoch, Millis, PartitionEpoch, TopicId, TopicPartition};
use protocol::locality::Locality;
use protocol::metadata::brokers::BrokerView;
use protocol::metadata::record::{BrokerRef, Endpoint};
use protocol::metadata::topics::Partition;
use uuid::Uuid;

/// The time of a decision, read by the shell right before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic ms (CLOCK_BOOTTIME): sessions, leases, waits.
    pub mono: Millis,
    /// Wall clock, ms since 1970: what is written into facts for people, and `delete.grace`.
    pub wall: Millis,
}

/// A write that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Nothing asked: look for work. Also run at the end of every other batch.
    Tick,
    /// A broker process wants a registration.
    Register(Register),
    /// A registered broker names partitions whose data its restart provably kept.
    ProveRestart(ProveRestart),
    /// A heartbeat that wants something only a batch can give (see [`super::sessions::HeartbeatDecision`]).
    Heartbeat(Heartbeat),
    /// A leader proposes new ISRs.
    AlterPartitions(AlterPartitions),
    /// A replica of leaderless partitions says what it holds.
    ReportLogEnds(ReportLogEnds),
    /// A new topic.
    CreateTopic(CreateTopic),
    /// A topic goes; restorable until purged.
    DeleteTopic(DeleteTopic),
    /// More partitions for a topic.
    CreatePartitions(CreatePartitions),
    /// Config values set or unset.
    AlterConfigs(AlterConfigs),
    /// Leaders moved to the preferred replica, or found by an unclean election.
    ElectLeaders(ElectLeaders),
    /// An operator wants a broker drained and stopped.
    ShutdownBroker {
        /// Which.
        broker: BrokerId,
    },
}

impl Command {
    /// Whether deciding it may look at many partitions, whatever comes of it.
    #[must_use]
    pub fn looks_far(&self) -> bool {
        match self {
            Self::CreateTopic(_) | Self::CreatePartitions(_) | Self::AlterConfigs(_) | Self::ElectLeaders(_) => true,
            Self::Tick
            | Self::Register(_)
            | Self::ProveRestart(_)
            | Self::Heartbeat(_)
            | Self::AlterPartitions(_)
            | Self::ReportLogEnds(_)
            | Self::DeleteTopic(_)
            | Self::ShutdownBroker { .. } => false,
        }
    }
}

/// See [`Command::Register`]. Cluster id and incarnation are checked by the service before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Its configured id, 1 or more.
    pub broker: BrokerId,
    /// Uuid of the process.
    pub incarnation: Uuid,
    /// Listener for nodes.
    pub internal: Endpoint,
    /// Listener for applications.
    pub client: Endpoint,
    /// Where it stands.
    pub locality: Locality,
    /// Uuids of its data directories, at least one.
    pub directories: Vec<Uuid>,
    /// Lowest `metadata.version` it folds.
    pub min_metadata_version: u16,
    /// Highest `metadata.version` it folds.
    pub max_metadata_version: u16,
    /// Epoch that its directory durably knows and claims for its previous life, None when it has none.
    pub previous_epoch: Option<BrokerEpoch>,
    /// What its image shows of this broker; the claim was chosen by it.
    pub seen: BrokerView,
}

/// See [`Command::ProveRestart`]. Chunks add up per (broker, epoch); the one with `last` closes the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProveRestart {
    /// Who.
    pub broker: BrokerId,
    /// Under which registration.
    pub epoch: BrokerEpoch,
    /// Proved partitions.
    pub proved: Vec<TopicPartition>,
    /// Final chunk: everything not named so far loses its ISR and ELR places.
    pub last: bool,
}

/// One heartbeat as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub broker: BrokerId,
    /// Under which registration.
    pub epoch: BrokerEpoch,
    /// Number of the stream it came on, given by the service in order of acceptance, from 1.
    pub stream: u64,
    /// Batch number of the broker's image.
    pub applied: BatchNo,
    /// It is ready to be unfenced.
    pub wants_unfence: bool,
    /// It wants to stop.
    pub wants_shutdown: bool,
}

/// See [`Command::AlterPartitions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterPartitions {
    /// The leader that asks.
    pub broker: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Proposals, each compare-and-set.
    pub partitions: Vec<AlterPartition>,
}

/// One proposed ISR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterPartition {
    /// Which partition.
    pub at: TopicPartition,
    /// Leader epoch it was proposed in.
    pub leader_epoch: LeaderEpoch,
    /// Partition epoch it was proposed on.
    pub partition_epoch: PartitionEpoch,
    /// The new ISR, each member with the broker epoch the leader knows it by (KIP-903).
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
}

/// See [`Command::ReportLogEnds`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportLogEnds {
    /// Who.
    pub broker: BrokerId,
    /// Under which registration.
    pub epoch: BrokerEpoch,
    /// What it holds.
    pub ends: Vec<ReportedEnd>,
}

/// What one replica of a leaderless partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReportedEnd {
    /// Which partition.
    pub at: TopicPartition,
    /// Leader epoch of the image in which the partition was leaderless; another one is out of date.
    pub leader_epoch: LeaderEpoch,
    /// Epoch of the last batch, None for an empty log.
    pub last_epoch: Option<u32>,
    /// Offset of the next record.
    pub log_end: u64,
    /// Offset of the first record.
    pub log_start: u64,
    /// Part of the log is damaged or quarantined.
    pub damaged: bool,
}

/// See [`Command::CreateTopic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopic {
    /// New identity.
    pub topic: TopicId,
    /// Seed of the placement.
    pub seed: u64,
    /// Wall clock, ms since 1970.
    pub at_ms: Millis,
    /// Name.
    pub name: String,
    /// Partitions, from 1.
    pub partitions: u32,
    /// Replicas a partition; None takes `default.replication.factor`.
    pub replicas: Option<u32>,
    /// Configs set on the topic.
    pub configs: Vec<(String, String)>,
    /// Only say whether it would work.
    pub validate_only: bool,
}

/// See [`Command::DeleteTopic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTopic {
    /// Name of a live topic.
    pub name: String,
    /// Wall clock, ms since 1970.
    pub at_ms: Millis,
}

/// See [`Command::CreatePartitions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitions {
    /// Name of a live topic.
    pub name: String,
    /// Partitions it shall have.
    pub total: u32,
    /// Seed of the placement.
    pub seed: u64,
    /// Only say whether it would work.
    pub validate_only: bool,
}

/// What configs belong to, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigTarget {
    /// Defaults for the whole cluster.
    Cluster,
    /// A registered broker.
    Broker(BrokerId),
    /// A live topic, by name.
    Topic(String),
}

/// See [`Command::AlterConfigs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterConfigs {
    /// Whose.
    pub target: ConfigTarget,
    /// Keys to set.
    pub set: Vec<(String, String)>,
    /// Keys to unset.
    pub unset: Vec<String>,
    /// Only say whether it would work.
    pub validate_only: bool,
}

/// Which partitions an election is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ElectionScope {
    /// Every partition of every live topic.
    All,
    /// Every partition of a live topic.
    Topic(String),
    /// One partition.
    Partition(String, u32),
}

/// What kind of election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionKind {
    /// Back to the first replica, if that is in the ISR and active. Loses nothing.
    Preferred,
    /// A leader for a partition that has no safe candidate. May lose records; recorded as a fact.
    Unclean {
        /// Do not wait lease + `lease.grace` for former leaders that were not heard of.
        now: bool,
        /// The broker to elect; None takes the longest log by (last epoch, log end).
        chosen: Option<BrokerId>,
    },
}

/// See [`Command::ElectLeaders`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectLeaders {
    /// Which partitions.
    pub scope: ElectionScope,
    /// Preferred or unclean.
    pub kind: ElectionKind,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Wall clock, ms since 1970.
    pub at_ms: Millis,
}

/// What a command led to. Sent only once the batch it belongs to was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing to say (Tick, `ReportLogEnds`).
    Done,
    /// The registration stands.
    Registered(Registered),
    /// The chunk was noted, or the proof closed. The outcome shows in the image: `proved` of this registration.
    ProofNoted {
        /// Image number that holds at least what was decided so far.
        batch_no: BatchNo,
    },
    /// Answer to send on the heartbeat stream, over and above the one already sent.
    Heartbeat {
        /// To whom.
        at: BrokerRef,
        /// What to say.
        answer: HeartbeatAnswer,
    },
    /// One result per proposal, in order.
    Altered(Vec<AlterResult>),
    /// The topic exists (or would, under `validate_only`).
    TopicCreated {
        /// Identity.
        topic: TopicId,
        /// Batch that holds it.
        batch_no: BatchNo,
        /// Its partitions by number.
        partitions: Vec<Partition>,
    },
    /// The topic is deleted.
    TopicDeleted {
        /// Identity, by which it can be restored.
        topic: TopicId,
        /// Batch that holds the deletion.
        batch_no: BatchNo,
    },
    /// Committed in this batch (`CreatePartitions`, `AlterConfigs`, `ShutdownBroker`).
    Committed {
        /// Batch that holds it; the current one when nothing had to change.
        batch_no: BatchNo,
    },
    /// One result per partition looked at.
    Elected(Vec<ElectionResult>),
}

/// See [`Reply::Registered`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The broker's epoch.
    pub epoch: BrokerEpoch,
    /// Image number at or above the registration's.
    pub batch_no: BatchNo,
    /// It may prove partitions.
    pub proof_admissible: bool,
}

/// What the active controller answers to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// The image that this controller has applied.
    pub committed: BatchNo,
    /// The lease is renewed once this batch is applied: a batch that takes a partition from the broker and is being written,
    /// else `committed`. Others may know that batch as committed before this controller has applied it.
    pub renews_at: BatchNo,
    /// The broker is fenced in the committed image.
    pub fenced: bool,
    /// It leads nothing, is in no ISR, and every active broker has applied the moves.
    pub may_stop: bool,
    /// A refusal (unknown broker, stale epoch): renews nothing.
    pub error: Option<ApiError>,
}

/// Outcome of one ISR proposal, with the partition's state after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterResult {
    /// Which partition.
    pub at: TopicPartition,
    /// None: committed.
    pub error: Option<ErrorCode>,
    /// Current leader.
    pub leader: Option<BrokerId>,
    /// Current leader epoch.
    pub leader_epoch: LeaderEpoch,
    /// Current partition epoch.
    pub partition_epoch: PartitionEpoch,
    /// Current ISR.
    pub isr: Vec<BrokerId>,
}

/// A replica of a leaderless partition, for people who must choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survivor {
    /// Which replica.
    pub broker: BrokerId,
    /// What it reported at the current leader epoch; None: not heard of.
    pub end: Option<ReportedEnd>,
}

/// Outcome of one election.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectionResult {
    /// Topic name.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// Why there was none.
    pub error: Option<ApiError>,
    /// Leader afterwards.
    pub leader: Option<BrokerId>,
    /// Leader epoch afterwards.
    pub leader_epoch: LeaderEpoch,
    /// For unclean elections: every replica.
    pub survivors: Vec<Survivor>,
    /// What happened, or would happen, in words.
    pub text: String,
}
