//! 公寓 (正方) and 一卡通: places, the dormitory's change log, card accounts and the transaction log.

use std::ops::Range;

use chrono::{NaiveDateTime, Timelike};

use crate::campus::Campus;
use crate::cards::Card;
use crate::clock::{compact, compact_date, compact_time, dashed};
use crate::homes::{Move, Space, SpaceKind};
use crate::offices::housing;
use crate::record::{Defect, Record};
use crate::source::{Row, Table, Write, some, yuan};
use crate::spending::{Txn, TxnKind};

pub const TABLES: &[&Table] =
    &[&LDXXB, &QSXXB, &CWXXB, &GGKJB, &SSYDJG, &CARD, &JYLOG, &housing::WSJCB, &housing::BXDB];

static LDXXB: Table = Table {
    name: "XG_GYGL_NEW_LDXXB",
    columns: &[
        ("LDDM", "VARCHAR(20) NOT NULL"),
        ("LDMC", "VARCHAR(60)"),
        ("XQDM", "VARCHAR(10)"),
        ("LDXB", "VARCHAR(4)"),
        ("LDRS", "INTEGER"),
        ("XGSJ", "VARCHAR(30)"),
    ],
    key: &["LDDM"],
    indexes: &[],
};

static QSXXB: Table = Table {
    name: "XG_GYGL_NEW_QSXXB",
    columns: &[
        ("LDDM", "VARCHAR(20) NOT NULL"),
        ("CH", "VARCHAR(10)"),
        ("QSH", "VARCHAR(20)"),
        ("QSXB", "VARCHAR(4)"),
        ("CWS", "INTEGER"),
        ("XGSJ", "VARCHAR(30)"),
    ],
    key: &["LDDM", "QSH"],
    indexes: &[],
};

static CWXXB: Table = Table {
    name: "XG_GYGL_NEW_CWXXB",
    columns: &[
        ("LDDM", "VARCHAR(20) NOT NULL"),
        ("CH", "VARCHAR(10)"),
        ("QSH", "VARCHAR(20)"),
        ("CWH", "VARCHAR(20)"),
        ("QSXB", "VARCHAR(4)"),
        ("XH", "VARCHAR(30)"),
        ("XGSJ", "VARCHAR(30)"),
    ],
    key: &["LDDM", "QSH", "CWH"],
    indexes: &[],
};

static GGKJB: Table = Table {
    name: "XG_GYGL_NEW_GGKJB",
    columns: &[
        ("LDDM", "VARCHAR(20) NOT NULL"),
        ("CH", "VARCHAR(10)"),
        ("KJBH", "VARCHAR(20)"),
        ("KJGN", "VARCHAR(40)"),
        ("RNRS", "INTEGER"),
        ("MJ", "DECIMAL(9,2)"),
        ("ZDS", "INTEGER"),
        ("XGSJ", "VARCHAR(30)"),
    ],
    key: &["LDDM", "KJBH"],
    indexes: &[],
};

