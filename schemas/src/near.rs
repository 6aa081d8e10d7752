//! Names that are near a name: a mistaken table name enters, those that may have been meant leave.

use crate::contract::Contracts;

/// Names that are suggested at most.
const NEAR_MAX: usize = 3;

/// Letters that a suggestion may be farther from what was asked for than the nearest one.
const DISTANCE_BEYOND_MAX: usize = 2;

impl Contracts {
    /// The tables whose names are nearest to `name`, the nearest first. Without a domain it is near in any.
    pub fn near(&self, name: &str) -> Vec<String> {
        let (domain, table) = name.split_once('.').map_or((None, name), |(domain, table)| (Some(domain), table));
        let far = |of: &str| {
            let (its_domain, its_table) = of.split_once('.').unwrap_or_default();
            domain.map_or(0, |domain| distance(domain, its_domain)) + distance(table, its_table)
        };
        let names = self.all().map(|contract| contract.name());
        let mut names: Vec<(usize, String)> = names.map(|name| (far(&name), name)).collect();
        names.sort();
        let nearest = names.first().map_or(0, |(distance, _)| *distance);
        names.retain(|(distance, _)| *distance <= nearest + DISTANCE_BEYOND_MAX);
        names.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
    }
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in right.iter().enumerate() {
            let change = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}
