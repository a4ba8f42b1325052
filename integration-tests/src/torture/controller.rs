//! The life of a controller's directory, scripted: votes, appends, cuts, purges, snapshots taken and installed.
//!
//! Owns: the script, what it was promised, and what a start over the same directory finds. Never: looks into a file.
//! Invariant: each step tells [`Told`] before it begins and after it is done.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use controller::format::{FormatError, format_controller};
use controller::quorum::bare::{self, At, BareStorage, Contents, What};
use controller::quorum::{DiskError, Halt, QuorumStartError, SnapshotError, VoterId, VoterNode, VoterSpec};
use log::Recovery;
use log::data_dir::{DataDir, Expected, Role};
use log::storage::Storage;
use log::storage::memory::MemStorage;
use parking_lot::Mutex;
use protocol::ids::ControllerId;
use uuid::Uuid;

use super::told::Maybe;
use super::{Dice, Difference, Refusal, Stop, Subject};

const ROOT: &str = "/controller";
const ME: u32 = 1;
const SEGMENT_BYTES: u64 = 4096 + 900;

type Entries = Vec<(At, What)>;

/// What the controller was promised.
#[derive(Debug, Clone)]
pub struct Told {
    formatted: Maybe<bool>,
    vote: Maybe<Option<(u64, u32)>>,
    purged: Maybe<Option<At>>,
    /// Entries acknowledged, those that a purge may have taken among them.
    entries: Maybe<Entries>,
    /// Entries acknowledged before the last append, and those that lie under a durable end mark.
    before: usize,
    marked: u64,
    snapshot: Maybe<Option<(At, BTreeSet<u32>)>>,
}

impl Default for Told {
    fn default() -> Self {
        Told {
            formatted: Maybe::is(false),
            vote: Maybe::is(None),
            purged: Maybe::is(None),
            entries: Maybe::is(Vec::new()),
            before: 0,
            marked: 0,
            snapshot: Maybe::is(None),
        }
    }
}

/// The controller's directory as a subject of torture.
#[derive(Debug)]
pub struct Controller;

struct Life<'a> {
    told: &'a Mutex<Told>,
    raft: BareStorage,
    /// Locked while the life lasts.
    data: DataDir,
    dice: Dice,
}

fn voter(id: u32) -> VoterSpec {
    let node = VoterNode { host: "h".to_owned(), port: 1, locality: format!("eu/dc{id}/r") };
    VoterSpec { voter: VoterId { id, directory: Uuid::from_u128(u128::from(id) + 1) }, node }
}

fn format(disk: &MemStorage, told: &Mutex<Told>) -> Result<(), Stop> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let voters = [voter(ME), voter(2), voter(3)];
    let directory = voters[0].voter.directory;
    told.lock().formatted.begin(true);
    let formatted =
        format_controller(&storage, Path::new(ROOT), Uuid::from_u128(1), ControllerId(ME), directory, &voters);
    formatted.map_err(|e| Stop::Dead(e.to_string()))?;
    told.lock().formatted.done();
    Ok(())
}

/// The directory and the storage in it, opened as a start does.
fn open(disk: &MemStorage) -> Result<(DataDir, BareStorage, Recovery), Refusal> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let expected = Expected { cluster_id: Some(Uuid::from_u128(1)), node_id: ME, role: Role::Controller };
    let data = DataDir::open(storage.clone(), Path::new(ROOT), &expected)?;
    let voters = bare::first_voters(&storage, &data.raft_dir(), voter(ME).voter)?;
    if voters != [voter(ME), voter(2), voter(3)] {
        return Err(Refusal::Failed(format!("the first voters are {voters:?}")));
    }
    let halt = Halt::recording(|_| ());
    let (raft, recovery) = BareStorage::open(&storage, &data.raft_dir(), SEGMENT_BYTES, halt)?;
    Ok((data, raft, recovery))
}

fn start<'a>(disk: &MemStorage, told: &'a Mutex<Told>, seed: u64) -> Result<Life<'a>, Stop> {
    let (data, raft, _) = open(disk).map_err(|e| Stop::Dead(e.to_string()))?;
    Ok(Life { told, raft, data, dice: Dice(seed) })
}

