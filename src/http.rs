//! Plain request and response values: what the core knows of HTTP.
//!
//! Header names are lower case; order and repetition are kept.

use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use memchr::memchr_iter;

/// Header fields in the order they came. Lookups are by lower-case name. All names and values
/// are in one text: a request's or an answer's fields are two allocations, not two each.
#[derive(Clone, Default)]
pub struct Headers {
    text: String,
    fields: Vec<Field>,
}

/// Where a name and a value begin and end.
#[derive(Clone, Copy)]
struct Field {
    name: (usize, usize),
    value: (usize, usize),
}

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a text that has a line for each name and each value, behind some lines of another kind.
    pub fn of_lines(text: String, skipped: usize) -> Self {
        let mut headers = Self {
            text,
            fields: Vec::with_capacity(16),
        };
        let mut begin = 0;
        let mut ends = memchr_iter(b'\n', headers.text.as_bytes()).chain([headers.text.len()]);
        let mut line = || {
            let end = ends.next()?;
            Some((std::mem::replace(&mut begin, end + 1), end))
        };
        for _ in 0..skipped {
            line();
        }
        while let (Some(name), Some(value)) = (line(), line()) {
            headers.fields.push(Field { name, value });
        }
        for Field { name, .. } in &headers.fields {
            if let Some(name) = headers.text.get_mut(name.0..name.1) {
                name.make_ascii_lowercase();
            }
        }
        headers
    }

    /// Makes room for so many more, and for so many bytes of their names and values.
    pub fn reserve(&mut self, fields: usize, bytes: usize) {
        self.fields.reserve(fields);
        self.text.reserve(bytes);
    }

    /// The first value of a field; `name` is lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        // Most names are told apart by their lengths.
        let is_it = move |field: &&Field| {
            field.name.1 - field.name.0 == name.len() && within(&self.text, field.name) == name
        };
        let fields = self.fields.iter().filter(is_it);
        fields.map(|field| within(&self.text, field.value))
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a field beside those that are there.
    pub fn append(&mut self, name: &str, value: impl AsRef<str>) {
        let value = value.as_ref();
        let begin = self.text.len();
        self.text.push_str(name);
        if let Some(name) = self.text.get_mut(begin..) {
            name.make_ascii_lowercase();
        }
        let middle = self.text.len();
        self.text.push_str(value);
        self.fields.push(Field {
            name: (begin, middle),
            value: (middle, self.text.len()),
        });
    }

    /// Replaces every field of that name by this one.
    pub fn set(&mut self, name: &str, value: impl AsRef<str>) {
        self.remove(name);
        self.append(name, value);
    }

    pub fn remove(&mut self, name: &str) {
        self.keep(&|field| field != name);
    }

    /// Only the fields whose names are wanted.
    pub fn keep(&mut self, is_wanted: &dyn Fn(&str) -> bool) {
        let (text, before) = (&self.text, self.fields.len());
        (self.fields).retain(|field| is_wanted(within(text, field.name)));
        // What is gone must not stay in the text of what is kept for long.
        if self.fields.len() < before {
            *self = self.iter().collect();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pair = |field: &Field| {
            (
                within(&self.text, field.name),
                within(&self.text, field.value),
            )
        };
        self.fields.iter().map(pair)
    }

    pub fn len(&self) -> usize {
        self.fields.len()
    }

    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

fn within(text: &str, (begin, end): (usize, usize)) -> &str {
    text.get(begin..end).unwrap_or_default()
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in fields {
            headers.append(name.as_ref(), value);
        }
        headers
    }
}

/// What a visitor asks for. The body stays with the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// As sent, upper case for the known ones.
    pub method: String,
    /// Scheme and authority it was sent to: `https://example.com`.
    pub base: String,
    /// The path as sent, starting with `/`, undecoded.
    pub path: String,
    /// What follows the first `?`, undecoded.
    pub query: Option<String>,
    pub headers: Headers,
}

/// A body in memory, which many answers may share.
#[derive(Clone)]
pub struct Bytes(Rc<Shared>);

struct Shared {
    bytes: Box<[u8]>,
    hash: OnceCell<String>,
    twin: OnceCell<Box<dyn Any>>,
}

impl Bytes {
    /// The hash that `make` makes of them, made once for all who share them.
    pub fn hash(&self, make: &dyn Fn(&[u8]) -> String) -> &str {
        self.0.hash.get_or_init(|| make(&self.0.bytes))
    }

    /// What the platform sends for these bytes, made once for all who share them and kept as
    /// long as they are; `None` when nobody shares them.
    pub fn twin<T: Any>(&self, make: &dyn Fn(&[u8]) -> T) -> Option<&T> {
        if Rc::strong_count(&self.0) < 2 {
            return None;
        }
        let twin = (self.0.twin).get_or_init(|| Box::new(make(&self.0.bytes)));
        twin.downcast_ref()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Rc::new(Shared {
            bytes: bytes.into(),
            hash: OnceCell::new(),
            twin: OnceCell::new(),
        }))
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A body that is empty, in memory, or still at the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<B> {
    Empty,
    Bytes(Bytes),
    /// Passed on untouched: a stream, or an upgraded connection.
    Upstream(B),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response<B> {
    pub status: u16,
    pub headers: Headers,
    pub body: Body<B>,
}

impl<B> Response<B> {
    /// The same answer with a body that has been read, and so decoded: fields
    /// that described the bytes on the wire go. The platform refuses even an empty
    /// body beside a 204.
    #[must_use]
    pub fn with_bytes(mut self, bytes: Bytes) -> Self {
        self.headers.remove("content-encoding");
        self.headers.remove("content-length");
        self.body = match bytes.is_empty() {
            true => Body::Empty,
            false => Body::Bytes(bytes),
        };
        self
    }
}
