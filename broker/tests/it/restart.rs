//! What a restart finds, and what it may prove of it: over a simulated disk that dies as processes and machines do.

use super::bench_world::{at, batch, format, open};
use broker::checkpoints::NoCheckpoints;
use broker::evidence::{Evidence, Found};
use broker::notes::{key, stored_policy};
use broker::recovery::{Recovered, recover};
use log::data_dir::DataDir;
use log::registry::{Event, Registry};
use log::storage::memory::{Call, Fault, MemStorage, Op};
use log::{Log, LogConfig};
use protocol::batch::stamp;
use protocol::ids::BrokerEpoch;
use protocol::metadata::configs::FlushPolicy;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

const EPOCH: BrokerEpoch = BrokerEpoch(5);

struct Node {
    disk: MemStorage,
}

impl Node {
    fn new() -> Self {
        let disk = MemStorage::new();
        format(&disk);
        Self { disk }
    }

    fn registry(data: &DataDir) -> Registry {
        Registry::open(data.storage(), &data.registry_dir()).expect("the registry opens")
    }

    /// What a running broker does before and at its first appends, under a policy.
    fn write(&self, records: u64, policy: FlushPolicy, synced: bool) {
        let data = open(&self.disk);
        let mut registry = Self::registry(&data);
        let notes = [Event::PolicyNoted(stored_policy(policy)), Event::DirCreated];
        registry.record(&notes.map(|event| (key(at()), event))).expect("notes are taken");
        let mut log = open_log(&data);
        for n in 0..records {
            let mut bytes = batch(&format!("record {n}")).to_vec();
            stamp(&mut bytes, log.end_offset(), 1);
            log.append(log.end_offset(), &bytes).expect("appends");
        }
        if synced {
            log.sync().expect("syncs");
        }
    }

    fn start(&self) -> (DataDir, Recovered) {
        let data = open(&self.disk);
        let mut registry = Self::registry(&data);
        let recovered = recover(&data, &mut registry, &NoCheckpoints, 1).expect("recovers");
        (data, recovered)
    }

    fn proves(&self, same_boot: bool) -> bool {
        let (_, recovered) = self.start();
        evidence(recovered.found, same_boot).proves(at(), EPOCH)
    }
}

fn open_log(data: &DataDir) -> Log {
    let dir = data.partition_dir(at().topic.0, at().partition);
    Log::open(data.storage().clone(), &dir, LogConfig::default()).expect("the log opens").0
}

fn evidence(found: BTreeMap<protocol::ids::TopicPartition, Found>, same_boot: bool) -> Evidence {
    Evidence { epoch: EPOCH.0, same_boot, found, ..Evidence::default() }
}

#[test]
fn a_partition_that_never_had_a_record_is_proved() {
    let node = Node::new();
    node.disk.crash(&mut || false);
    assert!(node.proves(false));
}

#[test]
fn synced_records_survive_a_power_loss_and_are_proved() {
    let node = Node::new();
    node.write(20, FlushPolicy::Sync, true);
    node.disk.crash(&mut || false);
    let (_, recovered) = node.start();
    assert_eq!(recovered.partitions[&at()].log.end_offset(), 20);
    assert!(evidence(recovered.found, false).proves(at(), EPOCH));
}

#[test]
fn unsynced_records_are_proved_when_the_process_died_and_not_when_the_machine_did() {
    let node = Node::new();
    node.write(20, FlushPolicy::Os, false);
    node.disk.kill_process();
    assert!(node.proves(true), "the page cache did not die");
    let node = Node::new();
    node.write(20, FlushPolicy::Os, false);
    node.disk.crash(&mut || false);
    assert!(!node.proves(false));
}

#[test]
fn a_deleted_partition_directory_is_a_loss_and_stays_one_until_it_is_begun_anew() {
    let node = Node::new();
    node.write(20, FlushPolicy::Sync, true);
    let data = open(&node.disk);
    data.delete_partition(at().topic.0, at().partition).expect("somebody deletes it");
    drop(data);
    for start in 0..3 {
        let (data, recovered) = node.start();
        assert!(!evidence(recovered.found, true).proves(at(), EPOCH), "start {start}");
        assert!(recovered.partitions[&at()].damaged);
        drop(data);
        node.disk.kill_process();
    }
}

