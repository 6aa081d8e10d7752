//! Schemas outlive the contracts they came from, and an incompatible contract is refused.

use std::path::Path;

use ::schemas::{Contract, Contracts, FieldType, WriterSchema};
use expect_test::expect;

use crate::{ErrorKind, Lake, Settings};

fn course() -> Contract {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    Contracts::load(&schemas).expect("contracts load").get("academic.course").expect("a table").as_ref().clone()
}

/// Courses at `version`, their credits of `precision`, without the last `fewer` fields.
fn version(version: &str, precision: u8, fewer: usize) -> Contract {
    let mut contract = Contract { version: version.to_string(), ..course() };
    contract.fields.truncate(contract.fields.len() - fewer);
    let credits = contract.fields.iter_mut().find(|field| field.name == "credits").expect("a field");
    credits.field_type = FieldType::Decimal { precision, scale: 1 };
    contract
}

#[tokio::test]
async fn schemas_are_kept_and_found_again() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = Settings::at(folder.path().to_string_lossy());
    let lake = Lake::open(&settings).expect("opens");
    let (before, now) = (version("1.0.0", 4, 1), version("1.1.0", 4, 0));
    assert_eq!(lake.writer_schemas(&now).await.expect("reads"), []);
    for contract in [&before, &now, &before, &now] {
        lake.register_schema(contract).await.expect("registers");
    }
    // Another process, later.
    let lake = Lake::open(&settings).expect("opens");
    let mut versions: Vec<_> = lake.writer_schemas(&now).await.expect("reads").into_iter().map(|w| w.version).collect();
    versions.sort();
    assert_eq!(versions, ["1.0.0", "1.1.0"]);
    let old = WriterSchema::of(&before).expect("a schema");
    assert_eq!(lake.writer_schema(&now, old.fingerprint).await.expect("reads"), Some(old));
    assert_eq!(lake.writer_schema(&now, [7; 8]).await.expect("reads"), None);

    // A wider decimal has the same fingerprint: the newest contract is kept, whoever starts again.
    let wide = version("1.2.0", 6, 0);
    lake.register_schema(&wide).await.expect("registers");
    lake.register_schema(&version("1.3.0", 5, 0)).await.expect_err("narrower than what was written");
    let kept = lake.writer_schema(&wide, WriterSchema::of(&wide).expect("a schema").fingerprint).await.expect("reads");
    assert_eq!(kept, Some(WriterSchema::of(&wide).expect("a schema")));
}

#[tokio::test]
async fn an_incompatible_contract_is_refused_with_the_way_forward() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let lake = Lake::open(&Settings::at(folder.path().to_string_lossy())).expect("opens");
    lake.register_schema(&version("1.0.0", 4, 0)).await.expect("registers");
    let error = lake.register_schema(&version("1.1.0", 4, 1)).await.expect_err("a field is gone");
    assert_eq!(error.kind, ErrorKind::Schema);
    expect!["contract academic.course 1.1.0 cannot read records written under 1.0.0 (schema 6c6119c30251b87d): `college_id` is gone, and records have it; put the field back, or declare its new name with { property: aliases, value: [its old name] }"].assert_eq(&error.to_string());

    let file = folder.path().join("_schemas/academic.course/0000000000000001.avsc");
    std::fs::write(file, course().avro_json()).expect("writes");
    let error = lake.writer_schemas(&course()).await.expect_err("the content is not what the name says");
    expect!["_schemas/academic.course/: schema 0000000000000001.avsc has the content of 6c6119c30251b87d.avsc; restore it, or remove the file"].assert_eq(&error.to_string());
}
