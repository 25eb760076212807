//! The life of one message, from its slot's opening to the acknowledgement of its settling status.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::delivery::{MailingOrder, Next, Outcome, Permit, after_attempt, permit};
use domain::mailing::Delivery;
use domain::status::{Reason, Status};
use events::{Kind, MessageEvent, Source, StatusEvent, mask_detail};
use kafka::ledger::MessageOffset;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::context::SenderContext;
use crate::jitter::jittered;
use crate::metrics::Metrics;
use crate::partition::{Opened, Partition};
use crate::provider::{Call, Request};

/// A partition that this sender owns, and what its messages run with.
pub(crate) struct Ownership {
    pub(crate) partition: Partition,
    pub(crate) context: Arc<SenderContext>,
    /// The partition's messages. They outlive the ownership until the statuses of their calls are acknowledged.
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: Handle,
}

impl Ownership {
    /// Starts a task for each message.
    pub(crate) fn begin(self: &Arc<Self>, opened: Vec<Opened>) {
        for opened in opened {
            self.tasks.spawn_on(Slot::new(Arc::clone(self), opened).run(), &self.runtime);
        }
    }
}

/// An open message.
struct Slot {
    owned: Arc<Ownership>,
    offset: MessageOffset,
    event: MessageEvent,
    /// Calls made so far, also by an earlier owner, the one in doubt not counted.
    attempt: i32,
    /// Calls announced so far, of an `at_most_once` mailing.
    announced: i32,
    /// The next call begins no earlier.
    not_before: Option<DateTime<Utc>>,
    /// An earlier owner was about to make another call, and nobody knows what came of it.
    in_doubt: bool,
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
    fn new(owned: Arc<Ownership>, opened: Opened) -> Self {
        let Opened { offset, event, recovered } = opened;
        let (attempt, announced, not_before, in_doubt) = recovered.map_or((0, 0, None, false), |known| {
            (known.attempt, known.announced, known.not_before, known.is_in_doubt())
        });
        Self { owned, offset, event, attempt, announced, not_before, in_doubt }
    }

    /// Brings the message to its settling status, or stops where it may when the partition is taken away.
    async fn run(mut self) {
        let owned = Arc::clone(&self.owned);
        let (context, stop) = (&owned.context, &owned.partition.stop);
        loop {
            let Some(mailing) = stop.run_until_cancelled(self.turn(context)).await else { return };
            if self.in_doubt {
                self.attempt += 1;
                let told = Told { reason: Some(Reason::SenderLost), ..Told::default() };
                return self.settle(context, Status::Unknown, told).await;
            }
            if let Permit::Settle(status, reason) = permit(&mailing, context.clock.now()) {
                return self.settle(context, status, Told { reason: Some(reason), ..Told::default() }).await;
            }
            let (Some(phone), Some(text)) = (self.event.phone, self.event.text.as_deref()) else {
                let told = Told { reason: Some(Reason::Invalid), ..Told::default() };
                return self.settle(context, Status::Failed, told).await;
            };
            let Some(call_slot) = stop.run_until_cancelled(context.calls.acquire()).await else { return };
            if self.event.delivery == Delivery::AtMostOnce {
                self.tell_started(context).await;
            }
            runtime::crash_point!("send::permitted");
            context.metrics.active_sends.inc();
            let request = Request { id: self.event.message_id.get(), phone, text };
            let call = Box::pin(context.provider.call(self.event.message_id, &request, self.gate())).await;
            context.metrics.active_sends.dec();
            // At most once: kept until Kafka knows what came of the call, so that a kill makes no more messages unknown than
            // there are calls at once.
            let _call_slot = (self.event.delivery == Delivery::AtMostOnce).then_some(call_slot);
            runtime::crash_point!("send::answered");
            let Call::Made { outcome, code, latency, detail } = call else {
                if self.event.delivery == Delivery::AtMostOnce {
                    self.tell_not_called(context).await;
                }
                continue;
            };
            measure(&context.metrics, &outcome, latency);

            let told = Told { reason: None, code, latency: Some(latency), detail };
            match after_attempt(outcome, &self.event.delivery, self.attempt + 1, false, &context.retry_delays, 0.0) {
                Next::Wait(wait) => self.not_before = Some(context.clock.now() + wait),
                Next::Uncounted(_) => {}
                Next::Retry(delay, reason) => {
                    self.attempt += 1;
                    self.not_before = Some(context.clock.now() + jittered(delay));
                    self.publish(context, Kind::Open, Status::Retrying, Told { reason: Some(reason), ..told }).await;
                }
                Next::Settle(status, reason) => {
                    self.attempt += 1;
                    return self.settle(context, status, Told { reason, ..told }).await;
                }
            }
        }
    }

