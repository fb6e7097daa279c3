//! What the hash of controls may hold: fields that cannot be read, and how many there may be.

use std::rc::Rc;

use edgeweir::controls::{FRESH_MS, KEY, MAX_CONTROLS, TTL_MS};
use edgeweir::redis::Reply;
use serde_json::json;

use super::controls::{admin, from, is_reading, lists, world};
use super::sim::{Fault, Passage};
use super::world::Ask;

/// What cannot be read is ignored, field by field; what is no hash keeps the last copy.
#[test]
fn what_cannot_be_read_is_ignored() {
    let (world, one, _) = world();
    let bytes = |text: &[u8]| Reply::Bytes(text.to_vec());
    let field = |field: &str, value: &str| [bytes(field.as_bytes()), bytes(value.as_bytes())];
    let mut fields: Vec<Reply> = [
        field("list:192.0.2.1", "denied"),
        field("list:192.0.2.0/33", "deny"),
        field("list:192.0.2.1/24", "deny"),
        field("list:nobody", "deny"),
        field("list:user:", "deny"),
        field("limit:book", "1"),
        field("limit:book:burst", "0"),
        field("limit:book:burst", "-1"),
        field("limit:book:burst", "2147483649"),
        field("limit:book:burst:a b", "1"),
        field("limit:book:burst:192.0.2.1:more", "1"),
        field("", ""),
        field("limit", "1"),
        [bytes(b"list:\xff"), bytes(b"deny")],
        [Reply::Nil, Reply::Int(1)],
        field("list:203.0.113.0/24", "deny"),
        field("limit:book:key", "3"),
    ]
    .into_iter()
    .flatten()
    .collect();
    fields.push(bytes(b"odd"));
    let replies = Rc::new(std::cell::RefCell::new(Reply::List(fields)));
    let shown = replies.clone();
    world.network(
        move |batch| match is_reading(batch) && batch.commands.len() == 1 {
            true => Passage {
                fault: Fault::Replies(vec![shown.borrow().clone()]),
                ..Passage::new(500, 500)
            },
            false => Passage::new(500, 500),
        },
    );
    one.get_settled("/free");
    let served = one.get("/books/1");
    assert_eq!(served.status, 200);
    assert_eq!(
        served.get("ratelimit-policy"),
        "\"burst\";q=5;w=3600, \"key\";q=3;w=3600"
    );
    assert_eq!(one.ask(from("203.0.113.9", "/free")).status, 403);
    for reply in [
        Reply::Error("WRONGTYPE".to_owned()),
        Reply::Nil,
        Reply::Int(1),
        Reply::Bytes(b"x".to_vec()),
    ] {
        *replies.borrow_mut() = reply;
        world.pass(FRESH_MS);
        one.get_settled("/free");
        assert_eq!(one.ask(from("203.0.113.9", "/free")).status, 403);
    }
    *replies.borrow_mut() = Reply::List(Vec::new());
    world.pass(FRESH_MS);
    one.get_settled("/free");
    assert_eq!(
        one.ask(from("203.0.113.9", "/free")).status,
        200,
        "an empty hash says something"
    );
}

/// A thousand controls and no more: the next one is refused, changing one is not.
#[test]
fn there_is_room_for_a_thousand() {
    let (world, one, _) = world();
    let many = |from: usize, to: usize| -> Vec<String> {
        (from..to)
            .map(|n| format!("10.{}.{}.1", n / 250, n % 250))
            .collect()
    };
    lists(&one, &json!({ "deny": many(0, 600) }));
    lists(&one, &json!({ "allow": many(600, MAX_CONTROLS) }));
    for (method, target, body) in [
        ("POST", "/-/lists", json!({ "deny": ["192.0.2.1"] })),
        ("POST", "/-/lists", json!({ "deny": many(999, 1_001) })),
        (
            "PUT",
            "/-/limits/book?limit=burst",
            json!({ "requests": 9 }),
        ),
    ] {
        let refused = admin(&one, method, target, &body.to_string());
        assert_eq!(refused.status, 400);
        let detail = "there are 1000 controls already; remove some first";
        assert_eq!(refused.json()["detail"], detail);
    }
    assert_eq!(one.get("/free").status, 200);
    assert_eq!(one.ask(from("10.0.1.1", "/free")).status, 403);
    lists(&one, &json!({ "allow": ["10.0.1.1"] }));
    assert_eq!(one.ask(from("10.0.1.1", "/free")).status, 200);
    lists(
        &one,
        &json!({ "deny": ["192.0.2.1"], "remove": ["10.0.2.1"] }),
    );
    assert_eq!(one.get("/free").status, 403);
    let now_us = world.sim.now_us();
    assert_eq!(world.redis.ttls_ms(now_us)[KEY], Some(TTL_MS - 1));
}

/// Two writers who take the last places at once: neither goes past the bound.
#[test]
fn writers_at_the_same_time_stay_within_the_bound() {
    let (world, one, other) = world();
    let all: Vec<String> = (0..MAX_CONTROLS - 1)
        .map(|n| format!("10.{}.{}.1", n / 250, n % 250))
        .collect();
    lists(&one, &json!({ "deny": all }));
    world.network(|_| Passage::new(5_000, 5_000));
    let slots = [(&one, "192.0.2.1"), (&other, "192.0.2.2")].map(|(isolate, ip)| {
        let ask = Ask::new("POST", "/-/lists").body(json!({ "deny": [ip] }).to_string());
        isolate
            .send(ask.header("authorization", "Bearer admin-token"))
            .1
    });
    let mut statuses = slots.map(|slot| world.sim.block_on(slot.wait()).status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    let shown = admin(&one, "GET", "/-/limits", "").json();
    assert_eq!(shown["deny"].as_array().unwrap().len(), MAX_CONTROLS);
}
