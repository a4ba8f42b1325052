//! Life of brokers: register, prove a restart, be unfenced, shut down. DESIGN.md section 4.
//!
//! Invariants: a registration begins fenced and unproved; nobody is unfenced before its proof was decided, its image
//! holds its own registration, and every election and ISR removal that its fencing called for stands in the draft.
//! Fencing itself is one fact; what follows from it is found by `work.rs`.

use super::command::{Heartbeat, HeartbeatAnswer, ProveRestart, Register, Registered, Reply};
use super::limits::{BROKERS_MAX, DIRECTORIES_MAX, HOST_BYTES_MAX};
use super::position;
use super::sessions::{Sessions, wants_unfence};
use protocol::error::{ApiError, ErrorCode};
use protocol::ids::{BrokerEpoch, BrokerId, Millis};
use protocol::metadata::brokers::{Broker, BrokerState};
use protocol::metadata::draft::Draft;
use protocol::metadata::image::MetadataImage;
use protocol::metadata::record::{BrokerRef, BrokerRegistered, Endpoint, Fact};
use protocol::planted::{self, Bug};

/// The broker under exactly this registration.
pub(super) fn current(image: &MetadataImage, broker: BrokerId, epoch: BrokerEpoch) -> Result<&Broker, ApiError> {
    let known = image.brokers.get(broker).ok_or_else(|| unknown(broker))?;
    if known.epoch == epoch {
        return Ok(known);
    }
    let limit = format!("{}, the registered epoch of broker {broker}", known.epoch);
    Err(ApiError::bad(ErrorCode::StaleBrokerEpoch, "broker_epoch", epoch, limit))
}

fn unknown(broker: BrokerId) -> ApiError {
    ApiError::bad(ErrorCode::UnknownBroker, "broker_id", broker, "a registered broker")
}

/// Registers a process. The same process asking again gets the answer it may have missed. The same directory under a
/// new process proves the old one dead (it holds the directory's lock): fenced and registered in one batch. Another
/// directory is refused while the old session lives.
///
/// A registration is compare-and-set on what its sender saw of the broker. If the former process was let in meanwhile,
/// the claim was chosen by an outdated last unfenced epoch and would prove nothing though the disk is whole; if another
/// process was registered meanwhile, this one may be the dead one. Both are refused as stale; who lives looks again.
/// Each refusal is a registration or an unfencing that went before, so two of one id cannot keep each other out.
pub(super) fn register(
    draft: &mut Draft<MetadataImage>,
    sessions: &mut Sessions,
    now: Millis,
    command: &Register,
) -> Result<Reply, ApiError> {
    check_register(draft.state(), command)?;
    let known = draft.state().brokers.get(command.broker).cloned();
    let view = draft.state().brokers.view(command.broker);
    if let Some(old) = &known {
        let same_process = old.incarnation == command.incarnation && old.directories == command.directories;
        // The proof goes by the claim that was admitted, so the claim must have been chosen by the same last unfenced epoch.
        if same_process && command.seen.last_unfenced == view.last_unfenced {
            let (epoch, proof_admissible) = (old.epoch, old.proof_admissible);
            return Ok(Reply::Registered(Registered { epoch, batch_no: position(draft), proof_admissible }));
        }
        if !same_directory(old, command) && sessions.lives(old, now) {
            return Err(duplicate(old, command));
        }
    }
    if command.seen != view && !planted::is(Bug::RegistrationOnAnyView) {
        let limit = format!("{view}: follow the feed and register again");
        return Err(ApiError::bad(ErrorCode::StaleBrokerView, "seen", command.seen, limit));
    }
    if let Some(old) = known.as_ref().filter(|old| !old.is_fenced()) {
        draft.push(Fact::BrokerFenced(BrokerRef { broker: old.id, epoch: old.epoch }));
    }
    let epoch = BrokerEpoch(draft.state().cluster.last_broker_epoch.0 + 1);
    let proof_admissible = known.as_ref().is_some_and(|old| admits_proof(old, command));
    draft.push(Fact::BrokerRegistered(BrokerRegistered {
        broker: command.broker,
        epoch,
        incarnation: command.incarnation,
        internal: command.internal.clone(),
        client: command.client.clone(),
        locality: command.locality.clone(),
        directories: command.directories.clone(),
        min_metadata_version: command.min_metadata_version,
        max_metadata_version: command.max_metadata_version,
        seen: command.seen,
        proof_admissible,
    }));
    Ok(Reply::Registered(Registered { epoch, batch_no: position(draft), proof_admissible }))
}

