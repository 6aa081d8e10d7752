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

const MOMENT: &str = "\
\n## A past moment

GetProfile and BatchGetProfiles take `at`, and the command line `quad profile STUDENT --at 2026-10-01`: the profile as it was then. It is
what the definitions in use now give from what Quad had received by then (`ingested_at`), with the identity that follows from that, by
the clock of that moment: windows, days and silences are as of then. What came later does not show: a correction, a late row, a delete,
a merge or its undoing. The profile that was told at that moment has the same items and the same `profile_version`, unless a definition
was another one, or a record had been received and was still on its way to the tables.

- `computed_at`, `snapshot` and `watermark` of the answer, and so L06, say when and from what it was computed, not the moment. Only records
  up to that watermark are in it; with `min_watermark` it reaches further.
- Days past their retention are gone from the past as well, and a moment further back lacks them: passes, purchases and fitness tests of
  more than 180 days ago (`retentionDays` of a contract; other events of class 3 by `lake.upkeep.class3_retention_days`). So D05 to D10, E02
  to E07 and J01 are less there, or missing, than was told then.
- A student number means who held it as it was known then. A person id may be one that numbers were put under later, and then nobody had it.
- A dead letter that was replayed counts from its replay on.
- Purposes, roles and withheld items are as for the newest profile, and the audit names the moment.
- A moment is computed for everybody, as ranks and rooms need everybody, beside what is read: the first call for it takes as long as that
  takes, one moment after the other. The last two are kept for 10 minutes, each as large as the profiles in use; one that was computed
  less than 5 minutes after the moment itself counts only while there is no newer snapshot. Ask for many persons in a batch.
";

const LAKE: &str = "\
\n## In the lake

For engines that know nothing of Quad (Spark, DuckDB, Polars, pandas), the query service writes the newest profiles as two Delta tables:
`<lake.path>/profile/student` and `<lake.path>/profile/item`, with the columns and rows of `profile.student` and `profile.item` as an analyst
sees them over SQL. Items of class 3 are not in them: null in the one, `withheld` in the other. They are written with the first profiles
after a start, then at most every `query.profile_table_every_s` (900 s; 0 for never) when there are newer ones, and before a stop if that
is quick.

- Each table is replaced as a whole in one commit, its columns too where definitions have changed. Who reads an older version goes on for
  `lake.upkeep.file_retention_h` (24 h); then its files go. So the lake holds as many writings as fit into that time. The service that
  writes them cleans up after itself; `quad lake` knows tables with contracts only.
- The properties of a table say what its rows are of: `quad.computed_at`, `quad.snapshot`, and `quad.watermark`, the token that SQL and the
  profile service take. Spark tells them with `DESCRIBE DETAIL`, deltalake and so Polars with `DeltaTable(path).metadata().configuration`.
  Where only rows are told, as by `delta_scan` of DuckDB, `computed_at` is in each row of the one table, and time and snapshot are the
  value of L06 in the other.
- Both are written from the same profiles, in two commits one right after the other: who joins them holds these against each other.
- They are copies. Quad never reads them, and what comes later is not in them until they are written next. Whoever can read the files of
  the lake can read them: no role is asked and nothing is audited, as with all of its tables.
- Of two query services on one lake the last to write wins, and no row is of both; let one of them write. A service that cannot write says
  so once, counts it (`quad_profile_table_errors_total`), tries again the next time, and answers as ever.

## Over a restart

Computing the first profiles takes as long as reading what they are of: over a minute with 100 000 students. Until then the profile
service answers with those of before the restart, from `<lake.path>/_profile/checkpoint.parquet`, if they are of the same definitions and not
older than an hour. They are the profiles as they were, and say so: `computed_at` and the watermark of each answer are theirs, and
a call with `min_watermark` waits for what it asks. What reads tables beside profiles has to wait for new ones: `profile.student` and
`profile.item` over SQL, GetTimeline, ExplainItem, `quad profile verify`. Who watches is told everything anew.

The file is written with the first profiles, then at most every `query.profile_checkpoint_every_s` (300 s; 0 for never) when there are newer
ones, and before a stop, unless writing takes more than 8 s: so a stop loses nothing, and a crash as much as that. It has what the lake's
tables have, class 3 included, is for Quad alone, and may be removed at any time; who sets the key to 0 removes it. Of several query services
with definitions or sections of their own let one write.
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
    text + MOMENT + LAKE
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
