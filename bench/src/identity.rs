//! `bench identity`: who is who, from tables in memory, as the query service finds it out.
//!
//! Students enter with enrolments, accounts and cards; every tenth studied here before under another number, and every fifth
//! has had a card replaced. A build from nothing reads all tables and links every identifier; a re-link begins with one new
//! row of a card and ends when the index has it, which is what a passage with that card waits for.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow::array::{RecordBatch, StringArray};
use datafusion::catalog::MemTable;
use query::identity::{IdType, Resolution};
use query::source::TableVersion;
use query::{Engine, Settings, Source};
use schemas::{Contract, Contracts};

const KEY: &[u8] = b"the key of every measurement";

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 100_000)]
    students: usize,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// Measures and prints.
///
/// # Errors
/// The index does not link what it should.
pub fn run(args: &Args) -> Result<()> {
    ensure!(args.students > 0 && args.rounds > 0, "--students and --rounds are at least 1");
    let contracts = Arc::new(Contracts::load(Path::new("schemas"))?);
    let mut tables = tables(&contracts, args.students)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut built = Vec::new();
        let mut engine = None;
        for _ in 0..args.rounds {
            let fresh = Engine::new(&Settings::default(), contracts.clone()).await?;
            let source = Source::memory(tables.iter().map(|table| table.version()).collect::<Result<Vec<_>>>()?);
            let began = Instant::now();
            fresh.refresh(&source, KEY).await?;
            built.push(began.elapsed());
            engine = Some(fresh);
        }
        let engine = engine.context("there is a round")?;
        let (links, persons) = {
            let identity = &engine.pin().snapshot.identity;
            (identity.links().len(), identity.persons.len())
        };
        let cards = tables.last_mut().context("the table of cards")?;
        let mut linked = Vec::new();
        for round in 0..args.rounds {
            let physical = format!("FEED{round:08X}");
            cards.add(round % args.students, &physical)?;
            let source = Source::memory([cards.version()?]);
            let began = Instant::now();
            engine.refresh(&source, KEY).await?;
            linked.push(began.elapsed());
            let found = engine.pin().snapshot.identity.resolve(IdType::CardPhysicalNo, &physical, None);
            ensure!(matches!(found, Resolution::Linked(_)), "the new card is not linked: {found:?}");
        }
        println!("{} students, {persons} persons, {links} links, {} rounds", args.students, args.rounds);
        let [lowest, median, highest] = spread(&mut built);
        let rate = |took: Duration| links as f64 / took.as_secs_f64() / 1000.0;
        println!(
            "from nothing       {:.2} s  {:.0} k links/s ({:.0} to {:.0})",
            median.as_secs_f64(),
            rate(median),
            rate(highest),
            rate(lowest)
        );
        let [lowest, median, highest] = spread(&mut linked).map(|took| took.as_secs_f64() * 1000.0);
        println!("one new card       {median:.0} ms ({lowest:.0} to {highest:.0}) until the index has it");
        Ok(())
    })
}

fn spread(rounds: &mut [Duration]) -> [Duration; 3] {
    rounds.sort();
    [rounds[0], rounds[rounds.len() / 2], rounds[rounds.len() - 1]]
}

/// A table, and all that has come to it.
struct Table {
    contract: Arc<Contract>,
    batches: Vec<RecordBatch>,
}

impl Table {
    fn version(&self) -> Result<(String, TableVersion)> {
        let rows = MemTable::try_new(self.contract.lake_schema(), vec![self.batches.clone()])?;
        Ok((self.contract.name(), TableVersion::new(Some(self.batches.len() as u64), Arc::new(rows))))
    }

    /// A card of its own for a student.
    fn add(&mut self, student: usize, physical: &str) -> Result<()> {
        let row = batch(&self.contract, 1, |column, _| {
            Some(match column {
                "card_no" | "card_seq" | "card_physical_no" => physical.to_string(),
                "person_no" => number(student),
                "opened_at" => "2026-10-01T00:00:00Z".to_string(),
                _ => return None,
            })
        });
        self.batches.push(row?);
        Ok(())
    }
}

fn number(student: usize) -> String {
    format!("{}{:06}", 2022 + student % 4, student)
}

/// The number that every tenth had before.
fn former(student: usize) -> String {
    format!("2018{:06}", student * 10)
}

