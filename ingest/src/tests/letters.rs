//! Letters that are replayed: rows by their mapping, records by their writer's schema, each at most once.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use schemas::{Contract, Encoder};

use super::*;
use crate::extract::replay::{Outcome, Verdict};
use crate::letter::{Stage, Stored};
use crate::mapping::Mapped;
use crate::refine::Refiner;

impl Shop {
    /// The open letters, as `platform.dead_letter` gives them.
    async fn letters(&self) -> Vec<Stored> {
        let contract = self.contracts.get(crate::letter::CONTRACT).expect("a contract");
        let snapshot = self.lake().snapshot(contract).await.expect("reads").expect("has landed");
        let context = SessionContext::new();
        context.register_table("letter", snapshot.provider).expect("registers");
        let sql = "SELECT letter_id, stage, source, target, topic, rule, field, message, bytes, occurred_at, \
                   letter_partition, letter_offset FROM letter WHERE state IS NULL ORDER BY letter_id";
        let batches = context.sql(sql).await.expect("plans").collect().await.expect("runs");
        let mut letters = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let text = |at: usize| {
                    let options = FormatOptions::default();
                    let cell = ArrayFormatter::try_new(batch.column(at).as_ref(), &options).expect("prints");
                    batch.column(at).is_valid(row).then(|| cell.value(row).to_string())
                };
                let place = text(4).is_some();
                letters.push(Stored {
                    letter_id: text(0).expect("a key"),
                    stage: if text(1).as_deref() == Some("land") { Stage::Land } else { Stage::Extract },
                    source: text(2).unwrap_or_default(),
                    target: text(3).unwrap_or_default(),
                    topic: text(4),
                    rule: text(5).unwrap_or_default(),
                    field: text(6).unwrap_or_default(),
                    message: text(7).unwrap_or_default(),
                    bytes: text(8).unwrap_or_default(),
                    occurred_at: text(9).expect("a time"),
                    letter_partition: place.then(|| batch.column(10).as_primitive::<Int32Type>().value(row)),
                    letter_offset: place.then(|| batch.column(11).as_primitive::<Int64Type>().value(row)),
                });
            }
        }
        letters
    }

    async fn replay(&self, letters: &[Stored], dry_run: bool) -> Vec<Outcome> {
        let extract = self.extract().await;
        extract.replay(letters.to_vec(), "ann", dry_run).await.expect("the log is there")
    }

    fn mend(&self, from: &str, to: &str) {
        let file = self.path("connectors/leaves/leave_request.sql");
        let text = std::fs::read_to_string(&file).expect("the mapping");
        assert!(text.contains(from), "{from} is not in the mapping");
        std::fs::write(&file, text.replace(from, to)).expect("writes");
    }

    /// One leave request on its topic, as a producer under `contract` writes it.
    fn produce(&self, contract: &Arc<Contract>, leave_id: &str, end: &str) {
        let columns = [
            ("leave_id", leave_id),
            ("student_no", "0026"),
            ("applied_at", "2026-11-01T00:00:00Z"),
            ("start_at", "2026-11-02T00:00:00Z"),
            ("end_at", end),
        ];
        let fields: Vec<_> = columns.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, true)).collect();
        let arrays = columns.iter().map(|(_, value)| Arc::new(StringArray::from(vec![*value])) as ArrayRef).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).expect("one row");
        let mapped = Mapped { batch, rows: vec![0], failed: Vec::new() };
        // A producer that does not check: its rules are off.
        let lax = Arc::new(Contract { row_rules: Vec::new(), ..contract.as_ref().clone() });
        let (records, _) =
            Refiner::new(lax.clone()).expect("refines").records("other", &mapped, chrono::Utc::now()).expect("a row");
        let value = Encoder::new(lax).values(&records.batch).expect("encodes").iter().next().expect("one");
        let message = Message { key: leave_id.to_string().into(), value, timestamp_ms: 0 };
        self.log.append(&contract.topic(), vec![message]).expect("appends");
    }
}

