//! Requests turned into commands: every field is checked here, before anything is decided. Ids, seeds and times that the
//! edge makes are arguments, so that the same request always gives the same command.
//!
//! Never: decides, answers, reads a clock.

use super::admin_wire::{pairs, target};
use crate::decide::command::*;
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BatchNo, BrokerEpoch, LeaderEpoch, Millis, PartitionEpoch, TopicId, TopicPartition};
use protocol::locality::Locality;
use protocol::metadata::brokers::BrokerView;
use protocol::rpc::convert;
use protocol::rpc::pb::admin::v1 as admin;
use protocol::rpc::pb::lifecycle::v1 as wire;

type Converted<T> = Result<T, ApiError>;

fn version(field: &str, number: u32) -> Converted<u16> {
    u16::try_from(number).map_err(|_| ApiError::bad(ErrorCode::InvalidRequest, field, number, "0 to 65535"))
}

fn at(topic: &[u8], partition: u32) -> Converted<TopicPartition> {
    Ok(TopicPartition { topic: convert::topic_id(topic)?, partition })
}

pub(crate) fn register(request: wire::RegisterRequest) -> Converted<Register> {
    let locality: Result<Locality, _> = request.locality.parse();
    let directories = request.directories.iter().map(|d| convert::uuid("directories", d));
    Ok(Register {
        broker: convert::broker_id("broker_id", request.broker_id)?,
        incarnation: convert::uuid("incarnation", &request.incarnation)?,
        internal: convert::endpoint("internal", request.internal)?,
        client: convert::endpoint("client", request.client)?,
        locality: locality
            .map_err(|e| ApiError::bad(ErrorCode::InvalidRequest, "locality", &request.locality, e.to_string()))?,
        directories: directories.collect::<Result<_, _>>()?,
        min_metadata_version: version("min_metadata_version", request.min_metadata_version)?,
        max_metadata_version: version("max_metadata_version", request.max_metadata_version)?,
        previous_epoch: epoch(request.previous_broker_epoch),
        seen: BrokerView {
            registered: epoch(request.seen_broker_epoch),
            last_unfenced: epoch(request.seen_last_unfenced_epoch),
        },
    })
}

/// A broker epoch of which 0 means none.
fn epoch(number: u64) -> Option<BrokerEpoch> {
    (number != 0).then_some(BrokerEpoch(number))
}

pub(crate) fn prove_restart(request: &wire::ProveRestartRequest) -> Converted<ProveRestart> {
    let mut proved = Vec::new();
    for named in &request.proved {
        let topic: TopicId = convert::topic_id(&named.topic_id)?;
        proved.extend(named.partitions.iter().map(|partition| TopicPartition { topic, partition: *partition }));
    }
    Ok(ProveRestart {
        broker: convert::broker_id("broker_id", request.broker_id)?,
        epoch: BrokerEpoch(request.broker_epoch),
        proved,
        last: request.last,
    })
}

/// `stream`: number of the stream it came on.
pub(crate) fn heartbeat(request: &wire::HeartbeatRequest, stream: u64) -> Converted<Heartbeat> {
    Ok(Heartbeat {
        broker: convert::broker_id("broker_id", request.broker_id)?,
        epoch: BrokerEpoch(request.broker_epoch),
        stream,
        applied: BatchNo(request.applied_batch_no),
        wants_unfence: request.wants_unfence,
        wants_shutdown: request.wants_shutdown,
    })
}

fn proposal(wire: wire::AlterPartition) -> Converted<AlterPartition> {
    let member = |m: &wire::IsrMember| Ok((convert::broker_id("new_isr", m.broker_id)?, BrokerEpoch(m.broker_epoch)));
    Ok(AlterPartition {
        at: at(&wire.topic_id, wire.partition)?,
        leader_epoch: LeaderEpoch(wire.leader_epoch),
        partition_epoch: PartitionEpoch(wire.partition_epoch),
        isr: wire.new_isr.iter().map(member).collect::<Result<_, ApiError>>()?,
    })
}

pub(crate) fn alter_partitions(request: wire::AlterPartitionsRequest) -> Converted<AlterPartitions> {
    Ok(AlterPartitions {
        broker: convert::broker_id("broker_id", request.broker_id)?,
        epoch: BrokerEpoch(request.broker_epoch),
        partitions: request.partitions.into_iter().map(proposal).collect::<Result<_, _>>()?,
    })
}

fn reported(end: wire::LogEnd) -> Converted<ReportedEnd> {
    // A log that never held anything has no last epoch. One that was emptied from its head has.
    let last_epoch = (end.log_end > 0).then_some(end.last_epoch);
    Ok(ReportedEnd {
        at: at(&end.topic_id, end.partition)?,
        leader_epoch: LeaderEpoch(end.leader_epoch),
        last_epoch,
        log_end: end.log_end,
        log_start: end.log_start,
        damaged: end.damaged,
    })
}

pub(crate) fn report_log_ends(request: wire::ReportLogEndsRequest) -> Converted<ReportLogEnds> {
    Ok(ReportLogEnds {
        broker: convert::broker_id("broker_id", request.broker_id)?,
        epoch: BrokerEpoch(request.broker_epoch),
        ends: request.ends.into_iter().map(reported).collect::<Result<_, _>>()?,
    })
}

/// `topic`, `seed` and `at_ms` are made at the edge.
pub(crate) fn create_topic(
    request: admin::CreateTopicRequest,
    topic: TopicId,
    seed: u64,
    at_ms: Millis,
) -> CreateTopic {
    CreateTopic {
        topic,
        seed,
        at_ms,
        name: request.name,
        partitions: request.partitions,
        replicas: (request.replicas != 0).then_some(request.replicas),
        configs: pairs(request.configs),
        validate_only: request.validate_only,
    }
}

/// `seed` is made at the edge.
pub(crate) fn create_partitions(request: admin::CreatePartitionsRequest, seed: u64) -> CreatePartitions {
    CreatePartitions { name: request.topic, total: request.total, seed, validate_only: request.validate_only }
}

pub(crate) fn alter_configs(request: admin::AlterConfigsRequest) -> Converted<AlterConfigs> {
    Ok(AlterConfigs {
        target: target(request.kind, &request.name)?,
        set: pairs(request.set),
        unset: request.unset,
        validate_only: request.validate_only,
    })
}

pub(crate) fn elect_leaders(request: admin::ElectLeadersRequest, at_ms: Millis) -> Converted<ElectLeaders> {
    let limit = "-1 for all, or a partition number";
    let scope = match (request.topic.is_empty(), request.partition) {
        (true, _) => ElectionScope::All,
        (false, -1) => ElectionScope::Topic(request.topic),
        (false, number) => match u32::try_from(number) {
            Ok(number) => ElectionScope::Partition(request.topic, number),
            Err(_) => return Err(ApiError::bad(ErrorCode::InvalidRequest, "partition", number, limit)),
        },
    };
    let chosen = match u32::try_from(request.chosen) {
        Ok(id) => convert::maybe_broker(id),
        Err(_) => return Err(ApiError::bad(ErrorCode::InvalidRequest, "chosen", request.chosen, "0 or a broker id")),
    };
    let kind = match request.unclean {
        true => ElectionKind::Unclean { now: request.now, chosen },
        false => ElectionKind::Preferred,
    };
    Ok(ElectLeaders { scope, kind, dry_run: request.dry_run, at_ms })
}
