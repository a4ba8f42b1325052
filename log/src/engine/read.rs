//! Reading whole batches by offset, and finding offsets by time.
//!
//! Owns: the checks on everything that leaves the disk, and the small cache of indexes of frozen segments.
//! Never: returns a byte that failed a check, or one at or above the bound the caller gave; decodes records, except
//! to find an offset by time.
//! Invariant: every returned batch has a good checksum, continues the one before it in offset, belongs to the epoch
//! that the epoch table names for its offset, and lies between two places of the segment between which the chain hash
//! holds. The last is what tells a batch of another partition in the right place (a misdirected write) from ours: its
//! own checksum, offset and epoch are good.

use std::borrow::Cow;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use protocol::batch::limits::MAX_BATCH_BYTES_CEILING;
use protocol::batch::{self, Header, Limits, Origin};

use super::{Active, Frozen, Log};
use crate::error::{Damage, LogError};
use crate::limits::MAX_LOADED_INDEXES;
use crate::segment::outline::{Entry, Known};
use crate::segment::walk::{Stop, Walker};
use crate::segment::{Outline, SegmentFile, chain_next, index_path, segment_path};
use crate::storage::{StorageFile, read_up_to};

/// An outline, borrowed from the active segment or shared with the cache.
pub(super) enum OutlineRef<'a> {
    Active(&'a Outline),
    Loaded(Arc<Outline>),
}

impl Deref for OutlineRef<'_> {
    type Target = Outline;

    fn deref(&self) -> &Outline {
        match self {
            OutlineRef::Active(outline) => outline,
            OutlineRef::Loaded(outline) => outline,
        }
    }
}

/// A segment file open for reading.
pub(super) struct Opened {
    pub(super) file: Arc<dyn StorageFile>,
    pub(super) path: PathBuf,
}

impl From<&SegmentFile> for Opened {
    fn from(segment: &SegmentFile) -> Opened {
        Opened { file: segment.file.clone(), path: segment.path.clone() }
    }
}

/// The place that a walk over stored batches has reached.
pub(super) struct Cursor {
    position: u64,
    next: u64,
    chain: u64,
    /// Where the chain hash is compared next.
    goal: Known,
    /// Position of the last place where it was compared: what lies before is what was written.
    confirmed: u64,
    /// Position of the first batch that is wanted, once it was found.
    first: Option<u64>,
}

impl Cursor {
    pub(super) fn new(outline: &Outline, entry: &Entry) -> Cursor {
        let (goal, position) = (outline.known_after(entry.offset), entry.position);
        Cursor { position, next: entry.offset, chain: entry.chain, goal, confirmed: position, first: None }
    }
}

/// What one pass over read bytes found.
enum Pass {
    /// Byte range of the batches to return.
    Found(usize, usize),
    /// More bytes are needed from the cursor on: this many.
    More(usize),
}

struct Bounds {
    from: u64,
    upto: u64,
    max_bytes: usize,
    min_one: bool,
}

impl Log {
    /// Whole batches from the one that holds `from`, as stored, at most `max_bytes` (the first one regardless if
    /// `min_one`), none that reaches `upto` or beyond. From one segment at a time, so a short answer is not the end.
    /// Empty if `from` is at `upto` or the log end. Errors: `from` outside of the log, damage that a second look finds too:
    /// of the first batch, or of a header behind it with no known place of the chain between them to confirm it.
    pub fn read(&self, from: u64, max_bytes: usize, upto: u64, min_one: bool) -> Result<Bytes, LogError> {
        self.shared.check()?;
        if from < self.start {
            return Err(LogError::BelowStart { offset: from, start: self.start });
        }
        if from > self.end {
            return Err(LogError::AboveEnd { offset: from, end: self.end });
        }
        let upto = upto.min(self.end);
        if from >= upto {
            return Ok(Bytes::new());
        }
        look_twice(|| {
            let (outline, opened) = self.segment_at(from)?;
            self.read_segment(&outline, &opened, &Bounds { from, upto, max_bytes, min_one })
        })
    }

