//! One page: the clients behind the cursor, beside the progress that they make.

use chrono::{DateTime, Utc};
use domain::conveyor::next_span;
use domain::ids::{ClientNo, MessageId};
use domain::status::{Reason, Status};
use events::topics::{Topic, Topics};
use events::{Kind, MessageEvent, ProgressRecord, Source, StatusEvent};
use sqlx::PgConnection;
use store::mailings::MailingRow;
use store::planning::{ClientRange, PageClient, page_clients};
use uuid::Uuid;

use crate::records::Records;

/// Index ranges read for one page. A sparse audience must not make a page of each empty range.
const MAX_RANGES: u32 = 16;

/// A page, read and encoded before its transaction is opened.
pub(crate) struct Page {
    pub(crate) records: Records,
    pub(crate) progress: ProgressRecord,
    /// How many client numbers the next page should span.
    pub(crate) span: i64,
}

/// How much a page reads.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Clients at most.
    pub(crate) clients: u64,
    /// Client numbers that one index range spans.
    pub(crate) span: i64,
}

/// A terminal status that the planner gives by itself.
pub(crate) type End = (Status, Reason);

/// Reads the clients behind the cursor. They become message events, or have the status of `end`.
pub(crate) async fn read(
    db: &mut PgConnection,
    topics: &Topics,
    mailing: &MailingRow,
    progress: &ProgressRecord,
    Extent { clients: limit, mut span }: Extent,
    end: Option<&End>,
    now: DateTime<Utc>,
) -> anyhow::Result<Page> {
    let mut page = Page { records: Records::default(), progress: progress.clone(), span };
    let mut ranges = 0;
    while page.progress.cursor < progress.audience_max
        && page.records.clients() < limit
        && !page.records.is_full()
        && ranges < MAX_RANGES
    {
        let after = page.progress.cursor;
        let up_to = ClientNo::from(after.get() + span).min(progress.audience_max);
        let wanted = limit - page.records.clients();
        let range = ClientRange { after, up_to };
        let clients = page_clients(db, mailing.filter(), range, i64::try_from(wanted).unwrap_or(i64::MAX)).await?;
        span = next_span(span, clients.len() as u64, limit);
        ranges += 1;
        // Fewer than asked for: there are no more in the range.
        let mut whole = (clients.len() as u64) < wanted;
        for client in &clients {
            match end {
                None => page.records.plan(&message(mailing, client, 1, now)?)?,
                Some(end) => {
                    let ended = Ended {
                        client_no: client.client_no,
                        client_id: client.id,
                        round: 1,
                        attempts: 0,
                        planned_at: now,
                    };
                    page.records.settle(&ended.status(topics, mailing, end, now)?)?;
                }
            }
            page.progress.cursor = client.client_no;
            if page.records.is_full() {
                whole = false;
                break;
            }
        }
        if whole {
            page.progress.cursor = up_to;
        }
    }
    page.span = span;
    let planned = i64::try_from(page.records.clients()).unwrap_or(i64::MAX);
    page.progress.planned += planned;
    page.progress.emitted += planned;
    page.progress.complete = page.progress.cursor >= progress.audience_max;
    Ok(page)
}

pub(crate) fn message(
    mailing: &MailingRow,
    client: &PageClient,
    round: i32,
    now: DateTime<Utc>,
) -> anyhow::Result<MessageEvent> {
    Ok(MessageEvent {
        message_id: MessageId::new(mailing.mailing_no, client.client_no)?,
        mailing_id: mailing.id,
        mailing_version: mailing.version,
        client_id: client.id,
        phone: Some(client.phone),
        text: Some(mailing.text.as_str().into()),
        operator_code: client.operator_code,
        ends_at: mailing.ends_at,
        window: None,
        delivery: mailing.delivery.clone(),
        round,
        attempts: 0,
        planned_at: now,
    })
}

/// A message that the planner settles, because nobody may call any more.
pub(crate) struct Ended {
    pub(crate) client_no: ClientNo,
    pub(crate) client_id: Uuid,
    /// A round of its own: it counts as one that was emitted.
    pub(crate) round: i32,
    pub(crate) attempts: i32,
    pub(crate) planned_at: DateTime<Utc>,
}

impl Ended {
    /// Its status. There is no message event of this round, so it names no record.
    pub(crate) fn status(
        &self,
        topics: &Topics,
        mailing: &MailingRow,
        (status, reason): &End,
        now: DateTime<Utc>,
    ) -> anyhow::Result<StatusEvent> {
        let partition = self.client_no.partition(topics.partitions(Topic::MessageEvents));
        Ok(StatusEvent {
            message_id: MessageId::new(mailing.mailing_no, self.client_no)?,
            mailing_id: mailing.id,
            client_id: self.client_id,
            round: self.round,
            attempt: self.attempts,
            announced: 0,
            kind: Kind::Settled,
            status: status.clone(),
            reason: Some(reason.clone()),
            code: None,
            latency_ms: None,
            not_before: None,
            operator_code: None,
            detail: None,
            planned_at: self.planned_at,
            occurred_at: now,
            source: Source { partition, offset: -1 },
        })
    }
}
