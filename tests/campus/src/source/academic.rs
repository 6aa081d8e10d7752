//! 正方教务 V9: enrolment, catalogue, results and calendar as the registrar's vendor keeps them.

use std::ops::Range;

use chrono::{Datelike, NaiveDateTime};

use crate::academics::{Course, Grade};
use crate::calendar::CalendarDay;
use crate::campus::Campus;
use crate::clock::{compact_date, dashed, dashed_date};
use crate::offices::teaching;
use crate::record::{Change, Defect, Record};
use crate::registry::Enrollment;
use crate::source::{Row, Table, Write, some, tenths};

pub const TABLES: &[&Table] =
    &[&XSJBXXB, &KCDMB, &CJB, &XLB, &teaching::JXBXXB, &teaching::XSXKB, &teaching::KCQDB, &teaching::TCCJB];

static XSJBXXB: Table = Table {
    name: "JW_XJGL_XSJBXXB",
    columns: &[
        ("XH", "VARCHAR(30) NOT NULL"),
        ("XM", "VARCHAR(80)"),
        ("XDLX", "VARCHAR(10)"),
        ("PYCCDM", "VARCHAR(4)"),
        ("PYFSDM", "VARCHAR(4)"),
        ("JG_ID", "VARCHAR(20)"),
        ("ZYH_ID", "VARCHAR(20)"),
        ("BH_ID", "VARCHAR(40)"),
        ("NJDM_ID", "VARCHAR(10)"),
        ("XZ", "DECIMAL(3,1)"),
        ("RXNY", "VARCHAR(10)"),
        ("XJZTDM", "VARCHAR(4)"),
        ("YJBYRQ", "VARCHAR(30)"),
        ("QSRQ", "VARCHAR(30)"),
        ("ZZRQ", "VARCHAR(30)"),
        ("CZLX", "VARCHAR(4)"),
        ("ZPURL", "VARCHAR(200)"),
        ("TSTAMP", "VARCHAR(30) NOT NULL"),
    ],
    key: &["XH", "QSRQ"],
    indexes: &["TSTAMP, XH, QSRQ", "XH"],
};

static KCDMB: Table = Table {
    name: "JW_JH_KCDMB",
    columns: &[
        ("KCH", "VARCHAR(30) NOT NULL"),
        ("KCMC", "VARCHAR(120)"),
        ("XF", "DECIMAL(4,1)"),
        ("ZXS", "INTEGER"),
        ("KCXZM", "VARCHAR(4)"),
        ("KCSXM", "VARCHAR(4)"),
        ("KCLBM", "VARCHAR(4)"),
        ("KKBM_ID", "VARCHAR(20)"),
        ("KCJJ", "VARCHAR(400)"),
        ("TSTAMP", "VARCHAR(30) NOT NULL"),
    ],
    key: &["KCH"],
    indexes: &["TSTAMP, KCH", "KCH"],
};

static CJB: Table = Table {
    name: "CJ_BKS",
    columns: &[
        ("CJID", "VARCHAR(30) NOT NULL"),
        ("XH", "VARCHAR(30)"),
        ("KCH", "VARCHAR(30)"),
        ("XN", "VARCHAR(12)"),
        ("XQM", "VARCHAR(4)"),
        ("KSXZ", "VARCHAR(40)"),
        ("FSLKSCJ", "VARCHAR(10)"),
        ("DJLKSCJ", "VARCHAR(20)"),
        ("SFJG", "VARCHAR(4)"),
        ("XF", "DECIMAL(4,1)"),
        ("XF_HD", "DECIMAL(4,1)"),
        ("JD", "VARCHAR(10)"),
        ("KSRQ", "VARCHAR(30)"),
        ("FBSJ", "VARCHAR(30)"),
        ("SFYX", "VARCHAR(4)"),
        ("CZLX", "VARCHAR(4)"),
        ("BZ", "VARCHAR(200)"),
        ("TSTAMP", "VARCHAR(30) NOT NULL"),
    ],
    key: &["CJID"],
    // The second index lets the source count earlier sittings of a course.
    indexes: &["TSTAMP, CJID", "XH, KCH", "CJID"],
};

static XLB: Table = Table {
    name: "JW_XL_XLB",
    columns: &[
        ("RQ", "VARCHAR(30) NOT NULL"),
        ("XN", "VARCHAR(12)"),
        ("XQM", "VARCHAR(4)"),
        ("ZC", "INTEGER"),
        ("SFSKR", "VARCHAR(4)"),
        ("XDSJ", "VARCHAR(10)"),
        ("BZ", "VARCHAR(100)"),
    ],
    key: &["RQ"],
    indexes: &["RQ"],
};

