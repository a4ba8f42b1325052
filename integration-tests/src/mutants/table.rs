//! The table bug | ring | law or check | runs needed, and the command that makes it. A bug that survives, or that only
//! something nameless saw, makes the command fail.

use super::{Found, GROUNDS, Ground, hunt};
use protocol::planted::Bug;
use std::fmt::Write;
use std::process::ExitCode;

/// What the command was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    bugs: Vec<Bug>,
    /// The only ground to be asked.
    ground: Option<String>,
    budget: u64,
    jobs: usize,
}

const USAGE: &str = "mutants [--only NAME]... [--ground NAME] [--seeds 500] [--jobs N] [--rotate COMMIT --count 6]";

fn parse(args: &[String]) -> Result<Wish, String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wish = Wish { bugs: Vec::new(), ground: None, budget: 500, jobs };
    let (mut rotate, mut count) = (None, 6);
    let mut args = args.iter();
    while let Some(option) = args.next() {
        let value = args.next().ok_or_else(|| format!("{option} needs a value; {USAGE}"))?;
        let number = || value.parse::<u64>().map_err(|e| format!("{option} {value}: {e}"));
        match option.as_str() {
            "--only" => wish.bugs.push(Bug::named(value).ok_or_else(|| format!("{value} is no planted bug"))?),
            "--ground" if GROUNDS.iter().all(|ground| ground.ring != value) => {
                return Err(format!("{value} is no ground; {USAGE}"));
            }
            "--ground" => wish.ground = Some(value.clone()),
            "--seeds" => wish.budget = number()?,
            "--jobs" => wish.jobs = usize::try_from(number()?).unwrap_or(jobs).max(1),
            "--rotate" => rotate = Some(value.clone()),
            "--count" => count = usize::try_from(number()?).unwrap_or(count),
            _ => return Err(format!("{option} is no option; {USAGE}")),
        }
    }
    match rotate {
        Some(commit) => wish.bugs = rotation(&commit, count),
        None if wish.bugs.is_empty() => wish.bugs = Bug::ALL.to_vec(),
        None => {}
    }
    let claimed = |bug: &Bug| grounds(wish.ground.as_deref()).any(|ground| ground.bugs.contains(bug));
    if wish.ground.is_some() {
        wish.bugs = wish.bugs.iter().copied().filter(claimed).collect();
    }
    Ok(wish)
}

/// All grounds, or the one of this name.
fn grounds(name: Option<&str>) -> impl Iterator<Item = &'static Ground> {
    GROUNDS.iter().filter(move |ground| name.is_none_or(|name| ground.ring == name))
}

/// `count` bugs, chosen by the commit: over many commits every bug has its turn.
fn rotation(commit: &str, count: usize) -> Vec<Bug> {
    let mut bugs = Bug::ALL.to_vec();
    bugs.sort_by_key(|bug| protocol::metadata::batch::chain(0, format!("{commit} {}", bug.name()).as_bytes()));
    bugs.truncate(count);
    bugs.sort();
    bugs
}

/// The program: exit code 0 when every bug was caught, 1 when one got away, 2 for a wrong option.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let outcome = parse(args).map(|wish| command(&wish));
    let (text, code) = match outcome {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(text)) => (text, 1),
        Err(text) => (text, 2),
    };
    eprintln!("seawall-sim mutants: {text}");
    ExitCode::from(code)
}

/// Hunts every bug asked for and prints a line for each as it is found. `Err`: those that got away.
fn command(wish: &Wish) -> Result<(), String> {
    // Panics are caught and counted as failures without a name: their text is in the table.
    std::panic::set_hook(Box::new(|_| {}));
    println!("{:<36} {:<12} {:<34} runs", "bug", "ring", "seen by");
    let mut survivors = Vec::new();
    for bug in wish.bugs.iter().copied() {
        let (line, caught) = row(bug, wish);
        println!("{line}");
        if !caught {
            survivors.push(bug.name());
        }
    }
    if survivors.is_empty() { Ok(()) } else { Err(format!("not caught: {}", survivors.join(", "))) }
}

fn row(bug: Bug, wish: &Wish) -> (String, bool) {
    let name = bug.name();
    let mut missed = String::new();
    for ground in grounds(wish.ground.as_deref()).filter(|ground| ground.bugs.contains(&bug)) {
        match hunt(ground, bug, wish.budget, wish.jobs) {
            Found::Caught { by, runs } => return (format!("{name:<36} {:<12} {by:<34} {runs}", ground.ring), true),
            Found::NotPermitted { why } => {
                let first = why.lines().next().unwrap_or_default();
                let _ = write!(missed, " not permitted on {}: {first};", ground.ring);
            }
            Found::Survived { runs, unnamed } => {
                let _ = write!(missed, " {} runs on {};", runs, ground.ring);
                if let Some((run, text)) = unnamed {
                    let first = text.lines().next().unwrap_or_default();
                    let _ = write!(missed, " run {run} failed without a name: {first};");
                }
            }
        }
    }
    if missed.is_empty() {
        missed.push_str(" nobody hunts it");
    }
    (format!("{name:<36} SURVIVED{missed}"), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        let args = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let wish = parse(&args("--only partition-sync --seeds 20 --jobs 1")).expect("legal options");
        assert_eq!(wish, Wish { bugs: vec![Bug::PartitionSync], ground: None, budget: 20, jobs: 1 });
        let claimed = parse(&["--ground".to_owned(), "system calls".to_owned()]).map(|w| w.bugs.len());
        assert_eq!(claimed, Ok(crate::syscalls::GROUND.bugs.len()));
        assert_eq!(parse(&[]).map(|w| w.bugs.len()), Ok(Bug::ALL.len()));
        for wrong in ["--only nothing", "--seeds many", "--seeds", "--what 1", "--ground sea"] {
            assert!(parse(&args(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rotation_depends_on_the_commit_only_and_gives_every_bug_its_turn() {
        assert_eq!(rotation("abc", 6), rotation("abc", 6));
        assert_eq!(rotation("abc", 6).len(), 6);
        let mut seen: Vec<_> = (0..100).flat_map(|n| rotation(&format!("commit {n}"), 6)).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), Bug::ALL.len());
    }
}
