//! A sample → a connector that is a proposal: which column is which field of a contract, how sure that is, and why.
//!
//! The first rows of a table, a file or an answer enter; the contracts that fit best leave, and the files of a connector
//! that runs as it is. Columns are told by the field's code, name and Chinese name, by the aliases of `aliases.csv`, and by
//! their values. No value of the sample is in what leaves, but for unknown codes of columns that are not sensitive.

pub mod profile;
pub mod sample;

use arrow::array::AsArray;
use chrono_tz::Tz;
use schemas::{Class, Contract, Contracts, Field, FieldType};

use self::profile::Profile;
use self::sample::Sample;
use super::scaffold;
use crate::connector::Kind;

/// `field,alias`: what real systems call a field.
const ALIASES: &str = include_str!("infer/aliases.csv");
/// Less sure than this is no proposal.
const SURE_MIN: f64 = 0.4;
/// Codes that a comment names.
const CODES_NAMED_MAX: usize = 12;
/// The field of the envelope that says when a row changed.
const CHANGED: &str = "src_updated_at";

/// One column that was taken for a field.
pub struct Match {
    /// A field of the contract, or `src_updated_at`.
    pub field: String,
    pub column: String,
    /// From 0 to 1.
    pub sure: f64,
    pub reason: String,
    at: usize,
    /// Another column, which holds the time of day.
    clock: Option<usize>,
}

impl Match {
    /// The columns that it needs.
    fn places(&self) -> impl Iterator<Item = usize> + use<> {
        [Some(self.at), self.clock].into_iter().flatten()
    }
}

/// What a sample is taken for.
pub struct Proposal<'a> {
    pub contract: &'a Contract,
    pub matches: Vec<Match>,
    /// From 0 to 1: required fields found and columns used.
    pub fit: f64,
    /// Required fields that no column was found for.
    pub missing: Vec<&'a Field>,
}

/// A sample with the profile of each of its columns.
pub struct Profiled<'a> {
    sample: &'a Sample,
    profiles: Vec<Profile>,
}

impl<'a> Profiled<'a> {
    pub fn new(sample: &'a Sample, zone: Tz) -> Self {
        let column = |name: &String| sample.rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let profiles = sample.columns.iter().map(|name| column(name).map(|values| Profile::of(values, zone)));
        Self { sample, profiles: profiles.map(Option::unwrap_or_default).collect() }
    }

