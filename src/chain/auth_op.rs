//! Changes of an organisation's users and roles, as they are ordered (etcd's Auth service).

use bytes::Bytes;

use crate::chain::{Author, Parameters, ValueSlot};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, hash};
use crate::types::Digest;

/// What a permission allows on its range, with etcd's wire numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PermissionKind {
    /// Read.
    Read = 0,
    /// Write.
    Write = 1,
    /// Both.
    ReadWrite = 2,
}

/// etcd's Permission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What it allows.
    pub kind: PermissionKind,
    /// At most [`Parameters::KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// Empty for one key, `\0` for all from `key` on; as long at most.
    pub range_end: Bytes,
}

/// One op on the users and roles of the organisation whose replica ordered it. Names are at most
/// [`AuthOp::NAME_BYTES_MAX`] bytes.
///
/// A password never comes here: the admitting replica orders its bcrypt hash, and that as a value, which
/// can be erased (consensus.md 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthOp {
    /// etcd's AuthEnable.
    Enable,
    /// etcd's AuthDisable.
    Disable,
    /// A simple token for who showed a password to the admitting replica.
    Authenticate {
        /// Whose.
        user: Bytes,
        /// Of the token's secret part: the log does not hold what opens the door.
        token: Digest,
    },
    /// etcd's AuthUserAdd.
    UserAdd {
        /// Whom.
        name: Bytes,
        /// The bcrypt hash; none for a user who proves himself by certificate alone.
        password: Option<ValueSlot>,
    },
    /// etcd's AuthUserDelete.
    UserDelete {
        /// Whom.
        name: Bytes,
    },
    /// etcd's AuthUserChangePassword.
    UserChangePassword {
        /// Whose.
        name: Bytes,
        /// The bcrypt hash; none if the client sent a hash that is not base64, which etcd notices last.
        password: Option<ValueSlot>,
    },
    /// etcd's AuthUserGrantRole.
    UserGrantRole {
        /// To whom.
        user: Bytes,
        /// Which.
        role: Bytes,
    },
    /// etcd's AuthUserRevokeRole.
    UserRevokeRole {
        /// From whom.
        user: Bytes,
        /// Which.
        role: Bytes,
    },
    /// etcd's AuthRoleAdd.
    RoleAdd {
        /// Which.
        name: Bytes,
    },
    /// etcd's AuthRoleDelete.
    RoleDelete {
        /// Which.
        name: Bytes,
    },
    /// etcd's AuthRoleGrantPermission.
    RoleGrantPermission {
        /// To which.
        role: Bytes,
        /// What; none is refused as etcd does.
        permission: Option<Permission>,
    },
    /// etcd's AuthRoleRevokePermission.
    RoleRevokePermission {
        /// From which.
        role: Bytes,
        /// With `range_end` as it was granted.
        key: Bytes,
        /// See `key`.
        range_end: Bytes,
    },
}

impl AuthOp {
    /// Longest name of a user or role.
    pub const NAME_BYTES_MAX: usize = Author::NAME_BYTES_MAX;

    /// What is ordered and kept of a simple token's secret part.
    #[must_use]
    pub fn token_digest(secret: &[u8]) -> Digest {
        hash(&Context::TOKEN, &[secret])
    }

    /// Its value slot, if it has one.
    pub(in crate::chain) fn slot(&self) -> Option<&ValueSlot> {
        match self {
            Self::UserAdd { password, .. } | Self::UserChangePassword { password, .. } => {
                password.as_ref()
            }
            _ => None,
        }
    }

    pub(in crate::chain) fn slot_mut(&mut self) -> Option<&mut ValueSlot> {
        match self {
            Self::UserAdd { password, .. } | Self::UserChangePassword { password, .. } => {
                password.as_mut()
            }
            _ => None,
        }
    }
}

impl Encode for Permission {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(self.kind as u8);
        writer.bytes(&self.key);
        writer.bytes(&self.range_end);
    }
}

impl Decode for Permission {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: match reader.u8("permission kind")? {
                0 => PermissionKind::Read,
                1 => PermissionKind::Write,
                2 => PermissionKind::ReadWrite,
                _ => return Err(DecodeError::Invalid("permission kind")),
            },
            key: reader.bytes(Parameters::KEY_BYTES_MAX, "permission key")?,
            range_end: reader.bytes(Parameters::KEY_BYTES_MAX, "permission range end")?,
        })
    }
}

impl Encode for AuthOp {
    fn encode(&self, writer: &mut Writer) {
        let mut tagged = |tag: u8, names: &[&Bytes]| {
            writer.u8(tag);
            names.iter().for_each(|name| writer.bytes(name));
        };
        match self {
            Self::Enable => tagged(1, &[]),
            Self::Disable => tagged(2, &[]),
            Self::Authenticate { user, token } => {
                tagged(3, &[user]);
                writer.digest(token);
            }
            Self::UserAdd { name, password } => {
                tagged(4, &[name]);
                put_slot(password.as_ref(), writer);
            }
            Self::UserDelete { name } => tagged(5, &[name]),
            Self::UserChangePassword { name, password } => {
                tagged(6, &[name]);
                put_slot(password.as_ref(), writer);
            }
            Self::UserGrantRole { user, role } => tagged(7, &[user, role]),
            Self::UserRevokeRole { user, role } => tagged(8, &[user, role]),
            Self::RoleAdd { name } => tagged(9, &[name]),
            Self::RoleDelete { name } => tagged(10, &[name]),
            Self::RoleGrantPermission { role, permission } => {
                tagged(11, &[role]);
                writer.bool(permission.is_some());
                if let Some(permission) = permission {
                    permission.encode(writer);
                }
            }
            Self::RoleRevokePermission { role, key, range_end } => {
                tagged(12, &[role, key, range_end]);
            }
        }
    }
}

fn put_slot(slot: Option<&ValueSlot>, writer: &mut Writer) {
    writer.bool(slot.is_some());
    if let Some(slot) = slot {
        slot.encode(writer);
    }
}

fn get_slot(reader: &mut Reader) -> Result<Option<ValueSlot>, DecodeError> {
    if reader.bool("auth password")? { ValueSlot::decode(reader).map(Some) } else { Ok(None) }
}

impl Decode for AuthOp {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let name = |reader: &mut Reader| reader.bytes(Self::NAME_BYTES_MAX, "auth name");
        let key = |reader: &mut Reader| reader.bytes(Parameters::KEY_BYTES_MAX, "auth key");
        Ok(match reader.u8("auth op kind")? {
            1 => Self::Enable,
            2 => Self::Disable,
            3 => Self::Authenticate { user: name(reader)?, token: reader.digest("auth token")? },
            4 => Self::UserAdd { name: name(reader)?, password: get_slot(reader)? },
            5 => Self::UserDelete { name: name(reader)? },
            6 => Self::UserChangePassword { name: name(reader)?, password: get_slot(reader)? },
            7 => Self::UserGrantRole { user: name(reader)?, role: name(reader)? },
            8 => Self::UserRevokeRole { user: name(reader)?, role: name(reader)? },
            9 => Self::RoleAdd { name: name(reader)? },
            10 => Self::RoleDelete { name: name(reader)? },
            11 => {
                let role = name(reader)?;
                let given = reader.bool("auth permission")?;
                let permission = if given { Some(Permission::decode(reader)?) } else { None };
                Self::RoleGrantPermission { role, permission }
            }
            12 => Self::RoleRevokePermission {
                role: name(reader)?,
                key: key(reader)?,
                range_end: key(reader)?,
            },
            _ => return Err(DecodeError::Invalid("auth op kind")),
        })
    }
}
