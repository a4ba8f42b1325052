//! A node's trace: whole calls with the moments between which the kernel did them.
//!
//! Owns: joining a call's two lines when another thread's came between, and a call's end.
//! Invariant: a call's end is the moment of the next line of the same trace, or of its own second line: nothing that the
//! node did because of the call is earlier.

use super::Moment;
use super::line::{Deed, Part, deed, head, parse};
use std::collections::BTreeMap;
use std::io::BufRead;

/// A call that did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The kernel had done nothing of it.
    pub begin: Moment,
    /// The kernel had done all of it.
    pub end: Moment,
    /// What it did.
    pub deed: Deed,
}

/// Reads a trace to its end.
///
/// # Errors
/// The first line that cannot be read.
pub fn read(input: impl BufRead, ports: &[u16]) -> Result<Vec<Call>, String> {
    let mut calls: Vec<Call> = Vec::new();
    // Calls that came whole: their end is the next line.
    let mut open: Option<usize> = None;
    let mut halves: BTreeMap<u32, (Moment, String)> = BTreeMap::new();
    for text in input.lines() {
        let text = text.map_err(|error| error.to_string())?;
        let line = parse(&text)?;
        if let Some(at) = open.take() {
            calls[at].end = line.at;
        }
        let (begin, deed) = match line.part {
            Part::Other => continue,
            Part::Begun(begun) => {
                if halves.insert(line.thread, (line.at, begun.to_owned())).is_some() {
                    return Err(format!("a thread in two calls: {}", head(&text)));
                }
                continue;
            }
            Part::Resumed(rest) => {
                let (begin, begun) =
                    halves.remove(&line.thread).ok_or_else(|| format!("no beginning: {}", head(&text)))?;
                (begin, deed(&format!("{begun}{rest}"), ports)?)
            }
            Part::Whole(call) => (line.at, deed(call, ports)?),
        };
        if deed != Deed::Nothing {
            if matches!(line.part, Part::Whole(_)) {
                open = Some(calls.len());
            }
            calls.push(Call { begin, end: line.at, deed });
        }
    }
    // The last call of a trace has no end that could be known.
    if let Some(at) = open {
        calls.remove(at);
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const FILE: &str = "3<\\x2f\\x66>";

    fn calls(text: &str) -> Result<Vec<Call>, String> {
        read(text.as_bytes(), &[])
    }

    #[test]
    fn a_call_ends_when_its_trace_goes_on() {
        let text = format!(
            "1 1.000000001 pwrite64({FILE}, \"\", 0, 7) = 0\n\
             1 1.000000005 fdatasync({FILE} <unfinished ...>\n\
             2 1.000000006 pwrite64({FILE}, \"\", 0, 8) = 0\n\
             1 1.000000009 <... fdatasync resumed>) = 0\n\
             1 1.000000012 fsync({FILE}) = 0\n"
        );
        let path = PathBuf::from("/f");
        let second = 1_000_000_000;
        let write = |begin, end, at| Call {
            begin: second + begin,
            end: second + end,
            deed: Deed::Write { path: path.clone(), from: at, to: at },
        };
        let sync = Call { begin: second + 5, end: second + 9, deed: Deed::Sync(path.clone()) };
        assert_eq!(calls(&text), Ok(vec![write(1, 5, 7), write(6, 9, 8), sync]));
    }

    #[test]
    fn a_trace_with_a_hole_is_refused() {
        assert!(
            calls(&format!("1 1.000000001 <... fdatasync resumed>) = 0\n2 1.000000002 fsync({FILE}) = 0\n")).is_err()
        );
        let twice = format!("1 1.000000001 fsync({FILE} <unfinished ...>\n");
        assert!(calls(&twice.repeat(2)).is_err());
    }
}
