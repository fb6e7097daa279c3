//! Same page, same key; two pages, two keys; and no input that forges another key.

use edgeweir::json::Value;
use edgeweir::policy::{CacheRule, PathValues, Policy, Selected, Template, Values};
use proptest::prelude::*;

use super::{property, toml, values};

fn rule(policy: &Policy) -> &CacheRule {
    policy.routes[0].cache.as_ref().unwrap()
}

fn cached(path: &str, key: &str, query: &str) -> Policy {
    toml(&format!(
        "[[route]]\nname = \"a\"\nmatch = \"GET {path}\"\ncache = {{ key = \"{key}\", ttl = \"1m\", query = {query} }}\n"
    ))
}

fn purging(keys: &str) -> Policy {
    toml(&format!(
        "[[route]]\nname = \"a\"\nmatch = \"PUT /a/{{id}}\"\npurge = {{ keys = [{keys}] }}\n"
    ))
}

fn render(template: &Template, path: &PathValues, selected: Option<&Selected>) -> Option<String> {
    template.render(&Values {
        path,
        selected,
        user: None,
        body: None,
        response: None,
    })
}

#[test]
fn plan_2s_example_has_plan_2s_key() {
    let policy = cached(
        "/books/search",
        "books:search:{hash}",
        r#"["category", "sort_by", "limit"]"#,
    );
    let selected = rule(&policy)
        .select(Some("limit=20&utm=x&sort_by=views&category=business"))
        .unwrap();
    assert_eq!(
        selected.query_string(),
        "category=business&sort_by=views&limit=20"
    );
    // hashlib.md5(b'category=business&sort_by=views&limit=20').hexdigest()
    assert_eq!(selected.hash(), "9fe55d9300d761f4237f547d5e835934");
    let key = render(&rule(&policy).key, &values(&[]), Some(&selected));
    assert_eq!(
        key.as_deref(),
        Some("books:search:9fe55d9300d761f4237f547d5e835934")
    );
    // hashlib.md5(b'').hexdigest()
    assert_eq!(
        rule(&policy).select(None).unwrap().hash(),
        "d41d8cd98f00b204e9800998ecf8427e"
    );
}

#[test]
fn listed_parameters_are_read_as_forms_are() {
    let policy = cached(
        "/a",
        "a:{q}:{page}:{f[x]}",
        r#"{ q = "none", page = "1", "f[x]" = "" }"#,
    );
    let rule = rule(&policy);
    for (raw, expected) in [
        (None, "q=none&page=1&f[x]="),
        (Some(""), "q=none&page=1&f[x]="),
        (Some("&&="), "q=none&page=1&f[x]="),
        (Some("q=a+b%2Bc"), "q=a%20b%2Bc&page=1&f[x]="),
        (Some("q=%C3%A9é"), "q=%C3%A9%C3%A9&page=1&f[x]="),
        (Some("q=1&q=2"), "q=1&page=1&f[x]="),
        (Some("q"), "q=&page=1&f[x]="),
        (Some("%71=x&f%5Bx%5D=y"), "q=x&page=1&f[x]=y"),
        (Some("Q=x&q =y&q%00=z"), "q=none&page=1&f[x]="),
        (Some("q=a=b&page=!'()*~"), "q=a%3Db&page=!'()*~&f[x]="),
        (Some("q=1&q=%zz&x=%zz&%zz=1"), "q=1&page=1&f[x]="),
    ] {
        assert_eq!(
            rule.select(raw).unwrap().query_string(),
            expected,
            "{raw:?}"
        );
    }
    for bad in ["q=%", "q=%z1", "page=%ff", "q=%zz&q=1", "f%5Bx%5D=%C3"] {
        assert_eq!(rule.select(Some(bad)), None, "{bad}");
    }
    assert_eq!(rule.select(Some(&format!("q={}", "x".repeat(4097)))), None);
    assert!(
        rule.select(Some(&format!("z={}", "x".repeat(100_000))))
            .is_some()
    );
    let selected = rule.select(Some("q=x")).unwrap();
    assert_eq!(
        (selected.get("q"), selected.get("page"), selected.get("z")),
        (Some("x"), Some("1"), None)
    );
}