    /// What the sample is when its rows are those of `contract`.
    pub fn propose<'c>(&self, contract: &'c Contract) -> Proposal<'c> {
        let fields = contract.fields.iter().map(|field| (field.name.as_str(), Some(field))).chain([(CHANGED, None)]);
        let mut candidates = Vec::new();
        for (name, field) in fields {
            for at in 0..self.sample.columns.len() {
                if let Some((sure, reason)) = self.score(name, field, at).filter(|(sure, _)| *sure >= SURE_MIN) {
                    let (field, column) = (name.to_string(), self.sample.columns[at].clone());
                    candidates.push(Match { field, column, sure, reason, at, clock: None });
                }
            }
        }
        candidates.sort_by(|left, right| right.sure.total_cmp(&left.sure));
        let mut matches: Vec<Match> = Vec::new();
        for candidate in candidates {
            if !matches.iter().any(|taken| taken.field == candidate.field || taken.at == candidate.at) {
                matches.push(candidate);
            }
        }
        self.add_clocks(contract, &mut matches);
        let sure = |name: &str| matches.iter().find(|taken| taken.field == name).map_or(0.0, |taken| taken.sure);
        let required: Vec<&Field> = contract.fields.iter().filter(|field| field.required).collect();
        let covered = required.iter().map(|field| sure(&field.name)).sum::<f64>() / required.len().max(1) as f64;
        let used = matches.len() as f64 / self.sample.columns.len().max(1) as f64;
        let missing = required.into_iter().filter(|field| sure(&field.name) == 0.0).collect();
        Proposal { contract, fit: 0.6 * covered + 0.4 * used, missing, matches }
    }

    /// Times whose day and clock stand in two columns: the clock is known by its name, the day is the nearest to it.
    fn add_clocks(&self, contract: &Contract, matches: &mut Vec<Match>) {
        for field in contract.fields.iter().filter(|field| field.field_type == FieldType::Timestamp) {
            if matches.iter().any(|taken| taken.field == field.name) {
                continue;
            }
            let is_free = |at: &usize| !matches.iter().any(|taken| taken.at == *at || taken.clock == Some(*at));
            let free: Vec<usize> = (0..self.sample.columns.len()).filter(is_free).collect();
            let clock = free.iter().find_map(|&at| {
                let is_clock = self.profiles[at].is_clock();
                by_name(&field.name, Some(field), &self.sample.places[at]).filter(|_| is_clock).map(|named| (at, named))
            });
            let Some((clock, (sure, reason))) = clock else { continue };
            let days = free.into_iter().filter(|&at| self.profiles[at].is_day());
            let Some(at) = days.min_by_key(|at| at.abs_diff(clock)) else { continue };
            let (column, clock_name) = (self.sample.columns[at].clone(), &self.sample.columns[clock]);
            let reason = format!("{clock_name} is {reason} and a time of day, {column} is days");
            matches.push(Match { field: field.name.clone(), column, sure: sure * 0.8, reason, at, clock: Some(clock) });
        }
    }

    /// All contracts that sources fill, the best fit first.
    pub fn rank<'c>(&self, contracts: &'c Contracts) -> Vec<Proposal<'c>> {
        let filled = contracts.iter().filter(|contract| contract.domain != "platform");
        let mut ranked: Vec<_> = filled.map(|contract| self.propose(contract)).collect();
        ranked.sort_by(|left, right| right.fit.total_cmp(&left.fit));
        ranked
    }

    /// Columns that no field takes, each with what it looks like when that is a reason to leave it.
    pub fn unmatched(&self, proposal: &Proposal<'_>) -> Vec<String> {
        let is_taken = |at: usize| proposal.matches.iter().any(|taken| taken.at == at || taken.clock == Some(at));
        let free = (0..self.sample.columns.len()).filter(|&at| !is_taken(at));
        let note = |at: usize| match &self.profiles[at] {
            profile if profile.is_resident_number() => " (identity numbers: keep them out)",
            profile if profile.is_telephone() => " (telephone numbers: no contract keeps them)",
            profile if profile.present == 0 => " (always empty)",
            _ => "",
        };
        free.map(|at| format!("{}{}", self.sample.columns[at], note(at))).collect()
    }

    /// How sure it is that the column is the field, and why.
    fn score(&self, name: &str, field: Option<&Field>, at: usize) -> Option<(f64, String)> {
        let profile = &self.profiles[at];
        let (sure, reason) = by_name(name, field, &self.sample.places[at]).or_else(|| {
            let is_document = name == "id_doc_hash" && profile.is_resident_number();
            is_document.then(|| (0.8, "its values are resident numbers with their check digits".to_string()))
        })?;
        let fits = profile.fits(field.map_or(FieldType::Timestamp, |field| field.field_type));
        match fits {
            0.99.. => Some((sure, reason)),
            fits => {
                Some((sure * fits.max(0.3), format!("{reason}; but {:.0} % of its values have the type", fits * 100.0)))
            }
        }
    }
}

/// How sure the name of a column makes it that it is the field.
fn by_name(name: &str, field: Option<&Field>, place: &str) -> Option<(f64, String)> {
    let column = fold(place.rsplit('/').next().unwrap_or(place));
    let title = field.map(|field| fold(field.title.split('(').next().unwrap_or_default())).unwrap_or_default();
    let title = title.strip_suffix('码').unwrap_or(&title).to_string();
    let mut aliases = ALIASES.lines().skip(1).filter_map(|line| line.split_once(','));
    if field.and_then(|field| field.code.as_deref()).is_some_and(|code| fold(code) == column) {
        return Some((0.95, "the field's code in real systems".to_string()));
    }
    if fold(name) == column {
        return Some((0.95, "the field's name".to_string()));
    }
    if !title.is_empty() && (title == column || format!("{title}码") == column) {
        return Some((0.95, "the field's Chinese name".to_string()));
    }
    if aliases.any(|(known, alias)| known == name && fold(alias) == column) {
        return Some((0.85, "a known alias of the field".to_string()));
    }
    let is_long = |text: &str| text.chars().count() >= 2 && !text.is_ascii();
    let is_part = is_long(&title) && is_long(&column) && (title.contains(&column) || column.contains(&title));
    is_part.then(|| (0.6, "part of the field's Chinese name".to_string()))
}

/// Names are compared without case, spaces and underscores.
fn fold(name: &str) -> String {
    name.chars()
        .filter(|letter| !letter.is_whitespace() && !matches!(letter, '_' | '-'))
        .flat_map(char::to_uppercase)
        .collect()
}

