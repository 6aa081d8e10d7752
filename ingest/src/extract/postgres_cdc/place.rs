//! How far a table has come, as the cursor says it, and the name that its slot and publication share.

use super::pgoutput::Lsn;
use crate::error::Error;

/// The longest name that PostgreSQL keeps whole.
const NAME_BYTES_MAX: usize = 63;

/// What comes next of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// All its rows.
    Snapshot,
    Stream,
}

/// How far a table has come: the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub phase: Phase,
    /// What was committed before it was taken; 0/0 before the first snapshot.
    pub lsn: Lsn,
    /// The time that the rows of a snapshot bear, and before which no change is, in microseconds since 1970.
    pub time_us: i64,
    /// A table that was dropped and made again has another.
    pub oid: u32,
}

impl Place {
    pub(super) fn first(oid: u32, time_us: i64) -> Self {
        Self { phase: Phase::Snapshot, lsn: Lsn::default(), time_us, oid }
    }

    pub(super) fn cursor(&self) -> Vec<String> {
        let phase = if self.phase == Phase::Snapshot { "snapshot" } else { "stream" };
        vec![phase.to_string(), self.lsn.to_string(), self.time_us.to_string(), self.oid.to_string()]
    }

    /// None of the cursor of another kind of source, which this one may have been.
    pub(super) fn of(cursor: &[String]) -> Option<Self> {
        let [phase, lsn, time_us, oid] = cursor else { return None };
        let phase = match phase.as_str() {
            "snapshot" => Phase::Snapshot,
            "stream" => Phase::Stream,
            _ => return None,
        };
        Some(Self { phase, lsn: lsn.parse().ok()?, time_us: time_us.parse().ok()?, oid: oid.parse().ok()? })
    }
}

/// The name of slot and publication.
///
/// # Errors
/// `Settings` when it is longer than PostgreSQL keeps.
pub(super) fn name(source: &str, table: &str) -> Result<String, Error> {
    let plain = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9') => letter,
        _ => '_',
    };
    let name: String = format!("quad_{source}_{table}").chars().map(plain).collect();
    match name.len() <= NAME_BYTES_MAX {
        true => Ok(name),
        false => Err(Error::settings(format!(
            "`{name}`, the name of its slot, is longer than PostgreSQL's {NAME_BYTES_MAX} letters: shorten the source's name or the \
             table's"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_of_no_other_kind() {
        for place in [
            Place::first(16_384, 0),
            Place { phase: Phase::Stream, lsn: Lsn(0x16_B374_D848), time_us: 1_795_808_755_179_614, oid: u32::MAX },
        ] {
            assert_eq!(Place::of(&place.cursor()), Some(place));
        }
        for other in
            [&[][..], &["2026-11-01 08:00:00", "L1"], &["stream", "0/1", "soon", "1"], &["pull", "0/1", "2", "3"]]
        {
            assert_eq!(Place::of(&other.iter().map(|text| text.to_string()).collect::<Vec<_>>()), None, "{other:?}");
        }
    }

    #[test]
    fn a_name_has_letters_of_a_slot_only_and_is_never_cut_off() {
        assert_eq!(name("OA-2", "请假_qj").expect("short"), "quad_oa_2____qj");
        assert!(name("s", &"t".repeat(56)).is_ok());
        assert!(name("s", &"t".repeat(57)).is_err());
    }
}
