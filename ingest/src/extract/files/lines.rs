//! JSON lines: one object a line, in UTF-8.
//!
//! A line that is no JSON ends the file with an error at its number. A pointer that leads nowhere in every record of a file
//! is a column that was renamed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use super::rows::Rows;
use super::{Found, RECORD_BYTES_MAX, Table};
use crate::error::Error;
use crate::extract::records;

pub(super) fn read(file: &Found, declared: &Table, rows: &mut Rows<'_>) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::source(format!("could not read {}: {error}", file.name));
    let mut reader = BufReader::new(File::open(&file.path).map_err(failed)?);
    let pointers: Vec<&String> = declared.input.values().collect();
    let mut is_seen = vec![false; pointers.len()];
    let (mut line, mut number, mut count) = (Vec::new(), 0, 0);
    loop {
        line.clear();
        number += 1;
        reader.by_ref().take(RECORD_BYTES_MAX as u64).read_until(b'\n', &mut line).map_err(failed)?;
        if line.is_empty() {
            break;
        }
        let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line).trim_ascii();
        if text.is_empty() {
            continue;
        }
        let record = records::parse(text).map_err(|error| {
            rows.wrong(number, format!("not JSON, at column {}: is the file whole?", error.column()))
        })?;
        count += 1;
        let value = |(at, pointer): (usize, &&String)| {
            let found = record.pointer(pointer);
            is_seen[at] |= found.is_some();
            file.about(pointer).or_else(|| found.and_then(records::text))
        };
        let values: Vec<Option<String>> = pointers.iter().enumerate().map(value).collect();
        rows.push(number, values.iter().map(Option::as_deref))?;
    }
    for (at, pointer) in pointers.iter().enumerate() {
        if count > 0 && !is_seen[at] && file.about(pointer).is_none() {
            let what = format!("nothing at `{pointer}` in any record: was it renamed? Mend the file, or `[input]`");
            return Err(Error::source(format!("{}: {what}", file.name)));
        }
    }
    Ok(())
}
