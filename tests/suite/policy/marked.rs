//! Policies whose errors are marked with `§`: each error is there, and no other.

use edgeweir::policy::{Policy, PolicyError};

use super::shown;

/// Where a text is marked with `§`, from 1, and the text without the marks.
fn unmarked(marked: &str) -> (String, Vec<(usize, usize)>) {
    let mut text = String::new();
    let mut places = Vec::new();
    let (mut line, mut column) = (1, 1);
    for character in marked.chars() {
        if character == '§' {
            places.push((line, column));
            continue;
        }
        text.push(character);
        (line, column) = match character {
            '\n' => (line + 1, 1),
            _ => (line, column + 1),
        };
    }
    (text, places)
}

pub fn errors_of(text: &str) -> Vec<PolicyError> {
    match Policy::from_toml(text) {
        Ok(_) => panic!("this policy has no error:\n{text}"),
        Err(errors) => errors,
    }
}

/// The marked places have these errors, and there are no others.
pub fn expect(marked: &str, expected: &[(&str, &str)]) {
    let (text, places) = unmarked(marked);
    let errors = errors_of(&text);
    let found: Vec<(usize, usize)> = errors
        .iter()
        .map(|error| (error.line.unwrap(), error.column.unwrap()))
        .collect();
    assert_eq!(found, places, "{text}\n{}", shown(&errors));
    assert_eq!(errors.len(), expected.len(), "{text}\n{}", shown(&errors));
    for (error, (pointer, message)) in errors.iter().zip(expected) {
        assert_eq!(&error.pointer, pointer, "{text}\n{}", shown(&errors));
        assert!(error.message.contains(message), "not `{message}`: {error}");
        assert!(!error.help.is_empty(), "{error}");
    }
}

/// One error in `[defaults]`.
pub fn in_defaults(body: &str, pointer: &str, message: &str) {
    expect(
        &format!("[defaults]\n{body}\n"),
        &[(&format!("/defaults{pointer}"), message)],
    );
}

/// One error in a limit.
pub fn in_limit(body: &str, pointer: &str, message: &str) {
    in_defaults(
        &format!("limit = [{{ {body} }}]"),
        &format!("/limit/0{pointer}"),
        message,
    );
}

/// One error in a route `GET /a/{id}`.
pub fn in_route(body: &str, pointer: &str, message: &str) {
    let text = format!("[[route]]\nname = \"a\"\nmatch = \"GET /a/{{id}}\"\n{body}\n");
    expect(&text, &[(&format!("/route/0{pointer}"), message)]);
}

/// One error in a cache rule that is right otherwise.
pub fn in_cache(body: &str, pointer: &str, message: &str) {
    in_route(
        &format!("cache = {{ key = \"a:{{id}}\", ttl = \"1m\", {body} }}"),
        &format!("/cache{pointer}"),
        message,
    );
}

/// One error in what a route matches.
pub fn in_match(text: &str, message: &str) {
    expect(
        &format!("[[route]]\nname = \"a\"\nmatch = §\"{text}\"\n"),
        &[("/route/0/match", message)],
    );
}

/// One error in a route `PUT /a/{id}`.
pub fn in_route_put(body: &str, pointer: &str, message: &str) {
    let text = format!("[[route]]\nname = \"a\"\nmatch = \"PUT /a/{{id}}\"\n{body}\n");
    expect(&text, &[(&format!("/route/0{pointer}"), message)]);
}
