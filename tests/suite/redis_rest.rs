//! The client over a scripted transport: what it sends, how every failure is told
//! apart, and that no trip outlasts its timeout.

use std::cell::Cell;

use edgeweir::ports::{Clock, Store};
use edgeweir::redis::deadline::{MAX_STALL_MS, awake};
use edgeweir::redis::{
    Answer, Batch, Command, RedisError, RedisErrorKind, Reply, TransportError, classify,
};
use proptest::prelude::*;

use crate::redis_fake::{Step, TIMEOUT_MS, TOKEN, World, answer, client, header};

#[test]
fn a_trip_is_one_post_as_upstash_wants_it() {
    let world = World::new();
    let client = client();
    world.answer(200, r#"[{"result":"YmFy"}]"#);
    assert_eq!(world.ask(&client).unwrap(), [Reply::Bytes(b"bar".to_vec())]);
    let post = world.sent.borrow()[0].clone();
    assert_eq!(&*post.url, "http://redis.test/pipeline");
    assert_eq!(post.body, r#"[["GET","the-key"]]"#);
    assert_eq!(
        header(&post, "authorization"),
        Some("Bearer AX-secret-token")
    );
    assert_eq!(header(&post, "content-type"), Some("application/json"));
    assert_eq!(header(&post, "upstash-encoding"), Some("base64"));
    assert_eq!(header(&post, "upstash-sync-token"), None);

    world.answer(200, r#"[{"result":1},{"result":"OK"}]"#);
    let batch = Batch::multi(vec![
        Command::new("INCR").arg("n"),
        Command::set_px("k", "v", 5),
    ]);
    let replies = world.run(client.pipeline(&world, Store::Cache, &batch, TIMEOUT_MS));
    assert_eq!(replies.unwrap().len(), 2);
    assert_eq!(&*world.sent.borrow()[1].url, "http://redis.test/multi-exec");
}

#[test]
fn nothing_to_ask_is_no_trip() {
    let world = World::new();
    let none =
        world.run(client().pipeline(&world, Store::Limits(0), &Batch::default(), TIMEOUT_MS));
    assert_eq!(none, Ok(vec![]));
    assert!(world.sent.borrow().is_empty());
}

#[test]
fn the_sync_token_of_an_answer_goes_into_the_next_request() {
    let world = World::new();
    let client = client();
    let tokens = [
        Some("jbWT5IL=;sn=7".to_owned()),
        None,
        Some("bad\r\nx: y".to_owned()),
        Some("x".repeat(2_000)),
        Some(String::new()),
        Some("second".to_owned()),
        None,
    ];
    for sync_token in tokens {
        world.next(Step::After(
            1,
            Ok(Answer {
                sync_token,
                ..answer(200, r#"[{"result":null}]"#)
            }),
        ));
        assert_eq!(world.ask(&client), Ok(vec![Reply::Nil]));
    }
    let sent = world.sent.borrow();
    let seen: Vec<_> = sent
        .iter()
        .map(|post| header(post, "upstash-sync-token"))
        .collect();
    let first = Some("jbWT5IL=;sn=7");
    assert_eq!(
        seen,
        [None, first, first, first, first, first, Some("second")]
    );
}

#[test]
fn every_failure_is_told_apart() {
    use RedisErrorKind::*;
    let table: &[(u16, &str, RedisErrorKind)] = &[
        (400, r#"{"error":"ERR unsupported arg type"}"#, Rejected),
        (
            400,
            r#"{"error":"EXECABORT Transaction discarded because of previous errors."}"#,
            Rejected,
        ),
        (
            400,
            r#"{"error":"ERR syntax error the-key OOM READONLY max requests limit exceeded"}"#,
            Rejected,
        ),
        (
            400,
            r#"{"error":"ERR max daily request limit exceeded. Limit: 10000, Usage: 10001. See https://upstash.com/docs/redis/troubleshooting/max_daily_request_limit for details"}"#,
            Quota,
        ),
        (
            400,
            r#"{"error":"ERR max requests limit exceeded. Limit: 500000, Usage: 500000."}"#,
            Quota,
        ),
        (
            400,
            r#"{"error":"ERR max request size exceeded. Limit: 1048576 bytes"}"#,
            TooLarge,
        ),
        (400, r#"{"error":"ERR DB capacity quota exceeded"}"#, Full),
        (
            400,
            r#"{"error":"OOM command not allowed when used memory > 'maxmemory'."}"#,
            Full,
        ),
        (
            400,
            r#"{"error":"EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'."}"#,
            Full,
        ),
        (
            400,
            r#"{"error":"READONLY You can't write against a read only replica."}"#,
            ReadOnly,
        ),
        (
            400,
            r#"{"error":"NOPERM this user has no permissions to run the 'set' command"}"#,
            ReadOnly,
        ),
        (400, "<html>Bad Request</html>", Status),
        (400, "", Status),
        (
            401,
            r#"{"error":"WRONGPASS invalid or missing auth token"}"#,
            Unauthorized,
        ),
        (401, "Unauthorized", Unauthorized),
        (413, "", TooLarge),
        (429, "", Quota),
        (404, r#"[{"result":1}]"#, Status),
        (405, "", Status),
        (500, r#"{"error":"internal"}"#, Status),
        (502, "<html>", Status),
        (204, "", Status),
        (302, "", Status),
        (200, "", Malformed),
        (200, "<html><body>OK</body></html>", Malformed),
        (200, r#"[{"result":"YmF"#, Malformed),
        (200, r#"{"result":"OK"}"#, Malformed),
        (200, r#"{"error":"ERR something"}"#, Malformed),
        (200, r#"{"error":"ERR max requests limit exceeded"}"#, Quota),
        (200, "[]", Malformed),
        (200, r#"[{"result":1},{"result":2}]"#, Malformed),
        (200, r#"[{"result":"not base64!"}]"#, Malformed),
        (
            200,
            r#"[{"error":"ERR max daily request limit exceeded. Limit: 3000, Usage: 3000."}]"#,
            Quota,
        ),
        (
            200,
            r#"[{"error":"OOM command not allowed when used memory > 'maxmemory'."}]"#,
            Full,
        ),
        (
            200,
            r#"[{"error":"READONLY You can't write against a read only replica."}]"#,
            ReadOnly,
        ),
        (
            200,
            r#"[{"error":"NOAUTH Authentication required."}]"#,
            Unauthorized,
        ),
    ];
    for (status, body, kind) in table {
        let world = World::new();
        world.answer(*status, body);
        assert_eq!(world.kind(&client()), *kind, "{status} {body}");
    }
    let world = World::new();
    let client = client();
    world.next(Step::After(1, Err(TransportError::Timeout)));
    assert_eq!(world.kind(&client), Timeout);
    world.next(Step::After(1, Err(TransportError::TooLarge)));
    assert_eq!(world.kind(&client), TooLarge);
}

#[test]
fn a_transport_error_is_cut_and_never_shows_the_token() {
    let world = World::new();
    let client = client();
    for (reason, detail) in [
        ("connection refused".to_owned(), "connection refused"),
        (
            format!("bad header: Bearer {TOKEN}"),
            "the connection failed",
        ),
    ] {
        world.next(Step::After(1, Err(TransportError::Failed(reason))));
        let error = world.ask(&client).unwrap_err();
        assert_eq!(error, RedisError::new(RedisErrorKind::Transport, detail));
    }
    world.next(Step::After(1, Err(TransportError::Failed("é".repeat(500)))));
    assert_eq!(world.kind(&client), RedisErrorKind::Transport);
}

#[test]
fn an_error_of_one_command_is_its_own_reply() {
    let world = World::new();
    world.answer(
        200,
        r#"[{"error":"OOM command not allowed"},{"result":"YQ=="}]"#,
    );
    let batch = Batch::pipeline(vec![
        Command::new("INCR").arg("a"),
        Command::new("GET").arg("b"),
    ]);
    let replies = world
        .run(client().pipeline(&world, Store::Limits(0), &batch, TIMEOUT_MS))
        .unwrap();
    assert_eq!(
        replies,
        [
            Reply::Error("OOM command not allowed".to_owned()),
            Reply::Bytes(b"a".to_vec())
        ]
    );
    assert_eq!(classify("WRONGTYPE Operation against a key"), None);
    assert_eq!(
        classify("ERR max key size exceeded"),
        Some(RedisErrorKind::TooLarge)
    );
}

#[test]
fn an_answer_that_never_comes_costs_the_timeout_and_no_more() {
    let world = World::new();
    world.next(Step::Never);
    let began_ms = world.now_ms();
    assert_eq!(world.kind(&client()), RedisErrorKind::Timeout);
    assert_eq!(world.now_ms() - began_ms, TIMEOUT_MS);
}

#[test]
fn an_answer_is_good_at_the_timeout_and_none_after_it() {
    let good = || Ok(answer(200, r#"[{"result":1}]"#));
    let world = World::new();
    world.next(Step::After(TIMEOUT_MS, good()));
    assert_eq!(world.ask(&client()), Ok(vec![Reply::Int(1)]));
    world.next(Step::After(TIMEOUT_MS + 1, good()));
    assert_eq!(world.kind(&client()), RedisErrorKind::Timeout);
}

/// A busy isolate finds its timer and the answer at once: Redis did not fail.
#[test]
fn time_in_which_the_isolate_was_held_up_is_forgiven_up_to_a_bound() {
    let good = answer(200, r#"[{"result":1}]"#);
    let most_ms = TIMEOUT_MS + MAX_STALL_MS;
    let world = World::new();
    for held_up_ms in [TIMEOUT_MS + 1, most_ms - 1] {
        world.next(Step::Blocked(held_up_ms, good.clone()));
        assert_eq!(world.ask(&client()), Ok(vec![Reply::Int(1)]));
    }
    world.next(Step::Blocked(most_ms, good.clone()));
    assert_eq!(world.kind(&client()), RedisErrorKind::Timeout);

    // Held up for 400 ms in the middle of the wait.
    for (after_ms, outcome) in [
        (559, Ok(vec![Reply::Int(1)])),
        (561, Err(RedisErrorKind::Timeout)),
    ] {
        world.hold_up(10, 400);
        world.next(Step::After(after_ms, Ok(good.clone())));
        let got = world.ask(&client()).map_err(|error| error.kind);
        assert_eq!(got, outcome, "after {after_ms} ms");
    }

    // Held up all the time, it still ends.
    let began_ms = world.now_ms();
    for at_ms in (0..10_000).step_by(100) {
        world.hold_up(at_ms, 99);
    }
    world.next(Step::Never);
    assert_eq!(world.kind(&client()), RedisErrorKind::Timeout);
    assert!(world.now_ms() - began_ms <= most_ms + 200);
}

#[test]
fn a_clock_that_stands_still_does_not_make_the_wait_endless() {
    struct Still(Cell<u64>);
    impl Clock for Still {
        fn now_ms(&self) -> u64 {
            7
        }
        async fn sleep(&self, duration_ms: u64) {
            self.0.set(self.0.get() + duration_ms);
        }
    }
    let still = Still(Cell::new(0));
    futures_executor::block_on(awake(&still, TIMEOUT_MS));
    assert_eq!(still.0.get(), TIMEOUT_MS);
}

#[test]
fn an_answer_above_the_bound_is_refused() {
    let world = World::new();
    let body = format!("[{{\"result\":\"{}\"}}]", "A".repeat(16 * 1024 * 1024));
    world.answer(200, &body);
    assert_eq!(world.kind(&client()), RedisErrorKind::TooLarge);
}

#[test]
fn a_batch_that_is_too_large_is_never_sent_and_no_failure_of_redis() {
    let world = World::new();
    let client = client();
    let batch = Batch::pipeline(vec![
        Command::new("SET").arg("k").arg("x".repeat(10_000_000)),
    ]);
    for _ in 0..5 {
        let error = world
            .run(client.pipeline(&world, Store::Limits(0), &batch, TIMEOUT_MS))
            .unwrap_err();
        assert_eq!(error.kind, RedisErrorKind::TooLarge);
    }
    assert!(world.sent.borrow().is_empty());
    assert!(!client.is_open(Store::Limits(0)));
}

#[test]
fn nothing_that_is_logged_shows_a_token_or_a_key() {
    let world = World::new();
    let client = client();
    world.answer(200, r#"[{"result":1}]"#);
    world.ask(&client).unwrap();
    let shown = format!("{client:?} {:?}", world.sent.borrow());
    assert!(shown.contains("http://redis.test"));
    assert!(
        !shown.contains(TOKEN) && !shown.contains("the-key"),
        "{shown}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() })]

    /// Whatever comes, there is one reply per command or an error, in time.
    #[test]
    fn any_answer_is_replies_or_an_error(
        status in prop_oneof![Just(200_u16), Just(400), 100_u16..600],
        body in prop::collection::vec(any::<u8>(), 0..120),
        delay_ms in 0_u64..400,
    ) {
        let world = World::new();
        let body = Answer { status, sync_token: None, body };
        world.next(Step::After(delay_ms, Ok(body)));
        let began_ms = world.now_ms();
        match world.ask(&client()) {
            Ok(replies) => prop_assert_eq!(replies.len(), 1),
            Err(error) => prop_assert!(error.kind != RedisErrorKind::Open),
        }
        prop_assert!(world.now_ms() - began_ms <= TIMEOUT_MS);
    }
}
