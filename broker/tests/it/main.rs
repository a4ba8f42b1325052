//! Tests of the broker's shells: partitions over a simulated disk, restarts and what they prove, refusals at start.

mod bench_world;
mod partition;
mod restart;
mod start;
