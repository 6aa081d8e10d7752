//! The dormitories' inspections and what is to be repaired in them.

use chrono::{NaiveDateTime, TimeDelta};

use crate::campus::Campus;
use crate::clock::{at, dashed, days_before, mixed};
use crate::offices::Office;
use crate::random::Random;
use crate::record::{Change, Defect};
use crate::source::{System, Table};

/// 卫生与安全检查; XH is empty where the result is the whole room's.
pub static WSJCB: Table = Table {
    name: "XG_GYGL_NEW_WSJCB",
    columns: &[
        ("JCID", "VARCHAR(40) NOT NULL"),
        ("LDDM", "VARCHAR(20)"),
        ("QSH", "VARCHAR(20)"),
        ("XH", "VARCHAR(30)"),
        ("JCLX", "VARCHAR(20)"),
        ("JCSJ", "VARCHAR(30)"),
        ("JG", "VARCHAR(20)"),
        ("DF", "DECIMAL(5,1)"),
        ("WGX", "VARCHAR(40)"),
        ("JCRGH", "VARCHAR(20)"),
        ("XGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["JCID"],
    indexes: &["XGSJ, JCID"],
};

/// 报修, with the description that is not asked for.
pub static BXDB: Table = Table {
    name: "HQ_BXGL_BXDB",
    columns: &[
        ("BXDH", "VARCHAR(40) NOT NULL"),
        ("BXR", "VARCHAR(30)"),
        ("LDDM", "VARCHAR(20)"),
        ("QSH", "VARCHAR(20)"),
        ("BXLB", "VARCHAR(20)"),
        ("BXSJ", "VARCHAR(30)"),
        ("SLSJ", "VARCHAR(30)"),
        ("WGSJ", "VARCHAR(30)"),
        ("SXSJ", "VARCHAR(30)"),
        ("PJ", "INTEGER"),
        ("ZT", "VARCHAR(4)"),
        ("BXNR", "VARCHAR(400)"),
        ("XGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["BXDH"],
    indexes: &["XGSJ, BXDH"],
};

pub fn offices(campus: &Campus) -> Vec<Office> {
    vec![inspections(campus), repairs(campus)]
}

fn inspections(campus: &Campus) -> Office {
    let mut office = Office::new("logistics.dorm_inspection", System::Logistics, &WSJCB);
    let inspector = &campus.staff[1].staff_no;
    for back in [3, 0] {
        let time = at(days_before(campus.plan.day, back), 20, 30, 0);
        for (index, bed) in campus.homes.bed_of.iter().enumerate().filter(|(index, _)| index % 4 == 1) {
            let Some(bed) = bed.map(|bed| &campus.homes.beds[bed]) else { continue };
            let mut random = Random::new(campus.plan.seed, "inspection", index as u64 * 10 + back);
            let id = format!("WS{back}{index:06}");
            let score = random.between(60, 100).to_string();
            // Hygiene is the room's, the roll at night is each student's.
            let (student, kind, result, score, item) = match random.below(10) {
                0..=5 => ("", "卫生", "合格", score.as_str(), ""),
                6 => ("", "安全", "违规", "", "违规电器"),
                7..=8 => (campus.students[index].student_no.as_str(), "查寝", "在寝", "", ""),
                _ => (campus.students[index].student_no.as_str(), "查寝", "晚归", "", ""),
            };
            let (building, at) = (format!("{} ", bed.building), mixed(time, index));
            let values: &[&str] =
                &[&id, &building, &bed.room, student, kind, &at, result, score, item, inspector, &dashed(time)];
            office.insert(time, &id, values);
        }
    }
    office.broken(&campus.plan, Defect::InspectionScore, "DF", "120.0");
    office
}

fn repairs(campus: &Campus) -> Office {
    let mut office = Office::new("logistics.repair_order", System::Logistics, &BXDB);
    let kinds = ["水", "电", "门锁", "家具", "网络", "空调", "电梯", "其他"];
    for (index, bed) in campus.homes.bed_of.iter().enumerate().filter(|(index, _)| index % 12 == 2) {
        let Some(bed) = bed.map(|bed| &campus.homes.beds[bed]) else { continue };
        let id = format!("BX{index:07}");
        let mut random = Random::new(campus.plan.seed, "repair", index as u64);
        let reported =
            at(days_before(campus.plan.day, random.between(1, 20) as u64), 10, random.between(0, 59) as u32, 0);
        let [accepted, finished, due] = [40, 1500, 2880].map(|minutes| reported + TimeDelta::minutes(minutes));
        let (number, kind) = (&campus.students[index].student_no, kinds[index / 12 % kinds.len()]);
        let [told, taken, limit, done] = [reported, accepted, due, finished].map(dashed);
        let building = bed.building.as_str();
        let mut write = |at: NaiveDateTime, done: &str, rating: &str, state: &str, change: Change| {
            let values: &[&str] = &[
                &id,
                number,
                building,
                &bed.room,
                kind,
                &told,
                &taken,
                done,
                &limit,
                rating,
                state,
                "灯不亮",
                &dashed(at),
            ];
            match change {
                Change::Insert => office.insert(at, &id, values),
                _ => office.update(at, &id, values),
            }
        };
        // What was reported the day before is finished on the day.
        if finished >= campus.plan.day_start() {
            write(accepted, "", "", "2", Change::Insert);
            write(finished, &done, "5", "3", Change::Update);
        } else {
            write(finished, &done, "4", "4", Change::Insert);
        }
    }
    office.broken(&campus.plan, Defect::RepairBackwards, "SLSJ", "2001-01-01 08:00:00");
    office
}
