//! Entries of one user: encrypted, private, and never in anybody else's hands.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edgeweir::config::{CacheKey, Secret};
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;

use super::sim::first_seed;
use super::world::{Ask, Isolate, Says, Served, World, policy};

const SECRET: &str = "a shared secret";
const KEY: &str = "user:ann:saved_books";

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "saved", "match": "GET /me/saved", "cache": {
                "scope": "user", "key": "user:{user}:saved_books", "ttl": "1h", "stale": "1h",
                "negative": "1m", "tags": ["saved", "of:{user}"] } },
            { "name": "note", "match": "GET /me/notes/{id}", "cache": {
                "scope": "user", "key": "user:{user}:note:{id}", "ttl": "1h" } },
            { "name": "save", "match": "POST /save", "purge": { "keys": ["user:{user}:saved_books"] } },
        ],
    }))
}

fn settings(keys: &[u8]) -> Settings {
    Settings {
        jwt_secret: Some(Secret::new(SECRET)),
        cache_keys: keys.iter().map(|byte| CacheKey::new([*byte; 32])).collect(),
        ..Settings::default()
    }
}

/// Two isolates, and an origin that says who asked.
fn world() -> (Rc<World>, Isolate, Isolate) {
    let world = World::new(first_seed());
    world.origin(|asked| {
        let said = |name| asked.headers.get(name).unwrap_or("nobody").to_owned();
        Says::json(&json!({ "token": said("authorization"), "cookie": said("cookie") }))
            .header("cache-control", "private, max-age=5")
    });
    let isolate = || world.isolate_with(shop(), settings(&[1]));
    let (one, other) = (isolate(), isolate());
    (world, one, other)
}

fn bearer(user: &str) -> String {
    let part = |value: &str| URL_SAFE_NO_PAD.encode(value);
    let claims = json!({ "sub": user }).to_string();
    let signed = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("Bearer {signed}.{signature}")
}

fn saved(user: &str) -> Ask {
    Ask::get("/me/saved").header("authorization", &bearer(user))
}

fn settled(isolate: &Isolate, ask: Ask) -> Served {
    let served = isolate.ask(ask);
    isolate.world.settle();
    served
}

fn is_hit(served: &Served) -> bool {
    served.cache_status().starts_with("edgeweir; hit")
}

/// One fill a user for all isolates, with his own credentials; nothing of it can be read in
/// Redis, and outward it is private.
#[test]
fn a_users_entry_is_his_and_encrypted() {
    let (world, one, other) = world();
    let ask = || {
        saved("ann")
            .header("cookie", "session=secret-cookie")
            .header("x-forwarded-host", "evil")
    };
    let miss = settled(&one, ask());
    assert_eq!(miss.cache_status(), "edgeweir; fwd=miss; stored");
    assert_eq!(miss.json()["token"], bearer("ann"));
    assert_eq!(miss.json()["cookie"], "session=secret-cookie");
    assert_eq!(
        world.asked.borrow()[0].headers.get("x-forwarded-host"),
        None
    );
    let hit = settled(&other, ask());
    assert!(is_hit(&hit) && hit.body == miss.body, "{hit:?}");
    for served in [&miss, &hit] {
        assert_eq!(served.get("cache-control"), "private, max-age=5");
        let vary: Vec<&str> = served.headers.get_all("vary").collect();
        assert_eq!(vary, ["Authorization", "Cookie"]);
        assert_eq!(served.get("etag"), miss.get("etag"));
    }
    assert_eq!(world.asked_for("/me/saved"), 1);
    let value = String::from_utf8(world.redis.get(KEY).unwrap()).unwrap();
    assert!(value.starts_with("s1,"), "{value}");
    assert_eq!(world.redis.get(&format!("meta:{KEY}")), None);
    for ran in world.redis.ran.borrow().iter() {
        let words = ran.words.join(" ");
        for secret in [
            "token",
            "secret-cookie",
            "etag",
            miss.get("etag"),
            "max-age",
            "Bearer",
        ] {
            assert!(!words.contains(secret), "{secret} in {words}");
        }
    }
    assert_eq!(world.immortal_keys(), Vec::<String>::new());
    let known = settled(&other, ask().header("if-none-match", hit.get("etag")));
    assert_eq!(
        (known.status, known.get("cache-control")),
        (304, "private, max-age=5")
    );
    let head = settled(
        &one,
        Ask {
            method: "HEAD".into(),
            ..ask()
        },
    );
    assert!(is_hit(&head) && head.body.is_empty());
    assert_eq!(head.get("content-length"), miss.body.len().to_string());
}

