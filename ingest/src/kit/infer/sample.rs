//! The first rows of a table, a file or an address, read before there is a connector for it.
//!
//! Where they are enters; columns of text, and what a connector's file says of their place, leave. Nothing is kept.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::RecordBatch;
use schemas::Contracts;
use serde_json::Value;

use crate::connector::{Connector, Kind, Pull, Spec, TableMapping};
use crate::error::Error;
use crate::extract::files::FilesSource;
use crate::extract::http::{self, HttpSource};
use crate::extract::source::{self, Worker};
use crate::extract::{files, records, sql};
use crate::kit::preview;
use crate::settings::SourceSettings;

/// Lines of a file of JSON lines, and records of an answer, in which members are looked for.
const LOOKED_AT_MAX: usize = 200;
/// How deep in an answer its records are looked for.
const DEPTH_MAX: usize = 4;

/// Rows whose meaning is to be found.
pub struct Sample {
    pub kind: Kind,
    /// Names of the input columns, in the order of `rows`.
    pub columns: Vec<String>,
    /// Where each is: a header, a JSON pointer, or its name in the source.
    pub places: Vec<String>,
    pub rows: RecordBatch,
    /// The keys of the table that say where rows are; of `sql` the name of the table.
    pub keys: String,
    /// What to set as `connection`.
    pub connection: String,
    /// How an interface was asked, when it is not the default.
    pub api: &'static str,
}

/// A table of which nothing but its place is known.
fn unknown(spec: Spec, contracts: &Contracts) -> Result<TableMapping, Error> {
    let contract = contracts.iter().next().ok_or_else(|| Error::settings("there is no contract"))?.clone();
    let pull = Pull::Snapshot { deletes_share_max: 1.0 };
    Ok(TableMapping { name: "sample".into(), contract, mapping_sql: String::new(), pull, spec })
}

fn connector(kind: Kind) -> Connector {
    let (http, code_maps) = (http::Api::default(), BTreeMap::new());
    Connector {
        name: "sample".into(),
        title: String::new(),
        kind,
        sensitive: vec![],
        http,
        singer: None,
        tables: vec![],
        code_maps,
    }
}

/// A table of a database.
///
/// # Errors
/// As of a pull.
pub fn of_table(
    settings: &SourceSettings,
    table: &str,
    rows_max: usize,
    contracts: &Contracts,
    worker: &Worker,
) -> Result<Sample, Error> {
    let declared = sql::Table { query: format!("SELECT * FROM {table}"), cursor: vec![], overlap_s: 0, twins: false };
    let mut source = source::connect(&connector(Kind::Sql), settings, worker)?;
    let rows = preview::sampled(source.as_mut(), &unknown(Spec::Sql(declared), contracts)?, rows_max)?;
    let columns: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    let connection = "Driver=...;Server=...;Uid=...".to_string();
    Ok(Sample { kind: Kind::Sql, places: columns.clone(), columns, rows, keys: table.to_string(), connection, api: "" })
}

/// A file: CSV, XLSX, JSON lines or Parquet by its ending; `header_row` is where headers are.
///
/// # Errors
/// `Source` with the line, `Settings` for an ending that tells no format.
pub fn of_file(
    file: &Path,
    header_row: usize,
    rows_max: usize,
    contracts: &Contracts,
    worker: &Worker,
) -> Result<Sample, Error> {
    let file =
        file.canonicalize().map_err(|error| Error::settings(format!("could not read {}: {error}", file.display())))?;
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = file.parent().map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
    let settings = SourceSettings { connection: Some(folder.clone()), ..SourceSettings::of("sample") };
    let mut declared = files::Table {
        files: glob::Pattern::escape(&name),
        format: None,
        input: BTreeMap::from([("_".to_string(), "{file}".to_string())]),
        settle_s: 0,
        encoding: None,
        delimiter: None,
        sheet: None,
        header_row,
    };
    let mut source = FilesSource::connect(&settings, worker)?;
    let is_lines = name.ends_with(".jsonl") || name.ends_with(".ndjson");
    let places = match is_lines {
        true => pointers(&lines(&file)?),
        false => source.headers(&unknown(Spec::Files(declared.clone()), contracts)?)?,
    };
    let columns = names(&places);
    declared.input = columns.iter().cloned().zip(places.iter().cloned()).collect();
    let rows = preview::sampled(&mut source, &unknown(Spec::Files(declared), contracts)?, rows_max)?;
    let header = if header_row > 1 { format!("\nheader_row = {header_row}") } else { String::new() };
    let keys = format!(
        "# Below the folder of the source; a pattern such as \"**/*.csv\" takes further files.\nfiles = {name:?}{header}"
    );
    of_rows(Kind::Files, columns, places, rows, keys, folder)
}

