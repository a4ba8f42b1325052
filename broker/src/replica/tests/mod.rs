//! Stories and laws of the replica.
