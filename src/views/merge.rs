//! Pending views in answers: numbers of a JSON body, made larger on the way out.
//!
//! Only the digits change, so all else of the body stays byte for byte. What is no whole
//! number is left alone. What is stored never has a pending view in it.

use super::count;
use super::item::Item;
use super::pending;
use crate::cache::entry::etag;
use crate::http::{Body, Response};
use crate::json::{Value, unescaped};
use crate::policy::{Merge, PathValues, Route};
use crate::ports::Ports;
use crate::visit::Visit;

/// Objects of one answer that carry pending views.
pub const MAX_OBJECTS: usize = 200;
const MAX_DEPTH: usize = 32;

/// Digits of a body, and the item whose pending views they lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    pub begin: usize,
    pub end: usize,
    pub number: u64,
    pub item: Item,
}

/// Whether answers of a route carry pending views.
pub fn has_merge(route: &Route) -> bool {
    route.view.as_ref().is_some_and(|rule| rule.merge.is_some())
}

/// Adds what is pending to an answer, if the route says where and Redis answers in time.
pub async fn merge<P: Ports>(
    visit: &Visit<'_, P>,
    route: &Route,
    values: &PathValues,
    query: Option<&str>,
    mut response: Response<P::Body>,
) -> Response<P::Body> {
    let Some(rule) = route.view.as_ref() else {
        return response;
    };
    let (Some(merge), Body::Bytes(body), 200) = (&rule.merge, &response.body, response.status)
    else {
        return response;
    };
    let spots = match merge {
        Merge::Own(pointer) => {
            let first = rule.items.first();
            let selected = count::selected(route, query);
            let item = first.and_then(|item| {
                let id = count::id(&item.id, values, selected.as_ref())?;
                Item::new(&item.kind, &id)
            });
            let spot = item.and_then(|item| at_pointer(body, pointer, item));
            Vec::from_iter(spot)
        }
        Merge::Objects { field, kind, id } => in_objects(body, field, kind, id),
    };
    if spots.is_empty() {
        return response;
    }
    let items: Vec<Item> = spots.iter().map(|spot| spot.item.clone()).collect();
    let Some(pending) = pending::of_items(visit, &items).await else {
        return response;
    };
    if pending.iter().all(|pending| *pending == 0) {
        return response;
    }
    let merged = with(body, &spots, &pending);
    response.headers.set("etag", etag(&merged));
    response.with_bytes(merged.into())
}

/// The body with larger numbers. Spots are in the order of the body.
pub fn with(body: &[u8], spots: &[Spot], pending: &[u64]) -> Vec<u8> {
    let mut merged = Vec::with_capacity(body.len() + spots.len() * 4);
    let mut done = 0;
    for (spot, pending) in spots.iter().zip(pending) {
        let Some(before) = body.get(done..spot.begin) else {
            continue;
        };
        merged.extend_from_slice(before);
        let number = spot.number.saturating_add(*pending).to_string();
        merged.extend_from_slice(number.as_bytes());
        done = spot.end;
    }
    merged.extend_from_slice(body.get(done..).unwrap_or_default());
    merged
}

/// The number that an RFC 6901 pointer points at.
pub fn at_pointer(body: &[u8], pointer: &str, item: Item) -> Option<Spot> {
    let mut reader = Reader::new(body);
    for name in pointer.strip_prefix('/')?.split('/') {
        let name = unescaped(name);
        if !reader.enter(&name)? {
            return None;
        }
    }
    let (begin, end) = reader.value(0, &mut |_, _| {})?;
    let number = whole(body.get(begin..end)?)?;
    Some(Spot {
        begin,
        end,
        number,
        item,
    })
}

/// The numbers under `field` in every object that has an id beside it.
pub fn in_objects(body: &[u8], field: &str, kind: &str, id: &str) -> Vec<Spot> {
    let mut spots: Vec<Spot> = Vec::new();
    let mut found = |body: &[u8], members: &[(usize, usize, usize, usize)]| {
        let named = |wanted: &str| {
            let mut members = members.iter().rev();
            members.find(|(begin, end, ..)| is_name(body.get(*begin..*end), wanted))
        };
        let (Some(number), Some(id)) = (named(field), named(id)) else {
            return;
        };
        let (begin, end) = (number.2, number.3);
        let id = body.get(id.2..id.3).and_then(text_of);
        let number = body.get(begin..end).and_then(whole);
        if let (Some(id), Some(number)) = (id, number)
            && let Some(item) = Item::new(kind, &id)
            && spots.len() < MAX_OBJECTS
        {
            // An object ends after those within it.
            let at = spots.partition_point(|spot| spot.begin < begin);
            let spot = Spot {
                begin,
                end,
                number,
                item,
            };
            spots.insert(at, spot);
        }
    };
    let mut reader = Reader::new(body);
    if reader
        .value(0, &mut |body, members| found(body, members))
        .is_none()
    {
        return Vec::new();
    }
    spots
}

