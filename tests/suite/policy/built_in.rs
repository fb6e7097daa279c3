//! The policy built in: plan 2's ten listings, what its writes purge, and the home page.

use edgeweir::json::Value;
use edgeweir::policy::{
    BUILT_IN, By, Cost, Form, Limit, Overrides, PathValues, Per, Policy, Segment, Template, Values,
    toml_to_json,
};

use super::{json, values};

fn built_in() -> Policy {
    json(BUILT_IN)
}

const HOUR_MS: u64 = 3_600_000;
const MINUTE_MS: u64 = 60_000;

/// Plan 2, "Global Cache Keys": the path, its key and its TTL.
#[test]
fn the_ten_listings_have_plan_2s_keys_and_times() {
    let policy = built_in();
    for (target, key, ttl_ms) in [
        (
            "/api/v1/book-categories/",
            "categories:tree:all",
            15 * MINUTE_MS,
        ),
        (
            "/api/v1/book-categories/parent/business",
            "books:top:category:business",
            30 * MINUTE_MS,
        ),
        (
            "/api/v1/community/books/trending-today",
            "books:trending:today",
            15 * MINUTE_MS,
        ),
        (
            "/api/v1/community/books/featured-week",
            "books:trending:week",
            60 * MINUTE_MS,
        ),
        (
            "/api/v1/community/books/latest",
            "books:newest:all",
            20 * MINUTE_MS,
        ),
        ("/api/v1/community/books/top", "books:top:all", HOUR_MS),
        (
            "/api/v1/community/authors/featured",
            "authors:featured",
            24 * HOUR_MS,
        ),
        (
            "/api/v1/community/tags/popular",
            "tags:popular",
            24 * HOUR_MS,
        ),
        (
            "/api/v1/community/books/search?limit=20&category=business&sort_by=views",
            "books:search:9fe55d9300d761f4237f547d5e835934",
            10 * MINUTE_MS,
        ),
        (
            "/api/v1/book-categories/child/kinh-te-quan-ly",
            "books:child:kinh-te-quan-ly:views:1",
            10 * MINUTE_MS,
        ),
    ] {
        let (path, query) = target
            .split_once('?')
            .map_or((target, None), |(path, query)| (path, Some(query)));
        let resolved = policy.resolve("GET", path);
        assert!(resolved.exact, "{target}");
        let rule = resolved.route.unwrap().cache.as_ref().unwrap();
        let selected = rule.select(query).unwrap();
        let of = Values {
            path: &resolved.values,
            selected: Some(&selected),
            user: None,
            body: None,
            response: None,
        };
        assert_eq!(rule.key.render(&of).as_deref(), Some(key));
        assert_eq!(rule.ttl_ms, ttl_ms, "{target}");
        assert!(rule.stale_ms > 0, "{target} fails with the origin");
        assert!(!rule.forward_credentials);
    }
}

/// What a write with this answer purges: keys, then tags.
fn purged(
    policy: &Policy,
    method: &str,
    path: &str,
    user: Option<&str>,
    answer: serde_json::Value,
) -> Vec<String> {
    let resolved = policy.resolve(method, path);
    let rule = resolved.route.unwrap().purge.as_ref().unwrap();
    let answer = answer.to_string();
    let answer = Value::read(answer.as_bytes()).unwrap();
    let of = Values {
        path: &resolved.values,
        selected: None,
        user,
        body: None,
        response: Some(&answer),
    };
    let all = rule
        .keys
        .iter()
        .chain(&rule.tags)
        .map(|template| template.render(&of));
    let all: Vec<Option<String>> = all.collect();
    let missing = all.iter().any(Option::is_none);
    let otherwise = rule
        .otherwise
        .iter()
        .filter(|_| missing)
        .filter_map(|template| template.render(&of));
    all.iter().flatten().cloned().chain(otherwise).collect()
}

/// Whether a listing is among what was purged, by its key or one of its tags.
fn clears(policy: &Policy, purged: &[String], route: &str, path: &PathValues) -> bool {
    let rule = policy
        .routes
        .iter()
        .find(|candidate| candidate.name == route)
        .unwrap()
        .cache
        .as_ref()
        .unwrap();
    let selected = rule.select(None).unwrap();
    let of = Values {
        path,
        selected: Some(&selected),
        user: None,
        body: None,
        response: None,
    };
    let render = |template: &Template| template.render(&of).unwrap();
    purged.contains(&render(&rule.key)) || rule.tags.iter().any(|tag| purged.contains(&render(tag)))
}

