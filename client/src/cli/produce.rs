//! `seawall produce`: lines in, records out.
//!
//! Owns: reading stdin in bounded memory, counting outcomes.
//! Invariant: exits with 0 only if every line that was read was acknowledged (with acks=0: sent).

use super::Context;
use super::exit::{Exit, Failure};
use super::format::delimiter;
use super::topic::pair;
use crate::config::ProducerConfig;
use crate::error::{Effect, Error};
use crate::limits::{CLI_TIMEOUT_MS, LINE_BYTES_MAX};
use crate::producer::{BatchReport, Producer, ProducerRecord, SendError};
use bytes::{Bytes, BytesMut};
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

pub(super) const HELP: &str = "\
Each line without its newline is a record's value; an empty line is an empty value. With --key-delimiter the part
before the first delimiter is the key; a line without one has no key. Counts go to stderr. A batch whose answer was
lost is sent again, so a retried batch may be stored twice.

Examples:
  seawall produce orders < lines.txt
  seawall produce orders --key-delimiter : --compression zstd -X linger.ms=50 < keyed.txt

Exit codes: 0 every line acknowledged, 8 some were not, 4 no such topic, 7 nobody answers, 2 usage, 1 other";

/// How long an interrupted command waits for what is under way.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Time between two updates of the counts on a terminal.
const PROGRESS_PAUSE: Duration = Duration::from_millis(200);

/// Bytes read from stdin at a time.
const READ_BYTES: usize = 256 * 1024;

/// Blocks of lines read ahead.
const BLOCKS_AHEAD: usize = 4;

/// `produce`.
#[derive(Debug, Args)]
pub struct Arguments {
    topic: String,
    /// Who must hold a record before it is acknowledged
    #[arg(long, value_parser = ["all", "1", "0"], default_value = "all")]
    acks: String,
    /// The byte between key and value, such as ':' or '\t'
    #[arg(short, long, value_parser = delimiter, value_name = "C")]
    key_delimiter: Option<u8>,
    /// Compression of batches
    #[arg(short = 'z', long, value_parser = ["none", "lz4", "zstd"], default_value = "none")]
    compression: String,
    /// Write to this partition only
    #[arg(short, long)]
    partition: Option<u32>,
    /// A producer option by its Kafka name, such as linger.ms=50; may be repeated
    #[arg(short = 'X', value_parser = pair, value_name = "KEY=VALUE")]
    options: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Counts {
    read: AtomicU64,
    acked: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    retried: AtomicU64,
    first_error: parking_lot::Mutex<Option<String>>,
}

impl Counts {
    fn count(&self, report: &BatchReport<'_>) {
        let counter = match &report.outcome {
            Ok(_) => &self.acked,
            Err((Effect::NotWritten, _)) => &self.failed,
            Err((Effect::Unknown, _)) => &self.unknown,
        };
        counter.fetch_add(u64::from(report.records), Ordering::Relaxed);
        if report.attempts > 1 {
            self.retried.fetch_add(1, Ordering::Relaxed);
        }
        if let Err((_, error)) = &report.outcome {
            self.note(error);
        }
    }

    fn note(&self, error: &Error) {
        self.first_error.lock().get_or_insert_with(|| error.to_string());
    }

    fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    fn text(&self) -> String {
        let [read, acked, failed, unknown, retried] =
            [&self.read, &self.acked, &self.failed, &self.unknown, &self.retried].map(Self::get);
        format!("read {read}, acked {acked}, failed {failed}, unknown {unknown}, retried batches {retried}")
    }
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<Exit, Failure> {
    let mut config = ProducerConfig::with_client(context.client_config()?)
        .set("acks", &arguments.acks)?
        .set("compression.type", &arguments.compression)?;
    for (key, value) in &arguments.options {
        config = config.set(key, value)?;
    }
    let counts = Arc::new(Counts::default());
    let counted = counts.clone();
    let producer = Producer::with_reports(config, Arc::new(move |report| counted.count(report)));
    let topic: Arc<str> = arguments.topic.as_str().into();
    producer.prepare(&topic, Duration::from_millis(context.globals.timeout.unwrap_or(CLI_TIMEOUT_MS))).await?;
    let begun = Instant::now();
    let stopped = tokio::select! {
        stopped = send_all(&producer, &topic, &arguments, &counts) => stopped,
        _ = tokio::signal::ctrl_c() => Some(Failure::new(Exit::Other, "interrupted")),
        () = show_progress(&counts) => None,
    };
    let settled = match &stopped {
        None => tokio::select! {
            () = producer.flush() => true,
            _ = tokio::signal::ctrl_c() => false,
        },
        Some(_) => tokio::time::timeout(LAST_WAIT, producer.flush()).await.is_ok(),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let (read, acked, failed) = (Counts::get(&counts.read), Counts::get(&counts.acked), Counts::get(&counts.failed));
    // What an interruption left under way has no outcome.
    let unknown = if settled { Counts::get(&counts.unknown) } else { read.saturating_sub(acked + failed) };
    counts.unknown.store(unknown, Ordering::Relaxed);
    eprintln!("{} in {seconds:.2} s ({:.0} lines/s)", counts.text(), acked as f64 / seconds.max(0.001));
    if context.out.is_json() {
        let document = json!({ "topic": arguments.topic, "read": read, "acked": acked, "failed": failed,
            "unknown": unknown, "retried_batches": Counts::get(&counts.retried), "seconds": seconds });
        context.out.print(&document, String::new)?;
    }
    conclude(stopped, &counts, read, acked)
}

/// Keeps the counts on a terminal up to date; never ends. Draws nothing where stderr is none.
async fn show_progress(counts: &Counts) {
    let bar = ProgressBar::new_spinner();
    loop {
        bar.set_message(counts.text());
        tokio::time::sleep(PROGRESS_PAUSE).await;
    }
}

fn conclude(stopped: Option<Failure>, counts: &Counts, read: u64, acked: u64) -> Result<Exit, Failure> {
    if let Some(failure) = stopped {
        let exit = if acked > 0 && failure.exit == Exit::Unreachable { Exit::Partial } else { failure.exit };
        return Err(Failure { exit, ..failure });
    }
    if acked == read {
        return Ok(Exit::Ok);
    }
    let why = counts.first_error.lock().clone().unwrap_or_else(|| "no reason was given".to_owned());
    let text = format!("{} of {read} lines were not acknowledged; the first failure: {why}", read - acked);
    Err(Failure::new(Exit::Partial, text))
}

/// Sends every line; returns why it stopped before the end, if so.
async fn send_all(producer: &Producer, topic: &Arc<str>, arguments: &Arguments, counts: &Counts) -> Option<Failure> {
    let (blocks, mut inbox) = mpsc::channel(BLOCKS_AHEAD);
    std::thread::spawn(move || read_blocks(std::io::stdin().lock(), &blocks));
    while let Some(block) = inbox.recv().await {
        let mut rest: Bytes = match block {
            Ok(block) => block,
            Err(why) => return Some(Failure::new(Exit::Other, why)),
        };
        while !rest.is_empty() {
            let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            let line = rest.split_to(end);
            let _newline = rest.split_to(rest.len().min(1));
            counts.read.fetch_add(1, Ordering::Relaxed);
            let record = record(topic, line, arguments);
            if let Err(SendError { error, .. }) = producer.send(record).await.map(drop) {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                counts.note(&error);
                if !matches!(error, Error::Batch { .. }) {
                    return Some(Failure::from(error));
                }
            }
        }
    }
    None
}

fn record(topic: &Arc<str>, line: Bytes, arguments: &Arguments) -> ProducerRecord {
    let split = arguments.key_delimiter.and_then(|delimiter| line.iter().position(|b| *b == delimiter));
    let mut record = match split {
        Some(at) => ProducerRecord::new(topic.clone(), line.slice(at + 1..)).key(line.slice(..at)),
        None => ProducerRecord::new(topic.clone(), line),
    };
    record.partition = arguments.partition;
    record
}

/// Reads `input` to its end in blocks of whole lines; the last line may lack its newline.
fn read_blocks(mut input: impl Read, out: &mpsc::Sender<Result<Bytes, String>>) {
    let mut buffer = BytesMut::new();
    loop {
        let filled = buffer.len();
        buffer.resize(filled + READ_BYTES, 0);
        let read = loop {
            match input.read(&mut buffer[filled..]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                let _ = out.blocking_send(Err(format!("cannot read stdin: {error}")));
                return;
            }
        };
        buffer.truncate(filled + read);
        if read == 0 {
            if !buffer.is_empty() {
                let _ = out.blocking_send(Ok(buffer.freeze()));
            }
            return;
        }
        let Some(last) = buffer[filled..].iter().rposition(|b| *b == b'\n') else {
            if buffer.len() > LINE_BYTES_MAX {
                let _ = out.blocking_send(Err(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
                return;
            }
            continue;
        };
        let block = buffer.split_to(filled + last + 1).freeze();
        if out.blocking_send(Ok(block)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(input: &[u8]) -> Vec<u8> {
        let (sender, mut inbox) = mpsc::channel(1_000);
        read_blocks(input, &sender);
        let mut all = Vec::new();
        while let Ok(Ok(block)) = inbox.try_recv() {
            all.extend_from_slice(&block);
        }
        all
    }

    #[test]
    fn blocks_are_the_input_cut_at_line_ends() {
        let long = vec![b'x'; 3 * READ_BYTES];
        let input = [b"a\n\nb\n".as_slice(), &long, b"\nlast"].concat();
        assert_eq!(blocks(&input), input);
        assert_eq!(blocks(b""), b"");
    }

    #[test]
    fn keys_are_split_at_the_first_delimiter() {
        let arguments = Arguments {
            topic: "t".into(),
            acks: "all".into(),
            key_delimiter: Some(b':'),
            compression: "none".into(),
            partition: None,
            options: vec![],
        };
        let of = |line: &'static str| {
            let record = record(&"t".into(), Bytes::from(line), &arguments);
            (record.key, record.value.unwrap())
        };
        assert_eq!(of("k:v:w"), (Some("k".into()), "v:w".into()));
        assert_eq!(of("plain"), (None, "plain".into()));
        assert_eq!(of(":v"), (Some("".into()), "v".into()));
    }
}
