//! Code sets: `codes/<SET>.csv` with the columns `code,name,name_en,standard`.
//!
//! A file enters; its codes leave, each with what it means and whose it is. A cell may be quoted, never a line break in it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Error;

/// What a code means, and the standard or system it is from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meaning {
    pub name: String,
    pub name_en: String,
    pub standard: String,
}

/// All code sets by name, e.g. `XBM` → 0 未知, 1 男, 2 女, 9 未说明.
pub type CodeSets = BTreeMap<String, BTreeMap<String, Meaning>>;

/// Reads every `*.csv` of `dir`.
///
/// # Errors
/// An unreadable folder or file, a file with other columns, or a code that stands twice.
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
        let set = parse(text.trim_start_matches('\u{feff}')).map_err(|message| Error::contract(&path, message))?;
        sets.insert(name.to_string(), set);
    }
    Ok(sets)
}

fn parse(text: &str) -> Result<BTreeMap<String, Meaning>, String> {
    let mut lines = text.lines();
    if lines.next().map(cells).unwrap_or_default() != ["code", "name", "name_en", "standard"] {
        return Err("the header is not `code,name,name_en,standard`".into());
    }
    let mut set = BTreeMap::new();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let [code, name, name_en, standard] = <[String; 4]>::try_from(cells(line)).map_err(|cells| {
            format!("`{line}` has {} cells, not four; quote a cell that holds a comma", cells.len())
        })?;
        if set.insert(code.clone(), Meaning { name, name_en, standard }).is_some() {
            return Err(format!("code `{code}` stands twice"));
        }
    }
    Ok(set)
}

/// The cells of a line; a comma within quotes divides nothing.
fn cells(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut is_quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            _ => cells.last_mut().expect("never empty").push(letter),
        }
    }
    cells.iter().map(|cell| cell.trim().to_string()).collect()
}
