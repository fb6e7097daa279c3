//! One control as a field of the hash, and whom a list names, as text.

use std::net::Ipv6Addr;

use super::{MAX_RESETS, route_of};
use crate::policy::bounds::{MAX_NAME_BYTES, MAX_REQUESTS, MAX_SUBJECT_BYTES};
use crate::policy::{Limit, Subject, network};
use crate::redis::Reply;

/// Longer than any id: a header's name and value, each encoded or hashed.
pub const MAX_ID_BYTES: usize = 320;

const HELP: &str = "name addresses, networks (203.0.113.0/24, 2001:db8::/32), user:NAME and header:VALUE, names of 1 to 256 bytes";

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
    /// What an id had used on a route was reset.
    Reset {
        /// All of the value, never the same again.
        text: &'r str,
        route: &'r str,
        id: &'r str,
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
        let subject = subject(name).ok()?;
        if subject_field(&subject) != field {
            return None;
        }
        return Some(Control::Listed { subject, list });
    }
    if kind == "reset" {
        return reset(value);
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

/// The value of a reset.
pub fn reset(text: &str) -> Option<Control<'_>> {
    let mut parts = text.splitn(3, ':').skip(1);
    let (route, id) = (parts.next()?, parts.next()?);
    let fits = text.len() <= 2 * MAX_ID_BYTES && is_id(id);
    fits.then_some(Control::Reset { text, route, id })
}

/// The field and the value of a reset; `random` was never used before.
pub fn reset_field(random: u128, route: &str, id: &str) -> (String, String) {
    let slot = random as usize % MAX_RESETS;
    (
        format!("reset:{slot}"),
        format!("{}:{route}:{id}", (random >> 64) as u64),
    )
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

/// Whom text names: an address, a network, `user:NAME` or `header:VALUE`; else what is
/// wrong and what to do.
pub fn subject(text: &str) -> Result<Subject, String> {
    let name = |name: &str| {
        let fits = (1..=MAX_SUBJECT_BYTES).contains(&name.len());
        (fits && !name.contains(char::is_control)).then(|| name.to_owned())
    };
    let named = match text.split_once(':') {
        Some(("user", user)) => name(user).map(Subject::User),
        Some(("header", value)) => name(value).map(Subject::Id),
        _ => match network::read(text) {
            Ok(network) => network.map(|(bits, prefix)| Subject::Network { bits, prefix }),
            Err((problem, help)) => return Err([problem, help].join("; ")),
        },
    };
    named.ok_or_else(|| HELP.to_owned())
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
            let mapped = address
                .to_ipv4_mapped()
                .filter(|_| *prefix >= network::MAPPED_BITS);
            let before = match mapped {
                Some(address) => {
                    field.push_str(&address.to_string());
                    network::MAPPED_BITS
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
