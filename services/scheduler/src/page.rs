//! One page: the clients behind the cursor, as message events beside the progress that they make.

use chrono::{DateTime, Utc};
use domain::conveyor::next_span;
use domain::ids::{ClientNo, MessageId};
use events::topics::{Topic, Topics};
use events::{EncodeError, MessageEvent, ProgressRecord, encode};
use kafka::Outgoing;
use sqlx::PgConnection;
use store::mailings::MailingRow;
use store::planning::{ClientRange, PageClient, page_clients};

/// A page stays small in bytes too, because an open transaction holds up every reader.
pub(crate) const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Index ranges read for one page. A sparse audience must not make a page of each empty range.
const MAX_RANGES: u32 = 16;

/// A page, read and encoded before its transaction is opened.
pub(crate) struct Page {
    pub(crate) messages: Vec<(i32, MessageId, Vec<u8>)>,
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

/// Reads the clients behind the cursor.
pub(crate) async fn read(
    db: &mut PgConnection,
    topics: &Topics,
    mailing: &MailingRow,
    progress: &ProgressRecord,
    Extent { clients: limit, mut span }: Extent,
    now: DateTime<Utc>,
) -> anyhow::Result<Page> {
    let mut page = Page { messages: Vec::new(), progress: progress.clone(), span };
    let (mut bytes, mut ranges) = (0, 0);
    while page.progress.cursor < progress.audience_max
        && (page.messages.len() as u64) < limit
        && bytes < MAX_BYTES
        && ranges < MAX_RANGES
    {
        let after = page.progress.cursor;
        let up_to = ClientNo::from(after.get() + span).min(progress.audience_max);
        let wanted = limit - page.messages.len() as u64;
        let range = ClientRange { after, up_to };
        let clients = page_clients(db, mailing.filter(), range, i64::try_from(wanted).unwrap_or(i64::MAX)).await?;
        span = next_span(span, clients.len() as u64, limit);
        ranges += 1;
        // Fewer than asked for: there are no more in the range.
        let mut whole = (clients.len() as u64) < wanted;
        for client in &clients {
            let payload = encode(&message(mailing, client, 1, now)?)?;
            bytes += payload.len();
            let id = MessageId::new(mailing.mailing_no, client.client_no)?;
            let number = client.client_no.partition(topics.partitions(Topic::MessageEvents));
            page.messages.push((number, id, payload));
            page.progress.cursor = client.client_no;
            if bytes >= MAX_BYTES {
                whole = false;
                break;
            }
        }
        if whole {
            page.progress.cursor = up_to;
        }
    }
    page.span = span;
    let planned = i64::try_from(page.messages.len()).unwrap_or(i64::MAX);
    page.progress.planned += planned;
    page.progress.emitted += planned;
    page.progress.complete = page.progress.cursor >= progress.audience_max;
    Ok(page)
}

impl Page {
    /// The records of its transaction.
    pub(crate) fn into_records<'a>(self, topic: &'a str, progress: Outgoing<'a>) -> impl Iterator<Item = Outgoing<'a>> {
        let messages = self.messages.into_iter().map(move |(partition, id, payload)| Outgoing {
            topic,
            partition,
            key: id.to_string(),
            payload,
        });
        messages.chain([progress])
    }
}

/// The progress record of a shard.
pub(crate) fn progress_record<'a>(
    topic: &'a str,
    shard: i32,
    progress: &ProgressRecord,
) -> Result<Outgoing<'a>, EncodeError> {
    Ok(Outgoing { topic, partition: shard, key: progress.mailing_id.to_string(), payload: encode(progress)? })
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
