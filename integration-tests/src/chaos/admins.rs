//! Clients that change the cluster while faults last: topics made and removed, configs set, heads of logs removed.
//!
//! Owns their loops. Topics and heads go into the history, where the checker looks for an order that explains every answer.
//! Configs have no pass there: [`Configs`] keeps what was acknowledged and what may have happened, and compares at the end.

use super::random::Random;
use super::tape::source;
use super::workload::{Shared, pause};
use crate::checker::event::{Answer, Change, Op, Process};
use crate::wire::{self, EARLIEST, LATEST};
use bytes::Bytes;
use protocol::error::{ApiError, Effect, ErrorCode};
use protocol::rpc::pb::admin::v1::{
    AlterConfigsRequest, ConfigEntry, CreateTopicRequest, DeleteTopicRequest, DescribeConfigsRequest,
    DescribeTopicsRequest, ResourceKind,
};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The first administrator in the history.
const ADMIN: u32 = 2_000;

/// Who removes heads.
const DELETER: Process = (2_100, 1);

/// Between two operations of one of these clients.
const PAUSE: Duration = Duration::from_millis(150);

/// Topics that come and go.
const TOPICS: [&str; 2] = ["comes", "goes"];

/// The config that is changed: it drops nothing before a week has passed.
const CONFIG: &str = "retention.ms";

/// Least value of it, ms.
const CONFIG_BASE: u64 = 700_000_000;

/// Makes, removes and describes topics until told to stop. Several of these overlap.
pub async fn topics(shared: Arc<Shared>, bootstrap: String, number: u32, seed: u64) {
    let addresses: Vec<&str> = bootstrap.split(',').collect();
    let mut random = Random::new(seed ^ u64::from(number));
    let process = (ADMIN + number, 1);
    while !shared.stopping() {
        let (address, topic) = (*random.one_of(&addresses), *random.one_of(&TOPICS));
        let change = *random.one_of(&[Change::Create, Change::Delete, Change::Describe, Change::Describe]);
        let of = shared.tape.recorder.invoke(process, Op::Admin { topic: topic.to_owned(), change });
        let outcome = match change {
            Change::Create => create(address, topic).await,
            Change::Delete => remove(address, topic).await,
            Change::Describe => describe(address, topic).await,
        };
        match outcome {
            Ok(answer) => {
                shared.changes.fetch_add(u64::from(change != Change::Describe), Ordering::Relaxed);
                shared.tape.recorder.ok(process, of, answer);
            }
            Err(error) => shared.tape.failed(process, of, &error),
        }
        pause(PAUSE).await;
    }
}

async fn create(address: &str, topic: &str) -> Result<Answer, ApiError> {
    let request = CreateTopicRequest {
        name: topic.to_owned(),
        partitions: 2,
        replicas: 3,
        configs: vec![],
        validate_only: false,
    };
    wire::ask(wire::admin(address).create_topic(request)).await.map(|_| Answer::Done)
}

async fn remove(address: &str, topic: &str) -> Result<Answer, ApiError> {
    let request = DeleteTopicRequest { name: topic.to_owned() };
    wire::ask(wire::admin(address).delete_topic(request)).await.map(|_| Answer::Done)
}

async fn describe(address: &str, topic: &str) -> Result<Answer, ApiError> {
    let request =
        DescribeTopicsRequest { names: vec![topic.to_owned()], with_partitions: false, include_deleted: false };
    let answer = wire::ask(wire::admin(address).describe_topics(request)).await?;
    let Some(found) = answer.topics.into_iter().next() else {
        return Err(ApiError::new(ErrorCode::Internal, "an answer without the topic asked for"));
    };
    match found.error.map(ApiError::from) {
        None => Ok(Answer::Exists(true)),
        Some(error) if error.code == ErrorCode::UnknownTopic => Ok(Answer::Exists(false)),
        Some(error) => Err(error),
    }
}

/// Removes heads of a topic until told to stop, up to somewhere below the high watermark.
pub async fn heads(shared: Arc<Shared>, bootstrap: String, topic: &'static str, partitions: u32, seed: u64) {
    let addresses: Vec<&str> = bootstrap.split(',').collect();
    let mut random = Random::new(seed);
    let mut id: Option<Bytes> = None;
    while !shared.stopping() {
        pause(PAUSE).await;
        let address = *random.one_of(&addresses);
        let Some(topic_id) = id.clone() else {
            let known = wire::routing(address, topic).await.ok();
            id = known.and_then(|routing| Some(routing.topics.first()?.topic_id.clone()));
            continue;
        };
        let partition = u32::try_from(random.below(u64::from(partitions))).unwrap_or(0);
        let Some(first) = list(&shared, address, (topic, &topic_id, partition), false).await else { continue };
        let Some(last) = list(&shared, address, (topic, &topic_id, partition), true).await else { continue };
        if first >= last {
            continue;
        }
        // Now and then the whole log, else some of it.
        let before = if random.chance(10) { last } else { random.between(first, last) };
        let key = shared.tape.key(topic, partition);
        let of = shared.tape.recorder.invoke(DELETER, Op::DeleteRecords { key, before });
        match wire::delete_records(address, topic_id, partition, before).await {
            Ok((log_start, state)) => {
                shared.heads_removed.fetch_add(1, Ordering::Relaxed);
                shared.tape.recorder.ok(DELETER, of, Answer::Deleted { log_start, source: source(&state) });
            }
            Err(error) => shared.tape.failed(DELETER, of, &error),
        }
    }
}

