//! Who sent a request, as limits, lists and purges see him.

use std::net::IpAddr;

use crate::config::Secret;
use crate::gateway::Gateway;
use crate::http::{Headers, Request};
use crate::identity::{client_address, ip_id, limit_id, matches, verify};
use crate::policy::{By, Subject};

/// The ids of one request; none of them is ever logged or sent.
pub struct Visitor<'r> {
    headers: &'r Headers,
    pub client: Client,
}

/// Who is asking, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    pub address: Option<IpAddr>,
    /// Verified, as the token names him.
    pub user: Option<String>,
}

impl Client {
    /// Key-safe: what a limit counts this client under. `value` is the first one of the
    /// limit's header, if it counts by one.
    pub fn limit_id(&self, gateway: &Gateway, by: &By, value: Option<&str>) -> String {
        let defaults = &gateway.policy.defaults;
        let ip = ip_id(self.address, defaults.address.ipv6_prefix);
        let key = gateway.settings.hash_key.as_ref().map(Secret::as_bytes);
        let key = defaults.hash_ids.then_some(key.unwrap_or_default());
        limit_id(by, &ip, self.user.as_deref(), value, key)
    }
}

impl<'r> Visitor<'r> {
    /// Without a secret no user is ever known.
    pub fn new(request: &'r Request, gateway: &Gateway, now_s: u64) -> Self {
        let headers = &request.headers;
        let told = &gateway.policy.defaults.address;
        // All its fields as one list (RFC 9110 section 5.2).
        let name = told.header.as_deref();
        let list = name.map(|name| headers.get_all(name).collect::<Vec<_>>().join(","));
        let authorization = headers.get("authorization");
        let secret = gateway.settings.jwt_secret.as_ref();
        let user = secret.and_then(|secret| verify(authorization, secret.as_bytes(), now_s));
        Self {
            headers,
            client: Client {
                address: client_address(told, headers.get("cf-connecting-ip"), |_| list.as_deref()),
                user,
            },
        }
    }

    /// The verified user, as the token names him.
    pub fn user(&self) -> Option<&str> {
        self.client.user.as_deref()
    }

    /// The first value of a header that a limit counts by.
    pub fn header(&self, by: &By) -> Option<&'r str> {
        match by {
            By::Header(name) => self.headers.get(name),
            By::Ip | By::User | By::Global => None,
        }
    }

    /// Whether a limit's own list names this request.
    pub fn is_named(&self, list: &[Subject], by: &By) -> bool {
        let Client { address, user } = &self.client;
        let value = match by {
            By::User => user.as_deref(),
            by => self.header(by),
        };
        let mut subjects = list.iter();
        subjects.any(|subject| matches(subject, *address, user.as_deref(), value))
    }

    /// Key-safe: what a limit counts this request under.
    pub fn limit_id(&self, gateway: &Gateway, by: &By) -> String {
        self.client.limit_id(gateway, by, self.header(by))
    }
}