    /// Waits until the message may be decided about: its time has come, the board knows its mailing, the fence holds.
    async fn turn(&self, context: &SenderContext) -> MailingOrder {
        let mailing = context.board.wait(self.event.mailing_id, self.event.mailing_version).await;
        if let Some(not_before) = self.not_before {
            let wait = not_before.min(mailing.ends_at) - context.clock.now();
            tokio::time::sleep(wait.to_std().unwrap_or_default()).await;
        }
        context.fence.wait().await;
        context.board.wait(self.event.mailing_id, self.event.mailing_version).await
    }

    /// Repeats the checks when the connection is ready to be written to; what is left then is microseconds.
    fn gate(&self) -> impl FnOnce() -> bool + Send + Sync + 'static {
        let owned = Arc::clone(&self.owned);
        let (mailing, version) = (self.event.mailing_id, self.event.mailing_version);
        move || {
            let context = &owned.context;
            let permitted = || {
                let mailing = context.board.at_least(mailing, version);
                mailing.is_some_and(|mailing| permit(&mailing, context.clock.now()) == Permit::Call)
            };
            !owned.partition.stop.is_cancelled() && context.fence.holds() && permitted()
        }
    }

    /// Returns once Kafka knows that a call is about to begin: a new owner won't make it again. The gate repeats all checks
    /// behind this.
    async fn tell_started(&self, context: &SenderContext) {
        let event = StatusEvent {
            attempt: self.attempt + 1,
            ..self.event(context, Kind::Started, Status::Created, Told::default())
        };
        self.write(context, &event).await;
    }

    /// Takes back what [`Self::tell_started`] announced: the message isn't in doubt, a new owner may call.
    async fn tell_not_called(&self, context: &SenderContext) {
        self.write(context, &self.event(context, Kind::Open, Status::Created, Told::default())).await;
    }

    /// Settling is the acknowledgement: only then is the slot closed.
    async fn settle(&self, context: &SenderContext, status: Status, told: Told) {
        let event = self.event(context, Kind::Settled, status, told);
        let settled_by = context.statuses.publish(&event).await;
        runtime::crash_point!("send::acknowledged");
        context.metrics.messages.with_label_values(&[event.status.as_str()]).inc();
        let lag = context.clock.now() - self.event.planned_at;
        context.metrics.delivery_lag.observe(lag.as_seconds_f64().max(0.0));
        let opened = self.owned.partition.close(self.offset, settled_by);
        self.owned.begin(opened);
    }

    /// Returns once the status is acknowledged.
    async fn publish(&self, context: &SenderContext, kind: Kind, status: Status, told: Told) {
        let event = self.event(context, kind, status, told);
        self.write(context, &event).await;
        context.metrics.messages.with_label_values(&[event.status.as_str()]).inc();
    }

    async fn write(&self, context: &SenderContext, event: &StatusEvent) {
        let offset = context.statuses.publish(event).await;
        self.owned.partition.acknowledge(offset);
    }

    fn event(&self, context: &SenderContext, kind: Kind, status: Status, told: Told) -> StatusEvent {
        StatusEvent {
            message_id: self.event.message_id,
            mailing_id: self.event.mailing_id,
            client_id: self.event.client_id,
            round: self.event.round,
            attempt: self.attempt,
            announced: self.announced,
            kind,
            status,
            reason: told.reason,
            code: told.code,
            latency_ms: told.latency.map(|latency| i32::try_from(latency.as_millis()).unwrap_or(i32::MAX)),
            not_before: self.not_before.filter(|_| kind == Kind::Open),
            operator_code: Some(self.event.operator_code),
            detail: told.detail.as_deref().map(mask_detail),
            planned_at: self.event.planned_at,
            occurred_at: context.clock.now(),
            source: Source { partition: self.owned.partition.number, offset: self.offset.0 },
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
