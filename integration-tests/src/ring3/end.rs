//! The end of a run: final reads, every process killed, the disks compared, the verdict.
//!
//! Owns what a run must have shown to count: faults that took effect, passes that had something to judge, and nodes that
//! never died or complained by themselves.

use super::Failure;
use super::net::DCS;
use super::nodes::{Nodes, bootstrap, controllers};
use super::scene::{CHECKED, CUT, TOPICS, Told};
use crate::chaos::replicas::{self, Heads};
use crate::chaos::stamp::Partition;
use crate::chaos::tape::Watched;
use crate::chaos::workload::Shared;
use crate::chaos::{admins, controllers as raft, read_back};
use crate::checker::event::Phase;
use crate::checker::{Findings, Verdict, report};
use deploy::dev::layout::NodeName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Classes of faults that a run must have shown to take effect.
const CLASSES_MIN: usize = 8;

/// What was read of a topic at the end.
struct Read {
    topic: &'static str,
    id: Uuid,
    heads: Heads,
    partitions: BTreeMap<Partition, read_back::ReadBack>,
}

/// What a cluster that is whole says at the end.
struct Whole {
    topics: Vec<Read>,
    /// How many changes of a config were acknowledged, if what stands there is explained by them.
    configs: Result<u64, Failure>,
    settled: raft::Settled,
}

/// What was found, by the law that found it. Every law is asked, whatever another said: who sees a mistake matters as much as
/// that somebody does.
#[derive(Default)]
struct Laws(Vec<String>);

impl Laws {
    fn ask<T>(&mut self, law: &str, said: Result<T, Failure>) -> Option<T> {
        said.map_err(|why| self.0.push(format!("law {law}: {why}"))).ok()
    }

    fn verdict(self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0.join("\n")) }
    }
}

/// Reads, compares, judges. A cluster that did not come back is judged by what can still be read of it.
///
/// # Errors
/// What the run did not show, or what must not be: a line for each law that says so.
///
/// # Panics
/// When a cluster that was whole cannot be read to its end, or what is on disk cannot be read at all.
pub fn judge(
    nodes: &Nodes,
    runtime: &Runtime,
    shared: &Shared,
    told: &Told,
    back: Result<(), Failure>,
) -> Result<(), Failure> {
    shared.tape.phase(Phase::FinalReads);
    let mut laws = Laws::default();
    let whole = laws.ask("comes-back", back).is_some();
    let read = if whole { Some(runtime.block_on(read_all(shared, told))?) } else { None };
    if !whole {
        for topic in TOPICS {
            laws.ask("readable", runtime.block_on(read_back::read_remains(&shared.tape, &bootstrap(), topic.topic)));
        }
    }
    laws.ask("nobody-dies", nodes.all_live());
    nodes.kill_what_lives()?;
    laws.ask("metadata", metadata_was_seen(shared, told));
    if let Some(read) = read {
        laws.ask("replicas", compare(nodes, &read.topics));
        laws.ask("raft-logs", compare_controllers(nodes, read.settled));
        laws.ask("configs", read.configs.map(|changes| eprintln!("{changes} changes of a config, the last as told")));
        laws.ask("consumer", consumed_everything(told, &read.topics));
    }
    let (history, findings) = shared.tape.judge();
    eprint!("{}", report::text(&history, &findings));
    let valid = if findings.verdict() == Verdict::Valid { Ok(()) } else { Err(accused(&findings)) };
    laws.ask("checker", valid);
    laws.ask("clean-logs", nodes.logs_are_clean());
    laws.ask("clients", wrongs(shared));
    laws.ask("enough", enough(shared, &findings));
    laws.verdict()
}

/// The checker's word in short; its witnesses are printed above.
fn accused(findings: &Findings) -> Failure {
    let anomalies = findings.by_class().into_iter().map(|(class, times)| format!("{class} {times} times"));
    anomalies.chain(findings.doubts.iter().map(|doubt| format!("doubt: {doubt}"))).collect::<Vec<_>>().join(", ")
}

