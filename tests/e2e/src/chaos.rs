//! The conductor: an installation of separate processes that is broken by a plan while it sends one mailing, a journal of
//! what was done to it, and the judge (`tests/judge`, which shares no code with Herald) over what came of it.

mod acts;
mod journal;
pub mod scores;
mod trouble;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::program::{Program, free_addr};
use crate::proxy::Proxy;
use crate::{Audience, Options, Servers, World, eventually};
pub use acts::{Act, Link};
use journal::Journal;

/// How long the mailing may take after the last act.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is played.
pub struct Score {
    /// Of the run, for its database and topics.
    pub name: &'static str,
    /// Decides all that is drawn.
    pub seed: Option<u64>,
    /// Of three each partition has three copies.
    pub brokers: usize,
    /// The size of the mailing.
    pub clients: usize,
    /// Its clients' operator codes, in turn.
    pub codes: &'static [i64],
    /// From the mailing's creation to its end; else there is time for all.
    pub life: Option<Duration>,
    /// How the provider behaves: `HERALD_SIM_…`.
    pub provider: Vec<(&'static str, String)>,
    /// The faults that it has when no act changes them.
    pub faults: Value,
    /// `at_least_once` or `at_most_once`.
    pub delivery: &'static str,
    /// How many senders there are, beside two of each other role.
    pub senders: usize,
    /// How many calls each makes at once.
    pub calls: usize,
    /// Who takes a place goes on as the instance that was there before (`HERALD_STATE_DIR`).
    pub instances: bool,
    /// What is done to it, one after the other.
    pub acts: Vec<Act>,
    /// When.
    pub when: When,
    /// What the judge asks of the run, see `judge judge --help`.
    pub targets: Vec<(&'static str, f64)>,
}

/// When the acts happen.
pub enum When {
    /// So many ms after the one before, drawn for each.
    After(std::ops::Range<u64>),
    /// As soon as so many messages are settled, for each.
    Settled(Vec<usize>),
}

/// A process of a role, and the one that takes its place when it dies, and so on.
struct Place {
    role: &'static str,
    number: usize,
    life: usize,
    env: Vec<(&'static str, String)>,
    program: Program,
}

/// An installation under fire.
struct Stage {
    world: World,
    servers: Servers,
    journal: Journal,
    places: Vec<Place>,
    /// Each sender's way to the provider, if one is made a bad one.
    ways: Vec<Proxy>,
    faults: Value,
    mailings: Vec<String>,
    targets: Vec<(&'static str, f64)>,
}

/// Plays a score to the mailing's end, and fails unless the judge has no objection.
pub async fn play(score: Score) {
    let servers = Servers::with_brokers(score.brokers).await;
    let options = Options {
        partitions: None,
        provider: score.provider,
        env: vec![
            ("HERALD_TOPIC_REPLICATION", score.brokers.to_string()),
            ("HERALD_SENDER_CONCURRENCY", score.calls.to_string()),
        ],
        brokers: Some(servers.brokers()),
        postgres: Some(servers.url()),
        seed: score.seed,
    };
    let world = World::new(score.name, options).await;
    world.topics_known().await;
    let journal = Journal::create(&world.folder().join("journal.ndjson"));
    let mut ways = vec![];
    if score.acts.iter().any(|act| matches!(act, Act::Network(..))) {
        for _ in 0..score.senders {
            let [port] = devstack::free_ports().unwrap();
            ways.push(Proxy::start(port, world.provider.add_sender()).await);
        }
    }
    let mut stage = Stage {
        world,
        servers,
        journal,
        places: vec![],
        ways,
        faults: score.faults,
        mailings: vec![],
        targets: score.targets,
    };
    stage.enter(score.senders, score.instances).await;

    stage
        .world
        .import(
            &Audience::default()
                .over(score.clients, score.codes, "chaos")
                .and(score.clients / 10, 917, "others")
                .and(20, 918, "few")
                .over(8, &[920, 921, 922, 923, 924, 925, 926, 927], "eight"),
        )
        .await;
    stage.world.faults(stage.faults.clone()).await;
    stage.journal.write("fault", "provider", "provider", &stage.faults.to_string());
    let sampler = stage.sampler();
    let mut request = json!({"text": "a text under fire", "filter": "chaos", "delivery": score.delivery});
    if let Some(life) = score.life {
        request["ends_at"] = json!((chrono::Utc::now() + life).to_rfc3339());
    }
    let mailing = stage.world.api.create_mailing(&request).await;
    stage.journal.mailing(&mailing);
    stage.mailings.push(mailing.clone());
    for (number, act) in score.acts.iter().enumerate() {
        match &score.when {
            When::After(pause) => {
                let pause = stage.world.random(pause.clone());
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            When::Settled(moments) => stage.until_settled(&mailing, moments[number]).await,
        }
        let settled = stage.settled(&mailing).await;
        assert!(
            settled < score.clients,
            "all was settled before act {number} of {}: it proves nothing",
            score.acts.len()
        );
        println!("{settled:>7} settled, act {number}: {act:?}");
        stage.perform(act).await;
    }
    let last_act = Instant::now();
    for mailing in &stage.mailings {
        stage.finished(mailing).await;
    }
    println!("finished {:.1} s after the last act", last_act.elapsed().as_secs_f64());
    stage.leave(sampler).await;
}

impl Stage {
    async fn enter(&mut self, senders: usize, instances: bool) {
        for (role, count) in [("api", 2), ("scheduler", 2), ("sender", senders), ("projector", 2)] {
            for number in 1..=count {
                let mut env = vec![("HERALD_OPS_ADDR", free_addr())];
                if role == "sender" && number == 1 {
                    env.push(("HERALD_KAFKA_BROKERS", self.servers.detour()));
                }
                if role != "sender" && !self.ways.is_empty() {
                    let direct = self.world.database_url();
                    let ports = self.servers.postgres_ports().map(|port| format!(":{port}/"));
                    env.push(("DATABASE_URL", direct.replace(&ports[0], &ports[1])));
                }
                if role == "api" && number > 1 {
                    env.push(("HERALD_API_ADDR", free_addr()));
                }
                if instances && role != "api" {
                    let state = self.world.folder().join(format!("state-{role}-{number}"));
                    env.push(("HERALD_STATE_DIR", state.display().to_string()));
                }
                let program = self.launch(role, number, 1, &env);
                self.places.push(Place { role, number, life: 1, env, program });
            }
        }
        for place in &mut self.places {
            place.program.ready().await;
        }
    }

    fn launch(&self, role: &'static str, number: usize, life: usize, env: &[(&'static str, String)]) -> Program {
        let name = format!("{role}-{number}.{life}");
        let ops = env.iter().find(|(name, _)| *name == "HERALD_OPS_ADDR").map(|(_, addr)| addr.as_str());
        // A port for each life, not for each place: what a killed one still had on the wire isn't the next one's.
        let sender = (role == "sender").then(|| self.world.provider.add_sender());
        self.journal.start(role, &name, ops, sender);
        let provider = sender.map(|sender| {
            let way = self.ways.get(number - 1).inspect(|way| way.lead_to(sender));
            ("HERALD_PROVIDER_URL", format!("http://127.0.0.1:{}", way.map_or(sender, Proxy::port)))
        });
        self.world.launch("herald", &[role], &name, &[env, provider.as_slice()].concat())
    }

    /// How many of the mailing's messages came back from a sender at least once; 0 while Postgres is away.
    async fn settled(&self, mailing: &str) -> usize {
        let query =
            "SELECT coalesce(sum(n - again), 0)::bigint FROM mailing_settled_rounds JOIN mailings USING (mailing_no)
                     WHERE id = $1::uuid";
        let settled = sqlx::query_scalar::<_, i64>(query).bind(mailing).fetch_one(&self.world.db).await;
        usize::try_from(settled.unwrap_or(0)).unwrap()
    }

    /// Waits for as long as there are more and more.
    async fn until_settled(&self, mailing: &str, messages: usize) {
        let mut settled = 0;
        while settled < messages {
            let more = async || Some(self.settled(mailing).await).filter(|now| *now > settled);
            settled = eventually("more messages to be settled", more).await;
        }
    }

    async fn finished(&self, mailing: &str) {
        let started = Instant::now();
        loop {
            let query = "SELECT state FROM mailings WHERE id = $1::uuid";
            let state = sqlx::query_scalar::<_, String>(query).bind(mailing).fetch_one(&self.world.db).await;
            if state.is_ok_and(|state| state == "finished") {
                return;
            }
            if started.elapsed() > PATIENCE {
                panic!("the mailing isn't finished, {} have come back", self.settled(mailing).await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What both runs of the judge are told.
    fn judge_args(&self, verb: &str) -> Vec<String> {
        let samples = self.world.folder().join("samples.ndjson").display().to_string();
        let mut args = vec![verb.to_owned()];
        for (name, value) in [
            ("--brokers", self.servers.brokers()),
            ("--prefix", self.world.prefix().to_owned()),
            ("--database-url", self.world.database_url()),
            ("--samples", samples),
        ] {
            args.extend([name.to_owned(), value]);
        }
        args
    }

    /// Watches the run from outside.
    fn sampler(&self) -> Program {
        let mut args = self.judge_args("sample");
        let ops: Vec<&str> = self.places.iter().map(|place| place.program.ops.as_str()).collect();
        let mut api = vec![format!("http://{}", self.world.api.addr())];
        let others = self.places.iter().flat_map(|place| &place.env).filter(|(name, _)| *name == "HERALD_API_ADDR");
        api.extend(others.map(|(_, addr)| format!("http://{addr}")));
        args.extend(["--api".to_owned(), api.join(","), "--ops".to_owned(), ops.join(",")]);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        self.world.launch("judge", &args, "sampler", &[])
    }

    /// Ends all in good order, and lets the judge speak.
    async fn leave(mut self, sampler: Program) {
        for place in &mut self.places {
            assert!(place.program.is_running(), "{} has ended by itself", place.program.name);
        }
        // The senders first: what they still write must reach the tables.
        let (senders, others) = self.places.drain(..).partition(|place| place.role == "sender");
        self.end(senders).await;
        self.world.projected().await;
        self.end(others).await;
        let mut args = self.judge_args("judge");
        let folder = self.world.folder();
        for (name, value) in [
            ("--provider-log", folder.join("calls.ndjson").display().to_string()),
            ("--journal", folder.join("journal.ndjson").display().to_string()),
            ("--logs", folder.display().to_string()),
            ("--token", self.world.token().to_owned()),
        ] {
            args.extend([name.to_owned(), value]);
        }
        args.extend(self.targets.iter().flat_map(|(name, most)| [format!("--{name}"), most.to_string()]));
        sampler.terminate().await;
        self.world.provider_stats().await;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let judged = crate::program::command("judge", &args, &[]).output().unwrap();
        println!("{}", String::from_utf8_lossy(&judged.stdout));
        assert!(judged.status.success(), "the judge objects: {}", String::from_utf8_lossy(&judged.stderr));
    }

    async fn end(&self, places: Vec<Place>) {
        for place in &places {
            self.journal.write("term", place.role, &place.program.name, "");
            place.program.signal(Signal::SIGTERM);
        }
        for place in places {
            place.program.ended().await;
        }
    }
}
