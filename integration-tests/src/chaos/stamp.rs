//! What a writer wrote: its number and its running count, as the text of a record and as a value of the history checker.

use std::fmt;

/// A partition of the one cluster under test.
pub type Partition = (String, u32);

/// Bits of a value that hold the count.
const SEQ_BITS: u32 = 40;

/// What a writer wrote: its number, and its own running count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// Which writer.
    pub writer: u32,
    /// Its count, from 0, growing with every record.
    pub seq: u64,
}

impl Stamp {
    /// The stamp as one number, unique in a run.
    pub fn value(self) -> u64 {
        (u64::from(self.writer) << SEQ_BITS) + self.seq
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}-{}", self.writer, self.seq)
    }
}

impl std::str::FromStr for Stamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (writer, seq) = text.strip_prefix('w')?.split_once('-')?;
            Some(Self { writer: writer.parse().ok()?, seq: seq.split(' ').next()?.parse().ok()? })
        };
        read().ok_or_else(|| format!("{text:?} was not written by this test"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_read_back_from_a_value() {
        assert_eq!(Stamp { writer: 3, seq: 77 }.to_string().parse(), Ok(Stamp { writer: 3, seq: 77 }));
        assert_eq!("w1-5 padding".parse(), Ok(Stamp { writer: 1, seq: 5 }));
        assert!("x1-5".parse::<Stamp>().is_err());
        assert_ne!(Stamp { writer: 1, seq: 0 }.value(), Stamp { writer: 0, seq: 1 }.value());
    }
}
