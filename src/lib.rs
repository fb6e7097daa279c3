//! Edgeweir: an edge rate limiter and listing cache over an HTTP Redis.

pub mod cache;
pub mod config;
pub mod failure;
pub mod http;
pub mod identity;
pub mod limit;
pub mod origin;
pub mod policy;
pub mod ports;
pub mod redis;
