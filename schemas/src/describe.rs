//! Contracts in words.
//!
//! Contracts enter, text for people leaves. [`document`] is `docs/tables.md`, and `quad tables --describe` says the same of
//! one table: neither can tell anything but what is checked.

use std::fmt::Write as _;

use crate::codes::Meaning;
use crate::contract::{Contract, Contracts, Field, Kind};

/// What is said of a table as a whole, each under its label.
pub fn facts(contract: &Contract) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("kind", contract.kind.to_string()),
        ("class", contract.class().to_string()),
        ("key", contract.key.join(", ")),
        ("event time", contract.event_time.clone()),
    ];
    if contract.kind != Kind::Derived {
        let days = contract.retention_days.map_or("for ever".to_string(), |days| format!("{days} days"));
        let delay = contract.freshness_s.map_or("any delay".to_string(), |seconds| format!("within {seconds} s"));
        facts.extend([
            ("latest by", format!("{}, then the offset", contract.ordering.join(", "))),
            ("kept", days),
            ("fresh", delay),
            ("topic", contract.topic()),
        ]);
    }
    facts.extend([("owner", contract.owner.clone()), ("version", contract.version.clone())]);
    facts.retain(|(_, fact)| !fact.is_empty());
    facts
}

/// What a value of `field` must satisfy, in words; empty when anything of its type will do.
pub fn rules(field: &Field) -> String {
    let mut rules = Vec::new();
    match &field.values {
        Some((set, values)) if set == "values" => rules.push(format!("one of {}", values.join(", "))),
        Some((set, _)) => rules.push(format!("code set {set}")),
        None => {}
    }
    match (field.length_min, field.length_max) {
        (Some(least), Some(most)) => rules.push(format!("{least} to {most} characters")),
        (Some(least), None) => rules.push(format!("{least} characters or more")),
        (None, Some(most)) => rules.push(format!("at most {most} characters")),
        (None, None) => {}
    }
    match (field.minimum, field.maximum) {
        (Some(least), Some(most)) => rules.push(format!("{least} to {most}")),
        (Some(least), None) => rules.push(format!("{least} or more")),
        (None, Some(most)) => rules.push(format!("at most {most}")),
        (None, None) => {}
    }
    rules.extend(field.pattern.iter().map(|pattern| format!("matches `{pattern}`")));
    rules.join("; ")
}

/// The names of the code sets that fields of `contract` are held to, in the order of the fields.
pub fn code_sets(contract: &Contract) -> Vec<&str> {
    let mut sets = Vec::new();
    for (set, _) in contract.fields.iter().filter_map(|field| field.values.as_ref()) {
        if set != "values" && !sets.contains(&set.as_str()) {
            sets.push(set);
        }
    }
    sets
}

const HEAD: &str = "\
# The tables

This page is made from the contracts in [`schemas/contracts`](../schemas/contracts) and the code sets in
[`schemas/codes`](../schemas/codes); `UPDATE_EXPECT=1 cargo test -p schemas the_tables_document` writes it anew.
`quad tables --describe TABLE` says the same of one table.

Every table that records fill has two names: the truth now, one row a key, and `<table>_history`, every version received. Both have
these columns beside the fields of the contract:

| column | type | meaning |
|---|---|---|
| event_time | timestamp | when what the row tells of happened, in UTC: the field that the contract names, a date as its local midnight |
| local_ts | timestamp | the same as wall clock of the campus |
| biz_date | date | its day there |
| person_id, link_status | string | whose the row is as of its event time, and how sure that is; null where nobody's |
| src, src_key | string | the source, and the row's key there |
| op | string | I inserted, U updated, D deleted (a delete keeps the key and drops the rest) |
| src_updated_at | timestamp | the source's own time of change |
| ingested_at | timestamp | when Quad received the row |
| raw_hash | string | hash of the row's content |
| schema_version | int | major version of the contract |
| kafka_partition, kafka_offset | int, bigint | the record's place on the topic |

A field that may not be null is still null in a delete, unless it is part of the key. Classes: 0 public, 1 internal, 2 sensitive,
3 highly sensitive (PIPL article 28).
";

/// The reference of all tables and code sets, in Markdown.
pub fn document(contracts: &Contracts) -> String {
    let mut text = HEAD.to_string();
    let mut domain = "";
    for contract in contracts.all() {
        if contract.domain != domain {
            domain = &contract.domain;
            let _ = write!(text, "\n## {domain}\n");
        }
        table(&mut text, contract);
    }
    text += "\n## Code sets\n\nA set that is only known in part is not checked: its fields say so.\n";
    for (name, codes) in contracts.codes() {
        let users: Vec<String> = contracts.all().filter_map(|contract| user(contract, name)).collect();
        code_set(&mut text, name, codes.iter(), &users);
    }
    text
}

fn table(text: &mut String, contract: &Contract) {
    let Contract { purpose, description, limitations, .. } = contract;
    let _ = write!(text, "\n### {}\n\n{}. {description} {limitations}\n\n", contract.name(), cell(purpose));
    for (label, fact) in facts(contract) {
        let _ = writeln!(text, "- {label}: {fact}");
    }
    for rule in &contract.row_rules {
        let _ = writeln!(text, "- rule `{}`: {}", rule.name, rule.description);
    }
    text.push_str(
        "\n| field | 名称 | type | null | class | code | rules | meaning |\n|---|---|---|---|---|---|---|---|\n",
    );
    for field in &contract.fields {
        let null = if field.required { "no" } else { "yes" };
        let (class, code) = (field.class as u8, field.code.as_deref().unwrap_or_default());
        let Field { name, title, field_type, description, .. } = field;
        let rules = cell(&rules(field));
        let _ = writeln!(
            text,
            "| {name} | {title} | {field_type} | {null} | {class} | {code} | {rules} | {} |",
            cell(description)
        );
    }
}

fn code_set<'a>(
    text: &mut String,
    name: &str,
    codes: impl Iterator<Item = (&'a String, &'a Meaning)>,
    users: &[String],
) {
    let mut rows = String::new();
    let mut standards: Vec<&str> = Vec::new();
    for (code, Meaning { name, name_en, standard }) in codes {
        let _ = writeln!(rows, "| {code} | {name} | {name_en} |");
        if !standards.contains(&standard.as_str()) {
            standards.push(standard);
        }
    }
    let _ = write!(text, "\n### {name}\n\n{}; of {}.\n\n", standards.join(", "), users.join(", "));
    let _ = write!(text, "| code | 名称 | meaning |\n|---|---|---|\n{rows}");
}

/// The fields of `contract` that are held to the code set `name`, or name it, if there are any.
fn user(contract: &Contract, name: &str) -> Option<String> {
    let file = format!("codes/{name}.csv");
    let names_it = |field: &&Field| {
        field.values.as_ref().is_some_and(|(set, _)| set == name)
            || field.description.contains(&file)
            || field.code.as_deref() == Some(name)
    };
    let fields: Vec<_> = contract.fields.iter().filter(names_it).map(|field| field.name.as_str()).collect();
    (!fields.is_empty()).then(|| format!("{} ({})", contract.name(), fields.join(", ")))
}

/// Text for a cell: a bar would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
