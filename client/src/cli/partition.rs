//! `seawall partition ...`.

use super::Context;
use super::exit::{EXIT_CODES, Exit, Failure, exit_of};
use super::output::{confirm, id, ids, known, known_json, table};
use super::topic::partition_json;
use crate::admin::{Admin, wire};
use crate::config::show_address;
use clap::{Args, Subcommand};
use protocol::error::{ApiError, ErrorCode};
use protocol::rpc::pb::data::v1::DescribeReplicaResponse;
use serde_json::{Value, json};

/// Verbs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum Verb {
    /// A partition's state in the metadata, and what each replica knows about itself
    #[command(alias = "desc")]
    Describe {
        /// TOPIC/PARTITION
        #[arg(value_parser = partition, value_name = "TOPIC/PARTITION")]
        partition: TopicPartition,
    },
    /// Elect leaders: the preferred replicas, or (--unclean) one that may lack acknowledged records
    Elect(Elect),
}

/// `partition elect`.
#[derive(Debug, Args)]
#[command(
    after_help = "An unclean election loses acknowledged records if no survivor holds them. --dry-run lists every
survivor's (epoch, end) first. It waits until a former leader's lease cannot hold any more, unless --now."
)]
pub struct Elect {
    /// TOPIC/PARTITION, TOPIC for all of its partitions; without it every partition
    #[arg(value_parser = maybe_partition, value_name = "TOPIC[/PARTITION]")]
    what: Option<(String, Option<u32>)>,
    /// Elect a survivor outside ISR and ELR; needs TOPIC/PARTITION
    #[arg(long)]
    unclean: bool,
    /// Only show what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for a former leader's lease; recorded
    #[arg(long, requires = "unclean")]
    now: bool,
    /// The broker to elect; without it the longest log
    #[arg(long, requires = "unclean", value_name = "ID")]
    broker: Option<u32>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// `TOPIC/PARTITION`.
#[derive(Debug, Clone)]
pub struct TopicPartition {
    pub(super) topic: String,
    pub(super) partition: u32,
}

/// Reads `TOPIC/PARTITION`.
pub(super) fn partition(text: &str) -> Result<TopicPartition, String> {
    match maybe_partition(text)? {
        (topic, Some(partition)) => Ok(TopicPartition { topic, partition }),
        _ => Err("it must be TOPIC/PARTITION, such as orders/0".to_owned()),
    }
}

fn maybe_partition(text: &str) -> Result<(String, Option<u32>), String> {
    match text.rsplit_once('/') {
        None if !text.is_empty() => Ok((text.to_owned(), None)),
        Some((topic, number)) if !topic.is_empty() => {
            let number = number.parse().map_err(|_| format!("{number} is not a partition number"))?;
            Ok((topic.to_owned(), Some(number)))
        }
        _ => Err("it must be TOPIC or TOPIC/PARTITION".to_owned()),
    }
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Describe { partition } => describe(partition, context).await,
        Verb::Elect(arguments) => elect(arguments, context).await,
    }
}

/// A partition in the metadata, or the failure that it is not there.
pub(super) async fn state(
    admin: &Admin,
    wanted: &TopicPartition,
) -> Result<(wire::TopicDescription, wire::PartitionState), Failure> {
    let found = admin.describe_topics(std::slice::from_ref(&wanted.topic), true).await?;
    let missing = |code, field, value: &str, limit: String| {
        let error = ApiError::bad(code, field, value, limit);
        Failure::new(exit_of(code), error.to_string()).advise("`seawall topic list`, `seawall topic describe NAME`")
    };
    let topic = found.topics.into_iter().find(|t| t.name == wanted.topic && t.error.is_none());
    let topic =
        topic.ok_or_else(|| missing(ErrorCode::UnknownTopic, "topic", &wanted.topic, "a topic that exists".into()))?;
    let state = topic.partitions.iter().find(|p| p.partition == wanted.partition).cloned();
    let state = state.ok_or_else(|| {
        let limit = format!("0 to {}", topic.partition_count.saturating_sub(1));
        missing(ErrorCode::UnknownPartition, "partition", &wanted.partition.to_string(), limit)
    })?;
    Ok((topic, state))
}

