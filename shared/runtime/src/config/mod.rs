//! Settings: flags with `HERALD_…` variables, read once, into types.
//!
//! A setting is a clap argument with `long` and `env`, on the program that uses it (not a global one). Its value is
//! the first of: the flag, the variable, the variable in `.env`, for a secret the file that `<variable>_FILE` names,
//! the default. clap reads a variable by itself and then can't say where a wrong value came from, knows no `.env` and
//! no files, and takes an empty variable for a value: so [`parse`] hides the variables from it and passes what it
//! finds as flags.

mod environment;
mod error;
mod groups;
mod known;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, Parser};

pub use environment::Environment;
pub use error::ConfigError;
pub use groups::{InstanceSettings, KafkaSettings, OpsSettings, PostgresSettings, TopicSettings};
pub use secret::Secret;
pub use settings::{Setting, Source};
pub use values::{Durations, KafkaProperties, parse_addr, parse_duration};

/// A command line with all settings resolved.
#[derive(Clone, Debug)]
pub struct Parsed<C> {
    /// Typed and checked, one by one; what a type can't check, and what must fit together, is the caller's to check: see
    /// [`Parsed::wrong`] and [`ConfigError::Unfit`].
    pub command: C,
    /// The same for people, in the order of `--help`, secrets redacted: what `herald config` prints, a line each.
    pub settings: Vec<Setting>,
}

impl<C> Parsed<C> {
    /// That the value of this variable is wrong; the sentence names the value, unless it is secret, and its source.
    pub fn wrong(&self, name: &str, reason: impl Into<String>) -> ConfigError {
        let given = self.settings.iter().find(|setting| setting.name == name);
        ConfigError::Wrong { given: given.map_or_else(|| name.to_owned(), Setting::given), reason: reason.into() }
    }
}

/// Reads the settings of the program that `args` (the first is the binary's name) choose.
///
/// # Errors
/// See [`ConfigError`]. Also `--help`, which names each variable and never shows its value: let
/// [`ConfigError::exit`] print it.
pub fn parse<C: Parser>(
    args: impl IntoIterator<Item = impl Into<OsString>>,
    environment: &Environment,
) -> Result<Parsed<C>, ConfigError> {
    let mut args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let typed = only_flags(C::command());
    let matches =
        untyped(typed.clone()).try_get_matches_from(&args).map_err(|error| as_asked(error, C::command(), &args))?;

    let command = C::command();
    known::check(&command, environment)?;
    let (program, matches) = chosen(&command, &matches);
    let found = settings::find(program, matches, environment)?;

    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    args.splice(end..end, found.flags);
    let command = typed
        .try_get_matches_from(args)
        .and_then(|matches| C::from_arg_matches(&matches))
        .map_err(|error| explain(error, &found.settings))?;
    Ok(Parsed { command, settings: found.settings })
}

/// With no variables for clap to read.
fn only_flags(command: Command) -> Command {
    command.mut_args(|arg| arg.env(Resettable::Reset)).mut_subcommands(only_flags)
}

/// That takes any value and misses none: what is left is which program and flags were given.
fn untyped(command: Command) -> Command {
    command
        .mut_args(|arg| match arg.get_action().takes_values() {
            true => arg.required(false).value_parser(clap::value_parser!(OsString)),
            false => arg,
        })
        .mut_subcommands(untyped)
}

/// Help is printed by the full command: it has the variables.
fn as_asked(error: clap::Error, command: Command, args: &[OsString]) -> ConfigError {
    fn without_values(command: Command) -> Command {
        command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(without_values)
    }
    let help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    let full = help.then(|| without_values(command).try_get_matches_from(args));
    ConfigError::Usage(full.and_then(Result::err).unwrap_or(error))
}

/// The innermost subcommand that was given.
fn chosen<'a>(command: &'a Command, matches: &'a ArgMatches) -> (&'a Command, &'a ArgMatches) {
    let inner = matches.subcommand().and_then(|(name, matches)| Some((command.find_subcommand(name)?, matches)));
    match inner {
        Some((command, matches)) => chosen(command, matches),
        None => (command, matches),
    }
}

/// In terms of variables and sources, which clap doesn't know.
fn explain(error: clap::Error, settings: &[Setting]) -> ConfigError {
    // clap names an argument as in a usage line: `--flag <VALUE>`.
    let setting = |usage: &str| {
        let flag = usage.split_whitespace().next()?.strip_prefix("--")?;
        settings.iter().find(|setting| setting.flag == flag)
    };
    match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(ContextValue::String(usage))) => {
            match setting(usage) {
                Some(setting) => ConfigError::Wrong { given: setting.given(), reason: reason(&error) },
                None => ConfigError::Usage(error),
            }
        }
        (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(usages))) => {
            let names = usages.iter().map(|usage| match setting(usage) {
                Some(setting) => format!("{} (--{})", setting.name, setting.flag),
                None => usage.clone(),
            });
            ConfigError::Missing(names.collect())
        }
        _ => ConfigError::Usage(error),
    }
}

fn reason(error: &clap::Error) -> String {
    use std::error::Error;
    match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("must be one of {}", valid.join(", "))
        }
        _ => "must not be empty".to_owned(),
    }
}
