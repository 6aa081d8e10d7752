//! The guarantee on object storage that fails: answers are lost, writers race, settings are wrong.

use s3::Faults;
use schemas::Contract;

use super::{Place, contract, count, progress, rows};
use crate::settings::S3Settings;
use crate::{Appender, ErrorKind, Lake, Settings};

/// A writer of one partition or two, which has taken them over.
async fn appender(lake: &Lake, contract: &Contract) -> Appender {
    super::appender(lake, contract, &[0, 1]).await
}

async fn try_appender(lake: &Lake, contract: &Contract) -> Result<Appender, crate::Error> {
    let mut appender = Appender::new(lake.table(contract).await?, contract.lake_schema(), "quad");
    appender.take("topic", &[(0, 0)].into()).await?;
    Ok(appender)
}

async fn landed(lake: &Lake, contract: &Contract) -> Option<i64> {
    let table = lake.table(contract).await.expect("opens");
    table.next_offset("quad", "topic", 0).await.expect("reads")
}

fn faults(change: impl FnOnce(&mut Faults)) -> Faults {
    let mut faults = Faults { only: "_delta_log".into(), ..Faults::default() };
    change(&mut faults);
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_known_again() {
    for lost in [faults(|faults| faults.error_after = 1.0), faults(|faults| faults.cut_after = 1.0)] {
        let (place, contract) = (Place::s3().await, contract("academic.course"));
        let server = place.server.as_ref().expect("a server");
        let mut appender = appender(&place.lake, &contract).await;
        appender.write(rows(&contract, 0, 10)).await.expect("writes");
        server.set_faults(lost);
        let commit = appender.commit(&progress(0, 10)).await.expect("the commit is there, and ours");
        let counts = server.counts();
        assert_eq!((commit.version, counts.error_after + counts.cut_after), (1, 1), "{counts:?}");
        server.set_faults(Faults::default());
        appender.write(rows(&contract, 10, 10)).await.expect("writes");
        assert_eq!(appender.commit(&progress(0, 20)).await.expect("goes on").version, 2);
        assert_eq!((landed(&place.lake, &contract).await, count(&place.lake, &contract).await), (Some(20), 20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_unknown_fate_is_found_by_starting_over() {
    let mut settings = Settings::at("s3://lake");
    settings.s3 = S3Settings { request_timeout_s: 2, retry_s_max: 2 };
    let (place, contract) = (Place::s3_with(settings).await, contract("academic.course"));
    let server = place.server.as_ref().expect("a server");
    let mut appender = appender(&place.lake, &contract).await;
    appender.write(rows(&contract, 0, 10)).await.expect("writes");
    // The write takes effect in time, but neither it nor the look at what stands there is answered in time.
    server.set_faults(faults(|faults| (faults.slow, faults.delay_ms) = (1.0, 3_000)));
    assert_eq!(appender.commit(&progress(0, 10)).await.expect_err("cannot know").kind, ErrorKind::Store);
    server.set_faults(Faults::default());
    assert_eq!(landed(&place.lake, &contract).await, Some(10));
    assert_eq!(count(&place.lake, &contract).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_lands_once_while_one_request_in_five_fails() {
    let (place, contract) = (Place::s3().await, contract("access_control.access_event"));
    let server = place.server.as_ref().expect("a server");
    let mut appender = appender(&place.lake, &contract).await;
    server.set_faults(Faults {
        seed: 4,
        error_before: 0.1,
        error_after: 0.05,
        cut_after: 0.05,
        torn: 0.05,
        ..Faults::default()
    });
    let (mut offset, mut failures) = (0, 0);
    while offset < 100 {
        let outcome = match appender.write(rows(&contract, offset, 5)).await {
            Ok(()) => appender.commit(&progress(0, offset + 5)).await.map(|_| ()),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            assert_eq!(error.kind, ErrorKind::Store, "{error:?}");
            failures += 1;
            assert!(failures < 100, "{error:?}");
            // As landing does: forget, and ask the lake until it answers.
            appender = loop {
                match try_appender(&place.lake, &contract).await {
                    Ok(appender) => break appender,
                    Err(error) => assert_eq!(error.kind, ErrorKind::Store, "{error:?}"),
                }
            };
        }
        offset = appender.position("topic", 0).expect("is held");
    }
    let counts = server.counts();
    server.set_faults(Faults::default());
    assert!(counts.error_before > 0 && counts.error_after > 0 && counts.cut_after > 0 && counts.torn > 0, "{counts:?}");
    assert_eq!((landed(&place.lake, &contract).await, count(&place.lake, &contract).await), (Some(100), 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_once_all_land_or_one_wins() {
    let (place, contract) = (Place::s3().await, contract("academic.course"));
    let mut left = super::appender(&place.lake, &contract, &[0]).await;
    let mut right = super::appender(&place.lake, &contract, &[1]).await;
    for round in 0..5 {
        left.write(rows(&contract, round * 10, 5)).await.expect("writes");
        right.write(rows(&contract, round * 10 + 5, 5)).await.expect("writes");
        let (ours, theirs) = (progress(0, round), progress(1, round));
        let (left, right) = tokio::join!(left.commit(&ours), right.commit(&theirs));
        assert_ne!(left.expect("commits").version, right.expect("commits").version);
    }
    assert_eq!(count(&place.lake, &contract).await, 50);
    for round in 5..10 {
        let mut left = super::appender(&place.lake, &contract, &[0]).await;
        let mut right = super::appender(&place.lake, &contract, &[0]).await;
        left.write(rows(&contract, round * 10, 5)).await.expect("writes");
        right.write(rows(&contract, round * 10, 5)).await.expect("writes");
        let moved = progress(0, round);
        let (left, right) = tokio::join!(left.commit(&moved), right.commit(&moved));
        let lost = [left, right].into_iter().filter_map(Result::err).map(|error| error.kind).collect::<Vec<_>>();
        assert_eq!(lost, [ErrorKind::Fenced], "exactly one wins");
    }
    assert_eq!(count(&place.lake, &contract).await, 75);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_with_what_to_do() {
    let place = Place::s3().await;
    let server = place.server.as_ref().expect("a server");
    place.lake.reach().await.expect("answers");
    let with = |name: &str, value: &str| {
        let mut environment = server.environment();
        environment.retain(|(key, _)| key != name);
        environment.push((name.to_string(), value.to_string()));
        environment
    };
    let settings = |path: &str| {
        let mut settings = Settings::at(path);
        settings.s3.retry_s_max = 1;
        settings
    };
    let opens = |path: &str, environment: &[(String, String)]| Lake::open_with(&settings(path), environment);
    for (path, environment, expected) in [
        ("s3://lake", with("AWS_ACCESS_KEY_ID", ""), "no credentials; set AWS_ACCESS_KEY_ID"),
        ("s3://lake", with("AWS_ALLOW_HTTP", ""), "set AWS_ALLOW_HTTP=true"),
        ("s3:///where", server.environment(), "name a bucket"),
        ("s3://me:hush@lake", server.environment(), "holds credentials"),
        ("gs://lake", server.environment(), "not a scheme of ours"),
    ] {
        let error = opens(path, &environment).expect_err("refuses");
        assert_eq!(error.kind, ErrorKind::Settings);
        assert!(error.message.contains(expected) && !error.message.contains("hush"), "{}", error.message);
    }
    for (path, environment, kind, expected) in [
        ("s3://nowhere", server.environment(), ErrorKind::Settings, "there is no such bucket"),
        ("s3://lake", with("AWS_SECRET_ACCESS_KEY", "wrong"), ErrorKind::Settings, "check AWS_ACCESS_KEY_ID"),
        ("s3://lake", with("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ErrorKind::Store, "check AWS_ENDPOINT_URL"),
    ] {
        let lake = opens(path, &environment).expect("nothing is connected yet");
        let error = lake.reach().await.expect_err("refuses");
        assert!(error.message.contains(expected), "{error:?}");
        assert_eq!(error.kind, kind, "{error:?}");
        let error = lake.table(&contract("academic.course")).await.expect_err("refuses");
        assert_eq!(error.kind, ErrorKind::Store, "worth another try while running: {error:?}");
        assert!(error.message.contains(expected), "{error:?}");
    }
}
