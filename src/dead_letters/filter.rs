//! Which letters: options of the command line enter, an SQL condition over the table of letters leaves.

use anyhow::{Result, bail};
use chrono::{DateTime, NaiveDate};
use clap::{Args, ValueEnum};

/// The table of letters.
pub const TABLE: &str = "platform.dead_letter";

/// What became of a letter; nothing yet is `open`.
pub const STATE: &str = "COALESCE(state, 'open')";

#[derive(Args, Default)]
pub struct Filter {
    /// Only of this source, by its id in the settings.
    #[arg(long)]
    source: Option<String>,
    /// Only for this table, e.g. academic.grade.
    #[arg(long, value_name = "DOMAIN.TABLE")]
    table: Option<String>,
    /// Only with this rule, e.g. required, range, KSXZM.
    #[arg(long)]
    rule: Option<String>,
    /// Only with this field.
    #[arg(long)]
    field: Option<String>,
    /// Only rejected here: extract (source rows) or land (records of the log).
    #[arg(long, value_enum)]
    stage: Option<Stage>,
    /// Only rejected at or after this time (RFC 3339) or day (YYYY-MM-DD, UTC).
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Only rejected before this time or day.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// Only in this state.
    #[arg(long, value_enum, default_value = "open")]
    state: State,
}

#[derive(Clone, Copy, ValueEnum)]
enum Stage {
    Extract,
    Land,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum State {
    #[default]
    Open,
    Resolved,
    Discarded,
    All,
}

impl Filter {
    /// Whether anything but the state was asked for.
    pub fn is_narrow(&self) -> bool {
        let texts = [&self.source, &self.table, &self.rule, &self.field, &self.since, &self.until];
        texts.iter().any(|text| text.is_some()) || self.stage.is_some()
    }

    /// The condition of a WHERE.
    ///
    /// # Errors
    /// A time span that is empty.
    pub fn condition(&self) -> Result<String> {
        if let (Some(since), Some(until)) = (&self.since, &self.until)
            && since >= until
        {
            bail!(crate::usage("--since is not before --until"));
        }
        let stage = self.stage.map(|stage| match stage {
            Stage::Extract => "extract".to_string(),
            Stage::Land => "land".to_string(),
        });
        let state = match self.state {
            State::Open => Some("open".to_string()),
            State::Resolved => Some("resolved".to_string()),
            State::Discarded => Some("discarded".to_string()),
            State::All => None,
        };
        let equal = |column: &str, value: &Option<String>| value.as_ref().map(|v| format!("{column} = {}", quoted(v)));
        let moment = |sign: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("occurred_at {sign} TIMESTAMP {}", quoted(value)))
        };
        let parts = [
            equal("source", &self.source),
            equal("target", &self.table),
            equal("rule", &self.rule),
            equal("field", &self.field),
            equal("stage", &stage),
            equal(STATE, &state),
            moment(">=", &self.since),
            moment("<", &self.until),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        Ok(if parts.is_empty() { "TRUE".to_string() } else { parts.join(" AND ") })
    }
}

/// A time or day as one RFC 3339 text in UTC.
fn time(text: &str) -> Result<String, String> {
    let day = text.parse::<NaiveDate>().ok().and_then(|day| day.and_hms_opt(0, 0, 0)).map(|moment| moment.and_utc());
    let moment = day.or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|moment| moment.to_utc()));
    let moment = moment.ok_or("neither a time such as 2026-11-24T08:00:00+08:00 nor a day such as 2026-11-24")?;
    Ok(moment.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

/// An SQL text literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use expect_test::{Expect, expect};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn check(line: &str, expected: Expect) {
        let said = match Line::try_parse_from(std::iter::once("x").chain(line.split_whitespace())) {
            Ok(line) => line.filter.condition().unwrap_or_else(|error| error.to_string()),
            Err(error) => error.to_string().lines().next().unwrap_or_default().to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn options_become_one_condition() {
        check("", expect!["COALESCE(state, 'open') = 'open'"]);
        check("--state all", expect!["TRUE"]);
        check(
            "--source o'brien --table academic.grade --rule range --stage land --since 2026-11-01 --state discarded",
            expect![
                "source = 'o''brien' AND target = 'academic.grade' AND rule = 'range' AND stage = 'land' AND COALESCE(state, 'open') = 'discarded' AND occurred_at >= TIMESTAMP '2026-11-01T00:00:00.000000Z'"
            ],
        );
        check(
            "--since 2026-11-24T08:00:00+08:00 --until 2026-11-25",
            expect![
                "COALESCE(state, 'open') = 'open' AND occurred_at >= TIMESTAMP '2026-11-24T00:00:00.000000Z' AND occurred_at < TIMESTAMP '2026-11-25T00:00:00.000000Z'"
            ],
        );
        check("--since 2026-11-25 --until 2026-11-25", expect!["--since is not before --until"]);
        check(
            "--since yesterday",
            expect![
                "error: invalid value 'yesterday' for '--since <TIME>': neither a time such as 2026-11-24T08:00:00+08:00 nor a day such as 2026-11-24"
            ],
        );
    }
}
