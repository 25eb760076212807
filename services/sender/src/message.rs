//! The life of one message, from its slot's opening to the acknowledgement of its settling status.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use domain::client::OperatorCode;
use domain::decision::{Access, Decision, Delay, MessageFacts, VALIDITY, decide};
use domain::delivery::{MailingOrder, Next, Outcome, after_attempt};
use domain::mailing::Delivery;
use domain::status::{Reason, Status};
use events::{Kind, MessageEvent};
use kafka::ledger::MessageOffset;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::context::SenderContext;
use crate::jitter::{jittered, random};
use crate::lanes::Leave;
use crate::partition::{Opened, Partition};
use crate::provider::{Call, Request};
use crate::telling::Told;

/// A partition that this sender owns, and what its messages run with.
pub(crate) struct Ownership {
    pub(crate) partition: Partition,
    pub(crate) context: Arc<SenderContext>,
    /// The partition's messages. They outlive the ownership until the statuses of their calls are acknowledged.
    pub(crate) tasks: TaskTracker,
    pub(crate) runtime: Handle,
}

impl Ownership {
    /// Starts a task for each message. One that panics ends the process: its slot would stay open for ever.
    pub(crate) fn begin(self: &Arc<Self>, opened: Vec<Opened>) {
        for opened in opened {
            let slot = Slot::new(Arc::clone(self), opened);
            self.tasks.spawn_on(self.context.supervise("a message", slot.run()), &self.runtime);
        }
    }
}

/// An open message.
pub(crate) struct Slot {
    pub(crate) owned: Arc<Ownership>,
    pub(crate) offset: MessageOffset,
    pub(crate) event: MessageEvent,
    /// Calls made so far, also in earlier rounds and by earlier owners, the one in doubt and the throttled ones not counted.
    pub(crate) attempt: i32,
    /// Calls announced so far, of an `at_most_once` mailing.
    pub(crate) announced: i32,
    /// The next call begins no earlier.
    pub(crate) delay: Option<Delay>,
    /// An earlier owner was about to make another call, and nobody knows what came of it.
    in_doubt: bool,
    /// Since when it has waited for its lane or a limit.
    queued_since: Option<DateTime<Utc>>,
    /// What came of the last call.
    last: Told,
}

/// Whether a message stays open.
enum Then {
    Open,
    Closed,
}

impl Slot {
    fn new(owned: Arc<Ownership>, opened: Opened) -> Self {
        let Opened { offset, event, recovered } = opened;
        let attempt = recovered.as_ref().map_or(0, |known| known.attempt).max(event.attempts);
        let announced = recovered.as_ref().map_or(0, |known| known.announced);
        let in_doubt = recovered.as_ref().is_some_and(crate::recovered::Recovered::is_in_doubt);
        let delay = recovered.and_then(|known| known.delay);
        Self { owned, offset, event, attempt, announced, delay, in_doubt, queued_since: None, last: Told::default() }
    }

    /// Brings the message to its settling status, or stops where it may when the partition is taken away.
    async fn run(mut self) {
        let owned = Arc::clone(&self.owned);
        let (context, stop) = (&owned.context, &owned.partition.stop);
        let Ok(code) = OperatorCode::new(i64::from(self.event.operator_code)) else {
            let told = Told { reason: Some(Reason::Invalid), ..Told::default() };
            return self.settle(context, Status::Failed, told).await;
        };
        while let Some(mailing) = stop.run_until_cancelled(self.mailing(context)).await {
            let Some(mailing) = mailing else {
                let now = context.fence.clock.now();
                return self.hold(context, Reason::Stale, now).await;
            };
            let decision = self.decide(&mailing, &context.lanes.access(code));
            let leave = match decision {
                Decision::Call => {
                    let Some(taken) = stop.run_until_cancelled(context.lanes.take(code)).await else { return };
                    taken.ok()
                }
                Decision::Queue { until } => {
                    let Some(leave) = stop.run_until_cancelled(self.queue(context, code, &mailing, until)).await else {
                        return;
                    };
                    leave
                }
                Decision::Wait { until } => {
                    stop.run_until_cancelled(self.sleep(context, &mailing, until)).await;
                    None
                }
                Decision::Hold { reason, not_before } => return self.hold(context, reason, not_before).await,
                Decision::Settle { status, reason } => return self.settle_uncalled(context, status, reason).await,
            };
            if let Some(leave) = leave
                && let Then::Closed = self.call(context, leave).await
            {
                return;
            }
        }
    }

