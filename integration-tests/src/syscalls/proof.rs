//! Is each claim covered: were the bytes written, synced after that, and the sync back before the claim left?
//!
//! Owns: the judgement. Pure. Never: knows what a record, a partition or a log is.
//! Invariant: a claim without evidence is a mismatch, whatever the reason for the lack.

use super::Moment;
use super::line::Deed;
use super::trace::Call;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// First byte.
    pub from: u64,
    /// After the last.
    pub to: u64,
}

/// Something that a node said was durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What, for messages.
    pub what: String,
    /// When it began to say so.
    pub sent: Moment,
    /// Where the bytes lie, a place for each node that has them.
    pub places: Vec<Place>,
    /// How many of the nodes it rests on.
    pub needed: usize,
}

/// Why a place does not support a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// Some of the bytes had not been written.
    NotWritten,
    /// No sync that began after the last write was back.
    NotSynced,
    /// The name of this was not synced in its directory.
    NameNotSynced(PathBuf),
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWritten => write!(f, "not all written"),
            Self::NotSynced => write!(f, "written, no sync back since"),
            Self::NameNotSynced(path) => write!(f, "no sync of the name of {}", path.display()),
        }
    }
}

/// What all nodes did to their disks.
#[derive(Debug, Default)]
pub struct Disks {
    writes: BTreeMap<PathBuf, Vec<(Moment, Moment, u64, u64)>>,
    syncs: BTreeMap<PathBuf, Vec<(Moment, Moment)>>,
    created: BTreeMap<PathBuf, Moment>,
}

/// The outcome over many claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    /// Claims judged.
    pub claims: usize,
    /// Places that supported theirs.
    pub places: usize,
    /// Claims that too few places supported, with the reasons.
    pub mismatches: Vec<String>,
}

impl Disks {
    /// Adds what a call did.
    pub fn add(&mut self, call: &Call) {
        match &call.deed {
            Deed::Write { path, from, to } => {
                self.writes.entry(path.clone()).or_default().push((call.begin, call.end, *from, *to));
            }
            Deed::Sync(path) => self.syncs.entry(path.clone()).or_default().push((call.begin, call.end)),
            Deed::Create(path) => {
                // A file opened again with the same flags was there; the first time counts.
                self.created.entry(path.clone()).or_insert(call.end);
            }
            Deed::Send { .. } | Deed::Nothing => {}
        }
    }

    /// Calls that made something durable.
    pub fn syncs(&self) -> usize {
        self.syncs.values().map(Vec::len).sum()
    }

    /// Whether the bytes there were durable, name and all, at a moment.
    ///
    /// # Errors
    /// What was missing.
    pub fn durable(&self, place: &Place, at: Moment) -> Result<(), Gap> {
        let overlaps = |from: u64, to: u64| from < place.to && to > place.from;
        let writes = self.writes.get(&place.path).map(Vec::as_slice).unwrap_or_default();
        let mut writes: Vec<_> =
            writes.iter().filter(|(begin, _, from, to)| *begin < at && overlaps(*from, *to)).collect();
        writes.sort_by_key(|(_, _, from, _)| *from);
        let reach = writes
            .iter()
            .fold(place.from, |reach, (_, _, from, to)| if *from <= reach { reach.max(*to) } else { reach });
        let written = writes.iter().map(|(_, end, ..)| *end).max();
        let Some(written) = written.filter(|_| reach >= place.to) else { return Err(Gap::NotWritten) };
        if !self.synced(&place.path, written, at) {
            return Err(Gap::NotSynced);
        }
        let mut name = place.path.as_path();
        while let (Some(created), Some(parent)) = (self.created.get(name), name.parent()) {
            if !self.synced(parent, *created, at) {
                return Err(Gap::NameNotSynced(name.to_owned()));
            }
            name = parent;
        }
        Ok(())
    }

    fn synced(&self, path: &Path, since: Moment, at: Moment) -> bool {
        self.syncs.get(path).is_some_and(|syncs| syncs.iter().any(|(begin, end)| *begin >= since && *end <= at))
    }