impl Life<'_> {
    fn vote(&mut self, term: u64, candidate: u32) -> Result<(), Stop> {
        self.told.lock().vote.begin(Some((term, candidate)));
        self.raft.save_vote(term, candidate)?;
        self.told.lock().vote.done();
        Ok(())
    }

    fn append(&mut self, term: u64, batches: u64, voters: Option<&[u32]>) -> Result<(), Stop> {
        let mut entries = self.told.lock().entries.newest().clone();
        let first = match (entries.last(), self.told.lock().purged.newest()) {
            (Some((at, _)), Some(purged)) => at.index.max(purged.index) + 1,
            (Some((at, _)), None) => at.index + 1,
            (None, Some(purged)) => purged.index + 1,
            (None, None) => 0,
        };
        let mut fresh: Entries = Vec::new();
        if let Some(voters) = voters {
            fresh.push((At { index: first, term }, What::Voters(voters.iter().copied().collect())));
        }
        for _ in 0..batches {
            let at = At { index: first + fresh.len() as u64, term };
            let len = 20 + self.dice.below(200) as usize;
            fresh.push((at, What::Batch(Bytes::from(vec![(at.index as u8) ^ 0x5a; len]))));
        }
        let before = entries.len();
        entries.extend(fresh.iter().cloned());
        self.told.lock().entries.begin(entries);
        self.raft.append(&fresh)?;
        let mut told = self.told.lock();
        told.entries.done();
        told.before = before;
        drop(told);
        for (at, what) in fresh {
            // Bytes that are no batch would halt the state machine; what counts here is how far it is and who votes.
            let what = if matches!(what, What::Voters(_)) { what } else { What::Blank };
            self.raft.apply(at, &what)?;
        }
        Ok(())
    }

    fn truncate_after(&mut self, last: At) -> Result<(), Stop> {
        let mut told = self.told.lock();
        let mut entries = told.entries.newest().clone();
        entries.retain(|(at, _)| at.index <= last.index);
        told.marked = told.marked.min(last.index + 1);
        told.before = told.before.min(entries.len());
        told.entries.begin(entries);
        drop(told);
        self.raft.truncate_after(Some(last))?;
        self.told.lock().entries.done();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<(), Stop> {
        let mut told = self.told.lock();
        let last = told.entries.newest().last().map(|(at, _)| *at);
        let voters = voters_in(told.entries.newest(), told.snapshot.newest().as_ref());
        let Some(last) = last else { return Ok(()) };
        told.snapshot.begin(Some((last, voters)));
        drop(told);
        self.raft.snapshot()?;
        self.told.lock().snapshot.done();
        Ok(())
    }

    fn install(&mut self, last: At, voters: &[u32]) -> Result<(), Stop> {
        let voters: BTreeSet<u32> = voters.iter().copied().collect();
        self.told.lock().snapshot.begin(Some((last, voters.clone())));
        self.raft.install(last, &voters)?;
        self.told.lock().snapshot.done();
        Ok(())
    }

    fn purge(&mut self, upto: At) -> Result<(), Stop> {
        self.told.lock().purged.begin(Some(upto));
        self.raft.purge(upto)?;
        let mut told = self.told.lock();
        told.purged.done();
        told.entries.newest_mut().retain(|(at, _)| at.index > upto.index);
        told.before = told.before.min(told.entries.newest().len());
        Ok(())
    }

    fn idle(&mut self) -> Result<(), Stop> {
        self.raft.idle()?;
        let mut told = self.told.lock();
        told.marked = told.entries.newest().last().map_or(0, |(at, _)| at.index + 1);
        Ok(())
    }
}

fn voters_in(entries: &Entries, snapshot: Option<&(At, BTreeSet<u32>)>) -> BTreeSet<u32> {
    let newest = entries.iter().rev().find_map(|(_, what)| match what {
        What::Voters(voters) => Some(voters.clone()),
        What::Blank | What::Batch(_) => None,
    });
    newest.or_else(|| snapshot.map(|(_, voters)| voters.clone())).unwrap_or_default()
}

fn at(term: u64, index: u64) -> At {
    At { index, term }
}

fn first_life(life: &mut Life<'_>) -> Result<(), Stop> {
    life.append(0, 0, Some(&[1, 2, 3]))?;
    life.vote(1, 1)?;
    life.append(1, 6, None)?;
    life.append(1, 5, None)?;
    life.vote(2, 2)?;
    life.truncate_after(at(1, 8))?;
    life.append(2, 4, None)?;
    life.snapshot()?;
    life.purge(at(1, 5))?;
    life.append(2, 6, None)?;
    life.idle()
}

