//! Packed entries: one value, any content type, gzip or plain for whoever asks; and
//! refreshes that bring what lies there already.

use std::cell::Cell;
use std::rc::Rc;

use edgeweir::cache::entry::Origin;
use edgeweir::cache::http::accepts::{Accepts, accepts};
use edgeweir::cache::packed;
use edgeweir::cache::{Entry, Lookup};
use edgeweir::http::Headers;
use edgeweir::policy::Policy;
use flate2::read::GzDecoder;
use serde_json::json;
use std::io::Read;

use super::sim::{Passage, first_seed};
use super::world::{Ask, Isolate, Says, Served, World, policy};

fn pages() -> Policy {
    let cache = |format: &str| match format {
        "" => json!({ "key": "plain", "ttl": "1m", "stale": "1h", "tags": ["t"] }),
        format => json!({ "key": "page", "ttl": "1m", "stale": "1h", "tags": ["t"],
            "negative": "10s", "format": format, "max_size": "100KB" }),
    };
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "plain", "match": "GET /plain", "cache": cache("") },
            { "name": "page", "match": "GET /page", "cache": cache("packed") },
        ],
    }))
}

fn world_with(says: impl Fn() -> Says + 'static) -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(move |_| says());
    let isolate = world.isolate(pages());
    (world, isolate)
}

fn html(length: usize) -> String {
    "<p>Một trang sách, và một trang nữa.</p>\n"
        .chars()
        .cycle()
        .take(length)
        .collect()
}

fn page(accepts: &str) -> Ask {
    Ask::get("/page").header("accept-encoding", accepts)
}

fn settled(isolate: &Isolate, ask: Ask) -> Served {
    let served = isolate.ask(ask);
    isolate.world.settle();
    served
}

