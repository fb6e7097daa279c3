//! Percent-coding (RFC 3986 section 2.1) as paths, keys and queries need it.

use std::fmt::Write as _;

/// RFC 3986 section 2.3.
#[inline]
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a path segment may hold unencoded (`pchar`, RFC 3986 section 3.3).
#[inline]
pub fn is_path_character(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte)
}

/// What `encodeURIComponent` leaves as it is.
#[inline]
fn is_component_character(byte: u8) -> bool {
    is_unreserved(byte) || b"!*'()".contains(&byte)
}

/// Whether a character may occur in what [`encode_component`] writes.
pub fn occurs_in_component(byte: u8) -> bool {
    is_component_character(byte) || byte == b'%'
}

/// Encodes as ECMAScript's `encodeURIComponent` does.
#[inline]
pub fn encode_component(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        push(byte, is_component_character(byte), &mut out);
    }
    out
}

/// Adds a byte as it is, or as `%XX`.
#[inline]
pub fn push(byte: u8, plain: bool, out: &mut String) {
    if plain {
        out.push(char::from(byte));
    } else {
        // Writing to a String cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

/// The byte of the two digits that follow a `%`.
pub fn code(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Decodes; `None` for an invalid code or when the result is not UTF-8. `plus`
/// reads `+` as a space, as forms write it.
pub fn decode(text: &str, plus: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => code(rest.next(), rest.next())?,
            b'+' if plus => b' ',
            _ => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
