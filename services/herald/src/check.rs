//! What a setting's type can't check, looked at before anything starts.

use std::ffi::OsString;

use runtime::config::{ConfigError, Environment, Parsed, parse};
use sqlx::postgres::PgConnectOptions;

use crate::cli::{Cli, Command};

/// Reads the settings of the program that `args` choose, and checks them one by one and together.
pub(crate) fn read(
    args: impl IntoIterator<Item = impl Into<OsString>>,
    environment: &Environment,
) -> Result<Parsed<Cli>, ConfigError> {
    let parsed = parse::<Cli>(args, environment)?;
    let (postgres, sender, projector) = match &parsed.command.command {
        Command::All(all) => (Some(&all.postgres), Some(&all.sender), Some(&all.projector)),
        Command::Api(api) => (Some(&api.postgres), None, None),
        Command::Scheduler(scheduler) => (Some(&scheduler.postgres), None, None),
        Command::Sender(sender) => (None, Some(&sender.sender), None),
        Command::Projector(projector) => (Some(&projector.postgres), None, Some(&projector.projector)),
        Command::Migrate(migrate) => (Some(&migrate.postgres), None, None),
        Command::Recover(recover) => (Some(&recover.postgres), None, None),
        Command::Replan(replan) => (Some(&replan.postgres), None, None),
        Command::Topics(_) | Command::Skip(_) | Command::Openapi | Command::Demo(_) | Command::Config(_) => {
            (None, None, None)
        }
    };
    if let Some(postgres) = postgres
        && !is_database_url(postgres.database_url.expose())
    {
        return Err(parsed.wrong("DATABASE_URL", "must be postgres://user:password@host:port/name"));
    }
    if let Some(sender) = sender {
        sender.check().map_err(|error| ConfigError::Unfit(format!("{error:#}")))?;
    }
    if let Some(projector) = projector {
        projector.check().map_err(|error| ConfigError::Unfit(format!("{error:#}")))?;
    }
    Ok(parsed)
}

/// The parser's own reason may quote a piece of the password.
fn is_database_url(url: &str) -> bool {
    let schemes = ["postgres://", "postgresql://"];
    schemes.iter().any(|scheme| url.starts_with(scheme)) && url.parse::<PgConnectOptions>().is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn error(program: &str, name: &str, value: &str) -> String {
        let variables = [("HERALD_PROVIDER_TOKEN", "t0ken"), (name, value)];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let environment = Environment::new(BTreeMap::from(variables), BTreeMap::new());
        read(["herald", program], &environment).map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn a_wrong_value_names_itself_and_its_source_and_no_secret() {
        let database = "must be postgres://user:password@host:port/name";
        let url = "must be http://host:port or https://host:port";
        let login = "must hold no user and no password: the provider is shown HERALD_PROVIDER_TOKEN";
        let cases = [
            ("DATABASE_URL", "mysql://u:pw@db/herald", "mysql://u:***@db/herald", database),
            ("DATABASE_URL", "postgres://u:pw@db:99999/herald", "postgres://u:***@db:99999/herald", database),
            ("DATABASE_URL", "herald", "***", database),
            ("HERALD_PROVIDER_URL", "127.0.0.1:8090", "127.0.0.1:8090", url),
            ("HERALD_PROVIDER_URL", "ftp://provider", "ftp://provider", url),
            ("HERALD_PROVIDER_URL", "http://", "http://", url),
            ("HERALD_PROVIDER_URL", "http://u:pw@provider", "http://***@provider", login),
            ("HERALD_PROVIDER_URL", "http://t0ken@provider", "http://***@provider", login),
            (
                "HERALD_PROVIDER_URL",
                "http://provider/?a=b",
                "http://provider/?a=b",
                "must end with its path: /v1/send/<message id> is appended",
            ),
            ("HERALD_SENDER_CONCURRENCY", "0", "0", "must be from 1 to 100000"),
            ("HERALD_PROVIDER_TIMEOUT", "0s", "0s", "must be longer than that"),
        ];
        for (name, value, shown, reason) in cases {
            assert_eq!(error("all", name, value), format!("{name}={shown} (environment): {reason}"));
        }
        assert_eq!(error("all", "HERALD_PROVIDER_URL", "https://provider.example/herald/"), "");
    }

    #[test]
    fn settings_that_do_not_fit_together_are_refused_by_the_programs_that_use_them() {
        for (program, name) in [
            ("all", "HERALD_SENDER_MAX_POLL_INTERVAL"),
            ("sender", "HERALD_SENDER_MAX_POLL_INTERVAL"),
            ("all", "HERALD_PROJECTOR_MAX_POLL_INTERVAL"),
            ("projector", "HERALD_PROJECTOR_MAX_POLL_INTERVAL"),
        ] {
            let error = error(program, name, "20s");
            assert!(error.contains(name) && error.contains("20s"), "{program}: {error}");
        }
        assert_eq!(error("api", "HERALD_SENDER_MAX_POLL_INTERVAL", "20s"), "");
    }
}
