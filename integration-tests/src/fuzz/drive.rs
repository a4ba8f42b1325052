//! Runs a target over many inputs, counts how deep they get, and says which one broke it and how to see it again.
//!
//! An input is made of the seed and its number alone, so that one can be made again without those before it.

use super::mutate::{INPUT_BYTES_MAX, next};
use super::{Depth, Floors, Target};
use crate::chaos::random::Random;
use rustix::time::{ClockId, clock_gettime};
use std::any::Any;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

/// Processor time that one input may take, in a build of the profile `rings`: the largest image or batch takes milliseconds.
pub const INPUT_CPU_MAX: Duration = Duration::from_secs(5);
/// Times as long in a build without optimisation.
pub const DEV_SLOWNESS: u32 = 12;
/// Bytes of an input that a failure shows; all of it goes into a file.
pub const SHOWN_BYTES_MAX: usize = 256;
/// Inputs below which a share says nothing.
const JUDGED_INPUTS_MIN: u64 = 1_000;

/// How many inputs got how deep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ended by the first check.
    pub refused: u64,
    /// Read, and refused for what they say.
    pub decoded: u64,
    /// Taken.
    pub accepted: u64,
}

impl Tally {
    fn count(&mut self, depth: Depth) {
        match depth {
            Depth::Refused => self.refused += 1,
            Depth::Decoded => self.decoded += 1,
            Depth::Accepted => self.accepted += 1,
        }
    }

    /// Per cent of the inputs that got past the first check, and that were taken.
    #[must_use]
    pub fn shares(&self) -> (f64, f64) {
        let share = |part: u64| part as f64 * 100.0 / (self.refused + self.decoded + self.accepted).max(1) as f64;
        (share(self.decoded + self.accepted), share(self.accepted))
    }

    /// Which floor is not reached.
    #[must_use]
    pub fn below(&self, floors: Floors) -> Option<String> {
        let ((past, accepted), all) = (self.shares(), self.refused + self.decoded + self.accepted);
        let short = past < f64::from(floors.past) || accepted < f64::from(floors.accepted);
        (short && all >= JUDGED_INPUTS_MIN).then(|| {
            format!(
                "{past:.1} % of the inputs got past the first check and {accepted:.1} % were taken; at least {} % and \
                 {} % must",
                floors.past, floors.accepted
            )
        })
    }
}

/// An input that a body did not survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its number, from 0.
    pub number: u64,
    /// All of it.
    pub input: Vec<u8>,
    /// What went wrong.
    pub why: String,
}

/// What a run came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Inputs given to the body.
    pub inputs: u64,
    /// How deep they got.
    pub tally: Tally,
    /// Longest processor time of one.
    pub slowest: Duration,
    /// The first input that it did not survive.
    pub broke: Option<Failure>,
}

/// What a run holds inputs to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Processor time of one input.
    pub cpu: Duration,
}

/// The input of that number. The first are the corpus as it is.
#[must_use]
pub fn input(target: &Target, corpus: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
    let given = usize::try_from(number).ok().and_then(|n| corpus.get(n).cloned());
    given.unwrap_or_else(|| next(&mut Random::new(Random::new(seed).number() ^ number), target, corpus))
}

/// Gives `numbers` of the inputs made from `seed` to the body. `watch` is asked before each input, and after it with true;
/// a text of it ends the run too (memory, say).
pub fn drive(
    target: &Target,
    seed: u64,
    numbers: std::ops::Range<u64>,
    bounds: Bounds,
    mut watch: impl FnMut(u64, bool) -> Option<String>,
) -> Outcome {
    let corpus = (target.corpus)();
    let cut = corpus.iter().any(|input| input.len() > INPUT_BYTES_MAX);
    assert!(!cut, "{}: an input of the corpus is cut", target.name);
    let mut outcome = Outcome::default();
    for number in numbers {
        let input = input(target, &corpus, seed, number);
        watch(number, false);
        let (ended, took) = one(target, &input);
        outcome.inputs += 1;
        outcome.slowest = outcome.slowest.max(took);
        let why = match ended {
            Err(panic) => Some(panic),
            Ok(_) if took > bounds.cpu => Some(format!("it took {took:?} of processor time, at most {:?}", bounds.cpu)),
            Ok(depth) => {
                outcome.tally.count(depth);
                watch(number, true)
            }
        };
        if let Some(why) = why {
            outcome.broke = Some(Failure { number, input, why });
            return outcome;
        }
    }
    outcome
}