/// What identity rests on; cards are the last.
fn tables(contracts: &Contracts, students: usize) -> Result<Vec<Table>> {
    // The first rows are of present numbers, further ones of those before.
    let (former_rows, replaced) = (students.div_ceil(10), students.div_ceil(5));
    let of_row = |row: usize| if row < students { number(row) } else { former(row - students) };
    let person = |row: usize| if row < students { row } else { (row - students) * 10 };
    let student_base = |column: &str, row: usize| {
        let text = match column {
            "student_no" => of_row(row),
            "name" => format!("姓名{}", person(row)),
            "birth_date" => format!("200{}-0{}-1{}", person(row) % 8, 1 + person(row) % 9, person(row) % 10),
            "sex_code" => (1 + person(row) % 2).to_string(),
            "id_doc_type" => "1".to_string(),
            "id_doc_hash" => format!("{:064x}", person(row)),
            "college_id" => format!("C{:02}", person(row) % 20),
            _ => return None,
        };
        Some(text)
    };
    let enrollment = |column: &str, row: usize| {
        let (from, to) = if row < students { (2022 + row % 4, None) } else { (2018, Some("2022-06-30")) };
        match column {
            "student_no" => Some(of_row(row)),
            "study_kind" => Some("major".to_string()),
            "enrol_month" => Some(format!("{from}09")),
            "valid_from" => Some(format!("{from}-09-01")),
            "valid_to" => to.map(str::to_string),
            _ => None,
        }
    };
    let account = |column: &str, row: usize| match column {
        "cas_uid" | "person_no" => Some(of_row(row)),
        "user_type" => Some("student_ug".to_string()),
        "opened_at" => Some(format!("{}-08-25T00:00:00Z", if row < students { 2022 + row % 4 } else { 2018 })),
        _ => None,
    };
    // The first rows are of first cards, further ones of those that replaced them.
    let card = |column: &str, row: usize| {
        let (student, is_second) = if row < students { (row, false) } else { ((row - students) * 5, true) };
        match column {
            "card_no" => Some(format!("{:08}", 20_000_000 + student)),
            "card_seq" => Some((10_000_000 + row).to_string()),
            "prev_card_seq" => is_second.then(|| (10_000_000 + student).to_string()),
            "card_physical_no" => Some(format!("{:08X}", 0x1000_0000 + row)),
            "person_no" => Some(number(student)),
            "opened_at" => {
                Some(if is_second { "2026-03-02T09:00:00Z".to_string() } else { account("opened_at", student)? })
            }
            _ => None,
        }
    };
    type Of<'a> = &'a dyn Fn(&str, usize) -> Option<String>;
    let all: [(&str, usize, Of<'_>); 4] = [
        ("student_affairs.student_base", students + former_rows, &student_base),
        ("academic.enrollment", students + former_rows, &enrollment),
        ("identity.account", students + former_rows, &account),
        ("identity.card", students + replaced, &card),
    ];
    let table = |(name, rows, of): (&str, usize, Of<'_>)| {
        let contract = contracts.get(name).with_context(|| format!("no contract of {name}"))?.clone();
        let batches = vec![batch(&contract, rows, of)?];
        Ok(Table { contract, batches })
    };
    all.into_iter().map(table).collect()
}

/// Rows as the lake has them: what `of` says of a column and a row, else the envelope, else nothing.
fn batch(contract: &Contract, rows: usize, of: impl Fn(&str, usize) -> Option<String>) -> Result<RecordBatch> {
    let envelope = |column: &str, row: usize| {
        let text = match column {
            "src" => "bench".to_string(),
            "src_key" | "raw_hash" => String::new(),
            "op" => "I".to_string(),
            "src_updated_at" | "ingested_at" => "2026-09-01T00:00:00Z".to_string(),
            "schema_version" => "1".to_string(),
            "kafka_partition" => "0".to_string(),
            "kafka_offset" => row.to_string(),
            _ => return None,
        };
        Some(text)
    };
    let schema = contract.lake_schema();
    let columns = schema.fields().iter().map(|field| {
        let texts = (0..rows).map(|row| of(field.name(), row).or_else(|| envelope(field.name(), row)));
        arrow::compute::cast(&texts.collect::<StringArray>(), field.data_type())
    });
    let columns = columns.collect::<Result<_, _>>()?;
    Ok(RecordBatch::try_new(schema, columns)?)
}
