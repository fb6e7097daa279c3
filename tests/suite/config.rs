//! Variables: what is required, what is refused, and that no secret is ever shown.

use edgeweir::config::{CacheKey, Config, ConfigError};
use edgeweir::policy::Switch;
use edgeweir::redis::Endpoint;
use edgeweir::views::due::Schedule;

const URL: (&str, &str) = ("UPSTASH_REDIS_REST_URL", "https://eu1.upstash.io");
const TOKEN: (&str, &str) = ("UPSTASH_REDIS_REST_TOKEN", "tok-secret");

fn read(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_vars(|name| {
        // The last one said wins, so that a case can replace a default.
        let var = vars.iter().rev().find(|(var, _)| *var == name);
        var.map(|(_, value)| (*value).to_owned())
    })
}

fn with(var: (&str, &str)) -> Result<Config, ConfigError> {
    read(&[URL, TOKEN, var])
}

#[test]
fn the_database_alone_is_enough() {
    let config = read(&[URL, TOKEN]).unwrap();
    let redis = config.redis.as_ref().unwrap();
    assert_eq!(
        redis.limits,
        [Endpoint::new("https://eu1.upstash.io", "tok-secret")]
    );
    assert_eq!(redis.cache, None);
    assert_eq!(config.switched_off, []);
    assert_eq!(config.origin_url, None);
    assert_eq!(config.admin_token, None);
    assert_eq!(config.jwt_secret, None);
    assert_eq!(config.policy, None);
    assert_eq!(config.rate_limit_window_ms, None);
    assert_eq!(config.rate_limit_max_requests, None);
}

/// Databases for limits are lists with commas: a token for each, or one for all.
#[test]
fn several_databases_are_listed() {
    let read = |urls: &str, tokens: &str| {
        super::config::read(&[
            ("UPSTASH_REDIS_REST_URL", urls),
            ("UPSTASH_REDIS_REST_TOKEN", tokens),
        ])
        .map(|config| config.redis.unwrap().limits)
    };
    let two = "https://a.upstash.io/, https://b.upstash.io";
    let each = [
        Endpoint::new("https://a.upstash.io", "one"),
        Endpoint::new("https://b.upstash.io", "two"),
    ];
    assert_eq!(read(two, "one , two").unwrap(), each);
    let both = read(two, "one").unwrap();
    assert_eq!(both[1], Endpoint::new("https://b.upstash.io", "one"));
    let many: Vec<String> = (0..17).map(|n| format!("https://{n}.upstash.io")).collect();
    for (urls, tokens, variable) in [
        (two, "one,two,three", "UPSTASH_REDIS_REST_TOKEN"),
        (
            "https://a.io,https://b.io,https://c.io",
            "one,two",
            "UPSTASH_REDIS_REST_TOKEN",
        ),
        (two, "one,t w", "UPSTASH_REDIS_REST_TOKEN"),
        ("https://a.io,", "one", "UPSTASH_REDIS_REST_URL"),
        ("https://a.io,ftp://b.io", "one", "UPSTASH_REDIS_REST_URL"),
        (
            "https://a.io,https://a.io/",
            "one",
            "UPSTASH_REDIS_REST_URL",
        ),
        (&many.join(","), "one", "UPSTASH_REDIS_REST_URL"),
    ] {
        assert_eq!(
            read(urls, tokens).unwrap_err().variable,
            variable,
            "{urls} {tokens}"
        );
    }
}

