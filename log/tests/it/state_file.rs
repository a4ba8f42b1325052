//! Small durable records: never torn, never silently old.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::storage::Storage;
use log::storage::memory::{Call, Fault, MemStorage};
use log::{Damage, LogError, StateFile};

use crate::common::*;

fn path() -> PathBuf {
    PathBuf::from("/data/vote")
}

fn vote(disk: &MemStorage) -> StateFile {
    StateFile::new(Arc::new(disk.clone()), path())
}

#[test]
fn a_record_is_what_was_stored_last() {
    let disk = disk();
    assert_eq!(vote(&disk).load().expect("load"), None);
    vote(&disk).store(b"one").expect("store");
    vote(&disk).store(b"").expect("an empty record is a record");
    assert_eq!(vote(&disk).load().expect("load"), Some(vec![]));
    vote(&disk).store(b"three").expect("store");
    disk.crash(&mut || false);
    assert_eq!(vote(&disk).load().expect("load"), Some(b"three".to_vec()));
    vote(&disk).delete().expect("delete");
    vote(&disk).delete().expect("twice is fine");
    disk.crash(&mut || false);
    assert_eq!(vote(&disk).load().expect("load"), None);
}

#[test]
fn any_flipped_bit_or_cut_is_damage_with_file_and_position() {
    let disk = disk();
    vote(&disk).store(b"term 7, candidate 3").expect("store");
    let good = disk.contents(&path()).expect("file");
    let refused = |bytes: Vec<u8>, what: String| {
        let len = bytes.len() as u64;
        disk.damage(&path(), bytes).expect("damage");
        match vote(&disk).load() {
            Err(LogError::Damaged(Damage { file, position, .. })) => {
                assert!(file == path() && position <= len, "{what}: {position} of {len}");
            }
            other => panic!("{what} went unseen: {other:?}"),
        }
    };
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            refused(bad, format!("bit {bit} of byte {at}"));
        }
        refused(good[..at].to_vec(), format!("cut to {at}"));
    }
    refused([good.as_slice(), b"x"].concat(), "a byte too many".into());
}

/// Power fails at every call of a store, with everything, nothing, or every other change kept.
#[test]
fn after_a_power_cut_anywhere_in_a_store_the_record_is_the_old_or_the_new_one() {
    let base = disk();
    vote(&base).store(b"old").expect("store");
    let begin = base.calls();
    vote(&base.fork()).store(b"new and longer").expect("store");
    let mut outcomes = [0, 0];
    for stop in 0.. {
        for mode in 0..4u64 {
            let disk = base.fork();
            disk.set_hook(Some(Box::new(move |call: &Call<'_>| {
                (call.number >= begin + stop).then(|| Fault::Fail(std::io::Error::other("power is gone")))
            })));
            let stored = vote(&disk).store(b"new and longer").is_ok();
            let mut asked = 0;
            disk.crash(&mut || {
                asked += 1;
                match mode {
                    0 => false,
                    1 => true,
                    _ => asked % 2 == mode % 2,
                }
            });
            let found = vote(&disk).load().expect("never torn").expect("never gone");
            assert!(found == b"old" || found == b"new and longer");
            assert!(!stored || found == b"new and longer", "stored means durable");
            outcomes[usize::from(found != b"old")] += 1;
            if stored && mode == 3 {
                assert!(outcomes.iter().all(|n| *n > 0), "both outcomes were seen: {outcomes:?}");
                return;
            }
        }
    }
}

#[test]
fn a_leftover_of_an_unfinished_store_is_ignored() {
    let disk = disk();
    vote(&disk).store(b"kept").expect("store");
    let leftover = Path::new("/data/vote.tmp");
    disk.create(leftover).expect("create").write_at(0, b"half a rec").expect("write");
    assert_eq!(vote(&disk).load().expect("load"), Some(b"kept".to_vec()));
    vote(&disk).store(b"next").expect("a leftover is no obstacle");
    assert_eq!(vote(&disk).load().expect("load"), Some(b"next".to_vec()));
}
