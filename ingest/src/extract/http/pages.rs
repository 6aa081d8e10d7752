//! From page to page, and from pull to pull.
//!
//! What a table says about its pages and the saved cursor enter; requests with their parameters filled in leave, one after
//! another, and the cursor after each page. A page that comes twice, or a token or id that does not move, is an error: a
//! walk ends.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use chrono::Utc;
use serde::Deserialize;
use serde_json::Value;

use super::Table;
use crate::connector::Pull;
use crate::error::Error;
use crate::extract::overlap::{earlier, is_ahead, later, written_as};
use crate::extract::records;
use crate::extract::source::{Span, Worker};

/// How an interface is paged, and what tells new records from old ones.
#[derive(Debug, Clone, Deserialize)]
pub struct Pages {
    /// What leads to the next page.
    pub pages: Paging,
    /// `number`: the first page's.
    #[serde(default = "first_page_default")]
    pub first_page: u64,
    /// `number`: a JSON pointer to whether there are more pages; without it, an empty page is the last.
    pub more: Option<String>,
    /// `token`: a JSON pointer in the answer to what `{next}` stands for in the next request; none is the end.
    pub next: Option<String>,
    /// `id`: a JSON pointer in a record to what `{id}` stands for after it; records come in its order.
    pub id: Option<String>,
    /// What `{id}` stands for before the first record.
    pub id_first: Option<String>,
    /// A JSON pointer in a record to its time of change; `{since}` stands for the newest of the pulls before.
    pub since: Option<String>,
    /// What `{since}` stands for in the first pull.
    pub since_first: Option<String>,
    /// Seconds before the newest time that are asked for again.
    #[serde(default)]
    pub overlap_s: u64,
    /// The most seconds from `{since}` to `{until}`; longer spans are asked for one window after another.
    pub window_s: Option<u64>,
}

/// What leads from one page to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Paging {
    /// All records come at once.
    None,
    Number,
    Token,
    Id,
}

fn first_page_default() -> u64 {
    1
}

const PLACEHOLDERS: [&str; 5] = ["{page}", "{next}", "{id}", "{since}", "{until}"];

impl Pages {
    /// Whether a record changed within a span, both ends in the format of its times.
    pub(super) fn is_within(&self, record: &Value, span: &Span<'_>) -> bool {
        let time = self.since.as_ref().and_then(|pointer| records::text(record.pointer(pointer)?));
        time.is_some_and(|time| !is_later(span.from, &time) && is_later(span.to, &time))
    }

