//! Closed value sets: `codes/<SET>.csv` with the columns `code,name,name_en,standard`.
//!
//! A file enters, the set of its codes leaves. Names may be quoted; the code is the first column.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::Error;

/// All code sets by name, e.g. `XBM` → {"0", "1", "2", "9"}.
pub type CodeSets = BTreeMap<String, BTreeSet<String>>;

/// Reads every `*.csv` of `dir`.
///
/// # Errors
/// An unreadable folder or file, or a file whose header does not begin with `code`.
pub fn load(dir: &Path) -> Result<CodeSets, Error> {
    let mut sets = CodeSets::new();
    for entry in std::fs::read_dir(dir).map_err(|error| Error::io(dir, error))? {
        let path = entry.map_err(|error| Error::io(dir, error))?.path();
        let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else {
            continue;
        };
        if path.extension().is_none_or(|extension| extension != "csv") {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|error| Error::io(&path, error))?;
        let mut lines = text.trim_start_matches('\u{feff}').lines();
        if first_column(lines.next().unwrap_or_default()) != "code" {
            return Err(Error::contract(&path, "the header does not begin with `code`"));
        }
        let codes = lines.map(first_column).filter(|code| !code.is_empty()).map(String::from);
        sets.insert(name.to_string(), codes.collect());
    }
    Ok(sets)
}

fn first_column(line: &str) -> &str {
    line.split(',').next().unwrap_or_default().trim().trim_matches('"')
}