#[test]
fn a_damaged_log_is_set_aside_whole_and_no_later_start_proves_the_empty_place() {
    let node = Node::new();
    node.write(20, FlushPolicy::Sync, true);
    let data = open(&node.disk);
    let dir = data.partition_dir(at().topic.0, at().partition);
    drop(data);
    for file in node.disk.files_below(&dir).expect("lists") {
        let mut bytes = node.disk.contents(&file).expect("reads");
        if let Some(spot) = bytes.windows(8).position(|w| w == b"record 7") {
            bytes[spot] ^= 0x40;
            node.disk.damage(&file, bytes).expect("writes");
        }
    }
    for start in 0..3 {
        let (data, recovered) = node.start();
        assert_eq!(recovered.partitions[&at()].log.end_offset(), 0, "start {start}");
        assert!(!evidence(recovered.found, true).proves(at(), EPOCH), "start {start}");
        assert_eq!(data.strays().expect("lists").len(), 1, "the damaged bytes are kept, once");
        drop(data);
        node.disk.kill_process();
    }
}

#[test]
fn a_copy_is_not_given_up_for_one_read_that_failed() {
    let node = Node::new();
    node.write(20, FlushPolicy::Sync, true);
    let dir = open(&node.disk).partition_dir(at().topic.0, at().partition);
    let left = AtomicU32::new(1);
    node.disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
        let segment = call.path.starts_with(&dir) && call.path.extension().is_some_and(|e| e == "log");
        let hit =
            call.op == Op::Read && segment && left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        hit.then(|| Fault::Fail(std::io::Error::other("medium error")))
    })));
    let (data, recovered) = node.start();
    assert_eq!(recovered.partitions[&at()].log.end_offset(), 20);
    assert!(!recovered.found[&at()].cut_little, "what the first look cut is not known");
    assert!(evidence(recovered.found, true).proves(at(), EPOCH), "by `sync` nothing that counted can have been cut");
    assert!(data.strays().expect("lists").is_empty());
}

#[test]
fn a_log_that_lost_everything_unsynced_is_not_taken_for_one_that_never_was() {
    let node = Node::new();
    node.write(3, FlushPolicy::Os, false);
    node.disk.crash(&mut || false);
    let (_, recovered) = node.start();
    let found = recovered.found[&at()];
    assert!(!found.empty && !evidence(recovered.found, false).proves(at(), EPOCH), "{found:?}");
}

/// The first acknowledgement of a partition may leave before its policy is noted: it waits for the sync and for the note of
/// the directory.
#[test]
fn records_acknowledged_before_any_policy_was_noted_are_proved_after_a_power_loss() {
    let node = Node::new();
    let data = open(&node.disk);
    Node::registry(&data).record(&[(key(at()), Event::DirCreated)]).expect("the note that counts");
    let mut log = open_log(&data);
    let mut bytes = batch("record").to_vec();
    stamp(&mut bytes, 0, 1);
    log.append(0, &bytes).expect("appends");
    log.sync().expect("syncs");
    drop((log, data));
    node.disk.crash(&mut || false);
    assert!(node.proves(false), "nothing that counted was unsynced");
}

#[test]
fn records_that_the_registry_never_heard_of_prove_nothing_at_any_start() {
    let node = Node::new();
    let data = open(&node.disk);
    let mut log = open_log(&data);
    let mut bytes = batch("record").to_vec();
    stamp(&mut bytes, 0, 1);
    log.append(0, &bytes).expect("appends");
    log.sync().expect("syncs");
    drop((log, data));
    for start in 0..3 {
        node.disk.crash(&mut || false);
        assert!(!node.proves(false), "start {start}");
    }
}

#[test]
fn a_directory_that_the_registry_lacks_is_noted_by_the_start_that_finds_it() {
    let node = Node::new();
    let data = open(&node.disk);
    let mut registry = Node::registry(&data);
    let policy = Event::PolicyNoted(stored_policy(FlushPolicy::Sync));
    registry.record(&[(key(at()), policy)]).expect("the note that the process died behind");
    let mut log = open_log(&data);
    let mut bytes = batch("record").to_vec();
    stamp(&mut bytes, 0, 1);
    log.append(0, &bytes).expect("appends");
    log.sync().expect("syncs");
    drop((log, registry, data));
    node.disk.kill_process();
    let (data, recovered) = node.start();
    assert!(recovered.partitions[&at()].directory_noted);
    drop(recovered);
    data.delete_partition(at().topic.0, at().partition).expect("somebody deletes it");
    drop(data);
    node.disk.crash(&mut || false);
    assert!(!node.proves(false), "what the start before served is gone");
}

#[test]
fn a_partition_set_aside_whose_new_directory_was_never_noted_stays_unproved() {
    let node = Node::new();
    node.write(20, FlushPolicy::Sync, true);
    let data = open(&node.disk);
    Node::registry(&data).record(&[(key(at()), Event::SetAside)]).expect("a note");
    drop(data);
    for start in 0..3 {
        let (data, recovered) = node.start();
        assert!(!recovered.partitions[&at()].directory_noted, "start {start}: only beginning anew notes it");
        assert!(!evidence(recovered.found, true).proves(at(), EPOCH), "start {start}");
        drop(data);
        node.disk.kill_process();
    }
}
