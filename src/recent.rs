//! A bounded map that forgets what was not used lately.
//!
//! Two generations: when the young one is full it becomes the old one, and what was
//! the old one is dropped. Every use brings a value into the young one. The values lie
//! apart from their keys, so that all maps of an isolate share one map's code.

use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Recent<V> {
    half: usize,
    /// Where in `values`.
    young: BTreeMap<String, usize>,
    old: BTreeMap<String, usize>,
    values: Vec<V>,
    free: Vec<usize>,
    /// For a place that is not there, which there is none of.
    spare: V,
}

impl<V: Default> Recent<V> {
    /// Holds at most `most` values.
    pub fn new(most: usize) -> Self {
        Self {
            half: (most / 2).max(1),
            young: BTreeMap::new(),
            old: BTreeMap::new(),
            values: Vec::new(),
            free: Vec::new(),
            spare: V::default(),
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
        self.values.get(self.at(key)?)
    }

    /// What is there; neither makes nor keeps it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        let at = self.at(key)?;
        self.values.get_mut(at)
    }

    /// What is there, or a new value.
    pub fn use_or_default(&mut self, key: &str) -> &mut V {
        let at = match self.young.get(key) {
            Some(at) => *at,
            None => self.rejuvenate(key),
        };
        self.values.get_mut(at).unwrap_or(&mut self.spare)
    }

    fn at(&self, key: &str) -> Option<usize> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }

    fn rejuvenate(&mut self, key: &str) -> usize {
        let known = self.old.remove(key);
        if self.young.len() >= self.half {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            for at in forgotten.into_values() {
                if let Some(value) = self.values.get_mut(at) {
                    *value = V::default();
                    self.free.push(at);
                }
            }
        }
        let at = known.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.values.push(V::default());
            self.values.len() - 1
        });
        self.young.insert(key.to_owned(), at);
        at
    }
}
