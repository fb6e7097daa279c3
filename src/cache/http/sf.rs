//! Structured field values (RFC 9651): the parsing algorithms of its section 4.2.
//!
//! A value that does not parse to its end is none at all, so every parser here answers
//! `Option`. Numbers keep no floats: a decimal is in thousandths, which is all that it
//! can hold. Nothing here writes them; `report` and `headers` write what they know.

use crate::base64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bare {
    Integer(i64),
    /// In thousandths.
    Decimal(i64),
    String(String),
    Token(String),
    Bytes(Vec<u8>),
    Boolean(bool),
    /// Seconds since the Unix epoch.
    Date(i64),
    Display(String),
}

pub type Parameters = Vec<(String, Bare)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Item(Bare),
    Inner(Vec<(Bare, Parameters)>),
}

/// A member of a list or dictionary, or an item alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub value: Value,
    pub parameters: Parameters,
}

pub type Dictionary = Vec<(String, Member)>;

/// Of the field's lines joined by commas (4.2); an empty field is an empty dictionary.
pub fn dictionary(text: &str) -> Option<Dictionary> {
    let mut out = Dictionary::new();
    whole(text, |rest| {
        members(rest, |rest| {
            let key = rest.key()?;
            let member = match rest.take(b'=') {
                true => rest.member()?,
                false => Member {
                    value: Value::Item(Bare::Boolean(true)),
                    parameters: rest.parameters()?,
                },
            };
            replace(&mut out, key, member);
            Some(())
        })
    })?;
    Some(out)
}

/// The same of a list.
pub fn list(text: &str) -> Option<Vec<Member>> {
    let mut out = Vec::new();
    whole(text, |rest| {
        members(rest, |rest| {
            out.push(rest.member()?);
            Some(())
        })
    })?;
    Some(out)
}

pub fn item(text: &str) -> Option<Member> {
    let mut out = None;
    whole(text, |rest| {
        let (bare, parameters) = rest.item()?;
        let value = Value::Item(bare);
        out = Some(Member { value, parameters });
        Some(())
    })?;
    out
}

/// Spaces around a value mean nothing, anything else left over is a fault (4.2).
fn whole<'a>(text: &'a str, read: impl FnOnce(&mut Rest<'a>) -> Option<()>) -> Option<()> {
    let mut rest = Rest(text.trim_matches(' ').as_bytes());
    read(&mut rest)?;
    rest.0.is_empty().then_some(())
}

/// Members with commas between them, none after the last (4.2.1, 4.2.2).
fn members<'a>(
    rest: &mut Rest<'a>,
    mut read: impl FnMut(&mut Rest<'a>) -> Option<()>,
) -> Option<()> {
    while !rest.0.is_empty() {
        read(rest)?;
        rest.skip(b" \t");
        if rest.0.is_empty() {
            break;
        }
        if !rest.take(b',') {
            return None;
        }
        rest.skip(b" \t");
        if rest.0.is_empty() {
            return None;
        }
    }
    Some(())
}

