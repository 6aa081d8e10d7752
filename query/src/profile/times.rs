//! When events were that a table received: moments enter, the few stretches of time that hold them leave.

use std::ops::Range;

use chrono::DateTime;
use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::utils::disjunction;
use datafusion::logical_expr::{Expr, cast, ident, lit};
use datafusion::scalar::ScalarValue;
use lake::Span;
use schemas::record::BIZ_DATE;

/// Stretches that are asked for one by one; beyond, they are made of longer units, or a list of moments is asked for.
const STRETCHES_MAX: usize = 32;

/// The longest list.
const LIST_MAX: usize = 20_000;

/// A tenth of a second, a second, a minute, an hour, in microseconds.
const UNITS_US: [i64; 4] = [MOMENT_US, 1_000_000, 60_000_000, 3_600_000_000];

/// What is taken for one moment.
pub const MOMENT_US: i64 = 100_000;

/// Moments of some days: those that lie in a stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// Microseconds UTC; disjoint, in order.
    stretches: Vec<Range<i64>>,
    /// Local days, counted from 1970, in order.
    days: Vec<i32>,
}

impl Times {
    /// What holds all of `moments`, each a local day and microseconds UTC; `None` when they are too many.
    pub fn of(moments: impl Iterator<Item = (i32, i64)>) -> Option<Self> {
        let (mut days, ats): (Vec<i32>, Vec<i64>) = moments.unzip();
        days.sort_unstable();
        days.dedup();
        let few = UNITS_US.into_iter().map(|unit| stretches(&ats, unit)).find(|few| few.len() <= STRETCHES_MAX);
        let stretches = few.or_else(|| {
            // A division in SQL rounds what is before the epoch otherwise.
            let is_list = ats.len() <= LIST_MAX && ats.iter().all(|at| *at >= 0);
            is_list.then(|| stretches(&ats, MOMENT_US))
        })?;
        Some(Self { stretches, days })
    }

    pub fn days(&self) -> &[i32] {
        &self.days
    }

    pub fn has(&self, day: i32, at: i64) -> bool {
        let next = self.stretches.partition_point(|stretch| stretch.end <= at);
        self.stretches.get(next).is_some_and(|stretch| stretch.start <= at) && self.days.binary_search(&day).is_ok()
    }

    /// Whether files that hold `spans` may have any of them; `None` where it is not known what they hold.
    pub fn may_be_in(&self, spans: Option<&[Span]>) -> bool {
        let may_be_in = |span: &Span| {
            let next = self.stretches.partition_point(|stretch| stretch.end <= *span.times.start());
            self.stretches.get(next).is_some_and(|stretch| stretch.start <= *span.times.end())
                && self.days.binary_search(&span.day).is_ok()
        };
        spans.is_none_or(|spans| spans.iter().any(may_be_in))
    }

    /// What holds for rows of these times; `column` says when a row's event was.
    pub fn filter(&self, column: &str) -> Expr {
        let at = |at: i64| lit(ScalarValue::TimestampMicrosecond(Some(at), Some("UTC".into())));
        let is_in =
            |stretch: &Range<i64>| ident(column).gt_eq(at(stretch.start)).and(ident(column).lt(at(stretch.end)));
        let days = self.days.iter().map(|day| lit(ScalarValue::Date32(Some(*day)))).collect();
        let is_in = match self.stretches.len() {
            ..=STRETCHES_MAX => disjunction(self.stretches.iter().map(is_in)).unwrap_or_else(|| lit(false)),
            _ => {
                let moments = |stretch: &Range<i64>| stretch.start / MOMENT_US..stretch.end / MOMENT_US;
                let moment = cast(ident(column), DataType::Int64) / lit(MOMENT_US);
                moment.in_list(self.stretches.iter().flat_map(moments).map(lit).collect(), false)
            }
        };
        ident(BIZ_DATE).in_list(days, false).and(is_in)
    }
}

/// The stretches of whole units that hold all of `ats`.
fn stretches(ats: &[i64], unit: i64) -> Vec<Range<i64>> {
    let mut units: Vec<i64> = ats.iter().map(|at| at.div_euclid(unit)).collect();
    units.sort_unstable();
    let mut stretches: Vec<Range<i64>> = Vec::new();
    for at in units {
        match stretches.last_mut() {
            Some(last) if at <= last.end => last.end = at + 1,
            _ => stretches.push(at..at + 1),
        }
    }
    stretches.into_iter().map(|units| units.start * unit..units.end * unit).collect()
}

