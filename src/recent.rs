//! A bounded map that forgets what was not used lately: SIEVE (Zhang et al., "SIEVE is
//! Simpler than LRU", NSDI 2024).
//!
//! Keys stand in a queue in the order in which they came, and a hand goes through it from
//! the oldest to the newest. It passes those that were used since it came last and takes
//! out the first other one. A used key keeps its place, and new ones stand at the end
//! behind the hand's back: so a flood of keys that come once pushes out itself, and not
//! those that come again. The values lie apart from their keys, so that all maps of an
//! isolate share one map's code.

use std::collections::BTreeMap;
use std::rc::Rc;

/// The one type of tree in the upload: another one is several KB more.
pub type Places = BTreeMap<Rc<str>, usize>;

/// No place.
const NONE: usize = usize::MAX;

#[derive(Debug)]
pub struct Recent<V> {
    queue: Queue,
    /// By their places.
    values: Vec<V>,
    /// For a place that is not there, which there is none of.
    spare: V,
}

#[derive(Debug)]
struct Queue {
    most: usize,
    places: Places,
    marks: Vec<Mark>,
    /// Places of keys that were taken out.
    free: Vec<usize>,
    newest: usize,
    oldest: usize,
    hand: usize,
    /// The key of a free place.
    nobody: Rc<str>,
}

#[derive(Debug)]
struct Mark {
    key: Rc<str>,
    is_used: bool,
    newer: usize,
    older: usize,
}

impl<V: Default> Recent<V> {
    /// Holds at most `most` values, at least one.
    pub fn new(most: usize) -> Self {
        Self {
            queue: Queue {
                most: most.max(1),
                places: Places::new(),
                marks: Vec::new(),
                free: Vec::new(),
                newest: NONE,
                oldest: NONE,
                hand: NONE,
                nobody: "".into(),
            },
            values: Vec::new(),
            spare: V::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.queue.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is there; neither makes nor keeps it.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.values.get(*self.queue.places.get(key)?)
    }

    /// What is there; neither makes nor keeps it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.values.get_mut(*self.queue.places.get(key)?)
    }

    /// What is there, which this keeps.
    pub fn use_mut(&mut self, key: &str) -> Option<&mut V> {
        self.values.get_mut(self.queue.use_place(key)?)
    }

    /// What is there, or a new value.
    pub fn use_or_default(&mut self, key: &str) -> &mut V {
        if let Some(at) = self.queue.use_place(key) {
            return self.values.get_mut(at).unwrap_or(&mut self.spare);
        }
        if self.len() >= self.queue.most {
            self.evict();
        }
        let at = self.queue.add(key);
        if at >= self.values.len() {
            self.values.push(V::default());
        }
        self.values.get_mut(at).unwrap_or(&mut self.spare)
    }

    /// Takes out what was not used lately; `None` when there is nothing.
    pub fn evict(&mut self) -> Option<V> {
        let at = self.queue.evict()?;
        self.values.get_mut(at).map(std::mem::take)
    }
}

impl Queue {
    fn use_place(&mut self, key: &str) -> Option<usize> {
        let at = *self.places.get(key)?;
        if let Some(mark) = self.marks.get_mut(at) {
            mark.is_used = true;
        }
        Some(at)
    }

    /// Puts a new key at the end.
    fn add(&mut self, key: &str) -> usize {
        let key: Rc<str> = key.into();
        let mark = Mark {
            key: key.clone(),
            is_used: false,
            newer: NONE,
            older: self.newest,
        };
        let at = self.free.pop().unwrap_or(self.marks.len());
        match self.marks.get_mut(at) {
            Some(free) => *free = mark,
            None => self.marks.push(mark),
        }
        match self.marks.get_mut(self.newest) {
            Some(before) => before.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
        self.places.insert(key, at);
        at
    }

    /// Ends within two rounds: the hand takes away the marks that it passes.
    fn evict(&mut self) -> Option<usize> {
        let mut at = self.hand;
        let (newer, older) = loop {
            if at == NONE {
                at = self.oldest;
            }
            let mark = self.marks.get_mut(at)?;
            if !mark.is_used {
                self.places.remove(&mark.key);
                mark.key = self.nobody.clone();
                break (mark.newer, mark.older);
            }
            mark.is_used = false;
            at = mark.newer;
        };
        match self.marks.get_mut(newer) {
            Some(mark) => mark.older = older,
            None => self.newest = older,
        }
        match self.marks.get_mut(older) {
            Some(mark) => mark.newer = newer,
            None => self.oldest = newer,
        }
        self.hand = newer;
        self.free.push(at);
        Some(at)
    }
}
