//! Between wire types and our own: errors, uuids, endpoints, cluster references, "unknown" numbers. Owns every such
//! mapping, so that two services never read one field differently. Invariant: a failure whose effect cannot be known
//! never turns into a definite refusal; a field that does not fit is a typed error that names it.

use super::pb::common::v1 as wire;
use crate::error::{ApiError, ErrorCode, Hint};
use crate::ids::{BrokerId, LeaderEpoch, TopicId};
use crate::limits::{ERROR_TEXT_BYTES_MAX, HOST_BYTES_MAX};
use crate::metadata::record::Endpoint;
use bytes::Bytes;
use prost::Message;
use std::error::Error as _;
use tonic::{Code, Status};
use uuid::Uuid;

impl From<Hint> for wire::LeaderHint {
    fn from(hint: Hint) -> Self {
        let known = !hint.host.is_empty();
        Self {
            node_id: hint.node_id,
            endpoint: known.then(|| wire::Endpoint { host: hint.host, port: u32::from(hint.port) }),
            leader_epoch: hint.leader_epoch.map_or(-1, i64::from),
        }
    }
}

impl From<wire::LeaderHint> for Hint {
    fn from(hint: wire::LeaderHint) -> Self {
        let endpoint = hint.endpoint.and_then(|e| Endpoint::try_from(e).ok());
        let (host, port) = endpoint.map_or((String::new(), 0), |e| (e.host, e.port));
        Self { node_id: hint.node_id, host, port, leader_epoch: u32::try_from(hint.leader_epoch).ok() }
    }
}

impl From<ApiError> for wire::Error {
    fn from(error: ApiError) -> Self {
        Self {
            code: u32::from(error.code as u16),
            message: error.message,
            field: error.field,
            value: error.value,
            limit: error.limit,
            hint: error.hint.map(|hint| (*hint).into()),
        }
    }
}

impl From<wire::Error> for ApiError {
    fn from(error: wire::Error) -> Self {
        Self {
            code: ErrorCode::from_wire(error.code),
            message: error.message,
            field: error.field,
            value: error.value,
            limit: error.limit,
            hint: error.hint.map(|hint| Box::new(hint.into())),
        }
    }
}

/// The outcome of one item of an answer: absent = done as asked.
///
/// # Errors
/// The item's refusal.
pub fn outcome(error: Option<wire::Error>) -> Result<(), ApiError> {
    error.map_or(Ok(()), |e| Err(e.into()))
}

/// A bare wire code, 0 = done.
///
/// # Errors
/// A refusal with that code and text.
pub fn code_outcome(code: u32, message: &str) -> Result<(), ApiError> {
    if code == 0 { Ok(()) } else { Err(ApiError::new(ErrorCode::from_wire(code), message)) }
}

/// A refusal of a whole call. The typed error rides in the status details; texts are cut to
/// [`ERROR_TEXT_BYTES_MAX`], since trailers count against the peer's header limit.
#[must_use]
pub fn status(error: ApiError) -> Status {
    let mut error = error;
    for text in [&mut error.message, &mut error.field, &mut error.value, &mut error.limit] {
        cut(text);
    }
    let (code, message) = (grpc_code(error.code), error.to_string());
    let details = wire::Error::from(error).encode_to_vec();
    Status::with_details(code, message, Bytes::from(details))
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        status(error)
    }
}

fn cut(text: &mut String) {
    if text.len() > ERROR_TEXT_BYTES_MAX {
        let mut end = ERROR_TEXT_BYTES_MAX - 3;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str("...");
    }
}

/// What a failed call means. Only a peer's typed error, a connection that never came about, a call shed before it was
/// looked at and a service that is not there are definite; everything else may have taken effect.
#[must_use]
pub fn from_status(status: &Status) -> ApiError {
    if let Some(error) = typed(status) {
        return error;
    }
    let text = |what: &str| format!("{what}: {} ({:?})", status.message(), status.code());
    if never_connected(status) {
        return ApiError::new(ErrorCode::NotReachable, text("no connection"));
    }
    match status.code() {
        Code::Unimplemented => ApiError::new(ErrorCode::InvalidRequest, text("this listener has no such service")),
        Code::ResourceExhausted if status.message() == SHED => ApiError::new(ErrorCode::Overloaded, text("refused")),
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => {
            ApiError::new(ErrorCode::Timeout, text("no answer"))
        }
        _ => ApiError::new(ErrorCode::Internal, text("the call failed")),
    }
}

