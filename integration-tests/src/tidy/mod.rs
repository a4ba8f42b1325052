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
    /// Its parent declares it behind `#[cfg(test)]`.
    pub test_module: bool,
}

impl RustFile {
    /// A file by name and text, for tests of the rules.
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), source: source::Source::new(text), test_module: false }
    }

    /// Whether the whole file is test code: under a `tests` or `benches` folder, a `tests.rs`, or a module that its
    /// parent declares for tests.
    pub fn is_test_file(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.test_module || name == "tests.rs" || self.path.split('/').any(|part| part == "tests" || part == "benches")
    }

    /// The files that this one declares as modules behind `#[cfg(test)]`, as the compiler looks for them.
    fn test_modules(&self) -> Vec<String> {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = name.trim_end_matches(".rs");
        let below = if ["mod", "lib", "main"].contains(&stem) { folder.to_owned() } else { format!("{folder}/{stem}") };
        let lines: Vec<&str> = self.source.code.lines().collect();
        let declared =
            lines.iter().enumerate().filter(|(at, _)| self.source.is_test_line(*at)).filter_map(|(_, line)| {
                let name = line.trim().strip_suffix(';')?.rsplit_once("mod ")?.1;
                Some([format!("{below}/{name}.rs"), format!("{below}/{name}/mod.rs")])
            });
        declared.flatten().collect()
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
    let test_modules: Vec<String> = found.iter().flat_map(RustFile::test_modules).collect();
    for file in &mut found {
        file.test_module = test_modules.contains(&file.path);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_declared_for_tests_are_found_where_the_compiler_looks() {
        let parent =
            RustFile::new("log/src/a.rs", "mod b;\n#[cfg(test)]\nmod golden;\n#[cfg(test)]\nmod tests { fn x() {} }\n");
        assert_eq!(parent.test_modules(), ["log/src/a/golden.rs", "log/src/a/golden/mod.rs"]);
        let root = RustFile::new("log/src/lib.rs", "#[cfg(test)]\npub(crate) mod testing;\n");
        assert_eq!(root.test_modules()[0], "log/src/testing.rs");
    }
}
