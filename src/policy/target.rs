//! The one normal form of a path: for matching, for keys and for the origin.
//!
//! RFC 3986 section 6.2.2: percent codes in upper case, unreserved characters decoded,
//! dot segments removed (section 5.2.4), what must be encoded encoded. `/x/` is not
//! `/x`. It does not guess: a path that servers read in different ways is hostile and
//! stays as it was sent. What such a path may be folded into is kept apart, and only
//! ever decides whose limits count.
//!
//! Always: normalising twice is normalising once; a hostile path comes back unchanged.

use super::percent::{code, is_path_character, is_unreserved, push};

/// A path in normal form, or a hostile one as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub path: String,
    /// It has `//`, `\`, `;`, an encoded slash, backslash or NUL, an invalid code, or
    /// what is not UTF-8 when decoded.
    pub hostile: bool,
}

/// Brings a path as it was sent into normal form.
#[inline]
pub fn normalise(raw: &str) -> Target {
    let normal = if raw.is_empty() {
        Some("/".to_owned())
    } else {
        normal_form(raw)
    };
    Target {
        hostile: normal.is_none(),
        path: normal.unwrap_or_else(|| raw.to_owned()),
    }
}

#[inline]
fn normal_form(raw: &str) -> Option<String> {
    let rest = raw.strip_prefix('/')?;
    if is_plain(rest) {
        return Some(raw.to_owned());
    }
    let mut segments: Vec<String> = Vec::new();
    let mut parts = rest.split('/').peekable();
    while let Some(part) = parts.next() {
        if part.is_empty() && parts.peek().is_some() {
            return None;
        }
        segments.push(segment(part)?);
    }
    Some(join(without_dots(segments)))
}

/// What nearly all paths are: nothing in it has a normal form other than itself.
#[inline]
fn is_plain(rest: &str) -> bool {
    let mut before = b'/';
    rest.bytes().all(|byte| {
        let begins = before == b'/';
        before = byte;
        match byte {
            b'%' | b';' | b'\\' => false,
            b'/' | b'.' => !begins,
            byte => is_path_character(byte),
        }
    })
}

/// One segment in normal form; `None` when it is hostile.
fn segment(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' | b';' | 0 => return None,
            b'%' => {
                let byte = code(rest.next(), rest.next())?;
                if matches!(byte, b'/' | b'\\' | 0) {
                    return None;
                }
                decoded.push(byte);
                push(byte, is_unreserved(byte), &mut out);
            }
            _ => {
                decoded.push(byte);
                push(byte, is_path_character(byte), &mut out);
            }
        }
    }
    std::str::from_utf8(&decoded).ok()?;
    Some(out)
}

/// RFC 3986 section 5.2.4, on segments.
fn without_dots(segments: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::with_capacity(segments.len());
    let last = segments.len().saturating_sub(1);
    for (index, segment) in segments.into_iter().enumerate() {
        let dots = match segment.as_str() {
            "." => true,
            ".." => {
                kept.pop();
                true
            }
            _ => false,
        };
        if !dots {
            kept.push(segment);
        } else if index == last {
            kept.push(String::new());
        }
    }
    kept
}

fn without_empty(mut segments: Vec<String>) -> Vec<String> {
    let last = segments.pop().unwrap_or_default();
    segments.retain(|segment| !segment.is_empty());
    segments.push(last);
    segments
}

fn join(segments: Vec<String>) -> String {
    format!("/{}", segments.join("/"))
}

/// What servers may fold a path into, beside its normal form: slashes merged before
/// or after the dots are resolved, encoded ones decoded, path parameters dropped up to
/// the next slash or the next slash as sent, NUL dropped, and each with one slash more
/// or less at the end. At most eight.
pub fn foldings(raw: &str) -> Vec<String> {
    let target = normalise(raw);
    if !target.hostile {
        return vec![other_end(&target.path)];
    }
    let mut paths: Vec<String> = Vec::with_capacity(8);
    for coded_slash_ends_parameters in [false, true] {
        let segments = folded_segments(raw, coded_slash_ends_parameters);
        for path in [
            join(without_dots(without_empty(segments.clone()))),
            join(without_empty(without_dots(segments))),
        ] {
            if !paths.contains(&path) {
                paths.push(other_end(&path));
                paths.push(path);
            }
        }
    }
    paths
}

fn other_end(path: &str) -> String {
    match path.strip_suffix('/') {
        Some("") => path.to_owned(),
        Some(shorter) => shorter.to_owned(),
        None => format!("{path}/"),
    }
}

/// Decoded once: a server that decodes twice is beyond what an edge can know.
fn folded_segments(raw: &str, coded_slash_ends_parameters: bool) -> Vec<String> {
    let mut segments = Vec::new();
    let mut out = String::new();
    let mut in_parameters = false;
    let mut rest = raw.strip_prefix('/').unwrap_or(raw).bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let coded = match byte {
            b'%' => code(ahead.next(), ahead.next()),
            _ => None,
        };
        if coded.is_some() {
            rest = ahead;
        }
        let byte = coded.unwrap_or(byte);
        let is_plain = coded.is_none();
        if matches!(byte, b'/' | b'\\') {
            if is_plain || !in_parameters || coded_slash_ends_parameters {
                segments.push(std::mem::take(&mut out));
                in_parameters = false;
            }
        } else if byte == b';' && is_plain {
            in_parameters = true;
        } else if byte != 0 && !in_parameters {
            // A `%` that begins no code stays what it is and equals no literal.
            let is_whole = byte == b'%' || is_path_character(byte);
            push(
                byte,
                if is_plain {
                    is_whole
                } else {
                    is_unreserved(byte)
                },
                &mut out,
            );
        }
    }
    segments.push(out);
    segments
}
