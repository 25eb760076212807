//! `POST /v1/send/{msgId}`: one call, from its head to its fate.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future;
use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time;

use crate::Sim;
use crate::answer::TAKEN;
use crate::book::Ticket;
use crate::call::{Call, Outcome, now_us};
use crate::fault::Fault;
use crate::faults::Called;

/// A text of 1,000 characters, each escaped as a surrogate pair, is 12 KB.
const BODY_LIMIT: usize = 64 * 1024;

/// The service's error: the connection is to be reset without an answer.
#[derive(Debug)]
pub(crate) struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is dropped on purpose")
    }
}

impl Error for Dropped {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    id: i64,
    phone: i64,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// A call that is logged and counted when it goes, also when the client leaves and hyper drops the future.
struct OpenCall<'a> {
    sim: &'a Sim,
    ticket: Ticket,
    call: Call,
    decided: bool,
}

impl<'a> OpenCall<'a> {
    fn begin(sim: &'a Sim, id: i64, sender: u16) -> Self {
        let begun_at = now_us();
        let ticket = sim.book.begin(id, begun_at);
        let outcome = Outcome::CutShort;
        let call = Call {
            begun_at,
            decided_at: 0,
            id,
            call: ticket.call,
            sender,
            phone: 0,
            text_no: None,
            accepted: false,
            answered: false,
            retry_after: None,
            outcome,
        };
        Self { sim, ticket, call, decided: false }
    }

    /// Settles the call's fate. With a fault it returns that, and how much later than others its answer comes.
    fn decide(&mut self) -> Option<(Fault, Duration)> {
        let mut faults = self.sim.faults();
        // Read under the lock: no second of the log has more than a limit lets pass.
        let at = now_us();
        let called = Called { id: self.call.id, call: self.call.call, phone: self.call.phone, at };
        let met = faults.meeting(self.sim.seed, called);
        let fault = met.map(|rule| &rule.fault);
        self.call.outcome = fault.map_or(Outcome::Ok, Fault::outcome);
        self.call.accepted = fault.is_none_or(Fault::accepts);
        self.call.retry_after = fault.and_then(Fault::told);
        self.call.decided_at = at;
        self.decided = true;
        met.map(|rule| (rule.fault.clone(), Duration::from_millis(rule.delay_ms)))
    }

    fn refuse(mut self, outcome: Outcome, status: StatusCode, body: &'static str) -> Result<Response<Body>, Dropped> {
        self.call.outcome = outcome;
        self.answer(status, body)
    }

    fn answer(mut self, status: StatusCode, body: &'static str) -> Result<Response<Body>, Dropped> {
        self.call.answered = true;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    async fn meet(mut self, fault: Fault) -> Result<Response<Body>, Dropped> {
        if fault == Fault::Hang {
            future::pending::<()>().await;
        }
        let answer = fault.answer(self.call.id).ok_or(Dropped)?;
        self.call.answered = answer.cut_after.is_none();
        answer.response()
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        if !self.decided {
            self.call.decided_at = now_us();
        }
        // The log first: whoever saw the count finds the line.
        if let Some(log) = &self.sim.log {
            log.call(self.call.clone());
        }
        self.sim.book.end(self.ticket, self.call.clone());
    }
}

/// Takes a call that came to the port `sender`. `id` is the path's last part as it came.
pub(crate) async fn send(
    sim: &Sim,
    sender: u16,
    id: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Dropped> {
    let id = id.parse().ok().filter(|id| *id > 0).unwrap_or(0);
    let mut open = OpenCall::begin(sim, id, sender);
    if request.headers().get(AUTHORIZATION) != Some(&sim.bearer) {
        return open.refuse(
            Outcome::Unauthorized,
            StatusCode::UNAUTHORIZED,
            r#"{"code":401,"message":"Unauthorized"}"#,
        );
    }
    let Ok(body) = Limited::new(request.into_body(), BODY_LIMIT).collect().await else {
        return Err(Dropped);
    };
    let body = body.to_bytes();
    let message = serde_json::from_slice::<Message<'_>>(&body).ok();
    let Some(message) = message.filter(|message| id > 0 && message.id == id) else {
        return open.refuse(Outcome::Malformed, StatusCode::BAD_REQUEST, r#"{"code":400,"message":"Bad Request"}"#);
    };
    open.call.phone = message.phone;
    open.call.text_no = sim.log.as_ref().map(|log| log.text_no(&message.text));

    if let Some(turn) = sim.pace.turn() {
        open.call.outcome = Outcome::Gone;
        time::sleep_until(turn).await;
    }
    let fault = open.decide();
    let delay = fault.as_ref().map_or(Duration::ZERO, |(_, delay)| *delay);
    let latency = sim.latency.of(sim.seed, id, open.call.call) + delay;
    if latency > Duration::ZERO {
        time::sleep(latency).await;
    }
    match fault {
        None => open.answer(StatusCode::OK, TAKEN),
        Some((fault, _)) => open.meet(fault).await,
    }
}
