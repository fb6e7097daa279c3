//! The client and its breakers: what opens them, that nobody waits while they are
//! open, and that one probe in the background closes them.

use edgeweir::ports::{Clock, Store};
use edgeweir::redis::{Batch, Client, Command, Endpoint, RedisErrorKind, Reply, TransportError};
use futures_util::future::join_all;

use crate::redis_fake::{Step, TIMEOUT_MS, TOKEN, World, answer, client, get, header};

#[test]
fn three_outages_open_the_breaker_and_then_nobody_waits() {
    type Fault = fn() -> Step;
    let outages: [Fault; 9] = [
        || Step::Never,
        || Step::After(1, Err(TransportError::Failed("reset".to_owned()))),
        || Step::After(1, Err(TransportError::TooLarge)),
        || Step::After(1, Ok(answer(500, ""))),
        || Step::After(1, Ok(answer(200, "<html>"))),
        || Step::After(1, Ok(answer(400, "<html>"))),
        || Step::After(1, Ok(answer(401, ""))),
        || Step::After(1, Ok(answer(429, ""))),
        || {
            let quota = r#"{"error":"ERR max requests limit exceeded"}"#;
            Step::After(1, Ok(answer(400, quota)))
        },
    ];
    for outage in outages {
        let world = World::new();
        let client = client();
        for _ in 0..3 {
            assert!(!client.is_open(Store::Limits(0)));
            world.next(outage());
            assert_ne!(world.kind(&client), RedisErrorKind::Open);
        }
        assert!(client.is_open(Store::Limits(0)));
        let began_ms = world.now_ms();
        for _ in 0..50 {
            assert_eq!(world.kind(&client), RedisErrorKind::Open);
        }
        assert_eq!(world.now_ms(), began_ms, "somebody waited");
        assert_eq!(world.sent.borrow().len(), 3);
    }
}

#[test]
fn a_redis_that_answers_is_no_outage() {
    for body in [
        r#"{"error":"ERR syntax error"}"#,
        r#"{"error":"ERR max request size exceeded"}"#,
        r#"{"error":"ERR DB capacity quota exceeded"}"#,
        r#"{"error":"READONLY no"}"#,
    ] {
        let world = World::new();
        let client = client();
        for _ in 0..5 {
            world.answer(400, body);
            let _ = world.kind(&client);
        }
        assert!(!client.is_open(Store::Limits(0)), "{body}");
    }
}

/// Large values under one key must not take the others from Redis.
#[test]
fn values_that_are_too_large_are_no_outage() {
    let world = World::new();
    let client = client();
    let read = Batch::pipeline(vec![
        Command::new("PING"),
        Command::new("MGET").arg("the-key"),
    ]);
    for _ in 0..5 {
        world.next(Step::After(1, Err(TransportError::TooLarge)));
        let failed = world.run(client.pipeline(&world, Store::Limits(0), &read, TIMEOUT_MS));
        assert_eq!(failed.unwrap_err().kind, RedisErrorKind::TooLarge);
    }
    assert!(!client.is_open(Store::Limits(0)));
}

#[test]
fn a_batch_that_was_not_sent_forgives_no_failure() {
    let world = World::new();
    let client = client();
    let large = Batch::pipeline(vec![Command::new("GET").arg("x".repeat(10_000_000))]);
    for _ in 0..3 {
        let unsent = world.run(client.pipeline(&world, Store::Limits(0), &large, TIMEOUT_MS));
        assert_eq!(unsent.unwrap_err().kind, RedisErrorKind::TooLarge);
        world.answer(500, "");
        assert_eq!(world.kind(&client), RedisErrorKind::Status);
    }
    assert!(client.is_open(Store::Limits(0)));
}

fn open(world: &World, client: &Client, store: Store) {
    for _ in 0..3 {
        world.answer(500, "");
        let _ = world.run(client.pipeline(world, store, &get(), TIMEOUT_MS));
    }
    assert!(client.is_open(store));
}

