//! The segment file itself: create, open, identity, end mark slots.
//!
//! Owns: encoding of identity and marks, and the sequence number of the next slot.
//! Never: syncs on its own account except while sealing; the flush job decides when.
//! Invariant: a mark with a lower end than the last one is written only by a truncation; after a sync that failed no
//! sync of the file succeeds.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use protocol::planted::{self, Bug};

use crate::error::{Damage, LogError};
use crate::limits::{FORMAT_VERSION, SEGMENT_HEADER_BYTES, SLOT_A_AT, SLOT_B_AT};
use crate::storage::{Storage, StorageFile, read_up_to};

const IDENTITY_MAGIC: u64 = u64::from_le_bytes(*b"SEAWSEGM");
const SLOT_MAGIC: u64 = u64::from_le_bytes(*b"SEAWMARK");
const IDENTITY_BYTES: usize = 8 * 6 + 4;
const SLOT_BYTES: usize = 8 * 9 + 4;
/// Of the mark that a new segment is created with; the other slot is empty then.
const FIRST_SEQ: u64 = 1;
const FLAG_SEALED: u64 = 1;
const FLAG_CLOSED: u64 = 2;

/// What a segment file is, written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Counts how often the log was thrown away and begun anew.
    pub(crate) life: u64,
    /// Offset of the first batch.
    pub(crate) base: u64,
    /// Chain hash before the first batch.
    pub(crate) chain: u64,
    /// Leader epoch of the batch before the first one.
    pub(crate) epoch: Option<u32>,
}

/// The end mark: up to here every byte was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// File position after the last durable batch.
    pub(crate) end: u64,
    /// Offset after it.
    pub(crate) next: u64,
    /// Chain hash after it.
    pub(crate) chain: u64,
    /// Its leader epoch.
    pub(crate) epoch: Option<u32>,
    /// Largest timestamp up to it, `i64::MIN` if there is no batch.
    pub(crate) max_timestamp: i64,
    /// The segment is finished; its successor exists durably.
    pub(crate) sealed: bool,
    /// Written, and synced, by a clean stop.
    pub(crate) closed: bool,
}

fn epoch_word(epoch: Option<u32>) -> u64 {
    epoch.map_or(u64::MAX, u64::from)
}

/// An epoch as a batch may have it: on the wire it is signed.
fn word_epoch(word: u64) -> Option<Option<u32>> {
    if word == u64::MAX { Some(None) } else { i32::try_from(word).ok().map(|epoch| Some(epoch.cast_unsigned())) }
}

/// Words and their checksum, little endian.
fn encode(words: &[u64]) -> Vec<u8> {
    let mut out: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// The words, if their checksum holds.
fn decode<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (words, crc) = bytes.get(..N * 8 + 4)?.split_at(N * 8);
    if crc32c::crc32c(words).to_le_bytes() != crc {
        return None;
    }
    let mut out = [0; N];
    for (word, chunk) in out.iter_mut().zip(words.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().ok()?);
    }
    Some(out)
}

impl Identity {
    fn encode(&self) -> Vec<u8> {
        let words =
            [IDENTITY_MAGIC, u64::from(FORMAT_VERSION), self.life, self.base, self.chain, epoch_word(self.epoch)];
        encode(&words)
    }

    /// The mark of a segment that holds nothing yet.
    pub(crate) fn initial_mark(&self) -> Mark {
        Mark {
            end: SEGMENT_HEADER_BYTES,
            next: self.base,
            chain: self.chain,
            epoch: self.epoch,
            max_timestamp: i64::MIN,
            sealed: false,
            closed: false,
        }
    }
}

/// The identity in a segment's first page, or what is wrong with it.
pub(crate) fn identity_of(page: &[u8]) -> Result<Identity, String> {
    let words: [u64; 6] =
        decode(page.get(..IDENTITY_BYTES).unwrap_or(page)).ok_or("segment identity does not match its checksum")?;
    let [magic, version, life, base, chain, epoch] = words;
    if magic != IDENTITY_MAGIC {
        return Err("no segment begins here".into());
    }
    if version != u64::from(FORMAT_VERSION) {
        return Err(format!("segment has format version {version}, this build reads {FORMAT_VERSION}"));
    }
    let epoch = word_epoch(epoch).ok_or("segment identity has an impossible epoch")?;
    Ok(Identity { life, base, chain, epoch })
}

