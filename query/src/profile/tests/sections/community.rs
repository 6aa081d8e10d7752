//! Sections F to L.

use expect_test::expect;

use super::{SPACES, STUDENTS, check, compute, show};

#[tokio::test]
async fn activities() {
    let tables = [
        (
            "student_affairs.activity",
            "activity_id, category, form, organiser_id, in_community, start_at, activity_status",
            "('A1', 'moral', 'lecture', 'C01', true, '2026-09-20T06:00:00Z', 'held'),
             ('A2', 'labour', 'practice', 'C01', false, '2026-10-08T06:00:00Z', 'held'),
             ('A3', 'safety', 'training', 'C01', true, '2026-05-10T06:00:00Z', 'held'),
             ('T1', 'league', 'theme_day', 'K2401', true, '2026-09-25T06:00:00Z', 'held'),
             ('T2', 'league', 'theme_day', 'TZB', true, '2026-10-08T06:00:00Z', 'held'),
             ('T3', 'party', 'theme_day', 'DZB', true, '2026-10-08T06:00:00Z', 'held'),
             ('T4', 'league', 'theme_day', 'K2401', true, '2026-10-10T06:00:00Z', 'cancelled'),
             ('T5', 'league', 'theme_day', 'K2402', true, '2026-10-10T06:00:00Z', 'held'),
             ('T6', 'league', 'theme_day', 'K2401', true, '2026-05-10T06:00:00Z', 'held')",
        ),
        (
            "student_affairs.activity_participation",
            "activity_id, student_no, part_role, checked_in_at, hours, credits, part_status",
            "('A1', '20240001', 'participant', '2026-09-20T06:00:00Z', 2, 0.5, 'success'),
             ('A1', '20240001', 'organiser', '2026-09-20T06:00:00Z', 1, 0.25, 'success'),
             ('A2', '20240001', 'volunteer', '2026-10-08T06:00:00Z', 4, 0.5, 'success'),
             ('A3', '20240001', 'participant', '2026-05-10T06:00:00Z', 2, 0.5, 'success'),
             ('T1', '20240001', 'participant', '2026-09-25T06:00:00Z', 1, NULL, 'success'),
             ('T5', '20240002', 'participant', '2026-10-10T06:00:00Z', 1, NULL, 'returned')",
        ),
        (
            "student_affairs.community_org",
            "org_code, org_type, building_id, floor_no, valid_from, valid_to",
            "('TZB', 'league_branch', 'B1', 3, '2023-05-04', NULL), ('DZB', 'party_branch', 'B1', 3, '2023-05-04', NULL),
             ('K2402', 'league_branch', 'B1', 3, '2023-05-04', '2024-01-01')",
        ),
    ];
    check(
        "F",
        &tables,
        expect![[r#"
        F01 activities_term = 3 | 0
        F02 in_community_share = 0.75 | –
        F03 moral = 1 | 0
        F04 intellectual = 0 | 0
        F05 physical = 0 | 0
        F06 aesthetic = 0 | 0
        F07 labour_hours = 4.0 | 0.0
        F08 safety = 1 | 0
        F09 volunteer_hours = 4.0 | 0.0
        F10 second_credits = 1.75 | 0.0
        F11 theme_day_rate = 0.5 | 0.0
    "#]],
    )
    .await;
}

#[tokio::test]
async fn contacts() {
    let tables = [
        SPACES,
        (
            "student_affairs.contact_record",
            "contact_id, student_no, role_code, contact_type, occurred_at, place_id, follow_up_due, follow_up_done_at",
            "('G1', '20240001', 'counselor', 'talk', '2026-09-10T06:00:00Z', NULL, '2026-09-17', NULL),
             ('G2', '20240001', 'counselor', 'talk', '2026-06-01T06:00:00Z', NULL, '2026-06-08', '2026-06-05T06:00:00Z'),
             ('G3', '20240001', 'academic_mentor', 'face_to_face', '2026-10-02T06:00:00Z', NULL, NULL, NULL),
             ('G4', '20240001', 'academic_mentor', 'face_to_face', '2026-09-30T16:30:00Z', NULL, NULL, NULL),
             ('G5', '20240001', 'academic_mentor', 'face_to_face', '2026-09-30T15:30:00Z', NULL, NULL, NULL),
             ('G6', '20240001', 'counselor', 'face_to_face', '2026-10-02T06:00:00Z', NULL, NULL, NULL),
             ('G7', '20240001', 'counselor', 'academic_help', '2026-08-31T00:30:00Z', NULL, NULL, NULL),
             ('G8', '20240001', 'career', 'career', '2026-08-30T06:00:00Z', NULL, NULL, NULL),
             ('V1', '20240001', 'counselor', 'dorm_visit', '2026-03-01T06:00:00Z', 'B1-301', NULL, NULL),
             ('V2', '*', 'counselor', 'dorm_visit', '2026-10-01T06:00:00Z', 'B1-301', NULL, NULL),
             ('V3', '*', 'counselor', 'dorm_visit', '2026-10-01T06:00:00Z', 'B1-302', NULL, NULL),
             ('V4', '*', 'counselor', 'dorm_visit', '2024-08-01T06:00:00Z', 'B1-301', NULL, NULL)",
        ),
    ];
    check(
        "G",
        &tables,
        expect![[r#"
        G01 talks_term = 1 | 0
        G02 last_talk_at = 2026-09-10 | –
        G03 mentor_month = 2 | 0
        G04 dorm_visits = 2 | 1
        G05 help_term = 1 | 0
        G06 career_term = 0 | 0
        G07 open_follow_ups = 1 | 0
        G08 hours_to_contact = – | –
    "#]],
    )
    .await;
}

#[tokio::test]
async fn appeals_and_services() {
    let tables = [
        (
            "logistics.appeal_case",
            "case_id, channel, category, person_no, received_at, closed_at",
            "('Q1', 'online_portal', 'dorm', '20240001', '2026-09-20T06:00:00Z', '2026-09-21T06:00:00Z'),
             ('Q2', 'president_mailbox', 'fee', '20240001', '2026-10-10T06:00:00Z', NULL),
             ('Q3', 'online_portal', 'dorm', '20240001', '2026-05-01T06:00:00Z', NULL),
             ('Q4', 'psych_hotline', 'psych', NULL, '2026-10-10T06:00:00Z', NULL)",
        ),
        (
            "logistics.repair_order",
            "order_id, reporter_no, space_id, category, reported_at, finished_at",
            "('R1', '20240001', 'B1-301', 'water', '2026-09-20T00:00:00Z', '2026-09-20T12:00:00Z'),
             ('R2', '20240001', 'B1-301', 'water', '2026-05-01T00:00:00Z', '2026-05-02T12:00:00Z'),
             ('R3', '20240001', 'B1-301', 'door', '2026-10-14T00:00:00Z', NULL)",
        ),
        (
            "extension.service_transaction",
            "txn_id, service_code, person_no, channel, submitted_at",
            "('S1', 'certificate', '20240001', 'kiosk', '2026-08-30T16:30:00Z'),
             ('S2', 'certificate', '20240001', 'web', '2026-10-10T06:00:00Z'),
             ('S3', 'certificate', '20240001', 'kiosk', '2026-08-30T15:30:00Z')",
        ),
    ];
    check(
        "H",
        &tables,
        expect![[r#"
        H01 cases_term = 2 | 0
        H02 cases_open = 2 | 0
        H03 repairs_term = 2 | 0
        H04 repair_hours = 24.0 | –
        H05 services_term = 2 | 0
        H06 kiosk_term = 1 | 0
    "#]],
    )
    .await;
}

#[tokio::test]
async fn awards_and_posts() {
    let tables = [
        (
            "student_affairs.award_punishment",
            "record_id, student_no, record_kind, item_name, level_code, punishment_code, decided_on, revoked_on, amount_fen",
            "('P1', '20240001', 'scholarship', '国家奖学金', '10', NULL, '2025-10-20', NULL, 800000),
             ('P2', '20240001', 'award', '数学竞赛', '60', NULL, '2026-05-01', NULL, 50000),
             ('P3', '20240001', 'honour', '三好学生', '60', NULL, '2024-12-01', NULL, NULL),
             ('P4', '20240001', 'honour', '优秀团员', '60', NULL, '2023-10-15', NULL, NULL),
             ('P5', '20240001', 'punishment', NULL, NULL, '2', '2026-01-10', NULL, NULL),
             ('P6', '20240001', 'punishment', NULL, NULL, '3', '2025-01-10', '2026-01-01', NULL),
             ('P7', '20240001', 'scholarship', '校奖学金', '60', NULL, '2025-11-01', '2025-12-01', 100000)",
        ),
        (
            "student_affairs.community_org",
            "org_code, org_type, org_name, building_id, floor_no, leader_no, leader_kind, valid_from, valid_to",
            "('ZGH', 'self_gov', '自管会', 'B1', 3, '20240001', 'student_league_member', '2025-09-01', NULL),
             ('ZGH', 'self_gov', '自管会', 'B1', 4, '20240001', 'student_league_member', '2025-09-01', NULL),
             ('OLD', 'club', '棋社', 'B1', 3, '20240001', 'student_league_member', '2024-09-01', '2025-09-01'),
             ('DZB', 'party_branch', '党支部', 'B1', 3, 'T001', 'counselor', '2023-05-04', NULL)",
        ),
    ];
    check(
        "I",
        &tables,
        expect![[r#"
        I01 awards = {total: 4, by_level: [{level_code: 10, awards: 1}, {level_code: 60, awards: 3}]} | {total: 0}
        I02 scholarship_fen = 800000 | 0
        I03 honours = {count: 1, list: [{name: 三好学生, level_code: 60, decided_on: 2024-12-01}]} | {count: 0}
        I04 sanctions_open = {count: 1, list: [{punishment_code: 2, decided_on: 2026-01-10}]} | {count: 0}
        I05 posts = {count: 1, list: [{org_code: ZGH, org_type: self_gov, name: 自管会}]} | {count: 0}
    "#]],
    )
    .await;
}

#[tokio::test]
async fn health_is_off_until_it_is_turned_on() {
    let tables = [(
        "extension.fitness_test",
        "student_no, test_year, tested_on, grade_text",
        "('20240001', 2025, '2025-10-20', '良好'), ('20240001', 2024, '2024-10-20', '及格'), ('20240001', 2027, '2027-10-20', '优秀')",
    )];
    check("J", &tables, expect![""]).await;
    expect![[r#"
        J01 fitness_grade = 良好 | –
        J02 psych_flag = – | –
    "#]]
    .assert_eq(&show(&compute(&tables, &["J"]).await, "J"));
}

#[tokio::test]
async fn what_is_known_of_the_data() {
    let tables = [
        (
            "academic.enrollment",
            "student_no, study_kind, level_code, college_id, major_code, class_id, grade_year, valid_from",
            "('20240001', 'major', '2', 'C99', 'M01', 'K2409', 2024, '2024-09-01')",
        ),
        (
            "student_affairs.aid_record",
            "aid_id, student_no, aid_type, hardship_level, decided_at, aid_status",
            "('H1', '20240001', 'hardship_determination', '1', '2026-10-01T01:00:00Z', 'approved')",
        ),
        (
            "extension.service_transaction",
            "txn_id, person_no, channel, submitted_at",
            "('S1', '20240001', 'web', '2026-10-14T16:30:00Z')",
        ),
    ];
    check("A08 E08 K L", &tables, expect![[r#"
        A08 college_academy = {college_id: C99, academy_id: Y1} (conflict) | –
        E08 hardship_level = 1 (conflict) | –
        K01 open_warnings = – | –
        K02 warnings_year = – | –
        K03 false_share = – | –
        K04 last_outcome = – | –
        K05 owner = – | –
        L01 domain_as_of = {academic: {own_day: 2026-06-20, source_day: 2026-06-20}, access_control: {source_day: 2026-09-02}, extension: {own_day: 2026-10-15, source_day: 2026-10-15}, identity: {own_day: 2026-09-01, source_day: 2026-09-01}, logistics: {own_day: 2024-09-01, source_day: 2026-09-02}, student_affairs: {own_day: 2026-10-01, source_day: 2026-10-01}} | {academic: {own_day: 2026-01-20, source_day: 2026-06-20}, access_control: {source_day: 2026-09-02}, identity: {own_day: 2024-09-01, source_day: 2026-09-01}, logistics: {own_day: 2024-09-01, source_day: 2026-09-02}, student_affairs: {own_day: 2026-09-01, source_day: 2026-10-01}}
        L02 missing_domains = {count: 0} | {count: 1, domains: [extension]}
        L03 conflicts = {count: 3, fields: [{field: class_id, classes: [1, 1]}, {field: college_id, classes: [1, 1]}, {field: hardship_level, classes: [2, 2]}]} | {count: 0}
        L04 quarantined = – | –
        L05 profile_version = – | –
        L06 computed_at = – | –
    "#]]).await;
}

#[tokio::test]
async fn open_reviews_count_for_every_candidate() {
    let ids = compute(&[], &[]).await;
    let [one, two] = STUDENTS.map(|student_no| ids.by_student_no(student_no).unwrap().id.clone());
    let rows = format!(
        r#"('V1', '2026-10-01T01:00:00Z', 'card_no', '1', '[{{"person_id": "{one}", "rule_id": "R7"}}, {{"person_id":"{two}"}}]', 'open'),
           ('V2', '2026-10-02T01:00:00Z', 'card_no', '2', '[{{"person_id":"{one}"}}]', NULL),
           ('V3', '2026-10-03T01:00:00Z', 'card_no', '3', '[{{"person_id":"{one}"}}]', 'linked'),
           ('V4', '2026-10-03T01:00:00Z', 'card_no', '4', 'no JSON: "person_id" {two}', 'open')"#
    );
    let columns = "review_id, raised_at, id_type, id_value, candidates, decision";
    check(
        "L04",
        &[("identity.match_review", columns, &rows)],
        expect![[r#"
        L04 quarantined = 2 | 1
    "#]],
    )
    .await;
}
