//! A request as its handler sees it, and the two ways it can end early.

use std::borrow::Cow;
use std::str::FromStr;

use mqlog::Error;

use crate::codes::say;

/// Names of groups and clients are kept, and none is longer.
const MAX_NAME_BYTES: usize = 255;
const MAX_REMARK_BYTES: usize = 1000;
/// Bit of `flag`: the frame is an answer.
const IS_ANSWER: i32 = 1;
/// Bit of `flag`: no answer is wanted.
const IS_ONE_WAY: i32 = 2;

/// What a frame asks for.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) code: i32,
    /// The client's number for the request; its answer repeats it.
    pub(crate) opaque: i32,
    pub(crate) flag: i32,
    pub(crate) fields: Fields<'a>,
    pub(crate) body: &'a [u8],
    /// All of it, as it came.
    pub(crate) frame: &'a [u8],
}

impl Request<'_> {
    pub(crate) fn is_answer(&self) -> bool {
        self.flag & IS_ANSWER != 0
    }

    pub(crate) fn is_one_way(&self) -> bool {
        self.flag & IS_ONE_WAY != 0
    }
}

/// The typed header: names and values. An empty value is as good as none.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// No request has as many fields. In memory each takes far more than its six bytes on the wire.
pub(crate) const MAX_FIELDS: usize = 1024;

impl<'a> Fields<'a> {
    /// Adds a field, unless there are too many.
    pub(crate) fn push(&mut self, name: Cow<'a, str>, value: Cow<'a, str>) -> Option<()> {
        (self.0.len() < MAX_FIELDS).then(|| self.0.push((name, value)))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(present, _)| present == name);
        found.map(|(_, value)| value.as_ref()).filter(|value| !value.is_empty())
    }

    pub(crate) fn required(&self, name: &'static str) -> Result<&str, Refusal> {
        self.text(name).ok_or_else(|| Refusal::new(say::SYSTEM_ERROR, format!("the field {name} is missing")))
    }

    /// The consumer group. Its name is kept, so it has a limit: the one of RocketMQ's clients.
    pub(crate) fn group(&self) -> Result<&str, Refusal> {
        let name = self.required("consumerGroup")?;
        check_name("consumerGroup", name).map(|()| name)
    }

    pub(crate) fn number<T: FromStr>(&self, name: &'static str) -> Result<T, Refusal> {
        parse(name, self.required(name)?)
    }

    pub(crate) fn number_or<T: FromStr>(&self, name: &'static str, default: T) -> Result<T, Refusal> {
        self.text(name).map_or(Ok(default), |value| parse(name, value))
    }

    /// The C++ client writes `1` for true.
    pub(crate) fn is_true(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true"))
    }
}

/// Refuses a name that is longer than RocketMQ's clients allow for a group.
pub(crate) fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    let remark = || format!("{field} has {} bytes, {MAX_NAME_BYTES} are allowed", name.len());
    if name.len() > MAX_NAME_BYTES { Err(Refusal::new(say::SYSTEM_ERROR, remark())) } else { Ok(()) }
}

fn parse<T: FromStr>(name: &str, value: &str) -> Result<T, Refusal> {
    value.parse().map_err(|_| Refusal::new(say::SYSTEM_ERROR, format!("the field {name} cannot be {value}")))
}

/// Why a request got something else than what it asked for: the answer's code and remark.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: i32,
    pub(crate) remark: String,
}

impl Refusal {
    /// A remark may repeat what a client sent: what is too long of it is left out, and so are control characters, each of
    /// which would become six.
    pub(crate) fn new(code: i32, remark: impl Into<String>) -> Self {
        let mut remark = remark.into().replace(|character: char| character < ' ', " ");
        if remark.len() > MAX_REMARK_BYTES {
            let end = (0..=MAX_REMARK_BYTES).rev().find(|end| remark.is_char_boundary(*end));
            remark.truncate(end.unwrap_or(0));
            remark.push_str("...");
        }
        Self { code, remark }
    }
}

/// What is answered instead of something large, when the answers of all connections take the memory that they may.
pub(crate) fn too_much() -> Refusal {
    Refusal::new(say::SYSTEM_BUSY, "[TOO_MANY_REQUESTS] too many answers are not read yet, try again later")
}

/// What RocketMQ answers when its store says the same.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::TooLarge { .. } | Error::InvalidMessage { .. } => say::MESSAGE_ILLEGAL,
            error if error.is_disk_full() => {
                return Self::new(
                    say::SERVICE_NOT_AVAILABLE,
                    format!("service not available now, the broker's disk is full: {error}"),
                );
            }
            _ => say::SYSTEM_ERROR,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn failures_of_the_store_get_rocketmqs_codes() {
        let full = Error::DiskFull {
            path: "commitlog/0".into(),
            needed_bytes: 1,
            source: Arc::new(io::Error::from(io::ErrorKind::StorageFull)),
        };
        let poisoned = Error::Poisoned { source: Arc::new(full.clone()) };
        let refusals = [
            (Error::TooLarge { field: "body", value: 2, limit: 1 }, say::MESSAGE_ILLEGAL),
            (full, say::SERVICE_NOT_AVAILABLE),
            (poisoned, say::SYSTEM_ERROR),
            (Error::Closed, say::SYSTEM_ERROR),
        ];
        for (error, code) in refusals {
            let cause = error.to_string();
            let refusal = Refusal::from(error);
            assert_eq!(refusal.code, code);
            assert!(refusal.remark.contains(&cause), "{}", refusal.remark);
        }
    }
}
