//! The percent language of `consume --format`, a subset of rpk's.
//!
//! Owns: parsing of a format and printing of a record by it.
//! Never: guesses: an unknown letter is an error when the format is read, not garbage when records come.

use crate::consumer::ConsumerRecord;
use std::io::{self, Write};

/// One piece of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Value,
    ValueLength,
    Key,
    KeyLength,
    Topic,
    TopicLength,
    Partition,
    Offset,
    Timestamp,
    LeaderEpoch,
    Headers,
}

/// A checked format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFormat(Vec<Piece>);

/// The language, for `--help`.
pub const LANGUAGE: &str = "\
Format: %v value, %k key, %t topic, %p partition, %o offset, %d timestamp (ms since 1970), %e leader epoch,
  %h headers as key=value,..., %V %K %T lengths of value, key and topic in bytes, %% a percent sign;
  \\n newline, \\t tab, \\r return, \\0 zero byte, \\xHH a byte, \\\\ a backslash. Default: '%v\\n'";

impl Default for RecordFormat {
    fn default() -> Self {
        Self(vec![Piece::Value, Piece::Text(vec![b'\n'])])
    }
}

impl RecordFormat {
    /// Reads a format.
    ///
    /// # Errors
    /// Names the letter that means nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => match chars.next() {
                    Some('%') => literal(&mut pieces, b"%"),
                    Some(letter) => pieces.push(verb(letter)?),
                    None => return Err("the format ends with a single %; write %% for a percent sign".to_owned()),
                },
                '\\' => literal(&mut pieces, &[escape(&mut chars)?]),
                c => literal(&mut pieces, c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Ok(Self(pieces))
    }

    /// Prints a record. Null keys and values print as nothing.
    ///
    /// # Errors
    /// `out` cannot be written.
    pub fn print(&self, record: &ConsumerRecord, out: &mut impl Write) -> io::Result<()> {
        let len = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.write_all(text)?,
                Piece::Value => out.write_all(record.value.as_deref().unwrap_or_default())?,
                Piece::Key => out.write_all(record.key.as_deref().unwrap_or_default())?,
                Piece::ValueLength => write!(out, "{}", len(&record.value))?,
                Piece::KeyLength => write!(out, "{}", len(&record.key))?,
                Piece::Topic => out.write_all(record.topic.as_bytes())?,
                Piece::TopicLength => write!(out, "{}", record.topic.len())?,
                Piece::Partition => write!(out, "{}", record.partition)?,
                Piece::Offset => write!(out, "{}", record.offset)?,
                Piece::Timestamp => write!(out, "{}", record.timestamp)?,
                Piece::LeaderEpoch => match record.leader_epoch {
                    Some(epoch) => write!(out, "{epoch}")?,
                    None => out.write_all(b"-1")?,
                },
                Piece::Headers => {
                    for (place, header) in record.headers.iter().enumerate() {
                        let comma = if place == 0 { "" } else { "," };
                        write!(out, "{comma}{}=", header.key)?;
                        out.write_all(header.value.as_deref().unwrap_or_default())?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn literal(pieces: &mut Vec<Piece>, bytes: &[u8]) {
    match pieces.last_mut() {
        Some(Piece::Text(text)) => text.extend_from_slice(bytes),
        _ => pieces.push(Piece::Text(bytes.to_vec())),
    }
}

fn verb(letter: char) -> Result<Piece, String> {
    Ok(match letter {
        'v' => Piece::Value,
        'V' => Piece::ValueLength,
        'k' => Piece::Key,
        'K' => Piece::KeyLength,
        't' => Piece::Topic,
        'T' => Piece::TopicLength,
        'p' => Piece::Partition,
        'o' => Piece::Offset,
        'd' => Piece::Timestamp,
        'e' => Piece::LeaderEpoch,
        'h' => Piece::Headers,
        other => return Err(format!("%{other} means nothing; known: %v %k %t %p %o %d %e %h %V %K %T %%")),
    })
}

fn escape(chars: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match chars.next() {
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some('r') => Ok(b'\r'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            u8::from_str_radix(&digits, 16)
                .ok()
                .filter(|_| digits.len() == 2)
                .ok_or_else(|| format!("\\x{digits} is not a byte; write two hexadecimal digits"))
        }
        other => Err(format!(
            "\\{} means nothing; known: \\n \\t \\r \\0 \\xHH \\\\",
            other.map_or(String::new(), String::from)
        )),
    }
}

/// One byte, as a character or an escape: for `--key-delimiter`.
pub(super) fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if *byte != b'\\' && *byte != b'\n' => Ok(*byte),
        [b'\\', _, ..] => {
            let mut chars = text[1..].chars();
            let byte = escape(&mut chars)?;
            if chars.next().is_none() && byte != b'\n' { Ok(byte) } else { Err("it must be one byte".to_owned()) }
        }
        _ => Err("it must be one byte, such as ':' or '\\t', and not a newline".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordHeader;

    fn record() -> ConsumerRecord {
        ConsumerRecord {
            topic: "orders".into(),
            partition: 2,
            offset: 40,
            timestamp: 1_700,
            leader_epoch: Some(3),
            key: Some("k".into()),
            value: Some("val".into()),
            headers: vec![RecordHeader { key: "h".into(), value: Some("1".into()) }],
        }
    }

    fn print(format: &str) -> String {
        let mut out = Vec::new();
        RecordFormat::parse(format).unwrap().print(&record(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn prints_each_part() {
        assert_eq!(
            print(r"%t/%p@%o %k=%v %d e%e [%h] %K,%V,%T 100%%\n\t\x41\\"),
            "orders/2@40 k=val 1700 e3 [h=1] 1,3,6 100%\n\tA\\"
        );
    }

    #[test]
    fn refuses_what_means_nothing() {
        for bad in ["%z", "%", r"\q", r"\", r"\x4"] {
            assert!(RecordFormat::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn delimiters_are_one_byte() {
        assert_eq!(delimiter(":"), Ok(b':'));
        assert_eq!(delimiter(r"\t"), Ok(b'\t'));
        for bad in ["", "ab", "é", r"\n", r"\", r"\tx"] {
            assert!(delimiter(bad).is_err(), "{bad}");
        }
    }
}
