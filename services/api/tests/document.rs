//! The OpenAPI document shows every route, and stands in `docs/openapi.json`.
#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

mod common;

use std::collections::BTreeSet;

use common::App;
use serde_json::Value;
use sqlx::PgPool;

#[test]
fn the_document_is_the_one_in_docs() {
    let kept = std::fs::read_to_string("../../docs/openapi.json").unwrap_or_default();
    assert!(
        kept == format!("{}\n", api::openapi_json()),
        "docs/openapi.json is older than the routes: herald openapi > docs/openapi.json"
    );
}

#[test]
fn routes_are_registered_only_where_the_document_is_made() {
    for folder in ["src", "src/routes"] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let source = std::fs::read_to_string(&path).unwrap();
                assert!(!source.contains(".route(") && !source.contains(".route_service("), "{}", path.display());
            }
        }
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_route_has_the_methods_that_the_document_shows_and_no_other(pool: PgPool) {
    let app = App::new(pool).await;
    let document: Value = serde_json::from_str(&api::openapi_json()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 9, "{:?}", paths.keys());
    for (path, operations) in paths {
        let mut shown: BTreeSet<String> = operations.as_object().unwrap().keys().map(|m| m.to_uppercase()).collect();
        if shown.contains("GET") {
            shown.insert("HEAD".to_owned());
        }
        let place = path.replace("{id}", "018f0000-0000-7000-8000-000000000000").replace("{message_id}", "8589934593");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let answer = app.call(method, &place, "application/json", "{}").await;
            assert_eq!(answer.status != 405, shown.contains(method), "{method} {path}");
            assert!(method == "HEAD" || answer.body["code"] != "no_such_route", "{method} {path}");
        }
        let answer = app.call("BREW", &place, "", "").await;
        let allowed: BTreeSet<String> =
            answer.headers["allow"].to_str().unwrap().split(',').map(|m| m.trim().to_owned()).collect();
        assert_eq!(allowed, shown, "{path}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn the_docs_need_no_outside_address(pool: PgPool) {
    let app = App::new(pool).await;
    let redirect = app.get("/api/v1/docs").await;
    assert_eq!(redirect.headers["location"], "/api/v1/docs/");
    for file in ["", "index.html", "swagger-initializer.js", "index.css"] {
        let answer = app.get(&format!("/api/v1/docs/{file}")).await;
        assert_eq!(answer.status, 200, "{file}");
        let text = answer.body.as_str().unwrap();
        assert!(!text.contains("http://") && !text.contains("https://"), "{file}: {text}");
        if file == "swagger-initializer.js" {
            // By default the page asks a validator on the internet about the document.
            assert!(text.contains(r#""validatorUrl": "none""#), "{text}");
            assert!(text.contains("/api/v1/openapi.json"), "{text}");
        }
    }
    let answer = app.get("/api/v1/openapi.json").await;
    assert_eq!(answer.body, serde_json::from_str::<Value>(&api::openapi_json()).unwrap());
    assert_eq!(app.get("/api/v1/docs/nothing").await.status, 404);
}
