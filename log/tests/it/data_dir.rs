//! Whose directory is it, and how did its last user leave?

use std::path::Path;
use std::sync::Arc;

use log::data_dir::{BrokerState, DataDir, DataDirError, Expected, Identity, Role, parse_partition};
use log::storage::memory::{Call, Fault, MemStorage};
use log::storage::{Storage, create_dir_durably};
use log::{LogError, StateFile};
use uuid::Uuid;

use crate::common::*;

const ROOT: &str = "/data/broker-1";

fn identity() -> Identity {
    Identity { cluster_id: Uuid::from_u128(1), node_id: 1, role: Role::Broker, directory: Uuid::from_u128(77) }
}

fn expected() -> Expected {
    Expected { cluster_id: Some(Uuid::from_u128(1)), node_id: 1, role: Role::Broker }
}

fn shared(disk: &MemStorage) -> Arc<dyn Storage> {
    Arc::new(disk.clone())
}

fn formatted() -> MemStorage {
    let disk = disk();
    DataDir::format(&shared(&disk), Path::new(ROOT), &identity()).expect("format");
    disk
}

fn open(disk: &MemStorage) -> Result<DataDir, DataDirError> {
    DataDir::open(shared(disk), Path::new(ROOT), &expected())
}

#[test]
fn a_directory_is_formatted_once_and_survives_power_cuts() {
    let disk = formatted();
    disk.crash(&mut || false);
    let dir = open(&disk).expect("open");
    assert_eq!(dir.identity(), &identity());
    let again = DataDir::format(&shared(&disk), Path::new(ROOT), &identity());
    assert!(matches!(again, Err(DataDirError::AlreadyFormatted { found, .. }) if found == identity()));
}

#[test]
fn what_is_not_formatted_or_not_empty_is_refused() {
    let disk = disk();
    assert!(matches!(open(&disk), Err(DataDirError::Unformatted { .. })));
    create_dir_durably(&disk, &Path::new(ROOT).join("photos")).expect("create");
    assert!(matches!(open(&disk), Err(DataDirError::Unformatted { .. })));
    let format = DataDir::format(&shared(&disk), Path::new(ROOT), &identity());
    assert!(matches!(format, Err(DataDirError::NotEmpty { name, .. }) if name == "photos"));
}

#[test]
fn a_first_voter_set_written_before_the_identity_is_no_obstacle() {
    let disk = disk();
    let raft = Path::new(ROOT).join("raft");
    create_dir_durably(&disk, &raft).expect("create");
    StateFile::new(shared(&disk), raft.join("bootstrap")).store(b"voters").expect("store");
    DataDir::format(&shared(&disk), Path::new(ROOT), &identity()).expect("nothing in it is foreign");
    assert_eq!(DataDir::peek(&shared(&disk), Path::new(ROOT)).expect("readable"), Some(identity()));
}

#[test]
fn only_one_process_at_a_time() {
    let disk = formatted();
    let first = open(&disk).expect("open");
    assert!(matches!(open(&disk), Err(DataDirError::Locked { .. })));
    drop(first);
    let second = open(&disk).expect("the lock went with its holder");
    disk.kill_process();
    drop(second);
    open(&disk).expect("and dies with the process");
}

#[test]
fn another_cluster_node_or_role_is_refused() {
    let disk = formatted();
    let with = |expected: Expected| DataDir::open(shared(&disk), Path::new(ROOT), &expected);
    let other = Expected { cluster_id: Some(Uuid::from_u128(2)), ..expected() };
    assert!(matches!(with(other), Err(DataDirError::WrongCluster { .. })));
    assert!(matches!(with(Expected { node_id: 2, ..expected() }), Err(DataDirError::WrongNode { found: 1, .. })));
    let controller = Expected { role: Role::Controller, ..expected() };
    assert!(matches!(with(controller), Err(DataDirError::WrongNode { .. })));
    with(Expected { cluster_id: None, ..expected() }).expect("the directory names the cluster");
}

