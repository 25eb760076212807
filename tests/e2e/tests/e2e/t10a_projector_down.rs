//! Guarantee 10a: the projector is down.

use serde_json::json;

use e2e::{Audience, Options, World};

const TEXT: &str = "text-of-the-test-10a";
const CLIENTS: usize = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn sending_goes_on_to_the_end_without_a_projector_and_rows_are_exact_when_it_is_back() {
    let world = World::new("t10a", Options::default()).await;
    let others = [world.start(&["api"]).await, world.start(&["scheduler"]).await, world.start(&["sender"]).await];
    let audience = Audience::of(CLIENTS, 916, "unseen");
    world.import(&audience).await;
    let mailing = world.api.create_mailing(&json!({"text": TEXT, "filter": "unseen"})).await;
    world.accepted(CLIENTS as u64).await;
    let shown = world.api.mailing(&mailing).await;
    assert_eq!((&shown["state"], &shown["counts"]["succeeded"]), (&json!("running"), &json!(0)), "{shown}");

    let projector = world.start(&["projector"]).await;
    let shown = world.assert_conserved(&mailing, CLIENTS).await;
    assert_eq!(shown["counts"]["succeeded"], CLIENTS, "{shown}");
    assert_eq!(world.calls().await.all().count(), CLIENTS, "each is called once");
    let running: Vec<_> = others.iter().chain([&projector]).collect();
    world.assert_secrecy(&audience, &[TEXT], &running).await;
    for program in others.into_iter().chain([projector]) {
        program.terminate().await;
    }
    world.clean_up().await;
}
