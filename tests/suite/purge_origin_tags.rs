//! The origin's own tags: `Cache-Tag`, `Surrogate-Key`, `Cache-Groups`, and what a write ends
//! by `Cache-Group-Invalidation` (RFC 9875).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use edgeweir::cache::origin_tags::{ended_groups, named};
use edgeweir::config::Secret;
use edgeweir::gateway::Settings;
use edgeweir::http::Headers;
use edgeweir::policy::Policy;
use serde_json::{Value, json};

use super::sim::first_seed;
use super::world::{Ask, Isolate, Says, World, policy};

fn headers(fields: &[(&str, &str)]) -> Headers {
    fields.iter().copied().collect()
}

/// The three fields together, in the order of their names, each name once.
#[test]
fn tags_are_read_from_three_fields() {
    for (fields, expected) in [
        (vec![], vec![]),
        (
            vec![("cache-tag", "a, b c ,,a"), ("cache-tag", "\td")],
            vec!["a", "b c", "d"],
        ),
        (
            vec![("surrogate-key", " b  a\tb"), ("surrogate-key", "c,d")],
            vec!["a", "b", "c,d"],
        ),
        (
            vec![
                ("cache-groups", "\"x y\", \"a\\\"b\";p=1"),
                ("cache-groups", "\"z\""),
            ],
            vec!["a\"b", "x y", "z"],
        ),
        // RFC 9651, 4.2: what does not parse, or is of another type, is no field.
        (vec![("cache-groups", "\"a\", b")], vec![]),
        (vec![("cache-groups", "\"a")], vec![]),
        (vec![("cache-groups", "(\"a\")")], vec![]),
        (vec![("cache-groups", ""), ("cache-tag", " , ")], vec![]),
        (
            vec![
                ("cache-tag", "one"),
                ("surrogate-key", "two one"),
                ("cache-groups", "\"three\""),
            ],
            vec!["one", "three", "two"],
        ),
    ] {
        assert_eq!(
            named(&headers(&fields)),
            Some(expected.iter().map(|tag| (*tag).to_owned()).collect()),
            "{fields:?}"
        );
    }
}

/// What cannot be kept is told, and so not stored: 32 tags of 128 bytes fit.
#[test]
fn more_tags_than_are_kept_are_none() {
    let many = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>();
    let group = |name: &String| format!("\"{name}\"");
    for (count, fits) in [(32, true), (33, false)] {
        let groups: Vec<String> = many(count).iter().map(group).collect();
        for (name, value) in [
            ("cache-tag", many(count).join(",")),
            ("surrogate-key", many(count).join(" ")),
            ("cache-groups", groups.join(", ")),
        ] {
            assert_eq!(
                named(&headers(&[(name, &value)])).is_some(),
                fits,
                "{name} {count}"
            );
        }
    }
    let half = many(16).join(" ");
    let other = many(33).split_off(16).join(",");
    assert_eq!(
        named(&headers(&[("surrogate-key", &half), ("cache-tag", &other)])),
        None
    );
    for (length, fits) in [(128, true), (129, false)] {
        let long = "x".repeat(length);
        assert_eq!(
            named(&headers(&[("cache-tag", &long)])).is_some(),
            fits,
            "{length}"
        );
    }
    assert_eq!(
        named(&headers(&[("cache-tag", "key:books:1")])),
        None,
        "an entry's own"
    );
    let ended = |value: &str| ended_groups(&headers(&[("cache-group-invalidation", value)]));
    assert_eq!(
        ended("\"a\", \"b\""),
        Some(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(ended("a"), Some(vec![]));
    assert_eq!(
        ended(&many(1_001).iter().map(group).collect::<Vec<_>>().join(",")),
        None
    );
}

fn shop() -> Policy {
    policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "2s" } },
        "route": [
            { "name": "book", "match": "GET /books/{id}", "cache": { "key": "book:{id}", "ttl": "10m", "tags": ["own"] } },
            { "name": "fast", "match": "GET /fast/{id}", "cache": { "key": "fast:{id}", "ttl": "10m", "l1": "10s" } },
            { "name": "page", "match": "GET /page/{id}", "cache": { "mode": "http" } },
            { "name": "clear", "match": "DELETE /books", "purge": { "tags": ["shelf"] } },
        ],
    }))
}

/// An origin that says the next version, with these fields.
struct Stage {
    world: Rc<World>,
    fields: Rc<RefCell<Vec<(String, String)>>>,
    after_ms: Rc<Cell<u64>>,
}

fn stage(fields: &[(&str, &str)]) -> Stage {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let stage = Stage {
        world: World::new(first_seed()),
        fields: Rc::new(RefCell::new(fields.iter().map(owned).collect())),
        after_ms: Rc::new(Cell::new(20)),
    };
    let (fields, after_ms, mut version) = (stage.fields.clone(), stage.after_ms.clone(), 0);
    stage.world.origin(move |asked| {
        version += u32::from(asked.method == "GET");
        let mut says = Says::json(&json!(version)).header("cache-control", "max-age=600");
        for (name, value) in fields.borrow().iter() {
            says = says.header(name, value);
        }
        says.after(after_ms.get())
    });
    stage
}

