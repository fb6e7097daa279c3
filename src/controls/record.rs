//! One control as a field of the hash, and whom a list names, as text.

use std::net::{IpAddr, Ipv6Addr};

use super::route_of;
use crate::policy::bounds::{MAX_NAME_BYTES, MAX_REQUESTS};
use crate::policy::{Limit, Subject};
use crate::redis::Reply;

/// Longer than any id: a header's name and value, each encoded or hashed.
pub const MAX_ID_BYTES: usize = 320;

/// What a JWT's `sub` may have; a header's value is bound like it.
const MAX_SUBJECT_BYTES: usize = 256;

/// Of IPv4 addresses among the mapped ones.
const MAPPED_BITS: u8 = 96;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Deny,
    Allow,
}

impl List {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control<'r> {
    /// Another size for a limit, or for one id under it.
    Requests {
        route: &'r str,
        limit: &'r str,
        id: Option<&'r str>,
        requests: u32,
    },
    Listed {
        subject: Subject,
        list: List,
    },
}

/// The readable fields of an `HGETALL`; `None`: it answered something else.
pub fn controls(reply: &Reply) -> Option<impl Iterator<Item = (&str, Control<'_>)>> {
    let pairs = reply.as_list()?.chunks_exact(2);
    Some(pairs.filter_map(|pair| {
        let [field, value] = pair else { return None };
        let field = field.as_str()?;
        Some((field, control(field, value.as_str()?)?))
    }))
}

fn control<'r>(field: &'r str, value: &'r str) -> Option<Control<'r>> {
    let (kind, name) = field.split_once(':')?;
    if kind == "list" {
        let list = match value {
            "deny" => List::Deny,
            "allow" => List::Allow,
            _ => return None,
        };
        // One spelling of each: two would hide which of them holds.
        let subject = subject(name).filter(|subject| subject_field(subject) == field)?;
        return Some(Control::Listed { subject, list });
    }
    let mut parts = name.split(':');
    let (route, limit, id) = (parts.next()?, parts.next()?, parts.next());
    let fits = kind == "limit"
        && parts.next().is_none()
        && route.len().max(limit.len()) <= MAX_NAME_BYTES
        && id.is_none_or(is_id);
    let requests = value
        .parse()
        .ok()
        .filter(|n| (1..=MAX_REQUESTS).contains(n))?;
    fits.then_some(Control::Requests {
        route,
        limit,
        id,
        requests,
    })
}

/// Whether text could be an encoded id.
pub fn is_id(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%=".contains(&byte);
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(is_plain)
}

pub fn override_field(limit: &Limit, route: &str, id: Option<&str>) -> String {
    let mut field = String::from("limit:");
    field.push_str(route_of(limit, route));
    field.push(':');
    field.push_str(&limit.name);
    if let Some(id) = id {
        field.push(':');
        field.push_str(id);
    }
    field
}

/// Whom text names: an address, a network, `user:NAME` or `header:VALUE`.
pub fn subject(text: &str) -> Option<Subject> {
    let name = |name: &str| {
        let fits = (1..=MAX_SUBJECT_BYTES).contains(&name.len());
        (fits && !name.contains(char::is_control)).then(|| name.to_owned())
    };
    if let Some(user) = text.strip_prefix("user:") {
        return name(user).map(Subject::User);
    }
    if let Some(value) = text.strip_prefix("header:") {
        return name(value).map(Subject::Id);
    }
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let before = match address {
        IpAddr::V4(_) => MAPPED_BITS,
        IpAddr::V6(_) => 0,
    };
    let prefix = match length {
        None => 128,
        Some(length) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse::<u8>().ok()?.checked_add(before)?
        }
        Some(_) => return None,
    };
    let bits = masked(bits(address), prefix);
    (prefix <= 128).then_some(Subject::Network { bits, prefix })
}

/// The field of whom a list names, always in the same spelling.
pub fn subject_field(subject: &Subject) -> String {
    let mut field = String::from("list:");
    match subject {
        Subject::User(user) => {
            field.push_str("user:");
            field.push_str(user);
        }
        Subject::Id(value) => {
            field.push_str("header:");
            field.push_str(value);
        }
        Subject::Network { bits, prefix } => {
            let address = Ipv6Addr::from_bits(*bits);
            let mapped = address.to_ipv4_mapped().filter(|_| *prefix >= MAPPED_BITS);
            let before = match mapped {
                Some(address) => {
                    field.push_str(&address.to_string());
                    MAPPED_BITS
                }
                None => {
                    field.push_str(&address.to_string());
                    0
                }
            };
            if *prefix < 128 {
                field.push('/');
                field.push_str(&(prefix - before).to_string());
            }
        }
    }
    field
}

/// An address as IPv6.
pub fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first bits alone.
pub fn masked(bits: u128, prefix: u8) -> u128 {
    let dropped = 128 - u32::from(prefix.min(128));
    bits & u128::MAX.checked_shl(dropped).unwrap_or(0)
}
