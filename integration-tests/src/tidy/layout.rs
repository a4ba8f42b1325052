//! Which code is pure, and which crates may be named where (the module boundaries of the design).
//!
//! Owns the lists. A pure file decides: it takes state, input and time as arguments and touches nothing outside.
//! Naming a forbidden crate in the wrong folder is found in the text, before any build graph could show it.

use super::RustFile;
use super::source::word_positions;

/// Folders and files of deciding code. A folder's `mod.rs`, or the lone file, carries the deny attribute.
pub const PURE: [&str; 13] = [
    "protocol/src/batch",
    "protocol/src/metadata",
    "protocol/src/timers.rs",
    "log/src/epochs.rs",
    "log/src/retention.rs",
    "controller/src/decide",
    "broker/src/replica",
    "broker/src/lifecycle/state.rs",
    "broker/src/metadata/reconcile.rs",
    "client/src/routing.rs",
    "client/src/retry.rs",
    "client/src/producer/accumulator.rs",
    "client/src/consumer/positions.rs",
];

/// The attribute that binds the lints of `clippy.toml` in a pure place.
pub const DENY: &str = "#![deny(clippy::disallowed_methods, clippy::disallowed_types)]";

/// What deciding code never names.
const IMPURE: [&str; 14] = [
    "async ",
    ".await",
    "tokio",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime",
    "HashMap",
    "HashSet",
    "thread_rng",
    "new_v4",
    "now_v7",
];

/// A crate that only some folders may name.
struct Boundary {
    word: &'static str,
    allowed: &'static [&'static str],
}

const BOUNDARIES: [Boundary; 2] = [
    Boundary { word: "openraft", allowed: &["controller/src/quorum/", "controller/tests/"] },
    Boundary { word: "sled", allowed: &["broker/src/checkpoints"] },
];

/// Whether the file lies in a pure place.
pub fn is_pure(path: &str) -> bool {
    PURE.iter().any(|pure| path == *pure || path.strip_prefix(pure).is_some_and(|rest| rest.starts_with('/')))
}

/// Pure places that are missing, or whose entry file lacks the attribute.
pub fn unguarded(files: &[RustFile]) -> Vec<String> {
    let entry = |pure: &str| if pure.ends_with(".rs") { pure.to_owned() } else { format!("{pure}/mod.rs") };
    let mut found = Vec::new();
    for pure in PURE {
        match files.iter().find(|file| file.path == entry(pure)) {
            None => found.push(format!("{}: a pure place that does not exist", entry(pure))),
            Some(file) if !file.source.code.contains(DENY) => found.push(format!("{}: lacks {DENY}", file.path)),
            Some(_) => {}
        }
    }
    found
}

/// Impure words in the production code of a pure file (listed, or carrying the attribute by itself).
pub fn impure(file: &RustFile) -> Vec<String> {
    if file.is_test_file() || !(is_pure(&file.path) || file.source.code.contains(DENY)) {
        return vec![];
    }
    let mut found = Vec::new();
    for (number, line) in file.source.code_lines(false) {
        for word in IMPURE.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{}: pure code names {}", file.path, number + 1, word.trim()));
        }
    }
    found
}

/// Crates named outside the folders that may.
pub fn crossed_boundaries(file: &RustFile) -> Vec<String> {
    let mut found = Vec::new();
    for boundary in &BOUNDARIES {
        if boundary.allowed.iter().any(|allowed| file.path.starts_with(allowed))
            || file.crate_dir() == "integration-tests"
        {
            continue;
        }
        for at in word_positions(&file.source.code, boundary.word) {
            let path_like = file.source.code[at + boundary.word.len()..].starts_with("::");
            let used = file.source.code[..at].ends_with("use ") || path_like;
            if used {
                let line = super::source::line_of(&file.source.code, at) + 1;
                let allowed = boundary.allowed.join(", ");
                found.push(format!("{}:{line}: names {}, allowed only in {allowed}", file.path, boundary.word));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impure_words_are_found_in_pure_production_code_only() {
        let text = "fn f() { let t = Instant::now(); }\n// tokio\n#[cfg(test)]\nmod tests { use std::fs; }\n";
        assert_eq!(impure(&RustFile::new("controller/src/decide/a.rs", text)).len(), 1);
        assert_eq!(impure(&RustFile::new("controller/src/node.rs", text)).len(), 0);
        assert_eq!(impure(&RustFile::new("controller/src/x.rs", &format!("{DENY}\n{text}"))).len(), 1);
    }

    #[test]
    fn a_pure_place_without_its_guard_is_found() {
        let files: Vec<RustFile> = PURE
            .iter()
            .map(|pure| if pure.ends_with(".rs") { (*pure).to_owned() } else { format!("{pure}/mod.rs") })
            .map(|path| RustFile::new(&path, DENY))
            .collect();
        assert!(unguarded(&files).is_empty());
        assert_eq!(unguarded(&files[1..]).len(), 1);
    }

    #[test]
    fn openraft_is_named_in_its_folder_only() {
        let text = "use openraft::Raft;\nfn f() { openraft::x(); }\n";
        assert_eq!(crossed_boundaries(&RustFile::new("controller/src/decider.rs", text)).len(), 2);
        assert_eq!(crossed_boundaries(&RustFile::new("controller/src/quorum/mod.rs", text)).len(), 0);
    }
}