#[test]
fn one_probe_after_the_backoff_closes_or_opens_again() {
    let world = World::new();
    let client = client();
    open(&world, &client, Store::Limits(0));
    assert!(!client.probe_due(world.now_ms(), Store::Limits(0)));

    world.now_ms.set(world.now_ms() + 1_000);
    assert!(client.probe_due(world.now_ms(), Store::Limits(0)));
    assert!(!client.probe_due(world.now_ms(), Store::Limits(0)));
    assert_eq!(world.kind(&client), RedisErrorKind::Open, "while it probes");
    world.next(Step::Never);
    let failed = world.run(client.probe(&world, Store::Limits(0), TIMEOUT_MS));
    assert_eq!(failed.unwrap_err().kind, RedisErrorKind::Timeout);
    assert!(client.is_open(Store::Limits(0)));
    assert!(!client.probe_due(world.now_ms() + 900, Store::Limits(0)));

    world.now_ms.set(world.now_ms() + 2_000);
    assert!(client.probe_due(world.now_ms(), Store::Limits(0)));
    world.answer(200, r#"[{"result":"UE9ORw=="}]"#);
    assert_eq!(
        world.run(client.probe(&world, Store::Limits(0), TIMEOUT_MS)),
        Ok(())
    );
    assert_eq!(world.sent.borrow().last().unwrap().body, r#"[["PING"]]"#);
    assert!(!client.is_open(Store::Limits(0)));
    world.answer(200, r#"[{"result":7}]"#);
    assert_eq!(world.ask(&client), Ok(vec![Reply::Int(7)]));
}

/// What must arrive is sent although the breaker is open: a failure leaves it open, an
/// answer closes it on trial, as a probe's does.
#[test]
fn a_batch_that_insists_is_sent_while_the_breaker_is_open() {
    let world = World::new();
    let client = client();
    open(&world, &client, Store::Limits(0));
    let insisting = get().insisting();
    let insist = || world.run(client.pipeline(&world, Store::Limits(0), &insisting, TIMEOUT_MS));
    let sent = world.sent.borrow().len();
    world.answer(500, "");
    assert_eq!(insist().unwrap_err().kind, RedisErrorKind::Status);
    assert_eq!(world.sent.borrow().len(), sent + 1);
    assert_eq!(
        world.kind(&client),
        RedisErrorKind::Open,
        "nobody else waits"
    );
    assert!(
        client.probe_due(world.now_ms() + 1_000, Store::Limits(0)),
        "its failure does not lengthen the backoff"
    );

    world.answer(200, r#"[{"result":7}]"#);
    assert_eq!(insist(), Ok(vec![Reply::Int(7)]));
    assert!(!client.is_open(Store::Limits(0)));
    world.answer(500, "");
    assert_eq!(world.kind(&client), RedisErrorKind::Status);
    assert!(client.is_open(Store::Limits(0)), "it was closed on trial");

    world.answer(200, r#"[{"result":7}]"#);
    assert!(insist().is_ok());
    world.answer(200, r#"[{"result":7}]"#);
    assert!(world.ask(&client).is_ok());
    world.answer(500, "");
    assert_eq!(world.kind(&client), RedisErrorKind::Status);
    assert!(
        !client.is_open(Store::Limits(0)),
        "and an answer ended the trial"
    );
}

#[test]
fn a_redis_that_is_still_loading_fails_its_probe_and_a_full_one_passes() {
    for (body, closes) in [
        (
            r#"[{"error":"LOADING Redis is loading the dataset"}]"#,
            false,
        ),
        (r#"[{"error":"ERR max requests limit exceeded"}]"#, false),
        (r#"[{"error":"OOM command not allowed"}]"#, true),
    ] {
        let world = World::new();
        let client = client();
        open(&world, &client, Store::Limits(0));
        world.now_ms.set(world.now_ms() + 1_000);
        assert!(client.probe_due(world.now_ms(), Store::Limits(0)));
        world.answer(200, body);
        let probed = world.run(client.probe(&world, Store::Limits(0), TIMEOUT_MS));
        assert_eq!(probed.is_ok(), closes, "{body}");
        assert_eq!(client.is_open(Store::Limits(0)), !closes, "{body}");
    }
}

#[test]
fn a_probe_ends_before_another_may_be_claimed() {
    let world = World::new();
    let client = client();
    open(&world, &client, Store::Limits(0));
    world.now_ms.set(world.now_ms() + 1_000);
    let claimed_ms = world.now_ms();
    assert!(client.probe_due(claimed_ms, Store::Limits(0)));
    world.next(Step::Never);
    let probed = world.run(client.probe(&world, Store::Limits(0), 600_000));
    assert_eq!(probed.unwrap_err().kind, RedisErrorKind::Timeout);
    assert!(!client.probe_due(world.now_ms(), Store::Limits(0)));
    assert!(world.now_ms() - claimed_ms <= 5_000);
}

#[test]
fn a_crowd_at_a_hanging_redis_waits_once() {
    let world = World::new();
    let client = client();
    for _ in 0..200 {
        world.next(Step::Never);
    }
    let began_ms = world.now_ms();
    let batch = get();
    let trips = (0..200).map(|_| client.pipeline(&world, Store::Limits(0), &batch, TIMEOUT_MS));
    let outcomes = world.run(join_all(trips));
    assert!(outcomes.iter().all(Result::is_err));
    assert_eq!(world.now_ms() - began_ms, TIMEOUT_MS);
    assert!(client.is_open(Store::Limits(0)));
    assert!(
        client.probe_due(world.now_ms() + 1_000, Store::Limits(0)),
        "200 failures at once are one outage, with the first backoff"
    );
}

#[test]
fn one_database_has_one_breaker_and_two_have_two() {
    let url = "http://redis.test";
    let world = World::new();
    for cache in [None, Some(Endpoint::new("http://redis.test/", TOKEN))] {
        let shared = Client::new(Endpoint::new(url, TOKEN), Vec::new(), cache, 1);
        assert!(shared.shares_store());
        open(&world, &shared, Store::Limits(0));
        assert!(shared.is_open(Store::Cache));
        assert!(shared.probe_due(world.now_ms() + 1_000, Store::Cache));
        assert!(!shared.probe_due(world.now_ms() + 1_000, Store::Limits(0)));
    }
    let cache = Endpoint::new("http://cache.test", "other");
    let apart = Client::new(Endpoint::new(url, TOKEN), Vec::new(), Some(cache), 1);
    assert!(!apart.shares_store());
    open(&world, &apart, Store::Cache);
    assert!(!apart.is_open(Store::Limits(0)));
    let post = world.sent.borrow().last().unwrap().clone();
    assert_eq!(&*post.url, "http://cache.test/pipeline");
    assert_eq!(header(&post, "authorization"), Some("Bearer other"));
    world.answer(200, r#"[{"result":1}]"#);
    assert_eq!(world.ask(&apart), Ok(vec![Reply::Int(1)]));
}