/// The valid slots of a segment's first page with their sequence numbers, newest first.
pub(crate) fn marks_of(page: &[u8], identity: &Identity) -> Vec<(u64, Mark)> {
    let mut found = Vec::new();
    for (at, parity) in [(SLOT_A_AT, 1), (SLOT_B_AT, 0)] {
        let Some(words) = page.get(at as usize..at as usize + SLOT_BYTES).and_then(decode::<9>) else {
            continue;
        };
        let [magic, seq, place, end, next, chain, epoch, max_timestamp, flags] = words;
        let here = magic == SLOT_MAGIC && seq % 2 == parity && place == place_word(identity) && flags <= 3;
        let Some(epoch) = word_epoch(epoch).filter(|_| here) else {
            continue;
        };
        let max_timestamp = max_timestamp as i64;
        let (sealed, closed) = (flags & FLAG_SEALED != 0, flags & FLAG_CLOSED != 0);
        found.push((seq, Mark { end, next, chain, epoch, max_timestamp, sealed, closed }));
    }
    found.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
    found
}

/// Ties a slot to its file, so that a slot written to the wrong file is not believed.
fn place_word(identity: &Identity) -> u64 {
    super::mix(identity.life, identity.base)
}

/// Slot bookkeeping of an open file.
#[derive(Debug)]
pub(crate) struct Slots {
    seq: u64,
    /// The newest mark written (not necessarily durable).
    pub(crate) mark: Mark,
}

/// An open segment file, shared between the log and its flush jobs.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) identity: Identity,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn StorageFile>,
    slots: Mutex<Slots>,
    /// When it was opened its slots left it open whether a truncation was under way, whose last sync nothing proves: the
    /// newest mark was no higher than the other, or the other, once written, was torn.
    pub(crate) was_cut: bool,
    /// The first failed sync. Held while syncing: of two syncs at once the kernel tells one only that bytes were lost.
    failed: Mutex<Option<String>>,
}

/// Path of the segment that begins at `base`.
pub(crate) fn segment_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.log"))
}

/// Path of its index.
pub(crate) fn index_path(dir: &Path, base: u64) -> PathBuf {
    dir.join(format!("{base:020}.index"))
}

/// Base offset in a file name with the given extension.
pub(crate) fn segment_base(name: &str, extension: &str) -> Option<u64> {
    let stem = name.strip_suffix(extension)?.strip_suffix('.')?;
    (stem.len() == 20 && stem.bytes().all(|b| b.is_ascii_digit())).then(|| stem.parse().ok())?
}

impl SegmentFile {
    /// Creates the file with `reserve` bytes reserved (0: none) and writes identity and first slot, unsynced.
    /// `Ok(None)`: the space could not be reserved, nothing is left behind.
    pub(crate) fn create(
        storage: &dyn Storage,
        dir: &Path,
        identity: Identity,
        reserve: u64,
    ) -> Result<Option<SegmentFile>, LogError> {
        let path = segment_path(dir, identity.base);
        let full = |e: &io::Error| e.kind() == io::ErrorKind::StorageFull;
        let file = match storage.create(&path) {
            Err(e) if full(&e) => return Ok(None),
            other => other.map_err(LogError::io("create", &path))?,
        };
        let reserved = if reserve > 0 { file.preallocate(reserve) } else { Ok(()) };
        match reserved {
            Err(e) if full(&e) => return Self::take_back(storage, &path),
            other => other.map_err(LogError::io("preallocation", &path))?,
        }
        let mark = identity.initial_mark();
        let slots = Mutex::new(Slots { seq: 0, mark });
        let segment = SegmentFile { identity, path, file, slots, was_cut: false, failed: Mutex::new(None) };
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        let bytes = identity.encode();
        page[..bytes.len()].copy_from_slice(&bytes);
        let slot = segment.encode_slot(FIRST_SEQ, &mark);
        page[SLOT_A_AT as usize..SLOT_A_AT as usize + slot.len()].copy_from_slice(&slot);
        match segment.file.write_at(0, &page) {
            Err(e) if full(&e) => return Self::take_back(storage, &segment.path),
            other => other.map_err(LogError::io("write", &segment.path))?,
        }
        segment.slots.lock().seq = FIRST_SEQ;
        Ok(Some(segment))
    }

