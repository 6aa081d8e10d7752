//! How a table, its publication and its slot are on the server, and what a person has to mend there.
//!
//! One question enters, which needs no more than the right to look at the catalogs; one answer leaves, and from it errors that
//! name the statement to run. Nothing is changed on the server.

use serde::Deserialize;

use super::Table;
use super::pgoutput::Lsn;
use crate::error::Error;

/// A slot that holds back more of the write-ahead log than this is told of.
pub(super) const HELD_BYTES_MAX: u64 = 1 << 30;

/// All that a pull has to know beforehand. `{name}` is the name of slot and publication; the parameter is the table.
///
/// The user's name is looked up in what everyone may read; an index is there for a replica identity that is one.
const QUESTION: &str = "\
SELECT json_build_object(
  'wal_level', current_setting('wal_level'),
  'user', current_user,
  'may_replicate', (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user),
  'is_standby', pg_is_in_recovery(),
  'now_us', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
  'flushed', CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END,
  'slot', (SELECT to_json(s) FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = '{name}'),
  'publication', (SELECT to_json(p) FROM pg_catalog.pg_publication p WHERE p.pubname = '{name}'),
  'table', (
    SELECT json_build_object('oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'kind', c.relkind,
      'identity', c.relreplident,
      'is_published', EXISTS (SELECT FROM pg_catalog.pg_publication_tables p
        WHERE p.pubname = '{name}' AND p.schemaname = n.nspname AND p.tablename = c.relname),
      'columns', (SELECT json_agg(json_build_object('name', a.attname,
          'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
          'is_identity', COALESCE(a.attnum = ANY (i.indkey), false)) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''))
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid
      AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
    WHERE c.oid = to_regclass(?)))::text";

