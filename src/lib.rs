//! Edgeweir: an edge rate limiter and listing cache over an HTTP Redis.
//!
//! ```text
//! gateway    the request flow, one screen          deferred   work after the answer
//! policy     what to do with which request         visit      one request's trips
//! identity   who is asking                         listing    one cached answer
//! limit      sliding windows                       compose    many as one
//! cache      entries, generations, flights         fill       fetching a missing one
//! redis      commands, replies, the REST client    write      what a write purges
//! headers    what an answer says of itself         admin      /-/
//! controls   what operators change at run time     admission  whom lists and limits concern
//! failure    what the edge answers by itself       recent     a bounded map
//! penalty    backoff of who goes on                refused    who is refused most
//! conduct    where these two meet the flow         bill       what a request's outcome costs
//! trip       limits and entries in one trip        reading    what of the cache it must read
//! exchange   one answer of `http` mode             base64     of Redis, JWTs and fields
//! json       all JSON, read and written            names      a sorted set
//! packing    entries that are no plain JSON        presentation gzip or not, and for whom
//! views      counted, kept and sent in batches
//! edge       the platform, wasm only               concurrency  how many are at Redis
//! jobs       what a run of the cron does           warm       entries fetched before they end
//! ahead      around an entry's end
//! ```

pub mod admin;
pub mod admission;
pub mod ahead;
pub mod base64;
pub mod bill;
pub mod cache;
pub mod compose;
pub mod concurrency;
pub mod conduct;
pub mod config;
pub mod controls;
pub mod deferred;
pub mod exchange;
pub mod failure;
pub mod fill;
pub mod gateway;
pub mod headers;
pub mod http;
pub mod identity;
pub mod jobs;
pub mod limit;
pub mod listing;
pub mod names;
pub mod origin;
pub mod packing;
pub mod penalty;
pub mod ports;
pub mod presentation;
pub mod reading;
pub mod recent;
pub mod redis;
pub mod refused;
pub mod together;
pub mod trip;
pub mod views;
pub mod visit;
pub mod visitor;
pub mod warm;
pub mod write;

pub use edgeweir_json as json;

/// The policy, and the one that is built in.
pub mod policy {
    pub use edgeweir_policy::*;

    /// `policy.toml` as JSON, checked when this was built.
    pub const BUILT_IN: &str = include_str!(concat!(env!("OUT_DIR"), "/policy.json"));
}

#[cfg(target_arch = "wasm32")]
mod edge;
