//! `seawall quorum ...`: voters of the metadata log.

use super::Context;
use super::broker::endpoint;
use super::exit::{EXIT_CODES, Exit, Failure};
use super::output::{confirm, facts, id, known, known_json, table, uuid};
use crate::admin::{Admin, wire, wire_common};
use crate::config::parse_address;
use clap::{Args, Subcommand};
use protocol::locality::Locality;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

const VOTER_HELP: &str = "\
A voter to add is ID@HOST:PORT@REGION/DC/RACK#DIRECTORY-UUID (`seawall format` prints the uuid);
a voter to remove is ID, or ID#UUID (the first digits are enough) if two voters share the id.
Several voters change in one joint step: 1-1-1 grows to 2-2-2 by `quorum add` of three.";

/// Verbs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXIT_CODES)]
pub enum Verb {
    /// Leader, voters, and what the loss of each data centre would do
    Status,
    /// Add voters; they catch up first
    #[command(after_help = VOTER_HELP)]
    Add {
        #[arg(required = true, value_parser = voter, value_name = "VOTER")]
        voters: Vec<Added>,
        #[command(flatten)]
        how: How,
    },
    /// Remove voters
    #[command(after_help = VOTER_HELP)]
    Remove {
        #[arg(required = true, value_parser = removed, value_name = "ID[#UUID]")]
        voters: Vec<Removed>,
        #[command(flatten)]
        how: How,
    },
    /// Replace a voter by another in one step
    #[command(after_help = VOTER_HELP)]
    Replace {
        /// The voter that goes
        #[arg(value_parser = removed, value_name = "ID[#UUID]")]
        old: Removed,
        /// The voter that comes
        #[arg(value_parser = voter, value_name = "VOTER")]
        new: Added,
        #[command(flatten)]
        how: How,
    },
}

