//! The leave to call: `domain::traffic` on this process's clock, and the task that lets go what stands in its queue.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use domain::client::OperatorCode;
use domain::decision::Access;
use domain::delivery::Outcome;
use domain::ids::MailingNo;
use domain::lane::{Closed, Pass};
use domain::status::Reason;
use domain::traffic::{Place, Traffic, Turn};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// How often ramps end and unasked lanes open.
const TICK: Duration = Duration::from_secs(1);

/// The lanes of a sender, its pace, and the places to call.
pub(crate) struct Lanes {
    began: Instant,
    /// One for each call at once.
    places: Arc<Semaphore>,
    traffic: Mutex<Traffic<oneshot::Sender<Leave>>>,
    /// Somebody has joined the queue, or something came of a call.
    changed: Notify,
}

/// The leave to make one call, with a place to make it in. Dropped unused it is as if it hadn't been given.
pub(crate) struct Leave {
    lanes: Arc<Lanes>,
    pass: Option<Pass>,
    _place: OwnedSemaphorePermit,
}

/// What commits show of the lanes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    pub(crate) closed: Closed,
    /// A partition's part of the pace; none: there is no limit.
    pub(crate) pace: Option<u64>,
}

/// A message's place in the queue. Dropped it is free.
pub(crate) struct Ticket {
    lanes: Arc<Lanes>,
    place: Place,
    leave: oneshot::Receiver<Leave>,
}

impl Lanes {
    pub(crate) fn new(calls_at_once: usize) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            places: Arc::new(Semaphore::new(calls_at_once)),
            traffic: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// What a message of the code is told that isn't in the queue.
    pub(crate) fn access(&self, code: OperatorCode) -> Access {
        self.traffic().access(code, self.now())
    }

    /// Waits for a place to call, then takes the leave, unless the lane says otherwise by then.
    pub(crate) async fn take(self: &Arc<Self>, code: OperatorCode) -> Result<Leave, Access> {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("it is never closed");
        let pass = self.traffic().take(code, self.now())?;
        Ok(Leave { lanes: Arc::clone(self), pass: Some(pass), _place: place })
    }

    /// Puts a message into the queue.
    pub(crate) fn join(self: &Arc<Self>, code: OperatorCode, mailing_no: MailingNo) -> Ticket {
        let (go, leave) = oneshot::channel();
        let place = self.traffic().join(code, mailing_no.get(), go);
        self.changed.notify_one();
        Ticket { lanes: Arc::clone(self), place, leave }
    }

    /// Lets go what stands in the queue, until told to stop.
    pub(crate) async fn let_go(self: Arc<Self>, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(async {
            loop {
                let place = Arc::clone(&self.places).acquire_owned().await.expect("it is never closed");
                let changed = self.changed.notified();
                let turn = self.traffic().next(self.now());
                match turn {
                    Turn::Go(go, pass) => {
                        // One that has left meanwhile drops the leave, which gives it back.
                        let _ = go.send(Leave { lanes: Arc::clone(&self), pass: Some(pass), _place: place });
                    }
                    Turn::At(at) => {
                        drop(place);
                        let wait = at.saturating_sub(self.now()).min(TICK);
                        let _ = tokio::time::timeout(wait, changed).await;
                    }
                    Turn::Nobody => {
                        drop(place);
                        changed.await;
                    }
                }
            }
        })
        .await;
        Ok(())
    }

