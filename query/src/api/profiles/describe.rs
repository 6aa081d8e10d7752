//! The catalogue as a message. Sections enter; what their items are leaves, and nothing of any person.

use proto::profile::v1::{DescribeProfileResponse, ItemDescription, Section as WireSection};

use crate::profile::definition::Definition;
use crate::profile::{Item, Section};

/// All sections, those that are off too.
pub fn catalogue(sections: &[Section]) -> DescribeProfileResponse {
    DescribeProfileResponse { sections: sections.iter().map(section).collect() }
}

fn section(section: &Section) -> WireSection {
    WireSection {
        id: section.id.clone(),
        title: section.title.clone(),
        title_en: section.title_en.clone(),
        is_on: section.is_on,
        items: section.items.iter().map(item).collect(),
    }
}

/// One item.
pub fn item(item: &Item) -> ItemDescription {
    let (definition, no_source) = match &item.definition {
        Definition::Question(sql) => (sql.trim().to_string(), String::new()),
        Definition::Answer(_) => Default::default(),
        Definition::NoSource(reason) => (String::new(), reason.clone()),
    };
    ItemDescription {
        id: item.id.clone(),
        name: item.name.clone(),
        title: item.title.clone(),
        definition,
        window: item.window.clone(),
        freshness_s: item.fresh_s.and_then(|fresh_s| i64::try_from(fresh_s).ok()).unwrap_or_default(),
        sensitivity_class: i32::from(item.class),
        owner: item.owner.clone(),
        sources: item.sources.clone(),
        no_source,
    }
}
