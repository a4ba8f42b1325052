//! The voter layout guard: once voters span more than one data centre, no data centre may hold a commit majority of the
//! target set, else its loss could take committed metadata with it; and no change takes away a loss that the voters could
//! bear before. And what the loss of each data centre would do. Pure; looks at nothing but the sets.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

/// What losing one data centre does to the quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DcVerdict {
    /// `region/dc`.
    pub dc: String,
    /// Voters standing there.
    pub voters: usize,
    /// The others are a majority.
    pub continues: bool,
    /// Every committed entry has a copy outside: its voters are fewer than a commit majority.
    pub provably_lossless: bool,
    /// The same for people.
    pub text: String,
}

/// The target set breaks the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "data centre {dc} would hold {held} of {total} voters, a commit majority is {majority}: its loss could lose committed metadata and would stop the rest"
)]
pub struct LayoutRefused {
    /// `region/dc`.
    pub dc: String,
    /// Voters there.
    pub held: usize,
    /// Voters in all.
    pub total: usize,
    /// Smallest majority.
    pub majority: usize,
}

/// The losses that a set of voters bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tolerance {
    /// This many voters, whichever, may fail and the rest go on.
    pub voters: usize,
    /// This many data centres, whichever, may fail and the rest go on.
    pub data_centres: usize,
    /// This many data centres, whichever, may be lost for good without losing a committed entry.
    pub lossless: usize,
}

/// A change would take away a loss that the voters bear now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the voters bear the loss of {old} {what} now and would bear that of {new}: replace voters in one change, or force it"
)]
pub struct ToleranceLost {
    /// Of what.
    pub what: &'static str,
    /// How many now.
    pub old: usize,
    /// How many after the change.
    pub new: usize,
}

/// Smallest number of voters that commits.
#[must_use]
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The data centre part of a locality path `region/dc/rack`.
#[must_use]
pub fn data_centre(locality: &str) -> String {
    match locality.rsplit_once('/') {
        Some((dc, _rack)) => dc.to_owned(),
        None => locality.to_owned(),
    }
}

fn by_data_centre<'a>(localities: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for locality in localities {
        *counts.entry(data_centre(locality)).or_insert(0) += 1;
    }
    counts
}

/// Whether voters at these localities keep the rule.
///
/// # Errors
/// [`LayoutRefused`] naming the data centre with too many.
pub fn check_layout<'a>(localities: impl IntoIterator<Item = &'a str>) -> Result<(), LayoutRefused> {
    let counts = by_data_centre(localities);
    let total: usize = counts.values().sum();
    if counts.len() < 2 {
        return Ok(());
    }
    let majority = majority(total);
    match counts.into_iter().find(|(_, held)| *held >= majority) {
        Some((dc, held)) => Err(LayoutRefused { dc, held, total, majority }),
        None => Ok(()),
    }
}

/// What voters at these localities bear.
#[must_use]
pub fn tolerance<'a>(localities: impl IntoIterator<Item = &'a str>) -> Tolerance {
    let mut held: Vec<usize> = by_data_centre(localities).into_values().collect();
    held.sort_unstable_by(|a, b| b.cmp(a));
    let total: usize = held.iter().sum();
    let majority = majority(total);
    // The worst data centres to lose are the largest ones.
    let lost: Vec<usize> = held
        .iter()
        .scan(0, |sum, held| {
            *sum += held;
            Some(*sum)
        })
        .collect();
    Tolerance {
        voters: total.saturating_sub(majority),
        data_centres: lost.iter().take_while(|lost| total - **lost >= majority).count(),
        lossless: lost.iter().take_while(|lost| **lost < majority).count(),
    }
}

/// Whether a change from these localities to those keeps every loss bearable that was.
///
/// # Errors
/// [`ToleranceLost`].
pub fn check_change<'a>(
    old: impl IntoIterator<Item = &'a str>,
    new: impl IntoIterator<Item = &'a str>,
) -> Result<(), ToleranceLost> {
    let (old, new) = (tolerance(old), tolerance(new));
    let kinds = [
        ("voters", old.voters, new.voters),
        ("data centres", old.data_centres, new.data_centres),
        ("data centres without losing a committed entry", old.lossless, new.lossless),
    ];
    match kinds.into_iter().find(|(_, old, new)| new < old) {
        Some((what, old, new)) => Err(ToleranceLost { what, old, new }),
        None => Ok(()),
    }
}

