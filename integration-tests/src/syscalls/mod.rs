//! The order of system calls of the running program: an acknowledgement leaves a node only after a sync that covers what
//! it acknowledges has returned, on every node that the acknowledgement rests on.
//!
//! Owns: reading what `strace` wrote ([`mod@line`], [`trace`]), finding answers in the bytes that a node sent ([`http2`]),
//! the judgement ([`proof`]), the traced cluster that it is about ([`probe`]), and a whole run ([`run`]).
//! Never: believes a node's own word about its disk; where a record lies is read from the files afterwards, when it was
//! written, synced and acknowledged is the kernel's account.
//! Invariant: moments err to the side of a failure. A call begins before the kernel does anything of it and ends after
//! everything of it; an answer counts as sent when the call that carries its first byte begins. All nodes' moments are
//! of one clock, which must not be set back meanwhile.

pub mod http2;
pub mod line;
pub mod probe;
pub mod proof;
pub mod run;
pub mod trace;

pub(crate) use run::GROUND;

/// Nanoseconds of the machine's clock.
pub type Moment = u64;