/// Runs the body once: how deep the input got or what the panic said, and the processor time of this thread.
pub fn one(target: &Target, input: &[u8]) -> (Result<Depth, String>, Duration) {
    let begun = cpu();
    let ended = catch_unwind(AssertUnwindSafe(|| (target.body)(input)));
    let took = cpu().saturating_sub(begun);
    (ended.map_err(|panic| said(&*panic)), took)
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("it panicked: {}", text.unwrap_or_else(|| "without a text".into()))
}

/// The failure as it is told: body, seed, number, commit, the input, and the command that shows it again.
#[must_use]
pub fn told(target: &Target, seed: u64, failure: &Failure) -> String {
    let Failure { number, input, why } = failure;
    let (name, commit) = (target.name, crate::sim::runner::commit());
    let mut hex = String::new();
    for byte in input.iter().take(SHOWN_BYTES_MAX) {
        write!(hex, "{byte:02x}").expect("a string takes everything");
    }
    let more = input.len().saturating_sub(SHOWN_BYTES_MAX);
    let more = if more > 0 { format!("... and {more} bytes more") } else { String::new() };
    let file = kept(name, seed, failure).map_or_else(|e| format!("not kept: {e}"), |file| file.display().to_string());
    format!(
        "FAILURE {name} seed {seed} input {number} commit {commit}: {why}\n  input: {hex}{more}\n  whole: {file}\n  \
         replay: seawall-fuzz --target {name} --seed {seed} --input {number}"
    )
}

fn kept(name: &str, seed: u64, failure: &Failure) -> std::io::Result<PathBuf> {
    let file = std::env::temp_dir().join(format!("seawall-fuzz-{name}-{seed}-{}.bin", failure.number));
    std::fs::write(&file, &failure.input)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{mutate, seal};

    fn planted(bytes: &[u8]) -> Depth {
        assert!(bytes.len() < 40, "too long for it");
        Depth::Decoded
    }

    fn lazy(_: &[u8]) -> Depth {
        let begun = cpu();
        while cpu().saturating_sub(begun) < Duration::from_millis(20) {}
        Depth::Accepted
    }

    fn target(body: fn(&[u8]) -> Depth) -> Target {
        let floors = Floors { past: 50, accepted: 50, why: "" };
        let corpus = || vec![vec![7; 30]];
        Target { name: "planted", body, corpus, vary: mutate::bytes, seal: seal::nothing, floors }
    }

    const BOUNDS: Bounds = Bounds { cpu: Duration::from_secs(60) };

    #[test]
    fn a_failure_names_an_input_that_is_made_again_alone() {
        let target = target(planted);
        let failure = drive(&target, 3, 0..10_000, BOUNDS, |_, _| None).broke.expect("some input is longer");
        assert!(failure.why.contains("too long for it"), "{}", failure.why);
        assert_eq!(input(&target, &(target.corpus)(), 3, failure.number), failure.input);
        let text = told(&target, 3, &failure);
        let replay = format!("replay: seawall-fuzz --target planted --seed 3 --input {}", failure.number);
        assert!(text.contains(&replay), "{text}");
        let whole = text.lines().find_map(|line| line.trim().strip_prefix("whole: ")).expect("a line of it");
        assert_eq!(std::fs::read(whole).expect("it was kept"), failure.input);
        std::fs::remove_file(whole).expect("it was kept");
    }

    #[test]
    fn an_input_that_takes_too_long_is_a_failure() {
        let bounds = Bounds { cpu: Duration::from_millis(5) };
        let failure = drive(&target(lazy), 3, 0..10, bounds, |_, _| None).broke.expect("it takes 20 ms");
        assert!(failure.why.contains("processor time"), "{}", failure.why);
    }

    #[test]
    fn a_body_that_no_input_gets_into_is_a_failure() {
        let floors = Floors { past: 50, accepted: 10, why: "" };
        let deep = Tally { refused: 500, decoded: 350, accepted: 150 };
        assert_eq!(deep.below(floors), None);
        let shallow = Tally { refused: 501, decoded: 349, ..deep };
        assert!(shallow.below(floors).is_some_and(|text| text.contains("at least 50 % and 10 % must")));
        assert!(Tally { refused: 500, decoded: 500, accepted: 0 }.below(floors).is_some());
    }
}
