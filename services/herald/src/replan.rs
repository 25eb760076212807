//! `herald replan`: what an operator does when Kafka has lost something of a mailing.

use crate::cli;
use crate::services::{check_topics, postgres};
use crate::verbs::kafka_client;

pub(crate) async fn run(settings: cli::Replan) -> anyhow::Result<()> {
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
