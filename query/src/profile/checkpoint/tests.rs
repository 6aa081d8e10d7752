//! What is answered with after a start: the profiles of before, where they can be used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemas::Sensitive;
use tokio::sync::watch;

use super::*;
use crate::api::profiles::ProfilesApi;
use crate::api::tests::{access, answered};
use crate::background::{Copier, Target};
use crate::engine::Engine;
use crate::fixture::{KEY, ask, campus, contracts, source};
use crate::profile::{Live, Moments, Store};
use crate::settings::Settings;

/// 2026-09-03 09:00 in Shanghai.
const NOW: i64 = 1_788_397_200_000_000;
const HOUR_US: i64 = 3_600_000_000;

/// A query service of the campus; each has started anew.
struct Service {
    engine: Arc<Engine>,
    store: Arc<Store>,
    live: Arc<Live>,
    api: ProfilesApi,
}

impl Service {
    async fn start(sections_on: &[&str]) -> Self {
        let settings = Settings {
            profile_dir: Path::new(env!("CARGO_MANIFEST_DIR")).join("profile"),
            profile_sections_on: sections_on.iter().map(ToString::to_string).collect(),
            ..Settings::default()
        };
        let store = Arc::new(Store::default());
        let engine = Arc::new(Engine::new(&settings, contracts()).await.unwrap().with_profiles(store.clone()));
        engine.refresh(&source(&campus()).await, KEY).await.unwrap();
        let live = Arc::new(Live::new(&settings, &engine, &store).await.unwrap());
        let moments = Arc::new(Moments::new(engine.clone(), live.clone(), Sensitive::new(KEY.to_vec())));
        let api = ProfilesApi::new(engine.clone(), Arc::new(access()), store.clone(), live.clone(), moments);
        Self { engine, store, live, api }
    }

    async fn follow(&self) -> Arc<Profiles> {
        self.live.follow(self.engine.pin().snapshot.clone(), NOW).await.unwrap()
    }

    async fn resume(&self, lake: &Lake, now: i64) -> Result<Option<usize>, Error> {
        self.live.resume(lake, &self.engine.pin().snapshot.clone(), now).await
    }

    /// As a service writes when it stops.
    async fn stop(&self, lake: &Lake) {
        let (_stop, stopped) = watch::channel(true);
        let (store, to) = (self.store.clone(), Target::Checkpoint(lake.clone()));
        Copier { store, to, every: Duration::from_secs(300) }.run(stopped).await;
    }
}

fn lake() -> (tempfile::TempDir, Lake, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&lake::Settings::at(folder.path().to_string_lossy())).unwrap();
    let file = folder.path().join(FOLDER).join(FILE);
    (folder, lake, file)
}

#[tokio::test]
async fn a_start_answers_with_the_profiles_of_before_until_there_are_new_ones() {
    let ((_folder, lake, _), before) = (lake(), Service::start(&[]).await);
    let written = before.follow().await;
    before.stop(&lake).await;
    let after = Service::start(&[]).await;
    assert_eq!(after.resume(&lake, NOW + HOUR_US / 2).await.unwrap(), Some(2));
    let resumed = after.store.newest().unwrap();
    for (was, is) in written.persons.iter().zip(&resumed.persons) {
        assert_eq!(Person { changed_in: 1, ..Person::clone(was) }, **is);
    }
    let about = |profiles: &Profiles| (profiles.snapshot.id, profiles.watermark.clone(), profiles.computed_at);
    assert_eq!(about(&written), about(&resumed));
    // Who is not among them may have come since.
    let told = |code: &str| ("Ok".to_string(), code.to_string());
    assert_eq!((answered(&after.api, "20240001").await, answered(&after.api, "20990001").await), told("Unavailable"));
    // The tables of that time are not at hand: what would read them beside the profiles has to wait.
    let asked = ask(&after.engine, "SELECT count(*) FROM profile.student").await;
    assert_eq!(asked.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(after.live.verify().await.unwrap_err().kind, ErrorKind::Unavailable);
    let followed = after.follow().await;
    assert_eq!((followed.revision, followed.epoch, followed.is_checkpoint), (2, resumed.epoch, false));
    assert!(followed.persons.iter().zip(&resumed.persons).all(|(new, old)| new.items == old.items));
    assert_eq!(after.live.verify().await.unwrap().persons_different, 0);
    assert_eq!((answered(&after.api, "20240001").await, answered(&after.api, "20990001").await), told("NotFound"));
    ask(&after.engine, "SELECT count(*) FROM profile.student").await.unwrap();
}

#[tokio::test]
async fn what_was_read_is_not_written_again() {
    let ((_folder, lake, file), before) = (lake(), Service::start(&[]).await);
    before.follow().await;
    before.stop(&lake).await;
    let after = Service::start(&[]).await;
    after.resume(&lake, NOW).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    after.stop(&lake).await;
    assert!(!file.exists());
}

#[tokio::test]
async fn old_profiles_and_those_of_other_definitions_are_as_good_as_none() {
    let ((_folder, lake, _), service) = (lake(), Service::start(&[]).await);
    assert_eq!(service.resume(&lake, NOW).await.unwrap(), None);
    service.follow().await;
    service.stop(&lake).await;
    let others = Service::start(&["J"]).await;
    assert_eq!(others.resume(&lake, NOW).await.unwrap(), None);
    let late = Service::start(&[]).await;
    assert_eq!(late.resume(&lake, NOW + HOUR_US + 1).await.unwrap(), None);
    assert!(others.store.get().is_none() && late.store.get().is_none());
    assert_eq!(late.resume(&lake, NOW + HOUR_US).await.unwrap(), Some(2));
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let ((_folder, lake, file), before) = (lake(), Service::start(&[]).await);
    before.follow().await;
    before.stop(&lake).await;
    let whole = std::fs::read(&file).unwrap();
    let after = Service::start(&[]).await;
    for bytes in [&whole[..whole.len() / 2], b"no profiles"] {
        std::fs::write(&file, bytes).unwrap();
        let error = after.resume(&lake, NOW).await.unwrap_err();
        assert_eq!(
            (error.kind, error.message.as_str()),
            (ErrorKind::Internal, "_profile/checkpoint.parquet in the lake is damaged")
        );
    }
    assert!(after.store.get().is_none());
}