/// The JSON that an address answers with.
///
/// # Errors
/// As of a pull; `Source` when no list of records is in the answer.
pub fn of_url(settings: &SourceSettings, url: &str, contracts: &Contracts, worker: &Worker) -> Result<Sample, Error> {
    let parsed = reqwest::Url::parse(url).map_err(|error| Error::settings(format!("`{url}` is no URL: {error}")))?;
    let origin = parsed.origin().ascii_serialization();
    let query: BTreeMap<_, _> = parsed.query_pairs().into_owned().collect();
    let settings = SourceSettings { connection: Some(origin.clone()), ..settings.clone() };
    let parameters = query.iter().map(|(name, value)| format!("{name:?} = {value:?}")).collect::<Vec<_>>().join(", ");
    let parameters = if query.is_empty() { String::new() } else { format!("\nquery = {{ {parameters} }}") };
    let place = format!("path = {:?}{parameters}\npages = \"none\"", parsed.path());
    let declared: http::Table = toml::from_str(&format!("{place}\nrecords = \"\"\n[input]\nX = \"\"\n"))
        .map_err(|error| Error::internal("ask for a sample", error))?;
    let resolved = crate::extract::secret::resolve(&settings, worker)?;
    let mut api = connector(Kind::Http);
    let mut told = "";
    if resolved.password.is_some() {
        api.http.auth = http::Auth::Bearer;
        told = "[http]\nauth = \"bearer\"\n\n";
    }
    let mut source = HttpSource::connect(&api, &resolved, worker)?;
    let answer = source.answer(&unknown(Spec::Http(Box::new(declared)), contracts)?)?;
    let mut lists = Vec::new();
    find_lists(&answer, String::new(), DEPTH_MAX, &mut lists);
    let longest = lists.into_iter().max_by_key(|(_, list)| list.len());
    let (pointer, list) =
        longest.ok_or_else(|| Error::source(format!("{}: no list of records in the answer", parsed.path())))?;
    let places = pointers(list);
    let columns = names(&places);
    let rows = records::batch(list, &columns.iter().cloned().zip(places.iter().cloned()).collect())?;
    let keys =
        format!("# Is there more than one page? docs/connectors.md tells of `pages`.\n{place}\nrecords = {pointer:?}");
    Ok(Sample { api: told, ..of_rows(Kind::Http, columns, places, rows, keys, origin)? })
}

/// Puts columns in the order of the rows, which is that of their names.
fn of_rows(
    kind: Kind,
    columns: Vec<String>,
    places: Vec<String>,
    rows: RecordBatch,
    keys: String,
    connection: String,
) -> Result<Sample, Error> {
    let sorted: BTreeMap<_, _> = columns.into_iter().zip(places).collect();
    let (columns, places) = sorted.into_iter().unzip();
    Ok(Sample { kind, columns, places, rows, keys, connection, api: "" })
}

/// Names for input columns: a header as it is, the last parts of a pointer; each once.
fn names(places: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for place in places {
        let mut name = place.trim_start_matches('/').replace(['/', '"'], "_").to_uppercase();
        while names.contains(&name) {
            name.push('_');
        }
        names.push(name);
    }
    names
}

fn lines(file: &Path) -> Result<Vec<Value>, Error> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Error::settings(format!("could not read {}: {error}", file.display())))?;
    let parse = |(at, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|_| Error::source(format!("{}: line {}: not JSON", file.display(), at + 1)))
    };
    let lines = text.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.take(LOOKED_AT_MAX).map(parse).collect()
}

/// The pointers of all values in some records that are neither lists nor objects.
fn pointers(records: &[Value]) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(name, value)| {
                walk(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found)
            }),
            Value::Array(_) => {}
            _ if !found.iter().any(|known| known == at) => found.push(at.to_string()),
            _ => {}
        }
    }
    let mut found = Vec::new();
    records.iter().take(LOOKED_AT_MAX).for_each(|record| walk(record, "", &mut found));
    found
}

/// Every list of objects in an answer, with its pointer.
fn find_lists<'v>(value: &'v Value, at: String, depth: usize, found: &mut Vec<(String, &'v [Value])>) {
    match value {
        Value::Array(list) if list.first().is_some_and(Value::is_object) => found.push((at, list)),
        Value::Object(members) if depth > 0 => {
            members.iter().for_each(|(name, value)| find_lists(value, format!("{at}/{name}"), depth - 1, found));
        }
        _ => {}
    }
}
