//! Guarantee 1: a mailing reaches exactly its audience.

use std::collections::BTreeSet;

use serde_json::json;

use crate::t12_counts::CountsWatch;
use e2e::{Audience, Options, World};

const TEXT: &str = "Текст для двадцати тысяч";

#[tokio::test(flavor = "multi_thread")]
async fn a_mailing_reaches_exactly_its_audience_once() {
    let world = World::new("t01", Options { partitions: Some(6), ..Options::default() }).await;
    let herald = world.start(&["all"]).await;
    let wanted = Audience::of(20_000, 916, "wanted");
    let everybody = wanted.clone().and(10_000, 916, "another").and(10_000, 917, "wanted").and(10_000, 918, "another");
    world.import(&everybody).await;

    let filter = json!({"mobile_operator_codes": [916], "tags": ["wanted"]});
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": filter})).await;
    let watch = CountsWatch::start(&world.api, &mailing);
    let shown = world.assert_conserved(&mailing, 20_000).await;
    watch.finish().await;
    assert_eq!(shown["counts"]["succeeded"], 20_000, "{shown}");

    let calls = world.calls().await;
    assert_eq!(calls.all().count(), 20_000, "each of them is called once");
    assert_eq!(&calls.all().map(|call| call.phone).collect::<BTreeSet<_>>(), wanted.phones());
    assert!(calls.all().all(|call| call.text == TEXT));
    world.assert_secrecy(&everybody, &[TEXT], &[&herald]).await;
    herald.terminate().await;
    world.clean_up().await;
}
