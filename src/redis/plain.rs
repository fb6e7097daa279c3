//! An answer as Redis' endpoints write nearly all of them: results alone, lists of them one
//! deep, no space and nothing escaped.
//!
//! Text is looked at once, for what it is in base64, and not at all where it is known. What
//! is anything else, errors and what is malformed among it, is not read here: the codec
//! reads it as a tree.

use memchr::memchr;

use super::known::{Known, LONG_TEXT};
use super::{Command, Reply, Word};
use crate::base64;
use crate::http::Bytes;

/// One reply per command; `None`: it is not written so.
pub fn read(body: &[u8], commands: &[Command], known: &mut Known) -> Option<Vec<Reply>> {
    let mut rest = Rest(body.trim_ascii_end());
    let mut replies = Vec::with_capacity(commands.len());
    for command in commands {
        rest.take(if replies.is_empty() { b"[" } else { b"," })?;
        rest.take(b"{\"result\":")?;
        replies.push(rest.reply(command, known)?);
        rest.take(b"}")?;
    }
    rest.take(b"]")?;
    rest.0.is_empty().then_some(replies)
}

struct Rest<'b>(&'b [u8]);

impl Rest<'_> {
    fn take(&mut self, token: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(token)?;
        Some(())
    }

    fn reply(&mut self, command: &Command, known: &mut Known) -> Option<Reply> {
        if self.take(b"[").is_none() {
            return self.leaf(None, known);
        }
        let mut keys = match command.words() {
            [Word::Text(name), keys @ ..] if name == "MGET" => keys,
            _ => &[],
        }
        .iter();
        let mut items = Vec::with_capacity(keys.len());
        while self.take(b"]").is_none() {
            if !items.is_empty() {
                self.take(b",")?;
            }
            let key = match keys.next() {
                Some(Word::Text(key)) => Some(key.as_ref()),
                _ => None,
            };
            items.push(self.leaf(key, known)?);
        }
        Some(Reply::List(items))
    }

    fn leaf(&mut self, key: Option<&str>, known: &mut Known) -> Option<Reply> {
        match self.0.first()? {
            b'"' => self.text(key, known),
            b'n' => {
                self.take(b"null")?;
                Some(Reply::Nil)
            }
            _ => self.number().map(Reply::Int),
        }
    }

    fn text(&mut self, key: Option<&str>, known: &mut Known) -> Option<Reply> {
        self.take(b"\"")?;
        let head = self.0.get(..LONG_TEXT).unwrap_or(self.0);
        let key = key.filter(|_| memchr(b'"', head).is_none());
        if let Some(key) = key
            && let Some((bytes, length)) = known.find(key, self.0)
        {
            self.0 = self.0.get(length + 1..)?;
            return Some(Reply::Shared(bytes));
        }
        let (text, after) = self.0.split_at_checked(memchr(b'"', self.0)?)?;
        self.0 = after.get(1..)?;
        if text == b"OK" {
            return Some(Reply::Bytes(text.to_vec()));
        }
        let bytes = base64::decode(text)?;
        Some(match key {
            None => Reply::Bytes(bytes),
            Some(key) => {
                let bytes = Bytes::from(bytes);
                known.keep(key, text, &bytes);
                Reply::Shared(bytes)
            }
        })
    }

    /// As JSON writes it, so that no other spelling of a number is one.
    fn number(&mut self) -> Option<i64> {
        let is_digit = |byte: &u8| byte.is_ascii_digit();
        let sign = usize::from(self.0.first() == Some(&b'-'));
        let digits = self.0.get(sign..)?;
        let length = digits.iter().take_while(|byte| is_digit(byte)).count();
        if digits.first()? == &b'0' && (length > 1 || sign > 0) {
            return None;
        }
        let (number, after) = self.0.split_at_checked(sign + length)?;
        self.0 = after;
        std::str::from_utf8(number).ok()?.parse().ok()
    }
}
