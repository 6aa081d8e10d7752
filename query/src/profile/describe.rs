//! The catalogue in words. Sections enter, text for people leaves. [`document`] is `docs/profile.md`.

use std::fmt::Write as _;

use super::definition::{Answer, Definition, Item, Section};

const HEAD: &str = "\
# The profile

This page is made from the definitions in [`query/profile`](../query/profile);
`UPDATE_EXPECT=1 cargo test -p quad -p query --lib the_profile_document` writes it anew. `DescribeProfile` of the profile service says
the same of a running Quad, with the SQL of each item. `quad tables --describe profile.student` tells the columns of SQL and their types.

Window: the time a value is about; `term` is the present one, `study` the present study (本→硕: the master's only). Fresh: how long
a source may be silent before the value is stale. Class: 0 public, 1 internal, 2 sensitive, 3 highly sensitive (PIPL article 28),
which is withheld from every purpose but safety, and from SQL. Without any row in the first of its tables an item is missing, and so is one that no
table can give.

What hard cases make of items (a late row, a reissued card, a correction, 转专业, 本→硕, a silent source, a withdrawal, a pass told twice, a
replay, holidays and clocks) is in [`tests/flows/profile`](../tests/flows/profile), a file each: records as they come, and what profiles,
lists and SQL say after. A case is added there without a line of code.
";

/// The reference of all items, in Markdown.
pub fn document(sections: &[Section]) -> String {
    let items: usize = sections.iter().map(|section| section.items.len()).sum();
    let mut text = format!("{HEAD}\n{items} items in {} sections.\n", sections.len());
    for Section { id, title, title_en, is_on, items } in sections {
        let off = if *is_on { "" } else { "Off, unless `query.profile_sections_on` names it.\n\n" };
        let _ = write!(text, "\n## {id} {title} {title_en}\n\n{off}");
        text.push_str(
            "| id | 名称 | name | window | fresh | class | tables | owner |\n|---|---|---|---|---|---|---|---|\n",
        );
        for item in items {
            let Item { id, title, name, window, class, owner, .. } = item;
            let (fresh, tables) = (fresh(item.fresh_s), tables(item));
            let _ = writeln!(text, "| {id} | {title} | {name} | {window} | {fresh} | {class} | {tables} | {owner} |");
        }
    }
    text
}

fn fresh(fresh_s: Option<u64>) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3600, "h"), (60, "min")];
    let Some(fresh_s) = fresh_s else { return "always".to_string() };
    let unit = UNITS.into_iter().find(|(seconds, _)| fresh_s > 0 && fresh_s.is_multiple_of(*seconds));
    unit.map_or(format!("{fresh_s} s"), |(seconds, unit)| format!("{} {unit}", fresh_s / seconds))
}

fn tables(item: &Item) -> String {
    match &item.definition {
        Definition::Question(_) => item.sources.join(", "),
        Definition::Answer(Answer::Version) => "the answer: its version".to_string(),
        Definition::Answer(Answer::Computed) => "the answer: its snapshot and time".to_string(),
        Definition::NoSource(reason) => format!("none: {reason}"),
    }
}
