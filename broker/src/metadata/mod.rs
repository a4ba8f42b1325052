//! The metadata log as a broker sees it: `feed` (pure) says what an item does to the image, `follower` keeps the image
//! current, `reconcile` (pure) says what the image asks of this broker's replicas.

pub mod feed;
pub mod follower;
pub mod reconcile;
