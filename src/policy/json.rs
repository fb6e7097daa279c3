//! JSON to a tree.
//!
//! serde_json judges the text; the walk over it only finds out where things are.

use edgeweir_json::Value as Tree;
use serde::de::IgnoredAny;

use super::bounds::MAX_DEPTH;
use super::error::Faults;
use super::node::{Entry, Node, Value};

const HELP: &str = "mend the JSON there";

/// Reads JSON; `None` when it is none, which `faults` then says.
pub fn read(text: &str, faults: &mut Faults) -> Option<Node> {
    if let Err(error) = serde_json::from_slice::<IgnoredAny>(text.as_bytes()) {
        let at = offset(text, error.line(), error.column());
        let said = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let said = said.strip_suffix(&place).unwrap_or(&said);
        faults.add("", Some(at), format!("no JSON: {said}"), HELP);
        return None;
    }
    let mut walk = Walk { text, at: 0 };
    match walk.value(0) {
        Ok(node) => Some(node),
        Err(message) => {
            faults.add("", Some(walk.at), message, HELP);
            None
        }
    }
}

/// serde_json counts columns in bytes, from 1; 0 is the end of the line before.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Goes over text that serde_json has accepted.
struct Walk<'t> {
    text: &'t str,
    at: usize,
}

impl Walk<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, &'static str> {
        self.skip_space();
        let at = self.at;
        if depth > MAX_DEPTH {
            return Err("nested too deeply for a policy");
        }
        let value = match self.peek() {
            Some(b'{') => self.table(depth)?,
            Some(b'[') => self.list(depth)?,
            Some(b'"') => Value::Text(self.text()?),
            Some(b't') => self.word(4, Value::Bool(true)),
            Some(b'f') => self.word(5, Value::Bool(false)),
            Some(b'n') => self.word(4, Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => return Err("no JSON"),
        };
        Ok(Node { value, at })
    }

    fn word(&mut self, length: usize, value: Value) -> Value {
        self.at += length;
        value
    }

    fn number(&mut self) -> Value {
        let start = self.at;
        while matches!(
            self.peek(),
            Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
        ) {
            self.at += 1;
        }
        let digits = self.text.get(start..self.at).unwrap_or_default();
        match digits.parse() {
            Ok(integer) => Value::Integer(integer),
            Err(_)
                if digits
                    .bytes()
                    .any(|byte| matches!(byte, b'.' | b'e' | b'E')) =>
            {
                Value::Other("a number with a fraction or exponent")
            }
            Err(_) => Value::Other("a number beyond 64 bits"),
        }
    }

    fn text(&mut self) -> Result<String, &'static str> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err("no JSON"),
            }
        }
        self.at += 1;
        let quoted = self.text.get(start..self.at).unwrap_or_default();
        match Tree::read(quoted.as_bytes()) {
            Ok(Tree::String(text)) => Ok(text.into_owned()),
            _ => {
                self.at = start;
                Err("text with half a surrogate pair")
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, &'static str> {
        let mut nodes = Vec::new();
        while self.more(b']') {
            nodes.push(self.value(depth + 1)?);
        }
        Ok(Value::List(nodes))
    }

    fn table(&mut self, depth: usize) -> Result<Value, &'static str> {
        let mut entries = Vec::new();
        while self.more(b'}') {
            let at = self.at;
            let name = self.text()?;
            self.skip_space();
            self.at += 1; // the colon
            let node = self.value(depth + 1)?;
            entries.push(Entry { name, at, node });
        }
        Ok(Value::Table(entries))
    }

    /// Goes past what opens or separates; false at the end, which it goes past too.
    fn more(&mut self, end: u8) -> bool {
        self.skip_space();
        if self.peek() != Some(end) {
            self.at += 1;
            self.skip_space();
        }
        let more = self.peek().is_some_and(|byte| byte != end);
        if !more {
            self.at += 1;
        }
        more
    }
}
