//! Units, staff, what staff are responsible for, and the organisations of the community.

use std::collections::BTreeSet;

use crate::campus::Campus;
use crate::clock::{at, dashed, dashed_date, days_before};
use crate::names::COLLEGES;
use crate::offices::Office;
use crate::record::Defect;
use crate::source::{System, Table};

/// 机构. No time of change, as found: it is pulled whole.
pub static DWB: Table = Table {
    name: "XG_XTGL_DWB",
    columns: &[
        ("DWH", "VARCHAR(20) NOT NULL"),
        ("DWMC", "VARCHAR(80)"),
        ("DWLB", "VARCHAR(10)"),
        ("LSDWH", "VARCHAR(20)"),
        ("BZDM", "VARCHAR(10)"),
        ("QYRQ", "VARCHAR(30)"),
        ("TYRQ", "VARCHAR(30)"),
    ],
    key: &["DWH"],
    indexes: &[],
};

/// 教职工, with the document number that is not asked for.
pub static JZGXXB: Table = Table {
    name: "XG_JSGL_JZGXXB",
    columns: &[
        ("GH", "VARCHAR(20) NOT NULL"),
        ("XM", "VARCHAR(80)"),
        ("DWH", "VARCHAR(20)"),
        ("JZGLBM", "VARCHAR(10)"),
        ("DQZTM", "VARCHAR(10)"),
        ("SFZJH", "VARCHAR(30)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["GH"],
    indexes: &["ZHXGSJ, GH"],
};

/// 联系关系: whom a member of staff is responsible for.
pub static LXGXB: Table = Table {
    name: "XG_JSGL_LXGXB",
    columns: &[
        ("GH", "VARCHAR(20) NOT NULL"),
        ("JSDM", "VARCHAR(10) NOT NULL"),
        ("DXLX", "VARCHAR(10) NOT NULL"),
        ("DXDM", "VARCHAR(40) NOT NULL"),
        ("QSRQ", "VARCHAR(30)"),
        ("JZRQ", "VARCHAR(30)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["GH", "JSDM", "DXDM"],
    indexes: &["ZHXGSJ, GH, JSDM, DXLX, DXDM"],
};

/// 社区组织: one row a floor that it covers.
pub static ZZXXB: Table = Table {
    name: "XG_SQGL_ZZXXB",
    columns: &[
        ("ZZBH", "VARCHAR(40) NOT NULL"),
        ("ZZMC", "VARCHAR(80)"),
        ("ZZLX", "VARCHAR(40)"),
        ("LDDM", "VARCHAR(20)"),
        ("CH", "VARCHAR(10) NOT NULL"),
        ("FZRH", "VARCHAR(20)"),
        ("FZRSF", "VARCHAR(40)"),
        ("CLRQ", "VARCHAR(30)"),
        ("CXRQ", "VARCHAR(30)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["ZZBH", "CH"],
    indexes: &["ZHXGSJ, ZZBH, CH"],
};

pub fn offices(campus: &Campus) -> Vec<Office> {
    vec![units(campus), staff(campus), roles(campus), community(campus)]
}

fn units(campus: &Campus) -> Office {
    let mut office = Office::new("identity.org_unit", System::StudentAffairs, &DWB);
    let set_up = at(days_before(campus.plan.day, 400), 8, 0, 0);
    for college in COLLEGES {
        for (code, name) in college.majors {
            office.insert(set_up, code, &[code, name, "专业", college.code, code, "20000901", ""]);
        }
        office.insert(set_up, college.code, &[college.code, college.name, "院系", "00", "", "2000-09-01", ""]);
    }
    office.insert(set_up, "00", &["00", "示例大学", "学校", "", "", "1952/10/01", ""]);
    for (code, name) in [("A1", "学生工作部"), ("A2", "教务处"), ("A3", "后勤保障部")] {
        office.insert(set_up, code, &[code, name, "部处", "00", "", "2000-09-01", ""]);
    }
    for number in 1..=4 {
        let code = format!("SY{number}");
        office.insert(set_up, &code, &[&code, &format!("第{number}书院"), "书院", "00", "", "2020-09-01", ""]);
    }
    office.broken(&campus.plan, Defect::OrgStandardCode, "BZDM", "0501.01");
    office
}

fn staff(campus: &Campus) -> Office {
    let mut office = Office::new("identity.staff", System::StudentAffairs, &JZGXXB);
    let set_up = dashed(at(days_before(campus.plan.day, 120), 8, 0, 0));
    for (index, person) in campus.staff.iter().enumerate() {
        let (number, unit) = (&person.staff_no, COLLEGES[person.college].code);
        let kind = if index % 5 == 4 { "10" } else { "21" };
        let document = "110105194912310021";
        let time = at(days_before(campus.plan.day, 120), 8, 0, 0);
        office.insert(time, number, &[number, &person.name, unit, kind, "11", document, &set_up]);
        // The last of them goes on leave on the day.
        if index + 1 == campus.staff.len() {
            let time = at(campus.plan.day, 9, 20, 0);
            office.update(time, number, &[number, &person.name, unit, kind, "13", document, &dashed(time)]);
        }
    }
    office.broken(&campus.plan, Defect::StaffStateUnknown, "DQZTM", "77");
    office
}

fn roles(campus: &Campus) -> Office {
    let mut office = Office::new("identity.staff_role", System::StudentAffairs, &LXGXB);
    let classes: BTreeSet<(String, usize, i32)> = campus
        .students
        .iter()
        .map(|student| (student.study.class_id(), student.study.counselor, student.study.grade_year))
        .collect();
    let set_up = at(days_before(campus.plan.day, 90), 8, 0, 0);
    for (class, counselor, year) in classes {
        let (number, from) = (&campus.staff[counselor].staff_no, format!("{year}-09-01"));
        let key = format!("{number} 01 {class}");
        office.insert(set_up, key, &[number, "01", "BJ", &class, &from, "", &dashed(set_up)]);
    }
    let (time, today) = (at(campus.plan.day, 15, 10, 0), dashed_date(campus.plan.day));
    let head = &campus.staff[0];
    let college = COLLEGES[head.college].code;
    let key = format!("{} 04 {college}", head.staff_no);
    office.insert(time, key, &[&head.staff_no, "04", "XY", college, &today, "", &dashed(time)]);
    office.broken(&campus.plan, Defect::RoleBackwards, "JZRQ", "1999-01-01");
    office
}

fn community(campus: &Campus) -> Office {
    let mut office = Office::new("student_affairs.community_org", System::StudentAffairs, &ZZXXB);
    let floors: BTreeSet<(&str, i32)> =
        campus.homes.beds.iter().map(|bed| (bed.building.as_str(), bed.floor)).collect();
    let set_up = at(days_before(campus.plan.day, 200), 8, 0, 0);
    for (number, (building, floor)) in floors.into_iter().enumerate() {
        let leader = &campus.staff[number % campus.staff.len()].staff_no;
        let (code, name, floor) = (format!("DZB-{building}"), format!("{building}栋党支部"), floor.to_string());
        let values: &[&str] =
            &[&code, &name, "党支部", building, &floor, leader, "辅导员", "2023-05-04", "", &dashed(set_up)];
        office.insert(set_up, format!("{code} {floor}"), values);
    }
    office.broken(&campus.plan, Defect::CommunityFloor, "CH", "88");
    office
}
