//! `seawall broker ...`, and brokers as other verbs print them.

use super::Context;
use super::exit::{EXIT_CODES, Exit, Failure};
use super::output::{confirm, known, known_json, table, uuid};
use crate::admin::{wire, wire_common::Endpoint};
use crate::error::Error;
use crate::limits::POLL_PAUSE_MS;
use clap::Subcommand;
use protocol::error::{ApiError, ErrorCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// Verbs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum Verb {
    /// List brokers, and why those that are fenced are
    #[command(alias = "ls")]
    List,
    /// Move a broker's leaders away and let it stop
    Shutdown {
        /// Broker id
        id: u32,
        /// Wait until it has gone, at most this long
        #[arg(long, value_parser = super::time::duration_ms, value_name = "TIME", num_args = 0..=1, default_missing_value = "60s")]
        wait: Option<u64>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    match verb {
        Verb::List => {
            let cluster = context.admin()?.describe_cluster().await?;
            let brokers: Vec<Value> = cluster.brokers.iter().map(to_json).collect();
            context.out.print(&json!({ "brokers": brokers }), || text(&cluster.brokers))?;
            Ok(Exit::Ok)
        }
        Verb::Shutdown { id, wait, yes } => shutdown(id, wait, yes, context).await,
    }
}

async fn shutdown(id: u32, wait: Option<u64>, yes: bool, context: &Context) -> Result<Exit, Failure> {
    let admin = context.admin()?;
    let before = admin.describe_cluster().await?;
    let broker = before.brokers.iter().find(|b| b.id == id).ok_or_else(|| unknown(id))?;
    confirm(&format!("broker {id} leads {} partitions; they move away, then it stops", broker.leaders), yes)?;
    let answer = admin.shutdown_broker(id).await?;
    let mut state = "shutting down";
    if let Some(wait_ms) = wait {
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        loop {
            let cluster = admin.describe_cluster().await?;
            match cluster.brokers.iter().find(|b| b.id == id) {
                None => break,
                Some(broker) if broker.state == "fenced" => break,
                Some(broker) if Instant::now() >= deadline => {
                    let text = format!("broker {id} is still {} and leads {} partitions", broker.state, broker.leaders);
                    return Err(
                        Failure::new(Exit::Unreachable, text).advise("`seawall broker list` says what it waits for")
                    );
                }
                Some(_) => tokio::time::sleep(Duration::from_millis(POLL_PAUSE_MS)).await,
            }
        }
        state = "stopped";
    }
    let document = json!({ "broker": id, "state": state, "batch_no": answer.batch_no });
    context.out.print(&document, || format!("broker {id} {state}"))?;
    Ok(Exit::Ok)
}

fn unknown(id: u32) -> Error {
    let error = Box::new(ApiError::bad(ErrorCode::UnknownBroker, "broker", id, "a registered broker"));
    Error::Refused { request: "shut down broker", node: "the cluster".to_owned(), error }
}

/// Brokers as a table, with reasons below it.
pub(super) fn text(brokers: &[wire::BrokerDescription]) -> String {
    let row = |b: &wire::BrokerDescription| {
        vec![
            b.id.to_string(),
            b.state.clone(),
            b.locality.clone(),
            endpoint(b.client.as_ref()),
            b.leaders.to_string(),
            b.replicas.to_string(),
            b.epoch.to_string(),
            known(b.last_contact_ms),
        ]
    };
    let columns = ["id", "state", "locality", "address", "leaders", "replicas", "epoch", "contact ms"];
    let right = ["id", "leaders", "replicas", "epoch", "contact ms"];
    let mut text = table(&columns, &right, brokers.iter().map(row).collect());
    for broker in brokers.iter().filter(|b| !b.why.is_empty()) {
        text.push_str(&format!("\n\nbroker {} is {}:", broker.id, broker.state));
        broker.why.iter().for_each(|why| text.push_str(&format!("\n  {why}")));
    }
    text
}

/// A broker for programs.
pub(super) fn to_json(b: &wire::BrokerDescription) -> Value {
    json!({
        "id": b.id,
        "state": b.state,
        "epoch": b.epoch,
        "client": endpoint(b.client.as_ref()),
        "internal": endpoint(b.internal.as_ref()),
        "locality": b.locality,
        "leaders": b.leaders,
        "replicas": b.replicas,
        "last_contact_ms": known_json(b.last_contact_ms),
        "applied_batch_no": b.applied_batch_no,
        "incarnation": uuid(&b.incarnation),
        "why": b.why,
    })
}

/// `HOST:PORT`, `-` if missing.
pub(super) fn endpoint(endpoint: Option<&Endpoint>) -> String {
    match endpoint {
        Some(Endpoint { host, port }) if host.contains(':') => format!("[{host}]:{port}"),
        Some(Endpoint { host, port }) => format!("{host}:{port}"),
        None => "-".to_owned(),
    }
}
