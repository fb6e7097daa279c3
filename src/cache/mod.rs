//! The listing cache: entries in Redis that backends can read and write too.
//!
//! `lookup` judges what one MGET brought, `store` decides what may be kept,
//! `flight` lets requests of one isolate share a fill, `purge` changes
//! generations and `generation` compares them, `origin_tags` knows the origin's own tags,
//! `adopted` other services' values, `written` makes a write's answer the entry, `l1` keeps
//! entries in the isolate, `http` judges by the origin's headers, `packed` is what is more
//! than plain JSON, `early` elects who refreshes. Nothing here sends anything or reads a clock.

pub mod adopted;
pub mod early;
pub mod entry;
pub mod flight;
pub mod generation;
pub mod http;
pub mod l1;
pub mod lookup;
pub mod origin_tags;
pub mod packed;
pub mod purge;
pub mod store;
pub mod written;

pub use adopted::Adopted;
pub use entry::Entry;
pub use flight::{Flight, Flights, Join};
pub use generation::Standing;
pub use l1::L1;
pub use lookup::{Found, Lookup, Lookups, Seen};
pub use origin_tags::OriginTags;
pub use store::{Unstorable, storable};

/// How long a generation lives: longer than any entry (CONTRACT, Redis keys).
pub const GENERATION_TTL_S: u64 = 172_800;

/// A generation: a value never used before.
pub fn generation(random: u128) -> String {
    format!("{random:032x}")
}
