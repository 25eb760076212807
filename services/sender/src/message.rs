//! The life of one message, from its slot's opening to the acknowledgement of its settling status.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::delivery::{MailingOrder, Next, Outcome, Permit, after_attempt, permit};
use domain::mailing::Delivery;
use domain::status::{Reason, Status};
use events::{Kind, MessageEvent, Source, StatusEvent, mask_detail};
use tokio::sync::Semaphore;

use crate::board::Board;
use crate::clock::Clock;
use crate::fence::Fence;
use crate::metrics::Metrics;
use crate::partition::Partition;
use crate::provider::{Call, Provider, Request};
use crate::retry::jittered;
use crate::statuses::Statuses;

/// What every message of a sender shares.
pub(crate) struct Desk {
    pub(crate) board: Arc<Board>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) clock: Clock,
    pub(crate) provider: Provider,
    pub(crate) calls: Semaphore,
    pub(crate) statuses: Statuses,
    pub(crate) retry_delays: Vec<Duration>,
    pub(crate) metrics: Metrics,
}

/// An open message.
pub(crate) struct Slot {
    pub(crate) partition: Arc<Partition>,
    pub(crate) offset: i64,
    pub(crate) event: MessageEvent,
    /// Calls made so far, also by an earlier owner, the one in doubt not counted.
    pub(crate) attempt: i32,
    /// The next call begins no earlier.
    pub(crate) not_before: Option<DateTime<Utc>>,
    /// An earlier owner was about to make another call, and nobody knows what came of it.
    pub(crate) in_doubt: bool,
}

/// What a status event tells beside the message and its status.
#[derive(Default)]
struct Told {
    reason: Option<Reason>,
    code: Option<i32>,
    latency: Option<Duration>,
    detail: Option<String>,
}

impl Slot {
    /// Brings the message to its settling status, or stops where it may when the partition is taken away.
    pub(crate) async fn run(mut self) {
        let partition = Arc::clone(&self.partition);
        let (desk, stop) = (&partition.desk, &partition.stop);
        loop {
            let Some(mailing) = stop.run_until_cancelled(self.turn(desk)).await else { return };
            if self.in_doubt {
                self.attempt += 1;
                let told = Told { reason: Some(Reason::SenderLost), ..Told::default() };
                return self.settle(desk, Status::Unknown, told).await;
            }
            if let Permit::Settle(status, reason) = permit(&mailing, desk.clock.now()) {
                return self.settle(desk, status, Told { reason: Some(reason), ..Told::default() }).await;
            }
            let (Some(phone), Some(text)) = (self.event.phone, self.event.text.as_deref()) else {
                let told = Told { reason: Some(Reason::Invalid), ..Told::default() };
                return self.settle(desk, Status::Failed, told).await;
            };
            let Some(call_slot) = stop.run_until_cancelled(desk.calls.acquire()).await else { return };
            if self.event.delivery == Delivery::AtMostOnce {
                self.tell_started(desk).await;
            }
            runtime::crash_point!("send::permitted");
            desk.metrics.active_sends.inc();
            let request = Request { id: self.event.message_id.get(), phone, text };
            let call = Box::pin(desk.provider.call(self.event.message_id, &request, self.gate())).await;
            desk.metrics.active_sends.dec();
            // At most once: kept until Kafka knows what came of the call, so that a kill makes no more messages unknown than
            // there are calls at once.
            let _call_slot = (self.event.delivery == Delivery::AtMostOnce).then_some(call_slot);
            runtime::crash_point!("send::answered");
            let Call::Made { outcome, code, latency, detail } = call else {
                if self.event.delivery == Delivery::AtMostOnce {
                    self.tell_not_called(desk).await;
                }
                continue;
            };
            measure(&desk.metrics, &outcome, latency);

            let told = Told { reason: None, code, latency: Some(latency), detail };
            match after_attempt(outcome, &self.event.delivery, self.attempt + 1, &desk.retry_delays) {
                Next::Wait(wait) => self.not_before = Some(desk.clock.now() + wait),
                Next::Retry(delay, reason) => {
                    self.attempt += 1;
                    self.not_before = Some(desk.clock.now() + jittered(delay));
                    self.publish(desk, Kind::Open, Status::Retrying, Told { reason: Some(reason), ..told }).await;
                }
                Next::Settle(status, reason) => {
                    self.attempt += 1;
                    return self.settle(desk, status, Told { reason, ..told }).await;
                }
            }
        }
    }

