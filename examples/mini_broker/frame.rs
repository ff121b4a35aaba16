//! Frames of the wire: where one ends, and what its header says. Decoders take any bytes.
//!
//! ```text
//! i32 length    bytes that follow
//! u32 mark      top byte: kind of header (0 JSON, 1 binary); low 24 bits: bytes of the header
//! header        what is asked, and its fields
//! body          the rest
//! ```
//! The binary header is `i16 code | u8 language | i16 version | i32 opaque | i32 flag | i32 length, remark |
//! i32 length, fields`, and a field `i16 length, name | i32 length, value`. All integers are big-endian.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::request::{Fields, MAX_FIELDS, Request};

/// Bytes of the length and of the mark.
const LENGTH_BYTES: usize = 4;
const MARK_BYTES: usize = 4;

/// Why bytes are no frame. The connection they came on is closed, as RocketMQ does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// The length is negative, too small for a frame, or above the limit.
    Length(i32),
    /// The header is said to be longer than its frame.
    HeaderLength(usize),
    /// Neither JSON nor binary.
    HeaderKind(u8),
    /// The header's text or fields cannot be read.
    Header(String),
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(formatter, "a frame cannot have {length} bytes"),
            Self::HeaderLength(length) => write!(formatter, "a header of {length} bytes is longer than its frame"),
            Self::HeaderKind(kind) => write!(formatter, "there are no headers of kind {kind}"),
            Self::Header(problem) => write!(formatter, "bad header: {problem}"),
        }
    }
}

/// Returns how long the frame is that begins here, its length field included; `None` if too little of it is there.
pub(crate) fn frame_bytes(bytes: &[u8], max_bytes: usize) -> Result<Option<usize>, FrameError> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let whole = usize::try_from(length).map_err(|_| FrameError::Length(length))?.saturating_add(LENGTH_BYTES);
    if whole < LENGTH_BYTES + MARK_BYTES || whole > max_bytes {
        return Err(FrameError::Length(length));
    }
    Ok(Some(whole))
}

/// Decodes one whole frame.
pub(crate) fn decode(frame: &[u8]) -> Result<Request<'_>, FrameError> {
    let (_, rest) = frame.split_at_checked(LENGTH_BYTES).ok_or(FrameError::Length(0))?;
    let (mark, rest) = rest.split_first_chunk::<MARK_BYTES>().ok_or(FrameError::Length(0))?;
    let header_bytes = u32::from_be_bytes(*mark) as usize & 0x00FF_FFFF;
    let (header, body) = rest.split_at_checked(header_bytes).ok_or(FrameError::HeaderLength(header_bytes))?;
    let mut request = match mark[0] {
        0 => serde_json::from_slice(header).map_err(|error| FrameError::Header(error.to_string()))?,
        1 => decode_binary(header)
            .ok_or_else(|| FrameError::Header(format!("its lengths do not fit, or {}", too_many())))?,
        kind => return Err(FrameError::HeaderKind(kind)),
    };
    request.body = body;
    request.frame = frame;
    Ok(request)
}

fn decode_binary(header: &[u8]) -> Option<Request<'_>> {
    let mut input = Input(header);
    let code = i16::from_be_bytes(input.take()?);
    let _language = input.take::<1>()?;
    let _version = input.take::<2>()?;
    let opaque = i32::from_be_bytes(input.take()?);
    let flag = i32::from_be_bytes(input.take()?);
    let _remark = input.long()?;
    let mut inside = Input(input.long()?);
    let mut fields = Fields::default();
    while !inside.0.is_empty() {
        let name = inside.short()?;
        let value = inside.long()?;
        fields.push(String::from_utf8_lossy(name), String::from_utf8_lossy(value))?;
    }
    input.0.is_empty().then_some(Request { code: i32::from(code), opaque, flag, fields, body: &[], frame: &[] })
}

fn too_many() -> String {
    format!("it has more than {MAX_FIELDS} fields")
}

/// Bytes that are taken from the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (first, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(first)
    }

    /// Bytes behind a length of 16 bits.
    fn short(&mut self) -> Option<&'a [u8]> {
        let count = i16::from_be_bytes(self.take()?);
        self.bytes(usize::try_from(count).ok()?)
    }

    /// Bytes behind a length of 32 bits.
    fn long(&mut self) -> Option<&'a [u8]> {
        let count = i32::from_be_bytes(self.take()?);
        self.bytes(usize::try_from(count).ok()?)
    }
}

