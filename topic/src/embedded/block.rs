//! The stored form of records: a block.
//!
//! Enters: messages of one partition, in order. Leaves: sealed blocks, and from a block its records, borrowed. A block
//! that does not check out is an error, never a shorter or other list of records.
//!
//! A block is one entry of the store. Its key sorts by topic, partition, offset, and carries what retention and start
//! need to know without reading the value (all big-endian):
//! ```text
//! topic u32 | partition u32 | first offset u64 | appended_ms u64 | bytes before u64 | records u32        36 bytes
//! ```
//! `bytes before` counts the stored bytes of the partition's earlier blocks since its beginning, so the size of a
//! partition is a subtraction. The value (all little-endian):
//! ```text
//! codec u8 (0 plain, 1 lz4) | plain size u32 | CRC-32 of key, codec, plain size and body u32 | body
//! body, plain:  timestamp_ms i64 | key size u32 | value size u32 | key | value      for each record
//! ```

use crate::{
    embedded::store::Slice,
    error::{Error, ErrorKind, Result},
    log::{Message, Record},
};

pub(crate) const KEY_BYTES: usize = 36;
const VALUE_HEADER_BYTES: usize = 9;
const RECORD_HEADER_BYTES: usize = 16;
/// Bodies below this size are stored plain: lz4 would save little, and a tail of single records should be quick.
const COMPRESSED_BYTES_MIN: usize = 512;

/// The decoded key of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockKey {
    pub topic: u32,
    pub partition: u32,
    pub offset: u64,
    pub appended_ms: u64,
    pub bytes_before: u64,
    pub records: u32,
}

impl BlockKey {
    pub fn encode(&self) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        key[..4].copy_from_slice(&self.topic.to_be_bytes());
        key[4..8].copy_from_slice(&self.partition.to_be_bytes());
        key[8..16].copy_from_slice(&self.offset.to_be_bytes());
        key[16..24].copy_from_slice(&self.appended_ms.to_be_bytes());
        key[24..32].copy_from_slice(&self.bytes_before.to_be_bytes());
        key[32..].copy_from_slice(&self.records.to_be_bytes());
        key
    }

    pub fn decode(key: &[u8]) -> Result<Self> {
        let key: &[u8; KEY_BYTES] = key
            .try_into()
            .map_err(|_| Error::new(ErrorKind::Corrupt, format!("a block key has {} bytes, not 36", key.len())))?;
        Ok(Self {
            topic: u32::from_be_bytes(array(&key[..4])),
            partition: u32::from_be_bytes(array(&key[4..8])),
            offset: u64::from_be_bytes(array(&key[8..16])),
            appended_ms: u64::from_be_bytes(array(&key[16..24])),
            bytes_before: u64::from_be_bytes(array(&key[24..32])),
            records: u32::from_be_bytes(array(&key[32..])),
        })
    }

    /// The part of the key before the offset.
    pub fn prefix(topic: u32, partition: u32) -> [u8; 8] {
        let mut prefix = [0; 8];
        prefix[..4].copy_from_slice(&topic.to_be_bytes());
        prefix[4..].copy_from_slice(&partition.to_be_bytes());
        prefix
    }

    /// Sorts at or before the block that begins at `offset`, after every block that begins earlier.
    pub fn at(topic: u32, partition: u32, offset: u64) -> [u8; KEY_BYTES] {
        Self { topic, partition, offset, appended_ms: 0, bytes_before: 0, records: 0 }.encode()
    }

    /// The offset after the block's last record.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.records)
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller slices N bytes")
}

/// Records of one partition that have no offset yet.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub partition: u32,
    pub records: u32,
    /// Body of a block, plain until the piece is sealed.
    body: Vec<u8>,
    /// Plain size, once the body is compressed.
    compressed_from: Option<u32>,
}

impl Piece {
    /// Without records, with room for so many bytes of them.
    pub fn new(partition: u32, room: usize) -> Self {
        Self { partition, body: Vec::with_capacity(room), ..Self::default() }
    }

    /// Bytes that a message will take.
    pub fn bytes_of(message: &Message) -> usize {
        RECORD_HEADER_BYTES + message.key.len() + message.value.len()
    }

