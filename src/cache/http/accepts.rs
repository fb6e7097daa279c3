//! Accept-Encoding (RFC 9110, 12.5.3), as far as gzip and plain bytes go.

/// What a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepts {
    /// Gzip, and no less gladly than plain bytes.
    Gzip,
    /// Both, and rather plain bytes.
    GzipToo,
    /// No gzip. Plain bytes are sent even to those who refuse them: the alternative is
    /// no answer at all.
    Plain,
}

/// Without the field anything might be taken, and plain bytes are by everybody.
pub fn accepts(field: Option<&str>) -> Accepts {
    let (mut gzip, mut plain, mut any) = (None, None, None);
    for coding in field.unwrap_or_default().split(',') {
        let (name, weight) = match coding.split_once(';') {
            Some((name, weight)) => (name, weight_of(weight)),
            None => (coding, 1_000),
        };
        let name = name.trim();
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("gzip") || is("x-gzip") {
            gzip = Some(weight);
        } else if is("identity") {
            plain = Some(weight);
        } else if name == "*" {
            any = Some(weight);
        }
    }
    match gzip.or(any).unwrap_or(0) {
        0 => Accepts::Plain,
        // Plain bytes that nobody speaks of are taken, and not asked for.
        weight if weight >= plain.unwrap_or(0) => Accepts::Gzip,
        _ => Accepts::GzipToo,
    }
}

/// `q=0.5` in thousandths; what is no weight is none.
fn weight_of(parameter: &str) -> u32 {
    let digits = parameter.trim().strip_prefix(['q', 'Q']);
    let digits = digits.and_then(|rest| rest.trim_start().strip_prefix('='));
    let Some(digits) = digits.map(str::trim) else {
        return 0;
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    let thousandths = part.bytes().chain(*b"000").take(3).fold(0, |sum, digit| {
        sum * 10 + u32::from(digit.saturating_sub(b'0'))
    });
    match whole {
        "0" => thousandths,
        "1" if thousandths == 0 => 1_000,
        _ => 0,
    }
}
