//! Answers in another dress than the contract's, and answers at another time.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use common::{PHONE, TOKEN, call, call_phone, client, rules, settled, start_with};
use provider_sim::{Answer, Config, Encoding, Fault, Faults, Rule};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const OK: &str = r#"{"code":0,"message":"OK"}"#;
const ERROR: &str = r#"{"code":-1,"message":"Error"}"#;

#[tokio::test]
async fn an_answer_is_put_together_as_its_rule_says() {
    let cases = [
        // answer                                                        status  body           accepted  outcome
        (json!({}), 200, OK, true, "ok"),
        (json!({"body": "\u{feff}{\"code\":0}"}), 200, "\u{feff}{\"code\":0}", true, "ok"),
        (json!({"body": r#"{"code":"0"}"#}), 200, r#"{"code":"0"}"#, true, "ok"),
        (json!({"status": 202}), 202, OK, true, "ok"),
        (json!({"status": 201, "body": "", "unreadable": true}), 201, "", true, "garbage"),
        (json!({"status": 204, "unreadable": true}), 204, "", true, "garbage"),
        (json!({"body": "<html>", "accepted": false}), 200, "<html>", false, "garbage"),
        (json!({"status": 404, "body": "<html>"}), 404, "<html>", false, "status_404"),
        (
            json!({"status": 422, "body": r#"{"code":7,"message":"no"}"#}),
            422,
            r#"{"code":7,"message":"no"}"#,
            false,
            "status_422",
        ),
        (json!({"status": 307, "headers": {"location": "https://elsewhere/"}}), 307, ERROR, false, "status_307"),
        (json!({"status": 504, "accepted": true}), 504, ERROR, true, "status_504"),
        (json!({"status": 503, "retry_after": {"seconds": 3}}), 503, ERROR, false, "throttled_503"),
        (json!({"status": 500, "retry_after": {"seconds": 3}}), 500, ERROR, false, "status_500"),
    ];
    let sim = start_with(json!([])).await;
    let client = client();
    for (id, (answer, status, body, accepted, outcome)) in (1..).zip(cases) {
        sim.set_faults(rules(json!([{"fault": {"answer": answer}}])));
        let got = call(&client, &sim, id).send().await.unwrap();
        assert_eq!(got.status(), status, "{answer}");
        let header = |name: &str| got.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("content-type").as_deref(), Some("application/json"), "{answer}");
        assert_eq!(header("location").as_deref(), answer["headers"]["location"].as_str(), "{answer}");
        assert_eq!(header("retry-after"), answer["retry_after"]["seconds"].as_u64().map(|s| s.to_string()), "{answer}");
        assert_eq!(got.bytes().await.unwrap(), body, "{answer}");
        let call = &sim.calls(id)[0];
        assert_eq!((call.accepted, call.outcome.to_string().as_str()), (accepted, outcome), "{answer}");
        assert_eq!(call.retry_after.map(u64::from), answer["retry_after"]["seconds"].as_u64(), "{answer}");
    }
}

#[tokio::test]
async fn an_encoded_body_decodes_to_the_plain_one_of_the_size_asked_for() {
    let sim = start_with(json!([])).await;
    let client = client();
    let all = [None, Some(Encoding::Gzip), Some(Encoding::Deflate), Some(Encoding::RawDeflate), Some(Encoding::Br)];
    for (id, (encoding, size)) in
        (1..).zip(all.into_iter().flat_map(|encoding| [(encoding, 70_000), (encoding, 2 << 20)]))
    {
        let answer = Answer { encoding, size, ..Answer::default() };
        sim.set_faults(Faults::try_from(vec![Rule::always(Fault::Answer(answer))]).unwrap());
        let got = call(&client, &sim, id).send().await.unwrap();
        let named = got.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        let bytes = got.bytes().await.unwrap();
        let (name, plain) = decoded(encoding, &bytes);
        assert_eq!(named.as_deref(), name);
        assert!(encoding.is_none() || bytes.len() < size / 20, "{encoding:?} of {size} has {}", bytes.len());
        assert_eq!(plain.len(), size, "{encoding:?}");
        assert_eq!(serde_json::from_slice::<Value>(&plain).unwrap()["code"], 0, "{encoding:?}");
    }
}

fn decoded(encoding: Option<Encoding>, bytes: &[u8]) -> (Option<&'static str>, Vec<u8>) {
    let mut plain = Vec::new();
    let name = match encoding {
        None => {
            plain.extend_from_slice(bytes);
            return (None, plain);
        }
        Some(Encoding::Gzip) => flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).map(|_| "gzip"),
        Some(Encoding::Deflate) => flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut plain).map(|_| "deflate"),
        Some(Encoding::RawDeflate) => {
            flate2::read::DeflateDecoder::new(bytes).read_to_end(&mut plain).map(|_| "deflate")
        }
        Some(Encoding::Br) => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut plain).map(|_| "br"),
    };
    (Some(name.unwrap()), plain)
}

#[tokio::test]
async fn a_retry_after_comes_as_seconds_as_a_date_or_as_anything_else() {
    let sim = start_with(json!([])).await;
    let client = client();
    let mut id = 0;
    let mut told = async |value: Value| {
        id += 1;
        let mut fault = value;
        fault["status"] = json!(429);
        sim.set_faults(rules(json!([{"fault": {"retry_after": fault}}])));
        let answer = call(&client, &sim, id).send().await.unwrap();
        (answer.headers()["retry-after"].to_str().unwrap().to_owned(), sim.calls(id)[0].retry_after)
    };
    assert_eq!(told(json!({"seconds": 0})).await, ("0".to_owned(), Some(0)));
    assert_eq!(told(json!({"seconds": 40})).await, ("40".to_owned(), Some(40)));
    assert_eq!(told(json!({"text": "soon"})).await, ("soon".to_owned(), None));
    for (seconds, logged) in [(5, 5), (-5, 0)] {
        let before = Utc::now();
        let (date, retry_after) = told(json!({"date": seconds})).await;
        assert!(date.ends_with(" GMT"), "{date}");
        let ahead = DateTime::parse_from_rfc2822(&date).unwrap().to_utc() - before;
        assert!((seconds * 1_000..=seconds * 1_000 + 2_000).contains(&ahead.num_milliseconds()), "{date}");
        assert_eq!(retry_after, Some(logged));
    }
}

#[tokio::test]
async fn above_its_limit_a_provider_throttles_and_each_second_takes_what_it_can() {
    const LIMIT: usize = 20;
    let limit = json!({"fault": {"retry_after": {"status": 429, "seconds": 1}}, "over_per_second": LIMIT});
    let sim = start_with(json!([limit])).await;
    let client = client();
    let begun = Instant::now();
    let mut id = 0;
    while begun.elapsed() < Duration::from_millis(2_200) {
        let mut calls = JoinSet::new();
        for _ in 0..LIMIT {
            id += 1;
            calls.spawn(call(&client, &sim, id).send());
        }
        calls.join_all().await;
    }
    let calls = sim.book().all_calls();
    let mut accepted: Vec<i64> = calls.iter().filter(|call| call.accepted).map(|call| call.decided_at).collect();
    accepted.sort_unstable();
    assert!(accepted.windows(LIMIT + 1).all(|many| many[LIMIT] - many[0] >= 1_000_000), "{accepted:?}");
    assert!(accepted.len() >= 2 * LIMIT, "{}", accepted.len());
    let throttled = calls.iter().filter(|call| call.outcome.to_string() == "throttled_429").count();
    assert_eq!(throttled, calls.len() - accepted.len());

    sim.set_faults(rules(json!([])));
    assert_eq!(call(&client, &sim, id + 1).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn one_operator_may_be_down_alone() {
    let sim = start_with(json!([{"fault": "outage", "operator_codes": [916, 917]}])).await;
    let client = client();
    let phones = [(79_161_234_567, 503), (79_179_169_160, 503), (79_181_234_567, 200), (PHONE, 200)];
    for (id, (phone, status)) in (1..).zip(phones) {
        assert_eq!(call_phone(&client, &sim, id, phone).send().await.unwrap().status(), status, "{phone}");
    }
}

#[tokio::test]
async fn a_late_answer_comes_and_its_message_is_accepted_also_if_nobody_waits_for_it() {
    let late = json!([
        {"fault": {"answer": {}}, "delay_ms": 300, "cohort": {"modulus": 2, "remainder": 1}},
        {"fault": {"status": 500}, "delay_ms": 300}
    ]);
    let sim = start_with(late).await;
    let client = client();
    for (id, status) in [(1, 200), (2, 500)] {
        let begun = Instant::now();
        assert_eq!(call(&client, &sim, id).send().await.unwrap().status(), status);
        assert!(begun.elapsed() >= Duration::from_millis(300));
    }
    for id in [3, 4] {
        let error = call(&client, &sim, id).timeout(Duration::from_millis(50)).send().await.unwrap_err();
        assert!(error.is_timeout());
    }
    settled(&sim).await;
    let fates = [1, 2, 3, 4].map(|id| (sim.calls(id)[0].accepted, sim.calls(id)[0].answered));
    assert_eq!(fates, [(true, true), (false, true), (true, false), (false, false)]);
}

#[tokio::test]
async fn an_answer_may_break_off_in_its_body() {
    for (accepted, outcome) in [(true, "reset_after"), (false, "reset_before")] {
        let sim = start_with(json!([{"fault": {"answer": {"cut_after": 9, "accepted": accepted}}}])).await;
        let mut stream = TcpStream::connect(sim.addr).await.unwrap();
        stream.write_all(request(1).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let error = stream.read_to_end(&mut answer).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 25"), "{head}");
        assert_eq!(body, &OK[..9]);
        settled(&sim).await;
        let call = &sim.calls(1)[0];
        assert_eq!((call.accepted, call.answered, call.outcome.to_string().as_str()), (accepted, false, outcome));
    }
}

fn request(id: i64) -> String {
    let body = json!({"id": id, "phone": PHONE, "text": "hi"}).to_string();
    let head = format!("POST /v1/send/{id} HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer {TOKEN}");
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_good_order_and_a_busy_one_is_not() {
    let keep_alive = Some(Duration::from_millis(500));
    let faults = rules(json!([{"fault": {"answer": {}}, "delay_ms": 700}]));
    let sim = provider_sim::start(Config { keep_alive, faults, ..Config::new(TOKEN) }).await.unwrap();
    let mut stream = TcpStream::connect(sim.addr).await.unwrap();
    for id in [1, 2] {
        stream.write_all(request(id).as_bytes()).await.unwrap();
        sim.wait_for(|book| book.calls(id).len() == 1).await.unwrap();
    }
    let begun = Instant::now();
    let mut answers = Vec::new();
    let closed = timeout(Duration::from_secs(10), stream.read_to_end(&mut answers)).await;
    closed.expect("an idle connection is closed").unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(String::from_utf8(answers).unwrap().matches(OK).count(), 2);
}
