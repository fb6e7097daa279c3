//! The Redis client: commands, replies, the Upstash REST codec, deadline and breaker.
//!
//! It takes the place of upstash-redis-rs, which does not compile for wasm32. It
//! has no typed helper per command, no retries of its own and no scripts.

pub mod breaker;
pub mod codec;
mod command;
pub mod deadline;
mod error;
mod fault;
pub mod known;
mod plain;
mod reply;
mod rest;
mod shards;

pub use command::{Batch, Command, Word};
pub use error::{RedisError, RedisErrorKind};
pub use fault::classify;
pub use reply::Reply;
pub use rest::{Answer, Client, Endpoint, Post, Transport, TransportError};
pub use shards::{MAX_SHARDS, Shards};
