//! Networks of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
//!
//! IPv4 is mapped into IPv6 (RFC 4291 section 2.5.5.2), so one comparison does for both.

use std::net::{IpAddr, Ipv6Addr};

use super::field::quote;

/// What all mapped addresses begin with.
pub const MAPPED_BITS: u8 = 96;
const HELP: &str =
    "write an address or a network: \"192.0.2.1\", \"10.0.0.0/8\" or \"2001:db8::/32\"";

#[inline]
pub fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The first `prefix` bits of an address.
#[inline]
pub fn network(bits: u128, prefix: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128u32.saturating_sub(u32::from(prefix)));
    bits & mask.unwrap_or(0)
}

/// Whether an address lies in a network. `::/0` is all of IPv6 and no IPv4.
#[inline]
pub fn contains(network_bits: u128, prefix: u8, address: IpAddr) -> bool {
    let address = bits(address);
    let is_mapped = address >> 32 == 0xffff;
    (address ^ network_bits).leading_zeros() >= u32::from(prefix)
        && (prefix >= MAPPED_BITS || !is_mapped)
}

/// Reads bits and prefix; `None` for what does not look like an address at all. What
/// does and is none is an error: what is wrong, and what to do.
pub fn read(text: &str) -> Result<Option<(u128, u8)>, (String, String)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return match looks_like_address(address, length.is_some()) {
            true => Err((format!("{} is no address", quote(text)), HELP.to_owned())),
            false => Ok(None),
        };
    };
    let width: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => Some(width),
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|length| *length <= width && digits.bytes().all(|byte| byte.is_ascii_digit())),
    };
    let Some(length) = length else {
        let message = format!("{} has no prefix from 0 to {width}", quote(text));
        return Err((message, HELP.to_owned()));
    };
    let prefix = length + (128 - width);
    let all = bits(address);
    let kept = network(all, prefix);
    if kept != all {
        let message = format!("{} has bits behind its prefix", quote(text));
        let meant = IpAddr::V6(Ipv6Addr::from_bits(kept));
        let meant = match address.is_ipv4() {
            true => meant.to_canonical(),
            false => meant,
        };
        return Err((message, format!("write \"{meant}/{length}\"")));
    }
    Ok(Some((kept, prefix)))
}

/// Digits and dots, or hexadecimal digits and colons, as only addresses are written:
/// an id that may be meant as one would never be refused.
fn looks_like_address(text: &str, has_length: bool) -> bool {
    let count = |wanted: u8| text.bytes().filter(|byte| *byte == wanted).count();
    let (dots, colons) = (count(b'.'), count(b':'));
    let digits = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let hex = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    match colons {
        0 => text.bytes().all(digits) && (dots == 3 || (has_length && dots > 0)),
        _ => {
            text.bytes().all(hex)
                && (text.as_bytes().windows(2).any(|pair| pair == b"::")
                    || colons == 7
                    || (has_length && colons > 1))
        }
    }
}