impl Profiled<'_> {
    /// The files of the connector `name`, by their names in its folder.
    pub fn files(&self, name: &str, proposal: &Proposal<'_>, contracts: &Contracts) -> Vec<(String, String)> {
        let contract = proposal.contract;
        let mut files = vec![("connector.toml".to_string(), self.connector(name, proposal))];
        let mut lines = Vec::new();
        for taken in &proposal.matches {
            let sure = format!("{:.0} %: {}", taken.sure * 100.0, taken.reason);
            let Some(field) = contract.field(&taken.field) else {
                lines.push((
                    format!("cn_timestamp({})", quoted(&taken.column)),
                    CHANGED,
                    format!("when the row changed, {sure}"),
                ));
                continue;
            };
            let mut note = format!("{}, {sure}", field.title);
            if let Some(map) = code_map(field, contracts) {
                note.push_str(&self.unknown_codes(taken, field, &map));
                let rows: String = map.iter().map(|(value, code)| format!("{value},{code}\n")).collect();
                files.push((format!("codes/{}.csv", field.name), format!("source_value,code\n{rows}")));
            }
            if field.name.ends_with("_fen") && !self.profiles[taken.at].has_decimals {
                note.push_str("; whole numbers: are they 分 already? Then without the function");
            }
            let made = match field.name.as_str() {
                "id_doc_hash" => document_hash(taken, proposal),
                _ => self.expression(field, taken),
            };
            lines.push((made, &field.name, note));
        }
        let last = lines.len().saturating_sub(1);
        let line = |(at, (made, name, note)): (usize, &(String, &str, String))| {
            format!("    {made} AS {name}{} -- {note}\n", if at == last { "" } else { "," })
        };
        let mapped: String = lines.iter().enumerate().map(line).collect();
        let missing = proposal
            .missing
            .iter()
            .map(|field| format!("-- MISSING: {} ({}), without which rows are rejected\n", field.name, field.title));
        let unmatched = self.unmatched(proposal);
        let unmatched = if unmatched.is_empty() {
            String::new()
        } else {
            format!("-- Columns that no field takes: {}\n", unmatched.join(", "))
        };
        let text = format!(
            "-- → {target}, proposed from {rows} rows. Read each line; the rules of the fields: quad tables --describe {target}\n\
             {missing}{unmatched}SELECT\n{mapped}FROM input\n",
            target = contract.name(),
            rows = self.sample.rows.num_rows(),
            missing = missing.collect::<String>(),
        );
        files.insert(1, (format!("{}.sql", contract.table), text));
        files
    }

    /// Values of a column that the code map lacks, unless they are sensitive.
    fn unknown_codes(&self, taken: &Match, field: &Field, map: &[(String, String)]) -> String {
        let Some(few) = self.profiles[taken.at].few.as_ref().filter(|_| field.class < Class::Sensitive) else {
            return String::new();
        };
        let unknown = few.iter().filter(|value| !map.iter().any(|(known, _)| known == *value));
        let unknown: Vec<_> = unknown.take(CODES_NAMED_MAX).map(|value| value.replace(['\n', '\r'], " ")).collect();
        match unknown.is_empty() {
            true => String::new(),
            false => format!("; not in codes/{}.csv: {}", field.name, unknown.join(", ")),
        }
    }

    /// How a field is made of its column. A day without a clock lasts until its end, where a span ends.
    fn expression(&self, field: &Field, taken: &Match) -> String {
        let column = quoted(&taken.column);
        let is_end = field.name.starts_with("end_") || field.name.ends_with("_to");
        let is_day = field.field_type == FieldType::Timestamp && self.profiles[taken.at].is_day();
        match taken.clock.map(|at| (quoted(&self.sample.columns[at]), self.profiles[at].has_clock)) {
            Some((clock, true)) => format!("cn_timestamp(cn_date({column}) || ' ' || {clock})"),
            Some((clock, false)) => format!("cn_timestamp({column} || {clock})"),
            None if is_end && is_day => format!("cn_timestamp_end({column})"),
            None => scaffold::expression(field, &column),
        }
    }

    fn connector(&self, name: &str, proposal: &Proposal<'_>) -> String {
        let (sample, contract) = (self.sample, proposal.contract);
        let used: Vec<&Match> = proposal.matches.iter().collect();
        let is_place = |name: &String| contract.key.contains(name) || contract.event_time == *name;
        let is_secret = |taken: &&&Match| {
            let is_secret = contract.field(&taken.field).is_some_and(|field| {
                let is_free_text = field.field_type == FieldType::String && field.values.is_none();
                field.class == Class::HighlySensitive || (field.class == Class::Sensitive && is_free_text)
            });
            (is_secret || self.profiles[taken.at].is_resident_number()) && !is_place(&taken.field)
        };
        let sensitive = used.iter().filter(is_secret).map(|taken| format!("{:?}", taken.column)).collect::<Vec<_>>();
        let (kind, place) = match sample.kind {
            Kind::Sql => ("sql", self.query(&used)),
            Kind::Http => ("http", format!("{}\npull = \"snapshot\"\n", sample.keys)),
            _ => ("files", format!("{}\npull = \"changed\"\n", sample.keys)),
        };
        let input = match sample.kind {
            Kind::Sql => String::new(),
            _ => {
                let line = |at: usize| format!("{:?} = {:?}\n", sample.columns[at], sample.places[at]);
                format!(
                    "# Input column = header, or JSON pointer.\n[tables.{}.input]\n{}",
                    contract.table,
                    used.iter().flat_map(|taken| taken.places()).map(line).collect::<String>()
                )
            }
        };
        format!(
            "# {name}: which system this is, of which vendor and version, and on what it was tried.\n\n\
             title = \"{name}\"\nkind = \"{kind}\"\n\
             # Columns of the source whose values are masked in dead letters and previews.\nsensitive = [{}]\n\n{}\
             # {}\n[tables.{}]\ncontract = \"{}\"\n{place}{input}",
            sensitive.join(", "),
            sample.api,
            contract.title,
            contract.table,
            contract.name(),
        )
    }

    /// The query, and how new rows show: by a time of change and the key, or all of them each time.
    fn query(&self, used: &[&Match]) -> String {
        let column = |taken: &&Match| taken.column.clone();
        let asked = used.iter().flat_map(|taken| taken.places()).map(|at| self.sample.columns[at].clone());
        let mut columns = asked.collect::<Vec<_>>();
        let is_whole = |at: usize| self.profiles[at].is_never_empty;
        let named = |at: usize| self.sample.columns[at].clone();
        let unique: Vec<_> =
            used.iter().filter(|taken| self.profiles[taken.at].is_unique && is_whole(taken.at)).map(column).collect();
        let rising = used.iter().map(|taken| taken.at).filter(|&at| self.profiles[at].is_time() && is_whole(at));
        let rising: Vec<_> = rising.filter(|&at| self.profiles[at].never_falls).map(named).collect();
        let changed = used.iter().find(|taken| taken.field == CHANGED && is_whole(taken.at)).map(column);
        let seen = format!(
            "# In the sample unique: {}; times that never fall: {}.\n",
            if unique.is_empty() { "none".to_string() } else { unique.join(", ") },
            if rising.is_empty() { "none".to_string() } else { rising.join(", ") },
        );
        // A key that no field takes is asked for too: without it a row of the same moment could be lost.
        let is_key =
            |at: &usize| self.profiles[*at].is_unique && is_whole(*at) && !self.profiles[*at].is_resident_number();
        let spare = || (0..self.sample.columns.len()).filter(is_key).map(named).find(|name| !columns.contains(name));
        let key = unique.iter().find(|name| changed.as_ref() != Some(name)).cloned().or_else(spare);
        let pull = match (changed.as_ref(), key) {
            (Some(changed), Some(key)) => {
                if !columns.contains(&key) {
                    columns.push(key.clone());
                }
                format!("pull = \"cursor\"\n# NOT NULL, unique together, the time of change first.\ncursor = [{changed:?}, {key:?}]\noverlap_s = 600\n")
            }
            _ => "# Everything each time, since no time of change and, beside it, no unique column were found.\npull = \"snapshot\"\n".to_string(),
        };
        let columns = columns.join(", ");
        format!("query = \"SELECT {columns} FROM {}\"\n{seen}{pull}", self.sample.keys.replace('"', "\\\""))
    }
}