/// The same value is another one each time, so that none tells what another was.
#[test]
fn no_nonce_is_used_twice() {
    let (world, one, _) = world();
    let mut values = Vec::new();
    for _ in 0..50 {
        settled(&one, saved("ann"));
        values.push(world.redis.get(KEY).unwrap());
        settled(
            &one,
            Ask::new("POST", "/save").header("authorization", &bearer("ann")),
        );
        assert_eq!(world.redis.get(KEY), None);
    }
    let nonces: std::collections::BTreeSet<&[u8]> =
        values.iter().map(|value| &value[3..19]).collect();
    assert_eq!(nonces.len(), 50);
}

/// Whoever is nobody gets his own answer of the origin, and leaves nothing behind.
#[test]
fn without_a_user_the_cache_is_bypassed() {
    let (world, one, _) = world();
    settled(&one, saved("ann"));
    let forged = bearer("ann") + "x";
    for authorization in ["", "Basic YW5uOmFubg==", "Bearer ann", &forged] {
        let before = world.redis.ttls_ms(world.sim.now_us()).len();
        let ask = Ask::get("/me/saved").header("authorization", authorization);
        let served = settled(&one, ask);
        assert_eq!(served.cache_status(), "edgeweir; fwd=bypass; detail=user");
        assert_eq!(served.json()["token"], authorization);
        assert_eq!(served.get("cache-control"), "private, max-age=5");
        assert_eq!(world.redis.ttls_ms(world.sim.now_us()).len(), before);
    }
}

/// Names that look like parts of keys are other keys, and all of many users at once, over
/// two isolates, get what is theirs.
#[test]
fn users_never_meet() {
    let (world, one, other) = world();
    let users = [
        "ann",
        "ann:saved_books",
        "ann%3Asaved_books",
        "%61nn",
        "ANN",
        "a/n",
        "ann\n",
        "user:ann",
        "{user}",
        "*",
        "ann ",
    ];
    for round in 0..3 {
        let slots: Vec<_> = users
            .iter()
            .flat_map(|user| [&one, &other].map(|isolate| (user, isolate.send(saved(user)).1)))
            .collect();
        for (user, slot) in slots {
            let served = world.sim.block_on(slot.wait());
            assert_eq!(
                served.json()["token"],
                bearer(user),
                "{user:?} in round {round}"
            );
        }
        world.settle();
    }
    assert_eq!(world.asked_for("/me/saved"), users.len());
    for (user, path) in [
        ("ann:note", "/me/notes/1"),
        ("ann", "/me/notes/note:1"),
        ("ann", "/me/notes/note%3A1"),
        ("ann:note:note", "/me/notes/1"),
    ] {
        let ask = Ask::get(path).header("authorization", &bearer(user));
        assert_eq!(settled(&one, ask).json()["token"], bearer(user));
    }
}

/// What was changed, cut, copied from another user or written by somebody else is a miss,
/// never an error, and the next answer takes its place.
#[test]
fn what_cannot_be_opened_is_a_miss() {
    let (world, one, other) = world();
    settled(&one, saved("ann"));
    settled(&one, saved("bob"));
    let (own, of_bob) = (
        world.redis.get(KEY).unwrap(),
        world.redis.get("user:bob:saved_books").unwrap(),
    );
    let mut bad = vec![
        of_bob,
        Vec::new(),
        b"s1,".to_vec(),
        b"s1,AAAA".to_vec(),
        b"s1,?".to_vec(),
        b"{}".to_vec(),
        b"p1,".to_vec(),
        b"p1,{}\n{}".to_vec(),
    ];
    for at in [0, 1, 3, 10, 30, own.len() / 2, own.len() - 5] {
        bad.push(own[..at].to_vec());
        let mut changed = own.clone();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        bad.push(changed);
    }
    for value in bad {
        world
            .redis
            .set_px(world.sim.now_us(), KEY, value.clone(), 60_000);
        let text = String::from_utf8_lossy(&value).into_owned();
        let served = settled(&other, saved("ann"));
        assert_eq!(
            (served.status, served.cache_status()),
            (200, "edgeweir; fwd=miss; stored"),
            "{text}"
        );
        assert_eq!(served.json()["token"], bearer("ann"), "{text}");
        let again = settled(&one, saved("ann"));
        assert!(
            is_hit(&again) && again.json()["token"] == bearer("ann"),
            "{text}"
        );
    }
}