pub fn writes(campus: &Campus, span: Range<NaiveDateTime>) -> Box<dyn Iterator<Item = Write> + '_> {
    let during = move |at: NaiveDateTime| span.contains(&at);
    let calendar_at = campus.plan.day_start() - chrono::TimeDelta::days(100);
    let (enrollments, courses, grades) = (during.clone(), during.clone(), during.clone());
    let write = |at, change, table, row| Write { at, table, change, row };
    Box::new(
        campus
            .enrollments
            .iter()
            .filter(move |r| enrollments(r.at))
            .map(move |r| write(r.at, r.change, &XSJBXXB, enrollment(campus, r)))
            .chain(
                campus
                    .courses
                    .iter()
                    .filter(move |r| courses(r.at))
                    .map(move |r| write(r.at, r.change, &KCDMB, course(&r.value))),
            )
            .chain(
                campus
                    .grades
                    .iter()
                    .filter(move |r| grades(r.at))
                    .map(move |r| write(r.at, r.change, &CJB, grade(campus, r))),
            )
            .chain(
                campus
                    .calendar
                    .iter()
                    .filter(move |_| during(calendar_at))
                    .map(move |day| write(calendar_at, Change::Insert, &XLB, calendar(day))),
            ),
    )
}

fn enrollment(campus: &Campus, record: &Record<Enrollment>) -> Row {
    let row = &record.value;
    let student = &campus.students[row.student];
    // The vendor counts states in its own way: 1 present, 2 suspended, 6 graduated.
    let state = match row.status {
        "02" => "2",
        "07" => "6",
        _ => "1",
    };
    let years = row.study.years();
    vec![
        some(&row.student_no),
        some(&student.name),
        some("主修"),
        some(row.study.level.to_string()),
        some("11"),
        some(row.study.college_code()),
        some(row.study.major_code()),
        some(row.study.class_id()),
        some(row.study.grade_year.to_string()),
        some(years.to_string()),
        some(format!("{}09", row.study.grade_year.max(1900))),
        some(state),
        some(format!("{}0630", row.study.grade_year + years)),
        some(if row.student.is_multiple_of(2) { dashed_date(row.valid_from) } else { compact_date(row.valid_from) }),
        row.valid_to.map(dashed_date),
        some(record.operation_code()),
        some(format!("http://jw.example.edu/photo/{}.jpg", row.student_no)),
        some(dashed(row.changed_at)),
    ]
}

fn course(course: &Course) -> Row {
    vec![
        some(&course.course_no),
        some(&course.name),
        some(tenths(course.credits_tenths)),
        some(course.hours.to_string()),
        some(course.nature),
        some(course.attribute),
        some("1"),
        some(course.college),
        some("课程简介"),
        some(dashed(course.changed_at)),
    ]
}

fn grade(campus: &Campus, record: &Record<Grade>) -> Row {
    let grade = &record.value;
    let student = &campus.students[grade.student as usize];
    let number = match (&student.former, grade.former) {
        (Some((former_no, _)), true) => former_no,
        _ => &student.student_no,
    };
    let course = &campus.courses[grade.course as usize].value;
    let defect = record.defect();
    let nature =
        if defect == Some(Defect::GradeNatureUnknown) { "第三次补考" } else { grade.nature.vendor_text() };
    let exam_on = if defect == Some(Defect::GradeExamDate) {
        format!("{}1341", grade.exam_on.year())
    } else {
        compact_date(grade.exam_on)
    };
    vec![
        some(format!("CJ{:010}", grade.id)),
        some(number),
        some(&course.course_no),
        some(grade.term.academic_year()),
        some(grade.term.vendor_code()),
        some(nature),
        grade.score_tenths.map(tenths),
        grade.level.map(str::to_string),
        grade.passed.map(|passed| if passed { "是" } else { "否" }.to_string()),
        some(tenths(course.credits_tenths)),
        some(tenths(grade.earned_tenths)),
        grade.point_hundredths.map(|point| format!("{}.{:02}", point / 100, point % 100)),
        some(exam_on),
        some(dashed(grade.posted_at)),
        some(if grade.valid { "1" } else { "0" }),
        some(if record.change == Change::Update { "2" } else { "1" }),
        some("任课教师评语"),
        some(dashed(grade.changed_at)),
    ]
}

fn calendar(day: &CalendarDay) -> Row {
    vec![
        some(dashed_date(day.date)),
        some(day.term.academic_year()),
        some(day.term.vendor_code()),
        some(day.teaching_week.to_string()),
        some(if day.is_teaching_day { "是" } else { "否" }),
        some(format!("{:02}:{:02}", day.curfew_minute / 60, day.curfew_minute % 60)),
        None,
    ]
}
