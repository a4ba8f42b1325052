//! Paths that the documents name must exist, and `path.rs::name` must be a name in that file.
//!
//! Owns the reading of backticked words in Markdown. A word counts as a path if it begins with a workspace member or
//! another folder of the root and has an extension or ends in `/`. Braces name several paths; a `*` must match one.

use std::path::Path;

/// Folders of the root that a document may point into, besides the crates.
const FOLDERS: [&str; 2] = ["docs", ".ci"];

/// Backticked words of a document that name something in the repository, with their 1-based lines.
pub fn named_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for word in line.split('`').skip(1).step_by(2) {
            found.extend(expand(word).into_iter().filter(|word| is_path(word)).map(|word| (number + 1, word)));
        }
    }
    found
}

fn is_path(word: &str) -> bool {
    let Some((first, rest)) = word.split_once('/') else { return false };
    let ours = super::CRATES.contains(&first) || FOLDERS.contains(&first);
    ours && !word.contains(char::is_whitespace) && (rest.is_empty() || rest.contains('.') || rest.ends_with('/'))
}

/// `a/{b,c}.rs` → `a/b.rs`, `a/c.rs`.
fn expand(word: &str) -> Vec<String> {
    let (Some(open), Some(close)) = (word.find('{'), word.find('}')) else { return vec![word.to_owned()] };
    if close < open {
        return vec![word.to_owned()];
    }
    let (head, tail) = (&word[..open], &word[close + 1..]);
    word[open + 1..close].split(',').flat_map(|middle| expand(&format!("{head}{}{tail}", middle.trim()))).collect()
}

/// Named paths of the document that lead nowhere.
pub fn dead_paths(root: &Path, document: &str, text: &str) -> Vec<String> {
    named_paths(text)
        .into_iter()
        .filter_map(|(line, word)| dead(root, &word).map(|why| format!("{document}:{line}: {word}: {why}")))
        .collect()
}

fn dead(root: &Path, word: &str) -> Option<String> {
    let (path, name) = word.split_once("::").map_or((word, None), |(path, name)| (path, Some(name)));
    let path = path.split('#').next().unwrap_or(path);
    if let Some((folder, pattern)) = path.rsplit_once('/').filter(|(_, pattern)| pattern.contains('*')) {
        let suffix = pattern.trim_start_matches('*');
        let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let matches = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix)).count();
        return (matches == 0).then(|| "matches no file".to_owned());
    }
    if !root.join(path).exists() {
        return Some("does not exist".to_owned());
    }
    let name = name?.trim_end_matches("()").rsplit("::").next().unwrap_or_default();
    let text = std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let text = if path.ends_with(".rs") { super::source::Source::new(&text).code } else { text };
    super::source::word_positions(&text, name).is_empty().then(|| format!("no `{name}` in that file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_paths_and_names_are_found() {
        let root = crate::tidy::root();
        let here = "integration-tests/src/tidy/documents.rs";
        let text = format!(
            "`{here}` `{here}::dead_paths` `{here}::nobody` `integration-tests/src/tidy/{{mod,nowhere}}.rs` `log/src/*.xyz`\n```\n`log/x.rs`\n```\n"
        );
        let dead = dead_paths(&root, "d.md", &text);
        assert_eq!(dead.len(), 3, "{dead:?}");
    }

    #[test]
    fn only_paths_of_the_repository_count() {
        assert!(named_paths("`a/b` `x.rs` `cargo run` `broker::replica` `GET /metrics`").is_empty());
    }
}