impl Stage {
    fn isolate(&self) -> Isolate {
        let settings = Settings {
            admin_token: Some(Secret::new("t")),
            ..Settings::default()
        };
        self.world.isolate_with(shop(), settings)
    }

    fn set(&self, name: &str, value: &str) {
        *self.fields.borrow_mut() = vec![(name.to_owned(), value.to_owned())];
    }
}

fn purge(isolate: &Isolate, body: &Value) {
    let ask = Ask::new("POST", "/-/purge").header("authorization", "Bearer t");
    let served = isolate.ask(ask.body(body.to_string()));
    assert_eq!(served.status, 200, "{}", served.text());
}

fn is_hit(isolate: &Isolate, target: &str) -> bool {
    isolate
        .get_settled(target)
        .cache_status()
        .contains("; hit; ")
}

/// By the admin API, by a route's rule and by a backend, in both modes, in every isolate.
#[test]
fn the_origins_tags_purge_like_the_policys() {
    for field in [
        ("cache-tag", "shelf, new"),
        ("surrogate-key", "new shelf"),
        ("cache-groups", "\"new\", \"shelf\""),
    ] {
        for target in ["/books/7", "/page/7", "/fast/7"] {
            let stage = stage(&[field]);
            let (one, other) = (stage.isolate(), stage.isolate());
            one.get_settled(target);
            assert!(
                is_hit(&one, target) && is_hit(&other, target),
                "{field:?} {target}"
            );
            for n in 0..4 {
                match n {
                    0 => purge(&one, &json!({ "tags": ["shelf"] })),
                    1 => purge(&one, &json!({ "tags": ["new"] })),
                    2 => assert_eq!(one.ask(Ask::new("DELETE", "/books")).status, 200),
                    _ => stage.world.redis.set_px(
                        stage.world.sim.now_us(),
                        "gen:shelf",
                        "uuid",
                        172_800_000,
                    ),
                }
                if target == "/fast/7" {
                    // A purge elsewhere is noticed within `l1`.
                    stage.world.pass(if n == 3 { 10_000 } else { 0 });
                    assert!(n == 3 || !is_hit(&one, target), "its own at once");
                    stage.world.pass(10_000);
                    one.get_settled(target);
                    continue;
                }
                assert!(!is_hit(&other, target), "{field:?} {target} {n}");
                assert!(is_hit(&one, target), "{field:?} {target} {n}");
            }
            assert_eq!(stage.world.immortal_keys(), [""; 0]);
        }
    }
}

/// What an origin that names no tags costs: not a command more.
#[test]
fn without_tags_nothing_is_asked_more() {
    for target in ["/books/7", "/page/7"] {
        let count = |fields: &[(&str, &str)]| {
            let stage = stage(fields);
            let isolate = stage.isolate();
            isolate.get_settled(target);
            isolate.get_settled(target);
            let ran = stage.world.redis.ran.borrow();
            ran.iter().map(|ran| ran.words.len()).sum::<usize>()
        };
        let other = [("x-other", "field")];
        assert_eq!(count(&other), count(&[]));
        assert!(count(&[("cache-tag", "a")]) > count(&[]));
    }
}

/// A tag that other entries have is no reason to doubt, where this isolate knows its generation
/// from before: the first fill of each key is stored.
#[test]
fn a_tag_that_is_known_is_stored_at_once() {
    for route in ["books", "page"] {
        let stage = stage(&[("cache-tag", "shelf")]);
        let isolate = stage.isolate();
        for id in 0..5 {
            let target = format!("/{route}/{id}");
            isolate.get_settled(&target);
            // This reading is what it knows the generation from.
            assert!(is_hit(&isolate, &target), "{target}");
        }
        assert_eq!(stage.world.asked.borrow().len(), 5);
    }
}

/// A tag that others have and this isolate does not know may have been purged meanwhile: the
/// answer is not stored, but its tags are known to all from then on.
#[test]
fn a_tag_that_may_have_been_purged_is_not_stored_but_told() {
    for (route, key) in [
        ("books", "book:7"),
        ("page", "http:page:https://edge.example/page/7"),
    ] {
        let stage = stage(&[("cache-tag", "shelf")]);
        stage.isolate().get_settled(&format!("/{route}/1"));
        let target = format!("/{route}/7");
        stage.isolate().get_settled(&target);
        let other = stage.isolate();
        assert!(!is_hit(&other, &target), "it was not stored");
        assert!(is_hit(&other, &target), "the next one was");
        assert!(is_hit(&stage.isolate(), &target));
        assert!(stage.world.redis.get(key).is_some());
    }
}

