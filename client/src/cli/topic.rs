//! `seawall topic ...`.

use super::exit::{EXIT_CODES, Exit, Failure, exit_of};
use super::output::{confirm, facts, id, ids, table, uuid};
use super::{Context, time};
use crate::admin::{NewTopic, wire};
use crate::error::Error;
use crate::limits::LEADERS_WAIT_MS;
use clap::{Args, Subcommand};
use protocol::error::{ApiError, ErrorCode};
use serde_json::{Value, json};
use std::time::Duration;
use wire::ResourceKind;

/// Verbs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum Verb {
    /// Create a topic and wait until its partitions have leaders
    Create(Create),
    /// List topics
    #[command(alias = "ls")]
    List,
    /// Show partitions, leaders, replicas and configs of topics
    #[command(alias = "desc")]
    Describe(Describe),
    /// Add partitions, set and unset configs
    Alter(Alter),
    /// Delete topics; they can be restored until delete.grace.ms has passed
    #[command(alias = "rm")]
    Delete(Delete),
    /// Delete the oldest records of a partition
    Trim(Trim),
}

/// `topic create`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: seawall topic create orders --partitions 6 --replicas 3 --config retention.ms=86400000"
)]
pub struct Create {
    name: String,
    /// Number of partitions
    #[arg(short, long, default_value_t = 1)]
    partitions: u32,
    /// Replicas of each partition; 0 means the cluster's default
    #[arg(short, long, default_value_t = 0)]
    replicas: u32,
    /// A config, KEY=VALUE; may be repeated
    #[arg(short, long = "config", value_parser = pair, value_name = "KEY=VALUE")]
    configs: Vec<(String, String)>,
    /// Succeed if the topic exists, whatever it looks like
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether it could be created
    #[arg(long)]
    dry_run: bool,
    /// Return at once, or after this long, instead of waiting 10s for leaders
    #[arg(long, value_parser = time::duration_ms, value_name = "TIME")]
    wait: Option<u64>,
}

/// `topic describe`.
#[derive(Debug, Args)]
pub struct Describe {
    #[arg(required = true)]
    names: Vec<String>,
    /// Also show every config in force and where it comes from
    #[arg(long)]
    configs: bool,
}

/// `topic alter`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: seawall topic alter orders --partitions 12 --config min.insync.replicas=2 --unset retention.ms"
)]
pub struct Alter {
    name: String,
    /// Grow to this many partitions in all
    #[arg(short, long)]
    partitions: Option<u32>,
    /// Set a config, KEY=VALUE; may be repeated
    #[arg(short, long = "config", visible_alias = "set", value_parser = pair, value_name = "KEY=VALUE")]
    configs: Vec<(String, String)>,
    /// Put a config back to its default; may be repeated
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Only check
    #[arg(long)]
    dry_run: bool,
}

/// `topic delete`.
#[derive(Debug, Args)]
pub struct Delete {
    #[arg(required = true)]
    names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// `topic trim`.
#[derive(Debug, Args)]
pub struct Trim {
    name: String,
    /// The partition
    #[arg(short, long)]
    partition: u32,
    /// The first offset that stays, or `end` for none
    #[arg(long, value_parser = before, value_name = "OFFSET|end")]
    before: Before,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy)]
struct Before(Option<u64>);

fn before(text: &str) -> Result<Before, String> {
    match text {
        "end" | "latest" => Ok(Before(None)),
        _ => text.parse().map(|offset| Before(Some(offset))).map_err(|_| "an offset, or `end`".to_owned()),
    }
}

/// `KEY=VALUE`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it must be KEY=VALUE".to_owned()),
    }
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Create(arguments) => create(arguments, context).await,
        Verb::List => list(context).await,
        Verb::Describe(arguments) => describe(arguments, context).await,
        Verb::Alter(arguments) => alter(arguments, context).await,
        Verb::Delete(arguments) => delete(arguments, context).await,
        Verb::Trim(arguments) => trim(arguments, context).await,
    }
}

async fn create(arguments: Create, context: &Context) -> Result<Exit, Failure> {
    let admin = context.admin()?;
    let Create { name, partitions, replicas, configs, if_not_exists, dry_run, wait } = arguments;
    let topic = NewTopic { name: name.clone(), partitions, replicas, configs };
    let created = match admin.create_topic(&topic, dry_run).await {
        Err(error) if if_not_exists && error.code() == Some(ErrorCode::TopicExists) => {
            eprintln!("topic {name} exists");
            return Ok(Exit::Ok);
        }
        outcome => outcome?,
    };
    let state = if dry_run { "could be created" } else { "created" };
    let partitions: Vec<Value> = created.partitions.iter().map(partition_json).collect();
    let document = json!({ "name": name, "topic_id": uuid(&created.topic_id), "state": state,
        "batch_no": created.batch_no, "partitions": partitions });
    if !dry_run {
        admin.await_leaders(&name, Duration::from_millis(wait.unwrap_or(LEADERS_WAIT_MS))).await.map_err(|error| {
            let failure = Failure::from(error);
            Failure { text: format!("topic {name} is created, but not ready: {}", failure.text), ..failure }
        })?;
    }
    context.out.print(&document, || format!("topic {name} {state}"))?;
    Ok(Exit::Ok)
}

