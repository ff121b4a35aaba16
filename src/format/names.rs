//! Names of files and folders: written and read side by side.

/// The longest name of a folder that common file systems take.
pub const MAX_FOLDER_NAME_BYTES: usize = 255;

/// Digits of a log or queue file's name.
const OFFSET_DIGITS: usize = 20;
/// Digits of an index file's name.
const TIME_DIGITS: usize = 17;

/// Returns the name of the log or queue file whose first byte is at `base_offset`: 20 digits.
///
/// # Examples
///
/// ```
/// use mqlog::format::names::{log_file_name, parse_log_file_name};
/// assert_eq!(log_file_name(1_073_741_824), "00000000001073741824");
/// assert_eq!(parse_log_file_name("00000000001073741824"), Some(1_073_741_824));
/// assert_eq!(parse_log_file_name("1073741824"), None);
/// ```
#[doc(alias = "offset2FileName")]
pub fn log_file_name(base_offset: u64) -> String {
    format!("{base_offset:0OFFSET_DIGITS$}")
}

/// Returns the offset that names a log or queue file, or `None` if the name is none.
pub fn parse_log_file_name(name: &str) -> Option<u64> {
    parse_digits(name, OFFSET_DIGITS).filter(|base_offset| *base_offset <= i64::MAX as u64)
}

/// Returns the name of the index file made at a local time, given as the number `yyyyMMddHHmmssSSS`.
///
/// # Panics
///
/// If `time` has more than 17 digits.
///
/// # Examples
///
/// ```
/// use mqlog::format::names::{index_file_name, parse_index_name};
/// assert_eq!(index_file_name(2025_09_19_13_05_59_007), "20250919130559007");
/// assert_eq!(parse_index_name("20250919130559007"), Some(2025_09_19_13_05_59_007));
/// ```
pub fn index_file_name(time: u64) -> String {
    assert!(time < 10_u64.pow(TIME_DIGITS as u32), "a local time has 17 digits");
    format!("{time:0TIME_DIGITS$}")
}

/// Returns the number that names an index file, or `None` if the name is none.
pub fn parse_index_name(name: &str) -> Option<u64> {
    parse_digits(name, TIME_DIGITS)
}

fn parse_digits(name: &str, digits: usize) -> Option<u64> {
    let is_number = name.len() == digits && name.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| name.parse().ok()).flatten()
}

/// Tells whether a topic or light queue of this name can have a folder.
///
/// The empty name, `.`, `..`, a name with `/` or NUL and one of more than 255 bytes cannot.
///
/// # Examples
///
/// ```
/// use mqlog::format::names::is_folder_name;
/// assert!(is_folder_name("%RETRY%group"));
/// assert!(!is_folder_name("..") && !is_folder_name("a/b") && !is_folder_name(""));
/// ```
pub fn is_folder_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= MAX_FOLDER_NAME_BYTES && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn other_names_are_none() {
        for name in ["", "0", "lock", "0000000000000000000a", "+0000000000000000001", "99999999999999999999"] {
            assert_eq!(parse_log_file_name(name), None, "{name}");
            assert_eq!(parse_index_name(name), None, "{name}");
        }
        assert_eq!(parse_log_file_name("09223372036854775808"), None);
        assert_eq!(parse_log_file_name("09223372036854775807"), Some(i64::MAX as u64));
    }

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for name in ["", ".", "..", "/", "a/b", "/a", "a\0"] {
            assert!(!is_folder_name(name), "{name:?}");
        }
        for name in ["...", "a", "%LMQ%a", "..a", "主题"] {
            assert!(is_folder_name(name), "{name:?}");
        }
        assert!(is_folder_name(&"a".repeat(255)) && !is_folder_name(&"a".repeat(256)));
    }

    proptest! {
        #[test]
        fn names_come_back(base_offset in 0..=i64::MAX as u64, time in 0..100_000_000_000_000_000_u64) {
            prop_assert_eq!(parse_log_file_name(&log_file_name(base_offset)), Some(base_offset));
            prop_assert_eq!(parse_index_name(&index_file_name(time)), Some(time));
        }
    }
}
