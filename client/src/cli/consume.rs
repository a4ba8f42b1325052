//! `seawall consume`: records in, lines out.
//!
//! Owns: where to begin, when to end, printing.
//! Invariant: everything that was printed reaches stdout before the command ends or waits.

use super::Context;
use super::exit::{Exit, Failure};
use super::format::{LANGUAGE, RecordFormat};
use super::time::{self, From};
use super::topic::pair;
use crate::clock::wall_ms;
use crate::config::{ConsumerConfig, OffsetReset};
use crate::consumer::{Consumer, ConsumerRecord, Start};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};

pub(super) const HELP: &str = "\
--from: earliest, latest, an OFFSET, -2h (ago), @MS (since 1970), or a UTC time such as 2026-11-21T10:00:00.
--until-end stops at the high watermarks seen at the start, over all partitions. --count stops after N records.
With -o json each record is one JSON object a line; a key or value that is no UTF-8 stands in key_base64, value_base64.
--format: %v value, %k key, %t topic, %p partition, %o offset, %d timestamp (ms since 1970), %e leader epoch,
  %h headers, %V %K %T lengths in bytes, %% a percent sign; \\n \\t \\r \\0 \\xHH \\\\. Default '%v\\n'.

Examples:
  seawall consume orders --from earliest --until-end
  seawall consume orders --partition 3 --from -15m --format '%p %o %k=%v\\n'

Exit codes: 0 done, 4 no such topic or partition, 7 nobody answers, 2 usage, 1 other";

/// `consume`.
#[derive(Debug, Args)]
pub struct Arguments {
    topic: String,
    /// Read this partition only; may be repeated
    #[arg(short, long = "partition", value_name = "N")]
    partitions: Vec<u32>,
    /// Where to begin
    #[arg(short, long, value_parser = time::from, default_value = "latest", allow_hyphen_values = true, value_name = "earliest|latest|OFFSET|TIME")]
    from: From,
    /// Stop at the end of each partition as it was at the start
    #[arg(short = 'e', long)]
    until_end: bool,
    /// Stop after this many records
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// How a record is printed
    #[arg(short = 'F', long, value_parser = RecordFormat::parse, value_name = "F", long_help = LANGUAGE)]
    format: Option<RecordFormat>,
    /// A consumer option by its Kafka name, such as fetch.max.wait.ms=100; may be repeated
    #[arg(short = 'X', value_parser = pair, value_name = "KEY=VALUE")]
    options: Vec<(String, String)>,
}

pub(super) async fn run(arguments: Arguments, context: &Context) -> Result<Exit, Failure> {
    // Retention may pass the starting point before the first fetch: go to what is left then.
    let mut config = ConsumerConfig::with_client(context.client_config()?).offset_reset(OffsetReset::Earliest);
    for (key, value) in &arguments.options {
        config = config.set(key, value)?;
    }
    let mut consumer = Consumer::new(config);
    let partitions = (!arguments.partitions.is_empty()).then_some(arguments.partitions.as_slice());
    let topic = arguments.topic.as_str();
    let start = match (arguments.from, arguments.from.timestamp(wall_ms())) {
        (_, Some(ms)) => Start::Time(ms),
        (From::Offset(offset), _) => Start::Offset(offset),
        (From::Latest, _) => Start::Latest,
        _ => Start::Earliest,
    };
    let ends = match arguments.until_end {
        true => Some(ends(&consumer, topic, partitions, start).await?),
        false => None,
    };
    let wanted: Option<Vec<u32>> = ends.as_ref().map(|ends| ends.keys().copied().collect());
    if wanted.as_ref().is_some_and(Vec::is_empty) || arguments.count == Some(0) {
        return Ok(Exit::Ok);
    }
    consumer.assign(topic, wanted.as_deref().or(partitions), start).await?;
    let print = if context.out.is_json() { Print::Json } else { Print::Format(arguments.format.unwrap_or_default()) };
    let stop = Stop { ends, left: arguments.count };
    tokio::select! {
        outcome = copy(&mut consumer, topic, print, stop) => outcome?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(Exit::Ok)
}

/// The end of each partition that has something before it to be read from `start` on.
async fn ends(
    consumer: &Consumer,
    topic: &str,
    partitions: Option<&[u32]>,
    start: Start,
) -> Result<BTreeMap<u32, u64>, Failure> {
    let latest = consumer.offsets(topic, partitions, Start::Latest).await?;
    let begin = match start {
        Start::Offset(_) => consumer.offsets(topic, partitions, Start::Earliest).await?,
        start => consumer.offsets(topic, partitions, start).await?,
    };
    let begins = |partition: &u32| match (start, begin.get(partition).copied().flatten()) {
        (Start::Offset(offset), first) => Some(offset.max(first.unwrap_or(0))),
        (_, first) => first,
    };
    let end = |(partition, end): (u32, Option<u64>)| {
        let end = end?;
        begins(&partition).filter(|begin| *begin < end).map(|_| (partition, end))
    };
    Ok(latest.into_iter().filter_map(end).collect())
}

enum Print {
    Format(RecordFormat),
    Json,
}

struct Stop {
    ends: Option<BTreeMap<u32, u64>>,
    left: Option<u64>,
}

async fn copy(consumer: &mut Consumer, topic: &str, print: Print, mut stop: Stop) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(256 * 1024, std::io::stdout());
    loop {
        let next = match consumer.try_recv() {
            Some(next) => next,
            None => {
                out.flush()?;
                // An end may have been passed without a record: by a marker, or by records that are gone.
                if stop.reached(|p| consumer.position(topic, p)) {
                    return Ok(());
                }
                match stop.ends {
                    Some(_) => match tokio::time::timeout(LOOK_AGAIN, consumer.recv()).await {
                        Ok(next) => next,
                        Err(_) => continue,
                    },
                    None => consumer.recv().await,
                }
            }
        };
        let record = next?;
        let beyond =
            stop.ends.as_ref().is_some_and(|ends| ends.get(&record.partition).is_none_or(|end| record.offset >= *end));
        if !beyond {
            match &print {
                Print::Format(format) => format.print(&record, &mut out)?,
                Print::Json => writeln!(out, "{}", record_json(&record))?,
            }
            if let Some(left) = &mut stop.left {
                *left -= 1;
                if *left == 0 {
                    out.flush()?;
                    return Ok(());
                }
            }
        }
        if stop.passed(&record) {
            out.flush()?;
            return Ok(());
        }
    }
}

