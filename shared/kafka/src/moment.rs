use std::time::{Duration, Instant, SystemTime};

/// A moment whose age counts by the monotonic *and* the wall clock: whichever says more. The monotonic clock may stand
/// still while a machine is suspended, the wall clock may be set back.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    monotonic: Instant,
    wall: SystemTime,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// How long ago it was.
    pub fn age(&self) -> Duration {
        let wall = SystemTime::now().duration_since(self.wall).unwrap_or_default();
        self.monotonic.elapsed().max(wall)
    }
}
