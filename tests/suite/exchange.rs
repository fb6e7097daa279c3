//! Routes in `http` mode, in the simulated world: what the origin is asked, what is kept,
//! and who gets what.

use std::cell::Cell;
use std::rc::Rc;

use serde_json::json;

use edgeweir::redis::RedisErrorKind;

use super::sim::{Fault, Passage};
use super::world::{Ask, Isolate, START_MS, Says, World, policy};

fn pages(cache: serde_json::Value) -> edgeweir::policy::Policy {
    let mut cache = cache;
    cache["mode"] = json!("http");
    policy(&json!({
        "defaults": { "limit": [] },
        "route": [
            { "name": "pages", "match": "GET /p/{rest...}", "cache": cache },
            { "name": "purger", "match": "POST /purge", "purge": { "tags": ["all"] } },
        ],
    }))
}

fn world_of(cache: serde_json::Value) -> (Rc<World>, Isolate, Isolate) {
    let world = World::new(7);
    let (one, other) = (
        world.isolate(pages(cache.clone())),
        world.isolate(pages(cache)),
    );
    (world, one, other)
}

/// The date is the origin's, which says when its answer was made.
fn says(body: &str, control: &str) -> Says {
    Says::new(200, body).header("cache-control", control)
}

fn settled(isolate: &Isolate, ask: Ask) -> super::world::Served {
    let served = isolate.ask(ask);
    isolate.world.settle();
    served
}

/// A fresh answer is served to all with its age, whole and as it was.
#[test]
fn a_fresh_answer_is_served_to_all() {
    let (world, one, other) = world_of(json!({}));
    let bytes: Vec<u8> = (0..=255).collect();
    let body = bytes.clone();
    world.origin(move |_| {
        Says::new(203, body.clone())
            .header("cache-control", "max-age=60")
            .header("x-own", "1")
            .header("retry-after", "7")
            .header("connection", "x-hop")
            .header("x-hop", "1")
    });
    let first = one.get_settled("/p/a?b=c");
    assert_eq!((first.status, &first.body), (203, &bytes));
    assert_eq!(
        first.cache_status(),
        "edgeweir; fwd=uri-miss; ttl=59; stored"
    );
    assert_eq!((first.get("x-hop"), first.get("age")), ("1", ""));
    world.pass(5_000);
    for isolate in [&one, &other] {
        let hit = isolate.get_settled("/p/a?b=c");
        assert_eq!((hit.status, &hit.body), (203, &bytes));
        assert_eq!(hit.cache_status(), "edgeweir; hit; ttl=54; detail=l2");
        assert_eq!(
            (hit.get("age"), hit.get("x-own"), hit.get("retry-after")),
            ("5", "1", "7")
        );
        assert_eq!((hit.get("x-hop"), hit.get("connection")), ("", ""));
        assert_eq!(
            hit.get("date"),
            edgeweir::cache::http::date::format((START_MS / 1000) as i64)
        );
    }
    // Another query is another page; so is another spelling that is not the same path.
    for target in ["/p/a?b=d", "/p/a", "/p/a?b=c&", "/p/a/?b=c"] {
        assert!(
            one.get_settled(target).cache_status().contains("uri-miss"),
            "{target}"
        );
    }
    assert_eq!(world.immortal_keys(), Vec::<String>::new());
    world.pass(60_000);
    assert!(
        one.get_settled("/p/a?b=c")
            .cache_status()
            .starts_with("edgeweir; fwd=stale")
    );
}

/// A hundred requests on two isolates are one question; then none.
#[test]
fn a_burst_is_one_question() {
    let (world, one, other) = world_of(json!({}));
    world.origin(|_| says("x", "max-age=60").after(300));
    let slots: Vec<_> = [&one, &other]
        .into_iter()
        .flat_map(|isolate| (0..50).map(|_| isolate.send(Ask::get("/p/a")).1))
        .collect();
    let served: Vec<_> = slots
        .into_iter()
        .map(|slot| world.sim.block_on(slot.wait()))
        .collect();
    assert!(
        served
            .iter()
            .all(|served| served.status == 200 && served.body == b"x")
    );
    let collapsed = served
        .iter()
        .filter(|served| served.cache_status().contains("collapsed"));
    assert_eq!(collapsed.count(), 99);
    world.settle();
    assert_eq!(world.asked_for("/p/a"), 1);
    assert!(one.get("/p/a").cache_status().contains("hit"));
}

