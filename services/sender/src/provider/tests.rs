//! Calls over real connections, to a server that answers each one with prepared bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, FromArgMatches};
use domain::delivery::Outcome;
use domain::ids::MessageId;
use domain::status::Reason;
use runtime::health::{Health, Readiness};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Call, Provider, Request};
use crate::Settings;

/// A provider that gives these answers in turn and the last one for ever, and closes the connection behind each unless it
/// is to keep it.
struct Canned {
    url: String,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Canned {
    async fn start(answers: Vec<Vec<u8>>, keep: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let canned = Self { url, connections: Arc::default(), requests: Arc::default() };
        let (connections, requests) = (Arc::clone(&canned.connections), Arc::clone(&canned.requests));
        let answers = Arc::new(answers);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&answers), Arc::clone(&requests), keep));
            }
        });
        canned
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, answers: Arc<Vec<Vec<u8>>>, requests: Arc<AtomicUsize>, keep: bool) {
    while read_request(&mut stream).await.is_some() {
        let answer = &answers[requests.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)];
        if stream.write_all(answer).await.is_err() || !keep {
            return;
        }
    }
}

/// Returns when the request is complete; none when the client has left.
async fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        stream.read_buf(&mut request).await.ok().filter(|read| *read > 0)?;
    }
    Some(())
}

fn settings(url: &str, more: &[&str]) -> Settings {
    let arguments = [&["sender", "--provider-url", url, "--provider-token", "local"], more].concat();
    let matches = Settings::augment_args(clap::Command::new("sender")).get_matches_from(arguments);
    Settings::from_arg_matches(&matches).unwrap()
}

fn provider(url: &str, more: &[&str]) -> (Provider, Readiness) {
    let ready = Health::default().readiness("provider");
    (Provider::new(&settings(url, more), ready.clone()).unwrap(), ready)
}

async fn call(provider: &Provider, may_begin: bool) -> Call {
    let message = MessageId::new(7.into(), 3.into()).unwrap();
    let request = Request { id: message.get(), phone: 79_123_456_789, text: "hello" };
    provider.call(message, &request, move || may_begin).await
}

async fn outcome_of(answer: Vec<u8>) -> (Outcome, Option<String>) {
    let canned = Canned::start(vec![answer], false).await;
    let (provider, _) = provider(&canned.url, &[]);
    let Call::Made { outcome, detail, .. } = call(&provider, true).await else { panic!("the gate was open") };
    assert_eq!(canned.requests(), 1);
    (outcome, detail)
}