/// The first key encrypts, both decrypt; without the right one an entry is a miss.
#[test]
fn keys_are_rotated() {
    let (world, old, _) = world();
    settled(&old, saved("ann"));
    let both = world.isolate_with(shop(), settings(&[2, 1]));
    let new = world.isolate_with(shop(), settings(&[2]));
    assert!(is_hit(&settled(&both, saved("ann"))));
    let ask = Ask::new("POST", "/save").header("authorization", &bearer("ann"));
    settled(&both, ask);
    settled(&both, saved("ann"));
    assert!(is_hit(&settled(&new, saved("ann"))));
    assert_eq!(
        settled(&old, saved("ann")).cache_status(),
        "edgeweir; fwd=miss; stored"
    );
    assert!(!is_hit(&settled(&new, saved("ann"))));
    let none = world.isolate_with(shop(), settings(&[]));
    let served = settled(&none, saved("ann"));
    assert_eq!(
        (served.status, served.cache_status()),
        (200, "edgeweir; fwd=bypass; detail=no-cache-key")
    );
}

/// His writes, and purges by key and tag, end his entry and no other's.
#[test]
fn purges_end_a_users_entry() {
    let (world, one, other) = world();
    for user in ["ann", "bob"] {
        settled(&one, saved(user));
    }
    settled(
        &other,
        Ask::new("POST", "/save").header("authorization", &bearer("ann")),
    );
    assert!(is_hit(&settled(&one, saved("bob"))));
    assert!(!is_hit(&settled(&one, saved("ann"))));
    world.redis.set_px(
        world.sim.now_us(),
        "gen:of:ann",
        "a-backends-uuid",
        172_800_000,
    );
    assert!(is_hit(&settled(&one, saved("bob"))));
    assert!(!is_hit(&settled(&one, saved("ann"))));
    // What lay there before a purge is no answer after it.
    let before = world.redis.get(KEY).unwrap();
    settled(
        &other,
        Ask::new("POST", "/save").header("authorization", &bearer("ann")),
    );
    world
        .redis
        .set_px(world.sim.now_us(), KEY, before, 3_600_000);
    assert!(!is_hit(&settled(&one, saved("ann"))));
}

/// What is private may be stored for its user; what is for one time only may not.
#[test]
fn what_of_a_users_answers_is_stored() {
    let says = |name: &str, value: &str| Says::new(200, "{}").header(name, value);
    for (says, status) in [
        (says("cache-control", "private"), "fwd=miss; stored"),
        (
            says("cache-control", "public, s-maxage=9"),
            "fwd=miss; stored",
        ),
        (says("vary", "Authorization, Cookie"), "fwd=miss; stored"),
        (says("content-type", "text/html"), "fwd=miss; stored"),
        (
            says("cache-control", "no-store"),
            "fwd=miss; detail=cache-control",
        ),
        (says("set-cookie", "a=b"), "fwd=miss; detail=set-cookie"),
        (says("vary", "Accept-Language"), "fwd=miss; detail=vary"),
        (Says::new(500, "{}"), "fwd=miss; detail=status"),
        (Says::new(404, "{}"), "fwd=miss; stored"),
        (Says::new(200, [0xFF, 0, 1]), "fwd=miss; stored"),
    ] {
        let (world, one, other) = world();
        let script = says.clone().header("cdn-cache-control", "max-age=60");
        world.origin(move |_| script.clone());
        let first = settled(&one, saved("ann"));
        let next = settled(&other, saved("ann"));
        for served in [&first, &next] {
            assert_eq!((served.status, &served.body), (says.status, &says.body));
            assert!(
                served.get("cache-control").starts_with("private"),
                "{served:?}"
            );
            assert!(
                !served.get("cache-control").contains("public"),
                "{served:?}"
            );
            assert!(
                !served.get("cache-control").contains("s-maxage"),
                "{served:?}"
            );
            assert_eq!(served.get("cdn-cache-control"), "");
        }
        assert_eq!(
            first.cache_status(),
            format!("edgeweir; {status}"),
            "{says:?}"
        );
        assert_eq!(is_hit(&next), status.ends_with("stored"), "{says:?}");
    }
}

/// A stale answer is refreshed with the credentials of the user who got it.
#[test]
fn a_stale_entry_is_refreshed_for_its_user() {
    let (world, one, _) = world();
    settled(&one, saved("ann"));
    let before = world.redis.get(KEY).unwrap();
    world.pass(3_600_000);
    let stale = settled(&one, saved("ann").header("cookie", "new=1"));
    assert_eq!(stale.cache_status(), "edgeweir; hit; ttl=-1; detail=stale");
    assert_eq!(stale.json()["cookie"], "nobody");
    assert_ne!(world.redis.get(KEY).unwrap(), before);
    let fresh = settled(&one, saved("ann"));
    assert_eq!(
        (is_hit(&fresh), fresh.json()["cookie"].clone()),
        (true, json!("new=1"))
    );
}
