//! All storages behave alike while the process lives; after a loss of power they hold what was synced.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::storage::Storage;
use log::storage::file::FileStorage;
use proptest::prelude::*;

use crate::common::*;

#[derive(Debug, Clone)]
pub(crate) enum Do {
    Create(u8),
    CreateDir(u8),
    Rename(u8, u8),
    Remove(u8),
    RemoveDir(u8),
    Write { name: u8, at: u16, len: u16, fill: u8 },
    SetLen(u8, u16),
    Preallocate(u8, u16),
    Sync(u8),
    SyncDir(u8),
}

pub(crate) fn arb_do() -> impl Strategy<Value = Do> {
    let name = 0u8..6;
    prop_oneof![
        3 => name.clone().prop_map(Do::Create),
        1 => name.clone().prop_map(Do::CreateDir),
        2 => (name.clone(), name.clone()).prop_map(|(a, b)| Do::Rename(a, b)),
        1 => name.clone().prop_map(Do::Remove),
        1 => name.clone().prop_map(Do::RemoveDir),
        6 => (name.clone(), 0u16..9000, 1u16..5000, 1u8..)
            .prop_map(|(name, at, len, fill)| Do::Write { name, at, len, fill }),
        2 => (name.clone(), 0u16..12000).prop_map(|(n, l)| Do::SetLen(n, l)),
        1 => (name.clone(), 0u16..12000).prop_map(|(n, l)| Do::Preallocate(n, l)),
        3 => name.clone().prop_map(Do::Sync),
        3 => name.prop_map(Do::SyncDir),
    ]
}

/// Names 0 and 1 are directories' names, the others lie in one of them or at the top.
fn path(root: &Path, name: u8) -> PathBuf {
    match name {
        0 => root.join("d0"),
        1 => root.join("d1"),
        2 => root.join("d0/a"),
        3 => root.join("d1/a"),
        4 => root.join("b"),
        _ => root.join("c"),
    }
}

pub(crate) fn step(storage: &dyn Storage, root: &Path, what: &Do) -> io::Result<()> {
    match *what {
        Do::Create(n) => storage.create(&path(root, n)).map(drop),
        Do::CreateDir(n) => storage.create_dir(&path(root, n)),
        Do::Rename(a, b) if a != b => storage.rename(&path(root, a), &path(root, b)),
        Do::Rename(..) => Ok(()),
        Do::Remove(n) => storage.remove(&path(root, n)),
        Do::RemoveDir(n) => storage.remove_dir(&path(root, n)),
        Do::Write { name, at, len, fill } => {
            storage.open(&path(root, name))?.write_at(at.into(), &vec![fill; len.into()])
        }
        Do::SetLen(n, len) => storage.open(&path(root, n))?.set_len(len.into()),
        Do::Preallocate(n, len) => storage.open(&path(root, n))?.preallocate(len.into()),
        Do::Sync(n) => storage.open(&path(root, n))?.sync(),
        Do::SyncDir(n) if n > 1 => storage.sync_dir(root),
        Do::SyncDir(n) => storage.sync_dir(&path(root, n)),
    }
}

