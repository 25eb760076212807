//! What the environment and `.env` say about the local stack.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::{port, postgres};

/// The variables of the checkout, and which server each of them replaces.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Everything of ours that is set: the environment beats `.env`, an empty value counts as unset.
    set: BTreeMap<String, String>,
    pub(crate) kafka_port: u16,
    pub(crate) controller_port: u16,
    pub(crate) postgres_port: u16,
    pub(crate) api: SocketAddr,
    pub(crate) ops: SocketAddr,
    pub(crate) simulator: SocketAddr,
}

impl Settings {
    pub(crate) fn read(checkout: &Path) -> Result<Settings> {
        let file = checkout.join(".env");
        let mut set = BTreeMap::new();
        if file.exists() {
            for pair in dotenvy::from_path_iter(&file).context("read .env")? {
                // The error would quote the line, and a line may hold a secret.
                let Ok((name, value)) = pair else { bail!(".env has a line that isn't NAME=value") };
                set.insert(name, value);
            }
        }
        set.extend(std::env::vars_os().filter_map(|(name, value)| {
            // Another program's variable may be anything; ours are text.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
        Settings::of(set)
    }

    fn of(mut set: BTreeMap<String, String>) -> Result<Settings> {
        set.retain(|name, value| is_ours(name) && !value.is_empty());
        let port = |name: &str, default: u16| match set.get(name) {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(port) if port > 0 => Ok(port),
                _ => bail!("{name}={text} isn't a port (1–65535)"),
            },
        };
        let addr = |name: &str, default: &str| {
            let text = set.get(name).map_or(default, String::as_str);
            let found = text.to_socket_addrs().ok().and_then(|mut found| found.next());
            found.with_context(|| format!("{name}={text} isn't host:port"))
        };
        Ok(Settings {
            kafka_port: port("HERALD_LOCAL_KAFKA_PORT", 19092)?,
            controller_port: port("HERALD_LOCAL_KAFKA_CONTROLLER_PORT", 19093)?,
            postgres_port: port("HERALD_LOCAL_PG_PORT", 15432)?,
            api: addr("HERALD_API_ADDR", "127.0.0.1:8083")?,
            ops: addr("HERALD_OPS_ADDR", "127.0.0.1:9464")?,
            simulator: addr("HERALD_SIM_ADDR", "127.0.0.1:8090")?,
            set,
        })
    }

    /// The variable that names a Kafka which already exists.
    pub(crate) fn foreign_kafka(&self) -> Option<&'static str> {
        self.first_set(&["HERALD_KAFKA_BROKERS"])
    }

    pub(crate) fn foreign_database(&self) -> Option<&'static str> {
        self.first_set(&["DATABASE_URL", "DATABASE_URL_FILE"])
    }

    pub(crate) fn foreign_provider(&self) -> Option<&'static str> {
        self.first_set(&["HERALD_PROVIDER_URL"])
    }

    fn first_set(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| self.set.contains_key(*name))
    }

    /// What Herald's programs are given: what is set, and the local stack for what isn't.
    pub(crate) fn for_herald(&self) -> BTreeMap<String, String> {
        let mut given = self.set.clone();
        given.retain(|name, _| !["HERALD_LOCAL_", "HERALD_SIM_", "HERALD_TEST_"].iter().any(|of| name.starts_with(of)));
        let mut default = |name: &str, value: String| {
            given.entry(name.to_owned()).or_insert(value);
        };
        default("HERALD_API_ADDR", self.api.to_string());
        default("HERALD_OPS_ADDR", self.ops.to_string());
        if self.foreign_kafka().is_none() {
            default("HERALD_KAFKA_BROKERS", port::local(self.kafka_port).to_string());
        }
        if self.foreign_database().is_none() {
            default("DATABASE_URL", postgres::url(self.postgres_port));
        }
        if self.foreign_provider().is_none() {
            default("HERALD_PROVIDER_URL", format!("http://{}", port::reachable(self.simulator)));
        }
        if !self.set.contains_key("HERALD_PROVIDER_TOKEN_FILE") {
            default("HERALD_PROVIDER_TOKEN", "local".to_owned());
        }
        given
    }

    /// What the provider simulator is given; it must know the token that Herald sends.
    pub(crate) fn for_simulator(&self, call_log: &Path) -> Result<BTreeMap<String, String>> {
        let mut given = self.set.clone();
        given.retain(|name, _| name.starts_with("HERALD_SIM_"));
        let mut default = |name: &str, value: String| {
            given.entry(name.to_owned()).or_insert(value);
        };
        default("HERALD_SIM_ADDR", self.simulator.to_string());
        default("HERALD_SIM_LOG", call_log.to_string_lossy().into_owned());
        let token = match self.set.get("HERALD_PROVIDER_TOKEN_FILE") {
            Some(file) => fs::read_to_string(file).context("read HERALD_PROVIDER_TOKEN_FILE")?.trim().to_owned(),
            None => self.set.get("HERALD_PROVIDER_TOKEN").map_or("local", String::as_str).to_owned(),
        };
        default("HERALD_PROVIDER_TOKEN", token);
        Ok(given)
    }
}

