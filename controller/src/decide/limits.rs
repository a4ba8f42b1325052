//! Limits and waits of the decider, each with its reason. Listed in docs/limits.md; nothing here is configurable.

use protocol::ids::Millis;
use protocol::metadata::batch::BATCH_BYTES_MAX;

/// Bytes of facts that one batch may hold: the entry limit less 64 KiB for framing and for estimates that were low.
pub const BATCH_FACT_BYTES_MAX: usize = BATCH_BYTES_MAX - (64 << 10);
/// Partitions that level-triggered work changes in one batch: about 20 ms of folding, so heartbeats are not held up.
pub const WORK_PARTITIONS_MAX: usize = 5_000;
/// Partitions that level-triggered work looks at in one batch, changed or not: bounds a sweep that finds nothing.
pub const WORK_SCAN_MAX: usize = 20_000;
/// Brokers a cluster may register: bounds sweeps over all brokers and the soft state per broker.
pub const BROKERS_MAX: usize = 1_000;
/// Data directories one broker may register; it uses one, the rest is room for growth.
pub const DIRECTORIES_MAX: usize = 16;
/// Longest advertised host name, bytes (the DNS limit).
pub const HOST_BYTES_MAX: usize = 255;
/// Longest topic name, bytes: Kafka's rule, which leaves room for a partition number in a file name.
pub const TOPIC_NAME_MAX: usize = 249;
/// Partitions one topic may have: its creation must fit one batch with three replicas.
pub const TOPIC_PARTITIONS_MAX: u32 = 10_000;
/// Partitions all live topics together may have: what the measured fold and placement times were taken for.
pub const CLUSTER_PARTITIONS_MAX: usize = 200_000;
/// Replicas one partition may have, as in the config schema.
pub const REPLICATION_MAX: u32 = 32;
/// Partitions one election request may name or, for a whole topic or cluster, touch.
pub const ELECTIONS_MAX: usize = 5_000;
/// Time a broker must have been active before leadership returns to it by itself: a flapping broker must not take
/// its partitions along each time.
pub const PREFERRED_HOLD_MS: Millis = 30_000;
/// Time between two looks for leaders that are not the preferred replica.
pub const PREFERRED_CHECK_MS: Millis = 5_000;
/// Leaderships that one such look gives back: each move is a short gap for its partition.
pub const PREFERRED_MOVES_MAX: usize = 100;
/// Partitions that one such look visits before the next one goes on where it stopped.
pub const PREFERRED_SCAN_MAX: usize = 5_000;
/// Time between two looks for deleted topics whose grace has run out.
pub const PURGE_CHECK_MS: Millis = 1_000;
/// Topics purged per batch: each fact makes every broker remove directories.
pub const PURGES_MAX: usize = 100;
/// Data centres or brokers named in one explanation: texts are for people.
pub const VERDICTS_MAX: usize = 64;
/// ISR proposals in one request: a leader with more sends several.
pub const ALTERATIONS_MAX: usize = 10_000;
/// Commands decided in one batch: bounds the time heartbeats wait for the soft state.
pub const COMMANDS_MAX: usize = 1_000;
/// Commands of one batch that may look at many partitions and then write nothing (validations, dry runs, refusals): their
/// cost shows in no bytes, and heartbeats wait for the soft state meanwhile.
pub const UNWRITTEN_MAX: usize = 8;
/// Time between two looks for partitions that `unclean.recovery.policy=longest` may recover.
pub const UNCLEAN_CHECK_MS: Millis = 500;
/// Partitions judged in one such look.
pub const UNCLEAN_MAX: usize = 1_000;
