//! `quad profile verify|diff|switch`: the upkeep of all profiles. A running query service is asked; what differs is printed.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use proto::profile::v1::{ItemChange, ItemComparison};
use query::api::client;
use serde_json::json;

use crate::client::{Server, with_hint};
use crate::report::{print_document, print_table};
use crate::settings::Settings;

#[derive(Subcommand)]
pub enum Manage {
    /// Compute the profiles in use once more from nothing, and tell where they differ.
    ///
    /// Exit codes: 0 they are the same, 1 they differ, 64 wrong usage.
    Verify(ManageArgs),
    /// Tell what the definitions that the files of query.profile_dir have now would change.
    Diff(ManageArgs),
    /// As diff, and then take the definitions into use, all at one instant, while everybody reads.
    Switch(ManageArgs),
}

#[derive(Args)]
pub struct ManageArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Runs one of them; it takes as long as computing all profiles does.
///
/// # Errors
/// What the server says, with its hint.
pub async fn run(settings: &Settings, manage: &Manage) -> Result<ExitCode> {
    let (args, what, done) = match manage {
        Manage::Verify(args) => (args, client::Manage::Verify, "held against profiles computed from nothing"),
        Manage::Diff(args) => (args, client::Manage::Diff, "held against profiles by the definitions in the files"),
        Manage::Switch(args) => (args, client::Manage::Switch, "in use by the definitions in the files"),
    };
    let client = args.server.connect(settings).await?;
    eprintln!("all profiles are being computed beside those in use");
    let comparison = client.manage_profiles(what).await.map_err(with_hint)?;
    let item = |item: &ItemComparison| json!({ "id": item.id, "name": item.name, "change": change(item), "persons": item.persons });
    if args.json {
        print_document(&json!({
            "persons": comparison.persons, "persons_different": comparison.persons_different,
            "items": comparison.items.iter().map(item).collect::<Vec<_>>(), "watermark": comparison.watermark,
        }))?;
    } else {
        let row =
            |item: &ItemComparison| vec![item.id.clone(), item.name.clone(), change(item), item.persons.to_string()];
        let rows: Vec<_> = comparison.items.iter().map(row).collect();
        if !rows.is_empty() {
            print_table(&["id", "item", "change", "persons"], &rows);
        }
        println!("{} profiles {done}: {} differ", comparison.persons, comparison.persons_different);
    }
    let is_wrong = matches!(manage, Manage::Verify(_)) && comparison.persons_different > 0;
    Ok(if is_wrong { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn change(item: &ItemComparison) -> String {
    let name = ItemChange::try_from(item.change).unwrap_or_default().as_str_name();
    name.trim_start_matches("ITEM_CHANGE_").to_lowercase()
}
