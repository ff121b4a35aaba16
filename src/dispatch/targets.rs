//! Where a record goes: which entries it gets in which queues. RocketMQ's rules, in one place.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::format::java_hash::tags_code;
use crate::format::names::is_folder_name;
use crate::format::properties::{
    DELAY, INNER_BASE, INNER_MULTI_DISPATCH, INNER_MULTI_QUEUE_OFFSET, INNER_NUM, SCHEDULE_TOPIC,
};
use crate::format::record::{RecordView, SysFlag, Transaction};

/// Names with this prefix are light queues with the number 0.
const LIGHT_PREFIX: &str = "%LMQ%";
/// RocketMQ's delay for a level that its table does not have.
const UNKNOWN_LEVEL_MS: i64 = 1_000;

/// RocketMQ's delay levels, 1 second to 2 hours.
pub(crate) const DEFAULT_DELAY_LEVELS: &str = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h";

/// How long each delay level waits, from level 1 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DelayLevels(Vec<i64>);

impl DelayLevels {
    /// Reads RocketMQ's text: numbers with a unit of `s`, `m`, `h` or `d`, separated by spaces.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let level = |word: &str| {
            let unit = word.chars().last()?;
            let number: i64 = word.strip_suffix(unit)?.parse().ok()?;
            let unit_ms = match unit {
                's' => 1_000,
                'm' => 60_000,
                'h' => 3_600_000,
                'd' => 86_400_000,
                _ => return None,
            };
            number.checked_mul(unit_ms)
        };
        let levels = text.split_whitespace().map(|word| {
            let reason = format!("{word:?} is no delay such as 10s, 5m, 1h or 2d");
            level(word).ok_or(Error::InvalidOption { option: "delay_levels", reason })
        });
        levels.collect::<Result<_>>().map(Self)
    }

    fn delay_ms(&self, level: usize) -> Option<i64> {
        let level = level.min(self.0.len());
        (level > 0).then(|| self.0[level - 1])
    }
}

/// One entry that a record gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) topic: Cow<'a, str>,
    pub(crate) queue_id: i32,
    pub(crate) queue_offset: u64,
    /// How many messages the entry stands for; more than one only in an inner batch.
    pub(crate) count: u16,
    /// Does it belong to a batch queue?
    pub(crate) is_batch: bool,
}

/// The entry that a record gets in the queue of its topic; none for prepared and rolled-back ones, and none if the name
/// could not be a folder.
pub(crate) fn own_target<'a>(record: &RecordView<'a>) -> Option<Target<'a>> {
    let topic = record.topic();
    if !is_dispatched(record) || !is_folder_name(&topic) {
        return None;
    }
    let (queue_offset, count, is_batch) = inner_batch(record).unwrap_or((record.queue_offset(), 1, false));
    Some(Target { topic, queue_id: record.queue_id(), queue_offset, count, is_batch })
}

fn is_dispatched(record: &RecordView<'_>) -> bool {
    !matches!(record.sys_flag().transaction(), Transaction::Prepared | Transaction::Rollback)
}

/// Calls `visit` for every queue entry that a record gets; none for prepared and rolled-back ones. Returns how many
/// names could not be a folder, and so got none.
pub(crate) fn for_each_target(record: &RecordView<'_>, mut visit: impl FnMut(Target<'_>)) -> u64 {
    if !is_dispatched(record) {
        return 0;
    }
    let own = own_target(record);
    let mut refused = u64::from(own.is_none());
    own.into_iter().for_each(&mut visit);
    let properties = record.properties();
    let named = properties.get_str(INNER_MULTI_DISPATCH).zip(properties.get_str(INNER_MULTI_QUEUE_OFFSET));
    let Some((names, offsets)) = named else { return refused };
    for (name, offset) in names.split(',').zip(offsets.split(',')) {
        let Ok(queue_offset) = offset.parse() else { continue };
        if !is_folder_name(name) {
            refused += 1;
            continue;
        }
        let queue_id = light_queue_id(name, record.queue_id());
        visit(Target { topic: Cow::Borrowed(name), queue_id, queue_offset, count: 1, is_batch: false });
    }
    refused
}

/// The number of a light queue that a message of queue `queue_id` names.
pub(crate) fn light_queue_id(name: &str, queue_id: i32) -> i32 {
    if name.starts_with(LIGHT_PREFIX) { 0 } else { queue_id }
}

/// First queue offset and number of messages of an inner batch.
fn inner_batch(record: &RecordView<'_>) -> Option<(u64, u16, bool)> {
    if !record.sys_flag().has(SysFlag::INNER_BATCH) {
        return None;
    }
    let properties = record.properties();
    // The entry's count has 15 bits; a batch of more is nothing that RocketMQ could have stored.
    let is_count = |count: &u16| (1..=i16::MAX as u16).contains(count);
    let count: u16 = properties.get_str(INNER_NUM)?.parse().ok().filter(is_count)?;
    let base = properties.get_str(INNER_BASE).and_then(|base| base.parse().ok()).unwrap_or(record.queue_offset());
    Some((base, count, true))
}

/// The third field of a record's entries: the hash of its tags, or when it is to be delivered.
pub(crate) fn tags_code_of(record: &RecordView<'_>, levels: &DelayLevels) -> i64 {
    if record.topic_bytes() == SCHEDULE_TOPIC.as_bytes()
        && let Some(level) = record.properties().get_str(DELAY).and_then(|level| level.parse::<i32>().ok())
        && let Ok(level) = usize::try_from(level)
        && level > 0
    {
        // A time that wrapped round would look like an extension's address.
        return record.store_ms().saturating_add(levels.delay_ms(level).unwrap_or(UNKNOWN_LEVEL_MS));
    }
    record.tags().map_or(0, |tags| tags_code(&tags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_levels_are_those_of_rocketmq() {
        let levels = DelayLevels::parse(DEFAULT_DELAY_LEVELS).expect("the default is valid");
        assert_eq!(levels.0.len(), 18);
        assert_eq!((levels.delay_ms(1), levels.delay_ms(18)), (Some(1_000), Some(7_200_000)));
        assert_eq!((levels.delay_ms(0), levels.delay_ms(99)), (None, Some(7_200_000)));
    }

    #[test]
    fn a_level_without_unit_is_refused() {
        for text in ["10", "s", "1x", "1s 2", "\u{e9}"] {
            assert!(DelayLevels::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_light_queue_has_the_number_0() {
        assert_eq!((light_queue_id("%LMQ%a", 7), light_queue_id("plain", 7)), (0, 7));
    }
}
