//! The client against an in-process cluster that speaks data.v1 and admin.v1 and misbehaves on request.

#![allow(clippy::unwrap_used)]

mod admin;
mod consumer;
mod fake;
mod producer;
