//! What cards pay for, day after day: meals, baths, laundry, top-ups, and the terminals that post them.

use chrono::{Datelike, NaiveDate, NaiveDateTime, TimeDelta, Weekday};

use crate::cards::Cards;
use crate::cast::Role;
use crate::clock::{at, days_before, second_of};
use crate::people::Student;
use crate::plan::Plan;
use crate::random::Random;
use crate::record::{Defect, Fate, Record};

/// One line of the transaction log.
#[derive(Clone, Debug)]
pub struct Txn {
    /// Index into the cards.
    pub card: u32,
    /// Index into `terminals`.
    pub terminal: u16,
    /// Running number of the terminal, from 1 every day.
    pub serial: u32,
    pub kind: TxnKind,
    /// Spent or paid in, always positive; a correction takes back a purchase.
    pub amount_fen: i64,
    pub balance_after_fen: i64,
    pub use_count: u32,
    pub at: NaiveDateTime,
    pub booked_at: NaiveDateTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TxnKind {
    Purchase,
    Topup,
    Subsidy,
    Correction,
}

/// A terminal of a merchant.
#[derive(Clone, Debug)]
pub struct Terminal {
    /// Leading zeros matter (L9).
    pub number: String,
    pub merchant: String,
    /// The contract's word: canteen, shop, bath, laundry.
    pub kind: &'static str,
    /// Stores and posts at noon, evening and before midnight.
    pub offline: bool,
    /// Does not write the kind of the transaction: the sign must tell.
    pub untyped: bool,
}

/// All lines of the log, in the order of their posting, and what is left on each account.
pub struct Spending {
    pub terminals: Vec<Terminal>,
    pub records: Vec<Record<Txn>>,
    /// Balance of each student's account when the day begins.
    pub balance_before_day: Vec<i64>,
}

/// The merchants of the campus; canteens grow with it.
pub fn terminals(plan: &Plan) -> Vec<Terminal> {
    let canteens = (plan.students / 250).max(4);
    let mut terminals = Vec::new();
    let mut add = |kind: &'static str, count: usize| {
        for index in 0..count {
            let number = format!("{:06}", terminals.len() * 7 + 11);
            let merchant = format!("{}{:03}", kind[..1].to_uppercase(), index / 4 + 1);
            // What the office books is booked at once, and says what it is.
            let befalls = |defect| kind != "other" && plan.befalls(defect, terminals.len() as u64);
            let (offline, untyped) = (befalls(1), befalls(12));
            terminals.push(Terminal { number, merchant, kind, offline, untyped });
        }
    };
    add("canteen", canteens);
    add("shop", (canteens / 3).max(2));
    add("bath", (canteens / 3).max(2));
    add("laundry", (canteens / 6).max(1));
    add("other", 1);
    terminals
}

struct Purse {
    balance_fen: i64,
    use_count: u32,
}

/// Plays the history and the day.
pub fn spending(plan: &Plan, students: &[Student], cards: &Cards) -> Spending {
    let terminals = terminals(plan);
    let mut purses: Vec<Purse> = (0..students.len())
        .map(|index| {
            let mut random = Random::new(plan.seed, "purse", index as u64);
            Purse { balance_fen: random.between(3_000, 30_000), use_count: random.between(50, 900) as u32 }
        })
        .collect();
    let mut records = Vec::new();
    let mut balance_before_day = Vec::new();
    for back in (0..=plan.history_days).rev() {
        let day = days_before(plan.day, u64::from(back));
        if back == 0 {
            balance_before_day = purses.iter().map(|purse| purse.balance_fen).collect();
        }
        let mut today = wishes(plan, day, students, cards, &terminals);
        today.sort_by_key(|wish| (wish.at, wish.student));
        let mut serials = vec![0; terminals.len()];
        for wish in today {
            records.push(book(wish, &mut purses, &mut serials, cards, &terminals));
        }
    }
    let mut spending = Spending { terminals, records, balance_before_day };
    spending.repeat(plan);
    spending.broken(plan);
    spending.records.sort_by_key(|record| record.at);
    spending
}

/// A transaction before the purse, the card and the terminal's counter have their say.
struct Wish {
    student: usize,
    at: NaiveDateTime,
    terminal: usize,
    kind: TxnKind,
    amount_fen: i64,
}

