//! What a question that reads profiles is answered from: one snapshot and its profiles, and never sooner than its watermark.

use std::path::Path;
use std::time::Duration;

use datafusion::scalar::ScalarValue;
use futures::TryStreamExt as _;
use topic::Watermark;

use super::*;
use crate::engine::{Engine, Terms};
use crate::error::{Error, ErrorKind};
use crate::fixture::{analyst, campus, contracts, source};
use crate::policy::Door;
use crate::profile::{Computer, Definitions, Store};
use crate::settings::Settings;

/// 2026-09-03 09:00 in Shanghai.
const NOW: i64 = 1_788_397_200_000_000;
const TOPIC: &str = "quad.academic.grade";

struct School {
    engine: Engine,
    computer: Computer,
    store: Arc<Store>,
}

impl School {
    /// The campus, with nothing computed yet.
    async fn new() -> Self {
        let (settings, contracts) = (Settings::default(), contracts());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profile");
        let definitions = Definitions::load(&folder, &contracts, &[]).unwrap();
        let computer = Computer::new(&settings, &contracts, definitions).await.unwrap();
        let store = Arc::new(Store::default());
        let engine = Engine::new(&settings, contracts).await.unwrap();
        let engine = engine.with_profiles(store.clone());
        engine.show_profiles(&computer).unwrap();
        engine.refresh(&source(&campus()).await, crate::fixture::KEY).await.unwrap();
        Self { engine, computer, store }
    }

    /// A snapshot without grades that reaches to `offset`, and is numbered so.
    fn reach(&self, offset: i64) {
        let old = self.engine.pin().snapshot.clone();
        let mut tables = old.tables.clone();
        tables.remove("academic.grade");
        let mut snapshot = old.with_tables(tables);
        snapshot.id = offset.unsigned_abs();
        snapshot.watermark = Arc::new(Watermark::of(TOPIC, [(0, offset)]));
        self.engine.set_snapshot(Arc::new(snapshot));
    }

    async fn compute(&self) {
        let snapshot = self.engine.pin().snapshot.clone();
        let profiles = self.computer.follow(snapshot, NOW, self.store.get().as_deref()).await.unwrap();
        self.store.set(Arc::new(profiles));
    }

    /// The only cell of an answer that reaches to `offset`.
    async fn ask(&self, sql: &str, offset: Option<i64>) -> Result<ScalarValue, Error> {
        let prepared = self.engine.prepare_text(&analyst(), Door::FlightSql, sql).await?;
        let after = offset.map(|offset| Watermark::of(TOPIC, [(0, offset)]));
        let terms = Terms { timeout: after.is_some().then_some(Duration::from_millis(200)), after };
        let answer = self.engine.run(&analyst(), &prepared, Vec::new(), terms).await?;
        let batches: Vec<RecordBatch> = answer.try_collect().await?;
        Ok(ScalarValue::try_from_array(batches[0].column(0), 0)?)
    }
}

#[tokio::test]
async fn a_question_sees_profiles_and_tables_of_one_snapshot() {
    let school = School::new().await;
    let both = "SELECT (SELECT count(*) FROM profile.student WHERE failed_courses > 0) * 100 + (SELECT count(*) FROM academic.grade) AS n";
    let error = school.ask(both, None).await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Unavailable, "profiles are being computed for the first time")
    );
    school.compute().await;
    let computed = school.engine.pin().snapshot.id;
    assert_eq!(school.ask(both, None).await.unwrap(), ScalarValue::from(103_i64));
    // The tables go on: profiles and the tables beside them stay what they are until the next computation.
    school.reach(900);
    assert_eq!(school.ask(both, None).await.unwrap(), ScalarValue::from(103_i64));
    let (tables, profiles) = ("SELECT quad_snapshot()", "SELECT quad_snapshot() AS id FROM profile.item LIMIT 1");
    assert_eq!(school.ask(tables, None).await.unwrap(), ScalarValue::from(900_i64));
    assert_eq!(school.ask(profiles, None).await.unwrap(), ScalarValue::from(computed.cast_signed()));
    school.compute().await;
    assert_eq!(school.ask(both, None).await.unwrap(), ScalarValue::from(0_i64));
    assert_eq!(school.ask(profiles, None).await.unwrap(), ScalarValue::from(900_i64));
}

