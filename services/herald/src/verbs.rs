use anyhow::Context;
use events::topics::Topics;
use runtime::config::{Environment, KafkaSettings, TopicSettings};

use crate::check;
use crate::cli;

/// Connects to Kafka as the settings say; `client_id` is what its logs show.
pub(crate) fn kafka_client(
    kafka: &KafkaSettings,
    topics: &TopicSettings,
    client_id: &str,
) -> anyhow::Result<kafka::Cluster> {
    let properties: Vec<_> =
        kafka.kafka_properties.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    kafka::check_properties(&properties).context("HERALD_KAFKA_PROPERTIES")?;
    let topics = Topics::new(&kafka.topic_prefix, topics.partitions.map(u32::from));
    Ok(kafka::Cluster::new(topics, &kafka.brokers, properties, client_id))
}

pub(crate) async fn migrate(settings: cli::Migrate) -> anyhow::Result<()> {
    let pool = store::connect(settings.postgres.database_url.expose(), 2)?;
    let mut connection = pool.acquire().await.context("connect to Postgres")?.detach();
    // An index over millions of rows takes longer than any statement of a service may.
    sqlx::query("SET statement_timeout = 0").execute(&mut connection).await?;
    store::MIGRATOR.run(&mut connection).await.context("migrate")?;
    println!("the schema is up to date");
    Ok(())
}

pub(crate) async fn topics(settings: cli::Topics) -> anyhow::Result<()> {
    let client = kafka_client(&settings.kafka, &settings.topics, "herald-topics")?;
    let created = kafka::Admin::new(&client)?.create_topics(i32::from(settings.topics.replication)).await?;
    for name in &created {
        println!("created {name}");
    }
    if created.is_empty() {
        println!("all topics are there");
    }
    Ok(())
}

pub(crate) fn openapi() -> anyhow::Result<()> {
    println!("{}", api::openapi_json());
    Ok(())
}

pub(crate) fn config(settings: &cli::Config) -> anyhow::Result<()> {
    let environment = Environment::load().unwrap_or_else(|error| error.exit());
    let parsed = check::read(["herald", &settings.program], &environment).unwrap_or_else(|error| error.exit());
    for setting in parsed.settings {
        println!("{setting}");
    }
    Ok(())
}
