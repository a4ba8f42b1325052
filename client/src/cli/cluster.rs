//! `seawall cluster status`.

use super::exit::{EXIT_CODES, Exit, Failure};
use super::output::{facts, id, uuid};
use super::{Context, broker};
use clap::Subcommand;
use serde_json::{Value, json};

/// Verbs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum Verb {
    /// Brokers, topics, and whether every partition can be written and is fully replicated
    Status {
        /// Exit with 3 unless every partition is online and satisfies its durability rule
        #[arg(long)]
        check: bool,
    },
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    let Verb::Status { check } = verb;
    let cluster = context.admin()?.describe_cluster().await?;
    let (cluster_id, incarnation) =
        cluster.cluster.as_ref().map_or((String::new(), 0), |c| (uuid(&c.cluster_id), c.incarnation));
    let active = cluster.brokers.iter().filter(|b| b.state == "active").count();
    let healthy = cluster.offline_partitions == 0 && cluster.under_min_isr == 0;
    let verdict = verdict(&cluster, active);
    let brokers: Vec<Value> = cluster.brokers.iter().map(broker::to_json).collect();
    let document = json!({
        "cluster_id": cluster_id,
        "incarnation": incarnation,
        "healthy": healthy,
        "verdict": verdict,
        "batch_no": cluster.batch_no,
        "metadata_version": cluster.metadata_version,
        "active_controller": if cluster.active_controller == 0 { Value::Null } else { cluster.active_controller.into() },
        "topics": cluster.topics,
        "partitions": cluster.partitions,
        "offline_partitions": cluster.offline_partitions,
        "under_replicated": cluster.under_replicated,
        "under_min_isr": cluster.under_min_isr,
        "brokers": brokers,
    });
    context.out.print(&document, || {
        let head = facts(&[
            ("cluster", format!("{cluster_id} (incarnation {incarnation})")),
            ("verdict", verdict.clone()),
            ("controller", id(cluster.active_controller)),
            ("metadata", format!("batch {}, version {}", cluster.batch_no, cluster.metadata_version)),
            ("topics", format!("{} with {} partitions", cluster.topics, cluster.partitions)),
            ("offline", cluster.offline_partitions.to_string()),
            ("under-replicated", cluster.under_replicated.to_string()),
            ("under min ISR", cluster.under_min_isr.to_string()),
        ]);
        format!("{head}\n{}", broker::text(&cluster.brokers))
    })?;
    Ok(if check && !healthy { Exit::ConditionFalse } else { Exit::Ok })
}

fn verdict(cluster: &crate::admin::wire::DescribeClusterResponse, active: usize) -> String {
    let brokers = format!("{active} of {} brokers active", cluster.brokers.len());
    if cluster.offline_partitions > 0 {
        format!(
            "{} partitions are offline; {brokers}; `seawall explain partition T/P` says why",
            cluster.offline_partitions
        )
    } else if cluster.under_min_isr > 0 {
        format!(
            "{} partitions refuse acks=all; {brokers}; `seawall explain partition T/P` says why",
            cluster.under_min_isr
        )
    } else if cluster.under_replicated > 0 {
        format!("every partition can be written; {} miss a replica; {brokers}", cluster.under_replicated)
    } else if cluster.partitions == 0 {
        format!("no partitions yet; {brokers}")
    } else {
        format!("every partition is fully replicated; {brokers}")
    }
}
