//! How entries that are more than plain JSON go to Redis and come back: compressed when it
//! pays, and encrypted if they are one user's.
//!
//! A user's entry is never compressed. Its length in Redis would then tell how much of what
//! others could put into it (a title, a name) repeats what it keeps secret, as TLS
//! compression once did. Nor does it ever live on by a record beside it: that would tell
//! that nothing has changed. What cannot be opened is a miss, whatever it is.

use crate::cache::entry::Origin;
use crate::cache::packed::{self, Packed};
use crate::cache::store::{self, Times};
use crate::cache::{Entry, Found, Lookup, Seen};
use crate::deferred::Proof;
use crate::fill::Wanted;
use crate::policy::{CacheRule, Form};
use crate::ports::{Clock, Ports};
use crate::redis::Batch;
use crate::visit::Visit;

/// Shorter bodies gain less than their headers cost.
const MIN_GZIP_BYTES: usize = 1_024;

pub fn rule<'g, P: Ports>(visit: &Visit<'g, P>, wanted: &Wanted) -> Option<&'g CacheRule> {
    let route = visit.gateway.policy.routes.get(wanted.route)?;
    route.cache.as_ref()
}

pub fn form<P: Ports>(visit: &Visit<'_, P>, wanted: &Wanted) -> Form {
    rule(visit, wanted).map_or(Form::Plain, |rule| rule.form)
}

/// What was found, as its route has it, but for a user's entry, which must be opened.
pub fn unpacked(form: Form, lookup: &Lookup, seen: &mut Seen, now_ms: u64) {
    if form == Form::Packed
        && let Found::Packed(packed) = &seen.found
    {
        // A second reading is with more tags.
        let lookup = lookup.named(&seen.origin_tags);
        let judged = packed.judge(&lookup, &seen.generations, now_ms);
        seen.take(&lookup, judged);
    }
}

/// What was found, as its route has it. Of a user nothing counts but what is sealed.
pub async fn opened<P: Ports>(visit: &Visit<'_, P>, wanted: &Wanted, seen: &mut Seen) {
    let form = form(visit, wanted);
    let lookup = &wanted.lookup;
    if form != Form::User {
        unpacked(form, lookup, seen, visit.now_ms());
        return;
    }
    let plain = match &seen.found {
        Found::Packed(packed) => open(visit, wanted, packed).await,
        _ => None,
    };
    seen.found = Found::Missing;
    if let Some(plain) = plain {
        let now_ms = visit.now_ms();
        let lookup = lookup.named(&seen.origin_tags);
        let judged = packed::judge_opened(&plain, &lookup, &seen.generations, now_ms);
        seen.take(&lookup, judged);
    }
}

/// Each key is tried: the tag says which one it was.
async fn open<P: Ports>(visit: &Visit<'_, P>, wanted: &Wanted, packed: &Packed) -> Option<Vec<u8>> {
    let sealed = packed.sealed()?;
    for key in &visit.gateway.settings.cache_keys {
        let plain = visit.ports.open(key, &wanted.lookup.key, &sealed);
        if let Some(plain) = plain.await {
            return Some(plain);
        }
    }
    None
}

/// Compresses an entry if that pays: its value is text, so it must in base64 too. What is
/// no text is compressed already, as a rule.
pub async fn compress<P: Ports>(visit: &Visit<'_, P>, form: Form, entry: &mut Entry) {
    let is_worth_it = form == Form::Packed
        && entry.body.len() >= MIN_GZIP_BYTES
        && std::str::from_utf8(&entry.body).is_ok();
    if !is_worth_it {
        return;
    }
    let Some(gzip) = visit.ports.gzip(&entry.body).await else {
        return;
    };
    if gzip.len().div_ceil(3) * 4 <= entry.body.len() / 10 * 9 {
        entry.body = gzip.into();
        entry.headers.set("content-encoding", "gzip");
    }
}

/// What stores an entry and ends its fill; `None`: it cannot be encrypted.
pub async fn commands<P: Ports>(
    visit: &Visit<'_, P>,
    proof: &Proof,
    entry: &Entry,
    times: Times,
    lock_key: &str,
) -> Option<Batch> {
    let (lookup, generations) = (&proof.lookup, &proof.generations);
    let value = match times.form {
        Form::Plain => {
            let offset_ms = offset_ms(visit);
            let batch = store::commands(lookup, entry, times, generations, lock_key, offset_ms);
            return Some(batch);
        }
        Form::Packed => packed::text(lookup, entry, times.origin, generations),
        Form::User => {
            let key = visit.gateway.settings.cache_keys.first()?;
            let plain = packed::plain(lookup, entry, times.origin, generations);
            let sealed = visit.ports.seal(key, &lookup.key, &plain).await?;
            packed::sealed_text(&sealed)
        }
    };
    let life_ms = times.life_ms();
    Some(packed::commands(lookup, value, life_ms, lock_key))
}

/// What is sent instead when the same body lies in Redis already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Of the body as it lies there.
    pub hash: String,
    pub batch: Batch,
}

/// How far Redis' clock is ahead of this isolate's.
fn offset_ms<P: Ports>(visit: &Visit<'_, P>) -> i64 {
    let limits = visit.gateway.limits.borrow();
    limits.clock_offset_ms(0).unwrap_or(0)
}

/// `stale` is what was found before the origin was asked.
pub fn extension<P: Ports>(
    visit: &Visit<'_, P>,
    proof: &Proof,
    stale: &Entry,
    entry: &Entry,
    times: Times,
    lock_key: &str,
) -> Option<Box<Extension>> {
    let is_same = times.form != Form::User
        && times.origin == Origin::Edge
        && stale.status == entry.status
        && stale.body == entry.body;
    is_same.then(|| {
        let (lookup, offset_ms) = (&proof.lookup, offset_ms(visit));
        Box::new(Extension {
            hash: crate::cache::entry::hash(&entry.body),
            batch: store::extension(
                lookup,
                entry,
                times,
                &proof.generations,
                lock_key,
                offset_ms,
            ),
        })
    })
}
