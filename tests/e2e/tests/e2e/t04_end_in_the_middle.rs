//! Guarantee 4: the end passes in the middle.

use chrono::{TimeDelta, Utc};
use serde_json::json;

use e2e::{Audience, Options, World, instant};

const TEXT: &str = "text-of-the-fourth-test";

/// From the sender's last look at the clock to the provider's first: microseconds, and more on a busy machine.
const ON_THE_WAY: i64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn no_call_begins_after_the_end_and_everybody_else_has_expired() {
    // Slower than the mailing is long, and with calls that are on the wire when it ends.
    let provider = vec![("HERALD_SIM_RATE", "500".to_owned()), ("HERALD_SIM_LATENCY", "20ms..200ms".to_owned())];
    let world = World::new("t04", Options { provider, ..Options::default() }).await;
    let herald = world.start(&["all"]).await;
    let audience = Audience::of(6_000, 916, "ending");
    world.import(&audience).await;
    // Some wait for a retry when it ends.
    world.faults(json!([{"fault": {"status": 500}, "probability": 0.05}])).await;

    let ends_at = (Utc::now() + TimeDelta::seconds(4)).to_rfc3339();
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "ending", "ends_at": ends_at})).await;
    let shown = world.assert_conserved(&mailing, 6_000).await;

    let end = instant(&shown["ends_at"]).timestamp_micros();
    let calls = world.calls().await;
    let last = calls.all().map(|call| call.begun_at).max().unwrap();
    println!("the last call began {} µs before the end", end - last);
    assert!(last < end + ON_THE_WAY, "a call began {} µs after the end", last - end);
    let (succeeded, expired) = (&shown["counts"]["succeeded"], &shown["counts"]["expired"]);
    assert!(succeeded.as_i64() > Some(500) && expired.as_i64() > Some(1_000), "{shown}");
    for message in world.api.messages(&mailing).await.iter().filter(|message| message["status"] == "expired") {
        assert_eq!(message["reason"], "ended", "{message}");
    }
    world.assert_secrecy(&audience, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}
