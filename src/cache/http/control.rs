//! Cache directives: of a request, of an answer, and of an answer's targeted fields.
//!
//! RFC 9111, 5.2; RFC 5861; RFC 8246; RFC 9213. An argument that is wrong makes an answer
//! stale, never fresh.

use super::freshness::number;
use super::sf::{self, Bare, Dictionary, Value};
use crate::http::Headers;

/// Fields that say what this cache alone has to do, the narrowest first (RFC 9213, 2.2).
/// `Surrogate-Control` is older than that RFC, and written the same.
const TARGETED: [&str; 3] = [
    "edgeweir-cache-control",
    "cdn-cache-control",
    "surrogate-control",
];

/// By which parameter a member of `Surrogate-Control` means us.
const DEVICE: &str = "edgeweir";

/// Directives of one message; those that it does not have are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Control {
    /// The answer's `Cache-Control` and `Expires` do not count.
    pub is_targeted: bool,
    /// Zero when its argument is wrong, as with all that are in seconds.
    pub max_age_s: Option<u64>,
    pub s_maxage_s: Option<u64>,
    pub min_fresh_s: Option<u64>,
    /// Without an argument: any.
    pub max_stale_s: Option<u64>,
    pub stale_while_revalidate_s: u64,
    pub stale_if_error_s: u64,
    pub no_store: bool,
    /// For the whole answer.
    pub no_cache: bool,
    /// For the whole answer.
    pub private: bool,
    /// Fields that `private` or `no-cache` name: they are kept out, the rest is not.
    pub withheld: Vec<String>,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub no_transform: bool,
    pub immutable: bool,
    pub only_if_cached: bool,
}

impl Control {
    pub fn of_request(headers: &Headers) -> Self {
        let mut control = Self::default();
        control.read_lines(headers);
        // 5.4: without Cache-Control, `Pragma: no-cache` is the same as its no-cache.
        let mut pragmas = headers.get_all("pragma").flat_map(|line| line.split(','));
        control.no_cache |= !headers.contains("cache-control")
            && pragmas.any(|pragma| pragma.trim().eq_ignore_ascii_case("no-cache"));
        control
    }

    pub fn of_response(headers: &Headers) -> Self {
        for name in TARGETED {
            let mut lines = headers.get_all(name);
            let Some(first) = lines.next() else { continue };
            let joined = lines.fold(first.to_owned(), |mut all, line| {
                all.push(',');
                all.push_str(line);
                all
            });
            let members = sf::dictionary(&joined).unwrap_or_default();
            // RFC 9213, 2.2: the first field that is valid and not empty counts, and then
            // neither Cache-Control nor Expires does.
            if let Some(control) = Self::of_members(members, name == "surrogate-control") {
                return control;
            }
        }
        let mut control = Self::default();
        control.read_lines(headers);
        control
    }

    fn of_members(members: Dictionary, is_for_devices: bool) -> Option<Self> {
        let mut control = Self::default();
        for (name, member) in members {
            let is_others = !member.parameters.is_empty()
                && !member.parameters.iter().any(|(device, _)| device == DEVICE);
            if is_for_devices && is_others {
                continue;
            }
            control.is_targeted = true;
            match member.value {
                Value::Item(Bare::Boolean(true)) => control.apply(&name, None),
                Value::Item(Bare::Integer(number)) => {
                    control.apply(&name, Some(&number.to_string()))
                }
                // Field names are in a string; a number in one is none.
                Value::Item(Bare::String(text)) if matches!(&*name, "no-cache" | "private") => {
                    control.apply(&name, Some(&text));
                }
                Value::Item(Bare::Boolean(false)) => {}
                _ => control.apply(&name, Some("")),
            }
        }
        control.is_targeted.then_some(control)
    }

    fn read_lines(&mut self, headers: &Headers) {
        for line in headers.get_all("cache-control") {
            let mut rest = line;
            while !rest.is_empty() {
                let (directive, after) = split_unquoted(rest);
                rest = after;
                let (name, argument) = match directive.split_once('=') {
                    Some((name, argument)) => (name, Some(unquoted(argument))),
                    None => (directive, None),
                };
                // 5.2: names are case-insensitive.
                self.apply(&name.to_ascii_lowercase(), argument);
            }
        }
    }

    /// 5.2.3: a directive that is not known is ignored.
    fn apply(&mut self, name: &str, argument: Option<&str>) {
        match name {
            // 4.2.1: of a directive that is there twice, the first counts.
            "max-age" => first(&mut self.max_age_s, argument),
            "s-maxage" => first(&mut self.s_maxage_s, argument),
            "min-fresh" => first(&mut self.min_fresh_s, argument),
            "max-stale" => {
                let any = argument.map_or(u64::MAX, |argument| seconds(Some(argument)));
                self.max_stale_s.get_or_insert(any);
            }
            "stale-while-revalidate" => self.stale_while_revalidate_s = seconds(argument),
            "stale-if-error" => self.stale_if_error_s = seconds(argument),
            "no-store" => self.no_store = true,
            "no-cache" => self.no_cache |= !self.withhold(argument),
            "private" => self.private |= !self.withhold(argument),
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "no-transform" => self.no_transform = true,
            "immutable" => self.immutable = true,
            "only-if-cached" => self.only_if_cached = true,
            _ => {}
        }
    }

    /// 5.2.2.4, 5.2.2.7: with field names the directive is for these fields alone. An
    /// argument that names none means all.
    fn withhold(&mut self, argument: Option<&str>) -> bool {
        let names = argument.unwrap_or_default().split(',').map(str::trim);
        let before = self.withheld.len();
        let named = names.filter(|name| !name.is_empty());
        self.withheld.extend(named.map(str::to_ascii_lowercase));
        self.withheld.len() > before
    }

    /// 4.2.4: what forbids to serve a stale answer; 5.2.2.10: `s-maxage` is one of them.
    pub fn forbids_stale(&self) -> bool {
        self.no_cache || self.must_revalidate || self.proxy_revalidate || self.s_maxage_s.is_some()
    }
}

fn first(slot: &mut Option<u64>, argument: Option<&str>) {
    slot.get_or_insert(seconds(argument));
}

/// 1.2.2: delta-seconds. 4.2.1: freshness that cannot be read is none.
fn seconds(argument: Option<&str>) -> u64 {
    argument.and_then(number).unwrap_or(0)
}

/// Up to the next comma that is not in quotes, and what follows it.
fn split_unquoted(text: &str) -> (&str, &str) {
    let mut is_quoted = false;
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => {
                let (before, after) = text.split_at_checked(at).unwrap_or((text, ""));
                return (before.trim(), after.strip_prefix(',').unwrap_or_default());
            }
            _ => {}
        }
    }
    (text.trim(), "")
}

/// 5.2: an argument may be a token or a string in quotes, whatever its directive says.
fn unquoted(argument: &str) -> &str {
    let inner = argument
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(argument)
}