async fn list(context: &Context) -> Result<Exit, Failure> {
    let found = context.admin()?.describe_topics(&[], false).await?;
    let topics: Vec<Value> = found.topics.iter().map(|t| topic_json(t, None)).collect();
    context.out.print(&json!({ "topics": topics }), || {
        if found.topics.is_empty() {
            eprintln!("no topics; `seawall topic create NAME` makes one");
        }
        let row = |t: &wire::TopicDescription| {
            vec![
                t.name.clone(),
                t.partition_count.to_string(),
                t.replication_factor.to_string(),
                config_text(&t.configs),
            ]
        };
        table(
            &["name", "partitions", "replicas", "configs"],
            &["partitions", "replicas"],
            found.topics.iter().map(row).collect(),
        )
    })?;
    Ok(Exit::Ok)
}

async fn describe(arguments: Describe, context: &Context) -> Result<Exit, Failure> {
    let admin = context.admin()?;
    let found = admin.describe_topics(&arguments.names, true).await?;
    let mut exit = Exit::Ok;
    let (mut documents, mut texts) = (Vec::new(), Vec::new());
    for topic in &found.topics {
        if let Some(error) = topic.error.clone() {
            let error = ApiError::from(error);
            exit = exit_of(error.code);
            eprintln!("error: {}: {error}", topic.name);
            continue;
        }
        let configs = match arguments.configs {
            true => Some(admin.describe_configs(ResourceKind::ResourceTopic, &topic.name).await?.entries),
            false => None,
        };
        texts.push(describe_text(topic, configs.as_deref()));
        documents.push(topic_json(topic, configs.as_deref()));
    }
    if !documents.is_empty() || context.out.is_json() {
        context.out.print(&json!({ "topics": documents }), || texts.join("\n\n"))?;
    }
    Ok(exit)
}

fn describe_text(topic: &wire::TopicDescription, configs: Option<&[wire::ConfigValue]>) -> String {
    let head = facts(&[
        ("topic", topic.name.clone()),
        ("id", uuid(&topic.topic_id)),
        ("partitions", topic.partition_count.to_string()),
        ("replicas", topic.replication_factor.to_string()),
        (
            "durability",
            format!(
                "acks=all waits for {} in-sync replicas, in {} data centre(s) or more",
                topic.min_insync_replicas, topic.min_insync_dcs
            ),
        ),
        ("configs", config_text(&topic.configs)),
    ]);
    let row = |p: &wire::PartitionState| {
        let holds = if p.satisfies { "yes" } else { "NO" };
        vec![
            p.partition.to_string(),
            id(p.leader_id),
            p.leader_epoch.to_string(),
            ids(&p.replicas),
            ids(&p.isr),
            ids(&p.elr),
            holds.to_owned(),
        ]
    };
    let columns = ["partition", "leader", "epoch", "replicas", "isr", "elr", "writable"];
    let mut text =
        format!("{head}\n{}", table(&columns, &["partition", "epoch"], topic.partitions.iter().map(row).collect()));
    if let Some(configs) = configs {
        let row = |c: &wire::ConfigValue| vec![c.key.clone(), c.value.clone(), c.source.clone(), c.doc.clone()];
        text.push_str("\n\n");
        text.push_str(&table(&["config", "value", "source", "meaning"], &[], configs.iter().map(row).collect()));
    }
    text
}

async fn alter(arguments: Alter, context: &Context) -> Result<Exit, Failure> {
    let Alter { name, partitions, configs, unset, dry_run } = arguments;
    let change_configs = !configs.is_empty() || !unset.is_empty();
    if partitions.is_none() && !change_configs {
        return Err(
            Failure::new(Exit::Usage, "nothing to change").advise("--partitions N, --config KEY=VALUE or --unset KEY")
        );
    }
    let admin = context.admin()?;
    let mut batch_no = 0;
    if change_configs {
        // The check comes first, so that a bad config does not leave partitions added.
        admin.alter_configs(ResourceKind::ResourceTopic, &name, &configs, &unset, true).await?;
    }
    if let Some(total) = partitions {
        batch_no = admin.create_partitions(&name, total, dry_run).await?.batch_no;
    }
    if change_configs && !dry_run {
        let altered = admin.alter_configs(ResourceKind::ResourceTopic, &name, &configs, &unset, false).await;
        batch_no = altered.map_err(|error| partly(error, partitions, &name))?.batch_no;
    }
    let state = if dry_run { "could be altered" } else { "altered" };
    context
        .out
        .print(&json!({ "name": name, "state": state, "batch_no": batch_no }), || format!("topic {name} {state}"))?;
    Ok(Exit::Ok)
}

