//! What is viewed, and by whom.

use super::{BUCKETS, numbered};
use crate::identity::hashed;
use crate::policy::percent::{decode, encode_component};

/// Of an id before it is encoded. The origin gets ids back, so longer ones are not hashed
/// but not counted.
pub const MAX_ID_BYTES: usize = 128;

/// `{kind}:{id}`, the id encoded as in all keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item(String);

impl Item {
    pub fn new(kind: &str, id: &str) -> Option<Self> {
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return None;
        }
        let mut member = kind.to_owned();
        member.push(':');
        member.push_str(&encode_component(id));
        Some(Self(member))
    }

    /// As it stands in Redis.
    pub fn parse(member: &str) -> Option<Self> {
        let (kind, id) = member.split_once(':')?;
        (!kind.is_empty() && !id.is_empty() && !id.contains(':')).then(|| Self(member.to_owned()))
    }

    pub fn member(&self) -> &str {
        &self.0
    }

    pub fn kind(&self) -> &str {
        self.0.split_once(':').map_or("", |(kind, _)| kind)
    }

    fn encoded_id(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, id)| id)
    }

    /// As the origin knows it.
    pub fn id(&self) -> String {
        decode(self.encoded_id(), false).unwrap_or_default()
    }

    /// FNV-1a, and the finaliser of MurmurHash3 for what it lacks: what a backend may need to
    /// find an item, and can do in a line.
    pub fn bucket(&self) -> u64 {
        let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let mut hash = self.0.bytes().fold(0x811c_9dc5, step);
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
        hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
        u64::from(hash ^ (hash >> 16)) % BUCKETS
    }

    /// Of its viewers' set.
    pub fn set_key(&self, day: u64) -> String {
        let mut key = String::from("views:");
        key.push_str(self.kind());
        let mut key = numbered(&key, day);
        key.push(':');
        key.push_str(self.encoded_id());
        key
    }
}

/// An item that a visitor was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub item: Item,
    pub day: u64,
    pub hour: u64,
    /// Of item, day and viewer; it never leaves the isolate.
    pub name: String,
}

impl Sight {
    /// `viewer` is a key-safe id, `now_ms` in Redis' time.
    pub fn new(item: Item, viewer: &str, now_ms: u64) -> Self {
        let hours = now_ms / super::HOUR_MS;
        let day = hours / 24;
        let mut name = item.set_key(day);
        name.push(' ');
        name.push_str(viewer);
        Self {
            item,
            day,
            hour: hours % 24,
            name,
        }
    }
}

/// One view: at most one of a viewer, an item and a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub sight: Sight,
    /// Of viewer, item and day: without the key nobody can tell the viewer from it, nor
    /// which views are one viewer's.
    pub digest: String,
}

impl View {
    pub fn new(sight: Sight, key: &[u8]) -> Self {
        let digest = hashed(&["view ", &sight.name].concat(), key);
        Self { sight, digest }
    }

    /// What the set holds: 63 bits, so that up to 512 viewers are 8 bytes each.
    pub fn number(&self) -> u64 {
        let digits = self.digest.get(..16).unwrap_or_default();
        u64::from_str_radix(digits, 16).unwrap_or(0) >> 1
    }

    /// In the day's bits.
    pub fn bit(&self) -> u64 {
        self.sight.hour * BUCKETS + self.sight.item.bucket()
    }
}