#[tokio::test]
async fn a_watermark_is_waited_for_in_profiles_where_they_are_read() {
    let school = School::new().await;
    school.reach(7);
    school.compute().await;
    school.reach(9);
    let (tables, profiles) = ("SELECT count(*) FROM academic.grade", "SELECT count(*) FROM profile.student");
    assert_eq!(school.ask(profiles, Some(7)).await.unwrap(), ScalarValue::from(2_i64));
    assert_eq!(school.ask(tables, Some(9)).await.unwrap(), ScalarValue::from(0_i64));
    // The snapshot reaches to it, the profiles do not yet.
    assert_eq!(school.ask(profiles, Some(9)).await.unwrap_err().kind, ErrorKind::Timeout);
    let reached = "SELECT quad_watermark() AS w FROM profile.student LIMIT 1";
    let token = |offset| ScalarValue::from(Watermark::of(TOPIC, [(0, offset)]).to_string());
    assert_eq!(school.ask(reached, None).await.unwrap(), token(7));
    school.compute().await;
    assert_eq!(school.ask(reached, Some(9)).await.unwrap(), token(9));
}

/// A question that was understood before the definitions were changed goes on; what is no item any more is null.
#[tokio::test]
async fn definitions_change_under_a_prepared_question() {
    let mut school = School::new().await;
    school.compute().await;
    let sql = "SELECT count(name) * 10 + count(gpa) FROM profile.student";
    let prepared = school.engine.prepare_text(&analyst(), Door::FlightSql, sql).await.unwrap();
    let count = async |school: &School| {
        let answer = school.engine.run(&analyst(), &prepared, Vec::new(), Terms::default()).await.unwrap();
        let batches: Vec<RecordBatch> = answer.try_collect().await.unwrap();
        ScalarValue::try_from_array(batches[0].column(0), 0).unwrap()
    };
    assert_eq!(count(&school).await, ScalarValue::from(22_i64));
    let folder = tempfile::tempdir().unwrap();
    let section = "section = \"A\"\ntitle = \"\"\ntitle_en = \"\"\n[[questions]]\nsources = [\"student_affairs.student_base\"]\n\
        window = \"now\"\nsql = \"SELECT person_id, name, class_id FROM student_affairs.student_base\"\n\
        items = [{ id = \"A01\", name = \"class_id\", title = \"\", class = 1 }, { id = \"A02\", name = \"name\", title = \"\", class = 2 }]\n";
    std::fs::write(folder.path().join("a.toml"), section).unwrap();
    let definitions = Definitions::load(folder.path(), &contracts(), &[]).unwrap();
    school.computer = Computer::new(&Settings::default(), &contracts(), definitions).await.unwrap();
    school.engine.show_profiles(&school.computer).unwrap();
    school.store.set(Arc::new(school.computer.compute(school.engine.pin().snapshot.clone(), NOW).await.unwrap()));
    assert_eq!(count(&school).await, ScalarValue::from(20_i64));
    let first = "SELECT min(class_id) FROM profile.student";
    assert_eq!(school.ask(first, None).await.unwrap(), ScalarValue::from("K2401"));
    assert_eq!(school.ask("SELECT gpa FROM profile.student", None).await.unwrap_err().kind, ErrorKind::UndefinedColumn);
}

#[test]
fn types_are_those_of_the_profile_service() {
    use datafusion::arrow::datatypes::TimeUnit;

    let part = |name: &str, data_type| Field::new(name, data_type, false);
    let list = DataType::List(Arc::new(part("item", DataType::Decimal128(9, 2))));
    let parts = vec![part("day", DataType::Date32), part("numbers", list), part("none", DataType::Null)];
    let whole = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::UInt64));
    let given = [DataType::Struct(parts.into()), whole, DataType::Timestamp(TimeUnit::Second, None)];
    let named = given.map(|given| sql_name(&sql_type(&given).unwrap()));
    assert_eq!(named, ["struct<day date, numbers list<double>, none string>", "bigint", "timestamp"]);
    assert!(sql_type(&DataType::Binary).unwrap_err().message.starts_with("no item has values of type Binary"));
}

#[test]
fn nested_values_become_nested_columns() {
    let object = |parts: Vec<(&str, Value)>| {
        Value::Object(parts.into_iter().map(|(name, value)| (name.to_string(), value)).collect())
    };
    let element =
        object(vec![("field", Value::Text("a".into())), ("classes", Value::List(vec![Value::Int(1), Value::Int(2)]))]);
    let given = object(vec![("count", Value::Int(1)), ("fields", Value::List(vec![element]))]);
    let part = |name: &str, data_type| Field::new(name, data_type, true);
    let listed = |data_type| DataType::List(Arc::new(part("item", data_type)));
    let element =
        DataType::Struct(vec![part("field", DataType::Utf8), part("classes", listed(DataType::Int64))].into());
    let data_type = DataType::Struct(vec![part("count", DataType::Int64), part("fields", listed(element))].into());
    let column = array::values(&[None, Some(&given), None], &data_type).unwrap();
    let back = |row| Value::at(&column, row).unwrap();
    assert_eq!([back(0), back(1), back(2)], [None, Some(given), None]);
    let wrong = array::values(&[Some(&Value::Bool(true))], &DataType::Int64).unwrap_err();
    assert!(wrong.to_string().contains("the value of an item is no Int64"), "{wrong}");
}
