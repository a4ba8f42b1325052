//! Every limit and timer of the broker's shells, with its reason. The table in `docs/limits.md` repeats them and a
//! test compares the two. Limits of the pure cores stand beside them, those of the wire in `protocol`.

/// Most shards by default: beyond four, connections rather than partitions want the cores.
pub const SHARDS_DEFAULT_MAX: u64 = 4;
/// Most shards at all: a thread, a listener and a flush queue each.
pub const SHARDS_MAX: u64 = 64;
/// `max.inter.dc.rtt.ms` when not written: a continent.
pub const RTT_MS_DEFAULT: u64 = 20;
/// Largest `max.inter.dc.rtt.ms`: timers scale with it, and beyond this a failover takes minutes.
pub const RTT_MS_MAX: u64 = 1_000;