    /// Whether the keys belong together, and every placeholder that is needed is in `templates`.
    pub(super) fn check(&self, pull: &Pull, templates: &[String]) -> Result<(), String> {
        let (placeholder, key) = match self.pages {
            Paging::None => ("", None),
            Paging::Number => ("{page}", None),
            Paging::Token => ("{next}", Some(("next", &self.next))),
            Paging::Id => ("{id}", Some(("id", &self.id))),
        };
        if let Some((name, None)) = key {
            return Err(format!("these `pages` need `{name}`, a JSON pointer"));
        }
        let is_used = |placeholder: &str| templates.iter().any(|template| template.contains(placeholder));
        if !is_used(placeholder) {
            return Err(format!("no parameter in `query` or `body` holds `{placeholder}`"));
        }
        if let Some(other) = PLACEHOLDERS[..3].iter().find(|other| **other != placeholder && is_used(other)) {
            return Err(format!("`{other}` has no value with these `pages`"));
        }
        if is_used("{since}") != self.since.is_some() {
            return Err("`since`, a JSON pointer, and a parameter with `{since}` belong together".into());
        }
        self.check_until(is_used("{until}"))?;
        match pull {
            Pull::Cursor if self.since.is_none() && matches!(self.pages, Paging::None | Paging::Number) => {
                Err("`pull = \"cursor\"` needs `since`, or `pages` by \"token\" or \"id\"".into())
            }
            Pull::Snapshot { .. } if self.since.is_some() => {
                Err("`since` is for `pull = \"cursor\"`: a snapshot brings all records".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether `{until}` can be written, and the windows move forward.
    fn check_until(&self, is_used: bool) -> Result<(), String> {
        // 0 tells neither seconds nor milliseconds.
        let model = self.since_first.as_deref().filter(|first| *first != "0");
        let is_time = model.is_some_and(|model| later(model, 0).is_some());
        match self.window_s {
            _ if is_used && !(self.since.is_some() && is_time) => {
                let mend = "say a time there in the interface's own format, such as 2020-01-01 00:00:00, or 1577836800, \
                            in milliseconds 1577836800000";
                Err(format!("`{{until}}` is written as `since_first` is: {mend}"))
            }
            Some(_) if !is_used => Err("`window_s` is for a parameter with `{until}`".into()),
            Some(window_s) if window_s <= self.overlap_s => Err("`window_s` is more than `overlap_s`".into()),
            _ => Ok(()),
        }
    }
}

/// A request, but for the address and what authenticates it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Request {
    pub path: String,
    pub query: Vec<(String, String)>,
    pub body: Option<Value>,
}

/// One pull on its way through the pages.
pub(super) struct Walk<'a> {
    table: &'a Table,
    worker: &'a Worker,
    is_cursor: bool,
    page: u64,
    next: Option<String>,
    id: Option<String>,
    since: Option<String>,
    /// The end of the present window, and of the last one.
    until: Option<String>,
    end: Option<String>,
    /// The newest time of change so far.
    newest: Option<String>,
    /// Whether the page that was taken last is the last of its window.
    is_window_over: bool,
    /// Digests of the pages and tokens that came.
    seen: HashSet<u64>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(table: &'a Table, pull: &Pull, after: &[String], worker: &'a Worker) -> Self {
        let pages = &table.pages;
        let is_cursor = *pull == Pull::Cursor;
        let saved = after.first().filter(|_| is_cursor).cloned();
        let mut walk = Self {
            table,
            worker,
            is_cursor,
            page: pages.first_page,
            next: None,
            id: pages.id_first.clone(),
            since: pages.since_first.clone(),
            until: None,
            end: None,
            newest: None,
            is_window_over: false,
            seen: HashSet::new(),
        };
        match (saved, pages.pages) {
            (None, _) => {}
            (Some(saved), _) if pages.since.is_some() => {
                walk.since = Some(earlier(&saved, pages.overlap_s).unwrap_or_else(|| saved.clone()));
                walk.newest = Some(saved);
            }
            (Some(saved), Paging::Id) => walk.id = Some(saved),
            (Some(saved), _) => walk.next = Some(saved),
        }
        walk.end = walk.since.as_ref().and_then(|since| written_as(since, Utc::now(), worker.timezone));
        walk.open_window();
        walk
    }

    /// One that asks for what changed from `from` to `to`.
    ///
    /// # Errors
    /// `Settings` when the interface cannot be asked so.
    pub(super) fn over(table: &'a Table, span: &Span<'_>, worker: &'a Worker) -> Result<Self, Error> {
        if table.pages.since.is_none() {
            return Err(Error::settings(format!("{}: only a table with `since` can be asked for a span", table.path)));
        }
        let [since, end] = [span.from, span.to].map(|time| Some(time.to_string()));
        let mut walk = Self { since, end, ..Self::new(table, &Pull::Cursor, &[], worker) };
        walk.open_window();
        Ok(walk)
    }

    /// Lets `{until}` be the end of the window that begins at `{since}`.
    fn open_window(&mut self) {
        let window = |since: &String| later(since, self.table.pages.window_s?);
        let until = self.since.as_ref().and_then(window);
        self.until = match (until, &self.end) {
            (Some(until), Some(end)) if is_later(end, &until) => Some(until),
            (_, end) => end.clone(),
        };
    }

    /// Goes on to the next window, which begins a little before the end of this one; whether there is one.
    fn next_window(&mut self) -> bool {
        let pages = &self.table.pages;
        let (Some(until), Some(end)) = (&self.until, &self.end) else { return false };
        if pages.window_s.is_none() || !is_later(end, until) {
            return false;
        }
        self.since = earlier(until, pages.overlap_s);
        (self.page, self.next, self.id) = (pages.first_page, None, pages.id_first.clone());
        self.seen.clear();
        self.open_window();
        true
    }

    /// What to ask next.
    pub(super) fn request(&self) -> Request {
        let query = self.table.query.iter();
        Request {
            path: self.table.path.clone(),
            query: query.filter_map(|(name, template)| Some((name.clone(), self.fill(template)?))).collect(),
            body: self.table.body.as_ref().and_then(|body| self.fill_json(body)),
        }
    }

    /// Takes a page; whether there is another, in this window or the next.
    pub(super) fn step(&mut self, page: &Value, records: &[Value]) -> Result<bool, Error> {
        self.is_window_over = !self.turn(page, records)?;
        Ok(!self.is_window_over || self.next_window())
    }

    /// Takes a page; whether its window has another.
    fn turn(&mut self, page: &Value, records: &[Value]) -> Result<bool, Error> {
        let wrong = |what: &str| Error::source(format!("{}: {what}", self.table.path));
        let pages = &self.table.pages;
        if !records.is_empty() && !self.seen.insert(digest(&records)) {
            return Err(wrong("the same page comes again: the interface does not understand how it is asked"));
        }
        if let Some(pointer) = &pages.since {
            let now = Utc::now();
            let times = records.iter().filter_map(|record| records::text(record.pointer(pointer)?));
            // A clock that is ahead must not hide what clocks that are right will write.
            for time in times.filter(|time| !is_ahead(time, now, self.worker.timezone)) {
                if self.newest.as_ref().is_none_or(|newest| is_later(&time, newest)) {
                    self.newest = Some(time);
                }
            }
        }
        match pages.pages {
            Paging::None => Ok(false),
            Paging::Number => {
                self.page += 1;
                let more = pages.more.as_ref().and_then(|pointer| page.pointer(pointer)).and_then(Value::as_bool);
                Ok(more.unwrap_or(!records.is_empty()))
            }
            Paging::Id => {
                let Some(last) = records.last() else { return Ok(false) };
                let id = pages.id.as_ref().and_then(|pointer| records::text(last.pointer(pointer)?));
                let id = id.ok_or_else(|| wrong("the last record of a page has no id"))?;
                if self.id.as_ref() == Some(&id) {
                    return Err(wrong("the id of the last record does not move"));
                }
                self.id = Some(id);
                Ok(true)
            }
            Paging::Token => {
                let next = pages.next.as_ref().and_then(|pointer| records::text(page.pointer(pointer)?));
                let Some(next) = next.filter(|next| !next.is_empty()) else { return Ok(false) };
                if self.next.as_ref() == Some(&next) && records.is_empty() {
                    return Ok(false);
                }
                if self.next.as_ref() == Some(&next) || !self.seen.insert(digest(&next.as_str())) {
                    return Err(wrong("the token of the next page does not move"));
                }
                self.next = Some(next);
                Ok(true)
            }
        }
    }

    /// What to save after the page that was taken last.
    pub(super) fn cursor(&self) -> Option<Vec<String>> {
        let pages = &self.table.pages;
        let value = match pages.pages {
            _ if !self.is_cursor => None,
            _ if pages.since.is_some() => self.newest.as_ref().filter(|_| self.is_window_over),
            Paging::Id => self.id.as_ref(),
            _ => self.next.as_ref(),
        };
        value.map(|value| vec![value.clone()])
    }

    /// A template with its values; `None` when one is not known yet.
    fn fill(&self, template: &str) -> Option<String> {
        let mut text = template.to_string();
        for placeholder in PLACEHOLDERS.into_iter().filter(|placeholder| template.contains(placeholder)) {
            let value = match placeholder {
                "{page}" => Some(self.page.to_string()),
                "{next}" => self.next.clone(),
                "{id}" => self.id.clone(),
                "{until}" => self.until.clone(),
                _ => self.since.clone(),
            };
            text = text.replace(placeholder, &value?);
        }
        Some(text)
    }

    /// A body with its values. A page number alone is a number there.
    fn fill_json(&self, template: &Value) -> Option<Value> {
        Some(match template {
            Value::String(text) if text == "{page}" => self.page.into(),
            Value::String(text) => self.fill(text)?.into(),
            Value::Array(values) => values.iter().filter_map(|value| self.fill_json(value)).collect(),
            Value::Object(object) => {
                let filled = object.iter().filter_map(|(name, value)| Some((name.clone(), self.fill_json(value)?)));
                Value::Object(filled.collect())
            }
            other => other.clone(),
        })
    }
}

/// Whole numbers by value, all else as text: times of one format sort as they are written.
fn is_later(left: &str, right: &str) -> bool {
    match (left.parse::<i64>(), right.parse::<i64>()) {
        (Ok(left), Ok(right)) => left > right,
        _ => left > right,
    }
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
