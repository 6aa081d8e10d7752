//! A table in a real PostgreSQL, whoever writes to it, and a source that is pulled as extract would.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow_odbc::odbc_api::{Connection, ConnectionOptions, Cursor, environment};
use tokio::runtime::Handle;

use crate::connector::Connector;
use crate::extract::source::{self, Coverage, Limits, Source, Worker};
use crate::tests::Shop;

const CONNECTOR: &str = r#"
title = "changes of leave requests"
kind = "postgres_cdc"
[tables.NAME]
contract = "student_affairs.leave_request"
table = "NAME"
key = ["WID"]
MORE
[tables.NAME.input]
WID = "wid"
XH = "xh"
QJJSSJ = "qjjssj"
"#;

const MAPPING: &str = r#"
SELECT clean_id("WID") AS leave_id, clean_id("XH") AS student_no, cn_timestamp('2026-11-01 08:00') AS applied_at,
       cn_timestamp('2026-11-02') AS start_at, cn_timestamp_end("QJJSSJ") AS end_at, 'approved' AS approval_status,
       "_op" AS op, "_timestamp" AS src_updated_at
FROM input
"#;

pub(super) const COLUMNS: &str = "wid TEXT PRIMARY KEY, xh TEXT, qjjssj DATE";

/// A table of its own in the real PostgreSQL, and a connector to it. What it leaves there goes with it.
pub(super) struct Database {
    connection: Connection<'static>,
    pub string: String,
    /// Of the table.
    pub name: String,
    pub shop: Shop,
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = &self.name;
        let slots = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'quad_oa_{name}'"
        );
        // A test that fails says enough.
        for statement in
            [slots, format!("DROP PUBLICATION IF EXISTS quad_oa_{name}"), format!("DROP TABLE IF EXISTS {name}")]
        {
            let _ = self.connection.execute(&statement, (), None);
        }
    }
}

impl Database {
    /// A published table of these columns; `more` are keys of the connector's table.
    pub(super) fn new(columns: &str, more: &str) -> Option<Self> {
        let database = Self::unpublished(columns, more)?;
        database.change("CREATE PUBLICATION quad_oa_{T} FOR TABLE {T} WITH (publish_via_partition_root = true)");
        Some(database)
    }

    pub(super) fn unpublished(columns: &str, more: &str) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let Ok(string) = std::env::var("QUAD_TEST_POSTGRES") else {
            println!("skipped: QUAD_TEST_POSTGRES is not set");
            return None;
        };
        let name = format!("cdc_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut shop = Shop::of(&CONNECTOR.replace("NAME", &name).replace("MORE", more));
        std::fs::write(shop.path(&format!("connectors/leaves/{name}.sql")), MAPPING).expect("writes");
        shop.source.connection = Some(string.clone());
        let database = Self { connection: connect(&string), string, name, shop };
        database.change(&format!("CREATE TABLE {{T}} ({columns})"));
        Some(database)
    }

    /// Runs statements about the table, `{T}`.
    pub(super) fn change(&self, statements: &str) {
        run(&self.connection, &statements.replace("{T}", &self.name));
    }

    /// The first column of an answer, a line a row.
    pub(super) fn ask(&self, query: &str) -> String {
        ask(&self.connection, &query.replace("{T}", &self.name))
    }

    /// The table as a map from `wid` to `xh`.
    pub(super) fn rows(&self) -> BTreeMap<String, String> {
        let rows = self.ask("SELECT wid || ' ' || xh FROM {T}");
        rows.lines().filter_map(|line| line.split_once(' ')).map(|(id, value)| (id.into(), value.into())).collect()
    }

    pub(super) fn slots(&self) -> String {
        self.ask("SELECT count(*)::text FROM pg_replication_slots WHERE slot_name = 'quad_oa_{T}'")
    }

    pub(super) fn connector(&self) -> Connector {
        Connector::load(&self.shop.path("connectors"), "leaves", &self.shop.contracts).expect("a right connector")
    }

