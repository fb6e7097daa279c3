//! Base64 (RFC 4648): as Redis' answers have it, padded, canonical and without a
//! byte beside the alphabet; as JWTs and structured fields have it.
//!
//! Redis' answers hold whole bodies, so they are read by SIMD; the rest is short, and
//! read by a small loop. The base64 crate's loop is quick when inlined, which a build for
//! size does not do.

/// Of what is not in the alphabet: the two upper bits that no value has.
const NONE: u8 = 0xC0;

const VALUES: [u8; 256] = values();

const fn values() -> [u8; 256] {
    let mut values = [NONE; 256];
    let mut rest: &mut [u8] = &mut values;
    let mut byte = 0;
    while let Some((value, tail)) = rest.split_first_mut() {
        *value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => NONE,
        };
        byte = byte.wrapping_add(1);
        rest = tail;
    }
    values
}

/// The bytes of a text; `None` when it is no base64.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    base64_simd::STANDARD.decode_to_vec(text).ok()
}

/// The same of base64url without padding (section 5), as JWTs have it.
pub fn decode_url(text: &str) -> Option<Vec<u8>> {
    let standard = |byte: u8| match byte {
        b'-' => Some(b'+'),
        b'_' => Some(b'/'),
        b'+' | b'/' => None,
        byte => Some(byte),
    };
    let text: Option<Vec<u8>> = text.bytes().map(standard).collect();
    unpadded(&text?, true)
}

/// The same without looking at the padding and at bits beyond the last byte.
pub fn decode_leniently(text: &[u8]) -> Option<Vec<u8>> {
    unpadded(trimmed(text), false)
}

/// Without the padding.
fn trimmed(text: &[u8]) -> &[u8] {
    let less = |text: &mut &[u8]| {
        if let Some(rest) = text.strip_suffix(b"=") {
            *text = rest;
        }
    };
    let mut text = text;
    less(&mut text);
    less(&mut text);
    text
}

fn unpadded(text: &[u8], is_exact: bool) -> Option<Vec<u8>> {
    let (quads, rest) = text.as_chunks::<4>();
    let (last, kept) = match *rest {
        [] => ([b'A'; 4], 0),
        [a, b] => ([a, b, b'A', b'A'], 1),
        [a, b, c] => ([a, b, c, b'A'], 2),
        _ => return None,
    };
    let mut bytes = Vec::with_capacity((quads.len() + 1) * 3);
    bytes.resize(quads.len() * 3, 0);
    let (triples, _) = bytes.as_chunks_mut::<3>();
    let mut end = [0; 3];
    let seen = triples_of(quads, triples) | triples_of(&[last], std::slice::from_mut(&mut end));
    let (end, surplus) = end.split_at_checked(kept)?;
    bytes.extend_from_slice(end);
    let is_clean = !is_exact || surplus.iter().all(|byte| *byte == 0);
    (seen & NONE == 0 && is_clean).then_some(bytes)
}

/// Answers with all bits that came. Written out: an iterator over four characters is a
/// call for each of them.
fn triples_of(quads: &[[u8; 4]], triples: &mut [[u8; 3]]) -> u8 {
    let mut seen = 0;
    for ([a, b, c, d], [x, y, z]) in quads.iter().zip(triples) {
        let (a, b, c, d) = (value(*a), value(*b), value(*c), value(*d));
        seen |= a | b | c | d;
        *x = a << 2 | b >> 4;
        *y = b << 4 | c >> 2;
        *z = c << 6 | d;
    }
    seen
}

#[inline(always)]
fn value(byte: u8) -> u8 {
    VALUES.get(usize::from(byte)).copied().unwrap_or(NONE)
}

/// Padded.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() / 3 * 4 + 4);
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let mut bits = 0u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(three.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let letter = LETTERS.get((bits >> (18 - 6 * at) & 63) as usize);
            let is_padding = at > three.len();
            out.push(match letter {
                Some(letter) if !is_padding => char::from(*letter),
                _ => '=',
            });
        }
    }
    out
}
