//! How long an entry is fresh, then stale, and how long an isolate's own copy is good.

use super::super::bounds::{MAX_L1_MS, MAX_LIFE_MS, MIN_TTL_MS};
use super::super::error::{Faults, nearest};
use super::super::field::{Field, Table, list, quote};
use super::super::measure::show_ms;
use super::super::node::Value;
use super::Overrides;

/// How long an entry is fresh, and who says so.
pub struct Ttl {
    pub ms: u64,
    pub from: Option<&'static str>,
    /// The variable is set: then what does not fit is its fault, not the policy's.
    is_set: bool,
}

impl Ttl {
    fn fault(&self, field: &Field<'_>, faults: &mut Faults, message: String, help: String) {
        match self.from.filter(|_| self.is_set) {
            Some(variable) => faults.add(variable, None, message, "set it to less, or unset it"),
            None => field.fault(faults, message, help),
        }
    }
}

/// `"15m"`, or `"$NAME"`: seconds that a variable says.
pub fn ttl(table: &Table<'_>, overrides: &Overrides, faults: &mut Faults) -> Option<Ttl> {
    let field = table.need("ttl", "say how long it is fresh: ttl = \"15m\"", faults)?;
    let named = match &field.node.value {
        Value::Text(text) => text.strip_prefix('$'),
        _ => None,
    };
    let Some(name) = named else {
        let ms = field.duration(MIN_TTL_MS..=MAX_LIFE_MS, faults)?;
        return Some(Ttl {
            ms,
            from: None,
            is_set: false,
        });
    };
    let variables = [
        ("NOTIFICATION_CACHE_TTL", overrides.notification_ttl_s, 30),
        ("UNREAD_COUNT_CACHE_TTL", overrides.unread_ttl_s, 60),
    ];
    let known = variables.iter().find(|(variable, ..)| *variable == name);
    let Some((variable, set_s, or_s)) = known else {
        let names = variables.map(|(variable, ..)| variable);
        let help = match nearest(name, names) {
            Some(meant) => format!("did you mean \"${meant}\"?"),
            None => format!("the variables are {}", list(&names)),
        };
        let message = format!("{} is no variable that says a time", quote(name));
        field.fault(faults, message, help);
        return None;
    };
    Some(Ttl {
        ms: set_s.unwrap_or(*or_s).saturating_mul(1_000),
        from: Some(variable),
        is_set: set_s.is_some(),
    })
}

/// `stale`; with `ttl` no longer than generations live.
pub fn stale(table: &Table<'_>, ttl: Option<&Ttl>, faults: &mut Faults) -> Option<u64> {
    let Some(field) = table.get("stale") else {
        return Some(0);
    };
    let stale_ms = field.duration(0..=MAX_LIFE_MS, faults)?;
    if let Some(ttl) = ttl
        && ttl.ms.saturating_add(stale_ms) > MAX_LIFE_MS
    {
        let message = format!(
            "`ttl` and `stale` are {} together, and the generations that prove an entry live {}",
            show_ms(ttl.ms.saturating_add(stale_ms)),
            show_ms(MAX_LIFE_MS)
        );
        let help = format!(
            "write at most \"{}\"",
            show_ms(MAX_LIFE_MS.saturating_sub(ttl.ms))
        );
        ttl.fault(&field, faults, message, help);
    }
    Some(stale_ms)
}

/// `l1`, no longer than `ttl`; the outer `None`: there is a fault.
pub fn l1(table: &Table<'_>, ttl: Option<&Ttl>, faults: &mut Faults) -> Option<Option<u64>> {
    let Some(field) = table.get("l1") else {
        return Some(None);
    };
    let l1_ms = field.duration(0..=MAX_L1_MS, faults)?;
    if let Some(ttl) = ttl
        && l1_ms > ttl.ms
    {
        let message = format!(
            "`l1` is {}, and an entry is fresh for {}",
            show_ms(l1_ms),
            show_ms(ttl.ms)
        );
        // A shorter `ttl` of a variable is no fault of its own: then the copy ends with it.
        if ttl.is_set {
            return Some(Some(ttl.ms));
        }
        field.fault(faults, message, "write at most the `ttl`");
        return None;
    }
    Some(Some(l1_ms))
}
