//! Which `HERALD_…` variables there are: a misspelt one must not be ignored in silence.

use std::collections::BTreeSet;

use clap::Command;

use super::settings::{is_secret, variable};
use super::{ConfigError, Environment};

/// Read by the local stack, the provider simulator and the tests, not by a program of this binary.
const FOREIGN: [&str; 14] = [
    "HERALD_LOCAL_KAFKA_PORT",
    "HERALD_LOCAL_KAFKA_CONTROLLER_PORT",
    "HERALD_LOCAL_PG_PORT",
    "HERALD_SIM_ADDR",
    "HERALD_SIM_LOG",
    "HERALD_SIM_SEED",
    "HERALD_SIM_LATENCY",
    "HERALD_SIM_RATE",
    "HERALD_SIM_KEEP_ALIVE",
    "HERALD_SIM_FAULTS",
    "HERALD_TEST_DATABASE_URL",
    "HERALD_TEST_KAFKA_BROKERS",
    "HERALD_TEST_SEED",
    "HERALD_TEST_PROJECTOR",
];

/// Refuses a `HERALD_…` variable that no subcommand of `command` has.
pub(super) fn check(command: &Command, environment: &Environment) -> Result<(), ConfigError> {
    let mut known = BTreeSet::from(FOREIGN.map(str::to_owned));
    collect(command, &mut known);
    for (name, source) in environment.names() {
        if name.starts_with("HERALD_") && !known.contains(name) {
            let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
            return Err(ConfigError::Unknown {
                name: name.to_owned(),
                name_source: source.to_string(),
                nearest: nearest.cloned().unwrap_or_default(),
            });
        }
    }
    Ok(())
}

fn collect(command: &Command, known: &mut BTreeSet<String>) {
    for arg in command.get_arguments() {
        if let Some(name) = variable(arg) {
            known.insert(name.to_owned());
            if is_secret(arg) {
                known.insert(format!("{name}_FILE"));
            }
        }
    }
    for subcommand in command.get_subcommands() {
        collect(subcommand, known);
    }
}
