//! `seawall bench`: measures a running dev cluster by breaking it.
//!
//! * [`stats`] (pure): distributions. * [`probe`]: writers that never stop, every acknowledgement timed.
//! * [`scenario`] (pure): what is broken, what is measured, what is promised. * [`failover`]: carries scenarios out.
//! * [`report`]: table and JSON.

pub mod failover;
pub mod probe;
pub mod report;
pub mod scenario;
pub mod stats;
pub mod verbs;