/// A private page makes nobody wait for another's, the second burst not at all.
#[test]
fn a_private_burst_adds_no_wait() {
    let (world, one, _) = world_of(json!({}));
    world.origin(|_| says("x", "private, max-age=60").after(300));
    let first = one.crowd("/p/a", 30);
    assert!(first.iter().all(|served| served.took_us < 700_000));
    world.settle();
    let second = one.crowd("/p/a", 30);
    assert!(second.iter().all(|served| served.took_us < 350_000));
    assert_eq!(world.asked_for("/p/a"), 60);
    assert!(second[0].cache_status().ends_with("detail=cache-control"));
    assert_eq!(world.redis.get("http:pages:https://edge.example/p/a"), None);
}

/// What `Vary` names tells answers apart; in a burst too everybody gets his own (4.1).
#[test]
fn everybody_gets_the_variant_he_selects() {
    let (world, one, other) = world_of(json!({}));
    world.origin(|asked| {
        let language = asked.headers.get("accept-language").unwrap_or("none");
        says(language, "max-age=60")
            .header("vary", "Accept-Language")
            .after(50)
    });
    let ask = |language: &str| Ask::get("/p/a").header("accept-language", language);
    for _ in 0..2 {
        let slots: Vec<_> = (0..40)
            .map(|n| {
                (
                    n % 4,
                    [&one, &other][n % 2].send(ask(&format!("l{}", n % 4))).1,
                )
            })
            .collect();
        for (n, slot) in slots {
            assert_eq!(world.sim.block_on(slot.wait()).text(), format!("l{n}"));
        }
        world.settle();
    }
    let fifth = settled(&one, ask("l5"));
    assert_eq!(
        (fifth.text(), fifth.cache_status()),
        ("l5", "edgeweir; fwd=vary-miss; ttl=59; stored")
    );
    assert!(settled(&other, ask("l5")).cache_status().contains("hit"));
    assert_eq!(settled(&other, Ask::get("/p/a")).text(), "none");
    // `*` is never reused.
    world.origin(|_| says("x", "max-age=60").header("vary", "*"));
    for _ in 0..2 {
        assert!(
            one.get_settled("/p/b")
                .cache_status()
                .ends_with("detail=vary")
        );
    }
    assert_eq!(world.asked_for("/p/b"), 2);
}

/// A stale answer is validated; a 304 renews it without its bytes (4.3).
#[test]
fn a_304_renews_what_is_stored() {
    let (world, one, other) = world_of(json!({}));
    world.origin(|asked| match asked.headers.get("if-none-match") {
        Some("\"v1\"") => Says {
            body: Vec::new(),
            ..Says::new(304, "")
        }
        .header("etag", "\"v1\"")
        .header("cache-control", "max-age=100")
        .header("x-version", "2"),
        Some(_) => Says::new(500, "{}"),
        None => says("body", "max-age=60")
            .header("etag", "\"v1\"")
            .header("x-version", "1"),
    });
    one.get_settled("/p/a");
    world.pass(61_000);
    // The client's own condition is about what he has, not about what is stored.
    let ask = Ask::get("/p/a").header("if-none-match", "\"other\"");
    let validated = settled(&one, ask);
    assert_eq!(
        (
            validated.status,
            validated.text(),
            validated.get("x-version")
        ),
        (200, "body", "2")
    );
    assert_eq!(
        validated.cache_status(),
        "edgeweir; fwd=stale; fwd-status=304; ttl=99; stored"
    );
    world.pass(90_000);
    let hit = other.get_settled("/p/a");
    assert_eq!(
        (hit.text(), hit.get("x-version"), hit.get("age")),
        ("body", "2", "90")
    );
    assert_eq!(world.asked_for("/p/a"), 2);
    // A burst on a stale one is one question.
    world.pass(20_000);
    assert!(
        one.crowd("/p/a", 20)
            .iter()
            .all(|served| served.text() == "body")
    );
    world.settle();
    assert_eq!(world.asked_for("/p/a"), 3);
    // A 304 about another answer is no use: it is asked for anew, without a condition.
    world.pass(101_000);
    world.origin(|asked| match asked.headers.contains("if-none-match") {
        true => Says {
            body: Vec::new(),
            ..Says::new(304, "")
        }
        .header("etag", "\"v9\""),
        false => says("new", "max-age=60").header("etag", "\"v2\""),
    });
    assert_eq!(one.get_settled("/p/a").text(), "new");
    assert_eq!(world.asked_for("/p/a"), 5);
}