    fn read_segment(&self, outline: &Outline, opened: &Opened, bounds: &Bounds) -> Result<Bytes, LogError> {
        let entry = outline.floor(bounds.from).expect("an offset below the log end lies in a segment with batches");
        let mut cursor = Cursor::new(outline, entry);
        // Up to one interval before the wanted batch, and one behind the last to confirm it.
        let interval = self.config.index_interval_bytes.saturating_mul(2) as usize;
        let mut want = bounds.max_bytes.saturating_add(interval).saturating_add(Header::LEN);
        loop {
            let left = (outline.end - cursor.position) as usize;
            let len = want.min(left);
            let at = cursor.position;
            let bytes = read_up_to(&*opened.file, at, len)
                .map_err(|e| Damage::new(&opened.path, at, format!("cannot be read: {e}")))?;
            if bytes.len() < len {
                let what = format!("file ends {} bytes early", len - bytes.len());
                return Err(Damage::new(&opened.path, at + bytes.len() as u64, what).into());
            }
            let passed = self.pass(outline, opened, bounds, &mut cursor, &bytes).and_then(|pass| {
                if let Pass::Found(_, end) = pass {
                    self.confirm(outline, opened, &mut cursor, &bytes[end..])?;
                }
                Ok(pass)
            });
            match passed {
                Ok(Pass::Found(start, end)) => return Ok(Bytes::from(bytes).slice(start..end)),
                Ok(Pass::More(more)) => want = more.max(Header::LEN),
                // The next read meets the damage.
                Err(_) if cursor.first.is_some_and(|first| first < cursor.confirmed) => {
                    let first = cursor.first.map_or(at, |first| first);
                    return Ok(Bytes::from(bytes).slice((first - at) as usize..(cursor.confirmed - at) as usize));
                }
                Err(damage) => return Err(damage),
            }
        }
    }

    /// Walks over `bytes`, which begin at the cursor. Moves the cursor over batches before the wanted one.
    fn pass(
        &self,
        outline: &Outline,
        opened: &Opened,
        bounds: &Bounds,
        cursor: &mut Cursor,
        bytes: &[u8],
    ) -> Result<Pass, LogError> {
        let origin = cursor.position;
        let at = |cursor: &Cursor| (cursor.position - origin) as usize;
        let mut first = None;
        loop {
            let here = at(cursor);
            let found = |first: Option<usize>| Pass::Found(first.unwrap_or(here), here);
            if cursor.next >= outline.next {
                return Ok(found(first));
            }
            let rest = &bytes[here..];
            if outline.end.saturating_sub(cursor.position) < Header::LEN as u64 {
                let what = format!("segment ends before offset {}", cursor.next);
                return Err(Damage::new(&opened.path, cursor.position, what).into());
            }
            if rest.len() < Header::LEN {
                return Ok(if first.is_some() { found(first) } else { Pass::More(bounds.max_bytes) });
            }
            let damaged = |what: String| Damage::new(&opened.path, cursor.position, what);
            let header = match self.header_at(rest, cursor, outline.end) {
                // The batches before it are good; the next read meets the damage at its own offset.
                Err(_) if first.is_some() => return Ok(found(first)),
                other => other.map_err(damaged)?,
            };
            let len = header.total_len();
            if header.next_offset() > bounds.from {
                let taken = first.map_or(0, |start| here - start);
                let fits = taken + len <= bounds.max_bytes || (first.is_none() && bounds.min_one);
                let wanted = header.next_offset() <= bounds.upto && fits;
                if first.is_some() && (!wanted || rest.len() < len) {
                    return Ok(found(first));
                }
                if rest.len() < len {
                    return Ok(Pass::More(len.max(bounds.max_bytes)));
                }
                let limits = Limits { max_batch_bytes: MAX_BATCH_BYTES_CEILING, ..Limits::default() };
                match batch::check(&rest[..len], &limits, Origin::Cluster) {
                    Err(_) if first.is_some() => return Ok(found(first)),
                    other => other.map_err(|e| damaged(e.to_string()))?,
                };
                // Only now: an empty answer because of a damaged header would be repeated for ever.
                if !wanted {
                    return Ok(found(None));
                }
                first.get_or_insert(here);
                cursor.first.get_or_insert(cursor.position);
            } else if rest.len() < len {
                step(outline, opened, cursor, &header)?;
                return Ok(Pass::More(bounds.max_bytes));
            }
            step(outline, opened, cursor, &header)?;
        }
    }

