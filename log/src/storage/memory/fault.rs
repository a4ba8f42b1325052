//! What a test may do to the calls of a simulated disk.
//!
//! Owns: the names of the calls ([`Op`]), a call as the hook sees it ([`Call`]), what may happen instead ([`Fault`]).
//! Never: decides when; the test's closure does.
//! Invariant: a call that no hook touches does what the trait says.

use std::io;
use std::path::{Path, PathBuf};

/// Which method is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after the methods of the traits")]
pub enum Op {
    Create,
    Open,
    Rename,
    Remove,
    CreateDir,
    RemoveDir,
    List,
    SyncDir,
    Lock,
    BootId,
    FreeSpace,
    Write,
    Read,
    Sync,
    SetLen,
    Preallocate,
    Len,
}

impl Op {
    /// True if the call changes the disk or makes a change durable.
    pub fn changes_disk(self) -> bool {
        !matches!(self, Op::Open | Op::List | Op::Lock | Op::BootId | Op::FreeSpace | Op::Read | Op::Len)
    }

    /// True if the call may ask for room.
    pub fn takes_room(self) -> bool {
        matches!(self, Op::Create | Op::CreateDir | Op::Write | Op::Preallocate)
    }
}

/// A call about to be made.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// Counts every call of this disk, from 0.
    pub number: u64,
    /// The method.
    pub op: Op,
    /// The path, or the path under which the file was opened.
    pub path: &'a Path,
    /// Position of a read or write, or the wanted length.
    pub position: u64,
    /// Bytes to be read or written.
    pub len: usize,
}

/// What happens instead of the call.
#[derive(Debug)]
pub enum Fault {
    /// It fails and does nothing (a failed sync also forgets what was pending).
    Fail(io::Error),
    /// A write puts down its first bytes, then fails.
    Short(usize, io::Error),
    /// It reports success and does nothing: a lost write.
    Lost,
    /// A write reports success and lands at this position of this file; lost if there is no such file.
    Elsewhere(PathBuf, u64),
    /// A read returns its bytes with this bit flipped (counted from its first byte, modulo what was read). The disk
    /// itself is not harmed: the next read is right.
    Flip(u64),
}

impl Fault {
    /// The error a call that only succeeds or fails ends with; `None`: it pretends to have worked.
    pub(super) fn error(self) -> Option<io::Error> {
        match self {
            Fault::Fail(e) | Fault::Short(_, e) => Some(e),
            Fault::Lost | Fault::Elsewhere(..) | Fault::Flip(_) => None,
        }
    }
}

/// Decides about each call.
pub type Hook = Box<dyn Fn(&Call<'_>) -> Option<Fault> + Send + Sync>;
