//! A new connector for a contract, with everything a data engineer has to fill in.
//!
//! A name, a kind of source and a contract enter; the files of a folder leave: `connector.toml`, one mapping with every
//! field of the contract, and a code map for each field that has codes. They load as they are. Nothing is overwritten.

use std::path::{Path, PathBuf};

use schemas::{Class, Contract, Field, FieldType};

use crate::connector::Kind;
use crate::error::Error;

/// Writes the connector `name` below `dir`; the files that were written.
///
/// # Errors
/// `Settings` for a name that cannot be one, a folder that is there already or cannot be written.
pub fn write(dir: &Path, name: &str, kind: Kind, contract: &Contract) -> Result<Vec<PathBuf>, Error> {
    write_files(dir, name, &files(name, kind, contract))
}

/// Whether `name` can be that of a new connector below `dir`.
///
/// # Errors
/// `Settings` for a name that cannot be one, or a folder that is there already.
pub fn check_free(dir: &Path, name: &str) -> Result<(), Error> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !is_plain || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Err(Error::settings(format!(
            "`{name}` is no name of a connector: lower case, digits and _, as in library_hj"
        )));
    }
    let folder = dir.join(name);
    if folder.exists() {
        return Err(Error::settings(format!(
            "{} is there already and is left as it is: choose another name",
            folder.display()
        )));
    }
    Ok(())
}

/// Writes the files of the new connector `name`; their paths.
///
/// # Errors
/// As [`write`].
pub fn write_files(dir: &Path, name: &str, files: &[(String, String)]) -> Result<Vec<PathBuf>, Error> {
    check_free(dir, name)?;
    let mut written = Vec::new();
    for (file, text) in files {
        let file = dir.join(name).join(file);
        let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&file, text))
            .map_err(|error| Error::settings(format!("could not write {}: {error}", file.display())))?;
        written.push(file);
    }
    Ok(written)
}

/// The files of a connector, by their names in its folder.
fn files(name: &str, kind: Kind, contract: &Contract) -> Vec<(String, String)> {
    let mut files = vec![
        ("connector.toml".to_string(), connector(name, kind, contract)),
        (format!("{}.sql", contract.table), mapping(kind, contract)),
    ];
    for field in &contract.fields {
        if let Some(codes) = codes(field) {
            let lines: String = codes.iter().map(|(value, code)| format!("{value},{code}\n")).collect();
            files.push((format!("codes/{}.csv", field.name), format!("source_value,code\n{lines}")));
        }
    }
    files
}

/// The fields that every row must have, and the others.
fn split(contract: &Contract) -> (Vec<&Field>, Vec<&Field>) {
    contract.fields.iter().partition(|field| field.required || contract.key.contains(&field.name))
}

/// What a source is assumed to call a field.
fn column(field: &Field) -> String {
    field.name.to_uppercase()
}

/// The column that says when a row changed.
const CHANGED: &str = "ROW_UPDATED_AT";

fn connector(name: &str, kind: Kind, contract: &Contract) -> String {
    let (table, target) = (&contract.table, contract.name());
    // What tells rows apart stays readable, so that a letter can be found at its source.
    let is_place = |field: &Field| contract.key.contains(&field.name) || contract.event_time == field.name;
    let secret = contract.fields.iter().filter(|field| field.class == Class::HighlySensitive && !is_place(field));
    let sensitive = secret.map(|field| format!("\"{}\"", column(field))).collect::<Vec<_>>().join(", ");
    let (kind_name, interface, table_keys) = match kind {
        Kind::Sql => ("sql", "", sql(contract)),
        Kind::Files => ("files", "", files_table(contract)),
        Kind::Http => ("http", HTTP, http_table(contract)),
        Kind::Kafka => ("kafka", "", kafka_table(contract)),
        Kind::Singer => ("singer", SINGER, singer_table(contract)),
        Kind::Mqtt => ("mqtt", "", mqtt_table(contract)),
        Kind::PostgresCdc => ("postgres_cdc", "", postgres_cdc_table(contract)),
        Kind::Webhook => ("webhook", "", webhook_table(contract)),
    };
    format!(
        "# {name}: which system this is, of which vendor and version, and on what it was tried.\n\n\
         title = \"{name}\"\nkind = \"{kind_name}\"\n\
         # Columns of the source whose values are masked in dead letters and previews.\n\
         sensitive = [{sensitive}]\n{interface}\n\
         # {title}\n[tables.{table}]\ncontract = \"{target}\"\n{table_keys}",
        title = contract.title,
    )
}

