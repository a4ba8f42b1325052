//! What people type: configuration files and arguments.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// The text of a configuration file, then every role's reading of it.
pub(super) fn configuration_body(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(layered) = deploy::config::parse(Path::new("seawall.toml"), &text) else { return };
    let flat: BTreeMap<String, String> = layered.values;
    if let Ok(raw) = controller::config::RawConfig::from_flat(flat.clone()) {
        controller::config::Config::try_from(raw).ok();
    }
    if let Ok(raw) = broker::config::RawConfig::from_flat(flat.clone()) {
        broker::config::Config::try_from(raw).ok();
    }
    for (key, value) in &flat {
        use protocol::ids::{BrokerId, TopicId};
        use protocol::metadata::record::ConfigResource;
        let resources =
            [ConfigResource::Cluster, ConfigResource::Broker(BrokerId(1)), ConfigResource::Topic(TopicId::default())];
        for resource in resources {
            if protocol::metadata::configs::check(resource, key, value).is_ok() {
                assert!(protocol::metadata::configs::definition(key).is_some(), "an unknown key was accepted: {key}");
            }
        }
        value.parse::<protocol::locality::Locality>().ok();
    }
}

pub(super) fn configurations() -> Vec<Vec<u8>> {
    let broker = "node.id = 2\ndata.dir = \"/d\"\nlocality = \"r/dc2/k\"\nlistener.client = \"127.0.0.1:9092\"\n\
                  listener.internal = \"127.0.0.1:9093\"\ncontrollers = [\"127.0.0.1:9001\", \"127.0.0.1:9002\"]\n\
                  shards = 2\n[log]\nlevel = \"info\"\n";
    let topic = "\"min.insync.replicas\" = 2\n\"flush.policy\" = \"interval\"\n\"retention.ms\" = -1\n\
                 \"segment.bytes\" = 1048576\n\"retention.bytes\" = 9223372036854775807\n";
    let mut corpus = vec![broker.into(), topic.into(), b"a = 1.5\nb = true\nc = [1, 2]\n[d.e]\nf = \"g\"\n".to_vec()];
    for key in protocol::metadata::configs::SCHEMA {
        corpus.push(format!("\"{}\" = 7\n", key.key).into_bytes());
    }
    corpus
}

/// Arguments, separated by line ends.
pub(super) fn arguments_body(bytes: &[u8]) {
    let given = bytes.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    if let Err(error) = deploy::check_arguments(std::iter::once(OsString::from("seawall")).chain(given)) {
        assert!(!error.to_string().is_empty(), "a refusal says why");
    }
}

pub(super) fn arguments() -> Vec<Vec<u8>> {
    let lines = [
        "topic create t --partitions 6 --replicas 3 --config min.insync.replicas=2",
        "topic alter t --set retention.ms=5 --unset segment.bytes",
        "produce t --acks all --key-delimiter : --compression zstd",
        "consume t --partition 0 --from 2026-01-01T00:00:00Z --until-end --count 7 --format %v",
        "consume t --from earliest -o json --timeout 10s -b a:1,b:2",
        "quorum add 4@host:9000=0190b6f0-0000-7000-8000-000000000000 --force",
        "partition elect --unclean t/0 --now --chosen 2",
        "broker --config /f -X node.id=1",
        "dev --controllers 3 --brokers 3 --dcs 3 --port-base 9000 --detach --data-dir /d",
        "dev kill broker-2",
        "log dump /d/x --from 1",
        "format --config /f --cluster-id 0190b6f0-0000-7000-8000-000000000000",
        "bench failover -n 20",
        "explain partition t/0",
    ];
    lines.iter().map(|line| line.replace(' ', "\n").into_bytes()).collect()
}
