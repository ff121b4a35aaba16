//! Answers, and the requests that the broker itself sends: always with a JSON header, which every client reads.

use std::fmt::{self, Display, Write};

use mqlog::MessageView;

use crate::codes::say;
use crate::request::Refusal;

/// The version that answers claim: RocketMQ 5.3.3. Below 4.1 clients would refuse some subscriptions.
const VERSION: i32 = 479;
/// What a head has beside its texts.
const HEAD_BYTES: usize = 160;
/// Bit of `flag`: this is an answer.
const IS_ANSWER: i32 = 1;
/// Bit of `flag`: no answer is wanted.
const IS_ONE_WAY: i32 = 2;

/// What a request gets.
#[derive(Debug)]
pub(crate) struct Answer {
    code: i32,
    remark: String,
    /// The members of `extFields`, as JSON.
    fields: String,
    pub(crate) body: Body,
}

/// What follows the header.
#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Vec<u8>),
    /// Records as they stand in the log, one after the other.
    Records(Vec<MessageView>),
}

impl Body {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Records(records) => records.iter().map(|record| record.bytes().len()).sum(),
        }
    }
}

impl Answer {
    pub(crate) fn new(code: i32) -> Self {
        Self { code, remark: String::new(), fields: String::new(), body: Body::Bytes(Vec::new()) }
    }

    pub(crate) fn ok() -> Self {
        Self::new(say::SUCCESS)
    }

    /// Adds a field.
    pub(crate) fn field(mut self, name: &str, value: impl Display) -> Self {
        push_member(&mut self.fields, name, value);
        self
    }

    pub(crate) fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    /// How long its frame is, roughly.
    pub(crate) fn bytes(&self) -> usize {
        HEAD_BYTES + self.remark.len() + self.fields.len() + self.body.len()
    }

    /// The frame up to its body.
    pub(crate) fn head(&self, opaque: i32) -> Vec<u8> {
        head((self.code, opaque, IS_ANSWER), &self.remark, &self.fields, self.body.len())
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self { remark: refusal.remark, ..Self::new(refusal.code) }
    }
}

/// A request of the broker that wants no answer, with one field.
pub(crate) fn one_way(code: i32, opaque: i32, name: &str, value: &str) -> Vec<u8> {
    let mut fields = String::new();
    push_member(&mut fields, name, value);
    head((code, opaque, IS_ONE_WAY), "", &fields, 0)
}

/// Writes length, mark and header; the members in the order in which Java writes them.
fn head((code, opaque, flag): (i32, i32, i32), remark: &str, fields: &str, body_bytes: usize) -> Vec<u8> {
    let mut text = String::with_capacity(HEAD_BYTES + fields.len() + remark.len());
    text.push_str("\0\0\0\0\0\0\0\0{");
    let mut member = |name: &str, value: &dyn Display| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\"{name}\":{value},");
    };
    member("code", &code);
    if !fields.is_empty() {
        member("extFields", &format_args!("{{{fields}}}"));
    }
    member("flag", &flag);
    member("language", &"\"JAVA\"");
    member("opaque", &opaque);
    if !remark.is_empty() {
        member("remark", &format_args!("\"{}\"", Escaped(remark)));
    }
    member("serializeTypeCurrentRPC", &"\"JSON\"");
    let _ = write!(text, "\"version\":{VERSION}}}");
    let mut head = text.into_bytes();
    let header_bytes = (head.len() - 8) as u32;
    let length = 4 + header_bytes + body_bytes as u32;
    head[..4].copy_from_slice(&length.to_be_bytes());
    // The top byte says JSON.
    head[4..8].copy_from_slice(&(header_bytes & 0x00FF_FFFF).to_be_bytes());
    head
}

fn push_member(fields: &mut String, name: &str, value: impl Display) {
    let comma = if fields.is_empty() { "" } else { "," };
    let _ = write!(fields, "{comma}\"{name}\":\"{}\"", Escaped(value));
}

/// Shows a value as the inside of a JSON text.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(formatter), "{}", self.0)
    }
}

/// How long a text is as the inside of a JSON text.
pub(crate) fn escaped_bytes(text: &str) -> usize {
    let escaped = |byte| match byte {
        b'"' | b'\\' => 2,
        0..b' ' => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let is_special = |character: char| matches!(character, '"' | '\\') || character < ' ';
        let mut rest = text;
        while let Some(at) = rest.find(is_special) {
            self.0.write_str(&rest[..at])?;
            let (special, behind) = rest[at..].split_at(1);
            match special {
                "\"" | "\\" => write!(self.0, "\\{special}")?,
                _ => write!(self.0, "\\u{:04x}", special.as_bytes()[0])?,
            }
            rest = behind;
        }
        self.0.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::frame::{decode, frame_bytes};

    fn header(frame: &[u8]) -> Value {
        serde_json::from_slice(&frame[8..]).unwrap()
    }

    #[test]
    fn an_answer_repeats_the_number_and_escapes_its_texts() {
        let answer = Answer::from(Refusal::new(13, "\"\\\n\u{1}ü")).field("a", "\n\u{2}").field("b", 7);
        let head = answer.head(-5);
        assert_eq!(frame_bytes(&head, 1000), Ok(Some(head.len())));
        let expected = json!({
            "code": 13, "extFields": {"a": "\n\u{2}", "b": "7"}, "flag": 1, "language": "JAVA", "opaque": -5,
            "remark": "\"\\  ü", "serializeTypeCurrentRPC": "JSON", "version": 479,
        });
        assert_eq!(header(&head), expected);
        for text in ["\"\\\n\u{1}ü", "", "plain"] {
            assert_eq!(escaped_bytes(text), Escaped(text).to_string().len());
        }
    }

    #[test]
    fn what_the_broker_asks_is_read_as_a_request() {
        let frame = one_way(40, 3, "consumerGroup", "g");
        let request = decode(&frame).unwrap();
        assert!(request.is_one_way() && !request.is_answer());
        assert_eq!((request.code, request.fields.text("consumerGroup")), (40, Some("g")));
    }

    #[test]
    fn the_length_counts_the_body() {
        let answer = Answer::ok().body(Body::Bytes(vec![0; 100]));
        let head = answer.head(1);
        assert_eq!(frame_bytes(&head, 1000), Ok(Some(head.len() + 100)));
    }
}
