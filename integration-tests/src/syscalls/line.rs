//! One line of `strace -f -yy -xx --absolute-timestamps=unix,ns`, and one whole call.
//!
//! Owns: the text format, all strings and paths of which are in hexadecimal escapes. Pure.
//! Invariant: a call that is not understood is an error, never skipped: it might be the one that matters.

use super::Moment;
use std::path::PathBuf;

/// A line: who, when, what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// The thread.
    pub thread: u32,
    /// When `strace` saw it; the thread stood still meanwhile.
    pub at: Moment,
    /// The rest.
    pub part: Part<'a>,
}

/// What a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// A call from its name to its result.
    Whole(&'a str),
    /// A call up to where another thread's line came between.
    Begun(&'a str),
    /// The rest of it.
    Resumed(&'a str),
    /// A signal, or an end.
    Other,
}

/// What a call did that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Bytes of a file.
    Write {
        /// The file.
        path: PathBuf,
        /// First position.
        from: u64,
        /// Position after the last.
        to: u64,
    },
    /// A file's bytes or a directory's names are durable.
    Sync(PathBuf),
    /// A file or directory has a name since.
    Create(PathBuf),
    /// Bytes that went to a socket.
    Send {
        /// Its own port.
        port: u16,
        /// Both ends.
        connection: String,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Nothing of interest, or a failure.
    Nothing,
}

/// Reads a line.
///
/// # Errors
/// What is not as expected.
pub fn parse(text: &str) -> Result<Line<'_>, String> {
    let wrong = || format!("not a line of strace: {}", head(text));
    let (thread, rest) = text.trim_start().split_once(' ').ok_or_else(wrong)?;
    let (at, rest) = rest.trim_start().split_once(' ').ok_or_else(wrong)?;
    let (seconds, nanos) = at.split_once('.').filter(|(_, nanos)| nanos.len() == 9).ok_or_else(wrong)?;
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| wrong());
    let at = number(seconds)? * 1_000_000_000 + number(nanos)?;
    let part = if rest.starts_with("+++") || rest.starts_with("---") {
        Part::Other
    } else if let Some(resumed) = rest.strip_prefix("<... ") {
        Part::Resumed(resumed.split_once(" resumed>").ok_or_else(wrong)?.1)
    } else if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
        Part::Begun(begun)
    } else {
        Part::Whole(rest)
    };
    Ok(Line { thread: thread.parse().map_err(|_| wrong())?, at, part })
}

/// The beginning of a text, for messages.
pub fn head(text: &str) -> &str {
    text.get(..200).unwrap_or(text)
}

/// What a whole call did. Bytes sent from ports that nobody listens on are not decoded.
///
/// # Errors
/// A call that is not understood, or whose bytes `strace` did not print whole.
pub fn deed(call: &str, ports: &[u16]) -> Result<Deed, String> {
    let wrong = |why: &str| format!("{why}: {}", head(call));
    let (name, rest) = call.split_once('(').ok_or_else(|| wrong("no call"))?;
    let (arguments, result) =
        rest.rsplit_once(") = ").or_else(|| rest.rsplit_once(')').and_then(spaced)).ok_or_else(|| wrong("no end"))?;
    let digits = result.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let Ok(result) = digits.parse::<u64>() else { return Ok(Deed::Nothing) };
    match name {
        "pwrite64" => {
            let path = file_of(arguments).ok_or_else(|| wrong("no file"))?;
            let from = arguments.rsplit_once(", ").and_then(|(_, at)| at.trim().parse::<u64>().ok());
            let from = from.ok_or_else(|| wrong("no position"))?;
            Ok(Deed::Write { path, from, to: from + result })
        }
        "fdatasync" | "fsync" => Ok(Deed::Sync(file_of(arguments).ok_or_else(|| wrong("no file"))?)),
        "openat" | "open" if !arguments.contains("O_CREAT") => Ok(Deed::Nothing),
        "openat" | "open" | "mkdir" | "mkdirat" => {
            let (text, whole) = quoted(arguments).next().ok_or_else(|| wrong("no path"))?;
            let path = unescape(text).filter(|_| whole).ok_or_else(|| wrong("no whole path"))?;
            Ok(Deed::Create(path_of(path).ok_or_else(|| wrong("not UTF-8"))?))
        }
        "write" | "writev" | "sendto" | "sendmsg" => sent(arguments, result, ports).map_err(|why| wrong(&why)),
        _ => Err(wrong("a call that was not asked for")),
    }
}

/// Between `)` and `=` strace may leave more than one space.
fn spaced<'a>((arguments, rest): (&'a str, &'a str)) -> Option<(&'a str, &'a str)> {
    Some((arguments, rest.trim_start().strip_prefix("= ")?))
}

fn sent(arguments: &str, count: u64, ports: &[u16]) -> Result<Deed, String> {
    let Some((_, rest)) = arguments.split_once("<TCP:[") else { return Ok(Deed::Nothing) };
    let (connection, rest) = rest.split_once("]>").ok_or("no end of a connection")?;
    let Some((own, _)) = connection.split_once("->") else { return Ok(Deed::Nothing) };
    let port = own.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).ok_or("no port")?;
    if !ports.contains(&port) {
        return Ok(Deed::Nothing);
    }
    let count = usize::try_from(count).map_err(|_| "too many bytes")?;
    let mut bytes = Vec::new();
    for (text, whole) in quoted(rest) {
        bytes.extend(unescape(text).ok_or("bytes that are not in hexadecimal")?);
        if bytes.len() >= count {
            break;
        }
        if !whole {
            return Err("bytes were left out".to_owned());
        }
    }
    if bytes.len() < count {
        return Err("bytes are missing".to_owned());
    }
    bytes.truncate(count);
    Ok(Deed::Send { port, connection: connection.to_owned(), bytes })
}

