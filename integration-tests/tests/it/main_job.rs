//! The main job: a million numbered lines of real text through the command line while a partition leader, a second broker
//! and the active controller die. Nothing may be missing; duplicates are counted; each key keeps its order.
//!
//! `SEAWALL_TEST_LINES` sets the number of lines.

use crate::{PROGRAM, size};
use deploy::dev::layout::NodeName;
use integration_tests::cluster::{TestCluster, Wish};
use integration_tests::wait::{eventually, hold_fault};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Lines that must be unsent when a kill lands, or the run proves nothing.
const UNSENT: u64 = 100_000;

/// Keys over which the lines are spread.
const KEYS: u64 = 97;

/// Lines handed over between two pauses of the feeder.
const BURST: u64 = 2_000;

/// The feeder's pause: with [`BURST`] it paces the input, so that the kills find work under way.
const PAUSE: Duration = Duration::from_millis(25);

#[test]
fn a_million_lines_arrive_whole_while_nodes_die() {
    let lines = size("SEAWALL_TEST_LINES", 1_000_000);
    let cluster = TestCluster::start(PROGRAM, &Wish::default());
    let config = ["--config", "min.insync.replicas=2"];
    cluster.cli_ok(&[&["topic", "create", "job", "--partitions", "6", "--replicas", "3"][..], &config].concat());
    let texts = source_lines();

    let arguments = ["produce", "job", "--acks", "all", "--key-delimiter", ":"];
    let mut child = cluster.command(&arguments).spawn().expect("the program runs");
    let stdin = child.stdin.take().expect("piped by the harness");
    let sent = Arc::new(AtomicU64::new(0));
    let feeder = feed(stdin, texts, lines, sent.clone());

    let unsent = || lines - sent.load(Ordering::Relaxed);
    reach(&sent, lines / 8);
    let leader = leader_of(&cluster, 0);
    kill_under_way(&cluster, leader, unsent);
    reach(&sent, lines / 4);
    cluster.start_nodes(&[leader]);
    reach(&sent, lines / 2);
    let second = NodeName::broker(leader.id % 3 + 1);
    kill_under_way(&cluster, second, unsent);
    reach(&sent, lines * 5 / 8);
    cluster.start_nodes(&[second]);
    let controller = active_controller(&cluster);
    kill_under_way(&cluster, controller, unsent);
    reach(&sent, lines * 7 / 8);
    cluster.start_nodes(&[controller]);

    feeder.join().expect("the feeder only writes");
    finish(child);
    check(&cluster, lines);
}

/// Writes the lines, paced; `sent` counts those that the program has taken.
fn feed(mut stdin: ChildStdin, texts: Vec<String>, lines: u64, sent: Arc<AtomicU64>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for first in (0..lines).step_by(usize::try_from(BURST).expect("small")) {
            let mut burst = String::new();
            for number in first..(first + BURST).min(lines) {
                let text = &texts[usize::try_from(number).expect("fits") % texts.len()];
                burst.push_str(&format!("k{}:{number} {text}\n", number % KEYS));
            }
            stdin.write_all(burst.as_bytes()).expect("the program reads to the end");
            sent.store((first + BURST).min(lines), Ordering::Relaxed);
            hold_fault(PAUSE);
        }
    })
}

fn reach(sent: &AtomicU64, goal: u64) {
    eventually(&format!("{goal} lines are sent"), || {
        let now = sent.load(Ordering::Relaxed);
        if now >= goal { Ok(()) } else { Err(format!("{now}")) }
    });
}

fn kill_under_way(cluster: &TestCluster, victim: NodeName, unsent: impl Fn() -> u64) {
    cluster.kill(victim);
    let left = unsent();
    eprintln!("killed {victim} with {left} lines unsent");
    assert!(left >= UNSENT, "the run is invalid: only {left} lines were unsent when {victim} died");
}

fn finish(child: Child) {
    let output = child.wait_with_output().expect("the program ends");
    let said = String::from_utf8_lossy(&output.stderr);
    eprintln!("{said}");
    assert!(output.status.success(), "produce: {}\n{said}", output.status);
}

fn check(cluster: &TestCluster, lines: u64) {
    let mut child = cluster
        .command(&["consume", "job", "--from", "earliest", "--until-end", "--format", "%p %k %v\\n"])
        .spawn()
        .expect("the program runs");
    let mut seen = vec![0_u32; usize::try_from(lines).expect("fits")];
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let (mut read, mut disorder) = (0_u64, Vec::new());
    for line in BufReader::new(child.stdout.take().expect("piped by the harness")).lines() {
        let line = line.expect("the lines were UTF-8");
        let mut words = line.splitn(4, ' ');
        let (_partition, key) = (words.next(), words.next().unwrap_or_default().to_owned());
        let number: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{line:?}"));
        assert_eq!(key, format!("k{}", number % KEYS), "{line:?}");
        read += 1;
        let count = &mut seen[usize::try_from(number).expect("fits")];
        *count += 1;
        if *count == 1 && last.insert(key.clone(), number).is_some_and(|before| before > number) {
            disorder.push(format!("{key}: {number}"));
        }
    }
    assert!(child.wait().expect("the program ends").success());
    let missing: Vec<usize> =
        seen.iter().enumerate().filter(|(_, count)| **count == 0).map(|(n, _)| n).take(10).collect();
    eprintln!("{lines} lines sent, {read} read, {} duplicates", read.saturating_sub(lines));
    assert_eq!(missing, Vec::<usize>::new(), "lines that were acknowledged are missing");
    assert_eq!(disorder, Vec::<String>::new(), "first occurrences out of order");
}

fn leader_of(cluster: &TestCluster, partition: u64) -> NodeName {
    let text = cluster.cli_ok(&["topic", "describe", "job", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("-o json prints JSON");
    let leader = find(&json, &|value| {
        (value["partition"].as_u64() == Some(partition)).then(|| value["leader"].as_u64()).flatten()
    });
    NodeName::broker(u32::try_from(leader.unwrap_or_else(|| panic!("no leader in {text}"))).expect("small"))
}

fn active_controller(cluster: &TestCluster) -> NodeName {
    let text = cluster.cli_ok(&["cluster", "status", "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&text).expect("-o json prints JSON");
    let id = find(&json, &|value| value["active_controller"].as_u64().or_else(|| value["controller"].as_u64()));
    NodeName::controller(u32::try_from(id.unwrap_or_else(|| panic!("no controller in {text}"))).expect("small"))
}

/// The first value, in depth, for which `wanted` answers.
fn find(json: &serde_json::Value, wanted: &dyn Fn(&serde_json::Value) -> Option<u64>) -> Option<u64> {
    if let Some(found) = wanted(json) {
        return Some(found);
    }
    match json {
        serde_json::Value::Array(items) => items.iter().find_map(|item| find(item, wanted)),
        serde_json::Value::Object(fields) => fields.values().find_map(|field| find(field, wanted)),
        _ => None,
    }
}

/// Real text: the sources of this workspace, line by line.
fn source_lines() -> Vec<String> {
    let files = integration_tests::tidy::rust_files(&integration_tests::tidy::root()).expect("the sources are there");
    let lines = files.iter().flat_map(|file| file.source.text.lines());
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert!(lines.len() > 10_000 && Path::new(PROGRAM).exists());
    lines
}