/// The change log: who came, moved and left. An assignment ends where the next row of the number begins.
static SSYDJG: Table = Table {
    name: "XG_GYGL_NEW_SSYD_SSYDJG",
    columns: &[
        ("SSYDID", "VARCHAR(40) NOT NULL"),
        ("XH", "VARCHAR(30)"),
        ("SSYDLX", "VARCHAR(4)"),
        ("TSTZSJ", "VARCHAR(30)"),
        ("YDHLDDM", "VARCHAR(20)"),
        ("YDHCH", "VARCHAR(10)"),
        ("YDHQSH", "VARCHAR(20)"),
        ("YDHCWH", "VARCHAR(20)"),
        ("SHZT", "VARCHAR(4)"),
        ("TSTZYY", "VARCHAR(200)"),
        ("CZSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["SSYDID"],
    indexes: &["XH, TSTZSJ", "CZSJ, SSYDID"],
};

static CARD: Table = Table {
    name: "ECARD_CARD",
    columns: &[
        ("KH", "VARCHAR(20) NOT NULL"),
        ("KXL", "VARCHAR(20) NOT NULL"),
        ("JKXL", "VARCHAR(20)"),
        ("CARDPHYID", "VARCHAR(32)"),
        ("STUEMPNO", "VARCHAR(30)"),
        ("KLX", "VARCHAR(20)"),
        ("KPZT", "VARCHAR(4)"),
        ("KHRQ", "VARCHAR(30)"),
        ("YXRQ", "VARCHAR(30)"),
        ("ZHYE", "DECIMAL(12,2)"),
        ("MM", "VARCHAR(64)"),
        ("YHKH", "VARCHAR(30)"),
        ("CARDUPDTIME", "VARCHAR(30) NOT NULL"),
    ],
    key: &["KH", "KXL"],
    indexes: &["CARDUPDTIME, KH, KXL"],
};

/// No key of any kind, as found (L1).
static JYLOG: Table = Table {
    name: "YKT_JY_LOG",
    columns: &[
        ("JYLSH", "VARCHAR(30)"),
        ("ZDJH", "VARCHAR(20)"),
        ("KH", "VARCHAR(20)"),
        ("KXL", "VARCHAR(20)"),
        ("JYLX", "VARCHAR(10)"),
        ("JYJE", "VARCHAR(20)"),
        ("JYYE", "VARCHAR(20)"),
        ("LJYKCS", "INTEGER"),
        ("JYRQ", "VARCHAR(10)"),
        ("JYSJ", "VARCHAR(10)"),
        ("SHDM", "VARCHAR(20)"),
        ("SHLB", "VARCHAR(10)"),
        ("RZSJ", "VARCHAR(30) NOT NULL"),
    ],
    key: &["ZDJH", "JYLSH", "JYRQ", "JYSJ"],
    indexes: &["RZSJ, ZDJH, JYLSH"],
};

pub fn writes(campus: &Campus, span: Range<NaiveDateTime>) -> Box<dyn Iterator<Item = Write> + '_> {
    let during = move |at: NaiveDateTime| span.contains(&at);
    let (spaces, moves, cards) = (during.clone(), during.clone(), during.clone());
    let write = |at, change, (table, row)| Write { at, table, change, row };
    Box::new(
        campus
            .homes
            .spaces
            .iter()
            .filter(move |r| spaces(r.at))
            .map(move |r| write(r.at, r.change, space(&r.value)))
            .chain(
                campus
                    .homes
                    .moves
                    .iter()
                    .filter(move |r| moves(r.at))
                    .map(move |r| write(r.at, r.change, (&SSYDJG, movement(campus, &r.value)))),
            )
            .chain(
                campus
                    .cards
                    .records
                    .iter()
                    .filter(move |r| cards(r.at))
                    .map(move |r| write(r.at, r.change, (&CARD, card(campus, &r.value)))),
            )
            .chain(
                campus
                    .spending
                    .records
                    .iter()
                    .filter(move |r| during(r.at))
                    .map(move |r| write(r.at, r.change, (&JYLOG, txn(campus, r)))),
            ),
    )
}

/// Building codes come padded (L9), but in one way for each table, so that rows are found again.
fn space(space: &Space) -> (&'static Table, Row) {
    let floor = space.floor.map(|floor| floor.to_string());
    let sex = some(if space.sex == 1 { "男" } else { "女" });
    let changed_at = some(dashed(space.changed_at));
    match space.kind {
        SpaceKind::Building => (
            &LDXXB,
            vec![
                some(&space.building),
                some(format!("学生公寓{}", space.building)),
                some("1"),
                sex,
                some(space.capacity.to_string()),
                changed_at,
            ],
        ),
        SpaceKind::Room => (
            &QSXXB,
            vec![some(&space.building), floor, some(&space.room), sex, some(space.capacity.to_string()), changed_at],
        ),
        SpaceKind::Bed => (
            &CWXXB,
            vec![
                some(format!("{}  ", space.building)),
                floor,
                some(&space.room),
                some(format!(" {}", space.bed)),
                sex,
                None,
                changed_at,
            ],
        ),
        SpaceKind::Public => (
            &GGKJB,
            vec![
                some(&space.building),
                floor,
                some(&space.room),
                some(space.function),
                some(space.capacity.to_string()),
                some("86.50"),
                some(space.kiosks.to_string()),
                changed_at,
            ],
        ),
    }
}

fn movement(campus: &Campus, row: &Move) -> Row {
    let bed = row.to.map(|bed| &campus.homes.beds[bed]);
    vec![
        some(format!("YD{:08}", row.id)),
        some(&row.student_no),
        some(row.kind),
        some(dashed(row.at)),
        bed.map(|bed| format!("{}{}", bed.building, if campus.plan.befalls(9, row.id) { " " } else { "" })),
        bed.map(|bed| bed.floor.to_string()),
        bed.map(|bed| bed.room.clone()),
        bed.map(|bed| bed.bed.clone()),
        some(row.audit),
        some("本人申请"),
        some(dashed(row.operated_at)),
    ]
}

fn card(campus: &Campus, card: &Card) -> Row {
    // Old rows know the day only, new ones the second.
    let opened = if card.opened_at.num_seconds_from_midnight() == 0 {
        compact_date(card.opened_at.date())
    } else {
        compact(card.opened_at)
    };
    let physical =
        if card.student % 5 == 2 { format!("{:08x}", card.physical) } else { format!("{:08X}", card.physical) };
    vec![
        some(&card.card_no),
        some(card.sequence.to_string()),
        card.previous.map(|previous| previous.to_string()),
        some(physical),
        some(&campus.students[card.student].student_no),
        some(card.kind),
        some(card.state),
        some(opened),
        some(compact_date(card.expires_on)),
        some(yuan(card.balance_fen)),
        some("E10ADC3949BA59ABBE56E057F20F883E"),
        some("62220000"),
        some(dashed(card.changed_at)),
    ]
}

fn txn(campus: &Campus, record: &Record<Txn>) -> Row {
    let txn = &record.value;
    let card = campus.cards.card(txn.card as usize);
    let terminal = &campus.spending.terminals[txn.terminal as usize];
    // Spending is negative here (L12); a correction gives back.
    let (code, signed) = match txn.kind {
        TxnKind::Purchase => ("15", -txn.amount_fen),
        TxnKind::Topup => ("30", txn.amount_fen),
        TxnKind::Subsidy => ("41", txn.amount_fen),
        TxnKind::Correction => ("90", txn.amount_fen),
    };
    let broken_time = record.defect() == Some(Defect::TxnTime);
    let merchant_kind = match terminal.kind {
        "canteen" => "CT",
        "shop" => "CS",
        "bath" => "YS",
        "laundry" => "XY",
        _ => "QT",
    };
    vec![
        some(txn.serial.to_string()),
        some(&terminal.number),
        some(&card.card_no),
        some(card.sequence.to_string()),
        (!terminal.untyped).then(|| code.to_string()),
        some(yuan(signed)),
        some(yuan(txn.balance_after_fen)),
        some(txn.use_count.to_string()),
        some(compact_date(txn.at.date())),
        some(if broken_time { "256199".to_string() } else { compact_time(txn.at) }),
        some(&terminal.merchant),
        some(merchant_kind),
        some(dashed(txn.booked_at)),
    ]
}
