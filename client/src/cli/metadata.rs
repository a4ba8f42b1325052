//! `seawall metadata hash`: the same facts on every node, or not.

use super::Context;
use super::broker::endpoint;
use super::exit::{EXIT_CODES, Exit, Failure};
use super::output::table;
use crate::admin::{Admin, wire};
use crate::config::{parse_address, show_address};
use clap::Subcommand;
use protocol::metadata::record::Endpoint;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// Verbs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum Verb {
    /// Each node's batch number and hashes; exits with 3 if two nodes differ at the same batch
    Hash,
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    let Verb::Hash = verb;
    let admin = context.admin()?;
    let nodes = nodes(&admin).await?;
    let ask = |(name, address): (String, Endpoint)| {
        let admin = admin.clone();
        async move { (name, show_address(&address), admin.metadata_hash(&address).await) }
    };
    let answers = futures_util::future::join_all(nodes.into_iter().map(ask)).await;
    let agree = agree(answers.iter().filter_map(|(_, _, answer)| answer.as_ref().ok()));
    let documents: Vec<_> = answers
        .iter()
        .map(|(name, address, answer)| match answer {
            Ok(hash) => json!({ "node": name, "address": address, "node_id": hash.node_id, "batch_no": hash.batch_no,
                "chain_hash": hex(hash.chain_hash), "image_hash": hex(hash.image_hash) }),
            Err(error) => json!({ "node": name, "address": address, "error": error.to_string() }),
        })
        .collect();
    context.out.print(&json!({ "agree": agree, "nodes": documents }), || {
        let row = |(name, address, answer): &(String, String, Result<wire::MetadataHashResponse, _>)| match answer {
            Ok(h) => vec![name.clone(), address.clone(), h.batch_no.to_string(), hex(h.chain_hash), hex(h.image_hash)],
            Err(_) => vec![name.clone(), address.clone(), "-".into(), "-".into(), "no answer".into()],
        };
        let columns = ["node", "address", "batch", "chain hash", "image hash"];
        let verdict = if agree { "nodes at the same batch agree" } else { "NODES DIFFER AT THE SAME BATCH" };
        format!("{}\n\n{verdict}", table(&columns, &["batch"], answers.iter().map(row).collect()))
    })?;
    for (name, _, answer) in &answers {
        if let Err(error) = answer {
            eprintln!("{name}: {error}");
        }
    }
    let answered = answers.iter().any(|(_, _, answer)| answer.is_ok());
    Ok(match (agree, answered) {
        (false, _) => Exit::ConditionFalse,
        (true, false) => Exit::Unreachable,
        (true, true) => Exit::Ok,
    })
}

/// Every broker and every voter.
async fn nodes(admin: &Admin) -> Result<Vec<(String, Endpoint)>, Failure> {
    let mut nodes = Vec::new();
    let quorum = admin.describe_quorum().await?;
    for voter in quorum.voters.iter().chain(&quorum.learners) {
        nodes
            .extend(parse_address(&endpoint(voter.endpoint.as_ref())).map(|a| (format!("controller-{}", voter.id), a)));
    }
    let routing = admin.routing().await?;
    nodes.extend(routing.brokers().iter().map(|(id, broker)| (format!("broker-{id}"), broker.address.clone())));
    Ok(nodes)
}

/// Whether nodes at the same batch have the same hashes.
fn agree<'a>(hashes: impl Iterator<Item = &'a wire::MetadataHashResponse>) -> bool {
    let mut seen: BTreeMap<u64, BTreeSet<(u64, u64)>> = BTreeMap::new();
    hashes.for_each(|h| {
        seen.entry(h.batch_no).or_default().insert((h.chain_hash, h.image_hash));
    });
    seen.values().all(|hashes| hashes.len() == 1)
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_at_the_same_batch_are_compared() {
        let hash = |batch_no, image_hash| wire::MetadataHashResponse { batch_no, image_hash, ..Default::default() };
        assert!(agree([hash(1, 7), hash(2, 8), hash(2, 8)].iter()));
        assert!(!agree([hash(2, 7), hash(2, 8)].iter()));
    }
}