fn quoted(column: &str) -> String {
    format!("\"{}\"", column.replace('"', "\"\""))
}

/// The keyed hash of a document's number, of a resident's identity card unless a column tells the kind.
fn document_hash(number: &Match, proposal: &Proposal<'_>) -> String {
    let kind = proposal.matches.iter().find(|taken| taken.field == "id_doc_type");
    let kind = kind.map_or("'1'".to_string(), |taken| quoted(&taken.column));
    format!("id_hash({kind}, {})", quoted(&number.column))
}

/// Each code, and each name of a code, to the code.
fn code_map(field: &Field, contracts: &Contracts) -> Option<Vec<(String, String)>> {
    let mut map = scaffold::codes(field)?;
    if field.field_type == FieldType::Bool {
        for (value, code) in
            [("是", "true"), ("否", "false"), ("Y", "true"), ("N", "false"), ("true", "true"), ("false", "false")]
        {
            map.push((value.into(), code.into()));
        }
    }
    let set = field.values.as_ref().and_then(|(set, _)| contracts.codes().get(set));
    let names = set.into_iter().flatten().map(|(code, meaning)| (meaning.name.clone(), code.clone()));
    map.extend(names.filter(|(name, _)| !name.is_empty() && !name.contains([',', '"'])));
    Some(map)
}
