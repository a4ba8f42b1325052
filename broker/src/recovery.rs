//! Opening every partition directory at start: several at a time, damaged ones set aside, and what was found kept as
//! evidence for the restart proof.
//!
//! Never: serves, writes a record, or decides what the evidence is worth.
//! Invariant: a directory that the registry knows and the disk lacks is reported as lost, not as an empty log; and one
//! with records that the registry lacks (the process died between the two) is noted before anything counts on it.

use log::data_dir::{BrokerState, DataDir};
use log::registry::{Entry, Event, Registry};
use log::{Log, LogConfig, LogError, Recovery};
use parking_lot::Mutex;
use protocol::ids::{TopicId, TopicPartition};
use protocol::metadata::configs::FlushPolicy;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::checkpoints::Checkpoints;
use crate::evidence::{Evidence, Found};
use crate::notes::{key, noted_policy, stored_policy};
use crate::partition::Opened;

/// One partition as found.
#[derive(Debug)]
struct One {
    opened: Opened,
    found: Found,
    /// What the registry must hear of it.
    events: Vec<Event>,
}

/// Everything as found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Logs, ready to be run.
    pub partitions: BTreeMap<TopicPartition, Opened>,
    /// Evidence for the proof.
    pub found: BTreeMap<TopicPartition, Found>,
}

/// Opens every directory that exists or should, `threads` at a time; with one, on the caller's own and in their order.
///
/// # Errors
/// The disk's; damage of a partition is no error here.
pub fn recover(
    data: &DataDir,
    registry: &mut Registry,
    checkpoints: &dyn Checkpoints,
    threads: usize,
) -> Result<Recovered, LogError> {
    let at = |topic, partition| TopicPartition { topic: TopicId(topic), partition };
    let on_disk: BTreeSet<_> = data.partitions()?.into_iter().map(|(topic, n)| at(topic, n)).collect();
    let known: BTreeMap<_, Entry> = registry.iter().map(|(key, e)| (at(key.topic, key.partition), *e)).collect();
    let expected = known.iter().filter(|(_, e)| e.dir_created || e.set_aside).map(|(at, _)| *at);
    let all: VecDeque<_> = on_disk.iter().copied().chain(expected).collect::<BTreeSet<_>>().into_iter().collect();
    let queue = Mutex::new(all);
    let results = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(at) = queue.lock().pop_front() else { return };
            let entry = known.get(&at).copied().unwrap_or_default();
            let one = open_one(data, at, entry, on_disk.contains(&at));
            results.lock().push(one);
        }
    };
    if threads <= 1 {
        work();
    } else {
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    }
    let mut recovered = Recovered::default();
    let mut events = Vec::new();
    for one in results.into_inner() {
        let mut one = one?;
        let at = one.opened.at;
        events.extend(one.events.into_iter().map(|event| (key(at), event)));
        one.opened.checkpoint = checkpoints.recall(at);
        recovered.found.insert(at, one.found);
        recovered.partitions.insert(at, one.opened);
    }
    if !events.is_empty() {
        registry.record(&events)?;
    }
    Ok(recovered)
}

/// What the last incarnation left, without what recovery will find. Evidence that rests on the page cache is spent
/// durably here, before recovery may change a log.
///
/// # Errors
/// The disk's, and damage of the small files.
pub fn take_evidence(data: &DataDir) -> Result<Evidence, LogError> {
    let clean = data.clean_shutdown()?;
    let Some(state) = data.broker_state()? else { return Ok(Evidence { clean, ..Evidence::default() }) };
    let boot = data.boot_id()?;
    let same_boot = state.boot_id.is_some() && state.boot_id == boot;
    if clean.is_none() && state.boot_id.is_some() {
        data.store_broker_state(&BrokerState { boot_id: None, ..state.clone() })?;
    }
    let (epoch, earlier) = (state.broker_epoch, state.earlier_epoch);
    Ok(Evidence { epoch, earlier, clean, same_boot, found: BTreeMap::new() })
}

fn open_one(data: &DataDir, at: TopicPartition, entry: Entry, on_disk: bool) -> Result<One, LogError> {
    let dir = data.partition_dir(at.topic.0, at.partition);
    let open = || Log::open(data.storage().clone(), &dir, LogConfig::default());
    let expected = entry.dir_created && !entry.set_aside;
    // A copy is not given up for one read that failed. The first look may have cut a tail before it failed: what it cut is
    // not known, so nothing is held to be little.
    let mut looked_again = false;
    let opened_log = match open() {
        Err(LogError::Damaged(damage)) => {
            tracing::warn!(partition = %at, %damage, "opening found damage, and looks again");
            looked_again = true;
            open()
        }
        other => other,
    };
    match opened_log {
        Ok((log, recovery)) => {
            let lost = (expected && !on_disk) || entry.set_aside;
            if expected && !on_disk {
                tracing::error!(partition = %at, "the registry knows this partition's directory, the disk does not: its data are lost here");
            }
            report(at, &recovery);
            let found = found(&log, &recovery, entry, lost);
            let found = Found { cut_little: found.cut_little && !looked_again, ..found };
            // One set aside stays so in the registry until it is begun anew: a later start must not prove it either.
            let unknown = log.end_offset() > 0 && !entry.dir_created && !entry.set_aside;
            let mut entry = Entry { dir_created: entry.dir_created || unknown, ..entry };
            let mut events = Vec::new();
            if unknown {
                // Under which policy they were written is not known either: a later start must not take it for `sync`.
                let loosest = stored_policy(FlushPolicy::Os);
                events.extend(entry.policy.is_none().then_some(Event::PolicyNoted(loosest)));
                entry.policy = entry.policy.or(Some(loosest));
                events.push(Event::DirCreated);
            }
            Ok(One { opened: opened(at, log, entry, lost), found, events })
        }
        Err(LogError::Damaged(damage)) => {
            let to = data.set_aside(at.topic.0, at.partition)?;
            tracing::error!(partition = %at, %damage, to = %to.display(), "damaged: set aside, to be copied anew from its leader");
            let (log, recovery) = open()?;
            let found = found(&log, &recovery, entry, true);
            Ok(One { opened: opened(at, log, Entry::default(), true), found, events: vec![Event::SetAside] })
        }
        Err(error) => Err(error),
    }
}

fn report(at: TopicPartition, recovery: &Recovery) {
    if let Some(cut) = &recovery.cut {
        let (bytes, file) = (cut.bytes, cut.file.display());
        tracing::warn!(partition = %at, bytes, %file, position = cut.position, reason = cut.reason, "a torn tail was cut");
    }
}

fn found(log: &Log, recovery: &Recovery, entry: Entry, lost: bool) -> Found {
    // A looser policy is noted before one unsynced byte counts, and nothing counts before the directory is: where that is
    // noted and no policy yet, everything that counted was synced.
    let unspoken = entry.dir_created.then_some(FlushPolicy::Sync);
    Found {
        policy: entry.policy.map(noted_policy).or(unspoken),
        // An empty log whose directory was announced may have lost what no sync covered.
        empty: log.end_offset() == 0 && recovery.cut.is_none() && !entry.dir_created,
        whole: !lost,
        cut_little: recovery.cut_at_most_one_unfinished_batch(),
    }
}

fn opened(at: TopicPartition, log: Log, entry: Entry, damaged: bool) -> Opened {
    Opened {
        at,
        log,
        noted_policy: entry.policy.map(noted_policy),
        directory_noted: entry.dir_created && !entry.set_aside,
        damaged,
        checkpoint: None,
    }
}
