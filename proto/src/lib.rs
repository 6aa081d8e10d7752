//! The wire contracts as Rust types.
//!
//! In: `proto/quad/<area>/v1/*.proto`, compiled by `build.rs`. Out: messages, servers and clients, and the file descriptor
//! set that server reflection needs. Nothing is written by hand here, and nothing decides anything.

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
}

/// All files above as one encoded `google.protobuf.FileDescriptorSet`, imports included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
