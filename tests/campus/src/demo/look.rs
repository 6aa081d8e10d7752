//! What Quad itself says: counts over the PostgreSQL wire, and the state of its sources over HTTP.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use campus::http::Http;
use campus::truth::Truth;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::quad::Quad;
use super::work::Work;

/// How long Quad may take to answer for the first time.
const UP_MAX: Duration = Duration::from_secs(120);

/// Connections to a running Quad.
pub struct Look {
    address: (String, u16),
    token: String,
    client: Option<Client>,
    http: Http,
    /// Tables that are counted for the progress.
    tables: Vec<String>,
}

/// What is in the lake of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Different versions of rows.
    pub versions: u64,
    /// Rows of the table as it is now.
    pub current: u64,
    /// Dead letters by rule and field.
    pub letters: BTreeMap<(String, String), u64>,
}

/// What is in the lake, by table.
pub type Lake = BTreeMap<String, Observed>;

impl Look {
    pub fn new(work: &Work, truth: &Truth) -> Look {
        let (host, port) = work.pg.split_once(':').unwrap_or((&work.pg, "54320"));
        Look {
            address: (host.to_string(), port.parse().unwrap_or(54320)),
            token: work.secrets.token.clone(),
            client: None,
            http: Http::new(&work.http),
            tables: truth.tables.keys().cloned().collect(),
        }
    }

    /// Waits until the PostgreSQL wire answers.
    ///
    /// # Errors
    /// Quad ends, or takes too long.
    pub async fn wait_until_up(&mut self, quad: &mut Quad<'_>) -> Result<()> {
        let deadline = Instant::now() + UP_MAX;
        loop {
            quad.watch()?;
            match self.rows("SELECT 1").await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error.context("quad does not answer")),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Runs a query and gives its rows as text.
    async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let mut config = tokio_postgres::Config::new();
            config.host(&self.address.0).port(self.address.1).user("demo").password(&self.token).dbname("quad");
            let (client, connection) =
                config.connect(NoTls).await.context("could not connect to the PostgreSQL wire")?;
            tokio::spawn(connection);
            self.client = Some(client);
        }
        let client = self.client.as_ref().expect("a client was just made");
        let messages = client.simple_query(sql).await.with_context(|| format!("could not run {sql}"))?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_string()).collect())
            }
            _ => None,
        };
        Ok(messages.into_iter().filter_map(row).collect())
    }

    async fn number(&mut self, sql: &str) -> Result<u64> {
        match self.rows(sql).await?.first().and_then(|row| row.first()) {
            Some(text) => text.parse().with_context(|| format!("not a number: {text}")),
            None => bail!("no row from {sql}"),
        }
    }

    /// Counts what of each table of `truth` is in the lake.
    ///
    /// # Errors
    /// Quad does not answer.
    pub async fn observe(&mut self, truth: &Truth) -> Result<Lake> {
        let mut observed = Lake::new();
        for table in truth.tables.keys() {
            let versions =
                format!("SELECT count(*) FROM (SELECT DISTINCT src, src_key, raw_hash FROM {table}_history) v");
            let versions = self.number(&versions).await?;
            let current = self.number(&format!("SELECT count(*) FROM {table}")).await?;
            observed.insert(table.clone(), Observed { versions, current, letters: BTreeMap::new() });
        }
        let letters = "SELECT target, rule, coalesce(field, ''), count(DISTINCT letter_id) FROM platform.dead_letter GROUP BY 1, 2, 3";
        for row in self.rows(letters).await? {
            if let [target, rule, field, count] = row.as_slice() {
                let table = observed.entry(target.clone()).or_default();
                table.letters.insert((rule.clone(), field.clone()), count.parse()?);
            }
        }
        Ok(observed)
    }

    /// Whether as many rows and letters are there as `truth` counts; a cheap sign that a whole count may succeed.
    ///
    /// # Errors
    /// Quad does not answer.
    pub async fn is_enough(&mut self, truth: &Truth) -> Result<bool> {
        let sum = |count: fn(&campus::truth::TableTruth) -> u64| truth.tables.values().map(count).sum::<u64>();
        let landed = self.landed().await?;
        Ok(landed.rows >= sum(|table| table.versions) && landed.letters >= sum(|table| table.dead_letters))
    }

    /// One line: sources, rows pulled and landed, dead letters, age of the newest row.
    pub async fn progress(&mut self) -> String {
        match self.try_progress().await {
            Ok(line) => line,
            Err(error) => format!("Quad does not answer at the moment ({})", error.root_cause()),
        }
    }

    async fn try_progress(&mut self) -> Result<String> {
        let (_, body) = self.http.get("/v1/sources").await?;
        let report: BTreeMap<String, serde_json::Value> = serde_json::from_str(&body)?;
        let sum = |key: &str| report.values().filter_map(|table| table[key].as_u64()).sum::<u64>();
        let well = report.values().filter(|table| table["failures"] == 0).count();
        let taken = sum("records") + sum("dead_letters");
        let Landed { rows, letters, newest_s } = self.landed().await?;
        let newest = newest_s.map(|seconds| format!("   newest row {seconds:.1} s old")).unwrap_or_default();
        let tables = report.len();
        Ok(format!(
            "source tables {well}/{tables} well   taken in since its start {taken}   landed {rows}   dead letters {letters}{newest}"
        ))
    }

    /// Counts rows of every table, letters, and the age of the newest row, in one question.
    async fn landed(&mut self) -> Result<Landed> {
        let count = |table: String| format!("SELECT count(*) AS n, max(ingested_at) AS t FROM {table}");
        let rows =
            self.tables.iter().map(|table| count(format!("{table}_history"))).collect::<Vec<_>>().join(" UNION ALL ");
        let letters = count("platform.dead_letter".to_string());
        let sql = format!(
            "SELECT 'rows', sum(n), date_part('epoch', now()) - date_part('epoch', max(t)) FROM ({rows}) r \
             UNION ALL SELECT 'letters', n, 0 FROM ({letters}) l"
        );
        let answer = self.rows(&sql).await?;
        let of = |name: &str| answer.iter().find(|row| row.first().is_some_and(|first| first == name));
        let number = |name: &str| of(name).and_then(|row| row.get(1)?.parse().ok()).unwrap_or(0);
        let newest_s = of("rows").and_then(|row| row.get(2)?.parse().ok());
        Ok(Landed { rows: number("rows"), letters: number("letters"), newest_s })
    }
}

/// Rows of all tables.
struct Landed {
    rows: u64,
    letters: u64,
    newest_s: Option<f64>,
}