#[test]
fn writes_purge_what_plan_2_says() {
    let policy = built_in();
    let book = serde_json::json!({ "book_id": "7", "parent_category": "health", "previous_parent_category": "business" });
    let path = "/api/v1/community/books/7";
    let none = values(&[]);
    let parent = |id: &str| values(&[("parent_id", id)]);
    let child = values(&[("slug", "yoga")]);

    let create = purged(
        &policy,
        "POST",
        "/api/v1/community/books",
        None,
        book.clone(),
    );
    for route in ["latest", "category-tree", "search"] {
        assert!(clears(&policy, &create, route, &none), "create: {route}");
    }
    assert!(clears(
        &policy,
        &create,
        "top-by-category",
        &parent("health")
    ));
    assert!(!clears(
        &policy,
        &create,
        "top-by-category",
        &parent("arts")
    ));
    assert!(clears(&policy, &create, "child-category", &child));

    for method in ["PUT", "PATCH"] {
        let update = purged(&policy, method, path, None, book.clone());
        for route in ["latest", "top", "category-tree", "search"] {
            assert!(clears(&policy, &update, route, &none), "{method}: {route}");
        }
        for (id, cleared) in [("health", true), ("business", true), ("arts", false)] {
            assert_eq!(
                clears(&policy, &update, "top-by-category", &parent(id)),
                cleared,
                "{method}: {id}"
            );
        }
        let unknown = purged(&policy, method, path, None, serde_json::Value::Null);
        assert!(
            clears(&policy, &unknown, "top-by-category", &parent("arts")),
            "{method} that says no category"
        );
        assert!(!clears(&policy, &update, "featured-authors", &none));
    }

    let delete = purged(&policy, "DELETE", path, None, serde_json::Value::Null);
    for route in [
        "latest",
        "top",
        "category-tree",
        "search",
        "featured-week",
        "trending-today",
    ] {
        assert!(clears(&policy, &delete, route, &none), "delete: {route}");
    }
    assert!(clears(&policy, &delete, "top-by-category", &parent("arts")));
    assert!(clears(&policy, &delete, "child-category", &child));

    let chapter = purged(
        &policy,
        "POST",
        &format!("{path}/chapters"),
        None,
        book.clone(),
    );
    assert!(clears(&policy, &chapter, "latest", &none));
    assert!(clears(
        &policy,
        &chapter,
        "top-by-category",
        &parent("health")
    ));
    assert!(!clears(&policy, &chapter, "top", &none));

    let view = format!("{path}/view");
    assert_eq!(
        purged(&policy, "POST", &view, Some("u1"), book.clone()),
        ["user:u1:history"]
    );
    assert!(purged(&policy, "POST", &view, None, book).is_empty());
}

/// Plan 2, "User-Specific Cache Keys": the key, its TTL, and the action that ends it.
#[test]
fn each_reader_has_plan_2s_keys_and_times() {
    let policy = built_in();
    let book = "/api/v1/community/books/7";
    for (list, key, ttl_ms, writes) in [
        (
            "saved",
            "user:u%3A1:saved_books",
            HOUR_MS,
            &["POST save", "DELETE save"][..],
        ),
        ("history", "user:u%3A1:history", HOUR_MS, &["POST view"]),
        (
            "purchases",
            "user:u%3A1:purchases",
            24 * HOUR_MS,
            &["POST purchase"],
        ),
    ] {
        let resolved = policy.resolve("GET", &format!("/api/v1/community/me/{list}"));
        let rule = resolved.route.unwrap().cache.as_ref().unwrap();
        let of = Values {
            path: &resolved.values,
            selected: None,
            user: Some("u:1"),
            body: None,
            response: None,
        };
        assert_eq!(rule.form, Form::User);
        assert_eq!(rule.key.render(&of).as_deref(), Some(key));
        assert_eq!(rule.ttl_ms, ttl_ms, "{list}");
        for write in writes {
            let (method, what) = write.split_once(' ').unwrap();
            let path = format!("{book}/{what}");
            let null = serde_json::Value::Null;
            let cleared = purged(&policy, method, &path, Some("u:1"), null.clone());
            assert_eq!(cleared, [key], "{write}");
            assert!(purged(&policy, method, &path, None, null).is_empty());
        }
    }
}

#[test]
fn the_home_page_is_one_answer_of_fifteen() {
    let policy = built_in();
    let resolved = policy.resolve("GET", "/api/v1/community/home");
    let parts = resolved.route.unwrap().compose.as_ref().unwrap();
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(
        names,
        ["categories", "sliders", "trending", "authors", "tags"]
    );
    let answers: usize = parts
        .iter()
        .map(|part| part.each.as_ref().map_or(1, |each| each.values.len()))
        .sum();
    assert_eq!(answers, 15);
    let each = parts[1].each.as_ref().unwrap();
    assert_eq!(each.values.len(), 11);
    let route = &policy.routes[parts[1].route];
    assert!(
        route
            .path
            .segments
            .contains(&Segment::One(each.placeholder.clone()))
    );
}

/// The sample origin's categories and the policy's are one list.
#[test]
fn the_sliders_are_the_sample_origins_parents() {
    let categories = include_str!("../../../dev/origin/categories.mjs");
    let tree = categories
        .split("const TREE = [")
        .nth(1)
        .unwrap()
        .split("];")
        .next()
        .unwrap();
    let parents: Vec<&str> = tree
        .lines()
        .filter_map(|line| line.trim().strip_prefix("['")?.split('\'').next())
        .collect();
    let policy = built_in();
    let parts = policy
        .resolve("GET", "/api/v1/community/home")
        .route
        .unwrap()
        .compose
        .as_ref()
        .unwrap();
    assert_eq!(parts[1].each.as_ref().unwrap().values, parents);
}

