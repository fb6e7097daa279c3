//! One normal form of a path, and no spelling of a route's path that escapes its limits.

use edgeweir::policy::target::{Target, foldings, normalise};
use proptest::prelude::*;

use super::{property, toml};

#[test]
fn paths_are_brought_into_normal_form() {
    for (raw, normal) in [
        ("", "/"),
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("/%61%2D%5f%7E%2e", "/a-_~."),
        ("/%c3%a9", "/%C3%A9"),
        ("/é", "/%C3%A9"),
        ("/a b\"<>^`{|}[]", "/a%20b%22%3C%3E%5E%60%7B%7C%7D%5B%5D"),
        ("/%20%3f%23%25", "/%20%3F%23%25"),
        ("/!$&'()*+,=:@", "/!$&'()*+,=:@"),
        ("/%3a%40%3B", "/%3A%40%3B"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/%2E%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/../../a", "/a"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/..", "/"),
        ("/.../..a", "/.../..a"),
        ("/\u{1}\n", "/%01%0A"),
    ] {
        let target = normalise(raw);
        assert_eq!(
            target,
            Target {
                path: normal.to_owned(),
                hostile: false
            },
            "{raw}"
        );
    }
}

#[test]
fn what_servers_read_in_different_ways_is_hostile_and_stays_as_sent() {
    for raw in [
        "//",
        "/a//b",
        "/a//",
        "/a\\b",
        "/a%5cb",
        "/a%2Fb",
        "/a%2fb",
        "/a;b",
        "/;",
        "/a%00",
        "/a\0",
        "/%",
        "/a%2",
        "/a%zz",
        "/%-1",
        "/%+1",
        "/%ff",
        "/%C3",
        "/%C3%28",
        "/%ed%a0%80",
        "/a/..;/b",
        "a",
        "*",
        "/.//a",
        "/a/..//b",
    ] {
        assert_eq!(
            normalise(raw),
            Target {
                path: raw.to_owned(),
                hostile: true
            },
            "{raw}"
        );
    }
}

#[test]
fn foldings_are_what_servers_make_of_a_path() {
    let folds = |raw: &str, to: &str| {
        assert!(
            foldings(raw).contains(&to.to_owned()),
            "{raw} to {to}: {:?}",
            foldings(raw)
        );
    };
    folds("/a/b", "/a/b/");
    folds("/a/b/", "/a/b");
    folds("//a///b", "/a/b");
    folds("/a%2Fb", "/a/b");
    folds("/a%5cb\\c", "/a/b/c");
    folds("/a;x=1/b;y", "/a/b");
    folds("/a%00/b\0", "/a/b");
    folds("/x//../b", "/b");
    folds("/x//../b", "/x/b");
    folds("/x/..;/b", "/b");
    folds("/%2e%2e%2fb", "/b");
    folds("/a;x%2Fy/b", "/a/b");
    folds("/a;x%2Fy/b", "/a/y/b");
    folds("/%62%zz/b/", "/b%zz/b");
    assert_eq!(foldings("/"), ["/"]);
    assert!(
        !foldings("/a%252Fb").contains(&"/a/b".to_owned()),
        "decoded once only"
    );
}

fn any_path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "/", ".", "..", "%2e", "%2E", "a", "B", "%61", "%2f", "%5C", "\\", ";", "%00", "%",
        "%zz", "%c3%a9", "é", "%ff", " ", "?", "#", "+", "%2B", "~", "%7e", "{", "\u{0}", "\u{7f}",
    ]);
    prop_oneof![
        prop::collection::vec(piece, 0..16).prop_map(|pieces| format!("/{}", pieces.concat())),
        ".{0,24}",
    ]
}

#[test]
fn normalising_twice_is_normalising_once() {
    property(6_000, any_path(), |raw| {
        let once = normalise(&raw);
        prop_assert_eq!(normalise(&once.path), once.clone());
        if once.hostile {
            prop_assert_eq!(once.path, raw);
        } else {
            let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"<>^`{|}[]\\;?#".contains(&byte);
            prop_assert!(
                once.path.starts_with('/') && once.path.bytes().all(plain),
                "{}",
                once.path
            );
            let dots = once
                .path
                .split('/')
                .any(|segment| matches!(segment, "." | ".."));
            prop_assert!(!dots && !once.path.contains("//"), "{}", once.path);
        }
        Ok(())
    });
}

const ROUTES: [(&str, &str); 4] = [
    ("login", "/api/login"),
    ("list", "/api/book-list/"),
    ("item", "/api/item/{id}/parts"),
    ("rest", "/static/{rest...}"),
];

/// Spells one segment in another way that an origin may read as the same.
fn respell(segment: &str, choice: u8, case: u8) -> String {
    let code = |byte: u8| match case % 2 {
        0 => format!("%{byte:02x}"),
        _ => format!("%{byte:02X}"),
    };
    let middle = segment.len() / 2;
    match choice % 6 {
        0 if !segment.is_empty() => {
            let byte = segment.as_bytes()[middle];
            format!(
                "{}{}{}",
                &segment[..middle],
                code(byte),
                &segment[middle + 1..]
            )
        }
        1 => format!("{segment};v=1"),
        2 => format!("{segment}%00"),
        3 => segment.bytes().map(code).collect(),
        4 => format!("{segment};"),
        _ => segment.to_owned(),
    }
}

fn separator(choice: u8) -> &'static str {
    const SAME: [&str; 12] = [
        "/",
        "//",
        "/./",
        "%2F",
        "%2f",
        "\\",
        "%5C",
        "/%2e/",
        "/x/../",
        "/x/%2E%2e/",
        "///",
        "/y;z/..;/",
    ];
    SAME[usize::from(choice) % SAME.len()]
}

/// The oracle knows nothing of the code: it spells a route's own path differently and
/// wants that route's limits, whether or not a catch-all matches the spelling too.
#[test]
fn no_spelling_of_a_path_escapes_its_limits() {
    let routes: String = ROUTES
        .iter()
        .map(|(name, path)| format!("[[route]]\nname = \"{name}\"\nmatch = \"GET {path}\"\n"))
        .collect();
    let strict = toml(&routes);
    let wild = toml(&format!(
        "{routes}[[route]]\nname = \"wild\"\nmatch = \"* /{{any...}}\"\n"
    ));
    let spelling = (
        0..ROUTES.len(),
        prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 8),
        any::<bool>(),
    );
    property(6_000, spelling, |(route, choices, slash)| {
        let (name, path) = ROUTES[route];
        let path = path
            .replace("{id}", "42")
            .replace("{rest...}", "css/site.css");
        let mut spelled = String::new();
        for (segment, (choice, case, between)) in path[1..].split('/').zip(choices) {
            let first = spelled.is_empty();
            let leading = if first && !separator(between).starts_with('/') {
                "/"
            } else {
                ""
            };
            spelled.push_str(leading);
            spelled.push_str(separator(between));
            spelled.push_str(&respell(segment, choice, case));
        }
        if slash {
            spelled.push('/');
        }
        for policy in [&strict, &wild] {
            let resolved = policy.resolve("GET", &spelled);
            let found = resolved.limited_as.map(|route| route.name.as_str());
            prop_assert_eq!(found, Some(name), "{}", &spelled);
            let hostile = normalise(&spelled).hostile;
            prop_assert!(
                !(hostile && resolved.exact),
                "{} is hostile and exact",
                &spelled
            );
            if hostile {
                prop_assert_eq!(&resolved.path, &spelled);
            }
        }
        Ok(())
    });
}
