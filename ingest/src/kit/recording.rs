//! A recorded source: what a source said, in files that a person can read and edit.
//!
//! `<table>.jsonl` of a folder enters; the rows leave as the source would give them. A line is a row as an object of input
//! columns, or `{"_cursor": [...]}`, the cursor after the rows above it. A file without such lines has one all the same:
//! the number of rows that came. Columns that a row lacks are null. Nothing here knows a person: recordings are kept with
//! the code, so they hold made-up rows or pseudonyms.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use schemas::{Class, Field, FieldType};
use serde_json::Value;

use super::pseudonym::Pseudonyms;
use super::rehearsal::Rehearsal;
use crate::connector::{Connector, Pull, TableMapping};
use crate::error::Error;
use crate::extract::records;
use crate::extract::source::{Coverage, Each, Limits, Source};

/// The member of a line that is no row.
const CURSOR: &str = "_cursor";

/// A folder of recorded tables.
pub struct Recording {
    folder: PathBuf,
    limits: Limits,
}

/// One line of a file.
enum Line {
    Row(Value),
    Cursor(Vec<String>),
}

impl Recording {
    /// # Errors
    /// `Settings` when there is no such folder.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, Error> {
        match folder.is_dir() {
            true => Ok(Self { folder: folder.to_path_buf(), limits }),
            false => Err(Error::settings(format!("{} is no folder of a recording", folder.display()))),
        }
    }

    /// The lines of a table's file, read one by one.
    fn lines(&self, table: &TableMapping) -> Result<impl Iterator<Item = Result<Line, Error>>, Error> {
        let path = self.folder.join(format!("{}.jsonl", table.name));
        let file = File::open(&path)
            .map_err(|error| Error::source(format!("could not read the recording {}: {error}", path.display())))?;
        let parse = move |(at, line): (usize, std::io::Result<String>)| {
            let wrong = |what: String| Error::source(format!("{}: line {}: {what}", path.display(), at + 1));
            let line = line.map_err(|error| wrong(format!("could not be read: {error}")))?;
            if line.trim().is_empty() {
                return Ok(None);
            }
            let value: Value = serde_json::from_str(&line).map_err(|error| wrong(format!("not JSON: {error}")))?;
            match value.get(CURSOR) {
                Some(cursor) => {
                    let cursor = serde_json::from_value(cursor.clone());
                    cursor
                        .map(|cursor| Some(Line::Cursor(cursor)))
                        .map_err(|_| wrong("a cursor is a list of texts".into()))
                }
                None if value.is_object() => Ok(Some(Line::Row(value))),
                None => Err(wrong("neither a row nor a cursor: a row is an object of input columns".into())),
            }
        };
        Ok(BufReader::new(file).lines().enumerate().filter_map(move |line| parse(line).transpose()))
    }
}

impl Source for Recording {
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error> {
        self.lines(table)?.next().transpose().map(|_| ())
    }

    fn pull(&mut self, table: &TableMapping, after: &[String], each: Each<'_>) -> Result<Coverage, Error> {
        let (mut input, mut has_cursors) = (BTreeMap::new(), false);
        for line in self.lines(table)? {
            match line? {
                Line::Cursor(_) => has_cursors = true,
                Line::Row(row) => input.extend(
                    row.as_object()
                        .into_iter()
                        .flatten()
                        .map(|(name, _)| (name.clone(), format!("/{}", name.replace('~', "~0").replace('/', "~1")))),
                ),
            }
        }
        let is_snapshot = matches!(table.pull, Pull::Snapshot { .. });
        let mut is_before = !is_snapshot && !after.is_empty();
        let (mut rows, mut count) = (Vec::new(), 0usize);
        for line in self.lines(table)? {
            let (is_batch, cursor) = match line? {
                Line::Row(row) => {
                    count += 1;
                    rows.push(row);
                    (rows.len() == self.limits.rows_max, (!has_cursors).then(|| vec![count.to_string()]))
                }
                Line::Cursor(cursor) => (true, Some(cursor)),
            };
            if is_before {
                rows.clear();
                is_before = cursor.as_deref() != Some(after);
            } else if is_batch {
                each(records::batch(&std::mem::take(&mut rows), &input)?, cursor.filter(|_| !is_snapshot))?;
            }
        }
        if is_before {
            let path = self.folder.join(&table.name);
            return Err(Error::source(format!("{}.jsonl has no cursor {after:?}; begin again", path.display())));
        }
        let cursor = (!has_cursors && !is_snapshot).then(|| vec![count.to_string()]);
        each(records::batch(&rows, &input)?, cursor)?;
        Ok(Coverage::Whole)
    }
}

