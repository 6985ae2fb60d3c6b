use bytes::Bytes;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// Who asked for an op, as the admitting replica claims. Only the replica, hence the organisation, is
/// proved: its signature covers the bundle (trust.md 3.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The client certificate's common name, at most 256 bytes; empty without a certificate.
    pub client_name: Bytes,
    /// The etcd user, at most 256 bytes; empty without authentication.
    pub user: Bytes,
    /// The auth revision the user's permission was looked up at; 0 without authentication.
    pub auth_revision: u64,
}

impl Author {
    /// Longest name either field carries.
    pub const NAME_BYTES_MAX: usize = 256;
}

impl Encode for Author {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.client_name);
        writer.bytes(&self.user);
        writer.u64(self.auth_revision);
    }
}

impl Decode for Author {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            client_name: reader.bytes(Self::NAME_BYTES_MAX, "author's client name")?,
            user: reader.bytes(Self::NAME_BYTES_MAX, "author's user")?,
            auth_revision: reader.u64("author's auth revision")?,
        })
    }
}
