//! A message that is bytes already. Encoded fields enter; the same leave on the wire.

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, skip_field};

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
