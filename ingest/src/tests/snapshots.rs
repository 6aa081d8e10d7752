//! Snapshot pulls: rows that vanish and come back, and a source that is broken.

use expect_test::expect;

use super::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_finds_deletes_but_not_a_broken_source() {
    let shop = Shop::new("pull = \"snapshot\"");
    for row in 0..5 {
        shop.leave(&format!("L{row}"), "2026-11-03", "2026-11-01 08:00:00");
    }
    assert_eq!(shop.pull().await, (5, 0, 0, None));
    shop.sql("DELETE FROM QJ WHERE WID = 'L2'");
    assert_eq!(shop.pull().await, (1, 0, 4, None));
    shop.sql("DELETE FROM QJ");
    let (records, _, _, error) = shop.pull().await;
    assert_eq!(records, 0);
    expect!["4 of 4 rows vanished from the source; nothing was deleted. If that is right, raise deletes_share_max of this table in the connector"]
        .assert_eq(&error.expect("refuses"));
    shop.land().await;
    shop.check(
        "SELECT leave_id, op, student_no FROM leave WHERE op = 'D'",
        expect![[r#"
            L2 D
        "#]],
    )
    .await;
}

/// Which version of L2 is the latest, as the query service orders them: by change time, then by place.
const LATEST: &str = "SELECT op FROM leave WHERE leave_id = 'L2' \
                      ORDER BY src_updated_at DESC NULLS LAST, kafka_offset DESC LIMIT 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_wins_over_what_it_deletes_and_a_row_that_comes_back_wins_over_it_whatever_the_clocks_say() {
    // The source's clock is years ahead of this one; of rows that bear no time only their order is known.
    for changed in ["2099-01-01 08:00:00", "never"] {
        let shop = Shop::new("pull = \"snapshot\"");
        for row in 0..5 {
            shop.leave(&format!("L{row}"), "2026-11-03", changed);
        }
        shop.pull().await;
        shop.sql("DELETE FROM QJ WHERE WID = 'L2'");
        shop.pull().await;
        shop.land().await;
        shop.check(LATEST, expect!["D\n"]).await;
        shop.leave("L2", "2026-11-03", changed);
        assert_eq!(shop.pull().await, (1, 0, 4, None), "it is new again");
        shop.land().await;
        shop.check(LATEST, expect!["I\n"]).await;
    }
}