    /// Changes the connector's file.
    pub(super) fn mend(&self, from: &str, to: &str) {
        let file = self.shop.path("connectors/leaves/connector.toml");
        let text = std::fs::read_to_string(&file).expect("reads");
        assert!(text.contains(from), "{from}");
        std::fs::write(&file, text.replace(from, to)).expect("writes");
    }

    pub(super) fn reader(&self) -> Reader {
        let connector = self.connector();
        let worker = Worker::of(Limits { rows_max: 2, text_bytes_max: 64 }, Handle::current()).pulling("oa");
        let source = source::connect(&connector, &self.shop.source, &worker).expect("connects");
        Reader { source, connector, cursor: Vec::new() }
    }

    /// One that goes on from there.
    pub(super) fn reader_at(&self, cursor: Vec<String>) -> Reader {
        Reader { cursor, ..self.reader() }
    }
}

/// A source that is pulled as extract would, with its cursor.
pub(super) struct Reader {
    pub source: Box<dyn Source>,
    pub connector: Connector,
    pub cursor: Vec<String>,
}

impl Reader {
    /// One pull. A row is a line: what was done, the input columns in their order, and why it could not be read. A `|` stands
    /// where the cursor was saved.
    pub(super) fn pull(&mut self) -> String {
        let (mut told, after) = (String::new(), self.cursor.clone());
        let cursor = &mut self.cursor;
        let outcome = self.source.pull(&self.connector.tables[0], &after, &mut |batch, values| {
            told.push_str(&shown(&batch));
            let times = batch.column_by_name("_timestamp").expect("a column");
            assert_eq!(times.null_count(), 0, "each row has a time");
            if let Some(values) = values {
                told.push_str("|\n");
                *cursor = values;
            }
            Ok(())
        });
        match outcome {
            Ok(Coverage::Anew(values)) => {
                *cursor = values;
                told.push_str("read anew\n");
            }
            Ok(_) => {}
            Err(error) => told.push_str(&format!("{error}\n")),
        }
        told
    }
}

/// The rows of a batch, without their times and places.
pub(super) fn shown(batch: &RecordBatch) -> String {
    let text = |name: &str, row: usize| {
        let column = batch.column_by_name(name).expect("a column").as_string::<i32>();
        column.is_valid(row).then(|| column.value(row).to_string())
    };
    let schema = batch.schema();
    let names: Vec<&String> =
        schema.fields().iter().map(|field| field.name()).filter(|name| !name.starts_with('_')).collect();
    let line = |row: usize| {
        let cells = names.iter().map(|name| text(name, row).unwrap_or_else(|| "null".to_string()));
        let error = text("_error", row).map(|error| format!(" ! {error}")).unwrap_or_default();
        let op = text("_op", row).unwrap_or_else(|| "+".to_string());
        format!("{op} {}{error}\n", cells.collect::<Vec<_>>().join(" "))
    };
    (0..batch.num_rows()).map(line).collect()
}

pub(super) fn connect(string: &str) -> Connection<'static> {
    let environment = environment().expect("ODBC starts");
    let connection = environment.connect_with_connection_string(string, ConnectionOptions::default());
    let connection = connection.expect("PostgreSQL is there");
    // What is committed can then be read from the log.
    run(&connection, "SET synchronous_commit TO on");
    connection
}

pub(super) fn run(connection: &Connection<'_>, statements: &str) {
    connection.execute(statements, (), None).expect(statements);
}

fn ask(connection: &Connection<'_>, query: &str) -> String {
    let mut told = String::new();
    if let Some(mut cursor) = connection.execute(query, (), None).expect(query) {
        while let Some(mut row) = cursor.next_row().expect("reads") {
            let mut text = Vec::new();
            row.get_text(1, &mut text).expect("a text");
            told.push_str(&(String::from_utf8(text).expect("UTF-8") + "\n"));
        }
    }
    told
}

pub(super) fn block<T>(run: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(run)
}
