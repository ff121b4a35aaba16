//! Names of new index files: the time in ms, as digits.

use crate::format::names::parse_index_name;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How far the westernmost time zone is behind UTC.
const WESTERNMOST_MS: i64 = 12 * 60 * 60 * 1000;
/// Names from this one on are nobody's: numbers above them would soon have more digits.
const TOO_LATE: u64 = 99_990_000_000_000_000;

/// Returns the number that names an index file; `None` for any other name.
pub(super) fn parse(name: &str) -> Option<u64> {
    parse_index_name(name).filter(|name| *name < TOO_LATE)
}

/// Returns `yyyyMMddHHmmssSSS` of a time, raised until it is above the newest name: small files fill within a
/// millisecond in a rebuild.
///
/// RocketMQ takes the local time, and nothing reads a name as a time: only the order counts. The time here is that of
/// the westernmost zone, so that a file RocketMQ makes later sorts behind ours wherever the broker runs.
pub(super) fn next(now_ms: i64, newest: Option<u64>) -> u64 {
    let ms = (now_ms - WESTERNMOST_MS).clamp(0, 250_000_000_000_000);
    let (year, month, day) = civil(ms / DAY_MS);
    let (hour, minute, second) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1000 % 60);
    let digits = [(month, 100), (day, 100), (hour, 100), (minute, 100), (second, 100), (ms % 1000, 1000)];
    let now = digits.iter().fold(year, |time, (value, places)| time * places + value).cast_unsigned();
    newest.map_or(now, |newest| now.max(newest + 1))
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so that the day that some years have comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_time() {
        for (ms, name) in [
            (0, "19700101000000000"),
            (951_782_400_000, "20000229000000000"),
            (1_695_128_759_007, "20230919130559007"),
            (4_107_542_399_999, "21000228235959999"),
        ] {
            assert_eq!(next(ms + WESTERNMOST_MS, None).to_string(), name);
        }
    }

    #[test]
    fn a_name_is_above_the_newest() {
        assert_eq!(next(0, parse("20230919130559999")).to_string(), "20230919130560000");
        let last = next(i64::MAX, None);
        assert_eq!(parse(&last.to_string()), Some(last));
    }

    #[test]
    fn other_names_are_nobodys() {
        for name in ["", "abort", "2023091913055900", "202309191305590071", "2023091913055900x", "99990000000000000"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
