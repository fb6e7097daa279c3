//! Durations ("500ms", "90s", "15m", "24h") and sizes ("64KB", "1MB").

const DURATIONS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
/// As Redis and most of the web count them, in powers of 1024.
const SIZES: [(&str, u64); 3] = [("B", 1), ("KB", 1024), ("MB", 1024 * 1024)];

/// Milliseconds.
pub fn duration_ms(text: &str) -> Option<u64> {
    measure(text, &DURATIONS)
}

/// Bytes.
pub fn size_bytes(text: &str) -> Option<u64> {
    measure(text, &SIZES)
}

/// The shortest way to write a duration.
pub fn show_ms(ms: u64) -> String {
    show(ms, &DURATIONS)
}

pub fn show_bytes(bytes: u64) -> String {
    show(bytes, &SIZES)
}

fn measure(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(amount: u64, units: &[(&str, u64)]) -> String {
    units
        .iter()
        .rev()
        .find(|(_, factor)| amount > 0 && amount.is_multiple_of(*factor))
        .map_or_else(
            || format!("0{}", units.first().map_or("", |(name, _)| name)),
            |(name, factor)| format!("{}{name}", amount / factor),
        )
}
