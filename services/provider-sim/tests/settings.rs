//! The settings of the program.

use std::process::Command;

#[test]
fn a_misspelt_variable_ends_the_program_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_provider-sim"));
    command.current_dir(dir.path()).env("HERALD_PROVIDER_TOKEN", "t0ken").env("HERALD_SIM_LATENCIES", "5ms");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("HERALD_SIM_LATENCIES is not a setting") && said.contains("HERALD_SIM_LATENCY"), "{said}");
}
