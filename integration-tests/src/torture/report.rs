//! The torture's command: everything, with counts per file kind.
//!
//! `seawall-torture [crash|errors|misdirect|damage|all] [--step N] [--deep N] [--seeds N] [--checkpoints N] [--jobs N]`. Exit code
//! 1: something was wrong. Owns: the words and the tables. Never: judges.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use super::{
    Broker, Checkpoints, Controller, Crashes, Damages, Errors, Misdirected, Subject, crash_everywhere,
    damage_checkpoints, damage_everything, fail_everywhere, misdirect_everywhere,
};

struct Options {
    step: u64,
    deep: u64,
    seeds: u64,
    checkpoints: u64,
    jobs: usize,
}

/// Runs what the words ask for.
#[must_use]
pub fn main(words: &[String]) -> ExitCode {
    let number = |name: &str, default: u64| {
        let at = words.iter().position(|w| w == name);
        at.and_then(|at| words.get(at + 1)).and_then(|w| w.parse().ok()).unwrap_or(default)
    };
    let cores = std::thread::available_parallelism().map_or(2, |n| n.get() as u64);
    let options = Options {
        step: number("--step", 1),
        deep: number("--deep", 8),
        seeds: number("--seeds", 1),
        checkpoints: number("--checkpoints", 1000),
        jobs: number("--jobs", cores) as usize,
    };
    let what = words.first().map_or("all", String::as_str);
    // Every panic is caught and counted; its text is in the list of wrongs.
    std::panic::set_hook(Box::new(|_| ()));
    let mut wrong = Vec::new();
    if matches!(what, "crash" | "all") {
        for seed in 0..options.seeds {
            wrong.extend(crash::<Broker>(seed, &options));
            wrong.extend(crash::<Controller>(seed, &options));
        }
    }
    if matches!(what, "errors" | "all") {
        wrong.extend(errors::<Broker>(&options));
        wrong.extend(errors::<Controller>(&options));
    }
    if matches!(what, "misdirect" | "all") {
        wrong.extend(misdirect::<Broker>(&options));
        wrong.extend(misdirect::<Controller>(&options));
    }
    if matches!(what, "damage" | "all") {
        wrong.extend(damage::<Broker>(&options));
        wrong.extend(damage::<Controller>(&options));
        wrong.extend(checkpoints(&options));
    }
    wrong.iter().take(40).for_each(|text| println!("WRONG {text}"));
    println!("wrong: {}", wrong.len());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn crash<S: Subject>(seed: u64, options: &Options) -> Vec<String>
where
    S::Told: 'static,
{
    let begun = Instant::now();
    let found: Crashes = crash_everywhere::<S>(seed, options.step, options.deep, options.jobs);
    let (points, states, within) = (found.points, found.states, found.within_recovery);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "crash {} seed {seed}: {points} points, {states} states, {within} of them within recovery, {} wrong, {seconds:.1} s",
        S::NAME,
        found.wrong.len()
    );
    found.wrong
}

fn errors<S: Subject>(options: &Options) -> Vec<String> {
    let begun = Instant::now();
    let found: Errors = fail_everywhere::<S>(0, options.step, options.jobs);
    let missed = found.missed();
    println!(
        "errors {}: {} lives, {} of {} sites hit, {} wrong, {:.1} s",
        S::NAME,
        found.runs,
        found.hit.len(),
        found.sites.len(),
        found.wrong.len(),
        begun.elapsed().as_secs_f64()
    );
    for ((op, kind), count) in &found.hit {
        println!("  {count:>6}  {op:?} of {kind}");
    }
    let missed = missed.into_iter().map(|site| format!("{site} never failed"));
    found.wrong.into_iter().chain(missed).collect()
}

fn misdirect<S: Subject>(options: &Options) -> Vec<String> {
    let begun = Instant::now();
    let found: Misdirected = misdirect_everywhere::<S>(0, options.step as usize, options.jobs);
    println!(
        "misdirected writes {}: {} lives, {} detected, {} harmless, {} cut (the last flush at most) and reported, {} wrong, \
         {:.1} s",
        S::NAME,
        found.runs.values().sum::<u64>(),
        found.detected,
        found.harmless,
        found.cut,
        found.wrong.len(),
        begun.elapsed().as_secs_f64()
    );
    for (kind, count) in &found.runs {
        println!("  {count:>6}  {kind}");
    }
    found.wrong
}

fn damage<S: Subject>(options: &Options) -> Vec<String> {
    let begun = Instant::now();
    let found = damage_everything::<S>(0, options.step as usize, options.jobs);
    let seconds = begun.elapsed().as_secs_f64();
    table(&found);
    let sum = |of: fn(&Damages) -> u64| found.values().map(of).sum::<u64>();
    let most = |of: fn(&Damages) -> u64| found.values().map(of).max().unwrap_or(0);
    println!(
        "damage {}: {} damages, {} detected, {} harmless; exempt, above the end mark: {} cut and reported, {} that end between \
         batches, {} leader epochs, at most {} batches by one damage; acknowledged (in the last flush) were at most {} of \
         them; {} wrong, {seconds:.1} s",
        S::NAME,
        sum(|d| d.done.values().sum()),
        sum(|d| d.detected),
        sum(|d| d.harmless),
        sum(|d| d.cut),
        sum(|d| d.short),
        sum(|d| d.epoch),
        most(|d| d.most),
        most(|d| d.acknowledged),
        sum(|d| d.wrong.len() as u64),
    );
    found.into_values().flat_map(|d| d.wrong).collect()
}

fn checkpoints(options: &Options) -> Vec<String> {
    let begun = Instant::now();
    let found: Checkpoints = damage_checkpoints(0, options.checkpoints, options.jobs);
    println!(
        "damage of checkpoints, a sample: {} damages of {} bytes, {} harmless, {} forgot values, {} wrong, {:.1} s",
        found.done,
        found.bytes,
        found.harmless,
        found.forgotten,
        found.wrong.len(),
        begun.elapsed().as_secs_f64()
    );
    found.wrong
}

fn table(found: &BTreeMap<String, Damages>) {
    println!(
        "| file kind | files | bytes | flips | lengths | zeroed | misdirected | detected | harmless | cut and reported | \
         ends between batches above the mark | epoch above the mark | wrong |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for (kind, d) in found {
        let done = |name| d.done.get(name).copied().unwrap_or(0);
        let (flips, lengths, zeroed, moved) = (done("flips"), done("lengths"), done("zeroed"), done("misdirected"));
        println!(
            "| {kind} | {} | {} | {flips} | {lengths} | {zeroed} | {moved} | {} | {} | {} | {} | {} | {} |",
            d.files,
            d.bytes,
            d.detected,
            d.harmless,
            d.cut,
            d.short,
            d.epoch,
            d.wrong.len()
        );
    }
}
