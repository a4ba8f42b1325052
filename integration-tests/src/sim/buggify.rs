//! Points at which the simulated shells behave in a legal but unlikely way, on or off for a whole run.
//!
//! Never: does anything that the product promises not to happen.

/// One such point. Its number is the bit in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// A stream to a follower takes a push only now and then.
    CreditsScarce,
    /// Flushes take long.
    SlowFlush,
    /// Flushes of different partitions end in any order, some at once.
    FlushAtOnce,
    /// Notes take long.
    SlowNotes,
    /// Timers of a broker fire late.
    LateTimers,
    /// The feed sends one batch at a time.
    FeedTrickles,
    /// The feed sends a batch twice.
    FeedRepeats,
    /// The feed leaves a batch out.
    FeedSkips,
    /// Controllers remember few batches: followers get snapshots.
    FeedSnapshots,
    /// Feed streams end by themselves.
    FeedBreaks,
    /// Standby controllers apply late.
    StandbysLag,
    /// A commit takes long.
    SlowCommit,
    /// Many commands go into one batch.
    CommandsWait,
    /// The active controller ticks rarely.
    RareTicks,
    /// The active controller is not sure of its quorum now and then.
    NotFresh,
    /// Answers of commands are lost more often.
    AnswersLost,
    /// Reads leave the broker long after they were made.
    SlowReaders,
    /// Readers ask for single batches.
    ShortReads,
    /// Clients are told an answer late.
    SlowClients,
    /// Producers name the leader epoch that they believe in.
    EpochsNamed,
    /// Batches are large enough to roll segments often.
    LargeBatches,
    /// The disk says that it has no room, though it has.
    NoRoomNow,
    /// Deadlines of producers are short.
    Impatient,
    /// Restarts are quick: hardly any time passes between a death and the next start.
    QuickRestart,
    /// Replication streams break by themselves.
    StreamsBreak,
    /// Idle marks and retention run often.
    BusyHouse,
    /// Streams stay half open: their ends learn late that they broke.
    HalfOpen,
    /// What a leader had already received on a stream that broke is read after the next one has begun.
    OldStreamsDrain,
    /// A controller that is behind a follower sends it a snapshot all the same.
    OldSnapshots,
    /// Somebody asks to delete records that are not committed yet.
    GreedyDeletes,
    /// A flush is done long before its partition hears of it.
    LateFlushes,
    /// Changes of the ISR travel long, and who would join is struck meanwhile.
    LateAlters,
    /// All machines lose power just after a topic's flush policy was loosened.
    LoosenedInTheDark,
    /// Acknowledgements travel long, and who starts again can hear the others, or be heard by them, and not both.
    FormerLives,
    /// The active controller applies long after the others heard what is committed.
    SlowApply,
}

impl Point {
    /// Its bit in the plan.
    pub(super) const fn bit(self) -> u64 {
        1 << self as u64
    }

    /// Whether it is on in a run whose plan has these bits.
    pub(super) fn is_on(self, bits: u64) -> bool {
        bits & self.bit() != 0
    }
}
