//! The command line of `seawall-sim`.
//!
//! Owns: arguments and exit codes (0 clean, 1 a violation, 2 a wrong argument). Never: decides what a run consists of.

use super::runner::{Job, Ledger, Report, commit, failure, twice};
use super::{Plan, run_aloud};
use protocol::planted::{Bug, planted};
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How it is used.
const USAGE: &str = "usage:
  seawall-sim --seed N [--planted BUG] [--hopeless]          one seed, with everything that happens
  seawall-sim run --seeds A..B [--jobs J] [--minutes M] [--ledger FILE] [--planted BUG] [--first] [--hopeless]
  seawall-sim twice --seeds A..B                             the same seed must be the same run";

/// Seeds that one line of the ledger tells of.
const SEEDS_A_LINE: u64 = 1_000;

/// So many seeds must show every rare thing.
const SEEDS_FOR_SOMETIMES: usize = 1_000;

#[derive(Debug, Default)]
struct Options {
    seed: Option<u64>,
    seeds: Option<Range<u64>>,
    jobs: Option<usize>,
    minutes: Option<u64>,
    ledger: Ledger,
    bug: Option<Bug>,
    first: bool,
    hopeless: bool,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<(String, Options), String> {
    let (mut verb, mut options) = (String::new(), Options::default());
    while let Some(word) = words.next() {
        if !word.starts_with("--") && verb.is_empty() {
            verb = word;
            continue;
        }
        if word == "--first" || word == "--hopeless" {
            options.first |= word == "--first";
            options.hopeless |= word == "--hopeless";
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} lacks its value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{word} is {value:?}, wanted: a number"));
        match word.as_str() {
            "--seed" => options.seed = Some(number()?),
            "--jobs" => options.jobs = Some(usize::try_from(number()?).unwrap_or(1)),
            "--minutes" => options.minutes = Some(number()?),
            "--ledger" => options.ledger = Some(value.into()),
            "--seeds" => options.seeds = Some(range(&value)?),
            "--planted" => {
                let known = || format!("no bug {value:?}; known: {}", Bug::ALL.map(Bug::name).join(", "));
                options.bug = Some(Bug::named(&value).ok_or_else(known)?);
            }
            _ => return Err(format!("unknown argument {word}")),
        }
    }
    Ok((verb, options))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    ends.ok_or_else(|| format!("--seeds is {text:?}, wanted: A..B"))
}

/// The program.
#[must_use]
pub fn main(words: impl Iterator<Item = String>) -> ExitCode {
    let outcome = parse(words).and_then(|(verb, options)| match (verb.as_str(), options.seed, &options.seeds) {
        ("", Some(seed), None) => Ok(replay(seed, options.bug, options.hopeless)),
        ("run", None, Some(seeds)) => many(seeds.clone(), &options),
        ("twice", None, Some(seeds)) => Ok(compare(seeds.clone())),
        _ => Err("which seeds?".into()),
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("seawall-sim: {why}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn replay(seed: u64, bug: Option<Bug>, hopeless: bool) -> bool {
    let plan = if hopeless { Plan::hopeless(seed) } else { Plan::of(seed) };
    println!("{plan:?}, commit {}", commit());
    let outcome = match bug {
        Some(bug) => planted(bug, || run_aloud(plan)),
        None => run_aloud(plan),
    };
    match outcome {
        Ok(tally) => println!("clean: {tally:#?}"),
        Err(text) => {
            println!("{}", failure(seed, &text, bug, hopeless));
            return false;
        }
    }
    true
}

fn many(seeds: Range<u64>, options: &Options) -> Result<bool, String> {
    let job = Job {
        seeds,
        threads: options.jobs.unwrap_or(1),
        limit: options.minutes.map(|m| Duration::from_secs(m * 60)),
        first_only: options.first,
        bug: options.bug,
        hopeless: options.hopeless,
    };
    if job.seeds.is_empty() {
        return Err(format!("--seeds {}..{} holds no seed", job.seeds.start, job.seeds.end));
    }
    let report = in_parts(&job, options)?;
    print!("commit {}\n{}", commit(), report.text());
    for (seed, text) in report.broken.iter().take(10) {
        println!("{}", failure(*seed, text, options.bug, options.hopeless));
    }
    let never = report.never();
    let (few, too_little) = (report.clean.len() < SEEDS_FOR_SOMETIMES, report.too_little());
    let proves = options.hopeless || few || (never.is_empty() && too_little.is_empty());
    println!("never seen: {never:?}");
    println!("too little of: {too_little:?}");
    let ran = (report.clean.len() + report.broken.len()) as u64;
    let asked = job.seeds.end - job.seeds.start;
    if ran < asked && options.minutes.is_none() && !options.first {
        println!("only {ran} of {asked} seeds were run");
        return Ok(false);
    }
    Ok(report.broken.is_empty() && proves && ran > 0)
}

/// Runs a job; with a ledger in parts, so that a night that is cut short has its lines.
fn in_parts(job: &Job, options: &Options) -> Result<Report, String> {
    let Some(ledger) = &options.ledger else { return Ok(job.run()) };
    let (mut whole, began) = (Report::default(), Instant::now());
    let mut first = job.seeds.start;
    while first < job.seeds.end && job.limit.is_none_or(|limit| began.elapsed() < limit) {
        let last = (first + SEEDS_A_LINE).min(job.seeds.end);
        let limit = job.limit.map(|limit| limit.saturating_sub(began.elapsed()));
        let part = Job { seeds: first..last, limit, ..job.clone() }.run();
        part.append_to(ledger, options.bug).map_err(|e| format!("{}: {e}", ledger.display()))?;
        let stop = options.first && !part.broken.is_empty();
        whole.merge(part);
        if stop {
            break;
        }
        first = last;
    }
    Ok(whole)
}

fn compare(seeds: Range<u64>) -> bool {
    let differing = twice(seeds.clone());
    println!("{} seeds twice, {} differ: {differing:?}", seeds.end.saturating_sub(seeds.start), differing.len());
    differing.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<(String, Options), String> {
        parse(text.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_and_wrong_ones_named() {
        let (verb, options) = words("run --seeds 3..9 --jobs 2 --planted partition-sync --first").expect("legal");
        assert_eq!((verb.as_str(), options.seeds, options.jobs), ("run", Some(3..9), Some(2)));
        assert!(options.first && options.bug == Some(Bug::PartitionSync));
        for (wrong, named) in
            [("--seed x", "--seed"), ("run --seeds 3", "A..B"), ("--planted z", "known"), ("--q 1", "--q")]
        {
            let error = words(wrong).expect_err(wrong);
            assert!(error.contains(named), "{error}");
        }
    }
}
