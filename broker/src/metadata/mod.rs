//! The metadata log as a broker sees it: `follower` keeps the image current, `reconcile` (pure) says what the
//! image asks of this broker's replicas.

pub mod reconcile;
