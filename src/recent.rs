//! A bounded map that forgets what was not used lately: CLOCK.
//!
//! Values stand on a ring. When it is full a hand goes round: it passes those that were
//! used since it came last, and gives the place of the first other one away, so that a
//! flood of keys that come once does not push out those that come again. The values lie
//! apart from their keys, so that all maps of an isolate share one map's code.

use std::collections::BTreeMap;
use std::rc::Rc;

/// The one type of tree in the upload: another one is several KB more.
pub type Places = BTreeMap<Rc<str>, usize>;

#[derive(Debug)]
pub struct Recent<V> {
    ring: Ring,
    /// By their places on the ring.
    values: Vec<V>,
    /// For a place that is not there, which there is none of.
    spare: V,
}

#[derive(Debug)]
struct Ring {
    most: usize,
    places: Places,
    marks: Vec<Mark>,
    hand: usize,
}

#[derive(Debug)]
struct Mark {
    key: Rc<str>,
    is_used: bool,
}

impl<V: Default> Recent<V> {
    /// Holds at most `most` values, at least one.
    pub fn new(most: usize) -> Self {
        Self {
            ring: Ring {
                most: most.max(1),
                places: Places::new(),
                marks: Vec::new(),
                hand: 0,
            },
            values: Vec::new(),
            spare: V::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// What is there; neither makes nor keeps it.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.values.get(*self.ring.places.get(key)?)
    }

    /// What is there; neither makes nor keeps it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.values.get_mut(*self.ring.places.get(key)?)
    }

    /// What is there, or a new value.
    pub fn use_or_default(&mut self, key: &str) -> &mut V {
        let (at, is_new) = self.ring.use_place(key);
        if at >= self.values.len() {
            self.values.push(V::default());
        }
        let value = self.values.get_mut(at).unwrap_or(&mut self.spare);
        if is_new {
            *value = V::default();
        }
        value
    }
}

impl Ring {
    /// The place of a key, and whether it was given to it just now.
    fn use_place(&mut self, key: &str) -> (usize, bool) {
        if let Some(at) = self.places.get(key).copied() {
            if let Some(mark) = self.marks.get_mut(at) {
                mark.is_used = true;
            }
            return (at, false);
        }
        let key: Rc<str> = key.into();
        let at = match self.marks.len() < self.most {
            true => self.marks.len(),
            false => self.free_place(),
        };
        let mark = Mark {
            key: key.clone(),
            is_used: false,
        };
        match self.marks.get_mut(at) {
            Some(old) => {
                self.places.remove(&old.key);
                *old = mark;
            }
            None => self.marks.push(mark),
        }
        self.places.insert(key, at);
        (at, true)
    }

    /// Ends within one round: the hand takes away the marks that it passes.
    fn free_place(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (at + 1) % self.marks.len().max(1);
            match self.marks.get_mut(at) {
                Some(mark) if mark.is_used => mark.is_used = false,
                _ => return at,
            }
        }
    }
}
