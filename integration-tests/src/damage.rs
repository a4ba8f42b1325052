//! Damage done to files on purpose: a flipped byte, bytes overwritten everywhere in a folder, a folder copied and put back.
//!
//! Owns the doing; a helper that finds nothing to damage panics, since a test that damaged nothing proves nothing.

use std::path::{Path, PathBuf};

/// Flips the lowest bit of the first byte of `needle` in the file.
///
/// # Panics
/// When the needle is not there.
pub fn flip_at(file: &Path, needle: &[u8]) -> u64 {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let at = bytes.windows(needle.len()).position(|window| window == needle);
    let at = at.unwrap_or_else(|| panic!("{} does not hold {:?}", file.display(), String::from_utf8_lossy(needle)));
    flip(file, at)
}

/// Flips the lowest bit of the byte in the middle of the file.
///
/// # Panics
/// When the file is empty or cannot be written.
pub fn flip_middle(file: &Path) -> u64 {
    let len = std::fs::metadata(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())).len();
    assert!(len > 0, "{} is empty", file.display());
    flip(file, usize::try_from(len / 2).expect("a small file"))
}

fn flip(file: &Path, at: usize) -> u64 {
    let mut bytes = std::fs::read(file).expect("read a moment ago");
    bytes[at] ^= 1;
    std::fs::write(file, bytes).expect("the test's own folder is writable");
    at as u64
}

/// Flips a byte in every so many of every file below the folder; returns how many were flipped.
///
/// # Panics
/// When there is nothing to flip.
pub fn flip_everywhere(folder: &Path, every: usize) -> usize {
    let mut flipped = 0;
    for file in files(folder) {
        let mut bytes = std::fs::read(&file).expect("listed a moment ago");
        for at in (0..bytes.len()).step_by(every) {
            bytes[at] ^= 0x40;
            flipped += 1;
        }
        std::fs::write(&file, bytes).expect("the test's own folder is writable");
    }
    assert!(flipped > 0, "nothing to damage below {}", folder.display());
    flipped
}

/// Every file below a folder.
///
/// # Panics
/// When the folder cannot be read.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Copies a folder with everything in it.
///
/// # Panics
/// When it cannot.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the test's own folder is writable");
    for entry in std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let path = entry.expect("the folder is readable").path();
        let target = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("the test's own folder is writable");
        }
    }
}
