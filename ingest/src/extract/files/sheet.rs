//! XLSX: one sheet of a workbook, one header, one row a record.
//!
//! Text stays text, with its leading zeros. Dates are `YYYY-MM-DD`, with a time of day when they have one. A number has the
//! 15 digits that a spreadsheet keeps; one that had more has lost them there, and is given in the form 1.1E17, so that no
//! rule takes it for what it was. A cell that shows an error is its text, such as #N/A.

use std::fs::File;
use std::io::BufReader;

use calamine::{DataRef, ExcelDateTime, Reader, Xlsx, open_workbook_from_rs};

use super::rows::Rows;
use super::{Found, Table};
use crate::error::Error;

/// A larger workbook is refused: its texts are held in memory.
const BYTES_MAX: u64 = 64 << 20;
/// Whole numbers from here on have more digits than a spreadsheet keeps.
const EXACT_MAX: f64 = 1e15;

pub(super) fn read(file: &Found, declared: &Table, rows: &mut Rows<'_>) -> Result<(), Error> {
    let wrong = |what: String| Error::source(format!("{}: {what}", file.name));
    if file.bytes > BYTES_MAX {
        return Err(wrong(format!("{} bytes; the largest workbook is {BYTES_MAX}: save it as CSV", file.bytes)));
    }
    let opened = File::open(&file.path).map_err(|error| wrong(format!("could not read it: {error}")))?;
    let mut book: Xlsx<_> = open_workbook_from_rs(BufReader::new(opened))
        .map_err(|error: calamine::XlsxError| wrong(format!("no whole workbook: {error}")))?;
    let names = book.sheet_names();
    let name = declared.sheet.as_ref().or(names.first());
    let name = name.filter(|name| names.contains(name)).cloned();
    let name = name.ok_or_else(|| wrong(format!("no such sheet; it has {}", names.join(", "))))?;
    let mut reader = book.worksheet_cells_reader(&name).map_err(|error| wrong(format!("sheet `{name}`: {error}")))?;
    let (mut places, mut cells, mut line) = (None, Vec::new(), 0);
    let mut end_row = |line: usize, cells: &mut Vec<String>, rows: &mut Rows<'_>| {
        match &places {
            _ if line < declared.header_row => {}
            None => places = Some(rows.places(cells, declared)?),
            Some(places) => rows.push_cells(line, places, cells)?,
        }
        cells.clear();
        Ok::<(), Error>(())
    };
    loop {
        let cell = reader.next_cell().map_err(|error| wrong(format!("sheet `{name}` after row {line}: {error}")))?;
        let row = cell.as_ref().map(|cell| cell.get_position().0 as usize + 1);
        if row != Some(line) && line > 0 {
            end_row(line, &mut cells, rows)?;
        }
        let (Some(cell), Some(row)) = (cell, row) else { break };
        line = row;
        let (at, value) = (cell.get_position().1 as usize, text(cell.get_value()));
        if cells.len() <= at {
            cells.resize(at + 1, String::new());
        }
        cells[at] = value;
    }
    match places {
        Some(_) => Ok(()),
        None => Err(rows.wrong(declared.header_row, format!("sheet `{name}` has no header there; set `header_row`"))),
    }
}

fn text(cell: &DataRef<'_>) -> String {
    match cell {
        DataRef::Int(number) => number.to_string(),
        DataRef::Float(number) => self::number(*number),
        DataRef::String(text) => text.trim().to_string(),
        DataRef::SharedString(text) => text.trim().to_string(),
        DataRef::Bool(true) => "TRUE".to_string(),
        DataRef::Bool(false) => "FALSE".to_string(),
        DataRef::DateTime(time) => self::time(time),
        DataRef::DateTimeIso(text) | DataRef::DurationIso(text) => text.clone(),
        DataRef::Error(error) => error.to_string(),
        DataRef::Empty => String::new(),
    }
}

/// As a spreadsheet shows it: 15 digits, no trailing zeros.
fn number(number: f64) -> String {
    let shown = format!("{number:.14E}");
    if number.abs() >= EXACT_MAX {
        return shown;
    }
    shown.parse::<f64>().map_or(shown, |rounded| rounded.to_string())
}

fn time(time: &ExcelDateTime) -> String {
    let (year, month, day, hour, minute, second, milli) = time.to_ymd_hms_milli();
    let clock = match milli {
        0 => format!("{hour:02}:{minute:02}:{second:02}"),
        milli => format!("{hour:02}:{minute:02}:{second:02}.{milli:03}"),
    };
    match time.as_f64() {
        serial if time.is_duration() || serial < 1.0 => clock,
        serial if serial.fract() == 0.0 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:04}-{month:02}-{day:02} {clock}"),
    }
}
