//! The partition registry: what it says is durable, and it never forgets that data existed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use log::data_dir::{DataDir, Identity, Role};
use log::registry::{Entry, Event, PartitionKey, Policy, Registry};
use log::storage::Storage;
use log::storage::memory::{Call, Fault, MemStorage};
use proptest::prelude::*;
use uuid::Uuid;

use crate::common::*;

fn root() -> PathBuf {
    PathBuf::from("/data/b")
}

fn formatted() -> MemStorage {
    let disk = disk();
    let identity =
        Identity { cluster_id: Uuid::from_u128(1), node_id: 1, role: Role::Broker, directory: Uuid::from_u128(2) };
    DataDir::format(&shared(&disk), &root(), &identity).expect("format");
    disk
}

fn shared(disk: &MemStorage) -> Arc<dyn Storage> {
    Arc::new(disk.clone())
}

fn open(disk: &MemStorage) -> Registry {
    Registry::open(&shared(disk), &root().join("registry")).expect("open")
}

fn key(n: u32) -> PartitionKey {
    PartitionKey { topic: Uuid::from_u128(u128::from(n / 4)), partition: n % 4 }
}

fn entries(registry: &Registry) -> BTreeMap<PartitionKey, Entry> {
    registry.iter().map(|(key, entry)| (*key, *entry)).collect()
}

fn fold(entries: &mut BTreeMap<PartitionKey, Entry>, key: PartitionKey, event: Event) {
    let mut entry = entries.get(&key).copied().unwrap_or_default();
    match event {
        Event::Removed => {
            entries.remove(&key);
            return;
        }
        Event::DirCreated => entry = Entry { dir_created: true, set_aside: false, ..entry },
        Event::PolicyNoted(policy) => entry.policy = Some(policy),
        Event::SetAside => entry.set_aside = true,
    }
    entries.insert(key, entry);
}

fn arb_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::DirCreated),
        Just(Event::PolicyNoted(Policy::Sync)),
        Just(Event::PolicyNoted(Policy::Os)),
        Just(Event::Removed),
        Just(Event::SetAside),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn what_was_recorded_is_there_after_a_power_cut(
        groups in proptest::collection::vec(proptest::collection::vec((0u32..12, arb_event()), 1..8), 1..12),
    ) {
        let disk = formatted();
        let mut model = BTreeMap::new();
        let mut registry = open(&disk);
        for group in groups {
            let events: Vec<(PartitionKey, Event)> = group.into_iter().map(|(n, e)| (key(n), e)).collect();
            registry.record(&events).expect("record");
            events.iter().for_each(|(key, event)| fold(&mut model, *key, *event));
            prop_assert_eq!(entries(&registry), model.clone());
            disk.crash(&mut || false);
            registry = open(&disk);
            prop_assert_eq!(entries(&registry), model.clone());
        }
    }
}

#[test]
fn compaction_keeps_the_entries_and_can_be_cut_off_anywhere() {
    let base = formatted();
    let mut registry = open(&base);
    let mut model = BTreeMap::new();
    let mut events = Vec::new();
    for round in 0..1500u32 {
        let policy = if round % 2 == 0 { Policy::Sync } else { Policy::Os };
        events.push((key(round % 7), Event::PolicyNoted(policy)));
        events.push((key(round % 7), Event::DirCreated));
    }
    registry.record(&events).expect("record");
    events.iter().for_each(|(key, event)| fold(&mut model, *key, *event));
    drop(registry);
    base.crash(&mut || false);
    let begin = base.calls();
    for stop in 0.. {
        let disk = base.fork();
        disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
            (call.number >= begin + stop).then(|| Fault::Fail(std::io::Error::other("power is gone")))
        })));
        let opened = Registry::open(&shared(&disk), &root().join("registry")).is_ok();
        let mut dice = Dice(stop);
        disk.crash(&mut || dice.below(2) == 0);
        let registry = open(&disk);
        assert_eq!(entries(&registry), model, "cut off at call {stop}");
        let logs = disk.list(&root().join("registry")).expect("list");
        assert_eq!(logs.iter().filter(|e| e.is_dir).count(), 1);
        if opened {
            assert!(logs.iter().any(|e| e.name == "log-1"), "it did compact: {logs:?}");
            return;
        }
    }
}

#[test]
fn a_missing_or_emptied_registry_is_damage_and_never_an_empty_one() {
    let disk = formatted();
    open(&disk).record(&[(key(1), Event::DirCreated)]).expect("record");
    disk.kill_process();
    let registry = root().join("registry");
    for file in disk.files_below(&registry).expect("files") {
        let forked = disk.fork();
        forked.remove(&file).expect("remove");
        let result = Registry::open(&shared(&forked), &registry);
        assert!(result.is_err(), "without {} it opened", file.display());
    }
    let forked = disk.fork();
    log::storage::remove_tree(&forked, &registry.join("log-0")).expect("remove");
    assert!(Registry::open(&shared(&forked), &registry).is_err());
}

/// Notes above the end mark that the power cut tore were announced to nobody, but that they are gone is said.
#[test]
fn a_tail_that_opening_the_registry_cuts_is_reported() {
    let disk = formatted();
    let mut registry = open(&disk);
    registry.record(&[(key(1), Event::DirCreated)]).expect("record");
    let known = entries(&registry);
    drop(registry);
    disk.kill_process();
    assert_eq!(open(&disk).recovery().cut, None);
    disk.kill_process();
    let files = disk.files_below(&root().join("registry")).expect("listed");
    let segment = files.iter().find(|file| file.extension().is_some_and(|e| e == "log")).expect("there is one");
    let mut bytes = disk.contents(segment).expect("read");
    bytes.extend([0x5a; 100]);
    disk.damage(segment, bytes).expect("damage");
    let registry = open(&disk);
    let cut = registry.recovery().cut.as_ref().expect("reported");
    assert_eq!((&cut.file, cut.bytes), (segment, 100));
    assert_eq!(entries(&registry), known);
}
