//! Rows of one file → batches, whatever the format.
//!
//! Headers and rows of text enter; batches of the columns of `[input]` leave. An empty cell is null, a row of empty cells is
//! none. Every error names the file and the line.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::SchemaRef;

use super::{Found, Table};
use crate::error::Error;
use crate::extract::records;
use crate::extract::source::Limits;

/// Collects the rows of one file.
pub(super) struct Rows<'a> {
    file: &'a Found,
    schema: SchemaRef,
    columns: Vec<StringBuilder>,
    rows: usize,
    limits: Limits,
    /// Headers that no input column names.
    pub(super) ignored: Vec<String>,
    each: &'a mut dyn FnMut(RecordBatch) -> Result<(), Error>,
}

/// Where the value of an input column is.
pub(super) enum Place {
    /// The cell at this position of a row.
    Cell(usize),
    /// The same for every row: something about the file.
    File(String),
}

impl<'a> Rows<'a> {
    pub(super) fn new(
        file: &'a Found,
        declared: &Table,
        limits: Limits,
        each: &'a mut dyn FnMut(RecordBatch) -> Result<(), Error>,
    ) -> Self {
        let columns = declared.input.keys().map(|_| StringBuilder::new()).collect();
        Self {
            file,
            schema: records::schema(declared.input.keys()),
            columns,
            rows: 0,
            limits,
            ignored: Vec::new(),
            each,
        }
    }

    /// An error at a line, row or record of the file.
    pub(super) fn wrong(&self, line: usize, what: impl std::fmt::Display) -> Error {
        Error::source(format!("{}: line {line}: {what}", self.file.name))
    }

    /// Where each input column stands in `header`. Other columns are ignored.
    ///
    /// # Errors
    /// `Source`, naming the column that is not there, or is there twice.
    pub(super) fn places(&mut self, header: &[String], declared: &Table) -> Result<Vec<Place>, Error> {
        let fold = |name: &str| name.split_whitespace().collect::<Vec<_>>().join(" ").to_uppercase();
        let header: Vec<_> = header.iter().map(|name| fold(name)).collect();
        let mut places = Vec::new();
        for name in declared.input.values() {
            if let Some(about) = self.file.about(name) {
                places.push(Place::File(about));
                continue;
            }
            let mut found = header.iter().enumerate().filter(|(_, known)| **known == fold(name));
            let first = found.next().map(|(at, _)| at);
            let problem = match (first, found.next()) {
                (Some(at), None) => {
                    places.push(Place::Cell(at));
                    continue;
                }
                (Some(_), Some(_)) => "stands twice in the header",
                (None, _) => "is not in the header: was it renamed? Mend the file, or `[input]` of this table",
            };
            return Err(Error::source(format!("{}: column `{name}` {problem}", self.file.name)));
        }
        let is_used = |at: &usize| places.iter().any(|place| matches!(place, Place::Cell(used) if used == at));
        self.ignored = (0..header.len()).filter(|at| !is_used(at)).map(|at| header[at].clone()).collect();
        self.ignored.retain(|name| !name.is_empty());
        Ok(places)
    }

    /// Takes the cells of a row that has a header.
    ///
    /// # Errors
    /// `Source` when a text is too long; whatever takes the batch returns.
    pub(super) fn push_cells(&mut self, line: usize, places: &[Place], cells: &[String]) -> Result<(), Error> {
        if cells.iter().all(|cell| cell.is_empty()) {
            return Ok(());
        }
        let value = |place| match place {
            &Place::Cell(at) => cells.get(at).map(String::as_str).filter(|cell| !cell.is_empty()),
            Place::File(about) => Some(about.as_str()),
        };
        self.push(line, places.iter().map(value))
    }

    /// Takes one row, a value a column.
    ///
    /// # Errors
    /// As [`Rows::push_cells`].
    pub(super) fn push<'v>(&mut self, line: usize, values: impl Iterator<Item = Option<&'v str>>) -> Result<(), Error> {
        for (at, value) in values.enumerate() {
            let bytes = value.map_or(0, str::len);
            if bytes > self.limits.text_bytes_max {
                let name = self.schema.field(at).name();
                let message = format!("`{name}` holds {bytes} bytes; the longest is extract.text_bytes_max");
                return Err(self.wrong(line, message));
            }
            self.columns[at].append_option(value);
        }
        self.rows += 1;
        match self.rows < self.limits.rows_max {
            true => Ok(()),
            false => self.finish(),
        }
    }

    pub(super) fn rows_max(&self) -> usize {
        self.limits.rows_max
    }

    /// Hands over a batch that was put together elsewhere, in the order of the input columns.
    ///
    /// # Errors
    /// Whatever takes the batch returns.
    pub(super) fn push_columns(&mut self, columns: Vec<ArrayRef>) -> Result<(), Error> {
        let batch = RecordBatch::try_new(self.schema.clone(), columns);
        (self.each)(batch.map_err(|error| Error::internal("put rows of a file together", error))?)
    }

    /// Hands over the rows that are left.
    ///
    /// # Errors
    /// Whatever takes the batch returns.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        let columns = self.columns.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef).collect();
        self.push_columns(columns)
    }
}