fn gunzipped(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

#[test]
fn who_takes_gzip() {
    for (field, expected) in [
        ("gzip", Accepts::Gzip),
        ("GZIP, br", Accepts::Gzip),
        ("x-gzip", Accepts::Gzip),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", Accepts::Gzip),
        ("*", Accepts::Gzip),
        ("gzip;q=0.001", Accepts::Gzip),
        ("identity;q=0, gzip ; q = 0.5", Accepts::Gzip),
        ("identity, gzip;q=0.5", Accepts::GzipToo),
        ("identity;q=0.6, *;q=0.5", Accepts::GzipToo),
        ("", Accepts::Plain),
        ("br", Accepts::Plain),
        ("identity", Accepts::Plain),
        ("gzip;q=0", Accepts::Plain),
        ("gzip;q=0.000, *", Accepts::Plain),
        ("*;q=0", Accepts::Plain),
        ("gzip;q=2", Accepts::Plain),
        ("gzip;q=-1", Accepts::Plain),
        ("gzip;q=1.001", Accepts::Plain),
        ("gzip;q=0.5555", Accepts::Plain),
        ("gzip;level=9", Accepts::Plain),
        ("gzipped", Accepts::Plain),
    ] {
        assert_eq!(accepts(Some(field)), expected, "{field}");
    }
    assert_eq!(accepts(None), Accepts::Plain);
}

/// Compressed once, passed through to those who take it and expanded for the others; each
/// representation has its own tag, and a 304 for whoever has one that he takes.
#[test]
fn a_page_is_stored_compressed_and_served_to_everybody() {
    let (world, one) = world_with(|| Says::new(200, html(50_000)).header("x-own", "1"));
    let other = world.isolate(pages());
    let plain = html(50_000).into_bytes();
    let miss = settled(&one, page("gzip"));
    assert_eq!(miss.cache_status(), "edgeweir; fwd=miss; stored");
    let value = world.redis.get("page").unwrap();
    assert!(
        value.starts_with(b"p2,") && value.len() < plain.len() / 5,
        "{}",
        value.len()
    );
    let tag = |served: &Served| served.get("etag").to_owned();
    for isolate in [&one, &other] {
        let gzip = settled(isolate, page("br, gzip"));
        let expanded = settled(isolate, page("identity"));
        for served in [&miss, &gzip] {
            assert_eq!(served.get("content-encoding"), "gzip");
            assert_eq!(gunzipped(&served.body), plain);
            assert!(tag(served).ends_with("-gzip\"") && tag(served) == tag(&miss));
        }
        assert_eq!(
            (expanded.get("content-encoding"), &expanded.body),
            ("", &plain)
        );
        assert_ne!(tag(&expanded), tag(&gzip));
        for served in [&gzip, &expanded] {
            assert_eq!(served.get("vary"), "Accept-Encoding");
            assert_eq!(served.get("x-own"), "1");
            assert!(
                served.cache_status().starts_with("edgeweir; hit"),
                "{served:?}"
            );
        }
        for (accepts, has, expected) in [
            ("gzip", tag(&gzip), (304, tag(&gzip))),
            ("gzip", tag(&expanded), (304, tag(&expanded))),
            ("identity", tag(&expanded), (304, tag(&expanded))),
            ("identity", tag(&gzip), (200, tag(&expanded))),
            ("identity, gzip;q=0.1", tag(&gzip), (304, tag(&gzip))),
            ("gzip;q=0", "*".to_owned(), (304, tag(&expanded))),
            ("gzip", "\"else\"".to_owned(), (200, tag(&gzip))),
        ] {
            let served = settled(isolate, page(accepts).header("if-none-match", &has));
            assert_eq!((served.status, tag(&served)), expected, "{accepts} {has}");
            assert_eq!(served.get("vary"), "Accept-Encoding");
            assert_eq!(served.status == 304, served.body.is_empty());
            if served.status == 304 {
                assert_eq!(served.get("content-encoding"), "");
            }
        }
        for (accepts, length) in [("gzip", gzip.body.len()), ("", plain.len())] {
            let head = settled(
                isolate,
                Ask {
                    method: "HEAD".into(),
                    ..page(accepts)
                },
            );
            assert_eq!(
                (head.body.len(), head.get("content-length")),
                (0, length.to_string().as_str())
            );
            assert_eq!(
                head.get("content-encoding"),
                if length == plain.len() { "" } else { "gzip" }
            );
        }
    }
    assert_eq!(world.asked_for("/page"), 1);
    assert_eq!(world.asked.borrow()[0].headers.get("accept"), Some("*/*"));
}

/// A weak tag of the origin's is of both representations.
#[test]
fn a_weak_tag_stays_as_it_is() {
    let (_, one) = world_with(|| Says::new(200, html(5_000)).header("etag", "W/\"a\""));
    settled(&one, page("gzip"));
    for accepts in ["gzip", "identity"] {
        let served = settled(&one, page(accepts));
        assert_eq!(served.get("etag"), "W/\"a\"");
        let known = settled(&one, page(accepts).header("if-none-match", "W/\"a\""));
        assert_eq!(known.status, 304);
    }
}

/// What does not pay is stored as it is, whatever it is: short, no text, or empty.
#[test]
fn bodies_of_any_type_are_packed() {
    let mut noise = first_seed();
    let mut random = |length: usize| -> Vec<u8> {
        let next = |_| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (noise >> 33) as u8
        };
        (0..length).map(next).collect()
    };
    for body in [
        b"short".to_vec(),
        random(20_000),
        Vec::new(),
        b"p2,{}\n".to_vec(),
    ] {
        for status in [200, 404] {
            let script = Says::new(status, body.clone());
            let (world, one) = world_with(move || script.clone());
            for accepts in ["gzip", "identity", "gzip"] {
                let served = settled(&one, page(accepts));
                assert_eq!((served.status, &served.body), (status, &body));
                assert_eq!(served.get("content-encoding"), "");
            }
            let times = world.asked_for("/page");
            assert_eq!(
                times,
                if status == 404 && body.len() > 16_384 {
                    3
                } else {
                    1
                }
            );
        }
    }
    let (world, one) = world_with(|| Says::new(200, html(100_001)));
    assert_eq!(
        settled(&one, page("gzip")).cache_status(),
        "edgeweir; fwd=miss; detail=too-large"
    );
    assert_eq!(world.redis.get("page"), None);
}

/// A little gzip that would be a lot is never expanded beyond `max_size`, and one that is
/// none is no error: the origin is asked.
#[test]
fn a_bomb_is_not_expanded() {
    let (world, one) = world_with(|| Says::new(200, html(5_000)));
    settled(&one, page("gzip"));
    let lookup = Lookup {
        key: "page".to_owned(),
        tags: vec!["t".to_owned()],
        origin_tags: Vec::new(),
    };
    let generations: Vec<String> = (lookup.generation_keys().iter())
        .map(|key| String::from_utf8(world.redis.get(key).unwrap()).unwrap())
        .collect();
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut bomb, &vec![0; 20_000_000]).unwrap();
    let bomb = bomb.finish().unwrap();
    for body in [
        bomb.clone(),
        bomb[..bomb.len() / 2].to_vec(),
        b"no gzip".to_vec(),
    ] {
        let entry = Entry {
            status: 200,
            headers: Headers::from_iter([("content-encoding", "gzip"), ("etag", "\"x\"")]),
            body: body.into(),
            stored_ms: world.now_ms(),
            fresh_until_ms: world.now_ms() + 60_000,
            stale_until_ms: world.now_ms() + 60_000,
            took_ms: None,
        };
        let value = packed::text(&lookup, &entry, Origin::Edge, &generations);
        world
            .redis
            .set_px(world.sim.now_us(), "page", value, 60_000);
        let before = world.asked_for("/page");
        let served = settled(&one, page("identity"));
        assert_eq!((served.status, served.text()), (200, html(5_000).as_str()));
        assert_eq!(served.cache_status(), "edgeweir; fwd=miss; detail=encoding");
        assert_eq!(world.asked_for("/page"), before + 1);
    }
}