    /// Goes on over headers, `bytes` being what is held behind the cursor, to the next place where the chain hash is known.
    pub(super) fn confirm(
        &self,
        outline: &Outline,
        opened: &Opened,
        cursor: &mut Cursor,
        bytes: &[u8],
    ) -> Result<(), LogError> {
        let (mut held, mut held_at) = (Cow::Borrowed(bytes), cursor.position);
        while cursor.confirmed != cursor.position {
            let mut rest = held.get((cursor.position - held_at) as usize..).unwrap_or_default();
            if rest.len() < Header::LEN {
                let left = outline.end.saturating_sub(cursor.position);
                let len = self.config.index_interval_bytes.max(Header::LEN as u64).min(left);
                let read = read_up_to(&*opened.file, cursor.position, len as usize);
                let failed = |e| Damage::new(&opened.path, cursor.position, format!("cannot be read: {e}"));
                (held, held_at) = (Cow::Owned(read.map_err(failed)?), cursor.position);
                rest = &held;
            }
            let header = self.header_at(rest, cursor, outline.end);
            let header = header.map_err(|what| Damage::new(&opened.path, cursor.position, what))?;
            step(outline, opened, cursor, &header)?;
        }
        Ok(())
    }

    /// The header of the batch at the cursor, if it can stand there.
    fn header_at(&self, bytes: &[u8], cursor: &Cursor, end: u64) -> Result<Header, String> {
        let header = Header::parse(bytes).map_err(|e| e.to_string())?;
        self.check_place(&header, cursor)?;
        let len = header.total_len();
        if cursor.position + len as u64 > end {
            return Err(format!("batch of {len} bytes passes the end of the segment"));
        }
        Ok(header)
    }

    fn check_place(&self, header: &Header, cursor: &Cursor) -> Result<(), String> {
        if header.base_offset != cursor.next {
            return Err(format!("batch has base offset {}, expected {}", header.base_offset, cursor.next));
        }
        // Batches wholly below the log start may belong to epochs that the table has forgotten.
        let known = self.epochs.epoch_at(header.base_offset);
        if header.next_offset() > self.start && known.is_some() && known != header.leader_epoch {
            return Err(format!("batch has leader epoch {:?}, the log has {known:?} there", header.leader_epoch));
        }
        Ok(())
    }

    /// The outline and file of the segment that holds `offset`, or would.
    pub(super) fn segment_at(&self, offset: u64) -> Result<(OutlineRef<'_>, Opened), LogError> {
        if let Some(active) = self.active.as_ref().filter(|a| a.outline.base <= offset) {
            return Ok(active_ref(active));
        }
        let frozen = self.frozen.range(..=offset).next_back();
        let (_, frozen) = frozen.expect("an offset within the log lies in one of its segments");
        self.frozen_ref(frozen)
    }

    fn frozen_ref(&self, frozen: &Frozen) -> Result<(OutlineRef<'_>, Opened), LogError> {
        if let Some((file, outline)) = &frozen.pending {
            return Ok((OutlineRef::Loaded(outline.clone()), Opened::from(&**file)));
        }
        let path = segment_path(&self.dir, frozen.identity.base);
        let file = match self.storage.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Damage::new(&path, 0, "segment is missing").into());
            }
            other => other.map_err(LogError::read(&path))?,
        };
        let opened = Opened { file, path };
        let outline = self.outline_of(frozen, &opened)?;
        Ok((OutlineRef::Loaded(outline), opened))
    }

    /// The index of a frozen segment: from the cache, from the file beside it, or rebuilt from its batches.
    fn outline_of(&self, frozen: &Frozen, opened: &Opened) -> Result<Arc<Outline>, LogError> {
        let base = frozen.identity.base;
        let mut loaded = self.loaded.lock();
        if let Some(at) = loaded.iter().position(|(b, _)| *b == base) {
            let hit = loaded.remove(at);
            loaded.push(hit.clone());
            return Ok(hit.1);
        }
        let path = index_path(&self.dir, base);
        let stored = match self.storage.open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(LogError::Read { path, source: e }),
            Ok(file) => load_outline(&*file),
        };
        let outline = match stored.filter(|o| o.matches(&frozen.identity, &frozen.mark)) {
            Some(outline) => outline,
            None => rebuild(frozen, opened, self.config.index_interval_bytes)?,
        };
        let outline = Arc::new(outline);
        loaded.push((base, outline.clone()));
        if loaded.len() > MAX_LOADED_INDEXES {
            loaded.remove(0);
        }
        Ok(outline)
    }

    /// Offset and timestamp of the first record whose timestamp is at least `timestamp` (ms); `None` if there is none.
    /// Errors: damage that a second look finds too.
    pub fn offset_for_time(&self, timestamp: i64) -> Result<Option<(u64, i64)>, LogError> {
        self.shared.check()?;
        look_twice(|| self.search_segments(timestamp))
    }

    fn search_segments(&self, timestamp: i64) -> Result<Option<(u64, i64)>, LogError> {
        for frozen in self.frozen.values().filter(|f| f.mark.max_timestamp >= timestamp) {
            let (outline, opened) = self.frozen_ref(frozen)?;
            if let Some(found) = self.search_time(&outline, &opened, timestamp)? {
                return Ok(Some(found));
            }
        }
        match self.active.as_ref().filter(|a| a.outline.max_timestamp >= timestamp) {
            Some(active) => {
                let (outline, opened) = active_ref(active);
                self.search_time(&outline, &opened, timestamp)
            }
            None => Ok(None),
        }
    }

    fn search_time(&self, outline: &Outline, opened: &Opened, timestamp: i64) -> Result<Option<(u64, i64)>, LogError> {
        let Some(entry) = outline.floor_by_time(timestamp) else {
            return Ok(None);
        };
        let (mut at, mut cursor) = (outline.rewound(entry.offset), Cursor::new(outline, entry));
        let mut walker = Walker::new(&*opened.file, outline.end);
        loop {
            let found = walker.next(&at).map_err(|e| Damage::new(&opened.path, at.end, e.to_string()))?;
            let (header, bytes) = match found {
                Ok(found) => found,
                Err(Stop::Limit) => return Ok(None),
                Err(stop) => return Err(Damage::new(&opened.path, at.end, format!("{stop:?}")).into()),
            };
            step(outline, opened, &mut cursor, &header)?;
            if header.max_timestamp >= timestamp && header.next_offset() > self.start {
                let limits = Limits { max_batch_bytes: MAX_BATCH_BYTES_CEILING, ..Limits::default() };
                for stored in batch::records(&Bytes::copy_from_slice(bytes), &limits)? {
                    let stored = stored?;
                    if stored.record.timestamp >= timestamp && stored.offset >= self.start {
                        self.confirm(outline, opened, &mut cursor, &[])?;
                        return Ok(Some((stored.offset, stored.record.timestamp)));
                    }
                }
            }
            at.add(&header, u64::MAX);
        }
    }
}