fn answer(head: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A success of so many bytes, that says so at its end.
fn long(length: usize) -> String {
    let (head, tail) = (r#"{"message":""#, r#"","code":0}"#);
    format!("{head}{}{tail}", "a".repeat(length - head.len() - tail.len()))
}

#[tokio::test]
async fn each_odd_answer_is_one_call_and_means_what_it_says() {
    const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\xabVJ\xceOIU\xb22\xa8\x05\0\x98\xae<r\n\0\0\0";
    let unreadable = Some("HTTP 200 with an answer that can't be read".to_owned());
    let cases = [
        ("the contract's", answer("200 OK", r#"{"code":0}"#), Outcome::Accepted, None),
        ("202", answer("202 Accepted", r#"{"code":0}"#), Outcome::Accepted, None),
        ("a byte order mark", answer("200 OK", "\u{feff}{\"code\":0}"), Outcome::Accepted, None),
        (
            "in chunks",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\"c\r\n7\r\node\":0}\r\n0\r\n\r\n".to_vec(),
            Outcome::Accepted,
            None,
        ),
        ("without a length", b"HTTP/1.1 200 OK\r\n\r\n{\"code\":0}".to_vec(), Outcome::Accepted, None),
        (
            "a length that is too long",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"code\":0}".to_vec(),
            Outcome::Accepted,
            None,
        ),
        ("gzip", answer("200 OK\r\ncontent-encoding: GZIP", GZIP), Outcome::Accepted, None),
        ("1 MiB", answer("200 OK", long(1024 * 1024)), Outcome::Accepted, None),
        (
            "a byte more",
            answer("200 OK", long(1024 * 1024 + 1)),
            Outcome::Ambiguous(Reason::BadAnswer),
            unreadable.clone(),
        ),
        ("a page", answer("200 OK", "<html>"), Outcome::Ambiguous(Reason::BadAnswer), unreadable),
        (
            "half an answer",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"code\":".to_vec(),
            Outcome::Ambiguous(Reason::Connection),
            Some("the connection broke".to_owned()),
        ),
        ("none", Vec::new(), Outcome::Ambiguous(Reason::Connection), Some("the connection broke".to_owned())),
        (
            "words",
            answer("422 Nope", r#"{"code":5,"message":"no such number"}"#),
            Outcome::Rejected,
            Some("HTTP 422 with code 5: no such number".to_owned()),
        ),
        (
            "half a refusal",
            b"HTTP/1.1 422 Nope\r\ncontent-length: 99\r\n\r\n{\"code\":".to_vec(),
            Outcome::Rejected,
            Some("HTTP 422".to_owned()),
        ),
        (
            "throttled",
            answer("429 Slow\r\nretry-after: 40", r#"{"message":"slowly"}"#),
            Outcome::Throttled(Duration::from_secs(40)),
            Some("HTTP 429: slowly".to_owned()),
        ),
    ];
    for (name, answer, outcome, detail) in cases {
        assert_eq!(outcome_of(answer).await, (outcome, detail), "{name}");
    }
}

#[tokio::test]
async fn no_more_is_read_of_an_answer_than_it_may_have() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let endless = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(&[b' '; 65_536]).await.is_ok() {}
    });
    let (provider, _) = provider(&url, &["--provider-timeout", "1h"]);
    assert!(matches!(call(&provider, true).await, Call::Made { outcome: Outcome::Ambiguous(Reason::BadAnswer), .. }));
    endless.await.unwrap();
}

#[tokio::test]
async fn nothing_is_sent_through_a_closed_gate_and_to_a_provider_that_is_away() {
    let canned = Canned::start(vec![answer("200 OK", r#"{"code":0}"#)], false).await;
    let (provider_there, _) = provider(&canned.url, &[]);
    assert!(matches!(call(&provider_there, false).await, Call::NotBegun));
    assert_eq!(canned.requests(), 0);

    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (provider_away, _) = provider(&format!("http://127.0.0.1:{port}"), &[]);
    let Call::Made { outcome, .. } = call(&provider_away, true).await else { panic!("the gate was open") };
    assert_eq!(outcome, Outcome::Retryable(Reason::Connection));
}

#[tokio::test]
async fn a_refused_configuration_is_named_by_readiness_whatever_comes_behind_it() {
    let answers = vec![answer("401 No", r#"{"code":401}"#), answer("200 OK", r#"{"code":0}"#)];
    let canned = Canned::start(answers, false).await;
    let (provider, ready) = provider(&canned.url, &[]);
    assert!(matches!(
        call(&provider, true).await,
        Call::Made { outcome: Outcome::Retryable(Reason::Configuration), .. }
    ));
    let refused = Instant::now();
    assert!(matches!(call(&provider, true).await, Call::Made { outcome: Outcome::Accepted, .. }));
    let reason = ready.reason(Instant::now());
    assert_eq!(reason.as_deref(), Some("the provider answers 401: check HERALD_PROVIDER_TOKEN"));
    assert_eq!(ready.reason(refused + Duration::from_secs(30)), None);
}

#[tokio::test]
async fn a_connection_is_kept_as_long_as_the_setting_says() {
    for (idle_timeout, connections) in [("10ms", 2), ("1h", 1)] {
        let kept = *b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"code\":0}";
        let canned = Canned::start(vec![kept.to_vec()], true).await;
        let (provider, _) = provider(&canned.url, &["--provider-idle-timeout", idle_timeout]);
        for _ in 0..2 {
            assert!(matches!(call(&provider, true).await, Call::Made { outcome: Outcome::Accepted, .. }));
            // Time is what is tested here.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(canned.connections.load(Ordering::SeqCst), connections, "{idle_timeout}");
    }
}