/// Same directory, and it knew durably the very epoch under which it was last unfenced: an older copy of the disk
/// does not, and a registration that crashed before it was unfenced may have repaired what a proof must report.
fn admits_proof(old: &Broker, command: &Register) -> bool {
    if planted::is(Bug::IsrKeptWithEmptyDisk) {
        return old.last_unfenced_epoch.is_some();
    }
    same_directory(old, command)
        && old.last_unfenced_epoch.is_some()
        && command.previous_epoch == old.last_unfenced_epoch
}

fn same_directory(old: &Broker, command: &Register) -> bool {
    old.directories == command.directories
}

fn duplicate(old: &Broker, command: &Register) -> ApiError {
    let mut error = ApiError::bad(
        ErrorCode::DuplicateBroker,
        "broker_id",
        command.broker,
        format!("an id that no live broker has; directory {:?} holds this one", old.directories),
    );
    error.message = format!(
        "broker {} is alive with another data directory; stop it, or give this broker its own node.id",
        command.broker
    );
    error
}

fn check_register(image: &MetadataImage, command: &Register) -> Result<(), ApiError> {
    let bad =
        |field: &str, value: String, limit: String| Err(ApiError::bad(ErrorCode::InvalidRequest, field, value, limit));
    if command.broker.0 == 0 {
        return bad("broker_id", "0".to_owned(), "1 or more".to_owned());
    }
    let known = image.brokers.get(command.broker).is_some();
    if !known && image.brokers.iter().count() >= BROKERS_MAX {
        return bad("broker_id", command.broker.to_string(), format!("at most {BROKERS_MAX} registered brokers"));
    }
    let directories = command.directories.len();
    if directories == 0 || directories > DIRECTORIES_MAX {
        return bad("directories", directories.to_string(), format!("1 to {DIRECTORIES_MAX}"));
    }
    check_endpoint("internal", &command.internal)?;
    check_endpoint("client", &command.client)?;
    let (least, most) = (command.min_metadata_version, command.max_metadata_version);
    let finalized = image.cluster.metadata_version;
    if (least..=most).contains(&finalized) {
        return Ok(());
    }
    let limit = format!("{finalized}, the finalized version, must be among those the broker supports");
    Err(ApiError::bad(ErrorCode::UnsupportedVersion, "metadata.version", format!("{least} to {most}"), limit))
}

fn check_endpoint(field: &str, endpoint: &Endpoint) -> Result<(), ApiError> {
    let length = endpoint.host.len();
    if (1..=HOST_BYTES_MAX).contains(&length) && endpoint.port > 0 {
        return Ok(());
    }
    let value = format!("{}:{}", endpoint.host, endpoint.port);
    let limit = format!("a host of 1 to {HOST_BYTES_MAX} bytes and a port from 1");
    Err(ApiError::bad(ErrorCode::InvalidRequest, field, value, limit))
}

/// Takes a chunk of a proof. What the closed proof calls for is work: bounded batches, then `BrokerProved`.
pub(super) fn prove(
    draft: &mut Draft<MetadataImage>,
    sessions: &mut Sessions,
    command: &ProveRestart,
) -> Result<Reply, ApiError> {
    let image = draft.state();
    let broker = current(image, command.broker, command.epoch)?;
    if !broker.proved {
        let admissible = broker.proof_admissible;
        let holds = |at: &protocol::ids::TopicPartition| {
            admissible && image.topics.partition(*at).is_some_and(|p| p.replicas.contains(&command.broker))
        };
        let proved = command.proved.iter().copied().filter(holds);
        sessions.memo.begin_again(command.broker);
        sessions.proofs.add(command.broker, command.epoch, proved, command.last);
    }
    Ok(Reply::ProofNoted { batch_no: position(draft) })
}