#[test]
fn an_absent_parameter_is_not_an_empty_one() {
    let policy = cached("/a", "a:{q}:{p}", r#"["q", "p"]"#);
    let key = |raw: &str| {
        render(
            &rule(&policy).key,
            &values(&[]),
            rule(&policy).select(Some(raw)).as_ref(),
        )
        .unwrap()
    };
    assert_eq!(key(""), "a::");
    assert_eq!(key("q="), "a:%:");
    assert_eq!(key("q=%25"), "a:%25:");
    assert_eq!(key("p=x:y"), "a::x%3Ay");
}

#[test]
fn keys_are_not_made_of_what_is_missing_or_too_long() {
    let policy = purging(r#""u:{user}", "b:{body:/a/0}", "r:{response:/x~1y}", "p:{id}""#);
    let keys = &policy.routes[0].purge.as_ref().unwrap().keys;
    let path = values(&[("id", "a:b/c")]);
    let nothing = Values {
        path: &path,
        selected: None,
        user: None,
        body: None,
        response: None,
    };
    let shown: Vec<Option<String>> = keys.iter().map(|key| key.render(&nothing)).collect();
    assert_eq!(shown, [None, None, None, Some("p:a%3Ab%2Fc".to_owned())]);

    let rendered = |index: usize, json: serde_json::Value| {
        let body = serde_json::json!({ "a": [json], "x/y": json }).to_string();
        let body = Value::read(body.as_bytes()).unwrap();
        keys[index].render(&Values {
            body: Some(&body),
            response: Some(&body),
            user: Some("u:1"),
            ..nothing
        })
    };
    assert_eq!(
        rendered(0, serde_json::Value::Null).as_deref(),
        Some("u:u%3A1")
    );
    assert_eq!(
        rendered(1, serde_json::json!("é")).as_deref(),
        Some("b:%C3%A9")
    );
    assert_eq!(
        rendered(2, serde_json::json!(-12.5)).as_deref(),
        Some("r:-12.5")
    );
    assert_eq!(
        rendered(2, serde_json::json!(1e300)).as_deref(),
        Some("r:1e%2B300")
    );
    assert_eq!(
        rendered(2, serde_json::json!(true)).as_deref(),
        Some("r:true")
    );
    assert_eq!(
        rendered(1, serde_json::json!("x".repeat(512))).map(|key| key.len()),
        Some(514)
    );
    for absent in [
        serde_json::Value::Null,
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!(""),
        serde_json::json!("x".repeat(513)),
    ] {
        assert_eq!(rendered(1, absent.clone()), None, "{absent}");
    }
    assert_eq!(
        keys[0].render(&Values {
            user: Some(""),
            ..nothing
        }),
        None
    );
    let long = values(&[("id", &"é".repeat(171))]);
    assert_eq!(
        keys[3].render(&Values {
            path: &long,
            ..nothing
        }),
        None,
        "1026 bytes and 2"
    );
}

/// Short texts of what could confuse a key.
fn hard() -> impl Strategy<Value = String> {
    prop::collection::vec(
        prop::sample::select(vec![
            ":", "%", "%3A", "-", "a", "b", "é", "/", "+", " ", "{", "&", "=",
        ]),
        0..4,
    )
    .prop_map(|parts| parts.concat())
}

#[test]
fn two_pages_never_have_one_key() {
    let policies = [
        cached("/{a}/{b}", "k:{a}:{b}:{q}:{r}", r#"["q", "r"]"#),
        cached("/{a}/{b}", "k:{q}-:-{a}|{r}/x{b}", r#"["q", "r"]"#),
        cached("/{a}/{b}", "k:{a}:{b}:{hash}", r#"["q", "r"]"#),
    ];
    let page = || {
        (
            hard(),
            hard(),
            prop::option::of(hard()),
            prop::option::of(hard()),
        )
    };
    property(4_000, (page(), page()), |(one, other)| {
        for policy in &policies {
            let key = |(a, b, q, r): &(String, String, Option<String>, Option<String>)| {
                let encode = edgeweir::policy::percent::encode_component;
                let query: Vec<String> = [("q", q), ("r", r)]
                    .into_iter()
                    .filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_ref()?))))
                    .collect();
                let selected = rule(policy).select(Some(&query.join("&"))).unwrap();
                render(
                    &rule(policy).key,
                    &values(&[("a", a), ("b", b)]),
                    Some(&selected),
                )
                .unwrap()
            };
            prop_assert_eq!(key(&one) == key(&other), one == other, "{:?}", key(&one));
        }
        Ok(())
    });
}

#[test]
fn order_and_unlisted_parameters_change_nothing() {
    let policy = cached("/a", "k:{q}:{r}:{hash}", r#"{ q = "1", r = "2" }"#);
    let unlisted = prop::collection::vec(("[s-z]{1,3}", hard()), 0..6);
    property(
        1_500,
        (hard(), hard(), unlisted, any::<prop::sample::Index>()),
        |(q, r, unlisted, turn)| {
            let encode = edgeweir::policy::percent::encode_component;
            let plain = format!("q={}&r={}", encode(&q), encode(&r));
            let mut pairs: Vec<String> = unlisted
                .iter()
                .map(|(name, value)| format!("{name}={}", value.replace('&', "")))
                .collect();
            pairs.push(format!("r={}", encode(&r)));
            pairs.push(format!("q={}", encode(&q).replace("%20", "+")));
            let at = turn.index(pairs.len());
            pairs.rotate_left(at);
            pairs.push("q=another".to_owned());
            let key = |query: &str| {
                render(
                    &rule(&policy).key,
                    &values(&[]),
                    rule(&policy).select(Some(query)).as_ref(),
                )
            };
            prop_assert_eq!(key(&pairs.join("&")), key(&plain));
            Ok(())
        },
    );
}
