//! The wire contracts as Rust types.
//!
//! In: `proto/quad/<area>/v1/*.proto`, compiled by `build.rs`. Out: messages, servers and clients, and the file descriptor
//! set that server reflection needs, and `encoded`, the message that is bytes already.

mod encoded;

pub use encoded::Encoded;

/// Who is who: `quad.identity.v1`.
pub mod identity {
    #[allow(clippy::all, clippy::pedantic, rustdoc::all)]
    pub mod v1 {
        tonic::include_proto!("quad.identity.v1");
    }
}

/// The unified student profile: `quad.profile.v1`.
pub mod profile {
    #[allow(clippy::all, clippy::pedantic, rustdoc::all)]
    pub mod v1 {
        tonic::include_proto!("quad.profile.v1");
    }

    /// The servers of `quad.profile.v1`, which answer with profiles that are bytes already; see `build.rs`.
    #[allow(clippy::all, clippy::pedantic, rustdoc::all)]
    pub mod server {
        include!(concat!(env!("OUT_DIR"), "/servers/quad.profile.v1.rs"));
    }
}

/// All files above as one encoded `google.protobuf.FileDescriptorSet`, imports included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
