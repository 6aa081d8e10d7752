//! Fields of two contracts, side by side.
//!
//! Enters: the old and the new contract. Leaves: what was added, removed, renamed, retyped, tightened or relaxed. Rows that
//! are there must still pass, and producers by the old contract must still be readable.

use super::{Change, Level};
use crate::contract::{Contract, Field, FieldType};

pub(super) fn compare(old: &Contract, new: &Contract) -> Vec<Change> {
    let mut changes = Vec::new();
    for before in &old.fields {
        match new.field_once(&before.name) {
            Some(now) => same_field(before, now, &mut changes),
            None => changes.push(removed(before, old, new)),
        }
    }
    let is_new = |field: &&Field| !old.fields.iter().any(|before| descends(field, before));
    for field in new.fields.iter().filter(is_new) {
        changes.push(match field.required {
            false => Change::new(Level::Minor, &field.name, format!("a new {}", field.field_type), ""),
            true => {
                let what = "a new required field; rows of producers that do not know it would all be refused";
                Change::new(
                    Level::Major,
                    &field.name,
                    what,
                    "leave `required` out, or make it a row rule of a new table",
                )
            }
        });
    }
    changes
}

fn descends(now: &Field, before: &Field) -> bool {
    now.name == before.name || now.aliases.contains(&before.name)
}

fn removed(before: &Field, old: &Contract, new: &Contract) -> Change {
    // A field of the same type that was not there, under the same title or code, is the old one under a new name.
    let looks_renamed = |now: &&Field| {
        let is_alike = now.title == before.title || (now.code.is_some() && now.code == before.code);
        old.field(&now.name).is_none() && now.field_type == before.field_type && is_alike
    };
    match new.fields.iter().find(looks_renamed) {
        Some(now) => {
            let what = format!("renamed to `{}` without an alias; records under the old name would lose it", now.name);
            let forward =
                format!("give `{}` the custom property {{ property: aliases, value: [{}] }}", now.name, before.name);
            Change::new(Level::Major, &before.name, what, forward)
        }
        None => {
            let what = "removed; records that have it would lose it";
            let forward = "keep the field, without `required` if nobody gives it any more";
            Change::new(Level::Major, &before.name, what, forward)
        }
    }
}

fn same_field(before: &Field, now: &Field, changes: &mut Vec<Change>) {
    let mut add = |level, what: String, forward: &str| changes.push(Change::new(level, &now.name, what, forward));
    if before.name != now.name {
        add(Level::Minor, format!("renamed from `{}`, which is its alias", before.name), "");
    }
    for alias in before.aliases.iter().filter(|alias| !now.aliases.contains(alias) && **alias != now.name) {
        let what = format!("alias `{alias}` is gone; records under that name would lose the field");
        add(Level::Major, what, "keep the alias for as long as such records are in the log");
    }
    if before.field_type != now.field_type {
        let (level, forward) = match widens(before.field_type, now.field_type) {
            true => (Level::Minor, ""),
            false => (Level::Major, "give the new type to a field of a new name and keep this one"),
        };
        add(level, format!("{} became {}", before.field_type, now.field_type), forward);
    }
    if before.required != now.required {
        match now.required {
            false => add(Level::Minor, "need not be present any more".into(), ""),
            true => {
                let what = "became required; rows without it would be refused";
                add(Level::Major, what.into(), "leave `required` out; fill the field at its source first");
            }
        }
    }
    constraints(before, now, &mut add);
    if before.class != now.class {
        add(Level::Minor, format!("class {:?} became {:?}", before.class, now.class), "");
    }
    if before.title != now.title || before.code != now.code {
        add(Level::Patch, "title or field code".into(), "");
    }
}

/// What a value must satisfy: looser is compatible, tighter is not.
fn constraints(before: &Field, now: &Field, add: &mut impl FnMut(Level, String, &str)) {
    let forward = "keep the looser rule; rows that are there, and producers by it, must still pass";
    let mut bound = |what: &str, before: Option<f64>, now: Option<f64>, loosens: fn(f64, f64) -> bool| {
        let (level, forward) = match (before, now) {
            (before, now) if before == now => return,
            (Some(before), Some(now)) if loosens(before, now) => (Level::Minor, ""),
            (Some(_), None) => (Level::Minor, ""),
            _ => (Level::Major, forward),
        };
        let say = |bound: Option<f64>| bound.map_or("none".to_string(), |bound| bound.to_string());
        add(level, format!("{what}: {} became {}", say(before), say(now)), forward);
    };
    let length = |length: Option<usize>| length.map(|length| length as f64);
    bound("minimum", before.minimum, now.minimum, |before, now| now < before);
    bound("maximum", before.maximum, now.maximum, |before, now| now > before);
    bound("shortest length", length(before.length_min), length(now.length_min), |before, now| now < before);
    bound("longest length", length(before.length_max), length(now.length_max), |before, now| now > before);
    match (&before.pattern, &now.pattern) {
        (before, now) if before == now => {}
        (Some(_), None) => add(Level::Minor, "the pattern is gone".into(), ""),
        _ => add(Level::Major, "another pattern, which rows that are there may not match".into(), forward),
    }
    match (&before.values, &now.values) {
        (None, None) => {}
        (Some(_), None) => add(Level::Minor, "any value now".into(), ""),
        (None, Some((set, _))) => add(Level::Major, format!("only values of {set} now"), forward),
        (Some((_, before)), Some((set, now))) => {
            let gone: Vec<_> = before.iter().filter(|value| !now.contains(value)).cloned().collect();
            let more = now.iter().filter(|value| !before.contains(value)).count();
            if !gone.is_empty() {
                let what = format!("{set}: no {} any more", gone.join(", "));
                add(Level::Major, what, "keep the codes; what is not used any more does no harm");
            } else if more > 0 {
                add(Level::Minor, format!("{set}: {more} more"), "");
            }
        }
    }
}

/// Whether every value of `before` is one of `now`, and Avro or a cast leads from one to the other.
pub(super) fn widens(before: FieldType, now: FieldType) -> bool {
    match (before, now) {
        (FieldType::Int, FieldType::BigInt | FieldType::Double) => true,
        (
            FieldType::Decimal { precision: before, scale: before_scale },
            FieldType::Decimal { precision: now, scale: now_scale },
        ) => now_scale == before_scale && now > before,
        _ => false,
    }
}
