use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::ConfigError;
use super::settings::Source;

/// The variables that settings are read from. An empty one counts as unset.
#[derive(Clone, Default)]
pub struct Environment {
    process: BTreeMap<String, String>,
    dotenv: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of this process and those of `.env` in the working directory, if there is one.
    ///
    /// # Errors
    /// `.env` can't be read, or a variable of ours is not UTF-8.
    pub fn load() -> Result<Self, ConfigError> {
        let dotenv = match std::fs::read(Path::new(".env")) {
            Ok(text) => parse_dotenv(&text)?,
            Err(error) if error.kind() == ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(ConfigError::DotEnv(error.to_string())),
        };
        Ok(Self::new(unicode(std::env::vars_os())?, dotenv))
    }

    /// From the variables of a process and of a `.env` file; the process's come first.
    pub fn new(process: BTreeMap<String, String>, dotenv: BTreeMap<String, String>) -> Self {
        let set = |variables: BTreeMap<String, String>| {
            variables.into_iter().filter(|(_, value)| !value.is_empty()).collect()
        };
        Self { process: set(process), dotenv: set(dotenv) }
    }

    pub(super) fn get(&self, name: &str) -> Option<(&str, Source)> {
        let process = self.process.get(name).map(|value| (&**value, Source::Environment));
        process.or_else(|| self.dotenv.get(name).map(|value| (&**value, Source::DotEnv)))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&str, Source)> {
        let process = self.process.keys().map(|name| (&**name, Source::Environment));
        process.chain(self.dotenv.keys().map(|name| (&**name, Source::DotEnv)))
    }
}

fn unicode(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut unicode = BTreeMap::new();
    for (name, value) in variables {
        let Ok(name) = name.into_string() else {
            continue;
        };
        match value.into_string() {
            Ok(value) => {
                unicode.insert(name, value);
            }
            Err(_) if name.starts_with("HERALD_") || name.starts_with("DATABASE_URL") => {
                return Err(ConfigError::NotUnicode(name));
            }
            Err(_) => {}
        }
    }
    Ok(unicode)
}

/// The first of two lines with one name holds, as it does where `.env` is loaded into the environment.
fn parse_dotenv(text: &[u8]) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut variables = BTreeMap::new();
    for line in dotenvy::from_read_iter(io::Cursor::new(text)) {
        let (name, value) = line.map_err(|error| {
            ConfigError::DotEnv(match error {
                // The line itself may hold a secret.
                dotenvy::Error::LineParse(line, _) => match line.split_once('=') {
                    Some((name, _)) => format!("the line of {} can't be read", name.trim()),
                    None => "a line is not NAME=value".to_owned(),
                },
                other => other.to_string(),
            })
        })?;
        variables.entry(name).or_insert(value);
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_dotenv_file_has_quotes_comments_and_first_lines_that_hold() {
        let text = b"# local\nHERALD_A='x y'\nexport HERALD_B=2\nHERALD_B=3\nHERALD_C=\n";
        let variables = parse_dotenv(text).unwrap();
        let got: Vec<_> = variables.iter().map(|(n, v)| (&**n, &**v)).collect();
        assert_eq!(got, [("HERALD_A", "x y"), ("HERALD_B", "2"), ("HERALD_C", "")]);
    }

    #[test]
    fn a_bad_line_of_a_dotenv_file_is_named_without_its_value() {
        for (text, reason) in
            [("HERALD_TOKEN='s3cret", "the line of HERALD_TOKEN can't be read"), ("s3cret", "a line is not NAME=value")]
        {
            let error = parse_dotenv(text.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!(".env: {reason}"));
        }
    }

    #[test]
    fn only_a_variable_of_ours_must_be_utf_8() {
        let variable = |name: &str| (OsString::from(name), OsString::from_vec(vec![0xff]));
        assert!(unicode([variable("PS1")].into_iter()).unwrap().is_empty());
        let error = unicode([variable("HERALD_A")].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "HERALD_A (environment) is not UTF-8");
    }
}
