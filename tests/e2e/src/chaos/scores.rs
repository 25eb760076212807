//! The long runs.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::{Act, Link, Score, When, trouble};
use crate::{PostgresEnd, Way};

/// Each by its name.
pub const ALL: [&str; 23] = [
    "kills",
    "once",
    "crashes",
    "replays",
    "rolling",
    "suspended",
    "cut",
    "stalled",
    "network",
    "storm",
    "broker",
    "brokers",
    "outage",
    "postgres",
    "provider-outage",
    "throttled",
    "throttled-one",
    "one-operator",
    "spread",
    "passes",
    "both-down",
    "slow-few",
    "end",
];

/// Where processes die, and how often the point is passed in a second or so.
const POINTS: [(&str, &str, u64); 16] = [
    ("api", "relay::read", 1),
    ("api", "relay::published", 1),
    ("api", "transaction::written", 1),
    ("scheduler", "plan::started", 1),
    ("scheduler", "plan::read", 5),
    ("scheduler", "transaction::written", 5),
    ("scheduler", "plan::committed", 5),
    ("scheduler", "group::commit", 10),
    ("sender", "send::replayed", 4),
    ("sender", "send::permitted", 200),
    ("sender", "send::answered", 200),
    ("sender", "send::acknowledged", 200),
    ("sender", "group::commit", 10),
    ("projector", "project::moved", 10),
    ("projector", "project::written", 10),
    ("projector", "project::committed", 10),
];
/// How many moments each is tried at.
const MOMENTS: usize = 10;

const KILLS: usize = 50;
/// A sender's calls at once where kills are counted, for so many are in doubt after one: three senders could make 3,800 of
/// 50 ms in a second, and two cores do no more.
const CALLS: usize = 64;

const ROLES: [&str; 4] = ["api", "scheduler", "sender", "projector"];

