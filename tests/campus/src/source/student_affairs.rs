//! 正方学工 and the sign-on's account view: names, codes and habits of the vendor's tables.

use std::ops::Range;

use chrono::{Datelike, NaiveDateTime};

use crate::affairs::{Contact, Leave};
use crate::campus::Campus;
use crate::clock::{dashed, dashed_date, mixed, mixed_date};
use crate::names::COLLEGES;
use crate::offices::{affairs, organisation};
use crate::record::{Defect, Record};
use crate::registry::{Account, Base};
use crate::source::{Row, Table, Write, some};

pub const TABLES: &[&Table] = &[
    &XSXX,
    &QJSQB,
    &THJL,
    &ACCOUNT,
    &organisation::DWB,
    &organisation::JZGXXB,
    &organisation::LXGXB,
    &organisation::ZZXXB,
    &affairs::XJYDB,
    &affairs::ZCXXB,
    &affairs::ZZJLB,
    &affairs::JLHDB,
    &affairs::CFXXB,
];

pub const VIEWS: &[(&str, &str)] = &[("VIEW_XSXXB", "SELECT * FROM XG_XSXX_XSJBXXB")];

/// Students. The view VIEW_XSXXB lies over it.
static XSXX: Table = Table {
    name: "XG_XSXX_XSJBXXB",
    columns: &[
        ("XH", "VARCHAR(30) NOT NULL"),
        ("XM", "VARCHAR(80)"),
        ("XB", "VARCHAR(10)"),
        ("CSRQ", "VARCHAR(30)"),
        ("SFZJLXDM", "VARCHAR(4)"),
        ("SFZJH", "VARCHAR(60)"),
        ("KSH", "VARCHAR(30)"),
        ("XYDM", "VARCHAR(20)"),
        ("XYMC", "VARCHAR(80)"),
        ("SSSYDM", "VARCHAR(20)"),
        ("ZYDM", "VARCHAR(20)"),
        ("BJDM", "VARCHAR(40)"),
        ("NJDM", "VARCHAR(10)"),
        ("PYCC", "VARCHAR(20)"),
        ("XSLBM", "VARCHAR(4)"),
        ("JDFSM", "VARCHAR(4)"),
        ("SYDM", "VARCHAR(10)"),
        ("MZ", "VARCHAR(20)"),
        ("ZZMMDM", "VARCHAR(4)"),
        ("KNCDM", "VARCHAR(4)"),
        ("FDYGH", "VARCHAR(20)"),
        ("SFZX", "VARCHAR(4)"),
        ("SFZJ", "VARCHAR(4)"),
        ("SJHM", "VARCHAR(20)"),
        ("JTDZ", "VARCHAR(200)"),
        ("XX", "VARCHAR(4)"),
        ("ZJXY", "VARCHAR(4)"),
        ("ZPURL", "VARCHAR(200)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["XH"],
    indexes: &["ZHXGSJ, XH", "XH"],
};

static QJSQB: Table = Table {
    name: "XG_RCSW_QJGL_QJSQB",
    columns: &[
        ("WID", "VARCHAR(40) NOT NULL"),
        ("XH", "VARCHAR(30)"),
        ("QJLX", "VARCHAR(4)"),
        ("QJSY", "VARCHAR(400)"),
        ("SQSJ", "VARCHAR(30)"),
        ("QJKSSJ", "VARCHAR(30)"),
        ("QJJSSJ", "VARCHAR(30)"),
        ("SFLX", "VARCHAR(4)"),
        ("SHZT", "VARCHAR(4)"),
        ("SHSJ", "VARCHAR(30)"),
        ("XJZT", "VARCHAR(4)"),
        ("XJSJ", "VARCHAR(30)"),
        ("SJJSSJ", "VARCHAR(30)"),
        ("FJURL", "VARCHAR(200)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["WID"],
    indexes: &["ZHXGSJ, WID", "WID"],
};

static THJL: Table = Table {
    name: "SZDW_THJL",
    columns: &[
        ("WID", "VARCHAR(40) NOT NULL"),
        ("XH", "VARCHAR(30)"),
        ("GH", "VARCHAR(20)"),
        ("JSDM", "VARCHAR(10)"),
        ("THLX", "VARCHAR(10)"),
        ("THRQ", "VARCHAR(30)"),
        ("THSJ", "VARCHAR(30)"),
        ("THSC", "INTEGER"),
        ("THDD", "VARCHAR(60)"),
        ("SFSQ", "VARCHAR(4)"),
        ("CYRS", "INTEGER"),
        ("GJQX", "VARCHAR(30)"),
        ("GJWCSJ", "VARCHAR(30)"),
        ("THNR", "VARCHAR(1000)"),
        ("ZHXGSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["WID"],
    indexes: &["ZHXGSJ, WID"],
};

static ACCOUNT: Table = Table {
    name: "TYRZ_ACCOUNT",
    columns: &[
        ("USERID", "VARCHAR(64) NOT NULL"),
        ("CN", "VARCHAR(80)"),
        ("XGH", "VARCHAR(30)"),
        ("INETUSERSTATUS", "VARCHAR(30)"),
        ("CONTAINER", "VARCHAR(60)"),
        ("KTSJ", "VARCHAR(30)"),
        ("ZXSJ", "VARCHAR(30)"),
        ("ZHDLSJ", "VARCHAR(30)"),
        ("USERPASSWORD", "VARCHAR(100)"),
        ("MODIFYTIME", "VARCHAR(30) NOT NULL"),
    ],
    key: &["USERID"],
    indexes: &["MODIFYTIME, USERID", "USERID"],
};

pub fn writes(campus: &Campus, span: Range<NaiveDateTime>) -> Box<dyn Iterator<Item = Write> + '_> {
    let during = move |at: NaiveDateTime| span.contains(&at);
    let (bases, leaves, contacts) = (during.clone(), during.clone(), during.clone());
    Box::new(
        campus
            .bases
            .iter()
            .filter(move |r| bases(r.at))
            .map(|r| write(r, &XSXX, base(campus, r)))
            .chain(
                campus.leaves.iter().filter(move |r| leaves(r.at)).map(|r| write(r, &QJSQB, leave(campus, &r.value))),
            )
            .chain(
                campus
                    .contacts
                    .iter()
                    .filter(move |r| contacts(r.at))
                    .map(|r| write(r, &THJL, contact(campus, &r.value))),
            )
            .chain(campus.accounts.iter().filter(move |r| during(r.at)).map(|r| write(r, &ACCOUNT, account(&r.value)))),
    )
}

fn write<T>(record: &Record<T>, table: &'static Table, row: Row) -> Write {
    Write { at: record.at, table, change: record.change, row }
}

fn base(campus: &Campus, record: &Record<Base>) -> Row {
    let base = &record.value;
    let student = &campus.students[base.student];
    let style = campus.plan.style(base.student);
    let broken_date = record.defect() == Some(Defect::StudentBirthDate);
    let yes_no = |yes: bool| some(if yes { "是" } else { "否" });
    let level = match base.study.level {
        '3' => "本科",
        '2' => "硕士",
        _ => "博士",
    };
    vec![
        some(&base.student_no),
        some(name_as_typed(&student.name, style)),
        some(student.sex_text(style)),
        some(if broken_date { format!("{}-02-30", student.birth.year()) } else { mixed_date(student.birth, style) }),
        some(student.id_doc_type.to_string()),
        some(document_as_typed(&student.id_doc_no, style)),
        some(&student.exam_no),
        some(base.study.college_code()),
        some(COLLEGES[base.study.college].name),
        some(format!("SY{}", base.study.college % 4 + 1)),
        some(base.study.major_code()),
        some(base.study.class_id()),
        some(base.study.grade_year.to_string()),
        some(level),
        some(if base.study.level == '3' { "42" } else { "43" }),
        some(if student.resident { "2" } else { "1" }),
        some(student.region),
        some(student.nation_text(style)),
        some(if student.party_member {
            "01"
        } else if style.is_multiple_of(9) {
            "13"
        } else {
            "03"
        }),
        (!student.hardship.is_empty()).then(|| student.hardship.to_string()),
        some(&campus.staff[base.study.counselor].staff_no),
        yes_no(base.current),
        yes_no(base.current),
        some(format!("139{:08}", base.student)),
        some("某省某市某路1号"),
        some("O"),
        some("00"),
        some(format!("http://xg.example.edu/photo/{}.jpg", base.student_no)),
        some(dashed(base.changed_at)),
    ]
}

/// Names come with blanks around them, or with full-width separators.
fn name_as_typed(name: &str, style: usize) -> String {
    match style % 17 {
        3 => format!(" {name}"),
        5 => format!("{name}\u{3000}"),
        _ => name.to_string(),
    }
}

/// Document numbers come in lower case, in full-width digits, with blanks, and now and then mistyped.
pub fn document_as_typed(number: &str, style: usize) -> String {
    match style % 23 {
        4 => number.to_lowercase(),
        7 => number
            .chars()
            .map(|c| if c.is_ascii_digit() { char::from_u32(c as u32 - 0x30 + 0xff10).unwrap_or(c) } else { c })
            .collect(),
        11 => format!("{} {}", &number[..6], &number[6..]),
        13 if number.len() == 18 => mistyped(number),
        _ => number.to_string(),
    }
}

/// One digit of the order number is wrong, so that the check character no longer fits.
fn mistyped(number: &str) -> String {
    let digit = number.as_bytes()[15] - b'0';
    format!("{}{}{}", &number[..15], (digit + 1) % 10, &number[16..])
}

fn leave(campus: &Campus, leave: &Leave) -> Row {
    let style = leave.student;
    let end = if leave.ends_with_day { mixed_date_only(leave.end_at, style) } else { mixed(leave.end_at, style) };
    vec![
        some(&leave.id),
        some(&campus.students[leave.student].student_no),
        some(leave.kind),
        some("家中有事"),
        some(mixed(leave.applied_at, style)),
        some(mixed(leave.start_at, style)),
        some(end),
        some(if leave.off_campus { "1" } else { "0" }),
        some(leave.state),
        leave.approved_at.map(dashed),
        some(leave.cancel_state),
        leave.cancelled_at.map(dashed),
        leave.cancelled_at.map(|at| mixed(at, style + 1)),
        some(format!("http://xg.example.edu/qj/{}.pdf", leave.id)),
        some(dashed(leave.changed_at)),
    ]
}

fn mixed_date_only(time: NaiveDateTime, style: usize) -> String {
    match style % 3 {
        0 => dashed_date(time.date()),
        1 => time.format("%Y/%m/%d").to_string(),
        _ => time.format("%Y%m%d").to_string(),
    }
}

fn contact(campus: &Campus, contact: &Contact) -> Row {
    let style = contact.student.unwrap_or(contact.staff);
    let role = if contact.kind == "5" { "99" } else { "01" };
    vec![
        some(&contact.id),
        some(contact.student.map_or("*", |index| &campus.students[index].student_no)),
        some(&campus.staff[contact.staff].staff_no),
        some(role),
        some(contact.kind),
        // The day and the clock in two columns, each by another hand (L10).
        some(mixed_date_only(contact.at, style)),
        some(contact.at.format(if style.is_multiple_of(2) { "%H:%M" } else { "%H:%M:%S" }).to_string()),
        some(contact.duration_min.to_string()),
        some(if contact.in_community { "D01-P2" } else { "办公楼305" }),
        some(if contact.in_community { "1" } else { "0" }),
        contact.group_size.map(|size| size.to_string()),
        contact.follow_up_due.map(dashed_date),
        contact.follow_up_done_at.map(dashed),
        some("谈话内容不出学工系统"),
        some(dashed(contact.changed_at)),
    ]
}

fn account(account: &Account) -> Row {
    vec![
        some(&account.uid),
        some(&account.name),
        some(&account.person_no),
        some(account.status),
        some(account.container),
        some(dashed(account.opened_at)),
        account.closed_at.map(dashed),
        some(dashed(account.changed_at)),
        some("{SSHA}never-leaves-the-directory"),
        some(dashed(account.changed_at)),
    ]
}
