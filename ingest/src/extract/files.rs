//! The `files` source: tables in files that someone puts into a folder, or a bucket of object storage.
//!
//! CSV, XLSX, JSON lines and Parquet enter; batches of text columns leave. A file is taken whole or not at all: it is left
//! alone until it has not changed for a while, read once to see that it is whole, and only then read for its rows. What is
//! wrong with it is told with its name and line, and nothing of it is in the log.
//!
//! Two ways to pull. `changed` takes files that are new or have another time or size than before; a changed file brings all
//! of its rows again, and those that are as before are recognised, since every row is remembered. `snapshot` takes all
//! files together for the whole table, when any of them has changed; rows that vanished are deleted.
//!
//! The cursor is the list of files that were taken, each as `<name>\t<time in microseconds>\t<bytes>`, and of an object its
//! version.

mod bucket;
mod csv;
mod lines;
mod parquet;
mod rows;
mod sheet;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Deserialize;
use tempfile::TempPath;

use self::bucket::Bucket;
use self::rows::Rows;
use super::source::{Coverage, Each, Source, Worker};
use crate::connector::{Pull, Spec, TableMapping};
use crate::error::Error;
use crate::settings::SourceSettings;

/// Files of one table; more stop the pull with a clear error.
const FILES_MAX: usize = 10_000;
/// The cursor holds every file, so it is not saved after each of many small ones: they would be read again, and recognised.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How names match: a `*` does not cross folders, and hidden files are meant only when they are named.
const MATCH: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
/// A record, line or row beyond this is no record: most likely a quote is open.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// The keys of a table that is read from files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Which files, as a pattern below the source's folder, such as `grades/**/*.csv`.
    pub files: String,
    /// By the end of a file's name when left out.
    pub format: Option<Format>,
    /// Each column's place in a record: a header of CSV, XLSX and Parquet, a JSON pointer in JSON lines; `{file}` is the
    /// file's name and `{modified}` its time.
    pub input: BTreeMap<String, String>,
    /// A file is left alone until it has been as it is for so long.
    #[serde(default = "settle_s_default")]
    pub settle_s: u64,
    /// CSV: `utf-8`, `gb18030` or another name of the Encoding Standard. When left out, a byte order mark tells, or else
    /// the first line that is not plain ASCII: UTF-8 when it is that, GB18030 when not.
    pub encoding: Option<String>,
    /// CSV: one character; a comma when left out.
    pub delimiter: Option<char>,
    /// XLSX: the sheet's name; the first when left out.
    pub sheet: Option<String>,
    /// CSV and XLSX: the row that holds the headers.
    #[serde(default = "header_row_default")]
    pub header_row: usize,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Csv,
    Xlsx,
    Jsonl,
    Parquet,
}

fn settle_s_default() -> u64 {
    10
}

fn header_row_default() -> usize {
    1
}

impl Table {
    /// The table, or what is wrong with it.
    pub(crate) fn checked(self) -> Result<Self, String> {
        glob::Pattern::new(&self.files).map_err(|error| format!("`files = \"{}\"`: {error}", self.files))?;
        if self.input.is_empty() {
            return Err("needs `[input]`: column = header, or JSON pointer in JSON lines".into());
        }
        if self.header_row == 0 {
            return Err("`header_row` counts from 1".into());
        }
        if let Some(delimiter) = self.delimiter.filter(|delimiter| !delimiter.is_ascii()) {
            return Err(format!("`delimiter = \"{delimiter}\"` is not one ASCII character"));
        }
        if let Some(label) = self.encoding.as_ref().filter(|label| csv::encoding(label).is_none()) {
            return Err(format!("`encoding = \"{label}\"` is unknown; it is \"utf-8\" or \"gb18030\""));
        }
        Ok(self)
    }

    fn of(table: &TableMapping) -> Result<&Self, Error> {
        match &table.spec {
            Spec::Files(declared) => Ok(declared),
            _ => Err(Error::settings(format!("table `{}` names no files", table.name))),
        }
    }

    fn format(&self, path: &Path) -> Result<Format, Error> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        self.format.map(Ok).unwrap_or_else(|| match ending.as_str() {
            "csv" | "txt" | "tsv" => Ok(Format::Csv),
            "xlsx" | "xlsm" => Ok(Format::Xlsx),
            "jsonl" | "ndjson" => Ok(Format::Jsonl),
            "parquet" => Ok(Format::Parquet),
            _ => Err(Error::settings(format!("`.{ending}` tells no format: set `format` of this table"))),
        })
    }
}

/// A folder or bucket that is looked at.
pub struct FilesSource {
    /// As the settings name it.
    connection: String,
    place: Place,
    worker: Worker,
}

