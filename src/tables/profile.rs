//! The profile's tables in words. The settings' definitions enter; what `quad tables` says of `profile.student` and
//! `profile.item` leaves, so that it can never say anything but what SQL gives.

use anyhow::Result;
use query::profile::table::{Column, Of, SCHEMA, sql_name};
use query::profile::{Computer, Definitions};
use schemas::Contracts;
use serde_json::{Value, json};

use crate::report::{print_document, print_table};
use crate::settings::Settings;

const PURPOSE: &str = "What is known of each student, as the profile service tells it.";
const LIMITATIONS: &str = "Derived from the tables by query/profile/*.toml: no topic, no history. A question that reads it is \
    answered from the snapshot that the profiles were computed from. Items of class 3 are null over SQL. The lake has a copy, as \
    old as query.profile_table_every_s lets it be.";

/// The table of this name, if it is one of the profile's.
pub fn named(name: &str) -> Option<Of> {
    let table = name.strip_prefix(SCHEMA)?.strip_prefix('.')?;
    Of::ALL.into_iter().find(|of| of.table() == table)
}

/// `profile.<table>`.
pub fn name(of: Of) -> String {
    format!("{SCHEMA}.{}", of.table())
}

pub fn definitions(settings: &Settings, contracts: &Contracts) -> Result<Definitions> {
    let query = &settings.query;
    Ok(Definitions::load(&query.profile_dir, contracts, &query.profile_sections_on)?)
}

/// The highest class of any column.
pub fn class(columns: &[Column]) -> u8 {
    columns.iter().map(|column| column.class).max().unwrap_or_default()
}

/// One of all tables, for scripts.
pub fn listed(of: Of, columns: &[Column]) -> Value {
    json!({
        "table": name(of), "title": of.title(), "kind": "derived", "key": of.key(), "class": class(columns),
        "version": null, "rows": null,
        "fields": columns.iter().map(|column| json!({
            "name": column.name, "title": column.title, "class": column.class, "required": !column.is_nullable,
        })).collect::<Vec<_>>(),
    })
}

/// Prints all of one table; its types are those of the definitions' SQL.
///
/// # Errors
/// A definition that does not fit the tables.
pub async fn describe(settings: &Settings, contracts: &Contracts, of: Of, as_json: bool) -> Result<()> {
    let computer = Computer::new(&settings.query, contracts, definitions(settings, contracts)?).await?;
    let columns = of.columns(computer.items());
    let schema = of.schema(computer.items(), computer.types());
    let types = schema.fields().iter().map(|field| sql_name(field.data_type()));
    if as_json {
        let field = |(column, data_type): (&Column, String)| {
            json!({
                "name": column.name, "title": column.title, "description": column.meaning, "type": data_type,
                "required": !column.is_nullable, "class": column.class,
            })
        };
        print_document(&json!({
            "table": name(of), "title": of.title(), "purpose": PURPOSE, "description": of.description(),
            "limitations": LIMITATIONS, "kind": "derived", "class": class(&columns), "key": of.key(),
            "fields": columns.iter().zip(types).map(field).collect::<Vec<_>>(),
        }))?;
        return Ok(());
    }
    println!("{}  {}\n\n{PURPOSE}\n{}\n{LIMITATIONS}\n", name(of), of.title(), of.description());
    let facts = [("kind", "derived".to_string()), ("class", class(&columns).to_string()), ("key", of.key().join(", "))];
    print_table(&[], &facts.map(|(label, fact)| vec![label.to_string(), fact]));
    println!();
    let row = |(column, data_type): (&Column, String)| {
        let null = if column.is_nullable { "yes" } else { "no" };
        vec![
            column.name.clone(),
            column.title.clone(),
            data_type,
            null.to_string(),
            column.class.to_string(),
            column.meaning.clone(),
        ]
    };
    let head = ["field", "title", "type", "null", "class", "meaning"];
    print_table(&head, &columns.iter().zip(types).map(row).collect::<Vec<_>>());
    Ok(())
}