/// A moment in SQL, microseconds UTC.
pub fn literal(at: i64) -> String {
    let at = DateTime::from_timestamp_micros(at).unwrap_or_default().format("%Y-%m-%dT%H:%M:%S%.6fZ");
    format!("arrow_cast('{at}', 'Timestamp(Microsecond, Some(\"UTC\"))')")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, AsArray as _, Date32Array, RecordBatch, TimestampMicrosecondArray};
    use datafusion::arrow::datatypes::{Date32Type, TimestampMicrosecondType};
    use datafusion::prelude::SessionContext;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn moments_that_follow_one_another_are_one_stretch() {
        let times =
            Times::of([(7, 5_000_000), (7, 3_999_999), (8, 4_000_000), (7, 90_000_000)].into_iter()).expect("few");
        assert_eq!(times.stretches, [3_900_000..4_100_000, 5_000_000..5_100_000, 90_000_000..90_100_000]);
        assert_eq!(times.days, [7, 8]);
        assert!(times.has(8, 5_099_999) && !times.has(9, 5_099_999) && !times.has(7, 5_100_000));
    }

    #[test]
    fn many_moments_are_held_by_longer_stretches_or_a_list_and_at_last_by_nothing() {
        let of = |count: i64, step_us: i64| {
            let times = Times::of((0..count).map(|at| (7, at * step_us)))?;
            Some((times.stretches.len(), times.stretches[0].end))
        };
        let whole = |step_us: i64| of(100, step_us);
        assert_eq!(whole(1_000_000), Some((1, 100_000_000)), "seconds that touch");
        assert_eq!(whole(2_000_000), Some((1, 240_000_000)), "minutes");
        assert_eq!(whole(1_000_000_000), Some((1, 28 * 3_600_000_000)), "hours");
        assert_eq!(whole(10_000_000_000), Some((100, MOMENT_US)), "a list");
        assert_eq!(whole(-10_000_000_000), None, "before the epoch");
        assert_eq!(of(20_001, 10_000_000_000), None, "too long a list");
    }

    #[test]
    fn a_file_is_looked_into_when_its_times_meet_a_stretch_of_its_day() {
        let times = Times::of([(7, 3_000_000), (7, 90_000_000)].into_iter()).expect("few");
        let may_be_in = |day, times_of| times.may_be_in(Some(&[Span { day, times: times_of }]));
        assert!(times.may_be_in(None) && !times.may_be_in(Some(&[])));
        assert!(may_be_in(7, 0..=3_000_000) && may_be_in(7, 3_099_999..=5_000_000) && may_be_in(7, 0..=i64::MAX));
        assert!(
            !may_be_in(8, 0..=i64::MAX)
                && !may_be_in(7, 4_000_000..=89_999_999)
                && !may_be_in(7, 91_000_000..=i64::MAX)
        );
    }

    /// What the filter leaves of `rows`, in the order of time.
    async fn filtered(times: &Times, rows: &[(i32, i64)]) -> Vec<(i32, i64)> {
        let (days, ats): (Vec<i32>, Vec<i64>) = rows.iter().copied().unzip();
        let ats = TimestampMicrosecondArray::from(ats).with_timezone("UTC");
        let columns: [(&str, ArrayRef); 2] = [(BIZ_DATE, Arc::new(Date32Array::from(days))), ("at", Arc::new(ats))];
        let rows = SessionContext::new().read_batch(RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let mut found = Vec::new();
        for batch in rows.filter(times.filter("at")).unwrap().collect().await.unwrap() {
            let days = batch.column(0).as_primitive::<Date32Type>().values();
            let ats = batch.column(1).as_primitive::<TimestampMicrosecondType>().values();
            found.extend(days.iter().copied().zip(ats.iter().copied()));
        }
        found.sort_unstable_by_key(|(_, at)| *at);
        found
    }

    #[tokio::test]
    async fn what_is_asked_for_is_what_is_held() {
        let rows: Vec<(i32, i64)> = (0..2000).map(|row| (row as i32 % 3, row * 3_660_030_000)).collect();
        for count in [3, 30, 40, 400] {
            let times = Times::of(rows.iter().copied().step_by(2000 / count)).expect("not too many");
            assert_eq!(times.stretches.len() > STRETCHES_MAX, count > 30, "{count}");
            let held: Vec<_> = rows.iter().copied().filter(|(day, at)| times.has(*day, *at)).collect();
            assert!(held.len() >= count);
            assert_eq!(filtered(&times, &rows).await, held, "{count}");
        }
    }

    proptest! {
        #[test]
        fn each_moment_is_held(moments in prop::collection::vec((-3..3_i32, -9_000_000_000_000..9_000_000_000_000_i64), 1..200)) {
            let Some(times) = Times::of(moments.iter().copied()) else { return Ok(()) };
            prop_assert!(moments.iter().all(|(day, at)| times.has(*day, *at)));
        }
    }
}
