//! `quad identity`: what is in doubt about whose a student number is, and what an administrator decides about it.
//!
//! The query service is asked, so that its policy decides who may; it hands a decision on to the process that holds the log,
//! and [`Poster`] is that way. What was decided is printed with a watermark, for whoever wants to read what it has made.

use std::process::ExitCode;

use anyhow::{Context, Result};
use async_trait::async_trait;
use chrono::DateTime;
use clap::{Args, Subcommand, ValueEnum};
use proto::identity::v1::{
    Candidate, ConfirmRequest, Decision, HistoryRequest, ListReviewsRequest, MergeRequest, NumberAt, RejectRequest,
    Review, ReviewKind, ReviewState, RevokeRequest, SplitRequest, Verdict,
};
use query::ErrorKind;
use query::decide::{Decide, Ruled, Ruling};
use serde_json::{Value, json};

use crate::client::{Server, time, with_hint};
use crate::post;
use crate::report::{print_document, print_table};
use crate::settings::Settings;

#[derive(Args)]
pub struct IdentityArgs {
    #[command(subcommand)]
    command: IdentityCommand,
}

#[derive(Subcommand)]
enum IdentityCommand {
    /// List the questions that no rule may answer: disputed numbers and documents, provisional links, namesakes.
    Reviews(ReviewsArgs),
    /// Answer a question with yes: its numbers are one person's.
    Confirm(ReviewArgs),
    /// Answer a question with no: its numbers are two persons'. One number of which that is said stays disputed.
    Reject(ReviewArgs),
    /// Say that two student numbers are one person's.
    ///
    /// It goes before every rule and takes effect with the next refresh. The person keeps the id of the number that began
    /// first. `quad identity undo` takes it back, and everything is as if it had never been.
    Merge(NumbersArgs),
    /// Say that two student numbers are two persons', whatever the rules say.
    Split(NumbersArgs),
    /// Undo the decision in force of a question: the one before holds again, or else the rules.
    Undo(ReviewArgs),
    /// List the decisions that were taken, the newest first, those that were undone too.
    History(HistoryArgs),
}

#[derive(Args)]
struct ReviewsArgs {
    /// Only in this state.
    #[arg(long, value_enum, default_value = "open")]
    state: State,
    /// Only asked for this reason.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// The most questions to list.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    how: How,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Open,
    Decided,
    All,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Number,
    Document,
    #[value(name = "status_change")]
    StatusChange,
    #[value(name = "exam_no")]
    ExamNo,
    Namesake,
    #[value(name = "by_hand")]
    ByHand,
}

