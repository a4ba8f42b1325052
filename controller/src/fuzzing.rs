//! Ways in for hostile bytes: what this crate's services do with a message before and while they decide, without a
//! quorum or a socket. Exists only with the feature `fuzzing` (test builds).
//!
//! Each function takes any bytes, never panics, and asserts what must hold of whatever it accepted. The first byte
//! chooses the message.

use crate::decide::batch::{Plan, run_batch};
use crate::decide::command::{Command, DeleteTopic, Heartbeat, Now, ProveRestart};
use crate::decide::explain;
use crate::decide::limits::BATCH_FACT_BYTES_MAX;
use crate::decide::sessions::Sessions;
use crate::rpc::{admin_wire, commands};
use prost::Message;
use protocol::error::ApiError;
use protocol::ids::{BrokerId, TopicId};
use protocol::metadata::batch::MetadataBatch;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::Fact;
use protocol::rpc::convert;
use protocol::rpc::pb::{admin::v1 as admin, lifecycle::v1 as lifecycle, raft::v1 as raft};
use protocol::timers::Timers;
use std::sync::OnceLock;
use uuid::Uuid;

pub use crate::quorum::fuzzing::{
    raft_directories, raft_directory, raft_entry, raft_message, raft_payload, snapshot_body, snapshot_file,
    snapshot_files,
};

/// How deep an input got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Ended by the first check: framing, a checksum, a length.
    Refused,
    /// Read, then refused for what it says.
    Decoded,
    /// Taken.
    Accepted,
}

/// Kinds of payload that [`raft_payload`] knows.
pub const RAFT_KINDS: u8 = crate::quorum::fuzzing::KINDS;

const NOW: Now = Now { mono: 10_000, wall: 1_700_000_000_000 };

/// The cluster that is asked: brokers 1 to 3 let in, a topic `t` with id 7 and three partitions.
fn cluster() -> &'static (MetadataImage, Sessions) {
    static CLUSTER: OnceLock<(MetadataImage, Sessions)> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let mut image = MetadataImage::default();
        let mut sessions = Sessions::new(Timers::from_rtt(20));
        let formed = protocol::metadata::record::ClusterFormed {
            cluster_id: Uuid::from_u128(1),
            incarnation: 1,
            metadata_version: protocol::metadata::record::METADATA_VERSION_MAX,
        };
        image = folded(&image, vec![Fact::ClusterFormed(formed)]);
        sessions.takeover(image.batch_no, 0);
        for id in 1..=3 {
            let request = lifecycle::RegisterRequest::decode(register_bytes(id).as_slice()).expect("as encoded");
            let command = commands::register(request).expect("a legal registration");
            ask(&mut image, &mut sessions, Command::Register(command));
            let epoch = image.brokers.get(BrokerId(id)).map(|b| b.epoch).expect("it has registered");
            let proof = ProveRestart { broker: BrokerId(id), epoch, proved: Vec::new(), last: true };
            ask(&mut image, &mut sessions, Command::ProveRestart(proof));
            let (broker, applied) = (BrokerId(id), image.batch_no);
            let beat = Heartbeat { broker, epoch, stream: 1, applied, wants_unfence: true, wants_shutdown: false };
            sessions.answer_heartbeat(&image, &beat, NOW.mono, true);
            ask(&mut image, &mut sessions, Command::Heartbeat(beat));
            assert!(image.brokers.get(broker).is_some_and(|b| b.is_active()), "broker {id} is not let in");
        }
        let request = admin::CreateTopicRequest { name: "t".into(), partitions: 3, replicas: 3, ..Default::default() };
        let topic = commands::create_topic(request, TopicId(Uuid::from_u128(7)), 5, 1);
        ask(&mut image, &mut sessions, Command::CreateTopic(topic));
        assert!(image.topics.by_name("t").is_some(), "the cluster that is asked has no topic");
        (image, sessions)
    })
}

fn folded(image: &MetadataImage, facts: Vec<Fact>) -> MetadataImage {
    let batch = MetadataBatch { base: image.batch_no, facts };
    let bytes = batch.encode();
    image.apply(&batch, &bytes).expect("what was decided may be written").0
}

fn ask(image: &mut MetadataImage, sessions: &mut Sessions, command: Command) {
    let plan = run_batch(image, sessions, NOW, &[command]);
    if !plan.facts.is_empty() {
        *image = folded(image, plan.facts);
    }
    sessions.settled(true);
}

/// A registration as a broker sends it: the beginning of a corpus.
#[must_use]
pub fn register_bytes(id: u32) -> Vec<u8> {
    let endpoint = |port| Some(protocol::rpc::pb::common::v1::Endpoint { host: format!("b{id}"), port });
    let request = lifecycle::RegisterRequest {
        cluster: Some(convert::cluster_ref(Uuid::from_u128(1), 1)),
        broker_id: id,
        incarnation: Uuid::from_u128(100 + u128::from(id)).as_bytes().to_vec().into(),
        internal: endpoint(1),
        client: endpoint(2),
        locality: format!("r/dc{id}/k"),
        directories: vec![Uuid::from_u128(200 + u128::from(id)).as_bytes().to_vec().into()],
        min_metadata_version: 1,
        max_metadata_version: u32::from(protocol::metadata::record::METADATA_VERSION_MAX),
        ..lifecycle::RegisterRequest::default()
    };
    request.encode_to_vec()
}

