//! Secondary keys (RFC 9111, 4.1): which request fields an answer was chosen by.

use crate::http::Headers;

/// An answer that depends on more fields than this is not stored.
const MAX_FIELDS: usize = 16;

/// Names that `Vary` lists, with the request's values; `None`: the field was not there.
pub type Selecting = Vec<(String, Option<String>)>;

/// `None`: no request can be known to select this answer.
pub fn selecting(response: &Headers, request: &Headers) -> Option<Selecting> {
    let mut fields: Selecting = Vec::new();
    let lines = response.get_all("vary");
    for name in lines.flat_map(|line| line.split(',')).map(str::trim) {
        // 4.1: a stored answer whose Vary has a `*` never matches.
        if name == "*" || fields.len() >= MAX_FIELDS {
            return None;
        }
        let name = name.to_ascii_lowercase();
        // We ask the origin for the plain bytes whatever the client accepts, so
        // that this field is the same for all.
        let is_ours = name == "accept-encoding";
        if !name.is_empty() && !is_ours && !fields.iter().any(|(known, _)| *known == name) {
            let value = normalised(request, &name);
            fields.push((name, value));
        }
    }
    Some(fields)
}

/// 4.1: whether a request has the same values, where whitespace and how a list is spread
/// over lines make no difference.
pub fn selects(fields: &[(String, Option<String>)], request: &Headers) -> bool {
    let mut pairs = fields.iter();
    pairs.all(|(name, value)| *value == normalised(request, name))
}

fn normalised(request: &Headers, name: &str) -> Option<String> {
    let mut out: Option<String> = None;
    for part in request.get_all(name).flat_map(|line| line.split(',')) {
        let part = part.trim();
        match &mut out {
            None => out = Some(part.to_owned()),
            Some(all) => {
                all.push(',');
                all.push_str(part);
            }
        }
    }
    out
}
