//! `seawall explain ...`.

use super::Context;
use super::exit::{EXIT_CODES, Exit, Failure};
use super::output::{id, ids, table};
use super::partition::{TopicPartition, partition, replicas};
use super::topic::partition_json;
use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

/// Verbs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum Verb {
    /// Why a partition is as it is, and what happens if a broker or a data centre stops now
    Partition {
        /// TOPIC/PARTITION
        #[arg(value_parser = partition, value_name = "TOPIC/PARTITION")]
        partition: TopicPartition,
    },
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    let Verb::Partition { partition: wanted } = verb;
    let admin = context.admin()?;
    let answer = admin.explain_partition(&wanted.topic, wanted.partition).await?;
    let state = answer.state.clone().unwrap_or_default();
    let mut findings = answer.findings.clone();
    if let Ok(topic_id) = Uuid::parse_str(&answer.topic_id) {
        for (broker, replica) in replicas(&admin, topic_id.as_bytes(), &state).await {
            match replica {
                Ok(replica) => findings.extend(replica.notes.iter().map(|note| format!("broker {broker}: {note}"))),
                Err(why) => findings.push(format!("broker {broker} does not answer: {why}")),
            }
        }
    }
    let losses: Vec<_> = answer
        .losses
        .iter()
        .map(|l| {
            json!({ "what": l.what, "writes_continue": l.writes_continue,
                "acked_records_safe": l.acked_records_safe, "text": l.text })
        })
        .collect();
    let document = json!({ "topic": wanted.topic, "topic_id": answer.topic_id, "state": partition_json(&state),
        "findings": findings, "losses": losses });
    context.out.print(&document, || {
        let mut text = format!(
            "{}/{}: leader {} (epoch {}), replicas {}, isr {}, elr {}, {}\n",
            wanted.topic,
            wanted.partition,
            id(state.leader_id),
            state.leader_epoch,
            ids(&state.replicas),
            ids(&state.isr),
            ids(&state.elr),
            if state.satisfies { "takes acks=all" } else { "REFUSES acks=all" }
        );
        findings.iter().for_each(|finding| text.push_str(&format!("  {finding}\n")));
        let yes = |yes: bool| if yes { "yes" } else { "NO" }.to_owned();
        let rows = answer
            .losses
            .iter()
            .map(|l| vec![l.what.clone(), yes(l.writes_continue), yes(l.acked_records_safe), l.text.clone()]);
        format!(
            "{text}\n{}",
            table(&["if lost now", "writes go on", "acked records safe", "because"], &[], rows.collect())
        )
    })?;
    Ok(Exit::Ok)
}
