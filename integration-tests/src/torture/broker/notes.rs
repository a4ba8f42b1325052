//! The notes of the registry as the torture keeps them: what was noted, and what may be found of it.
//!
//! Never: asks the registry.

use std::collections::{BTreeMap, BTreeSet};

use log::registry::{Entry, Event, PartitionKey};

use super::{Found, Told};

/// Takes an event down.
pub(super) fn fold(notes: &mut BTreeMap<PartitionKey, Entry>, key: PartitionKey, event: Event) {
    let entry = notes.entry(key).or_default();
    match event {
        Event::DirCreated => (entry.dir_created, entry.set_aside) = (true, false),
        Event::PolicyNoted(policy) => entry.policy = Some(policy),
        Event::SetAside => entry.set_aside = true,
        Event::Removed => drop(notes.remove(&key)),
    }
}

/// What recovery itself may have noted: directories with records that the registry lacks, and ones set aside.
pub(super) fn refuse_notes(told: &Told, found: &Found) -> Option<String> {
    let by_recovery = |partition: u32, entry: &Entry, expected: &Entry| {
        let lost_once = Entry { set_aside: true, ..*expected };
        let unknown = found.logs.get(&partition).is_some_and(|log| log.end > 0);
        *entry == lost_once || (unknown && *entry == Entry { dir_created: true, ..*expected })
    };
    let fits = |notes: &BTreeMap<PartitionKey, Entry>| {
        let keys: BTreeSet<_> = notes.keys().chain(found.notes.keys()).collect();
        keys.into_iter().all(|key| {
            let expected = notes.get(key).copied().unwrap_or_default();
            let entry = found.notes.get(key).copied().unwrap_or_default();
            entry == expected || by_recovery(key.partition, &entry, &expected)
        })
    };
    if told.notes.all().iter().any(fits) {
        return None;
    }
    Some(format!("the registry says {:?}, told was {:?}", found.notes, told.notes))
}