    /// Waits until the message may be decided about: the board knows its mailing, the fence holds. None: the mailing is missing
    /// for as long as the message is valid.
    async fn mailing(&self, context: &SenderContext) -> Option<MailingOrder> {
        let wait = context.board.wait(self.event.mailing_id, self.event.mailing_version);
        let valid = self.event.planned_at + VALIDITY - context.fence.clock.now();
        let known = match context.board.at_least(self.event.mailing_id, self.event.mailing_version) {
            Some(known) => Some(known),
            None => tokio::time::timeout(valid.to_std().unwrap_or_default(), wait).await.ok(),
        };
        if context.fence.holds() {
            return known;
        }
        context.fence.wait().await;
        context.board.at_least(self.event.mailing_id, self.event.mailing_version)
    }

    fn decide(&self, mailing: &MailingOrder, access: &Access) -> Decision {
        let facts = MessageFacts {
            round: self.event.round,
            planned_at: self.event.planned_at,
            addressed: self.event.phone.is_some() && self.event.text.is_some(),
            delivery: &self.event.delivery,
            windowed: self.event.window.is_some(),
            in_doubt: self.in_doubt,
            delay: self.delay.clone(),
            queued_since: self.queued_since,
            may_queue: self.owned.partition.may_queue(),
        };
        decide(&facts, mailing, access, self.owned.context.fence.clock.now())
    }

    /// Waits until then, or until the mailing changes.
    async fn sleep(&self, context: &SenderContext, mailing: &MailingOrder, until: DateTime<Utc>) {
        let mut changes = context.board.changes(self.event.mailing_id);
        let changed = changes.wait_for(|order| order.as_ref().is_some_and(|order| order.version > mailing.version));
        let wait = (until - context.fence.clock.now()).to_std().unwrap_or_default();
        let _ = tokio::time::timeout(wait, changed).await;
    }

    /// Stands in the queue until it is let go, or is to be decided about again.
    async fn queue(
        &mut self,
        context: &SenderContext,
        code: OperatorCode,
        mailing: &MailingOrder,
        until: DateTime<Utc>,
    ) -> Option<Leave> {
        let _queued = self.owned.partition.queue();
        self.queued_since.get_or_insert_with(|| context.fence.clock.now());
        let mut ticket = context.lanes.join(code, self.event.message_id.mailing_no());
        tokio::select! {
            leave = ticket.leave() => leave,
            () = self.sleep(context, mailing, until) => None,
        }
    }

    /// Makes the call that it has leave for.
    async fn call(&mut self, context: &SenderContext, mut leave: Leave) -> Then {
        let (Some(phone), Some(text)) = (self.event.phone, self.event.text.clone()) else { return Then::Open };
        // Waiting for a place may have taken long; asked here, a closed gate costs no connection and no announcement.
        let gate = self.gate();
        if !gate() {
            return Then::Open;
        }
        let at_most_once = self.event.delivery == Delivery::AtMostOnce;
        if at_most_once {
            self.tell_started(context).await;
        }
        runtime::crash_point!("send::permitted");
        context.metrics.active_sends.inc();
        let calling = self.owned.partition.begin_call();
        let request = Request { id: self.event.message_id.get(), phone, text: &text };
        let call = Box::pin(context.provider.call(self.event.message_id, &request, gate)).await;
        drop(calling);
        context.metrics.active_sends.dec();
        runtime::crash_point!("send::answered");
        let Call::Made { outcome, code, latency, detail } = call else {
            if at_most_once {
                self.tell_not_called(context).await;
            }
            return Then::Open;
        };
        self.queued_since = None;
        context.metrics.measure(&outcome, latency);
        let lane_closed = leave.tell(&outcome).is_some();
        // At most once: the place is kept until Kafka knows what came of the call, so that a kill makes no more messages unknown
        // than there are calls at once.
        let _place = at_most_once.then_some(leave);
        self.last = Told { reason: None, code, latency: Some(latency), detail };
        self.follow(context, outcome, lane_closed).await
    }

