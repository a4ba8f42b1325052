//! Walking over the batches of a segment from a known place, with every check that the bytes allow.
//!
//! Owns: the reader that recovery, index rebuilding, scrubbing and inspection share.
//! Never: judges why a walk stopped; below the end mark it is damage, above it the end of the log.
//! Invariant: a batch is yielded only if it is whole, its checksum holds, its offset continues and its epoch does
//! not fall.

use std::io;

use protocol::batch::limits::MAX_BATCH_BYTES_CEILING;
use protocol::batch::{self, Header, Limits, Origin};

use super::Outline;
use crate::limits::SCAN_CHUNK_BYTES;
use crate::storage::{StorageFile, read_up_to};

/// Why a walk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At the limit given.
    Limit,
    /// At bytes that are zero as far as a header reaches, or at the end of the file.
    Zero,
    /// At bytes that are no good batch; the text says why.
    Bad(String),
}

/// Reads forward in large chunks.
pub(crate) struct Walker<'a> {
    file: &'a dyn StorageFile,
    /// No batch reaches past this position.
    limit: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Walker<'a> {
    /// A walker over `file` up to `limit` bytes.
    pub(crate) fn new(file: &'a dyn StorageFile, limit: u64) -> Walker<'a> {
        Walker { file, limit, buffer: Vec::new(), buffer_at: 0 }
    }

    /// `len` bytes at `position`, or as many as there are below the limit.
    fn bytes(&mut self, position: u64, len: usize) -> io::Result<&[u8]> {
        let len = len.min(self.limit.saturating_sub(position) as usize);
        let held = self.buffer_at + self.buffer.len() as u64;
        if position < self.buffer_at || position + len as u64 > held {
            let chunk = len.max(SCAN_CHUNK_BYTES).min(self.limit.saturating_sub(position) as usize);
            self.buffer = read_up_to(self.file, position, chunk)?;
            self.buffer_at = position;
        }
        let from = (position - self.buffer_at) as usize;
        Ok(&self.buffer[from..self.buffer.len().min(from + len)])
    }

    /// The batch at the outline's end, checked to continue it.
    pub(crate) fn next(&mut self, outline: &Outline) -> io::Result<Result<(Header, &[u8]), Stop>> {
        let position = outline.end;
        if position >= self.limit {
            return Ok(Err(Stop::Limit));
        }
        let head = self.bytes(position, Header::LEN)?;
        if head.iter().all(|b| *b == 0) {
            return Ok(Err(Stop::Zero));
        }
        let header = match Header::parse(head) {
            Ok(header) => header,
            Err(e) => return Ok(Err(Stop::Bad(e.to_string()))),
        };
        if let Some(why) = does_not_continue(&header, outline.next, outline.epoch()) {
            return Ok(Err(Stop::Bad(why)));
        }
        let len = header.total_len();
        if len > MAX_BATCH_BYTES_CEILING {
            return Ok(Err(Stop::Bad(format!("batch announces {len} bytes, more than any batch may have"))));
        }
        let bytes = self.bytes(position, len)?;
        // The configured batch size may have been larger when this was written.
        let limits = Limits { max_batch_bytes: MAX_BATCH_BYTES_CEILING, ..Limits::default() };
        match batch::check(bytes, &limits, Origin::Cluster) {
            Ok(_) => Ok(Ok((header, bytes))),
            Err(e) => Ok(Err(Stop::Bad(e.to_string()))),
        }
    }

    /// Walks on from the outline until something stops it, adding every batch to it.
    pub(crate) fn run(&mut self, outline: &mut Outline, interval: u64) -> io::Result<Stop> {
        loop {
            match self.next(outline)? {
                Ok((header, _)) => outline.add(&header, interval),
                Err(stop) => return Ok(stop),
            }
        }
    }
}

/// Why a batch cannot stand at offset `next` after epoch `last`, if it cannot.
pub(crate) fn does_not_continue(header: &Header, next: u64, last: Option<u32>) -> Option<String> {
    if header.base_offset != next {
        return Some(format!("batch has base offset {}, expected {next}", header.base_offset));
    }
    match (header.leader_epoch, last) {
        (None, _) => Some("batch has no leader epoch".into()),
        (Some(epoch), Some(last)) if epoch < last => Some(format!("leader epoch falls from {last} to {epoch}")),
        _ => None,
    }
}

/// What stands behind the end of a log: how many bytes up to the last one that is not zero, and how many of the
/// frames in them look whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Remains {
    pub(crate) bytes: u64,
    pub(crate) whole_batches: u64,
    /// Nothing but the front of one batch whose end was never written.
    pub(crate) one_unfinished: bool,
}

/// Looks at everything from `position` to the end of the file.
pub(crate) fn remains(file: &dyn StorageFile, position: u64) -> io::Result<Remains> {
    let len = file.len()?;
    let mut bytes = 0;
    let mut at = position;
    while at < len {
        let chunk = read_up_to(file, at, SCAN_CHUNK_BYTES.min((len - at) as usize))?;
        if let Some(last) = chunk.iter().rposition(|b| *b != 0) {
            bytes = at + last as u64 + 1 - position;
        }
        if chunk.is_empty() {
            break;
        }
        at += chunk.len() as u64;
    }
    if bytes == 0 {
        return Ok(Remains { one_unfinished: true, ..Remains::default() });
    }
    let limits = Limits { max_batch_bytes: MAX_BATCH_BYTES_CEILING, ..Limits::default() };
    let mut whole_batches = 0;
    let mut walker = Walker::new(file, len);
    let mut at = position;
    let mut first_len = None;
    while at < position + bytes {
        let Ok(header) = Header::parse(walker.bytes(at, Header::LEN)?) else {
            break;
        };
        first_len.get_or_insert(header.total_len() as u64);
        if header.total_len() > MAX_BATCH_BYTES_CEILING {
            break;
        }
        let whole = batch::check(walker.bytes(at, header.total_len())?, &limits, Origin::Cluster).is_ok();
        whole_batches += u64::from(whole);
        at += header.total_len() as u64;
    }
    let fits = first_len.map_or(bytes < Header::LEN as u64, |len| bytes <= len);
    Ok(Remains { bytes, whole_batches, one_unfinished: whole_batches == 0 && fits })
}
