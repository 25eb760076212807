//! Which `HERALD_…` variables there are: a misspelt one must not be ignored in silence.

use std::collections::BTreeSet;

use clap::Command;

use super::settings::{is_secret, variable};
use super::{ConfigError, Environment};

/// Read by the local stack, not by a program of this binary.
const LOCAL: [&str; 3] = ["HERALD_LOCAL_KAFKA_PORT", "HERALD_LOCAL_KAFKA_CONTROLLER_PORT", "HERALD_LOCAL_PG_PORT"];

/// Read by the provider simulator and by the tests.
const FOREIGN_PREFIXES: [&str; 2] = ["HERALD_SIM_", "HERALD_TEST_"];

/// Refuses a `HERALD_…` variable that no subcommand of `command` has.
pub(super) fn check(command: &Command, environment: &Environment) -> Result<(), ConfigError> {
    let mut known = BTreeSet::from(LOCAL.map(str::to_owned));
    collect(command, &mut known);
    for (name, source) in environment.names() {
        let ours = name.starts_with("HERALD_") && !FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if ours && !known.contains(name) {
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
