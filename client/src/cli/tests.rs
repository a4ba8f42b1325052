//! The exact command forms that others rely on.

use super::*;
use clap::{CommandFactory, Parser};

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

fn parses(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("seawall").chain(line.split(' ')))
}

#[test]
fn the_tree_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn binding_forms_parse() {
    let uuid = "0191b2c3-0000-7000-8000-0000000000aa";
    for line in [
        "topic create NAME --partitions 6 --replicas 3 --config a=b --config c=d",
        "topic list -o json",
        "topic describe NAME",
        "topic alter NAME --partitions 12 --config retention.ms=1 --unset flush.policy",
        "topic alter NAME --set retention.ms=1",
        "topic delete NAME --yes",
        "topic trim NAME --partition 1 --before end",
        "produce TOPIC",
        "produce TOPIC --acks all --key-delimiter : --compression lz4",
        r"produce TOPIC --acks 0 --key-delimiter \t -X linger.ms=1",
        "consume TOPIC --partition 3 --from earliest --until-end",
        "consume TOPIC --from latest --count 5",
        "consume TOPIC --from 17",
        "consume TOPIC --from -2h",
        "consume TOPIC --from @1700000000000",
        "consume TOPIC --from 2026-11-21T10:00:00 --format %o:%v -o json",
        "-b h:1,h:2 cluster status",
        "cluster status -b h:1 -o json --check",
        "quorum status",
        &format!("quorum add 4@h:1@eu/dc1/r1#{uuid} --dry-run"),
        "quorum remove 3 --force --yes",
        &format!("quorum replace 3#ab 4@h:1@eu/dc1/r1#{uuid}"),
        "broker list",
        "broker shutdown 2 --yes --wait",
        "partition describe t/0",
        "partition elect",
        "partition elect t/0 --unclean --dry-run",
        "partition elect t/0 --unclean --now --broker 2 --yes",
        "explain partition t/0",
        "metadata hash --timeout 5s",
    ] {
        parses(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn nonsense_does_not_parse() {
    for line in [
        "topic create",
        "topic create t --config novalue",
        "produce t --acks 2",
        "produce t --key-delimiter ab",
        "consume t --from tomorrow",
        "consume t --format %z",
        "partition describe t",
        "partition elect t/0 --now",
        "quorum add 4",
        "-o yaml topic list",
    ] {
        assert_eq!(parses(line).expect_err(line).exit_code(), Exit::Usage as i32, "{line}");
    }
}

#[tokio::test]
async fn without_a_cluster_commands_say_what_to_do() {
    let globals = Globals { bootstrap: Some("nonsense".into()), output: Format::Json, timeout: None };
    let context = Context { out: Output::new(Format::Json), globals };
    let failure = context.client_config().unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.text.contains("HOST:PORT"), "{}", failure.text);
    let failure = Failure::no_cluster("no dev cluster is running".into());
    assert!(failure.advice.is_some_and(|advice| advice.contains("seawall dev")));
}

fn names(value: &serde_json::Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Scripts read these names; a change here breaks them.
#[test]
fn json_names_are_frozen() {
    assert_eq!(
        names(&topic::partition_json(&Default::default())),
        [
            "adding",
            "elr",
            "isr",
            "leader",
            "leader_epoch",
            "partition",
            "partition_epoch",
            "recovery",
            "removing",
            "replicas",
            "satisfies"
        ]
    );
    assert_eq!(
        names(&topic::topic_json(&Default::default(), None)),
        [
            "configs",
            "min_insync_dcs",
            "min_insync_replicas",
            "name",
            "partition_count",
            "replication_factor",
            "topic_id"
        ]
    );
    assert_eq!(
        names(&broker::to_json(&Default::default())),
        [
            "applied_batch_no",
            "client",
            "epoch",
            "id",
            "incarnation",
            "internal",
            "last_contact_ms",
            "leaders",
            "locality",
            "replicas",
            "state",
            "why"
        ]
    );
    assert_eq!(
        names(&quorum::voter_json(&Default::default())),
        ["directory", "endpoint", "id", "locality", "matched_index"]
    );
    assert_eq!(
        names(&quorum::verdict_json(&Default::default())),
        ["continues", "dc", "provably_lossless", "text", "voters"]
    );
    assert_eq!(
        names(&partition::replica_json(1, &Ok(Default::default()))),
        [
            "broker",
            "durable_end",
            "flush_policy",
            "followers",
            "high_watermark",
            "isr_state",
            "leader_epoch",
            "log_end",
            "log_start",
            "notes",
            "role",
            "size_bytes"
        ]
    );
    assert_eq!(
        names(&partition::result_json(&Default::default())),
        ["error", "leader", "leader_epoch", "partition", "survivors", "text", "topic"]
    );
}
