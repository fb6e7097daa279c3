//! What `explain` says of a request, before there is a visitor.

use super::toml;

#[test]
fn an_explanation_says_why_a_route_wins() {
    let policy = toml(
        "[[route]]\nname = \"a\"\nmatch = \"GET /a/{x}\"\n[[route]]\nname = \"b\"\nmatch = \"GET /a/b\"\n\
         [[route]]\nname = \"c\"\nmatch = \"* /a/b\"\n",
    );
    let text = policy.explain("HEAD", "/a/b").to_string();
    assert!(
        text.contains("wins over a: GET /a/{x}, because `b` is more specific than {x}"),
        "{text}"
    );
    assert!(
        text.contains("wins over c: * /a/b, because its GET answers HEAD"),
        "{text}"
    );
}

/// What a policy says of an isolate's own entries, and what it is without.
#[test]
fn how_long_an_isolate_serves_its_own_entries() {
    for (limit, l1, l1_ms, line) in [
        ("", "", 1_000, "l1: an isolate's own copy, up to 1s after"),
        ("limit = []\n", "", 0, "l1: none, each hit asks Redis\n"),
        (
            "limit = []\n",
            ", l1 = \"500ms\"",
            500,
            "l1: an isolate's own copy, up to 500ms after",
        ),
        (
            "",
            ", l1 = \"60s\"",
            60_000,
            "l1: an isolate's own copy, up to 1m after",
        ),
        ("", ", l1 = \"0s\"", 0, "l1: none, each hit asks Redis\n"),
    ] {
        let policy = toml(&format!(
            "[[route]]\nname = \"a\"\nmatch = \"GET /a\"\n{limit}cache = {{ key = \"a\", ttl = \"1m\"{l1} }}\n"
        ));
        assert_eq!(policy.routes[0].l1_ms(), l1_ms);
        let text = policy.explain("GET", "/a").to_string();
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn everything_about_a_limit_is_explained() {
    let text = "[defaults]
hash_ids = true
address = { header = \"x-forwarded-for\", proxies = [\"10.0.0.0/8\"], ipv6_prefix = 56 }
limit = [
  { name = \"leased\", requests = 50, window = \"1m\", lease = true, shadow = true, rollout = 10 },
  { name = \"log\", requests = 5, window = \"1s\", algorithm = \"sliding-log\", by = \"user\", cost = 0, penalty = {} },
  { name = \"bucket\", requests = 5, window = \"1s\", algorithm = \"token-bucket\", burst = 9, by = \"global\", cost = { hit = 0, miss = 5 } },
  { name = \"fixed\", requests = 5, window = \"1h\", algorithm = \"fixed-window\", cost = 2, allow = [\"10.0.0.0/8\"], deny = [\"user:a\", \"user:b\"] },
]
[[route]]
name = \"a\"
match = \"GET /a\"
switch = [\"NOTIFICATION_CACHE_ENABLED\", \"RATE_LIMIT_REDIS_ENABLED\"]
";
    let policy = toml(text);
    let explained = policy.explain("GET", "/a").to_string();
    for line in [
        "leased: 50 in any 1m by address (CF-Connecting-IP, or x-forwarded-for from a trusted proxy; IPv6 by its /56)\n",
        "counted at ratelimit:{hash of ip}:a:leased:{epoch}, in buckets of 2s\n",
        "leased: an isolate charges ahead what it will need for 2s\n",
        "shadow: counts and reports, never refuses\n",
        "rollout: counts 10 % of the ids",
        "log: 5 in any 1s (sliding log) by verified user, else address, only looks: this request counts nothing\n",
        "counted under ratelimit:{hash of user or ip}:a:log\n",
        "penalty: 5 offences in a window ban the address for 1m, then twice as long, up to 1h\n",
        "bucket: 5 each 1s, 9 at once (token bucket) by everybody together, this request counts 0 on a hit, 5 on a miss, 5 when the origin fails\n",
        "counted under ratelimit:global:a:bucket\n",
        "fixed: 5 in each 1h since 1970 (fixed window) by address",
        ", this request counts 2\n",
        "allow: 1 entry is not counted\n",
        "deny: 2 entries are always refused\n",
        "switch  NOTIFICATION_CACHE_ENABLED = false: nothing is cached\n",
        "switch  RATE_LIMIT_REDIS_ENABLED = false: this isolate's own counts, without Redis\n",
    ] {
        assert!(explained.contains(line), "{line}\n{explained}");
    }
}
