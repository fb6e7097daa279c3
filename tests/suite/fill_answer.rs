//! What an origin's answer says of itself: its age, its encoding, its kind.

use std::rc::Rc;

use edgeweir::http::Headers;
use serde_json::json;

use super::sim::first_seed;
use super::world::{Isolate, Says, World, policy};

fn world(says: Says) -> (Rc<World>, Isolate) {
    let world = World::new(first_seed());
    world.origin(move |_| says.clone());
    let isolate = world.isolate(policy(&json!({
        "defaults": { "limit": [], "timeout": { "redis": "150ms", "origin": "10s" } },
        "route": [{ "name": "top", "match": "GET /top", "cache": {
            "key": "top", "ttl": "1m", "stale": "30s" } }],
    })));
    (world, isolate)
}

/// What comes out of another cache has an age already. It goes on, and takes nothing
/// from the time that the policy gives.
#[test]
fn the_age_that_an_answer_came_with_goes_on() {
    let (world, isolate) = world(Says::new(200, "{}").header("age", "3600"));
    let miss = isolate.get_settled("/top");
    assert_eq!(miss.get("age"), "3600");
    let ttls = world.redis.ttls_ms(world.sim.now_us());
    let (body_ms, record_ms) = (ttls["top"].unwrap(), ttls["meta:top"].unwrap());
    assert!((89_000..=90_000).contains(&body_ms), "{body_ms}");
    assert!((149_000..=150_000).contains(&record_ms), "{record_ms}");
    for (passes_ms, age, status) in [
        (40_000, "3640", "edgeweir; hit; ttl=19; detail=l2"),
        (30_000, "3670", "edgeweir; hit; ttl=-11; detail=stale"),
    ] {
        world.pass(passes_ms);
        let hit = isolate.get("/top");
        assert_eq!(
            hit.headers.get_all("age").collect::<Vec<_>>(),
            [age],
            "{status}"
        );
        assert_eq!(hit.cache_status(), status);
    }
}

/// An age that is none counts from here.
#[test]
fn an_age_that_is_no_number_counts_as_none() {
    for age in ["", "-1", "soon", "99999999999"] {
        let (world, isolate) = world(Says::new(200, "{}").header("age", age));
        isolate.get_settled("/top");
        world.pass(5_000);
        assert_eq!(isolate.get("/top").get("age"), "5", "{age:?}");
    }
}

/// What cannot be read is not stored, and what goes on for ever is not waited for: both
/// pass as they come, with what they say of themselves.
#[test]
fn what_cannot_be_read_is_passed_on_at_once() {
    let coded = |coding| Says::new(200, "(\u{b5}/").header("content-encoding", coding);
    let stream = |kind| Says {
        headers: Headers::from_iter([("content-type", kind)]),
        ..Says::new(200, "data: 1\n\n")
    };
    for (says, detail) in [
        (coded("deflate"), "encoding"),
        (coded("zstd"), "encoding"),
        (coded("gzip, zstd"), "encoding"),
        (coded("gzip, br"), "encoding"),
        (coded("GZIP"), "encoding"),
        (stream("text/event-stream"), "not-json"),
        (stream("Text/Event-Stream; charset=utf-8"), "not-json"),
    ] {
        let says = Says {
            body_ms: 600_000,
            ..says
        };
        let (world, isolate) = world(says.clone());
        let served = isolate.get_settled("/top");
        assert!(served.is_streamed && served.took_us < 50_000, "{says:?}");
        assert_eq!((served.status, &served.body), (200, &says.body));
        for field in ["content-type", "content-encoding"] {
            assert_eq!(served.headers.get(field), says.headers.get(field));
        }
        let status = format!("edgeweir; fwd=miss; detail={detail}");
        assert_eq!(served.cache_status(), status, "{says:?}");
        assert_eq!(world.redis.get("top"), None);
    }
    // Those that the platform decodes are no reason.
    for coding in ["gzip", "br", "identity"] {
        let (_, isolate) = world(Says::new(200, "{}").header("content-encoding", coding));
        assert_eq!(
            isolate.get("/top").cache_status(),
            "edgeweir; fwd=miss; stored",
            "{coding}"
        );
    }
}
