//! How far a log is, or is to have been read: the next offset of some partitions.
//!
//! Offsets enter as they are appended or read; a token leaves, and what was seen is held against one. A caller treats the
//! token as opaque; it is text without spaces that fits a header, a URL or a SQL string.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// The longest token that is read: several thousand partitions.
const TOKEN_BYTES_MAX: usize = 256 << 10;

/// The next offset by topic and partition. What it does not name is at 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    topics: BTreeMap<String, BTreeMap<i32, i64>>,
}

impl Watermark {
    /// That of one topic.
    pub fn of(topic: &str, next: impl IntoIterator<Item = (i32, i64)>) -> Self {
        let mut watermark = Self::default();
        next.into_iter().for_each(|(partition, offset)| watermark.advance(topic, partition, offset));
        watermark
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Moves a partition up to `offset`; never back.
    pub fn advance(&mut self, topic: &str, partition: i32, offset: i64) {
        if offset <= 0 {
            return;
        }
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), BTreeMap::new());
        }
        let next = self.topics.get_mut(topic).expect("it was just made").entry(partition).or_default();
        *next = offset.max(*next);
    }

    /// Moves every partition up to where `other` is.
    pub fn extend(&mut self, other: &Self) {
        for (topic, partition, offset) in other.iter() {
            self.advance(topic, partition, offset);
        }
    }

    /// Whether everything before `other` lies before this one.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(topic, partition, offset)| self.next(topic, partition) >= offset)
    }

    /// The next offset of a partition.
    pub fn next(&self, topic: &str, partition: i32) -> i64 {
        self.topics.get(topic).and_then(|next| next.get(&partition)).copied().unwrap_or(0)
    }

    /// Topic, partition and next offset, ordered.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.topics
            .iter()
            .flat_map(|(topic, next)| next.iter().map(move |(&partition, &offset)| (topic.as_str(), partition, offset)))
    }
}

/// The token: `<topic>:<partition>.<offset>,…;<topic>:…`.
impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (topic, next)) in self.topics.iter().enumerate() {
            write!(f, "{}{topic}", if at == 0 { "" } else { ";" })?;
            for (at, (partition, offset)) in next.iter().enumerate() {
                write!(f, "{}{partition}.{offset}", if at == 0 { ":" } else { "," })?;
            }
        }
        Ok(())
    }
}

impl FromStr for Watermark {
    type Err = Error;

    /// # Errors
    /// `Settings` for anything that is no token of ours.
    fn from_str(token: &str) -> Result<Self, Error> {
        let wrong = || Error::new(ErrorKind::Settings, "not a watermark: pass on the token that Quad gave, unchanged");
        if token.len() > TOKEN_BYTES_MAX {
            return Err(wrong());
        }
        let mut watermark = Self::default();
        for part in token.split(';').filter(|part| !part.is_empty()) {
            let (topic, next) = part.split_once(':').ok_or_else(wrong)?;
            for position in next.split(',') {
                let (partition, offset) = position.split_once('.').ok_or_else(wrong)?;
                let (Ok(partition @ 0..), Ok(offset @ 1..)) = (partition.parse::<i32>(), offset.parse::<i64>()) else {
                    return Err(wrong());
                };
                watermark.advance(topic, partition, offset);
            }
        }
        Ok(watermark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let mut watermark = Watermark::of("quad.b", [(1, 7), (0, 12), (2, 0)]);
        watermark.extend(&Watermark::of("quad.a", [(0, 3)]));
        watermark.advance("quad.b", 1, 5);
        assert_eq!(watermark.to_string(), "quad.a:0.3;quad.b:0.12,1.7");
        assert_eq!(watermark.to_string().parse::<Watermark>().unwrap(), watermark);
        assert_eq!("".parse::<Watermark>().unwrap(), Watermark::default());
        for wrong in ["x", "t:1", "t:-1.2", "t:1.-2", "t:1.0", "t:1.2,", "t:1.99999999999999999999"] {
            assert_eq!(wrong.parse::<Watermark>().unwrap_err().kind, ErrorKind::Settings, "{wrong}");
        }
    }

    #[test]
    fn one_covers_another_when_no_partition_is_behind() {
        let seen = Watermark::of("t", [(0, 5), (1, 2)]);
        assert!(seen.covers(&Watermark::default()) && seen.covers(&seen) && seen.covers(&Watermark::of("t", [(1, 1)])));
        assert!(!seen.covers(&Watermark::of("t", [(1, 3)])) && !seen.covers(&Watermark::of("u", [(0, 1)])));
    }
}
