//! Reads Rust source just well enough for the repository rules: which characters are code, which lines are
//! tests, where functions begin and end.
//!
//! Owns that reading and nothing else; never judges. It is a lexer for comments, strings and braces, not a parser:
//! rules need to be cheap, and a rule that misreads a strange file fails loudly in review rather than silently.
//! Invariant: [`Source::code`] has exactly the line structure of the file, so a line number found in it is real.

use std::ops::Range;

/// One source file, split into what is code, what is comment and what is test.
#[derive(Debug, Clone)]
pub struct Source {
    /// The text as read.
    pub text: String,
    /// The text with comments and the insides of strings and characters blanked.
    pub code: String,
    /// The comments alone: everything else blanked.
    pub comments: String,
    /// Line numbers (0-based, end exclusive) of items behind `#[cfg(test)]`.
    pub test_lines: Vec<Range<usize>>,
}

/// A function found in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of the word `fn`, 0-based.
    pub line: usize,
    /// Lines from `fn` to the closing brace, both counted.
    pub lines: usize,
}

impl Source {
    /// Splits `text`.
    pub fn new(text: &str) -> Self {
        let (code, comments) = split_comments(text);
        let test_lines = test_items(&code);
        Self { text: text.to_owned(), code, comments, test_lines }
    }

    /// Whether the 0-based line belongs to an item behind `#[cfg(test)]`.
    pub fn is_test_line(&self, line: usize) -> bool {
        self.test_lines.iter().any(|range| range.contains(&line))
    }

    /// Lines of the file outside test items.
    pub fn production_lines(&self) -> usize {
        (0..self.text.lines().count()).filter(|line| !self.is_test_line(*line)).count()
    }

    /// Code lines with their 0-based numbers: `tests` chooses the ones inside or outside test items.
    pub fn code_lines(&self, tests: bool) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().filter(move |(line, _)| self.is_test_line(*line) == tests)
    }

    /// Every function with a body, tests included.
    pub fn functions(&self) -> Vec<Function> {
        let bytes = self.code.as_bytes();
        let mut found = Vec::new();
        for start in word_positions(&self.code, "fn") {
            let name: String =
                self.code[start + 2..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.is_empty() {
                continue; // a function pointer type
            }
            let Some(open) = body_start(bytes, start) else { continue };
            let close = matching_brace(bytes, open);
            let line = line_of(&self.code, start);
            found.push(Function { name, line, lines: line_of(&self.code, close) - line + 1 });
        }
        found
    }
}

/// Byte positions at which `word` stands alone (not inside a longer identifier).
pub fn word_positions(text: &str, word: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.match_indices(word)
        .filter(|(at, _)| {
            let before = at.checked_sub(1).map(|i| bytes[i]);
            let after = bytes.get(at + word.len()).copied();
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
        .map(|(at, _)| at)
        .collect()
}

/// 0-based line of a byte position.
pub fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count()
}

/// The `{` that opens the body of the item at `from`, or None if a `;` ends it first.
fn body_start(bytes: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The `}` that closes the `{` at `open` (or the last byte of an unbalanced file).
fn matching_brace(bytes: &[u8], open: usize) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    bytes.len() - 1
}

/// Line ranges of items that carry `#[cfg(test)]` (or a `cfg(all(test, ..))`), attribute line included.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    for (at, _) in code.match_indices("#[cfg(") {
        let condition = code[at + 6..].split(']').next().unwrap_or_default();
        if !word_positions(condition, "test").iter().any(|_| !condition.contains("not(test")) {
            continue;
        }
        let after = at + 2 + code[at + 2..].find(']').unwrap_or(0) + 1;
        let end = match body_start(code.as_bytes(), after) {
            Some(open) => matching_brace(code.as_bytes(), open),
            None => after + code[after..].find(';').unwrap_or(0),
        };
        ranges.push(line_of(code, at)..line_of(code, end) + 1);
    }
    ranges
}

/// What the lexer is inside of.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Code,
    LineComment,
    BlockComment(u32),
    Str { hashes: Option<usize> },
}

/// `(code, comments)`: each the size of `text`, with what is not theirs blanked and every line break kept.
fn split_comments(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut state = State::Code;
    let mut at = 0;
    while at < chars.len() {
        let (next_state, taken) = advance(&chars, at, state);
        for offset in 0..taken {
            let c = chars[at + offset];
            let opening_or_code =
                state == State::Code && (next_state == State::Code || matches!(next_state, State::Str { .. }));
            let in_comment = matches!(state, State::LineComment | State::BlockComment(_))
                || matches!(next_state, State::LineComment | State::BlockComment(_));
            let blank = |keep: bool| if c == '\n' || keep { c } else { ' ' };
            code.push(blank(opening_or_code && !(taken > 1 && next_state == State::Code)));
            comments.push(blank(in_comment));
        }
        at += taken;
        state = next_state;
    }
    (code, comments)
}

