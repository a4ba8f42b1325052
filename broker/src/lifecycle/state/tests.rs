//! Stories of one broker's life, and the law of the lease.
