//! Definitions that change under readers and watchers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use expect_test::{Expect, expect};
use proto::profile::v1::WatchProfilesRequest;
use proto::profile::v1::value::Kind;

use super::profiles::round;
use super::{Served, mask, of, serve_with, with};
use crate::api::client::{Client, Manage};
use crate::error::ErrorKind;
use crate::settings::Settings;

const FILE: &str = "d_residence.toml";
const RIGHT: &str = "as_of, residence_mode FROM";

async fn manage(served: &Served, what: Manage, expected: Expect) {
    let client = Client::connect(&served.grpc, Some("token of root".into())).await.unwrap();
    let said = match client.manage_profiles(what).await {
        Ok(comparison) => {
            let items: Vec<_> = comparison.items.iter().map(|item| (&item.id, item.change(), item.persons)).collect();
            format!("{} of {} persons, {items:?}", comparison.persons_different, comparison.persons)
        }
        Err(error) => format!("{:?}: {}", error.kind, error.message.lines().next().unwrap_or_default()),
    };
    expected.assert_eq(&said);
}

async fn residence(served: &Served) -> String {
    let request = of("20240001");
    let request = proto::profile::v1::GetProfileRequest { item_mask: mask(&["d02"]), ..request };
    let profile = served.profiles().await.get_profile(with("carl", request)).await.unwrap().into_inner().profile;
    match profile.unwrap().items.remove(0).value.and_then(|value| value.kind) {
        Some(Kind::StringValue(text)) => text,
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_changed_while_everybody_reads() {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/profile")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
    }
    let file = folder.path().join(FILE);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(RIGHT));
    let served = serve_with(Settings { profile_dir: folder.path().into(), ..Settings::default() }).await;
    let request = WatchProfilesRequest { item_mask: mask(&["d02"]), ..WatchProfilesRequest::default() };
    let mut events = served.profiles().await.watch_profiles(with("root", request)).await.unwrap().into_inner();
    assert_eq!(round(&mut events).await.0.len(), 3, "a reset, then everybody");
    manage(&served, Manage::Verify, expect!["0 of 2 persons, []"]).await;
    manage(&served, Manage::Diff, expect!["0 of 2 persons, []"]).await;

    std::fs::write(&file, text.replace(RIGHT, "as_of, 'mode ' || residence_mode AS residence_mode FROM")).unwrap();
    manage(&served, Manage::Diff, expect![[r#"2 of 2 persons, [("D02", Changed, 2)]"#]]).await;
    assert_eq!(residence(&served).await, "2");

    let served = Arc::new(served);
    let is_over = Arc::new(AtomicBool::new(false));
    let reading = tokio::spawn({
        let (served, is_over) = (served.clone(), is_over.clone());
        async move {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::Acquire) {
                seen.push(residence(&served).await);
            }
            seen.dedup();
            seen
        }
    });
    manage(&served, Manage::Switch, expect![[r#"2 of 2 persons, [("D02", Changed, 2)]"#]]).await;
    assert_eq!(residence(&served).await, "mode 2");
    is_over.store(true, Ordering::Release);
    let seen = reading.await.unwrap();
    assert!(seen == ["2", "mode 2"] || seen == ["2"], "{seen:?}");
    assert_eq!(round(&mut events).await.0.len(), 2, "both are told again");
    manage(&served, Manage::Verify, expect!["0 of 2 persons, []"]).await;

    std::fs::write(&file, text.replace(RIGHT, "as_of, no_such_column AS residence_mode FROM")).unwrap();
    manage(&served, Manage::Switch, expect!["Settings: profile D02: no field named no_such_column."]).await;
    assert_eq!(residence(&served).await, "mode 2");
}

#[tokio::test]
async fn only_administrators_manage_profiles() {
    let served = serve_with(Settings::default()).await;
    let client = Client::connect(&served.grpc, Some("token of carl".into())).await.unwrap();
    for what in [Manage::Verify, Manage::Diff, Manage::Switch] {
        assert_eq!(client.manage_profiles(what).await.unwrap_err().kind, ErrorKind::Denied);
    }
    let unknown = Client::connect(&served.grpc, None).await.unwrap().manage_profiles(Manage::Verify).await;
    assert_eq!(unknown.unwrap_err().kind, ErrorKind::Unauthenticated);
}