/// What tonic's server answers, before any handler runs, when its load shedding refuses a call. A test holds it to that.
const SHED: &str = "Too many active requests for the connection";

fn typed(status: &Status) -> Option<ApiError> {
    if status.details().is_empty() {
        return None;
    }
    wire::Error::decode(status.details()).ok().filter(|e| e.code != 0).map(Into::into)
}

fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The refusal for a node that could not be dialled: definite, nothing was sent.
#[must_use]
pub fn unreachable(address: &Endpoint, error: &tonic::transport::Error) -> ApiError {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        why = inner.to_string();
        source = inner.source();
    }
    let text = format!("no connection to {}:{}: {why}", address.host, address.port);
    ApiError::new(ErrorCode::NotReachable, text)
}

/// The gRPC code for tools that know nothing of ours.
fn grpc_code(code: ErrorCode) -> Code {
    use ErrorCode as E;
    match code {
        E::Internal => Code::Internal,
        E::InvalidRequest
        | E::InvalidName
        | E::InvalidReplication
        | E::InvalidConfig
        | E::InvalidPartitions
        | E::MessageTooLarge
        | E::UnsupportedBatch => Code::InvalidArgument,
        E::OffsetOutOfRange => Code::OutOfRange,
        E::CorruptMessage | E::LogDamaged => Code::DataLoss,
        E::UnknownTopic | E::UnknownPartition | E::UnknownBroker => Code::NotFound,
        E::TopicExists | E::DuplicateBroker => Code::AlreadyExists,
        E::OutcomeUnknown | E::NotEnoughReplicasAfterAppend | E::LeaseExpiredAfterAppend => Code::Unknown,
        E::Timeout => Code::DeadlineExceeded,
        E::Overloaded | E::DiskFull => Code::ResourceExhausted,
        E::NotController
        | E::NotLeader
        | E::NotReachable
        | E::LeaderNotAvailable
        | E::NotEnoughReplicas
        | E::LeaseExpired
        | E::OffsetNotAvailable
        | E::ShuttingDown
        | E::UnknownLeaderEpoch
        | E::UnknownFollower => Code::Unavailable,
        E::FencedLeaderEpoch
        | E::StaleBrokerEpoch
        | E::StaleBrokerView
        | E::InvalidUpdateVersion
        | E::NewLeaderElected
        | E::OperationNotAttempted
        | E::SubscriptionReplaced
        | E::MembershipInProgress => Code::Aborted,
        E::WrongCluster
        | E::WrongIncarnation
        | E::UnsupportedVersion
        | E::IneligibleReplica
        | E::EligibleLeadersNotAvailable
        | E::ElectionNotNeeded
        | E::VoterLayoutRefused
        | E::VoterNotCaughtUp
        | E::RefusedBySafetyRule
        | E::FeedDiverged => Code::FailedPrecondition,
    }
}

/// 16 bytes on the wire.
#[must_use]
pub fn uuid_bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// A uuid field.
///
/// # Errors
/// `InvalidRequest` naming the field unless it holds exactly 16 bytes.
pub fn uuid(field: &str, bytes: &[u8]) -> Result<Uuid, ApiError> {
    Uuid::from_slice(bytes)
        .map_err(|_| ApiError::bad(ErrorCode::InvalidRequest, field, format!("{} bytes", bytes.len()), "16 bytes"))
}

/// A topic id on the wire.
#[must_use]
pub fn topic_id_bytes(topic: TopicId) -> Bytes {
    uuid_bytes(topic.0)
}

/// The field `topic_id`.
///
/// # Errors
/// See [`uuid()`].
pub fn topic_id(bytes: &[u8]) -> Result<TopicId, ApiError> {
    uuid("topic_id", bytes).map(TopicId)
}

/// A broker id that must name a broker.
///
/// # Errors
/// `InvalidRequest` naming the field when it is 0.
pub fn broker_id(field: &str, id: u32) -> Result<BrokerId, ApiError> {
    maybe_broker(id).ok_or_else(|| ApiError::bad(ErrorCode::InvalidRequest, field, id, "1 or more"))
}

/// A broker id of which 0 means none.
#[must_use]
pub fn maybe_broker(id: u32) -> Option<BrokerId> {
    (id != 0).then_some(BrokerId(id))
}