    /// Judges each claim.
    pub fn prove(&self, claims: &[Claim]) -> Proof {
        let mut proof = Proof { claims: claims.len(), ..Proof::default() };
        for claim in claims {
            let gaps: Vec<_> =
                claim.places.iter().filter_map(|p| self.durable(p, claim.sent).err().map(|gap| (p, gap))).collect();
            let held = claim.places.len() - gaps.len();
            proof.places += held;
            if held < claim.needed {
                let gaps: Vec<_> =
                    gaps.iter().map(|(p, gap)| format!("{} at {}: {gap}", p.path.display(), p.from)).collect();
                proof.mismatches.push(format!(
                    "{}: {held} of {} hold it; {}",
                    claim.what,
                    claim.needed,
                    gaps.join("; ")
                ));
            }
        }
        proof
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disks(calls: &[(Moment, Moment, Deed)]) -> Disks {
        let mut disks = Disks::default();
        for (begin, end, deed) in calls {
            disks.add(&Call { begin: *begin, end: *end, deed: deed.clone() });
        }
        disks
    }

    fn write(from: u64, to: u64) -> Deed {
        Deed::Write { path: "/d/f".into(), from, to }
    }

    fn place() -> Place {
        Place { path: "/d/f".into(), from: 10, to: 20 }
    }

    fn sync(path: &str) -> Deed {
        Deed::Sync(path.into())
    }

    #[test]
    fn bytes_are_durable_when_a_sync_after_their_write_is_back() {
        let good = disks(&[(1, 2, write(10, 20)), (2, 5, sync("/d/f"))]);
        assert_eq!(good.durable(&place(), 5), Ok(()));
        assert_eq!(good.durable(&place(), 4), Err(Gap::NotSynced));
        let beside = disks(&[(1, 3, write(10, 20)), (2, 5, sync("/d/f"))]);
        assert_eq!(beside.durable(&place(), 9), Err(Gap::NotSynced));
        let other = disks(&[(1, 2, write(10, 20)), (2, 5, sync("/d/g"))]);
        assert_eq!(other.durable(&place(), 9), Err(Gap::NotSynced));
        let again = disks(&[(1, 2, write(10, 20)), (2, 5, sync("/d/f")), (6, 7, write(19, 25))]);
        assert_eq!(again.durable(&place(), 9), Err(Gap::NotSynced));
    }

    #[test]
    fn every_byte_must_have_been_written() {
        let hole = disks(&[(1, 2, write(10, 14)), (1, 2, write(15, 20)), (3, 4, sync("/d/f"))]);
        assert_eq!(hole.durable(&place(), 9), Err(Gap::NotWritten));
        let pieces = disks(&[(1, 2, write(14, 20)), (1, 2, write(0, 15)), (3, 4, sync("/d/f"))]);
        assert_eq!(pieces.durable(&place(), 9), Ok(()));
        let late = disks(&[(5, 6, write(10, 20)), (6, 7, sync("/d/f"))]);
        assert_eq!(late.durable(&place(), 5), Err(Gap::NotWritten));
        assert_eq!(Disks::default().durable(&place(), 5), Err(Gap::NotWritten));
    }

    #[test]
    fn a_name_must_be_durable_up_to_what_was_there_before() {
        let made = [(0, 0, Deed::Create("/d".into())), (0, 1, Deed::Create("/d/f".into()))];
        let bytes = [(1, 2, write(10, 20)), (2, 5, sync("/d/f"))];
        let upto = |syncs: &[&str]| {
            let syncs = syncs.iter().map(|path| (5, 6, sync(path)));
            disks(&made.iter().chain(&bytes).cloned().chain(syncs).collect::<Vec<_>>()).durable(&place(), 9)
        };
        assert_eq!(upto(&["/d", "/"]), Ok(()));
        assert_eq!(upto(&["/d"]), Err(Gap::NameNotSynced("/d".into())));
        assert_eq!(upto(&["/"]), Err(Gap::NameNotSynced("/d/f".into())));
    }

    #[test]
    fn a_claim_rests_on_as_many_places_as_it_says() {
        let one = disks(&[(1, 2, write(10, 20)), (2, 5, sync("/d/f"))]);
        let elsewhere = Place { path: "/e/f".into(), ..place() };
        let claim = |needed| Claim { what: "x".to_owned(), sent: 9, places: vec![place(), elsewhere.clone()], needed };
        let proof = one.prove(&[claim(1), claim(2)]);
        assert_eq!((proof.claims, proof.places, proof.mismatches.len()), (2, 2, 1));
        assert!(proof.mismatches[0].contains("1 of 2 hold it; /e/f at 10: not all written"), "{proof:?}");
        // A node whose file does not even have the record gives no place: too few.
        assert_eq!(one.prove(&[Claim { places: vec![], ..claim(1) }]).mismatches.len(), 1);
    }
}
