//! Edgeweir: an edge rate limiter and listing cache over an HTTP Redis.

pub mod http;
pub mod policy;
pub mod ports;
pub mod redis;
