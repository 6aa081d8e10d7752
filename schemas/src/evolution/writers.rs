//! Schemas that records were written with, held against the contract that reads them.
//!
//! Enters: a contract and writer schemas. Leaves: which column of a record gives which column of the contract, what the
//! contract does not know, and what cannot be read at all.

use super::fields::widens;
use super::{Change, Level, version_of};
use crate::contract::Contract;
use crate::error::{Error, ErrorKind};
use crate::writer::WriterSchema;

/// How records of one writer schema become records of a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// For each column of the record schema, the writer's column that gives it; none is all null.
    pub columns: Vec<Option<usize>>,
    /// Columns that a newer contract has added or widened: this one would lose what they hold.
    pub newer: Vec<String>,
    /// What cannot be read under this contract.
    pub wrong: Vec<Change>,
}

/// Holds `writer` against `contract`: columns by name, then by alias, types as they are or widened.
pub fn fit(writer: &WriterSchema, contract: &Contract) -> Fit {
    let mut fit = Fit { columns: Vec::new(), newer: Vec::new(), wrong: Vec::new() };
    let is_newer = version_of(&writer.version) > version_of(&contract.version);
    let at = |name: &str| writer.columns.iter().position(|column| column.name == name);
    for (name, field_type, is_nullable) in contract.columns() {
        let aliases = contract.field(name).map_or(&[][..], |field| &field.aliases);
        let found = at(name).or_else(|| aliases.iter().find_map(|alias| at(alias)));
        fit.columns.push(found);
        let wrong = match found.map(|at| &writer.columns[at]) {
            None if is_nullable => continue,
            None => Change::new(Level::Major, name, "is always present now, and records lack it", NEW_FIELD),
            Some(column) if column.is_nullable && !is_nullable => {
                Change::new(Level::Major, name, "is always present now, and records may lack it", NEW_FIELD)
            }
            Some(column) if is_newer && widens(field_type, column.field_type) => {
                fit.newer.push(name.to_string());
                continue;
            }
            Some(column) if column.field_type != field_type && !widens(column.field_type, field_type) => {
                let what = format!("{} became {field_type}", column.field_type);
                Change::new(Level::Major, name, what, NEW_FIELD)
            }
            Some(_) => continue,
        };
        fit.wrong.push(wrong);
    }
    let unread = |at: &usize| !fit.columns.contains(&Some(*at));
    for column in (0..writer.columns.len()).filter(unread).map(|at| &writer.columns[at]) {
        match is_newer {
            true => fit.newer.push(column.name.clone()),
            false => {
                let what = "is gone, and records have it";
                let forward =
                    "put the field back, or declare its new name with { property: aliases, value: [its old name] }";
                fit.wrong.push(Change::new(Level::Major, &column.name, what, forward));
            }
        }
    }
    fit
}

const NEW_FIELD: &str = "leave the field as it was and give the change to a field of a new name";

/// Makes sure that everything written under `writers` can be read under `contract`, or was written by a newer version of
/// it, which is for [`crate::Decoder`] to set aside.
///
/// # Errors
/// `Contract`, with the first field that cannot be read, the reason and the way forward.
pub fn check_writers(contract: &Contract, writers: &[WriterSchema]) -> Result<(), Error> {
    for writer in writers {
        if let Some(change) = fit(writer, contract).wrong.first() {
            let (name, now, before) = (contract.name(), &contract.version, &writer.version);
            let message = format!(
                "contract {name} {now} cannot read records written under {before} (schema {}): `{}` {}; {}",
                writer.id(),
                change.field,
                change.what,
                change.forward
            );
            return Err(Error { kind: ErrorKind::Contract, message, source: None });
        }
    }
    Ok(())
}
