//! Plain request and response values: what the core knows of HTTP.
//!
//! Header names are lower case; order and repetition are kept.

use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

/// Header fields in the order they came. Lookups are by lower-case name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn new() -> Self {
        Self::default()
    }

    /// The first value of a field; `name` is lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Adds a field beside those that are there.
    pub fn append(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_ascii_lowercase(), value.into()));
    }

    /// Replaces every field of that name by this one.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.append(name, value);
    }

    pub fn remove(&mut self, name: &str) {
        self.keep(&|field| field != name);
    }

    /// Only the fields whose names are wanted.
    pub fn keep(&mut self, is_wanted: &dyn Fn(&str) -> bool) {
        self.0.retain(|(field, _)| is_wanted(field));
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<(String, String)>> for Headers {
    fn from(mut fields: Vec<(String, String)>) -> Self {
        for (name, _) in &mut fields {
            name.make_ascii_lowercase();
        }
        Self(fields)
    }
}

impl<N: AsRef<str>, V: Into<String>> FromIterator<(N, V)> for Headers {
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
