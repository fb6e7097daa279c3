//! Ids as people know them, and what limits count them under.

use super::bad;
use crate::controls::is_id;
use crate::failure::Failure;
use crate::gateway::Gateway;
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
    pub fn parse(text: &str) -> Result<Self, Failure> {
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
        match is_id(text) {
            true => Ok(Self::Raw(text.to_owned())),
            false => Err(bad(
                "`id` is an address, user:NAME, header:VALUE, or an id as it stands in keys",
            )),
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
