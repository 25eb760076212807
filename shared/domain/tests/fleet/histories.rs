//! Random histories.

use std::time::Duration;

use domain::mailing::{Delivery, State};

use crate::network::Fault;
use crate::provider::{Outage, Trouble};
use crate::random::Random;
use crate::world::{Config, Event, MILLI, SECOND, World};

fn outage(random: &mut Random, codes: u64) -> Outage {
    let from = random.between(0, 60) * SECOND;
    let trouble = [
        Trouble::Refuses,
        Trouble::Refuses,
        Trouble::Hangs,
        Trouble::Forbidden,
        Trouble::Unreadable,
        Trouble::Throttles,
    ];
    Outage {
        from,
        to: from + random.between(1, 90) * SECOND,
        code: random.chance(0.5).then(|| 900 + random.between(0, codes).cast_signed()),
        trouble: trouble[random.between(0, 6) as usize],
    }
}

fn fault(random: &mut Random, senders: u64, mailings: &[(i64, i64)]) -> Fault {
    let sender = random.between(0, senders) as usize;
    let micros = random.between(100, 30_000) * MILLI;
    let (mailing_no, clients) = mailings[random.between(0, mailings.len() as u64) as usize];
    match random.between(0, 10) {
        0 | 1 => Fault::Kill { sender, restart_after: micros },
        2 | 3 => Fault::Leave { sender, join_after: micros },
        4 => Fault::Freeze { sender, micros },
        5 => Fault::SchedulerDown { micros },
        6 => Fault::ProjectorDown { micros },
        7 => Fault::Erase {
            client_no: mailing_no * 1_000_000 + 1 + random.between(0, clients.cast_unsigned()).cast_signed(),
        },
        8 => Fault::State { mailing_no, state: State::Cancelled },
        _ => Fault::State { mailing_no, state: State::Paused },
    }
}

fn history(seed: u64) -> World {
    let mut random = Random::new(seed ^ 0x5eed);
    let partitions = if random.chance(0.5) { 4 } else { 12 };
    let (senders, codes) = (1 + random.between(0, 3), 1 + random.between(0, 6));
    let config = Config {
        partitions,
        senders: senders as usize,
        slots: if random.chance(0.3) { 200 } else { 1_000 },
        concurrency: 1 + random.between(0, 64) as usize,
        ..Config::default()
    };
    let mut world = World::new(config, seed);
    let provider = &mut world.provider;
    provider.latency = random.between(1, 300) * MILLI;
    provider.error_share = [0.0, 0.0, 0.1, 0.3][random.between(0, 4) as usize];
    provider.throttled_share = [0.0, 0.0, 0.02, 0.2][random.between(0, 4) as usize];
    provider.lost_share = [0.0, 0.0, 0.0, 0.05][random.between(0, 4) as usize];
    provider.rejected_share = [0.0, 0.1][random.between(0, 2) as usize];
    provider.limit = random.chance(0.2).then(|| random.between(5, 100) as f64);
    provider.retry_after = random.chance(0.3).then(|| Duration::from_secs(random.between(0, 20)));
    provider.outages = (0..random.between(0, 3)).map(|_| outage(&mut random, codes)).collect();
    let mut mailings = Vec::new();
    for no in 1..=1 + random.between(0, 3).cast_signed() {
        let most = [10, 100, 400][random.between(0, 3) as usize];
        let clients = random.between(1, most).cast_signed();
        let starts_at = random.between(0, 40) * SECOND;
        let lasts = if random.chance(0.2) { random.between(1, 60) } else { 3_000 };
        let codes: Vec<i64> = (900..900 + codes.cast_signed()).collect();
        world.mailing(no, clients, &codes, starts_at, starts_at + lasts * SECOND);
        if random.chance(0.2) {
            world.mailings.get_mut(&no).unwrap().delivery = Delivery::AtMostOnce;
        }
        mailings.push((no, clients));
    }
    if random.chance(0.5) {
        for _ in 0..random.between(1, 5) {
            let at = random.between(0, 100_000) * MILLI;
            let fault = fault(&mut random, senders, &mailings);
            if let Fault::State { mailing_no, state: State::Paused } = fault {
                let resume = Fault::State { mailing_no, state: State::Running };
                world.at(at + random.between(1, 60_000) * MILLI, Event::Fault(resume));
            }
            world.at(at, Event::Fault(fault));
        }
    }
    world
}

fn play(seed: u64) {
    println!("seed {seed}");
    let mut world = history(seed);
    println!("{:?} {:?}", world.config, world.provider);
    world.run();
}

#[test]
fn whatever_happens_every_message_is_settled_and_nobody_is_called_too_often() {
    if let Some(seed) = std::env::var("FLEET_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return play(seed);
    }
    let histories = std::env::var("FLEET_HISTORIES").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000);
    let mut failed = Vec::new();
    for seed in 0..histories {
        if let Err(error) = std::panic::catch_unwind(|| history(seed).run()) {
            let text =
                error.downcast_ref::<String>().cloned().or(error.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            failed.push((seed, text));
        }
    }
    assert!(
        failed.is_empty(),
        "FLEET_SEED={}: {} of {histories} histories fail: {failed:?}",
        failed[0].0,
        failed.len()
    );
}
