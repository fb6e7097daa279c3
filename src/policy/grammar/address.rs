//! How the client's address is told: `{ header, proxies, ipv6_prefix }`.

use super::super::bounds::{MAX_IPV6_PREFIX, MAX_NAME_BYTES, MIN_IPV6_PREFIX};
use super::super::error::Faults;
use super::super::field::{Field, quote};
use super::super::types::Address;
use super::subject::{self, Kinds};

pub fn address(field: &Field<'_>, faults: &mut Faults) -> Option<Address> {
    const PAIR: &str = "write both: { header = \"x-forwarded-for\", proxies = [\"10.0.0.0/8\"] }";
    let table = field.table("`address`", &["header", "proxies", "ipv6_prefix"], faults)?;
    let header = table.get("header");
    let proxies = table.get("proxies");
    if let (Some(alone), None) | (None, Some(alone)) = (&header, &proxies) {
        let message = format!(
            "{} does nothing without {}",
            alone.label(),
            if header.is_some() {
                "`proxies`"
            } else {
                "`header`"
            }
        );
        alone.fault_at_name(faults, message, PAIR);
    }
    let header = match header {
        Some(field) => name(&field, faults).map(Some),
        None => Some(None),
    };
    let proxies = match proxies {
        Some(field) => {
            let proxies = subject::list(&field, Kinds::Networks, faults);
            if proxies.as_ref().is_some_and(Vec::is_empty) {
                field.fault(
                    faults,
                    "`proxies` names nobody who may set the header",
                    PAIR,
                );
            }
            proxies
        }
        None => Some(Vec::new()),
    };
    let or = Address::default().ipv6_prefix;
    let bits = u64::from(MIN_IPV6_PREFIX)..=u64::from(MAX_IPV6_PREFIX);
    let ipv6_prefix = table.integer("ipv6_prefix", bits, u64::from(or), faults)?;
    Some(Address {
        header: header?,
        proxies: proxies?,
        ipv6_prefix: u8::try_from(ipv6_prefix).unwrap_or(or),
    })
}

/// A field that lists addresses and nothing else.
fn name(field: &Field<'_>, faults: &mut Faults) -> Option<String> {
    const HELP: &str = "write a field's name: \"x-forwarded-for\"";
    let text = field.text(HELP, faults)?;
    let name = header_name(text);
    match name.as_deref() {
        None => field.fault(faults, format!("{} is no field's name", quote(text)), HELP),
        // RFC 7239: `for=192.0.2.1;proto=http`, and its addresses may be made-up names.
        Some("forwarded") => {
            let message = "`forwarded` does not list plain addresses";
            field.fault(faults, message, "have the proxies set \"x-forwarded-for\"");
        }
        Some(_) => {}
    }
    name
}

/// A field name (RFC 9110 section 5.6.2) in lower case.
pub fn header_name(text: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    ((1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(is_token))
        .then(|| text.to_ascii_lowercase())
}
