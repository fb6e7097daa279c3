//! Which database for limits counts an id: rendezvous hashing (Thaler and Ravishankar,
//! 1998). Every isolate agrees without asking, and one database more takes its part
//! of the ids from all others and moves no other id.

/// More endpoints than anybody lists; each is a trip beside the others.
pub const MAX_SHARDS: usize = 16;

/// The databases by what their URLs hash to. One database has every id.
#[derive(Debug, Clone, Default)]
pub struct Shards(Vec<u64>);

impl Shards {
    pub fn new<'u>(urls: impl IntoIterator<Item = &'u str>) -> Self {
        Self(urls.into_iter().map(hash).collect())
    }

    /// At least one.
    pub fn len(&self) -> usize {
        self.0.len().max(1)
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// The place of the database that counts this id.
    pub fn of(&self, id: &str) -> usize {
        if self.0.len() < 2 {
            return 0;
        }
        let id = hash(id);
        let best = (self.0.iter().enumerate()).max_by_key(|(_, url)| mix(id ^ mix(**url)));
        best.map_or(0, |(at, _)| at)
    }
}

/// FNV-1a; what it lacks `mix` brings.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The finaliser of SplitMix64.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
