//! Who sent a request, as limits, lists and purges see him.

use std::net::IpAddr;

use crate::gateway::Gateway;
use crate::http::{Headers, Request};
use crate::identity::{ip_id, limit_id, verify};
use crate::policy::{Address, By, Subject};

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
    pub fn limit_id(&self, by: &By, value: Option<&str>) -> String {
        let ip = ip_id(self.address.map(|address| address.to_string()).as_deref());
        limit_id(by, &ip, self.user.as_deref(), value)
    }
}

impl<'r> Visitor<'r> {
    /// Without a secret no user is ever known.
    pub fn new(request: &'r Request, gateway: &Gateway, now_s: u64) -> Self {
        let headers = &request.headers;
        let told = &gateway.policy.defaults.address;
        let header = told.header.as_deref().and_then(|name| headers.get(name));
        let authorization = headers.get("authorization");
        let secret = gateway.settings.jwt_secret.as_ref();
        let user = secret.and_then(|secret| verify(authorization, secret.as_bytes(), now_s));
        Self {
            headers,
            client: Client {
                address: client_address(told, headers.get("cf-connecting-ip"), header),
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
    pub fn limit_id(&self, by: &By) -> String {
        self.client.limit_id(by, self.header(by))
    }
}

/// Stands in for `identity::client_address`.
fn client_address(
    _told: &Address,
    connecting_ip: Option<&str>,
    _header: Option<&str>,
) -> Option<IpAddr> {
    let address: IpAddr = connecting_ip?.trim().parse().ok()?;
    Some(address.to_canonical())
}

/// Stands in for `identity::matches`.
fn matches(
    subject: &Subject,
    address: Option<IpAddr>,
    user: Option<&str>,
    value: Option<&str>,
) -> bool {
    match subject {
        Subject::Network { bits, prefix } => address.is_some_and(|address| {
            crate::controls::masked(crate::controls::bits(address), *prefix) == *bits
        }),
        Subject::User(name) => user == Some(name),
        Subject::Id(id) => value == Some(id),
    }
}

/// Stands in for `identity::is_in_rollout`.
pub fn is_in_rollout(limit_name: &str, id: &str, percent: u8) -> bool {
    let mut text = String::from(limit_name);
    text.push(':');
    text.push_str(id);
    xxhash_rust::xxh3::xxh3_64(text.as_bytes()) % 100 < u64::from(percent)
}
