//! Guarantee 3: what the provider answers decides what becomes of a message.

use serde_json::{Value, json};

use e2e::{Audience, Call, Options, World};

const TEXT: &str = "text-of-the-third-test";
/// Of a second, in µs.
const TIMEOUT: i64 = 1_000_000;
const DELAYS: [i64; 3] = [1_000_000, 2_000_000, 4_000_000];

/// What one client meets, and what is to become of it. One of each kind among many: were half of the calls to fail, their lane
/// would close, and nobody would use an attempt.
struct Case {
    name: &'static str,
    faults: Vec<Value>,
    status: &'static str,
    reason: Option<&'static str>,
    /// The reasons of the failed attempts.
    failed: Vec<&'static str>,
    attempts: i64,
    calls: usize,
    accepted: usize,
}

/// Clients that the provider takes at once. With them the calls that fail are less than half of the last hundred.
const OTHERS: usize = 160;

/// Four times the same answer.
fn exhausted(name: &'static str, fault: Value, reason: &'static str, accepted: usize) -> Case {
    Case {
        name,
        faults: vec![json!({"fault": fault})],
        status: "failed",
        reason: Some("exhausted"),
        failed: vec![reason, reason, reason, "exhausted"],
        attempts: 4,
        calls: 4,
        accepted,
    }
}

fn cases() -> Vec<Case> {
    let good = Case {
        name: "accepted",
        faults: vec![],
        status: "succeeded",
        reason: None,
        failed: vec![],
        attempts: 1,
        calls: 1,
        accepted: 1,
    };
    let throttled = |name, status: u16| Case {
        name,
        faults: vec![json!({"fault": {"retry_after": {"status": status, "seconds": 2}}, "first_calls": 2})],
        failed: vec!["throttled", "throttled"],
        calls: 3,
        ..Case { faults: vec![], ..good_again() }
    };
    vec![
        good,
        exhausted("500", json!({"status": 500}), "provider_error", 0),
        exhausted("a hang", json!("hang"), "timeout", 0),
        exhausted("a reset after the request", json!("reset_after"), "connection", 4),
        exhausted("a reset before it is taken", json!("reset_before"), "connection", 0),
        exhausted("200 with another code", json!({"code": 1}), "bad_answer", 0),
        exhausted("200 with garbage", json!("garbage"), "bad_answer", 0),
        exhausted("401 is our configuration", json!({"status": 401}), "configuration", 0),
        Case {
            name: "404",
            faults: vec![json!({"fault": {"status": 404}})],
            status: "failed",
            reason: Some("rejected"),
            failed: vec!["rejected"],
            accepted: 0,
            ..good_again()
        },
        throttled("429 with Retry-After", 429),
        throttled("503 with Retry-After", 503),
        Case {
            name: "500 twice",
            faults: vec![json!({"fault": {"status": 500}, "first_calls": 2})],
            failed: vec!["provider_error", "provider_error"],
            attempts: 3,
            calls: 3,
            ..good_again()
        },
        Case {
            name: "an answer lost once",
            faults: vec![json!({"fault": "reset_after", "first_calls": 1})],
            failed: vec!["connection"],
            attempts: 2,
            calls: 2,
            accepted: 2,
            ..good_again()
        },
    ]
}

fn good_again() -> Case {
    Case {
        name: "",
        faults: vec![],
        status: "succeeded",
        reason: None,
        failed: vec![],
        attempts: 1,
        calls: 1,
        accepted: 1,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_gaps_statuses_and_reasons_follow_the_answers() {
    let env = vec![("HERALD_PROVIDER_TIMEOUT", "1s".to_owned())];
    let world = World::new("t03", Options { env, ..Options::default() }).await;
    let herald = world.start(&["all"]).await;
    let cases = cases();
    let mut audience = Audience::default();
    let mut rules = vec![];
    // Imported in this order, so the client's number is the case's.
    for (client_no, case) in (1..).zip(&cases) {
        audience = audience.and(1, 916, "answers");
        for fault in &case.faults {
            let mut rule = fault.clone();
            rule["cohort"] = json!({"modulus": 1_i64 << 33, "remainder": client_no});
            rules.push(rule);
        }
    }
    let audience = audience.and(OTHERS, 916, "answers");
    world.import(&audience).await;
    world.faults(Value::from(rules)).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "answers"})).await;
    world.assert_conserved(&mailing, audience.len()).await;

    let calls = world.calls().await;
    let mut widest = 1.0_f64;
    for message in world.api.messages(&mailing).await {
        let id: i64 = message["message_id"].as_str().unwrap().parse().unwrap();
        let client_no = usize::try_from(id & ((1 << 33) - 1)).unwrap();
        let Some(case) = cases.get(client_no - 1) else {
            assert_eq!((&message["status"], &message["attempts"]), (&json!("succeeded"), &json!(1)), "{message}");
            continue;
        };
        let context = format!("{}: {message}", case.name);
        assert_eq!(message["status"], case.status, "{context}");
        assert_eq!(message["reason"].as_str(), case.reason, "{context}");
        assert_eq!(message["attempts"], case.attempts, "{context}");

        let story = world.api.get(&format!("/messages/{id}")).await;
        let failed = story["steps"].as_array().unwrap();
        let reasons: Vec<&str> = failed.iter().map(|attempt| attempt["reason"].as_str().unwrap()).collect();
        assert_eq!(reasons, case.failed, "{context}");
        let counted = failed.iter().filter(|attempt| attempt["reason"] != "throttled");
        let numbers: Vec<i64> = counted.map(|attempt| attempt["attempt"].as_i64().unwrap()).collect();
        assert!(numbers.iter().copied().eq(1..=i64::try_from(numbers.len()).unwrap()), "{context} {numbers:?}");

        let calls = &calls.by_message[&id];
        assert_eq!(calls.len(), case.calls, "{context} {calls:?}");
        assert_eq!(calls.iter().filter(|call| call.accepted).count(), case.accepted, "{context}");
        for gap in gaps(calls) {
            widest = widest.max(gap);
        }
    }
    println!("the widest gap between two calls was {widest:.2} of what was asked for; 1.20 are promised");
    world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}

/// The gaps between a message's calls, as parts of what was asked for. None may be too short; too long ones may be a busy
/// machine's, up to three times the tolerance.
fn gaps(calls: &[Call]) -> Vec<f64> {
    let mut delays = DELAYS.iter();
    let gaps = calls.windows(2).map(|pair| {
        let asked = if pair[0].outcome.starts_with("throttled") { 2_000_000 } else { *delays.next().unwrap() };
        let answered = pair[0].decided_at + if pair[0].outcome == "hang" { TIMEOUT } else { 0 };
        let gap = (pair[1].begun_at - answered) as f64 / asked as f64;
        let shortest = if pair[0].outcome.starts_with("throttled") { 1.0 } else { 0.8 };
        assert!((shortest..1.6).contains(&gap), "{gap} of {asked} µs: {calls:?}");
        gap
    });
    gaps.collect()
}