async fn list(shared: &Shared, address: &str, at: (&str, &Bytes, u32), latest: bool) -> Option<u64> {
    let (topic, id, partition) = at;
    let op = Op::ListOffset { key: shared.tape.key(topic, partition), latest };
    let of = shared.tape.recorder.invoke(DELETER, op);
    let which = if latest { LATEST } else { EARLIEST };
    match wire::list(wire::data(address), id.clone(), partition, which, None).await {
        Ok((offset, state)) => {
            shared.tape.recorder.ok(DELETER, of, Answer::Offset { offset, source: source(&state) });
            Some(offset)
        }
        Err(error) => {
            shared.tape.failed(DELETER, of, &error);
            None
        }
    }
}

/// One config, set to growing values by one client.
#[derive(Debug, Default)]
pub struct Configs {
    acknowledged: Option<u64>,
    /// Of unknown outcome: a change that was held up may take effect at any time after it was asked for.
    perhaps: BTreeSet<u64>,
    changes: u64,
}

impl Configs {
    /// Whether this value may stand there at the end.
    fn explains(&self, value: Option<u64>) -> bool {
        value == self.acknowledged || value.is_some_and(|value| self.perhaps.contains(&value))
    }
}

/// Sets a topic's config again and again until told to stop.
pub async fn configs(shared: Arc<Shared>, bootstrap: String, topic: &'static str, kept: Arc<Mutex<Configs>>) {
    let addresses: Vec<&str> = bootstrap.split(',').collect();
    let mut turn = 0;
    while !shared.stopping() {
        pause(PAUSE).await;
        turn += 1;
        let value = CONFIG_BASE + turn;
        let address = addresses[usize::try_from(turn).unwrap_or(0) % addresses.len()];
        let request = AlterConfigsRequest {
            kind: ResourceKind::ResourceTopic.into(),
            name: topic.to_owned(),
            set: vec![ConfigEntry { key: CONFIG.to_owned(), value: value.to_string() }],
            unset: vec![],
            validate_only: false,
        };
        let outcome = wire::ask(wire::admin(address).alter_configs(request)).await;
        let mut kept = kept.lock().expect("nobody panics while holding it");
        match outcome.map_err(|error| error.code.effect()) {
            Ok(_) => {
                kept.acknowledged = Some(value);
                kept.changes += 1;
            }
            Err(Effect::Unknown) => drop(kept.perhaps.insert(value)),
            Err(Effect::None) => {}
        }
    }
}

/// What the cluster says of the config at the end must be explained by what its client was told. Returns how many changes
/// were acknowledged.
///
/// # Errors
/// What it says instead, or that nothing was acknowledged.
pub async fn configs_hold(bootstrap: &str, topic: &str, kept: &Mutex<Configs>) -> Result<u64, String> {
    let told = crate::wait::eventually_async("the topic's configs are described", || async {
        let address = bootstrap.split(',').next().unwrap_or_default();
        let request = DescribeConfigsRequest { kind: ResourceKind::ResourceTopic.into(), name: topic.to_owned() };
        wire::call(wire::admin(address).describe_configs(request)).await
    })
    .await;
    let value = told.entries.iter().find(|entry| entry.key == CONFIG).and_then(|entry| entry.value.parse().ok());
    let kept = kept.lock().expect("nobody panics while holding it");
    match kept.explains(value) {
        _ if kept.changes == 0 => Err("no change of a config was ever acknowledged".to_owned()),
        true => Ok(kept.changes),
        false => Err(format!("{CONFIG} of {topic} is {value:?}, and {kept:?} was told")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_what_was_acknowledged_last_or_may_have_happened() {
        let kept = Configs { acknowledged: Some(5), perhaps: BTreeSet::from([3, 7]), changes: 2 };
        assert!([Some(5), Some(3), Some(7)].into_iter().all(|value| kept.explains(value)));
        assert!([None, Some(4), Some(6)].into_iter().all(|value| !kept.explains(value)));
    }
}
