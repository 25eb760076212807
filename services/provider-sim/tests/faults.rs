//! Each fault is what a client sees, and is counted as what it was.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::{PHONE, TOKEN, call, client, rules, settled, start_with};
use provider_sim::{Config, Latency};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_call_without_a_fault_is_accepted() {
    let sim = start_with(json!([])).await;
    // Past 2^53: the number must not go through a float.
    let id = (1 << 53) + 1;
    let answer = call(&client(), &sim, id).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await.unwrap(), r#"{"code":0,"message":"OK"}"#);
    let calls = sim.calls(id);
    assert_eq!(calls.len(), 1);
    assert!(calls[0].accepted && calls[0].answered && calls[0].phone == PHONE && calls[0].id == id);
    assert!(calls[0].begun_at <= calls[0].decided_at);
}

#[tokio::test]
async fn answered_faults_are_what_the_client_sees() {
    let cases = [
        // fault                                                 status  body                             outcome
        (json!({"status": 500}), 500, r#"{"code":-1,"message":"Error"}"#, "status_500"),
        (json!({"status": 404}), 404, r#"{"code":-1,"message":"Error"}"#, "status_404"),
        (json!({"status": 302}), 302, r#"{"code":-1,"message":"Error"}"#, "status_302"),
        (
            json!({"retry_after": {"status": 429, "seconds": 2}}),
            429,
            r#"{"code":-1,"message":"Error"}"#,
            "throttled_429",
        ),
        (json!({"code": 1}), 200, r#"{"code":1,"message":"Error"}"#, "code_1"),
        (json!("garbage"), 200, "<html>all is well", "garbage"),
        (json!("outage"), 503, r#"{"code":-1,"message":"Error"}"#, "outage"),
    ];
    let sim = start_with(json!([])).await;
    let client = client();
    for (id, (fault, status, body, outcome)) in (1..).zip(cases) {
        sim.set_faults(rules(json!([{"fault": fault}])));
        let answer = call(&client, &sim, id).send().await.unwrap();
        assert_eq!(answer.status(), status, "{outcome}");
        assert_eq!(answer.headers().contains_key("retry-after"), outcome == "throttled_429", "{outcome}");
        assert_eq!(answer.headers().contains_key("location"), outcome == "status_302", "{outcome}");
        assert_eq!(answer.text().await.unwrap(), body, "{outcome}");
        let calls = sim.calls(id);
        assert_eq!(calls[0].outcome.to_string(), outcome);
        assert!(!calls[0].accepted && calls[0].answered, "{outcome}");
    }
    assert_eq!(sim.stats().unwrap().accepted, 0);
}

#[tokio::test]
async fn a_reset_ends_the_connection_without_an_answer_and_accepts_only_if_it_says_so() {
    for (fault, accepted) in [("reset_before", 0), ("reset_after", 1)] {
        let sim = start_with(json!([{"fault": fault}])).await;
        let body = json!({"id": 5, "phone": PHONE, "text": "hi"}).to_string();
        let request = format!(
            "POST /v1/send/5 HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(sim.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let error = stream.read_to_end(&mut answer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{fault}");
        assert!(answer.is_empty(), "{fault}");

        let error = call(&client(), &sim, 6).send().await.unwrap_err();
        assert!(error.is_request() && !error.is_connect(), "{fault}: {error}");
        let stats = settled(&sim).await;
        assert_eq!((stats.calls, stats.accepted), (2, 2 * accepted), "{fault}");
        assert_eq!(stats.by_outcome[fault], 2);
        assert!(!sim.calls(5)[0].answered, "{fault}");
    }
}

#[tokio::test]
async fn a_hanging_call_ends_when_the_client_gives_up_and_is_not_accepted() {
    let sim = start_with(json!([{"fault": "hang"}])).await;
    let error = call(&client(), &sim, 1).timeout(Duration::from_millis(100)).send().await.unwrap_err();
    assert!(error.is_timeout());
    let stats = settled(&sim).await;
    assert_eq!((stats.calls, stats.accepted, stats.by_outcome["hang"]), (1, 0, 1));
    assert!(!sim.calls(1)[0].answered);
}

#[tokio::test]
async fn a_client_that_leaves_during_the_latency_leaves_an_accepted_message() {
    let minute = Duration::from_secs(60);
    let latency = Latency { min: minute, max: minute };
    let sim = provider_sim::start(Config { latency, ..Config::new(TOKEN) }).await.unwrap();
    let error = call(&client(), &sim, 1).timeout(Duration::from_millis(100)).send().await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(settled(&sim).await.accepted, 1);
    let call = &sim.calls(1)[0];
    assert!(call.accepted && !call.answered && call.outcome.to_string() == "ok");
}

#[tokio::test]
async fn what_breaks_the_contract_is_refused_and_counted() {
    let sim = start_with(json!([])).await;
    let client = client();
    let address = |id: &str| format!("http://{}/v1/send/{id}", sim.addr);
    let good = json!({"id": 1, "phone": PHONE, "text": "hi"});
    let cases = [
        ("no token", client.post(address("1")).json(&good), 401),
        ("another token", client.post(address("1")).bearer_auth("other").json(&good), 401),
        ("another id", client.post(address("2")).bearer_auth(TOKEN).json(&good), 400),
        ("no id", client.post(address("one")).bearer_auth(TOKEN).json(&good), 400),
        ("a negative id", client.post(address("-1")).bearer_auth(TOKEN).json(&good), 400),
        (
            "an id as a string",
            client.post(address("1")).bearer_auth(TOKEN).json(&json!({"id": "1", "phone": PHONE, "text": "hi"})),
            400,
        ),
        ("no phone", client.post(address("1")).bearer_auth(TOKEN).json(&json!({"id": 1, "text": "hi"})), 400),
        ("no JSON", client.post(address("1")).bearer_auth(TOKEN).body("hi"), 400),
        ("another method", client.put(address("1")).bearer_auth(TOKEN).json(&good), 404),
    ];
    for (name, request, status) in cases {
        assert_eq!(request.send().await.unwrap().status(), status, "{name}");
    }
    let stats = sim.stats().unwrap();
    assert_eq!((stats.calls, stats.accepted), (8, 0));
    assert_eq!((stats.by_outcome["unauthorized"], stats.by_outcome["malformed"]), (2, 6));
}

#[tokio::test]
async fn a_request_that_does_not_come_whole_is_cut_short() {
    let sim = start_with(json!([])).await;
    let mut stream = TcpStream::connect(sim.addr).await.unwrap();
    let head = format!(
        "POST /v1/send/1 HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 50\r\n\r\n{{\"id\":"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let stats = settled(&sim).await;
    assert_eq!((stats.calls, stats.accepted, stats.by_outcome["cut_short"]), (1, 0, 1));
}

#[tokio::test]
async fn faults_change_over_http_and_the_old_ones_come_back() {
    let old = json!([{"fault": "hang", "first_calls": 1}]);
    let new = json!([{"fault": {"status": 500}, "cohort": {"modulus": 2, "remainder": 1}}]);
    let sim = start_with(old.clone()).await;
    let client = client();
    let put = |faults| client.put(format!("http://{}/faults", sim.addr)).json(&faults).send();
    let answer = put(new.clone()).await.unwrap();
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap(), old);
    assert_eq!(call(&client, &sim, 1).send().await.unwrap().status(), 500);
    assert_eq!(call(&client, &sim, 2).send().await.unwrap().status(), 200);

    assert_eq!(put(json!([{"fault": {"status": 200}}])).await.unwrap().status(), 422);
    assert_eq!(sim.set_faults(rules(json!([]))), rules(new));
}