/// A broker or none, on the wire.
#[must_use]
pub fn broker_wire(broker: Option<BrokerId>) -> u32 {
    broker.map_or(0, |b| b.0)
}

/// Broker ids on the wire.
#[must_use]
pub fn brokers_wire(brokers: &[BrokerId]) -> Vec<u32> {
    brokers.iter().map(|b| b.0).collect()
}

/// A number that may be unknown, on the wire: -1 = unknown, any or none. Numbers past `i64::MAX` cannot occur; they read as unknown.
#[must_use]
pub fn known_or_minus_one(number: Option<u64>) -> i64 {
    number.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1)
}

/// The reverse of [`known_or_minus_one`].
///
/// # Errors
/// `InvalidRequest` naming the field below -1.
pub fn maybe_number(field: &str, number: i64) -> Result<Option<u64>, ApiError> {
    match number {
        -1 => Ok(None),
        _ => u64::try_from(number)
            .map(Some)
            .map_err(|_| ApiError::bad(ErrorCode::InvalidRequest, field, number, "-1 or more")),
    }
}

/// A leader epoch that may be unknown (-1).
///
/// # Errors
/// `InvalidRequest` naming the field below -1 or past 32 bits.
pub fn maybe_epoch(field: &str, number: i64) -> Result<Option<LeaderEpoch>, ApiError> {
    let wide = maybe_number(field, number)?;
    let narrow = |n: u64| {
        u32::try_from(n)
            .map(LeaderEpoch)
            .map_err(|_| ApiError::bad(ErrorCode::InvalidRequest, field, n, format!("-1 to {}", u32::MAX)))
    };
    wide.map(narrow).transpose()
}

impl From<Endpoint> for wire::Endpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self { host: endpoint.host, port: u32::from(endpoint.port) }
    }
}

impl From<&Endpoint> for wire::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        endpoint.clone().into()
    }
}

impl TryFrom<wire::Endpoint> for Endpoint {
    type Error = ApiError;

    fn try_from(endpoint: wire::Endpoint) -> Result<Self, ApiError> {
        let wire::Endpoint { host, port } = endpoint;
        let legal = |b: u8| b.is_ascii_alphanumeric() || b".-_:%".contains(&b);
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(legal) {
            let limit = format!("a host name or address of 1 to {HOST_BYTES_MAX} bytes");
            return Err(ApiError::bad(ErrorCode::InvalidRequest, "host", host, limit));
        }
        match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(Self { host, port }),
            _ => Err(ApiError::bad(ErrorCode::InvalidRequest, "port", port, "1 to 65535")),
        }
    }
}

/// A required endpoint field.
///
/// # Errors
/// `InvalidRequest` naming the field when it is missing, host or port when they are not legal.
pub fn endpoint(field: &str, endpoint: Option<wire::Endpoint>) -> Result<Endpoint, ApiError> {
    endpoint
        .ok_or_else(|| ApiError::bad(ErrorCode::InvalidRequest, field, "missing", "a host and a port"))
        .and_then(Endpoint::try_from)
}

/// Which cluster, and which life of it, on the wire.
#[must_use]
pub fn cluster_ref(cluster_id: Uuid, incarnation: u64) -> wire::ClusterRef {
    wire::ClusterRef { cluster_id: uuid_bytes(cluster_id), incarnation }
}

/// The check at the head of every internal call (DESIGN.md section 2): nothing else of the message is read before it holds.
///
/// # Errors
/// `WrongCluster` or `WrongIncarnation`, naming both values; `InvalidRequest` when the reference is missing.
pub fn check_cluster(given: Option<&wire::ClusterRef>, cluster_id: Uuid, incarnation: u64) -> Result<(), ApiError> {
    let given = given.ok_or_else(|| {
        ApiError::bad(ErrorCode::InvalidRequest, "cluster", "missing", "a cluster id and incarnation")
    })?;
    let theirs = uuid("cluster.cluster_id", &given.cluster_id)?;
    if theirs != cluster_id {
        return Err(ApiError::bad(ErrorCode::WrongCluster, "cluster_id", theirs, cluster_id));
    }
    if given.incarnation != incarnation {
        return Err(ApiError::bad(ErrorCode::WrongIncarnation, "incarnation", given.incarnation, incarnation));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
