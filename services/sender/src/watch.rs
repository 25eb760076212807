//! What operators see of a sender that doesn't call: its fence, its lanes, its pace.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::client::OperatorCode;
use domain::lane::{LaneView, Lanes};
use domain::status::Reason;
use domain::traffic::Traffic;
use runtime::Service;
use runtime::health::Readiness;

use crate::context::SenderContext;

/// How long the fence may be closed before the sender says that it isn't ready.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts the tasks that look, show in `lanes` which are closed, let go what waits for a lane, and end the process after a panic.
pub(crate) fn start(context: &Arc<SenderContext>, lanes: Readiness, service: &Service) {
    let panicked = Arc::clone(&context.panicked);
    let stop = service.stop.clone();
    service.tasks.spawn("sender-supervisor", async move {
        match stop.run_until_cancelled(panicked.notified()).await {
            Some(()) => anyhow::bail!("a message or a takeover panicked"),
            None => Ok(()),
        }
    });
    service.tasks.spawn("sender-lanes", Arc::clone(&context.lanes).let_go(service.stop.clone()));
    let fence = service.health.readiness("fence");
    let mut watch = Watch { context: Arc::clone(context), fence, lanes, closed_since: None, shown: vec![] };
    watch.fence.ready();
    service.tasks.spawn(
        "sender-watch",
        Arc::clone(&context.lanes).tick(service.stop.clone(), move |traffic, now| watch.look(traffic, now)),
    );
}

struct Watch {
    context: Arc<SenderContext>,
    fence: Readiness,
    lanes: Readiness,
    /// When the fence was first seen closed, with messages that wait for it.
    closed_since: Option<Instant>,
    /// The lanes that are shown as closed.
    shown: Vec<(OperatorCode, Reason)>,
}

impl Watch {
    fn look<T>(&mut self, traffic: &Traffic<T>, now: Duration) {
        self.look_at_fence();
        let lanes = traffic.lanes();
        self.look_at_lanes(lanes);
        let metrics = &self.context.metrics;
        metrics.pace_limit.set(lanes.pace().limit(now).unwrap_or(0.0));
        metrics.throttled_share.set(lanes.pace().throttled_share(now));
        metrics.queued.set(i64::try_from(traffic.waiting()).unwrap_or(i64::MAX));
    }

    /// A lane that stays closed is shown without a gap: somebody may be reading meanwhile.
    fn look_at_lanes(&mut self, lanes: &Lanes) {
        let closed = |lane: LaneView| Some((lane.code, lane.closed?));
        let closed: Vec<_> = lanes.view().into_iter().filter_map(closed).collect();
        let gauge = &self.context.metrics.lane_closed;
        for (code, reason) in &closed {
            gauge.with_label_values(&[&code.to_string(), reason.as_str()]).set(1);
        }
        for (code, reason) in self.shown.iter().filter(|lane| !closed.contains(lane)) {
            let _ = gauge.remove_label_values(&[&code.to_string(), reason.as_str()]);
        }
        self.lanes.note((!closed.is_empty()).then(|| {
            let named: Vec<String> =
                closed.iter().map(|(code, reason)| format!("{code} ({})", reason.as_str())).collect();
            format!("lanes are closed: {}", named.join(", "))
        }));
        self.shown = closed;
    }

    fn look_at_fence(&mut self) {
        let idle = self.context.metrics.open_slots.get() == 0;
        let missing = self.context.fence.missing().filter(|_| !idle);
        self.closed_since = missing.and(self.closed_since.or_else(|| Some(Instant::now())));
        let closed_for = self.closed_since.map_or(Duration::ZERO, |since| since.elapsed());
        self.context.metrics.fence_closed.set(closed_for.as_secs_f64());
        self.fence
            .set(missing.filter(|_| closed_for >= PATIENCE).map(|missing| format!("nothing is called: {missing}")));
    }
}
