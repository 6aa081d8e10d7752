//! Which items a caller wants. A field mask enters, a set of items leaves.

use prost_types::FieldMask;

use crate::error::{Error, ErrorKind};
use crate::profile::Item;

const PATHS_MAX: usize = 200;

/// A set of items by their place; everything without a mask.
#[derive(Debug)]
pub struct Mask(Option<Vec<bool>>);

impl Mask {
    /// # Errors
    /// A path that names neither a section, nor an item by id or name; too many paths.
    pub fn new(mask: Option<&FieldMask>, items: &[Item]) -> Result<Self, Error> {
        let Some(mask) = mask.filter(|mask| !mask.paths.is_empty()) else { return Ok(Self(None)) };
        if mask.paths.len() > PATHS_MAX {
            let message = format!("item_mask has {} paths, more than {PATHS_MAX}", mask.paths.len());
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        let mut wanted = vec![false; items.len()];
        for path in &mask.paths {
            let mut is_known = false;
            for (place, item) in items.iter().enumerate() {
                if names(path, item) {
                    wanted[place] = true;
                    is_known = true;
                }
            }
            if !is_known {
                let path: String = path.chars().take(40).collect();
                let error = Error::new(ErrorKind::InvalidArgument, format!("item_mask path `{path}` names no item"));
                return Err(error.with_hint("use a section (`a`), an id (`b09`) or a name (`gpa`)"));
            }
        }
        Ok(Self(Some(wanted)))
    }

    pub fn has(&self, place: usize) -> bool {
        self.0.as_ref().is_none_or(|wanted| wanted[place])
    }
}

fn names(path: &str, item: &Item) -> bool {
    let is = |text: &str| path.eq_ignore_ascii_case(text);
    let of_section = || {
        let (section, name) = path.split_once('.')?;
        Some(section.eq_ignore_ascii_case(&item.section) && name.eq_ignore_ascii_case(&item.name))
    };
    is(&item.section) || is(&item.id) || is(&item.name) || of_section().unwrap_or(false)
}
