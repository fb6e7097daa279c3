//! The cache of `mode = "http"`: what RFC 9111 has a shared cache do, judged by the
//! headers of origin and client.
//!
//! `control` reads directives, `freshness` counts ages, `storing` says what may be kept,
//! `reuse` what may be served, `condition` and `range` what a client gets of it, `accepts`
//! in which coding (of packed entries in `policy` mode too), `validation` what is asked anew, `invalidation` what a write ends, `record` how it lies
//! in Redis, `report` what is said of it. All are pure: the flow is `exchange`. The
//! sentence above a line is what the named RFC asks of it, in our words.
//!
//! Deliberately not there: partial answers are not stored, stored ones are not freshened
//! by HEAD, and an answer to POST is no answer to GET. RFC 9111 leaves all three open.

pub mod accepts;
pub mod condition;
pub mod control;
pub mod date;
pub mod freshness;
pub mod invalidation;
pub mod range;
pub mod record;
pub mod report;
pub mod reuse;
pub mod sf;
pub mod storing;
pub mod validation;
pub mod vary;

pub use control::Control;
pub use record::{Record, Stored};
pub use report::{Forward, Report};
pub use reuse::Reuse;