/// What a route of another kind left under a key is a miss, never an answer.
#[test]
fn a_route_takes_only_its_own_kind() {
    let (world, one) = world_with(|| Says::new(200, format!("\"{}\"", "x".repeat(9_000))));
    settled(&one, page("gzip"));
    settled(&one, Ask::get("/plain"));
    let (packed, plain) = (
        world.redis.get("page").unwrap(),
        world.redis.get("plain").unwrap(),
    );
    world
        .redis
        .set_px(world.sim.now_us(), "plain", packed, 60_000);
    let served = settled(&one, Ask::get("/plain"));
    assert_eq!(served.cache_status(), "edgeweir; fwd=miss; stored");
    assert_eq!(world.redis.get("plain").unwrap(), plain);
    // Plain JSON of a backend is as good as ever, and for everybody.
    world
        .redis
        .set_px(world.sim.now_us(), "page", "{\"from\":\"python\"}", 60_000);
    for accepts in ["gzip", "identity"] {
        assert_eq!(settled(&one, page(accepts)).text(), "{\"from\":\"python\"}");
    }
}

/// Bytes that commands wrote under a key, its record and its generations since the last look.
fn written(world: &World) -> usize {
    let ran = world.redis.ran.take();
    let sets = ran.iter().filter(|ran| ran.words[0] == "SET");
    sets.map(|ran| ran.words.iter().map(String::len).sum::<usize>())
        .sum()
}

/// A refresh that brings the same body writes its record alone; clients keep their tag, also
/// when the origin names one no more, and the entry lives as long as a new one.
#[test]
fn a_refresh_with_the_same_body_does_not_write_it() {
    for (path, key) in [("/plain", "plain"), ("/page", "page")] {
        let asked = Rc::new(Cell::new(0));
        let times = asked.clone();
        let (world, one) = world_with(move || {
            times.set(times.get() + 1);
            let says = Says::new(200, format!("\"{}\"", "x".repeat(9_000)));
            match times.get() {
                1 => says.header("etag", "\"v1\""),
                _ => says,
            }
        });
        let get = || Ask::get(path).header("accept-encoding", "identity");
        settled(&one, get());
        let (first, value) = (written(&world), world.redis.get(key).unwrap());
        for _ in 0..3 {
            world.pass(60_000);
            assert!(
                settled(&one, get())
                    .cache_status()
                    .ends_with("detail=stale")
            );
            let more = written(&world);
            assert!(more < 800, "{path}: {more} of {first}");
            assert_eq!(world.redis.get(key).unwrap(), value);
            let ttl_ms = world.redis.ttls_ms(world.sim.now_us())[key].unwrap();
            assert!(ttl_ms > 3_600_000, "{ttl_ms}");
            let known = settled(&one, get().header("if-none-match", "\"v1\""));
            assert_eq!((known.status, known.get("etag")), (304, "\"v1\""));
            assert!(
                known.cache_status().contains("hit; ttl=59; detail=l"),
                "{}",
                known.cache_status()
            );
        }
        assert_eq!(asked.get(), 4);
        world
            .redis
            .set_px(world.sim.now_us(), "gen:t", "a-backends-uuid", 172_800_000);
        assert!(!settled(&one, get()).cache_status().contains("hit"));
        assert_eq!(world.immortal_keys(), Vec::<String>::new());
    }
}

/// Another body is written, and so is the same one when it is gone or was replaced.
#[test]
fn a_body_that_is_not_there_is_written() {
    let version = Rc::new(Cell::new(1));
    let says = version.clone();
    let (world, one) = world_with(move || Says::json(&json!({ "v": says.get() })));
    let stale = || {
        world.pass(60_000);
        assert!(
            one.get_settled("/plain")
                .cache_status()
                .ends_with("detail=stale")
        );
    };
    one.get_settled("/plain");
    version.set(2);
    stale();
    assert_eq!(world.redis.get("plain").unwrap(), br#"{"v":2}"#);
    // It is evicted, or replaced by a backend, just before the entry's life is to be extended.
    for replaced in [false, true] {
        let redis = world.redis.clone();
        let sim = world.sim.clone();
        world.network(move |batch| {
            if format!("{batch:?}").contains("PEXPIREAT\"), Text(\"plain\")") {
                redis.evict("plain");
                if replaced {
                    redis.set_px(sim.now_us(), "plain", r#"{"from":"python"}"#, 5_000);
                }
            }
            Passage::new(500, 500)
        });
        stale();
        world.network(|_| Passage::new(500, 500));
        let now = one.get_settled("/plain");
        match replaced {
            false => assert_eq!(now.json(), json!({ "v": 2 })),
            true => assert_eq!(now.json(), json!({ "from": "python" })),
        }
        assert!(now.cache_status().contains("hit"), "{}", now.cache_status());
    }
}
