//! protobuf's JSON as etcd's gateway writes and reads it: names as in the contract, or in camel case when
//! read; 64-bit numbers as text, bytes in base64, defaults left out, what is unknown passed over.

use bytes::Buf;
use prost::Message;
use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::error::Category;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// A message as JSON.
///
/// # Errors
/// None is known: the contract has no number that JSON cannot hold.
pub(super) fn to_json(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    let mut text = Vec::new();
    write(message, &mut text)?;
    Ok(text)
}

fn write(message: &DynamicMessage, text: &mut Vec<u8>) -> Result<(), Status> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    let mut serializer = serde_json::Serializer::new(text);
    let written = message.serialize_with_options(&mut serializer, &options);
    written.map_err(|error| Status::internal(error.to_string()))
}

/// One reply of a stream.
///
/// # Errors
/// As [`to_json`].
pub(super) fn result_line(message: &DynamicMessage) -> Result<Vec<u8>, Status> {
    let mut line = b"{\"result\":".to_vec();
    write(message, &mut line)?;
    line.extend_from_slice(b"}\n");
    Ok(line)
}

/// The end of a stream that failed.
pub(super) fn error_line(why: &Status) -> Vec<u8> {
    [b"{\"error\":", &status(why)[..], b"}\n"].concat()
}

/// A `google.rpc.Status` without details, of which etcd's services give none.
pub(super) fn status(status: &Status) -> Vec<u8> {
    let code = i32::from(status.code());
    let message = serde_json::Value::from(status.message());
    format!("{{\"code\":{code},\"message\":{message}}}").into_bytes()
}

/// The first value of `text`; what follows it is not looked at. No value at all is an empty message.
///
/// # Errors
/// InvalidArgument: the first value is no JSON, or not that of such a message.
pub(super) fn from_json(
    descriptor: &MessageDescriptor,
    text: &[u8],
) -> Result<DynamicMessage, Status> {
    if text.trim_ascii().is_empty() {
        return Ok(DynamicMessage::new(descriptor.clone()));
    }
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    DynamicMessage::deserialize_with_options(descriptor.clone(), &mut deserializer, &options)
        .map_err(|error| Status::invalid_argument(in_gos_words(&error, text)))
}

/// The two most common mistakes as Go's JSON package tells them; the others in our words.
fn in_gos_words(error: &serde_json::Error, text: &[u8]) -> String {
    let start = text.trim_ascii_start();
    match error.classify() {
        Category::Eof => "unexpected EOF".to_owned(),
        Category::Syntax if !start.starts_with(b"{") => {
            let first = start.first().copied().map_or(' ', char::from);
            format!("invalid character '{first}' looking for beginning of value")
        }
        Category::Syntax | Category::Io => error.to_string(),
        Category::Data => format!("proto: {error}"),
    }
}

/// Encodes any message, decodes the one that a method answers with.
pub(super) struct DynamicCodec {
    pub(super) output: MessageDescriptor,
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicCoder;
    type Decoder = DynamicCoder;

    fn encoder(&mut self) -> DynamicCoder {
        DynamicCoder(self.output.clone())
    }

    fn decoder(&mut self) -> DynamicCoder {
        DynamicCoder(self.output.clone())
    }
}

pub(super) struct DynamicCoder(MessageDescriptor);

impl Encoder for DynamicCoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, item: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for DynamicCoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let message = DynamicMessage::decode(self.0.clone(), bytes);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