/// Conditions and ranges are answered from what is stored (4.3.2; RFC 9110, 14).
#[test]
fn conditions_and_ranges_are_answered_from_the_store() {
    let (world, one, _) = world_of(json!({}));
    world.origin(|_| {
        says("0123456789", "max-age=60")
            .header("etag", "\"v1\"")
            .header("last-modified", "Sat, 31 Jan 2026 00:00:00 GMT")
    });
    // The first one has it already, and fills all the same.
    let first = settled(&one, Ask::get("/p/a").header("if-none-match", "\"v1\""));
    assert_eq!(
        (first.status, first.body.len(), first.get("content-type")),
        (304, 0, "")
    );
    assert_eq!(first.get("etag"), "\"v1\"");
    let ask = |name: &str, value: &str| settled(&one, Ask::get("/p/a").header(name, value));
    assert_eq!(ask("if-none-match", "W/\"v1\"").status, 304);
    assert_eq!(ask("if-none-match", "\"v2\"").status, 200);
    assert_eq!(
        ask("if-modified-since", "Sat, 31 Jan 2026 00:00:00 GMT").status,
        304
    );
    assert_eq!(
        ask("if-modified-since", "Fri, 30 Jan 2026 00:00:00 GMT").status,
        200
    );
    let part = ask("range", "bytes=2-4");
    assert_eq!(
        (part.status, part.text(), part.get("content-range")),
        (206, "234", "bytes 2-4/10")
    );
    assert_eq!(
        (part.get("etag"), part.cache_status()),
        ("\"v1\"", "edgeweir; hit; ttl=59; detail=l2")
    );
    let none = ask("range", "bytes=10-");
    assert_eq!(
        (none.status, none.body.len(), none.get("content-range")),
        (416, 0, "bytes */10")
    );
    assert_eq!(ask("range", "bytes=0-1,4-5").text(), "0123456789");
    let with = |range: &str| {
        let ask = Ask::get("/p/a")
            .header("range", "bytes=0-0")
            .header("if-range", range);
        settled(&one, ask).status
    };
    assert_eq!(
        (with("\"v1\""), with("\"v2\""), with("W/\"v1\"")),
        (206, 200, 200)
    );
    let head = settled(&one, Ask::new("HEAD", "/p/a").header("range", "bytes=0-0"));
    assert_eq!(
        (head.status, head.body.len(), head.get("content-length")),
        (200, 0, "10")
    );
    assert_eq!(world.asked_for("/p/a"), 1);
    // Nothing is stored of a part, nor of a HEAD; both go on as they are.
    let ask = Ask::get("/p/b").header("range", "bytes=0-1");
    world.origin(|_| Says {
        status: 206,
        ..says("01", "max-age=60")
    });
    assert_eq!(
        settled(&one, ask.clone()).cache_status(),
        "edgeweir; fwd=uri-miss; detail=range"
    );
    settled(&one, Ask::new("HEAD", "/p/b"));
    settled(&one, ask);
    assert_eq!(world.asked_for("/p/b"), 3);
    assert!(
        world
            .asked
            .borrow()
            .iter()
            .rev()
            .take(3)
            .all(|asked| asked.is_forwarded)
    );
}

