//! `POST /v1/send/{msgId}`: one call, from its head to its fate.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::future;
use std::time::Duration;

use axum::body::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time;

use crate::Sim;
use crate::book::Ticket;
use crate::call::{Call, Outcome, now_us};
use crate::faults::Fault;

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

    fn decide(&mut self, outcome: Outcome, accepted: bool) {
        self.call.outcome = outcome;
        self.call.accepted = accepted;
        self.call.decided_at = now_us();
        self.decided = true;
    }

    fn refuse(mut self, outcome: Outcome, status: StatusCode, body: &'static str) -> Result<Response<Body>, Dropped> {
        self.decide(outcome, false);
        self.answer(status, body)
    }

    fn answer(mut self, status: StatusCode, body: &'static str) -> Result<Response<Body>, Dropped> {
        self.call.answered = true;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
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
    let fault = sim.faults().meeting(sim.seed, id, open.call.call);
    open.decide(fault.map_or(Outcome::Ok, outcome), matches!(fault, None | Some(Fault::ResetAfter)));
    let latency = sim.latency.of(sim.seed, id, open.call.call);
    if latency > Duration::ZERO {
        time::sleep(latency).await;
    }
    answer(open, fault).await
}

fn outcome(fault: Fault) -> Outcome {
    match fault {
        Fault::Status(status) => Outcome::Status(status),
        Fault::RetryAfter { status, .. } => Outcome::Throttled(status),
        Fault::Code(code) => Outcome::Code(code),
        Fault::Garbage => Outcome::Garbage,
        Fault::Hang => Outcome::Hang,
        Fault::ResetAfter => Outcome::ResetAfter,
        Fault::ResetBefore => Outcome::ResetBefore,
        Fault::Outage => Outcome::Outage,
    }
}

async fn answer(mut open: OpenCall<'_>, fault: Option<Fault>) -> Result<Response<Body>, Dropped> {
    const REFUSED: &str = r#"{"code":-1,"message":"Error"}"#;
    let id = open.call.id;
    match fault {
        None => open.answer(StatusCode::OK, r#"{"code":0,"message":"OK"}"#),
        Some(Fault::Status(status)) => {
            let mut response = open.answer(known(status), REFUSED)?;
            if response.status().is_redirection() {
                let address = HeaderValue::try_from(format!("/v1/send/{id}")).map_err(|_| Dropped)?;
                response.headers_mut().insert(LOCATION, address);
            }
            Ok(response)
        }
        Some(Fault::RetryAfter { status, seconds }) => {
            open.call.retry_after = Some(seconds);
            let mut response = open.answer(known(status), REFUSED)?;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
            Ok(response)
        }
        Some(Fault::Code(code)) => {
            let response = open.answer(StatusCode::OK, "")?;
            Ok(response.map(|_| Body::from(format!(r#"{{"code":{code},"message":"Error"}}"#))))
        }
        Some(Fault::Garbage) => open.answer(StatusCode::OK, "<html>all is well"),
        Some(Fault::Outage) => open.answer(StatusCode::SERVICE_UNAVAILABLE, REFUSED),
        Some(Fault::Hang) => future::pending().await,
        Some(Fault::ResetAfter | Fault::ResetBefore) => Err(Dropped),
    }
}

/// Rules are checked when they are set.
fn known(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