/// A whole number without a sign.
fn whole(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// An id is text or a whole number.
fn text_of(value: &[u8]) -> Option<String> {
    match Value::read(value).ok()? {
        Value::String(text) => Some(text.into_owned()),
        Value::Number(_) => whole(value).map(|number| number.to_string()),
        _ => None,
    }
}

fn is_name(quoted: Option<&[u8]>, wanted: &str) -> bool {
    let Some(quoted) = quoted else { return false };
    let inner = quoted.strip_prefix(b"\"");
    let inner = inner.and_then(|inner| inner.strip_suffix(b"\""));
    match inner {
        Some(inner) if !inner.contains(&b'\\') => inner == wanted.as_bytes(),
        _ => text_of(quoted).is_some_and(|name| name == wanted),
    }
}

/// Name and value of a member, by their places.
type Member = (usize, usize, usize, usize);
type OnObject<'f> = &'f mut dyn FnMut(&[u8], &[Member]);

/// Goes through a body that is JSON; what is none ends it with `None`.
struct Reader<'b> {
    body: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn new(body: &'b [u8]) -> Self {
        Self { body, at: 0 }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.body.get(self.at)? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    fn take(&mut self, wanted: u8) -> Option<()> {
        let is_next = self.peek()? == wanted;
        is_next.then(|| self.at += 1)
    }

    /// Whether a list or a table goes on.
    fn goes_on(&mut self, end: u8, is_first: bool) -> Option<bool> {
        match self.peek()? {
            byte if byte == end => {
                self.at += 1;
                Some(false)
            }
            b',' if !is_first => {
                self.at += 1;
                Some(true)
            }
            _ => is_first.then_some(true),
        }
    }

    fn quoted(&mut self) -> Option<(usize, usize)> {
        self.take(b'"')?;
        let begin = self.at - 1;
        loop {
            match self.body.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some((begin, self.at))
    }

    /// The place of the next value; tells of each object in it.
    fn value(&mut self, depth: usize, on_object: OnObject<'_>) -> Option<(usize, usize)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let first = self.peek()?;
        let begin = self.at;
        match first {
            b'"' => return self.quoted(),
            b'{' => {
                self.at += 1;
                let mut members: Vec<Member> = Vec::new();
                while self.goes_on(b'}', members.is_empty())? {
                    let name = self.quoted()?;
                    self.take(b':')?;
                    let value = self.value(depth + 1, on_object)?;
                    members.push((name.0, name.1, value.0, value.1));
                }
                on_object(self.body, &members);
            }
            b'[' => {
                self.at += 1;
                let mut is_first = true;
                while self.goes_on(b']', is_first)? {
                    is_first = false;
                    self.value(depth + 1, on_object)?;
                }
            }
            _ => {
                let is_part =
                    |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.');
                while self.body.get(self.at).is_some_and(is_part) {
                    self.at += 1;
                }
                // Something must stand there.
                if self.at == begin {
                    return None;
                }
            }
        }
        Some((begin, self.at))
    }

    /// Goes to a member or an item; false: it is not there.
    fn enter(&mut self, name: &str) -> Option<bool> {
        let mut ignore = |_: &[u8], _: &[Member]| {};
        match self.peek()? {
            b'{' => {
                self.at += 1;
                let mut is_first = true;
                let mut found = None;
                while self.goes_on(b'}', is_first)? {
                    is_first = false;
                    let (begin, end) = self.quoted()?;
                    self.take(b':')?;
                    let at = self.at;
                    self.value(0, &mut ignore)?;
                    // Of those of one name, the last.
                    if is_name(self.body.get(begin..end), name) {
                        found = Some(at);
                    }
                }
                if let Some(at) = found {
                    self.at = at;
                }
                Some(found.is_some())
            }
            b'[' => {
                self.at += 1;
                let index: usize = name.parse().ok()?;
                for before in 0.. {
                    if !self.goes_on(b']', before == 0)? {
                        return Some(false);
                    }
                    if before == index {
                        return Some(true);
                    }
                    self.value(0, &mut ignore)?;
                }
                Some(false)
            }
            _ => Some(false),
        }
    }
}