fn verdicts(outcomes: &[Outcome]) -> Vec<String> {
    let mut lines: Vec<_> = outcomes
        .iter()
        .map(|outcome| format!("{:?} {} {} {}", outcome.verdict, outcome.rule, outcome.field, outcome.note))
        .collect();
    lines.sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_replayed_by_the_mended_mapping_once() {
    let shop = Shop::new(CURSOR);
    shop.mend("cn_timestamp_end(\"QJJSSJ\")", "\"QJJSSJ\"");
    shop.leave("L1", "2026/11/03", "2026-11-01 08:00:00");
    shop.leave("L2", "2026/11/04", "2026-11-01 08:00:00");
    shop.leave("L3", "never", "2026-11-01 08:00:00");
    assert_eq!(shop.pull().await, (0, 3, 0, None));
    shop.land().await;
    let letters = shop.letters().await;
    assert_eq!(letters.len(), 3);
    let rejected = shop.replay(&letters, false).await;
    assert!(rejected.iter().all(|outcome| outcome.verdict == Verdict::Rejected), "nothing was mended: {rejected:?}");

    shop.mend("\"QJJSSJ\" AS", "cn_timestamp_end(\"QJJSSJ\") AS");
    let expected = ["Rejected type end_at not a timestamp (RFC 3339)", "Resolved   replayed", "Resolved   replayed"];
    assert_eq!(verdicts(&shop.replay(&letters, true).await)[1..], ["Resolved   passes now"; 2]);
    assert_eq!(verdicts(&shop.replay(&letters, false).await), expected);
    let again = [
        "Rejected type end_at not a timestamp (RFC 3339)",
        "Resolved   was in the log already",
        "Resolved   was in the log already",
    ];
    assert_eq!(verdicts(&shop.replay(&letters, false).await), again);
    // The pull knows what was replayed.
    assert_eq!(shop.pull().await, (0, 0, 3, None));
    shop.land().await;
    shop.check(
        "SELECT leave_id, src FROM leave ORDER BY 1",
        expect![[r#"
        L1 oa
        L2 oa
    "#]],
    )
    .await;
    shop.check(
        "SELECT DISTINCT state, resolved_by, note FROM letter WHERE state IS NOT NULL ORDER BY 3",
        expect![[r#"
        resolved ann replayed
        resolved ann was in the log already
    "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_corrected_since_is_not_replayed_over_its_correction() {
    let shop = Shop::new(CURSOR);
    shop.leave("L1", "2026-11-01", "2026-11-01 08:00:00");
    assert_eq!(shop.pull().await, (0, 1, 0, None), "it ends before it starts");
    shop.sql("UPDATE QJ SET QJJSSJ = '2026-11-09', ZHXGSJ = '2026-11-01 08:05:00'");
    assert_eq!(shop.pull().await, (1, 0, 0, None));
    shop.land().await;
    let mut letters = shop.letters().await;
    shop.mend("cn_timestamp(\"QJKSSJ\")", "cn_timestamp('2026-10-01')");
    let outcomes = verdicts(&shop.replay(&letters, false).await);
    assert_eq!(outcomes, ["Resolved   a later pull has brought another version of this row"]);
    letters[0].bytes = letters[0].bytes.replace("0026", "0027");
    let forged = shop.replay(&letters, false).await;
    assert_eq!(forged[0].verdict, Verdict::Impossible, "a letter is what its number says");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_letter_masks_has_to_come_from_its_source() {
    let shop = Shop::new(CURSOR);
    shop.mend("'approved' AS approval_status", "'approved' AS approval_status, \"SFZJH\" AS src_key");
    shop.leave("L1", "never", "2026-11-01 08:00:00");
    shop.pull().await;
    shop.land().await;
    let outcomes = verdicts(&shop.replay(&shop.letters().await, false).await);
    expect!["Impossible   it needs SFZJH, which letters do not hold: mend the row at its source, and the next pull brings it"].assert_eq(&outcomes.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_the_log_are_replayed_by_the_schema_they_were_written_with() {
    let shop = Shop::new(CURSOR);
    shop.pull().await;
    let contract = shop.contracts.get("student_affairs.leave_request").expect("a contract").clone();
    // An older producer, whose schema nobody has registered: it does not know the last field.
    let mut older = contract.as_ref().clone();
    older.fields.pop();
    let older = Arc::new(older);
    shop.produce(&older, "OLD", "2026-11-03T00:00:00Z");
    shop.produce(&contract, "BAD", "2026-11-01T00:00:00Z");
    shop.land().await;
    let letters = shop.letters().await;
    let rules = |letters: &[Stored]| letters.iter().map(|letter| letter.rule.clone()).collect::<Vec<_>>();
    assert_eq!(rules(&letters).iter().filter(|rule| *rule == "unknown_schema").count(), 1, "{:?}", rules(&letters));
    let before = verdicts(&shop.replay(&letters, false).await);
    assert!(before.iter().all(|verdict| verdict.starts_with("Rejected")), "{before:?}");

    let file = shop.path("lake/_schemas/student_affairs.leave_request");
    let writer = schemas::WriterSchema::of(&older).expect("a schema");
    std::fs::write(file.join(writer.file_name()), writer.avsc).expect("registers");
    let expected = ["Rejected ends_after_start  the row contradicts itself", "Resolved   replayed"];
    assert_eq!(verdicts(&shop.replay(&letters, false).await), expected);
    assert_eq!(verdicts(&shop.replay(&letters, false).await)[1], "Resolved   was in the log already");
    shop.land().await;
    shop.check(
        "SELECT leave_id, src FROM leave",
        expect![[r#"
        OLD other
    "#]],
    )
    .await;
}