/// RFC 5861, 3: served at once, asked after that.
#[test]
fn stale_while_revalidate_is_served_while_one_asks() {
    let (world, one, other) = world_of(json!({}));
    let version = Rc::new(Cell::new(0));
    world.origin(move |_| {
        version.set(version.get() + 1);
        says(
            &version.get().to_string(),
            "max-age=10, stale-while-revalidate=30",
        )
        .after(200)
    });
    one.get_settled("/p/a");
    world.pass(15_000);
    let slots: Vec<_> = (0..20)
        .map(|n| [&one, &other][n % 2].send(Ask::get("/p/a")).1)
        .collect();
    for slot in slots {
        let served = world.sim.block_on(slot.wait());
        assert_eq!((served.text(), served.took_us < 100_000), ("1", true));
        assert!(
            served.cache_status().starts_with("edgeweir; hit; ttl=-"),
            "{}",
            served.cache_status()
        );
    }
    world.settle();
    assert_eq!(world.asked_for("/p/a"), 2);
    assert_eq!(one.get_settled("/p/a").text(), "2");
    // Past it everybody waits.
    world.pass(45_000);
    assert_eq!(one.get_settled("/p/a").text(), "3");
}

/// A failing origin is stood in for where that is allowed (4.2.4; RFC 5861, 4).
#[test]
fn a_stale_answer_stands_in_for_a_failing_origin() {
    let down = [Says::refused(), Says::new(503, "{}")];
    for (control, policy_stale, after_gone, after_503) in [
        ("max-age=10", "0s", 200, 503),
        ("max-age=10, stale-if-error=60", "0s", 200, 200),
        ("max-age=10", "60s", 200, 200),
        (
            "max-age=10, must-revalidate, stale-if-error=60",
            "60s",
            502,
            503,
        ),
        ("s-maxage=10, stale-if-error=60", "60s", 502, 503),
        ("max-age=10, proxy-revalidate", "60s", 502, 503),
    ] {
        for (says_down, expected) in down.iter().zip([after_gone, after_503]) {
            let (world, one, _) = world_of(json!({ "stale": policy_stale }));
            world.origin(move |_| says("old", control));
            one.get_settled("/p/a");
            world.pass(20_000);
            let script = says_down.clone();
            world.origin(move |_| script.clone());
            // With the policy's own stale time it is served first and asked then.
            for _ in 0..2 {
                let served = one.get_settled("/p/a");
                assert_eq!(served.status, expected, "{control} {policy_stale}");
                assert_eq!(served.status == 200, served.body == b"old");
            }
        }
    }
}

/// A write that succeeds ends what it names, on every isolate (4.4).
#[test]
fn a_write_ends_what_it_names() {
    for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
        let (world, one, other) = world_of(json!({}));
        let status = Rc::new(Cell::new(500));
        let says_status = status.clone();
        world.origin(move |asked| match asked.method.as_str() {
            "GET" => says("x", "max-age=60"),
            _ => Says::new(says_status.get(), "{}")
                .header("location", "https://edge.example/p/b?q")
                .header("content-location", "c"),
        });
        let targets = ["/p/a?q", "/p/b?q", "/p/c", "/p/d"];
        let hits = |isolate: &Isolate| {
            targets.map(|target| isolate.get_settled(target).cache_status().contains("hit"))
        };
        hits(&one);
        settled(&one, Ask::new(method, "/p/a?q").body("{}"));
        assert_eq!(hits(&other), [true; 4], "a failed {method} ends nothing");
        status.set(201);
        let written = settled(&one, Ask::new(method, "/p/a?q").body("{}"));
        assert_eq!(written.status, 201);
        assert_eq!(hits(&other), [false, false, false, true], "{method}");
        assert_eq!(hits(&one), [true; 4]);
    }
}

