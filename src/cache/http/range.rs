//! One range of a complete answer (RFC 9110, 14). Several ranges are answered with all of it,
//! which a server may always do.

use super::freshness::number;

/// What of an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Whole,
    /// First and last byte.
    Bytes(usize, usize),
    /// 416.
    None,
}

/// `field` is the value of `Range`; a value that is no single range of bytes is ignored.
pub fn part(field: &str, length: usize) -> Part {
    let Some((unit, set)) = field.split_once('=') else {
        return Part::Whole;
    };
    let Some((from, to)) = set.trim().split_once('-') else {
        return Part::Whole;
    };
    let Some(last) = length.checked_sub(1) else {
        return Part::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Part::Whole;
    }
    match (place(from), place(to)) {
        // 14.1.2: the last so many bytes.
        (None, Some(0)) if from.is_empty() => Part::None,
        (None, Some(count)) if from.is_empty() => Part::Bytes(length.saturating_sub(count), last),
        (Some(from), None) if to.is_empty() && from <= last => Part::Bytes(from, last),
        (Some(from), Some(to)) if from > to => Part::Whole,
        (Some(from), Some(to)) if from <= last => Part::Bytes(from, to.min(last)),
        (Some(_), None) if !to.is_empty() => Part::Whole,
        (Some(_), _) => Part::None,
        _ => Part::Whole,
    }
}

/// A number that is too large is beyond every end all the same.
fn place(text: &str) -> Option<usize> {
    usize::try_from(number(text)?).ok()
}
