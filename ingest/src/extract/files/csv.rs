//! CSV: text in any encoding, one header, one row a record.
//!
//! Quoted fields may hold delimiters and line breaks. A record with another number of cells than the header, and bytes that
//! the encoding does not know, end the file with an error at their line.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::rc::Rc;

use csv::ReaderBuilder;
use encoding_rs::{Encoding, GB18030, UTF_8};
use encoding_rs_io::DecodeReaderBytesBuilder;

use super::rows::Rows;
use super::{Found, RECORD_BYTES_MAX, Table};
use crate::error::Error;

/// What stands in decoded text for bytes that the encoding does not know.
const UNKNOWN: char = '\u{fffd}';

pub(super) fn encoding(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label(label.as_bytes())
}

pub(super) fn read(file: &Found, declared: &Table, rows: &mut Rows<'_>) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::source(format!("could not read {}: {error}", file.name));
    let encoding = match declared.encoding.as_deref().and_then(encoding) {
        Some(encoding) => encoding,
        None => guess(File::open(&file.path).map_err(failed)?).map_err(failed)?,
    };
    let decoded = DecodeReaderBytesBuilder::new()
        .encoding(Some(encoding))
        .bom_override(true)
        .build(File::open(&file.path).map_err(failed)?);
    let left = Rc::new(Cell::new(RECORD_BYTES_MAX));
    let delimiter = declared.delimiter.unwrap_or(',');
    // Lengths are checked here, so that titles above the header may be shorter.
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(u8::try_from(delimiter).unwrap_or(b','))
        .from_reader(Bounded { inner: decoded, left: left.clone() });
    let mut places = None;
    let (mut cells, mut width, mut record_no) = (Vec::new(), 0, 0);
    let mut record = csv::StringRecord::new();
    loop {
        left.set(RECORD_BYTES_MAX);
        let line = reader.position().line() as usize;
        if !reader.read_record(&mut record).map_err(|error| rows.wrong(line, error))? {
            break;
        }
        let line = record.position().map_or(line, |position| position.line() as usize);
        record_no += 1;
        if record_no < declared.header_row {
            continue;
        }
        cells.clear();
        cells.extend(record.iter().map(|cell| cell.trim().to_string()));
        if let Some(at) = cells.iter().position(|cell| cell.contains(UNKNOWN)) {
            let what = format!("cell {} holds bytes that are not {}; set `encoding`", at + 1, encoding.name());
            return Err(rows.wrong(line, what));
        }
        let Some(places) = &places else {
            width = cells.len();
            places = Some(rows.places(&cells, declared)?);
            continue;
        };
        let is_longer = cells.iter().skip(width).any(|cell| !cell.is_empty());
        if cells.len() < width || is_longer {
            let what = format!("{} cells, and the header has {width}: is the file whole?", cells.len());
            return Err(rows.wrong(line, what));
        }
        rows.push_cells(line, places, &cells)?;
    }
    match places {
        Some(_) => Ok(()),
        None => Err(rows.wrong(declared.header_row, "there is no header: is the file whole?")),
    }
}

/// The first line that is not plain ASCII tells: UTF-8 when it is that, GB18030 when not.
fn guess(file: File) -> std::io::Result<&'static Encoding> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(UTF_8);
        }
        if !line.is_ascii() {
            let is_utf_8 = match std::str::from_utf8(&line) {
                Ok(_) => true,
                // Cut within a character, by the end of the file.
                Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
            };
            return Ok(if is_utf_8 { UTF_8 } else { GB18030 });
        }
    }
}

/// Fails when one record takes more than is left, so that an open quote does not take the whole file into memory.
struct Bounded<R> {
    inner: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.get().checked_sub(read) {
            Some(left) => self.left.set(left),
            None => return Err(std::io::Error::other("a record of more than 16 MiB: is a quote open?")),
        }
        Ok(read)
    }
}
