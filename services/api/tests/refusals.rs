//! Whatever is refused, by the framework too, is a problem document.
#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Request;
use chrono::{TimeDelta, Utc};
use common::App;
use domain::mark::DatabaseMark;
use futures::stream;
use serde_json::{Value, json};
use sqlx::PgPool;

const PHONE: &str = "79169876543";

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_the_framework_refuses_is_a_problem(pool: PgPool) {
    let app = App::new(pool).await;
    let id = "018f0000-0000-7000-8000-000000000000";
    let cases = [
        ("GET", "/".to_owned(), 404, "no_such_route"),
        ("GET", "/api/v1/nothing".to_owned(), 404, "no_such_route"),
        ("GET", "/api/v1/docs/nothing".to_owned(), 404, "no_such_route"),
        ("GET", "/api/v1/docs/%FF".to_owned(), 404, "no_such_route"),
        ("POST", "/api/v1/docs/".to_owned(), 405, "method_not_allowed"),
        ("PUT", "/api/v1/openapi.json".to_owned(), 405, "method_not_allowed"),
        ("GET", "/api/v1/clients/".to_owned(), 404, "no_such_route"),
        ("GET", format!("/api/v1/clients/{PHONE}/messages"), 404, "no_such_route"),
        ("PUT", "/api/v1/clients".to_owned(), 405, "method_not_allowed"),
        ("BREW", "/api/v1/clients".to_owned(), 405, "method_not_allowed"),
        ("GET", "/api/v1/clients/import".to_owned(), 405, "method_not_allowed"),
        ("GET", "/api/v1/clients/%FF".to_owned(), 400, "invalid_path"),
        ("GET", format!("/api/v1/clients/{PHONE}"), 400, "invalid_path"),
        ("DELETE", "/api/v1/mailings/%00".to_owned(), 400, "invalid_path"),
        ("GET", "/api/v1/messages/%FF".to_owned(), 400, "invalid_path"),
        ("GET", "/api/v1/messages/12".to_owned(), 400, "invalid_message_id"),
        ("GET", "/api/v1/messages/99999999999999999999".to_owned(), 400, "invalid_message_id"),
        ("GET", "/api/v1/messages/8589934593".to_owned(), 404, "not_found"),
        ("GET", format!("/api/v1/clients/{id}"), 404, "not_found"),
        ("DELETE", format!("/api/v1/clients/{id}"), 404, "not_found"),
        ("GET", format!("/api/v1/mailings/{id}"), 404, "not_found"),
        ("DELETE", format!("/api/v1/mailings/{id}"), 404, "not_found"),
        ("GET", format!("/api/v1/mailings/{id}/messages"), 404, "not_found"),
        ("GET", "/api/v1/clients?limit=0".to_owned(), 400, "invalid_limit"),
        ("GET", "/api/v1/mailings?limit=1001".to_owned(), 400, "invalid_limit"),
        ("GET", "/api/v1/statistics?limit=ten".to_owned(), 400, "invalid_query"),
        ("GET", "/api/v1/clients?limit=1&limit=2".to_owned(), 400, "invalid_query"),
        ("GET", "/api/v1/clients?colour=red".to_owned(), 400, "invalid_query"),
        ("GET", "/api/v1/clients?tag=a%00b".to_owned(), 400, "invalid_query"),
        ("GET", format!("/api/v1/clients?phone_number={PHONE}x"), 400, "invalid_query"),
        ("GET", "/api/v1/clients?mobile_operator_code=99999".to_owned(), 400, "invalid_query"),
        ("GET", "/api/v1/clients?cursor=".to_owned(), 400, "invalid_cursor"),
        ("GET", "/api/v1/clients?cursor=m1".to_owned(), 400, "invalid_cursor"),
        ("GET", "/api/v1/mailings?cursor=%00".to_owned(), 400, "invalid_cursor"),
        ("GET", format!("/api/v1/mailings/{id}/messages?status=created"), 400, "invalid_status"),
        ("GET", format!("/api/v1/mailings/{id}/messages?status=%00"), 400, "invalid_status"),
    ];
    for (method, path, status, code) in cases {
        let answer = app.call(method, &path, "application/json", "{}").await;
        assert_eq!((answer.status, answer.problem()), (status, code), "{method} {path}: {answer:?}");
        assert!(!answer.body.to_string().contains(PHONE), "{method} {path}: {answer:?}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_wrong_method_is_told_the_right_ones(pool: PgPool) {
    let answer = App::new(pool).await.call("PUT", "/api/v1/clients", "application/json", "{}").await;
    let mut allowed: Vec<_> = answer.headers["allow"].to_str().unwrap().split(',').map(str::trim).collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["GET", "HEAD", "POST"]);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_body_that_cant_be_read_is_a_problem(pool: PgPool) {
    let app = App::new(pool).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let large = json!({"phone_number": PHONE, "tag": "x".repeat(1024 * 1024)}).to_string();
    let cases = [
        ("text/plain", "{}", 415, "unsupported_media_type"),
        ("", "{}", 415, "unsupported_media_type"),
        ("application/json", "", 400, "malformed_json"),
        ("application/json", "{", 400, "malformed_json"),
        ("application/json; charset=utf-8", r#"{"phone_number":"79169876543"} x"#, 400, "malformed_json"),
        ("application/json", r#"{"tag":"\ud800"}"#, 400, "malformed_json"),
        ("application/json", r#"{"mobile_operator_code":1e999}"#, 400, "malformed_json"),
        ("application/json", &deep, 400, "malformed_json"),
        ("application/json", "[]", 422, "invalid_fields"),
        ("application/json", "null", 422, "invalid_fields"),
        ("application/json", &large, 413, "body_too_large"),
    ];
    for path in ["/api/v1/clients", "/api/v1/mailings"] {
        for (media_type, body, status, code) in &cases {
            let answer = app.call("POST", path, media_type, (*body).to_owned()).await;
            assert_eq!(
                (answer.status, answer.problem()),
                (*status, *code),
                "{path} {media_type} {body:.50}: {answer:?}"
            );
            assert!(!answer.body.to_string().contains(PHONE), "{answer:?}");
        }
    }
    let answer = app.import("application/json", "{}").await;
    assert_eq!((answer.status, answer.problem()), (415, "unsupported_media_type"));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_body_without_a_length_is_bounded_and_may_break_off(pool: PgPool) {
    let app = App::new(pool).await;
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let answer = app.call("POST", "/api/v1/clients", "application/json", Body::from_stream(endless)).await;
    assert_eq!((answer.status, answer.problem()), (413, "body_too_large"));

    let broken = stream::iter([Ok(b"{".to_vec()), Err(std::io::Error::other("reset"))]);
    let answer = app.call("POST", "/api/v1/clients", "application/json", Body::from_stream(broken)).await;
    assert_eq!((answer.status, answer.problem()), (400, "body_broke_off"));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn all_bad_fields_of_a_client_are_told_at_once(pool: PgPool) {
    let app = App::new(pool).await;
    let cases: [(&str, &[(&str, &str)]); 13] = [
        ("{}", &[("/phone_number", "required")]),
        (r#"{"phone_number":null}"#, &[("/phone_number", "required")]),
        (r#"{"phone_number":79169876543}"#, &[("/phone_number", "wrong_type")]),
        (r#"{"phone_number":"+79169876543"}"#, &[("/phone_number", "invalid")]),
        (
            r#"{"phone_number":"89161234567","mobile_operator_code":"916","tag":"","time_zone":"Mars","colour":1}"#,
            &[
                ("/colour", "unknown_field"),
                ("/mobile_operator_code", "wrong_type"),
                ("/phone_number", "invalid"),
                ("/tag", "invalid"),
                ("/time_zone", "invalid"),
            ],
        ),
        (r#"{"phone_number":"79169876543","tag":"a\u0000b"}"#, &[("/tag", "invalid")]),
        (r#"{"phone_number":"79169876543","tag":["a"]}"#, &[("/tag", "wrong_type")]),
        (r#"{"phone_number":"79169876543","mobile_operator_code":899}"#, &[("/mobile_operator_code", "invalid")]),
        (r#"{"phone_number":"79169876543","mobile_operator_code":916.5}"#, &[("/mobile_operator_code", "wrong_type")]),
        (
            r#"{"phone_number":"79169876543","mobile_operator_code":99999999999999999999}"#,
            &[("/mobile_operator_code", "wrong_type")],
        ),
        // No operator's code can be read from it.
        (r#"{"phone_number":"74951234567"}"#, &[("/mobile_operator_code", "invalid")]),
        (r#"{"phone_number":"79169876543","a/b~c":1}"#, &[("/a~1b~0c", "unknown_field")]),
        (
            r#"{"phone_number":"79169876543","tag":"a","tag":"b","time_zone":"UTC","time_zone":"UTC"}"#,
            &[("/tag", "duplicate_field"), ("/time_zone", "duplicate_field")],
        ),
    ];
    for (body, expected) in cases {
        let answer = app.call("POST", "/api/v1/clients", "application/json", body).await;
        let expected: Vec<_> = expected.iter().map(|(p, c)| ((*p).to_owned(), (*c).to_owned())).collect();
        assert_eq!(answer.bad_fields(), expected, "{body}");
        assert!(!answer.body.to_string().contains("9169876543"), "{answer:?}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn all_bad_fields_of_a_mailing_are_told_at_once(pool: PgPool) {
    let app = App::new(pool).await;
    let now = Utc::now();
    let at = |hours| json!((now + TimeDelta::hours(hours)).to_rfc3339());
    let good = |name: &str, value: Value| {
        let mut body = json!({"text": "hello", "filter": "readers"});
        body[name] = value;
        body
    };
    let many = |n: usize| (0..n).map(|i| json!(format!("tag-{i}"))).collect::<Vec<_>>();
    // Each character of these takes six bytes in JSON: the event would be too large.
    let escaped: Vec<String> = (1..=31).map(|i| char::from(i).to_string().repeat(100)).collect();
    let cases: Vec<(Value, &[(&str, &str)])> = vec![
        (json!({}), &[("/filter", "required"), ("/text", "required")]),
        (good("text", json!("")), &[("/text", "invalid")]),
        (good("text", json!("ё".repeat(1_001))), &[("/text", "invalid")]),
        (good("text", json!("a\u{0}b")), &[("/text", "invalid")]),
        (good("text", json!(7)), &[("/text", "wrong_type")]),
        (good("filter", json!(7)), &[("/filter", "wrong_type")]),
        (good("filter", json!({})), &[("/filter", "invalid")]),
        (good("filter", json!({"tags": [], "mobile_operator_codes": []})), &[("/filter", "invalid")]),
        (good("filter", json!({"tags": "readers"})), &[("/filter/tags", "wrong_type")]),
        (good("filter", json!({"tags": many(101)})), &[("/filter", "invalid")]),
        (
            good("filter", json!({"tags": (0..50).map(|i| format!("{i:0100}")).collect::<Vec<_>>()})),
            &[("/filter", "invalid")],
        ),
        (good("filter", json!({"tags": escaped})), &[("/filter/tags", "invalid")]),
        (good("filter", json!("99999999999999999999")), &[("/filter/mobile_operator_codes/0", "wrong_type")]),
        (good("filter", json!("123")), &[("/filter/mobile_operator_codes/0", "invalid")]),
        (good("filter", json!("")), &[("/filter/tags/0", "invalid")]),
        (
            good("filter", json!({"tags": ["a", 1, "a\u{0}"], "mobile_operator_codes": [916, "917", 100], "x": 1})),
            &[
                ("/filter/mobile_operator_codes/1", "wrong_type"),
                ("/filter/mobile_operator_codes/2", "invalid"),
                ("/filter/tags/1", "wrong_type"),
                ("/filter/tags/2", "invalid"),
                ("/filter/x", "unknown_field"),
            ],
        ),
        (good("starts_at", json!("tomorrow")), &[("/starts_at", "invalid")]),
        (good("starts_at", json!("2026-05-01")), &[("/starts_at", "invalid")]),
        (good("starts_at", json!(1_777_777_777)), &[("/starts_at", "wrong_type")]),
        (good("starts_at", json!("+262142-12-31T23:59:59Z")), &[("/starts_at", "invalid")]),
        (good("starts_at", json!("9999-12-31T23:59:59Z")), &[("/starts_at", "invalid")]),
        (good("starts_at", at(24 * 367)), &[("/starts_at", "invalid")]),
        (good("ends_at", at(-1)), &[("/ends_at", "invalid")]),
        (good("ends_at", json!("9999-12-31T23:59:59Z")), &[("/ends_at", "invalid")]),
        (good("id", json!("018f0000-0000-7000-8000-000000000000")), &[("/id", "unknown_field")]),
        (
            json!({"text": 1, "filter": "r", "starts_at": at(2), "ends_at": at(1)}),
            &[("/ends_at", "invalid"), ("/text", "wrong_type")],
        ),
        (
            // Postgres keeps microseconds.
            json!({"text": "hello", "filter": "r", "starts_at": format!("{}.0000001Z", (now + TimeDelta::hours(1)).format("%FT%T")),
                   "ends_at": format!("{}.0000002Z", (now + TimeDelta::hours(1)).format("%FT%T"))}),
            &[("/ends_at", "invalid")],
        ),
    ];
    for (body, expected) in cases {
        let answer = app.post("/api/v1/mailings", &body).await;
        let expected: Vec<_> = expected.iter().map(|(p, c)| ((*p).to_owned(), (*c).to_owned())).collect();
        assert_eq!(answer.bad_fields(), expected, "{body:.200}");
    }
    let doubled = r#"{"text":"hello","filter":{"tags":["a"],"tags":["b"]}}"#;
    let answer = app.call("POST", "/api/v1/mailings", "application/json", doubled).await;
    assert_eq!(answer.bad_fields(), [("/filter/tags".to_owned(), "duplicate_field".to_owned())]);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn of_many_bad_fields_a_hundred_are_told(pool: PgPool) {
    let app = App::new(pool).await;
    let unknown: serde_json::Map<_, _> = (0..50_000).map(|i| (format!("field-{i}"), json!(1))).collect();
    let doubled = format!("{{{}\"text\":\"hello\"}}", "\"a\":1,".repeat(50_000));
    for body in [
        Value::Object(unknown.clone()).to_string(),
        json!({"text": "hello", "filter": unknown}).to_string(),
        json!({"text": "hello", "filter": {"tags": vec![1; 100_000]}}).to_string(),
        json!({"text": "hello", "filter": {"mobile_operator_codes": vec![1; 100_000]}}).to_string(),
        doubled,
    ] {
        let answer = app.call("POST", "/api/v1/mailings", "application/json", body).await;
        assert_eq!(answer.bad_fields().len(), 100);
        assert_eq!(answer.body["detail"], "at least 100 of the fields can't be taken");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn odd_instants_are_taken_or_refused_but_never_fail(pool: PgPool) {
    let app = App::new(pool).await;
    for starts_at in [
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00-23:59",
        "2016-12-31T23:59:60Z",
        "1969-12-31T23:59:59.999999999+14:00",
    ] {
        let body = json!({"text": "hello", "filter": "readers", "starts_at": starts_at});
        let answer = app.post("/api/v1/mailings", &body).await;
        assert!(answer.status < 500, "{starts_at}: {answer:?}");
    }
}

#[tokio::test]
async fn without_postgres_every_route_answers_503_within_a_second() {
    // Nothing listens on port 1.
    let app = App::knowing(store::connect("postgres://herald@127.0.0.1:1/none", 5).unwrap(), None);
    let id = "018f0000-0000-7000-8000-000000000000";
    let mailing = json!({"text": "hello", "filter": "readers"}).to_string();
    let client = json!({"phone_number": PHONE}).to_string();
    let csv = format!("phone_number\n{PHONE}\n");
    let cases = [
        ("POST", "/api/v1/clients".to_owned(), "application/json", client.as_str()),
        ("POST", "/api/v1/mailings".to_owned(), "application/json", mailing.as_str()),
        ("POST", "/api/v1/clients/import".to_owned(), "text/csv", csv.as_str()),
        ("GET", "/api/v1/clients".to_owned(), "", ""),
        ("GET", "/api/v1/mailings".to_owned(), "", ""),
        ("GET", "/api/v1/statistics".to_owned(), "", ""),
        ("GET", format!("/api/v1/mailings/{id}"), "", ""),
        ("GET", format!("/api/v1/mailings/{id}/messages"), "", ""),
        ("GET", "/api/v1/messages/8589934593".to_owned(), "", ""),
        ("PATCH", format!("/api/v1/mailings/{id}"), "application/json", "{}"),
        ("DELETE", format!("/api/v1/mailings/{id}"), "", ""),
    ];
    for (method, path, media_type, body) in cases {
        let begun = Instant::now();
        let answer = app.call(method, &path, media_type, body.to_owned()).await;
        assert_eq!((answer.status, answer.problem()), (503, "unavailable"), "{method} {path}: {answer:?}");
        assert_eq!(answer.headers["retry-after"], "1", "{method} {path}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{method} {path} took {:?}", begun.elapsed());
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_postgres_in_doubt_is_read_and_not_written(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let mailing = app.create_mailing().await;
    let client = app.post("/api/v1/clients", &json!({"phone_number": PHONE})).await;
    let client = client.headers["location"].to_str().unwrap().to_owned();
    let found = store::mark::next(&mut pool.acquire().await.unwrap()).await.unwrap();
    let ahead = DatabaseMark { mark: found.mark + 1, ..found.clone() };
    let other = DatabaseMark { system_identifier: "1".to_owned(), ..found.clone() };
    let promoted = DatabaseMark { timeline: found.timeline + 1, ..found.clone() };
    for (name, known) in
        [("older", Some(ahead)), ("another", Some(other)), ("restored", Some(promoted)), ("unknown", None)]
    {
        let verb = known.is_some();
        let app = App::knowing(pool.clone(), known);
        let new = json!({"text": "hello", "filter": "readers"}).to_string();
        let csv = format!("phone_number\n{PHONE}\n");
        for (method, path, media_type, body) in [
            ("POST", "/api/v1/clients", "application/json", json!({"phone_number": PHONE}).to_string()),
            ("POST", "/api/v1/clients/import", "text/csv", csv),
            ("PATCH", &client, "application/json", json!({"tag": "new"}).to_string()),
            ("DELETE", &client, "", String::new()),
            ("POST", "/api/v1/mailings", "application/json", new),
            ("PATCH", &mailing, "application/json", json!({"text": "new"}).to_string()),
            ("DELETE", &mailing, "", String::new()),
        ] {
            let answer = app.call(method, path, media_type, body).await;
            assert_eq!(
                (answer.status, answer.problem()),
                (503, "database_in_doubt"),
                "{name} {method} {path}: {answer:?}"
            );
            assert_eq!(answer.body["detail"].as_str().unwrap().contains("herald recover"), verb, "{name}: {answer:?}");
        }
        for path in [&client, &mailing, "/api/v1/clients", "/api/v1/mailings", "/api/v1/statistics"] {
            assert_eq!(app.get(path).await.status, 200, "{name} {path}");
        }
    }
    let rows: (i64, i64) = sqlx::query_as("SELECT (SELECT count(*) FROM clients), (SELECT count(*) FROM mailings)")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(rows, (1, 1));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_request_keeps_its_id_and_is_counted_by_template(pool: PgPool) {
    let app = App::new(pool).await;
    let request =
        |id: &str| Request::get("/api/v1/clients/x?tag=y").header("x-request-id", id).body(Body::empty()).unwrap();
    let answer = app.send(request("order-7_a.b")).await;
    assert_eq!(answer.headers["x-request-id"], "order-7_a.b");
    for unfit in [PHONE, "", "a b", &"a".repeat(65), &format!("order-{PHONE}"), &format!("a{PHONE}0")] {
        let answer = app.send(request(unfit)).await;
        assert_eq!(answer.headers["x-request-id"].len(), 36, "{unfit:?}");
    }
    app.call("BREW", &format!("/{PHONE}"), "", "").await;

    let text = prometheus::TextEncoder::new().encode_to_string(&app.registry.gather()).unwrap();
    let line = r#"herald_http_requests_total{method="GET",route="/api/v1/clients/{id}",status="400"} 7"#;
    assert!(text.contains(line), "{text}");
    let line = r#"herald_http_requests_total{method="other",route="none",status="404"} 1"#;
    assert!(text.contains(line), "{text}");
    assert!(!text.contains(PHONE), "{text}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_caller_who_leaves_is_counted(pool: PgPool) {
    let app = App::new(pool).await;
    let endless = stream::pending::<std::io::Result<Vec<u8>>>();
    let request = app.call("POST", "/api/v1/clients", "application/json", Body::from_stream(endless));
    assert!(tokio::time::timeout(Duration::from_millis(50), request).await.is_err());

    let text = prometheus::TextEncoder::new().encode_to_string(&app.registry.gather()).unwrap();
    let line = r#"herald_http_requests_total{method="POST",route="/api/v1/clients",status="499"} 1"#;
    assert!(text.contains(line), "{text}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_postgres_that_does_not_answer_is_unavailable_in_time(pool: PgPool) {
    let app = App::new(pool.clone()).await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE clients IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.unwrap();
    let begun = Instant::now();
    let answer = app.get("/api/v1/clients").await;
    assert_eq!((answer.status, answer.problem()), (503, "unavailable"), "{answer:?}");
    assert_eq!(answer.headers["retry-after"], "1");
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
}