/// What each replica says of itself, or why it does not.
pub(super) async fn replicas(
    admin: &Admin,
    topic_id: &[u8],
    state: &wire::PartitionState,
) -> Vec<(u32, Result<DescribeReplicaResponse, String>)> {
    let routing = match admin.routing().await {
        Ok(routing) => routing,
        Err(error) => return state.replicas.iter().map(|id| (*id, Err(error.to_string()))).collect(),
    };
    let ask = |broker: u32| {
        let address = routing.brokers().get(&broker).map(|b| b.address.clone());
        async move {
            let Some(address) = address else { return (broker, Err("no address is known".to_owned())) };
            let answer = admin.describe_replica(&address, topic_id, state.partition).await;
            (broker, answer.map_err(|error| format!("{}: {error}", show_address(&address))))
        }
    };
    futures_util::future::join_all(state.replicas.iter().map(|broker| ask(*broker))).await
}

async fn describe(wanted: TopicPartition, context: &Context) -> Result<Exit, Failure> {
    let admin = context.admin()?;
    let (topic, state) = state(&admin, &wanted).await?;
    let replicas = replicas(&admin, &topic.topic_id, &state).await;
    let mut document = partition_json(&state);
    document["topic"] = wanted.topic.clone().into();
    document["replica_states"] = replicas.iter().map(|(broker, answer)| replica_json(*broker, answer)).collect();
    context.out.print(&document, || {
        let head = format!(
            "{}/{}: leader {}, epoch {}, isr {}, elr {}",
            wanted.topic,
            wanted.partition,
            id(state.leader_id),
            state.leader_epoch,
            ids(&state.isr),
            ids(&state.elr)
        );
        format!("{head}\n\n{}", replicas_text(&replicas))
    })?;
    Ok(Exit::Ok)
}

pub(super) fn replica_json(broker: u32, answer: &Result<DescribeReplicaResponse, String>) -> Value {
    match answer {
        Err(why) => json!({ "broker": broker, "error": why }),
        Ok(r) => json!({
            "broker": broker,
            "role": r.role,
            "leader_epoch": r.leader_epoch,
            "log_start": r.log_start,
            "log_end": r.log_end,
            "durable_end": r.durable_end,
            "high_watermark": known_json(r.high_watermark),
            "flush_policy": r.flush_policy,
            "isr_state": r.isr_state,
            "size_bytes": r.size_bytes,
            "notes": r.notes,
            "followers": r.followers.iter().map(|f| json!({
                "broker": f.broker_id, "log_end": f.log_end, "durable_end": f.durable_end,
                "in_isr": f.in_isr, "caught_up_ms_ago": f.caught_up_ms_ago,
            })).collect::<Vec<_>>(),
        }),
    }
}

fn replicas_text(replicas: &[(u32, Result<DescribeReplicaResponse, String>)]) -> String {
    let mut notes = String::new();
    let mut rows = Vec::new();
    for (broker, answer) in replicas {
        match answer {
            Err(why) => notes.push_str(&format!("\nbroker {broker}: {why}")),
            Ok(r) => {
                rows.push(vec![
                    broker.to_string(),
                    r.role.clone(),
                    r.leader_epoch.to_string(),
                    r.log_start.to_string(),
                    r.log_end.to_string(),
                    r.durable_end.to_string(),
                    known(r.high_watermark),
                    r.flush_policy.clone(),
                    r.size_bytes.to_string(),
                ]);
                r.notes.iter().for_each(|note| notes.push_str(&format!("\nbroker {broker}: {note}")));
            }
        }
    }
    let columns =
        ["broker", "role", "epoch", "log start", "log end", "durable end", "high watermark", "flush", "bytes"];
    let right = ["broker", "epoch", "log start", "log end", "durable end", "high watermark", "bytes"];
    format!("{}\n{notes}", table(&columns, &right, rows))
}