impl<'de> Deserialize<'de> for Request<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Reads a JSON header: the members that count, in any order; others are passed over.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Request<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a header object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut code, mut opaque, mut flag) = (None, 0, 0);
        let mut fields = Fields::default();
        while let Some(Text(name)) = map.next_key()? {
            match name.as_ref() {
                "code" => code = Some(map.next_value()?),
                "opaque" => opaque = map.next_value()?,
                "flag" => flag = map.next_value()?,
                "extFields" => fields = map.next_value::<Option<Fields<'de>>>()?.unwrap_or_default(),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let code = code.ok_or_else(|| serde::de::Error::missing_field("code"))?;
        Ok(Request { code, opaque, flag, fields, body: &[], frame: &[] })
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        while let Some((Text(name), Text(value))) = map.next_entry()? {
            fields.push(name, value).ok_or_else(|| A::Error::custom(too_many()))?;
        }
        Ok(fields)
    }
}

/// A scalar as text. The C++ client and others send numbers and booleans where Java sends texts. What has no text, as
/// `null`, becomes the empty one.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a scalar")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(if value { "true" } else { "false" })))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(value.to_string())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(value.to_string())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed("")))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        self.visit_unit()
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.visit_unit()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: &str = r#"{"code":105,"extFields":{"topic":"TBW102"},"flag":0,"language":"JAVA","opaque":0,"serializeTypeCurrentRPC":"JSON","version":479}"#;

    /// The same request with a binary header, as RocketMQ's Java client makes it.
    fn binary() -> Vec<u8> {
        let mut frame = vec![0, 0, 0, 0x2A, 1, 0, 0, 0x26, 0, 0x69, 0, 1, 0xDF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        frame.extend([0, 0, 0, 0x11, 0, 5]);
        frame.extend(b"topic");
        frame.extend([0, 0, 0, 6]);
        frame.extend(b"TBW102");
        frame
    }

    fn framed(kind: u8, header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut frame = ((4 + header.len() + body.len()) as u32).to_be_bytes().to_vec();
        frame.extend((u32::from(kind) << 24 | header.len() as u32).to_be_bytes());
        frame.extend(header);
        frame.extend(body);
        frame
    }

    #[test]
    fn both_forms_say_the_same() {
        for frame in [framed(0, JSON.as_bytes(), b""), binary()] {
            assert_eq!(frame_bytes(&frame, 1 << 24), Ok(Some(frame.len())));
            let request = decode(&frame).unwrap();
            assert_eq!((request.code, request.opaque, request.flag), (105, 0, 0));
            assert_eq!(request.fields.text("topic"), Some("TBW102"));
            assert!(request.body.is_empty());
        }
    }

    #[test]
    fn scalars_of_any_kind_are_texts() {
        let header = br#"{"opaque":-7,"extFields":{"d":4,"k":false,"x":null,"f":[1,{"a":2}],"i":"KEYS\u0001k\u0002"},"code":10,"version":[]}
"#;
        let frame = framed(0, header, b"body");
        let request = decode(&frame).unwrap();
        assert_eq!((request.code, request.opaque), (10, -7));
        let texts = ["d", "k", "x", "f", "i"].map(|name| request.fields.text(name));
        assert_eq!(texts, [Some("4"), Some("false"), None, None, Some("KEYS\u{1}k\u{2}")]);
        assert_eq!(request.body, b"body");
    }

    #[test]
    fn lengths_have_limits() {
        assert_eq!(frame_bytes(&[0, 0, 0], 100), Ok(None));
        assert_eq!(frame_bytes(&96_i32.to_be_bytes(), 100), Ok(Some(100)));
        for length in [-1, i32::MIN, i32::MAX, 0, 3, 97] {
            assert_eq!(frame_bytes(&length.to_be_bytes(), 100), Err(FrameError::Length(length)));
        }
        assert_eq!(decode(&framed(2, b"{}", b"")).err(), Some(FrameError::HeaderKind(2)));
        let mut frame = framed(0, b"{}", b"");
        frame[7] = 3;
        assert_eq!(decode(&frame).err(), Some(FrameError::HeaderLength(3)));
    }

    #[test]
    fn shorter_headers_are_refused() {
        for (kind, header) in [(0, JSON.as_bytes().to_vec()), (1, binary()[8..].to_vec())] {
            for have in 0..header.len() {
                assert!(matches!(decode(&framed(kind, &header[..have], b"")), Err(FrameError::Header(_))), "{have}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(kind in 0_u8..3, mut header in proptest::collection::vec(any::<u8>(), 0..80), at in 0_usize..200, byte: u8) {
            let _ = decode(&framed(kind, &header, b"x"));
            let _ = decode(&header);
            let _ = frame_bytes(&header, 100);
            for mut frame in [framed(0, JSON.as_bytes(), b""), binary()] {
                let place = at % frame.len();
                frame[place] = byte;
                let _ = decode(&frame);
            }
            header.clear();
        }
    }
}
