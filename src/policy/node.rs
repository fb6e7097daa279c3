//! A policy's text as a tree that keeps order, repetition and byte offsets.
//!
//! `serde_json::Value` keeps none of the three, and all matter here: listed query
//! parameters are hashed in the policy's order, a name given twice is an error, and
//! every error has its line.

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub value: Value,
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Text(String),
    List(Vec<Node>),
    /// Names may be repeated; the grammar reports it.
    Table(Vec<Entry>),
    /// What no policy holds, by what it is.
    Other(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub at: usize,
    pub node: Node,
}

impl Value {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Integer(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}
