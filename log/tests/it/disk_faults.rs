//! The simulated disk's faults are what they say: room, flips, writes that land elsewhere, copies.

use std::io;
use std::path::Path;

use log::storage::Storage;
use log::storage::memory::{BLOCK_BYTES, Call, Fault, MemStorage, Op};

const FILE: &str = "/file";

fn read(disk: &MemStorage, path: &str) -> Vec<u8> {
    disk.contents(Path::new(path)).expect("the file is there")
}

fn create(disk: &MemStorage, path: &str) -> std::sync::Arc<dyn log::storage::StorageFile> {
    disk.create(Path::new(path)).expect("create")
}

#[test]
fn a_disk_takes_no_more_blocks_than_it_has_and_takes_them_again_once_they_are_free() {
    let disk = MemStorage::new();
    disk.set_capacity(Some(5 * BLOCK_BYTES));
    let file = create(&disk, FILE);
    assert_eq!(disk.used(), 2 * BLOCK_BYTES, "the root and the file itself");
    file.preallocate(2 * BLOCK_BYTES).expect("two blocks");
    file.write_at(0, &[1; 2 * BLOCK_BYTES as usize]).expect("they are taken already");
    let full = file.preallocate(4 * BLOCK_BYTES).expect_err("one block is left");
    assert_eq!((full.kind(), file.len().expect("len")), (io::ErrorKind::StorageFull, 2 * BLOCK_BYTES));
    disk.create(Path::new("/other")).expect("the last block");
    assert_eq!(disk.free_space(Path::new("/")).expect("free"), 0);
    for failed in [disk.create(Path::new("/third")).map(drop), disk.create_dir(Path::new("/dir"))] {
        assert_eq!(failed.expect_err("no block").kind(), io::ErrorKind::StorageFull);
    }
    disk.remove(Path::new("/other")).expect("remove");
    let short = file.write_at(2 * BLOCK_BYTES - 100, &[2; BLOCK_BYTES as usize + 101]).expect_err("two blocks");
    assert_eq!(short.kind(), io::ErrorKind::StorageFull);
    assert_eq!(read(&disk, FILE)[2 * BLOCK_BYTES as usize - 100..], [2; 100], "what fits is written");
    file.set_len(10).expect("shorter");
    assert_eq!(disk.used(), 3 * BLOCK_BYTES);
    disk.rename(Path::new(FILE), Path::new("/new")).expect("names cost nothing");
    disk.remove(Path::new("/new")).expect("remove");
    file.write_at(0, &[3; 4 * BLOCK_BYTES as usize]).expect("a file without a name is not counted");
    assert_eq!(disk.used(), BLOCK_BYTES);
}

#[test]
fn after_a_crash_the_room_is_that_of_what_is_there() {
    let disk = MemStorage::new();
    let file = create(&disk, FILE);
    disk.sync_dir(Path::new("/")).expect("sync");
    file.write_at(0, &[1; 3 * BLOCK_BYTES as usize]).expect("write");
    disk.create_dir(Path::new("/dir")).expect("create");
    assert_eq!(disk.used(), 6 * BLOCK_BYTES);
    disk.crash(&mut || false);
    assert_eq!(disk.used(), 2 * BLOCK_BYTES);
    disk.remove(Path::new(FILE)).expect("remove");
    assert_eq!(disk.used(), BLOCK_BYTES);
    disk.crash(&mut || false);
    assert_eq!(disk.used(), 2 * BLOCK_BYTES, "the removal was lost");
}

#[test]
fn a_flipped_read_is_right_the_next_time_and_a_flip_at_rest_is_not() {
    let disk = MemStorage::new();
    let file = create(&disk, FILE);
    disk.sync_dir(Path::new("/")).expect("sync");
    file.write_at(0, &[0; 600]).expect("write");
    disk.set_hook(Some(Box::new(|call: &Call<'_>| (call.op == Op::Read).then_some(Fault::Flip(601 * 8 + 3)))));
    let mut out = [0; 600];
    file.read_at(0, &mut out).expect("read");
    assert_eq!(out.iter().position(|b| *b != 0), Some(1), "modulo what was read");
    disk.set_hook(None);
    file.read_at(0, &mut out).expect("read");
    assert_eq!(out, [0; 600]);
    file.sync().expect("sync");
    file.write_at(512, &[9; 10]).expect("write");
    assert!(disk.flip(Path::new(FILE), 521, 0).expect("there"));
    assert!(!disk.flip(Path::new(FILE), 600, 0).expect("there"));
    assert_eq!((read(&disk, FILE)[521], disk.durable_contents(Path::new(FILE)).expect("there")[521]), (8, 1));
    disk.crash(&mut || false);
    assert_eq!(read(&disk, FILE)[521], 1);
}

#[test]
fn a_misdirected_write_lands_elsewhere_and_nowhere_else() {
    let disk = MemStorage::new();
    let (file, other) = (create(&disk, FILE), create(&disk, "/other"));
    file.write_at(0, &[1; 1024]).expect("write");
    other.write_at(0, &[2; 1024]).expect("write");
    let to = |path: &'static str| -> log::storage::memory::Hook {
        Box::new(move |call: &Call<'_>| (call.op == Op::Write).then(|| Fault::Elsewhere(path.into(), 512)))
    };
    disk.set_hook(Some(to("/other")));
    file.write_at(0, &[3; 512]).expect("it says so");
    disk.set_hook(Some(to("/nowhere")));
    file.write_at(0, &[4; 512]).expect("it says so");
    assert_eq!(read(&disk, FILE), [1; 1024]);
    assert_eq!((&read(&disk, "/other")[..512], &read(&disk, "/other")[512..]), (&[2; 512][..], &[3; 512][..]));
}

#[test]
fn a_copy_of_a_disk_and_its_original_know_nothing_of_each_other() {
    let disk = MemStorage::new();
    let file = create(&disk, FILE);
    disk.sync_dir(Path::new("/")).expect("sync");
    file.write_at(0, &[1; 100]).expect("write");
    let copy = disk.fork();
    file.write_at(0, &[2; 100]).expect("write");
    copy.open(Path::new(FILE)).expect("open").sync().expect("sync");
    copy.crash(&mut || false);
    assert_eq!((read(&copy, FILE), read(&disk, FILE)), (vec![1; 100], vec![2; 100]));
    disk.crash(&mut || false);
    assert_eq!(read(&disk, FILE), Vec::<u8>::new());
}