/// A purge of a tag while the first answer that has it is on its way: the old one is not
/// stored, nor shared with those who came after the purge.
#[test]
fn a_purge_during_the_first_fetch_wins() {
    for (target, before) in [
        ("/books/7", false),
        ("/books/7", true),
        ("/page/7", false),
        ("/page/7", true),
    ] {
        let stage = stage(&[("cache-tag", "shelf")]);
        let (one, other) = (stage.isolate(), stage.isolate());
        if before {
            let now_us = stage.world.sim.now_us();
            stage
                .world
                .redis
                .set_px(now_us, "gen:shelf", "g", 172_800_000);
        }
        stage.after_ms.set(500);
        let (_, first) = one.send(Ask::get(target));
        stage.world.pass(100);
        purge(&other, &json!({ "tags": ["shelf"] }));
        let late: Vec<_> = [&one, &other]
            .map(|isolate| isolate.send(Ask::get(target)).1)
            .into();
        assert_eq!(stage.world.sim.block_on(first.wait()).text(), "1");
        for slot in late {
            let served = stage.world.sim.block_on(slot.wait());
            assert_ne!(
                served.text(),
                "1",
                "{target} {before} {}",
                served.cache_status()
            );
        }
        stage.world.settle();
        assert_ne!(other.get_settled(target).text(), "1");
        assert!(is_hit(&other, target));
    }
}

/// A crowd on a cold key with tags that nobody knew asks the origin once all the same.
#[test]
fn a_crowd_on_a_key_with_new_tags_asks_once() {
    for target in ["/books/7", "/page/7"] {
        let stage = stage(&[("cache-tag", "shelf, more")]);
        let isolates = [stage.isolate(), stage.isolate(), stage.isolate()];
        let slots: Vec<_> = (0..60)
            .map(|n| isolates[n % 3].send(Ask::get(target)).1)
            .collect();
        for slot in slots {
            assert_eq!(stage.world.sim.block_on(slot.wait()).text(), "1");
        }
        stage.world.settle();
        assert_eq!(stage.world.asked_for(target), 1, "{target}");
    }
}

/// Tags that change with the content: what an entry has is what its last answer had.
#[test]
fn tags_may_change_with_each_answer() {
    for target in ["/books/7", "/page/7"] {
        let stage = stage(&[("cache-tag", "old")]);
        let (one, other) = (stage.isolate(), stage.isolate());
        one.get_settled(target);
        assert!(is_hit(&one, target) && is_hit(&other, target));
        stage.set("cache-tag", "new");
        purge(&one, &json!({ "tags": ["old"] }));
        one.get_settled(target);
        assert!(is_hit(&one, target) && is_hit(&other, target), "{target}");
        purge(&one, &json!({ "tags": ["old"] }));
        assert!(
            is_hit(&other, target),
            "it is not of that any more: {target}"
        );
        purge(&one, &json!({ "tags": ["new"] }));
        assert!(!is_hit(&other, target), "{target}");
    }
}

/// More tags than are kept: the answer is passed on and not stored.
#[test]
fn an_answer_with_too_many_tags_is_not_stored() {
    let many = (0..33).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    for target in ["/books/7", "/page/7"] {
        let stage = stage(&[("cache-tag", &many)]);
        let isolate = stage.isolate();
        for version in 1..3 {
            let served = isolate.get_settled(target);
            assert_eq!(served.text(), version.to_string());
            stage.world.pass(6_000);
            if version == 1 {
                assert!(
                    served.cache_status().ends_with("detail=tags"),
                    "{}",
                    served.cache_status()
                );
            }
        }
    }
}

/// RFC 9875, 3: a write that succeeds ends the groups that its answer names, before it is
/// answered; a read, or a write that fails, ends none.
#[test]
fn a_write_ends_the_groups_that_its_answer_names() {
    let fields = [
        ("cache-groups", "\"shelf\""),
        ("cache-group-invalidation", "\"x\", \"shelf\""),
    ];
    for target in ["/books/7", "/page/7"] {
        for (method, status, ends) in [
            ("POST", 200, true),
            ("PURGE", 204, true),
            ("DELETE", 303, true),
            ("POST", 400, false),
            ("POST", 500, false),
            ("OPTIONS", 200, false),
            ("GET", 200, false),
        ] {
            let stage = stage(&fields);
            let (one, other) = (stage.isolate(), stage.isolate());
            one.get_settled(target);
            assert!(is_hit(&one, target) && is_hit(&other, target));
            let says = Says::new(status, "").header("cache-group-invalidation", "\"x\", \"shelf\"");
            stage.world.origin(move |_| says.clone());
            assert_eq!(one.ask(Ask::new(method, "/elsewhere")).status, status);
            assert_eq!(is_hit(&other, target), !ends, "{method} {status} {target}");
        }
    }
}
