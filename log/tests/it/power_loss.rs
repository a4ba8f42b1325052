//! The storage that makes SIGKILL a power loss: after a kill, exactly what was synced is there.

use std::path::Path;

use log::storage::file::FileStorage;
use log::storage::power_loss::PowerLossStorage;
use log::storage::{Storage, create_dir_durably};
use log::{Log, LogConfig};
use proptest::prelude::*;
use std::sync::Arc;

use crate::common::*;
use crate::storage_model::{Do, arb_do, step, tree};

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// The simulated disk that keeps nothing unsynced is the model.
    #[test]
    fn a_kill_leaves_what_was_synced(steps in proptest::collection::vec(arb_do(), 1..50)) {
        let temp = tempfile::tempdir().expect("temporary directory");
        let root = temp.path().join("node");
        std::fs::create_dir(&root).expect("create");
        let memory = disk();
        let storage = PowerLossStorage::new(&root).expect("storage");
        for what in &steps {
            let (ours, theirs) = (step(&storage, &root, what), step(&memory, Path::new("/data"), what));
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?}: {:?} and {:?}", what, ours, theirs);
            if !matches!(what, Do::Write { .. }) {
                prop_assert_eq!(tree(&storage, &root), tree(&memory, Path::new("/data")), "after {:?}", what);
            }
        }
        // The process dies: nothing but the real directory is left.
        drop(storage);
        memory.crash(&mut || false);
        let after = tree(&memory, Path::new("/data"));
        prop_assert_eq!(tree(&FileStorage::new(&root), &root), after.clone());
        prop_assert_eq!(tree(&PowerLossStorage::new(&root).expect("storage"), &root), after);
    }
}

#[test]
fn a_log_keeps_its_durable_end_and_no_more() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let root = temp.path().join("a/b/node");
    let open = |config: LogConfig| {
        let storage: Arc<dyn Storage> = Arc::new(PowerLossStorage::new(&root).expect("storage"));
        create_dir_durably(&*storage, &root).expect("create");
        Log::open(storage, &root.join("log"), config).expect("open").0
    };
    let mut log = open(tiny());
    for i in 0..60 {
        log.append(i * 2, &batch(i * 2, 1, 2, 80, i)).expect("append");
        if i == 41 {
            log.sync().expect("sync");
        }
    }
    assert_eq!(log.durable_end(), 84);
    let log = open(tiny());
    assert_eq!((log.end_offset(), log.durable_end()), (84, 84));
    assert_eq!(read_all(&log).len(), 42);
}

#[test]
fn every_process_has_its_own_boot_and_the_lock_is_real() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let root = temp.path().join("node");
    let one = PowerLossStorage::new(&root).expect("storage");
    create_dir_durably(&one, &root).expect("create");
    let two = PowerLossStorage::new(&root).expect("storage");
    assert_ne!(one.boot_id().expect("boot"), two.boot_id().expect("boot"));
    let _lock = one.lock(&root.join("lock")).expect("lock");
    assert!(two.lock(&root.join("lock")).is_err());
}
