//! The Redis client: commands, replies, the Upstash REST codec, deadline and breaker.
//!
//! It takes the place of upstash-redis-rs, which does not compile for wasm32. It
//! has no typed helper per command, no retries of its own and no scripts.

mod command;
mod error;
mod reply;

pub use command::{Batch, Command, Word};
pub use error::{RedisError, RedisErrorKind};
pub use reply::Reply;