/// A key that comes again takes the place of the first, with the later value.
fn replace<T>(out: &mut Vec<(String, T)>, key: String, value: T) {
    match out.iter_mut().find(|(known, _)| *known == key) {
        Some((_, old)) => *old = value,
        None => out.push((key, value)),
    }
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn peek(&self) -> u8 {
        // No production takes a NUL, so it stands for the end.
        self.0.first().copied().unwrap_or(0)
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, wanted: u8) -> bool {
        let is_there = self.0.first() == Some(&wanted);
        if is_there {
            self.next();
        }
        is_there
    }

    fn skip(&mut self, unwanted: &[u8]) {
        while self.0.first().is_some_and(|byte| unwanted.contains(byte)) {
            self.next();
        }
    }

    /// As far as it fits; what is read is ASCII.
    fn run(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let bytes = self.0;
        let end = bytes.iter().position(|byte| !fits(*byte));
        let (run, rest) = bytes
            .split_at_checked(end.unwrap_or(bytes.len()))
            .unwrap_or_default();
        self.0 = rest;
        run
    }

    /// 4.2.3.3: a key.
    fn key(&mut self) -> Option<String> {
        if !matches!(self.peek(), b'a'..=b'z' | b'*') {
            return None;
        }
        let is_inside =
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*');
        Some(text(self.run(is_inside)))
    }

    /// 4.2.1.1: an item or an inner list.
    fn member(&mut self) -> Option<Member> {
        if !self.take(b'(') {
            let (bare, parameters) = self.item()?;
            let value = Value::Item(bare);
            return Some(Member { value, parameters });
        }
        let mut items = Vec::new();
        loop {
            self.skip(b" ");
            if self.take(b')') {
                let value = Value::Inner(items);
                let parameters = self.parameters()?;
                return Some(Member { value, parameters });
            }
            items.push(self.item()?);
            if !matches!(self.peek(), b' ' | b')') {
                return None;
            }
        }
    }

    fn item(&mut self) -> Option<(Bare, Parameters)> {
        Some((self.bare()?, self.parameters()?))
    }

    /// 4.2.3.2: parameters.
    fn parameters(&mut self) -> Option<Parameters> {
        let mut out = Parameters::new();
        while self.take(b';') {
            self.skip(b" ");
            let key = self.key()?;
            let value = match self.take(b'=') {
                true => self.bare()?,
                false => Bare::Boolean(true),
            };
            replace(&mut out, key, value);
        }
        Some(out)
    }

    /// 4.2.3.1: what an item is, by its first character.
    fn bare(&mut self) -> Option<Bare> {
        match self.peek() {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => Some(Bare::Token(text(self.run(is_of_token)))),
            b':' => {
                self.next();
                let coded = self.run(|byte| byte != b':');
                // A parser should take missing padding and should not mind pad bits (4.2.7).
                let bytes = self.take(b':').then(|| base64::decode_leniently(coded))?;
                Some(Bare::Bytes(bytes?))
            }
            b'?' => {
                self.next();
                match self.next()? {
                    b'0' => Some(Bare::Boolean(false)),
                    b'1' => Some(Bare::Boolean(true)),
                    _ => None,
                }
            }
            b'@' => {
                self.next();
                match self.number()? {
                    Bare::Integer(seconds) => Some(Bare::Date(seconds)),
                    _ => None,
                }
            }
            b'%' => self.display(),
            _ => None,
        }
    }

    /// 4.2.4: at most 15 digits, or 12 and up to three behind the point.
    fn number(&mut self) -> Option<Bare> {
        let sign = if self.take(b'-') { -1 } else { 1 };
        let whole = self.run(|byte| byte.is_ascii_digit());
        let mut number = 0;
        let add = |number: &mut i64, digits: &[u8]| {
            for digit in digits {
                *number = *number * 10 + i64::from(digit - b'0');
            }
        };
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        add(&mut number, whole);
        if !self.take(b'.') {
            return Some(Bare::Integer(sign * number));
        }
        let part = self.run(|byte| byte.is_ascii_digit());
        if whole.len() > 12 || !(1..=3).contains(&part.len()) {
            return None;
        }
        add(&mut number, part);
        for _ in part.len()..3 {
            number *= 10;
        }
        Some(Bare::Decimal(sign * number))
    }

    /// 4.2.5: printable ASCII, in which a quote and a backslash are escaped.
    fn string(&mut self) -> Option<Bare> {
        self.next();
        let mut out = String::new();
        loop {
            match self.next()? {
                b'"' => return Some(Bare::String(out)),
                b'\\' => match self.next()? {
                    byte @ (b'"' | b'\\') => out.push(char::from(byte)),
                    _ => return None,
                },
                byte @ b' '..=b'~' => out.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    /// 4.2.10: UTF-8 in quotes, percent-coded in lower case.
    fn display(&mut self) -> Option<Bare> {
        self.next();
        if !self.take(b'"') {
            return None;
        }
        let mut out = Vec::new();
        loop {
            match self.next()? {
                b'"' => return Some(Bare::Display(String::from_utf8(out).ok()?)),
                b'%' => {
                    let nibble = |byte| match byte {
                        b'0'..=b'9' => Some(byte - b'0'),
                        b'a'..=b'f' => Some(byte - b'a' + 10),
                        _ => None,
                    };
                    let high = nibble(self.next()?)?;
                    out.push(high * 16 + nibble(self.next()?)?);
                }
                byte @ b' '..=b'~' => out.push(byte),
                _ => return None,
            }
        }
    }
}

/// 4.2.6: a token's characters, all but the first.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

/// What only has ASCII in it.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}
