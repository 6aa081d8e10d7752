//! Reads an embedded log from given positions.
//!
//! Enters: positions. Leaves: records, straight out of the blocks they are stored in. Each poll begins with the
//! partition after the one the last poll ended with, so no partition waits for ever. What never happens: a gap that is
//! read over, or a wait that an append does not end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    embedded::{
        block::{Block, BlockKey},
        store::{Store, Topic, read_error},
    },
    error::{Error, ErrorKind, Result},
    log::{Consumer, Position, Record},
};

pub(crate) struct EmbeddedConsumer {
    store: Arc<Store>,
    cursors: Vec<Cursor>,
    /// The cursor that the next poll begins with.
    turn: usize,
    /// An error met after records had been delivered; the next poll returns it.
    failed: Option<Error>,
}

/// Where a consumer is in one partition.
struct Cursor {
    topic: Arc<Topic>,
    partition: u32,
    offset: i64,
    block: Option<Block>,
    spare: Vec<u8>,
    /// An error was reported: nothing more is delivered.
    is_stopped: bool,
}

impl EmbeddedConsumer {
    pub fn new(store: Arc<Store>, positions: Vec<Position>) -> Result<Self> {
        let cursor = |position: Position| {
            let topic = store.topic(&position.topic)?;
            if usize::try_from(position.partition).map_or(true, |partition| partition >= topic.partitions.len()) {
                let message = format!("topic {} has no partition {}", topic.name, position.partition);
                return Err(Error::new(ErrorKind::UnknownTopic, message));
            }
            let partition = position.partition as u32;
            Ok(Cursor { topic, partition, offset: position.offset, block: None, spare: Vec::new(), is_stopped: false })
        };
        let cursors = positions.into_iter().map(cursor).collect::<Result<_>>()?;
        Ok(Self { store, cursors, turn: 0, failed: None })
    }
}

impl Cursor {
    /// Whether a read delivers a record or an error.
    fn is_ready(&self) -> bool {
        let partition = &self.topic.partitions[self.partition as usize];
        !self.is_stopped && (self.block.is_some() || self.offset != partition.high() || self.offset < partition.low())
    }

    /// Delivers records until `count` is `records_max` or the partition has no more.
    fn read(
        &mut self,
        store: &Store,
        records_max: usize,
        count: &mut usize,
        each: &mut dyn FnMut(Record<'_>),
    ) -> Result<()> {
        if self.is_stopped {
            return Ok(());
        }
        let mut following = None;
        loop {
            if let Some(block) = &mut self.block {
                while !block.is_done() {
                    if *count >= records_max {
                        return Ok(());
                    }
                    block.next(&self.topic.name, &mut *each)?;
                    self.offset += 1;
                    *count += 1;
                }
                self.spare = self.block.take().map(Block::into_spare).unwrap_or_default();
            }
            if *count >= records_max || !self.open_block(store, &mut following)? {
                return Ok(());
            }
        }
    }

    /// Opens the block that holds `offset`; false when the partition ends before it. `following` iterates the blocks
    /// after the present one, so that a long read looks its place up once.
    fn open_block(&mut self, store: &Store, following: &mut Option<fjall::Iter>) -> Result<bool> {
        let partition = &self.topic.partitions[self.partition as usize];
        // `high` first: nothing beyond it may be delivered, even if it is stored already, since the next look at
        // `high` must not come out below `offset`.
        let (high, low) = (partition.high(), partition.low());
        if self.offset == high {
            return Ok(false);
        }
        if !(low..=high).contains(&self.offset) {
            return Err(self.out_of_range());
        }
        let (number, offset) = (self.topic.number, self.offset as u64);
        let blocks = following.get_or_insert_with(|| store.blocks_from(number, self.partition, offset));
        let mut found = blocks.next().map(|entry| entry.into_inner().map_err(read_error)).transpose()?;
        let begins_at = |key: &[u8]| BlockKey::decode(key).map(|key| key.offset);
        if found.as_ref().map(|(key, _)| begins_at(key)).transpose()? != Some(offset) {
            // Only the first block of a read may begin before the offset.
            found = store.block_with(number, self.partition, offset)?;
            *following = None;
        }
        let Some((key, value)) = found else { return Err(self.missing()) };
        let mut block = Block::open(&key, value, std::mem::take(&mut self.spare))?;
        if !(block.key().offset..block.key().end()).contains(&offset) {
            return Err(self.missing());
        }
        block.skip_to(offset)?;
        self.block = Some(block);
        Ok(true)
    }

    fn out_of_range(&self) -> Error {
        let partition = &self.topic.partitions[self.partition as usize];
        let (low, high) = (partition.low(), partition.high());
        Error::out_of_range(&self.topic.name, self.partition as i32, self.offset, low, high)
    }

    /// The block was not found: retention may have taken it meanwhile, and otherwise the log has a hole.
    fn missing(&self) -> Error {
        if self.offset < self.topic.partitions[self.partition as usize].low() {
            return self.out_of_range();
        }
        let message =
            format!("offset {} of {}/{} is missing from the log", self.offset, self.topic.name, self.partition);
        Error::new(ErrorKind::Corrupt, message)
    }
}

impl Consumer for EmbeddedConsumer {
    fn poll(&mut self, records_max: usize, timeout: Duration, each: &mut dyn FnMut(Record<'_>)) -> Result<usize> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let deadline = Instant::now() + timeout;
        let cursors = &self.cursors;
        if !self.store.wait_until(deadline, || cursors.iter().any(Cursor::is_ready)) {
            return Ok(0);
        }
        let mut count = 0;
        for _ in 0..self.cursors.len() {
            let turn = self.turn;
            self.turn = (turn + 1) % self.cursors.len();
            let cursor = &mut self.cursors[turn];
            if let Err(error) = cursor.read(&self.store, records_max, &mut count, each) {
                cursor.is_stopped = true;
                if count == 0 {
                    return Err(error);
                }
                self.failed = Some(error);
                break;
            }
            if count >= records_max {
                break;
            }
        }
        Ok(count)
    }

    fn hint(&mut self, _: &[Position]) -> Result<()> {
        Ok(())
    }

    fn assignment(&self) -> Vec<(String, i32)> {
        let mut assignment: Vec<_> =
            self.cursors.iter().map(|cursor| (cursor.topic.name.clone(), cursor.partition as i32)).collect();
        assignment.sort();
        assignment
    }
}
