//! What a contract says: a table's fields, key, event time, order, rules and sensitivity.
//!
//! A folder of contract files enters, [`Contracts`] leaves: checked as a whole, so that whoever holds a
//! [`Contract`] can rely on its key, event time and ordering naming real fields. Derived tables are described as all
//! others are, but never among those that records fill.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codes::{self, CodeSets};
use crate::error::Error;
use crate::odcs;

/// Every contract of a school, by `<domain>.<table>`, and the code sets.
#[derive(Debug, Clone, Default)]
pub struct Contracts {
    tables: BTreeMap<String, Arc<Contract>>,
    codes: CodeSets,
}

impl Contracts {
    /// Reads `dir/contracts/<domain>/<table>.odcs.yaml` and `dir/codes/*.csv`.
    ///
    /// # Errors
    /// The first file that cannot be read or contradicts itself, with its path and the mend.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let codes = codes::load(&dir.join("codes"))?;
        let mut tables = BTreeMap::new();
        for file in contract_files(&dir.join("contracts"))? {
            let text = std::fs::read_to_string(&file).map_err(|error| Error::io(&file, error))?;
            let contract = Contract::parse(&text, &file, &codes)?;
            tables.insert(contract.name(), Arc::new(contract));
        }
        if tables.is_empty() {
            return Err(Error::contract(dir, "no `contracts/<domain>/<table>.odcs.yaml` found"));
        }
        Ok(Self { tables, codes })
    }

    /// The same contracts, with topics named `<prefix>.<domain>.<table>`: several Quads can share a Kafka cluster.
    pub fn with_topic_prefix(self, prefix: &str) -> Self {
        let rename = |contract: Arc<Contract>| Contract { topic_prefix: prefix.to_string(), ..(*contract).clone() };
        Self { codes: self.codes, ..self.tables.into_values().map(rename).collect() }
    }

    /// The contract of `<domain>.<table>`, a table that records fill.
    pub fn get(&self, name: &str) -> Option<&Arc<Contract>> {
        self.tables.get(name).filter(|contract| contract.kind != Kind::Derived)
    }

    /// The contracts of the tables that records fill, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Contract>> {
        self.all().filter(|contract| contract.kind != Kind::Derived)
    }

    /// All contracts, derived tables among them, ordered by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Contract>> {
        self.tables.values()
    }

    /// The code sets that contracts refer to.
    pub fn codes(&self) -> &CodeSets {
        &self.codes
    }
}

impl FromIterator<Contract> for Contracts {
    fn from_iter<I: IntoIterator<Item = Contract>>(contracts: I) -> Self {
        let tables = contracts.into_iter().map(|contract| (contract.name(), Arc::new(contract)));
        Self { tables: tables.collect(), codes: CodeSets::new() }
    }
}

fn contract_files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    let list = |dir: &Path| -> Result<Vec<PathBuf>, Error> {
        let entries = std::fs::read_dir(dir).map_err(|error| Error::io(dir, error))?;
        entries.map(|entry| Ok(entry.map_err(|error| Error::io(dir, error))?.path())).collect()
    };
    for domain in list(dir)?.into_iter().filter(|path| path.is_dir()) {
        files.extend(list(&domain)?.into_iter().filter(|path| path.to_string_lossy().ends_with(".odcs.yaml")));
    }
    files.sort();
    Ok(files)
}

/// How a table lives: what a later record with the same key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The last writer wins; a delete removes.
    Entity,
    /// Appended, partitioned by day; the same key with other content is a correction.
    Event,
    /// Small, replaced as a whole.
    Reference,
    /// Computed from other tables whenever it is asked: it has no topic, no history and no table in the lake.
    Derived,
}

/// As contracts write it.
impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Entity => "entity",
            Kind::Event => "event",
            Kind::Reference => "reference",
            Kind::Derived => "derived",
        })
    }
}

/// Sensitivity, 0 public to 3 highly sensitive (PIPL article 28).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Public = 0,
    Internal = 1,
    Sensitive = 2,
    HighlySensitive = 3,
}

/// The number and the name: `3 highly sensitive`.
impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::Public => "0 public",
            Class::Internal => "1 internal",
            Class::Sensitive => "2 sensitive",
            Class::HighlySensitive => "3 highly sensitive",
        })
    }
}

/// The type of a field. Timestamps are microseconds UTC; decimals are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldType {
    String,
    Int,
    BigInt,
    Bool,
    Date,
    Timestamp,
    Double,
    Decimal { precision: u8, scale: i8 },
}

/// One field of a table and all that a value must satisfy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    /// Names this field had before: records written under one of them are read as this field.
    pub aliases: Vec<String>,
    /// The name people use, e.g. 学号.
    pub title: String,
    #[serde(default)]
    pub description: String,
    pub field_type: FieldType,
    /// A value must be present in every row that is not a delete; of a key, in every row.
    pub required: bool,
    pub class: Class,
    /// The field code seen in real systems, e.g. `XH`.
    pub code: Option<String>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    /// In characters, not bytes.
    pub length_min: Option<usize>,
    pub length_max: Option<usize>,
    pub pattern: Option<String>,
    /// The closed set of values, from the contract itself or from a code set, with its name.
    pub values: Option<(String, Vec<String>)>,
}

