//! Removes what is too old or too much: whole blocks, from the front of their partitions.
//!
//! Enters: the time. Leaves: partitions whose `low` has moved, published before anything is removed. What never
//! happens: a pass that holds up appends for long, or a removal that forgets where the next record's offset is.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
};

use crate::{
    embedded::{
        block::BlockKey,
        store::{Mark, Store, Topic},
    },
    error::Result,
    settings::EmbeddedSettings,
};

/// Bounds one pass, since appends wait for it.
const BLOCKS_PER_PASS_MAX: usize = 1024;

pub(crate) struct Retention {
    store: Arc<Store>,
    age_ms_max: Option<u64>,
    bytes_max: Option<u64>,
    /// The oldest block of each partition that has any, so that a pass which has nothing to do reads nothing.
    oldest: HashMap<(u32, u32), BlockKey>,
}

impl Retention {
    pub fn new(store: Arc<Store>, settings: &EmbeddedSettings) -> Self {
        Self {
            store,
            age_ms_max: (settings.retention_h > 0).then(|| settings.retention_h.saturating_mul(3_600_000)),
            bytes_max: (settings.retention_bytes > 0).then_some(settings.retention_bytes),
            oldest: HashMap::new(),
        }
    }

    /// One pass at `now_ms`; true when there is more to remove.
    pub fn run(&mut self, now_ms: u64) -> Result<bool> {
        if self.age_ms_max.is_none() && self.bytes_max.is_none() {
            return Ok(false);
        }
        let topics = self.store.topics();
        self.refresh(&topics)?;
        let mut excess = self.excess(&topics)?;
        let mut left = BLOCKS_PER_PASS_MAX;
        let mut keeping = HashSet::new();
        while left > 0 {
            // The log's oldest block goes first, whichever topic it belongs to.
            let may_go = |key: &&BlockKey| !keeping.contains(&(key.topic, key.partition));
            let mut by_age: Vec<&BlockKey> = self.oldest.values().filter(may_go).collect();
            by_age.sort_by_key(|key| key.appended_ms);
            let Some(&&first) = by_age.first() else { return Ok(false) };
            let next_ms = by_age.get(1).map_or(u64::MAX, |key| key.appended_ms);
            match self.remove(&topics, first, now_ms, next_ms, &mut excess, left)? {
                0 => {
                    keeping.insert((first.topic, first.partition));
                }
                removed => left -= removed,
            }
        }
        Ok(true)
    }

    /// Finds the oldest block of partitions that have got one since the last pass.
    fn refresh(&mut self, topics: &[Arc<Topic>]) -> Result<()> {
        for topic in topics {
            for (number, partition) in (0..).zip(&topic.partitions) {
                let place = (topic.number, number);
                let low = partition.low();
                if self.oldest.contains_key(&place) || partition.high() <= low {
                    continue;
                }
                if let Some(key) = self.store.keys_from(topic.number, number, low as u64).next() {
                    self.oldest.insert(place, key?);
                }
            }
        }
        Ok(())
    }

    /// Bytes above the limit.
    fn excess(&self, topics: &[Arc<Topic>]) -> Result<u64> {
        let Some(bytes_max) = self.bytes_max else { return Ok(0) };
        let mut bytes = 0;
        for topic in topics {
            for number in 0..topic.partitions.len() as u32 {
                if let Some(oldest) = self.oldest.get(&(topic.number, number)) {
                    bytes += self.store.tail(topic.number, number)?.bytes - oldest.bytes_before;
                }
            }
        }
        Ok(bytes.saturating_sub(bytes_max))
    }

    /// Removes blocks of one partition while they are too old, or too much and not younger than `next_ms`.
    fn remove(
        &mut self,
        topics: &[Arc<Topic>],
        first: BlockKey,
        now_ms: u64,
        next_ms: u64,
        excess: &mut u64,
        count_max: usize,
    ) -> Result<usize> {
        let mut gone: Vec<BlockKey> = Vec::new();
        let mut kept = None;
        let mut keys = self.store.keys_from(first.topic, first.partition, first.offset).peekable();
        while let Some(key) = keys.next() {
            let key = key?;
            let is_old = self.age_ms_max.is_some_and(|age_ms| key.appended_ms.saturating_add(age_ms) < now_ms);
            // The last block stays whatever its size: a limit below one block must not empty the log.
            let following = match keys.peek() {
                Some(Ok(following)) => Some(*following),
                _ => None,
            };
            let is_much = *excess > 0 && following.is_some() && (gone.is_empty() || key.appended_ms <= next_ms);
            if gone.len() >= count_max || !(is_old || is_much) {
                kept = Some(key);
                break;
            }
            if let Some(following) = following {
                *excess = excess.saturating_sub(following.bytes_before - key.bytes_before);
            }
            gone.push(key);
        }
        drop(keys);
        let Some(last) = gone.last() else { return Ok(0) };
        let mark = match kept {
            Some(key) => Mark { low: key.offset, bytes_before: key.bytes_before, appended_ms: key.appended_ms },
            None => {
                let tail = self.store.tail(first.topic, first.partition)?;
                Mark { low: tail.offset, bytes_before: tail.bytes, appended_ms: tail.appended_ms }
            }
        };
        debug_assert_eq!(mark.low, last.end(), "offsets are contiguous");
        let place = (first.topic, first.partition);
        let topic = topics.iter().find(|topic| topic.number == first.topic).expect("the block's topic was listed");
        topic.partitions[first.partition as usize].low.store(mark.low as i64, Ordering::Release);
        self.store.remove(place.0, place.1, &gone, mark)?;
        match kept {
            Some(key) => self.oldest.insert(place, key),
            None => self.oldest.remove(&place),
        };
        tracing::debug!(
            topic = topic.name,
            partition = first.partition,
            blocks = gone.len(),
            low = mark.low,
            "retention"
        );
        Ok(gone.len())
    }
}
