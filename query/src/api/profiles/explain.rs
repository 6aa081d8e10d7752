//! Where an item comes from. Its definition, what it reads and one person enter; the tables and her rows in them leave.

use std::collections::HashMap;

use proto::profile::v1::{DefinitionView, ExplainInput, InputRows};
use schemas::{Contract, Contracts};

use crate::access::Principal;
use crate::error::{Error, ErrorKind};
use crate::identity::columns::PersonBy;
use crate::policy::{self, Purpose};
use crate::profile::definition::{Definitions, View};
use crate::profile::lineage::Lineage;
use crate::profile::{Item, Profiles};

/// What every item reads; the same for every caller.
#[derive(Debug)]
pub struct Lineages {
    views: Vec<View>,
    /// By the item's id.
    items: HashMap<String, Lineage>,
}

/// The tables of an item, for one caller.
#[derive(Debug, Default)]
pub struct Inputs<'a> {
    pub said: Vec<ExplainInput>,
    /// Those whose rows are given, with the columns that are withheld.
    pub tables: Vec<(&'a Contract, Vec<&'a str>)>,
}

impl Lineages {
    /// # Errors
    /// SQL that cannot be parsed.
    pub fn new(definitions: &Definitions) -> Result<Self, Error> {
        let items = definitions.items.iter();
        let items = items.map(|item| Ok((item.id.clone(), Lineage::of(&item.definition, &definitions.views)?)));
        Ok(Self { items: items.collect::<Result<_, Error>>()?, views: definitions.views.clone() })
    }

    /// The views that `item` builds on.
    pub fn views(&self, item: &Item) -> Vec<DefinitionView> {
        let view = |place: &usize| {
            let View { name, sql } = &self.views[*place];
            DefinitionView { name: name.clone(), definition: sql.trim().to_string() }
        };
        self.items.get(&item.id).map(|lineage| lineage.views.iter().map(view).collect()).unwrap_or_default()
    }

    /// The tables that `item` reads. Nobody learns from rows what the item itself keeps from her.
    pub fn inputs<'a>(
        &self,
        item: &Item,
        contracts: &'a Contracts,
        principal: &Principal,
        purpose: Purpose,
    ) -> Inputs<'a> {
        let is_withheld = policy::is_withheld(principal, purpose, item.class);
        let mut inputs = Inputs::default();
        for table in self.items.get(&item.id).into_iter().flat_map(|lineage| &lineage.tables) {
            let rows = match contracts.get(table).map(|contract| (&**contract, PersonBy::of(contract))) {
                None => InputRows::Derived,
                Some((_, PersonBy::Nobody)) => InputRows::OfNobody,
                Some(_) if is_withheld => InputRows::Withheld,
                Some((contract, _)) => match policy::rows(principal, purpose, contract) {
                    policy::Rows::Withheld => InputRows::Withheld,
                    policy::Rows::Without(columns) => {
                        inputs.tables.push((contract, columns));
                        InputRows::Given
                    }
                },
            };
            inputs.said.push(ExplainInput { table: table.clone(), rows: rows.into() });
        }
        inputs
    }
}

/// The place of the item that a request names.
pub fn item(profiles: &Profiles, wanted: &str) -> Result<usize, Error> {
    let is = |item: &Item| item.id.eq_ignore_ascii_case(wanted) || item.name.eq_ignore_ascii_case(wanted);
    profiles.items.iter().position(is).ok_or_else(|| {
        let wanted: String = wanted.chars().take(40).collect();
        Error::new(ErrorKind::InvalidArgument, format!("item `{wanted}` is no item"))
            .with_hint("use an id (`b09`) or a name (`gpa`); DescribeProfile lists all that are on")
    })
}