fn wishes(plan: &Plan, day: NaiveDate, students: &[Student], cards: &Cards, terminals: &[Terminal]) -> Vec<Wish> {
    let of_kind =
        |kind: &str| -> Vec<usize> { (0..terminals.len()).filter(|index| terminals[*index].kind == kind).collect() };
    let (canteens, shops, baths, laundries) =
        (of_kind("canteen"), of_kind("shop"), of_kind("bath"), of_kind("laundry"));
    let office = terminals.len() - 1;
    let weekend = matches!(day.weekday(), Weekday::Sat | Weekday::Sun);
    let mut wishes = Vec::new();
    for (index, student) in students.iter().enumerate() {
        if matches!(Role::at(index), Some(Role::Silent | Role::OnLeave))
            || cards.carried(index, day.and_time(chrono::NaiveTime::MIN)).is_none()
        {
            continue;
        }
        let mut random = Random::new(
            plan.seed,
            "meals",
            index as u64 * 100_000 + u64::from(day.num_days_from_ce() as u32 % 100_000),
        );
        let mut wish =
            |random: &mut Random, chance: u64, hour: i64, spread_min: i64, places: &[usize], low: i64, high: i64| {
                if random.chance(chance) {
                    let at = second_of(day, hour * 3600 + random.between(0, spread_min * 60));
                    let (terminal, amount_fen) = (*random.pick(places), random.between(low, high) * 10);
                    wishes.push(Wish { student: index, at, terminal, kind: TxnKind::Purchase, amount_fen });
                }
            };
        wish(&mut random, if weekend { 250 } else { 500 }, 7, 110, &canteens, 30, 90);
        wish(&mut random, 820, 11, 100, &canteens, 80, 200);
        wish(&mut random, 700, 17, 110, &canteens, 80, 180);
        wish(&mut random, 250, 15, 300, &shops, 30, 400);
        wish(&mut random, 180, 20, 110, &baths, 20, 50);
        wish(&mut random, 60, 10, 720, &laundries, 30, 40);
        let topup = random.chance(120);
        let subsidy = student.hardship == "1" && day.day() == 10;
        let mut at_office = |kind, minute: i64, amount_fen| {
            wishes.push(Wish {
                student: index,
                at: second_of(day, minute * 60 + index as i64 % 60),
                terminal: office,
                kind,
                amount_fen,
            });
        };
        if topup {
            at_office(TxnKind::Topup, 9 * 60 + 30 + index as i64 % 180, 10_000);
        }
        if subsidy {
            at_office(TxnKind::Subsidy, 8 * 60 + 5, 20_000);
        }
        if random.chance(4) {
            at_office(TxnKind::Correction, 19 * 60 + 20, 800);
        }
    }
    wishes
}

fn book(wish: Wish, purses: &mut [Purse], serials: &mut [u32], cards: &Cards, terminals: &[Terminal]) -> Record<Txn> {
    let terminal = &terminals[wish.terminal];
    serials[wish.terminal] += 1;
    let purse = &mut purses[wish.student];
    purse.use_count += 1;
    purse.balance_fen += if wish.kind == TxnKind::Purchase { -wish.amount_fen } else { wish.amount_fen };
    let booked_at = if terminal.offline {
        next_posting(wish.at)
    } else {
        wish.at + TimeDelta::seconds(2 + i64::from(serials[wish.terminal] % 17))
    };
    let card = cards.carried(wish.student, wish.at).expect("who has no card wishes nothing");
    let txn = Txn {
        card: card as u32,
        terminal: wish.terminal as u16,
        serial: serials[wish.terminal],
        kind: wish.kind,
        amount_fen: wish.amount_fen,
        balance_after_fen: purse.balance_fen,
        use_count: purse.use_count,
        at: wish.at,
        booked_at,
    };
    Record::insert(booked_at, txn)
}

/// Offline terminals post everything they hold at 12:00, 18:00 and 23:50: many rows with one time (L1).
fn next_posting(time: NaiveDateTime) -> NaiveDateTime {
    let day = time.date();
    [at(day, 12, 0, 0), at(day, 18, 0, 0), at(day, 23, 50, 0)]
        .into_iter()
        .find(|posting| *posting >= time)
        .unwrap_or(time)
}

impl Spending {
    /// The log has no key: some rows are in it twice (L1).
    fn repeat(&mut self, plan: &Plan) {
        let mut random = Random::new(plan.seed, "txn repeat", 0);
        let twice: Vec<Record<Txn>> = self
            .records
            .iter()
            .filter(|_| random.chance(plan.defects.repeats_per_mille))
            .map(|record| Record { fate: Fate::Repeat, ..record.clone() })
            .collect();
        self.records.extend(twice);
    }

    /// Broken rows stand on a terminal of their own, so that no counter has a gap.
    fn broken(&mut self, plan: &Plan) {
        let terminal = self.terminals.len();
        let kind = "other";
        let number = "000000".to_string();
        let broken = Terminal { number, merchant: "X001".to_string(), kind, offline: false, untyped: false };
        self.terminals.push(broken);
        for index in 0..plan.dead_of_each_kind() {
            let mut random = Random::new(plan.seed, "txn dead", index as u64);
            for (place, defect) in [Defect::TxnTime, Defect::TxnAmount].into_iter().enumerate() {
                let mut txn = self.records[random.index(self.records.len())].value.clone();
                txn.terminal = terminal as u16;
                txn.serial = (index * 2 + place + 1) as u32;
                txn.at = at(plan.day, 13, 0, 0) - TimeDelta::minutes(random.between(0, 2000));
                txn.booked_at = txn.at + TimeDelta::seconds(30);
                txn.kind = TxnKind::Purchase;
                if defect == Defect::TxnAmount {
                    txn.amount_fen = 2_500_000;
                }
                self.records.push(Record::dead(txn.booked_at, defect, txn));
            }
        }
    }
}