/// Moves the cursor past a batch and compares the chain hash wherever the index knows it.
pub(super) fn step(outline: &Outline, opened: &Opened, cursor: &mut Cursor, header: &Header) -> Result<(), LogError> {
    cursor.position += header.total_len() as u64;
    cursor.next = header.next_offset();
    cursor.chain = chain_next(cursor.chain, header);
    if cursor.next < cursor.goal.offset {
        return Ok(());
    }
    let reached = Known { offset: cursor.next, position: cursor.position, chain: cursor.chain };
    if reached != cursor.goal {
        let what = "chain hash does not match: a batch before here is not the one that was written";
        return Err(Damage::new(&opened.path, cursor.position, what).into());
    }
    cursor.confirmed = cursor.position;
    cursor.goal = outline.known_after(cursor.next);
    Ok(())
}

/// A read that fails once, or brings a flipped bit once, is no damage of the disk: what is there is looked at again before
/// a copy is given up for it.
pub(super) fn look_twice<T>(look: impl Fn() -> Result<T, LogError>) -> Result<T, LogError> {
    match look() {
        Err(LogError::Damaged(first)) => {
            let second = look();
            if second.is_ok() {
                tracing::warn!(%first, "a read failed, and found no damage when it was made again");
            }
            second
        }
        other => other,
    }
}

fn active_ref(active: &Active) -> (OutlineRef<'_>, Opened) {
    (OutlineRef::Active(&active.outline), Opened::from(&*active.file))
}

/// Reads an index file; anything unreadable is as good as missing, since the batches have it all.
pub(crate) fn load_outline(file: &dyn StorageFile) -> Option<Outline> {
    let len = file.len().ok()?;
    Outline::decode(&read_up_to(file, 0, usize::try_from(len).ok()?).ok()?)
}

/// Walks a frozen segment from its first batch to its mark.
fn rebuild(frozen: &Frozen, opened: &Opened, interval: u64) -> Result<Outline, LogError> {
    let mut outline = Outline::new(&frozen.identity);
    let stop = Walker::new(&*opened.file, frozen.mark.end).run(&mut outline, interval);
    let stop = stop.map_err(|e| Damage::new(&opened.path, outline.end, format!("cannot be read: {e}")))?;
    if stop != Stop::Limit || !outline.matches(&frozen.identity, &frozen.mark) {
        let what = format!("batches do not add up to the segment's final mark ({stop:?})");
        return Err(Damage::new(&opened.path, outline.end, what).into());
    }
    Ok(outline)
}