enum Place {
    Folder(PathBuf),
    Bucket(Bucket),
}

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    path: PathBuf,
    /// From the source's folder.
    name: String,
    modified: SystemTime,
    bytes: u64,
    /// Of an object: what its storage tells its versions apart by.
    version: Option<String>,
}

impl Found {
    fn at(folder: &Path, path: PathBuf) -> Result<Self, Error> {
        let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        let about = std::fs::metadata(&path).and_then(|about| Ok((about.modified()?, about.len())));
        let (modified, bytes) = about.map_err(|error| Error::source(format!("could not read {name}: {error}")))?;
        Ok(Self { path, name, modified, bytes, version: None })
    }

    /// As the cursor remembers it.
    fn stamp(&self) -> String {
        let modified = DateTime::<Utc>::from(self.modified).timestamp_micros();
        let version = self.version.as_ref().map(|version| format!("\t{version}")).unwrap_or_default();
        format!("{}\t{modified}\t{}{version}", self.name, self.bytes)
    }

    /// Whether nobody has written to it for `settle`. A clock that is behind makes it wait longer; an object is there as a
    /// whole or not at all.
    fn is_settled(&self, settle: Duration) -> bool {
        self.version.is_some()
            || settle.is_zero()
            || SystemTime::now().duration_since(self.modified).is_ok_and(|age| age >= settle)
    }

    /// What `{file}` and `{modified}` stand for.
    fn about(&self, place: &str) -> Option<String> {
        match place {
            "{file}" => Some(self.name.clone()),
            "{modified}" => Some(DateTime::<Utc>::from(self.modified).to_rfc3339_opts(SecondsFormat::Micros, true)),
            _ => None,
        }
    }
}

impl Source for FilesSource {
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error> {
        let declared = Table::of(table)?;
        match self.find(declared)?.last() {
            Some(newest) => {
                let (here, _copy) = self.at_hand(newest)?;
                self.validate(declared, &here)
            }
            None => Ok(()),
        }
    }

    fn pull(&mut self, table: &TableMapping, after: &[String], each: Each<'_>) -> Result<Coverage, Error> {
        let declared = Table::of(table)?;
        let found = self.find(declared)?;
        match table.pull {
            Pull::Snapshot { .. } => self.pull_snapshot(declared, &found, after, each),
            _ => self.pull_changed(declared, &found, after, each),
        }
    }
}

impl FilesSource {
    /// Looks whether the folder is there; a bucket is asked with the first pull.
    ///
    /// # Errors
    /// `Source` when it is not, or may not be read.
    pub fn connect(settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        let connection = settings.connection.clone().unwrap_or_default();
        let place = match connection.strip_prefix("s3://") {
            Some(rest) => Place::Bucket(Bucket::open(rest, settings, worker)?),
            None => {
                std::fs::read_dir(&connection)
                    .map_err(|error| Error::source(format!("could not read the folder {connection}: {error}")))?;
                Place::Folder(PathBuf::from(&connection))
            }
        };
        Ok(Self { connection, place, worker: worker.clone() })
    }

    /// The headers of the newest file of a table that its `[input]` does not name, in upper case.
    ///
    /// # Errors
    /// As [`Source::pull`].
    pub fn headers(&self, table: &TableMapping) -> Result<Vec<String>, Error> {
        let declared = Table::of(table)?;
        match self.find(declared)?.last() {
            Some(newest) => self.read(declared, newest, &mut |_| self.worker.check()),
            None => Err(Error::source(format!("no file matches `{}`", declared.files))),
        }
    }

