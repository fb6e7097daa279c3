//! What the policy says of whom: lists, rollout, and the variables that turn parts of a
//! route off.

use std::collections::BTreeSet;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edgeweir::config::Secret;
use edgeweir::controls::{Copied, subject, subject_field};
use edgeweir::gateway::Settings;
use edgeweir::policy::{Limit, Policy, Subject, Switch, network};
use edgeweir::redis::Reply;
use hmac::{Hmac, Mac};
use proptest::prelude::*;
use serde_json::json;
use sha2::Sha256;

use super::sim::first_seed;
use super::world::{Ask, Isolate, Says, World, policy};

const SECRET: &str = "a shared secret";

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [{ "name": "default", "requests": 9, "window": "60s", "by": "ip" }],
            "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "limit": [
                { "name": "burst", "requests": 5, "window": "10s", "by": "ip" },
                { "name": "own", "requests": 50, "window": "60s", "by": "user" },
                { "name": "key", "requests": 70, "window": "60s", "by": "header:x-api-key" } ],
              "cache": { "key": "book:{id}", "ttl": "10m" } },
            { "name": "home", "match": "GET /home", "limit": [], "compose": { "book": "one" } },
            { "name": "one", "match": "GET /one", "limit": [],
              "cache": { "key": "one:all", "ttl": "10m" } },
        ],
    }))
}

/// The policy with a word more about one of the book's limits.
fn with(limit: usize, change: impl Fn(&mut Limit)) -> Policy {
    let mut policy = shop();
    change(&mut policy.routes[0].limits[limit]);
    policy
}

fn list(texts: &[&str]) -> Vec<Subject> {
    texts.iter().map(|text| subject(text).unwrap()).collect()
}

fn world_of(policy: Policy, switched_off: &[Switch]) -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(|asked| Says::json(&json!({ "of": asked.target })));
    let settings = Settings {
        jwt_secret: Some(Secret::new(SECRET)),
        switched_off: switched_off.to_vec(),
        ..Settings::default()
    };
    let isolate = world.isolate_with(policy, settings);
    (world, isolate)
}

fn world(policy: Policy) -> (Rc<World>, Isolate) {
    world_of(policy, &[])
}

fn book() -> Ask {
    Ask::get("/books/1")
}