/// How often the positions are compared with the ends while no record comes.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

impl Stop {
    /// Notes a record; whether every end has been reached.
    fn passed(&mut self, record: &ConsumerRecord) -> bool {
        let Some(ends) = &mut self.ends else { return false };
        if ends.get(&record.partition).is_some_and(|end| record.offset + 1 >= *end) {
            ends.remove(&record.partition);
        }
        ends.is_empty()
    }

    /// Whether every end has been reached, by positions.
    fn reached(&mut self, position: impl Fn(u32) -> Option<u64>) -> bool {
        let Some(ends) = &mut self.ends else { return false };
        ends.retain(|partition, end| position(*partition).is_none_or(|at| at < *end));
        ends.is_empty()
    }
}

fn record_json(record: &ConsumerRecord) -> Value {
    let mut document = json!({
        "topic": &*record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "leader_epoch": record.leader_epoch,
    });
    put(&mut document, "key", record.key.as_deref());
    put(&mut document, "value", record.value.as_deref());
    if !record.headers.is_empty() {
        let header = |h: &crate::RecordHeader| {
            let mut entry = json!({ "key": h.key });
            put(&mut entry, "value", h.value.as_deref());
            entry
        };
        document["headers"] = record.headers.iter().map(header).collect();
    }
    document
}

/// Bytes as text if they are, else as base64 under another name; null stays null.
fn put(document: &mut Value, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(|b| (std::str::from_utf8(b), b)) {
        None => document[name] = Value::Null,
        Some((Ok(text), _)) => document[name] = text.into(),
        Some((Err(_), bytes)) => document[format!("{name}_base64")] = base64(bytes).into(),
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: u32, offset: u64, value: &'static [u8]) -> ConsumerRecord {
        ConsumerRecord {
            topic: "t".into(),
            partition,
            offset,
            timestamp: 5,
            leader_epoch: Some(1),
            key: None,
            value: Some(value.into()),
            headers: vec![],
        }
    }

    #[test]
    fn json_keeps_bytes_and_null() {
        let text = record_json(&record(0, 1, b"a\"b")).to_string();
        assert_eq!(
            text,
            r#"{"key":null,"leader_epoch":1,"offset":1,"partition":0,"timestamp":5,"topic":"t","value":"a\"b"}"#
        );
        let document = record_json(&record(0, 1, &[0xff, 0, 1, 2]));
        assert_eq!(document["value_base64"], "/wABAg==");
        assert_eq!(base64(b"Man"), "TWFu");
        assert_eq!(base64(b"Ma"), "TWE=");
    }

    #[test]
    fn ends_are_reached_by_records_or_by_positions() {
        let mut stop = Stop { ends: Some([(0, 10), (1, 5)].into()), left: None };
        assert!(!stop.passed(&record(0, 8, b"")));
        assert!(!stop.passed(&record(0, 9, b"")));
        assert!(!stop.reached(|_| Some(4)));
        assert!(stop.reached(|_| Some(5)));
        assert!(!Stop { ends: None, left: None }.passed(&record(0, 9, b"")), "without ends it goes on");
    }
}
