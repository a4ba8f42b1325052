//! The command line of ring 2.
//!
//! Owns: arguments and exit codes (0 clean, 1 a law broken or a run that proves nothing, 2 a wrong argument). Never: decides
//! what a run consists of.

use super::report::{distribution, too_little};
use super::{Plan, Report, run, run_apart};
use crate::sim::runner::commit;
use protocol::planted::{Bug, planted};
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const USAGE: &str = "usage:
  seawall-sim ring2 --seed N [--planted BUG] [--log FILTER]   one seed, with everything that happens; FILTER: what the nodes
                                                              log, as in broker=info,controller=debug
  seawall-sim ring2 --seed N [--planted BUG] --print json     one seed, and only its report
  seawall-sim ring2 --seeds A..B [--jobs J] [--planted BUG]   many
  seawall-sim ring2 --twice A..B                              the same seed must be the same run";

#[derive(Debug, Default)]
struct Options {
    seed: Option<u64>,
    seeds: Option<Range<u64>>,
    twice: bool,
    jobs: usize,
    bug: Option<Bug>,
    log: Option<String>,
    json: bool,
}

fn parse(words: &[String]) -> Result<Options, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options { jobs, ..Options::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("{word} lacks its value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} is {value:?}, wanted: a number"));
        match word.as_str() {
            "--seed" => options.seed = Some(number()?),
            "--log" => options.log = Some(value.clone()),
            "--print" if value == "json" => options.json = true,
            "--jobs" => options.jobs = usize::try_from(number()?).unwrap_or(1).max(1),
            "--seeds" | "--twice" => {
                let ends = value.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
                options.seeds = Some(ends.ok_or_else(|| format!("{word} is {value:?}, wanted: A..B"))?);
                options.twice = word == "--twice";
            }
            "--planted" => options.bug = Some(Bug::named(value).ok_or_else(|| format!("no bug {value:?}"))?),
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok(options)
}

/// One seed, with a bug or without.
fn once(seed: u64, bug: Option<Bug>, aloud: bool) -> Report {
    let work = || run(Plan::of(seed), aloud);
    bug.map_or_else(work, |bug| planted(bug, work))
}

/// The program.
#[must_use]
pub fn main(words: &[String]) -> ExitCode {
    let outcome = parse(words).and_then(|options| match (options.seed, options.seeds.clone()) {
        (Some(seed), None) => {
            if let Some(filter) = &options.log {
                let log = tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false);
                log.try_init().map_err(|error| error.to_string())?;
            }
            if options.json {
                let report = once(seed, options.bug, false);
                println!("{}", serde_json::to_string(&report).map_err(|error| error.to_string())?);
                return Ok(report.is_clean());
            }
            println!("{:?}, commit {}", Plan::of(seed), commit());
            let report = once(seed, options.bug, true);
            println!("{report}");
            Ok(report.is_clean())
        }
        (None, Some(seeds)) => many(seeds, &options),
        _ => Err("which seeds?".into()),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("seawall-sim ring2: {why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// Runs of seeds, and the wall time of each, ms.
type Runs = (BTreeMap<u64, Report>, BTreeMap<u64, u64>);

/// Runs seeds side by side, each in a process of its own; says each that is not clean at once.
fn each(seeds: Range<u64>, options: &Options) -> Result<Runs, String> {
    let next = AtomicU64::new(seeds.start);
    let runs: Mutex<Result<Runs, String>> = Mutex::new(Ok(Runs::default()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let begun = Instant::now();
                    let ran = run_apart(seed, options.bug);
                    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    if let Ok(report) = &ran
                        && !report.is_clean()
                    {
                        println!("{}", failure(seed, report, options.bug));
                    }
                    let mut runs = runs.lock().expect("no run panics while it holds the list");
                    match (&mut *runs, ran) {
                        (Ok(runs), Ok(report)) => {
                            runs.0.insert(seed, report);
                            runs.1.insert(seed, took);
                        }
                        (Ok(_), Err(why)) => *runs = Err(why),
                        (Err(_), _) => return,
                    }
                }
            });
        }
    });
    runs.into_inner().expect("no run panics while it holds the list")
}

/// A failure as it is told: seed, commit, the command that shows it again.
fn failure(seed: u64, report: &Report, bug: Option<Bug>) -> String {
    let word = if report.broken.is_empty() { "WORTHLESS" } else { "VIOLATION" };
    let planted = bug.map_or_else(String::new, |bug| format!(" --planted {}", bug.name()));
    format!("{word} seed {seed} commit {}: {report}\n  replay: seawall-sim ring2 --seed {seed}{planted}", commit())
}

fn many(seeds: Range<u64>, options: &Options) -> Result<bool, String> {
    let begun = Instant::now();
    let (first, took) = each(seeds.clone(), options)?;
    let wall = begun.elapsed().as_secs_f64();
    let mut clean = first.values().all(Report::is_clean);
    let seconds: f64 = first.values().map(|report| report.simulated.as_secs_f64()).sum();
    let bad = first.values().filter(|report| !report.is_clean()).count();
    println!("{} seeds, {bad} not clean, {wall:.1} s, {seconds:.0} simulated s, commit {}", first.len(), commit());
    print!("{}", distribution(&first, &took));
    if options.bug.is_none() {
        for short in too_little(&first) {
            println!("TOO LITTLE {short}");
            clean = false;
        }
    }
    if options.twice {
        let (second, _) = each(seeds, options)?;
        let same = |seed: &u64| first.get(seed).map(|one| one.hash) == second.get(seed).map(|one| one.hash);
        let differing: Vec<u64> = first.keys().copied().filter(|seed| !same(seed)).collect();
        println!("{} seeds twice, {} differ: {differing:?}", first.len(), differing.len());
        clean &= differing.is_empty();
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let options = parse(&words("--seeds 3..9 --jobs 2 --planted no-read-barrier")).expect("legal");
        assert_eq!((options.seeds, options.jobs, options.bug), (Some(3..9), 2, Some(Bug::NoReadBarrier)));
        assert!(parse(&words("--twice 1..2")).expect("legal").twice);
        for (wrong, named) in
            [("--seed x", "--seed"), ("--seeds 3", "A..B"), ("--planted z", "no bug"), ("--q 1", "--q")]
        {
            let error = parse(&words(wrong)).expect_err(wrong);
            assert!(error.contains(named), "{error}");
        }
    }
}
