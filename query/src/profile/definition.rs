//! The declared items. Files of a folder enter; definitions leave, checked as a whole.
//!
//! `views.toml` names questions that others build on (`profile.<name>`); every other `*.toml` is a section: its letter, its
//! parameters, and questions that give a row a person. A question's column named like an item is the item's value;
//! `<name>_as_of` or else `as_of` is its time, `<name>_conflict` says that its sources disagree. `$now`, `$today`, `$night`
//! and `$parameter` stand for the time of computation, its local day, the day its night began, and a parameter. `by_time` and `by_person` declare
//! that a little of an answer can be asked again without the rest. In the place of SQL, `answer` names what an
//! answer says of itself, and `no_source` says why no table can give the items: they are missing, always.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use schemas::Contracts;
use serde::Deserialize;

use super::table;
use crate::error::Error;

/// Everything the folder declares.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// In the order they are computed.
    pub views: Vec<View>,
    /// Of the sections that are on.
    pub questions: Vec<Question>,
    /// Of the sections that are on, by id. A question names its items by their place here.
    pub items: Vec<Item>,
    /// All sections, on or off, by letter: the catalogue.
    pub sections: Vec<Section>,
}

/// An intermediate table, `profile.<name>`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    pub name: String,
    pub sql: String,
    /// Rows of a time of event come from rows of that time alone, in the one table that is read.
    #[serde(default)]
    pub by_time: bool,
    /// As [`Question::by_person`].
    #[serde(default)]
    pub by_person: bool,
}

/// A question that fills items.
#[derive(Debug, Clone)]
pub struct Question {
    pub sql: Arc<str>,
    /// What it gives a person comes from that person's rows of the views it reads, from rows without a person, and from views
    /// and tables as a whole where they have no `person_id`.
    pub by_person: bool,
    /// Places in [`Definitions::items`].
    pub items: Vec<usize>,
}

/// A group of items, one file.
#[derive(Debug, Clone)]
pub struct Section {
    /// Its letter.
    pub id: String,
    pub title: String,
    pub title_en: String,
    /// Profiles have its items.
    pub is_on: bool,
    /// By id.
    pub items: Vec<Item>,
}

/// One item of the catalogue.
#[derive(Debug, Clone)]
pub struct Item {
    /// For example `A02`.
    pub id: String,
    pub name: String,
    pub title: String,
    pub section: String,
    pub definition: Definition,
    /// What time the value is about, in words: `now`, `term`, `30 d`.
    pub window: String,
    /// Sensitivity, 0 to 3.
    pub class: u8,
    /// The value is stale when a source has been silent for longer, in seconds; `None`: never.
    pub fresh_s: Option<u64>,
    /// Who answers for it: whoever owns the contract of the first source, if the file does not say.
    pub owner: String,
    /// Tables; the first one leads: without any row in it there is no value.
    pub sources: Vec<String>,
}

/// Where the values of an item come from.
#[derive(Debug, Clone)]
pub enum Definition {
    /// A question over the tables, its parameters in place.
    Question(Arc<str>),
    /// The answer itself.
    Answer(Answer),
    /// Nothing that Quad takes in, and why.
    NoSource(String),
}

