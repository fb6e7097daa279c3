//! How long values of other services may be served, as far as this isolate knows.
//!
//! Redis itself ends them; their time is for Cache-Status, and asked for once. It is not
//! kept under `meta:{key}`: such a record could arrive late, replace that of an entry
//! filled since, and tags would no longer purge that entry.

use crate::cache::entry::Entry;
use crate::recent::Recent;

/// Values remembered; past it the oldest are forgotten and asked for again.
const MAX_ADOPTED: usize = 1024;

#[derive(Debug, Default)]
struct Known {
    /// Tells a value from the next one under the same key.
    etag: String,
    stored_ms: u64,
    fresh_until_ms: u64,
}

#[derive(Debug)]
pub struct Adopted(Recent<Known>);

impl Default for Adopted {
    fn default() -> Self {
        Self(Recent::new(MAX_ADOPTED))
    }
}

impl Adopted {
    pub fn learn(&mut self, key: &str, entry: &Entry) {
        *self.0.use_or_default(key) = Known {
            etag: etag(entry).to_owned(),
            stored_ms: entry.stored_ms,
            fresh_until_ms: entry.fresh_until_ms,
        };
    }

    /// Fills in the times of a value that was learnt and is not over; whether it was.
    pub fn recall(&self, key: &str, entry: &mut Entry, now_ms: u64) -> bool {
        let Some(known) = self
            .0
            .get(key)
            .filter(|known| known.etag == etag(entry) && now_ms < known.fresh_until_ms)
        else {
            return false;
        };
        entry.stored_ms = known.stored_ms;
        entry.fresh_until_ms = known.fresh_until_ms;
        entry.stale_until_ms = known.fresh_until_ms;
        true
    }
}

fn etag(entry: &Entry) -> &str {
    entry.headers.get("etag").unwrap_or_default()
}
