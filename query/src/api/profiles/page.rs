//! Pages of persons. A request enters; the persons of its page and the token of the next leave.
//!
//! A token holds the last person's id and which filters it belongs to, so that pages stay in step while profiles change.

use std::sync::Arc;

use proto::profile::v1::ListProfilesRequest;
use schemas::hex;
use sha2::{Digest, Sha256};

use super::scope::Scope;
use crate::error::{Error, ErrorKind};
use crate::profile::{Person, Profiles};

const SIZE_DEFAULT: usize = 100;
const SIZE_MAX: usize = 500;

/// How many a page has.
///
/// # Errors
/// A size out of its limits.
pub fn size(page_size: i32) -> Result<usize, Error> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) if size <= SIZE_MAX => Ok(size),
        _ => {
            let message = format!("page_size is {page_size}, not 1 to {SIZE_MAX}");
            Err(Error::new(ErrorKind::InvalidArgument, message))
        }
    }
}

/// Eight digits that tell filters apart.
pub fn digest(filters: &str) -> String {
    hex(&Sha256::digest(filters.as_bytes())[..4])
}

pub fn foreign_token() -> Error {
    Error::new(ErrorKind::InvalidArgument, "page_token is not of a page with these filters")
        .with_hint("begin again without a token")
}

/// A page that was asked for.
#[derive(Debug)]
pub struct Page<'a> {
    size: usize,
    /// The last person of the page before.
    after: Option<&'a str>,
    filters: String,
    scope: Scope,
}

impl<'a> Page<'a> {
    /// # Errors
    /// A size out of its limits, or a token that is not of these filters.
    pub fn new(request: &'a ListProfilesRequest) -> Result<Self, Error> {
        let size = size(request.page_size)?;
        let scope = Scope::from(request);
        let filters = digest(&scope.text());
        let after = match request.page_token.split_once('.') {
            None if request.page_token.is_empty() => None,
            Some((of, after)) if of == filters && after.len() == 32 => Some(after),
            _ => return Err(foreign_token()),
        };
        Ok(Self { size, after, filters, scope })
    }

    /// The persons, the next token (empty: there is none), and how many match in all.
    pub fn of<'p>(&self, profiles: &'p Profiles) -> (Vec<&'p Arc<Person>>, String, usize) {
        let matching = || profiles.persons.iter().filter(|person| self.scope.has(person));
        let total = matching().count();
        let start = self.after.map_or(0, |after| profiles.persons.partition_point(|person| &*person.id <= after));
        let mut page: Vec<_> =
            profiles.persons[start..].iter().filter(|person| self.scope.has(person)).take(self.size + 1).collect();
        let has_more = page.len() > self.size;
        page.truncate(self.size);
        let token = page.last().filter(|_| has_more).map(|last| format!("{}.{}", self.filters, last.id));
        (page, token.unwrap_or_default(), total)
    }
}