#[test]
fn everything_is_read() {
    let config = read(&[
        URL,
        ("UPSTASH_REDIS_REST_TOKEN", "tok-secret\n"),
        ("CACHE_REDIS_REST_URL", "http://127.0.0.1:8079/"),
        ("CACHE_REDIS_REST_TOKEN", "cache-secret"),
        ("ORIGIN_URL", " http://[::1]:3000/base// "),
        ("ADMIN_TOKEN", "admin-secret\n"),
        ("JWT_SECRET", " jwt-secret "),
        ("POLICY", r#"{"route":[]}"#),
        ("RATE_LIMIT_WINDOW_MS", "60000"),
        ("RATE_LIMIT_MAX_REQUESTS", "2147483648"),
        ("NOTIFICATION_CACHE_TTL", " 1 "),
        ("UNREAD_COUNT_CACHE_TTL", "172800"),
        ("RATE_LIMIT_REDIS_ENABLED", "FALSE"),
        ("VIEW_SYNC_INTERVAL_HOURS", "6"),
        ("VIEW_DEDUP_TTL_HOURS", "nonsense"),
    ])
    .unwrap();
    let redis = config.redis.as_ref().unwrap();
    assert_eq!(redis.limits, [Endpoint::new(URL.1, TOKEN.1)]);
    assert_eq!(
        redis.cache,
        Some(Endpoint::new("http://127.0.0.1:8079", "cache-secret"))
    );
    assert_eq!(config.origin_url.as_deref(), Some("http://[::1]:3000/base"));
    assert_eq!(
        config.admin_token.as_ref().unwrap().as_bytes(),
        b"admin-secret"
    );
    assert_eq!(
        config.jwt_secret.as_ref().unwrap().as_bytes(),
        b" jwt-secret "
    );
    assert_eq!(config.policy.as_deref(), Some(r#"{"route":[]}"#));
    assert_eq!(config.rate_limit_window_ms, Some(60_000));
    assert_eq!(config.rate_limit_max_requests, Some(1 << 31));
    assert_eq!(config.notification_cache_ttl_s, Some(1));
    assert_eq!(config.unread_count_cache_ttl_s, Some(172_800));
    assert_eq!(config.switched_off, [Switch::RateLimitRedis]);
    assert_eq!(config.views, Schedule::Hours(6));
    let shown = format!("{config:?}");
    assert!(!shown.contains("-secret"), "{shown}");
}

#[test]
fn without_redis_its_variables_do_not_matter() {
    let config = read(&[
        ("REDIS_ENABLED", "false"),
        ("UPSTASH_REDIS_REST_URL", "nonsense"),
    ])
    .unwrap();
    assert!(config.redis.is_none());
}

#[test]
fn empty_counts_as_unset() {
    for name in [
        "CACHE_REDIS_REST_URL",
        "CACHE_REDIS_REST_TOKEN",
        "ORIGIN_URL",
        "ADMIN_TOKEN",
        "JWT_SECRET",
        "POLICY",
        "REDIS_ENABLED",
        "RATE_LIMIT_WINDOW_MS",
        "RATE_LIMIT_MAX_REQUESTS",
        "RATE_LIMIT_REDIS_ENABLED",
        "NOTIFICATION_CACHE_TTL",
        "UNREAD_COUNT_CACHE_TTL",
    ] {
        let config = with((name, "")).unwrap_or_else(|error| panic!("{error}"));
        assert!(config.redis.is_some_and(|redis| redis.cache.is_none()));
        assert!(config.admin_token.is_none() && config.jwt_secret.is_none());
        assert!(config.origin_url.is_none() && config.policy.is_none());
        assert_eq!(config.switched_off, []);
    }
}

#[test]
fn a_missing_required_one_is_named() {
    let missing = |vars: &[(&str, &str)]| read(vars).unwrap_err().variable;
    assert_eq!(missing(&[]), "UPSTASH_REDIS_REST_URL");
    assert_eq!(missing(&[TOKEN]), "UPSTASH_REDIS_REST_URL");
    assert_eq!(missing(&[URL]), "UPSTASH_REDIS_REST_TOKEN");
    assert_eq!(
        missing(&[URL, (TOKEN.0, " \n")]),
        "UPSTASH_REDIS_REST_TOKEN"
    );
    let half = [URL, TOKEN, ("CACHE_REDIS_REST_URL", "https://c.test")];
    assert_eq!(missing(&half), "CACHE_REDIS_REST_TOKEN");
    let half = [URL, TOKEN, ("CACHE_REDIS_REST_TOKEN", "secret")];
    assert_eq!(missing(&half), "CACHE_REDIS_REST_URL");
}

#[test]
fn a_malformed_one_is_named_and_its_value_not_shown() {
    let long = format!("https://{}-hidden", "x".repeat(3_000));
    let longer = format!("hidden-{}", "x".repeat(4_096));
    let cases: &[(&str, &[&str])] = &[
        (
            "ORIGIN_URL",
            &[
                "hidden.test",
                "ftp://hidden.test",
                "//hidden.test",
                "https://",
                "https:///hidden",
                "https://:80/hidden",
                "https://user:hidden@a.test",
                "https://hidden.test?x=1",
                "https://hidden.test/#f",
                "https://hidden.test\\x",
                "https://hidden test",
                "https://hidden\u{7}.test",
                "https://hiddén.test",
                "https://hidden.test:",
                "https://hidden.test:0",
                "https://hidden.test:65536",
                "https://hidden.test:+80",
                "https://hidden.test:8o",
                "https://[::hidden]",
                "https://[::1",
                "https://::1",
                "https://hid*den",
                long.as_str(),
            ],
        ),
        ("UPSTASH_REDIS_REST_URL", &["rediss://hidden.test:6379"]),
        ("CACHE_REDIS_REST_URL", &["hidden"]),
        (
            "UPSTASH_REDIS_REST_TOKEN",
            &["hidden token", "hidden\u{0}", "hiddén", longer.as_str()],
        ),
        ("REDIS_ENABLED", &["hidden", "2"]),
        ("RATE_LIMIT_REDIS_ENABLED", &["hidden"]),
        (
            "RATE_LIMIT_WINDOW_MS",
            &[
                "0",
                "-1",
                "+5",
                "1.5",
                "1e3",
                "60s",
                "hidden",
                "99999999999999999999",
            ],
        ),
        (
            "RATE_LIMIT_MAX_REQUESTS",
            &["0", "-1", "hidden", "2147483649", "4294967297"],
        ),
        (
            "NOTIFICATION_CACHE_TTL",
            &["0", "-1", "30s", "1.5", "hidden", "172801"],
        ),
        ("UNREAD_COUNT_CACHE_TTL", &["0", "hidden", "172801"]),
    ];
    for (variable, values) in cases {
        for value in *values {
            let error = with((variable, value)).expect_err(value);
            assert_eq!(error.variable, *variable, "{value}");
            let text = error.to_string();
            assert!(text.starts_with(variable), "{text}");
            assert!(!text.contains("hidd"), "{text}");
        }
    }
}

#[test]
fn good_urls_pass() {
    for (url, kept) in [
        ("http://localhost", "http://localhost"),
        ("http://127.0.0.1:8787/", "http://127.0.0.1:8787"),
        ("https://api_1.a-b.test/v1/", "https://api_1.a-b.test/v1"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ] {
        let config = with(("ORIGIN_URL", url)).unwrap();
        assert_eq!(config.origin_url.as_deref(), Some(kept));
    }
}

/// Two keys at most, each of 32 bytes; without one a policy may keep nothing of a user's.
#[test]
fn the_keys_of_users_entries() {
    let encode = |byte: u8| edgeweir::base64::encode(&[byte; 32]);
    let (one, two) = (encode(1), encode(2));
    let keys = |value: &str| with(("CACHE_KEY", value)).map(|config| config.cache_keys);
    assert_eq!(keys("").unwrap(), []);
    assert_eq!(keys(&format!("{one}\n")).unwrap(), [CacheKey::new([1; 32])]);
    let both = [CacheKey::new([2; 32]), CacheKey::new([1; 32])];
    assert_eq!(keys(&format!("{two}, {one}")).unwrap(), both);
    assert!(!format!("{both:?}").contains('1'));
    let short = edgeweir::base64::encode(&[1; 31]);
    for value in [
        "secret",
        &short,
        one.trim_end_matches('='),
        &format!("{one},"),
        &format!("{one},{one}"),
        &format!("{one},{two},{}", encode(3)),
    ] {
        let error = keys(value).unwrap_err();
        assert_eq!(error.variable, "CACHE_KEY", "{value}");
        assert!(!error.problem.contains(value), "{error}");
    }
    let policy = |cache: &str| {
        super::world::policy_text(&format!(
            r#"{{"route":[{{"name":"a","match":"GET /a","cache":{{"ttl":"1m",{cache}}}}}]}}"#
        ))
    };
    let of_user = policy(r#""scope":"user","key":"a:{user}""#);
    let shared = policy(r#""key":"a""#);
    // The policy built in must do with what is required of all.
    let bare = read(&[URL, TOKEN]).unwrap();
    assert_eq!(bare.check(&of_user), Ok(()));
    let chosen = with(("POLICY", "{}")).unwrap();
    assert_eq!(chosen.check(&shared), Ok(()));
    assert_eq!(chosen.check(&of_user).unwrap_err().variable, "CACHE_KEY");
    assert_eq!(with(("CACHE_KEY", &one)).unwrap().check(&of_user), Ok(()));
    let without_redis = with(("REDIS_ENABLED", "false")).unwrap();
    assert_eq!(without_redis.check(&of_user), Ok(()));
}

/// A schedule by cron wins over one by hours, and both must be right.
#[test]
fn when_views_are_sent_is_read() {
    let with = |vars: &[(&str, &str)]| {
        let token = ("UPSTASH_REDIS_REST_TOKEN", "t");
        read(&[&[URL, token][..], vars].concat()).map(|config| config.views)
    };
    assert_eq!(with(&[]).unwrap(), Schedule::default());
    let cron = ("VIEW_SYNC_CRON", "0 2,14 * * *");
    for vars in [&[cron][..], &[cron, ("VIEW_SYNC_INTERVAL_HOURS", "6")][..]] {
        assert!(matches!(with(vars).unwrap(), Schedule::Cron(_)));
    }
    for (variable, value) in [
        ("VIEW_SYNC_CRON", "0 25 * * *"),
        ("VIEW_SYNC_CRON", "nonsense"),
        ("VIEW_SYNC_INTERVAL_HOURS", "0"),
        ("VIEW_SYNC_INTERVAL_HOURS", "169"),
    ] {
        assert_eq!(with(&[(variable, value)]).unwrap_err().variable, variable);
    }
}
