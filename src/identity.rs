//! Who is asking: the client's address, the verified user, and the ids that limits
//! count by.
//!
//! An address comes from CF-Connecting-IP alone, unless that is a proxy which the policy
//! trusts to name another, and a user from an HS256 JWT (RFC 7519) with a right signature;
//! `aud` and `iss` are not judged. Nothing here fails: whoever cannot be recognised is
//! `unknown` or nobody.
//!
//! Ids go into Redis keys, so they never hold `:`, and no input of one class can make
//! an id of another:
//!
//! | class        | id                                    |
//! |--------------|---------------------------------------|
//! | address      | `192.0.2.1`, `2001%3Adb8%3A%3A%2F64`, `unknown` |
//! | verified user| `user=` and the encoded `sub`         |
//! | global       | `global`                              |
//! | header       | `header=`, encoded name, and if it is there `=` and the encoded value |
//!
//! Encoded text has no `=` but in `sha256=`, which stands for a text too long to keep. With
//! `hash_ids` all but `global` are 32 hexadecimal digits.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, Mac};
use itoa::Buffer as Digits;
use sha2::{Digest, Sha256};

use crate::base64::decode_url;
use crate::json::Value;
use crate::policy::{Address, By, Subject, network};

/// The id of a client whose address is missing or none.
pub const UNKNOWN: &str = "unknown";

/// Longer bearers are nobody's: no real JWT is, and each costs a hash of all of it.
pub const MAX_TOKEN_BYTES: usize = 8_192;

const MAX_SUB_BYTES: usize = 256;

/// Longer encoded ids are hashed, so that keys stay short.
const MAX_ID_BYTES: usize = 128;

/// Proxies that one request came through; more are forged or a loop.
const MAX_HOPS: usize = 16;

/// Of a keyed hash: enough that no two ids ever share one, half the length in keys.
const HASH_BYTES: usize = 16;

/// The address of the client, never an IPv4 one mapped into IPv6.
///
/// `connecting_ip` is CF-Connecting-IP. Only when it is a trusted proxy is the policy's
/// header believed, from right to left: each proxy adds whom it heard from at the right
/// end, and so the first that is not a proxy is the client, whatever he wrote to the left.
/// What is no address ends the walk at the last proxy. `header` brings a field's whole list.
pub fn client_address<'h>(
    settings: &Address,
    connecting_ip: Option<&str>,
    header: impl Fn(&str) -> Option<&'h str>,
) -> Option<IpAddr> {
    let mut client = connecting_ip?.trim().parse::<IpAddr>().ok()?.to_canonical();
    let list = settings.header.as_deref().and_then(header);
    for hop in list.unwrap_or_default().rsplit(',').take(MAX_HOPS) {
        if !contain(&settings.proxies, client) {
            break;
        }
        let Some(address) = hop_address(hop.trim()) else {
            break;
        };
        client = address;
    }
    Some(client)
}

fn contain(networks: &[Subject], address: IpAddr) -> bool {
    let mut networks = networks.iter();
    networks.any(|network| matches(network, Some(address), None, None))
}

/// `192.0.2.1`, `192.0.2.1:567`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn hop_address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(text) => text.parse().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    address
        .or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()))
        .map(|address| address.to_canonical())
}

/// Whether a list's entry names this visitor: his real address, not his network's id; the
/// verified user; or `value`, what the limit counts by (a user, or the header's value).
pub fn matches(
    subject: &Subject,
    address: Option<IpAddr>,
    user: Option<&str>,
    value: Option<&str>,
) -> bool {
    match subject {
        Subject::Network { bits, prefix } => {
            address.is_some_and(|address| network::contains(*bits, *prefix, address))
        }
        Subject::User(name) => user == Some(name),
        Subject::Id(id) => value == Some(id),
    }
}

/// The key-safe id of an address: IPv4 as it is, also when mapped into IPv6, and IPv6
/// by its first `ipv6_prefix` bits, which are what one subscriber gets.
pub fn ip_id(address: Option<IpAddr>, ipv6_prefix: u8) -> String {
    match address.map(|address| address.to_canonical()) {
        None => UNKNOWN.to_owned(),
        Some(IpAddr::V4(v4)) => {
            let mut id = String::with_capacity(15);
            for octet in v4.octets() {
                if !id.is_empty() {
                    id.push('.');
                }
                id.push_str(Digits::new().format(octet));
            }
            id
        }
        Some(IpAddr::V6(v6)) => {
            let network = Ipv6Addr::from_bits(network::network(v6.to_bits(), ipv6_prefix));
            encode_id(&format!("{network}/{ipv6_prefix}"))
        }
    }
}

/// The id that a limit counts. `ip` is an `ip_id`; `user` is a verified `sub`;
/// `header` is the first value of the limit's header, for `By::Header` alone; with a
/// `hash_key` nobody can be told from it.
pub fn limit_id(
    by: &By,
    ip: &str,
    user: Option<&str>,
    header: Option<&str>,
    hash_key: Option<&[u8]>,
) -> String {
    let id = match by {
        By::Global => return "global".to_owned(),
        By::Ip => ip.to_owned(),
        By::User => match user {
            Some(user) => format!("user={}", encode_id(user)),
            None => ip.to_owned(),
        },
        By::Header(name) => match header {
            Some(value) => format!("header={}={}", encode_id(name), encode_id(value)),
            None => format!("header={}", encode_id(name)),
        },
    };
    match hash_key {
        Some(key) => hashed(&id, key),
        None => id,
    }
}