/// Grants what a heartbeat wants, if it may be granted yet. Otherwise the answer says how things stand; the broker
/// asks again with its next heartbeat.
pub(super) fn heartbeat(
    draft: &mut Draft<MetadataImage>,
    sessions: &mut Sessions,
    now: Millis,
    command: &Heartbeat,
) -> Result<Reply, ApiError> {
    sessions.wish_decided(command.broker);
    let broker = current(draft.state(), command.broker, command.epoch)?.clone();
    let at = BrokerRef { broker: broker.id, epoch: broker.epoch };
    let may_join = wants_unfence(command) && !command.wants_shutdown;
    match broker.state {
        BrokerState::Fenced if may_join && why_fenced(draft.state(), sessions, &broker, now).is_empty() => {
            draft.push(Fact::BrokerUnfenced(at));
            sessions.unfenced(broker.id, now);
        }
        BrokerState::Active if command.wants_shutdown => draft.push(Fact::BrokerShutdownBegan(at)),
        _ => {}
    }
    let fenced = draft.state().brokers.get(broker.id).is_none_or(Broker::is_fenced);
    let at_batch = position(draft);
    let answer = HeartbeatAnswer { committed: at_batch, renews_at: at_batch, fenced, may_stop: false, error: None };
    Ok(Reply::Heartbeat { at, answer })
}

/// What keeps a fenced broker from being unfenced, in words; empty when nothing does.
#[must_use]
pub fn why_fenced(image: &MetadataImage, sessions: &Sessions, broker: &Broker, now: Millis) -> Vec<String> {
    let mut why = Vec::new();
    if !broker.proved {
        why.push("its restart is not proved: the places it cannot prove have not all fallen".to_owned());
    }
    let contact = sessions.contact(broker.id, broker.epoch);
    match contact {
        None => why.push("this controller has not heard of it".to_owned()),
        Some(contact) if contact.regressed => {
            why.push("its applied batch number fell: a copy of it is at work; it must register again".to_owned());
        }
        Some(_) if !sessions.lives(broker, now) => why.push("its heartbeats have stopped".to_owned()),
        Some(_) if planted::is(Bug::UnfenceOnFirstHeartbeat) => {}
        Some(contact) => {
            let needed = sessions.must_have_applied(broker.id);
            if contact.applied < needed {
                why.push(format!(
                    "it has applied batch {}; batch {needed} holds its registration or fencing",
                    contact.applied
                ));
            }
            if !contact.wants_unfence {
                why.push("it has not asked to take part yet (still recovering or applying metadata)".to_owned());
            }
        }
    }
    let settled = [Bug::SameEpochLeaderRestart, Bug::UnfenceBeforeElections].into_iter().any(planted::is);
    if let Some(at) = image.topics.in_sync_places_of(broker.id).next().filter(|_| !settled) {
        why.push(format!("it still has an ISR place or a leadership from before its fencing, for one in {at}"));
    }
    why
}

/// An operator's wish to drain a broker; the broker sees it in its image and stops once it may.
pub(super) fn shut_down(draft: &mut Draft<MetadataImage>, broker: BrokerId) -> Result<Reply, ApiError> {
    let known = draft.state().brokers.get(broker).cloned().ok_or_else(|| unknown(broker))?;
    match known.state {
        BrokerState::Active => {
            draft.push(Fact::BrokerShutdownBegan(BrokerRef { broker, epoch: known.epoch }));
        }
        BrokerState::ShuttingDown => {}
        BrokerState::Fenced => {
            let limit = "a broker that takes part; a fenced one leads nothing and can be stopped at once";
            return Err(ApiError::bad(ErrorCode::InvalidRequest, "broker_id", broker, limit));
        }
    }
    Ok(Reply::Committed { batch_no: position(draft) })
}

#[cfg(test)]
mod tests;