fn sql(contract: &Contract) -> String {
    let (needed, _) = split(contract);
    let columns = needed.iter().map(|field| column(field)).collect::<Vec<_>>().join(", ");
    let key = contract.key.iter().map(|name| format!(", \"{}\"", name.to_uppercase())).collect::<String>();
    format!(
        "# Runs in the source. Name its columns as the mapping does: XH AS STUDENT_NO. Select no more than is mapped.\n\
         query = \"\"\"\nSELECT {columns}, {CHANGED}\nFROM TABLE_NAME\n\"\"\"\n\
         pull = \"cursor\"\n\
         # NOT NULL, unique together, the time of change first. Is there none? pull = \"snapshot\" and no cursor.\n\
         cursor = [\"{CHANGED}\"{key}]\n\
         # Rows that come late are still found so many seconds back.\noverlap_s = 600\n"
    )
}

fn files_table(contract: &Contract) -> String {
    let input = input(contract, |field| field.title.clone(), "{modified}");
    format!(
        "# Below the folder of the source.\nfiles = \"{table}/**/*.csv\"\n\
         # New and changed files; \"snapshot\" when all files together are the table, and what is in none is deleted.\n\
         pull = \"changed\"\n# Input column = header; in JSON lines, JSON pointer.\n{input}",
        table = contract.table,
    )
}

const HTTP: &str = "
[http]
# \"none\", \"bearer\" or \"oauth2\", see docs/connectors.md.
auth = \"none\"
requests_per_s_max = 5
";

fn http_table(contract: &Contract) -> String {
    let input = input(contract, |field| format!("/{}", field.name), "/updated_at");
    format!(
        "# Below the URL of the source.\npath = \"/v1/{table}\"\nquery = {{ page = \"{{page}}\" }}\n\
         # Everything each time, by page number; by \"id\", \"token\" or time, with \"cursor\": see docs/connectors.md.\n\
         pull = \"snapshot\"\npages = \"number\"\n# JSON pointer in the answer.\nrecords = \"/data\"\n\
         # Input column = JSON pointer in a record.\n{input}",
        table = contract.table,
    )
}

fn kafka_table(contract: &Contract) -> String {
    let input = input(contract, |field| format!("/{}", field.name), "/updated_at");
    format!(
        "topic = \"{table}\"\npull = \"cursor\"\n# Or \"debezium\"; then the mapping may say \"_op\" AS op, and \"_timestamp\" is the \
         time of change.\nformat = \"json\"\n# Input column = JSON pointer in a record.\n{input}",
        table = contract.table,
    )
}

