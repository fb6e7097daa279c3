//! What Redis answered to one command.

use crate::http::Bytes;

/// One reply. Strings are bytes: a stored body need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Int(i64),
    /// A bulk or simple string; `OK` arrives as these two bytes.
    Bytes(Vec<u8>),
    /// The same of a long value, which the next answers may share.
    Shared(Bytes),
    List(Vec<Reply>),
    /// This command failed, the others of its batch may not have.
    Error(String),
}

impl Reply {
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Reply::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Bytes(bytes) => Some(bytes),
            Reply::Shared(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The same to keep: copied unless it is shared.
    pub fn to_bytes(&self) -> Option<Bytes> {
        match self {
            Reply::Shared(bytes) => Some(bytes.clone()),
            reply => reply.as_bytes().map(Bytes::from),
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        self.as_bytes()
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    pub fn as_list(&self) -> Option<&[Reply]> {
        match self {
            Reply::List(items) => Some(items),
            _ => None,
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }
}
