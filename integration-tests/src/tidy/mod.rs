//! The repository's rules as code: what `docs/style.md` asks of every file, as functions that find offenders.
//!
//! * [`source`]: reads a Rust file into code, comments, tests, functions.
//! * [`rules`]: rules about one file. * [`layout`]: which folders are pure, who may name which crate.
//! * [`dependencies`]: licences, advisory floors, unused dependencies. * [`limits`]: `docs/limits.md` against the code.
//! * [`documents`]: paths that the documents name.
//!
//! Owns the rules; `tests/tidy.rs` applies them to this repository. It never rewrites a file and has no list of
//! excused offenders: a rule that needs one is the wrong rule. Every rule has a test that makes it fail.

pub mod dependencies;
pub mod documents;
pub mod layout;
pub mod limits;
pub mod rules;
pub mod source;

use std::path::{Path, PathBuf};

/// The workspace members, in order of dependency.
pub const CRATES: [&str; 7] = ["protocol", "log", "controller", "broker", "client", "deploy", "integration-tests"];

/// The workspace's root directory.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies one level below the root").to_path_buf()
}

/// A Rust file of the workspace.
#[derive(Debug, Clone)]
pub struct RustFile {
    /// Path from the root, with `/`.
    pub path: String,
    /// What is in it.
    pub source: source::Source,
}

impl RustFile {
    /// A file by name and text, for tests of the rules.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), source: source::Source::new(text) }
    }

    /// Whether the whole file is test code: under a `tests` or `benches` folder, or a `tests.rs` / `*_tests.rs`.
    pub fn is_test_file(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.split('/').any(|part| part == "tests" || part == "benches")
            || name == "tests.rs"
            || name.ends_with("_tests.rs")
    }

    /// The crate folder it lies in.
    pub fn crate_dir(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }
}

/// Every `.rs` file of the members, sorted by path.
///
/// # Errors
/// When a directory or file cannot be read.
pub fn rust_files(root: &Path) -> std::io::Result<Vec<RustFile>> {
    let mut found = Vec::new();
    for member in CRATES {
        collect(root, &root.join(member), &mut found)?;
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn collect(root: &Path, dir: &Path, found: &mut Vec<RustFile>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(root, &path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            found.push(RustFile::new(&relative, &text));
        }
    }
    Ok(())
}