    /// Does what follows from a call's outcome.
    async fn follow(&mut self, context: &SenderContext, outcome: Outcome, lane_closed: bool) -> Then {
        let now = context.fence.clock.now();
        let (delays, delivery) = (&context.retry_delays, &self.event.delivery);
        match after_attempt(outcome, delivery, self.attempt + 1, lane_closed, delays, random()) {
            Next::Uncounted(reason) => {
                self.last.reason = Some(reason);
                if self.event.delivery == Delivery::AtMostOnce {
                    self.tell_not_called(context).await;
                }
                Then::Open
            }
            Next::Wait(wait) => {
                self.delay = Some(Delay { until: now + wait, reason: Reason::Throttled });
                self.tell_waiting(context, Told { reason: Some(Reason::Throttled), ..self.last.clone() }).await;
                Then::Open
            }
            Next::Retry(delay, reason) => {
                self.attempt += 1;
                self.delay = Some(Delay { until: now + jittered(delay), reason: reason.clone() });
                self.tell_waiting(context, Told { reason: Some(reason), ..self.last.clone() }).await;
                Then::Open
            }
            Next::Settle(status, reason) => {
                self.attempt += 1;
                self.settle(context, status, Told { reason, ..self.last.clone() }).await;
                Then::Closed
            }
        }
    }

    async fn settle_uncalled(mut self, context: &SenderContext, status: Status, reason: Reason) {
        self.attempt += i32::from(self.in_doubt);
        self.settle(context, status, Told { reason: Some(reason), ..Told::default() }).await;
    }

    /// Gives the slot up, and the message to a later round.
    ///
    /// A `held` is no evidence, so it is written under the fence only. After a delivery that failed it may stand in the log all
    /// the same: then the message isn't called any more, but held again, or left to the partition's next owner.
    async fn hold(mut self, context: &SenderContext, reason: Reason, not_before: DateTime<Utc>) {
        let stop = self.owned.partition.stop.clone();
        self.delay = Some(Delay { until: not_before, reason: reason.clone() });
        let told = Told { reason: Some(reason), ..self.last.clone() };
        while stop.run_until_cancelled(context.fence.wait()).await.is_some() {
            let event = self.event(context, Kind::Settled, Status::Held, told.clone());
            // The fence is looked at when the record is handed to the producer, which can't take it back.
            if !context.fence.holds() {
                continue;
            }
            if let Some(offset) = context.statuses.publish_held(&event).await {
                context.metrics.count(&event.status);
                return self.close(offset);
            }
        }
    }

    /// Repeats the checks when the connection is ready to be written to; what is left then is microseconds.
    fn gate(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let owned = Arc::clone(&self.owned);
        let (mailing, version) = (self.event.mailing_id, self.event.mailing_version);
        let (planned_at, delivery) = (self.event.planned_at, self.event.delivery.clone());
        move || {
            let context = &owned.context;
            let permitted = |mailing: MailingOrder| {
                let facts = MessageFacts {
                    round: 1,
                    planned_at,
                    addressed: true,
                    delivery: &delivery,
                    windowed: false,
                    in_doubt: false,
                    delay: None,
                    queued_since: None,
                    may_queue: true,
                };
                decide(&facts, &mailing, &Access::Open, context.fence.clock.now()) == Decision::Call
            };
            !owned.partition.stop.is_cancelled()
                && context.fence.holds()
                && context.board.at_least(mailing, version).is_some_and(permitted)
        }
    }
}
