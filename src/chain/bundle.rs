use bytes::Bytes;

use crate::chain::{Author, CompareTarget, Op, Value, ValueSlot};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::crypto::{Context, PublicKey, Scheme, Signature, SignedKind, hash, signed_bytes};
use crate::types::{ClusterId, Digest, Epoch, Millis, ReplicaId};

/// Most ops of one bundle.
pub const BUNDLE_OPS_MAX: usize = 512;

/// Most bytes of one bundle as sent: a request of 4 MiB plus its frame (consensus.md 15).
pub const BUNDLE_BYTES_MAX: usize = 5 << 20;

/// One op with its author, values replaced by commitments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skeleton {
    /// Who asked.
    pub author: Author,
    /// For what.
    pub op: Op,
}

impl Encode for Skeleton {
    fn encode(&self, writer: &mut Writer) {
        self.author.encode(writer);
        self.op.encode(writer);
    }
}

impl Decode for Skeleton {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { author: Author::decode(reader)?, op: Op::decode(reader)? })
    }
}

/// The requests one replica admitted together, signed once.
///
/// Op `i` has sequence number `first_seq + i` in (origin, session) and is executed at most once
/// (consensus.md 9).
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The admitting replica.
    pub origin: ReplicaId,
    /// REJOIN count << 48 | durable counter: grows with every start of the origin.
    pub session: u64,
    /// Sequence number of the first op.
    pub first_seq: u64,
    /// In a block with a later time the ops answer "request timed out" and do nothing.
    pub not_after_ms: Millis,
    /// One per op, not empty.
    pub skeletons: Vec<Skeleton>,
    /// The origin's, over [`Bundle::digest`].
    pub signature: Signature,
    /// In slot order; empty once erased.
    pub values: Vec<Value>,
    content: Bytes,
    digest: Digest,
}

impl Bundle {
    /// Signs a new bundle. `values` are in slot order.
    #[must_use]
    pub fn sign(parts: BundleParts, cluster_id: &ClusterId, scheme: &dyn Scheme) -> Self {
        let content = parts.content();
        let digest = content_digest(&content);
        let message = signed_bytes(SignedKind::Bundle, cluster_id, Epoch(0), &digest);
        let signature = scheme.sign(&message);
        let BundleParts { origin, session, first_seq, not_after_ms, skeletons, values } = parts;
        Self {
            origin,
            session,
            first_seq,
            not_after_ms,
            skeletons,
            signature,
            values,
            content,
            digest,
        }
    }

    /// Whether the origin signed it.
    #[must_use]
    pub fn verify(&self, cluster_id: &ClusterId, key: &PublicKey, scheme: &dyn Scheme) -> bool {
        let message = signed_bytes(SignedKind::Bundle, cluster_id, Epoch(0), &self.digest);
        scheme.verify(key, &message, &self.signature)
    }

    /// Hash of everything but signature and values.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What is signed, without the ops: enough to show that the origin opened this session.
    #[must_use]
    pub fn header(&self) -> BundleHeader {
        BundleHeader {
            origin: self.origin,
            session: self.session,
            first_seq: self.first_seq,
            not_after_ms: self.not_after_ms,
            body: body_digest(&self.content),
            signature: self.signature,
        }
    }

    /// The canonical bytes of everything but signature and values.
    #[must_use]
    pub fn content(&self) -> &Bytes {
        &self.content
    }

    /// The same with its values left out.
    #[must_use]
    pub fn without_values(&self) -> Self {
        Self { values: Vec::new(), ..self.clone() }
    }

    /// Reads what [`Bundle::without_values`] encodes.
    ///
    /// # Errors
    /// It is no bundle.
    pub fn decode_without_values(reader: &mut Reader) -> Result<Self, DecodeError> {
        let content = reader.bytes(BUNDLE_BYTES_MAX, "bundle")?;
        let signature = Signature(reader.array("bundle signature")?);
        Self::decode_content(content, signature)
    }

    /// The sequence number behind the last op.
    #[must_use]
    pub fn end_seq(&self) -> u64 {
        self.first_seq.saturating_add(self.skeletons.len() as u64)
    }

    /// Bytes of the values with salts and lengths, as a block carries them.
    #[must_use]
    pub fn values_len(&self) -> usize {
        self.values.iter().map(|value| 20 + value.bytes.len()).sum()
    }

    /// The slots of all ops, in the order they are numbered.
    #[must_use]
    pub fn slots(&self) -> Vec<ValueSlot> {
        let mut slots = Vec::new();
        self.skeletons.iter().for_each(|skeleton| collect_slots(&skeleton.op, &mut slots));
        slots
    }