#[test]
fn what_is_built_in_is_policy_toml() {
    assert_eq!(
        BUILT_IN,
        toml_to_json(include_str!("../../../policy.toml")).unwrap()
    );
}

/// A visitor who opens the home page without the composed route asks for 11 parents.
#[test]
fn a_visitor_can_load_twenty_pages_a_minute() {
    for route in &built_in().routes {
        let requests = if route.name == "top-by-category" {
            11
        } else {
            1
        };
        for limit in &route.limits {
            let pages = u64::from(limit.requests) / requests * MINUTE_MS / limit.window_ms;
            assert!(pages >= 20, "{}: {pages}", route.name);
        }
    }
}

/// CONTRACT's own example: right but for what is not built and what it leaves out.
#[test]
fn the_contracts_example_is_right_but_for_what_is_not_built() {
    let errors = Policy::from_toml(include_str!("contract.toml")).unwrap_err();
    let unbuilt: Vec<&str> = errors
        .iter()
        .map(|error| {
            assert!(error.message.contains("does not build it yet"), "{error}");
            error.pointer.as_str()
        })
        .collect();
    assert_eq!(unbuilt, ["/route/2/publish"]);
}

#[test]
fn the_contracts_limits_are_read() {
    let text = include_str!("contract.toml");
    let built: String = text
        .lines()
        .filter(|line| {
            let unbuilt = ["publish "];
            !unbuilt.iter().any(|name| line.trim().starts_with(name))
        })
        .collect::<Vec<_>>()
        .join("\n");
    let policy = super::toml(&built);
    let [burst, hourly] = &policy.routes[0].limits[..] else {
        panic!("{:?}", policy.routes[0].limits)
    };
    assert_eq!(*burst, Limit::new("burst", 30, 10_000, By::Ip));
    assert_eq!(
        *hourly,
        Limit {
            per: Per::All,
            cost: Cost {
                hit: 0,
                miss: 5,
                error: 5
            },
            lease: true,
            ..Limit::new("hourly", 2_000, HOUR_MS, By::User)
        }
    );
}

#[test]
fn a_request_is_explained() {
    let policy = built_in();
    let explain = |method: &str, url: &str| policy.explain(method, url).to_string();
    let search = explain(
        "GET",
        "https://shop.test/api/v1/community/books/search?utm=1&sort_by=views&sort_by=x#top",
    );
    for line in [
        "route   search: GET /api/v1/community/books/search",
        "limit   default: 100 in any 1m by address",
        "ratelimit:{ip}:search:default:{epoch}, in buckets of 250ms",
        "query   kept: sort_by=views",
        "dropped: utm=1&sort_by=x",
        "tags books, search",
        "fresh 10m, then stale 10m",
    ] {
        assert!(search.contains(line), "{line}\n{search}");
    }
    let update = explain("PUT", "/api/v1/community/books/7");
    assert!(
        update.contains("keys books:newest:all, books:top:all, categories:tree:all"),
        "{update}"
    );
    assert!(
        update.contains("category:{response:/parent_category}"),
        "{update}"
    );
    let hostile = explain("GET", "/api/v1//community/books/top");
    assert!(
        hostile.contains("hostile") && hostile.contains("route   top:"),
        "{hostile}"
    );
    assert!(explain("GET", "/api/v1/community/home").contains("composed of 15 answers"));
    assert!(explain("GET", "/nothing").contains("none matches"));
    let bad = explain("GET", "/api/v1/community/books/search?q=%zz");
    assert!(bad.contains("bypassed"), "{bad}");
    let overridden = Overrides {
        window_ms: Some(90_000),
        max_requests: Some(7),
        ..Overrides::default()
    };
    let policy = Policy::from_json(BUILT_IN, &overridden).unwrap();
    assert!(
        policy
            .explain("GET", "http://h?x")
            .to_string()
            .contains("7 in any 90s")
    );
}

/// Plan 2, "Update Strategy" and "Background Jobs": what a cron job updates is kept warm.
#[test]
fn what_plan_2_has_cron_jobs_for_is_kept_warm() {
    let policy = built_in();
    for (route, keys, most_ms) in [
        ("category-tree", 1, 30 * MINUTE_MS),
        ("top-by-category", 11, 30 * MINUTE_MS),
        ("trending-today", 1, 15 * MINUTE_MS),
        ("featured-week", 1, 30 * MINUTE_MS),
        ("top", 1, HOUR_MS),
        ("featured-authors", 1, 24 * HOUR_MS),
        ("popular-tags", 1, 24 * HOUR_MS),
    ] {
        let found = policy.routes.iter().find(|found| found.name == route);
        let warm = found.unwrap().cache.as_ref().unwrap().warm.clone().unwrap();
        assert_eq!(warm.combinations().len(), keys, "{route}");
        assert!(warm.every_ms <= most_ms, "{route}");
    }
}
