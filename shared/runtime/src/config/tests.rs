use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::*;

#[derive(Parser, Debug)]
#[command(name = "herald")]
struct Cli {
    #[command(subcommand)]
    program: Program,
}

#[derive(Subcommand, Debug)]
enum Program {
    Sender(Sender),
    Projector(Projector),
}

#[derive(Args, Debug)]
struct Sender {
    #[command(flatten)]
    kafka: KafkaSettings,
    #[command(flatten)]
    ops: OpsSettings<9103>,
    /// Calls at once.
    #[arg(long, env = "HERALD_SENDER_CONCURRENCY", default_value_t = 512)]
    sender_concurrency: usize,
    /// The provider's token.
    #[arg(long, env = "HERALD_PROVIDER_TOKEN")]
    provider_token: Secret,
    /// Waits between attempts.
    #[arg(long, env = "HERALD_RETRY_DELAYS", default_value = "1s,2s,4s")]
    retry_delays: Durations,
    /// What to risk.
    #[arg(long, env = "HERALD_RISK", default_value = "twice")]
    risk: Risk,
}

#[derive(ValueEnum, Clone, Debug, PartialEq)]
enum Risk {
    Twice,
    Never,
}

#[derive(Args, Debug)]
struct Projector {
    #[command(flatten)]
    kafka: KafkaSettings,
    #[command(flatten)]
    topics: TopicSettings,
    #[command(flatten)]
    postgres: PostgresSettings,
    /// Start again.
    #[arg(long)]
    rebuild: bool,
}

type Variables<'a> = &'a [(&'a str, &'a str)];

