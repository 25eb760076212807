use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use domain::ids::{MailingNo, MessageId};
use events::DeadLetter;
use kafka::DeadLetters;
use runtime::health::{Heartbeat, Readiness};
use sqlx::PgPool;
use store::projection::{self, OffsetMove};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fold::Fold;
use crate::inbox::{Inbox, Item};
use crate::metrics::Metrics;

/// How often an idle writer looks whether Postgres is there.
const IDLE: Duration = Duration::from_secs(1);
/// The pauses between tries while Postgres is down.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Mailings whose public id is remembered.
const KNOWN_MAILINGS: usize = 10_000;

/// Writes what lies in the inbox, a transaction a batch.
pub(crate) struct Writer {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) pool: PgPool,
    pub(crate) dead_letters: Arc<DeadLetters>,
    pub(crate) topic: String,
    pub(crate) mailings: HashMap<MailingNo, Uuid>,
    pub(crate) postgres: Readiness,
    pub(crate) beat: Heartbeat,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
}

/// Told to stop.
struct Stopped;

impl Writer {
    /// Writes until told to stop; what is left then is read again by the next owner.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let stop = self.stop.clone();
        let mut looked = Instant::now();
        while !stop.is_cancelled() {
            self.beat.beat();
            let gathered = tokio::select! {
                () = stop.cancelled() => break,
                gathered = tokio::time::timeout(IDLE, self.inbox.gather()) => gathered,
            };
            if gathered.is_err() || looked.elapsed() >= IDLE {
                self.look_at_postgres().await;
                looked = Instant::now();
            }
            if gathered.is_err() {
                continue;
            }
            let batch = self.inbox.take();
            let Ok(items) = self.prepare(batch).await else { break };
            let Ok(()) = self.write(items).await else { break };
        }
        Ok(())
    }

    /// Also at the offsets: restored to an older state it would wait for statuses that were written before.
    async fn look_at_postgres(&mut self) {
        match self.find_out().await {
            Ok(()) => self.postgres.ready(),
            Err(error) => self.postgres.not_ready(error.to_string()),
        }
    }

    /// Those that can't be taken are dead letters before their offset is passed.
    async fn prepare(&mut self, mut items: Vec<Item>) -> Result<Vec<Item>, Stopped> {
        self.learn_mailings(&items).await?;
        for item in &mut items {
            let foreign = item.event.as_ref().is_some_and(|event| {
                self.mailings.get(&event.message_id.mailing_no()).is_some_and(|id| *id != event.mailing_id)
            });
            if foreign {
                item.event = None;
                self.dead_letter(item.partition, item.offset, "another mailing has this number".to_owned()).await?;
            }
        }
        Ok(items)
    }

    /// A number that isn't in the table stays unknown, and its statuses are written: a fact from the log is never refused.
    async fn learn_mailings(&mut self, items: &[Item]) -> Result<(), Stopped> {
        if self.mailings.len() > KNOWN_MAILINGS {
            self.mailings.clear();
        }
        let numbers = items.iter().filter_map(|item| Some(item.event.as_ref()?.message_id.mailing_no()));
        let mut unknown: Vec<MailingNo> = numbers.filter(|number| !self.mailings.contains_key(number)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        let mut pause = SHORTEST_PAUSE;
        while !unknown.is_empty() {
            let read = async {
                let mut conn = self.pool.acquire().await?;
                projection::mailing_ids(&mut conn, &unknown).await
            };
            match read.await {
                Ok(found) => {
                    self.mailings.extend(found);
                    break;
                }
                Err(error) => self.pause(&error, &mut pause).await?,
            }
        }
        Ok(())
    }

    /// Writes the items: in one transaction, or, when one of them can't be written, in the halves around it, which come to
    /// the same. Tries for as long as Postgres is down.
    async fn write(&mut self, items: Vec<Item>) -> Result<(), Stopped> {
        let mut pause = SHORTEST_PAUSE;
        let mut rest = vec![items];
        while let Some(mut items) = rest.pop() {
            let Some(moves) = self.inbox.begin(&mut items) else {
                continue;
            };
            let written = self.transact(&items, &moves).await;
            self.inbox.end(&items, if matches!(written, Ok(true)) { &moves } else { &[] });
            match written {
                Ok(true) => {
                    pause = SHORTEST_PAUSE;
                    self.postgres.ready();
                }
                Ok(false) => {
                    if let Err(error) = self.find_out().await {
                        self.pause(&error, &mut pause).await?;
                    }
                    rest.push(items);
                }
                Err(error) if is_of_a_row(&error) && items.iter().any(|item| item.event.is_some()) => {
                    if let [item] = &mut items[..] {
                        item.event = None;
                        let reason = format!("Postgres refuses it: {}", code(&error));
                        self.dead_letter(item.partition, item.offset, reason).await?;
                        rest.push(items);
                    } else {
                        let second = items.split_off(items.len() / 2);
                        rest.extend([second, items]);
                    }
                }
                Err(error) => {
                    rest.push(items);
                    self.pause(&error, &mut pause).await?;
                }
            }
        }
        Ok(())
    }

    /// `false`: the offsets are elsewhere, nothing was written. After an error that may have come from the commit the next
    /// try sees by the offsets whether it was done.
    async fn transact(&self, items: &[Item], moves: &[OffsetMove]) -> sqlx::Result<bool> {
        let mut transaction = self.pool.begin().await?;
        if !projection::move_offsets(&mut transaction, moves).await? {
            transaction.rollback().await?;
            return Ok(false);
        }
        runtime::crash_point!("project::moved");
        let events = || items.iter().filter_map(|item| Some((item, item.event.as_ref()?)));
        let mut messages: Vec<MessageId> = events().map(|(_, event)| event.message_id).collect();
        messages.sort_unstable();
        messages.dedup();
        let mut fold = Fold::over(projection::lock_messages(&mut transaction, &messages).await?);
        for (item, event) in events() {
            fold.apply(item.partition, item.offset, event);
        }
        let rows = fold.changed_rows();
        projection::upsert_messages(&mut transaction, &rows).await?;
        if !fold.steps.is_empty() {
            projection::insert_steps(&mut transaction, &fold.steps).await?;
        }
        if fold.has_held() {
            projection::upsert_held(&mut transaction, &fold.held_rows()).await?;
            projection::delete_held(&mut transaction, &fold.released()).await?;
            projection::add_held_counts(&mut transaction, &fold.held_counts).await?;
        }
        projection::add_counts(&mut transaction, &fold.counts).await?;
        projection::add_settled_rounds(&mut transaction, &fold.settled_rounds).await?;
        runtime::crash_point!("project::written");
        transaction.commit().await?;
        runtime::crash_point!("project::committed");
        self.metrics.batch_rows.observe(rows.len() as f64);
        if let Some(newest) = events().map(|(_, event)| event.occurred_at).max() {
            self.metrics.lag.observe((Utc::now() - newest).as_seconds_f64().max(0.0));
        }
        Ok(true)
    }

    /// Where the offsets are; of all partitions, for with one of them Postgres went back as a whole.
    async fn find_out(&mut self) -> sqlx::Result<()> {
        let asked = self.inbox.ask();
        let partitions: Vec<i32> = asked.iter().map(|partition| partition.number).collect();
        let stored = projection::offsets(&mut *self.pool.acquire().await?, &partitions).await?;
        if self.inbox.found(&asked, &stored) {
            // With other mailings under its latest numbers, perhaps.
            self.mailings.clear();
        }
        Ok(())
    }

    /// Holds what it has while Postgres is down.
    async fn pause(&self, error: &sqlx::Error, pause: &mut Duration) -> Result<(), Stopped> {
        self.postgres.not_ready(error.to_string());
        self.beat.beat();
        let stopped = tokio::time::timeout(*pause, self.stop.cancelled()).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        if stopped.is_ok() { Err(Stopped) } else { Ok(()) }
    }

    /// Returns once the letter is acknowledged, however long Kafka is down.
    async fn dead_letter(&self, partition: i32, offset: i64, reason: String) -> Result<(), Stopped> {
        let (topic, reader) = (self.topic.clone(), "projector".to_owned());
        let letter = DeadLetter { topic, partition, offset, reader, reason, occurred_at: Utc::now() };
        let mut write = std::pin::pin!(self.dead_letters.write(&letter));
        loop {
            tokio::select! {
                () = &mut write => return Ok(()),
                () = self.stop.cancelled() => return Err(Stopped),
                () = tokio::time::sleep(IDLE) => self.beat.beat(),
            }
        }
    }
}

/// Whether a row's values are at fault, so that it fails for ever: data exceptions (22), constraints (23), and a value that
/// is too long for an index (54). All else may pass, or is mended by people.
fn is_of_a_row(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Encode(_) => true,
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
        }
        _ => false,
    }
}

/// The error without its text, which may quote the row.
fn code(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|error| error.code());
    code.map_or_else(|| "a value has no form there".to_owned(), |code| format!("SQLSTATE {code}"))
}
