//! RocketMQ's files in `config/`: read as RocketMQ writes them, written so that a crash leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// The folder of a store's configuration files.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    folder: PathBuf,
}

impl Config {
    pub(crate) fn new(store: &Path) -> io::Result<Self> {
        let folder = store.join("config");
        fs::create_dir_all(&folder)?;
        if cfg!(unix) {
            File::open(store)?.sync_all()?;
        }
        Ok(Self { folder })
    }

    /// Reads a file, or its older copy where RocketMQ left the file empty or torn; `None` if there is neither.
    ///
    /// A file that cannot be read, or says something else than it should, is an error that names the place: starting
    /// without it would lose what it says.
    pub(crate) fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, String> {
        let mut problem = None;
        for path in [self.folder.join(name), self.folder.join(format!("{name}.bak"))] {
            let failed = |error: String| format!("{}: {error}", path.display());
            match fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => match parse(&text) {
                    Ok(value) => return Ok(Some(value)),
                    Err(error) if error.inner().classify() == Category::Data => return Err(failed(error.to_string())),
                    Err(error) => problem = problem.or(Some(failed(error.to_string()))),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        problem.map_or(Ok(None), Err)
    }

    /// Writes a file: beside the old one, synced, then in its place, and the folder synced.
    pub(crate) fn save(&self, name: &str, text: &str) -> io::Result<()> {
        let new = self.folder.join(format!("{name}.tmp"));
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, self.folder.join(name))?;
        if cfg!(unix) {
            File::open(&self.folder)?.sync_all()?;
        }
        Ok(())
    }
}

/// Reads an object as RocketMQ writes it: names of members may be bare numbers.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, serde_path_to_error::Error<serde_json::Error>> {
    let quoted = quote_bare_names(text);
    let nowhere = || serde_path_to_error::Track::new().path();
    // A type with defaults would be read from an empty array, too.
    if quoted.trim_start().starts_with('[') {
        let error = serde::de::Error::custom("an array where an object should be");
        return Err(serde_path_to_error::Error::new(nowhere(), error));
    }
    if let Ok(value) = serde_json::from_str(&quoted) {
        return Ok(value);
    }
    // Once more, slower, to find the place.
    let mut deserializer = serde_json::Deserializer::from_str(&quoted);
    let value = serde_path_to_error::deserialize(&mut deserializer)?;
    deserializer.end().map_err(|error| serde_path_to_error::Error::new(nowhere(), error))?;
    Ok(value)
}

fn quote_bare_names(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + text.len() / 8);
    let (mut in_text, mut is_escaped, mut may_be_name) = (false, false, false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if in_text {
            quoted.push(character);
            in_text = is_escaped || character != '"';
            is_escaped = character == '\\' && !is_escaped;
            continue;
        }
        if may_be_name && (character.is_ascii_digit() || character == '-') {
            let mut word = String::from(character);
            while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                word.push(digit);
            }
            while characters.next_if(|next| next.is_ascii_whitespace()).is_some() {}
            // In an array it is an element and stays as it is.
            if characters.peek() == Some(&':') {
                quoted.extend(["\"", &word, "\""]);
            } else {
                quoted.push_str(&word);
            }
            may_be_name = false;
            continue;
        }
        in_text = character == '"';
        may_be_name = matches!(character, '{' | ',') || (may_be_name && character.is_ascii_whitespace());
        quoted.push(character);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn bare_numbers_are_names() {
        let text = "{\"t\":{\"a@b\":{0:12, 1 :7,\n\t-1:3},\"{5:\\\"6\":[1,2, 3]},\"n\":-4}";
        let expected = json!({"t": {"a@b": {"0": 12, "1": 7, "-1": 3}, "{5:\"6": [1, 2, 3]}, "n": -4});
        assert_eq!(parse::<Value>(text).unwrap(), expected);
    }

    #[test]
    fn a_file_replaces_the_old_one_and_a_torn_one_has_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path()).unwrap();
        let load = || config.load::<Value>("a.json");
        assert_eq!(load(), Ok(None));
        config.save("a.json", "{1:2}").unwrap();
        config.save("a.json", "{1:3}").unwrap();
        assert_eq!(load(), Ok(Some(json!({"1": 3}))));
        assert_eq!(fs::read_dir(folder.path().join("config")).unwrap().count(), 1);
        config.save("a.json", "{1:").unwrap();
        assert!(load().unwrap_err().contains("a.json"));
        config.save("a.json.bak", "{1:2}").unwrap();
        assert_eq!(load(), Ok(Some(json!({"1": 2}))));
        config.save("a.json", "{} {}").unwrap();
        assert_eq!(load(), Ok(Some(json!({"1": 2}))));
    }

    #[test]
    fn a_file_of_another_shape_is_an_error_that_names_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new(folder.path()).unwrap();
        config.save("a.json", r#"{"t":{"a@b":{0:"5"}}}"#).unwrap();
        config.save("a.json.bak", "{}").unwrap();
        let error = config.load::<BTreeMap<String, BTreeMap<String, BTreeMap<i32, i64>>>>("a.json").unwrap_err();
        assert!(error.contains("a.json: t.a@b.0: invalid type"), "{error}");
    }
}
