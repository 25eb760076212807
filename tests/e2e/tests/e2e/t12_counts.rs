//! Guarantee 12: counts read through the API every 50 ms: conserved in every answer, and nothing falls that shouldn't. The watch runs
//! during 1, 5 and 6; here it is shown to object.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use e2e::Api;

const BESIDE_PLANNED: [&str; 8] =
    ["created", "retrying", "held", "succeeded", "failed", "expired", "cancelled", "unknown"];
/// The provider answers well where this is used, so nothing leaves these.
const RISING: [&str; 6] = ["planned", "succeeded", "failed", "expired", "cancelled", "unknown"];

/// Reads a mailing's counts until it is told to stop.
pub(crate) struct CountsWatch {
    stop: CancellationToken,
    task: JoinHandle<(usize, Vec<String>)>,
}

impl CountsWatch {
    pub(crate) fn start(api: &Api, mailing: &str) -> Self {
        let stop = CancellationToken::new();
        let (api, mailing, stopped) = (api.clone(), mailing.to_owned(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut answers, mut objections) = (0, vec![]);
            let mut before = None;
            while !stopped.is_cancelled() {
                let counts = api.mailing(&mailing).await["counts"].take();
                objections.extend(object(&counts, before.as_ref()));
                (answers, before) = (answers + 1, Some(counts));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            (answers, objections)
        });
        Self { stop, task }
    }

    /// Ends it: every answer was right.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        let (answers, objections) = self.task.await.unwrap();
        assert!(objections.is_empty(), "of {answers} answers: {objections:#?}");
        assert!(answers > 3, "only {answers} answers were read");
        println!("{answers} answers, each conserved");
    }
}

/// What is wrong with an answer that followed another.
fn object(counts: &Value, before: Option<&Value>) -> Option<String> {
    let n = |of: &Value, name: &str| of[name].as_i64().unwrap_or(i64::MIN / 16);
    let sum: i64 = BESIDE_PLANNED.iter().map(|name| n(counts, name)).sum();
    let planned = n(counts, "planned");
    if planned != sum {
        return Some(format!("planned isn't the sum of the others: {counts}"));
    }
    if counts["audience"].as_i64().is_some_and(|audience| planned > audience) {
        return Some(format!("more is planned than the audience: {counts}"));
    }
    let before = before?;
    let fallen = RISING.iter().find(|name| n(counts, name) < n(before, name))?;
    Some(format!("{fallen} fell: {counts} after {before}"))
}

#[test]
fn the_watch_objects_to_each_wrong_answer() {
    let good = json!({"audience": 10, "planned": 6, "created": 1, "retrying": 1, "held": 0, "succeeded": 4, "failed": 0,
                      "expired": 0, "cancelled": 0, "unknown": 0});
    let with = |changes: &[(&str, Value)]| {
        let mut counts = good.clone();
        for (name, value) in changes {
            counts[*name] = value.clone();
        }
        counts
    };
    assert_eq!(object(&good, None), None);
    assert_eq!(object(&good, Some(&good)), None);
    assert_eq!(object(&with(&[("audience", Value::Null)]), None), None);
    let wrong = [
        ("one is missing", with(&[("created", json!(0))])),
        ("a count is null", with(&[("held", Value::Null)])),
        ("more than the audience", with(&[("audience", json!(5))])),
        ("a terminal count fell", with(&[("succeeded", json!(3)), ("created", json!(2))])),
        ("planned fell", with(&[("planned", json!(5)), ("created", json!(0))])),
    ];
    for (name, counts) in wrong {
        assert!(object(&counts, Some(&good)).is_some(), "{name}");
    }
}
