//! New connectors of every kind for every contract, and what a preview shows and hides.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::util::display::array_value_to_string;
use expect_test::{Expect, expect};
use schemas::{Contracts, Kind as TableKind};
use serde_json::json;

use super::rehearsal::Rehearsal;
use super::{preview, scaffold};
use crate::connector::{Connector, Kind};
use crate::functions::Surroundings;
use crate::mapping::Mapping;
use crate::settings::ExtractSettings;

const TIMEZONE: chrono_tz::Tz = chrono_tz::Asia::Shanghai;

fn contracts() -> Contracts {
    Contracts::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas")).expect("contracts")
}

/// The columns of the mapping's output, given the columns that the contract's fields are made of.
async fn output(connector: &Connector, sql: String) -> Vec<String> {
    let mut table = connector.tables[0].clone();
    let columns = table.contract.fields.iter().map(|field| field.name.to_uppercase());
    let columns: Vec<_> = columns.chain(["ROW_UPDATED_AT", "_op", "_timestamp"].map(str::to_string)).collect();
    table.mapping_sql = sql;
    let code_maps = connector.code_maps.clone();
    let surroundings = Surroundings { timezone: TIMEZONE, code_maps, id_key: None, codes_unknown: Arc::default() };
    let mapping = Mapping::new(&connector.name, &table, &surroundings).expect("a plain SELECT");
    let schema = mapping.output(&columns).await.expect("it fits the columns");
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

#[tokio::test]
async fn a_new_connector_of_any_kind_for_any_contract_loads_and_maps_every_field() {
    let (contracts, folder) = (contracts(), tempfile::tempdir().expect("a temporary folder"));
    for contract in contracts.iter().filter(|contract| contract.kind != TableKind::Derived) {
        for kind in [
            Kind::Sql,
            Kind::Files,
            Kind::Http,
            Kind::Kafka,
            Kind::Mqtt,
            Kind::Singer,
            Kind::PostgresCdc,
            Kind::Webhook,
        ] {
            let name = format!("{}_{}_{kind:?}", contract.domain, contract.table).to_lowercase();
            let written = scaffold::write(folder.path(), &name, kind, contract).expect("writes");
            assert!(written.iter().all(|file| file.is_file()), "{written:?}");
            let connector = Connector::load(folder.path(), &name, &contracts).expect("loads");
            assert_eq!((connector.kind, connector.tables[0].contract.name()), (kind, contract.name()));
            let sql = connector.tables[0].mapping_sql.clone();
            let begun = output(&connector, sql.clone()).await;
            let needed = contract.fields.iter().filter(|field| field.required);
            assert!(needed.clone().all(|field| begun.contains(&field.name)), "{name}: {begun:?}");
            let mut all = output(&connector, sql.replace("-- , ", ", ")).await;
            all.retain(|column| column != "src_updated_at" && column != "op");
            all.sort();
            let mut fields: Vec<_> = contract.fields.iter().map(|field| field.name.clone()).collect();
            fields.sort();
            assert_eq!(all, fields, "{name}");
        }
    }
}

#[test]
fn a_folder_that_is_there_is_left_as_it_is_and_a_name_is_plain() {
    let (contracts, folder) = (contracts(), tempfile::tempdir().expect("a temporary folder"));
    let contract = contracts.get("student_affairs.leave_request").expect("a contract");
    std::fs::create_dir(folder.path().join("mine")).expect("creates");
    for name in ["mine", "../mine", "Mine", "1st", ""] {
        assert!(scaffold::write(folder.path(), name, Kind::Sql, contract).is_err(), "{name}");
    }
    assert_eq!(std::fs::read_dir(folder.path().join("mine")).expect("a folder").count(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
}

const CONNECTOR: &str = r#"
title = "leaves"
kind = "webhook"
sensitive = ["WID", "QJLX"]
[tables.leave_request]
contract = "student_affairs.leave_request"
records = ""
[tables.leave_request.input]
WID = "/id"
XH = "/no"
QJLX = "/kind"
ZT = "/state"
SJ = "/at"
"#;

const MAPPING: &str = r#"
SELECT clean_id("WID") AS leave_id, clean_id("XH") AS student_no, code_map('kind', "QJLX") AS leave_type,
       cn_timestamp("SJ") AS applied_at, cn_timestamp("SJ") AS start_at, cn_timestamp_end(substr("SJ", 1, 10)) AS end_at,
       COALESCE(code_map('state', "ZT"), "ZT") AS approval_status
FROM input WHERE "XH" <> '0000'
"#;

/// What a preview of `body` says.
async fn check(body: serde_json::Value, rows_max: usize, expected: Expect) {
    let (contracts, folder) = (contracts(), tempfile::tempdir().expect("a temporary folder"));
    let leaves = folder.path().join("leaves");
    std::fs::create_dir_all(leaves.join("codes")).expect("creates");
    for (file, text) in [
        ("connector.toml", CONNECTOR),
        ("leave_request.sql", MAPPING),
        ("codes/kind.csv", "source_value,code\n"),
        ("codes/state.csv", "source_value,code\n1,approved\n"),
    ] {
        std::fs::write(leaves.join(file), text).expect("writes");
    }
    let connector = Connector::load(folder.path(), "leaves", &contracts).expect("loads");
    let table = &connector.tables[0];
    let rows = preview::pushed(table, body.to_string().as_bytes(), rows_max).expect("a body");
    let extract: ExtractSettings = crate::tests::settings(folder.path());
    let rehearsal = Rehearsal::new(&extract, "oa", &connector, table, TIMEZONE).expect("a right mapping");
    let preview = preview::preview(&rehearsal, &connector, &rows).await.expect("a preview");
    let mut said = format!("{} read, {} left out\n", preview.rows_read, preview.left_out);
    for row in 0..preview.records.num_rows() {
        let columns = preview.records.columns().iter();
        let cells = columns.map(|column| array_value_to_string(column, row).expect("a value"));
        said.push_str(&format!("{}\n", cells.collect::<Vec<_>>().join(" ")));
    }
    for letter in &preview.letters {
        said.push_str(&format!("{} {} {} {}\n", letter.field, letter.rule, letter.message, letter.bytes));
    }
    for (set, value, times) in &preview.codes_unknown {
        said.push_str(&format!("{set} {value} {times}\n"));
    }
    expected.assert_eq(&said);
}

#[tokio::test]
async fn a_preview_shows_rows_letters_and_unknown_codes_and_hides_what_is_sensitive() {
    let row =
        |[id, no, state, at]: [&str; 4]| json!({ "id": id, "no": no, "kind": "secret", "state": state, "at": at });
    let body = json!([
        row(["L1", "0026", "1", "2026-11-01 08:00:00"]),
        row(["L2", "0026", "9", "2026-11-01 08:00:00"]),
        row(["L3", "0026", "1", "soon"]),
        row(["L4", "0000", "1", "2026-11-01 08:00:00"]),
        row(["L5", "0026", "1", "2026-11-01 08:00:00"]),
    ]);
    check(body.clone(), 4, expect![[r#"
        4 read, 1 left out
        *** 0026  2026-11-01T00:00:00Z 2026-11-01T00:00:00Z 2026-11-01T15:59:59Z approved
        approval_status values not one of the known values {"QJLX":"***","SJ":"2026-11-01 08:00:00","WID":"***","XH":"0026","ZT":"9"}
        applied_at type not a timestamp (RFC 3339) {"QJLX":"***","SJ":"soon","WID":"***","XH":"0026","ZT":"1"}
        kind *** 3
        state 9 1
    "#]]).await;
    check(
        body,
        1,
        expect![[r#"
        1 read, 0 left out
        *** 0026  2026-11-01T00:00:00Z 2026-11-01T00:00:00Z 2026-11-01T15:59:59Z approved
        kind *** 1
    "#]],
    )
    .await;
    check(
        json!([]),
        4,
        expect![[r#"
        0 read, 0 left out
    "#]],
    )
    .await;
}

#[tokio::test]
async fn what_is_made_of_a_column_is_known_through_every_step() {
    let (contracts, folder) = (contracts(), tempfile::tempdir().expect("a temporary folder"));
    let contract = contracts.get("student_affairs.leave_request").expect("a contract");
    scaffold::write(folder.path(), "leaves", Kind::Sql, contract).expect("writes");
    let connector = Connector::load(folder.path(), "leaves", &contracts).expect("loads");
    let column = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let input = RecordBatch::try_from_iter([("WID", column("L1")), ("XH", column("0026"))]).expect("a batch");
    let mut table = connector.tables[0].clone();
    table.mapping_sql =
        "SELECT q.n AS leave_id, \"XH\" AS student_no, (SELECT MAX(\"WID\") FROM input) AS approval_status \
                         FROM (SELECT *, upper(\"WID\") AS n FROM input) q WHERE \"WID\" <> ''"
            .to_string();
    let extract: ExtractSettings = crate::tests::settings(folder.path());
    let rehearsal = Rehearsal::new(&extract, "oa", &connector, &table, TIMEZONE).expect("a right mapping");
    let made = async |name: &str| rehearsal.mapping.made_of(&[name.to_string()], &input).await.expect("plans");
    assert_eq!(made("wid").await, ["leave_id", "approval_status"]);
    // A subquery may take anything.
    assert_eq!(made("XH").await, ["student_no", "approval_status"]);
}