/// An id by its HMAC-SHA256 (RFC 2104), in hex: the same everywhere, key-safe, and without
/// the key not even to be guessed.
pub fn hashed(id: &str, key: &[u8]) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        // HMAC takes keys of any length.
        return UNKNOWN.to_owned();
    };
    mac.update(id.as_bytes());
    let hash = mac.finalize().into_bytes();
    let mut id = String::new();
    push_hex(hash.get(..HASH_BYTES).unwrap_or(&hash), &mut id);
    id
}

/// Whether an id is in the share that a limit counts. Whoever is in it stays when it
/// grows, and each limit begins with others.
pub fn is_in_rollout(limit_name: &str, id: &str, percent: u8) -> bool {
    if percent >= 100 {
        return true;
    }
    // Names have no colon.
    let hash = Sha256::digest([limit_name, ":", id].concat());
    let place = hash
        .iter()
        .take(8)
        .fold(0, |place, byte| (place << 8) | u128::from(*byte));
    (place * 100) >> 64 < u128::from(percent)
}

/// Text as a part of a key: percent-encoded but for letters, digits and `-._~`. Two
/// texts never have the same id, unless SHA-256 has a collision.
pub fn encode_id(text: &str) -> String {
    let mut id = String::with_capacity(text.len().min(MAX_ID_BYTES) + 2);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                id.push(char::from(byte));
            }
            _ => {
                id.push('%');
                id.push(hex_digit(byte >> 4, b'A'));
                id.push(hex_digit(byte & 15, b'A'));
            }
        }
        if id.len() > MAX_ID_BYTES {
            return hashed_id(text);
        }
    }
    id
}

fn hashed_id(text: &str) -> String {
    let mut id = String::from("sha256=");
    push_hex(&Sha256::digest(text), &mut id);
    id
}

pub fn push_hex(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        out.push(hex_digit(byte >> 4, b'a'));
        out.push(hex_digit(byte & 15, b'a'));
    }
}

/// `ten` is the digit for 10: `a` or `A`.
fn hex_digit(nibble: u8, ten: u8) -> char {
    char::from(match nibble {
        0..=9 => b'0' + nibble,
        _ => ten + (nibble - 10),
    })
}

/// The user that an Authorization header proves: the `sub` of an HS256 JWT that is
/// signed with `secret` and valid at `now_s`. No secret, no user.
pub fn verify(authorization: Option<&str>, secret: &[u8], now_s: u64) -> Option<String> {
    let payload = signed_payload(bearer(authorization)?, secret)?;
    let claims = Value::read(&payload).ok()?;
    if !is_valid_at(&claims, now_s) {
        return None;
    }
    match claims.get("sub")? {
        Value::String(sub) if !sub.is_empty() && sub.len() <= MAX_SUB_BYTES => {
            Some(sub.clone().into_owned())
        }
        // RFC 7519 section 4.1.2: a StringOrURI; a number might be two users' text.
        _ => None,
    }
}

/// The token of `Bearer token`; the scheme in any case (RFC 9110 section 11.1).
pub fn bearer(authorization: Option<&str>) -> Option<&str> {
    let (scheme, token) = authorization?.trim().split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("Bearer")
        .then(|| token.trim_start_matches(' '))
}

/// The payload of a compact JWS (RFC 7515 section 7.1) whose HS256 signature is right.
pub fn signed_payload(token: &str, secret: &[u8]) -> Option<Vec<u8>> {
    if secret.is_empty() || token.len() > MAX_TOKEN_BYTES {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let header = decode_url(header)?;
    let header = Value::read(&header).ok()?;
    // The key chooses the algorithm, never the token (RFC 8725 section 3.1). `crit`
    // names extensions that must be understood, and none is (RFC 7515 section 4.1.11).
    if header.get("alg")?.as_str()? != "HS256" || header.get("crit").is_some() {
        return None;
    }
    let signature = decode_url(signature)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(signed.as_bytes());
    mac.verify_slice(&signature).ok()?;
    decode_url(payload)
}

/// RFC 7519 sections 4.1.4 and 4.1.5, without leeway. A date that is no number is
/// never valid. Of a claim that is there twice the last one counts (section 4).
fn is_valid_at(claims: &Value<'_>, now_s: u64) -> bool {
    let now_s = now_s as f64;
    let holds = |claim: &str, test: fn(f64, f64) -> bool| {
        claims
            .get(claim)
            .is_none_or(|value| value.as_f64().is_some_and(|date_s| test(now_s, date_s)))
    };
    holds("exp", |now_s, date_s| now_s < date_s) && holds("nbf", |now_s, date_s| now_s >= date_s)
}

/// Compares secrets in a time that tells neither where they differ nor how long
/// they are.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let difference = Sha256::digest(a)
        .iter()
        .zip(Sha256::digest(b).iter())
        .fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}
