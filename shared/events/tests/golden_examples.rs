//! Each wire form is pinned by an example under `kafka/examples/`: renaming a field in Rust must break a test, not a reader.

#![expect(clippy::unwrap_used, reason = "clippy takes helpers of tests for code")]

use std::fs;
use std::path::Path;

use events::{
    DatabaseRecord, DeadLetter, Event, MailingEvent, MessageEvent, ProgressRecord, StatusEvent, decode, encode,
};
use serde_json::Value;

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kafka/examples").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads the example, writes it again, and expects the same JSON.
fn assert_pinned<E: Event>(name: &str) -> E {
    let text = example(name);
    let event: E = decode(Some(text.as_bytes())).unwrap();
    let written: Value = serde_json::from_slice(&encode(&event).unwrap()).unwrap();
    assert_eq!(written, serde_json::from_str::<Value>(&text).unwrap(), "{name}");

    let mut newer: Value = written;
    newer["a_field_of_a_newer_version"] = Value::from(1);
    decode::<E>(Some(newer.to_string().as_bytes())).expect("unknown fields are ignored");
    event
}

#[test]
fn every_example_is_read_and_written_back_to_the_letter() {
    assert_pinned::<MailingEvent>("mailing-events.v1/scheduled.json");
    assert_pinned::<MailingEvent>("mailing-events.v1/cancelled.json");
    assert_pinned::<ProgressRecord>("planning-progress.v1/half-planned.json");
    assert_pinned::<ProgressRecord>("planning-progress.v1/in-a-pass.json");
    assert_pinned::<MessageEvent>("message-events.v1/first-round.json");
    assert_pinned::<MessageEvent>("message-events.v1/erased-client.json");
    assert_pinned::<StatusEvent>("status-events.v1/started.json");
    assert_pinned::<StatusEvent>("status-events.v1/retrying.json");
    assert_pinned::<StatusEvent>("status-events.v1/succeeded.json");
    assert_pinned::<StatusEvent>("status-events.v1/expired.json");
    assert_pinned::<DeadLetter>("dead-letters.v1/undecodable.json");
    assert_pinned::<DatabaseRecord>("database.v1/recorded.json");
}

#[test]
fn a_word_of_a_newer_version_is_passed_on() {
    let event = assert_pinned::<StatusEvent>("status-events.v1/a-newer-word.json");
    assert_eq!(event.status.as_str(), "bounced");
    assert!(event.status.is_terminal());
}

#[test]
fn no_example_is_unread() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../kafka/examples");
    let files = fs::read_dir(folder).unwrap().flat_map(|topic| fs::read_dir(topic.unwrap().path()).unwrap());
    assert_eq!(files.count(), 13);
}

#[test]
fn an_event_over_the_cap_is_refused() {
    let mut event: MailingEvent = decode(Some(example("mailing-events.v1/scheduled.json").as_bytes())).unwrap();
    event.text = "x".repeat(events::MAX_EVENT_BYTES);
    assert!(matches!(encode(&event), Err(events::EncodeError::TooLarge(_))));
}

#[test]
fn a_decode_error_repeats_no_value() {
    let error = decode::<MessageEvent>(Some(br#"{"message_id":"79161234567"}"#)).unwrap_err();
    assert!(!error.to_string().contains("7916"), "{error}");
    assert!(matches!(decode::<MessageEvent>(None), Err(events::DecodeError::Empty)));
}

#[test]
fn details_hold_no_phone_number() {
    let masked = events::mask_detail("no route for 79161234567, code 12\nbye");
    assert_eq!(masked, "no route for #, code 12 bye");
    assert!(events::mask_detail(&"я".repeat(500)).chars().count() <= 201);
}
