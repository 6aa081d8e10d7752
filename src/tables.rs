//! `quad tables`: which tables there are, and with `--describe` all that the contract of one says.
//!
//! Contracts, the profile's definitions and the lake's versions enter; text for people leaves or, with `--json`, one document
//! for scripts.

mod profile;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use lake::Lake;
use query::profile::table::Of;
use schemas::describe;
use schemas::{Contract, Contracts, Field, Kind};
use serde_json::{Value, json};

use crate::report::{print_document, print_table};
use crate::settings::Settings;

/// `quad tables`.
#[derive(Args)]
pub struct TablesArgs {
    /// Tell all about one table, such as academic.grade: what it is for, its fields, rules and codes.
    #[arg(long, value_name = "TABLE")]
    describe: Option<String>,
    /// Print JSON, one document.
    #[arg(long)]
    json: bool,
}

/// Prints every table, what it is and what has landed; or all about one of them.
///
/// # Errors
/// A name that is no table, or a lake that cannot be read.
pub async fn run(settings: &Settings, args: &TablesArgs) -> Result<ExitCode> {
    let contracts = settings.contracts()?;
    match args.describe.as_deref().map(|name| (name, profile::named(name))) {
        Some((_, Some(of))) => profile::describe(settings, &contracts, of, args.json).await?,
        Some((name, None)) => describe(&contracts, name, args.json)?,
        None => list(settings, &contracts, args.json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(settings: &Settings, contracts: &Contracts, as_json: bool) -> Result<()> {
    let (lake, definitions) = (Lake::open(&settings.lake)?, profile::definitions(settings, contracts)?);
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for contract in contracts.all() {
        let table = if contract.kind == Kind::Derived { None } else { lake.find(contract).await? };
        let (version, stored) = match &table {
            Some(table) => (Some(table.version()), Some(table.rows()?)),
            None => (None, None),
        };
        documents.push(json!({
            "table": contract.name(), "title": contract.title, "kind": contract.kind, "key": contract.key,
            "class": contract.class() as u8, "version": version, "rows": stored,
            "fields": contract.fields.iter().map(|field| json!({
                "name": field.name, "title": field.title, "class": field.class as u8, "required": field.required,
            })).collect::<Vec<_>>(),
        }));
        let number = |value: Option<u64>| value.map_or("-".to_string(), |value| value.to_string());
        rows.push(vec![
            contract.name(),
            contract.title.clone(),
            contract.kind.to_string(),
            contract.key.join(", "),
            (contract.class() as u8).to_string(),
            number(stored),
            number(version),
        ]);
    }
    for of in Of::ALL {
        let columns = of.columns(&definitions.items);
        let (name, class, key) = (profile::name(of), profile::class(&columns).to_string(), of.key().join(", "));
        rows.push(vec![
            name,
            of.title().to_string(),
            "derived".to_string(),
            key,
            class,
            "-".to_string(),
            "-".to_string(),
        ]);
        documents.push(profile::listed(of, &columns));
    }
    if as_json {
        print_document(&documents)?;
    } else {
        print_table(&["table", "title", "kind", "key", "class", "rows in history", "version"], &rows);
    }
    Ok(())
}

fn describe(contracts: &Contracts, name: &str, as_json: bool) -> Result<()> {
    let Some(contract) = contracts.all().find(|contract| contract.name() == name) else {
        let near = contracts.near(name).join(", ");
        bail!(crate::usage(format!("no table is named {name}; near it: {near}; `quad tables` lists all")));
    };
    if as_json {
        print_document(&document(contracts, contract))?;
        return Ok(());
    }
    let Contract { title, purpose, description, limitations, .. } = contract.as_ref();
    println!("{name}  {title}\n\n{purpose}.\n{description}\n{limitations}\n");
    let facts = describe::facts(contract).into_iter().map(|(label, fact)| vec![label.to_string(), fact]);
    print_table(&[], &facts.collect::<Vec<_>>());
    println!();
    let row = |field: &Field| {
        vec![
            field.name.clone(),
            field.title.clone(),
            field.field_type.to_string(),
            if field.required { "no" } else { "yes" }.to_string(),
            (field.class as u8).to_string(),
            field.code.clone().unwrap_or_default(),
            describe::rules(field),
            field.description.clone(),
        ]
    };
    let head = ["field", "title", "type", "null", "class", "code", "rules", "meaning"];
    print_table(&head, &contract.fields.iter().map(row).collect::<Vec<_>>());
    for rule in &contract.row_rules {
        println!("\nrule {}: {}\n  {}", rule.name, rule.description, rule.predicate);
    }
    for set in describe::code_sets(contract) {
        println!("\ncode set {set}");
        let codes = contracts.codes().get(set).into_iter().flatten();
        let row = |(code, meaning): (&String, &schemas::codes::Meaning)| {
            vec![format!("  {code}"), meaning.name.clone(), meaning.name_en.clone(), meaning.standard.clone()]
        };
        print_table(&[], &codes.map(row).collect::<Vec<_>>());
    }
    Ok(())
}

/// A contract for scripts: everything by name, types as contracts write them.
fn document(contracts: &Contracts, contract: &Contract) -> Value {
    let field = |field: &Field| {
        let (set, values) = field.values.as_ref().map(|(set, values)| (set.as_str(), values)).unzip();
        json!({
            "name": field.name, "title": field.title, "description": field.description,
            "type": field.field_type.to_string(), "required": field.required, "class": field.class as u8,
            "code": field.code, "aliases": field.aliases, "code_set": set.filter(|set| *set != "values"), "values": values,
            "minimum": field.minimum, "maximum": field.maximum,
            "length_min": field.length_min, "length_max": field.length_max, "pattern": field.pattern,
        })
    };
    let codes = |set: &str| -> Value {
        let codes = contracts.codes().get(set).into_iter().flatten();
        codes.map(|(code, meaning)| json!({ "code": code, "name": meaning.name, "name_en": meaning.name_en })).collect()
    };
    let sets = describe::code_sets(contract).into_iter().map(|set| (set.to_string(), codes(set)));
    let is_derived = contract.kind == Kind::Derived;
    json!({
        "table": contract.name(), "title": contract.title, "purpose": contract.purpose,
        "description": contract.description, "limitations": contract.limitations, "owner": contract.owner,
        "version": contract.version, "kind": contract.kind, "class": contract.class() as u8, "key": contract.key,
        "event_time": contract.event_time, "ordering": contract.ordering, "retention_days": contract.retention_days,
        "freshness_s": contract.freshness_s, "topic": (!is_derived).then(|| contract.topic()),
        "fields": contract.fields.iter().map(field).collect::<Vec<_>>(),
        "rules": contract.row_rules.iter().map(|rule| json!({
            "name": rule.name, "predicate": rule.predicate, "description": rule.description,
        })).collect::<Vec<_>>(),
        "code_sets": sets.collect::<serde_json::Map<_, _>>(),
    })
}