    pub fn push(&mut self, message: &Message) {
        self.body.reserve(Self::bytes_of(message));
        self.body.extend_from_slice(&message.timestamp_ms.to_le_bytes());
        // Sizes are checked against message_bytes_max (at most 1 GiB) before.
        self.body.extend_from_slice(&(message.key.len() as u32).to_le_bytes());
        self.body.extend_from_slice(&(message.value.len() as u32).to_le_bytes());
        self.body.extend_from_slice(&message.key);
        self.body.extend_from_slice(&message.value);
        self.records += 1;
    }

    /// Bytes of the body as it is now.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    pub fn is_compressed(&self) -> bool {
        self.compressed_from.is_some()
    }

    /// Takes over the records of a later piece of the same partition. Both must be plain.
    pub fn extend(&mut self, later: Self) {
        debug_assert!(!self.is_compressed() && !later.is_compressed() && self.partition == later.partition);
        self.body.extend_from_slice(&later.body);
        self.records += later.records;
    }

    /// Compresses the body if that makes it smaller. Done by appending threads, so that the writer has little to do.
    pub fn compress(&mut self) {
        if self.is_compressed() || self.body.len() < COMPRESSED_BYTES_MIN {
            return;
        }
        let compressed = lz4_flex::block::compress(&self.body);
        if compressed.len() < self.body.len() {
            // A piece is bounded by block_bytes_max plus one message, well below 4 GiB.
            self.compressed_from = Some(self.body.len() as u32);
            self.body = compressed;
        }
    }

    /// The value of the block under the key it got.
    pub fn seal(&self, key: &[u8; KEY_BYTES]) -> Vec<u8> {
        let codec = u8::from(self.is_compressed());
        let plain_bytes = self.compressed_from.unwrap_or(self.body.len() as u32);
        let mut value = Vec::with_capacity(VALUE_HEADER_BYTES + self.body.len());
        value.push(codec);
        value.extend_from_slice(&plain_bytes.to_le_bytes());
        value.extend_from_slice(&checksum(key, codec, plain_bytes, &self.body).to_le_bytes());
        value.extend_from_slice(&self.body);
        value
    }

    /// Bytes of the value that `seal` makes.
    pub fn stored_bytes(&self) -> u64 {
        (VALUE_HEADER_BYTES + self.body.len()) as u64
    }
}

