//! The declared items. Files of a folder enter; definitions leave, checked as a whole.
//!
//! `views.toml` names questions that others build on (`profile.<name>`); every other `*.toml` is a section: its letter, its
//! parameters, and questions that give a row a person. A question's column named like an item is the item's value;
//! `<name>_as_of` or else `as_of` is its time, `<name>_conflict` says that its sources disagree. `$now`, `$today` and
//! `$parameter` stand for the time of computation, its local day and a parameter.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;

use crate::error::Error;

/// Everything the folder declares.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// In the order they are computed.
    pub views: Vec<View>,
    pub questions: Vec<Question>,
    /// By id. A question names its items by their place here.
    pub items: Vec<Item>,
}

/// An intermediate table, `profile.<name>`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    pub name: String,
    pub sql: String,
}

/// A question that fills items.
#[derive(Debug, Clone)]
pub struct Question {
    pub sql: String,
    /// Places in [`Definitions::items`].
    pub items: Vec<usize>,
}

/// One item of the catalogue.
#[derive(Debug, Clone)]
pub struct Item {
    /// For example `A02`.
    pub id: String,
    pub name: String,
    pub title: String,
    pub section: String,
    /// Sensitivity, 0 to 3.
    pub class: u8,
    /// The value is stale when a source has been silent for longer, in seconds.
    pub fresh_s: u64,
    /// Tables; the first one leads: without any row in it there is no value.
    pub sources: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ViewsFile {
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    #[serde(default)]
    views: Vec<View>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SectionFile {
    section: String,
    #[serde(default, rename = "title")]
    _title: String,
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    questions: Vec<QuestionFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionFile {
    sources: Vec<String>,
    sql: String,
    items: Vec<ItemFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemFile {
    id: String,
    name: String,
    title: String,
    class: u8,
    fresh_s: u64,
    /// Other sources than the question's.
    sources: Option<Vec<String>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Parameter {
    Int(i64),
    Double(f64),
    Text(String),
}

impl Parameter {
    fn sql(&self) -> String {
        match self {
            Self::Int(number) => number.to_string(),
            Self::Double(number) => number.to_string(),
            Self::Text(text) => format!("'{}'", text.replace('\'', "''")),
        }
    }
}

impl Definitions {
    /// Reads every `*.toml` of `folder`.
    ///
    /// # Errors
    /// The first file that cannot be read or contradicts itself or another.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let unreadable = |path: &Path, error: std::io::Error| {
            Error::settings(format!("could not read {}", path.display()))
                .with_hint("see query.profile_dir")
                .with_source(error)
        };
        let entries = std::fs::read_dir(folder).map_err(|error| unreadable(folder, error))?;
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        let mut definitions = Self::default();
        for file in files {
            let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, error))?;
            let added = match file.file_name().is_some_and(|name| name == "views.toml") {
                true => definitions.add_views(&text),
                false => definitions.add_section(&text),
            };
            added.map_err(|message| Error::settings(format!("{}: {message}", file.display())))?;
        }
        definitions.sort();
        definitions.validate().map_err(|message| Error::settings(format!("{}: {message}", folder.display())))?;
        Ok(definitions)
    }

    fn add_views(&mut self, text: &str) -> Result<(), String> {
        let file: ViewsFile = toml::from_str(text).map_err(|error| error.to_string())?;
        for view in file.views {
            let sql = substitute(&view.sql, &file.parameters)?;
            self.views.push(View { sql, ..view });
        }
        Ok(())
    }

    fn add_section(&mut self, text: &str) -> Result<(), String> {
        let file: SectionFile = toml::from_str(text).map_err(|error| error.to_string())?;
        for question in file.questions {
            let first = self.items.len();
            for item in question.items {
                let (id, name, title) = (item.id, item.name, item.title);
                if !id.starts_with(&file.section) {
                    return Err(format!("item {id} is not of section {}", file.section));
                }
                if item.class > 3 {
                    return Err(format!("item {id} has class {}, not 0 to 3", item.class));
                }
                let sources = item.sources.unwrap_or_else(|| question.sources.clone());
                if sources.is_empty() {
                    return Err(format!("item {id} has no source"));
                }
                let section = file.section.clone();
                self.items.push(Item { id, name, title, section, class: item.class, fresh_s: item.fresh_s, sources });
            }
            let sql = substitute(&question.sql, &file.parameters)?;
            self.questions.push(Question { sql, items: (first..self.items.len()).collect() });
        }
        Ok(())
    }

    /// Orders the items by id and has the questions follow.
    fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.sort_by(|left, right| self.items[*left].id.cmp(&self.items[*right].id));
        let places: HashMap<usize, usize> = order.iter().enumerate().map(|(place, item)| (*item, place)).collect();
        for place in self.questions.iter_mut().flat_map(|question| &mut question.items) {
            *place = places[place];
        }
        self.items = order.into_iter().map(|item| self.items[item].clone()).collect();
    }

    fn validate(&self) -> Result<(), String> {
        for pair in self.items.windows(2) {
            if pair[0].id == pair[1].id {
                return Err(format!("item {} stands twice", pair[0].id));
            }
        }
        let mut names: Vec<&str> = self.items.iter().map(|item| item.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("two items are named {}", pair[0]));
        }
        if self.items.is_empty() {
            return Err("no section has an item".to_string());
        }
        Ok(())
    }
}

/// Names that stand for the time of computation.
pub const TIMES: [&str; 2] = ["now", "today"];

/// Puts parameters in the place of `$name`; the times stay.
fn substitute(sql: &str, parameters: &BTreeMap<String, Parameter>) -> Result<String, String> {
    replace(sql, |name| match parameters.get(name) {
        Some(parameter) => Ok(parameter.sql()),
        None if TIMES.contains(&name) => Ok(format!("${name}")),
        None => Err(format!("${name} is no parameter")),
    })
}

/// Puts what `value` gives in the place of every `$name`.
pub fn replace(sql: &str, value: impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let mut parts = sql.split('$');
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let end = part.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(part.len());
        out += &value(&part[..end])?;
        out += &part[end..];
    }
    Ok(out)
}
