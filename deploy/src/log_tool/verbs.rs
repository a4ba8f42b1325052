//! The command line of `seawall log`.

use super::{find, inspect, strays};
use crate::exit::Exit;
use bytes::Bytes;
use clap::{Args, Subcommand};
use client::cli::Format;
use protocol::batch::{Limits, records};
use std::io::Write;
use std::path::{Path, PathBuf};

/// `seawall log VERB`.
#[derive(Debug, Args)]
pub struct LogArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the batches of the logs at or below a path, one a line; nothing is changed, the owner may be running
    Dump {
        /// A segment, a log's directory, or a data directory
        path: PathBuf,
        /// Begin at this offset
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// At most this many batches of each log
        #[arg(long)]
        count: Option<u64>,
        /// Show the records too
        #[arg(long)]
        records: bool,
    },
    /// Check every byte of the logs at or below a path; exits with 3 if anything is damaged
    Verify {
        /// A segment, a log's directory, or a data directory
        path: PathBuf,
    },
    /// List what a stopped broker set aside: data of partitions it has no place for, damaged logs, overruled tails
    Strays {
        /// The broker's data directory
        dir: PathBuf,
    },
    /// Delete what a stopped broker set aside; without --yes it is only listed
    PurgeStrays {
        /// The broker's data directory
        dir: PathBuf,
        /// Delete it; there is no way back
        #[arg(long)]
        yes: bool,
    },
}

/// What `dump` shows.
struct Wanted {
    from: u64,
    count: u64,
    records: bool,
    output: Format,
}

/// Runs the command; errors are printed here.
pub fn run(args: &LogArgs, output: Format) -> Exit {
    match &args.verb {
        Verb::Dump { path, from, count, records } => {
            let wanted = Wanted { from: *from, count: count.unwrap_or(u64::MAX), records: *records, output };
            each("dump", path, |log| dump(log, &wanted))
        }
        Verb::Verify { path } => each("verify", path, |log| verify(log, output)),
        Verb::Strays { dir } => show_strays("strays", dir, false, output),
        Verb::PurgeStrays { dir, yes } => show_strays("purge-strays", dir, *yes, output),
    }
}

fn each(verb: &str, path: &Path, run: impl FnMut(&PathBuf) -> Exit) -> Exit {
    match find::logs(path) {
        Ok(logs) if logs.is_empty() => {
            eprintln!("seawall log {verb}: no log at or below {}", path.display());
            Exit::NotFound
        }
        Ok(logs) => worst(logs.iter().map(run)),
        Err(error) => {
            eprintln!("seawall log {verb}: {}: {error}", path.display());
            if error.kind() == std::io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Usage }
        }
    }
}

fn show_strays(verb: &str, dir: &Path, purge: bool, output: Format) -> Exit {
    let found = match strays::set_aside(dir, purge) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("seawall log {verb}: {error}");
            return error.exit();
        }
    };
    if output == Format::Json {
        println!("{}", serde_json::to_string(&found).expect("paths and numbers are JSON"));
        return Exit::Ok;
    }
    for stray in &found {
        let done = if stray.deleted { "deleted" } else { "set aside" };
        println!("{}: {} bytes, {done}", stray.path.display(), stray.bytes);
    }
    if found.is_empty() {
        println!("nothing is set aside in {}", dir.display());
    } else if !purge && verb == "purge-strays" {
        println!("nothing was deleted: say --yes");
    }
    Exit::Ok
}

/// The first exit code that is not 0, after everything was looked at.
fn worst(exits: impl Iterator<Item = Exit>) -> Exit {
    let exits: Vec<Exit> = exits.collect();
    exits.into_iter().find(|exit| *exit != Exit::Ok).unwrap_or(Exit::Ok)
}

fn verify(dir: &Path, output: Format) -> Exit {
    let summary = match inspect::summary(dir) {
        Ok(summary) => summary,
        Err(error) => {
            eprintln!("seawall log verify: {error}");
            return Exit::Other;
        }
    };
    let damaged = summary.damage.is_some();
    if output == Format::Json {
        println!("{}", serde_json::to_string(&summary).expect("numbers and texts are JSON"));
    } else {
        let verdict = summary.damage.as_ref().map_or("ok".to_owned(), |damage| format!("DAMAGED: {damage}"));
        println!(
            "{}: offsets {}..{}, {} segments, {} batches, {} records, {} bytes: {verdict}",
            dir.display(),
            summary.start,
            summary.end,
            summary.segments,
            summary.batches,
            summary.records,
            summary.bytes
        );
        if let Some(tail) = &summary.torn_tail {
            println!("  torn tail (a starting node cuts it): {tail}");
        }
    }
    if damaged { Exit::ConditionFalse } else { Exit::Ok }
}

fn dump(dir: &Path, wanted: &Wanted) -> Exit {
    let mut left = wanted.count;
    let outcome = inspect::open(dir).and_then(|(log, _)| {
        if wanted.output == Format::Table {
            println!("{}: offsets {}..{}", dir.display(), log.start_offset(), log.end_offset());
        }
        inspect::walk(&log, wanted.from, |header, batch| {
            if left == 0 {
                return false;
            }
            left -= 1;
            print_batch(dir, &inspect::line(header, batch), batch, wanted).is_ok()
        })
    });
    match outcome {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("seawall log dump: {error}");
            Exit::ConditionFalse
        }
    }
}

/// Prints a batch; fails only when nobody reads any more.
fn print_batch(dir: &Path, line: &inspect::BatchLine, batch: &Bytes, wanted: &Wanted) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if wanted.output == Format::Json {
        let mut object = serde_json::to_value(line).expect("numbers and texts are JSON");
        object["log"] = dir.display().to_string().into();
        if wanted.records {
            object["values"] = values(batch).into();
        }
        return writeln!(out, "{object}");
    }
    writeln!(
        out,
        "  {}..{} epoch {} records {} bytes {} {} time {} crc {}",
        line.base_offset,
        line.last_offset,
        line.leader_epoch.unwrap_or_default(),
        line.records,
        line.bytes,
        line.compression,
        line.base_timestamp,
        line.crc
    )?;
    if wanted.records {
        for value in values(batch) {
            writeln!(out, "    {value}")?;
        }
    }
    Ok(())
}

/// The records as text: `offset key value`; bytes that are not UTF-8 are shown as replacement characters.
fn values(batch: &Bytes) -> Vec<String> {
    let text = |bytes: Option<Bytes>| bytes.map_or("null".to_owned(), |b| String::from_utf8_lossy(&b).into_owned());
    match records(batch, &Limits::default()) {
        Ok(records) => records
            .map(|stored| match stored {
                Ok(stored) => format!("{} {} {}", stored.offset, text(stored.record.key), text(stored.record.value)),
                Err(error) => error.to_string(),
            })
            .collect(),
        Err(error) => vec![error.to_string()],
    }
}
