//! The wire contracts as Rust types.
//!
//! In: `proto/quad/<area>/v1/*.proto`, compiled by `build.rs`. Out: messages, servers and clients, and the file descriptor
//! set that server reflection needs. Nothing here decides anything.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, skip_field};

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

/// A message whose fields are encoded already. It is only sent: what is received of it is skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded(Vec<u8>);

impl Encoded {
    /// The fields, as on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Encoded {
    fn from(fields: Vec<u8>) -> Self {
        Self(fields)
    }
}

impl prost::Message for Encoded {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), prost::DecodeError> {
        skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// All files above as one encoded `google.protobuf.FileDescriptorSet`, imports included.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
