use std::time::Duration;

use crate::timing::{ACKNOWLEDGEMENT, LONGEST_CALL, LONGEST_RETRY};
use reqwest::Url;
use runtime::config::{Durations, Secret, parse_duration};

/// What a sender can be told.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Settings {
    /// The provider's address; messages are posted to `<url>/v1/send/<message id>`.
    #[arg(long, env = "HERALD_PROVIDER_URL", default_value = "http://127.0.0.1:8090", value_parser = parse_provider_url)]
    pub provider_url: String,
    /// The bearer token the provider asks for.
    #[arg(long, env = "HERALD_PROVIDER_TOKEN")]
    pub provider_token: Secret,
    /// How long a call may take, from connecting to the last byte of the answer.
    #[arg(long, env = "HERALD_PROVIDER_TIMEOUT", default_value = "5s", value_parser = parse_timeout)]
    pub provider_timeout: Duration,
    /// How long a connection is kept that no call uses: shorter than the provider's own limit, for a connection that it
    /// closes under a call leaves that call's fate unknown. gunicorn's limit is 2 s, Node's 5 s.
    #[arg(long, env = "HERALD_PROVIDER_IDLE_TIMEOUT", default_value = "1500ms", value_parser = parse_timeout)]
    pub provider_idle_timeout: Duration,
    /// How many calls are made at once.
    #[arg(long, env = "HERALD_SENDER_CONCURRENCY", default_value = "256", value_parser = parse_concurrency)]
    pub sender_concurrency: usize,
    /// How long to wait before each retry; each is made 15 % shorter or longer at random.
    #[arg(long, env = "HERALD_RETRY_DELAYS", default_value = "1s,2s,4s")]
    pub retry_delays: Durations,
    /// How long a rebalance may take before Kafka gives the partitions away.
    #[arg(long, env = "HERALD_SENDER_MAX_POLL_INTERVAL", default_value = "5m", value_parser = parse_duration)]
    pub max_poll_interval: Duration,
}

impl Settings {
    /// How long a revoked partition waits for the calls on the wire and for the acknowledgement of their statuses.
    pub(crate) fn revoke_deadline(&self) -> Duration {
        self.provider_timeout + ACKNOWLEDGEMENT
    }

    /// How long the sender needs to end in good order.
    pub fn drain(&self) -> Duration {
        self.revoke_deadline() + Duration::from_secs(1)
    }

    /// Checks what a setting's type can't.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.provider_token.expose().is_empty(), "HERALD_PROVIDER_TOKEN must not be empty");
        anyhow::ensure!(
            self.provider_timeout <= LONGEST_CALL,
            "HERALD_PROVIDER_TIMEOUT ({:?}) must be at most {LONGEST_CALL:?}",
            self.provider_timeout
        );
        if let Some(delay) = self.retry_delays.0.iter().find(|delay| **delay > LONGEST_RETRY) {
            anyhow::bail!(
                "HERALD_RETRY_DELAYS ({delay:?}) must hold no delay over {LONGEST_RETRY:?}: with its jitter it would be longer \
                 than the 5 s that a message may wait in its slot"
            );
        }
        anyhow::ensure!(
            self.revoke_deadline() * 2 <= self.max_poll_interval,
            "HERALD_PROVIDER_TIMEOUT ({:?}) is too long for HERALD_SENDER_MAX_POLL_INTERVAL ({:?}): giving a partition up \
             takes the call timeout and 6 s more, and twice that must fit",
            self.provider_timeout,
            self.max_poll_interval
        );
        Ok(())
    }
}

fn parse_provider_url(text: &str) -> Result<String, &'static str> {
    let Some(url) = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme())) else {
        return Err("must be http://host:port or https://host:port");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no user and no password: the provider is shown HERALD_PROVIDER_TOKEN");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path: /v1/send/<message id> is appended");
    }
    Ok(text.to_owned())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be longer than that".to_owned()),
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

fn parse_concurrency(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|calls| (1..=100_000).contains(calls)).ok_or("must be from 1 to 100000")
}
