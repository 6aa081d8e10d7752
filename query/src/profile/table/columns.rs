//! The columns of the profile's tables. Items enter; columns leave, in words for people and as a schema for SQL.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemas::record::timestamp_type;

use crate::profile::definition::{Definition, Item};

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// `profile.student`: a row a person.
    Students,
    /// `profile.item`: a row a person and item.
    Items,
}

/// A column in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub title: String,
    pub is_nullable: bool,
    /// Sensitivity, 0 to 3.
    pub class: u8,
    pub meaning: String,
}

/// Name, title, whether it may be null, class, meaning.
type Fixed = (&'static str, &'static str, bool, u8, &'static str);

/// What stands before the items in `profile.student`; no item may have one of these names.
pub const HEAD: [Fixed; 4] = [
    ("person_id", "平台人员编号", false, 1, "Number of the person, as in every table."),
    ("student_no", "学号", true, 1, "The present student number."),
    ("version", "画像版本", false, 1, "Changes if and only if any item of the person changes."),
    ("computed_at", "计算时点", false, 1, "When the items were computed."),
];

/// The columns of `profile.item`.
pub const ITEM: [Fixed; 9] = [
    ("person_id", "平台人员编号", false, 1, "Number of the person, as in every table."),
    ("item_id", "数据项编号", false, 0, "The item's id in the catalogue, for example A02."),
    ("name", "名称", false, 0, "Its name, for example gpa."),
    ("section", "分区", false, 0, "The section's letter."),
    ("value", "值", true, 3, "The value as JSON; null when the state is missing or withheld. Of the item's class."),
    ("as_of", "数据时间", true, 3, "The newest moment the value rests on. Of the item's class."),
    ("state", "状态", false, 1, "ok, stale, missing, conflict or withheld."),
    ("sources", "来源表", false, 0, "The tables it is computed from."),
    ("class", "敏感级别", false, 0, "Sensitivity of the item, 0 public to 3 highly sensitive."),
];

impl Of {
    pub const ALL: [Self; 2] = [Self::Students, Self::Items];

    /// The table's name in its schema.
    pub fn table(self) -> &'static str {
        match self {
            Self::Students => "student",
            Self::Items => "item",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Students => "学生画像",
            Self::Items => "学生画像(数据项)",
        }
    }

    /// What a row is.
    pub fn description(self) -> &'static str {
        match self {
            Self::Students => {
                "One row a student with a profile, one column an item; what is missing or withheld is null."
            }
            Self::Items => "One row a student and item: the value with its time, state and sources.",
        }
    }

    pub fn key(self) -> &'static [&'static str] {
        match self {
            Self::Students => &["person_id"],
            Self::Items => &["person_id", "item_id"],
        }
    }

    /// The columns, in order.
    pub fn columns(self, items: &[Item]) -> Vec<Column> {
        let fixed = |(name, title, is_nullable, class, meaning): &Fixed| Column {
            name: name.to_string(),
            title: title.to_string(),
            is_nullable: *is_nullable,
            class: *class,
            meaning: meaning.to_string(),
        };
        match self {
            Self::Students => HEAD.iter().map(fixed).chain(places(items).map(|place| column(&items[place]))).collect(),
            Self::Items => ITEM.iter().map(fixed).collect(),
        }
    }

    /// The columns as SQL sees them; `types` are those of the items' values.
    pub fn schema(self, items: &[Item], types: &[DataType]) -> SchemaRef {
        let texts = || DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let fixed = |(name, _, is_nullable, ..): &Fixed| {
            let data_type = match *name {
                "computed_at" | "as_of" => timestamp_type(),
                "sources" => texts(),
                "class" => DataType::Int32,
                _ => DataType::Utf8,
            };
            Field::new(*name, data_type, *is_nullable)
        };
        let item = |place: usize| Field::new(&items[place].name, types[place].clone(), true);
        let fields: Vec<Field> = match self {
            Self::Students => HEAD.iter().map(fixed).chain(places(items).map(item)).collect(),
            Self::Items => ITEM.iter().map(fixed).collect(),
        };
        Arc::new(Schema::new(fields))
    }
}

/// The items that are columns, by their places: what the answer says of itself stands in the head.
pub fn places(items: &[Item]) -> impl Iterator<Item = usize> {
    items.iter().enumerate().filter(|(_, item)| is_column(item)).map(|(place, _)| place)
}

fn is_column(item: &Item) -> bool {
    !matches!(item.definition, Definition::Answer(_))
}

/// Whether the item's column would have the name of one in the head.
pub fn is_reserved(item: &Item) -> bool {
    is_column(item) && HEAD.iter().any(|(name, ..)| *name == item.name)
}

fn column(item: &Item) -> Column {
    let from = match &item.definition {
        Definition::NoSource(reason) => format!("never known: {reason}"),
        _ => format!("from {}", item.sources.join(", ")),
    };
    Column {
        name: item.name.clone(),
        title: item.title.clone(),
        is_nullable: true,
        class: item.class,
        meaning: format!("{}, window {}, {from}.", item.id, item.window),
    }
}
