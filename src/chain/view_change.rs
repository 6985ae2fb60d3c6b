use std::sync::Arc;

use crate::chain::{Certificate, CheckpointId, Membership};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{
    Context, PublicKey, SIGNED_BYTES, Scheme, Signature, SignedKind, hash, signed_bytes,
};
use crate::types::{ClusterId, Epoch, ReplicaId, View};

const MEMBERS_MAX: usize = 128;

/// A replica leaves its view (protocol.md 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewChange {
    /// The epoch.
    pub epoch: Epoch,
    /// The view asked for.
    pub view: View,
    /// Who.
    pub replica: ReplicaId,
    /// Its highest prepared certificate.
    pub prepared: Option<Certificate>,
    /// Its highest commit certificate.
    pub committed: Option<Certificate>,
    /// The newest checkpoint it knows a quorum to hold.
    pub stable: Option<CheckpointId>,
    /// Its own, over all of it.
    pub signature: Signature,
}

impl ViewChange {
    /// Signs a VIEW-CHANGE for `view`.
    #[must_use]
    pub fn sign(
        round: (Epoch, View),
        replica: ReplicaId,
        certificates: (Option<Certificate>, Option<Certificate>, Option<CheckpointId>),
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Self {
        let (epoch, view) = round;
        let (prepared, committed, stable) = certificates;
        let signature = Signature([0; 64]);
        let mut message = Self { epoch, view, replica, prepared, committed, stable, signature };
        message.signature = scheme.sign(&message.signed_bytes(cluster_id));
        message
    }

    fn signed_bytes(&self, cluster_id: &ClusterId) -> [u8; SIGNED_BYTES] {
        let mut writer = Writer::new();
        self.encode_body(&mut writer);
        let digest = hash(&Context::VIEW_CHANGE, &[writer.as_slice()]);
        signed_bytes(SignedKind::ViewChange, cluster_id, self.epoch, &digest)
    }

    /// Whether `key` signed it, whatever the epoch and membership.
    #[must_use]
    pub fn signed_by(&self, key: &PublicKey, cluster_id: &ClusterId, scheme: &dyn Scheme) -> bool {
        scheme.verify(key, &self.signed_bytes(cluster_id), &self.signature)
    }

    /// Whether the named voter signed it; says nothing about the certificates.
    #[must_use]
    pub fn verify(
        &self,
        cluster_id: &ClusterId,
        membership: &Membership,
        scheme: &dyn Scheme,
    ) -> bool {
        membership.voter(self.replica).is_some_and(|member| {
            scheme.verify(&member.key, &self.signed_bytes(cluster_id), &self.signature)
        })
    }

    fn encode_body(&self, writer: &mut Writer) {
        writer.u64(self.epoch.0);
        writer.u64(self.view.0);
        writer.u16(self.replica.0);
        put_option(self.prepared.as_ref(), writer);
        put_option(self.committed.as_ref(), writer);
        put_option(self.stable.as_ref(), writer);
    }
}

impl Encode for ViewChange {
    fn encode(&self, writer: &mut Writer) {
        self.encode_body(writer);
        writer.raw(&self.signature.0);
    }
}

impl Decode for ViewChange {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: Epoch(reader.u64("view change epoch")?),
            view: View(reader.u64("view change view")?),
            replica: ReplicaId(reader.u16("view change replica")?),
            prepared: get_option(reader)?,
            committed: get_option(reader)?,
            stable: get_option(reader)?,
            signature: Signature(reader.array("view change signature")?),
        })
    }
}

/// The primary's proof that a view may begin: q VIEW-CHANGEs. Everyone recomputes the base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewView {
    /// The epoch.
    pub epoch: Epoch,
    /// The view that begins.
    pub view: View,
    /// q of them, for this view, in ascending order of replica.
    pub view_changes: Vec<Arc<ViewChange>>,
    /// The view's primary's, over all of it.
    pub signature: Signature,
}

impl NewView {
    /// Signs a NEW-VIEW.
    #[must_use]
    pub fn sign(
        round: (Epoch, View),
        view_changes: Vec<Arc<ViewChange>>,
        cluster_id: &ClusterId,
        scheme: &dyn Scheme,
    ) -> Self {
        let (epoch, view) = round;
        let mut message = Self { epoch, view, view_changes, signature: Signature([0; 64]) };
        message.signature = scheme.sign(&message.signed_bytes(cluster_id));
        message
    }

    fn signed_bytes(&self, cluster_id: &ClusterId) -> [u8; SIGNED_BYTES] {
        let mut writer = Writer::new();
        self.encode_body(&mut writer);
        let digest = hash(&Context::NEW_VIEW, &[writer.as_slice()]);
        signed_bytes(SignedKind::NewView, cluster_id, self.epoch, &digest)
    }

    /// Whether the view's primary signed it; says nothing about what is inside.
    #[must_use]
    pub fn verify(
        &self,
        cluster_id: &ClusterId,
        membership: &Membership,
        scheme: &dyn Scheme,
    ) -> bool {
        membership.voter(membership.primary(self.view)).is_some_and(|member| {
            scheme.verify(&member.key, &self.signed_bytes(cluster_id), &self.signature)
        })
    }

    fn encode_body(&self, writer: &mut Writer) {
        writer.u64(self.epoch.0);
        writer.u64(self.view.0);
        writer.length(self.view_changes.len());
        self.view_changes.iter().for_each(|view_change| view_change.encode(writer));
    }
}

impl Encode for NewView {
    fn encode(&self, writer: &mut Writer) {
        self.encode_body(writer);
        writer.raw(&self.signature.0);
    }
}

impl Decode for NewView {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let epoch = Epoch(reader.u64("new view epoch")?);
        let view = View(reader.u64("new view view")?);
        let mut view_changes = Vec::new();
        for _ in 0..reader.length(MEMBERS_MAX, "new view signers")? {
            view_changes.push(Arc::new(ViewChange::decode(reader)?));
        }
        let signature = Signature(reader.array("new view signature")?);
        Ok(Self { epoch, view, view_changes, signature })
    }
}

fn put_option<T: Encode>(certificate: Option<&T>, writer: &mut Writer) {
    writer.bool(certificate.is_some());
    if let Some(certificate) = certificate {
        certificate.encode(writer);
    }
}

fn get_option<T: Decode>(reader: &mut Reader) -> Result<Option<T>, DecodeError> {
    Ok(if reader.bool("option tag")? { Some(T::decode(reader)?) } else { None })
}
