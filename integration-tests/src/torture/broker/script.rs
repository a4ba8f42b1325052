//! What a broker does to its disk in its two lives, step by step.
//!
//! Owns: the order of steps. Never: tells or judges; the steps themselves do. Invariant: every kind of change a broker makes
//! is here once at least.

use log::registry::{Event, Policy};

use super::{Life, PARTITIONS, Stop};

/// A step that finds no room is asked for again by its caller later; the script leaves it at that.
pub(super) fn or_full(step: Result<(), Stop>) -> Result<(), Stop> {
    match step {
        Err(Stop::Full) => Ok(()),
        other => other,
    }
}

pub(super) fn first_life(life: &mut Life<'_>) -> Result<(), Stop> {
    or_full(life.store_epoch(5))?;
    for partition in 0..PARTITIONS {
        or_full(life.note(partition, Event::DirCreated))?;
        life.open(partition)?;
        or_full(life.append(partition, 3, 1))?;
        or_full(life.flush(partition))?;
    }
    or_full(life.note(1, Event::PolicyNoted(Policy::Interval)))?;
    or_full(life.append(0, 9, 1))?;
    or_full(life.flush(0))?;
    or_full(life.append(0, 4, 2))?;
    or_full(life.append(2, 12, 2))?;
    or_full(life.flush(2))?;
    or_full(life.truncate(2, 6))?;
    or_full(life.append(2, 2, 3))?;
    or_full(life.flush(2))?;
    or_full(life.flush(0))?;
    or_full(life.drop_head(0, 9))?;
    or_full(life.idle(0))?;
    or_full(life.append(1, 7, 2))?;
    or_full(life.flush(1))?;
    or_full(life.truncate(1, 2))?;
    or_full(life.append(1, 1, 4))?;
    or_full(life.idle(1))
}

pub(super) fn second_life(life: &mut Life<'_>) -> Result<(), Stop> {
    or_full(life.store_epoch(9))?;
    for partition in 0..PARTITIONS {
        life.open(partition)?;
    }
    or_full(life.append(0, 3, 4))?;
    or_full(life.flush(0))?;
    or_full(life.append(0, 2, 4))?;
    or_full(life.flush(0))?;
    life.begin_anew(3)?;
    or_full(life.append(3, 2, 4))?;
    or_full(life.flush(3))?;
    or_full(life.note(2, Event::PolicyNoted(Policy::Sync)))?;
    or_full(life.reset(2, 40))?;
    or_full(life.append(2, 3, 5))?;
    or_full(life.flush(2))?;
    // Above the last mark, as most of the time.
    or_full(life.append(1, 2, 5))?;
    or_full(life.flush(1))?;
    or_full(life.append(1, 1, 5))
}
