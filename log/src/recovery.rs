//! Opening a log after whatever ended the last process: telling a torn tail from damage.
//!
//! Owns: the reading of a directory into the engine's parts ([`scan`], which changes nothing except to finish a
//! truncation that was begun). What makes the result durable is [`crate::settle`].
//! Never: shortens what an end mark covers. Below the mark a bad or missing byte is [`Damage`]; above it the first
//! bad or zero frame ends the log, whatever follows, and what is cut is reported.
//! Invariant: **every byte kept is written again and synced before anyone sees the log.** What was merely readable may
//! be gone after the next power cut; an acknowledgement based on it would be a lie.
//!
//! What nothing covers: the leader epoch of a batch above the mark lies outside the batch's checksum and no chain
//! hash speaks of it yet, so a bit that flips there between a power cut and the recovery is believed if the epoch
//! does not fall. The next mark covers it.
//!
//! What each durable fact proves, in the order [`crate::flush`] makes them durable: a mark past a segment's base
//! proves that the segment before it is sealed and that the state says "not empty"; a sealed segment proves that
//! its successor exists. So a segment whose header is torn, behind an unsealed one, was never acknowledged.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::engine::cut::finish_cut;
use crate::engine::shared::{load_state, state_path};
use crate::engine::{Active, DirState, Frozen, LogConfig, Parts, Shared, Verify};
use crate::epochs::{EpochStart, EpochTable};
use crate::error::{Damage, LogError};
use crate::limits::SEGMENT_HEADER_BYTES;
use crate::segment::walk::{Stop, Walker, remains};
use crate::segment::{Mark, Outline, SegmentFile, index_path, segment_base, segment_path};
use crate::storage::Storage;

/// What opening a log found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// The last process closed the log, or there is none; nothing was written.
    pub clean: bool,
    /// Bytes above the end mark that were whole, kept, and synced before the log was shown.
    pub kept_bytes: u64,
    /// What was cut above the end mark.
    pub cut: Option<Cut>,
    /// A truncation that the last process had begun was finished.
    pub finished_truncation: bool,
}

/// A tail that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The file whose end was cut.
    pub file: PathBuf,
    /// Its new end in bytes.
    pub position: u64,
    /// Bytes behind it that were not zero-filled reserve, those of later segments included.
    pub bytes: u64,
    /// Frames among them that look whole (their place was not proved).
    pub whole_batches: u64,
    /// Why the first of them was not kept.
    pub reason: String,
    /// It was no more than the front of one batch whose write did not finish: what the death of a process leaves, as
    /// opposed to the loss of the page cache.
    pub one_unfinished: bool,
}

impl Recovery {
    /// True if nothing, or at most one unfinished batch at the very end, was cut. With an unchanged boot id this
    /// proves that nothing acknowledged is missing (DESIGN section 4).
    pub fn cut_at_most_one_unfinished_batch(&self) -> bool {
        self.cut.as_ref().is_none_or(|cut| cut.one_unfinished)
    }
}

/// A segment by its base offset; an inner error is a header that is not whole.
type Found = (u64, Result<SegmentFile, Damage>);

/// The last batch so far: the next segment must begin with this.
struct Joint {
    next: u64,
    chain: u64,
    epoch: Option<u32>,
    sealed: bool,
}

/// The last unsealed segment seen.
struct Tail {
    file: SegmentFile,
    outline: Outline,
    snapshot_end: u64,
}

struct Scan<'a> {
    storage: &'a Arc<dyn Storage>,
    dir: &'a Path,
    config: &'a LogConfig,
    state: DirState,
    recovery: Recovery,
    frozen: BTreeMap<u64, Frozen>,
    epochs: EpochTable,
    tail: Option<Tail>,
    garbage: Vec<PathBuf>,
}

