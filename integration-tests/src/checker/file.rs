//! The stream as bytes: a header and events, each with its length and checksum in front; and as lines of JSON.
//!
//! Owns the format: `SWHIST02`, then records of (length u32 LE, crc32c u32 LE of the bytes, bytes in postcard), the first
//! of them the header. A record cut short by the end of the file is a torn end and is said so; a wrong checksum or a
//! sequence number that does not grow is damage, and nothing is judged. Never repairs.

use super::event::{Event, Header, History};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write};

/// First bytes of a file.
pub const MAGIC: &[u8; 8] = b"SWHIST02";

/// Longest record: a poll of a few MiB.
const RECORD_MAX: usize = 64 << 20;

/// The last line of an export whose stream was cut off within a record.
const TORN_LINE: &str = r#"{"torn":true}"#;

/// Why a file is no history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAHistory {
    /// At which byte.
    pub at: usize,
    /// What is wrong.
    pub why: String,
}

impl std::fmt::Display for NotAHistory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at byte {}: {}", self.at, self.why)
    }
}

/// Writes the first bytes of a file.
///
/// # Errors
/// The sink's.
pub fn begin(sink: &mut impl Write, header: &Header) -> io::Result<()> {
    sink.write_all(MAGIC)?;
    record(sink, header)
}

/// Writes one event.
///
/// # Errors
/// The sink's.
pub fn append(sink: &mut impl Write, event: &Event) -> io::Result<()> {
    record(sink, event)
}

fn record(sink: &mut impl Write, item: &impl Serialize) -> io::Result<()> {
    let bytes = postcard::to_stdvec(item).map_err(io::Error::other)?;
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    sink.write_all(&len.to_le_bytes())?;
    sink.write_all(&crc32c::crc32c(&bytes).to_le_bytes())?;
    sink.write_all(&bytes)
}

/// The whole history as bytes.
///
/// # Panics
/// Never: memory takes everything.
pub fn encode(history: &History) -> Vec<u8> {
    let mut bytes = Vec::new();
    begin(&mut bytes, &history.header).expect("memory takes everything");
    for event in &history.events {
        append(&mut bytes, event).expect("memory takes everything");
    }
    bytes
}

/// Reads a file's bytes.
///
/// # Errors
/// [`NotAHistory`] with the place.
pub fn decode(bytes: &[u8]) -> Result<History, NotAHistory> {
    let wrong = |at: usize, why: &str| NotAHistory { at, why: why.to_owned() };
    if bytes.get(..MAGIC.len()) != Some(MAGIC.as_slice()) {
        return Err(wrong(0, "does not begin as a history does"));
    }
    let mut at = MAGIC.len();
    let header: Header = next(bytes, &mut at)?.ok_or_else(|| wrong(at, "no header"))?;
    let mut history = History { header, events: Vec::new(), torn: false };
    while at < bytes.len() {
        let begin = at;
        let Some(event) = next::<Event>(bytes, &mut at)? else {
            history.torn = true;
            break;
        };
        if history.events.last().is_some_and(|last| last.seq >= event.seq) {
            return Err(wrong(begin, "a sequence number that does not grow"));
        }
        history.events.push(event);
    }
    Ok(history)
}

/// The record at `at`, moving `at` past it; None if the bytes end within it.
fn next<T: DeserializeOwned>(bytes: &[u8], at: &mut usize) -> Result<Option<T>, NotAHistory> {
    let wrong = |why: String| NotAHistory { at: *at, why };
    let word = |from: usize| Some(u32::from_le_bytes(bytes.get(from..from + 4)?.try_into().ok()?));
    let (Some(len), Some(crc)) = (word(*at), word(*at + 4)) else { return Ok(None) };
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    if len > RECORD_MAX {
        return Err(wrong(format!("a record of {len} bytes, at most {RECORD_MAX}")));
    }
    let Some(body) = bytes.get(*at + 8..*at + 8 + len) else { return Ok(None) };
    if crc32c::crc32c(body) != crc {
        return Err(wrong("the checksum does not match".to_owned()));
    }
    let item = postcard::from_bytes(body).map_err(|error| wrong(error.to_string()))?;
    *at += 8 + len;
    Ok(Some(item))
}

/// Writes the history as lines of JSON, the header first.
///
/// # Errors
/// The sink's.
pub fn export(history: &History, sink: &mut impl Write) -> io::Result<()> {
    let mut line = |text: Result<String, serde_json::Error>| writeln!(sink, "{}", text.map_err(io::Error::other)?);
    line(serde_json::to_string(&history.header))?;
    for event in &history.events {
        line(serde_json::to_string(event))?;
    }
    if history.torn {
        writeln!(sink, "{TORN_LINE}")?;
    }
    Ok(())
}

/// Reads lines of JSON as [`export`] writes them.
///
/// # Errors
/// [`NotAHistory`] with the number of the line.
pub fn import(text: &str) -> Result<History, NotAHistory> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let wrong = |at: usize, error: &dyn std::fmt::Display| NotAHistory { at, why: error.to_string() };
    let (at, first) = lines.next().ok_or_else(|| wrong(0, &"empty"))?;
    let header = serde_json::from_str(first).map_err(|error| wrong(at, &error))?;
    let mut history = History { header, events: Vec::new(), torn: false };
    for (at, line) in lines {
        if history.torn {
            return Err(wrong(at, &"a line after the torn end"));
        }
        if line.trim() == TORN_LINE {
            history.torn = true;
            continue;
        }
        let event: Event = serde_json::from_str(line).map_err(|error| wrong(at, &error))?;
        if history.events.last().is_some_and(|last| last.seq >= event.seq) {
            return Err(wrong(at, &"a sequence number that does not grow"));
        }
        history.events.push(event);
    }
    Ok(history)
}
