//! A bounded map that forgets what was not used lately.
//!
//! Two generations: when the young one is full it becomes the old one, and what was
//! the old one is dropped. Every use brings a value into the young one.

use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Recent<V> {
    half: usize,
    young: BTreeMap<String, V>,
    old: BTreeMap<String, V>,
}

impl<V: Default> Recent<V> {
    /// Holds at most `most` values.
    pub fn new(most: usize) -> Self {
        Self {
            half: (most / 2).max(1),
            young: BTreeMap::new(),
            old: BTreeMap::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is there; neither makes nor keeps it.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// What is there; neither makes nor keeps it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.young.get_mut(key).or_else(|| self.old.get_mut(key))
    }

    /// What is there, or a new value.
    pub fn use_or_default(&mut self, key: &str) -> &mut V {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key).unwrap_or_default();
            if self.young.len() >= self.half {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(key.to_owned(), value);
        }
        self.young.entry(key.to_owned()).or_default()
    }
}