fn with(args: &str, process: Variables, dotenv: Variables) -> Result<Parsed<Cli>, ConfigError> {
    let map = |variables: Variables| -> BTreeMap<_, _> {
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    let environment = Environment::new(map(process), map(dotenv));
    parse(format!("herald {args}").split_whitespace(), &environment)
}

fn sender(args: &str, process: Variables, dotenv: Variables) -> Sender {
    let args = format!("sender --provider-token=t0ken {args}");
    match with(&args, process, dotenv).unwrap().command.program {
        Program::Sender(sender) => sender,
        Program::Projector(_) => panic!("not asked for"),
    }
}

fn error(args: &str, process: Variables, dotenv: Variables) -> String {
    with(args, process, dotenv).unwrap_err().to_string()
}

#[test]
fn without_anything_the_defaults_hold() {
    let sender = sender("", &[], &[]);
    assert_eq!(sender.kafka.brokers, "127.0.0.1:19092");
    assert_eq!(sender.kafka.topic_prefix, "herald");
    assert_eq!(sender.kafka.kafka_properties.iter().count(), 0);
    assert_eq!(sender.ops.ops_addr.to_string(), "127.0.0.1:9103");
    assert_eq!(sender.retry_delays.0, [1, 2, 4].map(Duration::from_secs));

    let parsed = with("projector", &[], &[]).unwrap();
    let Program::Projector(projector) = parsed.command.program else {
        panic!("not asked for");
    };
    assert_eq!((projector.topics.partitions, projector.topics.replication), (None, 1));
    assert_eq!(projector.postgres.database_url.expose(), "postgres://herald@127.0.0.1:15432/herald");
    assert!(!projector.rebuild);
}

#[test]
fn a_flag_beats_the_environment_which_beats_dotenv_and_empty_is_unset() {
    const NAME: &str = "HERALD_SENDER_CONCURRENCY";
    let cases: [(&str, Variables, Variables, usize); 6] = [
        ("--sender-concurrency 1", &[(NAME, "2")], &[(NAME, "3")], 1),
        ("", &[(NAME, "2")], &[(NAME, "3")], 2),
        ("", &[], &[(NAME, "3")], 3),
        ("", &[(NAME, "")], &[(NAME, "3")], 3),
        ("", &[(NAME, "")], &[(NAME, "")], 512),
        ("", &[], &[], 512),
    ];
    for (args, process, dotenv, expected) in cases {
        let got = sender(args, process, dotenv).sender_concurrency;
        assert_eq!(got, expected, "{args:?} {process:?} {dotenv:?}");
    }
}

#[test]
fn a_wrong_value_names_itself_and_its_source() {
    const NAME: &str = "HERALD_SENDER_CONCURRENCY";
    let reason = "invalid digit found in string";
    for (args, process, dotenv, source) in [
        ("", [(NAME, "abc")].as_slice(), [].as_slice(), "environment"),
        ("", &[], &[(NAME, "abc")], ".env"),
        ("--sender-concurrency=abc", &[], &[], "--sender-concurrency"),
    ] {
        let args = format!("sender --provider-token=x {args}");
        assert_eq!(error(&args, process, dotenv), format!("HERALD_SENDER_CONCURRENCY=abc ({source}): {reason}"));
    }
    let wrong = [
        ("HERALD_RISK", "none", "must be one of twice, never"),
        ("HERALD_OPS_ADDR", "9103", "not host:port: invalid socket address"),
        ("HERALD_TOPIC_PREFIX", "a b", "must be 1 to 100 of the characters a-z A-Z 0-9 . _ -"),
        ("HERALD_RETRY_DELAYS", "1s,2", "time unit needed, for example 2sec or 2ms"),
    ];
    for (name, value, reason) in wrong {
        assert_eq!(
            error("sender --provider-token=x", &[(name, value)], &[]),
            format!("{name}={value} (environment): {reason}")
        );
    }
    assert_eq!(
        error("projector", &[("HERALD_TOPIC_PARTITIONS", "0")], &[]),
        "HERALD_TOPIC_PARTITIONS=0 (environment): 0 is not in 1..=65535"
    );
}

#[test]
fn a_missing_setting_is_named_by_its_variable_and_flag() {
    assert_eq!(error("sender", &[], &[]), "not set: HERALD_PROVIDER_TOKEN (--provider-token)");
}

#[test]
fn a_wrong_secret_is_not_shown() {
    let wrong = error("projector", &[("HERALD_KAFKA_PROPERTIES", "sasl.password=hunter,2")], &[]);
    assert_eq!(wrong, "HERALD_KAFKA_PROPERTIES=*** (environment): part 2 is not name=value");
}

#[test]
fn a_secret_may_come_from_a_file_that_one_of_the_sources_names() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, " fr0m-file").unwrap();
    let path = file.path().to_str().unwrap();
    for (process, dotenv) in [
        ([("HERALD_PROVIDER_TOKEN_FILE", path)].as_slice(), [].as_slice()),
        (&[], &[("HERALD_PROVIDER_TOKEN_FILE", path)]),
    ] {
        let parsed = with("sender", process, dotenv).unwrap();
        assert!(
            parsed.settings.iter().any(|s| s.to_string() == "HERALD_PROVIDER_TOKEN=***  # HERALD_PROVIDER_TOKEN_FILE")
        );
        let Program::Sender(sender) = parsed.command.program else {
            panic!("not asked for");
        };
        assert_eq!(sender.provider_token.expose(), "fr0m-file");
    }
}

#[test]
fn a_secrets_file_that_is_missing_empty_or_one_too_many_is_an_error() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let path = empty.path().to_str().unwrap();
    assert_eq!(
        error("sender", &[("HERALD_PROVIDER_TOKEN_FILE", path)], &[]),
        format!("HERALD_PROVIDER_TOKEN_FILE={path} (environment): the file is empty")
    );
    assert_eq!(
        error("sender", &[], &[("HERALD_PROVIDER_TOKEN_FILE", "/no/such")]),
        "HERALD_PROVIDER_TOKEN_FILE=/no/such (.env): No such file or directory (os error 2)"
    );
    assert_eq!(
        error("sender", &[("HERALD_PROVIDER_TOKEN", "t0ken")], &[("HERALD_PROVIDER_TOKEN_FILE", path)]),
        "HERALD_PROVIDER_TOKEN (environment) and HERALD_PROVIDER_TOKEN_FILE (.env) are both set: one of them is enough"
    );
}

