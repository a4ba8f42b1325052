//! Golden files: `testdata/facts/v1/<Kind>.bin` holds one envelope of every kind as version 1 writes it, for ever. A change of
//! any of these bytes is a change of what is on users' disks. New kinds get a file by `SEAWALL_GOLDEN=write`, which never
//! overwrites one.

use crate::ids::{BatchNo, BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicId};
use crate::locality::Locality;
use crate::metadata::brokers::{BrokerState, BrokerView};
use crate::metadata::envelope::{Envelope, FactError};
use crate::metadata::record::*;
use crate::metadata::snapshot::*;
use crate::metadata::topics::TopicState;
use std::path::PathBuf;
use uuid::Uuid;

mod size;

fn topic() -> TopicId {
    TopicId(Uuid::from_u128(0x7070_1c00_0000_4000_8000_0000_0000_0001))
}

fn ids(ids: &[u32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn endpoint(host: &str, port: u16) -> Endpoint {
    Endpoint { host: host.to_owned(), port }
}

fn locality() -> Locality {
    Locality { region: "eu".to_owned(), dc: "dc1".to_owned(), rack: "r-7".to_owned() }
}

fn registered() -> BrokerRegistered {
    BrokerRegistered {
        broker: BrokerId(300),
        epoch: BrokerEpoch(70_000),
        incarnation: Uuid::from_u128(0x11),
        internal: endpoint("broker-300.internal", 9_001),
        client: endpoint("broker-300.example.org", 9_000),
        locality: locality(),
        directories: vec![Uuid::from_u128(0x22), Uuid::from_u128(0x33)],
        min_metadata_version: 1,
        max_metadata_version: 1,
        seen: BrokerView { registered: Some(BrokerEpoch(69_999)), last_unfenced: Some(BrokerEpoch(300)) },
        proof_admissible: true,
    }
}

fn change() -> PartitionChange {
    PartitionChange {
        partition: 1_000,
        leader: LeaderChange::Broker(BrokerId(2)),
        isr: Some(ids(&[2])),
        elr: Some(ids(&[1, 3])),
        replicas: Some(ids(&[1, 2, 3, 200])),
        adding: Some(ids(&[200])),
        removing: Some(ids(&[1])),
        recovery: Some(RecoveryState::Recovering),
        bump_leader_epoch: true,
    }
}

fn unclean() -> UncleanElection {
    UncleanElection {
        topic: topic(),
        partition: 7,
        leader: BrokerId(3),
        last_epoch: Some(12),
        log_end: 1 << 40,
        forced_now: true,
        at_ms: 1_700_000_000_000,
    }
}

fn facts() -> Vec<Fact> {
    let broker = BrokerRef { broker: BrokerId(300), epoch: BrokerEpoch(70_000) };
    let assignment = Assignment { replicas: ids(&[1, 2, 3]), isr: ids(&[1, 2]), leader: Some(BrokerId(1)) };
    let nobody = Assignment { replicas: ids(&[4]), isr: ids(&[]), leader: None };
    let config = ConfigResource::Topic(topic());
    vec![
        Fact::ClusterFormed(ClusterFormed { cluster_id: Uuid::from_u128(0xc1), incarnation: 1, metadata_version: 1 }),
        Fact::MetadataVersionFinalized(MetadataVersionFinalized { version: 300 }),
        Fact::BrokerRegistered(registered()),
        Fact::BrokerFenced(broker),
        Fact::BrokerUnfenced(broker),
        Fact::BrokerProved(broker),
        Fact::BrokerShutdownBegan(broker),
        Fact::TopicCreated(TopicCreated {
            topic: topic(),
            name: "orders.eu".to_owned(),
            replication_factor: 3,
            created_ms: 1_700_000_000_000,
        }),
        Fact::PartitionsCreated(PartitionsCreated { topic: topic(), first: 0, assignments: vec![assignment, nobody] }),
        Fact::PartitionsChanged(PartitionsChanged {
            topic: topic(),
            changes: vec![
                change(),
                PartitionChange { partition: 1, leader: LeaderChange::Nobody, ..PartitionChange::default() },
                PartitionChange::default(),
            ],
        }),
        Fact::TopicDeleted(TopicDeleted { topic: topic(), at_ms: 1_700_000_000_001 }),
        Fact::TopicPurged(TopicPurged { topic: topic() }),
        Fact::ConfigSet(ConfigSet { resource: config, key: "retention.ms".to_owned(), value: "-1".to_owned() }),
        Fact::ConfigUnset(ConfigUnset {
            resource: ConfigResource::Broker(BrokerId(9)),
            key: "replica.lag.max.ms".to_owned(),
        }),
        Fact::UncleanElection(unclean()),
    ]
}

fn restored() -> Vec<Restored> {
    let f = registered();
    vec![
        Restored::SnapshotBegan(SnapshotBegan { batch_no: BatchNo(12_345), chain_hash: u64::MAX - 1 }),
        Restored::ClusterRestored(ClusterRestored {
            cluster_id: Uuid::from_u128(0xc1),
            incarnation: 2,
            metadata_version: 1,
            last_broker_epoch: BrokerEpoch(70_001),
        }),
        Restored::BrokerRestored(BrokerRestored {
            broker: f.broker,
            epoch: f.epoch,
            incarnation: f.incarnation,
            internal: f.internal,
            client: f.client,
            locality: f.locality,
            directories: f.directories,
            min_metadata_version: f.min_metadata_version,
            max_metadata_version: f.max_metadata_version,
            state: BrokerState::ShuttingDown,
            proved: true,
            proof_admissible: false,
            last_unfenced_epoch: Some(BrokerEpoch(69_999)),
        }),
        Restored::TopicRestored(TopicRestored {
            topic: topic(),
            name: "orders.eu".to_owned(),
            replication_factor: 3,
            created_ms: 1_700_000_000_000,
            state: TopicState::Deleted { at_ms: 1_700_000_000_001 },
        }),
        Restored::PartitionsRestored(PartitionsRestored {
            topic: topic(),
            first: 500,
            partitions: vec![PartitionRestored {
                replicas: ids(&[1, 2, 3, 200]),
                adding: ids(&[200]),
                removing: ids(&[1]),
                isr: ids(&[2]),
                elr: ids(&[1, 3]),
                observers: ids(&[5]),
                leader: Some(BrokerId(2)),
                leader_epoch: LeaderEpoch(300),
                partition_epoch: PartitionEpoch(70_000),
                recovery: RecoveryState::Recovering,
                unclean_epoch: Some(LeaderEpoch(300)),
            }],
        }),
        Restored::ConfigRestored(ConfigSet {
            resource: ConfigResource::Cluster,
            key: "min.insync.dcs".to_owned(),
            value: "2".to_owned(),
        }),
        Restored::UncleanRestored(unclean()),
        Restored::SnapshotEnded(SnapshotEnded { records: 77, image_hash: 1 << 63 }),
    ]
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)
}

/// The bytes of a kept file; `SEAWALL_GOLDEN=write` makes one that is missing.
fn kept(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = path(name);
    if !path.exists() && std::env::var("SEAWALL_GOLDEN").is_ok_and(|v| v == "write") {
        std::fs::write(&path, make()).expect("testdata can be written");
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; SEAWALL_GOLDEN=write makes it", path.display()))
}

fn golden(name: &str, envelope: &Envelope) -> Envelope {
    let bytes = postcard::to_stdvec(envelope).expect("postcard writes envelopes");
    let stored = kept(&format!("facts/v1/{name}.bin"), || bytes.clone());
    assert_eq!(stored, bytes, "{name}: this build writes other bytes than version 1 did");
    postcard::from_bytes(&stored).expect("a golden file holds one envelope")
}

#[test]
fn every_kind_of_fact_reads_and_writes_its_golden_file() {
    let facts = facts();
    let kinds: Vec<_> = facts.iter().map(|f| (f.kind(), f.name())).collect();
    assert_eq!(kinds, Fact::KINDS, "one example of every kind, in order");
    for fact in &facts {
        let envelope = golden(fact.name(), &fact.to_envelope());
        assert_eq!(Fact::from_envelope(&envelope).as_ref(), Ok(fact));
        assert_eq!((envelope.kind, envelope.version), (fact.kind(), 1));
    }
}

#[test]
fn every_kind_of_restoring_fact_reads_and_writes_its_golden_file() {
    let facts = restored();
    let kinds: Vec<_> = facts.iter().map(|f| (f.kind(), f.name())).collect();
    assert_eq!(kinds, Restored::KINDS, "one example of every kind, in order");
    for fact in &facts {
        let envelope = golden(fact.name(), &fact.to_envelope());
        assert_eq!(Restored::from_envelope(&envelope).as_ref(), Ok(fact));
    }
}

#[test]
fn no_golden_file_is_without_its_kind() {
    let known: Vec<String> = Fact::KINDS.iter().chain(Restored::KINDS).map(|(_, name)| format!("{name}.bin")).collect();
    for file in std::fs::read_dir(path("facts/v1")).expect("testdata is there") {
        let name = file.expect("testdata can be listed").file_name().into_string().expect("names are ASCII");
        assert!(known.contains(&name), "{name}: kinds are never removed");
    }
}

#[test]
fn an_unknown_kind_halts_with_a_message_that_says_so() {
    for kind in [0, 16, 999, 1_001, u16::MAX] {
        let error = Fact::from_envelope(&Envelope { kind, version: 1, bytes: vec![] }).expect_err("no such kind");
        assert_eq!(error, FactError::UnknownKind { kind, version: 1, first: 1, known: 15 });
        let text = error.to_string();
        assert!(text.contains(&format!("unknown kind {kind} (version 1)")) && text.contains("kinds 1 to 15"), "{text}");
        assert!(text.contains("must be upgraded"), "{text}");
    }
    let error = Restored::from_envelope(&Fact::TopicPurged(TopicPurged { topic: topic() }).to_envelope());
    assert!(matches!(error, Err(FactError::UnknownKind { kind: 12, first: 1_001, known: 1_008, .. })), "{error:?}");
}

#[test]
fn an_unknown_version_halts_with_a_message_that_says_so() {
    for fact in facts() {
        for version in [0, 2, u16::MAX] {
            let envelope = Envelope { version, ..fact.to_envelope() };
            let error = Fact::from_envelope(&envelope).expect_err("no such version");
            assert_eq!(error, FactError::UnknownVersion { name: fact.name(), version, known: 1 });
            assert!(error.to_string().contains(&format!("fact {} of unknown version {version}", fact.name())));
        }
    }
}

#[test]
fn bytes_left_over_or_missing_are_refused_not_ignored() {
    for fact in facts() {
        let mut envelope = fact.to_envelope();
        envelope.bytes.push(0);
        let error = Fact::from_envelope(&envelope).expect_err("one byte too many");
        assert!(matches!(&error, FactError::Malformed { reason, .. } if reason == "1 bytes left over"), "{error}");
        envelope.bytes.truncate(envelope.bytes.len() - 2);
        let error = Fact::from_envelope(&envelope).expect_err("one byte too few");
        assert!(matches!(&error, FactError::Malformed { name, .. } if *name == fact.name()), "{error}");
    }
}
