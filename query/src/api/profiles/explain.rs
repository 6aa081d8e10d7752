//! Where an item comes from. Its definition, what it reads and one person enter; the tables and her rows in them leave.

use proto::profile::v1::{DefinitionView, ExplainInput, InputRows};
use schemas::{Contract, Contracts};

use crate::access::Principal;
use crate::error::{Error, ErrorKind};
use crate::identity::columns::PersonBy;
use crate::policy::{self, Purpose};
use crate::profile::definition::View;
use crate::profile::lineage::Lineage;
use crate::profile::{Item, Profiles};

/// What an item reads, for one caller.
#[derive(Debug, Default)]
pub struct Inputs<'a> {
    /// The views it builds on.
    pub views: Vec<DefinitionView>,
    pub said: Vec<ExplainInput>,
    /// Those whose rows are given, with the columns that are withheld.
    pub tables: Vec<(&'a Contract, Vec<&'a str>)>,
}

impl<'a> Inputs<'a> {
    /// Nobody learns from rows what the item itself keeps from her.
    ///
    /// # Errors
    /// A definition that cannot be parsed.
    pub fn new(
        item: &Item,
        views: &[View],
        contracts: &'a Contracts,
        principal: &Principal,
        purpose: Purpose,
    ) -> Result<Self, Error> {
        let lineage = Lineage::of(&item.definition, views)?;
        let is_withheld = policy::is_withheld(principal, purpose, item.class);
        let mut inputs =
            Self { views: lineage.views.iter().map(|place| view(&views[*place])).collect(), ..Self::default() };
        for table in lineage.tables {
            let rows = match contracts.get(&table).map(|contract| (&**contract, PersonBy::of(contract))) {
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
            inputs.said.push(ExplainInput { table, rows: rows.into() });
        }
        Ok(inputs)
    }
}

fn view(View { name, sql, .. }: &View) -> DefinitionView {
    DefinitionView { name: name.clone(), definition: sql.trim().to_string() }
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