#[test]
fn a_name_that_no_program_knows_is_an_error_with_the_nearest_one() {
    for (name, nearest) in [
        ("HERALD_SENDER_CONCURENCY", "HERALD_SENDER_CONCURRENCY"),
        ("HERALD_RISK_FILE", "HERALD_RISK"),
        ("HERALD_LOCAL_PGPORT", "HERALD_LOCAL_PG_PORT"),
        ("HERALD_SIM_LATENCIES", "HERALD_SIM_LATENCY"),
        ("HERALD_TEST_DATABASE", "HERALD_TEST_DATABASE_URL"),
    ] {
        for (process, dotenv, source) in
            [([(name, "1")].as_slice(), [].as_slice(), "environment"), (&[], &[(name, "1")], ".env")]
        {
            assert_eq!(
                error("projector", process, dotenv),
                format!("{name} ({source}) is not a setting of any program; the nearest is {nearest}")
            );
        }
    }
}

#[test]
fn what_another_program_uses_is_ignored_wrong_or_right() {
    let others = [
        ("HERALD_SENDER_CONCURRENCY", "abc"),
        ("HERALD_PROVIDER_TOKEN_FILE", "/no/such"),
        ("HERALD_LOCAL_KAFKA_PORT", "abc"),
        ("HERALD_SIM_ADDR", "x"),
        ("HERALD_TEST_DATABASE_URL", "x"),
        ("HERALDRY", "x"),
        ("HERALD_SENDER_CONCURENCY", ""),
    ];
    assert!(with("projector", &others, &others).is_ok());
}

#[test]
fn the_printed_settings_name_their_sources_and_hide_secrets() {
    let parsed = with(
        "projector --topic-prefix t1",
        &[
            ("DATABASE_URL", "postgres://herald:pw@db/herald?password=pw"),
            ("HERALD_KAFKA_PROPERTIES", "sasl.username=u,sasl.password=pw"),
        ],
        &[("HERALD_KAFKA_BROKERS", "k1:9092,k2:9092")],
    )
    .unwrap();
    let lines: Vec<_> = parsed.settings.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "HERALD_KAFKA_BROKERS=k1:9092,k2:9092  # .env",
            "HERALD_TOPIC_PREFIX=t1  # --topic-prefix",
            "HERALD_KAFKA_PROPERTIES=sasl.username=***,sasl.password=***  # environment",
            "HERALD_TOPIC_PARTITIONS=  # not set",
            "HERALD_TOPIC_REPLICATION=1  # default",
            "DATABASE_URL=postgres://herald:***@db/herald?***  # environment",
        ]
    );
    assert!(!format!("{parsed:?}").contains("pw"), "{parsed:?}");
}

#[test]
fn a_login_in_an_address_is_not_shown_and_a_wrong_value_is_named_later_too() {
    let parsed = with("projector", &[], &[("HERALD_KAFKA_BROKERS", "http://user:pw@k1:9092")]).unwrap();
    let shown = "HERALD_KAFKA_BROKERS=http://***@k1:9092";
    assert!(parsed.settings.iter().any(|setting| setting.to_string() == format!("{shown}  # .env")));
    let wrong = parsed.wrong("HERALD_KAFKA_BROKERS", "must be host:port");
    assert_eq!(wrong.to_string(), format!("{shown} (.env): must be host:port"));
}

#[test]
fn help_names_each_variable_and_no_value() {
    let Err(ConfigError::Usage(help)) =
        with("sender --help", &[("HERALD_PROVIDER_TOKEN", "t0ken"), ("HERALD_NONSENSE", "1")], &[])
    else {
        panic!("help was asked for");
    };
    assert_eq!(help.exit_code(), 0);
    let help = help.to_string();
    for shown in [
        "[env: HERALD_KAFKA_BROKERS]",
        "[env: HERALD_PROVIDER_TOKEN]",
        "[env: HERALD_OPS_ADDR]",
        "[default: 127.0.0.1:9103]",
        "possible values: twice, never",
    ] {
        assert!(help.contains(shown), "no {shown} in {help}");
    }
    assert!(!help.contains("t0ken"), "{help}");
}

#[test]
fn misuse_of_the_command_line_is_claps_to_explain() {
    for args in ["", "sendr", "sender --concurency=1", "projector --rebuild=x"] {
        let error = with(args, &[], &[]).unwrap_err();
        assert!(matches!(error, ConfigError::Usage(_)), "{args:?}: {error}");
    }
}