/// The file behind the first descriptor.
fn file_of(arguments: &str) -> Option<PathBuf> {
    let (_, rest) = arguments.split_once('<')?;
    path_of(unescape(rest.split_once('>')?.0)?)
}

fn path_of(bytes: Vec<u8>) -> Option<PathBuf> {
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// The quoted strings, and whether each was printed whole.
fn quoted(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, begun) = rest.split_once('"')?;
        let (inner, after) = begun.split_once('"')?;
        rest = after;
        Some((inner, !after.starts_with("...")))
    })
}

/// `\x61\x62` is `ab`.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes().chunks(4);
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    bytes
        .map(|chunk| match chunk {
            [b'\\', b'x', high, low] => Some(digit(*high)? * 16 + digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> String {
        text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    #[test]
    fn lines_are_told_apart() {
        let line = |text| parse(text).expect("a line");
        let whole = line("12  1795284592.000000005 fsync(3<\\x2f>) = 0");
        assert_eq!((whole.thread, whole.at), (12, 1_795_284_592_000_000_005));
        assert_eq!(whole.part, Part::Whole("fsync(3<\\x2f>) = 0"));
        assert_eq!(line("1 2.000000000 fsync(3<\\x2f> <unfinished ...>").part, Part::Begun("fsync(3<\\x2f> "));
        assert_eq!(line("1 2.000000000 <... fsync resumed>) = 0").part, Part::Resumed(") = 0"));
        assert_eq!(line("1 2.000000000 +++ killed by SIGKILL +++").part, Part::Other);
        assert_eq!(line("1 2.000000000 --- SIGTERM {si_signo=SIGTERM} ---").part, Part::Other);
        for bad in ["", "fsync(3) = 0", "1 2.000 fsync(3) = 0", "x 2.000000000 fsync(3) = 0"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_written_synced_and_created() {
        let file = hex("/d/a b");
        let path = PathBuf::from("/d/a b");
        let done = |call: String| deed(&call, &[]).expect("a call");
        let bytes = hex("some bytes, = )");
        let write = Deed::Write { path: path.clone(), from: 4096, to: 4106 };
        assert_eq!(done(format!("pwrite64(7<{file}>, \"{bytes}\", 15, 4096) = 10")), write);
        assert_eq!(done(format!("pwrite64(7<{file}>, \"{bytes}\"..., 15, 4096 ) = 10")), write);
        assert_eq!(done(format!("fdatasync(7<{file}>)             = 0")), Deed::Sync(path.clone()));
        assert_eq!(done(format!("fsync(7<{file}>) = -1 EIO (Input/output error)")), Deed::Nothing);
        assert_eq!(done(format!("fsync(7<{file}>) = ?")), Deed::Nothing);
        let flags = "O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600";
        let open = format!("openat(AT_FDCWD<{}>, \"{file}\", {flags}) = 9<{file}>", hex("/"));
        assert_eq!(done(open), Deed::Create(path.clone()));
        assert_eq!(done(format!("openat(AT_FDCWD, \"{file}\", O_RDONLY) = 9<{file}>")), Deed::Nothing);
        assert_eq!(done(format!("mkdir(\"{file}\", 0700) = 0")), Deed::Create(path));
        assert!(deed("fsync(7) = 0", &[]).is_err() && deed("ftruncate(7<\\x2f>, 3) = 0", &[]).is_err());
    }

    #[test]
    fn what_a_socket_took_is_what_was_sent() {
        let bytes = hex("abcdef");
        let ends = "TCP:[127.0.0.1:20000->127.0.0.1:40000]";
        let sent = |call: String| deed(&call, &[20_000]);
        let send = |bytes: &[u8]| Deed::Send {
            port: 20_000,
            connection: "127.0.0.1:20000->127.0.0.1:40000".to_owned(),
            bytes: bytes.to_vec(),
        };
        assert_eq!(sent(format!("sendto(5<{ends}>, \"{bytes}\", 6, MSG_NOSIGNAL, NULL, 0) = 4")), Ok(send(b"abcd")));
        let parts = format!("[{{iov_base=\"{bytes}\", iov_len=6}}, {{iov_base=\"{bytes}\", iov_len=6}}]");
        assert_eq!(sent(format!("writev(5<{ends}>, {parts}, 2) = 8")), Ok(send(b"abcdefab")));
        assert_eq!(sent(format!("sendto(5<{ends}>, \"{bytes}\"..., 9, MSG_NOSIGNAL, NULL, 0) = 4")), Ok(send(b"abcd")));
        assert!(sent(format!("sendto(5<{ends}>, \"{bytes}\"..., 9, MSG_NOSIGNAL, NULL, 0) = 9")).is_err());
        assert!(sent(format!("writev(5<{ends}>, [], 0) = 3")).is_err());
        let other = ends.replace("20000->", "20001->");
        assert_eq!(sent(format!("sendto(5<{other}>, \"{bytes}\", 6, 0, NULL, 0) = 6")), Ok(Deed::Nothing));
        assert_eq!(sent(format!("write(5<{}>, \"{bytes}\", 6) = 6", hex("pipe:[1]"))), Ok(Deed::Nothing));
    }
}