/// Decides a command on the cluster. Whatever comes of it may be written, and fits an entry.
fn decided(command: Result<Command, ApiError>) -> Depth {
    let Ok(command) = command else { return Depth::Decoded };
    let (image, sessions) = cluster();
    let mut sessions = sessions.clone();
    let Plan { facts, replies, .. } = run_batch(image, &mut sessions, NOW, &[command]);
    assert_eq!(replies.len(), 1, "one command, one answer");
    assert!(facts.iter().map(Fact::encoded_len).sum::<usize>() <= BATCH_FACT_BYTES_MAX, "an entry is bounded");
    if !facts.is_empty() {
        folded(image, facts);
    }
    if replies[0].is_ok() { Depth::Accepted } else { Depth::Decoded }
}

fn read<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

/// Messages of the lifecycle service.
#[must_use]
pub fn lifecycle(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    let command = match kind % 5 {
        0 => read(bytes).map(|r| commands::register(r).map(Command::Register)),
        1 => read(bytes).map(|r| commands::prove_restart(&r).map(Command::ProveRestart)),
        2 => read(bytes).map(|r| commands::alter_partitions(r).map(Command::AlterPartitions)),
        3 => read(bytes).map(|r| commands::report_log_ends(r).map(Command::ReportLogEnds)),
        _ => read(bytes).map(|r| commands::heartbeat(&r, 3).map(Command::Heartbeat)),
    };
    let Some(command) = command else { return Depth::Refused };
    if let Ok(Command::Heartbeat(heartbeat)) = &command {
        let (image, sessions) = cluster();
        sessions.clone().answer_heartbeat(image, heartbeat, NOW.mono, true);
        sessions.clone().note_heartbeat(image, heartbeat, NOW.mono);
    }
    decided(command)
}

/// Messages of the admin service.
#[must_use]
pub fn admin(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    let topic = TopicId(Uuid::from_u128(8));
    let command = match kind % 9 {
        0 => read(bytes).map(|r| Ok(Command::CreateTopic(commands::create_topic(r, topic, 9, 1)))),
        1 => read::<admin::DeleteTopicRequest>(bytes)
            .map(|r| Ok(Command::DeleteTopic(DeleteTopic { name: r.name, at_ms: 1 }))),
        2 => read(bytes).map(|r| Ok(Command::CreatePartitions(commands::create_partitions(r, 9)))),
        3 => read(bytes).map(|r| commands::alter_configs(r).map(Command::AlterConfigs)),
        4 => read(bytes).map(|r| commands::elect_leaders(r, 1).map(Command::ElectLeaders)),
        5 => read::<admin::ShutdownBrokerRequest>(bytes)
            .map(|r| convert::broker_id("broker_id", r.broker_id).map(|broker| Command::ShutdownBroker { broker })),
        6 => return read(bytes).map_or(Depth::Refused, voters),
        7 => return read(bytes).map_or(Depth::Refused, |r| explained(&r)),
        _ => return read(bytes).map_or(Depth::Refused, |r| targeted(&r)),
    };
    command.map_or(Depth::Refused, decided)
}

fn taken(taken: bool) -> Depth {
    if taken { Depth::Accepted } else { Depth::Decoded }
}

fn voters(request: admin::ChangeVotersRequest) -> Depth {
    let removed = request.remove.iter().all(|spec| admin_wire::voter_id("remove", spec).is_ok());
    let mut added = true;
    for spec in request.add {
        match admin_wire::voter(spec) {
            Ok(voter) => {
                assert!(voter.node.locality.starts_with(&crate::quorum::guard::data_centre(&voter.node.locality)));
            }
            Err(_) => added = false,
        }
    }
    taken(removed && added)
}

fn explained(request: &admin::ExplainPartitionRequest) -> Depth {
    taken(explain::explain_partition(&cluster().0, &request.topic, request.partition).is_ok())
}

fn targeted(request: &admin::DescribeConfigsRequest) -> Depth {
    taken(admin_wire::target(request.kind, &request.name).is_ok())
}

/// Messages of the Raft service: the envelope, and the payload inside it.
#[must_use]
pub fn raft(bytes: &[u8]) -> Depth {
    let Some((kind, bytes)) = bytes.split_first() else { return Depth::Refused };
    if kind % 2 == 0 {
        return raft_payload(kind / 2, bytes);
    }
    let Some(message) = read::<raft::RaftMessage>(bytes) else { return Depth::Refused };
    let addressed = convert::uuid("to_directory", &message.to_directory).is_ok();
    let depth = raft_payload(kind / 2, &message.payload);
    if addressed { depth } else { depth.min(Depth::Decoded) }
}
