//! The end of a run: final reads, every process killed, the disks compared, the verdict.
//!
//! Owns what a run must have shown to count: faults that took effect, passes that had something to judge, and nodes that
//! never died or complained by themselves.

use super::Failure;
use super::net::DCS;
use super::nodes::{Nodes, all, bootstrap, controllers};
use super::scene::{CHECKED, CUT, Told};
use crate::chaos::metadata::Story;
use crate::chaos::replicas::{self, Heads};
use crate::chaos::stamp::Partition;
use crate::chaos::workload::Shared;
use crate::chaos::{admins, controllers as raft, read_back};
use crate::checker::Findings;
use crate::checker::event::Phase;
use deploy::dev::layout::NodeName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// What was read at the end.
struct Read {
    topic: &'static str,
    id: Uuid,
    heads: Heads,
    partitions: BTreeMap<Partition, read_back::ReadBack>,
}

/// Reads, compares, judges.
///
/// # Errors
/// What the run did not show, or what must not be.
///
/// # Panics
/// When the verdict is not valid, or the disks differ.
pub fn judge(nodes: &Nodes, runtime: &Runtime, shared: &Shared, told: &Told, classes: usize) -> Result<(), Failure> {
    shared.tape.phase(Phase::FinalReads);
    let read = runtime.block_on(read_all(shared))?;
    let configs = runtime.block_on(admins::configs_hold(&bootstrap(), CHECKED.topic, &told.configs))?;
    let settled = runtime.block_on(raft::settled(&controllers()));
    nodes.all_live()?;
    nodes.kill(&all())?;
    let story = {
        let watch = told.watch.lock().map_err(|_| "the watch panicked")?;
        for (partition, epoch, leader) in watch.leaders() {
            shared.tape.led(&partition, epoch, leader);
        }
        metadata_was_seen(watch.story(), watch.leaders().into_iter().map(|(at, ..)| at).collect())?;
        watch.story().clone()
    };
    let batches = read.iter().map(|read| compare(nodes, read)).sum::<usize>();
    let entries = compare_controllers(nodes, settled.committed)?;
    let findings = shared.tape.insist();
    eprintln!(
        "{batches} batches and {entries} Raft entries compared on disk, metadata batch {} equal on all controllers; \
         {} batches followed; {configs} changes of a config, {} of topics, {} heads removed",
        settled.batch_no,
        story.batches,
        shared.changes.load(Ordering::Relaxed),
        shared.heads_removed.load(Ordering::Relaxed),
    );
    nodes.logs_are_clean()?;
    consumed_everything(told, &read)?;
    enough(shared, &findings, classes)
}

async fn read_all(shared: &Shared) -> Result<Vec<Read>, Failure> {
    let mut all = vec![];
    for (topic, heads) in [(CHECKED.topic, Heads::Kept), (CUT.topic, Heads::Removed)] {
        let partitions = read_back::read_topic(&shared.tape, &bootstrap(), topic).await;
        let (id, _) = read_back::whole_topic(&bootstrap(), topic).await;
        let id = Uuid::from_slice(&id).map_err(|error| error.to_string())?;
        all.push(Read { topic, id, heads, partitions });
    }
    Ok(all)
}

/// A watch that saw nothing would find nothing.
fn metadata_was_seen(story: &Story, led: BTreeSet<Partition>) -> Result<(), Failure> {
    if !story.broken.is_empty() {
        return Err(format!("the committed metadata broke a law: {:?}", story.broken));
    }
    if story.batches == 0 {
        return Err("no batch of metadata was followed".to_owned());
    }
    if story.unclean_elections > 0 {
        return Err(format!("{} unclean elections, which nobody permitted", story.unclean_elections));
    }
    let partitions = |watched: crate::chaos::tape::Watched| (0..watched.partitions).map(move |p| (watched.topic, p));
    let unseen = [CHECKED, CUT].into_iter().flat_map(partitions).find(|(t, p)| !led.contains(&((*t).to_owned(), *p)));
    unseen.map_or(Ok(()), |(topic, partition)| Err(format!("nobody was seen to lead {topic}/{partition}")))
}

/// Compares the replicas of a topic; how many batches there were.
fn compare(nodes: &Nodes, read: &Read) -> usize {
    let mut batches = 0;
    for ((topic, partition), back) in &read.partitions {
        let logs: Vec<_> = (1..=DCS)
            .map(|broker| {
                let log = replicas::read(&nodes.data_dir(NodeName::broker(broker)), read.id, *partition);
                log.unwrap_or_else(|| panic!("broker {broker} has no log of {topic}/{partition}"))
            })
            .collect();
        for log in &logs {
            assert!(log.end >= back.upto, "{topic}/{partition}: a replica ends at {}, read to {}", log.end, back.upto);
            batches += log.batches.len();
        }
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            if let Some(why) = replicas::difference(&logs[one], &logs[other], back.upto, read.heads) {
                panic!("{topic}/{partition}: brokers {} and {} differ: {why}", one + 1, other + 1);
            }
        }
    }
    batches
}

/// Compares the Raft logs of every two controllers; how many entries two had in common, in all.
fn compare_controllers(nodes: &Nodes, committed: u64) -> Result<usize, Failure> {
    let logs: Vec<_> = (1..=DCS).map(|id| raft::read(&nodes.data_dir(NodeName::controller(id)))).collect();
    let mut entries = 0;
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let same = raft::compare(&logs[one], &logs[other], committed);
        let same = same.map_err(|why| format!("controllers {} and {}: {why}", one + 1, other + 1))?;
        if same == 0 {
            return Err(format!("controllers {} and {} have no committed entry in common", one + 1, other + 1));
        }
        entries += same;
    }
    Ok(entries)
}

fn consumed_everything(told: &Told, read: &[Read]) -> Result<(), Failure> {
    let checked = read.iter().filter(|read| read.topic == CHECKED.topic).flat_map(|read| &read.partitions);
    for ((topic, partition), back) in checked {
        let next = told.consumed.get(partition).copied().unwrap_or(0);
        if next < back.upto {
            return Err(format!(
                "the consumer of {topic}/{partition} ended at {next}, the log is read to {}",
                back.upto
            ));
        }
    }
    Ok(())
}

fn enough(shared: &Shared, findings: &Findings, classes: usize) -> Result<(), Failure> {
    let wrong = shared.wrong.lock().map_err(|_| "a client panicked")?;
    if !wrong.is_empty() {
        return Err(format!("{} wrongs: {}", wrong.len(), wrong.join("; ")));
    }
    let seen = findings.counts.faults.len();
    if seen < classes {
        return Err(format!("only {seen} classes of faults took effect, at least {classes} are needed"));
    }
    let changes = shared.changes.load(Ordering::Relaxed);
    let heads = shared.heads_removed.load(Ordering::Relaxed);
    for (what, count) in [
        ("change of a topic", changes),
        ("removed head", heads),
        ("answer in the healthy window", findings.counts.recent),
    ] {
        if count == 0 {
            return Err(format!("not one {what}: a pass had nothing to judge"));
        }
    }
    Ok(())
}
