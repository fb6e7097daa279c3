//! What Redis keeps of the sync: where it is, and the batch that is not ended.

use super::item::Item;
use crate::json::{Map, Value, json};
use crate::recent::Places;

/// Numbers by kind, in the order in which the kinds came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(Vec<(String, u64)>);

impl Counts {
    pub fn get(&self, kind: &str) -> u64 {
        let found = self.0.iter().find(|(known, _)| known == kind);
        found.map_or(0, |(_, count)| *count)
    }

    pub fn add(&mut self, kind: &str, count: u64) {
        match self.0.iter_mut().find(|(known, _)| known == kind) {
            Some((_, sum)) => *sum = sum.saturating_add(count),
            None => self.0.push((kind.to_owned(), count)),
        }
    }

    fn write(&self) -> Value<'static> {
        let pair = |(kind, count): &(String, u64)| Value::Array(vec![json!(kind), json!(*count)]);
        Value::Array(self.0.iter().map(pair).collect())
    }

    fn read(value: Option<&Value<'_>>) -> Option<Self> {
        let pair = |pair: &Value<'_>| match pair.as_array()? {
            [kind, count] => Some((kind.as_str()?.to_owned(), count.as_u64()?)),
            _ => None,
        };
        let pairs: Option<Vec<_>> = value?.as_array()?.iter().map(pair).collect();
        pairs.map(Self)
    }
}

/// Before which bucket of which day a pass is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub day: u64,
    pub bucket: u64,
}

/// A pass under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pass {
    pub begun_ms: u64,
    pub place: Place,
    /// Views that it has sent.
    pub sent: Counts,
    /// Views of the days that stay, when it began.
    pub seen: Counts,
}

/// `views:_sync`. Nothing is lost when it is old: what is done is done again, and found done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Of the last batch that is ended.
    pub number: u64,
    /// When the last whole pass ended; 0: there was none.
    pub last_sync_ms: u64,
    /// When it began.
    pub begun_ms: u64,
    /// The first day of which something may not be sent.
    pub oldest: u64,
    /// Of what was seen of the days from `oldest` on, so much was sent by then.
    pub base: Counts,
    pub pass: Option<Pass>,
}

impl State {
    pub fn write(&self) -> String {
        let mut record = Map::new();
        record.insert("number", json!(self.number));
        record.insert("last_sync", json!(self.last_sync_ms));
        record.insert("begun", json!(self.begun_ms));
        record.insert("oldest", json!(self.oldest));
        record.insert("base", self.base.write());
        if let Some(pass) = &self.pass {
            let mut under_way = Map::new();
            under_way.insert("begun", json!(pass.begun_ms));
            under_way.insert("day", json!(pass.place.day));
            under_way.insert("bucket", json!(pass.place.bucket));
            under_way.insert("sent", pass.sent.write());
            under_way.insert("seen", pass.seen.write());
            record.insert("pass", Value::Object(under_way));
        }
        Value::Object(record).text()
    }

    pub fn read(record: &[u8]) -> Option<Self> {
        let json = Value::read(record).ok()?;
        let number = |of: &Value<'_>, name: &str| of.get(name)?.as_u64();
        Some(Self {
            number: number(&json, "number")?,
            last_sync_ms: number(&json, "last_sync")?,
            begun_ms: number(&json, "begun")?,
            oldest: number(&json, "oldest")?,
            base: Counts::read(json.get("base"))?,
            pass: match json.get("pass") {
                None => None,
                Some(pass) => Some(Pass {
                    begun_ms: number(pass, "begun")?,
                    place: Place {
                        day: number(pass, "day")?,
                        bucket: number(pass, "bucket")?,
                    },
                    sent: Counts::read(pass.get("sent"))?,
                    seen: Counts::read(pass.get("seen"))?,
                }),
            },
        })
    }

    /// How many views of a kind are not sent, of so many seen.
    pub fn pending(&self, kind: &str, seen: u64) -> u64 {
        let sent = self.pass.as_ref().map_or(0, |pass| pass.sent.get(kind));
        seen.saturating_sub(self.base.get(kind).saturating_add(sent))
    }
}

/// Views of one item and day that are sent: those from `sent` up to `upto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub day: u64,
    pub item: Item,
    pub sent: u64,
    pub upto: u64,
}

impl Entry {
    pub fn count(&self) -> u64 {
        self.upto.saturating_sub(self.sent)
    }
}

/// What is sent at once. It is fixed before it is sent, and sent again as it is until the
/// origin has taken it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    /// The origin's key: never used before.
    pub id: String,
    /// When its pass began.
    pub begun_ms: u64,
    /// Where the pass goes on.
    pub next: Place,
    pub entries: Vec<Entry>,
}

impl Fixed {
    pub fn write(&self) -> String {
        let entry = |entry: &Entry| {
            Value::Array(vec![
                json!(entry.day),
                json!(entry.item.member()),
                json!(entry.sent),
                json!(entry.upto),
            ])
        };
        let entries = self.entries.iter().map(entry).collect();
        let mut record = Map::new();
        record.insert("id", json!(&self.id));
        record.insert("begun", json!(self.begun_ms));
        record.insert("day", json!(self.next.day));
        record.insert("bucket", json!(self.next.bucket));
        record.insert("entries", Value::Array(entries));
        Value::Object(record).text()
    }

    pub fn read(record: &[u8]) -> Option<Self> {
        let json = Value::read(record).ok()?;
        let number = |name| json.get(name)?.as_u64();
        let entry = |entry: &Value<'_>| match entry.as_array()? {
            [day, item, sent, upto] => Some(Entry {
                day: day.as_u64()?,
                item: Item::parse(item.as_str()?)?,
                sent: sent.as_u64()?,
                upto: upto.as_u64()?,
            }),
            _ => None,
        };
        Some(Self {
            id: json.get("id")?.as_str()?.to_owned(),
            begun_ms: number("begun")?,
            next: Place {
                day: number("day")?,
                bucket: number("bucket")?,
            },
            entries: json
                .get("entries")?
                .as_array()?
                .iter()
                .map(entry)
                .collect::<Option<_>>()?,
        })
    }

    /// What the origin gets: the days of an item added up, in the order of the entries.
    pub fn counts(&self) -> Counted<'_> {
        let mut counted = Counted::default();
        for entry in &self.entries {
            let at = counted.place(&entry.item);
            match at.and_then(|at| counted.items.get_mut(at)) {
                Some((_, sum)) => *sum += entry.count(),
                None => {
                    let at = counted.items.len();
                    counted.places.insert(entry.item.member().into(), at);
                    counted.items.push((&entry.item, entry.count()));
                }
            }
        }
        counted
    }

    pub fn views(&self) -> u64 {
        self.entries.iter().map(Entry::count).sum()
    }
}

/// Items, each once, and how often they were viewed.
#[derive(Debug, Default)]
pub struct Counted<'b> {
    pub items: Vec<(&'b Item, u64)>,
    /// Of their members.
    places: Places,
}

impl Counted<'_> {
    pub fn place(&self, item: &Item) -> Option<usize> {
        self.places.get(item.member()).copied()
    }
}

/// The body of a batch.
pub fn body(id: &str, counts: &[(&Item, u64)]) -> String {
    let count = |(item, count): &(&Item, u64)| json!({ "kind": item.kind(), "id": item.id(), "count": *count });
    let counts: Vec<Value<'_>> = counts.iter().map(count).collect();
    json!({ "batch": id, "counts": Value::Array(counts) }).text()
}