    /// Lets time pass, once a second until told to stop; `look` is shown the traffic.
    pub(crate) async fn tick(
        self: Arc<Self>,
        stop: CancellationToken,
        mut look: impl FnMut(&Traffic<oneshot::Sender<Leave>>, Duration),
    ) -> anyhow::Result<()> {
        let mut interval = tokio::time::interval(TICK);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            let mut traffic = self.traffic();
            let now = self.now();
            traffic.tick(now);
            look(&traffic, now);
            drop(traffic);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// See [`domain::lane::Lanes::all_limited`].
    pub(crate) fn all_limited(&self) -> bool {
        self.traffic().lanes().all_limited(self.now())
    }

    /// See [`domain::lane::Lanes::none_open`].
    pub(crate) fn none_open(&self) -> bool {
        self.traffic().lanes().none_open(self.now())
    }

    /// What each commit of `partitions` partitions shows.
    pub(crate) fn shown(&self, partitions: usize) -> Shown {
        let traffic = self.traffic();
        let limit = traffic.lanes().pace().limit(self.now());
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate of calls"
        )]
        let part = |limit: f64| (limit / partitions.max(1) as f64).ceil() as u64;
        Shown { closed: traffic.lanes().closed(), pace: limit.map(part) }
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic<oneshot::Sender<Leave>>> {
        self.traffic.lock().expect("not poisoned")
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Leave {
    /// Tells what came of the call. Answers why its lane is closed now, if it is.
    pub(crate) fn tell(&mut self, outcome: &Outcome) -> Option<Reason> {
        let pass = self.pass.take()?;
        let mut traffic = self.lanes.traffic();
        let closed = traffic.outcome(pass, outcome, self.lanes.now());
        // Whom a lane that has closed doesn't keep learns it by losing the sender of its leave.
        let unkept = if closed.is_some() { traffic.take_unkept() } else { vec![] };
        let waiting = traffic.waiting() > 0;
        drop(traffic);
        drop(unkept);
        if waiting {
            self.lanes.changed.notify_one();
        }
        closed
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if let Some(pass) = self.pass.take() {
            self.lanes.traffic().not_begun(pass, self.lanes.now());
            self.lanes.changed.notify_one();
        }
    }
}

impl Ticket {
    /// Waits until the message is let go; none: it is to be decided about again.
    pub(crate) async fn leave(&mut self) -> Option<Leave> {
        (&mut self.leave).await.ok()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // A leave that was sent meanwhile is dropped with the channel, and so given back.
        self.lanes.traffic().leave(self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(code: i64) -> OperatorCode {
        OperatorCode::new(code).unwrap()
    }

    fn refused() -> Outcome {
        Outcome::Retryable(Reason::ProviderError)
    }

    /// Closes the lane, and with it all.
    async fn close(lanes: &Arc<Lanes>, lane: i64) {
        for _ in 0..5 {
            lanes.take(code(lane)).await.ok().unwrap().tell(&refused());
        }
        assert!(matches!(lanes.access(code(lane)), Access::Closed { .. }));
    }

    #[tokio::test]
    async fn a_leave_that_is_dropped_gives_its_place_back() {
        let lanes = Lanes::new(1);
        let leave = lanes.take(code(900)).await.ok().unwrap();
        assert_eq!(lanes.places.available_permits(), 0);
        drop(leave);
        assert!(lanes.take(code(900)).await.is_ok());
    }

    #[tokio::test]
    async fn a_closed_lane_lets_one_go_to_probe_and_tells_the_unkept() {
        let lanes = Lanes::new(4);
        let stop = CancellationToken::new();
        let mut tickets: Vec<Ticket> = (0..20).map(|_| lanes.join(code(900), 7.into())).collect();
        close(&lanes, 901).await;
        let unkept = tickets.split_off(domain::traffic::KEPT);
        for mut ticket in unkept {
            assert!(ticket.leave().await.is_none(), "it is decided about again");
        }
        let letting_go = tokio::spawn(Arc::clone(&lanes).let_go(stop.clone()));
        let mut leave = tickets[0].leave().await.unwrap();
        assert_eq!(leave.tell(&refused()), Some(Reason::Outage));
        stop.cancel();
        letting_go.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_leave_that_nobody_takes_is_given_to_the_next() {
        let lanes = Lanes::new(1);
        let (first, mut second) = (lanes.join(code(900), 7.into()), lanes.join(code(900), 7.into()));
        let stop = CancellationToken::new();
        let letting_go = tokio::spawn(Arc::clone(&lanes).let_go(stop.clone()));
        // The first has the only place by now; dropped without having looked it gives it back.
        while lanes.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert!(second.leave().await.is_some());
        stop.cancel();
        letting_go.await.unwrap().unwrap();
    }
}
