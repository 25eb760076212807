//! What operators are told when the provider refuses the installation rather than a message.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use runtime::health::Readiness;

/// Between two lines of the log.
const LOGGED_EVERY: Duration = Duration::from_secs(60);
/// Readiness is back this long after the last refusal, whatever else was answered meanwhile: when one call of a hundred is
/// refused, `/readyz` stays as it is.
const STANDS_FOR: Duration = Duration::from_secs(30);

/// Says once a minute, and in `/readyz`, that the provider refuses our configuration or account.
pub(super) struct Complaint {
    ready: Readiness,
    logged: Mutex<Option<Instant>>,
}

impl Complaint {
    pub(super) fn new(ready: Readiness) -> Self {
        Self { ready, logged: Mutex::default() }
    }

    /// Hears of a call that was refused so.
    pub(super) fn hear(&self, http_status: u16, now: Instant) {
        let check = match http_status {
            401 => "check HERALD_PROVIDER_TOKEN",
            402 => "check the account with it",
            403 => "check HERALD_PROVIDER_TOKEN, and whether it lets this address in",
            _ => "check HERALD_PROVIDER_URL",
        };
        self.ready.not_ready_until(format!("the provider answers {http_status}: {check}"), now + STANDS_FOR);
        if self.is_to_be_logged(now) {
            tracing::error!(code = http_status, "the provider refuses our configuration: {check}");
        }
    }

    fn is_to_be_logged(&self, now: Instant) -> bool {
        let mut logged = self.logged.lock().expect("not poisoned");
        let due = logged.is_none_or(|logged| now.saturating_duration_since(logged) >= LOGGED_EVERY);
        if due {
            *logged = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use runtime::health::Health;

    use super::*;

    #[test]
    fn a_refused_configuration_is_logged_once_a_minute() {
        let complaint = Complaint::new(Health::default().readiness("provider"));
        let begin = Instant::now();
        let logged = |second| complaint.is_to_be_logged(begin + Duration::from_secs(second));
        let seconds: Vec<u64> = (0..130).filter(|second| logged(*second)).collect();
        assert_eq!(seconds, [0, 60, 120]);
    }

    #[test]
    fn readiness_is_back_half_a_minute_after_the_last_refusal() {
        let ready = Health::default().readiness("provider");
        ready.ready();
        let complaint = Complaint::new(ready.clone());
        let begin = Instant::now();
        let reason = |second| ready.reason(begin + Duration::from_secs(second));
        complaint.hear(401, begin);
        complaint.hear(402, begin + Duration::from_secs(20));
        for second in [20, 31, 49] {
            assert_eq!(reason(second).as_deref(), Some("the provider answers 402: check the account with it"));
        }
        assert_eq!(reason(50), None);
    }
}
