//! Settings that several programs share. The doc comment of a field is its manual: `--help` prints it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::{KafkaProperties, Secret, parse_addr, values::parse_topic_prefix};

/// How to reach Kafka.
#[derive(Args, Clone, Debug)]
pub struct KafkaSettings {
    /// Brokers to start from, `host:port`, separated by commas.
    #[arg(long = "kafka-brokers", env = "HERALD_KAFKA_BROKERS", default_value = "127.0.0.1:19092")]
    pub brokers: String,

    /// What the names of topics, consumer groups and transactional ids begin with: 1 to 100 of a-z A-Z 0-9 . _ -
    #[arg(
        long,
        env = "HERALD_TOPIC_PREFIX",
        default_value = "herald",
        value_parser = parse_topic_prefix
    )]
    pub topic_prefix: String,

    /// Further librdkafka properties for every client, `name=value,name=value`; a comma within a value is written `\,`
    #[arg(long, env = "HERALD_KAFKA_PROPERTIES", default_value = "", hide_default_value = true)]
    pub kafka_properties: KafkaProperties,
}

/// What topics are like where they are created or checked.
#[derive(Args, Clone, Debug)]
pub struct TopicSettings {
    /// Partitions of every topic, instead of each topic's own number: for tests and small installations. Can't be
    /// changed once the topics exist.
    #[arg(
        long = "topic-partitions",
        env = "HERALD_TOPIC_PARTITIONS",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub partitions: Option<u16>,

    /// Copies of each partition: 3 wherever messages matter, and not more than there are brokers.
    #[arg(
        long = "topic-replication",
        env = "HERALD_TOPIC_REPLICATION",
        default_value_t = 1,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub replication: u16,
}

/// How to reach Postgres.
#[derive(Args, Clone, Debug)]
pub struct PostgresSettings {
    /// The database, `postgres://user:password@host:port/name`.
    #[arg(long, env = "DATABASE_URL", default_value = "postgres://herald@127.0.0.1:15432/herald")]
    pub database_url: Secret,
}

/// Where the ops port is; `PORT` is the program's own default.
#[derive(Args, Clone, Debug)]
pub struct OpsSettings<const PORT: u16> {
    /// Where /livez, /readyz and /metrics are served, `host:port`.
    #[arg(
        long,
        env = "HERALD_OPS_ADDR",
        default_value_t = SocketAddr::from(([127, 0, 0, 1], PORT)),
        value_parser = parse_addr
    )]
    pub ops_addr: SocketAddr,
}

/// Who a member of a consumer group is.
#[derive(Args, Clone, Debug)]
pub struct InstanceSettings {
    /// A directory that outlives the process and is no other's. Killed and started again with it, a process goes on with
    /// its partitions at once; without it they wait until the group has noticed, 12 s.
    #[arg(long, env = "HERALD_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}
