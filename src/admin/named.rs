//! Ids as people know them, and what limits count them under.

use std::net::Ipv6Addr;

use super::bad;
use crate::controls::is_id;
use crate::failure::Failure;
use crate::gateway::Gateway;
use crate::identity::encode_id;
use crate::policy::{By, Limit};
use crate::visitor::Client;

/// Whom a call is about.
#[derive(Debug)]
pub enum Named {
    Address(Client),
    User(Client),
    /// A header's value.
    Header(String),
    /// As it stands in keys and reports.
    Raw(String),
}

impl Named {
    /// An address, `user:NAME`, `header:VALUE`, or an id as it stands in keys.
    pub fn parse(text: &str, gateway: &Gateway) -> Result<Self, Failure> {
        if let Some(user) = text.strip_prefix("user:") {
            return Ok(Self::User(Client {
                address: None,
                user: Some(user.to_owned()),
            }));
        }
        if let Some(value) = text.strip_prefix("header:") {
            return Ok(Self::Header(value.to_owned()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(Client {
                address: Some(address),
                user: None,
            }));
        }
        match as_in_keys(text, gateway) {
            Some(named) => Ok(named),
            None => Err(bad(
                "`id` is an address, user:NAME, header:VALUE, or an id as it stands in keys",
            )),
        }
    }

    /// Whom a ban is of, if it can be of this one: an address, however the limits of a route
    /// count.
    pub fn banned(&self, gateway: &Gateway) -> Option<String> {
        match self {
            Self::Address(client) => Some(client.limit_id(gateway, &By::Ip, None)),
            Self::Raw(id) => {
                let is_other =
                    id == "global" || id.starts_with("user=") || id.starts_with("header=");
                (!is_other).then(|| id.clone())
            }
            Self::User(_) | Self::Header(_) => None,
        }
    }

    /// What a limit counts it under; `None`: it does not count that kind.
    pub fn id(&self, gateway: &Gateway, limit: &Limit) -> Option<String> {
        let client = Client::default();
        match (self, &limit.by) {
            (Self::Raw(id), by) => ((id == "global") == (*by == By::Global)).then(|| id.clone()),
            (_, By::Global) => None,
            (Self::Address(client), by @ (By::Ip | By::User)) => {
                Some(client.limit_id(gateway, by, None))
            }
            (Self::User(client), by @ By::User) => Some(client.limit_id(gateway, by, None)),
            (Self::Header(value), by @ By::Header(_)) => {
                Some(client.limit_id(gateway, by, Some(value)))
            }
            _ => None,
        }
    }
}

/// The id of a key or a report. Put into a URL as it is, one with codes in it arrives here
/// decoded; hashed ones have none.
fn as_in_keys(text: &str, gateway: &Gateway) -> Option<Named> {
    if is_id(text) {
        return Some(Named::Raw(text.to_owned()));
    }
    let defaults = &gateway.policy.defaults;
    let coded = match text.split_once('=') {
        _ if defaults.hash_ids => return None,
        Some(("user", user)) => ["user=", &encode_id(user)].concat(),
        Some(("header", field)) => {
            let (name, value) = field.split_once('=')?;
            ["header=", &encode_id(name), "=", &encode_id(value)].concat()
        }
        _ => {
            let (address, prefix) = text.split_once('/')?;
            let is_ours = prefix.parse() == Ok(defaults.address.ipv6_prefix);
            let address: Ipv6Addr = address.parse().ok().filter(|_| is_ours)?;
            return Some(Named::Address(Client {
                address: Some(address.into()),
                user: None,
            }));
        }
    };
    is_id(&coded).then_some(Named::Raw(coded))
}