fn checksum(key: &[u8], codec: u8, plain_bytes: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[codec]);
    hasher.update(&plain_bytes.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

/// A block that is being read.
#[derive(Debug)]
pub(crate) struct Block {
    key: BlockKey,
    body: Body,
    /// Where the next record begins in the plain body.
    at: usize,
    /// Offset of the next record.
    offset: u64,
}

#[derive(Debug)]
enum Body {
    Plain(Slice),
    Decompressed(Vec<u8>),
}

impl Block {
    /// Opens a block and checks it whole. `spare` is a buffer to reuse.
    pub fn open(key: &[u8], value: Slice, spare: Vec<u8>) -> Result<Self> {
        let decoded = BlockKey::decode(key)?;
        let corrupt = |why: &str| {
            let BlockKey { topic, partition, offset, .. } = decoded;
            let message = format!("the block at offset {offset} of partition {partition} (topic no. {topic}) {why}");
            Error::new(ErrorKind::Corrupt, message)
        };
        let Some((header, body)) = value.split_at_checked(VALUE_HEADER_BYTES) else {
            return Err(corrupt("is cut short"));
        };
        let (codec, plain_bytes) = (header[0], u32::from_le_bytes(array(&header[1..5])));
        if checksum(key, codec, plain_bytes, body) != u32::from_le_bytes(array(&header[5..])) {
            return Err(corrupt("does not match its checksum"));
        }
        let body = match codec {
            0 => Body::Plain(value),
            1 => {
                let mut plain = spare;
                plain.resize(plain_bytes as usize, 0);
                match lz4_flex::block::decompress_into(body, &mut plain) {
                    Ok(bytes) if bytes == plain.len() => Body::Decompressed(plain),
                    _ => return Err(corrupt("does not decompress")),
                }
            }
            _ => return Err(corrupt("is in a form that this version does not know")),
        };
        Ok(Self { key: decoded, body, at: 0, offset: decoded.offset })
    }

    pub fn key(&self) -> &BlockKey {
        &self.key
    }

    pub fn is_done(&self) -> bool {
        self.offset >= self.key.end()
    }

    /// The buffer for the next block to reuse.
    pub fn into_spare(self) -> Vec<u8> {
        match self.body {
            Body::Plain(_) => Vec::new(),
            Body::Decompressed(buffer) => buffer,
        }
    }

    /// Passes over the records before `offset`.
    pub fn skip_to(&mut self, offset: u64) -> Result<()> {
        while self.offset < offset && !self.is_done() {
            self.next("", |_| ())?;
        }
        Ok(())
    }

    /// Calls `each` with the next record, which must exist.
    pub fn next<R>(&mut self, topic: &str, each: impl FnOnce(Record<'_>) -> R) -> Result<R> {
        let body = match &self.body {
            Body::Plain(value) => &value[VALUE_HEADER_BYTES..],
            Body::Decompressed(plain) => plain,
        };
        let Some((record, bytes)) = parse(&body[self.at..]) else {
            // The checksum matched, so whoever wrote the block wrote it wrong.
            let message =
                format!("the block at offset {} of {topic}/{} ends early", self.key.offset, self.key.partition);
            return Err(Error::new(ErrorKind::Corrupt, message));
        };
        let result = each(Record { topic, partition: self.key.partition as i32, offset: self.offset as i64, ..record });
        self.at += bytes;
        self.offset += 1;
        Ok(result)
    }
}

/// The record at the beginning of `body`, and its size.
fn parse(body: &[u8]) -> Option<(Record<'_>, usize)> {
    let (header, rest) = body.split_at_checked(RECORD_HEADER_BYTES)?;
    let timestamp_ms = i64::from_le_bytes(array(&header[..8]));
    let key_bytes = u32::from_le_bytes(array(&header[8..12])) as usize;
    let value_bytes = u32::from_le_bytes(array(&header[12..])) as usize;
    let (key, rest) = rest.split_at_checked(key_bytes)?;
    let value = rest.get(..value_bytes)?;
    let record = Record { topic: "", partition: 0, offset: 0, timestamp_ms, key, value };
    Some((record, RECORD_HEADER_BYTES + key_bytes + value_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &str, value_bytes: usize) -> Message {
        Message { key: key.to_owned().into(), value: vec![b'v'; value_bytes].into(), timestamp_ms: -1 }
    }

    fn block(messages: &[Message]) -> (BlockKey, Vec<u8>) {
        let mut piece = Piece::new(7, 0);
        messages.iter().for_each(|message| piece.push(message));
        let key = BlockKey {
            topic: 3,
            partition: 7,
            offset: 40,
            appended_ms: 1,
            bytes_before: 2,
            records: messages.len() as u32,
        };
        piece.compress();
        let value = piece.seal(&key.encode());
        assert_eq!(value.len() as u64, piece.stored_bytes());
        (key, value)
    }

    #[test]
    fn a_block_gives_back_its_records() {
        for value_bytes in [0, 10, 5_000] {
            let messages = [message("a", value_bytes), message("", 0), message("c", value_bytes)];
            let (key, value) = block(&messages);
            let mut block = Block::open(&key.encode(), value.into(), Vec::new()).unwrap();
            block.skip_to(41).unwrap();
            let mut offsets = Vec::new();
            while !block.is_done() {
                block
                    .next("t", |record| {
                        let message = &messages[(record.offset - 40) as usize];
                        assert_eq!((record.key, record.value), (&message.key[..], &message.value[..]));
                        assert_eq!((record.partition, record.timestamp_ms, record.topic), (7, -1, "t"));
                        offsets.push(record.offset);
                    })
                    .unwrap();
            }
            assert_eq!(offsets, [41, 42]);
        }
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let (key, value) = block(&[message("a", 600)]);
        let key = key.encode();
        for at in 0..value.len() {
            let mut value = value.clone();
            value[at] ^= 1;
            assert_eq!(Block::open(&key, value.into(), Vec::new()).unwrap_err().kind, ErrorKind::Corrupt, "byte {at}");
        }
        let mut other = key;
        other[15] ^= 1;
        assert_eq!(Block::open(&other, value.clone().into(), Vec::new()).unwrap_err().kind, ErrorKind::Corrupt);
        assert!(Block::open(&key, value[..5].to_vec().into(), Vec::new()).is_err());
    }

    #[test]
    fn keys_sort_by_offset() {
        let (key, _) = block(&[message("a", 1)]);
        assert_eq!(BlockKey::decode(&key.encode()).unwrap(), key);
        assert!(BlockKey::at(3, 7, 40) < key.encode() && key.encode() < BlockKey::at(3, 7, 41));
        assert!(key.encode().starts_with(&BlockKey::prefix(3, 7)));
    }
}
