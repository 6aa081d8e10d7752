//! What a run does: the seed and the sizes.

use std::path::PathBuf;

/// A run, whole. Everything that looks random follows from `seed`.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Faults to inject before the storm ends: blows to processes and the disk, and poisoned records.
    pub faults: u64,
    /// Blows to processes and the disk among them, at least.
    pub blows: u64,
    pub students: usize,
    /// Landing processes of the group.
    pub lands: usize,
    /// Of 1000 records that are written straight to the topic, how many are poisoned.
    pub poison_per_mille: u64,
    /// Two landings that share no fence: the checker must find every record twice. Shows that it can.
    pub is_unfenced: bool,
    /// The lake is on object storage that fails on purpose, instead of a small disk that fills up.
    pub is_on_s3: bool,
    /// Leave the folder, with logs and lake, for a look.
    pub is_kept: bool,
    /// The `quad` executable.
    pub quad: PathBuf,
    /// The root of the project: contracts, connectors, the broker's script.
    pub root: PathBuf,
}
