//! What the tables in the lake hold against what SQL says, under definitions that change, and when they are written.

use std::path::{Path, PathBuf};

use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use tokio::sync::watch;

use super::*;
use crate::api::tests::poll_until;
use crate::background::{Copier, Target};
use crate::engine::Engine;
use crate::fixture::{KEY, ask, campus, contracts, source};
use crate::profile::{Live, Store};
use crate::settings::Settings;

/// 2026-09-03 09:00 in Shanghai.
const NOW: i64 = 1_788_397_200_000_000;

struct School {
    engine: Arc<Engine>,
    store: Arc<Store>,
    live: Live,
    lake: Lake,
    files: Files,
    folder: tempfile::TempDir,
}

impl School {
    /// The campus with its first profiles, nothing written yet.
    async fn new(profile_dir: PathBuf) -> Self {
        let settings = Settings { profile_dir, ..Settings::default() };
        let store = Arc::new(Store::default());
        let engine = Arc::new(Engine::new(&settings, contracts()).await.unwrap().with_profiles(store.clone()));
        engine.refresh(&source(&campus()).await, KEY).await.unwrap();
        let live = Live::new(&settings, &engine, &store).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let lake = Lake::open(&lake::Settings::at(folder.path().join("lake").to_string_lossy())).unwrap();
        let files = Files::new(lake.clone(), UpkeepSettings::default());
        let school = Self { engine, store, live, lake, files, folder };
        school.follow().await;
        school
    }

    async fn as_shipped() -> Self {
        Self::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("profile")).await
    }

    async fn follow(&self) {
        self.live.follow(self.engine.pin().snapshot.clone(), NOW).await.unwrap();
    }

    async fn write(&mut self) -> Result<(), Error> {
        self.files.write(&self.store.newest().unwrap()).await
    }

    /// A table of the lake: its version and its columns.
    async fn version(&self, of: Of) -> (u64, Vec<String>) {
        let table = self.lake.find_named(&format!("profile.{}", of.table())).await.unwrap().unwrap();
        (table.version(), table.schema().fields().iter().map(|field| field.name().clone()).collect())
    }

    /// What an engine of its own finds in the lake.
    async fn ask_files(&self, sql: &str) -> String {
        let ctx = SessionContext::new();
        for of in Of::ALL {
            let table = self.lake.find_named(&format!("profile.{}", of.table())).await.unwrap().unwrap();
            ctx.register_table(of.table(), table.snapshot().await.unwrap().provider).unwrap();
        }
        let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
        pretty_format_batches(&batches).unwrap().to_string()
    }
}

#[tokio::test]
async fn the_files_hold_what_sql_says() {
    let mut school = School::as_shipped().await;
    school.write().await.unwrap();
    for (of, order) in [(Of::Students, "person_id"), (Of::Items, "person_id, item_id")] {
        let table = of.table();
        let files = school.ask_files(&format!("SELECT * FROM {table} ORDER BY {order}")).await;
        let sql = ask(&school.engine, &format!("SELECT * FROM profile.{table} ORDER BY {order}")).await.unwrap();
        assert_eq!(files, sql);
        assert!(sql.contains("20240001"), "{sql}");
    }
    let withheld = "SELECT count(*) > 0 AS are_there, count(value) + count(as_of) AS told FROM item WHERE class = 3";
    expect_test::expect![[r#"
        +-----------+------+
        | are_there | told |
        +-----------+------+
        | true      | 0    |
        +-----------+------+"#]]
    .assert_eq(&school.ask_files(withheld).await);
    let log = school.folder.path().join("lake/profile/item/_delta_log/00000000000000000001.json");
    let commit = std::fs::read_to_string(log).unwrap();
    let id = school.engine.pin().snapshot.id.to_string();
    let properties = [("computed_at", "2026-09-03T01:00:00.000000Z"), ("snapshot", id.as_str()), ("watermark", "")];
    for (property, value) in properties {
        assert!(commit.contains(&format!(r#""quad.{property}":"{value}""#)), "no {property} in {commit}");
    }
}

#[tokio::test]
async fn columns_follow_the_definitions() {
    const HEAD: [&str; 4] = ["person_id", "student_no", "version", "computed_at"];
    let folder = tempfile::tempdir().unwrap();
    let define = |item: &str| {
        let section = format!(
            "section = \"A\"\ntitle = \"\"\ntitle_en = \"\"\n[[questions]]\nsources = [\"student_affairs.student_base\"]\n\
             window = \"now\"\nsql = \"SELECT person_id, name, class_id FROM student_affairs.student_base\"\nitems = [{item}]\n"
        );
        std::fs::write(folder.path().join("a.toml"), section).unwrap();
    };
    let columns = |item: &str| HEAD.iter().copied().chain([item]).map(ToString::to_string).collect::<Vec<_>>();
    define("{ id = \"A02\", name = \"name\", title = \"\", class = 2 }");
    let mut school = School::new(folder.path().to_path_buf()).await;
    school.write().await.unwrap();
    assert_eq!(school.version(Of::Students).await, (1, columns("name")));
    define("{ id = \"A01\", name = \"class_id\", title = \"\", class = 1 }");
    school.live.switch().await.unwrap();
    school.write().await.unwrap();
    assert_eq!(school.version(Of::Students).await, (2, columns("class_id")));
    let joined =
        "SELECT student_no, class_id, item_id, value FROM student JOIN item USING (person_id) ORDER BY student_no";
    expect_test::expect![[r#"
        +------------+----------+---------+---------+
        | student_no | class_id | item_id | value   |
        +------------+----------+---------+---------+
        | 20240001   | K2401    | A01     | "K2401" |
        | 20240002   | K2402    | A01     | "K2402" |
        +------------+----------+---------+---------+"#]]
    .assert_eq(&school.ask_files(joined).await);
}

#[tokio::test]
async fn a_lake_that_takes_nothing_is_tried_again() {
    let mut school = School::as_shipped().await;
    let lake = school.folder.path().join("lake");
    std::fs::remove_dir(&lake).unwrap();
    std::fs::write(&lake, "no folder").unwrap();
    let error = school.write().await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Unavailable, "could not open profile.student"));
    std::fs::remove_file(&lake).unwrap();
    school.write().await.unwrap();
}

#[tokio::test]
async fn what_is_newer_is_written_before_the_stop_and_once() {
    let school = School::as_shipped().await;
    let to = Target::Tables(Files::new(school.lake.clone(), UpkeepSettings::default()));
    let (store, every) = (school.store.clone(), Duration::ZERO);
    let (stop, stopped) = watch::channel(false);
    let copier = tokio::spawn(Copier { store, to, every }.run(stopped));
    let is_written =
        async || school.lake.find_named("profile.item").await.unwrap().is_some_and(|table| table.version() == 1);
    poll_until("the tables are written", is_written).await;
    school.follow().await;
    stop.send_replace(true);
    copier.await.unwrap();
    assert_eq!((school.version(Of::Students).await.0, school.version(Of::Items).await.0), (2, 2));
}