fn second_life(life: &mut Life<'_>) -> Result<(), Stop> {
    life.vote(4, 3)?;
    life.append(4, 3, Some(&[1, 2, 4]))?;
    life.append(4, 5, None)?;
    life.truncate_after(at(4, 24))?;
    life.vote(5, 1)?;
    life.install(at(5, 60), &[1, 4, 5])?;
    life.purge(at(5, 60))?;
    life.append(5, 4, None)?;
    life.append(5, 2, None)
}

impl Subject for Controller {
    type Told = Told;
    type Found = Contents;
    const NAME: &'static str = "controller";

    const PARTS: u32 = 1;

    fn live(disk: &MemStorage, told: &Mutex<Told>, seed: u64) -> Result<(), Stop> {
        Controller::stop(disk, told, seed, Self::STAGES - 1, 0)
    }

    fn stop(disk: &MemStorage, told: &Mutex<Told>, seed: u64, stage: u32, _part: u32) -> Result<(), Stop> {
        format(disk, told)?;
        let mut life = start(disk, told, seed)?;
        first_life(&mut life)?;
        if stage == 0 {
            return Ok(());
        }
        let Life { raft, data, .. } = life;
        raft.close()?;
        drop(data);
        let mut told_now = told.lock();
        told_now.marked = told_now.entries.newest().last().map_or(0, |(at, _)| at.index + 1);
        drop(told_now);
        if stage == 1 {
            return Ok(());
        }
        second_life(&mut start(disk, told, seed ^ 1)?)
    }

    fn harmed(_part: u32, _file: &Path) -> bool {
        true
    }

    fn find(disk: &MemStorage) -> Result<Contents, Refusal> {
        let (_data, raft, _) = open(disk)?;
        raft.contents().map_err(|e| Refusal::Failed(e.to_string()))
    }

    fn find_again(disk: &MemStorage, _before: &Contents, _file: &Path) -> Result<Contents, Refusal> {
        Controller::find(disk)
    }

    fn refuse(told: &Told, found: &Result<Contents, Refusal>) -> Option<String> {
        let found = match found {
            Err(Refusal::NothingThere) if told.formatted.allows(&false) => return None,
            Err(refusal) => return Some(format!("the directory does not open: {refusal}")),
            Ok(found) => found,
        };
        if !told.vote.allows(&found.vote) {
            return Some(format!("vote {:?}, not of {:?}", found.vote, told.vote));
        }
        if !told.purged.allows(&found.purged) {
            return Some(format!("purged up to {:?}, not of {:?}", found.purged, told.purged));
        }
        let snapshot = found.snapshot.as_ref().map(|(at, voters, _)| (*at, voters.clone()));
        if !told.snapshot.allows(&snapshot) {
            return Some(format!("snapshot {snapshot:?}, not of {:?}", told.snapshot));
        }
        let states = told.entries.all();
        let least = states.iter().map(Vec::len).min().unwrap_or(0);
        let fits = |state: &Entries| {
            let left = |entries: &[(At, What)]| -> Entries {
                entries.iter().filter(|(at, _)| found.purged.is_none_or(|p| at.index > p.index)).cloned().collect()
            };
            let promised = left(&state[..least.min(state.len())]).len();
            let all = left(state);
            found.entries.len() >= promised && all.starts_with(&found.entries)
        };
        if !states.iter().any(fits) {
            let ends: Vec<_> = states.iter().map(|s| s.last().map(|(at, _)| *at)).collect();
            let found = found.entries.last().map(|(at, _)| *at);
            return Some(format!("the log ends with {found:?}, told were {ends:?}"));
        }
        let voters = voters_in(&found.entries, snapshot.as_ref());
        let known = !told.entries.newest().is_empty() || snapshot.is_some();
        (known && !found.entries.is_empty() && voters.is_empty()).then(|| "nobody votes any more".to_owned())
    }

    fn unsaid(told: &Told, found: &Contents, but_last_flush: bool) -> Option<String> {
        let mut told = told.clone();
        if but_last_flush {
            let newest = told.entries.newest().clone();
            let before = newest.into_iter().zip(0..);
            let kept = before.filter(|((at, _), n)| *n < told.before || at.index < told.marked).map(|(entry, _)| entry);
            let kept = kept.collect();
            told.entries.begin(kept);
            told.entries.all_mut().rotate_right(1);
        }
        Controller::refuse(&told, &Ok(found.clone()))
    }