async fn read_all(shared: &Shared, told: &Told) -> Result<Whole, Failure> {
    let mut topics = vec![];
    for (topic, heads) in [(CHECKED.topic, Heads::Kept), (CUT.topic, Heads::Removed)] {
        let partitions = read_back::read_topic(&shared.tape, &bootstrap(), topic).await;
        let (id, _) = read_back::whole_topic(&bootstrap(), topic).await;
        let id = Uuid::from_slice(&id).map_err(|error| error.to_string())?;
        topics.push(Read { topic, id, heads, partitions });
    }
    let configs = admins::configs_hold(&bootstrap(), CHECKED.topic, &told.configs).await;
    Ok(Whole { topics, configs, settled: raft::settled(&controllers()).await })
}

/// The committed metadata broke no law; and a watch that saw nothing would find nothing. Its leaders go into the history.
fn metadata_was_seen(shared: &Shared, told: &Told) -> Result<(), Failure> {
    let watch = told.watch.lock().map_err(|_| "the watch panicked")?;
    let mut led = BTreeSet::new();
    for (partition, epoch, leader) in watch.leaders() {
        shared.tape.led(&partition, epoch, leader);
        led.insert(partition);
    }
    let story = watch.story();
    eprintln!("{} batches of metadata followed", story.batches);
    if !story.broken.is_empty() {
        return Err(format!("the committed metadata broke a law: {:?}", story.broken));
    }
    if story.batches == 0 {
        return Err("no batch of metadata was followed".to_owned());
    }
    if story.unclean_elections > 0 {
        return Err(format!("{} unclean elections, which nobody permitted", story.unclean_elections));
    }
    let partitions = |watched: Watched| (0..watched.partitions).map(move |p| (watched.topic, p));
    let unseen = TOPICS.into_iter().flat_map(partitions).find(|(t, p)| !led.contains(&((*t).to_owned(), *p)));
    unseen.map_or(Ok(()), |(topic, partition)| Err(format!("nobody was seen to lead {topic}/{partition}")))
}

/// Compares the replicas of every partition.
fn compare(nodes: &Nodes, read: &[Read]) -> Result<(), Failure> {
    let mut batches = 0;
    for (read, ((topic, partition), back)) in
        read.iter().flat_map(|read| read.partitions.iter().map(move |p| (read, p)))
    {
        let logs: Vec<_> = (1..=DCS)
            .map(|broker| {
                let log = replicas::read(&nodes.data_dir(NodeName::broker(broker)), read.id, *partition);
                log.ok_or_else(|| format!("broker {broker} has no log of {topic}/{partition}"))
            })
            .collect::<Result<_, Failure>>()?;
        for log in &logs {
            if log.end < back.upto {
                return Err(format!("{topic}/{partition}: a replica ends at {}, read to {}", log.end, back.upto));
            }
            batches += log.batches.len();
        }
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            if let Some(why) = replicas::difference(&logs[one], &logs[other], back.upto, read.heads) {
                return Err(format!("{topic}/{partition}: brokers {} and {} differ: {why}", one + 1, other + 1));
            }
        }
    }
    eprintln!("{batches} batches compared on disk");
    Ok(())
}

/// Compares the Raft logs of every two controllers.
fn compare_controllers(nodes: &Nodes, settled: raft::Settled) -> Result<(), Failure> {
    let logs: Vec<_> = (1..=DCS).map(|id| raft::read(&nodes.data_dir(NodeName::controller(id)))).collect();
    let mut entries = 0;
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        let same = raft::compare(&logs[one], &logs[other], settled.committed);
        let same = same.map_err(|why| format!("controllers {} and {}: {why}", one + 1, other + 1))?;
        if same == 0 {
            return Err(format!("controllers {} and {} have no committed entry in common", one + 1, other + 1));
        }
        entries += same;
    }
    eprintln!("{entries} Raft entries compared on disk, metadata batch {} equal on all controllers", settled.batch_no);
    Ok(())
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

fn wrongs(shared: &Shared) -> Result<(), Failure> {
    let wrong = shared.wrong.lock().map_err(|_| "a client panicked")?;
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} wrongs: {}", wrong.len(), wrong.join("; "))) }
}

fn enough(shared: &Shared, findings: &Findings) -> Result<(), Failure> {
    let seen = findings.counts.faults.len();
    if seen < CLASSES_MIN {
        return Err(format!("only {seen} classes of faults took effect, at least {CLASSES_MIN} are needed"));
    }
    let changes = shared.changes.load(Ordering::Relaxed);
    let heads = shared.heads_removed.load(Ordering::Relaxed);
    eprintln!("{changes} changes of topics, {heads} heads removed");
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