/// Every file below `root` with its contents, directories with `None`.
pub(crate) fn tree(storage: &dyn Storage, root: &Path) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut out = BTreeMap::new();
    let mut queue = vec![root.to_owned()];
    while let Some(dir) = queue.pop() {
        for entry in storage.list(&dir).expect("list") {
            let path = dir.join(&entry.name);
            let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
            if entry.is_dir {
                out.insert(name, None);
                queue.push(path);
            } else {
                let file = storage.open(&path).expect("open");
                let mut bytes = vec![0xee; file.len().expect("len") as usize + 10];
                let got = file.read_at(0, &mut bytes).expect("read");
                bytes.truncate(got);
                out.insert(name, Some(bytes));
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn the_simulated_disk_behaves_like_the_real_one(steps in proptest::collection::vec(arb_do(), 1..40)) {
        let temp = tempfile::tempdir().expect("temporary directory");
        let real = FileStorage::new(temp.path());
        let memory = disk();
        for what in &steps {
            let (ours, theirs) = (step(&memory, Path::new("/data"), what), step(&real, temp.path(), what));
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}: {:?} and {:?}", what, ours, theirs);
        }
        prop_assert_eq!(tree(&memory, Path::new("/data")), tree(&real, temp.path()));
    }

    #[test]
    fn a_crash_that_keeps_everything_changes_nothing(steps in proptest::collection::vec(arb_do(), 1..40)) {
        let memory = disk();
        for what in &steps {
            drop(step(&memory, Path::new("/data"), what));
        }
        let before = tree(&memory, Path::new("/data"));
        memory.crash(&mut || true);
        prop_assert_eq!(tree(&memory, Path::new("/data")), before);
    }

    #[test]
    fn what_was_synced_survives_whatever_a_crash_keeps(
        steps in proptest::collection::vec(arb_do(), 1..40),
        seed in any::<u64>(),
    ) {
        let memory = disk();
        for what in &steps {
            drop(step(&memory, Path::new("/data"), what));
        }
        let synced = tree(&memory, Path::new("/data"));
        for (name, contents) in &synced {
            let path = Path::new("/data").join(name);
            match contents {
                Some(_) => memory.open(&path).expect("open").sync().expect("sync"),
                None => memory.sync_dir(&path).expect("sync"),
            }
        }
        memory.sync_dir(Path::new("/data")).expect("sync");
        let mut dice = Dice(seed);
        memory.crash(&mut || dice.below(2) == 0);
        prop_assert_eq!(tree(&memory, Path::new("/data")), synced);
    }
}

#[test]
fn the_real_disk_locks_hides_and_stays_inside() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let root = temp.path().join("node");
    let storage = FileStorage::new(&root);
    storage.create_dir(&root).expect("create");
    storage.sync_dir(temp.path()).expect("the root's parent may be synced");
    let lock = storage.lock(&root.join("lock")).expect("lock");
    let again = FileStorage::new(&root).lock(&root.join("lock"));
    assert_eq!(again.expect_err("taken").kind(), io::ErrorKind::WouldBlock);
    drop(lock);
    storage.lock(&root.join("lock")).expect("free again");
    assert!(storage.create(&temp.path().join("outside")).is_err());
    assert!(storage.open(&root.join("../outside")).is_err());
    std::os::unix::fs::symlink("/etc/passwd", root.join("link")).expect("symlink");
    assert!(storage.open(&root.join("link")).is_err(), "links are not followed");
    storage.create(&root.join("file")).expect("create");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(root.join("file")).expect("metadata").permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert!(storage.boot_id().expect("boot id").is_some());
    assert!(storage.free_space(&root).expect("free space") > 0);
    assert!(!storage.exists(&root.join("nothing")).expect("exists"));
}

#[test]
fn a_log_lives_on_real_files() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let storage: Arc<dyn Storage> = Arc::new(FileStorage::new(temp.path()));
    let dir = temp.path().join("log");
    let (mut log, _) = log::Log::open(storage.clone(), &dir, tiny()).expect("open");
    for i in 0..100 {
        log.append(i * 2, &batch(i * 2, 1, 2, 80, i)).expect("append");
        if i % 7 == 0 {
            let flushed = std::thread::scope(|scope| {
                let job = log.flush_job().expect("dirty");
                scope.spawn(|| job.run()).join().expect("no panic").expect("flush")
            });
            log.flushed(flushed).expect("apply");
        }
    }
    let all = read_all(&log);
    log.truncate(150).expect("truncate");
    log.drop_head(20).expect("drop");
    log.close_clean().expect("close");
    let (log, recovery) = log::Log::open(storage, &dir, tiny()).expect("open");
    assert!(recovery.clean);
    assert_eq!(read_all(&log), all[10..75]);
}