const SINGER: &str = "
[singer]
# On the search path, or a path. It is run with --config, --catalog and --state.
command = \"tap-name\"
# The tap's own settings; {connection}, {user}, {password} and {properties.NAME} are the source's.
config = { password = \"{password}\" }
";

fn singer_table(contract: &Contract) -> String {
    let input = input(contract, |field| field.name.clone(), "updated_at");
    format!(
        "# As the tap's --discover names it.\nstream = \"{table}\"\n\
         # What is after the tap's state; \"snapshot\" when each run brings all, and what is not there is deleted.\n\
         pull = \"cursor\"\nreplication_key = \"updated_at\"\n# Input column = property, or JSON pointer in a record.\n{input}",
        table = contract.table,
    )
}

fn mqtt_table(contract: &Contract) -> String {
    let input = input(contract, |field| format!("/{}", field.name), "/updated_at");
    format!(
        "# Topic filters: + stands for one level, # for all that follow.\ntopics = [\"{table}/#\"]\n\
         # JSON pointer in the message; \"\" is the whole message.\nrecords = \"\"\n\
         # Input column = JSON pointer in a record, or {{topic}}, {{topic/2}} (a level), {{received}}, {{retained}}.\n{input}",
        table = contract.table,
    )
}

fn postgres_cdc_table(contract: &Contract) -> String {
    let key = contract.key.iter().map(|name| format!("\"{}\"", name.to_uppercase())).collect::<Vec<_>>().join(", ");
    format!(
        "# With its schema. `quad doctor` says what its owner has to run there.\ntable = \"public.{table}\"\n\
         # Columns of [input] that the contract's key is made of.\nkey = [{key}]\n\
         # Input column = column of the table.\n{input}",
        table = contract.table,
        input = columns(contract, |field| field.name.clone(), None),
    )
}

fn webhook_table(contract: &Contract) -> String {
    let input = input(contract, |field| format!("/{}", field.name), "/updated_at");
    format!(
        "# JSON pointer in the body; \"\" is the whole body.\nrecords = \"\"\n\
         # Input column = JSON pointer in a record.\n{input}"
    )
}

/// `[input]`: each column and its place; those that may be missing behind a `#`.
fn input(contract: &Contract, place: impl Fn(&Field) -> String, changed: &str) -> String {
    columns(contract, place, Some(changed))
}

/// As [`input`]; without `changed` for a source that tells itself when a row changed.
fn columns(contract: &Contract, place: impl Fn(&Field) -> String, changed: Option<&str>) -> String {
    let (needed, others) = split(contract);
    let line = |field: &&Field| format!("{} = \"{}\"\n", column(field), place(field));
    let needed: String = needed.iter().map(line).collect();
    let others: String = others.iter().map(|field| format!("# {}", line(field))).collect();
    let changed = changed.map(|place| format!("{CHANGED} = \"{place}\"\n")).unwrap_or_default();
    format!("[tables.{}.input]\n{needed}{changed}{others}", contract.table)
}

fn mapping(kind: Kind, contract: &Contract) -> String {
    let (needed, others) = split(contract);
    let made = |field: &Field| expression(field, &format!("\"{}\"", column(field)));
    let line = |field: &Field| format!("{} AS {}", made(field), field.name);
    let needed: String = needed.iter().map(|field| format!("    {}, -- {}\n", line(field), field.title)).collect();
    let others: String = others.iter().map(|field| format!("    -- , {} -- {}\n", line(field), field.title)).collect();
    let named = if kind == Kind::Sql { "and add the column to the query" } else { "and the # of its line in [input]" };
    let changed = match kind {
        Kind::PostgresCdc => "\"_op\" AS op, -- D where the row was deleted\n    \"_timestamp\"".to_string(),
        _ => format!("cn_timestamp(\"{CHANGED}\")"),
    };
    format!(
        "-- → {target}. All columns of input are text. Each field's rules: quad tables --describe {target}\n\
         SELECT\n{needed}    {changed} AS src_updated_at -- when the row changed\n\
         \x20   -- Fields that may be missing: take away the first dashes {named}.\n{others}FROM input\n",
        target = contract.name(),
    )
}

/// How a field is made of a column, which is quoted, to begin with.
pub(super) fn expression(field: &Field, column: &str) -> String {
    if codes(field).is_some() {
        return format!("code_map('{}', {column})", field.name);
    }
    match field.field_type {
        FieldType::Timestamp => format!("cn_timestamp({column})"),
        FieldType::Date => format!("cn_date({column})"),
        FieldType::String if ["_id", "_no"].iter().any(|end| field.name.ends_with(end)) => {
            format!("clean_id({column})")
        }
        FieldType::String => format!("clean_text({column})"),
        _ if field.name.ends_with("_fen") => format!("yuan_to_fen({column})"),
        _ => column.to_string(),
    }
}

/// The code map to begin with: each code stands for itself.
pub(super) fn codes(field: &Field) -> Option<Vec<(String, String)>> {
    match (&field.values, field.field_type) {
        (Some((_, codes)), _) => Some(codes.iter().map(|code| (code.clone(), code.clone())).collect()),
        (None, FieldType::Bool) => Some(vec![("1".into(), "true".into()), ("0".into(), "false".into())]),
        _ => None,
    }
}
