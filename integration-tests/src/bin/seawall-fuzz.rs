//! Gives every fuzz body many inputs from a seed, with memory and time bounded, and says how deep they got:
//! `seawall-fuzz [--inputs N] [--seed N] [--target NAME]... [--input NUMBER | --file PATH]`.

use cap::Cap;
use integration_tests::fuzz::{Bounds, INPUT_CPU_MAX, TARGETS, Target, drive, one, target_of, told};
use std::alloc::System;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// What one input may take at most, in bytes: a batch of 1 MiB may unpack to its cap.
const INPUT_MEMORY_MAX: usize = 64 << 20;
/// What may still be held after one.
const KEPT_MEMORY_MAX: usize = INPUT_MEMORY_MAX / 4;
/// Beyond this an allocation ends the process, to spare the machine.
const PROCESS_MEMORY_MAX: usize = 1 << 30;
/// By how much the process may grow in one body, memory of C code included: zstd allocates a window of at most 8 MiB.
const RESIDENT_GROWTH_MAX: usize = INPUT_MEMORY_MAX + (32 << 20);
/// An input that has not ended by then never does.
const INPUT_WALL_MAX: Duration = Duration::from_secs(120);

#[derive(Debug)]
struct Wish {
    inputs: u64,
    seed: u64,
    input: Option<u64>,
    file: Option<String>,
    targets: Vec<&'static Target>,
}

fn refuse(text: &str) -> ! {
    eprintln!("{text}");
    std::process::exit(2)
}

fn number(value: Option<String>, flag: &str) -> u64 {
    value.and_then(|v| v.parse().ok()).unwrap_or_else(|| refuse(&format!("{flag} needs a number")))
}

fn wish() -> Wish {
    let mut wish = Wish { inputs: 200_000, seed: 1, input: None, file: None, targets: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--inputs" => wish.inputs = number(arguments.next(), "--inputs"),
            "--seed" => wish.seed = number(arguments.next(), "--seed"),
            "--input" => wish.input = Some(number(arguments.next(), "--input")),
            "--file" => wish.file = arguments.next(),
            name => {
                let name = if name == "--target" { arguments.next().unwrap_or_default() } else { name.to_owned() };
                let known = || TARGETS.map(|target| target.name).join(", ");
                let unknown = || refuse(&format!("no target {name:?}; there are: {}", known()));
                wish.targets.push(target_of(&name).unwrap_or_else(unknown));
            }
        }
    }
    if wish.targets.is_empty() {
        wish.targets = TARGETS.iter().filter_map(|target| target_of(target.name)).collect();
    }
    if (wish.input.is_some() || wish.file.is_some()) && wish.targets.len() != 1 {
        refuse("--input and --file need one --target");
    }
    wish
}

/// The largest resident size so far, in bytes; where the system permits it, since the last call of [`forget_peak`].
fn resident_peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<usize>().ok());
    kib.unwrap_or(0) * 1_024
}

fn forget_peak() {
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        eprintln!("the peak of memory is that of the whole run: {error}");
    }
}

/// Ends the process when an input does not: the one that began `INPUT_WALL_MAX` ago.
#[derive(Debug, Default)]
struct Watchdog {
    running: Mutex<Option<(&'static str, u64, u64, Instant)>>,
    inputs: AtomicU64,
}

impl Watchdog {
    fn started() -> Arc<Self> {
        let watchdog = Arc::new(Self::default());
        let watching = Arc::clone(&watchdog);
        std::thread::spawn(move || {
            loop {
                std::thread::park_timeout(INPUT_WALL_MAX / 20);
                let running = *watching.running.lock().unwrap_or_else(PoisonError::into_inner);
                let stuck = running.filter(|(.., since)| since.elapsed() > INPUT_WALL_MAX);
                if let Some((name, seed, number, _)) = stuck {
                    eprintln!("FAILURE {name} seed {seed} input {number}: it has not ended after {INPUT_WALL_MAX:?}");
                    eprintln!("  replay: seawall-fuzz --target {name} --seed {seed} --input {number}");
                    std::process::exit(1);
                }
            }
        });
        watchdog
    }

    fn note(&self, running: Option<(&'static str, u64, u64, Instant)>) {
        self.inputs.fetch_add(1, Ordering::Relaxed);
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
    }
}

fn run(target: &'static Target, wish: &Wish, watchdog: &Watchdog) -> bool {
    let _warm = (target.body)(&[]);
    (target.corpus)();
    forget_peak();
    let (base, resident) = (MEMORY.allocated(), resident_peak());
    let most = base.max(MEMORY.max_allocated().saturating_sub(INPUT_MEMORY_MAX)) + INPUT_MEMORY_MAX;
    let numbers = wish.input.map_or(0..wish.inputs, |number| number..number.saturating_add(1));
    let begun = Instant::now();
    let outcome = drive(target, wish.seed, numbers, Bounds { cpu: INPUT_CPU_MAX }, |number, ended| {
        watchdog.note((!ended).then(|| (target.name, wish.seed, number, Instant::now())));
        let (kept, peak) = (MEMORY.allocated().saturating_sub(base), MEMORY.max_allocated());
        if !ended {
            return None;
        }
        if peak > most {
            return Some(format!("it took {} bytes at once, at most {INPUT_MEMORY_MAX} may be", peak - base));
        }
        (kept > KEPT_MEMORY_MAX).then(|| format!("{kept} bytes are still held after it"))
    });
    watchdog.note(None);
    let grown = resident_peak().saturating_sub(resident);
    if let Some(failure) = &outcome.broke {
        println!("{}", told(target, wish.seed, failure));
        return false;
    }
    let (past, accepted) = outcome.tally.shares();
    println!(
        "{:<20} {:>8} {:>6.1} s {:>9.1?} {:>5} MiB {:>8.1} % {:>8.1} %   {} % {} %  {}",
        target.name,
        outcome.inputs,
        begun.elapsed().as_secs_f64(),
        outcome.slowest,
        grown >> 20,
        past,
        accepted,
        target.floors.past,
        target.floors.accepted,
        target.floors.why,
    );
    let mut wrong: Vec<String> = outcome.tally.below(target.floors).into_iter().collect();
    if grown > RESIDENT_GROWTH_MAX {
        wrong.push(format!("the process grew by {grown} bytes, at most {RESIDENT_GROWTH_MAX} may be"));
    }
    for text in &wrong {
        println!("FAILURE {} seed {}: {text}", target.name, wish.seed);
    }
    wrong.is_empty()
}

fn replay(target: &Target, path: &str) -> ExitCode {
    let input = std::fs::read(path).unwrap_or_else(|e| refuse(&format!("{path}: {e}")));
    let (ended, took) = one(target, &input);
    println!("{}: {ended:?}, {took:?} of processor time", target.name);
    ExitCode::from(u8::from(ended.is_err() || took > INPUT_CPU_MAX))
}

fn main() -> ExitCode {
    let wish = wish();
    if MEMORY.set_limit(PROCESS_MEMORY_MAX).is_err() {
        refuse("more memory is taken at the start than may ever be");
    }
    if let Some(path) = &wish.file {
        return replay(wish.targets[0], path);
    }
    let watchdog = Watchdog::started();
    let begun = Instant::now();
    println!(
        "body                   inputs     time   slowest    grown   past 1st     taken   floors   first check; taken"
    );
    let broken = wish.targets.iter().filter(|target| !run(target, &wish, &watchdog)).count();
    println!("{} inputs in {:.0?}", watchdog.inputs.load(Ordering::Relaxed) / 2, begun.elapsed());
    ExitCode::from(u8::from(broken > 0))
}
