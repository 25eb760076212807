use std::any::TypeId;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::{ConfigError, Environment, KafkaProperties, Secret, secret};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The command line; the flag.
    Flag(String),
    /// A variable of the process.
    Environment,
    /// A line of `.env`.
    DotEnv,
    /// A file; the variable that names it.
    File(String),
    /// The program.
    Default,
    /// Nowhere: the setting has no value.
    Unset,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment => f.write_str("environment"),
            Self::DotEnv => f.write_str(".env"),
            Self::File(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
            Self::Unset => f.write_str("not set"),
        }
    }
}

/// One setting as it was found, for people: secrets are redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its variable.
    pub name: String,
    /// What is shown of its value.
    pub shown: String,
    /// Where the value came from.
    pub source: Source,
    pub(super) flag: String,
}

impl Setting {
    /// For an error about it: `NAME=value (source)`.
    pub(super) fn given(&self) -> String {
        format!("{}={} ({})", self.name, self.shown, self.source)
    }
}

/// Its line for `herald config`: `NAME=value  # source`.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}  # {}", self.name, self.shown, self.source)
    }
}

/// The settings of a program as found, and the flags that hand what isn't on the command line to clap.
pub(super) struct Found {
    pub(super) settings: Vec<Setting>,
    pub(super) flags: Vec<OsString>,
}

/// `matches` are those of the bare command line.
pub(super) fn find(program: &Command, matches: &ArgMatches, environment: &Environment) -> Result<Found, ConfigError> {
    let mut found = Found { settings: Vec::new(), flags: Vec::new() };
    for arg in program.get_arguments() {
        let (Some(name), Some(flag)) = (variable(arg), arg.get_long()) else {
            continue;
        };
        let (value, source) = if let Some(value) = given_as_flag(arg, matches) {
            (Some(value), Source::Flag(flag.to_owned()))
        } else if let Some((value, source)) = look_up(name, is_secret(arg), environment)? {
            found.flags.push(format!("--{flag}={value}").into());
            (Some(value), source)
        } else {
            let default = joined(arg.get_default_values().iter().map(|value| value.as_os_str()));
            match default {
                Some(value) => (Some(value), Source::Default),
                None => (None, Source::Unset),
            }
        };
        found.settings.push(Setting {
            name: name.to_owned(),
            shown: value.map_or_else(String::new, |value| show(arg, &value)),
            source,
            flag: flag.to_owned(),
        });
    }
    Ok(found)
}

/// The variable that sets an argument.
pub(super) fn variable(arg: &Arg) -> Option<&str> {
    arg.get_env().and_then(|name| name.to_str())
}

/// Secret by its type, so that no declaration can forget it.
pub(super) fn is_secret(arg: &Arg) -> bool {
    let value_type = arg.get_value_parser().type_id();
    value_type == TypeId::of::<Secret>() || value_type == TypeId::of::<KafkaProperties>()
}

fn show(arg: &Arg, value: &str) -> String {
    let value_type = arg.get_value_parser().type_id();
    if value.is_empty() {
        String::new()
    } else if value_type == TypeId::of::<Secret>() {
        secret::redact(value)
    } else if value_type == TypeId::of::<KafkaProperties>() {
        let properties = value.parse::<KafkaProperties>();
        properties.map_or_else(|_| "***".to_owned(), |properties| properties.to_string())
    } else {
        secret::without_login(value)
    }
}

fn given_as_flag(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = arg.get_id().as_str();
    let given = matches.value_source(id) == Some(ValueSource::CommandLine);
    given.then(|| matches.get_raw(id).and_then(joined).unwrap_or_default())
}

fn joined<'a>(values: impl Iterator<Item = &'a std::ffi::OsStr>) -> Option<String> {
    let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn look_up(name: &str, secret: bool, environment: &Environment) -> Result<Option<(String, Source)>, ConfigError> {
    let value = environment.get(name);
    let file_name = format!("{name}_FILE");
    let file = secret.then(|| environment.get(&file_name)).flatten();
    match (value, file) {
        (Some((_, name_source)), Some((_, file_source))) => Err(ConfigError::Both {
            name: name.to_owned(),
            name_source: name_source.to_string(),
            file_source: file_source.to_string(),
        }),
        (Some((value, source)), None) => Ok(Some((value.to_owned(), source))),
        (None, Some((path, source))) => match read_secret(Path::new(path)) {
            Ok(value) => Ok(Some((value, Source::File(file_name)))),
            Err(reason) => {
                Err(ConfigError::File { name: file_name, name_source: source.to_string(), path: path.into(), reason })
            }
        },
        (None, None) => Ok(None),
    }
}

/// Without the white space around it: editors end a file with a line feed.
fn read_secret(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    match text.trim() {
        "" => Err("the file is empty".to_owned()),
        value => Ok(value.to_owned()),
    }
}
