//! The repository obeys its own rules. Each test applies one rule of `integration_tests::tidy` to the whole tree and
//! lists every offender at once.

use integration_tests::tidy::{self, dependencies, documents, layout, limits, rules};
use std::path::PathBuf;
use std::process::Command;

fn files() -> Vec<tidy::RustFile> {
    let files = tidy::rust_files(&tidy::root()).expect("the source tree is readable");
    assert!(files.len() > 40, "only {} files found: the walk is broken", files.len());
    files
}

fn sources() -> Vec<tidy::RustFile> {
    files().into_iter().filter(|file| file.path.contains("/src/")).collect()
}

fn none(offences: Vec<String>) {
    assert!(offences.is_empty(), "{} offences:\n{}", offences.len(), offences.join("\n"));
}

fn every(rule: fn(&tidy::RustFile) -> Vec<String>) {
    none(files().iter().flat_map(rule).collect());
}

#[test]
fn every_source_file_says_what_it_owns() {
    none(sources().iter().flat_map(rules::missing_header).collect());
}

#[test]
fn no_production_file_is_too_long() {
    every(rules::too_long);
}

#[test]
fn no_function_is_too_long() {
    every(rules::long_functions);
}

#[test]
fn nothing_is_left_unfinished() {
    every(rules::unfinished);
}

#[test]
fn tests_wait_for_conditions_and_all_of_them_run() {
    every(rules::sleeping_or_ignored_tests);
}

#[test]
fn pure_places_exist_and_are_guarded() {
    none(layout::unguarded(&files()));
}

#[test]
fn pure_code_touches_nothing_outside() {
    every(layout::impure);
}

#[test]
fn crates_are_named_only_where_they_may() {
    none(sources().iter().flat_map(layout::crossed_boundaries).collect());
}

#[test]
fn the_history_checker_knows_nothing_of_what_it_judges() {
    let files: Vec<_> =
        files().into_iter().filter(|file| file.path.starts_with("integration-tests/src/checker/")).collect();
    assert!(files.len() > 10, "only {} files of the checker found", files.len());
    let ours = ["broker", "controller", "log", "client", "deploy", "protocol"];
    let within = ["crate::checker", "crate::chaos::random"];
    let mut found = Vec::new();
    for file in &files {
        for line in file.source.code.lines() {
            let allowed = within.iter().fold(line.to_owned(), |line, path| line.replace(path, ""));
            let names = |name: &&str| {
                let mut places = tidy::source::word_positions(&allowed, name).into_iter();
                places.any(|at| allowed[at + name.len()..].starts_with("::"))
            };
            let words = ours.iter().any(names);
            if words || allowed.contains("crate::") {
                found.push(format!("{}: {}", file.path, line.trim()));
            }
        }
    }
    none(found);
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .current_dir(tidy::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    assert!(metadata["packages"].as_array().is_some_and(|packages| packages.len() > 100));
    none(dependencies::licence_offences(&metadata));
}

#[test]
fn locked_versions_carry_the_published_fixes() {
    let text = std::fs::read_to_string(tidy::root().join("Cargo.lock")).expect("Cargo.lock is committed");
    let lock: toml::Value = toml::from_str(&text).expect("Cargo.lock is toml");
    assert!(dependencies::versions(&lock).contains_key("h2"), "the lock file is not being read");
    none(dependencies::locked_offences(&lock));
}

#[test]
fn no_dependency_is_unused() {
    let files = files();
    let mut found = Vec::new();
    for member in tidy::CRATES {
        let text = std::fs::read_to_string(tidy::root().join(member).join("Cargo.toml")).expect("every member has one");
        let manifest: toml::Value = toml::from_str(&text).expect("a manifest is toml");
        let code: String =
            files.iter().filter(|file| file.crate_dir() == member).map(|f| f.source.code.as_str()).collect();
        found.extend(dependencies::unused(member, &manifest, &code));
    }
    none(found);
}

#[test]
fn the_table_of_limits_equals_the_code() {
    let document = std::fs::read_to_string(tidy::root().join("docs/limits.md")).expect("docs/limits.md exists");
    let code = limits::from_code(&files());
    assert!(code.len() > 5, "only {} limits found in the code", code.len());
    none(limits::differences(&code, &limits::from_document(&document)));
}

#[test]
fn documents_name_only_what_exists() {
    let root = tidy::root();
    let mut found = Vec::new();
    for document in markdown() {
        let text = std::fs::read_to_string(root.join(&document)).expect("listed a moment ago");
        found.extend(documents::dead_paths(&root, &document.to_string_lossy(), &text));
    }
    none(found);
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let needles = [concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/tm", "p/w/")];
    let mut found = Vec::new();
    let texts = files().into_iter().map(|file| (file.path, file.source.text));
    let read = |path: PathBuf| {
        (path.display().to_string(), std::fs::read_to_string(tidy::root().join(path)).unwrap_or_default())
    };
    for (path, text) in texts.chain(markdown().into_iter().map(read)) {
        for needle in needles.iter().filter(|needle| text.contains(**needle)) {
            found.push(format!("{path}: names {needle}"));
        }
    }
    none(found);
}

/// Markdown files of the root and of `docs`, as paths from the root.
fn markdown() -> Vec<PathBuf> {
    let root = tidy::root();
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
        for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(&root).expect("found below the root").to_path_buf());
            }
        }
    }
    found.sort();
    assert!(found.len() >= 3, "the documents are not being found: {found:?}");
    found
}
