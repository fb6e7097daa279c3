//! A batch that the origin has: what it answered, and what Redis is told. Nothing is sent here.

use super::item::Item;
use super::record::{Counted, Entry, Fixed};
use super::{LONG_MS, is_over, items_key, totals_key};
use crate::json::Value;
use crate::redis::Command;

/// What Redis is told once the origin has a batch.
pub fn end(batch: &Fixed, totals: &[(&Item, u64)]) -> Vec<Command> {
    let (over, on): (Vec<&Entry>, Vec<&Entry>) = batch
        .entries
        .iter()
        .partition(|entry| is_over(entry.day, batch.begun_ms));
    let mut commands: Vec<Command> = Vec::new();
    let mut last = None;
    for entry in on {
        let place = (entry.day, entry.item.bucket());
        if last != Some(place) {
            last = Some(place);
            let key = items_key(place.0, place.1);
            commands.push(Command::new("ZADD").arg(key).arg("XX").arg("GT"));
        }
        if let Some(command) = commands.pop() {
            commands.push(command.arg(entry.upto).arg(entry.item.member().to_owned()));
        }
    }
    commands.extend(forget(over.iter().map(|entry| (entry.day, &entry.item))));
    commands.extend(keep(totals));
    commands
}

/// Keeps what the origin said. Totals stand in the order of their buckets.
pub fn keep(totals: &[(&Item, u64)]) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    let mut last = None;
    for (item, total) in totals {
        let bucket = item.bucket();
        let key = totals_key(bucket);
        if last != Some(bucket) {
            last = Some(bucket);
            commands.push(Command::pexpire(&key, LONG_MS));
            commands.push(Command::new("HSET").arg(key));
        }
        if let Some(command) = commands.pop() {
            commands.push(command.arg(item.member().to_owned()).arg(*total));
        }
    }
    // An expiry needs its key.
    commands.reverse();
    commands
}

/// Ends items of days that are over, of which all is sent.
pub fn forget<'i>(items: impl Iterator<Item = (u64, &'i Item)>) -> Vec<Command> {
    let mut sets = Command::new("DEL");
    let mut commands: Vec<Command> = Vec::new();
    let mut last = None;
    for (day, item) in items {
        sets = sets.arg(item.set_key(day));
        let place = (day, item.bucket());
        if last != Some(place) {
            last = Some(place);
            commands.push(Command::new("ZREM").arg(items_key(place.0, place.1)));
        }
        if let Some(command) = commands.pop() {
            commands.push(command.arg(item.member().to_owned()));
        }
    }
    if last.is_some() {
        commands.push(sets);
    }
    commands
}

/// What the origin says that items of a batch have in all now, in the order of `counts`.
pub fn totals<'b>(answer: &[u8], counts: &Counted<'b>) -> Vec<(&'b Item, u64)> {
    let json = Value::read(answer).unwrap_or(Value::Null);
    let mut totals: Vec<Option<u64>> = vec![None; counts.items.len()];
    let said = json.get("totals").and_then(Value::as_array);
    for said in said.unwrap_or_default() {
        let text = |name| said.get(name).and_then(Value::as_str);
        let item = text("kind").zip(text("id"));
        let Some(item) = item.and_then(|(kind, id)| Item::new(kind, id)) else {
            continue;
        };
        if let Some(total) = counts.place(&item).and_then(|at| totals.get_mut(at)) {
            *total = said.get("total").and_then(Value::as_u64);
        }
    }
    let known = counts.items.iter().zip(totals);
    known
        .filter_map(|((item, _), total)| Some((*item, total?)))
        .collect()
}