/// Reads the directory. Finds damage before it changes anything.
pub(crate) fn scan(storage: &Arc<dyn Storage>, dir: &Path, config: &LogConfig) -> Result<(Parts, Recovery), LogError> {
    let entries = match storage.list(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.map_err(LogError::read(dir))?),
    };
    let state = match &entries {
        Some(_) => load_state(storage, dir)?,
        None => None,
    };
    let mut scan = Scan {
        storage,
        dir,
        config,
        state: state.unwrap_or_else(DirState::fresh),
        recovery: Recovery::default(),
        frozen: BTreeMap::new(),
        epochs: EpochTable::new(),
        tail: None,
        garbage: Vec::new(),
    };
    let names: Vec<String> = entries.iter().flatten().map(|e| e.name.clone()).collect();
    let bases = scan.sort_names(&names)?;
    let segments = scan.load(&bases)?;
    scan.join(segments)?;
    scan.check_epochs()?;
    Ok(scan.finish(entries.is_some()))
}

impl Scan<'_> {
    /// Base offsets of the segments that count, in order; everything else of ours becomes garbage.
    fn sort_names(&mut self, names: &[String]) -> Result<Vec<u64>, LogError> {
        let mut bases: Vec<u64> = names.iter().filter_map(|n| segment_base(n, "log")).collect();
        bases.sort_unstable();
        if let Some(cutting) = self.state.cutting {
            let later: Vec<u64> = bases.iter().copied().filter(|b| *b > cutting.base).collect();
            self.finish_truncation(cutting.base, cutting.mark(), &later)?;
            bases.retain(|b| *b <= cutting.base);
        }
        let is_garbage = |name: &&String| {
            name.ends_with(".tmp") || segment_base(name, "index").is_some_and(|base| !bases.contains(&base))
        };
        self.garbage.extend(names.iter().filter(is_garbage).map(|name| self.dir.join(name)));
        Ok(bases)
    }

    fn finish_truncation(&mut self, base: u64, mark: Mark, later: &[u64]) -> Result<(), LogError> {
        let path = segment_path(self.dir, base);
        let file = match SegmentFile::open(&**self.storage, &path) {
            Err(LogError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Damage::new(&path, 0, "segment is missing").into());
            }
            other => other??,
        };
        check_len(&file, mark.end)?;
        // The state that was read may be in the cache only; what follows must not outlive it.
        self.storage.sync_dir(self.dir).map_err(LogError::io("sync of directory", self.dir))?;
        finish_cut(&**self.storage, self.dir, &file, mark, later)?;
        self.state.cutting = None;
        let shared = Shared::new(self.storage.clone(), self.dir, self.state.clone());
        shared.store(&shared.gate())?;
        self.recovery.finished_truncation = true;
        Ok(())
    }

    fn discard(&mut self, base: u64) {
        self.garbage.push(segment_path(self.dir, base));
        self.garbage.push(index_path(self.dir, base));
    }

    /// Opens every segment of this life. An inner error is a header that is not whole.
    fn load(&mut self, bases: &[u64]) -> Result<Vec<Found>, LogError> {
        let mut segments = Vec::new();
        for &base in bases {
            let path = segment_path(self.dir, base);
            let segment = SegmentFile::open(&**self.storage, &path)?;
            if let Ok(segment) = &segment {
                let identity = segment.identity;
                if identity.life < self.state.life && self.state.empty {
                    self.discard(base);
                    continue;
                }
                if identity.base != base || identity.life != self.state.life {
                    let what = format!(
                        "segment of life {} at base {} stands where life {} at base {base} belongs",
                        identity.life, identity.base, self.state.life
                    );
                    return Err(Damage::new(&path, 0, what).into());
                }
            }
            segments.push((base, segment));
        }
        // Dropped heads whose removal was not durable. Only sealed segments are dropped, so their successors exist.
        while segments.len() > 1 && segments[1].0 <= self.state.start {
            if segments[0].1.as_ref().is_ok_and(|s| !s.mark().sealed) {
                break;
            }
            let (base, _) = segments.remove(0);
            self.discard(base);
        }
        Ok(segments)
    }

    /// Joins the segments front to back and reads the ones that are not sealed.
    fn join(&mut self, segments: Vec<Found>) -> Result<(), LogError> {
        let mut joint: Option<Joint> = None;
        let bases: Vec<u64> = segments.iter().map(|(base, _)| *base).collect();
        for (i, (base, segment)) in segments.into_iter().enumerate() {
            let acknowledged = joint.as_ref().map_or(!self.state.empty, |j| j.sealed);
            let segment = match segment {
                Ok(segment) => segment,
                Err(damage) if acknowledged => return Err(damage.into()),
                Err(damage) => {
                    self.drop_from(&bases[i..], &damage.what)?;
                    break;
                }
            };
            let mark = segment.mark();
            let advanced = mark.sealed || mark.next > base;
            if advanced && self.state.empty {
                let what =
                    "log state is missing or says that nothing was ever durable, a segment's end mark says it was";
                return Err(Damage::new(&state_path(self.dir), 0, what).into());
            }
            if let Some(why) = self.does_not_join(joint.as_ref(), &segment) {
                if acknowledged || advanced {
                    return Err(Damage::new(&segment.path, 0, why).into());
                }
                self.drop_from(&bases[i..], &why)?;
                break;
            }
            if joint.is_none() {
                self.begin_epochs(&segment)?;
            }
            self.freeze_tail();
            joint = Some(if mark.sealed { self.take_sealed(segment, mark)? } else { self.take_tail(segment, mark)? });
        }
        self.check_last(joint.as_ref())
    }

    /// Why a segment does not follow what is before it.
    fn does_not_join(&self, joint: Option<&Joint>, segment: &SegmentFile) -> Option<String> {
        let identity = segment.identity;
        match joint {
            None if identity.base > self.state.start || (self.state.empty && identity.base != self.state.start) => {
                Some(format!("first segment begins at {}, the log at {}", identity.base, self.state.start))
            }
            None => None,
            Some(joint)
                if (joint.next, joint.chain, joint.epoch) == (identity.base, identity.chain, identity.epoch) =>
            {
                None
            }
            Some(joint) => Some(format!(
                "segment at {} does not continue the one before it, which ends at {}",
                identity.base, joint.next
            )),
        }
    }

    /// Epochs from before the first segment.
    fn begin_epochs(&mut self, first: &SegmentFile) -> Result<(), LogError> {
        let dropped = |e: &&EpochStart| e.start < first.identity.base;
        let Some(last) = self.state.epochs.iter().rfind(dropped) else {
            return Ok(());
        };
        if Some(last.epoch) != first.identity.epoch {
            let what = format!("epoch {} of dropped segments is not the one before the first kept", last.epoch);
            return Err(Damage::new(&state_path(self.dir), 0, what).into());
        }
        self.epochs.assign(last.epoch, last.start);
        Ok(())
    }

    fn take_epochs(&mut self, outline: &Outline) {
        outline.epochs.iter().for_each(|(epoch, start)| self.epochs.assign(*epoch, *start));
    }

    fn take_sealed(&mut self, file: SegmentFile, mark: Mark) -> Result<Joint, LogError> {
        check_len(&file, mark.end)?;
        let identity = file.identity;
        let everything = self.config.verify == Verify::Everything;
        if everything || mark.epoch != identity.epoch {
            let stored = if everything { None } else { self.stored_outline(identity.base) };
            let outline = match stored.filter(|o| o.matches(&identity, &mark)) {
                Some(outline) => outline,
                None => self.walk_to_mark(&file, mark, Outline::new(&identity))?,
            };
            self.take_epochs(&outline);
        }
        self.frozen.insert(identity.base, Frozen { identity, mark, pending: None });
        Ok(Joint { next: mark.next, chain: mark.chain, epoch: mark.epoch, sealed: true })
    }

    fn stored_outline(&self, base: u64) -> Option<Outline> {
        let file = self.storage.open(&index_path(self.dir, base)).ok()?;
        crate::engine::read::load_outline(&*file)
    }

    /// Walks from `outline` to the mark; anything that is not exactly what the mark says is damage.
    fn walk_to_mark(&self, file: &SegmentFile, mark: Mark, mut outline: Outline) -> Result<Outline, LogError> {
        let stop = walk(file, mark.end, &mut outline, self.config)?;
        if stop == Stop::Limit && outline.matches(&file.identity, &mark) {
            return Ok(outline);
        }
        let what = match stop {
            Stop::Bad(why) => format!("below the end mark: {why}"),
            Stop::Zero => "below the end mark: zeros where a batch must be".into(),
            Stop::Limit => "batches up to the end mark do not add up to its offset and chain hash".into(),
        };
        Err(Damage::new(&file.path, outline.end, what).into())
    }

    fn take_tail(&mut self, file: SegmentFile, mark: Mark) -> Result<Joint, LogError> {
        let len = check_len(&file, mark.end)?;
        let stored = match self.config.verify {
            Verify::Tail => self.stored_outline(file.identity.base),
            Verify::Everything => None,
        };
        let stored = stored.filter(|o| o.belongs(&file.identity) && o.end <= mark.end);
        let snapshot_end = stored.as_ref().map_or(SEGMENT_HEADER_BYTES, |o| o.end);
        // A stored index that does not lead to the mark is stale: the batches decide.
        let quick = stored.and_then(|outline| self.walk_to_mark(&file, mark, outline).ok());
        let mut outline = match quick {
            Some(outline) => outline,
            None => self.walk_to_mark(&file, mark, Outline::new(&file.identity))?,
        };
        let stop = walk(&file, len, &mut outline, self.config)?;
        self.recovery.kept_bytes += outline.end - mark.end;
        if stop != Stop::Limit {
            let left = remains(&*file.file, outline.end).map_err(|e| unreadable(&file, outline.end, &e))?;
            if left.bytes > 0 {
                self.recovery.cut = Some(Cut {
                    file: file.path.clone(),
                    position: outline.end,
                    bytes: left.bytes,
                    whole_batches: left.whole_batches,
                    reason: if let Stop::Bad(why) = stop { why } else { "zeros where a batch should be".into() },
                    one_unfinished: left.one_unfinished,
                });
            }
        }
        self.take_epochs(&outline);
        let joint = Joint { next: outline.next, chain: outline.chain, epoch: outline.epoch(), sealed: false };
        self.tail = Some(Tail { file, outline, snapshot_end });
        Ok(joint)
    }

    /// A segment follows the tail and continues it: the tail is a frozen segment that was not sealed yet.
    fn freeze_tail(&mut self) {
        if let Some(Tail { file, outline, .. }) = self.tail.take() {
            let (identity, mark) = (file.identity, outline.mark(true));
            let pending = Some((Arc::new(file), Arc::new(outline)));
            self.frozen.insert(identity.base, Frozen { identity, mark, pending });
        }
    }

    /// Gives up segments that were never acknowledged, and counts what is lost with them.
    fn drop_from(&mut self, bases: &[u64], why: &str) -> Result<(), LogError> {
        for &base in bases {
            let path = segment_path(self.dir, base);
            let file = self.storage.open(&path).map_err(LogError::read(&path))?;
            let left = remains(&*file, SEGMENT_HEADER_BYTES).map_err(LogError::read(&path))?;
            self.discard(base);
            if left.bytes == 0 {
                continue;
            }
            let cut = self.recovery.cut.get_or_insert_with(|| match &self.tail {
                Some(tail) => Cut {
                    file: tail.file.path.clone(),
                    position: tail.outline.end,
                    bytes: 0,
                    whole_batches: 0,
                    reason: why.to_owned(),
                    one_unfinished: false,
                },
                None => Cut {
                    file: path.clone(),
                    position: 0,
                    bytes: 0,
                    whole_batches: 0,
                    reason: why.to_owned(),
                    one_unfinished: false,
                },
            });
            cut.bytes += left.bytes;
            cut.whole_batches += left.whole_batches;
            cut.one_unfinished = false;
        }
        Ok(())
    }

    fn check_last(&self, joint: Option<&Joint>) -> Result<(), LogError> {
        match joint {
            Some(joint) if joint.sealed => {
                let path = segment_path(self.dir, joint.next);
                Err(Damage::new(&path, 0, "segment is missing: the sealed one before it proves that it existed").into())
            }
            None if !self.state.empty => {
                let path = segment_path(self.dir, self.state.start);
                Err(Damage::new(&path, 0, "all segments are missing, but records were durable").into())
            }
            _ => Ok(()),
        }
    }

    fn check_epochs(&mut self) -> Result<(), LogError> {
        self.epochs.trim_head(self.state.start);
        let end = self.tail.as_ref().map_or(self.state.start, |t| t.outline.next);
        if end < self.state.start {
            let what = format!("log ends at {end}, below its durable start {}", self.state.start);
            let (file, position) = self.tail.as_ref().map_or((self.dir, 0), |t| (t.file.path.as_path(), t.outline.end));
            return Err(Damage::new(file, position, what).into());
        }
        if end > self.state.start && self.epochs.epoch_at(self.state.start).is_none() {
            let what = format!("no leader epoch is known at the log start {}", self.state.start);
            return Err(Damage::new(&state_path(self.dir), 0, what).into());
        }
        Ok(())
    }

    fn finish(mut self, dir_exists: bool) -> (Parts, Recovery) {
        let pending = self.frozen.values().any(|f| f.pending.is_some());
        let untouched = self.recovery.kept_bytes == 0 && self.recovery.cut.is_none() && !pending;
        let mark = self.tail.as_ref().map(|t| t.file.mark());
        self.recovery.clean = untouched && !self.recovery.finished_truncation && mark.is_none_or(|m| m.closed);
        let proved = mark.is_some_and(|m| m.next > self.tail.as_ref().map_or(0, |t| t.outline.base));
        let first_pending = self.frozen.values().find_map(|f| f.pending.as_ref()).map(|(file, _)| file.mark().next);
        let durable_end = first_pending.or(mark.map(|m| m.next)).unwrap_or(self.state.start);
        let active = self.tail.take().map(|tail| Active {
            allocated: tail.outline.end,
            file: Arc::new(tail.file),
            outline: tail.outline,
            snapshot_end: tail.snapshot_end,
        });
        let parts = Parts {
            state: self.state,
            dir_exists,
            frozen: self.frozen,
            active,
            epochs: self.epochs,
            durable_end,
            names_unsynced: dir_exists && !(untouched && proved),
            garbage: self.garbage,
        };
        (parts, self.recovery)
    }
}

fn unreadable(file: &SegmentFile, position: u64, error: &io::Error) -> Damage {
    Damage::new(&file.path, position, format!("cannot be read: {error}"))
}

fn walk(file: &SegmentFile, limit: u64, outline: &mut Outline, config: &LogConfig) -> Result<Stop, LogError> {
    let stop = Walker::new(&*file.file, limit).run(outline, config.index_interval_bytes);
    Ok(stop.map_err(|e| unreadable(file, outline.end, &e))?)
}

/// A file that ends before its mark has lost durable bytes.
fn check_len(file: &SegmentFile, end: u64) -> Result<u64, LogError> {
    let len = file.len()?;
    if len < end {
        let what = format!("file ends at byte {len}, its end mark says {end}");
        return Err(Damage::new(&file.path, len, what).into());
    }
    Ok(len)
}
