//! Redis commands as values: what goes into one trip.
//!
//! Nothing here sends anything. A `Batch` always has one reply per command, in
//! the same order.

use std::borrow::Cow;

/// One word of a command: text, or a number that needs no quoting. A literal is not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    Text(Cow<'static, str>),
    Int(i64),
}

impl From<&'static str> for Word {
    fn from(text: &'static str) -> Self {
        Word::Text(Cow::Borrowed(text))
    }
}

impl From<&String> for Word {
    fn from(text: &String) -> Self {
        Word::Text(Cow::Owned(text.clone()))
    }
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        Word::Text(Cow::Owned(text))
    }
}

impl From<i64> for Word {
    fn from(number: i64) -> Self {
        Word::Int(number)
    }
}

impl From<u64> for Word {
    fn from(number: u64) -> Self {
        Word::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Word {
    fn from(number: u32) -> Self {
        Word::Int(i64::from(number))
    }
}

/// One Redis command with its arguments, the name first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    words: Vec<Word>,
}

impl Command {
    pub fn new(name: &'static str) -> Self {
        // Most have no more words.
        let mut words = Vec::with_capacity(6);
        words.push(Word::from(name));
        Self { words }
    }

    #[must_use]
    pub fn arg(mut self, word: impl Into<Word>) -> Self {
        self.words.push(word.into());
        self
    }

    #[must_use]
    pub fn args<W: Into<Word>>(mut self, words: impl IntoIterator<Item = W>) -> Self {
        self.words.extend(words.into_iter().map(Into::into));
        self
    }

    pub fn words(&self) -> &[Word] {
        &self.words
    }

    /// Whether its reply holds what others have stored, of any size.
    pub fn reads_values(&self) -> bool {
        matches!(self.words.first(), Some(Word::Text(name)) if name == "MGET" || name == "HGETALL")
    }

    /// `PEXPIRE key ms`.
    pub fn pexpire(key: &str, ttl_ms: u64) -> Self {
        Self::new("PEXPIRE").arg(key.to_owned()).arg(ttl_ms)
    }

    /// `SET key value PX ms`.
    pub fn set_px(key: &str, value: impl Into<Word>, ttl_ms: u64) -> Self {
        Self::new("SET")
            .arg(key.to_owned())
            .arg(value)
            .arg("PX")
            .arg(ttl_ms)
    }

    /// `SET key value PXAT ms`, in Redis' time (since Redis 6.2).
    pub fn set_pxat(key: &str, value: impl Into<Word>, expiry_ms: u64) -> Self {
        Self::new("SET")
            .arg(key.to_owned())
            .arg(value)
            .arg("PXAT")
            .arg(expiry_ms)
    }

    /// `SET key value NX GET PX ms`: nil when it was set, else what was there
    /// (Redis 7.0 allows NX with GET).
    pub fn set_nx_get_px(key: &str, value: impl Into<Word>, ttl_ms: u64) -> Self {
        Self::new("SET")
            .arg(key.to_owned())
            .arg(value)
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(ttl_ms)
    }
}

/// Commands that share one HTTP request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub commands: Vec<Command>,
    /// Sent to `/multi-exec`: no command of others runs in between.
    pub atomic: bool,
    /// Sent even while the breaker is open: nobody waits for it, and it must arrive.
    pub insists: bool,
}

impl Batch {
    pub fn pipeline(commands: Vec<Command>) -> Self {
        Self {
            commands,
            ..Self::default()
        }
    }

    pub fn multi(commands: Vec<Command>) -> Self {
        Self {
            commands,
            atomic: true,
            ..Self::default()
        }
    }

    pub fn insisting(self) -> Self {
        Self {
            insists: true,
            ..self
        }
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}
