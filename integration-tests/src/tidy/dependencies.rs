//! Rules about dependencies: allowed licences, versions that fix published advisories, nothing unused.
//!
//! Owns the lists. Needs no network: licences come from `cargo metadata --offline`, versions from `Cargo.lock`.
//! An advisory database would need one, so the advisories that concern us are kept here as version floors.

use std::collections::BTreeMap;

/// Licences we accept, as SPDX ids. A crate passes if one of its alternatives consists of these.
pub const LICENCES: [&str; 9] = [
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Lowest versions that carry the fixes of published advisories, with the advisory's matter.
pub const FLOORS: [(&str, [u64; 3], &str); 6] = [
    ("h2", [0, 4, 16], "endless empty DATA frames"),
    ("rustls-webpki", [0, 103, 13], "certificate checks"),
    ("lz4_flex", [0, 12, 1], "leaks old buffer contents"),
    ("bytes", [1, 11, 1], "overflow in reserve"),
    ("tonic", [0, 12, 3], "an accept error ended the server"),
    ("openraft", [0, 9, 25], "commit without a quorum"),
];

/// Dependencies that no source names, with the reason they are there.
pub const UNNAMED: [(&str, &str); 5] = [
    ("openraft-rt", "pins the exact version openraft was tested with"),
    ("openraft-rt-tokio", "pins the exact version openraft was tested with"),
    ("openraft-macros", "pins the exact version openraft was tested with"),
    ("tonic-prost", "named by generated code"),
    ("prost-types", "named by generated code"),
];

/// Whether an SPDX expression can be satisfied with [`LICENCES`].
pub fn licence_allowed(expression: &str) -> bool {
    let expression = expression.replace(" / ", " OR ").replace('/', " OR ");
    let tokens: Vec<String> = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace(" WITH ", "\u{1}")
        .split_whitespace()
        .map(|token| token.replace('\u{1}', " WITH "))
        .collect();
    let mut at = 0;
    let allowed = any_of(&tokens, &mut at);
    allowed && at == tokens.len()
}

fn any_of(tokens: &[String], at: &mut usize) -> bool {
    let mut allowed = all_of(tokens, at);
    while tokens.get(*at).is_some_and(|token| token == "OR") {
        *at += 1;
        allowed |= all_of(tokens, at);
    }
    allowed
}

fn all_of(tokens: &[String], at: &mut usize) -> bool {
    let mut allowed = term(tokens, at);
    while tokens.get(*at).is_some_and(|token| token == "AND") {
        *at += 1;
        allowed &= term(tokens, at);
    }
    allowed
}

fn term(tokens: &[String], at: &mut usize) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if token == "(" {
        let allowed = any_of(tokens, at);
        *at += 1;
        return allowed;
    }
    LICENCES.contains(&token.as_str())
}

/// Packages of `cargo metadata` whose licence is not allowed.
pub fn licence_offences(metadata: &serde_json::Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let text = |package: &serde_json::Value, field: &str| package[field].as_str().unwrap_or("none").to_owned();
    packages
        .iter()
        .filter(|package| !licence_allowed(&text(package, "license")))
        .map(|package| format!("{}: licence {}", text(package, "name"), text(package, "license")))
        .collect()
}

/// Locked packages below their floor, and packages from anywhere but crates.io.
pub fn locked_offences(lock: &toml::Value) -> Vec<String> {
    let mut found = Vec::new();
    for package in lock["package"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let version = package["version"].as_str().unwrap_or_default();
        if let Some(source) = package.get("source").and_then(toml::Value::as_str)
            && source != "registry+https://github.com/rust-lang/crates.io-index"
        {
            found.push(format!("{name}: comes from {source}"));
        }
        for (floored, floor, why) in &FLOORS {
            if name == *floored && parse(version) < *floor {
                found.push(format!("{name} {version}: below {floor:?} ({why})"));
            }
        }
    }
    found
}

fn parse(version: &str) -> [u64; 3] {
    let mut parts =
        version.split(['-', '+']).next().unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0));
    [parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0)]
}

/// Dependencies of one manifest that none of the crate's `code` names. `code` is all its Rust text without comments.
pub fn unused(crate_dir: &str, manifest: &toml::Value, code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let Some(dependencies) = manifest.get(table).and_then(toml::Value::as_table) else { continue };
        for name in dependencies.keys() {
            let word = name.replace('-', "_");
            let excused = UNNAMED.iter().any(|(unnamed, _)| unnamed == name);
            if !excused && super::source::word_positions(code, &word).is_empty() {
                found.push(format!("{crate_dir}: {table}.{name} is never named"));
            }
        }
    }
    found
}

/// Versions of each locked package, to see the ones present more than once.
pub fn versions(lock: &toml::Value) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock["package"].as_array().into_iter().flatten() {
        let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
        found.entry(text("name")).or_default().push(text("version"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_expressions_are_read_as_alternatives_and_conjunctions() {
        for good in ["MIT", "MIT/Apache-2.0", "Apache-2.0 / MIT", "MIT OR GPL-3.0", "(MIT OR GPL-3.0) AND Unicode-3.0"]
        {
            assert!(licence_allowed(good), "{good}");
        }
        for bad in ["GPL-3.0", "MIT AND GPL-3.0", "none", "", "(MIT OR Apache-2.0) AND MPL-2.0"] {
            assert!(!licence_allowed(bad), "{bad}");
        }
        assert!(licence_allowed("Apache-2.0 WITH LLVM-exception OR GPL-2.0"));
    }

    #[test]
    fn a_version_below_its_floor_or_from_git_is_found() {
        let lock: toml::Value = toml::from_str(
            "[[package]]\nname = \"h2\"\nversion = \"0.4.2\"\n[[package]]\nname = \"bytes\"\nversion = \"1.12.0\"\nsource = \"git+https://x\"\n",
        )
        .expect("the text above is toml");
        assert_eq!(locked_offences(&lock).len(), 2);
    }

    #[test]
    fn a_dependency_nobody_names_is_found() {
        let manifest: toml::Value =
            toml::from_str("[dependencies]\nfutures-util = \"1\"\nserde = \"1\"\n").expect("toml");
        assert_eq!(unused("x", &manifest, "use futures_util::x;"), vec!["x: dependencies.serde is never named"]);
    }
}
