//! What operators are told when the provider refuses the installation rather than a message.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use runtime::health::Readiness;

/// Says once a minute, and in `/readyz`, that the provider refuses our configuration rather than a message.
pub(super) struct Complaint {
    ready: Readiness,
    last: Mutex<Option<Instant>>,
}

impl Complaint {
    pub(super) fn new(ready: Readiness) -> Self {
        Self { ready, last: Mutex::default() }
    }

    pub(super) fn hear(&self, http_status: u16) {
        let ours = matches!(http_status, 401 | 403 | 300..=399);
        let mut last = self.last.lock().expect("not poisoned");
        if !ours {
            if last.take().is_some() {
                self.ready.ready();
            }
        } else if last.is_none_or(|last| last.elapsed() > Duration::from_secs(60)) {
            *last = Some(Instant::now());
            self.ready.not_ready(format!("the provider answers {http_status}: check its URL and token"));
            tracing::error!(code = http_status, "the provider refuses our configuration");
        }
    }
}
