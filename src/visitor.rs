//! Who sent a request, as limits and purges see him.

use crate::config::Secret;
use crate::http::Request;
use crate::identity::{client_address, ip_id, limit_id, verify};
use crate::policy::{Address, By};

/// The ids of one request; none of them is ever logged or sent.
pub struct Visitor<'r> {
    request: &'r Request,
    ip: String,
    user: Option<String>,
}

impl<'r> Visitor<'r> {
    /// Without a secret no user is ever known.
    pub fn new(request: &'r Request, jwt_secret: Option<&Secret>, now_s: u64) -> Self {
        let settings = Address::default();
        let address = client_address(&settings, request.headers.get("cf-connecting-ip"), |_| None);
        Self {
            request,
            ip: ip_id(address, settings.ipv6_prefix),
            user: jwt_secret.and_then(|secret| {
                verify(
                    request.headers.get("authorization"),
                    secret.as_bytes(),
                    now_s,
                )
            }),
        }
    }

    /// The verified user, as the token names him.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Key-safe: what a limit counts this request under.
    pub fn limit_id(&self, by: &By) -> String {
        let header = match by {
            By::Header(name) => self.request.headers.get(name),
            By::Ip | By::User | By::Global => None,
        };
        limit_id(by, &self.ip, self.user(), header, None)
    }
}