    /// The files of a table, the oldest first. Hidden ones and the locks of an open spreadsheet are none.
    fn find(&self, declared: &Table) -> Result<Vec<Found>, Error> {
        let wrong = |error: glob::PatternError| Error::settings(format!("`files = \"{}\"`: {error}", declared.files));
        let mut found = match &self.place {
            Place::Bucket(bucket) => bucket.find(&glob::Pattern::new(&declared.files).map_err(wrong)?)?,
            Place::Folder(folder) => {
                let pattern = format!("{}/{}", glob::Pattern::escape(&folder.to_string_lossy()), declared.files);
                let mut found = Vec::new();
                for path in glob::glob_with(&pattern, MATCH).map_err(wrong)? {
                    let path = path.map_err(|error| Error::source(format!("could not look for files: {error}")))?;
                    if path.is_file() {
                        found.push(Found::at(folder, path)?);
                    }
                }
                found
            }
        };
        let is_lock = |file: &Found| file.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("~$"));
        found.retain(|file| !is_lock(file));
        if found.len() > FILES_MAX {
            let (files, folder) = (&declared.files, &self.connection);
            return Err(Error::source(format!(
                "{} files match `{files}` below {folder}, the most is {FILES_MAX}: move those that are done elsewhere",
                found.len()
            )));
        }
        found.sort_by(|left, right| (left.modified, &left.name).cmp(&(right.modified, &right.name)));
        Ok(found)
    }

    /// Takes each file that is not in `after` as it is now. One that is broken does not keep the others waiting.
    fn pull_changed(
        &self,
        declared: &Table,
        found: &[Found],
        after: &[String],
        each: Each<'_>,
    ) -> Result<Coverage, Error> {
        let settle = Duration::from_secs(declared.settle_s);
        let known: HashSet<&String> = after.iter().collect();
        let is_taken = |file: &&Found| known.contains(&file.stamp());
        let mut taken: Vec<String> = found.iter().filter(is_taken).map(Found::stamp).collect();
        let (mut broken, mut saved_at) = (Vec::new(), Instant::now());
        for file in found.iter().filter(|file| file.is_settled(settle) && !is_taken(file)) {
            self.worker.check()?;
            let (here, _copy) = self.at_hand(file)?;
            if let Err(error) = self.validate(declared, &here) {
                broken.push(error);
                continue;
            }
            self.read(declared, &here, &mut |batch| each(batch, None))?;
            self.check_unchanged(file)?;
            taken.push(file.stamp());
            if saved_at.elapsed() >= SAVE_EVERY {
                each(nothing(), Some(taken.clone()))?;
                saved_at = Instant::now();
            }
        }
        each(nothing(), Some(taken))?;
        let more = broken.len().saturating_sub(1);
        match broken.into_iter().next() {
            None => Ok(Coverage::Whole),
            Some(error) if more == 0 => Err(error),
            Some(error) => Err(Error { message: format!("{}; and {more} more files", error.message), ..error }),
        }
    }

    /// Takes all files for the whole table, when they are whole and not those of `after`.
    fn pull_snapshot(
        &self,
        declared: &Table,
        found: &[Found],
        after: &[String],
        each: Each<'_>,
    ) -> Result<Coverage, Error> {
        if found.is_empty() {
            let (files, folder) = (&declared.files, &self.connection);
            return Err(Error::source(format!("no file matches `{files}` below {folder}; nothing was deleted")));
        }
        let settle = Duration::from_secs(declared.settle_s);
        let stamps: Vec<String> = found.iter().map(Found::stamp).collect();
        if stamps == after || !found.iter().all(|file| file.is_settled(settle)) {
            return Ok(Coverage::Part);
        }
        for file in found {
            let (here, _copy) = self.at_hand(file)?;
            self.validate(declared, &here)?;
        }
        for file in found {
            let (here, _copy) = self.at_hand(file)?;
            self.read(declared, &here, &mut |batch| each(batch, None))?;
            self.check_unchanged(file)?;
        }
        each(nothing(), Some(stamps))?;
        Ok(Coverage::Whole)
    }

    /// A file as it can be opened here: an object as a copy of the version that was found, for as long as that is kept.
    fn at_hand(&self, file: &Found) -> Result<(Found, Option<TempPath>), Error> {
        let Place::Bucket(bucket) = &self.place else { return Ok((file.clone(), None)) };
        let copy = bucket.fetch(file)?;
        Ok((Found { path: copy.to_path_buf(), ..file.clone() }, Some(copy)))
    }

    fn check_unchanged(&self, file: &Found) -> Result<(), Error> {
        let Place::Folder(folder) = &self.place else { return Ok(()) };
        match Found::at(folder, file.path.clone())? == *file {
            true => Ok(()),
            false => Err(Error::source(format!("{}: changed while it was read; it is read again", file.name))),
        }
    }

    /// Reads a file to its end and keeps nothing of it.
    fn validate(&self, declared: &Table, file: &Found) -> Result<(), Error> {
        let ignored = self.read(declared, file, &mut |_| self.worker.check())?;
        if !ignored.is_empty() {
            tracing::info!(file = file.name, columns = ignored.join(", "), "columns that the connector does not read");
        }
        Ok(())
    }

    /// Gives `each` the rows of a file; the columns that are not read leave.
    fn read(
        &self,
        declared: &Table,
        file: &Found,
        each: &mut dyn FnMut(RecordBatch) -> Result<(), Error>,
    ) -> Result<Vec<String>, Error> {
        let mut rows = Rows::new(file, declared, self.worker.limits, each);
        match declared.format(&file.path)? {
            Format::Csv => csv::read(file, declared, &mut rows)?,
            Format::Xlsx => sheet::read(file, declared, &mut rows)?,
            Format::Jsonl => lines::read(file, declared, &mut rows)?,
            Format::Parquet => parquet::read(file, declared, &mut rows)?,
        }
        rows.finish()?;
        Ok(rows.ignored)
    }
}

/// A batch that only moves the cursor.
fn nothing() -> RecordBatch {
    RecordBatch::new_empty(Arc::new(Schema::empty()))
}
