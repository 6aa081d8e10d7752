//! The `http` source: pulling records from a paged REST interface.
//!
//! A connector's paths and parameters enter, batches of text columns leave. Parameters may hold `{page}`, `{next}`, `{id}`,
//! `{since}` and `{until}`, see `pages`; one whose value is not known yet is left out. `client` asks, with authentication, a rate and
//! a number of tries; `pages` walks from page to page and ends a walk that leads nowhere.
//!
//! The cursor is the last record's id, the token of the next page, or the newest time of change, whichever the table
//! declares. A time stays the same through one pull and moves when its last page is there; so a pull that was cut off
//! begins again, and its records are recognised.

mod client;
mod pages;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use serde::Deserialize;
use serde_json::Value;

use self::client::Client;
use self::pages::{Pages, Walk};
use super::records;
use super::source::{Coverage, Each, Source, Span, Worker};
use crate::connector::{Connector, Pull, Spec, TableMapping};
use crate::error::Error;
use crate::settings::SourceSettings;

pub use self::client::{Api, Auth};

/// The keys of a table that is pulled over HTTP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Below the source's `connection`.
    pub path: String,
    /// Parameters of the address.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// A JSON body, which makes the request a POST.
    pub body: Option<Value>,
    /// JSON pointers and what must stand there, for interfaces that answer 200 whatever happened.
    #[serde(default)]
    pub ok: BTreeMap<String, String>,
    /// A JSON pointer to a page's records.
    pub records: String,
    /// Each column's pointer inside a record.
    pub input: BTreeMap<String, String>,
    #[serde(flatten)]
    pub pages: Pages,
}

impl Table {
    /// The table, or what it lacks for its way to pull.
    pub(crate) fn checked(self, pull: &Pull) -> Result<Self, String> {
        if self.input.is_empty() {
            return Err("needs `[input]`: column = JSON pointer".into());
        }
        self.pages.check(pull, &self.templates())?;
        Ok(self)
    }

    fn of(table: &TableMapping) -> Result<&Self, Error> {
        match &table.spec {
            Spec::Http(declared) => Ok(declared),
            _ => Err(Error::settings(format!("table `{}` has no path", table.name))),
        }
    }

    /// Every text that may hold a placeholder.
    fn templates(&self) -> Vec<String> {
        let mut templates: Vec<String> = self.query.values().cloned().collect();
        templates.extend(self.body.as_ref().map(Value::to_string));
        templates
    }

    /// The records of an answer; null is none.
    fn records(&self, page: &mut Value) -> Result<Vec<Value>, Error> {
        let wrong = |what: String| Error::source(format!("{}: {what}", self.path));
        for (pointer, expected) in &self.ok {
            let found = page.pointer(pointer).and_then(records::text);
            if found.as_ref() != Some(expected) {
                let found = found.unwrap_or_else(|| "nothing".to_string());
                return Err(wrong(format!("the answer has {found} at `{pointer}`, not {expected}: it is a refusal")));
            }
        }
        match page.pointer_mut(&self.records).map(Value::take) {
            Some(Value::Array(records)) => Ok(records),
            Some(Value::Null) => Ok(Vec::new()),
            Some(_) => Err(wrong(format!("what is at `{}` is no array of records", self.records))),
            None => Err(wrong(format!("nothing at `{}` in the answer: has the interface changed?", self.records))),
        }
    }
}

/// An interface that is asked for pages.
pub struct HttpSource {
    client: Client,
    worker: Worker,
}

impl Source for HttpSource {
    fn probe(&mut self, table: &TableMapping) -> Result<(), Error> {
        let declared = Table::of(table)?;
        let walk = Walk::new(declared, &table.pull, &[], &self.worker);
        let mut page = self.client.ask(&walk.request())?;
        declared.records(&mut page).map(|_| ())
    }

    fn pull(&mut self, table: &TableMapping, after: &[String], each: Each<'_>) -> Result<Coverage, Error> {
        let declared = Table::of(table)?;
        let mut walk = Walk::new(declared, &table.pull, after, &self.worker);
        loop {
            let mut page = self.client.ask(&walk.request())?;
            let records = declared.records(&mut page)?;
            let is_more = walk.step(&page, &records)?;
            for part in records.chunks(self.worker.limits.rows_max) {
                each(records::batch(part, &declared.input)?, None)?;
            }
            if let Some(cursor) = walk.cursor() {
                each(RecordBatch::new_empty(Arc::new(Schema::empty())), Some(cursor))?;
            }
            if !is_more {
                return Ok(Coverage::Whole);
            }
        }
    }

    /// What changed within the span, from its beginning: an interface cannot be asked from the middle of a page.
    fn pull_span(&mut self, table: &TableMapping, span: &Span<'_>, each: Each<'_>) -> Result<(), Error> {
        let declared = Table::of(table)?;
        let mut walk = Walk::over(declared, span, &self.worker)?;
        loop {
            let mut page = self.client.ask(&walk.request())?;
            let mut records = declared.records(&mut page)?;
            let is_more = walk.step(&page, &records)?;
            records.retain(|record| declared.pages.is_within(record, span));
            for part in records.chunks(self.worker.limits.rows_max) {
                each(records::batch(part, &declared.input)?, None)?;
            }
            if !is_more {
                return Ok(());
            }
        }
    }
}

impl HttpSource {
    /// The whole answer to the first request of a table.
    ///
    /// # Errors
    /// As [`Source::pull`].
    pub fn answer(&mut self, table: &TableMapping) -> Result<Value, Error> {
        let declared = Table::of(table)?;
        self.client.ask(&Walk::new(declared, &table.pull, &[], &self.worker).request())
    }

    /// Makes the client; the first request connects.
    ///
    /// # Errors
    /// `Settings` when the address or a secret is wrong or missing.
    pub fn connect(connector: &Connector, settings: &SourceSettings, worker: &Worker) -> Result<Self, Error> {
        Ok(Self { client: Client::new(&connector.http, settings, worker)?, worker: worker.clone() })
    }
}
