//! Which directories below a path are logs.

use std::io;
use std::path::{Path, PathBuf};

/// Directories at or below `path` that hold segments, sorted. A segment's own path stands for its directory.
///
/// # Errors
/// When a directory cannot be read.
pub fn logs(path: &Path) -> io::Result<Vec<PathBuf>> {
    let path = std::path::absolute(path)?;
    if path.is_file() {
        let parent = path.parent().filter(|_| is_segment(&path));
        return parent
            .map(|parent| vec![parent.to_path_buf()])
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a segment: NNNNNNNNNNNNNNNNNNNN.log"));
    }
    let mut found = Vec::new();
    walk(&path, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut holds_segments = false;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            walk(&path, found)?;
        } else if is_segment(&path) {
            holds_segments = true;
        }
    }
    if holds_segments {
        found.push(dir.to_path_buf());
    }
    Ok(())
}

/// Bytes of the files at or below a path; links are not followed.
///
/// # Errors
/// When something below it cannot be read.
pub fn size_of(path: &Path) -> io::Result<u64> {
    let meta = std::fs::symlink_metadata(path)?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    std::fs::read_dir(path)?.map(|entry| size_of(&entry?.path())).sum()
}

fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_suffix(".log").is_some_and(|stem| stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_found_by_their_segments() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for folder in ["partitions/a-0", "partitions/b-0", "raft"] {
            std::fs::create_dir_all(dir.path().join(folder)).expect("writable");
        }
        let segment = dir.path().join("partitions/a-0/00000000000000000007.log");
        std::fs::write(&segment, b"").expect("writable");
        std::fs::write(dir.path().join("raft/process.log"), b"").expect("writable");
        let expected = vec![dir.path().join("partitions/a-0")];
        assert_eq!(logs(dir.path()).expect("readable"), expected);
        assert_eq!(logs(&segment).expect("readable"), expected);
        assert!(logs(&dir.path().join("raft/process.log")).is_err());
        assert!(logs(&dir.path().join("nowhere")).is_err());
    }
}
