//! Gives every fuzz body many inputs from a seed, with memory bounded: `seawall-fuzz [--inputs N] [--seed N] [NAME...]`.

use cap::Cap;
use integration_tests::fuzz::{TARGETS, Target, drive};
use std::alloc::System;
use std::process::ExitCode;
use std::time::Instant;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What one input may take at most, in bytes: a batch of 1 MiB may unpack to its cap.
const INPUT_MEMORY_MAX: usize = 64 << 20;

fn number(value: Option<String>, flag: &str) -> u64 {
    let parsed = value.and_then(|v| v.parse().ok());
    parsed.unwrap_or_else(|| {
        eprintln!("{flag} needs a number");
        std::process::exit(2)
    })
}

fn one(target: &Target, seed: u64, inputs: u64) -> bool {
    (target.body)(&[]);
    (target.corpus)();
    let base = MEMORY.allocated();
    // Allocation beyond this ends the process: nothing here may take that much at once.
    MEMORY.set_limit(base + INPUT_MEMORY_MAX).expect("more than is taken now");
    let begun = Instant::now();
    let outcome = drive(target, seed, inputs, || {
        let taken = MEMORY.allocated().saturating_sub(base);
        (taken > INPUT_MEMORY_MAX / 4).then(|| format!("{taken} bytes are still held after an input"))
    });
    MEMORY.set_limit(usize::MAX).expect("no limit");
    let seconds = begun.elapsed().as_secs_f64();
    match outcome.broke {
        None => {
            println!("{:<22} {:>9} inputs {:>7.1} s, clean", target.name, outcome.inputs, seconds);
            true
        }
        Some(input) => {
            println!("{:<22} broke at input {} of seed {seed}: {input:?}", target.name, outcome.inputs);
            false
        }
    }
}

fn main() -> ExitCode {
    let (mut inputs, mut seed, mut names) = (200_000, 1, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--inputs" => inputs = number(arguments.next(), "--inputs"),
            "--seed" => seed = number(arguments.next(), "--seed"),
            name => names.push(name.to_owned()),
        }
    }
    if let Some(unknown) = names.iter().find(|name| TARGETS.iter().all(|target| target.name != **name)) {
        eprintln!("no target {unknown:?}; there are: {}", TARGETS.map(|target| target.name).join(", "));
        return ExitCode::from(2);
    }
    let chosen = TARGETS.iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target.name));
    let broken = chosen.filter(|target| !one(target, seed, inputs)).count();
    ExitCode::from(u8::from(broken > 0))
}