/// One step of the lexer: the state after, and how many characters it took.
fn advance(chars: &[char], at: usize, state: State) -> (State, usize) {
    let c = chars[at];
    let next = chars.get(at + 1).copied();
    match state {
        State::LineComment => (if c == '\n' { State::Code } else { state }, 1),
        State::BlockComment(depth) => match (c, next) {
            ('*', Some('/')) if depth == 1 => (State::Code, 2),
            ('*', Some('/')) => (State::BlockComment(depth - 1), 2),
            ('/', Some('*')) => (State::BlockComment(depth + 1), 2),
            _ => (state, 1),
        },
        State::Str { hashes: None } => match c {
            '\\' if next.is_some() => (state, 2),
            '"' => (State::Code, 1),
            _ => (state, 1),
        },
        State::Str { hashes: Some(count) } => {
            let closes = c == '"' && chars[at + 1..].iter().take(count).filter(|c| **c == '#').count() == count;
            if closes { (State::Code, 1 + count) } else { (state, 1) }
        }
        State::Code => match (c, next) {
            ('/', Some('/')) => (State::LineComment, 2),
            ('/', Some('*')) => (State::BlockComment(1), 2),
            ('"', _) => (State::Str { hashes: None }, 1),
            ('r', Some('"' | '#')) if !previous_is_word(chars, at) => raw_string(chars, at),
            ('\'', Some('\\')) => (State::Code, char_literal(chars, at)),
            ('\'', Some(_)) if chars.get(at + 2) == Some(&'\'') => (State::Code, 3),
            _ => (State::Code, 1),
        },
    }
}

fn previous_is_word(chars: &[char], at: usize) -> bool {
    // `br"..."` and `cr"..."` are raw strings too.
    let previous = at.checked_sub(1).map(|i| chars[i]);
    let before = at.checked_sub(2).map(|i| chars[i]);
    let word = |c: char| c.is_alphanumeric() || c == '_';
    match previous {
        Some('b' | 'c') => before.is_some_and(word),
        Some(c) => word(c),
        None => false,
    }
}

fn raw_string(chars: &[char], at: usize) -> (State, usize) {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) == Some(&'"') {
        (State::Str { hashes: Some(hashes) }, hashes + 2)
    } else {
        (State::Code, 1) // a raw identifier such as r#type
    }
}

fn char_literal(chars: &[char], at: usize) -> usize {
    let end = chars[at + 3..].iter().take(12).position(|c| *c == '\'');
    end.map_or(1, |offset| offset + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_not_code() {
        let source = Source::new(
            "let a = \"tokio // not\"; // tokio\n/* tokio /* nested */ tokio */ let b = r#\"tokio \" \"#;\n",
        );
        assert!(!source.code.contains("tokio"), "{}", source.code);
        assert!(source.code.contains("let a") && source.code.contains("let b"));
        assert_eq!(source.comments.matches("tokio").count(), 3);
        assert_eq!(source.code.lines().count(), source.text.lines().count());
    }

    #[test]
    fn quotes_in_characters_do_not_open_strings() {
        let source = Source::new("let q = '\"'; let e = '\\''; let s = '\\u{1F}'; fn f<'a>(x: &'a str) { call(x) }\n");
        assert!(source.code.contains("call(x)"), "{}", source.code);
        assert_eq!(source.functions()[0].name, "f");
    }

    #[test]
    fn functions_are_measured_to_their_closing_brace() {
        let source = Source::new("fn a();\nfn b<T>(x: [u8; 2]) -> T where T: X {\n  if x { y }\n}\ntype P = fn(u8);\n");
        assert_eq!(source.functions(), vec![Function { name: "b".to_owned(), line: 1, lines: 3 }]);
    }

    #[test]
    fn test_items_are_not_production() {
        let source =
            Source::new("fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\n#[cfg(test)]\nmod more;\nfn c() {}\n");
        assert_eq!(source.production_lines(), 2);
        assert!(source.is_test_line(3) && source.is_test_line(6) && !source.is_test_line(7));
        let kept = Source::new("#[cfg(not(test))]\nfn a() {}\n");
        assert_eq!(kept.production_lines(), 2);
    }
}