    /// There was no room for all of it.
    fn take_back(storage: &dyn Storage, path: &Path) -> Result<Option<SegmentFile>, LogError> {
        storage.remove(path).map_err(LogError::io("remove", path))?;
        Ok(None)
    }

    /// Opens a file and reads its first page. The inner error says why it is no whole segment header.
    pub(crate) fn open(storage: &dyn Storage, path: &Path) -> Result<Result<SegmentFile, Damage>, LogError> {
        let file = storage.open(path).map_err(LogError::read(path))?;
        let page = match read_up_to(&*file, 0, SEGMENT_HEADER_BYTES as usize) {
            Ok(page) => page,
            Err(e) => return Err(Damage::new(path, 0, format!("header cannot be read: {e}")).into()),
        };
        if page.len() < SEGMENT_HEADER_BYTES as usize {
            let what = format!("segment header is cut off after {} bytes", page.len());
            return Ok(Err(Damage::new(path, page.len() as u64, what)));
        }
        let identity = match identity_of(&page) {
            Ok(identity) => identity,
            Err(what) => return Ok(Err(Damage::new(path, 0, what))),
        };
        let marks = marks_of(&page, &identity);
        let Some((seq, mark)) = marks.first().copied() else {
            return Ok(Err(Damage::new(path, SLOT_A_AT, "no end mark slot is valid")));
        };
        // A truncation writes the lower mark into one slot, cuts, and writes it into the other: a process that dies in that
        // last write leaves one mark, and torn bytes where the higher one stood.
        let was_cut = marks.get(1).map_or(seq > FIRST_SEQ, |(_, older)| mark.next <= older.next);
        let slots = Mutex::new(Slots { seq, mark });
        Ok(Ok(SegmentFile { identity, path: path.to_owned(), file, slots, was_cut, failed: Mutex::new(None) }))
    }

    fn encode_slot(&self, seq: u64, mark: &Mark) -> Vec<u8> {
        let sealed = if mark.sealed { FLAG_SEALED } else { 0 };
        let closed = if mark.closed { FLAG_CLOSED } else { 0 };
        let words = [
            SLOT_MAGIC,
            seq,
            place_word(&self.identity),
            mark.end,
            mark.next,
            mark.chain,
            epoch_word(mark.epoch),
            mark.max_timestamp as u64,
            sealed | closed,
        ];
        encode(&words)
    }

    /// The newest mark written.
    pub(crate) fn mark(&self) -> Mark {
        self.slots.lock().mark
    }

    /// Keeps everybody else from writing slots or the index.
    pub(crate) fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock()
    }

    /// Writes a mark into the older slot, unsynced.
    pub(crate) fn write_mark(&self, slots: &mut Slots, mark: Mark) -> Result<(), LogError> {
        let seq = slots.seq + 1;
        let at = if seq % 2 == 1 { SLOT_A_AT } else { SLOT_B_AT };
        self.file.write_at(at, &self.encode_slot(seq, &mark)).map_err(LogError::io("write", &self.path))?;
        slots.seq = seq;
        slots.mark = mark;
        Ok(())
    }

    /// fdatasync, one at a time. Errors: the disk's, and from then on that one for every caller.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        let mut failed = self.failed.lock();
        let result = match &*failed {
            Some(cause) => Err(io::Error::other(format!("an earlier sync failed: {cause}"))),
            None => self.file.sync().or_else(|e| if planted::is(Bug::RetryFsync) { self.file.sync() } else { Err(e) }),
        };
        if let Err(error) = &result {
            failed.get_or_insert_with(|| error.to_string());
        }
        result.map_err(LogError::io("sync", &self.path))
    }

    /// Length of the file in bytes.
    pub(crate) fn len(&self) -> Result<u64, LogError> {
        self.file.len().map_err(LogError::read(&self.path))
    }
}