    /// Waits until the message may be decided about: its time has come, the board knows its mailing, the fence holds.
    async fn turn(&self, desk: &Desk) -> MailingOrder {
        let mailing = desk.board.wait(self.event.mailing_id, self.event.mailing_version).await;
        if let Some(not_before) = self.not_before {
            let wait = not_before.min(mailing.ends_at) - desk.clock.now();
            tokio::time::sleep(wait.to_std().unwrap_or_default()).await;
        }
        desk.fence.wait().await;
        desk.board.wait(self.event.mailing_id, self.event.mailing_version).await
    }

    /// Repeats the checks when the connection is ready to be written to; what is left then is microseconds.
    fn gate(&self) -> impl FnOnce() -> bool + Send + Sync + 'static {
        let partition = Arc::clone(&self.partition);
        let (mailing, version) = (self.event.mailing_id, self.event.mailing_version);
        move || {
            let desk = &partition.desk;
            let permitted = || {
                let mailing = desk.board.at_least(mailing, version);
                mailing.is_some_and(|mailing| permit(&mailing, desk.clock.now()) == Permit::Call)
            };
            !partition.stop.is_cancelled() && desk.fence.holds() && permitted()
        }
    }

    /// Returns once Kafka knows that a call is about to begin: a new owner won't make it again. The gate repeats all checks
    /// behind this.
    async fn tell_started(&self, desk: &Desk) {
        let event = StatusEvent {
            attempt: self.attempt + 1,
            ..self.event(desk, Kind::Started, Status::Created, Told::default())
        };
        self.write(desk, &event).await;
    }

    /// Takes back what [`Self::tell_started`] announced: the message isn't in doubt, a new owner may call.
    async fn tell_not_called(&self, desk: &Desk) {
        self.write(desk, &self.event(desk, Kind::Open, Status::Created, Told::default())).await;
    }

    /// Settling is the acknowledgement: only then is the slot closed.
    async fn settle(&self, desk: &Desk, status: Status, told: Told) {
        self.publish(desk, Kind::Settled, status, told).await;
        runtime::crash_point!("send::acknowledged");
        let lag = desk.clock.now() - self.event.planned_at;
        desk.metrics.delivery_lag.observe(lag.as_seconds_f64().max(0.0));
        self.partition.close(self.offset);
    }

    /// Returns once the status is acknowledged.
    async fn publish(&self, desk: &Desk, kind: Kind, status: Status, told: Told) {
        let event = self.event(desk, kind, status, told);
        self.write(desk, &event).await;
        desk.metrics.messages.with_label_values(&[event.status.as_str()]).inc();
    }

    async fn write(&self, desk: &Desk, event: &StatusEvent) {
        let offset = desk.statuses.publish(event).await;
        self.partition.acknowledge(offset);
    }

    fn event(&self, desk: &Desk, kind: Kind, status: Status, told: Told) -> StatusEvent {
        StatusEvent {
            message_id: self.event.message_id,
            mailing_id: self.event.mailing_id,
            client_id: self.event.client_id,
            round: self.event.round,
            attempt: self.attempt,
            kind,
            status,
            reason: told.reason,
            code: told.code,
            latency_ms: told.latency.map(|latency| i32::try_from(latency.as_millis()).unwrap_or(i32::MAX)),
            not_before: self.not_before.filter(|_| kind == Kind::Open),
            detail: told.detail.as_deref().map(mask_detail),
            planned_at: self.event.planned_at,
            occurred_at: desk.clock.now(),
            source: Source { partition: self.partition.number, offset: self.offset },
        }
    }
}

fn measure(metrics: &Metrics, outcome: &Outcome, latency: Duration) {
    let label = match outcome {
        Outcome::Accepted => "accepted",
        Outcome::Rejected => "rejected",
        Outcome::Retryable(_) => "retryable",
        Outcome::Ambiguous(_) => "ambiguous",
        Outcome::Throttled(_) => "throttled",
    };
    metrics.attempts.with_label_values(&[label]).inc();
    metrics.attempt_duration.with_label_values(&[label]).observe(latency.as_secs_f64());
}