/// What the loss of each data centre would do, in order of name.
#[must_use]
pub fn verdicts<'a>(localities: impl IntoIterator<Item = &'a str>) -> Vec<DcVerdict> {
    let counts = by_data_centre(localities);
    let total: usize = counts.values().sum();
    let majority = majority(total);
    counts
        .into_iter()
        .map(|(dc, voters)| {
            let left = total - voters;
            let (continues, provably_lossless) = (left >= majority, voters < majority);
            let goes = if continues { "the quorum continues" } else { "the quorum stops" };
            let keeps = if provably_lossless {
                "every committed entry has a copy elsewhere"
            } else {
                "committed entries may have no copy elsewhere"
            };
            let text =
                format!("without {dc} {left} of {total} voters are left, {majority} are needed: {goes}; {keeps}");
            DcVerdict { dc, voters, continues, provably_lossless, text }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `&[2, 2, 1]` = voters per data centre.
    fn layout(per_dc: &[usize]) -> Vec<String> {
        per_dc.iter().enumerate().flat_map(|(dc, n)| (0..*n).map(move |rack| format!("eu/dc{dc}/r{rack}"))).collect()
    }

    fn allowed(per_dc: &[usize]) -> bool {
        check_layout(layout(per_dc).iter().map(String::as_str)).is_ok()
    }

    #[test]
    fn no_data_centre_may_hold_a_commit_majority_once_there_are_several() {
        for good in [&[1][..], &[3], &[5], &[1, 1, 1], &[2, 2, 1], &[2, 2, 2], &[1, 1], &[3, 3], &[2, 2]] {
            assert!(allowed(good), "{good:?}");
        }
        for bad in [&[2, 1][..], &[3, 1, 1], &[3, 2], &[4, 2, 1], &[1, 4]] {
            assert!(!allowed(bad), "{bad:?}");
        }
    }

    #[test]
    fn the_refusal_names_the_data_centre() {
        let sites = layout(&[1, 2]);
        let refused = check_layout(sites.iter().map(String::as_str)).expect_err("two of three in one");
        assert_eq!((refused.dc.as_str(), refused.held, refused.total, refused.majority), ("eu/dc1", 2, 3, 2));
    }

    #[test]
    fn no_change_takes_away_a_loss_that_could_be_borne() {
        let judge = |old: &[usize], new: &[usize]| {
            let (old, new) = (layout(old), layout(new));
            check_change(old.iter().map(String::as_str), new.iter().map(String::as_str)).map_err(|lost| lost.what)
        };
        for (old, new) in [
            (&[1, 1, 1][..], &[1, 1, 1][..]),
            (&[1, 1, 1], &[2, 2, 2]),
            (&[1, 1, 1], &[2, 2, 1]),
            (&[1], &[1, 1, 1]),
            (&[4], &[3]),
            (&[3], &[3, 3]),
            (&[2, 1], &[1, 1, 1]),
        ] {
            assert_eq!(judge(old, new), Ok(()), "{old:?} to {new:?}");
        }
        let without_loss = "data centres without losing a committed entry";
        for (old, new, what) in [
            (&[1, 1, 1][..], &[1][..], "voters"),
            (&[1, 1, 1], &[1, 1], "voters"),
            (&[3], &[1], "voters"),
            (&[2, 2, 1], &[1, 1, 1], "voters"),
            (&[1, 1, 1], &[3], "data centres"),
            (&[1, 1, 1], &[3, 3], "data centres"),
            (&[3, 3], &[6], without_loss),
        ] {
            assert_eq!(judge(old, new), Err(what), "{old:?} to {new:?}");
        }
    }

    #[test]
    fn tolerance_agrees_with_losing_every_set() {
        for per_dc in [&[1, 1, 1][..], &[2, 2, 1], &[2, 2, 2], &[3, 3], &[3], &[2, 1], &[1], &[1, 1, 1, 1, 1], &[4, 1]]
        {
            let sites = layout(per_dc);
            let (total, dcs) = (sites.len(), per_dc.len());
            // Dumb: the largest k such that no set of k data centres does harm.
            let largest = |harmless: &dyn Fn(usize) -> bool| {
                let held = |set: u32| (0..dcs).filter(|dc| set & (1 << dc) != 0).map(|dc| per_dc[dc]).sum::<usize>();
                let all = |k: u32| (0u32..1 << dcs).filter(|s| s.count_ones() == k).all(|s| harmless(held(s)));
                (1..=u32::try_from(dcs).expect("few")).take_while(|k| all(*k)).count()
            };
            let expected = Tolerance {
                voters: (0..total).filter(|dead| total - dead >= majority(total)).count() - 1,
                data_centres: largest(&|lost| total - lost >= majority(total)),
                lossless: largest(&|lost| lost < majority(total)),
            };
            assert_eq!(tolerance(sites.iter().map(String::as_str)), expected, "{per_dc:?}");
        }
    }

    #[test]
    fn verdicts_agree_with_counting_every_possible_commit_set() {
        for per_dc in [&[1, 1, 1][..], &[2, 2, 1], &[2, 2, 2], &[3, 3], &[3], &[2, 1], &[1]] {
            let sites = layout(per_dc);
            let found = verdicts(sites.iter().map(String::as_str));
            for verdict in found {
                let outside: Vec<bool> = sites.iter().map(|s| data_centre(s) != verdict.dc).collect();
                let n = outside.len();
                // Dumb: a commit set is any set of voters that is a majority; lossless if each has a member outside.
                let sets = (0u32..1 << n).filter(|set| set.count_ones() as usize >= majority(n));
                let lossless = sets.clone().all(|set| (0..n).any(|i| set & (1 << i) != 0 && outside[i]));
                let continues = outside.iter().filter(|o| **o).count() >= majority(n);
                assert_eq!((verdict.continues, verdict.provably_lossless), (continues, lossless), "{per_dc:?}");
            }
        }
    }
}