/// How a change is made.
#[derive(Debug, Clone, Copy, Args)]
pub struct How {
    /// Only say what would hold afterwards
    #[arg(long)]
    dry_run: bool,
    /// Even if the layout rule refuses it
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// A voter to be added.
#[derive(Debug, Clone)]
pub struct Added(wire::VoterSpec);

/// A voter to be removed.
#[derive(Debug, Clone)]
pub struct Removed {
    id: u32,
    directory: String,
}

fn voter(text: &str) -> Result<Added, String> {
    let parse = || {
        let (id, rest) = text.split_once('@')?;
        let (address, rest) = rest.split_once('@')?;
        let (locality, directory) = rest.split_once('#')?;
        let address = parse_address(address)?;
        locality.parse::<Locality>().ok()?;
        Some(wire::VoterSpec {
            id: id.parse().ok().filter(|id| *id > 0)?,
            directory: Uuid::parse_str(directory).ok()?.as_bytes().to_vec().into(),
            endpoint: Some(wire_common::Endpoint { host: address.host, port: address.port.into() }),
            locality: locality.to_owned(),
        })
    };
    parse().map(Added).ok_or_else(|| "it must be ID@HOST:PORT@REGION/DC/RACK#DIRECTORY-UUID".to_owned())
}

fn removed(text: &str) -> Result<Removed, String> {
    let (id, directory) = text.split_once('#').unwrap_or((text, ""));
    let id = id.parse().map_err(|_| "it must be ID or ID#UUID".to_owned())?;
    Ok(Removed { id, directory: directory.to_lowercase() })
}

pub(super) async fn run(verb: Verb, context: &Context) -> Result<Exit, Failure> {
    let admin = context.admin()?;
    let (add, remove, how) = match verb {
        Verb::Status => return status(&admin, context).await,
        Verb::Add { voters, how } => (voters, vec![], how),
        Verb::Remove { voters, how } => (vec![], voters, how),
        Verb::Replace { old, new, how } => (vec![new], vec![old], how),
    };
    let quorum = admin.describe_quorum().await?;
    let remove = remove.iter().map(|r| find(r, &quorum.voters)).collect::<Result<Vec<_>, _>>()?;
    let add = add.into_iter().map(|Added(spec)| spec).collect::<Vec<_>>();
    let plan = plan(&add, &remove, how);
    if how.dry_run {
        eprintln!("{plan} (dry run)");
    } else {
        confirm(&plan, how.yes)?;
    }
    let request = wire::ChangeVotersRequest { add, remove, force: how.force, dry_run: how.dry_run };
    let patient = match context.globals.timeout {
        Some(_) => admin,
        // A new voter first catches up with the whole log.
        None => admin.with_timeout(Duration::from_millis(protocol::limits::SERVER_DEADLINE_MS)),
    };
    let answer = patient.change_voters(request).await?;
    let document = json!({
        "dry_run": how.dry_run,
        "voters": answer.voters.iter().map(voter_json).collect::<Vec<_>>(),
        "verdicts": answer.verdicts.iter().map(verdict_json).collect::<Vec<_>>(),
    });
    context
        .out
        .print(&document, || format!("{}\n\n{}", voters_text(&answer.voters), verdicts_text(&answer.verdicts)))?;
    Ok(Exit::Ok)
}

fn plan(add: &[wire::VoterSpec], remove: &[wire::VoterSpec], how: How) -> String {
    let names = |list: &[wire::VoterSpec]| list.iter().map(|v| name(v.id, &v.directory)).collect::<Vec<_>>().join(", ");
    let mut parts = Vec::new();
    if !add.is_empty() {
        parts.push(format!("adding {}", names(add)));
    }
    if !remove.is_empty() {
        parts.push(format!("removing {}", names(remove)));
    }
    if how.force {
        parts.push("even against the layout rule".to_owned());
    }
    parts.join(", ")
}

fn name(id: u32, directory: &[u8]) -> String {
    format!("{id}#{}", uuid(directory).get(..8).unwrap_or("?"))
}

fn find(wanted: &Removed, voters: &[wire::VoterDescription]) -> Result<wire::VoterSpec, Failure> {
    let matches: Vec<_> = voters
        .iter()
        .filter(|v| {
            v.id == wanted.id && uuid(&v.directory).replace('-', "").starts_with(&wanted.directory.replace('-', ""))
        })
        .collect();
    match matches.as_slice() {
        [voter] => Ok(wire::VoterSpec {
            id: voter.id,
            directory: voter.directory.clone(),
            endpoint: voter.endpoint.clone(),
            locality: voter.locality.clone(),
        }),
        [] => {
            let of = if wanted.directory.is_empty() { "" } else { "#" };
            let text = format!("voter is {}{of}{}, allowed: a voter of the quorum", wanted.id, wanted.directory);
            Err(Failure::new(Exit::NotFound, text).advise("`seawall quorum status`"))
        }
        several => {
            let names: Vec<String> = several.iter().map(|v| name(v.id, &v.directory)).collect();
            let text = format!("voter {} means several: {}", wanted.id, names.join(", "));
            Err(Failure::new(Exit::Usage, text).advise("write ID#UUID"))
        }
    }
}

async fn status(admin: &Admin, context: &Context) -> Result<Exit, Failure> {
    let quorum = admin.describe_quorum().await?;
    let document = json!({
        "leader": if quorum.leader_id == 0 { Value::Null } else { quorum.leader_id.into() },
        "term": quorum.term,
        "last_log_index": quorum.last_log_index,
        "committed_index": quorum.committed_index,
        "snapshot_index": quorum.snapshot_index,
        "last_quorum_ack_ms": known_json(quorum.last_quorum_ack_ms),
        "joint": quorum.joint,
        "answered_by_leader": quorum.answered_by_leader,
        "voters": quorum.voters.iter().map(voter_json).collect::<Vec<_>>(),
        "learners": quorum.learners.iter().map(voter_json).collect::<Vec<_>>(),
        "verdicts": quorum.verdicts.iter().map(verdict_json).collect::<Vec<_>>(),
    });
    context.out.print(&document, || {
        let head = facts(&[
            ("leader", id(quorum.leader_id)),
            ("term", quorum.term.to_string()),
            (
                "log",
                format!(
                    "last {}, committed {}, snapshot {}",
                    quorum.last_log_index, quorum.committed_index, quorum.snapshot_index
                ),
            ),
            ("last quorum ack", format!("{} ms ago", known(quorum.last_quorum_ack_ms))),
            ("voter change", if quorum.joint { "under way" } else { "none" }.to_owned()),
        ]);
        let mut text = format!("{head}\n{}", voters_text(&quorum.voters));
        if !quorum.learners.is_empty() {
            text.push_str(&format!("\n\nlearners:\n{}", voters_text(&quorum.learners)));
        }
        format!("{text}\n\n{}", verdicts_text(&quorum.verdicts))
    })?;
    Ok(if quorum.leader_id == 0 { Exit::ConditionFalse } else { Exit::Ok })
}

fn voters_text(voters: &[wire::VoterDescription]) -> String {
    let row = |v: &wire::VoterDescription| {
        vec![
            v.id.to_string(),
            uuid(&v.directory),
            endpoint(v.endpoint.as_ref()),
            v.locality.clone(),
            known(v.matched_index),
        ]
    };
    table(&["id", "directory", "address", "locality", "matched"], &["id", "matched"], voters.iter().map(row).collect())
}

fn verdicts_text(verdicts: &[wire::DataCentreVerdict]) -> String {
    let row = |v: &wire::DataCentreVerdict| {
        let lossless = if v.provably_lossless { "yes" } else { "no" };
        let then = if v.continues { "continues" } else { "STOPS" };
        vec![v.dc.clone(), v.voters.to_string(), then.to_owned(), lossless.to_owned(), v.text.clone()]
    };
    table(&["if lost", "voters", "quorum", "lossless", "because"], &["voters"], verdicts.iter().map(row).collect())
}

pub(super) fn voter_json(v: &wire::VoterDescription) -> Value {
    json!({ "id": v.id, "directory": uuid(&v.directory), "endpoint": endpoint(v.endpoint.as_ref()),
        "locality": v.locality, "matched_index": known_json(v.matched_index) })
}

pub(super) fn verdict_json(v: &wire::DataCentreVerdict) -> Value {
    json!({ "dc": v.dc, "voters": v.voters, "continues": v.continues,
        "provably_lossless": v.provably_lossless, "text": v.text })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "0191b2c3-0000-7000-8000-0000000000aa";

    #[test]
    fn voters_are_read_or_refused() {
        let Added(spec) = voter(&format!("4@c4:19131@eu/dc1/r1#{UUID}")).unwrap();
        assert_eq!((spec.id, spec.endpoint.unwrap().port), (4, 19131));
        for bad in ["4", "4@c4@eu/dc1/r1", "0@c4:1@eu/dc1/r1#x", &format!("4@c4:1@#{UUID}")] {
            assert!(voter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_voter_is_found_by_id_unless_two_share_it() {
        let described = |id: u32, uuid: u128| wire::VoterDescription {
            id,
            directory: Uuid::from_u128(uuid).as_bytes().to_vec().into(),
            ..Default::default()
        };
        let voters = [described(1, 0xa << 124), described(2, 0xb << 124), described(2, 0xc << 124)];
        assert_eq!(find(&removed("1").unwrap(), &voters).unwrap().id, 1);
        assert_eq!(find(&removed("2#c").unwrap(), &voters).unwrap().directory, voters[2].directory);
        assert_eq!(find(&removed("2").unwrap(), &voters).unwrap_err().exit, Exit::Usage);
        assert_eq!(find(&removed("3").unwrap(), &voters).unwrap_err().exit, Exit::NotFound);
    }
}
