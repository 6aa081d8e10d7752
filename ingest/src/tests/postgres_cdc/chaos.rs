//! Writers that never pause, and a reader that is killed wherever it stands: what was read is the table, in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::ScopedJoinHandle;

use arrow::array::{Array, AsArray, RecordBatch};

use super::database::{COLUMNS, Database, block, connect, run};
use crate::error::Error;
use crate::extract::source::Coverage;

const WRITERS: u64 = 4;
const TRANSACTIONS: u64 = 250;
/// Keys that the writers share.
const KEYS: u64 = 60;

/// Xorshift (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Transactions of a few statements each, of which some are rolled back; the last change of a transaction may meet the first
/// of another one.
fn write(string: &str, name: &str, seed: u64) {
    let connection = connect(string);
    let mut random = Random(seed);
    for at in 0..TRANSACTIONS {
        let mut statements = "BEGIN; ".to_string();
        for _ in 0..1 + random.below(6) {
            let (id, other, value) = (random.below(KEYS), random.below(KEYS), format!("{seed}-{at}"));
            statements += &match random.below(10) {
                0..4 => format!(
                    "INSERT INTO {name} VALUES ('{id}', '{value}', NULL) ON CONFLICT (wid) DO UPDATE SET xh = excluded.xh; "
                ),
                4..7 => format!("UPDATE {name} SET xh = '{value}' WHERE wid = '{id}'; "),
                7 => format!(
                    "UPDATE {name} SET wid = '{other}' WHERE wid = '{id}' AND NOT EXISTS \
                     (SELECT FROM {name} WHERE wid = '{other}'); "
                ),
                _ => format!("DELETE FROM {name} WHERE wid = '{id}'; "),
            };
            if random.below(150) == 0 {
                statements += &format!("TRUNCATE {name}; INSERT INTO {name} VALUES ('{other}', '{value}', NULL); ");
            }
        }
        statements += if random.below(4) == 0 { "ROLLBACK" } else { "COMMIT" };
        // Two that wait for each other, or that make one key: one of them loses, as in life.
        if connection.execute(&statements, (), None).is_err() {
            run(&connection, "ROLLBACK");
        }
    }
}

/// What the last version of each key says, by its time and then by its place, as a question sees it.
#[derive(Default)]
struct Truth {
    /// Time and value; none of what was deleted.
    versions: BTreeMap<String, (String, Option<String>)>,
    /// The keys that this pull has shown.
    shown: BTreeSet<String>,
}

impl Truth {
    fn take(&mut self, batch: &RecordBatch) {
        let column = |name: &str| batch.column_by_name(name).expect("a column").as_string::<i32>();
        let (ids, values, operations, times) = (column("WID"), column("XH"), column("_op"), column("_timestamp"));
        for row in 0..batch.num_rows() {
            let (id, time) = (ids.value(row).to_string(), times.value(row).to_string());
            self.shown.insert(id.clone());
            if self.versions.get(&id).is_none_or(|(known, _)| *known <= time) {
                self.versions.insert(id, (time, operations.is_null(row).then(|| values.value(row).to_string())));
            }
        }
    }

    /// The table was shown whole.
    fn anew(&mut self) {
        for (id, (_, value)) in &mut self.versions {
            if !self.shown.contains(id) {
                *value = None;
            }
        }
    }

    fn rows(self) -> BTreeMap<String, String> {
        self.versions.into_iter().filter_map(|(id, (_, value))| Some((id, value?))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_written_and_whenever_it_is_killed_the_end_is_the_table() {
    let mut reached = (0, 0);
    for seed in [1, 2, 3] {
        let Some(database) = Database::new(COLUMNS, "") else { return };
        database.change("INSERT INTO {T} SELECT n::text, 'first', NULL FROM generate_series(0, 29) n");
        block(|| {
            std::thread::scope(|scope| {
                let (string, name) = (&database.string, &database.name);
                let write = |writer| scope.spawn(move || write(string, name, 1000 * seed + writer));
                let writers: Vec<_> = (1..=WRITERS).map(write).collect();
                let (truth, kills, anew) = read(&database, seed, &|| writers.iter().all(ScopedJoinHandle::is_finished));
                assert_eq!(truth.rows(), database.rows(), "seed {seed}");
                reached = (reached.0 + kills, reached.1 + anew);
            });
        });
    }
    assert!(reached.0 > 5 && reached.1 > 3, "only {} kills and {} whole looks", reached.0, reached.1);
}

/// Reads until the writers are through, and once more; how often it was killed and how often the table was read anew.
fn read(database: &Database, seed: u64, is_over: &dyn Fn() -> bool) -> (Truth, usize, usize) {
    let (mut truth, mut random, mut cursor) = (Truth::default(), Random(seed), Vec::new());
    let (mut kills, mut anew, mut is_last) = (0, 0, false);
    loop {
        let mut reader = database.reader_at(Vec::new());
        // Half of the kills come when the log has the rows and the cursor is not saved yet.
        let (mut left, is_saved_first) = (1 + random.below(40), random.below(2) == 0);
        loop {
            let (was_over, after) = (is_over(), cursor.clone());
            truth.shown.clear();
            let pulled = reader.source.pull(&reader.connector.tables[0], &after, &mut |batch, values| {
                truth.take(&batch);
                left -= u64::from(!is_last);
                let is_killed = left == 0;
                if is_saved_first || !is_killed {
                    cursor = values.unwrap_or_else(|| cursor.clone());
                }
                if is_killed { Err(Error::source("killed")) } else { Ok(()) }
            });
            is_last |= was_over;
            match pulled {
                Ok(Coverage::Anew(values)) => {
                    truth.anew();
                    cursor = values;
                    anew += 1;
                }
                Ok(_) if is_last && cursor[0] == "stream" => return (truth, kills, anew),
                Ok(_) => {}
                Err(error) if error.message == "killed" => {
                    kills += 1;
                    break;
                }
                Err(error) => panic!("{}", error.chain()),
            }
        }
    }
}
