//! A small sorted set of names.
//!
//! It is a list, in which one name is inserted at a time: some thousand names are as quick
//! as in a tree, whose code for one more type is several KB of the upload.

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it was not there.
    pub fn insert(&mut self, name: String) -> bool {
        let place = self.place(&name);
        if let Err(before) = place {
            self.0.insert(before, name);
        }
        place.is_err()
    }

    pub fn contains(&self, name: &str) -> bool {
        self.place(name).is_ok()
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|known| known.as_str().cmp(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = &String> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In their order.
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

impl Extend<String> for Names {
    fn extend<I: IntoIterator<Item = String>>(&mut self, names: I) {
        for name in names {
            self.insert(name);
        }
    }
}

impl FromIterator<String> for Names {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let mut all = Self::new();
        all.extend(names);
        all
    }
}