/// What an answer says of itself.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The version of the profile.
    Version,
    /// The snapshot and the moment it was computed from.
    Computed,
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
    title: String,
    title_en: String,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    parameters: BTreeMap<String, Parameter>,
    questions: Vec<QuestionFile>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct QuestionFile {
    #[serde(default)]
    sources: Vec<String>,
    window: String,
    owner: Option<String>,
    /// Exactly one of the three.
    sql: Option<String>,
    answer: Option<Answer>,
    no_source: Option<String>,
    #[serde(default)]
    by_person: bool,
    items: Vec<ItemFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemFile {
    id: String,
    name: String,
    title: String,
    class: u8,
    fresh_s: Option<u64>,
    /// Another window or other sources than the question's.
    window: Option<String>,
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
    /// Reads every `*.toml` of `folder`. Sections that are off by themselves are on when `sections_on` names them.
    ///
    /// # Errors
    /// The first file that cannot be read or contradicts itself, another or the contracts; a name of no section.
    pub fn load(folder: &Path, contracts: &Contracts, sections_on: &[String]) -> Result<Self, Error> {
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
                false => definitions.add_section(&text, contracts, sections_on),
            };
            added.map_err(|message| Error::settings(format!("{}: {message}", file.display())))?;
        }
        definitions.sort();
        definitions.validate().map_err(|message| Error::settings(format!("{}: {message}", folder.display())))?;
        let is_known = |letter: &&String| definitions.sections.iter().any(|section| section.id == **letter);
        if let Some(letter) = sections_on.iter().find(|letter| !is_known(letter)) {
            let sections: Vec<_> = definitions.sections.iter().map(|section| section.id.as_str()).collect();
            return Err(Error::settings(format!("query.profile_sections_on: there is no section {letter}"))
                .with_hint(format!("the sections are {}", sections.join(" "))));
        }
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

    fn add_section(&mut self, text: &str, contracts: &Contracts, sections_on: &[String]) -> Result<(), String> {
        let file: SectionFile = toml::from_str(text).map_err(|error| error.to_string())?;
        let is_on = file.enabled || sections_on.contains(&file.section);
        let mut items = Vec::new();
        for question in &file.questions {
            let definition = question.definition(&file.parameters)?;
            let declare = |item| question.declare(item, &file.section, &definition, contracts);
            let declared: Vec<Item> = question.items.iter().map(declare).collect::<Result<_, _>>()?;
            if is_on {
                let first = self.items.len();
                self.items.extend(declared.iter().cloned());
                if let Definition::Question(sql) = definition {
                    let (by_person, items) = (question.by_person, (first..self.items.len()).collect());
                    self.questions.push(Question { sql, by_person, items });
                }
            }
            items.extend(declared);
        }
        items.sort_by(|left, right| left.id.cmp(&right.id));
        self.sections.push(Section { id: file.section, title: file.title, title_en: file.title_en, is_on, items });
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
        self.sections.sort_by(|left, right| left.id.cmp(&right.id));
    }

    /// Holds all sections against each other, those that are off too.
    fn validate(&self) -> Result<(), String> {
        let items = || self.sections.iter().flat_map(|section| &section.items);
        let twice = |mut names: Vec<&str>| {
            names.sort_unstable();
            names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_string())
        };
        if let Some(id) = twice(items().map(|item| item.id.as_str()).collect()) {
            return Err(format!("item {id} stands twice"));
        }
        if let Some(name) = twice(items().map(|item| item.name.as_str()).collect()) {
            return Err(format!("two items are named {name}"));
        }
        if let Some(id) = twice(self.sections.iter().map(|section| section.id.as_str()).collect()) {
            return Err(format!("section {id} has two files"));
        }
        if let Some(item) = items().find(|item| table::is_reserved(item)) {
            let (id, name) = (&item.id, &item.name);
            return Err(format!("item {id} is named {name}, as another column of profile.student is"));
        }
        if self.items.is_empty() {
            return Err("no section has an item".to_string());
        }
        Ok(())
    }
}

impl QuestionFile {
    fn definition(&self, parameters: &BTreeMap<String, Parameter>) -> Result<Definition, String> {
        match (&self.sql, self.answer, &self.no_source) {
            (Some(sql), None, None) => Ok(Definition::Question(substitute(sql, parameters)?.into())),
            (None, Some(answer), None) => Ok(Definition::Answer(answer)),
            (None, None, Some(reason)) => Ok(Definition::NoSource(reason.clone())),
            _ => {
                let first = self.items.first().map_or("no item", |item| &item.id);
                Err(format!("the question of {first} needs exactly one of sql, answer and no_source"))
            }
        }
    }

    fn declare(
        &self,
        item: &ItemFile,
        section: &str,
        definition: &Definition,
        contracts: &Contracts,
    ) -> Result<Item, String> {
        let id = &item.id;
        if !id.starts_with(section) {
            return Err(format!("item {id} is not of section {section}"));
        }
        if item.class > 3 {
            return Err(format!("item {id} has class {}, not 0 to 3", item.class));
        }
        let sources = item.sources.as_ref().unwrap_or(&self.sources);
        if sources.is_empty() == matches!(definition, Definition::Question(_)) {
            return Err(format!("item {id} needs sources if it has SQL, and none if not"));
        }
        if let Some(source) = sources.iter().find(|source| contracts.get(source).is_none()) {
            return Err(format!("item {id}: {source} is no table with a contract"));
        }
        let lead = sources.first().and_then(|source| contracts.get(source));
        let owner = self.owner.as_ref().or_else(|| lead.map(|contract| &contract.owner));
        Ok(Item {
            id: id.clone(),
            name: item.name.clone(),
            title: item.title.clone(),
            section: section.to_string(),
            definition: definition.clone(),
            window: item.window.as_ref().unwrap_or(&self.window).clone(),
            class: item.class,
            fresh_s: item.fresh_s,
            owner: owner.ok_or_else(|| format!("item {id} has neither a source nor an owner"))?.clone(),
            sources: sources.clone(),
        })
    }
}

/// Names that stand for the time of computation.
pub const TIMES: [&str; 3] = ["now", "today", "night"];

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
