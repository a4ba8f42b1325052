//! What people type: configuration files and arguments.

use super::mutate::EDGES;
use super::{Depth, values};
use crate::chaos::random::Random;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// The text of a configuration file, then every role's reading of it.
pub(super) fn configuration_body(bytes: &[u8]) -> Depth {
    let text = String::from_utf8_lossy(bytes);
    let Ok(layered) = deploy::config::parse(Path::new("seawall.toml"), &text) else { return Depth::Refused };
    let flat: BTreeMap<String, String> = layered.values;
    let mut taken = controller::config::RawConfig::from_flat(flat.clone())
        .is_ok_and(|raw| controller::config::Config::try_from(raw).is_ok());
    taken |= broker::config::RawConfig::from_flat(flat.clone())
        .is_ok_and(|raw| broker::config::Config::try_from(raw).is_ok());
    for (key, value) in &flat {
        use protocol::ids::{BrokerId, TopicId};
        use protocol::metadata::record::ConfigResource;
        let resources =
            [ConfigResource::Cluster, ConfigResource::Broker(BrokerId(1)), ConfigResource::Topic(TopicId::default())];
        for resource in resources {
            if protocol::metadata::configs::check(resource, key, value).is_ok() {
                assert!(protocol::metadata::configs::definition(key).is_some(), "an unknown key was accepted: {key}");
                taken = true;
            }
        }
        value.parse::<protocol::locality::Locality>().ok();
    }
    if taken { Depth::Accepted } else { Depth::Decoded }
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
pub(super) fn arguments_body(bytes: &[u8]) -> Depth {
    let given = bytes.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
    match deploy::check_arguments(std::iter::once(OsString::from("seawall")).chain(given)) {
        Ok(_) => Depth::Accepted,
        Err(error) => {
            assert!(!error.to_string().is_empty(), "a refusal says why");
            Depth::Refused
        }
    }
}

/// Words of one line swapped, doubled, gone or taken from another.
pub(super) fn vary_arguments(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut words: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let other = rng.one_of(&arguments()).clone();
    if rng.chance(50) {
        values::list(rng, &mut words);
    } else {
        let others: Vec<&[u8]> = other.split(|byte| *byte == b'\n').collect();
        let at = usize::try_from(rng.below(words.len() as u64)).unwrap_or(0);
        words[at] = rng.one_of(&others).to_vec();
    }
    words.join(&b'\n')
}

/// Lines of a configuration swapped, doubled, gone, and values of the schema at the edges of their types.
pub(super) fn vary_configuration(rng: &mut Random, bytes: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if rng.chance(50) {
        values::list(rng, &mut lines);
    } else {
        let key = rng.one_of(protocol::metadata::configs::SCHEMA).key;
        let value = rng.one_of(&EDGES).cast_signed();
        lines.insert(0, format!("\"{key}\" = {value}").into_bytes());
    }
    lines.join(&b'\n')
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