    pub(super) fn decode_content(
        content: Bytes,
        signature: Signature,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(content.clone());
        let origin = ReplicaId(reader.u16("bundle origin")?);
        let session = reader.u64("bundle session")?;
        let first_seq = reader.u64("bundle sequence")?;
        let not_after_ms = Millis(reader.u64("bundle not_after")?);
        let mut skeletons = Vec::new();
        for _ in 0..reader.length(BUNDLE_OPS_MAX, "bundle ops")? {
            skeletons.push(Skeleton::decode(&mut reader)?);
        }
        reader.finish()?;
        let digest = content_digest(&content);
        let bundle = Self {
            origin,
            session,
            first_seq,
            not_after_ms,
            skeletons,
            signature,
            values: Vec::new(),
            content,
            digest,
        };
        let in_order = bundle.slots().iter().zip(0_u32..).all(|(slot, index)| slot.index == index);
        if !in_order {
            return Err(DecodeError::Invalid("value slot"));
        }
        Ok(bundle)
    }

    /// Reads this bundle's values, as many as it has slots.
    pub(super) fn decode_values(&mut self, reader: &mut Reader) -> Result<(), DecodeError> {
        for _ in 0..self.slots().len() {
            self.values.push(Value::decode(reader)?);
        }
        Ok(())
    }
}

/// Length of the part of a bundle's content that stands before its ops.
const HEAD_BYTES: usize = 2 + 8 + 8 + 8;

/// The signed digest: over the head and the digest of the ops, so that a head proves itself alone.
fn content_digest(content: &[u8]) -> Digest {
    hash(&Context::BUNDLE, &[&content[..HEAD_BYTES], &body_digest(content).0])
}

fn body_digest(content: &[u8]) -> Digest {
    hash(&Context::BUNDLE_BODY, &[&content[HEAD_BYTES..]])
}

/// A bundle's head with its origin's signature, in place of the bundle (consensus.md 6, R3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleHeader {
    /// See [`Bundle`].
    pub origin: ReplicaId,
    /// See [`Bundle`].
    pub session: u64,
    /// See [`Bundle`].
    pub first_seq: u64,
    /// See [`Bundle`].
    pub not_after_ms: Millis,
    /// Digest of the ops.
    pub body: Digest,
    /// The origin's.
    pub signature: Signature,
}

impl BundleHeader {
    fn encode_signed(&self, writer: &mut Writer) {
        writer.u16(self.origin.0);
        writer.u64(self.session);
        writer.u64(self.first_seq);
        writer.u64(self.not_after_ms.0);
        writer.digest(&self.body);
    }

    /// Whether the origin signed the bundle it stands for.
    #[must_use]
    pub fn verify(&self, cluster_id: &ClusterId, key: &PublicKey, scheme: &dyn Scheme) -> bool {
        let mut writer = Writer::new();
        self.encode_signed(&mut writer);
        let digest = hash(&Context::BUNDLE, &[writer.as_slice()]);
        let message = signed_bytes(SignedKind::Bundle, cluster_id, Epoch(0), &digest);
        scheme.verify(key, &message, &self.signature)
    }
}

impl Encode for BundleHeader {
    fn encode(&self, writer: &mut Writer) {
        self.encode_signed(writer);
        writer.raw(&self.signature.0);
    }
}

impl Decode for BundleHeader {
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            origin: ReplicaId(reader.u16("bundle origin")?),
            session: reader.u64("bundle session")?,
            first_seq: reader.u64("bundle sequence")?,
            not_after_ms: Millis(reader.u64("bundle not_after")?),
            body: reader.digest("bundle body")?,
            signature: Signature(reader.array("bundle signature")?),
        })
    }
}

impl PartialEq for Bundle {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
            && self.signature == other.signature
            && self.values == other.values
    }
}

impl Eq for Bundle {}

impl Encode for Bundle {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.content);
        writer.raw(&self.signature.0);
        self.values.iter().for_each(|value| value.encode(writer));
    }
}

impl Decode for Bundle {
    /// A bundle on its own always carries its values.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut bundle = Self::decode_without_values(reader)?;
        bundle.decode_values(reader)?;
        Ok(bundle)
    }
}

/// What [`Bundle::sign`] signs.
pub struct BundleParts {
    /// See [`Bundle`].
    pub origin: ReplicaId,
    /// See [`Bundle`].
    pub session: u64,
    /// See [`Bundle`].
    pub first_seq: u64,
    /// See [`Bundle`].
    pub not_after_ms: Millis,
    /// See [`Bundle`]; slots numbered from 0 across all ops.
    pub skeletons: Vec<Skeleton>,
    /// See [`Bundle`].
    pub values: Vec<Value>,
}

impl BundleParts {
    fn content(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u16(self.origin.0);
        writer.u64(self.session);
        writer.u64(self.first_seq);
        writer.u64(self.not_after_ms.0);
        writer.length(self.skeletons.len());
        self.skeletons.iter().for_each(|skeleton| skeleton.encode(&mut writer));
        writer.finish()
    }
}

fn collect_slots(op: &Op, slots: &mut Vec<ValueSlot>) {
    match op {
        Op::Put(put) => slots.extend(put.value),
        Op::Auth(op) => slots.extend(op.slot()),
        Op::Txn(txn) => {
            for compare in &txn.compares {
                if let CompareTarget::Value(slot) = compare.target {
                    slots.push(slot);
                }
            }
            txn.success.iter().chain(&txn.failure).for_each(|op| collect_slots(op, slots));
        }
        _ => {}
    }
}
