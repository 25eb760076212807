//! What an operator does after a loss, and what is said about it.

use crate::cli;
use crate::services::{check_topics, postgres};
use crate::verbs::kafka_client;

/// `herald recover`: Postgres was restored to an older state, or another one stands in for it.
pub(crate) async fn recover(settings: cli::Recover) -> anyhow::Result<()> {
    let kafka = kafka_client(&settings.kafka, &settings.topics, "herald-recover")?;
    let pool = postgres(&settings.postgres, 1).await?;
    check_topics(&kafka).await?;
    let Some(done) = scheduler::recover(&kafka, &pool).await? else {
        println!("Postgres is the one that Herald last ran with, and no older than Kafka: nothing was changed");
        return Ok(());
    };
    println!("{}", done.mismatch.to_string().trim_end_matches(": run `herald recover`"));
    println!("mailings: {} brought back, {} brought up to date, {} withdrawn", done.back, done.renewed, done.withdrawn);
    println!("numbers go on above {} for mailings, above {} for clients", done.mailing_no, done.client_no);
    println!("live mailings with a new version: {}", done.announced);
    println!("recovered: services that run go on by themselves, and projectors write again what is missing");
    Ok(())
}

/// `herald replan`: Kafka has lost something of a mailing.
pub(crate) async fn replan(settings: cli::Replan) -> anyhow::Result<()> {
    let kafka = kafka_client(&settings.kafka, &settings.topics, "herald-replan")?;
    let pool = postgres(&settings.postgres, 4).await?;
    check_topics(&kafka).await?;
    let done = scheduler::replan(&kafka, &pool, settings.mailing).await?;
    println!("settled      {}", done.settled);
    println!("on conveyor  {}", done.on_conveyor);
    println!("in doubt     {}, now unknown", done.in_doubt);
    println!("erased       {}, now failed", done.erased);
    println!("again        {}, planned again", done.again);
    if done.progress_lost {
        println!("its progress was lost and is restored");
    }
    if done.resumed {
        println!("the mailing runs again once scheduler and senders are started");
    } else {
        println!("the mailing stays paused: its caller had paused it");
    }
    Ok(())
}
