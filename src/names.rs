//! Sets and counts of names, filled one by one: to collect one at once sorts first, and
//! that sort is 4 KB of the upload for each type.

use std::collections::{BTreeMap, BTreeSet};

pub fn set_of(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let mut set = BTreeSet::new();
    for name in names {
        set.insert(name);
    }
    set
}

/// Adds to the count of a name, which stays at the most that there is.
pub fn count(counts: &mut BTreeMap<String, usize>, name: &str, more: usize) {
    match counts.get_mut(name) {
        Some(count) => *count = count.saturating_add(more),
        None => {
            counts.insert(name.to_owned(), more);
        }
    }
}
