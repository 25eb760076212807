use clap::{Args, Parser, Subcommand, ValueEnum};
use events::topics::Topic;
use runtime::config::{InstanceSettings, KafkaSettings, OpsSettings, PostgresSettings, TopicSettings};

/// Herald sends text messages to clients: nothing lost, nothing doubled, and a status for each.
#[derive(Parser, Clone, Debug)]
#[command(name = "herald", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// All four services in one process.
    All(All),
    /// REST, and the relay from the outbox to Kafka.
    Api(Api),
    /// Plans due mailings into message events.
    Scheduler(Scheduler),
    /// Calls the provider.
    Sender(Sender),
    /// Writes statuses to Postgres.
    Projector(Projector),
    /// Brings the database's schema up to date.
    Migrate(Migrate),
    /// Creates the topics that are missing, and fails on one that differs.
    Topics(Topics),
    /// Lets a reader that has stopped pass, as dead letters, the records of a partition that can't be decoded.
    Skip(Skip),
    /// Mends a Postgres that was restored to an older state, or that stands in for another.
    Recover(Recover),
    /// Plans again what Kafka has lost of a mailing, and sets it running again. Schedulers and senders must be stopped.
    Replan(Replan),
    /// Prints the API's OpenAPI document.
    Openapi,
    /// Loads 10,000 clients through the API and sends them a mailing.
    Demo(Demo),
    /// Prints a program's settings, each with its source, secrets redacted.
    Config(Config),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct All {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) topics: TopicSettings,
    #[command(flatten)]
    pub(crate) instance: InstanceSettings,
    #[command(flatten)]
    pub(crate) postgres: PostgresSettings,
    #[command(flatten)]
    pub(crate) ops: OpsSettings<9464>,
    #[command(flatten)]
    pub(crate) api: api::Settings,
    #[command(flatten)]
    pub(crate) sender: sender::Settings,
    #[command(flatten)]
    pub(crate) projector: projector::Settings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Api {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) topics: TopicSettings,
    #[command(flatten)]
    pub(crate) postgres: PostgresSettings,
    #[command(flatten)]
    pub(crate) ops: OpsSettings<9101>,
    #[command(flatten)]
    pub(crate) api: api::Settings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Scheduler {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) topics: TopicSettings,
    #[command(flatten)]
    pub(crate) instance: InstanceSettings,
    #[command(flatten)]
    pub(crate) postgres: PostgresSettings,
    #[command(flatten)]
    pub(crate) ops: OpsSettings<9102>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Sender {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) topics: TopicSettings,
    #[command(flatten)]
    pub(crate) instance: InstanceSettings,
    #[command(flatten)]
    pub(crate) ops: OpsSettings<9103>,
    #[command(flatten)]
    pub(crate) sender: sender::Settings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Projector {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) topics: TopicSettings,
    #[command(flatten)]
    pub(crate) instance: InstanceSettings,
    #[command(flatten)]
    pub(crate) postgres: PostgresSettings,
    #[command(flatten)]
    pub(crate) ops: OpsSettings<9104>,
    #[command(flatten)]
    pub(crate) projector: projector::Settings,
    /// Empty messages, steps, counts and settled rounds first and replay status-events into them. Projectors
    /// that run meanwhile notice, and begin anew.
    #[arg(long)]
    pub(crate) rebuild: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Migrate {
    #[command(flatten)]
    pub(crate) postgres: PostgresSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Topics {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) topics: TopicSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Recover {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) topics: TopicSettings,
    #[command(flatten)]
    pub(crate) postgres: PostgresSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Replan {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) topics: TopicSettings,
    #[command(flatten)]
    pub(crate) postgres: PostgresSettings,
    /// The mailing's id.
    pub(crate) mailing: uuid::Uuid,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Skip {
    #[command(flatten)]
    pub(crate) kafka: KafkaSettings,
    #[command(flatten)]
    pub(crate) topics: TopicSettings,
    /// Which topic.
    pub(crate) topic: ReadTopic,
    /// Which partition of it.
    pub(crate) partition: u16,
    /// Only records below this offset; the partition's present end if it isn't given.
    #[arg(long)]
    pub(crate) before: Option<i64>,
}

/// The topics that a group reads.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum ReadTopic {
    #[value(name = "mailing-events")]
    Mailing,
    #[value(name = "message-events")]
    Message,
    #[value(name = "status-events")]
    Status,
}

impl ReadTopic {
    /// The topic and its reader.
    pub(crate) fn reader(self) -> (Topic, &'static str) {
        match self {
            Self::Mailing => (Topic::MailingEvents, "scheduler"),
            Self::Message => (Topic::MessageEvents, "sender"),
            Self::Status => (Topic::StatusEvents, "projector"),
        }
    }
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Demo {
    /// The API to use.
    #[arg(long, env = "HERALD_API_ADDR", default_value = "127.0.0.1:8083")]
    pub(crate) api_addr: String,
    /// Where the metrics are, for the list of addresses at the end.
    #[arg(long, env = "HERALD_OPS_ADDR", default_value = "127.0.0.1:9464")]
    pub(crate) ops_addr: String,
    /// How many clients it loads and writes to.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=5_000_000))]
    pub(crate) clients: u32,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Config {
    /// The program whose settings are printed.
    #[arg(default_value = "all")]
    pub(crate) program: String,
}