    fn unshown(first: &Contents, again: &Contents) -> Option<String> {
        let show = |c: &Contents| {
            let ends = (c.entries.first().map(|(at, _)| *at), c.entries.last().map(|(at, _)| *at));
            let snapshot = c.snapshot.as_ref().map(|(at, voters, _)| (*at, voters.clone()));
            format!("vote {:?}, purged {:?}, entries {ends:?}, snapshot {snapshot:?}", c.vote, c.purged)
        };
        (first != again).then(|| format!("{} then {}", show(first), show(again)))
    }

    fn grows(disk: &MemStorage, found: &Contents, _file: &Path) -> Result<(), String> {
        let failed = |refusal: Refusal| format!("after going on: {refusal}");
        let (data, raft, _) = open(disk).map_err(failed)?;
        let last = found.entries.last().map(|(at, _)| *at).or(found.purged);
        let next = At { index: last.map_or(0, |at| at.index + 1), term: found.vote.map_or(0, |(term, _)| term) };
        raft.append(&[(next, What::Blank)]).map_err(|e| format!("going on: {e}"))?;
        drop((raft, data));
        disk.crash(&mut || false);
        let mut again = Controller::find(disk).map_err(failed)?;
        let more = again.entries.pop();
        if more == Some((next, What::Blank)) && again == *found { Ok(()) } else { Err("other contents".to_owned()) }
    }

    fn differs(told: &Told, before: &Contents, after: &Contents, _file: &Path) -> Result<Difference, String> {
        let same = Contents { entries: before.entries.clone(), voters: before.voters.clone(), ..after.clone() };
        if same != *before {
            return Err("something else is changed, too".into());
        }
        if !before.entries.starts_with(&after.entries) {
            return Err("other entries".into());
        }
        let end = |entries: &[(At, What)]| entries.last().map_or(0, |(at, _)| at.index + 1);
        let flushed = end(told.entries.newest().get(..told.before).unwrap_or_default());
        let purged = after.purged.map_or(0, |p| p.index + 1);
        let (floor, now) = (told.marked.max(flushed), end(&after.entries).max(purged));
        if now < floor {
            return Err(format!("ends at {now}, below {floor}"));
        }
        // Every entry of the script was acknowledged when its append came back.
        let gone = (before.entries.len() - after.entries.len()) as u64;
        Ok(Difference::Gone { batches: gone, acknowledged: gone })
    }

    fn reports(disk: &MemStorage, _file: &Path) -> bool {
        open(disk).is_ok_and(|(_, _, recovery)| recovery.cut.is_some())
    }

    fn unit(file: &Path) -> &Path {
        // Vote, marker and log vouch for each other: one that was written over by another record is missed in the log.
        let raft = Path::new(ROOT).join("raft");
        file.ancestors().find(|above| *above == raft).unwrap_or(file)
    }

    fn kind(file: &Path) -> String {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        match file.extension().and_then(|e| e.to_str()) {
            Some("log") => "raft segment".into(),
            Some("index") => "raft index".into(),
            Some("snapshot") => "raft snapshot".into(),
            Some("began") => "raft witness".into(),
            _ if file.parent() == Some(Path::new(ROOT)) => format!("node {name}"),
            _ if name == "state" => "raft log state".into(),
            _ => format!("raft {name}"),
        }
    }
}

impl From<QuorumStartError> for Refusal {
    fn from(error: QuorumStartError) -> Refusal {
        let text = error.to_string();
        match error {
            QuorumStartError::Disk(DiskError::Log(error)) => error.into(),
            QuorumStartError::Disk(DiskError::Damaged { file, .. })
            | QuorumStartError::Snapshot(SnapshotError::Damaged { file, .. }) => Refusal::Damaged { file, text },
            QuorumStartError::SnapshotMissing { dir, .. } => Refusal::Damaged { file: dir, text },
            _ => Refusal::Failed(text),
        }
    }
}

impl From<FormatError> for Refusal {
    fn from(error: FormatError) -> Refusal {
        match error {
            FormatError::Record(error) => error.into(),
            other => Refusal::Failed(other.to_string()),
        }
    }
}