#[test]
fn every_flipped_byte_of_the_identity_is_damage() {
    let disk = formatted();
    let path = Path::new(ROOT).join("identity");
    let good = disk.contents(&path).expect("identity");
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        disk.damage(&path, bad).expect("damage");
        let result = open(&disk);
        assert!(
            matches!(&result, Err(DataDirError::Log(LogError::Damaged(d))) if d.file == path),
            "byte {at}: {result:?}"
        );
    }
}

#[test]
fn formatting_may_be_repeated_after_a_power_cut_anywhere() {
    let mut stop = 0;
    loop {
        let disk = disk();
        let begin = disk.calls();
        disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
            (call.number >= begin + stop).then(|| Fault::Fail(std::io::Error::other("power is gone")))
        })));
        let done = DataDir::format(&shared(&disk), Path::new(ROOT), &identity()).is_ok();
        let mut dice = Dice(stop);
        disk.crash(&mut || dice.below(2) == 0);
        if open(&disk).is_err() {
            assert!(!done, "formatted means durable");
            DataDir::format(&shared(&disk), Path::new(ROOT), &identity()).expect("again");
        }
        open(&disk).expect("open");
        if done {
            assert!(stop > 20, "every call was reached");
            return;
        }
        stop += 1;
    }
}

#[test]
fn restart_evidence_is_durable_and_the_clean_marker_is_taken_back() {
    let disk = formatted();
    let dir = open(&disk).expect("open");
    assert_eq!(dir.broker_state().expect("load"), None);
    let state = BrokerState { broker_epoch: 9, earlier_epoch: Some(7), boot_id: dir.boot_id().expect("boot id") };
    dir.store_broker_state(&state).expect("store");
    dir.mark_clean_shutdown(9).expect("mark");
    disk.crash(&mut || false);
    let dir = open(&disk).expect("open");
    assert_eq!(dir.broker_state().expect("load"), Some(state.clone()));
    assert_ne!(dir.boot_id().expect("boot id"), state.boot_id, "another boot");
    assert_eq!(dir.clean_shutdown().expect("load"), Some(9));
    dir.clear_clean_shutdown().expect("clear");
    disk.crash(&mut || false);
    assert_eq!(open(&disk).expect("open").clean_shutdown().expect("load"), None);
}

#[test]
fn partitions_are_set_aside_and_only_then_deleted() {
    let disk = formatted();
    let dir = open(&disk).expect("open");
    let topic = Uuid::from_u128(5);
    for _ in 0..2 {
        disk.create_dir(&dir.partition_dir(topic, 3)).expect("create");
        disk.create(&dir.partition_dir(topic, 3).join("x")).expect("create");
        assert_eq!(dir.partitions().expect("list"), [(topic, 3)]);
        dir.set_aside(topic, 3).expect("set aside");
        disk.sync_dir(&dir.partition_dir(topic, 3)).expect_err("it is gone from its place");
    }
    disk.crash(&mut || false);
    let dir = open(&disk).expect("open");
    assert_eq!(dir.partitions().expect("list"), []);
    let strays = dir.strays().expect("strays");
    assert_eq!(strays.len(), 2);
    assert!(dir.delete_stray(&dir.raft_dir()).is_err(), "nothing else can be deleted that way");
    dir.delete_stray(&strays[0]).expect("delete");
    assert_eq!(dir.strays().expect("strays"), strays[1..]);
    dir.delete_partition(topic, 4).expect("a missing one is fine");
}

#[test]
fn only_the_canonical_name_means_a_partition() {
    let topic = Uuid::from_u128(0xabc);
    assert_eq!(parse_partition(&format!("{topic}-12")), Some((topic, 12)));
    for name in [
        format!("{topic}-012"),
        format!("{topic}-+1"),
        format!("{topic}"),
        format!("{}-1", topic.simple()),
        format!("{topic}-1").to_uppercase(),
        "lost+found".into(),
    ] {
        assert_eq!(parse_partition(&name), None, "{name}");
    }
}