#[derive(Args)]
struct ReviewArgs {
    /// The question's number, as listed.
    review_id: String,
    /// Why; kept with the decision. No names and no document numbers.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct NumbersArgs {
    /// 学号; of a number that several had in turn, that of its present holder.
    first: String,
    /// The other 学号.
    second: String,
    /// Why; kept with the decision. No names and no document numbers.
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct HistoryArgs {
    /// Only about this question.
    #[arg(long, value_name = "REVIEW_ID", default_value = "", hide_default_value = true)]
    review: String,
    /// Only about this 学号.
    #[arg(long, value_name = "STUDENT_NO", default_value = "", hide_default_value = true)]
    number: String,
    /// The most decisions to list.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct How {
    /// Wait until what a push, a decision or `quad watermark` gave this token for is known.
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    watermark: String,
    /// Print JSON: one object a line for lists, one document for a decision.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// The most of a list that is asked for at a time.
const PAGE_MAX: u32 = 500;

/// Runs a `quad identity` command.
///
/// # Errors
/// What the server says, with its hint.
pub async fn run(settings: &Settings, args: IdentityArgs) -> Result<ExitCode> {
    match args.command {
        IdentityCommand::Reviews(args) => reviews(settings, args).await?,
        IdentityCommand::History(args) => history(settings, args).await?,
        IdentityCommand::Confirm(ReviewArgs { review_id, note, how }) => {
            let request = ConfirmRequest { review_id, note, min_watermark: how.watermark.clone() };
            let answer = how.server.connect(settings).await?.confirm(request).await.map_err(with_hint)?;
            print_decision(answer.decision, &answer.watermark, how.json)?;
        }
        IdentityCommand::Reject(ReviewArgs { review_id, note, how }) => {
            let request = RejectRequest { review_id, note, min_watermark: how.watermark.clone() };
            let answer = how.server.connect(settings).await?.reject(request).await.map_err(with_hint)?;
            print_decision(answer.decision, &answer.watermark, how.json)?;
        }
        IdentityCommand::Undo(ReviewArgs { review_id, note, how }) => {
            let request = RevokeRequest { review_id, note, min_watermark: how.watermark.clone() };
            let answer = how.server.connect(settings).await?.revoke(request).await.map_err(with_hint)?;
            print_decision(answer.decision, &answer.watermark, how.json)?;
        }
        IdentityCommand::Merge(NumbersArgs { first, second, note, how }) => {
            let [first, second] = [first, second].map(|student_no| Some(NumberAt { student_no, at: None }));
            let request = MergeRequest { first, second, note, min_watermark: how.watermark.clone() };
            let answer = how.server.connect(settings).await?.merge(request).await.map_err(with_hint)?;
            print_decision(answer.decision, &answer.watermark, how.json)?;
        }
        IdentityCommand::Split(NumbersArgs { first, second, note, how }) => {
            let [first, second] = [first, second].map(|student_no| Some(NumberAt { student_no, at: None }));
            let request = SplitRequest { first, second, note, min_watermark: how.watermark.clone() };
            let answer = how.server.connect(settings).await?.split(request).await.map_err(with_hint)?;
            print_decision(answer.decision, &answer.watermark, how.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn reviews(settings: &Settings, args: ReviewsArgs) -> Result<()> {
    let state = match args.state {
        State::Open => ReviewState::Open,
        State::Decided => ReviewState::Decided,
        State::All => ReviewState::All,
    };
    let kind = args.kind.map_or(ReviewKind::Unspecified, |kind| match kind {
        Kind::Number => ReviewKind::Number,
        Kind::Document => ReviewKind::Document,
        Kind::StatusChange => ReviewKind::StatusChange,
        Kind::ExamNo => ReviewKind::ExamNo,
        Kind::Namesake => ReviewKind::Namesake,
        Kind::ByHand => ReviewKind::ByHand,
    });
    let client = args.how.server.connect(settings).await?;
    let (mut found, mut page_token, mut total) = (Vec::new(), String::new(), 0);
    while let Some(page_size) = rest(args.limit, found.len()) {
        let request = ListReviewsRequest {
            page_size,
            page_token,
            state: state.into(),
            kind: kind.into(),
            min_watermark: args.how.watermark.clone(),
        };
        let page = client.list_reviews(request).await.map_err(with_hint)?;
        (page_token, total) = (page.next_page_token, page.total_size);
        found.extend(page.reviews);
        if page_token.is_empty() {
            break;
        }
    }
    if args.how.json {
        found.iter().for_each(|review| println!("{}", review_document(review)));
        return Ok(());
    }
    let row = |review: &Review| {
        let numbers: Vec<String> = review.candidates.iter().map(number).collect();
        let persons: Vec<&str> = review.candidates.iter().map(|candidate| &*candidate.person_id).collect();
        vec![
            review.review_id.clone(),
            review_kind(review.kind),
            numbers.join(" "),
            if persons.iter().all(|person| *person == persons[0]) { "one".to_string() } else { "two".to_string() },
            review.reasons.join(", "),
            review.decision.as_ref().map_or("open".to_string(), |decision| verdict(decision.verdict)),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    print_table(&["review_id", "kind", "numbers", "persons now", "evidence", "state"], &rows);
    println!("({} of {total} questions)", rows.len());
    Ok(())
}

async fn history(settings: &Settings, args: HistoryArgs) -> Result<()> {
    let client = args.how.server.connect(settings).await?;
    let (mut found, mut page_token) = (Vec::new(), String::new());
    while let Some(page_size) = rest(args.limit, found.len()) {
        let request = HistoryRequest {
            page_size,
            page_token,
            review_id: args.review.clone(),
            student_no: args.number.clone(),
            min_watermark: args.how.watermark.clone(),
        };
        let page = client.history(request).await.map_err(with_hint)?;
        page_token = page.next_page_token;
        found.extend(page.decisions);
        if page_token.is_empty() {
            break;
        }
    }
    if args.how.json {
        found.iter().for_each(|decision| println!("{}", decision_document(decision)));
        return Ok(());
    }
    let row = |decision: &Decision| {
        let mut said = verdict(decision.verdict);
        if decision.is_revoked {
            said.push_str(" (undone)");
        }
        let (by, at) = (decision.decided_by.clone(), time(decision.decided_at.as_ref()));
        vec![decision.review_id.clone(), decision.student_nos.join(" "), said, by, at, decision.note.clone()]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    print_table(&["review_id", "numbers", "decision", "by", "at", "note"], &rows);
    println!("({} decisions)", rows.len());
    Ok(())
}

/// How many of `limit` are still to be asked for.
fn rest(limit: u32, found: usize) -> Option<i32> {
    let rest = limit.saturating_sub(u32::try_from(found).unwrap_or(u32::MAX)).min(PAGE_MAX);
    i32::try_from(rest).ok().filter(|rest| *rest > 0)
}

fn print_decision(decision: Option<Decision>, watermark: &str, is_json: bool) -> Result<()> {
    let decision = decision.context("the server gave no decision")?;
    let (said, id) = (verdict(decision.verdict), &decision.review_id);
    if is_json {
        let mut document = decision_document(&decision);
        document["watermark"] = json!(watermark);
        return print_document(&document);
    }
    println!("{said}: {}   by {}", decision.student_nos.join(" "), decision.decided_by);
    if decision.verdict() != Verdict::Revoked {
        println!("to undo it: quad identity undo {id}");
    }
    println!("to read what it has made: --watermark '{watermark}'");
    Ok(())
}

fn number(candidate: &Candidate) -> String {
    match &candidate.since {
        None => candidate.student_no.clone(),
        Some(since) => format!("{} (since {})", candidate.student_no, time(Some(since))),
    }
}

fn review_kind(kind: i32) -> String {
    let name = ReviewKind::try_from(kind).unwrap_or_default().as_str_name();
    name.trim_start_matches("REVIEW_KIND_").to_lowercase()
}

fn verdict(verdict: i32) -> String {
    let name = Verdict::try_from(verdict).unwrap_or_default().as_str_name();
    name.trim_start_matches("VERDICT_").to_lowercase()
}

fn review_document(review: &Review) -> Value {
    let candidate = |of: &Candidate| {
        let since = of.since.as_ref().map(|since| time(Some(since)));
        json!({ "student_no": of.student_no, "since": since, "person_id": of.person_id, "rule": of.rule })
    };
    json!({
        "review_id": review.review_id, "kind": review_kind(review.kind), "raised_at": time(review.raised_at.as_ref()),
        "candidates": review.candidates.iter().map(candidate).collect::<Vec<_>>(), "rule": review.rule,
        "reasons": review.reasons, "decision": review.decision.as_ref().map(decision_document),
    })
}

fn decision_document(decision: &Decision) -> Value {
    json!({
        "decision_id": decision.decision_id, "review_id": decision.review_id, "verdict": verdict(decision.verdict),
        "student_nos": decision.student_nos, "decided_by": decision.decided_by,
        "decided_at": time(decision.decided_at.as_ref()), "note": decision.note, "revokes": decision.revokes,
        "is_revoked": decision.is_revoked,
    })
}

/// Brings decisions to the process that holds the log, over HTTP.
pub struct Poster {
    /// HOST:PORT.
    address: String,
}

impl Poster {
    pub fn new(settings: &Settings) -> Self {
        let address = match settings.query.decide_at.as_str() {
            "" => settings.extract.http_listen.to_string(),
            address => address.to_string(),
        };
        Self { address }
    }
}

#[async_trait]
impl Decide for Poster {
    async fn decide(&self, ruling: &Ruling, token: Option<&str>) -> Result<Ruled, query::Error> {
        let posted = async {
            let body = serde_json::to_value(ruling)?;
            let answer = post::json(&self.address, "/v1/identity/decisions", token, &body).await?;
            let text =
                |key: &str| answer[key].as_str().map(str::to_string).with_context(|| format!("no {key} came back"));
            let decided_at = DateTime::parse_from_rfc3339(&text("decided_at")?)?.timestamp_micros();
            let (decision_id, decided_by) = (text("decision_id")?, text("decided_by")?);
            anyhow::Ok(Ruled { decision_id, decided_by, decided_at, watermark: text("watermark")? })
        };
        posted.await.map_err(|error| {
            let message = format!("the decision did not reach the log: {error:#}");
            query::Error::new(ErrorKind::Unavailable, message)
                .with_hint("query.decide_at says where it goes; `quad identity history` shows whether it arrived")
        })
    }
}