fn bearer(user: &str) -> String {
    let part = |value: &str| URL_SAFE_NO_PAD.encode(value);
    let claims = json!({ "sub": user }).to_string();
    let signed = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!(
        "Bearer {signed}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}

/// Whom a limit denies is refused at once: no trip, no origin, and no word of why.
#[test]
fn a_denied_request_takes_no_trip_and_is_told_nothing() {
    let (world, isolate) = world(with(1, |limit| limit.deny = list(&["192.0.2.0/24"])));
    world.pass(10_000);
    for _ in 0..20 {
        let denied = isolate.ask(book());
        assert_eq!((denied.status, denied.trips, denied.took_us), (403, 0, 0));
        assert_eq!(denied.get("content-type"), "application/problem+json");
        assert_eq!(denied.get("cache-control"), "no-store");
        let told = json!({ "type": "about:blank", "title": "Forbidden", "status": 403,
            "detail": "This request is not allowed." });
        assert_eq!(denied.json(), told);
        for field in [
            "ratelimit",
            "x-ratelimit-limit",
            "retry-after",
            "server-timing",
            "cache-status",
        ] {
            assert!(!denied.headers.contains(field), "{field}");
        }
    }
    world.settle();
    assert_eq!(world.asked.borrow().len(), 0);
    // What operators have changed was read once, after an answer.
    let ran = world.redis.ran.borrow().clone();
    let ran: Vec<&str> = ran.iter().map(|ran| ran.words[0].as_str()).collect();
    assert_eq!(ran, ["HGETALL"]);
    let other = isolate.ask(book().header("cf-connecting-ip", "198.51.100.1"));
    assert_eq!(other.status, 200);
    assert_eq!(
        isolate.get("/elsewhere").status,
        200,
        "the list is that limit's own"
    );
}

/// Whom a limit allows it does not count; the other limits do.
#[test]
fn an_allowed_request_is_not_counted_by_that_limit() {
    let (_, isolate) = world(with(0, |limit| limit.allow = list(&["192.0.2.1"])));
    for _ in 0..9 {
        let served = isolate.ask(book());
        assert_eq!(served.status, 200);
        let limits = served.get("ratelimit-policy");
        assert_eq!(limits, "\"own\";q=50;w=60, \"key\";q=70;w=60");
    }
    let mut statuses = Vec::new();
    for _ in 0..7 {
        let served = isolate.ask(book().header("cf-connecting-ip", "192.0.2.2"));
        statuses.push(served.status);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
}

/// Addresses however written, users and header values; a deny beats an allow, and a
/// shadow limit refuses nobody.
#[test]
fn lists_name_addresses_users_and_header_values() {
    let alice = bearer("alice");
    let forged = format!("{}AAAA", &alice[..alice.len() - 4]);
    let ip = |ip: &str| book().header("cf-connecting-ip", ip);
    let user = |bearer: &str| book().header("authorization", bearer);
    let key = |key: &str| book().header("x-api-key", key);
    for (limit, deny, ask, status) in [
        (0, "192.0.2.1", book(), 403),
        (0, "192.0.2.0/31", book(), 403),
        (0, "192.0.2.2/31", book(), 200),
        (0, "::ffff:192.0.2.1", book(), 403),
        (0, "0.0.0.0/0", book(), 403),
        (0, "0.0.0.0/0", ip("2001:db8::1"), 200),
        (0, "::/0", ip("2001:db8::1"), 403),
        (0, "::/0", book(), 200),
        (0, "2001:db8::/32", ip("2001:0db8:ffff::1"), 403),
        (0, "2001:db8::/32", ip("2001:db9::1"), 200),
        (0, "192.0.2.1", ip("::ffff:c000:201"), 403),
        (0, "192.0.2.1", ip("unreadable"), 200),
        (0, "user:alice", user(&alice), 403),
        (0, "user:alice", user(&forged), 200),
        (0, "user:alice", book(), 200),
        (1, "header:alice", user(&alice), 403),
        (0, "header:k1", key("k1"), 200),
        (2, "header:k1", key("k1"), 403),
        (2, "header:k1", key("k2"), 200),
    ] {
        let (_, isolate) = world(with(limit, |limit| limit.deny = list(&[deny])));
        assert_eq!(isolate.ask(ask.clone()).status, status, "{deny}: {ask:?}");
        let both = with(limit, |limit| {
            limit.deny = list(&[deny]);
            limit.allow = list(&[deny, "0.0.0.0/0"]);
        });
        assert_eq!(
            world(both).1.ask(ask.clone()).status,
            status,
            "{deny}: {ask:?}, allowed too"
        );
        let shadow = with(limit, |limit| {
            limit.deny = list(&[deny]);
            limit.shadow = true;
        });
        assert_eq!(
            world(shadow).1.ask(ask.clone()).status,
            200,
            "{deny}: {ask:?}, shadow"
        );
    }
}

/// A rollout counts a share of ids, everywhere the same ones, and a larger share has the
/// smaller one in it.
#[test]
fn a_rollout_counts_the_same_share_of_ids_everywhere() {
    let counted = |percent: u8| -> BTreeSet<usize> {
        let mut policy = with(0, |limit| limit.rollout = percent);
        policy.routes[0].limits.truncate(2);
        let (_, isolate) = world(policy);
        let is_counted = |n: &usize| {
            let ask = book().header("cf-connecting-ip", &format!("10.0.{}.{}", n / 250, n % 250));
            let served = isolate.ask(ask);
            assert_eq!(served.status, 200);
            served.get("ratelimit-policy").contains("burst")
        };
        (0..500).filter(is_counted).collect()
    };
    let [none, tenth, half, all] = [0, 10, 50, 100].map(counted);
    assert_eq!((none.len(), all.len()), (0, 500));
    assert!((20..=90).contains(&tenth.len()), "{}", tenth.len());
    assert!((200..=300).contains(&half.len()), "{}", half.len());
    assert!(tenth.is_subset(&half));
    assert_eq!(counted(10), tenth);
}

/// Who may be denied is no matter of the share.
#[test]
fn a_deny_holds_for_those_whom_a_rollout_does_not_count() {
    let (_, isolate) = world(with(0, |limit| {
        limit.rollout = 0;
        limit.deny = list(&["192.0.2.1"]);
    }));
    assert_eq!(isolate.ask(book()).status, 403);
}

/// Each variable turns off its own part of the routes that name it, and of no others.
#[test]
fn a_variable_turns_off_its_part_of_the_routes_that_name_it() {
    let named = |switch: Option<Switch>| {
        let mut policy = shop();
        for route in &mut policy.routes {
            route.switches = switch.into_iter().collect();
        }
        policy
    };
    let all = [
        Switch::RateLimitRedis,
        Switch::ViewTrackingRedis,
        Switch::NotificationCache,
        Switch::NotificationRateLimit,
    ];
    let look = |(world, isolate): (Rc<World>, Isolate)| {
        isolate.get_settled("/books/1");
        let hit = isolate.get_settled("/books/1");
        let is_cached = hit.cache_status().starts_with("edgeweir; hit");
        let mut last = hit;
        for _ in 0..5 {
            last = isolate.get_settled("/books/1");
        }
        let is_counted = world
            .redis
            .ran
            .borrow()
            .iter()
            .any(|ran| ran.words[0] == "BITFIELD");
        (is_cached, last.status, is_counted)
    };
    let on = (true, 429, true);
    for switch in all {
        assert_eq!(look(world_of(named(None), &all)), on, "no route names it");
        assert_eq!(
            look(world_of(named(Some(switch)), &[])),
            on,
            "{switch:?} is on"
        );
        let expected = match switch {
            Switch::RateLimitRedis => (true, 429, false),
            Switch::ViewTrackingRedis => on,
            Switch::NotificationCache => (false, 429, true),
            Switch::NotificationRateLimit => (true, 200, false),
        };
        assert_eq!(
            look(world_of(named(Some(switch)), &[switch])),
            expected,
            "{switch:?}"
        );
    }
}

/// A part of a composed page whose route's cache is off is fetched each time.
#[test]
fn a_part_whose_cache_is_off_is_fetched_each_time() {
    let mut policy = shop();
    policy.routes[2].switches = vec![Switch::NotificationCache];
    let (world, isolate) = world_of(policy, &[Switch::NotificationCache]);
    for n in 1..4 {
        let served = isolate.get_settled("/home");
        assert_eq!(served.text(), r#"{"book":{"of":"/one"}}"#);
        assert_eq!(world.asked_for("/one"), n);
    }
    assert_eq!(world.redis.get("one:all"), None);
    // By itself it passes through, credentials and all.
    let passed = isolate.ask(Ask::get("/one?x=1").header("cookie", "a=1"));
    assert!(passed.is_streamed && passed.cache_status().is_empty());
    assert_eq!(
        world.asked.borrow().last().unwrap().headers.get("cookie"),
        Some("a=1")
    );
}

/// Behind proxies that the policy names the client is who they say, in keys and in lists.
#[test]
fn a_client_behind_named_proxies_is_who_they_say() {
    let mut policy = shop();
    policy.routes[0].cache = None;
    policy.defaults.address.header = Some("x-forwarded-for".to_owned());
    policy.defaults.address.proxies = list(&["198.51.100.0/24"]);
    policy.routes[0].limits[0].deny = list(&["203.0.113.0/24"]);
    let world = World::new(first_seed());
    world.origin(|_| Says::json(&json!({})));
    let isolate = world.isolate(policy);
    let through = |proxy: &str, client: &str| {
        let ask = Ask::get("/books/1").header("cf-connecting-ip", proxy);
        isolate.ask(ask.header("x-forwarded-for", client)).status
    };
    assert_eq!(through("198.51.100.1", "192.0.2.9, 203.0.113.5"), 403);
    assert_eq!(
        through("198.51.100.1", "203.0.113.5, 192.0.2.9"),
        200,
        "the right one counts"
    );
    assert_eq!(
        through("192.0.2.77", "203.0.113.5"),
        200,
        "no proxy of ours"
    );
    // Two fields are one list.
    let mut ask = Ask::get("/books/1").header("cf-connecting-ip", "198.51.100.1");
    ask.headers.append("x-forwarded-for", "192.0.2.9");
    ask.headers.append("x-forwarded-for", "203.0.113.5");
    assert_eq!(isolate.ask(ask).status, 403);
    let asked = world.asked.borrow();
    assert_eq!(
        asked[0].headers.get("x-forwarded-for"),
        Some("203.0.113.5, 192.0.2.9, 198.51.100.1")
    );
}

proptest! {
    /// Any network is written in one way and read back as itself, and the isolate's copy
    /// finds whom a comparison bit by bit finds.
    #[test]
    fn networks_are_found_bit_by_bit(
        any in any::<u128>(),
        flip in 0_u32..128,
        prefix in 0_u8..=128,
        is_v4 in any::<bool>(),
    ) {
        let (any, prefix) = match is_v4 {
            true => (0xffff << 32 | any & 0xffff_ffff, prefix.max(96)),
            false => (any, prefix),
        };
        let bits = network::network(any, prefix);
        let field = subject_field(&Subject::Network { bits, prefix });
        let text = field.strip_prefix("list:").unwrap();
        prop_assert_eq!(subject(text), Ok(Subject::Network { bits, prefix }));
        let pair = [&field, "deny"].map(|text| Reply::Bytes(text.as_bytes().to_vec()));
        let copied = Copied::read(&Reply::List(pair.to_vec())).unwrap();
        let other = std::net::Ipv6Addr::from_bits(any ^ 1 << (127 - flip));
        let is_found = copied.of_client(Some(other.to_canonical()), None).is_denied;
        let of_other_kind = prefix < 96 && other.to_ipv4_mapped().is_some();
        prop_assert_eq!(is_found, flip >= u32::from(prefix) && !of_other_kind, "{} {}", text, other);
    }
}
