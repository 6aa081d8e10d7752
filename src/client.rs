//! The client side of the command line: asking a running Quad, and making tokens.
//!
//! A question enters, an answer is printed, for people or, with `--json`, for scripts. The token comes from the
//! environment (`QUAD_TOKEN`), never from the command line, where others could read it.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, Days, NaiveDate, SecondsFormat};
use chrono_tz::Tz;
use clap::{Args, ValueEnum};
use futures::StreamExt;
use proto::profile::v1::value::Kind;
use proto::profile::v1::{GetProfileRequest, Item, ItemState, PersonKey, Profile, Purpose, Value, person_key};
use query::api::client::Client;
use serde_json::{Map, json};
use sha2::{Digest, Sha256};

use crate::post;
use crate::profiles::{self, Manage};
use crate::report::{print_document, print_table};
use crate::settings::Settings;

/// Rows held back for a table whose columns line up; a longer answer is printed in several.
const TABLE_ROWS_MAX: usize = 10_000;

/// Where a running Quad is, and who asks.
#[derive(Args)]
pub struct Server {
    /// The gRPC address; the settings' own when left out.
    #[arg(long, env = "QUAD_URL", value_name = "URL")]
    url: Option<String>,
}

#[derive(Args)]
pub struct SqlArgs {
    /// The statement, e.g. "SELECT COUNT(*) FROM academic.grade".
    query: String,
    /// Wait until what a push or `quad watermark` gave this token for is in the answer.
    #[arg(long, value_name = "TOKEN")]
    watermark: Option<String>,
    /// Print one JSON object a row.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ProfileArgs {
    #[command(subcommand)]
    manage: Option<Manage>,
    /// 学号.
    #[arg(required = true)]
    student_no: Option<String>,
    /// Only these sections or items, e.g. a,b09,gpa.
    #[arg(long, value_delimiter = ',')]
    items: Vec<String>,
    /// Wait until what a push or `quad watermark` gave this token for is in the answer.
    #[arg(long, value_name = "TOKEN")]
    watermark: Option<String>,
    /// The profile as it was at this moment, from what had been received by then: 2026-10-01T08:00:00+08:00, or 2026-10-01 for the end
    /// of that day on the clock of the campus.
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// What for; it decides what is shown, and is recorded.
    #[arg(long, value_enum, default_value = "daily-work")]
    purpose: For,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, ValueEnum)]
enum For {
    DailyWork,
    Safety,
    StudyHelp,
    Aid,
    Statistics,
}

impl From<For> for Purpose {
    fn from(purpose: For) -> Self {
        match purpose {
            For::DailyWork => Self::DailyWork,
            For::Safety => Self::Safety,
            For::StudyHelp => Self::StudyHelp,
            For::Aid => Self::Aid,
            For::Statistics => Self::Statistics,
        }
    }
}

impl Server {
    pub async fn connect(&self, settings: &Settings) -> Result<Client> {
        let scheme = if settings.query.tls.is_some() { "https" } else { "http" };
        let url = self.url.clone().unwrap_or_else(|| format!("{scheme}://{}", settings.query.grpc_listen));
        Client::connect(&url, std::env::var("QUAD_TOKEN").ok()).await.map_err(with_hint)
    }
}

/// Asks in SQL and prints rows as they come.
///
/// # Errors
/// What the server says, with its hint.
pub async fn sql(settings: &Settings, args: &SqlArgs) -> Result<ExitCode> {
    let client = args.server.connect(settings).await?.after(args.watermark.clone());
    let mut answer = client.sql(&args.query).await.map_err(with_hint)?;
    let head: Vec<String> = answer.schema.fields().iter().map(|field| field.name().clone()).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let (mut waiting, mut total, mut is_begun) = (Vec::new(), 0, false);
    while let Some(batch) = answer.stream.next().await {
        let batch = batch.map_err(with_hint)?;
        total += batch.num_rows();
        if args.json {
            print_json(&batch)?;
            continue;
        }
        waiting.extend(cells(&batch)?);
        if waiting.len() >= TABLE_ROWS_MAX {
            print_table(if is_begun { &[] } else { &head }, &std::mem::take(&mut waiting));
            is_begun = true;
        }
    }
    if !args.json {
        print_table(if is_begun { &[] } else { &head }, &waiting);
        println!("({total} rows)");
    }
    Ok(ExitCode::SUCCESS)
}

