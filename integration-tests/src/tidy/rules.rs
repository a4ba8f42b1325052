//! Rules that look at one file: header, size, length of functions, unfinished work, sleeping and ignored tests.
//!
//! Owns the numbers and words of `docs/style.md`; each function returns one line per offence, empty when all is well.

use super::RustFile;
use super::source::word_positions;

/// Longest production file, in lines. In every code base we looked at, the one god file is where design was lost.
pub const MAX_PRODUCTION_LINES: usize = 500;

/// Longest function, in lines: what fits on one screen and can be held in the head.
pub const MAX_FUNCTION_LINES: usize = 70;

/// Functions that may sleep in tests: they poll a condition until a deadline, and sleep between two looks; or they hold
/// a fault for the time it is planned to last; or they let simulated time pass.
pub const POLLING_HELPERS: [&str; 7] = [
    "eventually",
    "eventually_async",
    "within_patience",
    "within_patience_async",
    "wait_until",
    "hold_fault",
    "simulated_pause",
];

/// Production files without a header comment.
pub fn missing_header(file: &RustFile) -> Vec<String> {
    if file.is_test_file() {
        return vec![];
    }
    let begins = file.source.text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    if begins.starts_with("//!") { vec![] } else { vec![format!("{}: no `//!` header comment", file.path)] }
}

/// Production files over [`MAX_PRODUCTION_LINES`].
pub fn too_long(file: &RustFile) -> Vec<String> {
    let lines = file.source.production_lines();
    if file.is_test_file() || lines <= MAX_PRODUCTION_LINES {
        return vec![];
    }
    vec![format!("{}: {lines} production lines, at most {MAX_PRODUCTION_LINES}", file.path)]
}

/// Production functions over [`MAX_FUNCTION_LINES`].
pub fn long_functions(file: &RustFile) -> Vec<String> {
    if file.is_test_file() {
        return vec![];
    }
    let offends = |function: &super::source::Function| {
        function.lines > MAX_FUNCTION_LINES && !file.source.is_test_line(function.line)
    };
    file.source
        .functions()
        .into_iter()
        .filter(offends)
        .map(|f| {
            format!("{}:{}: fn {} has {} lines, at most {MAX_FUNCTION_LINES}", file.path, f.line + 1, f.name, f.lines)
        })
        .collect()
}

/// Words of unfinished work, in comments or code.
pub fn unfinished(file: &RustFile) -> Vec<String> {
    let in_comments = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
    let phrases = [concat!("for", " now"), concat!("place", "holder"), concat!("stub", "bed")];
    let in_code = [concat!("db", "g!"), concat!("to", "do!"), concat!("unimpl", "emented!")];
    let mut found = Vec::new();
    for (number, line) in file.source.comments.lines().enumerate() {
        let words = in_comments.iter().filter(|word| !word_positions(line, word).is_empty());
        let lower = line.to_lowercase();
        for word in words.chain(phrases.iter().filter(|phrase| lower.contains(**phrase))) {
            found.push(format!("{}:{}: {word} in a comment", file.path, number + 1));
        }
    }
    for (number, line) in file.source.code.lines().enumerate() {
        for word in in_code.iter().filter(|word| line.contains(**word)) {
            found.push(format!("{}:{}: {word}", file.path, number + 1));
        }
    }
    found
}

/// Tests that sleep instead of waiting for a condition, and tests that never run.
pub fn sleeping_or_ignored_tests(file: &RustFile) -> Vec<String> {
    let functions = file.source.functions();
    let mut found = Vec::new();
    for (number, line) in file.source.code.lines().enumerate() {
        if !(file.is_test_file() || file.crate_dir() == "integration-tests" || file.source.is_test_line(number)) {
            continue;
        }
        let inside = functions.iter().filter(|f| (f.line..f.line + f.lines).contains(&number)).max_by_key(|f| f.line);
        let helper = inside.is_some_and(|f| POLLING_HELPERS.contains(&f.name.as_str()));
        if !word_positions(line, "sleep").is_empty() && line.contains("sleep(") && !helper {
            found.push(format!("{}:{}: a test sleeps; wait for the condition instead", file.path, number + 1));
        }
        if line.contains("#[ignore") {
            found.push(format!("{}:{}: an ignored test", file.path, number + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_offender() {
        assert_eq!(missing_header(&RustFile::new("log/src/a.rs", "use x;\n")).len(), 1);
        assert_eq!(missing_header(&RustFile::new("log/src/a.rs", "//! Owns a.\n")).len(), 0);

        let long = "//! x\n".to_owned() + &"const A: u8 = 0;\n".repeat(500);
        assert_eq!(too_long(&RustFile::new("log/src/a.rs", &long)).len(), 1);
        assert_eq!(too_long(&RustFile::new("log/src/a/tests.rs", &long)).len(), 0);

        let function = format!("fn f() {{\n{}}}\n", "  x();\n".repeat(69));
        assert_eq!(long_functions(&RustFile::new("log/src/a.rs", &function)).len(), 1);
        let inside = format!("#[cfg(test)]\nmod tests {{\n{function}}}\n");
        assert_eq!(long_functions(&RustFile::new("log/src/a.rs", &inside)).len(), 0);
    }

    #[test]
    fn unfinished_work_is_found_in_comments_and_macros() {
        let text = format!(
            "// {}: later\nfn f() {{ {}(1); }} // {} it works\n",
            concat!("TO", "DO"),
            concat!("db", "g!"),
            concat!("For", " now")
        );
        assert_eq!(unfinished(&RustFile::new("log/src/a.rs", &text)).len(), 3);
        assert!(unfinished(&RustFile::new("log/src/a.rs", "let todo_list = \"x\"; // a mastodon\n")).is_empty());
    }

    #[test]
    fn only_polling_helpers_may_sleep_in_tests() {
        let sleeper = "fn test_a() { std::thread::sleep(x); }\nfn eventually() { thread::sleep(x); }\n";
        assert_eq!(sleeping_or_ignored_tests(&RustFile::new("log/tests/it/a.rs", sleeper)).len(), 1);
        assert_eq!(sleeping_or_ignored_tests(&RustFile::new("log/src/a.rs", sleeper)).len(), 0);
        let ignored = "#[cfg(test)]\nmod tests {\n #[test]\n #[ignore]\n fn a() {}\n}\n";
        assert_eq!(sleeping_or_ignored_tests(&RustFile::new("log/src/a.rs", ignored)).len(), 1);
    }
}
