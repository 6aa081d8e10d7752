//! Student affairs: changes of status, registration for the term, aid, awards and punishments.

use crate::calendar::Term;
use crate::campus::Campus;
use crate::cast::Role;
use crate::clock::{at, dashed, dashed_date, days_before, mixed_date};
use crate::offices::Office;
use crate::record::Defect;
use crate::registry::study_after_change;
use crate::source::{System, Table};

pub static XJYDB: Table = Table {
    name: "XG_XSXX_XJYDB",
    columns: &[
        ("WID", "VARCHAR(40) NOT NULL"),
        ("XH", "VARCHAR(30)"),
        ("YDLBM", "VARCHAR(4)"),
        ("YDYYM", "VARCHAR(10)"),
        ("YDRQ", "VARCHAR(30)"),
        ("SPRQ", "VARCHAR(30)"),
        ("SPWH", "VARCHAR(60)"),
        ("YZYM", "VARCHAR(20)"),
        ("XZYM", "VARCHAR(20)"),
        ("YBH", "VARCHAR(40)"),
        ("XBH", "VARCHAR(40)"),
        ("XXH", "VARCHAR(30)"),
        ("YDSM", "VARCHAR(400)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["WID"],
    indexes: &["ZHXGSJ, WID"],
};

/// The term in one text, `2026-2027-1`, as the third of the ways in which terms are written (L11).
pub static ZCXXB: Table = Table {
    name: "XG_XSXX_ZCXXB",
    columns: &[
        ("XH", "VARCHAR(30) NOT NULL"),
        ("XNXQ", "VARCHAR(20) NOT NULL"),
        ("ZCZKM", "VARCHAR(4)"),
        ("ZCRQ", "VARCHAR(30)"),
        ("QFJE", "DECIMAL(12,2)"),
        ("WZCYY", "VARCHAR(100)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["XH", "XNXQ"],
    indexes: &["ZHXGSJ, XH, XNXQ"],
};

pub static ZZJLB: Table = Table {
    name: "XG_ZZGL_ZZJLB",
    columns: &[
        ("WID", "VARCHAR(40) NOT NULL"),
        ("XH", "VARCHAR(30)"),
        ("ZZLX", "VARCHAR(40)"),
        ("KNCDDM", "VARCHAR(4)"),
        ("KNYYM", "VARCHAR(4)"),
        ("KNPDXN", "VARCHAR(20)"),
        ("JE", "DECIMAL(12,2)"),
        ("RDSJ", "VARCHAR(30)"),
        ("FFSJ", "VARCHAR(30)"),
        ("SHZT", "VARCHAR(4)"),
        ("JTQK", "VARCHAR(400)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["WID"],
    indexes: &["ZHXGSJ, WID"],
};

pub static JLHDB: Table = Table {
    name: "XG_JCGL_JLHDB",
    columns: &[
        ("WID", "VARCHAR(40) NOT NULL"),
        ("XH", "VARCHAR(30)"),
        ("JLLX", "VARCHAR(20)"),
        ("JLMC", "VARCHAR(120)"),
        ("JLJBM", "VARCHAR(4)"),
        ("JLDJM", "VARCHAR(4)"),
        ("HJRQ", "VARCHAR(30)"),
        ("WH", "VARCHAR(60)"),
        ("JE", "DECIMAL(12,2)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["WID"],
    indexes: &["ZHXGSJ, WID"],
};

pub static CFXXB: Table = Table {
    name: "XG_JCGL_CFXXB",
    columns: &[
        ("WID", "VARCHAR(40) NOT NULL"),
        ("XH", "VARCHAR(30)"),
        ("CFMCM", "VARCHAR(4)"),
        ("CFRQ", "VARCHAR(30)"),
        ("CFCXRQ", "VARCHAR(30)"),
        ("CFWH", "VARCHAR(60)"),
        ("CFYY", "VARCHAR(400)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["WID"],
    indexes: &["ZHXGSJ, WID"],
};

pub fn offices(campus: &Campus) -> Vec<Office> {
    vec![status_changes(campus), registrations(campus), aid(campus), awards(campus), punishments(campus)]
}

fn status_changes(campus: &Campus) -> Office {
    let mut office = Office::new("academic.status_change", System::StudentAffairs, &XJYDB);
    for (index, student) in campus.students.iter().enumerate().step_by(20) {
        let day = days_before(campus.plan.day, 40 + index as u64 % 30);
        let time = at(day, 15, 0, 0);
        let (id, class) = (format!("YD{index:07}"), student.study.class_id());
        let (before, date) = (format!("{}00", student.study.major_code()), mixed_date(day, index));
        let values: &[&str] = &[
            &id,
            &student.student_no,
            "29",
            "",
            &date,
            &dashed_date(day),
            "校学〔2026〕8号",
            "",
            "",
            &before,
            &class,
            "",
            "本人申请",
            &dashed(time),
        ];
        office.insert(time, &id, values);
    }
    let mover = &campus.students[Role::ChangedMajor.index()];
    let (time, today) = (at(campus.plan.day, 9, 0, 0), dashed_date(campus.plan.day));
    let (old, new) = (&mover.study, study_after_change(mover, &campus.staff));
    let values: &[&str] = &[
        "YD9000001",
        &mover.student_no,
        "23",
        "21",
        &today,
        &today,
        "",
        old.major_code(),
        new.major_code(),
        &old.class_id(),
        &new.class_id(),
        "",
        "个人兴趣",
        &dashed(time),
    ];
    office.insert(time, "YD9000001", values);
    office.broken(&campus.plan, Defect::StatusChangeDate, "YDRQ", "2026-02-30");
    office
}

fn registrations(campus: &Campus) -> Office {
    let mut office = Office::new("academic.term_registration", System::StudentAffairs, &ZCXXB);
    let term = Term::of(campus.plan.day);
    let (begins, name) = (at(term.start(), 9, 0, 0), format!("{}-{}", term.academic_year(), term.number));
    for (index, student) in campus.students.iter().enumerate() {
        let (number, time) = (&student.student_no, dashed(begins));
        let is_late = Role::at(index).is_none() && index % 29 == 5;
        let (state, owed, reason) = if is_late { ("3", "5200.00", "欠费") } else { ("1", "", "") };
        office.insert(begins, number, &[number, &name, state, &mixed_date(term.start(), index), owed, reason, &time]);
        let today = at(campus.plan.day, 10, 5, 0);
        if is_late && begins < campus.plan.day_start() {
            office.update(today, number, &[number, &name, "1", &dashed(today), "0.00", "", &dashed(today)]);
        }
    }
    office.broken(&campus.plan, Defect::RegistrationYear, "XNXQ", "2026-2028-1");
    office
}

fn aid(campus: &Campus) -> Office {
    let mut office = Office::new("student_affairs.aid_record", System::StudentAffairs, &ZZJLB);
    let day = days_before(campus.plan.day, 45);
    let (year, decided) = (Term::of(day).academic_year(), at(day, 16, 0, 0));
    let (paid, home) = (at(days_before(campus.plan.day, 15), 10, 0, 0), "家庭情况");
    let mut add = |id: &str, values: [&str; 9], time| {
        let [number, kind, level, cause, amount, decided, paid, state, changed] = values;
        let values: &[&str] = &[id, number, kind, level, cause, &year, amount, decided, paid, state, home, changed];
        office.insert(time, id, values);
    };
    for (index, student) in campus.students.iter().enumerate() {
        let number = student.student_no.as_str();
        if !student.hardship.is_empty() {
            let (id, time) = (format!("ZZ1{index:06}"), dashed(decided));
            add(&id, [number, "困难认定", student.hardship, "9", "", &time, "", "1", &time], decided);
        }
        let amount = match student.hardship {
            "1" => "4400.00",
            "2" => "3300.00",
            _ => continue,
        };
        let (id, time) = (format!("ZZ2{index:06}"), dashed(paid));
        add(&id, [number, "助学金", student.hardship, "", amount, &dashed(decided), &time, "7", &time], paid);
    }
    // Asked for before the day, approved on it.
    let (asked, approved) = (at(days_before(campus.plan.day, 3), 9, 0, 0), at(campus.plan.day, 11, 20, 0));
    let number = campus.students[30].student_no.as_str();
    add("ZZ9000001", [number, "临时困难补助", "", "2", "800.00", &dashed(asked), "", "5", &dashed(asked)], asked);
    let time = dashed(approved);
    let values: &[&str] = &["ZZ9000001", number, "临时困难补助", "", "2", &year, "800.00", &time, "", "1", home, &time];
    office.update(approved, "ZZ9000001", values);
    office.broken(&campus.plan, Defect::AidAmount, "JE", "990000.00");
    office
}

fn awards(campus: &Campus) -> Office {
    let mut office = Office::new("student_affairs.award_punishment", System::StudentAffairs, &JLHDB);
    let day = days_before(campus.plan.day, 30);
    let time = at(day, 14, 0, 0);
    for (index, student) in campus.students.iter().enumerate().filter(|(index, _)| index % 10 == 1) {
        let id = format!("JL{index:07}");
        let (kind, name, grade, amount) = match index % 3 {
            0 => ("奖学金", "优秀学生奖学金", "3", "1500.00"),
            1 => ("荣誉称号", "三好学生", "6", ""),
            _ => ("竞赛获奖", "程序设计竞赛", "2", ""),
        };
        let date = mixed_date(day, index);
        let values: &[&str] =
            &[&id, &student.student_no, kind, name, "60", grade, &date, "校学〔2026〕31号", amount, &dashed(time)];
        office.insert(time, &id, values);
    }
    office
}

fn punishments(campus: &Campus) -> Office {
    let mut office = Office::new("student_affairs.award_punishment", System::StudentAffairs, &CFXXB);
    let day = days_before(campus.plan.day, 60);
    let time = at(day, 17, 0, 0);
    for (index, student) in campus.students.iter().enumerate().filter(|(index, _)| index % 40 == 33) {
        let (id, date, reason) = (format!("CF{index:07}"), mixed_date(day, index), "处分事实");
        let number = "校纪〔2026〕5号";
        office.insert(time, &id, &[&id, &student.student_no, "3", &date, "", number, reason, &dashed(time)]);
        // The first of them is revoked on the day.
        if index == 33 {
            let (time, today) = (at(campus.plan.day, 16, 30, 0), dashed_date(campus.plan.day));
            office.update(time, &id, &[&id, &student.student_no, "3", &date, &today, number, reason, &dashed(time)]);
        }
    }
    office.broken(&campus.plan, Defect::AwardRevokedEarly, "CFCXRQ", "2001-01-01");
    office
}