pub fn cells(batch: &RecordBatch) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::default().with_null("∅");
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns: Vec<_> = columns.collect::<Result<_, _>>()?;
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect()).collect())
}

pub fn print_json(batch: &RecordBatch) -> Result<()> {
    let mut writer = arrow_json::LineDelimitedWriter::new(std::io::stdout().lock());
    writer.write(batch)?;
    Ok(writer.finish()?)
}

/// Asks for a student's profile and prints its items.
///
/// # Errors
/// What the server says, with its hint.
pub async fn profile(settings: &Settings, args: &ProfileArgs) -> Result<ExitCode> {
    if let Some(manage) = &args.manage {
        return profiles::run(settings, manage).await;
    }
    let student_no = args.student_no.clone().unwrap_or_default();
    let request = GetProfileRequest {
        person: Some(PersonKey { key: Some(person_key::Key::StudentNo(student_no)) }),
        item_mask: (!args.items.is_empty()).then(|| prost_types::FieldMask { paths: args.items.clone() }),
        purpose: Purpose::from(args.purpose).into(),
        min_watermark: args.watermark.clone().unwrap_or_default(),
        at: args.at.as_ref().map(|at| moment(at, settings.timezone)).transpose()?,
    };
    let profile = args.server.connect(settings).await?.profile(request).await.map_err(with_hint)?;
    if args.json {
        print_document(&document(&profile))?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("person {}   version {}   snapshot {}\n", profile.person_id, profile.profile_version, profile.snapshot);
    let row = |item: &Item| {
        let value = item.value.as_ref().map(|value| match plain(value) {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        });
        vec![
            item.id.clone(),
            item.name.clone(),
            value.unwrap_or_default(),
            state(item),
            time(item.as_of.as_ref()),
            item.sources.join(", "),
        ]
    };
    print_table(
        &["id", "item", "value", "state", "as of", "sources"],
        &profile.items.iter().map(row).collect::<Vec<_>>(),
    );
    Ok(ExitCode::SUCCESS)
}

/// A moment in RFC 3339, or the last one of a day in `timezone`.
fn moment(text: &str, timezone: Tz) -> Result<prost_types::Timestamp> {
    let last_of = |day: NaiveDate| {
        let next = day.checked_add_days(Days::new(1))?.signed_duration_since(NaiveDate::default()).num_days();
        let midnight = query::table::time::midnight(timezone, i32::try_from(next).ok()?)?;
        DateTime::from_timestamp_micros(midnight - 1)
    };
    let moment = match text.parse() {
        Ok(day) => last_of(day),
        Err(_) => DateTime::parse_from_rfc3339(text).ok().map(|moment| moment.to_utc()),
    };
    let moment = moment.ok_or_else(|| {
        crate::usage(format!(
            "--at {text} is neither a time such as 2026-10-01T08:00:00+08:00 nor a day such as 2026-10-01"
        ))
    })?;
    let nanos = i32::try_from(moment.timestamp_subsec_nanos())?;
    Ok(prost_types::Timestamp { seconds: moment.timestamp(), nanos })
}

fn document(profile: &Profile) -> serde_json::Value {
    let item = |item: &Item| {
        json!({
            "id": item.id, "name": item.name, "section": item.section, "value": item.value.as_ref().map(plain),
            "state": state(item), "as_of": time(item.as_of.as_ref()), "sources": item.sources, "class": item.sensitivity_class,
        })
    };
    json!({
        "person_id": profile.person_id, "student_nos": profile.student_nos, "profile_version": profile.profile_version,
        "computed_at": time(profile.computed_at.as_ref()), "snapshot": profile.snapshot,
        "items": profile.items.iter().map(item).collect::<Vec<_>>(),
    })
}

fn state(item: &Item) -> String {
    let name = ItemState::try_from(item.state).unwrap_or_default().as_str_name();
    name.trim_start_matches("ITEM_STATE_").to_lowercase()
}

/// A time in RFC 3339; nothing for none.
pub fn time(time: Option<&prost_types::Timestamp>) -> String {
    let moment = time.and_then(|time| DateTime::from_timestamp(time.seconds, u32::try_from(time.nanos).ok()?));
    moment.map(|moment| moment.to_rfc3339_opts(SecondsFormat::Secs, true)).unwrap_or_default()
}

fn plain(value: &Value) -> serde_json::Value {
    match &value.kind {
        Some(Kind::StringValue(text)) => json!(text),
        Some(Kind::Int64Value(number)) => json!(number),
        Some(Kind::DoubleValue(number)) => json!(number),
        Some(Kind::BoolValue(truth)) => json!(truth),
        Some(Kind::TimestampValue(moment)) => json!(time(Some(moment))),
        Some(Kind::ListValue(list)) => list.values.iter().map(plain).collect(),
        Some(Kind::ObjectValue(object)) => {
            let mut fields: Vec<_> = object.fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
            fields.sort_by(|left, right| left.0.cmp(&right.0));
            Map::from_iter(fields).into()
        }
        None => serde_json::Value::Null,
    }
}

/// The server's words; what to do stands on the next line.
pub fn with_hint(error: query::Error) -> anyhow::Error {
    match &error.hint {
        Some(hint) => anyhow!("{}\nhint: {hint}", error.message),
        None => anyhow!("{}", error.message),
    }
}

#[derive(Args)]
pub struct WatermarkArgs {
    /// HOST:PORT of the process that pulls; the settings' extract.http_listen when left out.
    #[arg(long, env = "QUAD_EXTRACT", value_name = "HOST:PORT")]
    extract: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints a token for all that the log holds now: an answer that reaches to it has everything that was taken in before.
///
/// # Errors
/// The process that pulls does not answer, or its log does not.
pub async fn watermark(settings: &Settings, args: &WatermarkArgs) -> Result<ExitCode> {
    let address = args.extract.clone().unwrap_or_else(|| settings.extract.http_listen.to_string());
    let answer = post::ask(&address, "/v1/watermark", std::env::var("QUAD_TOKEN").ok().as_deref(), None).await?;
    if args.json {
        print_document(&answer)?;
    } else {
        println!("{}", answer["watermark"].as_str().unwrap_or_default());
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Args)]
pub struct TokenArgs {
    /// What logs and the PostgreSQL user will say.
    name: String,
    #[arg(long, value_enum)]
    role: Role,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    Admin,
    Analyst,
    Counselor,
    App,
}

/// Prints a new token and the settings that accept it. Only its hash is ever stored.
///
/// # Errors
/// The system gives no random bytes.
pub fn token(args: &TokenArgs) -> Result<ExitCode> {
    let mut bytes = [0u8; 24];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    let token = hex(&bytes);
    let sha256 = hex(&Sha256::digest(token.as_bytes()));
    let role = args.role.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default();
    if args.json {
        println!("{}", serde_json::json!({ "name": args.name, "role": role, "token": token, "sha256": sha256 }));
    } else {
        println!(
            "token (shown once): {token}\n\nquad.toml:\n[access.tokens.{}]\nrole = \"{role}\"\nsha256 = \"{sha256}\"",
            args.name
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, expected: Expect) {
        let said = match moment(text, Tz::Asia__Shanghai) {
            Ok(at) => DateTime::from_timestamp(at.seconds, at.nanos as u32).unwrap().to_rfc3339(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn a_day_means_its_end() {
        check("2026-10-01", expect!["2026-10-01T15:59:59.999999+00:00"]);
        check("2026-10-01T08:00:00+08:00", expect!["2026-10-01T00:00:00+00:00"]);
        check("2026-10-01T00:00:00.25Z", expect!["2026-10-01T00:00:00.250+00:00"]);
        check(
            "1 October",
            expect!["--at 1 October is neither a time such as 2026-10-01T08:00:00+08:00 nor a day such as 2026-10-01"],
        );
    }
}
