//! `GET /-/explain`: the facts of `npm run policy -- explain` as JSON.

use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::policy::Policy;
use serde_json::{Value, json};

use super::sim::first_seed;
use super::world::{Ask, Isolate, Served, World, policy};

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [{ "name": "default", "requests": 50, "window": "60s", "by": "ip" }] },
        "route": [
            { "name": "search", "match": "GET /search/{shelf}", "switch": "NOTIFICATION_CACHE_ENABLED",
              "limit": [{ "name": "burst", "requests": 30, "window": "10s", "by": "user", "cost": { "hit": 0, "miss": 5 }, "lease": true }],
              "cache": { "key": "search:{shelf}:{hash}", "query": ["q", "page"], "ttl": "$NOTIFICATION_CACHE_TTL",
                  "stale": "1h", "negative": "10s", "tags": ["search", "shelf:{shelf}"] } },
            { "name": "any", "match": "GET /{path...}" },
            { "name": "book", "match": "GET /books/{id}", "cache": { "key": "book:{id}", "ttl": "10m", "tags": ["books"] } },
            { "name": "make", "match": "POST /books", "purge": { "keys": ["user:{user}:own"], "tags": ["of:{body:/author}"], "else": ["books"] },
              "fill": { "route": "book", "with": { "id": "{response:/id}" } } },
            { "name": "write", "match": "PUT /books/{id}", "fill": "book" },
            { "name": "by-origin", "match": "GET /http", "cache": { "mode": "http" } },
            { "name": "page", "match": "GET /page", "compose": { "one": { "route": "book", "each": { "id": ["a", "b"] } } } },
        ],
    }))
}

fn isolate() -> Isolate {
    let settings = Settings {
        admin_token: Some(Secret::new("admin-token")),
        ..Settings::default()
    };
    World::new(first_seed()).isolate_with(shop(), settings)
}

fn ask(isolate: &Isolate, query: &str) -> Served {
    let ask = Ask::get(&format!("/-/explain{query}"));
    isolate.ask(ask.header("authorization", "Bearer admin-token"))
}

fn facts(method: &str, url: &str) -> Value {
    let encoded: String = url.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let isolate = isolate();
    let served = ask(&isolate, &format!("?method={method}&url={encoded}"));
    assert_eq!(
        (served.status, served.get("cache-control")),
        (200, "no-store"),
        "{}",
        served.text()
    );
    assert_eq!(
        isolate.world.asked.borrow().len(),
        0,
        "the request is not made"
    );
    served.json()
}

#[test]
fn a_cached_route_is_explained_in_facts() {
    let facts = facts(
        "get",
        "https://shop.example/search/a%20b?utm=1&page=2&q=x&q=y#top",
    );
    assert_eq!(
        facts,
        json!({
            "method": "GET", "path": "/search/a%20b", "hostile": false,
            "route": "search", "match": "GET /search/{shelf}", "exact": true, "wins_over": ["any"],
            "placeholders": [{ "name": "shelf", "value": "a b" }],
            "limited_as": "search", "redis_down": "local", "switches": ["NOTIFICATION_CACHE_ENABLED"],
            "limits": [{
                "name": "burst", "requests": 30, "window": "10s", "algorithm": "sliding-window", "by": "user",
                "key": "ratelimit:{user or ip}:search:burst", "cost": { "hit": 0, "miss": 5, "error": 5 },
                "lease": true, "shadow": false, "rollout": 100, "penalty": false, "allowed": 0, "denied": 0,
            }],
            "answer": "cache", "looked_up": true,
            "key": "search:a%20b:cc690ae663f8b549755841cef78a1716",
            "tags": ["search", "shelf:a%20b"], "query": "q=x&page=2", "dropped": ["utm=1", "q=y"],
            "ttl": "30s", "ttl_from": "NOTIFICATION_CACHE_TTL", "stale": "1h", "negative": "10s", "l1": "1s",
            "max_size": "1MB", "credentials": "none",
            "stored": "a 200 with JSON, without Set-Cookie, private, no-store and a Vary on more than Accept-Encoding",
        })
    );
}

#[test]
fn writes_pages_http_mode_and_what_passes_are_explained_in_facts() {
    let made = facts("POST", "/books");
    assert_eq!(
        made["purge"],
        json!({ "keys": ["user:{user}:own"], "tags": ["of:{body:/author}"], "else": ["books"] })
    );
    assert_eq!(
        made["fill"],
        json!({ "route": "book", "key": "book:{id}", "with": [{ "name": "id", "value": "{response:/id}" }] })
    );
    assert_eq!(
        (&made["answer"], &made["looked_up"]),
        (&json!("origin"), &json!(false))
    );
    assert_eq!(facts("PUT", "/books/7")["fill"]["with"][0]["value"], "7");
    let page = facts("HEAD", "/page");
    assert_eq!(page["answer"], "compose");
    assert_eq!(
        page["parts"],
        json!([{ "name": "one", "route": "book", "key": "book:{id}", "each": "id", "values": ["a", "b"] }])
    );
    let http = facts("GET", "/http?b=2&a=1");
    assert_eq!(http["key"], "http:by-origin:{scheme and host}/http?b=2&a=1");
    assert_eq!(
        (&http["answer"], &http["ttl_from"]),
        (&json!("http"), &json!("the origin's headers"))
    );
    let none = facts("DELETE", "/nothing");
    assert_eq!(
        (&none["route"], &none["limited_as"]),
        (&json!(null), &json!("*"))
    );
    assert_eq!(
        (&none["looked_up"], &none["why"]),
        (&json!(false), &json!("no route matches"))
    );
    assert_eq!(none["limits"][0]["by"], "ip");
    let plain = facts("GET", "/plain");
    assert_eq!(
        (&plain["route"], &plain["looked_up"]),
        (&json!("any"), &json!(false))
    );
    let bad = facts("GET", "/search/a?q=%zz");
    assert_eq!(bad["looked_up"], false);
    assert!(bad["why"].as_str().unwrap().contains("not valid"), "{bad}");
    // A spelling that the origin may fold into a write's path.
    let folded = facts("PUT", "/books//7");
    assert_eq!(
        (&folded["hostile"], &folded["exact"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&folded["purges_like"], &folded["limited_as"]),
        (&json!("write"), &json!("write"))
    );
    let own = facts("GET", "/-/purge");
    assert_eq!(
        (&own["answer"], &own["route"]),
        (&json!("edgeweir"), &json!(null))
    );
}

#[test]
fn only_the_token_and_whole_parameters_are_answered() {
    let isolate = isolate();
    assert_eq!(isolate.get("/-/explain?method=GET&url=/").status, 401);
    let post = Ask::new("POST", "/-/explain").header("authorization", "Bearer admin-token");
    assert_eq!(isolate.ask(post).status, 405);
    let long = format!("?method=GET&url=/{}", "a".repeat(16 * 1024));
    for query in [
        "",
        "?",
        "?method=GET",
        "?url=/",
        "?method=GET&url=",
        "?method=&url=/",
        "?method=G%20T&url=/",
        "?method=GET&url=books",
        "?method=GET&url=ftp://h/",
        "?method=GET&url=/&url=/",
        "?method=GET&url=/&x=1",
        "?method=GET&url=%zz",
        "?method=GET&url=%FF",
        "?method&url=/",
        "?method=AAAAAAAAAAAAAAAAA&url=/",
        &long,
    ] {
        let served = ask(&isolate, query);
        assert_eq!(
            (served.status, served.get("content-type")),
            (400, "application/problem+json"),
            "{query}"
        );
    }
    assert_eq!(ask(&isolate, "?url=/&method=get").status, 200);
}
