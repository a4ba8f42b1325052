//! An image written back as facts, and read again. Law: the fold of `facts(image)` is `image`. Used by controller
//! snapshots and by the feed.
