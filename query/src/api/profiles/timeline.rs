//! What happened to a person. Contracts and a request's filters enter; the tables of events that it is about leave.

use proto::profile::v1::GetTimelineRequest;
use schemas::{Contract, Contracts, Kind};

use super::convert;
use crate::access::Principal;
use crate::error::{Error, ErrorKind};
use crate::identity::columns::PersonBy;
use crate::policy::{self, Purpose};

/// The tables of a timeline, for one caller.
#[derive(Debug, Default)]
pub struct EventTables<'a> {
    /// With the columns that are withheld.
    pub tables: Vec<(&'a Contract, Vec<&'a str>)>,
    /// Those that are withheld as a whole.
    pub withheld: Vec<String>,
}

impl<'a> EventTables<'a> {
    /// The tables that `filters` name, by domain or by name; all without any.
    ///
    /// # Errors
    /// A filter that names no table of events about persons.
    pub fn new(
        contracts: &'a Contracts,
        filters: &[String],
        principal: &Principal,
        purpose: Purpose,
    ) -> Result<Self, Error> {
        let is_about_persons =
            |contract: &&Contract| contract.kind == Kind::Event && PersonBy::of(contract) != PersonBy::Nobody;
        let all: Vec<&Contract> = contracts.iter().map(|contract| &**contract).filter(is_about_persons).collect();
        let names = |filter: &String, contract: &Contract| *filter == contract.domain || *filter == contract.name();
        if let Some(filter) = filters.iter().find(|filter| !all.iter().any(|contract| names(filter, contract))) {
            let filter: String = filter.chars().take(80).collect();
            let message = format!("tables: `{filter}` names no table of events about persons");
            let known: Vec<_> = all.iter().map(|contract| contract.name()).collect();
            return Err(Error::new(ErrorKind::InvalidArgument, message)
                .with_hint(format!("use a domain or one of {}", known.join(", "))));
        }
        let mut events = Self::default();
        for contract in all {
            if !filters.is_empty() && !filters.iter().any(|filter| names(filter, contract)) {
                continue;
            }
            match policy::rows(principal, purpose, contract) {
                policy::Rows::Withheld => events.withheld.push(contract.name()),
                policy::Rows::Without(columns) => events.tables.push((contract, columns)),
            }
        }
        Ok(events)
    }
}

/// From when to when, in microseconds UTC.
///
/// # Errors
/// A moment out of range, or an end before the begin.
pub fn span(request: &GetTimelineRequest) -> Result<(Option<i64>, Option<i64>), Error> {
    let from = request.from.as_ref().map(convert::micros).transpose()?;
    let to = request.to.as_ref().map(convert::micros).transpose()?;
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        return Err(Error::new(ErrorKind::InvalidArgument, "from is later than to"));
    }
    Ok((from, to))
}