/// The question that [`Server::read`] takes the answer of.
pub(super) fn question(name: &str) -> String {
    QUESTION.replace("{name}", name)
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Server {
    wal_level: String,
    user: String,
    may_replicate: Option<bool>,
    is_standby: bool,
    /// Its clock, in microseconds since 1970.
    pub now_us: i64,
    /// Up to where its log is on disk: so far changes can be read.
    pub flushed: Lsn,
    pub slot: Option<Slot>,
    publication: Option<Publication>,
    table: Option<Relation>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Slot {
    /// Before here nothing is given any more.
    confirmed_flush_lsn: Option<Lsn>,
    /// From here on the server keeps its log.
    restart_lsn: Option<Lsn>,
    wal_status: Option<String>,
}

impl Slot {
    /// None while it is being made.
    pub(super) fn confirmed(&self) -> Option<Lsn> {
        self.confirmed_flush_lsn
    }

    /// Why it gives nothing any more, if so.
    pub(super) fn invalid(&self) -> Option<String> {
        let status = self.wal_status.as_deref().unwrap_or("lost");
        (status == "lost" || self.restart_lsn.is_none()).then(|| {
            "the server has given it up, since it held back more of the log than max_slot_wal_keep_size".to_string()
        })
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Publication {
    pubinsert: bool,
    pubupdate: bool,
    pubdelete: bool,
    pubtruncate: bool,
    pubviaroot: bool,
}

/// The table as it is now.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Relation {
    pub oid: u32,
    schema: String,
    name: String,
    /// `pg_class.relkind`.
    kind: String,
    /// `pg_class.relreplident`.
    identity: String,
    is_published: bool,
    columns: Option<Vec<Attribute>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Attribute {
    name: String,
    #[serde(rename = "type")]
    type_name: String,
    is_identity: bool,
}

impl Server {
    /// # Errors
    /// `Internal` when the server's answer is not that to [`question`].
    pub(super) fn read(answer: &str) -> Result<Self, Error> {
        serde_json::from_str(answer).map_err(|error| Error::internal("read how a table is on the server", error))
    }

    /// The table, once it is sure to be there with every column that `[input]` reads.
    ///
    /// # Errors
    /// `Source` with what there is.
    pub(super) fn table(&self, declared: &Table) -> Result<&Relation, Error> {
        let table = self.relation(declared)?;
        table.check_columns(declared)?;
        Ok(table)
    }

    pub(super) fn relation(&self, declared: &Table) -> Result<&Relation, Error> {
        let missing = || {
            let (table, user) = (&declared.table, &self.user);
            Error::source(format!(
                "there is no table `{table}`, or the user `{user}` may not see its schema: GRANT USAGE ON SCHEMA … TO {user}"
            ))
        };
        self.table.as_ref().ok_or_else(missing)
    }

    /// That the server keeps and gives the changes of the table.
    ///
    /// # Errors
    /// `Source` with what a person has to run there.
    pub(super) fn check(&self, declared: &Table, name: &str) -> Result<(), Error> {
        let table = self.relation(declared)?;
        let problem = self.problem().or_else(|| table.problem(declared)).or_else(|| self.unpublished(table, name));
        problem.map_or(Ok(()), |problem| Err(Error::source(problem)))
    }

    fn problem(&self) -> Option<String> {
        let user = &self.user;
        if self.is_standby {
            return Some("this server is a standby: name the primary in `connection`".to_string());
        }
        if self.wal_level != "logical" {
            return Some(format!(
                "wal_level is `{}`: ALTER SYSTEM SET wal_level = 'logical', and restart PostgreSQL",
                self.wal_level
            ));
        }
        (self.may_replicate != Some(true))
            .then(|| format!("the user `{user}` may not replicate: ALTER ROLE {user} REPLICATION"))
    }

    fn unpublished(&self, table: &Relation, name: &str) -> Option<String> {
        let of = table.quoted();
        let Some(publication) = &self.publication else {
            return Some(format!(
                "the table is not published: its owner runs CREATE PUBLICATION {name} FOR TABLE {of} WITH \
                 (publish_via_partition_root = true)"
            ));
        };
        if table.is_partitioned() && !publication.pubviaroot {
            return Some(format!(
                "its publication names partitions: ALTER PUBLICATION {name} SET (publish_via_partition_root = true)"
            ));
        }
        if !table.is_published {
            return Some(format!("it is not in its publication: ALTER PUBLICATION {name} ADD TABLE {of}"));
        }
        let Publication { pubinsert, pubupdate, pubdelete, pubtruncate, .. } = *publication;
        let is_whole = pubinsert && pubupdate && pubdelete && pubtruncate;
        (!is_whole).then(|| {
            let all = "'insert, update, delete, truncate'";
            format!("its publication leaves changes out: ALTER PUBLICATION {name} SET (publish = {all})")
        })
    }

    /// What to say of a slot that holds back much of the log.
    pub(super) fn held_back(&self, name: &str) -> Option<String> {
        let held = self.flushed.0.saturating_sub(self.slot.as_ref()?.restart_lsn?.0);
        (held > HELD_BYTES_MAX).then(|| {
            format!(
                "its slot `{name}` holds back {} MiB of the server's log: is it pulled often enough, and no transaction left \
                 open there? A slot that nobody needs: SELECT pg_drop_replication_slot('{name}')",
                held >> 20
            )
        })
    }
}

impl Relation {
    fn columns(&self) -> &[Attribute] {
        self.columns.as_deref().unwrap_or_default()
    }

    fn is_partitioned(&self) -> bool {
        self.kind == "p"
    }

    /// Its name for a statement.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    fn check_columns(&self, declared: &Table) -> Result<(), Error> {
        let names: Vec<&str> = self.columns().iter().map(|column| column.name.as_str()).collect();
        declared.places(&names).map(|_| ())
    }

    /// What keeps its changes from telling of which row they are. A publication would then refuse updates and deletes to
    /// everyone who writes to the table.
    fn problem(&self, declared: &Table) -> Option<String> {
        let mend = format!("ALTER TABLE {} REPLICA IDENTITY FULL", self.quoted());
        if !["r", "p"].contains(&self.kind.as_str()) {
            return Some("it is a view or a foreign table, which has no changes of its own: name a table".to_string());
        }
        if self.identity == "f" {
            return None;
        }
        let is_identity =
            |name: &String| self.columns().iter().any(|column| column.name == *name && column.is_identity);
        if !self.columns().iter().any(|column| column.is_identity) {
            return Some(format!("it has no primary key, so that deletes do not tell of what: {mend}"));
        }
        let mut outside = declared.key.iter().filter(|name| !declared.input.get(*name).is_some_and(is_identity));
        outside.next().map(|name| {
            format!(
                "`{name}` of `key` is not in its primary key, so that deletes and changes of it do not tell: {mend}"
            )
        })
    }

    /// Asks for the values of all rows as they are sent of a change: by the types' own output, which a cast to text is not
    /// for every type.
    pub(super) fn select(&self, declared: &Table) -> String {
        // A child of a table has changes, and a publication, of its own; a partition has not.
        let only = if self.is_partitioned() { "" } else { "ONLY " };
        format!("SELECT {} FROM {only}{}", outputs(declared.input.values()), self.quoted())
    }

    /// Asks for `columns` of the one row that `identity` tells, whose values are the parameters.
    pub(super) fn select_row(&self, columns: &[&String], identity: &[&String]) -> String {
        let type_of = |name: &String| {
            let column = self.columns().iter().find(|column| column.name == *name);
            column.map_or("text", |column| column.type_name.as_str())
        };
        let is = |name: &&String| format!("{} = CAST(? AS {})", quoted(name), type_of(name));
        let which = identity.iter().map(is).collect::<Vec<_>>().join(" AND ");
        format!("SELECT {} FROM {} WHERE {which}", outputs(columns.iter().copied()), self.quoted())
    }
}

/// A SELECT list of columns as text.
fn outputs<'n>(names: impl Iterator<Item = &'n String>) -> String {
    let output = |(at, name): (usize, &String)| {
        let column = quoted(name);
        format!("CASE WHEN {column} IS NOT NULL THEN format('%s', {column}) END AS c{at}")
    };
    names.enumerate().map(output).collect::<Vec<_>>().join(", ")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