async fn elect(arguments: Elect, context: &Context) -> Result<Exit, Failure> {
    let Elect { what, unclean, dry_run, now, broker, yes } = arguments;
    let (topic, partition) = what.unwrap_or_default();
    if unclean && (topic.is_empty() || partition.is_none()) {
        return Err(Failure::new(Exit::Usage, "an unclean election needs one TOPIC/PARTITION"));
    }
    let request = wire::ElectLeadersRequest {
        topic,
        partition: partition.map_or(-1, i64::from),
        unclean,
        dry_run: true,
        now,
        chosen: broker.map_or(0, i64::from),
    };
    let admin = context.admin()?;
    let answer = if dry_run {
        admin.elect_leaders(request).await?
    } else {
        if unclean {
            let survey = admin.elect_leaders(request.clone()).await?;
            confirm(&format!("{}\nthis election may lose acknowledged records", results_text(&survey.results)), yes)?;
        }
        admin.elect_leaders(wire::ElectLeadersRequest { dry_run: false, ..request }).await?
    };
    let results: Vec<Value> = answer.results.iter().map(result_json).collect();
    context.out.print(&json!({ "dry_run": dry_run, "results": results }), || {
        if answer.results.is_empty() { "nothing to elect".to_owned() } else { results_text(&answer.results) }
    })?;
    Ok(exit_of_results(&answer.results))
}

/// An election that is not needed is no failure.
fn exit_of_results(results: &[wire::ElectionResult]) -> Exit {
    let code = |r: &wire::ElectionResult| r.error.as_ref().map(|e| ErrorCode::from_wire(e.code));
    let failed: Vec<ErrorCode> =
        results.iter().filter_map(code).filter(|c| *c != ErrorCode::ElectionNotNeeded).collect();
    match failed.first() {
        None => Exit::Ok,
        Some(first) if failed.len() == results.len() => exit_of(*first),
        Some(_) => Exit::Partial,
    }
}

fn results_text(results: &[wire::ElectionResult]) -> String {
    let row = |r: &wire::ElectionResult| {
        let outcome = match r.error.clone().map(ApiError::from) {
            Some(error) => error.to_string(),
            None => r.text.clone(),
        };
        vec![format!("{}/{}", r.topic, r.partition), id(r.leader_id), r.leader_epoch.to_string(), outcome]
    };
    let mut text = table(&["partition", "leader", "epoch", "result"], &["epoch"], results.iter().map(row).collect());
    for result in results.iter().filter(|r| !r.survivors.is_empty()) {
        let row = |s: &wire::Survivor| {
            let state = match (s.answered, s.damaged) {
                (false, _) => "no answer",
                (true, true) => "damaged",
                (true, false) => "ok",
            };
            let told = |number: u64| if s.answered { number.to_string() } else { "unknown".to_owned() };
            vec![s.broker_id.to_string(), known(s.last_epoch), told(s.log_end), told(s.log_start), state.to_owned()]
        };
        let columns = ["survivor", "last epoch", "log end", "log start", "state"];
        let right = ["survivor", "last epoch", "log end", "log start"];
        let survivors = table(&columns, &right, result.survivors.iter().map(row).collect());
        text.push_str(&format!("\n\n{}/{}:\n{survivors}", result.topic, result.partition));
    }
    text
}

pub(super) fn result_json(r: &wire::ElectionResult) -> Value {
    json!({
        "topic": r.topic,
        "partition": r.partition,
        "error": r.error.clone().map(|e| { let e = ApiError::from(e); json!({ "code": e.code.name(), "message": e.message }) }),
        "leader": if r.leader_id == 0 { Value::Null } else { r.leader_id.into() },
        "leader_epoch": r.leader_epoch,
        "text": r.text,
        "survivors": r.survivors.iter().map(|s| json!({
            "broker": s.broker_id, "last_epoch": known_json(s.last_epoch), "log_end": s.log_end,
            "log_start": s.log_start, "damaged": s.damaged, "answered": s.answered,
        })).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_read_or_refused() {
        let read = partition("a/b/3").unwrap();
        assert_eq!((read.topic.as_str(), read.partition), ("a/b", 3));
        assert_eq!(maybe_partition("t"), Ok(("t".into(), None)));
        for bad in ["t", "t/", "/3", "t/x"] {
            assert!(partition(bad).is_err(), "{bad}");
        }
    }
}
