//! The long runs in which the provider is in trouble.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Act, Score, When};

/// Twenty, in turn.
const TWENTY: [i64; 20] =
    [900, 901, 902, 903, 904, 905, 906, 907, 908, 909, 930, 931, 932, 933, 934, 935, 936, 937, 938, 939];
const FIVE: &[i64] = &[900, 901, 902, 903, 904];
/// The trouble begins when the rate is whole.
const BEGINS: When = When::After(10_000..12_000);
const MINUTE: Duration = Duration::from_secs(60);

/// What leads to a pass, takes part in it, and follows it; and how often each point is passed in one.
const POINTS: [(&str, &str, u64); 6] = [
    ("scheduler", "pass::read", 1),
    ("scheduler", "transaction::written", 5),
    ("scheduler", "pass::committed", 1),
    ("sender", "send::answered", 200),
    ("projector", "project::written", 10),
    ("api", "relay::published", 1),
];
/// How many moments each is tried at.
const MOMENTS: usize = 10;

fn limit(per_second: u32) -> Value {
    json!([{"fault": {"status": 429}, "over_per_second": per_second}])
}

/// The run of this name; `base` is a run by its name, its rate and its acts.
pub(super) fn by_name(name: &str, base: &impl Fn(&'static str, u32, Vec<Act>) -> Score) -> Option<Score> {
    let seconds = Duration::from_secs;
    Some(match name {
        // A minute of nothing but 500, while a mailing of 8 comes that has 8 lanes.
        "provider-outage" => {
            let acts = vec![Act::Provider(
                json!([{"fault": {"status": 500}}]),
                MINUTE,
                vec![Act::Quiet(seconds(20)), Act::Mailing("eight")],
            )];
            Score {
                clients: 50_000,
                targets: vec![
                    // Three senders, each with what opens its breaker, and a probe a second.
                    ("into-outage", f64::from(3 * 256 + 3 * 100 + 3 * 60)),
                    ("exhausted", 0.0),
                    ("planned-meanwhile", 250.0),
                    ("first-second", 0.25),
                    ("lacking", 0.1),
                    ("healed", 20.0),
                    ("again", 0.0),
                ],
                when: BEGINS,
                ..base("outage60", 700, acts)
            }
        }
        // The provider takes a thousand calls a second, and says 429 to the others. One of three senders leaves, and comes back.
        "throttled" => Score {
            clients: 150_000,
            faults: limit(1_000),
            targets: vec![("unused", 0.1), ("throttled", 0.03), ("spent", 0.0), ("again", 0.0)],
            codes: &TWENTY,
            when: When::After(44_000..46_000),
            ..base("throttled", 0, vec![Act::Absent("sender", 1, seconds(40))])
        },
        "throttled-one" => Score {
            clients: 70_000,
            faults: limit(1_000),
            targets: vec![("unused", 0.1), ("throttled", 0.03), ("spent", 0.0), ("again", 0.0)],
            senders: 1,
            when: When::After(1_000..2_000),
            ..base("throttled1", 0, vec![Act::Quiet(seconds(1))])
        },
        // One of five operators is down for a minute.
        "one-operator" => {
            let down = json!([{"fault": {"status": 500}, "operator_codes": [FIVE[0]]}]);
            Score {
                clients: 90_000,
                codes: FIVE,
                targets: vec![("slowed", 0.1), ("first-call", 15.0), ("exhausted", 0.0), ("again", 0.0)],
                when: BEGINS,
                ..base("oneoperator", 800, vec![Act::Provider(down, MINUTE, vec![])])
            }
        }
        // A tenth of all answers is an error, then one of fifty a 429: that is those messages' business and nobody else's.
        "spread" => {
            let errors = json!([{"fault": {"status": 500}, "probability": 0.1}]);
            let throttled = json!([{"fault": {"status": 429}, "probability": 0.02}]);
            Score {
                clients: 90_000,
                codes: FIVE,
                calls: 20,
                targets: vec![("slowed", 0.05), ("closed", 0.0), ("again", 0.0)],
                when: BEGINS,
                ..base(
                    "spread",
                    0,
                    vec![Act::Provider(errors, seconds(20), vec![]), Act::Provider(throttled, seconds(20), vec![])],
                )
            }
        }
        // One operator is down for five seconds, again and again, so that its messages are held, and planned again in
        // numbers. Each role dies over that, ten times at each point, in the trouble and behind it; then there is no
        // projector for a while, and no Kafka while the provider is down.
        "passes" => {
            let down = json!([{"fault": {"status": 500}, "operator_codes": [FIVE[0]]}]);
            let crashes = |(role, point, passings)| {
                let crash = Act::Crash(role, point, passings);
                let meanwhile = Act::Provider(down.clone(), seconds(5), vec![crash.clone()]);
                std::iter::repeat_n([meanwhile, crash], MOMENTS / 2).flatten()
            };
            let mut acts: Vec<Act> = POINTS.into_iter().flat_map(crashes).collect();
            acts.push(Act::Provider(down.clone(), seconds(30), vec![Act::Absent("projector", 2, seconds(25))]));
            let without_kafka = vec![Act::Quiet(seconds(5)), Act::KillKafka(seconds(30))];
            acts.push(Act::Provider(json!([{"fault": "outage"}]), seconds(50), without_kafka));
            Score {
                // For seven minutes of acts, and some that show that it goes on: a mailing is waited for for five.
                clients: 58_000,
                codes: FIVE,
                // What a provider of a hundred a second answers in time.
                calls: 30,
                instances: true,
                when: When::After(100..500),
                ..base("passes", 100, acts)
            }
        }
        // The provider is down, and Kafka goes and comes back meanwhile.
        "both-down" => {
            let down = Act::Provider(
                json!([{"fault": "outage"}]),
                seconds(30),
                vec![Act::Quiet(seconds(3)), Act::KillKafka(seconds(15))],
            );
            Score {
                clients: 20_000,
                codes: FIVE,
                calls: 30,
                instances: true,
                when: When::After(100..500),
                ..base("bothdown", 100, vec![down; 6])
            }
        }
        // A few messages are told to come again later, time after time, while half a million are sent behind them, and a
        // sender dies with little behind them and with much.
        "slow-few" => {
            let slow = json!([{
                "fault": {"retry_after": {"status": 429, "seconds": 20}},
                "cohort": {"modulus": 100_003, "remainder": 7},
            }]);
            let acts = vec![
                Act::Kill("sender"),
                Act::Mailing("others"),
                Act::Kill("sender"),
                Act::Provider(json!([]), seconds(90), vec![]),
            ];
            Score {
                clients: 550_000,
                faults: slow,
                targets: vec![("taken-over", 1.25)],
                when: When::Settled(vec![50_000, 250_000, 500_000, 545_000]),
                ..base("slowfew", 1_000, acts)
            }
        }
        // A million clients, and the end comes after a tenth of them.
        "end" => Score {
            clients: 1_000_000,
            life: Some(seconds(75)),
            targets: vec![("expired", 60.0), ("again", 0.0)],
            when: BEGINS,
            ..base("end", 1_500, vec![Act::Quiet(seconds(1))])
        },
        _ => return None,
    })
}
