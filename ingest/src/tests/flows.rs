//! The flow of each connector: the rows that a source gives, and what must become of them.
//!
//! `tests/flows/<connector>.flow` enters. A section `-- input TABLE` holds rows as a recording does, one JSON object of input
//! columns a line; what follows it up to the next is what must come out, each line with the number of its input row, and is
//! renewed by UPDATE_EXPECT=1. Lines before the first section are for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use chrono::DateTime;
use chrono_tz::Tz;
use expect_test::expect_file;
use schemas::Contracts;
use serde_json::Value;

use super::settings;
use crate::connector::{Connector, TableMapping};
use crate::extract::records;
use crate::kit::rehearsal::{Rehearsal, Taken};
use crate::letter::Letter;

const INPUT: &str = "-- input ";
/// When the rows come: rules may compare with it.
const RECEIVED: &str = "2026-12-31T00:00:00Z";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

fn flow(connector: &str) -> PathBuf {
    root().join(format!("../tests/flows/{connector}.flow"))
}

#[tokio::test]
async fn every_connector_gives_what_its_flow_says() {
    let contracts = Contracts::load(&root().join("../schemas")).expect("contracts");
    let mut missing = Vec::new();
    let mut connectors: Vec<_> = std::fs::read_dir(root().join("connectors")).expect("connectors").flatten().collect();
    connectors.sort_by_key(std::fs::DirEntry::path);
    for name in connectors.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let connector = Connector::load(&root().join("connectors"), &name, &contracts).expect("loads");
        let Ok(text) = std::fs::read_to_string(flow(&name)) else {
            missing.push(format!("{name}: there is no tests/flows/{name}.flow"));
            continue;
        };
        let inputs: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix(INPUT)).map(str::trim).collect();
        let lacking = connector.tables.iter().filter(|table| !inputs.contains(table.name.as_str()));
        missing.extend(lacking.map(|table| format!("{name}: its flow has no section `{INPUT}{}`", table.name)));
        expect_file![flow(&name)].assert_eq(&run(&connector, &text).await);
    }
    assert!(
        missing.is_empty(),
        "{}\nWrite a section `{INPUT}TABLE` for each table, followed by rows of its source as JSON objects of input columns, one \
         a line: good ones and bad ones, of nobody real. Then `UPDATE_EXPECT=1 cargo test -p quad -p ingest --lib flow` writes \
         what comes out, to be read before it is committed.",
        missing.join("\n")
    );
}

/// The flow with what comes out of its inputs.
async fn run(connector: &Connector, text: &str) -> String {
    let first = text.find(INPUT).unwrap_or(text.len());
    let mut flow = text[..first].to_string();
    for section in text[first..].split(INPUT).skip(1) {
        let (name, rest) = section.split_once('\n').unwrap_or((section, ""));
        let table = connector.tables.iter().find(|table| table.name == name.trim());
        let table = table.unwrap_or_else(|| panic!("{}: its flow names a table `{name}`", connector.name));
        let rows: Vec<_> =
            rest.lines().take_while(|line| !line.starts_with("-- ")).filter(|line| !line.is_empty()).collect();
        writeln!(flow, "{INPUT}{}\n{}\n", table.name, rows.join("\n")).expect("writes");
        flow += &came_out(connector, table, &rows).await;
    }
    flow.trim_end().to_string() + "\n"
}

/// The sections of what becomes of `rows`.
async fn came_out(connector: &Connector, table: &TableMapping, rows: &[&str]) -> String {
    let parse = |row: &&str| serde_json::from_str(row).unwrap_or_else(|error| panic!("{}: {row}: {error}", table.name));
    let values: Vec<Value> = rows.iter().map(parse).collect();
    let columns = values.iter().flat_map(|row| row.as_object().expect("a row is an object").keys());
    let input: BTreeMap<_, _> = columns.map(|name| (name.clone(), format!("/{name}"))).collect();
    let batch = records::batch(&values, &input).expect("a batch");
    let extract = settings(&root());
    let rehearsal = Rehearsal::new(&extract, &connector.name, connector, table, Tz::Asia__Shanghai).expect("a mapping");
    let received = DateTime::parse_from_rfc3339(RECEIVED).expect("a time").to_utc();
    let taken = rehearsal.run(&batch, received).await.expect("maps");
    let mut text = String::new();
    let mut section = |name: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            writeln!(text, "-- {name} {}\n{}\n", table.name, lines.join("\n")).expect("writes");
        }
    };
    section("rows", records_of(&taken));
    let reason = |(row, letter): &(usize, Letter)| {
        let field = if letter.field.is_empty() { String::new() } else { format!("{} ", letter.field) };
        format!("{} {field}{}: {}", row + 1, letter.rule, letter.message)
    };
    section("rejected", taken.rejected.iter().map(reason).collect());
    section("left out", taken.left_out.iter().map(|row| format!("{}", row + 1)).collect());
    let unknown = rehearsal.codes_unknown.values();
    section("unknown codes", unknown.iter().map(|(set, value, times)| format!("{set} {value} {times}")).collect());
    text
}

/// Each record as JSON: what the mapping gives, without nulls.
fn records_of(taken: &Taken) -> Vec<String> {
    let given = taken.mapped.batch.schema();
    let batch = &taken.records.batch;
    let columns: Vec<_> =
        batch.schema().fields().iter().zip(batch.columns()).map(|(f, c)| (f.clone(), c.clone())).collect();
    let record = |(at, row): (usize, &usize)| {
        let mut fields = Vec::new();
        for (field, column) in columns.iter().filter(|(field, _)| given.field_with_name(field.name()).is_ok()) {
            if arrow::array::Array::is_valid(column, at) {
                let value = arrow::util::display::array_value_to_string(column, at).expect("prints");
                fields.push(format!("{}={value}", field.name()));
            }
        }
        format!("{} {}", row + 1, fields.join(" | "))
    };
    taken.records.rows.iter().enumerate().map(record).collect()
}
