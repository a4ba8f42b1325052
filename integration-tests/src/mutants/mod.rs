//! Planted bugs and who sees them: every bug of `protocol::planted`, hunted on the grounds that claim it, until a named
//! law or check catches it.
//!
//! Owns: the list of grounds, the hunt (seeds on threads, panics caught), the table. Never: judges by itself; a ground
//! says what it saw. A panic, or a failure without the name of a law or check, is no catch: an assertion inside of the
//! mutated code would be the code vouching for itself.
//! To add a ground: a [`Ground`] in [`GROUNDS`] whose `look` plants the bug, does one seeded run, and says what saw it.

mod hunt;
mod ring1;
mod ring2;
mod table;

pub use hunt::{Found, hunt};
pub use table::main;

use protocol::planted::Bug;

/// What one run with a planted bug came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// Everything looked right.
    Nothing,
    /// This law or check, by its name, saw it.
    By(String),
    /// Something failed that has no name: not a catch.
    Unnamed(String),
    /// This machine does not permit the run, or lacks what it needs: nothing was shown.
    NotPermitted(String),
}

/// A place where bugs are hunted.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    /// What the table calls it: "ring 1", "ring 2", "torture", "system calls".
    pub ring: &'static str,
    /// The bugs it is expected to see. A bug may be claimed by several; they are asked in the order of [`GROUNDS`].
    pub bugs: &'static [Bug],
    /// One run: plants the bug itself (in this thread by `planted`, or in processes that it starts), runs seed (or state,
    /// or step) number so-and-so, says what it saw. The same number gives the same answer.
    pub look: fn(Bug, u64) -> Seen,
    /// Runs may go side by side in threads of this process.
    pub parallel: bool,
    /// No more runs than this, however many are allowed: a torture run may have less than 500.
    pub runs_max: u64,
}

/// All grounds, in the order in which they are asked.
pub const GROUNDS: &[Ground] = &[ring1::GROUND, ring2::GROUND, crate::torture::GROUND, crate::syscalls::GROUND];