/// What is not written as it is: the connector's sensitive columns, and those that become names, numbers of persons and
/// other texts that contracts call sensitive. Of a column that becomes a code, codes that are known stay.
struct Personal {
    columns: HashSet<String>,
    coded: HashSet<String>,
    codes: HashSet<String>,
}

impl Personal {
    fn is(&self, column: &String, value: &str) -> bool {
        let is_code = || self.coded.contains(column) && self.codes.contains(value.trim());
        self.columns.contains(column) && !is_code()
    }
}

async fn personal(rehearsal: &Rehearsal, connector: &Connector, input: &RecordBatch) -> Result<Personal, Error> {
    let contract = &rehearsal.table.contract;
    let is_personal = |field: &&Field| {
        let is_name = field.name.ends_with("_no") || field.name == "name" || field.name == "cas_uid";
        field.field_type == FieldType::String && field.values.is_none() && (is_name || field.class >= Class::Sensitive)
    };
    let fields: HashSet<&str> = contract.fields.iter().filter(is_personal).map(|field| field.name.as_str()).collect();
    let sets: HashSet<&str> =
        contract.fields.iter().filter(|field| field.values.is_some()).map(|field| field.name.as_str()).collect();
    let known = connector.code_maps.values().flat_map(|map| map.keys().cloned());
    let canonical =
        contract.fields.iter().filter_map(|field| field.values.as_ref()).flat_map(|(_, codes)| codes.clone());
    let codes = known.chain(canonical).collect();
    let mut personal = Personal { columns: HashSet::new(), coded: HashSet::new(), codes };
    for column in input.schema().fields().iter().map(|field| field.name()) {
        let made = rehearsal.mapping.made_of(std::slice::from_ref(column), input).await?;
        let is_sensitive = connector.sensitive.iter().any(|name| name.eq_ignore_ascii_case(column));
        if is_sensitive || made.iter().any(|name| fields.contains(name.as_str())) {
            personal.columns.insert(column.clone());
        }
        if made.iter().any(|name| sets.contains(name.as_str())) {
            personal.coded.insert(column.clone());
        }
    }
    Ok(personal)
}

/// Writes rows of a source as the recording of their table below `folder`, persons under pseudonyms; the columns that are.
///
/// # Errors
/// `Settings` when the file is there already or cannot be written.
pub async fn write(
    folder: &Path,
    rehearsal: &Rehearsal,
    connector: &Connector,
    pseudonyms: &Pseudonyms<'_>,
    input: &RecordBatch,
) -> Result<Vec<String>, Error> {
    let personal = personal(rehearsal, connector, input).await?;
    let path = folder.join(format!("{}.jsonl", rehearsal.table.name));
    let failed = |error: std::io::Error| Error::settings(format!("could not write {}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let mut file = BufWriter::new(File::create_new(&path).map_err(failed)?);
    for row in 0..input.num_rows() {
        let mut object = serde_json::Map::new();
        for (field, column) in input.schema().fields().iter().zip(input.columns()) {
            let Some(text) = column.as_string_opt::<i32>().filter(|text| text.is_valid(row)) else { continue };
            let text = text.value(row);
            let text = if personal.is(field.name(), text) { pseudonyms.of(text) } else { text.to_string() };
            object.insert(field.name().clone(), text.into());
        }
        writeln!(file, "{}", Value::Object(object)).map_err(failed)?;
    }
    file.flush().map_err(failed)?;
    let mut personal: Vec<_> = personal.columns.into_iter().collect();
    personal.sort();
    Ok(personal)
}