fn partly(error: Error, partitions: Option<u32>, name: &str) -> Failure {
    let failure = Failure::from(error);
    match partitions {
        Some(total) => {
            let text =
                format!("topic {name} has {total} partitions now, but its configs were not changed: {}", failure.text);
            Failure { exit: Exit::Partial, text, ..failure }
        }
        None => failure,
    }
}

async fn delete(arguments: Delete, context: &Context) -> Result<Exit, Failure> {
    let admin = context.admin()?;
    let plan = format!("deleting {} with all their records", arguments.names.join(", "));
    confirm(&plan, arguments.yes)?;
    let (mut deleted, mut failures) = (Vec::new(), Vec::new());
    for name in &arguments.names {
        match admin.delete_topic(name).await {
            Ok(answer) => deleted.push((name.clone(), uuid(&answer.topic_id))),
            Err(error) => failures.push((name.clone(), Failure::from(error))),
        }
    }
    let documents: Vec<Value> = deleted.iter().map(|(name, id)| json!({ "name": name, "topic_id": id })).collect();
    if !deleted.is_empty() || context.out.is_json() {
        context.out.print(&json!({ "deleted": documents }), || {
            let line = |(name, id): &(String, String)| format!("topic {name} deleted; its id is {id}");
            deleted.iter().map(line).collect::<Vec<_>>().join("\n")
        })?;
    }
    for (name, failure) in &failures {
        eprintln!("{name}:");
        failure.print();
    }
    Ok(match (deleted.is_empty(), failures.first()) {
        (_, None) => Exit::Ok,
        (false, Some(_)) => Exit::Partial,
        (true, Some((_, failure))) => failure.exit,
    })
}

async fn trim(arguments: Trim, context: &Context) -> Result<Exit, Failure> {
    let Trim { name, partition, before: Before(before), yes } = arguments;
    let upto = before.map_or_else(|| "the high watermark".to_owned(), |offset| format!("offset {offset}"));
    confirm(&format!("deleting the records of {name}/{partition} below {upto}; this cannot be undone"), yes)?;
    let log_start = context.admin()?.delete_records(&name, partition, before).await?;
    let document = json!({ "topic": name, "partition": partition, "log_start": log_start });
    context.out.print(&document, || format!("{name}/{partition} now begins at offset {log_start}"))?;
    Ok(Exit::Ok)
}

fn config_text(configs: &[wire::ConfigEntry]) -> String {
    let pairs: Vec<String> = configs.iter().map(|c| format!("{}={}", c.key, c.value)).collect();
    if pairs.is_empty() { "-".to_owned() } else { pairs.join(" ") }
}

/// A partition's state for programs.
pub(super) fn partition_json(p: &wire::PartitionState) -> Value {
    json!({
        "partition": p.partition,
        "leader": if p.leader_id == 0 { Value::Null } else { p.leader_id.into() },
        "leader_epoch": p.leader_epoch,
        "partition_epoch": p.partition_epoch,
        "replicas": p.replicas,
        "isr": p.isr,
        "elr": p.elr,
        "adding": p.adding,
        "removing": p.removing,
        "satisfies": p.satisfies,
        "recovery": p.recovery,
    })
}

pub(super) fn topic_json(topic: &wire::TopicDescription, configs: Option<&[wire::ConfigValue]>) -> Value {
    let set: serde_json::Map<String, Value> =
        topic.configs.iter().map(|c| (c.key.clone(), c.value.clone().into())).collect();
    let mut document = json!({
        "name": topic.name,
        "topic_id": uuid(&topic.topic_id),
        "partition_count": topic.partition_count,
        "replication_factor": topic.replication_factor,
        "min_insync_replicas": topic.min_insync_replicas,
        "min_insync_dcs": topic.min_insync_dcs,
        "configs": set,
    });
    if !topic.partitions.is_empty() {
        document["partitions"] = topic.partitions.iter().map(partition_json).collect();
    }
    if let Some(configs) = configs {
        let entry = |c: &wire::ConfigValue| json!({ "key": c.key, "value": c.value, "source": c.source, "doc": c.doc });
        document["effective_configs"] = configs.iter().map(entry).collect();
    }
    document
}