/// A predicate over the whole row, in SQL; a NULL result passes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RowRule {
    pub name: String,
    pub predicate: String,
    #[serde(default)]
    pub description: String,
}

/// One table: the agreement between whoever writes it and whoever reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Contract {
    /// What topics begin with; `quad` unless the settings say otherwise.
    pub topic_prefix: String,
    pub domain: String,
    pub table: String,
    pub title: String,
    /// What the table is for, in one sentence.
    #[serde(default)]
    pub purpose: String,
    /// What it never holds.
    #[serde(default)]
    pub limitations: String,
    /// What a row is and where rows come from.
    pub description: String,
    pub version: String,
    pub owner: String,
    pub kind: Kind,
    /// Never empty; names fields that are required.
    pub key: Vec<String>,
    /// A field of type date or timestamp, or the envelope's `src_updated_at`. Empty only where a derived table has none.
    pub event_time: String,
    /// Later versions of a key win by these columns in turn, then by offset. Empty only for a derived table.
    pub ordering: Vec<String>,
    pub fields: Vec<Field>,
    pub row_rules: Vec<RowRule>,
    /// The longest time a source row may take to show, in seconds.
    pub freshness_s: Option<u64>,
    pub retention_days: Option<u32>,
}

impl Contract {
    /// Reads one ODCS document; `file` is only for messages.
    ///
    /// # Errors
    /// What is missing or contradictory, with the file.
    pub fn parse(text: &str, file: &Path, codes: &CodeSets) -> Result<Self, Error> {
        let contract = odcs::parse(text, file, codes)?;
        contract.validate().map_err(|message| Error::contract(file, message))?;
        Ok(contract)
    }

    /// `<domain>.<table>`, the name in SQL.
    pub fn name(&self) -> String {
        format!("{}.{}", self.domain, self.table)
    }

    /// The topic that carries this table's records.
    pub fn topic(&self) -> String {
        format!("{}.{}.{}", self.topic_prefix, self.domain, self.table)
    }

    /// The contract's major version: records of one major version are compatible.
    pub fn major_version(&self) -> i32 {
        let major = self.version.split('.').next().unwrap_or_default();
        major.parse().unwrap_or(0)
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The field that has or once had this name.
    pub fn field_once(&self, name: &str) -> Option<&Field> {
        let had = |field: &&Field| field.aliases.iter().any(|alias| alias == name);
        self.field(name).or_else(|| self.fields.iter().find(had))
    }

    /// The highest class of any field.
    pub fn class(&self) -> Class {
        self.fields.iter().map(|field| field.class).max().unwrap_or(Class::Public)
    }

    fn validate(&self) -> Result<(), String> {
        if self.key.is_empty() {
            return Err("no field has `primaryKey: true`".into());
        }
        for key in &self.key {
            if !self.field(key).is_some_and(|field| field.required) {
                return Err(format!("key field `{key}` needs `required: true`"));
            }
        }
        let is_derived = self.kind == Kind::Derived;
        if is_derived && !(self.ordering.is_empty() && self.retention_days.is_none() && self.freshness_s.is_none()) {
            return Err("a derived table has neither `ordering` nor `retentionDays` nor latency; drop them".into());
        }
        if !is_derived && self.ordering.is_empty() {
            return Err("no `ordering`; say which columns tell the latest version of a row".into());
        }
        let is_column = |name: &str| match name {
            "src_updated_at" => !is_derived,
            "" => is_derived,
            _ => self.field(name).is_some(),
        };
        for name in self.ordering.iter().chain([&self.event_time]) {
            if !is_column(name) {
                return Err(format!("`{name}` is not a field; mend `eventTime` or `ordering`"));
            }
        }
        let event_type = self.field(&self.event_time).map(|field| field.field_type);
        if !matches!(event_type, None | Some(FieldType::Date | FieldType::Timestamp)) {
            return Err(format!("event time `{}` must be a date or a timestamp", self.event_time));
        }
        if self.major_version() == 0 {
            return Err(format!("version `{}` is not MAJOR.MINOR.PATCH with MAJOR ≥ 1", self.version));
        }
        for (index, field) in self.fields.iter().enumerate() {
            if self.fields[..index].iter().any(|other| other.name == field.name) {
                return Err(format!("field `{}` stands twice", field.name));
            }
            if crate::record::ENVELOPE.contains(&field.name.as_str()) {
                return Err(format!("field `{}` has the name of an envelope column", field.name));
            }
            for alias in &field.aliases {
                let names = self.fields.iter().flat_map(|other| other.aliases.iter().chain([&other.name]));
                let is_taken = crate::record::ENVELOPE.contains(&alias.as_str());
                if is_taken || names.filter(|name| *name == alias).count() > 1 {
                    return Err(format!("alias `{alias}` of field `{}` is another column's name", field.name));
                }
            }
        }
        Ok(())
    }
}