/// The run of this name, with all that is drawn for it; none if there isn't one.
pub fn by_name(name: &str, seed: u64) -> Option<Score> {
    let mut rng = StdRng::seed_from_u64(seed);
    let errors = json!([{"fault": {"status": 500}, "probability": 0.02}]);
    let kills = |rng: &mut StdRng| (0..KILLS).map(|_| Act::Kill(ROLES.choose(rng).unwrap())).collect();
    // Some are alone, and some come while what another one broke isn't whole yet.
    let anywhere = |rng: &mut StdRng, messages: usize| {
        let mut moments: Vec<usize> = (0..KILLS).map(|_| rng.random_range(0..messages)).collect();
        moments.sort_unstable();
        When::Settled(moments)
    };
    let base = |name: &'static str, rate: u32, acts: Vec<Act>| Score {
        name,
        seed: Some(seed),
        brokers: 1,
        clients: 200_000,
        codes: &[916],
        life: None,
        provider: vec![("HERALD_SIM_LATENCY", "50ms".to_owned()), ("HERALD_SIM_RATE", rate.to_string())],
        faults: Value::Array(vec![]),
        delivery: "at_least_once",
        senders: 3,
        calls: 256,
        instances: false,
        acts,
        when: When::After(500..1_500),
        targets: vec![],
    };
    Some(match name {
        // 50 kills over all services, anywhere in the mailing.
        "kills" => Score {
            faults: errors,
            targets: vec![("again", 0.05), ("done", 30.0)],
            calls: CALLS,
            instances: true,
            when: anywhere(&mut rng, 190_000),
            ..base("kills", 0, kills(&mut rng))
        },
        // The same, and nobody may be called twice; what a kill leaves unknown is what could be on the wire.
        "once" => Score {
            faults: errors,
            delivery: "at_most_once",
            targets: vec![("again", 0.0), ("unknown", CALLS as f64), ("done", 30.0)],
            calls: CALLS,
            instances: true,
            when: anywhere(&mut rng, 190_000),
            ..base("once", 0, kills(&mut rng))
        },
        // At each step of planning, sending, committing and projecting.
        "crashes" => {
            let crash = |(role, point, passings)| std::iter::repeat_n(Act::Crash(role, point, passings), MOMENTS);
            Score {
                faults: errors,
                // The next one to die at a point must have something to do by then.
                instances: true,
                when: When::After(100..500),
                ..base("crashes", 250, POINTS.into_iter().flat_map(crash).collect())
            }
        }
        // 20 rounds in which a process of each role is replaced in good order: nothing may be doubled.
        "rolling" => Score {
            targets: vec![("again", 0.0), ("idle", 5.0)],
            ..base("rolling", 1_000, (0..20).flat_map(|_| ROLES.map(Act::Terminate)).collect())
        },
        "suspended" => {
            let seconds = Duration::from_secs;
            let acts = vec![Act::Suspend("sender", seconds(60)), Act::Suspend("scheduler", seconds(30))];
            base("suspended", 1_500, acts)
        }
        // A sender without Kafka but with its provider: no call begins once its lease has run out.
        "cut" => base("cut", 1_500, vec![Act::Network(vec![(Link::Kafka, Way::Lost)], Duration::from_secs(20)); 3]),
        // The same, but what is held arrives at last. The mailing ends in the second stall: the sender that knows it by its
        // clock alone may not say so.
        "stalled" => Score {
            clients: 60_000,
            life: Some(Duration::from_secs(44)),
            when: When::After(5_000..7_000),
            ..base("stalled", 1_000, vec![Act::Network(vec![(Link::Kafka, Way::Slow(0))], Duration::from_secs(20)); 2])
        },
        // Postgres and the provider are away or slow, alone and together.
        "network" => {
            Score { clients: 80_000, when: When::After(2_000..4_000), ..base("network", 1_000, bad_network()) }
        }
        // Senders die while they replay, from the start of the log as well, and at their first calls after it.
        "replays" => {
            let first = |point| Act::Crash("sender", point, 3);
            let acts = vec![
                Act::Replays(3),
                first("send::permitted"),
                first("send::replayed"),
                first("send::answered"),
                Act::Replays(3),
            ];
            Score { clients: 60_000, when: When::After(3_000..6_000), ..base("replays", 600, acts) }
        }
        // 8 senders, each replaced 16 times, by either signal.
        "storm" => {
            let mut act = |_| if rng.random() { Act::Kill("sender") } else { Act::Terminate("sender") };
            Score { senders: 8, when: When::After(200..800), ..base("storm", 1_000, (0..128).map(&mut act).collect()) }
        }
        "broker" => Score {
            when: When::After(13_000..20_000),
            targets: vec![("back", 15.0)],
            ..base("broker", 800, (0..10).map(|_| Act::KillKafka(Duration::from_millis(500))).collect())
        },
        // Two of three always run, and have all that was acknowledged.
        "brokers" => Score {
            brokers: 3,
            clients: 100_000,
            // The cluster takes 9 s to notice a dead broker.
            when: When::After(16_000..20_000),
            targets: vec![("back", 15.0)],
            ..base(
                "brokers",
                600,
                [500, 15_000]
                    .iter()
                    .flat_map(|away| (0..3).map(|broker| Act::KillBroker(broker, Duration::from_millis(*away))))
                    .collect(),
            )
        },
        // Longer than a transaction may last: the broker finds overdue ones when it starts. And about as long as a session:
        // an instance that the group has forgotten must not end by that.
        "outage" => Score {
            clients: 60_000,
            instances: true,
            when: When::After(13_000..16_000),
            ..base("outage", 800, (0..5).map(|_| Act::KillKafka(Duration::from_secs(11))).collect())
        },
        "postgres" => {
            let ends = [PostgresEnd::Kill, PostgresEnd::Fast, PostgresEnd::Immediate].into_iter().cycle();
            let acts = ends.map(|end| Act::EndPostgres(end, Duration::from_secs(1))).take(12).collect();
            Score {
                when: When::After(3_000..6_000),
                targets: vec![("again", 0.0), ("back", 5.0)],
                ..base("postgres", 1_500, acts)
            }
        }
        _ => return trouble::by_name(name, &base),
    })
}

fn bad_network() -> Vec<Act> {
    use Link::{Postgres, Provider};
    // A call takes seconds then, and a batch of the projector longer than its Postgres may.
    let (slow_provider, slow_postgres) = (Way::Slow(300), Way::Slow(100_000));
    let bad = |links: &[(Link, Way)], seconds| Act::Network(links.to_vec(), Duration::from_secs(seconds));
    vec![
        bad(&[(Postgres, Way::Reset)], 3),
        bad(&[(Provider, Way::Reset)], 3),
        bad(&[(Postgres, slow_postgres)], 10),
        bad(&[(Provider, slow_provider)], 10),
        bad(&[(Postgres, Way::Reset), (Provider, Way::Reset)], 3),
        bad(&[(Postgres, slow_postgres), (Provider, slow_provider)], 10),
        bad(&[(Postgres, Way::Lost), (Provider, slow_provider)], 10),
        bad(&[(Postgres, Way::Slow(0)), (Provider, Way::Slow(0))], 8),
    ]
}