/// No read after a purge gets older data, whatever was on its way (tag and key).
#[test]
fn a_purge_defeats_a_fill_in_flight() {
    for purge in ["/purge", "/p/a"] {
        for pause_ms in (0..400).step_by(20) {
            let (world, one, other) = world_of(json!({ "tags": ["all"] }));
            let version = Rc::new(Cell::new(1));
            let current = version.clone();
            world.origin(move |asked| match asked.method.as_str() {
                "GET" => says(&current.get().to_string(), "max-age=60").after(200),
                _ => {
                    current.set(2);
                    Says::new(200, "{}")
                }
            });
            let (_, slow) = one.send(Ask::get("/p/a"));
            world.pass(pause_ms);
            other.ask(Ask::new("POST", purge));
            for isolate in [&one, &other] {
                assert_eq!(
                    isolate.get("/p/a").text(),
                    "2",
                    "{purge} after {pause_ms} ms"
                );
            }
            world.sim.block_on(slow.wait());
            world.settle();
            for isolate in [&one, &other] {
                assert_eq!(
                    isolate.get_settled("/p/a").text(),
                    "2",
                    "{purge} after {pause_ms} ms"
                );
            }
        }
    }
}

/// Each way in which one visitor's answer could reach another is shut.
#[test]
fn nobody_gets_what_is_anothers() {
    let (world, one, _) = world_of(json!({}));
    world.origin(|asked| {
        let of = |name| asked.headers.get(name).unwrap_or("-").to_owned();
        let body = [
            of("cookie"),
            of("authorization"),
            of("x-forwarded-host"),
            of("x-http-method-override"),
        ];
        let says = Says::new(200, body.join(" "));
        match asked.target.as_str() {
            "/p/session" => says
                .header("cache-control", "max-age=60")
                .header("set-cookie", "s=1"),
            "/p/silent" => says.header("last-modified", "Sat, 31 Jan 2026 00:00:00 GMT"),
            "/p/shared" => says.header("cache-control", "public, max-age=60"),
            "/p/cookies" => says
                .header("cache-control", "max-age=60")
                .header("vary", "cookie"),
            _ => says.header("cache-control", "max-age=60"),
        }
    });
    let ask = |target: &str, fields: &[(&str, &str)]| {
        let ask = fields.iter().fold(Ask::get(target), |ask, (name, value)| {
            ask.header(name, value)
        });
        settled(&one, ask)
    };
    let evil = [
        ("cookie", "who=me"),
        ("x-forwarded-host", "evil"),
        ("x-http-method-override", "DELETE"),
    ];
    // 3.5: credentials, and what sets a cookie.
    assert_eq!(ask("/p/a", &[("authorization", "me")]).text(), "- me - -");
    assert_eq!(ask("/p/a", &[]).text(), "- - - -");
    assert_eq!(ask("/p/session", &evil).text(), "who=me - - -");
    assert_eq!(ask("/p/session", &[]).text(), "- - - -");
    // What says nothing to somebody with a cookie is his.
    assert_eq!(ask("/p/silent", &evil).text(), "who=me - - -");
    assert_eq!(ask("/p/silent", &[]).text(), "- - - -");
    assert_eq!(ask("/p/cookies", &evil).text(), "who=me - - -");
    assert_eq!(ask("/p/cookies", &[]).text(), "- - - -");
    assert_eq!(ask("/p/cookies", &evil).text(), "who=me - - -");
    // No field that nobody keys chooses what is stored.
    ask("/p/b", &evil[1..]);
    assert_eq!(ask("/p/b", &[]).text(), "- - - -");
    // The origin's word for all counts.
    ask("/p/shared", &[("authorization", "me")]);
    assert!(ask("/p/shared", &[]).cache_status().contains("hit"));
    // What a visitor wants not stored is not.
    ask("/p/c", &[("cache-control", "no-store")]);
    assert!(ask("/p/c", &[]).cache_status().contains("uri-miss"));
}

