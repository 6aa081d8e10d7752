//! The account of a day: what the sources wrote against what Quad holds. Pure: truth and observation enter, text leaves.

use std::collections::BTreeMap;

use campus::truth::{TableTruth, Truth};

use super::look::{Lake, Observed};

/// What does not agree, in words; empty when all does.
pub fn missing(truth: &Truth, lake: &Lake) -> Vec<String> {
    let nothing = Observed::default();
    let mut wrong = Vec::new();
    for (table, expected) in &truth.tables {
        let observed = lake.get(table).unwrap_or(&nothing);
        let mut differ = |what: &str, expected: u64, observed: u64| {
            if expected != observed {
                wrong.push(format!("{table}: {what} {observed} instead of {expected}"));
            }
        };
        differ("versions", expected.versions, observed.versions);
        differ("current rows", expected.current, observed.current);
        let letters = expected_letters(expected);
        for key in letters.keys().chain(observed.letters.keys()).collect::<std::collections::BTreeSet<_>>() {
            let (rule, field) = key;
            let count = |of: &BTreeMap<(String, String), u64>| of.get(key).copied().unwrap_or(0);
            differ(&format!("dead letters ({rule} {field})"), count(&letters), count(&observed.letters));
        }
    }
    wrong
}

fn expected_letters(table: &TableTruth) -> BTreeMap<(String, String), u64> {
    table.letters.iter().map(|letters| ((letters.rule.clone(), letters.field.clone()), letters.count)).collect()
}

/// Prints the account; whether it adds up.
pub fn print(truth: &Truth, lake: &Lake) -> bool {
    let nothing = Observed::default();
    println!(
        "\n{:<32}{:>10}{:>10}{:>12}{:>14}{:>12}",
        "table", "generated", "repeats", "in the lake", "dead letters", "difference"
    );
    let mut sums = [0i64; 5];
    for (table, expected) in &truth.tables {
        let observed = lake.get(table).unwrap_or(&nothing);
        let letters: u64 = observed.letters.values().sum();
        let [generated, repeats, versions, letters] =
            [expected.generated, expected.repeats, observed.versions, letters].map(|count| count as i64);
        let row = [generated, repeats, versions, letters, generated - repeats - versions - letters];
        line(table, &row);
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
    line("all", &sums);
    println!("generated = repeats (delivered again, unchanged) + versions of rows in the lake + dead letters");
    let wrong = missing(truth, lake);
    match wrong.as_slice() {
        [] => println!("The day adds up: every row and every dead letter is where it must be.\n"),
        wrong => println!("The day does not add up:\n  {}\n", wrong.join("\n  ")),
    }
    wrong.is_empty()
}

fn line(name: &str, row: &[i64; 5]) {
    println!("{name:<32}{:>10}{:>10}{:>12}{:>14}{:>12}", row[0], row[1], row[2], row[3], row[4]);
}
