//! Replaying and discarding letters.
//!
//! Letters are read page by page from the query service and handed on in small batches to the process that holds the log;
//! what became of each is printed, and progress stands on standard error. A break leaves nothing half-done: what went
//! through is recognised the next time.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use arrow_json::LineDelimitedWriter;
use clap::Args;
use futures::StreamExt;
use ingest::letter::Stored;
use query::api::client::Client;
use serde_json::{Value, json};

use super::filter::{Filter, TABLE, quoted};
use crate::client::{Server, with_hint};
use crate::post;
use crate::report::print_table;
use crate::settings::Settings;

/// Letters read at a time.
const PAGE_LETTERS: usize = 500;
/// Letters handed on at a time, and their bytes, beyond which a batch is sent; one letter is never split.
const BATCH_LETTERS: usize = 50;
const BATCH_BYTES: usize = 1 << 20;

#[derive(Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// Only tell what would become of them.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub struct DiscardArgs {
    #[command(flatten)]
    which: Which,
    /// Why; it is kept with the letter.
    #[arg(long)]
    reason: String,
}

#[derive(Args)]
struct Which {
    /// The letters' numbers; without them, the options choose.
    letter_ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Every letter in the state, when no option narrows it down.
    #[arg(long)]
    all: bool,
    /// The most letters.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print one JSON object a letter.
    #[arg(long)]
    json: bool,
    /// HOST:PORT of the process that holds the log; the settings' extract.http_listen when left out.
    #[arg(long, env = "QUAD_EXTRACT", value_name = "HOST:PORT")]
    extract: Option<String>,
    #[command(flatten)]
    server: Server,
}

/// Sends letters through again.
///
/// # Errors
/// What the servers say.
pub async fn replay(settings: &Settings, args: &ReplayArgs) -> Result<ExitCode> {
    let body = |letters: &[Stored]| json!({ "letters": letters, "dry_run": args.dry_run });
    mend(settings, &args.which, "/v1/dead-letters/replay", body).await
}

/// Marks letters as discarded.
///
/// # Errors
/// What the servers say.
pub async fn discard(settings: &Settings, args: &DiscardArgs) -> Result<ExitCode> {
    if args.reason.trim().is_empty() {
        bail!(crate::usage("--reason says nothing; a letter is discarded for a reason"));
    }
    let body = |letters: &[Stored]| json!({ "letters": letters, "reason": args.reason });
    mend(settings, &args.which, "/v1/dead-letters/discard", body).await
}

async fn mend(settings: &Settings, which: &Which, path: &str, body: impl Fn(&[Stored]) -> Value) -> Result<ExitCode> {
    let condition = which.condition()?;
    let address = which.extract.clone().unwrap_or_else(|| settings.extract.http_listen.to_string());
    let token = std::env::var("QUAD_TOKEN").ok();
    let client = which.server.connect(settings).await?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let (mut rows, mut done, mut last) = (Vec::new(), 0, String::new());
    while done < which.limit as usize {
        let count = PAGE_LETTERS.min(which.limit as usize - done);
        let letters = page(&client, &condition, &last, count).await?;
        let Some(end) = letters.last() else { break };
        last = end.letter_id.clone();
        for batch in batches(&letters) {
            let answer = post::json(&address, path, token.as_deref(), &body(batch)).await?;
            let outcomes = answer["outcomes"].as_array().context("the answer has no outcomes")?;
            for outcome in outcomes {
                let text = |key: &str| outcome[key].as_str().unwrap_or_default().to_string();
                *counts.entry(text("verdict")).or_default() += 1;
                match which.json {
                    true => println!("{outcome}"),
                    false => rows.push(["letter_id", "verdict", "rule", "field", "note"].map(text).to_vec()),
                }
            }
            done += batch.len();
            eprint!("\r{done} letters: {}", tally(&counts));
        }
    }
    if done > 0 {
        eprintln!();
    }
    if !which.json {
        print_table(&["letter_id", "verdict", "rule", "field", "note"], &rows);
        println!(
            "({done} letters{})",
            if done == which.limit as usize { "; there may be more, see --limit" } else { "" }
        );
    }
    let is_well = counts.keys().all(|verdict| verdict == "resolved" || verdict == "discarded");
    Ok(ExitCode::from(u8::from(!is_well)))
}

fn tally(counts: &BTreeMap<String, usize>) -> String {
    counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect::<Vec<_>>().join(", ")
}

impl Which {
    fn condition(&self) -> Result<String> {
        if self.letter_ids.is_empty() && !self.filter.is_narrow() && !self.all {
            bail!(crate::usage("which letters? Give their numbers, options such as --rule, or --all"));
        }
        let condition = self.filter.condition()?;
        if self.letter_ids.is_empty() {
            return Ok(condition);
        }
        let ids = self.letter_ids.iter().map(|id| quoted(id)).collect::<Vec<_>>().join(", ");
        Ok(format!("{condition} AND letter_id IN ({ids})"))
    }
}

/// The next letters after `last`, in the order of their numbers.
async fn page(client: &Client, condition: &str, last: &str, count: usize) -> Result<Vec<Stored>> {
    let columns = "letter_id, stage, source, target, topic, letter_partition, letter_offset, rule, field, message, \
                   bytes, occurred_at";
    let sql = format!(
        "SELECT {columns} FROM {TABLE} WHERE {condition} AND letter_id > {} ORDER BY letter_id LIMIT {count}",
        quoted(last)
    );
    let mut answer = client.sql(&sql).await.map_err(with_hint)?;
    let mut lines = LineDelimitedWriter::new(Vec::new());
    while let Some(batch) = answer.stream.next().await {
        lines.write(&batch.map_err(with_hint)?)?;
    }
    lines.finish()?;
    let lines = lines.into_inner();
    let letters = serde_json::Deserializer::from_slice(&lines).into_iter::<Stored>();
    letters.map(|letter| letter.context("a letter cannot be read")).collect()
}

/// Letters in batches of bounded count and bytes.
fn batches(letters: &[Stored]) -> Vec<&[Stored]> {
    let (mut batches, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, letter) in letters.iter().enumerate() {
        if at > start && (at - start >= BATCH_LETTERS || bytes + letter.bytes.len() > BATCH_BYTES) {
            batches.push(&letters[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += letter.bytes.len();
    }
    if start < letters.len() {
        batches.push(&letters[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_and_hold_every_letter() {
        let letter = |bytes: usize| Stored {
            letter_id: String::new(),
            stage: ingest::letter::Stage::Land,
            source: String::new(),
            target: String::new(),
            topic: None,
            letter_partition: None,
            letter_offset: None,
            rule: String::new(),
            field: String::new(),
            message: String::new(),
            bytes: "x".repeat(bytes),
            occurred_at: String::new(),
        };
        let sizes = |letters: &[Stored]| batches(letters).iter().map(|batch| batch.len()).collect::<Vec<_>>();
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&vec![letter(1); 120]), [50, 50, 20]);
        let large = BATCH_BYTES + 1;
        assert_eq!(sizes(&[letter(1), letter(large), letter(1), letter(large - 2), letter(9)]), [1, 1, 2, 1]);
    }
}