/// Directives of the request (5.2.1).
#[test]
fn a_request_says_what_it_takes() {
    let (world, one, _) = world_of(json!({}));
    world.origin(|_| says("x", "max-age=60"));
    let ask = |control: &str| settled(&one, Ask::get("/p/a").header("cache-control", control));
    let none = ask("only-if-cached");
    assert_eq!((none.status, none.get("cache-control")), (504, "no-store"));
    assert_eq!(world.asked_for("/p/a"), 0);
    one.get_settled("/p/a");
    assert_eq!(ask("only-if-cached").status, 200);
    assert_eq!(
        ask("no-cache").cache_status(),
        "edgeweir; fwd=request; ttl=59; stored"
    );
    world.pass(10_000);
    assert!(ask("max-age=5").cache_status().contains("fwd=request"));
    world.pass(10_000);
    assert!(ask("min-fresh=55").cache_status().contains("fwd=request"));
    world.pass(70_000);
    assert!(ask("max-stale=100").cache_status().contains("hit; ttl=-"));
    assert_eq!(world.asked_for("/p/a"), 4);
}

/// Redis away: the origin's answer, to the visitor's own request.
#[test]
fn without_redis_the_origin_answers() {
    let (world, one, _) = world_of(json!({}));
    world.origin(|_| says("x", "max-age=60"));
    world.network(|_| Passage {
        fault: Fault::Before(RedisErrorKind::Timeout),
        ..Passage::new(500, 500)
    });
    for _ in 0..6 {
        let served = settled(&one, Ask::get("/p/a").header("if-none-match", "\"q\""));
        assert_eq!((served.status, served.text()), (200, "x"));
        assert_eq!(served.cache_status(), "edgeweir; fwd=bypass; detail=redis");
    }
    let asked = world.asked.borrow();
    assert!(
        asked
            .iter()
            .all(|asked| asked.is_forwarded && asked.headers.contains("if-none-match"))
    );
}

/// Too large, a stream, or broken: passed on or a failure, never stored in part.
#[test]
fn only_whole_answers_are_stored() {
    let (world, one, _) = world_of(json!({ "max_size": "1KB" }));
    world.origin(|asked| match asked.target.as_str() {
        "/p/large" => says(&"x".repeat(2000), "max-age=60"),
        "/p/events" => Says {
            headers: Default::default(),
            ..says("data: x", "")
        }
        .header("content-type", "text/event-stream")
        .header("cache-control", "max-age=60"),
        _ => Says {
            breaks: true,
            ..says("x", "max-age=60")
        },
    });
    for (target, status, why) in [
        ("/p/large", 200, "too-large"),
        ("/p/events", 200, "stream"),
        ("/p/broken", 502, ""),
    ] {
        let served = one.get_settled(target);
        assert_eq!(
            (served.status, served.is_streamed),
            (status, status == 200),
            "{target}"
        );
        assert!(
            served.cache_status().ends_with(why),
            "{}",
            served.cache_status()
        );
        assert_eq!(
            world
                .redis
                .get(&format!("http:pages:https://edge.example{target}")),
            None
        );
    }
}

/// A long URL has its hash for a key; whatever lies under a key, it is an answer of ours or
/// none.
#[test]
fn keys_are_bounded_and_records_checked() {
    let (world, one, _) = world_of(json!({}));
    world.origin(|asked| says(&asked.target.len().to_string(), "max-age=60"));
    let long = |last: &str| format!("/p/a?{}{last}", "q".repeat(3000));
    for last in ["1", "2", "33"] {
        one.get_settled(&long(last));
        let hit = one.get_settled(&long(last));
        assert_eq!(hit.text(), long(last).len().to_string());
        assert!(hit.cache_status().contains("hit"));
    }
    let key = "http:pages:https://edge.example/p/b";
    for junk in ["", "{}", "h1,1,1,x200,1,99999999999999,0,0,1,1,x"] {
        world.redis.set_px(world.sim.now_us(), key, junk, 60_000);
        assert_eq!(one.get_settled("/p/b").text(), "4", "{junk}");
    }
}
