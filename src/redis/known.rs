//! Long values as they last came in an answer, beside the bytes that they are.
//!
//! The same listing is read again and again. One whose text is what it was is neither
//! decoded nor copied, and all that is known of its bytes still is: their hash, what they
//! mean as a record, what the platform sends for them. It is a pure function's memo: a key
//! only says which text is probably the one, and what comes of a text does not depend on it.
//! It holds what Redis sent, so nothing that was decrypted, and is bounded by bytes.

use crate::http::Bytes;
use crate::recent::Recent;

/// Of the 128 MB that an isolate has.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The number alone bounds what the map itself takes.
const MAX_VALUES: usize = 4096;
/// A value takes at most this part of all bytes.
const MOST_OF_BYTES: usize = 8;
/// What a value takes beside its texts and its bytes.
const VALUE_BYTES: usize = 512;
/// Shorter texts are decoded sooner than found.
pub const LONG_TEXT: usize = 256;

#[derive(Debug)]
pub struct Known {
    values: Recent<Option<Box<Value>>>,
    bytes: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Value {
    text: Box<[u8]>,
    bytes: Bytes,
    size: usize,
}

impl Default for Known {
    fn default() -> Self {
        Self::new(MAX_BYTES)
    }
}

impl Known {
    pub fn new(most_bytes: usize) -> Self {
        Self {
            values: Recent::new(MAX_VALUES),
            bytes: 0,
            most_bytes,
        }
    }

    /// All that is kept, keys included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the text is that `rest` begins with and a quote ends, and how long it is.
    pub fn find(&mut self, key: &str, rest: &[u8]) -> Option<(Bytes, usize)> {
        let value = self.values.use_mut(key)?.as_deref()?;
        let (text, after) = rest.split_at_checked(value.text.len())?;
        let is_it = after.first() == Some(&b'"') && is_same(text, &value.text);
        is_it.then(|| (value.bytes.clone(), text.len()))
    }

    /// Remembers what a key's text was decoded to.
    pub fn keep(&mut self, key: &str, text: &[u8], bytes: &Bytes) {
        if let Some(value) = self.values.get_mut(key) {
            self.bytes -= value.take().map_or(0, |value| value.size);
        }
        // They may be unpacked, and be once more with the platform.
        let size = VALUE_BYTES + key.len() + text.len() + 3 * bytes.len();
        if size > self.most_bytes / MOST_OF_BYTES {
            return;
        }
        while (self.bytes + size > self.most_bytes || self.values.len() >= MAX_VALUES)
            && let Some(gone) = self.values.evict()
        {
            self.bytes -= gone.map_or(0, |gone| gone.size);
        }
        self.bytes += size;
        *self.values.use_or_default(key) = Some(Box::new(Value {
            text: text.into(),
            bytes: bytes.clone(),
            size,
        }));
    }
}

/// `==` of slices goes byte by byte in wasm.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    let (ones, one_rest) = one.as_chunks::<16>();
    let (others, other_rest) = other.as_chunks::<16>();
    let wide = |bytes: &[u8; 16]| u128::from_ne_bytes(*bytes);
    let mut pairs = ones.iter().zip(others);
    one.len() == other.len()
        && pairs.all(|(one, other)| wide(one) == wide(other))
        && one_rest == other_rest
}
