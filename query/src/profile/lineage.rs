//! What the definition of an item reads. Its SQL and the views enter; the tables leave, with views looked through.

use std::collections::BTreeSet;

use datafusion::sql::parser::Statement;
use datafusion::sql::resolve::resolve_table_references;

use super::definition::{self, Definition, View};
use super::table::SCHEMA;
use crate::catalog::{CATALOG, HISTORY};
use crate::engine::Engine;
use crate::error::Error;
use crate::identity::facts;

/// Tables that identity makes of its facts.
const OF_IDENTITY: [&str; 2] = ["identity.identifier_link", "identity.person"];

/// What an item's definition reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// `<domain>.<table>`: what the SQL names, its history or not, what its views name, and what identity makes of its facts, with the
    /// facts.
    pub tables: BTreeSet<String>,
    /// The views, by their places: the order in which they are computed.
    pub views: BTreeSet<usize>,
}

impl Lineage {
    /// Nothing for an item that no question gives.
    ///
    /// # Errors
    /// SQL that cannot be parsed.
    pub fn of(definition: &Definition, views: &[View]) -> Result<Self, Error> {
        let mut lineage = Self::default();
        if let Definition::Question(sql) = definition {
            lineage.add(sql, views)?;
        }
        Ok(lineage)
    }

    fn add(&mut self, sql: &str, views: &[View]) -> Result<(), Error> {
        for named in named(sql, views)? {
            match named {
                Named::View(place) if self.views.insert(place) => self.add(&views[place].sql, views)?,
                Named::View(_) => {}
                Named::Table(table) => self.add_table(table),
            }
        }
        Ok(())
    }

    fn add_table(&mut self, table: String) {
        if OF_IDENTITY.contains(&table.as_str()) {
            self.tables.extend(facts::TABLES.map(ToString::to_string));
        }
        self.tables.insert(table.trim_end_matches(HISTORY).to_string());
    }
}

/// What a definition's SQL names.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    /// By its place.
    View(usize),
    /// `<schema>.<table>`.
    Table(String),
}

/// What `sql` itself names, its times not yet replaced.
///
/// # Errors
/// SQL that cannot be parsed.
pub fn named(sql: &str, views: &[View]) -> Result<Vec<Named>, Error> {
    // Which value stands for a time is nothing to the tables.
    let sql = definition::replace(sql, |_| Ok("NULL".to_string())).map_err(Error::settings)?;
    let mut named = Vec::new();
    for statement in Engine::parse(&sql)? {
        let (tables, _) = resolve_table_references(&Statement::Statement(Box::new(statement)), true)?;
        for table in tables {
            let table = table.resolve(CATALOG, "public");
            let view = views.iter().position(|view| *table.schema == *SCHEMA && *view.name == *table.table);
            named.push(view.map_or_else(|| Named::Table(format!("{}.{}", table.schema, table.table)), Named::View));
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn views_are_looked_through() {
        let view =
            |name: &str, sql: &str| View { name: name.into(), sql: sql.into(), by_time: false, by_person: false };
        let views = [
            view("a", "SELECT * FROM academic.grade WHERE biz_date > $today - INTERVAL '3 days'"),
            view("b", "SELECT * FROM profile.a JOIN profile.a AS again ON true"),
            view("c", "SELECT * FROM logistics.space"),
        ];
        let sql = "WITH own AS (SELECT * FROM profile.b WHERE at < $now) \
            SELECT * FROM own WHERE person_id IN (SELECT person_id FROM identity.person)";
        let lineage = Lineage::of(&Definition::Question(sql.into()), &views).unwrap();
        expect![[r#"
            {"academic.enrollment", "academic.grade", "academic.status_change", "identity.account", "identity.card", "identity.match_review", "identity.person", "student_affairs.student_base"} {0, 1}"#]]
        .assert_eq(&format!("{:?} {:?}", lineage.tables, lineage.views));
        assert_eq!(Lineage::of(&Definition::NoSource("none".into()), &views).unwrap(), Lineage::default());
        assert!(Lineage::of(&Definition::Question("SELEC".into()), &views).is_err());
    }
}
