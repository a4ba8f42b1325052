//! Ring 3: `seawall-ring3 run [--seed N] [--minutes M] [--program FILE] [--planted BUG]`,
//! `seawall-ring3 pair-cut [--times N]`.
//!
//! Exit code 0: everything held. 1: something did not. 4: this machine does not permit namespaces; never green. 130: stopped
//! by a signal.
//! Owns the arguments; `inner` and `wan` are the same program, started again inside the network.

use integration_tests::ring3::run::{self, Wish};
use integration_tests::ring3::{Failure, outer, pair_cut, wan};
use protocol::planted::Bug;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: seawall-ring3 run [--seed N] [--minutes M] [--program FILE] [--planted BUG] \
                     | pair-cut [--times N] [--program FILE]";

/// Namespaces are not permitted here.
const NOT_PERMITTED: u8 = 4;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match go(&words) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn go(words: &[String]) -> Result<u8, Failure> {
    let option = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    };
    let number = |name: &str, otherwise: &str| -> Result<f64, Failure> {
        let text = option(name).unwrap_or_else(|| otherwise.to_owned());
        text.parse().map_err(|_| format!("{name} {text}: not a number; {USAGE}"))
    };
    let program = match option("--program") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("seawall-power-loss"),
    };
    let seed = option("--seed").unwrap_or_else(|| "1".to_owned());
    let seed: u64 = seed.parse().map_err(|_| format!("--seed {seed}: not a number; {USAGE}"))?;
    let planted =
        option("--planted").map(|name| Bug::named(&name).ok_or_else(|| format!("--planted {name}: no such bug")));
    let wish =
        Wish { seed, minutes: number("--minutes", "5")?, program: program.clone(), planted: planted.transpose()? };
    let text: Vec<&str> = words.iter().map(String::as_str).collect();
    match text[..] {
        ["wan", seed] => wan::serve(seed.parse().unwrap_or(0)).map(|()| 0),
        ["inner", net, folder, "run", ..] => {
            run::inner(net.parse().map_err(|_| USAGE)?, Path::new(folder), &wish).map(|()| 0)
        }
        ["inner", net, folder, "pair-cut", ..] => {
            let times = option("--times").unwrap_or_else(|| "1".to_owned()).parse().map_err(|_| USAGE)?;
            pair_cut::inner(net.parse().map_err(|_| USAGE)?, Path::new(folder), &program, times).map(|()| 0)
        }
        ["run" | "pair-cut", ..] => match run::permitted() {
            Ok(()) => Ok(outer::run(words, seed)),
            Err(why) => {
                eprintln!("this machine does not permit network namespaces, so nothing was shown: {why}");
                Ok(NOT_PERMITTED)
            }
        },
        _ => Err(USAGE.to_owned()),
    }
}
