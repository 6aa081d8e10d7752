//! Where a key lives: Kafka's default partitioner, computed here for both implementations.
//!
//! Enters: a message key and a topic's partition count. Leaves: the partition, the same as a Java producer with the
//! default partitioner chooses (`toPositive(murmur2(key)) % count`, `org.apache.kafka.common.utils.Utils`). An empty
//! key is a key like any other, so no message is ever placed at random.

/// The partition of `key` in a topic of `partitions` partitions.
pub fn partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partitions
}

/// MurmurHash2, 32 bits, with the seed that Kafka uses.
fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MIX: u32 = 0x5bd1_e995;
    const ROTATE: u32 = 24;

    // Java hashes an int length; a key is far shorter than 4 GiB.
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes(word.try_into().expect("a chunk has 4 bytes")).wrapping_mul(MIX);
        hash = hash.wrapping_mul(MIX) ^ (word ^ (word >> ROTATE)).wrapping_mul(MIX);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0, |word, byte| (word << 8) | u32::from(*byte));
        hash = (hash ^ word).wrapping_mul(MIX);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MIX);
    (hash ^ (hash >> 15)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn every_key_has_a_partition() {
        assert!((0..1000u32).all(|key| (0..7).contains(&partition(&key.to_be_bytes(), 7))));
        assert_eq!(partition(b"", 1), 0);
        assert!((0..4).contains(&partition(b"", 4)));
    }
}
