//! What is told of a message in status-events.

use std::time::Duration;

use domain::status::{Reason, Status};
use events::{Kind, Source, StatusEvent, mask_detail};
use kafka::ledger::StatusOffset;

use crate::context::SenderContext;
use crate::message::Slot;

/// What a status event tells beside the message and its status.
#[derive(Clone, Default)]
pub(crate) struct Told {
    pub(crate) reason: Option<Reason>,
    pub(crate) code: Option<i32>,
    pub(crate) latency: Option<Duration>,
    pub(crate) detail: Option<String>,
}

impl Slot {
    /// Returns once Kafka knows that a call is about to begin: a new owner won't make it again. The gate repeats all checks
    /// behind this.
    pub(crate) async fn tell_started(&mut self, context: &SenderContext) {
        self.announced += 1;
        let started = self.event(context, Kind::Started, Status::Created, Told::default());
        self.write(context, &StatusEvent { attempt: self.attempt + 1, ..started }).await;
    }

    /// Takes back what [`Self::tell_started`] announced: the message isn't in doubt, a new owner may call.
    pub(crate) async fn tell_not_called(&self, context: &SenderContext) {
        self.write(context, &self.event(context, Kind::Open, Status::Created, Told::default())).await;
    }

    /// Returns once Kafka knows until when the message waits, and why: a new owner waits as long.
    pub(crate) async fn tell_waiting(&self, context: &SenderContext, told: Told) {
        let event = self.event(context, Kind::Open, Status::Retrying, told);
        self.write(context, &event).await;
        context.metrics.count(&event.status);
    }

    /// Settling is the acknowledgement: only then is the slot closed.
    pub(crate) async fn settle(&self, context: &SenderContext, status: Status, told: Told) {
        let event = self.event(context, Kind::Settled, status, told);
        let offset = context.statuses.publish(&event).await;
        context.metrics.count(&event.status);
        runtime::crash_point!("send::acknowledged");
        let lag = context.fence.clock.now() - self.event.planned_at;
        context.metrics.delivery_lag.observe(lag.as_seconds_f64().max(0.0));
        self.close(offset);
    }

    /// Closes the slot; what it makes room for begins.
    pub(crate) fn close(&self, settled_by: StatusOffset) {
        let opened = self.owned.partition.close(self.offset, settled_by);
        self.owned.begin(opened);
    }

    async fn write(&self, context: &SenderContext, event: &StatusEvent) {
        let offset = context.statuses.publish(event).await;
        self.owned.partition.acknowledge(offset);
    }

    pub(crate) fn event(&self, context: &SenderContext, kind: Kind, status: Status, told: Told) -> StatusEvent {
        let waits = matches!(status, Status::Retrying | Status::Held);
        StatusEvent {
            message_id: self.event.message_id,
            mailing_id: self.event.mailing_id,
            client_id: self.event.client_id,
            round: self.event.round,
            attempt: self.attempt,
            announced: self.announced,
            kind,
            reason: told.reason,
            code: told.code,
            latency_ms: told.latency.map(|latency| i32::try_from(latency.as_millis()).unwrap_or(i32::MAX)),
            not_before: self.delay.as_ref().filter(|_| waits).map(|delay| delay.until),
            operator_code: (status == Status::Held).then_some(self.event.operator_code),
            status,
            detail: told.detail.as_deref().map(mask_detail),
            planned_at: self.event.planned_at,
            occurred_at: context.fence.clock.now(),
            source: Source { partition: self.owned.partition.number, offset: self.offset.0 },
        }
    }
}