/// Whether a variable speaks to Herald or to its local stack.
pub(crate) fn is_ours(name: &str) -> bool {
    name.starts_with("HERALD_") || name == "DATABASE_URL" || name == "DATABASE_URL_FILE"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        Settings::of(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn nothing_set_is_the_local_stack() {
        let herald = settings(&[("PATH", "/bin"), ("DATABASE_URL", "")]).unwrap().for_herald();
        let expected = [
            ("DATABASE_URL", "postgres://herald@127.0.0.1:15432/herald"),
            ("HERALD_API_ADDR", "127.0.0.1:8083"),
            ("HERALD_KAFKA_BROKERS", "127.0.0.1:19092"),
            ("HERALD_OPS_ADDR", "127.0.0.1:9464"),
            ("HERALD_PROVIDER_TOKEN", "local"),
            ("HERALD_PROVIDER_URL", "http://127.0.0.1:8090"),
        ];
        let found: Vec<_> = herald.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_variable_replaces_just_its_server() {
        let settings = settings(&[("DATABASE_URL_FILE", "/run/url"), ("HERALD_LOCAL_KAFKA_PORT", "29092")]).unwrap();
        assert_eq!(settings.foreign_database(), Some("DATABASE_URL_FILE"));
        assert_eq!((settings.foreign_kafka(), settings.foreign_provider()), (None, None));
        let herald = settings.for_herald();
        assert!(!herald.contains_key("DATABASE_URL") && !herald.contains_key("HERALD_LOCAL_KAFKA_PORT"));
        assert_eq!(herald["HERALD_KAFKA_BROKERS"], "127.0.0.1:29092");
    }

    #[test]
    fn the_simulator_knows_the_token_that_herald_sends() {
        let log = Path::new("calls.ndjson");
        let token = |pairs: &[(&str, &str)]| {
            settings(pairs).unwrap().for_simulator(log).unwrap()["HERALD_PROVIDER_TOKEN"].clone()
        };
        assert_eq!(token(&[]), "local");
        assert_eq!(token(&[("HERALD_PROVIDER_TOKEN", "t")]), "t");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "from a file\n").unwrap();
        assert_eq!(token(&[("HERALD_PROVIDER_TOKEN_FILE", file.to_str().unwrap())]), "from a file");
    }

    #[test]
    fn a_wrong_value_names_itself() {
        let cases = [
            ("HERALD_LOCAL_PG_PORT", "0", "HERALD_LOCAL_PG_PORT=0 isn't a port (1–65535)"),
            ("HERALD_LOCAL_KAFKA_PORT", "many", "HERALD_LOCAL_KAFKA_PORT=many isn't a port (1–65535)"),
            ("HERALD_OPS_ADDR", "9464", "HERALD_OPS_ADDR=9464 isn't host:port"),
        ];
        for (name, value, expected) in cases {
            assert_eq!(settings(&[(name, value)]).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn the_file_is_read_and_never_quoted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".env");
        fs::write(&file, "# ports\nHERALD_LOCAL_PG_PORT=25432\nHERALD_SIM_SEED='7'\n").unwrap();
        let settings = Settings::read(dir.path()).unwrap();
        assert_eq!((settings.postgres_port, settings.set["HERALD_SIM_SEED"].as_str()), (25432, "7"));

        fs::write(&file, "HERALD_PROVIDER_TOKEN=\"sec ret\n").unwrap();
        let error = format!("{:#}", Settings::read(dir.path()).unwrap_err());
        assert!(!error.contains("sec"), "{error}");
    }
}
